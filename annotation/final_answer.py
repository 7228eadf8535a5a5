"""The final answer in a response, for 1d_verifier.py: what it boxes, states, or chooses by a letter."""

import re

from common import entrances

OPTIONS = "A-J"  # letters of multiple-choice questions; MMLU-Pro has the most, ten
# A letter that stands by itself: no part of a word (B-tree, D.C.) or of a formula (A = 3), no article (A good answer).
LETTER = (
    rf"(?<![\w\\^.-])(?<!\w['\u2019])([{OPTIONS}])(?!['\u2019]?\w|[-.]\w|\s*[=+<>^*/])"
    r"(?!(?<=[AI])\s+(?!(?:is|was|because|since|as|and|or|but)\b)[a-z])"
)
# "The answer is", "Answer:", "the correct option to this question would be"; MMLU-Pro and simple-evals read the like.
STATES = (
    r"(?i:\b(?:answer|(?:correct|right|best)\s+(?:option|choice|one))\b[^.:=\n]{0,60}?"
    r"(?:\s(?:is|was|would\s+be|must\s+be|should\s+be)\b|\s*[:=])(?:\s*[:=])?\s*)"
)
STATED_LETTER = re.compile(
    rf"{STATES}(?i:(?:the\s+)?(?:option|choice|letter|answer)\s*:?\s+)?[(\[{{<\"'“\u2018]*"
    rf"(?:{LETTER}|(?<=\()([a-j])(?=\))|([a-j])(?=[.,;!](?!\w)|\s*$))"
    rf"(?![)\]}}>\"'”\u2019]*\s*(?:or|and|/|&)\s*\(?[{OPTIONS}]\b)"  # one of several is no choice
)
STATED = re.compile(rf"{STATES}(.+?)(?:\.(?=\s|$)|,?\s+(?:because|since|as|which|so)\b|\n|$)")
BOXED_LETTER = re.compile(
    rf"[(\[{{\s]*([{OPTIONS}a-j])(?!\w|\s*[=+<>^*/-])(?![)\]}}]*\s*(?:or|and|/|&|,)\s*\(?[{OPTIONS}]\b)"
)
# At the start of a response: (B) ..., B) ..., B. ..., B because ..., B is correct.
FIRST_LETTER = re.compile(
    rf"\W*(?i:(?:option|choice)\s+)?(?:\(([{OPTIONS}])\)|([{OPTIONS}])[).:](?=\s|$)|"
    rf"([{OPTIONS}])(?=\s*$|,?\s+(?:because|since|is\s+(?:the\s+)?(?:correct|right|best|answer)\b)))"
    r"(?!\s*(?:is|was)\b(?!\s+(?:the\s+)?(?:correct|right|best|answer)\b))"
)
DENIES = re.compile(
    r"(?i)\b(?:not|no|nor|neither|wrong|incorrect|false|cannot|except)\b|n['\u2019]t\b"
)


def plain(text):
    """A text without the marks of LaTeX and Markdown around its words."""
    text = re.sub(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r"\1", text)
    return re.sub(r"\\boxed|[$*_`]|\\[()\[\]]|</?answer>", "", text).strip()


def stated(text):
    """What follows the last "the answer is" in its sentence, or None."""
    found = STATED.findall(text)
    return found[-1].strip() if found else None


def option(answer):
    """The letter that a reference answer consists of: B, (B), \\text{(B)}; None for any other."""
    found = re.fullmatch(rf"([{OPTIONS}])[.)]?|\(([{OPTIONS}a-j])\)\.?", plain(answer))
    return (found[1] or found[2]).upper() if found else None


def chosen_option(text):
    """The letter of the option that a response chooses, or None where it does not choose one.

    It is the response itself, else that of the last \\boxed{}, else of the last "the answer is", else the only letter
    of the last line, else the one that the response begins with.
    """
    if found := re.fullmatch(rf"\W*([{OPTIONS}a-j])\W*", plain(text)):
        return found[1].upper()
    if found := BOXED_LETTER.match(plain(entrances.last_boxed(text) or "")):
        return found[1].upper()
    text = plain(text)
    if found := [*STATED_LETTER.finditer(text)]:
        return next(filter(None, found[-1].groups())).upper()
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    starts = {
        next(filter(None, found.groups())) for found in map(FIRST_LETTER.match, lines) if found
    }
    if len(starts) > 1 and FIRST_LETTER.match(lines[-1]):
        return None  # the options, repeated
    last = set(re.findall(LETTER, lines[-1]))
    if len(last) == 1 and not DENIES.search(lines[-1]):
        return last.pop()
    return starts.pop() if len(starts) == 1 and FIRST_LETTER.match(lines[0]) else None


def is_formula(text):
    """Does a stated answer hold mathematics and no words, and more than a number?"""
    without_commands = re.sub(r"\\(?:text|mbox|mathrm)\s*\{[^{}]*\}|\\[a-zA-Z]+", " ", text)
    return not re.search(r"[^\W\d_]{2}", without_commands) and not re.fullmatch(
        r"[-+$\d.,%\s]*", text
    )


def same_words(text, answer):
    """Is a text the reference answer, letter by letter but for capitals, marks and what ends a sentence?"""
    words = [re.sub(r"[\s.,;:!?]+$", "", plain(value)).casefold() for value in (text, answer)]
    return words[0] == words[1] != ""
