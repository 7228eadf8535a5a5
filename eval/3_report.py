"""Compare the policies of one run: every metric in results.json, and two reports to read (paper 4 and Algorithm 2).

Metrics are means over the answers to the test split. The validation split chooses the best policy, Algorithm 2's
output, from all that are given: it is the baseline if no round is better. The setting VALIDATION says by what: by
true_reward, by reward_model (the proxy reward less LENGTH_PENALTY a character), or by another annotator's rewards for
the answers of all policies side by side (--validation_file). Where rows carry no true_rewards and correct (every recipe
but the tiny world's), or no rewards, what follows from them is null, in tables "-". Without the setting the true reward
chooses where it is known, else the proxy.

Reads:  --answers, a file for each policy in a directory of the policy's name, {"id", "prompt", "source"?, "split":
        "validation" or "test", "responses", "finish_reasons", "kl", "rewards"? (the proxy), "true_rewards"?,
        "correct"?}
        --training, model directories with trainer_state.json; one called policy has the name of its parent
        --settings, lines NAME=value as a shell reads them, with RECIPE and SEED
        --log_dir, files STEP.seconds, such as iter2/pairs.seconds
        --validation_file, the annotated rows of generation/2b_merge.py, "rewards" in the order of --answers
        --measures, the .json files of reward_modeling/3_rewardbench.py and those after it, with figures beside them
        --benchmarks, POLICY/BENCHMARK/BENCHMARK.json, the results of eval/2a_alpaca_eval.py to 2d_academic.py
Writes: --output_dir, results.json, report.md and report.html (one file, no scripts)

    python eval/3_report.py --answers runs/tiny/eval/sft/kl.jsonl runs/tiny/eval/iter1/kl.jsonl \
        --training runs/tiny/sft runs/tiny/reward_model runs/tiny/iter1/policy \
        --settings runs/tiny/settings --log_dir runs/tiny/log --output_dir runs/tiny
"""

import contextlib
import itertools
import sys
import time
from pathlib import Path
from statistics import StatisticsError, correlation, fmean, stdev

import report_environment
import report_inputs
from common import arguments, outputs, rows

# Each metric is the mean of a field of the rows that holds one number for each response.
METRICS = {
    "true_reward": "true_rewards",
    "win_rate": "wins",
    "proxy_reward": "rewards",
    "accuracy": "correct",
}
METRICS |= {"length": "lengths", "kl": "kl", "truncated": "truncated"}
FILES = ("report.md", "report.html", "results.json")
GAP = 0.25  # standard deviations that the proxy may gain over the true reward


def kind_of(path):
    """Of the rows of a file of answers: without a reward model they have no rewards."""
    return "rewards" if any("rewards" in row for row in rows.read(path)) else "responses"


def read_answers(paths):
    """{policy: its rows in the order of the baseline's}, with the fields of METRICS that the files leave out."""
    policies, base = {}, []
    for path in paths:
        name = Path(path).absolute().parent.name
        if name in policies:
            sys.exit(f"{path}: a second file of the policy {name}; the directory names the policy")
        n = len(base[0]["responses"]) if base else None
        answers = list(
            rows.read(path, kind_of(path), n, also=("kl",), if_there=("true_rewards", "correct"))
        )
        base = base or answers
        optional = ("rewards", "true_rewards", "correct")
        known = [field for field in optional if any(field in row for row in base + answers)]
        for row in answers:
            if row.get("split") not in ("validation", "test"):
                rows.refuse(row, "split: not validation or test")
            for field in known:
                if row.get(field) is None:
                    rows.refuse(row, f"{field}: missing, other rows have it")
        own, its = ({row["id"]: row for row in part} for part in (answers, base))
        for key in its | own:
            if any(
                own.get(key, {}).get(field) != its.get(key, {}).get(field)
                for field in ("id", "prompt", "split")
            ):
                sys.exit(
                    f"{path}: id: {key!r} is not here and in {paths[0]} with the same prompt and split"
                )
        policies[name] = [own[key] for key in its]
        for row, other in zip(policies[name], base, strict=True):
            row["lengths"] = [len(text) for text in row["responses"]]
            row["truncated"] = [reason == "length" for reason in row["finish_reasons"]]
            if "true_rewards" in other:  # a tie counts one half
                pairs = zip(row["true_rewards"], other["true_rewards"], strict=True)
                row["wins"] = [((a > b) + (a >= b)) / 2 for a, b in pairs]
    if min(sum(row["split"] == split for row in base) for split in ("validation", "test")) < 2:
        sys.exit(f"{paths[0]}: split: fewer than two rows of validation or of test")
    return policies


