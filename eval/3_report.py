"""Compare the policies of one run: every metric in results.json, and two reports to read.

Metrics are means over the answers to the test split (section 4 of the paper). The best policy, the
output of Algorithm 2, is chosen from all policies on the validation split; a tie goes to the
earlier, first of all the baseline. The setting VALIDATION names the criterion:

    true_reward     known in the tiny world only; the default where it is known
    reward_model    the proxy reward minus LENGTH_PENALTY per character; the default otherwise
    an annotator    the rewards that it gave to the answers of all policies (--validation_file)

Without true_rewards and correct (all recipes but the tiny world's), or without rewards, the metrics
that need them are null; in tables they are "-".

Reads:  --answers, one file per policy, in a directory of the policy's name, {"id", "prompt",
        "source"?, "split": "validation" or "test", "responses", "finish_reasons", "kl",
        "rewards"? (the proxy), "true_rewards"?, "correct"?}
        --training, model directories with trainer_state.json; a directory "policy" is called as
        its parent
        --settings, lines NAME=value as a shell reads them, with RECIPE and SEED
        --log_dir, files STEP.seconds, such as iter2/pairs.seconds
        --validation_file, the annotated rows of generation/2b_merge.py, with "rewards" in the order
        of --answers
        --measures, the .json files of reward_modeling/3_rewardbench.py, 4_length_bias.py and
        5_calibration.py, with figures beside them
        --benchmarks, POLICY/BENCHMARK/BENCHMARK.json, the results of eval/2a_alpaca_eval.py to
        2d_academic.py
Writes: --output_dir, results.json, report.md and report.html (one file, no scripts)

    python eval/3_report.py --answers runs/tiny/eval/sft/kl.jsonl runs/tiny/eval/iter1/kl.jsonl \
        --training runs/tiny/sft runs/tiny/reward_model runs/tiny/iter1/policy \
        --settings runs/tiny/settings --log_dir runs/tiny/log --output_dir runs/tiny
"""

import sys
import time
from pathlib import Path
from statistics import fmean

import report_answers
import report_environment
import report_inputs
import report_metrics
from common import arguments, outputs, rows

FILES = ("report.md", "report.html", "results.json")


def selection(scores, settings, args):
    """By what the best policy is chosen; scores: all metrics of each policy.

    Returns "by": true_reward, proxy_reward, or the annotator,
            "scores": {policy: its value by that},
            "penalty": what a character takes off the proxy reward,
            "is_proxy": whether the policies were optimised for what chooses the best of them.
    """
    chooser = settings.get("VALIDATION")
    if not chooser:
        true_known = all(score["true_reward"] is not None for score in scores.values())
        chooser = "true_reward" if true_known else "reward_model"
    penalty = 0.0
    if chooser == "true_reward":
        by = "true_reward"
        values = validation_means(scores, by, chooser, args)
    elif chooser == "reward_model":
        by = "proxy_reward"
        values = validation_means(scores, by, chooser, args)
        # The penalty that the pairs were made with.
        penalty = float(settings.get("LENGTH_PENALTY") or 0)
        for name in values:
            values[name] -= penalty * scores[name]["validation"]["length"]
    else:
        by = chooser
        if not args.validation_file:
            sys.exit(f"{args.settings}: VALIDATION: {chooser}, which needs --validation_file")
        values = rewards_by_policy(args.validation_file, list(scores))
    is_proxy = optimised_for(chooser, settings)
    return {"by": by, "scores": values, "penalty": penalty, "is_proxy": is_proxy}


def validation_means(scores, metric, chooser, args):
    """{policy: a metric on the validation split}."""
    values = {name: score["validation"][metric] for name, score in scores.items()}
    if None in values.values():
        sys.exit(f"{args.settings}: VALIDATION: {chooser}, and not all answers carry it")
    return values


