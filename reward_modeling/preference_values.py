"""Values of published preference rows, read with checks, and pairs of answers made from them.

What is not as the schema says raises a ValueError, 'field: reason'.
"""

import itertools
import re
from dataclasses import dataclass

from common import rows

SIDES = ("chosen", "rejected")
SPEAKERS = {"Human": "user", "Assistant": "assistant"}  # in transcripts


# Reading


def text(row, field):
    """A text. A null becomes an empty text: empty turns are dropped and counted later."""
    if not isinstance(row, dict) or field not in row:
        raise ValueError(f"{field}: missing")
    if not isinstance(row[field], str | None):
        raise ValueError(f"{field}: not a text")
    return row[field] or ""


def number(row, field):
    """A finite number, or None where the dataset has null, NaN or no such field."""
    if not isinstance(row, dict):
        raise ValueError(f"{field}: missing")
    value = row.get(field)
    # Only NaN differs from itself.
    is_nan = value != value
    if value is None or is_nan:
        return None
    # An isinstance check would let true and false pass.
    if type(value) not in (int, float):
        raise ValueError(f"{field}: not a number")
    if not rows.is_number(value):
        raise ValueError(f"{field}: {rows.short(value)} is not a finite number")
    return value


def one_of(row, field, values):
    if row.get(field) not in values:
        raise ValueError(f"{field}: {row.get(field)!r} is none of {', '.join(map(str, values))}")
    return row[field]


def listed(row, field):
    if not isinstance(row.get(field), list):
        raise ValueError(f"{field}: not a list")
    return row[field]


def transcript(row, field):
    """The messages of a text "\\n\\nHuman: ...\\n\\nAssistant: ..."."""
    # What stands before the first speaker, then speaker and content by turns.
    start, *turns = re.split(r"\n\n(Human|Assistant):", text(row, field))
    if start.strip() or not turns:
        raise ValueError(f"{field}: not a transcript that starts with Human: or Assistant:")
    messages = []
    for speaker, content in zip(turns[::2], turns[1::2], strict=True):
        messages.append({"role": SPEAKERS[speaker], "content": content.strip()})
    return messages


# Messages


def user(content):
    return [{"role": "user", "content": content}]


def assistant(content):
    return [{"role": "assistant", "content": content}]


def split_conversations(chosen, rejected):
    """The pair of two conversations, or None if they differ in more than the last message."""
    if not chosen or not rejected or chosen[:-1] != rejected[:-1]:
        return None
    return {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}


# Pairs


@dataclass
class Answer:
    text: str
    score: float | None  # None: unrated


def pair(prompt, chosen, rejected):
    """The pair of a prompt (messages) and two answers (texts)."""
    return {"prompt": prompt, "chosen": assistant(chosen), "rejected": assistant(rejected)}


def without_preference(chosen_score, rejected_score, min_margin):
    """Why two scores do not support a pair, or None if they do."""
    if chosen_score is None or rejected_score is None:
        return "unrated"
    if chosen_score == rejected_score:
        return "tie"
    if chosen_score < rejected_score:
        return "contradicted by its scores"
    if chosen_score - rejected_score < min_margin:
        return "small margin"
    return None


def margin(chosen_score, rejected_score):
    """The difference of two scores, in their points."""
    return round(chosen_score - rejected_score, 4)


def labelled_pair(prompt, chosen, rejected, min_margin):
    """The pair of two Answers, the first labelled as better, or the reason why it is dropped."""
    reason = without_preference(chosen.score, rejected.score, min_margin)
    if reason:
        return reason
    scored = pair(prompt, chosen.text, rejected.text)
    scored["margin"] = margin(chosen.score, rejected.score)
    return scored


def scored_pair(prompt, first, second, min_margin):
    """The pair of two Answers, the higher score is chosen, or the reason why it is dropped."""
    if first.score is None or second.score is None:
        return "unrated"
    rejected, chosen = sorted([first, second], key=lambda answer: answer.score)
    return labelled_pair(prompt, chosen, rejected, min_margin)


def all_pairs(prompt, answers, min_margin):
    """Yield every pair of the Answers, or the reason why it is dropped."""
    if len(answers) < 2:
        yield "fewer than two answers"
    for first, second in itertools.combinations(answers, 2):
        yield scored_pair(prompt, first, second, min_margin)
