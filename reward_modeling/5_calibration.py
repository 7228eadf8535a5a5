"""Compare an annotator's win probabilities with the raters' preferences: a reliability plot.

It reads bench rows of two responses from 3_rewardbench.py, which marks the preferred response in
"correct". The probability that the first response wins is the pairwise annotator's own, or
sigmoid(r_1 - r_2), the Bradley-Terry model's (arXiv 2405.07863, Definition 2). Half of the rows,
drawn by their ids, are swapped: the bench lists the preferred response first, and without swapping
the observed rate would be 1 in every bin.

Reads:  --rewards_files, annotated bench rows of one or several annotators, named by --names; only
        rows of --benchmark count
Writes: --output_dir, calibration.json (accuracy, expected calibration error, bins) and
        calibration.png

    python reward_modeling/5_calibration.py \
        --rewards_files runs/tiny/measures/bench_reward_model.jsonl --names reward_model \
        --benchmark preferences_held_out --output_dir runs/tiny/measures
"""

import math
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import annotator_names
from common import arguments, outputs, rows, tables

FILES = ("calibration.png", "calibration.json")
BINS = 10
# Colour and marks of the annotators, repeated where there are more.
STYLES = [
    ("#0072b2", "o-"),
    ("#c44e00", "s-"),
    ("#009e73", "^-"),
    ("#7f3c8d", "D-"),
    ("#555555", "v-"),
]


@dataclass
class Prediction:
    win_probability: float  # of the first response
    first_preferred: float  # 1 if raters preferred it, otherwise 0

    def accuracy(self):
        if self.win_probability == 0.5:
            return 0.5
        return float((self.win_probability > 0.5) == (self.first_preferred > 0.5))


def predictions(file, benchmark):
    """The Predictions of an annotator's rows of a benchmark."""
    result = []
    fields = ("benchmark", "correct")
    for row in rows.read(file, "rewards", n=0, also=fields, if_there=("judgement",)):
        if row.get("benchmark") != benchmark or len(row["responses"]) != 2:
            continue
        win_probability = probability_of_first(row)
        if win_probability is None:
            continue
        first_preferred = float(row["correct"][0])
        # By the row's id, so that it is the same for every annotator.
        is_swapped = random.Random(row["id"]).random() < 0.5
        if is_swapped:
            win_probability = 1 - win_probability
            first_preferred = float(row["correct"][1])
        result.append(Prediction(win_probability, first_preferred))
    if not result:
        sys.exit(f"{file}: benchmark: no row of two responses and a probability in {benchmark}")
    return result


def probability_of_first(row):
    """P(the first response wins), None where a pairwise annotator gave none."""
    for entry in row.get("judgement") or []:
        # Pairwise annotators write {"a": 0, "b": 1, "probability"}: their rewards are win rates,
        # not scores. Ratings, {"response", "rating"}, are scores: as for reward models, the
        # probability is the sigmoid of their difference.
        if "a" in entry:
            return entry.get("probability")
    difference = row["rewards"][0] - row["rewards"][1]
    # Beyond 700 exp overflows; the probability is 0 or 1 long before.
    limited = max(-700, min(700, difference))
    return 1 / (1 + math.exp(-limited))


def measure(predicted):
    """{"accuracy", "calibration_error", "rows", "bins"} of an annotator's Predictions."""
    bins = reliability_bins(predicted)
    errors = []
    for counts in bins:
        errors.append(counts["rows"] * abs(counts["predicted"] - counts["observed"]))
    return {
        "accuracy": fmean(prediction.accuracy() for prediction in predicted),
        "calibration_error": sum(errors) / len(predicted),
        "rows": len(predicted),
        "bins": bins,
    }


def reliability_bins(predicted):
    """Mean predicted and observed win rate of each bin that has rows."""
    members_by_bin = [[] for _ in range(BINS)]
    for prediction in predicted:
        # A probability of 1 belongs to the last bin.
        index = min(int(prediction.win_probability * BINS), BINS - 1)
        members_by_bin[index].append(prediction)
    bins = []
    for members in members_by_bin:
        if members:
            mean_probability = fmean(member.win_probability for member in members)
            win_rate = fmean(member.first_preferred for member in members)
            bins.append({"predicted": mean_probability, "observed": win_rate, "rows": len(members)})
    return bins


def draw(results):
    """The reliability plot. results: {annotator: its measures}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#777", linestyle="--", linewidth=1)
    for i, (name, result) in enumerate(results.items()):
        color, marks = STYLES[i % len(STYLES)]
        predicted = [counts["predicted"] for counts in result["bins"]]
        observed = [counts["observed"] for counts in result["bins"]]
        label = f"{name}, error {result['calibration_error']:.3f}"
        axes.plot(predicted, observed, marks, color=color, label=label)
    axes.set(
        xlabel="predicted probability",
        ylabel="share that was preferred",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    axes.grid(color="#ddd")
    axes.legend(frameon=False, title="calibration error")
    return figure


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--rewards_files", nargs="+", required=True)
    parser.add_argument(
        "--names",
        nargs="+",
        required=True,
        help="names of the annotators, in the order of the files",
    )
    parser.add_argument(
        "--benchmark", default="preferences_held_out", help="rows of this benchmark count"
    )
    parser.add_output("--output_dir", "folder", FILES, type=Path, required=True)
    args = parser.parse_args()
    annotator_names.check(parser, args)
    return args


def main():
    args = parse_arguments()
    results = {}
    for name, file in zip(args.names, args.rewards_files, strict=True):
        results[name] = measure(predictions(file, args.benchmark))
    outputs.write_figure(args.output_dir / "calibration.png", draw(results), dpi=150)
    outputs.write_json(args.output_dir / "calibration.json", results)
    lines = []
    for name, result in results.items():
        accuracy = f"{result['accuracy']:.3f}"
        calibration_error = f"{result['calibration_error']:.3f}"
        lines.append([name, accuracy, calibration_error, result["rows"]])
    print(tables.markdown(["annotator", "accuracy", "calibration error", "rows"], lines))


if __name__ == "__main__":
    main()
