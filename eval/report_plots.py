"""The plots of the report: each is a figure of HTML with SVG in it."""

import base64
import contextlib
import io
import math
import re
from html import escape

import matplotlib
from matplotlib.figure import Figure

BLUE = "#0072b2"
GREY = "#777"
GAINS = {  # keys of results["proxy_and_true"]: how their curves are drawn
    "proxy_gain": {"label": "proxy reward", "color": "#c44e00", "marker": "s"},
    "true_gain": {"label": "true reward", "color": BLUE, "marker": "o"},
}
PICTURE_CAPTIONS = {  # of the PNG files that scripts of reward_modeling/ write
    "length_bias": (
        "How rewards follow length: share of the prompts of a row, by the correlation over its "
        "responses. Dashed: the mean."
    ),
    "calibration": (
        "Predicted probability that a response is preferred, and the share that was, on held-out "
        "pairs."
    ),
}


# From matplotlib to HTML


@contextlib.contextmanager
def plot(figures, caption, x="", y="", projection=None):
    """Give axes to draw on, then append the plot as HTML to the figures. x, y: axis labels."""
    figure = Figure(figsize=(4.6, 3.1), layout="constrained")
    axes = figure.subplots(subplot_kw={"projection": projection})
    axes.set(xlabel=x, ylabel=y)
    axes.grid(color="#ddd")
    if not projection:
        axes.spines[["top", "right"]].set_visible(False)
    yield axes
    _, labels = axes.get_legend_handles_labels()
    if len(labels) > 1 and projection == "polar":
        # Beside the circle, which fills its square.
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.2, 0.5))
    elif len(labels) > 1:
        axes.legend(frameon=False)
    figures.append(html_figure(figure, caption))


def html_figure(figure, caption):
    # Text stays text, so that it can be searched. The salt makes the names of marks differ between
    # the plots of a page: a name is looked up in all of them.
    options = {"svg.fonttype": "none", "svg.hashsalt": caption}
    with matplotlib.rc_context(options), io.StringIO() as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
        svg = file.getvalue().partition("<svg ")[2]
    # Names of groups are not unique in a page, and nothing refers to them.
    svg = re.sub(r'<metadata>.*?</metadata>|(?<=<g) id="[^"]*"', "", svg, flags=re.DOTALL)
    svg = f'<svg role="img" aria-label="{escape(caption)}" {svg}'
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def embedded(pictures):
    """Yield PNG files as figures that hold the whole picture."""
    for path in pictures:
        caption = escape(PICTURE_CAPTIONS.get(path.stem, path.stem))
        data = base64.b64encode(path.read_bytes()).decode()
        image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
        yield f'<figure class="{path.stem}">{image}<figcaption>{caption}</figcaption></figure>'


def colour(i, count):
    """The colour of curve i of `count` curves; the palest end of the map is left out."""
    return matplotlib.colormaps["viridis"](0.85 * i / count)


def without_none(values):
    # matplotlib leaves a gap in the curve where a value is NaN.
    return [math.nan if value is None else value for value in values]


# Plots of any numbers


def by_round(curves, caption, unit):
    """One plot of {name: {policy: value or None}}; none where there are no values."""
    points = {}  # {name: {policy: value}}, without None
    for name, curve in curves.items():
        for policy, value in curve.items():
            if value is not None:
                points.setdefault(name, {})[policy] = value
    figures = []
    if not points:
        return figures
    with plot(figures, caption, "policy", unit) as axes:
        for i, (name, value_by_policy) in enumerate(points.items()):
            policies = list(value_by_policy)
            values = list(value_by_policy.values())
            axes.plot(policies, values, "o-", color=colour(i, len(points)), label=name)
    return figures


def radar(policies, caption, maximum):
    """One plot of {policy: {axis: value or None}} from 0 on; none with fewer than three axes."""
    names = {}
    for values in policies.values():
        names |= dict.fromkeys(values)
    names = list(names)
    figures = []
    if len(names) < 3:
        return figures
    # The first point stands at the end again, to close the curve.
    angles = [2 * math.pi * i / len(names) for i in range(len(names) + 1)]
    closed = [*names, names[0]]
    with plot(figures, caption, projection="polar") as axes:
        for i, (policy, values) in enumerate(policies.items()):
            line = without_none(values.get(name) for name in closed)
            shade = colour(i, len(policies))
            axes.plot(angles, line, "o-", markersize=3, color=shade, label=policy)
        axes.set_xticks(angles[:-1], names)
        axes.set_ylim(0, maximum)
    return figures


