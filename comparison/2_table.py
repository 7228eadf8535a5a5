"""One table of the policy optimisers that compare.sh ran in the tiny world, with two figures.

Reads:  --directory, seedS/NAME/ of compare.sh, as many seeds and names as there are
Writes: in it COMPARISON.md, the page
        comparison.json, the numbers of the table
        kl.png, what true and proxy reward gain over the fine-tuned policy, in standard deviations
        of its rewards, against the square root of KL (arXiv 2210.10760), a point per round
        compute.png, win rate against seconds

    python comparison/2_table.py --directory runs/compare
"""

import math
import sys
from statistics import fmean

import comparing
from common import arguments, outputs, rows, tables, trajectories

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
# The likely reason, for a row whose interval does not lie above one half.
NO_GAIN = {
    "self_play": (
        "its target is what the policy was fine-tuned on, a third of it wrong, and no reward "
        "corrects that"
    ),
    "self_rewarding": (
        "as a judge the policy knows manner but hardly what is right, and its accuracy falls"
    ),
}
# Degrees of directional preference alignment: the answers, below a seed's directory. At 0 they are
# those of its normal evaluation.
ANGLES = {
    -45: "directions/answers_-45/true_rewards.jsonl",
    0: "dpa/eval/iter3/kl.jsonl",
    45: "directions/answers_45/true_rewards.jsonl",
}
COLOURS = {"true_reward": "tab:blue", "proxy_reward": "tab:orange"}
STYLES = {"proxy_reward": "o--", "true_reward": "o-"}


# The table


def measure(runs, name, policy):
    """The numbers of one policy: a row of the table, or a point of a curve."""
    seeds = runs.seeds(name, policy)
    mean, low, high = comparing.interval(runs.values(name, "win_rate", policy))
    row = {"optimiser": name, "policy": policy, "seeds": seeds}
    row |= {"win_rate": mean, "low": low, "high": high}
    for metric in ("true_reward", "proxy_reward", "accuracy", "length", "kl"):
        row[metric] = runs.mean(name, metric, policy)
    for metric in ("true_reward", "proxy_reward"):
        gain = comparing.mean_of(runs.gain(name, metric, policy))
        # Not finite where the fine-tuned policy's rewards do not vary: JSON has null for it.
        row[f"{metric}_gain"] = gain if math.isfinite(gain) else None
    costs = [runs.cost(name, seed) for seed in seeds]
    for key in ("seconds", "generated", "trained"):
        row[key] = fmean(cost[key] for cost in costs)
    return row


def best_first(base, curves):
    """The rows of the table: the fine-tuned policy, then the last of each run by win rate."""
    table = []
    for name, points in curves.items():
        if name == "best_of_n":
            # Its policies are no rounds of training: each has a row of its own.
            table += [point | {"optimiser": point["policy"]} for point in points]
        else:
            table.append(points[-1])
    table.sort(key=lambda row: -row["win_rate"])
    return [base, *table]


def cells(row):
    texts = [row["optimiser"], len(row["seeds"]), f"{row['win_rate']:.3f}"]
    texts.append(f"{row['low']:.3f} to {row['high']:.3f}")
    for metric in ("true_reward", "proxy_reward", "accuracy"):
        texts.append(f"{row[metric]:.3f}")
    texts += [f"{row['length']:.1f}", f"{row['kl']:.2f}"]
    for cost in ("seconds", "generated", "trained"):
        texts.append(f"{row[cost]:.0f}" if row[cost] else "-")
    return texts


# The page


def page(runs, table):
    """The text of COMPARISON.md."""
    seeds = set()
    for row in table:
        seeds |= set(row["seeds"])
    first_answers = next(iter(runs.answers.values()))
    prompts = len(first_answers["kl"])
    lines = [tables.markdown_line(HEAD), f"|{'---|' * len(HEAD)}"]
    for row in table:
        lines.append(tables.markdown_line(cells(row)))
    paragraphs = [
        "# The policy optimisers in the tiny world",
        f'    SEEDS="{" ".join(map(str, sorted(seeds)))}" bash comparison/compare.sh',
        explanation(prompts),
        "\n".join(lines),
        *no_gain(table),
        "![true and proxy reward against KL](kl.png)",
        "![win rate and compute](compute.png)",
        *steering(runs.directory),
    ]
    return "\n\n".join(paragraphs) + "\n\n"


def explanation(prompts):
    """How to read the table."""
    return (
        "The tiny world's numbers; they cannot be compared with those of other models. A row is "
        "the last policy of a\nrun (no round is chosen by validation); it answers "
        f"{prompts} test prompts per seed, once each, at temperature 1.\n\n"
        "- seeds: how many were run.\n"
        "- win rate: against the fine-tuned policy's answers, by the true reward. 95%: by a "
        "bootstrap over seeds and prompts;\n  with one seed, over prompts.\n"
        "- s: seconds of sampling, annotating and training; evaluation and what all optimisers "
        "share are not counted.\n"
        "- generated, trained: tokens, prompts included. They and s are means over seeds.\n"
        '- "-": none, or not counted.\n\n'
        "The KL of self_rewarding is to the policy that it starts from, which was fine-tuned to "
        "judge."
    )


