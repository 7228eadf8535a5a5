"""One table of the policy optimisers that compare.sh ran, and what they do to proxy and true reward; the tiny world's.

Reads:  --directory, seedS/NAME/ of compare.sh, as many seeds and names as there are
Writes: in it COMPARISON.md, comparison.json (the table's numbers), kl.png (what true and proxy reward have gained over
        the fine-tuned policy, in its standard deviations, against the square root of KL as in arXiv 2210.10760, a point
        a round), compute.png (win rate against seconds)

    python comparison/2_table.py --directory runs/compare
"""

import math
import sys
from pathlib import Path
from statistics import fmean

import comparing
from common import arguments, outputs, rows

HEAD = [
    "optimiser",
    "seeds",
    "win rate",
    "95%",
    "true",
    "proxy",
    "accuracy",
    "length",
    "KL",
    "s",
    "generated",
    "trained",
]
NO_GAIN = {  # the likely reason, told if a row's interval does not lie above one half
    "self_play": "its target is what the policy was fine-tuned on, a third of it wrong, and no reward says so",
    "self_rewarding": "as a judge the policy knows manner but hardly what is right, and its accuracy falls",
}
COLOURS = {"true_reward": "tab:blue", "proxy_reward": "tab:orange"}


def measure(runs, name, policy):
    """A row of the table; cost where the policy is one of three rounds' last."""
    seeds = runs.seeds(name, policy)
    row = {"optimiser": name, "policy": policy, "seeds": seeds}
    row["win_rate"], row["low"], row["high"] = comparing.interval(
        runs.values(name, "win_rate", policy)
    )
    for metric in ("true_reward", "proxy_reward", "accuracy", "length", "kl"):
        row[metric] = fmean(values.mean() for values in runs.values(name, metric, policy).values())
    for metric in ("true_reward", "proxy_reward"):
        gain = fmean(values.mean() for values in runs.gain(name, metric, policy).values())
        row[f"{metric}_gain"] = gain if math.isfinite(gain) else None
    costs = [runs.cost(name, seed) for seed in seeds]
    return row | {key: fmean(cost[key] for cost in costs) for key in costs[0]}


def line(row):
    shown = [
        row["optimiser"],
        len(row["seeds"]),
        f"{row['win_rate']:.3f}",
        f"{row['low']:.3f} to {row['high']:.3f}",
    ]
    shown += [f"{row[key]:.3f}" for key in ("true_reward", "proxy_reward", "accuracy")]
    shown += [f"{row['length']:.1f}", f"{row['kl']:.2f}"]
    shown += [f"{row[key]:.0f}" if row[key] else "-" for key in ("seconds", "generated", "trained")]
    return "| " + " | ".join(map(str, shown)) + " |"


def no_gain(table):
    """A line for each row that is no better than the fine-tuned policy, with the likely reason where one is known."""
    names = [row["optimiser"] for row in table if row["low"] <= 0.5 and row["optimiser"] != "sft"]
    lines = [f"- {name} does not improve: {NO_GAIN.get(name, 'why, is open')}." for name in names]
    return "\n".join(lines) + "\n\n" if lines else ""


def steering(directory):
    """A table of what directional preference alignment does at each angle, the mean over seeds and test prompts."""
    lines = ["| angle | seeds | length | accuracy | true reward |", "|---|---|---|---|---|"]
    for angle, name in ((-45, "directions/answers_-45/true_rewards"), (0, "dpa/eval/iter3/kl"),
                        (45, "directions/answers_45/true_rewards")):  # fmt: skip
        files = sorted(directory.glob(f"seed*/{name}.jsonl"))
        test = [
            row for file in files for row in rows.read(file, "rewards") if row["split"] == "test"
        ]
        if not test:
            return ""
        length = fmean(len(row["responses"][0]) for row in test)
        accuracy, true = (
            fmean(row[field][0] for row in test) for field in ("correct", "true_rewards")
        )
        lines.append(f"| {angle} | {len(files)} | {length:.1f} | {accuracy:.3f} | {true:.3f} |")
    return "## The last policy of dpa, asked in three directions\n\n" + "\n".join(lines) + "\n\n"


