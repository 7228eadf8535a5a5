"""The pages of 3_report.py: its results in Markdown, and in one HTML file with plots and answers."""

import math
from html import escape
from pathlib import Path

import report_benchmarks
import report_plots

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 70rem; margin: auto;
  padding: 1rem; overflow-wrap: break-word }
h1 { font-size: 1.7rem; line-height: 1.2 } h2 { margin-top: 3rem; border-bottom: 1px solid #bbb } p { max-width: 48rem }
.wide { overflow-x: auto } .wide td { white-space: nowrap } .best { font-weight: bold }
.published { color: #777 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid #ddd }
pre { font: inherit; margin: 0; white-space: pre-wrap; overflow-wrap: anywhere } figure { margin: 1rem 0 }
.plots { display: grid; gap: 1rem 2rem; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)) }
.length_bias { grid-column: 1 / -1 } svg, img { width: 100%; height: auto } figcaption, small { color: #555 }
.answers { table-layout: fixed; width: 100% }
@media (max-width: 40rem) { .answers tr, .answers td { display: block } .answers tr:first-child { display: none }
  .answers td::before { content: attr(data-policy); font-weight: bold } }
@media (prefers-color-scheme: dark) { body { color: #e4e4e4; background: #121212 }
  th, td { border-color: #333 } h2 { border-color: #555 } figcaption, small, .published { color: #999 }
  svg, img { filter: invert(0.93) hue-rotate(180deg) } }
"""


def cell(value, digits=3):
    return (
        "-" if value is None else f"{value:.{digits}f}" if isinstance(value, float) else str(value)
    )


def main_table(results):
    header = [
        "policy",
        "true_reward",
        "win_rate",
        "proxy_reward",
        "accuracy",
        "length",
        "kl",
        "truncated",
    ]
    table = []
    for name, policy in results["policies"].items():
        line = [cell(policy[metric], 1 if metric == "length" else 3) for metric in header[1:]]
        line[1] += (
            f" ± {policy['win_rate_stderr']:.3f}" if policy["win_rate_stderr"] is not None else ""
        )
        table.append([name + (" (best)" if name == results["best"] else ""), *line])
    return header, table


def best_line(results):
    best, by, base = results["best"], results["best_by"], results["baseline"]
    chosen = results["validation"]
    score = {name: f"{value:.3f}" for name, value in chosen["scores"].items()}
    other = "no round is better" if best == base else f"{base} has {score[base]}"
    by += f" less {chosen['penalty']:g} a character" if chosen["penalty"] else ""
    line = f"Best by {by} on the validation prompts: {best} with {score[best]}; {other}."
    if chosen["is_proxy"]:
        line += " The policies are trained for what chooses here: how far they exploit it does not show in this choice."
    return line


def title(results):
    recipe = Path(results["recipe"]).stem
    tiny = " (tiny world: never comparable with published numbers)" if "tiny" in recipe else ""
    return f"RLHF Workflow, recipe {recipe}{tiny}"


def sections(results):
    """Yields what both pages say: (heading, paragraphs, header of a table, its rows)."""
    policies, base, measured = results["policies"], results["baseline"], results["proxy_and_true"]
    legend = (
        f"Means over {policies[base]['prompts']} test prompts, ± one standard error. true_reward: known in a made "
        f"world only; win_rate: against {base} by true_reward, a tie counts one half; proxy_reward: the annotator's, "
        "for which the policy is trained; accuracy: share of right answers; length: characters; kl: log pi - log pi_0 "
        "of the policy's own answers, nats; truncated: share of answers cut at the token limit."
    )
    yield "Policies", [best_line(results), legend], *main_table(results)
    columns = ["proxy_gain", "true_gain", "correlation"]
    note = f"Gains: over {base}, in standard deviations of its rewards over the test prompts. "
    note += "Correlation: Pearson's, of the two rewards over all test answers of a policy."
    table = [[name, *(cell(measured[column][name]) for column in columns)] for name in policies]
    yield (
        "Proxy and true reward",
        [measured["text"], measured["rule"], note],
        ["policy", *columns],
        table,
    )
    kinds = {name: policy["accuracy_by_source"] for name, policy in policies.items()}
    if 0 < len(kinds[base]) <= 15:
        table = [
            [kind, *(cell(accuracy.get(kind)) for accuracy in kinds.values())]
            for kind in kinds[base]
        ]
        yield "Accuracy by kind of question", [], ["source", *policies], table
    yield from report_benchmarks.sections(results)
    yield from measures_of(results["measures"])
    note = f"The loss of sigmoid DPO begins at ln 2 = {math.log(2):.4f} if the policy begins as its reference. "
    note += "eval_loss and eval_accuracy are the last on held-out rows."
    header = ["model", *next(iter(results["training"].values()))]
    table = [
        [name, *(cell(value, 4) for value in facts.values())]
        for name, facts in results["training"].items()
    ]
    yield "Training", [note], header, table
    seconds = results["seconds"] | {"all": results["seconds_total"]}
    yield (
        "Seconds",
        [],
        ["step", "seconds"],
        [[step, cell(value, 1)] for step, value in seconds.items()],
    )
    yield (
        "Settings",
        [],
        ["variable", "value"],
        [[name, value] for name, value in results["settings"].items()],
    )
    about = (
        {key: results[key] for key in ("date", "commit", "seed")}
        | results["machine"]
        | results["versions"]
    )
    yield (
        "Versions and machine",
        [],
        ["what", "value"],
        [[key, cell(value)] for key, value in about.items()],
    )


def measures_of(measures):
    """The sections on the reward models, the same way."""
    models = measures.get("rewardbench", {})
    for bench in dict.fromkeys(name for of_model in models.values() for name in of_model):
        by = {name: of_model[bench] for name, of_model in models.items() if bench in of_model}
        names = list(next(iter(by.values()))["sections"])
        counts = {
            name: f"{sum(of['rows'].values())} of {sum(of['of'].values())}"
            for name, of in by.items()
        }
        table = [
            [
                name,
                *(cell(of["sections"].get(section)) for section in names),
                cell(of["score"]),
                counts[name],
            ]
            for name, of in by.items()
        ]
        note = "Share of pairs whose better response has the higher reward; a section is the mean of its subsets."
        yield f"Reward models: {bench}", [note], ["annotator", *names, "score", "rows"], table
    header, bias, calibration = (
        ["annotator"],
        measures.get("length_bias", {}),
        measures.get("calibration", {}),
    )
    header += ["length correlation"] if bias else []
    header += ["calibration error"] if calibration else []
    note = "length correlation: Pearson's, of reward and length over the responses to a prompt, mean over prompts. "
    note += "calibration error: mean distance of the predicted probability from the share that raters prefer."
    table = [
        [
            name,
            *[
                cell(of[name][key])
                for of, key in ((bias, "mean"), (calibration, "calibration_error"))
                if of
            ],
        ]
        for name in bias or calibration
    ]
    if table:
        yield "Reward models: length and calibration", [note], header, table


def markdown_table(header, table):
    lines = [
        [text.replace("|", "\\|").replace("<", "&lt;") for text in line]
        for line in (header, *table)
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def markdown(results):
    parts = [f"# {title(results)}"]
    for heading, notes, header, table in sections(results):
        parts += [f"## {heading}", *notes, markdown_table(header, table)]
    return "\n\n".join(parts) + "\n"


def answers(results, test):
    """Three test prompts, of different sources if there are three, and what every policy answers first."""
    base, first = test[results["baseline"]], {}
    for i, row in enumerate(base):
        first.setdefault(row.get("source"), i)
    for i in [*first.values(), *(i for i in range(len(base)) if i not in first.values())][:3]:
        asked = "\n".join(
            f"{message['role']}: {message['content']}" for message in base[i]["prompt"]
        )
        asked += f"\nright answer: {base[i]['answer']}" if "answer" in base[i] else ""
        head, cells = "", ""
        for name, rows in test.items():
            known = [("proxy", "rewards"), ("true", "true_rewards")]
            note = ", ".join(
                f"{word} {rows[i][field][0]:.2f}" for word, field in known if field in rows[i]
            )
            text = f"<pre>{escape(rows[i]['responses'][0])}</pre><small>{note}</small>"
            head += f"<th>{escape(name)}</th>"
            cells += f'<td data-policy="{escape(name)}">{text}</td>'
        yield f"<h3>{escape(str(base[i].get('source', '')))}</h3><pre>{escape(asked)}</pre>"
        yield f'<table class="answers"><tr>{head}</tr><tr>{cells}</tr></table>'


def page(results, test, training, pictures):
    figures = {
        "Proxy and true reward": report_plots.of_policies(results, test),
        "Training": report_plots.of_training(training),
        "Reward models: length and calibration": report_plots.embedded(pictures),
    }
    figures |= report_benchmarks.figures(results)
    name, body = escape(title(results)), []
    for heading, notes, header, table in sections(results):
        body += [f"<h2>{escape(heading)}</h2>", *(f"<p>{escape(note)}</p>" for note in notes)]
        body += [
            '<div class="wide"><table><tr>',
            *(f"<th>{escape(text)}</th>" for text in header),
            "</tr>",
        ]
        for line in table:
            kind = next(
                (kind for kind in ("best", "published") if line[0].endswith(f" ({kind})")), None
            )
            body += [f'<tr class="{kind}">' if kind else "<tr>"]
            body += [*(f"<td>{escape(text)}</td>" for text in line), "</tr>"]
        body += ['</table></div><div class="plots">', *figures.get(heading, []), "</div>"]
    body += ["<h2>Three test prompts</h2>", *answers(results, test)]
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title><style>{STYLE}</style>'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1"></head>'
    return f"{head}<body><h1>{name}</h1>{''.join(body)}</body></html>\n"
