"""Write a model card into the directory of each policy of a run: recipe, data, scores, judge (README.md).

The card has what the Hugging Face hub reads at its top, and is overwritten when the command is given again; a README.md
of one's own is kept as README.old.md. The directory keeps its time, since the policy in it has not changed.

Reads:  --results_file, results.json of 3_report.py; --policies, model directories; one called policy has the name of
        its parent
Writes: README.md in each of them

    python eval/4_model_cards.py --results_file runs/tiny/results.json --policies runs/tiny/sft runs/tiny/iter1/policy
"""

import itertools
import json
import os
import sys
from pathlib import Path

from common import arguments, model_outputs, outputs

DATA = ("SFT_DATA", "PREFERENCES", "PROMPTS", "EVAL_PROMPTS", "OFFLINE_PAIRS")


def scores_of(results, policy):
    """Yields (what was measured, value, how) of one policy."""
    own = results["policies"][policy]
    how = f"{own['prompts']} test prompts"
    for metric in ("true_reward", "win_rate", "proxy_reward", "accuracy", "length", "kl"):
        if own.get(metric) is not None:
            yield (
                metric,
                f"{own[metric]:.3f}",
                f"{how}, against {results['baseline']}" if "win" in metric else how,
            )
    found = {name: of[policy] for name, of in results.get("benchmarks", {}).items() if policy in of}
    for name, label, field, digits in (
        ("alpaca_eval", "AlpacaEval 2, length-controlled win rate", "length_controlled_winrate", 1),
        ("alpaca_eval", "AlpacaEval 2, win rate", "win_rate", 1),
        ("mt_bench", "MT-Bench", "score", 2),
        ("arena_hard", "Arena-Hard", "score", 1),
    ):
        of = found.get(name, {})
        if of.get(field) is not None:
            yield label, f"{of[field]:.{digits}f}", f"judge {of['judge']}, {of['date']}"
    for task, of in found.get("academic", {}).get("tasks", {}).items():
        yield (
            task,
            f"{100 * of['value']:.1f}",
            f"lm-eval, {of['shots']} examples, {found['academic']['date']}",
        )


def card(results, policy):
    settings, recipe = results["settings"], Path(results["recipe"]).stem
    first, best = policy == results["baseline"], policy == results["best"]
    optimiser = settings.get("OPTIMISER", "dpo")
    if first:
        made = f"supervised fine-tuning of {settings['BASE_MODEL'].removeprefix('$OUT/')}"
    elif optimiser == "dpo":
        made = "online iterative DPO (arXiv 2405.07863)"
    else:
        made = f"{Path(optimiser).stem} in the loop of online iterative DPO (arXiv 2405.07863)"
    lines = [
        "---",
        "library_name: transformers",
        f"tags: [{model_outputs.CARD_TAG}, trl]",
        "---",
        "",
    ]
    lines += [f"# {recipe}: {policy}", ""]
    lines += [f"A policy of recipe {recipe}, seed {results['seed']}, made by {made}."]
    lines += ["The best of its run by the validation prompts."] if best else []
    lines += (
        ["Of the tiny world: its scores say nothing about other models."]
        if "tiny" in recipe
        else []
    )
    lines += ["", "| data | |", "|---|---|"]
    lines += [f"| {name} | {settings[name]} |" for name in DATA if settings.get(name)]
    lines += ["", "| measured | value | how |", "|---|---|---|"]
    lines += [f"| {' | '.join(line)} |" for line in scores_of(results, policy)]
    versions = ", ".join(
        f"{name} {version}" for name, version in results["versions"].items() if version
    )
    lines += [
        "",
        f"{versions}; commit {results['commit'] or 'unknown'}; {results['date'][:10]}.",
        "",
        "Settings:",
        "",
    ]
    return (
        "\n".join([*lines, *(f"    {name}={value}" for name, value in settings.items() if value)])
        + "\n"
    )


def kept_names(directory):
    """README.old.md, README.old2.md and so on."""
    yield directory / "README.old.md"
    for number in itertools.count(2):
        yield directory / f"README.old{number}.md"


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--results_file", type=Path, required=True)
    parser.add_argument("--policies", nargs="+", type=Path, required=True, help="model directories")
    args = parser.parse_args()
    try:
        results = json.loads(args.results_file.read_text(encoding="utf-8"))
        known = list(results["policies"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        sys.exit(
            f"{args.results_file}: {getattr(error, 'strerror', None) or 'not the results of a report'}"
        )
    cards = {}
    for directory in args.policies:
        name = (
            directory.absolute().parent if directory.name == "policy" else directory.absolute()
        ).name
        if not (directory / "config.json").exists() or name not in known:
            sys.exit(f"{directory}: not the directory of one of {', '.join(known)}")
        try:
            cards[directory] = card(results, name)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            sys.exit(
                f"{args.results_file}: not the results of a report ({name}: {type(error).__name__} {error})"
            )
    for directory, text in cards.items():
        times = os.stat(directory)
        file = directory / "README.md"
        if file.is_dir():
            sys.exit(f"{file}: a directory")
        if file.exists() and not model_outputs.is_our_card(file):
            kept = next(name for name in kept_names(directory) if not name.exists())
            os.replace(file, kept)
            print(f"{file}: not a card of a script, kept as {kept.name}")
        outputs.write_text(file, text)
        os.utime(directory, ns=(times.st_atime_ns, times.st_mtime_ns))
    print(f"{', '.join(str(directory / 'README.md') for directory in cards)}")


if __name__ == "__main__":
    main()