def rewards_by_policy(path, names):
    """{policy: mean reward} of rows with one response of each policy, in that order."""
    scored = list(rows.read(path, "rewards", len(names)))
    means = {}
    for i, name in enumerate(names):
        means[name] = fmean(row["rewards"][i] for row in scored)
    return means


def scored_by_verifier(settings, policies):
    """Whether a verifier's rewards are the only ones that the answers have."""
    others = [settings.get(name) for name in ("REWARD_MODEL", "PREFERENCES")]
    answers = next(iter(policies.values()))
    only_rewards = "rewards" in answers[0] and "correct" not in answers[0]
    return settings.get("VALIDATION") == "verifier" and not any(others) and only_rewards


def optimised_for(chooser, settings):
    """Whether the policies were trained for the rewards of the one that chooses the best."""
    optimisers = settings.get("OPTIMISER", "").split()
    # RLOO queries the reward model itself, and no annotator.
    if "rloo" in optimisers:
        return chooser == "reward_model"
    # These two learn from pairs that no annotator has seen.
    annotated = "offline" not in optimisers and "self_play" not in optimisers
    return annotated and chooser in settings.get("ANNOTATOR", "").split()


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument(
        "--answers", nargs="+", required=True, help="one file per policy, the baseline first"
    )
    parser.add_argument("--training", nargs="+", required=True, help="model directories")
    parser.add_argument("--settings", required=True, help="variables of the run")
    parser.add_argument("--log_dir", type=Path, required=True, help="may have no .seconds files")
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
    return parser.parse_args()


def main():
    args = parse_arguments()
    start = time.time()
    # The small files first: a wrong one ends the program before the answers are read.
    settings = report_inputs.settings(args.settings)
    training = report_inputs.trainings(args.training)
    seconds = report_inputs.seconds(args.log_dir)
    measures = report_inputs.measures(args.measures)
    benchmarks = report_inputs.benchmarks(args.benchmarks)
    policies = report_answers.read(args.answers)
    if scored_by_verifier(settings, policies):
        report_answers.take_verdicts(policies)

    # The validation split chooses, the test split is reported: no answer has both uses.
    test = {}
    scores = {}
    for name, answers in policies.items():
        test[name] = report_answers.of_split(answers, "test")
        validation = report_answers.of_split(answers, "validation")
        scores[name] = report_metrics.measure(test[name])
        scores[name]["validation"] = report_metrics.measure(validation)
    chosen = selection(scores, settings, args)
    results = {
        "recipe": settings["RECIPE"],
        "seed": int(settings["SEED"]),
        "settings": settings,
        **report_environment.environment(),
        "baseline": next(iter(scores)),
        "policies": scores,
        # The baseline comes first: max takes it unless a round is better.
        "best": max(scores, key=chosen["scores"].get),
        "best_by": chosen["by"],
        "validation": chosen,
        "proxy_and_true": report_metrics.proxy_and_true(test),
        "training": {name: report_metrics.training_facts(log) for name, log in training.items()},
        "seconds": seconds,
        "seconds_total": sum(seconds.values()),
        "measures": measures,
        "benchmarks": benchmarks,
    }
    write_report(results, test, training, args)
    print(f"{args.output_dir}: {', '.join(FILES)}, {time.time() - start:.1f} s")


def write_report(results, test, training, args):
    """Write the three files, and print the main table."""
    # Not at the top: it imports matplotlib, which takes a second.
    import report_pages
    import report_sections

    pictures = []
    for path in args.measures:
        picture = path.with_suffix(".png")
        if picture.exists():
            pictures.append(picture)
    page = report_pages.page(results, test, training, pictures)
    outputs.write_text(args.output_dir / "report.md", report_pages.markdown(results))
    outputs.write_text(args.output_dir / "report.html", page)
    # The last, because a report that has results.json is complete.
    outputs.write_json(args.output_dir / "results.json", results)
    print(report_pages.markdown_table(*report_sections.main_table(results)))
    print(report_sections.best_line(results))


if __name__ == "__main__":
    main()
