"""The thoughts that a model writes before its answer, <think>...</think>: no part of the answer."""

import re

# The marks of DeepSeek-R1, Qwen3 and most others; with a prefix, of Seed and MiniMax; then those of
# Magistral, Sky-T1, Cohere and Kimi-VL.
NAME = r"(?:\w+:)?(?:think|thinking|thought|reasoning)"
OPENING = rf"<{NAME}>|\[THINK\]|<\|begin_of_thought\|>|<\|START_THINKING\|>|◁think▷"
CLOSING = rf"</{NAME}>|\[/THINK\]|<\|end_of_thought\|>|<\|END_THINKING\|>|◁/think▷"
# A mark after a quotation mark is only mentioned: a judge says that an answer has no `</think>`.
OPENS = re.compile(rf"(?<![`'\"“\u2018])(?:{OPENING})")
CLOSES = re.compile(rf"(?<![`'\"“\u2018])(?:{CLOSING})")


def without_thoughts(text, unfinished=False):
    """The text after its last thought; "" if a thought was cut off before its end.

    unfinished: the chat template opened a thought and generation was cut off, so that a text
    without a closing mark is all thought.
    """
    closings = list(CLOSES.finditer(text))
    answer = text
    if closings:
        answer = text[closings[-1].end() :]
    elif unfinished:
        return ""
    # A thought that opens after the last closing mark never ended.
    if OPENS.search(answer):
        return ""
    return answer


def opened_by_template(texts):
    """Does one of these texts end a thought that it did not begin? Then the template begins all."""
    for text in texts:
        closing = CLOSES.search(text)
        if closing and not OPENS.search(text[: closing.start()]):
            return True
    return False
