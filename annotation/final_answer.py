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
# **5**, *5*, __5__, _5_, `5`.
EMPHASIS = re.compile(
    r"(?<![\w*\\])(\*{1,3}|_{1,3}|`)(?=[^\s*_`])([^*_`\n]{1,200})(?<!\s)\1(?![\w*])"
)
# "isn't", "cannot be": "is not".
NEGATION = re.compile(
    r"(?i)\b(?:is|was)n['\u2019]t\b|"
    r"\b(?:(?:could|would|must|should|can)(?:n['\u2019]t|\s+not)|can['\u2019]t|cannot)\s+be\b"
)
# "The answer is not 4 but 5" states 5.
CORRECTION = re.compile(
    rf"({STATES})not\s(?:[^.\n]|\.(?=\d)){{1,80}}?\sbut\s(?:it\s+is\s|rather\s)?"
)
# An expression after "not": a formula between dollars, or a word with a digit or a command.
DENIED = re.compile(
    r"(?i)\bnot\s{1,3}(?:equal\s{1,3}to\s{1,3})?"
    r"(?:\$[^$\n]{1,200}\$|[^\s\d\\]{0,20}[\d\\]\S{0,200}?(?=[.,;:!?]{0,3}(?:\s|$)))"
)
# A letter that is stated: "the answer is option (B)".
STATED_LETTER = re.compile(
    STATES
    # Before the letter: "the option", "choice:", brackets and quotation marks.
    + r"(?i:(?:the\s+)?(?:option|choice|letter|answer)\s*:?\s+)?[(\[{<\"'“\u2018]*"
    # A capital, or a small letter in parentheses or at the end of a clause.
    + rf"(?:{LETTER}|(?<=\()([a-j])(?=\))|([a-j])(?=[.,;!](?!\w)|\s*$))"
    # One of several is no choice: "B or C"; "B, C", but not "B, I think".
    + rf"(?![)\]}}>\"'”\u2019]*\s*(?:or|and|/|&)\s*\(?[{OPTIONS}]\b)"
    + rf"(?![)\]}}>\"'”\u2019]*,\s*\(?[{OPTIONS}]\b(?!['\u2019]|\s+(?!(?:or|and)\b)\w))"
)
# Any stated answer, up to the end of its sentence, a reason or what it is not.
STATED = re.compile(
    rf"{STATES}(?!not\b|[.,;:!?](?!\d))"
    r"(.+?)(?:\.(?=\s|$)|,?\s(?:because|since|as|which|so|not)\b|\n|$)"
)
# A letter at the start of a box, not of a formula (b^2) and not one of several.
BOXED_LETTER = re.compile(
    rf"[(\[{{\s]*([{OPTIONS}a-j])(?!\w|\s*[=+<>^*/-])"
    rf"(?![)\]}}]*\s*(?:or|and|/|&|,)\s*\(?[{OPTIONS}]\b)"
)
# One of the answers that a sentence lists.
LISTED = r"(\$[^$\n]{1,100}\$|\\\(.{1,100}?\\\)|-?\d{1,30}(?:[.,/]\d{1,30}){0,9})"
DOUBT = r"(?:(?:or|and|maybe|perhaps|possibly|probably|even)\s{1,3}){0,2}(?:[a-zA-Z]\s?=\s?)?"
# The last two of several answers: "4 or 5 clips", "maybe 4, maybe 5", and "1, 2, 3" at the end.
LIST = re.compile(
    rf"{LISTED}(?:\s[a-z]{{1,12}})?,?\s(?:and/)?or\s{{1,3}}{DOUBT}{LISTED}(?=[^\d$\\]*$)|"
    rf"{LISTED}\s?(?:[,;]|\sand\b)\s{{1,3}}{DOUBT}{LISTED}\W*$",
    re.IGNORECASE,
)
# What stands between two boxes that are alternatives: "or", a comma, "and".
BETWEEN_BOXES = re.compile(
    r"\}[\s$\\)\]]{0,9}(?:\\text\s?\{\s?)?(?:[,;]|[,;]?\s{0,3}(?:and/or|or|and)\b)"
    rf"\s{{0,3}}\}}?\s{{0,3}}{DOUBT}[\s$\\(\[]{{0,9}}(?:[a-zA-Z]\s?=\s?)?$"
)
# Words: no formula, and longer than a product of two variables.
NO_WORDS = re.compile(r"[\\^_*!=+<>/{}|]")
WORD = re.compile(r"(?i)[^\W\d_]{3}|\bno\b")
# A letter by itself, but no unit (72 L), and a command, such as \pi.
SYMBOL = re.compile(r"\\[a-zA-Z]+|(?<![a-zA-Z])(?<!\d )[a-zA-Z](?![a-zA-Z])")
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


