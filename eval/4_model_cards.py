"""Write a model card into the directory of each policy of a run: recipe, data, scores, judge.

The card, README.md, begins with the Hugging Face hub's YAML front matter. It is overwritten on a
rerun; a README.md that is no card of ours is kept as README.old.md. The directory keeps its
modification time, since the policy in it has not changed.

Reads:  --results_file, results.json of 3_report.py; --policies, model directories. A policy is
        called as its directory, or, if that is "policy", as its parent
Writes: README.md in each of them

    python eval/4_model_cards.py --results_file runs/tiny/results.json \
        --policies runs/tiny/sft runs/tiny/iter1/policy
"""

import itertools
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from common import arguments, model_outputs, outputs, tables

DATA = ("SFT_DATA", "PREFERENCES", "PROMPTS", "EVAL_PROMPTS", "OFFLINE_PAIRS")
METRICS = ("true_reward", "win_rate", "proxy_reward", "accuracy", "length", "kl")


@dataclass
class Benchmark:
    """A score of a benchmark with a judge: its field in the results, and how the card shows it."""

    name: str
    field: str
    label: str
    digits: int


LC_WIN_RATE = "length_controlled_winrate"
BENCHMARKS = (
    Benchmark("alpaca_eval", LC_WIN_RATE, "AlpacaEval 2, length-controlled win rate", 1),
    Benchmark("alpaca_eval", "win_rate", "AlpacaEval 2, win rate", 1),
    Benchmark("mt_bench", "score", "MT-Bench", 2),
    Benchmark("arena_hard", "score", "Arena-Hard", 1),
)


# The text of a card


def card(results, policy):
    """The text of the model card of one policy of results.json."""
    settings = results["settings"]
    recipe = Path(results["recipe"]).stem
    # What the hub reads, as YAML.
    lines = ["---", "library_name: transformers", f"tags: [{model_outputs.CARD_TAG}, trl]", "---"]
    lines += ["", f"# {recipe}: {policy}", ""]
    seed = results["seed"]
    method = training_method(results, policy)
    lines.append(f"A policy of recipe {recipe}, seed {seed}, made by {method}.")
    if policy == results["best"]:
        lines.append("The best of its run by the validation prompts.")
    if "tiny" in recipe:
        lines.append("Of the tiny world: its scores say nothing about other models.")

    lines += ["", "| data | |", "|---|---|"]
    for name in DATA:
        if settings.get(name):
            lines.append(tables.markdown_line([name, settings[name]]))

    lines += ["", "| measured | value | how |", "|---|---|---|"]
    for cells in [*metric_cells(results, policy), *benchmark_cells(results, policy)]:
        lines.append(tables.markdown_line(cells))

    # Four blanks make a line of code in Markdown.
    lines += ["", f"{versions_line(results)}.", "", "Settings:", ""]
    for name, value in settings.items():
        if value:
            lines.append(f"    {name}={value}")
    return "\n".join(lines) + "\n"


def training_method(results, policy):
    settings = results["settings"]
    optimiser = settings.get("OPTIMISER", "dpo")
    if policy == results["baseline"]:
        base_model = settings["BASE_MODEL"].removeprefix("$OUT/")
        return f"supervised fine-tuning of {base_model}"
    if optimiser == "dpo":
        return "online iterative DPO (arXiv 2405.07863)"
    name = Path(optimiser).stem
    return f"{name} in the loop of online iterative DPO (arXiv 2405.07863)"


def versions_line(results):
    versions = []
    for name, version in results["versions"].items():
        if version:
            versions.append(f"{name} {version}")
    commit = results["commit"] or "unknown"
    day = results["date"][:10]
    return f"{', '.join(versions)}; commit {commit}; {day}"


def metric_cells(results, policy):
    """Yield (what was measured, value, how) of the metrics that are known."""
    scores = results["policies"][policy]
    for metric in METRICS:
        if scores.get(metric) is None:
            continue
        how = f"{scores['prompts']} test prompts"
        if metric == "win_rate":
            how += f", against {results['baseline']}"
        yield metric, f"{scores[metric]:.3f}", how


def benchmark_cells(results, policy):
    """Yield (what was measured, value, how) of the benchmarks that the policy was measured on."""
    benchmarks = results.get("benchmarks", {})
    for benchmark in BENCHMARKS:
        result = benchmarks.get(benchmark.name, {}).get(policy, {})
        score = result.get(benchmark.field)
        if score is not None:
            how = f"judge {result['judge']}, {result['date']}"
            yield benchmark.label, f"{score:.{benchmark.digits}f}", how
    academic = benchmarks.get("academic", {}).get(policy, {})
    for name, task in academic.get("tasks", {}).items():
        how = f"lm-eval, {task['shots']} examples, {academic['date']}"
        yield name, f"{100 * task['value']:.1f}", how


# Reading and writing


def read_results(file):
    """The content of results.json; anything else ends the program."""
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        # Only to see whether this is a report.
        list(results["policies"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "not the results of a report"
        sys.exit(f"{file}: {reason}")
    return results


def card_of(directory, results, results_file):
    """The card of the policy in a directory; a directory of another model ends the program."""
    named_directory = directory.absolute()
    if named_directory.name == "policy":
        named_directory = named_directory.parent
    policy = named_directory.name
    policies = list(results["policies"])
    if not (directory / "config.json").exists() or policy not in policies:
        sys.exit(f"{directory}: not the directory of one of {', '.join(policies)}")
    try:
        return card(results, policy)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = f"{policy}: {type(error).__name__} {error}"
        sys.exit(f"{results_file}: not the results of a report ({reason})")


def write_card(directory, text):
    """Write README.md; one that is no card of ours is kept. The directory keeps its times."""
    times = os.stat(directory)
    file = directory / "README.md"
    if file.is_dir():
        sys.exit(f"{file}: a directory")
    if file.exists() and not model_outputs.is_our_card(file):
        backup = next(name for name in backup_names(directory) if not name.exists())
        os.replace(file, backup)
        print(f"{file}: not a card of a script, kept as {backup.name}")
    outputs.write_text(file, text)
    os.utime(directory, ns=(times.st_atime_ns, times.st_mtime_ns))


def backup_names(directory):
    """README.old.md, README.old2.md and so on."""
    yield directory / "README.old.md"
    for number in itertools.count(2):
        yield directory / f"README.old{number}.md"


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--results_file", type=Path, required=True)
    parser.add_argument("--policies", nargs="+", type=Path, required=True, help="model directories")
    args = parser.parse_args()
    results = read_results(args.results_file)
    # All cards before the first is written: wrong input changes nothing.
    cards = {}
    for directory in args.policies:
        cards[directory] = card_of(directory, results, args.results_file)
    for directory, text in cards.items():
        write_card(directory, text)
    print(", ".join(str(directory / "README.md") for directory in cards))


if __name__ == "__main__":
    main()
