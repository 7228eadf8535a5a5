r"""Is the final answer of a response equal to the row's, as mathematics (math-verify)?

The final answer is the last \boxed{}, or what follows "the answer is", or the last expression. It
is right if it has the same words as the answer or if math-verify says that they are equal. Where
the answer is a letter, such as B or (B), the option that the response chooses counts. A response
that states two answers is wrong, unless both are right ("0.5, or 1/2").

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


# Between two answers that a response states.
OR = re.compile(r",?\s+(?:or|and/or)\s+|,\s*(?=[^,]*\sor\s)", re.IGNORECASE)
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
    if letter := final_answer.option(answer):
        return final_answer.chosen_option(text) == letter
    boxed = entrances.last_boxed(text)
    stated = final_answer.stated(text)
    candidate = text
    if boxed is not None:
        candidate = boxed
    elif stated is not None:
        candidate = stated
    if final_answer.same_words(candidate, answer):
        return True
    if not is_equal(as_latex(text, boxed, stated, "pattern" in arguments), answer):
        return False
    return boxed is not None or stated is None or not hedges(stated, answer)


def hedges(stated, answer):
    """Does a response state another answer beside the right one, as in "4 or 5"?"""
    alternatives = OR.split(stated)
    if len(alternatives) == 1 or SEVERAL.search(answer):
        return False
    return not all(is_equal(f"${part.strip('$ ')}$", answer) for part in alternatives)


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
    return text


def readable(text):
    for pattern, replacement in MISREAD:
        text = pattern.sub(replacement, text)
    return text
