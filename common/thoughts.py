"""The thoughts that a model writes before its answer, <think>...</think>: they hold no answer and no verdict."""

import re

# The marks of DeepSeek-R1, Qwen3 and most others, of Seed and MiniMax (with a prefix), of Magistral, Sky-T1, Cohere and
# Kimi-VL. A mark in quotation marks is spoken of: a judge says that an answer has no `</think>`.
NAME = r"(?:\w+:)?(?:think|thinking|thought|reasoning)"
OPENING = rf"<{NAME}>|\[THINK\]|<\|begin_of_thought\|>|<\|START_THINKING\|>|◁think▷"
CLOSING = rf"</{NAME}>|\[/THINK\]|<\|end_of_thought\|>|<\|END_THINKING\|>|◁/think▷"
OPENS = re.compile(rf"(?<![`'\"“\u2018])(?:{OPENING})")
CLOSES = re.compile(rf"(?<![`'\"“\u2018])(?:{CLOSING})")


def without_thoughts(text, unfinished=False):
    """What a text says after its last thought; "" where a thought was cut off before its end.

    unfinished: a text without a closing mark is a thought that was cut off, since the template had opened it.
    """
    closings = list(CLOSES.finditer(text))
    if not closings and unfinished:
        return ""
    said = text[closings[-1].end() :] if closings else text
    return "" if OPENS.search(said) else said


def opened_by_template(texts):
    """Does one of these texts end a thought that it did not begin? Then the prompt's template begins them all."""
    for text in texts:
        closing = CLOSES.search(text)
        if closing and not OPENS.search(text[: closing.start()]):
            return True
    return False