def per_prompt(answers, metric):
    return [fmean(row[METRICS[metric]]) for row in answers if METRICS[metric] in row]


def measure(answers, split):
    answers = [row for row in answers if row["split"] == split]
    values = {metric: per_prompt(answers, metric) for metric in METRICS}
    result = {metric: fmean(value) if value else None for metric, value in values.items()}
    wins, kinds = values["win_rate"], {}
    for row in answers:
        kinds.setdefault(str(row.get("source", "-")), []).extend(row.get("correct", []))
    result["win_rate_stderr"] = stdev(wins) / len(wins) ** 0.5 if wins else None
    result["accuracy_by_source"] = {
        kind: fmean(correct) for kind, correct in sorted(kinds.items()) if correct
    }
    return result | {"prompts": len(answers)}


def choice(scores, settings, args):
    """Who chooses the best policy, and how: {"by", "scores": {policy: value}, "penalty", "is_proxy"}.

    by: true_reward, proxy_reward, or the annotator; penalty: a character's, of the proxy reward; is_proxy: the policies
    were trained for what chooses them.
    """
    known = None not in [score["true_reward"] for score in scores.values()]
    chooser = settings.get("VALIDATION") or ("true_reward" if known else "reward_model")
    by, penalty = {"reward_model": "proxy_reward"}.get(chooser, chooser), 0.0
    if chooser in ("true_reward", "reward_model"):
        values = {name: score["validation"][by] for name, score in scores.items()}
        if None in values.values():
            sys.exit(f"{args.settings}: VALIDATION: {chooser}, and not all answers carry it")
    else:
        if not args.validation_file:
            sys.exit(f"{args.settings}: VALIDATION: {chooser}, which needs --validation_file")
        values = rewards_by_policy(args.validation_file, list(scores))
    if chooser == "reward_model":
        penalty = float(settings.get("LENGTH_PENALTY") or 0)
        values = {
            name: value - penalty * scores[name]["validation"]["length"]
            for name, value in values.items()
        }
    optimisers = settings.get("OPTIMISER", "").split()
    annotated = not {"offline", "self_play"} & set(optimisers)
    is_proxy = annotated and chooser in settings.get("ANNOTATOR", "").split()
    is_proxy = is_proxy or (chooser == "reward_model" and "rloo" in optimisers)
    return {"by": by, "scores": values, "penalty": penalty, "is_proxy": is_proxy}


def rewards_by_policy(path, names):
    """{policy: mean reward} of rows with one response of each policy, in that order."""
    scored = list(rows.read(path, "rewards", len(names)))
    return {name: fmean(row["rewards"][i] for row in scored) for i, name in enumerate(names)}


def proxy_and_true(test):
    """Whether the proxy and the true reward part as the policy moves: the numbers, and sentences that say it."""
    (base, *_), gains, correlations = test, {}, dict.fromkeys(test)
    for metric in ("proxy_reward", "true_reward"):
        means = {name: per_prompt(answers, metric) for name, answers in test.items()}
        unit = stdev(means[base]) if means[base] else 0
        gains[metric] = {
            name: (fmean(means[name]) - fmean(means[base])) / unit if unit else None
            for name in test
        }
    for name, answers in test.items():
        pair = [
            [value for row in answers for value in row.get(METRICS[metric], [])] for metric in gains
        ]
        with contextlib.suppress(StatisticsError):  # one of the two is not known, or does not vary
            correlations[name] = correlation(*pair)
    proxy, true = gains.values()
    result = {
        "proxy_gain": proxy,
        "true_gain": true,
        "correlation": correlations,
        "part": None,
        "rounds": [],
    }
    result["rule"] = (
        "They part in a round if the proxy rises and the true reward does not, or if the gap (the proxy's gain over "
        f"the baseline less the true reward's) is above {GAP} standard deviations and above the last round's."
    )
    if None in (*proxy.values(), *true.values()):
        return result | {
            "text": f"Not known: a reward is missing or does not vary over the test prompts of {base}."
        }
    sentences = [f"Changes are in standard deviations of {base}'s rewards over the test prompts."]
    for old, new in itertools.pairwise(test):
        rise, true_rise, gap = (
            proxy[new] - proxy[old],
            true[new] - true[old],
            proxy[new] - true[new],
        )
        part = (rise > 0 and true_rise <= 0) or gap > max(GAP, proxy[old] - true[old])
        numbers = {"proxy_change": rise, "true_change": true_rise, "gap": gap, "part": part}
        result["rounds"].append({"from": old, "to": new, **numbers})
        by, true_by = (
            f"{'falls' if change < 0 else 'rises'} by {abs(change):.2f}"
            for change in (rise, true_rise)
        )
        parted = f"they {'part' if part else 'do not part'}, the gap since {base} is {gap:+.2f}."
        sentences.append(
            f"From {old} to {new} the proxy {by} and the true reward {true_by}: {parted}"
        )
    return result | {
        "part": any(step["part"] for step in result["rounds"]),
        "text": " ".join(sentences),
    }


