"""The plots of the report: each a figure of HTML with SVG in it."""

import base64
import contextlib
import io
import math
import re
from html import escape

import matplotlib
from matplotlib.figure import Figure

REWARDS = {
    "proxy_gain": ("proxy reward", "#c44e00", "s-"),
    "true_gain": ("true reward", "#0072b2", "o-"),
}


@contextlib.contextmanager
def plot(figures, caption, x="", y="", projection=None):
    """Gives axes to draw on; then the plot is appended to the figures as HTML."""
    figure = Figure(figsize=(4.6, 3.1), layout="constrained")
    axes = figure.subplots(subplot_kw={"projection": projection})
    axes.set(xlabel=x, ylabel=y)
    axes.grid(color="#ddd")
    if not projection:
        axes.spines[["top", "right"]].set_visible(False)
    yield axes
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(
            frameon=False,
            **({"loc": "center left", "bbox_to_anchor": (1.2, 0.5)} if projection else {}),
        )
    # Text stays text; the salt makes the names of marks differ between the plots of a page.
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": caption}),
        io.StringIO() as file,
    ):
        figure.savefig(file, format="svg", metadata={"Date": None})
        svg = file.getvalue().partition("<svg ")[2]
    svg = re.sub(r'<metadata>.*?</metadata>|(?<=<g) id="[^"]*"', "", svg, flags=re.DOTALL)
    svg = f'<svg role="img" aria-label="{escape(caption)}" {svg}'
    figures.append(f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>")


def of_policies(results, test):
    names, base, policies, figures = (
        list(test),
        results["baseline"],
        results["policies"].values(),
        [],
    )
    kl, wins, errors = (
        [policy[key] for policy in policies] for key in ("kl", "win_rate", "win_rate_stderr")
    )
    if None not in wins:
        caption = (
            f"Win rate against {base} by the true reward, ± one standard error. Dashed: one half."
        )
        with plot(figures, caption, "policy", "win rate") as axes:
            axes.axhline(0.5, color="#777", linestyle="--", linewidth=1)
            axes.errorbar(names, wins, errors, fmt="o-", color="#0072b2", capsize=4)
    gains = {
        key: [gain for gain in results["proxy_and_true"][key].values() if gain is not None]
        for key in REWARDS
    }
    shown = " and ".join(name for key, (name, *_) in REWARDS.items() if gains[key])
    against = [
        (names, "by round", "policy"),
        (kl, "against the KL divergence from pi_0", "KL (nats)"),
    ]
    for x, by, label in against if shown else ():
        caption = (
            f"Mean {shown} {by}, in standard deviations of {base}'s rewards over the test prompts."
        )
        with plot(figures, caption, label, f"gain over {base} (standard deviations)") as axes:
            for key, (name, color, marks) in REWARDS.items():
                if gains[key]:
                    axes.plot(x, gains[key], marks, color=color, label=name)
            if x is kl:
                axes.secondary_xaxis("top").set_xticks(
                    kl, names, rotation=30, horizontalalignment="left"
                )
    lengths = [
        [length for row in answers for length in row["lengths"]] for answers in test.values()
    ]
    caption = "Lengths of the answers: quartiles (box), 5% and 95% (whiskers), median (line) and mean (triangle)."
    with plot(figures, caption, "policy", "length (characters)") as axes:
        axes.boxplot(lengths, tick_labels=names, whis=(5, 95), showfliers=False, showmeans=True)
    return figures


def colour(i, count):
    return matplotlib.colormaps["viridis"](0.85 * i / count)


def by_round(curves, caption, unit):
    """One plot of {name: {policy: value or None}}; without any values none."""
    figures = []
    curves = {
        name: {p: v for p, v in curve.items() if v is not None} for name, curve in curves.items()
    }
    curves = {name: curve for name, curve in curves.items() if curve}
    if curves:
        with plot(figures, caption, "policy", unit) as axes:
            for i, (name, curve) in enumerate(curves.items()):
                axes.plot(
                    list(curve),
                    list(curve.values()),
                    "o-",
                    color=colour(i, len(curves)),
                    label=name,
                )
    return figures


def radar(policies, caption, most):
    """One plot of {policy: {axis: value or None}} from 0 to `most`; with fewer than three axes none."""
    figures, names = (
        [],
        list(dict.fromkeys(name for values in policies.values() for name in values)),
    )
    if len(names) > 2:
        angles = [2 * math.pi * i / len(names) for i in range(len(names) + 1)]
        with plot(figures, caption, projection="polar") as axes:
            for i, (policy, values) in enumerate(policies.items()):
                line = [
                    math.nan if values.get(name) is None else values[name]
                    for name in [*names, names[0]]
                ]
                axes.plot(
                    angles, line, "o-", markersize=3, color=colour(i, len(policies)), label=policy
                )
            axes.set_xticks(angles[:-1], names)
            axes.set_ylim(0, most)
    return figures


CAPTIONS = {
    "length_bias": "How rewards follow length: share of the prompts of a row, by the correlation over its responses. "
    "Dashed: the mean.",
    "calibration": "Predicted probability that a response is preferred, and the share that was, on held-out pairs.",
}


def embedded(pictures):
    """PNG files as figures of the page itself."""
    for path in pictures:
        caption = CAPTIONS.get(path.stem, path.stem)
        data = base64.b64encode(path.read_bytes()).decode()
        image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        yield f'<figure class="{path.stem}">{image}<figcaption>{escape(caption)}</figcaption></figure>'


def of_training(training):
    figures = []
    rounds = [
        name for name, log in training.items() if any("rewards/margins" in entry for entry in log)
    ]
    curves = [
        (f"Training loss of {name}.", "loss", "loss (nats)", [name])
        for name in training
        if name not in rounds
    ]
    if rounds:
        accuracy = "Share of training pairs that the policy's implicit reward orders right."
        curves += [("DPO loss. Dashed: ln 2.", "loss", "loss (nats)", rounds)]
        curves += [(accuracy, "rewards/accuracies", "accuracy", rounds)]
        curves += [
            ("Mean margin of the implicit reward.", "rewards/margins", "margin (nats)", rounds)
        ]
    for caption, key, unit, names in curves:
        with plot(figures, caption, "training step", unit) as axes:
            if "ln 2" in caption:
                axes.axhline(math.log(2), color="#777", linestyle="--", linewidth=1)
            for i, name in enumerate(names):
                steps = [entry["step"] for entry in training[name] if key in entry]
                values = [
                    math.nan if entry[key] is None else entry[key]
                    for entry in training[name]
                    if key in entry
                ]
                axes.plot(steps, values, marker=".", color=colour(i, len(names)), label=name)
    return figures
