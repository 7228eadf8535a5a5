"""Rows of preference datasets as comparisons: schema recognised, converted, checked.

The published schemas are in preference_schemas.py. TRL's and LLaMA-Factory's formats, in which many
sets are published, are converted here.
"""

import re
from collections import defaultdict
from typing import NamedTuple

import preference_datasets
from common import entrances, progress, rows
from preference_schemas import HH_RLHF, SCHEMAS, Schema
from preference_values import (
    SIDES,
    assistant,
    margin,
    split_conversations,
    without_preference,
)

MIN_MARGIN = 0.5  # of the published schemas, in their points (paper B.1, without a number)
# Where a row of TRL's formats has its question.
QUESTIONS = (
    "prompt",
    "context_messages",
    *entrances.CONVERSATIONS,
    "messages",
    *entrances.QUESTIONS,
)
# How such rows name the score of a side.
SCORES = ("{}_score", "score_{}", "{}_rating", "rating_{}", "{}-rating", "{}-score")


class Comparison(NamedTuple):
    """A pair that is usable (row, no reason) or is dropped (no row, the reason)."""

    source: str
    row: dict | None
    reason: str | None


# TRL's formats


def trl(row, seen, min_margin):
    """TRL's own formats, and sets published in them or in LLaMA-Factory's; called as the converters
    of preference_schemas.py.

    The answers are texts, messages, or one turn each ({"from", "value"}). The question is in one of
    QUESTIONS, or before the answers in two whole conversations (hendrydong/preference_700K,
    RLHFlow's -standard sets). Every key passes through that does not describe a row of another
    kind; a margin that the row has wins over the difference of its scores.
    """
    question_field = entrances.field_of(row, QUESTIONS)
    parts = trl_parts(row, question_field)
    if not parts:
        yield "different prompts"
        return
    used = () if question_field == "prompt" else entrances.used_with(question_field)
    pair = entrances.rest_of(row, used)
    pair["prompt"] = entrances.with_system(parts["prompt"], row)
    pair["chosen"] = parts["chosen"]
    pair["rejected"] = parts["rejected"]
    # On the hub ids are often numbers; downstream they are texts.
    row_id = entrances.name_of(row)
    if row_id:
        pair["id"] = row_id
    scores = scores_of(row)
    if scores:
        reason = without_preference(*scores, min_margin)
        if reason:
            yield reason
            return
        if row.get("margin") is None:
            pair["margin"] = margin(*scores)
    yield pair


def trl_parts(row, question_field):
    """{"prompt", "chosen", "rejected"} in messages; None if two conversations differ earlier."""
    chosen = answer_of(row, "chosen")
    rejected = answer_of(row, "rejected")
    are_lists = isinstance(row["chosen"], list) and isinstance(row["rejected"], list)
    # Some sets repeat the prompt beside two whole conversations.
    are_conversations = are_lists and is_conversation(chosen) and is_conversation(rejected)
    if are_conversations or (question_field is None and are_lists):
        return split_conversations(chosen, rejected)
    if question_field is None:
        reason = "neither prompt/chosen/rejected nor two conversations with one prompt"
        raise ValueError(f"chosen: {reason}")
    question = question_of(row, question_field)
    return {"prompt": question, "chosen": chosen, "rejected": rejected}


def is_conversation(messages):
    return len(messages) > 1 and messages[0]["role"] != "assistant"


def answer_of(row, side):
    """The messages of one answer of a pair."""
    value = row.get(side)
    if isinstance(value, list):
        return entrances.messages(value, side)
    if isinstance(value, dict):
        return entrances.messages([value], side)
    if not isinstance(value, str) and not rows.is_number(value):
        raise ValueError(f"{side}: neither a text nor messages")
    return assistant(str(value))


def question_of(row, field):
    """The messages of a question in that field; of a conversation, up to its last question."""
    if not isinstance(row[field], list):
        return entrances.asked(row, field)
    turns = entrances.messages(row[field], field)
    if field in ("prompt", "context_messages"):
        return turns
    return entrances.up_to_last(entrances.from_first_question(turns), "user")


def scores_of(row):
    """The scores of the chosen and the rejected answer, or None if the row lacks one."""
    for form in SCORES:
        scores = [as_number(row.get(form.format(side))) for side in SIDES]
        if None not in scores:
            return scores
    return None


def as_number(value):
    """A number, which may be written as a text, or None."""
    if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value.strip()):
        return float(value)
    return value if rows.is_number(value) else None


TRL = Schema(name=None, fields="chosen rejected", convert=trl)


# All formats


def recognise(row):
    """The schema of a row; exit at one of no known format."""
    for schema in SCHEMAS:
        if row.keys() >= set(schema.fields.split()):
            return schema
    if not row.keys() >= set(SIDES):
        rows.refuse(row, f"row: of no known format (its fields: {', '.join(row)})")
    chosen = row["chosen"]
    is_transcript = isinstance(chosen, str) and "\n\nHuman:" in chosen
    return HH_RLHF if is_transcript and row.get("prompt") is None else TRL


def converted(row, schema, seen, min_margin):
    """The pairs of a row, each a dictionary, or a text, the reason why it is dropped."""
    if min_margin is None:
        # The points of a format without a name are not known: only ties are dropped.
        min_margin = MIN_MARGIN if schema.name else 0
    try:
        return list(schema.convert(row, seen, min_margin))
    except entrances.Dropped as reason:
        return [str(reason)]
    except ValueError as error:
        rows.refuse(row, error)


def unusable(row):
    """Why a pair teaches nothing or is malformed, or None."""
    if problem := rows.problem(row, "preferences"):
        # What follows in brackets is of this row alone; reasons are counted.
        return problem.split(" (")[0]
    chosen = contents(row["chosen"])
    rejected = contents(row["rejected"])
    if not all(chosen + rejected):
        return "empty answer"
    if chosen == rejected:
        return "identical answers"
    return None


def contents(messages):
    return [message["content"].strip() for message in messages]


def comparisons(datasets, split, min_margin, counts, total=None):
    """Yield every Comparison of the datasets, usable or dropped.

    counts: a Counter, "rows in" is counted. total: rows in all the datasets, known on a second
    reading, for the progress.
    """
    reading = progress.Progress(total, "rows written")
    seen = defaultdict(dict)  # {name of a schema: what its rows share, across datasets}
    for dataset in datasets:
        schema = None
        for row in preference_datasets.load(dataset, split):
            counts["rows in"] += 1
            number = counts["rows in"]
            if schema is None:
                schema = recognise(row)
            results = converted(row, schema, seen[schema.name], min_margin)
            if number % 10_000 == 0:
                show_progress(reading, number)
            source = schema.name or str(row.get("source") or dataset)
            row_id = entrances.numbered_name(schema.name, dataset, number)
            for index, result in enumerate(results):
                if isinstance(result, str):
                    yield Comparison(source, None, result)
                    continue
                pair_id = f"{row_id}-{index}" if index else row_id
                yield checked({"id": pair_id, **result, "source": source})


def checked(pair):
    """A pair as a Comparison."""
    reason = unusable(pair)
    return Comparison(pair["source"], None if reason else pair, reason)


def show_progress(reading, number):
    if reading.total is None:
        progress.show(f"{number} rows read, {number / reading.seconds():.0f}/s")
    else:
        reading.show(number)