def without_marks(text):
    """A text without <answer> and Markdown's emphasis; between two numbers marks are products."""
    text = re.sub("</?answer>", "\n", text)
    return EMPHASIS.sub(r"\2", text)


def without_denials(text):
    """A text in which no answer that is denied stands: "not 4 but 5" becomes 5, "not 5" nothing."""
    text = NEGATION.sub("is not", text)
    text = CORRECTION.sub(r"\1", text)
    return DENIED.sub("", text)


def unwrapped(text):
    """A text without LaTeX's commands for words."""
    return re.sub(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r"\1", text)


def plain(text):
    """A text without the marks of LaTeX and Markdown around its words."""
    text = unwrapped(text)
    return re.sub(r"\\boxed|[$*_`]|\\[()\[\]]|</?answer>", "", text).strip()


def stated(text):
    """What follows the last "the answer is" in its sentence, or None."""
    statements = STATED.findall(text)
    if not statements:
        return None
    # After a bare number it is a mark of exclamation: "The answer is 5!"
    return re.sub(r"^([\d.,]+)!$", r"\1", statements[-1].strip())


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
    if len(set(map(plain, last_boxes(text)))) > 1:
        return None
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
    """Is a text the reference answer? Only of words the case and the marks around them may differ.

    In a formula each mark and the case of a letter mean something.
    """
    if text.strip("$ \n").rstrip(" .,;:") == answer.strip("$ \n").rstrip(" .,;:") != "":
        return True
    unmarked = unwrapped(answer).strip("$ \n")
    if NO_WORDS.search(unmarked) or not WORD.search(unmarked):
        return False
    return words(text) == words(answer) != ""


def words(text):
    text = re.sub(r"\$|\\boxed|\\[()\[\]]", "", unwrapped(text))
    return text.strip().rstrip(" \n\t.,;:!?").casefold()


def differs_in_case(formula, answer):
    """Has a formula X where the answer has x, or \\Pi for \\pi? Words and units do not count."""
    cases = {}
    for symbol in SYMBOL.findall(unwrapped(answer)):
        cases.setdefault(symbol.lower(), set()).add(symbol)
    symbols = set(SYMBOL.findall(unwrapped(formula)))
    for symbol in symbols:
        expected = cases.get(symbol.lower())
        if expected and not expected & symbols:
            return True
    return False


# Several answers


def last_boxes(text):
    """What the last \\boxed{} holds, after what a box holds that "or", "and" or "," joins to it."""
    last = entrances.last_boxed(text)
    if last is None:
        return []
    before = text[: text.rindex("\\boxed{")]
    joint = BETWEEN_BOXES.search(before, max(0, len(before) - 60))
    if joint is None:
        return [last]
    previous = entrances.last_boxed(before[: joint.start() + 1])
    return [last] if previous is None else [previous, last]


def last_listed(text):
    """The two last answers of the list in a text's last sentence with a number; [] without one."""
    for sentence in reversed(re.split(r"(?<=[.!?])\s|\n", text)):
        if re.search(r"[\d$]", sentence):
            match = LIST.search(sentence)
            return [part for part in match.groups() if part] if match else []
    return []