def training_facts(log):
    losses = [(entry["step"], entry["loss"]) for entry in log if "loss" in entry] or [(None, None)]
    held_out = next((entry for entry in reversed(log) if "eval_loss" in entry), {})
    facts = {"first_step": losses[0][0], "first_loss": losses[0][1], "last_loss": losses[-1][1]}
    return facts | {key: held_out.get(key) for key in ("eval_loss", "eval_accuracy")}


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument(
        "--answers", nargs="+", required=True, help="one file a policy, the baseline first"
    )
    parser.add_argument("--training", nargs="+", required=True, help="model directories")
    parser.add_argument("--settings", required=True, help="variables of the run")
    parser.add_argument(
        "--log_dir", type=Path, required=True, help="may be without any .seconds files"
    )
    parser.add_argument(
        "--validation_file", help="rewards of the chooser that the setting VALIDATION names"
    )
    parser.add_argument(
        "--measures", type=Path, nargs="+", default=[], help="numbers of the reward models"
    )
    parser.add_argument(
        "--benchmarks", type=Path, nargs="+", default=[], help="results, .../POLICY/NAME/NAME.json"
    )
    parser.add_output("--output_dir", "folder", FILES, type=Path, required=True)
    args = parser.parse_args()
    start, settings = time.time(), report_inputs.settings(args.settings)
    training, seconds = report_inputs.trainings(args.training), report_inputs.seconds(args.log_dir)
    measures, benchmarks = (
        report_inputs.measures(args.measures),
        report_inputs.benchmarks(args.benchmarks),
    )
    policies = read_answers(args.answers)
    import report_pages  # only now: it imports matplotlib

    test = {
        name: [row for row in answers if row["split"] == "test"]
        for name, answers in policies.items()
    }
    scores = {
        name: measure(rs, "test") | {"validation": measure(rs, "validation")}
        for name, rs in policies.items()
    }
    chosen = choice(scores, settings, args)
    best = max(scores, key=chosen["scores"].get)
    results = {"recipe": settings["RECIPE"], "seed": int(settings["SEED"]), "settings": settings}
    results |= report_environment.environment() | {
        "baseline": next(iter(scores)),
        "policies": scores,
        "best": best,
        "best_by": chosen["by"],
        "validation": chosen,
    }
    results |= {
        "proxy_and_true": proxy_and_true(test),
        "training": {k: training_facts(v) for k, v in training.items()},
    }
    results |= {"seconds": seconds, "seconds_total": sum(seconds.values()), "measures": measures}
    results["benchmarks"] = benchmarks
    figures = [
        path for path in (path.with_suffix(".png") for path in args.measures) if path.exists()
    ]
    outputs.write_text(args.output_dir / "report.md", report_pages.markdown(results))
    outputs.write_text(
        args.output_dir / "report.html", report_pages.page(results, test, training, figures)
    )
    outputs.write_json(
        args.output_dir / "results.json", results
    )  # the last: where it stands, the report is whole
    print(
        report_pages.markdown_table(*report_pages.main_table(results)),
        report_pages.best_line(results),
        sep="\n",
    )
    print(f"{args.output_dir}: {', '.join(FILES)}, {time.time() - start:.1f} s")


if __name__ == "__main__":
    main()
