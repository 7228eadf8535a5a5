"""The pages of the report: its sections in Markdown, and in an HTML file with plots and answers."""

from html import escape

import report_academic
import report_benchmarks
import report_plots
import report_sections
from common import trajectories

# One rule a line. A backslash joins it to the next line.
STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; \
max-width: 70rem; margin: auto;
  padding: 1rem; overflow-wrap: break-word }
h1 { font-size: 1.7rem; line-height: 1.2 } \
h2 { margin-top: 3rem; border-bottom: 1px solid #bbb } \
p { max-width: 48rem }
.wide { overflow-x: auto } \
.wide td { white-space: nowrap } \
.best { font-weight: bold }
.published { color: #777 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0; \
border-bottom: 1px solid #ddd }
pre { font: inherit; margin: 0; white-space: pre-wrap; overflow-wrap: anywhere } \
figure { margin: 1rem 0 }
.plots { display: grid; gap: 1rem 2rem; \
grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)) }
.length_bias { grid-column: 1 / -1 } \
svg, img { width: 100%; height: auto } \
figcaption, small { color: #555 }
.answers { table-layout: fixed; width: 100% }
@media (max-width: 40rem) { \
.answers tr, .answers td { display: block } \
.answers tr:first-child { display: none }
  .answers td::before { content: attr(data-policy); font-weight: bold } }
@media (prefers-color-scheme: dark) { body { color: #e4e4e4; background: #121212 }
  th, td { border-color: #333 } \
h2 { border-color: #555 } \
figcaption, small, .published { color: #999 }
  svg, img { filter: invert(0.93) hue-rotate(180deg) } }
"""


# Markdown


def markdown(results):
    parts = [f"# {report_sections.title(results)}"]
    for heading, notes, header, table in report_sections.sections(results):
        parts += [f"## {heading}", *notes, markdown_table(header, table)]
    return "\n\n".join(parts) + "\n"


def markdown_table(header, table):
    """A table whose columns are aligned in the text too, for a terminal."""
    lines = []
    for line in (header, *table):
        lines.append([text.replace("|", "\\|").replace("<", "&lt;") for text in line])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


# HTML


def page(results, test, training, pictures):
    """The text of report.html.

    test: {policy: its rows of the test split}; training: {model: its log}; pictures: PNG files.
    """
    figures = {
        "Proxy and true reward": report_plots.policy_plots(results, test),
        "Training": report_plots.training_plots(training),
        "Reward models: length and calibration": report_plots.embedded(pictures),
        **report_benchmarks.figures(results),
        **report_academic.figures(results),
    }
    name = escape(report_sections.title(results))
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f"<title>{name}</title><style>{STYLE}</style>",
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head>',
        f"<body><h1>{name}</h1>",
    ]
    for heading, notes, header, table in report_sections.sections(results):
        parts.append(f"<h2>{escape(heading)}</h2>")
        for note in notes:
            parts.append(f"<p>{escape(note)}</p>")
        parts.append(f'<div class="wide">{html_table(header, table)}</div>')
        parts += ['<div class="plots">', *figures.get(heading, []), "</div>"]
    parts += ["<h2>Three test prompts</h2>", *sample_answers(results, test)]
    parts.append("</body></html>\n")
    return "".join(parts)


def html_table(header, table):
    parts = ["<table><tr>"]
    for text in header:
        parts.append(f"<th>{escape(text)}</th>")
    parts.append("</tr>")
    for line in table:
        # The name of a policy ends with the kind of its row.
        row = "<tr>"
        for kind in ("best", "published"):
            if line[0].endswith(f" ({kind})"):
                row = f'<tr class="{kind}">'
        parts.append(row)
        for text in line:
            parts.append(f"<td>{escape(text)}</td>")
        parts.append("</tr>")
    parts.append("</table>")
    return "".join(parts)


def sample_answers(results, test):
    """Yield HTML of three test prompts, each with the first response of every policy."""
    base_rows = test[results["baseline"]]
    for i in sample_indexes(base_rows):
        row = base_rows[i]
        prompt = "\n".join(f"{turn['role']}: {turn['content']}" for turn in row["prompt"])
        if "answer" in row:
            prompt += f"\nright answer: {row['answer']}"
        source = str(row.get("source", ""))
        yield f"<h3>{escape(source)}</h3><pre>{escape(prompt)}</pre>"
        head = ""
        cells = ""
        for policy, policy_rows in test.items():
            head += f"<th>{escape(policy)}</th>"
            cells += answer_cell(policy, policy_rows[i])
        yield f'<table class="answers"><tr>{head}</tr><tr>{cells}</tr></table>'


def sample_indexes(base_rows):
    """Three rows, of different sources if there are three."""
    first_of_source = {}
    for i, row in enumerate(base_rows):
        first_of_source.setdefault(row.get("source"), i)
    indexes = list(first_of_source.values())
    others = [i for i in range(len(base_rows)) if i not in indexes]
    return (indexes + others)[:3]


def answer_cell(policy, row):
    notes = []
    for name, field in (("proxy", "rewards"), ("true", "true_rewards")):
        if field in row:
            notes.append(f"{name} {row[field][0]:.2f}")
    response = escape(trajectories.text(row["responses"][0]))
    text = f"<pre>{response}</pre><small>{', '.join(notes)}</small>"
    return f'<td data-policy="{escape(policy)}">{text}</td>'
