"""Tables in Markdown."""

from collections import Counter


def markdown(head, lines):
    """The text of a table, without a line feed at its end. lines: a list of cells each."""
    rule = ["---"] * len(head)
    return "\n".join(markdown_line(cells) for cells in [head, rule, *lines])


def markdown_line(cells):
    return f"| {' | '.join(map(str, cells))} |"


def outcomes(counts, first_column, kept, kept_column):
    """The table of what became of the rows of each source, and of all if there are several.

    counts: {source: Counter of its rows by outcome}; the outcome `kept` is the column kept_column,
    any other is a reason why rows are dropped.
    """
    outcomes_by_name = list(counts.items())
    if len(counts) > 1:
        outcomes_by_name.append(("all", sum(counts.values(), Counter())))
    lines = []
    for name, outcomes_of_name in outcomes_by_name:
        dropped = Counter(outcomes_of_name)
        rows_kept = dropped.pop(kept, 0)
        why = ", ".join(f"{reason}: {count}" for reason, count in dropped.most_common())
        lines.append([name, outcomes_of_name.total(), rows_kept, dropped.total(), why])
    return markdown([first_column, "rows in", kept_column, "dropped", "why"], lines) + "\n"
