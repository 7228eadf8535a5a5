"""The verifiers that a row may name, a file each. One's own file has the same two functions.

scores(responses, answer, arguments)
    A number from 0 (wrong) to 1 (right) for each response. responses: texts without their
    thoughts, none of them blank. answer: the row's, a text, or None. arguments: the row's,
    {name: value}, {} where it gives none.
check(answer, arguments)
    May be left out. It raises a ValueError, 'answer: reason' or 'arguments: reason', where
    those of a row do not suit. It is called for all rows before the first response is scored.
"""
