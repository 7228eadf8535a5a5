"""Compare the probability that an annotator gives a response with how often raters prefer it: a reliability plot.

On bench rows of two responses, for each of which 3_rewardbench.py knows which one was preferred. The probability that
the first is better is the preference model's own, or sigmoid(r_1 - r_2), the Bradley-Terry model's (paper, Definition
2). Which response is first is drawn for each row: were it always the preferred one, any confidence would seem right.

Reads:  --rewards_files, annotated bench rows of one or several annotators, named by --names; of --benchmark only
Writes: --output_dir, calibration.json (accuracy, expected calibration error, bins) and calibration.png

    python reward_modeling/5_calibration.py --rewards_files runs/tiny/measures/bench_reward_model.jsonl \
        --names reward_model --benchmark preferences_held_out --output_dir runs/tiny/measures
"""

import math
import random
import sys
from pathlib import Path
from statistics import fmean

from common import arguments, outputs, rows

FILES = ("calibration.png", "calibration.json")
BINS = 10
STYLES = [
    ("#0072b2", "o-"),
    ("#c44e00", "s-"),
    ("#009e73", "^-"),
    ("#7f3c8d", "D-"),
    ("#555555", "v-"),
]


def predictions(file, benchmark):
    """[(P(first is better), 1 if it was preferred or else 0)]"""
    pairs = []
    for row in rows.read(
        file, "rewards", n=0, also=("benchmark", "correct"), if_there=("judgement",)
    ):
        if row.get("benchmark") != benchmark or len(row["responses"]) != 2:
            continue
        compared = [
            entry["probability"] for entry in row.get("judgement") or [] if "probability" in entry
        ]
        difference = row["rewards"][0] - row["rewards"][1]
        p = compared[0] if compared else 1 / (1 + math.exp(-max(-700, min(700, difference))))
        if p is not None:
            turned = random.Random(row["id"]).random() < 0.5
            pairs.append(
                (1 - p, float(row["correct"][1])) if turned else (p, float(row["correct"][0]))
            )
    if not pairs:
        sys.exit(f"{file}: benchmark: no row of two responses of {benchmark}")
    return pairs


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--rewards_files", nargs="+", required=True)
    parser.add_argument(
        "--names", nargs="+", required=True, help="of the annotators, in that order"
    )
    parser.add_argument(
        "--benchmark", default="preferences_held_out", help="rows of this benchmark count"
    )
    parser.add_output("--output_dir", "folder", FILES, type=Path, required=True)
    args = parser.parse_args()
    if len(args.names) != len(args.rewards_files):
        parser.error(f"--names: {len(args.names)} for {len(args.rewards_files)} files")
    if len(set(args.names)) < len(args.names):
        parser.error("--names: two annotators of one name")

    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#777", linestyle="--", linewidth=1)
    results = {}
    for i, (name, file) in enumerate(zip(args.names, args.rewards_files, strict=True)):
        pairs, bins = predictions(file, args.benchmark), []
        for k in range(BINS):
            inside = [(p, y) for p, y in pairs if min(int(p * BINS), BINS - 1) == k]
            if inside:
                predicted, observed = (fmean(part) for part in zip(*inside, strict=True))
                bins.append({"predicted": predicted, "observed": observed, "rows": len(inside)})
        error = sum(b["rows"] * abs(b["predicted"] - b["observed"]) for b in bins) / len(pairs)
        accuracy = fmean(0.5 if p == 0.5 else float((p > 0.5) == (y > 0.5)) for p, y in pairs)
        results[name] = {
            "accuracy": accuracy,
            "calibration_error": error,
            "rows": len(pairs),
            "bins": bins,
        }
        color, marks = STYLES[i % len(STYLES)]
        columns = [b["predicted"] for b in bins], [b["observed"] for b in bins]
        axes.plot(*columns, marks, color=color, label=f"{name}, error {error:.3f}")
    axes.set(
        xlabel="predicted probability",
        ylabel="share that was preferred",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    axes.grid(color="#ddd")
    axes.legend(frameon=False, title="calibration error")

    outputs.write_figure(args.output_dir / "calibration.png", figure, dpi=150)
    outputs.write_json(args.output_dir / "calibration.json", results)
    print("| annotator | accuracy | calibration error | rows |\n| --- | --- | --- | --- |")
    for name, result in results.items():
        print(
            f"| {name} | {result['accuracy']:.3f} | {result['calibration_error']:.3f} | {result['rows']} |"
        )


if __name__ == "__main__":
    main()
