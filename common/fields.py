"""The kinds of rows, and what each of their fields may hold. For common/rows.py."""

import re
import sys

FIELDS = {  # that a kind of row must have; keys beyond them pass through
    "rows": ["id"],
    "instructions": ["id", "messages"],
    "preferences": ["id", "prompt", "chosen", "rejected"],
    "unpaired": ["id", "prompt", "completion", "label"],
    "prompts": ["id", "prompt"],
    "responses": ["id", "prompt", "responses", "finish_reasons"],
    "verifiable": ["id", "prompt", "responses", "finish_reasons", "answer"],
    "rewards": ["id", "prompt", "responses", "finish_reasons", "rewards"],
    "ratings": ["id", "messages", "ratings"],
    "corpus": ["text"],
}
OPTIONAL = {  # that are checked where they are there, since the stages which read such rows use them
    "preferences": ["margin"],
    "prompts": ["system"],
    "responses": ["system", "end_tokens"],
}

# Lists with one entry for each response of a row. Any other list belongs to the row as a whole, however long it is.
PER_RESPONSE = (
    "responses",
    "temperatures",
    "finish_reasons",
    "end_tokens",
    "response_tokens",
    "policies",
    "rewards",
    "objectives",
    "true_rewards",
    "correct",
    "kl",
)


# What a field may hold: each check takes the value and its row, and gives what is wrong or None


def check_text(value, row):
    return None if value and isinstance(value, str) else "not a non-empty text"


def check_any_text(value, row):
    return None if isinstance(value, str) else "not a text"


def is_number(value):
    """A JSON number that a float can hold: no NaN, no infinity, no integer of 400 digits."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def check_number(value, row):
    return None if is_number(value) else f"{short(value)} is not a finite number"


def check_probability(value, row):
    return None if is_number(value) and 0 <= value <= 1 else f"{short(value)} is not a probability"


def check_truth(value, row):
    return None if isinstance(value, bool) else "neither true nor false"


def check_two_numbers(value, row):
    good = isinstance(value, list) and len(value) == 2 and all(map(is_number, value))
    return None if good else f"{short(value)} is not two numbers"


def short(value):
    """A value in a message."""
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}..."


ROLES = {
    "messages": r"(system )?user assistant( user assistant)*",
    "prompt": r"(system )?user( assistant user)*",
    "chosen": r"assistant( user assistant)*",
    "rejected": r"assistant( user assistant)*",
    "completion": r"assistant( user assistant)*",
}


def conversation(field):
    """The check of messages whose roles are in the order of that field."""

    def check(value, row):
        good = isinstance(value, list) and value and all(map(is_message, value))
        if not good:
            return "not one or more messages {role, content}"
        if field in ("messages", "prompt"):  # a policy's answer may be empty
            if not all(turn["content"].strip() for turn in value):
                return "an empty turn"
        roles = [turn["role"] for turn in value]
        if not re.fullmatch(ROLES[field], " ".join(roles)):
            return f"roles out of order ({', '.join(role if role.isalpha() else repr(role) for role in roles)})"
        return None

    return check


def is_message(turn):
    return (
        isinstance(turn, dict)
        and isinstance(turn.get("role"), str)
        and isinstance(turn.get("content"), str)
    )


def for_each_response(good, complaint):
    """The check of a list with one entry for each response, each of them good."""

    def check(value, row):
        responses = row.get("responses")
        if not (
            value
            and isinstance(value, list)
            and isinstance(responses, list)
            and len(value) == len(responses)
        ):
            return "not a list with one entry for each response"
        return None if all(map(good, value)) else complaint(value)

    return check


def is_text(value):
    return isinstance(value, str)


def is_scores(value):
    """{name: number} of one response."""
    return isinstance(value, dict) and bool(value) and all(map(is_number, value.values()))


def is_comparison(value):
    """{"a": i, "b": j, "probability": number or null}, or what a judge says of one response."""
    return isinstance(value, dict) and (
        value.get("probability") is None or check_probability(value["probability"], None) is None
    )


def check_judgement(value, row):
    good = isinstance(value, list) and all(map(is_comparison, value))
    return None if good else "not a list of comparisons with a probability, or null, each"


check_texts = for_each_response(is_text, lambda value: "not all texts")
check_numbers = for_each_response(
    is_number, lambda value: f"{short(value)} are not all finite numbers"
)
check_correct = for_each_response(
    lambda value: isinstance(value, bool) or is_number(value), lambda value: "not all true or false"
)
check_scores = for_each_response(is_scores, lambda value: "not {name: number} for each response")


def check_ratings(value, row):
    """{objective: number or null}"""
    good = isinstance(value, dict) and all(
        rating is None or is_number(rating) for rating in value.values()
    )
    return None if good else "not numbers or null by objective"


CHECKS = {
    **{
        name: check_text
        for name in ("id", "answer", "text", "benchmark", "section", "subset", "group")
    },
    **{name: conversation(name) for name in ROLES},
    **{name: check_texts for name in ("responses", "finish_reasons", "end_tokens")},
    **{name: check_numbers for name in ("rewards", "true_rewards", "kl")},
    **{name: check_probability for name in ("chosen_win_probability", "rejected_win_probability")},
    "system": check_any_text,
    "explored": check_any_text,
    "label": check_truth,
    "correct": check_correct,
    "judgement": check_judgement,
    "margin": check_number,
    "direction": check_two_numbers,
    "objectives": check_scores,
    "ratings": check_ratings,
}


def problem(row, kind, n=None, also=(), if_there=()):
    """What is wrong with a row of that kind, with n responses if given, as 'field: reason', or None.

    also: further fields that the row must have; if_there: that it may have.
    """
    if not isinstance(row, dict):
        return "row: not a JSON object"
    if not kind:
        return None
    for field in [*FIELDS[kind], *also]:
        if row.get(field) is None:
            return f"{field}: missing"
        if reason := CHECKS[field](row[field], row):
            return f"{field}: {reason}"
        if field == "responses" and n and len(row[field]) != n:
            return f"responses: {len(row[field])} where {n} are expected"
    for field in [*OPTIONAL.get(kind, ()), *if_there]:
        if row.get(field) is not None and (reason := CHECKS[field](row[field], row)):
            return f"{field}: {reason}"
    return None
