"""Tables in Markdown."""


def markdown(head, lines):
    """The text of a table, without a line feed at its end. lines: a list of cells each."""
    rule = ["---"] * len(head)
    return "\n".join(markdown_line(cells) for cells in [head, rule, *lines])


def markdown_line(cells):
    return f"| {' | '.join(map(str, cells))} |"
