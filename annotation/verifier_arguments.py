"""What verifiers share: checks of a row's arguments, patterns, the code blocks of a response.

The checks raise a ValueError, 'answer: reason' or 'arguments: reason'.
"""

import functools
import re

import regex  # not re: it has a timeout

# Seconds that a pattern, or a schema, may take on one response: some would backtrack for years.
PATTERN_TIMEOUT = 5


class TooSlow(Exception):
    """A verifier takes more than PATTERN_TIMEOUT seconds on a response, which gets 0."""


def check_names(arguments, known):
    """No argument but the known ones."""
    for name in arguments:
        if name not in known:
            raise ValueError(f"arguments: {name}: not one of {', '.join(known)}")


def check_required(arguments, name):
    if name not in arguments:
        raise ValueError(f"arguments: {name}: missing")


def check_answer(answer):
    if answer is None:
        raise ValueError("answer: missing")


# Patterns


@functools.cache
def compiled(pattern):
    return regex.compile(pattern)


def check_pattern(pattern):
    """A regular expression that can be compiled, compiled."""
    if not isinstance(pattern, str) or not pattern:
        raise ValueError("arguments: pattern: not a non-empty text")
    try:
        return compiled(pattern)
    except regex.error as error:
        raise ValueError(f"arguments: pattern: {error}") from None


def check_answer_pattern(arguments):
    """An optional pattern whose one group is the final answer."""
    check_names(arguments, ["pattern"])
    if "pattern" in arguments and check_pattern(arguments["pattern"]).groups != 1:
        raise ValueError("arguments: pattern: one group is needed, the final answer")


def apply(method, text):
    """What a method of a compiled pattern returns for a text, or TooSlow."""
    try:
        return method(text, timeout=PATTERN_TIMEOUT)
    except TimeoutError:
        raise TooSlow from None


def last_match(arguments, text):
    """What the group of the pattern matches last, or None; without a pattern the whole text."""
    if "pattern" not in arguments:
        return text
    matches = apply(compiled(arguments["pattern"]).findall, text)
    return matches[-1] if matches else None


# Code blocks

# ``` or ~~~, with the name of a language if it opens a block.
FENCE = re.compile(r"[ \t]*(```+|~~~+)[ \t]*([\w+-]*)")


def blocks(text):
    """Yield (language, content) of each block: up to the same fence on a line of its own."""
    lines = text.split("\n")
    ends = {}  # {fence: the numbers of the lines that hold it alone, the last one first}
    for number in range(len(lines) - 1, -1, -1):
        ends.setdefault(lines[number].strip(" \t"), []).append(number)
    end = -1
    for number, line in enumerate(lines):
        opening = FENCE.match(line)
        if number <= end or opening is None:
            continue
        fence, language = opening.groups()
        later = ends.get(fence, [])
        while later and later[-1] <= number:
            later.pop()
        if later:
            end = later[-1]
            yield language, "".join(f"{line}\n" for line in lines[number + 1 : end])


def last_block(text, languages):
    """The last fenced block of one of these languages, else the last of none, else the text."""
    of_languages = []
    of_none = []
    for language, content in blocks(text):
        if language.lower() in languages:
            of_languages.append(content)
        elif not language:
            of_none.append(content)
    candidates = [text, *of_none[-1:], *of_languages[-1:]]
    return candidates[-1]
