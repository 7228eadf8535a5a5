"""Show how the rewards of n responses to one prompt follow their lengths (paper 2.2, Figure 3).

For each prompt Pearson's correlation of reward and length (characters); prompts are grouped by the mean length of their
responses. A prompt whose rewards or lengths do not vary has no correlation: it is left out and counted.

Reads:  --rewards_files, {"id", "prompt", "responses", "rewards", ...} of one or several annotators, named by --names
Writes: --output_dir, length_bias.json (the mean correlation, by group and over all prompts) and length_bias.png, a heat
        map for each annotator: the share of a group's prompts that has that correlation

    python reward_modeling/4_length_bias.py --rewards_files runs/tiny/measures/responses_reward_model.jsonl \
        --names reward_model --output_dir runs/tiny/measures
"""

import sys
from pathlib import Path

from common import arguments, outputs, rows

FILES = ("length_bias.png", "length_bias.json")
GROUPS = 5  # of prompts, at most; equal in number, by the mean length of the responses
BINS = 10  # of the correlation, from -1 to 1


def correlations(file):
    """Arrays (prompts,) of the mean length and the correlation, and how many prompts have none."""
    import numpy as np

    lengths, values, without = [], [], 0
    for row in rows.read(file, "rewards"):
        length = np.array([len(text) for text in row["responses"]], float)
        if length.std() and np.std(row["rewards"]):
            lengths.append(length.mean())
            values.append(np.corrcoef(length, row["rewards"])[0, 1])
        else:
            without += 1
    return np.array(lengths), np.array(values), without


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--rewards_files", nargs="+", required=True)
    parser.add_argument(
        "--names", nargs="+", required=True, help="of the annotators, in that order"
    )
    parser.add_output("--output_dir", "folder", FILES, type=Path, required=True)
    args = parser.parse_args()
    if len(args.names) != len(args.rewards_files):
        parser.error(f"--names: {len(args.names)} for {len(args.rewards_files)} files")
    if len(set(args.names)) < len(args.names):
        parser.error("--names: two annotators of one name")

    import numpy as np
    from matplotlib.figure import Figure

    count = len(args.names)
    figure = Figure(figsize=(1.2 + 3 * count, 3.4), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    results, edges = {}, np.linspace(-1, 1, BINS + 1)
    for axes, name, file in zip(panels, args.names, args.rewards_files, strict=True):
        lengths, values, without = correlations(file)
        if not len(values):
            sys.exit(f"{file}: rewards: no prompt with rewards and lengths that vary")
        groups = np.array_split(np.argsort(lengths, kind="stable"), min(GROUPS, len(values)))
        shares = [
            np.histogram(values[group].clip(-1, 1), edges)[0] / len(group) for group in groups
        ]
        results[name] = {
            "mean": values.mean(),
            "prompts": len(values),
            "without_correlation": without,
            "groups": [
                {"mean_length": lengths[group].mean(), "mean": values[group].mean()}
                for group in groups
            ],
        }
        image = axes.imshow(
            shares,
            cmap="viridis",
            vmin=0,
            vmax=0.6,
            aspect="auto",
            origin="lower",
            extent=(-1, 1, 0, len(groups)),
        )
        axes.axvline(values.mean(), color="white", linestyle="--", linewidth=1.5)
        axes.set(
            title=f"{name}\nmean {values.mean():+.2f}", xlabel="correlation of reward and length"
        )
        labels = [f"{lengths[group].mean():.0f}" for group in groups]
        axes.set_yticks(np.arange(len(groups)) + 0.5, labels)
    panels[0].set_ylabel("mean length (characters)")
    figure.colorbar(image, ax=list(panels), label="share of the prompts of a row", extend="max")

    outputs.write_figure(args.output_dir / "length_bias.png", figure, dpi=150)
    outputs.write_json(args.output_dir / "length_bias.json", results)
    print(
        "| annotator | mean correlation | prompts | without correlation |\n| --- | --- | --- | --- |"
    )
    for name, result in results.items():
        print(
            f"| {name} | {result['mean']:.3f} | {result['prompts']} | {result['without_correlation']} |"
        )


if __name__ == "__main__":
    main()
