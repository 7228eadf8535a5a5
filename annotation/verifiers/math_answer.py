r"""Is the final answer of a response equal to the row's, as mathematics (math-verify)?

The final answer is the last \boxed{}, or what follows "the answer is", or the last expression. It
is right if it has the same words as the answer or if math-verify says that they are equal, with the
same case of its variables. Where the answer is a letter, such as B or (B), the option that the
response chooses counts. A response that gives two answers in a sentence is wrong, unless both are
right ("0.5, or 1/2"); of boxes in several sentences the last counts, as published graders have it.
What follows "not" is no answer: "The answer is not 4 but 5." states 5.

arguments: {"pattern"?}: a regular expression; only what its one group matches last is compared.
"""

import functools
import re

import final_answer
import verifier_arguments
from common import entrances

# What math-verify reads as something else: (pattern, in its place).
MISREAD = [
    # A space between thousands, which it takes for a product: 1\,000.
    (re.compile(r"(?<=\d)\\[,;:! ]\s*(?=\d{3}(?!\d))"), ""),
    # The e of scientific notation, which it takes for Euler's number: 7e4.
    (re.compile(r"(?<![\w.\\])(\d+(?:\.\d+)?)[eE]([+-]?\d+)(?!\w)"), r"\1 \\times 10^{\2}"),
    # Another sign for the empty set.
    (re.compile(r"\\varnothing(?![a-zA-Z])"), r"\\emptyset"),
]


# Of a response without a box, in which the last expression is looked for: it takes time.
LAST_CHARACTERS = 10_000
# Between two answers that a response states.
OR = re.compile(r",?\s(?:or|and/or)\s", re.IGNORECASE)
# In an answer that consists of several.
SEVERAL = re.compile(r",|\\pm|\bor\b|\band\b")


def check(answer, arguments):
    verifier_arguments.check_answer(answer)
    verifier_arguments.check_answer_pattern(arguments)
    if not final_answer.option(answer) and not parsed_answer(answer):
        raise ValueError(f"answer: {answer!r} is not mathematics")


def scores(responses, answer, arguments):
    return [is_right(response, answer, arguments) for response in responses]


def is_right(response, answer, arguments):
    text = verifier_arguments.last_match(arguments, response)
    if text is None:
        return False
    text = final_answer.without_denials(final_answer.without_marks(text))
    if letter := final_answer.option(answer):
        return final_answer.chosen_option(text) == letter
    boxed = entrances.last_boxed(text)
    stated = final_answer.stated(text)
    candidate = text
    if boxed is not None:
        candidate = boxed
    elif stated is not None:
        candidate = stated
    if hedges(text, boxed, stated, answer):
        return False
    if final_answer.same_words(candidate, answer):
        return True
    if not is_equal(as_latex(text, boxed, stated, "pattern" in arguments), answer):
        return False
    return not final_answer.differs_in_case(formula(candidate), answer)


def hedges(text, boxed, stated, answer):
    """Does a response give another answer beside the right one, as in "4 or 5"?"""
    if SEVERAL.search(answer):
        return False
    if boxed is not None:
        alternatives = final_answer.last_boxes(text)
    elif stated is not None and OR.search(stated):
        alternatives = OR.split(stated)
    else:
        alternatives = final_answer.last_listed(text if stated is None else stated)
    if len(alternatives) < 2:
        return False
    return not all(is_equal(f"${part.strip('$ ')}$", answer) for part in alternatives)


def formula(candidate):
    """The formula of a final answer: the last one between dollars, or all of it."""
    between_dollars = re.findall(r"\$([^$]+)\$", candidate)
    if between_dollars:
        return between_dollars[-1]
    return candidate


def is_equal(text, answer):
    """Is the last expression of a text equal to the answer, for math-verify?"""
    from math_verify import parse, verify

    # The last option: x > 2 is equal to the answer (2, \infty), and not the other way round alone.
    return verify(parsed_answer(answer), parse(readable(text)), allow_set_relation_comp=True)


@functools.cache
def parsed_answer(answer):
    """The answer as math-verify reads it; an empty list where it is no mathematics."""
    from math_verify import parse

    # Bare LaTeX is read in part, or not at all.
    return parse(readable(f"${answer}$"))


def as_latex(text, boxed, stated, has_pattern):
    """What math-verify is given: it takes the last expression of a text.

    LaTeX without dollars it reads in part or not at all. So a formula that is stated without a
    box, or that the pattern has found, is given to it alone, between dollars.
    """
    if boxed is not None:
        return text
    formula = text if has_pattern else stated
    if formula and final_answer.is_formula(formula):
        return f"${formula.strip('$ ')}$"
    return text[-LAST_CHARACTERS:]


def readable(text):
    for pattern, replacement in MISREAD:
        text = pattern.sub(replacement, text)
    return text
