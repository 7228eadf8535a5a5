"""The language of a conversation, by py3langid; no verdict where its text says too little.

Of every turn the first 300 characters of prose count: code, addresses and tokens with digits or
brackets say nothing about a language, and short texts are judged badly. Of 9,124 English questions
(HH-RLHF, GSM8K, IFEval, Arena-Hard, MATH, GPTeacher, ShareGPT) 33% of those with less than 20
letters, 2.0% of those with 20 to 39, and 0.05% of the longer ones were taken for another language.
"""

import functools
import re

# Bytes of letters in UTF-8: 40 letters of English, 20 of Russian, 14 of Chinese.
MIN_BYTES = 40
CHARACTERS_PER_TURN = 300
# The code for text without a language.
NO_LANGUAGE = "zxx"
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
# Letters and signs of languages that have no blanks between words: Thai to Tibetan, Burmese, Khmer,
# Chinese and Japanese. There a token would be a sentence.
UNSPACED = r"\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
PART = rf"[^\s{UNSPACED}]*"
# Addresses, and tokens with digits or brackets. A token is looked at from its start alone: a long
# one would take seconds.
NOISE = re.compile(rf"https?://\S+|(?<![^\s{UNSPACED}]){PART}[\d_{{}}<>=\\/$#@|;()\[\]]{PART}")


def prose(text):
    """The words of a text that say something about its language."""
    text = CODE.sub(" ", text)
    text = NOISE.sub(" ", text)
    return " ".join(text.split())


@functools.cache
def identifier():
    from py3langid import langid

    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)


def known():
    """The codes of the languages that can be told apart."""
    return sorted(set(identifier().labels) - {NO_LANGUAGE})


def language(texts):
    """The ISO 639 code of the language of these turns together, or None: too little text."""
    text = " ".join(prose(turn)[:CHARACTERS_PER_TURN] for turn in texts)
    letters = "".join(filter(str.isalpha, text))
    if len(letters.encode()) < MIN_BYTES:
        return None
    code, _ = identifier().classify(text)
    if code == NO_LANGUAGE:
        return None
    return code
