"""The final answer of a response: boxed, stated, or the letter of an option. For the verifiers."""

import re

from common import entrances

# Letters of multiple-choice questions; MMLU-Pro has the most, ten.
OPTIONS = "A-J"

# A letter that stands by itself.
LETTER = (
    # Not after a part of a word, number or formula (D.C., -B, \B), nor after an apostrophe.
    r"(?<![\w\\^.-])(?<!\w['\u2019])"
    rf"([{OPTIONS}])"
    # Not before a part of a word (B-tree, D.C.), nor in a formula (A = 3).
    r"(?!['\u2019]?\w|[-.]\w|\s*[=+<>^*/])"
    # A and I are no article or pronoun: a word in lower case follows (A good answer), unless it
    # goes on as after an option (A is right).
    r"(?!(?<=[AI])\s+(?!(?:is|was|because|since|as|and|or|but)\b)[a-z])"
)
# "The answer is", "Answer:", "the correct option to this question would be"; MMLU-Pro and
# simple-evals read similar phrases.
STATES = (
    r"(?i:\b(?:answer|(?:correct|right|best)\s+(?:option|choice|one))\b[^.:=\n]{0,60}?"
    r"(?:\s(?:is|was|would\s+be|must\s+be|should\s+be)\b|\s*[:=])(?:\s*[:=])?\s*)"
)
# A letter that is stated: "the answer is option (B)".
STATED_LETTER = re.compile(
    STATES
    # Before the letter: "the option", "choice:", brackets and quotation marks.
    + r"(?i:(?:the\s+)?(?:option|choice|letter|answer)\s*:?\s+)?[(\[{<\"'“\u2018]*"
    # A capital, or a small letter in parentheses or at the end of a clause.
    + rf"(?:{LETTER}|(?<=\()([a-j])(?=\))|([a-j])(?=[.,;!](?!\w)|\s*$))"
    # One of several is no choice: "B or C".
    + rf"(?![)\]}}>\"'”\u2019]*\s*(?:or|and|/|&)\s*\(?[{OPTIONS}]\b)"
)
# Any stated answer, up to the end of its sentence or a reason.
STATED = re.compile(rf"{STATES}(.+?)(?:\.(?=\s|$)|,?\s+(?:because|since|as|which|so)\b|\n|$)")
# A letter at the start of a box, not of a formula (b^2) and not one of several.
BOXED_LETTER = re.compile(
    rf"[(\[{{\s]*([{OPTIONS}a-j])(?!\w|\s*[=+<>^*/-])"
    rf"(?![)\]}}]*\s*(?:or|and|/|&|,)\s*\(?[{OPTIONS}]\b)"
)
# A letter at the start of a response or line.
FIRST_LETTER = re.compile(
    r"\W*(?i:(?:option|choice)\s+)?"
    # (B) ..., B) ..., B. ..., B: ...
    rf"(?:\(([{OPTIONS}])\)|([{OPTIONS}])[).:](?=\s|$)|"
    # B alone, B because ..., B is correct.
    rf"([{OPTIONS}])(?=\s*$|,?\s+(?:because|since|"
    r"is\s+(?:the\s+)?(?:correct|right|best|answer)\b)))"
    # Not "(B) is a number": the option is only spoken of.
    r"(?!\s*(?:is|was)\b(?!\s+(?:the\s+)?(?:correct|right|best|answer)\b))"
)
# A line with such a word may name the option that is not chosen.
DENIES = re.compile(
    r"(?i)\b(?:not|no|nor|neither|wrong|incorrect|false|cannot|except)\b|n['\u2019]t\b"
)


def plain(text):
    """A text without the marks of LaTeX and Markdown around its words."""
    text = re.sub(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r"\1", text)
    return re.sub(r"\\boxed|[$*_`]|\\[()\[\]]|</?answer>", "", text).strip()


def stated(text):
    """What follows the last "the answer is" in its sentence, or None."""
    statements = STATED.findall(text)
    return statements[-1].strip() if statements else None


def option(answer):
    """The letter that a reference answer consists of: B, (B), \\text{(B)}; None for any other."""
    match = re.fullmatch(rf"([{OPTIONS}])[.)]?|\(([{OPTIONS}a-j])\)\.?", plain(answer))
    return letter_of(match).upper() if match else None


def letter_of(match):
    """The letter of a match: that of the alternative that matched."""
    return next(filter(None, match.groups()))


def chosen_option(text):
    """The letter of the option that a response chooses, or None where it does not choose one.

    It is the response itself, else that of the last \\boxed{}, else of the last "the answer is",
    else the only letter of the last line, else the one that the response begins with.
    """
    alone = re.fullmatch(rf"\W*([{OPTIONS}a-j])\W*", plain(text))
    if alone:
        return alone[1].upper()
    boxed = BOXED_LETTER.match(plain(entrances.last_boxed(text) or ""))
    if boxed:
        return boxed[1].upper()
    text = plain(text)
    statements = list(STATED_LETTER.finditer(text))
    if statements:
        return letter_of(statements[-1]).upper()
    lines = [line for line in text.splitlines() if line.strip()]
    return option_of_lines(lines) if lines else None


def option_of_lines(lines):
    """The option that lines without any "the answer is" choose, or None."""
    first_letters = [FIRST_LETTER.match(line) for line in lines]
    starts = {letter_of(match) for match in first_letters if match}
    # Several lines that start with letters, down to the last: a list of the options.
    if len(starts) > 1 and first_letters[-1]:
        return None
    last_line_letters = set(re.findall(LETTER, lines[-1]))
    if len(last_line_letters) == 1 and not DENIES.search(lines[-1]):
        return last_line_letters.pop()
    if len(starts) == 1 and first_letters[0]:
        return starts.pop()
    return None


def is_formula(text):
    """Does a stated answer hold mathematics and no words, and more than a number?"""
    without_commands = re.sub(r"\\(?:text|mbox|mathrm)\s*\{[^{}]*\}|\\[a-zA-Z]+", " ", text)
    has_word = re.search(r"[^\W\d_]{2}", without_commands)
    is_number = re.fullmatch(r"[-+$\d.,%\s]*", text)
    return not has_word and not is_number


def same_words(text, answer):
    """Is a text the reference answer, but for case, marks and the punctuation at its end?"""
    return words(text) == words(answer) != ""


def words(text):
    return re.sub(r"[\s.,;:!?]+$", "", plain(text)).casefold()