def no_gain(table):
    """A list of the optimisers without a clear gain over the fine-tuned policy, with the cause."""
    lines = []
    for row in table:
        name = row["optimiser"]
        if row["low"] <= 0.5 and name != "sft":
            # Its 95% interval reaches one half.
            lines.append(
                f"- {name} does not clearly improve: {NO_GAIN.get(name, 'the cause is unknown')}."
            )
    if not lines:
        return []
    return ["\n".join(lines)]


def steering(directory):
    """A heading and a table of directional preference alignment at each angle, if all were run.

    Each number is the mean over seeds and test prompts.
    """
    lines = ["| angle | seeds | length | accuracy | true reward |", "|---|---|---|---|---|"]
    for angle, name in ANGLES.items():
        files = sorted(directory.glob(f"seed*/{name}"))
        lengths = []
        correct = []
        true_rewards = []
        for file in files:
            for row in rows.read(file, "rewards"):
                if row["split"] == "test":
                    lengths.append(len(trajectories.said(row["responses"][0])))
                    correct.append(row["correct"][0])
                    true_rewards.append(row["true_rewards"][0])
        if not lengths:
            return []
        length = f"{fmean(lengths):.1f}"
        accuracy = f"{fmean(correct):.3f}"
        true_reward = f"{fmean(true_rewards):.3f}"
        lines.append(tables.markdown_line([angle, len(files), length, accuracy, true_reward]))
    return ["## The last policy of dpa, asked in three directions", "\n".join(lines)]


# The figures


def kl_figure(pyplot, curves):
    """Gains of both rewards against the square root of KL, a small plot for each optimiser.

    curves: {optimiser: rows of the fine-tuned policy and of its rounds}.
    """
    columns = min(6, len(curves))
    lines = math.ceil(len(curves) / columns)
    figure, axes = pyplot.subplots(
        lines,
        columns,
        figsize=(2.3 * columns, 2 * lines + 0.6),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    # The last line of plots may not be full.
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    for axis, (name, points) in zip(axes.flat, curves.items(), strict=False):
        plot_gains(axis, name, points)
    # The lowest plot of each column.
    for axis in axes.flat[len(curves) - columns : len(curves)]:
        axis.set_xlabel("square root of KL", fontsize=8)
        axis.tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel("gain, st. dev.", fontsize=8)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", ncols=2)
    figure.suptitle("The tiny world: a point a round", x=0.02, ha="left")
    figure.tight_layout()
    return figure


def plot_gains(axis, name, points):
    # The estimate of a KL from samples may be below 0.
    roots = [math.sqrt(max(0, point["kl"])) for point in points]
    for metric, style in STYLES.items():
        gains = []
        for point in points:
            gain = point[f"{metric}_gain"]
            gains.append(math.nan if gain is None else gain)
        label = metric.replace("_", " ")
        axis.plot(roots, gains, style, ms=3, color=COLOURS[metric], label=label)
    axis.set_title(name, fontsize=9)


def compute_figure(pyplot, table):
    """Win rate against seconds, a point for each row of the table that took any."""
    figure, axis = pyplot.subplots(figsize=(9, 6))
    for row in table:
        if not row["seconds"]:
            continue
        point = (row["seconds"], row["win_rate"])
        spread = [[row["win_rate"] - row["low"]], [row["high"] - row["win_rate"]]]
        axis.errorbar(*point, spread, fmt="o", ms=4, lw=1)
        axis.annotate(
            row["optimiser"], point, fontsize=7, xytext=(4, 3), textcoords="offset points"
        )
    axis.set_xlabel("seconds on this machine, without evaluation")
    axis.set_ylabel("win rate against the fine-tuned policy")
    axis.set_title("The tiny world: win rate and compute")
    return figure


def write_figures(directory, base, curves, table):
    import matplotlib

    # Draws into files, without a display.
    matplotlib.use("Agg")
    from matplotlib import pyplot

    from_base = {name: [base, *points] for name, points in curves.items()}
    outputs.write_figure(directory / "kl.png", kl_figure(pyplot, from_base), dpi=90)
    figure = compute_figure(pyplot, table)
    outputs.write_figure(directory / "compute.png", figure, dpi=110, bbox_inches="tight")


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--directory", required=True)
    args = parser.parse_args()
    runs = comparing.Runs(args.directory)
    names = sorted({name for name, _, _ in runs.answers} - {"base"})
    if not names:
        sys.exit(f"{runs.directory}: no run of compare.sh is there")

    base = measure(runs, "base", "sft") | {"optimiser": "sft"}
    curves = {}  # {name: rows of its policies}
    for name in names:
        curves[name] = [measure(runs, name, policy) for policy in runs.policies(name)]
    table = best_first(base, curves)
    text = page(runs, table)

    write_figures(runs.directory, base, curves, table)
    outputs.write_json(runs.directory / "comparison.json", table)
    outputs.write_text(runs.directory / "COMPARISON.md", text)
    print(text)


if __name__ == "__main__":
    main()