# Policies


def policy_plots(results, test):
    """Win rates, gains by round and by KL, lengths. test: {policy: its rows of the test split}."""
    figures = []
    win_rate_plot(figures, results)
    gain_plots(figures, results)
    length_plot(figures, test)
    return figures


def win_rate_plot(figures, results):
    policies = results["policies"]
    win_rates = [policy["win_rate"] for policy in policies.values()]
    errors = [policy["win_rate_stderr"] for policy in policies.values()]
    if None in win_rates:
        return
    base = results["baseline"]
    caption = f"Win rate against {base} by the true reward, ± one standard error. Dashed: one half."
    with plot(figures, caption, "policy", "win rate") as axes:
        axes.axhline(0.5, color=GREY, linestyle="--", linewidth=1)
        axes.errorbar(list(policies), win_rates, errors, fmt="o-", color=BLUE, capsize=4)


def gain_plots(figures, results):
    """Gains of both rewards, by round and against KL; a reward that is not known is left out."""
    gains = {}
    for key in GAINS:
        values = list(results["proxy_and_true"][key].values())
        if None not in values:
            gains[key] = values
    if not gains:
        return
    base = results["baseline"]
    names = list(results["policies"])
    kl = [policy["kl"] for policy in results["policies"].values()]
    rewards = " and ".join(GAINS[key]["label"] for key in gains)
    unit = f"in standard deviations of {base}'s rewards over the test prompts."
    label = f"gain over {base} (standard deviations)"

    with plot(figures, f"Mean {rewards} by round, {unit}", "policy", label) as axes:
        for key, values in gains.items():
            axes.plot(names, values, **GAINS[key])

    caption = f"Mean {rewards} against the KL divergence from pi_0, {unit}"
    with plot(figures, caption, "KL (nats)", label) as axes:
        for key, values in gains.items():
            axes.plot(kl, values, **GAINS[key])
        # The lower axis has numbers; the upper one names the policies.
        top = axes.secondary_xaxis("top")
        top.set_xticks(kl, names, rotation=30, horizontalalignment="left")


def length_plot(figures, test):
    lengths = []
    for answers in test.values():
        policy_lengths = []
        for row in answers:
            policy_lengths += row["lengths"]
        lengths.append(policy_lengths)
    caption = (
        "Lengths of the answers: quartiles (box), 5% and 95% (whiskers), median (line) and mean "
        "(triangle)."
    )
    with plot(figures, caption, "policy", "length (characters)") as axes:
        axes.boxplot(
            lengths, tick_labels=list(test), whis=(5, 95), showfliers=False, showmeans=True
        )


# Trainings


def training_plots(training):
    """training: {model: its log}. A loss for each model, but one plot for all rounds of DPO."""
    figures = []
    rounds = {}
    for name, log in training.items():
        # No other training logs the margin of an implicit reward.
        if any("rewards/margins" in entry for entry in log):
            rounds[name] = log
        else:
            caption = f"Training loss of {name}."
            training_plot(figures, caption, "loss", "loss (nats)", {name: log})
    if not rounds:
        return figures
    # In the first round the policy begins as its own reference, where DPO's loss is ln 2.
    accuracy = "Share of training pairs that the policy's implicit reward orders right."
    margin = "Mean margin of the implicit reward."
    training_plot(figures, "DPO loss. Dashed: ln 2.", "loss", "loss (nats)", rounds, math.log(2))
    training_plot(figures, accuracy, "rewards/accuracies", "accuracy", rounds)
    training_plot(figures, margin, "rewards/margins", "margin (nats)", rounds)
    return figures


def training_plot(figures, caption, key, unit, logs, dashed=None):
    """One plot of an entry of the logs by training step. dashed: the height of a dashed line."""
    with plot(figures, caption, "training step", unit) as axes:
        if dashed is not None:
            axes.axhline(dashed, color=GREY, linestyle="--", linewidth=1)
        for i, (name, log) in enumerate(logs.items()):
            entries = [entry for entry in log if key in entry]
            steps = [entry["step"] for entry in entries]
            values = without_none(entry[key] for entry in entries)
            axes.plot(steps, values, marker=".", color=colour(i, len(logs)), label=name)
