"""When two texts are the same: for duplicates, overlaps with benchmarks and held-out prompts.

Capitals, blanks, and the punctuation at the end of a text or after a word of a sentence make no
difference. Every other sign does: 12 + 3 is not 12 - 3, == is not !=, C++ is not C#. What is
neither blank nor punctuation belongs to a word: the vowel signs of Thai and Arabic, emoji, the
letters of every script.
"""

import hashlib
import json
import re
import unicodedata

# Punctuation and other signs, as the inside of a character class.
SIGN = (
    # ASCII but _
    r"!-/:-@\[-^`{-~"
    # Latin-1
    r"\xa1-\xa9\xab-\xb1\xb4\xb6-\xb8\xbb\xbf\xd7\xf7"
    # general punctuation, arrows and mathematics, boxes and shapes
    r"\u2010-\u2027\u2030-\u205e\u2190-\u23ff\u2500-\u25ff"
    # CJK, full width
    r"\u3001-\u3003\u3008-\u3011\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
    # Arabic, Hindi
    r"\u060c\u061b\u061f\u06d4\u0964"
)
# A word with the signs up to the next one; the first also with those before it.
WORD = re.compile(rf"(?:\A[\s{SIGN}]+)?[^\s{SIGN}]+[\s{SIGN}]*")
# Punctuation inside a text. Within brackets, as in {1: 2} and [1, 2], every sign counts.
INSIDE = re.compile(
    r"""
    (?<=[^\W_])                         # after a letter or a digit
    (?:[.,:?]|(?<!\d)(?<!\b\w)!)+       # but 5! and n! are factorials
    (?=\s)                              # before a blank
    (?![^()\[\]{}\n]{0,80}[)\]}])       # not before a closing bracket
    """,
    re.VERBOSE,
)
# Punctuation at the end of a text.
END = re.compile(
    r"[\s.,:;?!\u2026"
    r"\u3001\u3002\uff01\uff0c\uff0e\uff1a\uff1b\uff1f\u060c\u061b\u061f\u06d4\u0964]+\Z"
)
# What stands before the exclamation mark of a factorial, 5! or n!.
FACTORIAL = re.compile(r"(?:\d|\b\w|\))\Z")
# Quotes and dashes that are typed in two ways.
TYPOGRAPHY = {
    0x2018: "'",
    0x2019: "'",
    0x201A: "'",
    0x201C: '"',
    0x201D: '"',
    0x201E: '"',
    0x2212: "-",
    **dict.fromkeys(range(0x2010, 0x2016), "-"),
}


def words(text):
    """The words of a text in lower case, each with the signs that follow it.

    The first also has those before it.
    """
    text = unicodedata.normalize("NFC", text).translate(TYPOGRAPHY).lower()
    text = INSIDE.sub(" ", without_end(text))
    return ["".join(word.split()) for word in WORD.findall(text)]


def without_end(text):
    """A text without the punctuation at its end."""
    end = END.search(text)
    if end is None:
        return text
    text = text[: end.start()]
    # In "5!?" and "n!." the first sign is a factorial, the second the punctuation.
    if re.match(r"!\s*[.?]", end[0]) and FACTORIAL.search(text):
        return text + "!"
    return text


def key(text):
    """What equal texts have in common."""
    # A text of signs alone has no words.
    return " ".join(words(text)) or " ".join(text.split())


def digest(value):
    """12 bytes that stand for a JSON value, so that sets of millions of them fit into memory."""
    return hashlib.sha256(json.dumps(value).encode()).digest()[:12]


def of_prompt(prompt):
    """The digest of a prompt (messages): one question in two contexts is two prompts."""
    return digest([[turn["role"], key(turn["content"])] for turn in prompt])


def runs(text_words, length):
    """Every run of `length` words, as a text without the quotes and brackets at its ends.

    text_words: what words() gives.
    """
    texts = []
    for first in range(len(text_words) - length + 1):
        text = " ".join(text_words[first : first + length])
        texts.append(text.strip("\"'()[]{}<>*`-_ "))
    return texts
