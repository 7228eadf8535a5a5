"""The pages of 3_report.py: its results as Markdown, and as one HTML file with plots and answers."""

import html
import io
import math

import matplotlib
from matplotlib.figure import Figure

BLUE, ORANGE = "#0072b2", "#c44e00"  # the true reward and the proxy; told apart by colour-blind eyes too
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 70rem; margin: auto; padding: 1rem }
h1, h2, h3 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc }
p { max-width: 48rem } div { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd }
.best { font-weight: bold } pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; margin: 0 }
.plots { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)) }
figure { margin: 0 } svg { width: 100%; max-width: 34rem; height: auto } figcaption, small { color: #555; font-size: .85rem }
.answers { table-layout: fixed; width: 100% }
@media (max-width: 40rem) { .answers th { display: none } .answers td { display: block }
  .answers td::before { content: attr(title); font-weight: bold } }
"""


def cell(value, digits=3):
    return "-" if value is None else f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def policy_table(results):
    header = ["policy", "true_reward", "win_rate", "proxy_reward", "accuracy", "length", "kl", "truncated"]
    table = []
    for name, policy in results["policies"].items():
        line = [cell(policy[metric], 1 if metric == "length" else 3) for metric in header[1:]]
        if policy["win_rate_stderr"] is not None:
            line[1] += f" ± {policy['win_rate_stderr']:.3f}"
        table.append([name + " (best)" * (name == results["best"]), *line])
    return header, table


def best_line(results):
    best, by, base = results["best"], results["best_by"], results["baseline"]
    scores = {name: policy["validation"][by] for name, policy in results["policies"].items()}
    return (
        f"Best by {by} on the {results['policies'][best]['validation']['prompts']} validation prompts: {best} "
        f"({scores[best]:.3f}; {base} {scores[base]:.3f})." + " No round is better than where it began." * (best == base)
    )


def sections(results):
    """[(heading, paragraphs, header, table)], what both pages tell in words and numbers."""
    policies, base = results["policies"], results["baseline"]
    test, measured, training = policies[base]["prompts"], results["proxy_and_true"], results["training"]
    header, table = policy_table(results)
    rule = (
        "Rule: in a round they part if the proxy rises and the true reward does not, or if the proxy's gain since "
        f"{base} comes to exceed the true reward's by more than {results['gap']} and by more than a round before."
    )
    yield (
        "Policies",
        [
            f"Means over the answers to {test} test prompts; ± one standard error over prompts. true_reward: the "
            f"reward that only a made world knows; win_rate: against {base} by it, a tie counts one half; proxy_reward: "
            "the annotator's, which the policy was trained on; accuracy: right answers; length: characters; kl: log pi - log "
            f"pi_0 of the policy's own answers, nats; truncated: answers cut at the token limit.",
            best_line(results),
        ],
        header,
        table,
    )
    columns = {key: measured[key] or {} for key in ("proxy_gain", "true_gain", "correlation")}
    yield (
        "Proxy and true reward",
        [measured["text"], rule, "correlation: Pearson's, of the two rewards over one policy's test answers."],
        ["policy", *columns],
        [[name, *(cell(column.get(name)) for column in columns.values())] for name in policies],
    )
    kinds = policies[base]["accuracy_by_source"]
    if 0 < len(kinds) <= 15:
        rows = [[kind, *(cell(policy["accuracy_by_source"][kind]) for policy in policies.values())] for kind in kinds]
        yield "Accuracy by kind of question", [], ["source", *policies], rows
    yield (
        "Training",
        [
            f"Losses are the first and the last that were logged; held_out are the last evaluation's. DPO's sigmoid loss is "
            f"ln 2 = {math.log(2):.4f} where the policy still is the reference: first_loss - ln 2 shows how far off it begins."
        ],
        ["model", "first_loss", "at step", "first_loss - ln 2", "last_loss", "held_out loss", "held_out accuracy"],
        [
            [
                name,
                cell(facts["first_loss"], 4),
                cell(facts["first_step"]),
                cell(facts["first_loss"] - math.log(2) if facts["dpo"] and facts["first_loss"] else None, 4),
                *(cell(facts[key], 4) for key in ("last_loss", "eval_loss", "eval_accuracy")),
            ]
            for name, facts in training.items()
        ],
    )
