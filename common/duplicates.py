"""When two texts are the same: what duplicates, overlaps with benchmarks and held-out prompts are known by.

Capitals, blanks, and the punctuation at the end of a text or after a word of a sentence make no difference. Every other
sign does, as in 12 + 3 and 12 - 3, == and !=, C++ and C#. What is neither blank nor punctuation belongs to a word: the
vowel signs of Thai and Arabic, emoji, the letters of every script.
"""

import hashlib
import json
import re
import unicodedata

# ASCII but _, then Latin-1, general punctuation, arrows and mathematics, CJK, full width, Arabic, Hindi.
SIGN = r"!-/:-@\[-^`{-~\xa1-\xa9\xab-\xb1\xb4\xb6-\xb8\xbb\xbf\xd7\xf7\u2010-\u2027\u2030-\u205e\u2190-\u23ff"
SIGN += (
    r"\u2500-\u25ff\u3001-\u3003\u3008-\u3011\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
SIGN += r"\u060c\u061b\u061f\u06d4\u0964"
WORD = re.compile(
    rf"(?:\A[\s{SIGN}]+)?[^\s{SIGN}]+[\s{SIGN}]*"
)  # a word, with the signs up to the next one
# Punctuation of a sentence: after a word, before a blank. Inside brackets, as in {1: 2} and [1, 2], every sign counts.
INSIDE = re.compile(r"(?<=[^\W_])(?:(?<!\d)(?<!\b\w)!|[.,:?])+(?=\s)(?![^()\[\]{}\n]{0,80}[)\]}])")
END = re.compile(
    r"[\s.,:;?!\u2026\u3001\u3002\uff01\uff0c\uff0e\uff1a\uff1b\uff1f\u060c\u061b\u061f\u06d4\u0964]+\Z"
)
FACTORIAL = re.compile(r"(?:\d|\b\w|\))\Z")  # what 5!? and n!. have before the sign
# Quotes and dashes that are typed in two ways.
TYPOGRAPHY = {
    0x2018: "'",
    0x2019: "'",
    0x201A: "'",
    0x201C: '"',
    0x201D: '"',
    0x201E: '"',
    0x2212: "-",
}
TYPOGRAPHY |= dict.fromkeys(range(0x2010, 0x2016), "-")


def words(text):
    """The words of a text in lower case, each with the signs that follow it, the first with those before it, too."""
    text = unicodedata.normalize("NFC", text).translate(TYPOGRAPHY).lower()
    end = END.search(text)
    if end:
        factorial = re.match(r"!\s*[.?]", end[0]) and FACTORIAL.search(text[: end.start()])
        text = text[: end.start()] + ("!" if factorial else "")
    return ["".join(word.split()) for word in WORD.findall(INSIDE.sub(" ", text))]


def key(text):
    """What equal texts have in common."""
    return " ".join(words(text)) or " ".join(text.split())  # of signs alone there are no words


def digest(value):
    """12 bytes that stand for a value of JSON, so that sets of millions of them fit into memory."""
    return hashlib.sha256(json.dumps(value).encode()).digest()[:12]


def of_prompt(prompt):
    """The digest of a prompt, messages: the same question in another context is another prompt."""
    return digest([[turn["role"], key(turn["content"])] for turn in prompt])


def runs(of_text, length):
    """Every `length` words of `words(text)` that stand in a row, as texts; quotes and brackets at their ends go."""
    return [
        " ".join(of_text[i : i + length]).strip("\"'()[]{}<>*`-_ ")
        for i in range(len(of_text) - length + 1)
    ]