def figures(curves, table, directory):
    """curves: {optimiser: its rounds' rows}."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(6, len(curves))
    height = -(-len(curves) // columns)
    figure, axes = pyplot.subplots(
        height,
        columns,
        figsize=(2.3 * columns, 2 * height + 0.6),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    for axis, (name, points) in zip(axes.flat, curves.items(), strict=False):
        for metric, style in (("proxy_reward", "o--"), ("true_reward", "o-")):
            of_all = [
                [math.sqrt(max(0, p["kl"])) for p in points],
                [math.nan if (gain := p[f"{metric}_gain"]) is None else gain for p in points],
            ]
            axis.plot(*of_all, style, ms=3, color=COLOURS[metric], label=metric.replace("_", " "))
        axis.set_title(name, fontsize=9)
    for axis in axes.flat[len(curves) - columns : len(curves)]:  # the lowest of each column
        axis.set_xlabel("square root of KL", fontsize=8)
        axis.tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel("gain, st. dev.", fontsize=8)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", ncols=2)
    figure.suptitle("The tiny world: a point a round", x=0.02, ha="left")
    figure.tight_layout()
    outputs.write_figure(directory / "kl.png", figure, dpi=90)
    figure, axis = pyplot.subplots(figsize=(9, 6))
    for row in (row for row in table if row["seconds"]):
        spread = [[row["win_rate"] - row["low"]], [row["high"] - row["win_rate"]]]
        axis.errorbar(row["seconds"], row["win_rate"], spread, fmt="o", ms=4, lw=1)
        axis.annotate(
            row["optimiser"],
            (row["seconds"], row["win_rate"]),
            fontsize=7,
            xytext=(4, 3),
            textcoords="offset points",
        )
    axis.set_xlabel("seconds on this machine, without evaluation")
    axis.set_ylabel("win rate against the fine-tuned policy")
    axis.set_title("The tiny world: win rate and compute")
    outputs.write_figure(directory / "compute.png", figure, dpi=110, bbox_inches="tight")


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--directory", required=True)
    args = parser.parse_args()
    runs, directory = comparing.Runs(args.directory), Path(args.directory)
    names = sorted({name for name, _, _ in runs.answers} - {"base"})
    if not names:
        sys.exit(f"{directory}: no run of compare.sh is there")
    base = measure(runs, "base", "sft") | {"optimiser": "sft"}
    curves = {
        name: [measure(runs, name, policy) for policy in runs.policies(name)] for name in names
    }
    table = []
    for name, points in curves.items():
        if name == "best_of_n":  # its policies are no rounds
            table += [point | {"optimiser": point["policy"]} for point in points]
        else:
            table.append(points[-1])
    table = [base, *sorted(table, key=lambda row: -row["win_rate"])]
    seeds = sorted({seed for row in table for seed in row["seeds"]})
    prompts = len(next(iter(runs.answers.values()))["kl"])
    text = (
        f"""# The policy optimisers in the tiny world

    SEEDS="{" ".join(map(str, seeds))}" bash comparison/compare.sh

The tiny world's numbers, not to be set beside those of other models. "seeds" is how many were run of a row. The last
policy of each run (no round is chosen by validation) on {prompts} test prompts a seed, one answer each at temperature
1; the win rate by the true reward is against the fine-tuned policy's answers; 95% by a bootstrap over seeds and prompts
(with one seed: prompts). s: seconds of sampling, annotating and training, without evaluation and what all share; tokens
generated and trained on (prompts included), means over seeds; "-": none, or not counted. The KL of self_rewarding is to
the policy that it starts from, which was taught to judge.

| {" | ".join(HEAD)} |
|{"---|" * len(HEAD)}
"""
        + "\n".join(map(line, table))
        + "\n\n"
        + no_gain(table)
        + "![true and proxy reward against KL](kl.png)\n\n![win rate and compute](compute.png)\n\n"
        + steering(directory)
    )
    figures({name: [base, *points] for name, points in curves.items()}, table, directory)
    outputs.write_json(directory / "comparison.json", table)
    outputs.write_text(directory / "COMPARISON.md", text)
    print(text)


if __name__ == "__main__":
    main()
