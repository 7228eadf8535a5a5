"""Show how the rewards of n responses to one prompt correlate with their lengths.

RLHF Workflow, arXiv 2405.07863, section 2.2, Figure 3.

For each prompt: Pearson's correlation of reward and length (characters). Prompts are grouped by the
mean length of their responses. A prompt whose rewards or lengths do not vary has no correlation: it
is left out and counted.

Reads:  --rewards_files, {"id", "prompt", "responses", "rewards", ...} of one or several annotators,
        named by --names
Writes: --output_dir, length_bias.json (the mean correlation, by group and over all prompts) and
        length_bias.png, a heat map for each annotator: the share of a group's prompts that has that
        correlation

    python reward_modeling/4_length_bias.py \
        --rewards_files runs/tiny/measures/responses_reward_model.jsonl --names reward_model \
        --output_dir runs/tiny/measures
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import annotator_names
from common import arguments, outputs, rows, tables

FILES = ("length_bias.png", "length_bias.json")
# Quintiles: groups of equally many prompts, by the mean length of their responses.
MAX_GROUPS = 5
BINS = 10  # of the correlation, from -1 to 1
# One colour scale for all panels, so that they compare; larger shares of a group's prompts have the
# colour of this one.
MAX_SHARE = 0.6


@dataclass
class LengthBias:
    """One annotator's correlations."""

    mean_lengths: Any  # array (prompts,), of the responses to a prompt
    correlations: Any  # array (prompts,)
    without_correlation: int  # prompts
    groups: list  # arrays of indexes of prompts


def measure(file):
    import numpy as np

    mean_lengths = []
    correlations = []
    without_correlation = 0
    for row in rows.read(file, "rewards"):
        lengths = np.array([len(text) for text in row["responses"]], float)
        # Constant values have no correlation. Rounding may give them a standard deviation above 0,
        # but never a range.
        if np.ptp(lengths) > 0 and np.ptp(row["rewards"]) > 0:
            mean_lengths.append(lengths.mean())
            correlations.append(np.corrcoef(lengths, row["rewards"])[0, 1])
        else:
            without_correlation += 1
    if not correlations:
        sys.exit(f"{file}: rewards: no prompt with rewards and lengths that vary")
    by_length = np.argsort(mean_lengths, kind="stable")
    return LengthBias(
        mean_lengths=np.array(mean_lengths),
        correlations=np.array(correlations),
        without_correlation=without_correlation,
        groups=np.array_split(by_length, min(MAX_GROUPS, len(correlations))),
    )


def summary(bias):
    groups = []
    for group in bias.groups:
        mean_length = bias.mean_lengths[group].mean()
        groups.append({"mean_length": mean_length, "mean": bias.correlations[group].mean()})
    return {
        "mean": bias.correlations.mean(),
        "prompts": len(bias.correlations),
        "without_correlation": bias.without_correlation,
        "groups": groups,
    }


def heat_map(axes, name, bias):
    """Draw the shares of correlations (x) in each group of prompts (y); returns the image."""
    import numpy as np

    edges = np.linspace(-1, 1, BINS + 1)
    shares = []
    labels = []
    for group in bias.groups:
        # Rounding may take a correlation out of the range of the bins.
        correlations = bias.correlations[group].clip(-1, 1)
        shares.append(np.histogram(correlations, edges)[0] / len(group))
        labels.append(f"{bias.mean_lengths[group].mean():.0f}")
    # With the origin below, the first group, of the shortest responses, is the lowest row.
    image = axes.imshow(
        shares,
        cmap="viridis",
        vmin=0,
        vmax=MAX_SHARE,
        aspect="auto",
        origin="lower",
        extent=(-1, 1, 0, len(bias.groups)),
    )
    mean = bias.correlations.mean()
    axes.axvline(mean, color="white", linestyle="--", linewidth=1.5)
    axes.set(title=f"{name}\nmean {mean:+.2f}", xlabel="correlation of reward and length")
    axes.set_yticks(np.arange(len(bias.groups)) + 0.5, labels)
    return image


def draw(biases):
    """A figure with one panel for each annotator. biases: {name: LengthBias}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 + 3 * len(biases), 3.4), layout="constrained")
    panels = figure.subplots(1, len(biases), squeeze=False)[0]
    for axes, (name, bias) in zip(panels, biases.items(), strict=True):
        image = heat_map(axes, name, bias)
    panels[0].set_ylabel("mean length (characters)")
    figure.colorbar(image, ax=list(panels), label="share of the prompts of a row", extend="max")
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
    parser.add_output("--output_dir", "folder", FILES, type=Path, required=True)
    args = parser.parse_args()
    annotator_names.check(parser, args)
    return args


def main():
    args = parse_arguments()
    biases = {}
    for name, file in zip(args.names, args.rewards_files, strict=True):
        biases[name] = measure(file)
    results = {name: summary(bias) for name, bias in biases.items()}
    outputs.write_figure(args.output_dir / "length_bias.png", draw(biases), dpi=150)
    outputs.write_json(args.output_dir / "length_bias.json", results)
    lines = []
    for name, result in results.items():
        mean = f"{result['mean']:.3f}"
        lines.append([name, mean, result["prompts"], result["without_correlation"]])
    head = ["annotator", "mean correlation", "prompts", "without correlation"]
    print(tables.markdown(head, lines))


if __name__ == "__main__":
    main()
