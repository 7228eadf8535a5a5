"""The kinds of rows, and what each of their fields may hold. For common/rows.py."""

import re
import sys

# The fields that a kind of row must have; keys beyond them pass through.
FIELDS = {
    "rows": ["id"],
    "instructions": ["id", "messages"],
    "preferences": ["id", "prompt", "chosen", "rejected"],
    "unpaired": ["id", "prompt", "completion", "label"],
    "prompts": ["id", "prompt"],
    "responses": ["id", "prompt", "responses", "finish_reasons"],
    "verifiable": ["id", "prompt", "responses", "finish_reasons"],
    "rewards": ["id", "prompt", "responses", "finish_reasons", "rewards"],
    "ratings": ["id", "messages", "ratings"],
    "corpus": ["text"],
}

# Fields that are checked in the rows that have them, since stages which read such rows use them.
OPTIONAL = {
    "instructions": ["tools"],
    "preferences": ["margin", "tools"],
    "unpaired": ["tools"],
    "prompts": ["system", "verifier", "tools"],
    "responses": ["system", "end_tokens", "tools"],
    "verifiable": ["answer", "verifier"],
}

# Lists with one entry for each response of a row. Any other list belongs to the row, whatever its
# length.
PER_RESPONSE = (
    "responses",
    "temperatures",
    "finish_reasons",
    "end_tokens",
    "response_tokens",
    "programs",
    "failed_programs",
    "policies",
    "rewards",
    "objectives",
    "true_rewards",
    "correct",
    "kl",
)

# The roles of a conversation's turns, one word each.
ROLES = {
    "messages": r"(system )?user assistant(( user|( tool)+) assistant)*",
    "prompt": r"(system )?user( assistant user)*",
    "chosen": r"assistant(( user|( tool)+) assistant)*",
    "rejected": r"assistant(( user|( tool)+) assistant)*",
    "completion": r"assistant(( user|( tool)+) assistant)*",
    "responses": r"assistant(( tool)+ assistant)*",
}


def short(value):
    """A value in a message."""
    text = repr(value)
    if len(text) > 200:
        return f"{text[:200]}..."
    return text


# Properties of a value


def is_text(value):
    return isinstance(value, str)


def is_number(value):
    """A JSON number that a float can hold: no NaN, no infinity, no integer of 400 digits."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def is_probability(value):
    return is_number(value) and 0 <= value <= 1


def is_correctness(value):
    return isinstance(value, bool) or is_number(value)


def is_scores(value):
    """{name: number} of a response."""
    return isinstance(value, dict) and bool(value) and all(map(is_number, value.values()))


def is_comparison(value):
    """{"a": i, "b": j, "probability": number or null}, or what a judge says about a response."""
    if not isinstance(value, dict):
        return False
    probability = value.get("probability")
    return probability is None or is_probability(probability)


def is_message(value):
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def roles_of(messages):
    return " ".join(message["role"] for message in messages)


def is_response(value):
    """A text, or the messages of several turns (common/trajectories.py)."""
    if isinstance(value, str):
        return True
    if not (isinstance(value, list) and value and all(map(is_message, value))):
        return False
    return re.fullmatch(ROLES["responses"], roles_of(value)) is not None


# Checks of a field: each takes the value and its row, and returns what is wrong or None


def check_text(value, row):
    return None if value and isinstance(value, str) else "not a non-empty text"


def check_any_text(value, row):
    return None if isinstance(value, str) else "not a text"


def check_number(value, row):
    return None if is_number(value) else f"{short(value)} is not a finite number"


def check_probability(value, row):
    return None if is_probability(value) else f"{short(value)} is not a probability"


def check_truth(value, row):
    return None if isinstance(value, bool) else "neither true nor false"


def check_two_numbers(value, row):
    if isinstance(value, list) and len(value) == 2 and all(map(is_number, value)):
        return None
    return f"{short(value)} is not two numbers"


def check_judgement(value, row):
    if isinstance(value, list) and all(map(is_comparison, value)):
        return None
    return "not a list of comparisons with a probability, or null, each"


def check_tools(value, row):
    if isinstance(value, list) and all(isinstance(schema, dict) for schema in value):
        return None
    return "not a list of schemas"


def check_reference(value, row):
    """The model whose log-probabilities a pair has (dpo/0_reference.py)."""
    names = ("model", "fingerprint", "tokens")
    if isinstance(value, dict) and all(isinstance(value.get(name), str) for name in names):
        return None
    return "not a model with its fingerprint and that of the tokens"


def check_ratings(value, row):
    """{objective: number or null}"""
    if not isinstance(value, dict):
        return "not numbers or null by objective"
    for rating in value.values():
        if rating is not None and not is_number(rating):
            return "not numbers or null by objective"
    return None


def check_verifier(value, row):
    """A name, or a list of {"name", "weight"?, "arguments"?}."""
    entries = [{"name": value}] if isinstance(value, str) else value
    if not isinstance(entries, list) or not entries:
        return "neither a name nor a list of {name, weight, arguments}"
    for entry in entries:
        reason = problem_of_verifier(entry)
        if reason:
            return reason
    return None


def problem_of_verifier(entry):
    """What is wrong with one verifier of a row, or None."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return "neither a name nor a list of {name, weight, arguments}"
    name = entry["name"]
    # A row is data: it chooses among the programs that the command names, and brings none.
    if "/" in name or "\\" in name or name.endswith(".py"):
        return f"{short(name)}: a path; name it, and give its file by --verifier NAME=FILE.py"
    if not name.isidentifier():
        return f"{short(name)}: not a name"
    unknown = set(entry) - {"name", "weight", "arguments"}
    if unknown:
        return f"{name}: {min(unknown)}: not one of name, weight, arguments"
    weight = entry.get("weight")
    if weight is not None and not (is_number(weight) and weight > 0):
        return f"{name}: weight: {short(weight)} is not a number above 0"
    if not isinstance(entry.get("arguments"), dict | None):
        return f"{name}: arguments: not an object"
    return None


def conversation(field):
    """The check of messages whose roles are in the order of that field."""

    def check(value, row):
        if not (isinstance(value, list) and value and all(map(is_message, value))):
            return "not one or more messages {role, content}"
        # A response may have an empty turn: a policy's answer may be empty, and a tool's result.
        if field in ("messages", "prompt"):
            said = [turn["content"] for turn in value if turn["role"] != "tool"]
            if not all(content.strip() for content in said):
                return "an empty turn"
        if re.fullmatch(ROLES[field], roles_of(value)):
            return None
        roles = [turn["role"] for turn in value]
        shown = [role if role.isalpha() else repr(role) for role in roles]
        return f"roles out of order ({', '.join(shown)})"

    return check


def for_each_response(is_good, complaint):
    """The check of a list with one good entry for each response.

    complaint: what is wrong with a list that has other entries; a function of the list.
    """

    def check(value, row):
        responses = row.get("responses")
        lists = value and isinstance(value, list) and isinstance(responses, list)
        if not lists or len(value) != len(responses):
            return "not a list with one entry for each response"
        if all(map(is_good, value)):
            return None
        return complaint(value)

    return check


check_texts = for_each_response(is_text, lambda value: "not all texts")
check_responses = for_each_response(
    is_response, lambda value: "not all texts or turns of the assistant and its tools"
)
check_numbers = for_each_response(
    is_number, lambda value: f"{short(value)} are not all finite numbers"
)
check_correct = for_each_response(is_correctness, lambda value: "not all true or false")
check_scores = for_each_response(is_scores, lambda value: "not {name: number} for each response")

CHECKS = {
    "id": check_text,
    "answer": check_text,
    "text": check_text,
    "benchmark": check_text,
    "section": check_text,
    "subset": check_text,
    "group": check_text,
    "messages": conversation("messages"),
    "prompt": conversation("prompt"),
    "chosen": conversation("chosen"),
    "rejected": conversation("rejected"),
    "completion": conversation("completion"),
    "responses": check_responses,
    "finish_reasons": check_texts,
    "end_tokens": check_texts,
    "rewards": check_numbers,
    "true_rewards": check_numbers,
    "kl": check_numbers,
    "chosen_win_probability": check_probability,
    "rejected_win_probability": check_probability,
    "ref_chosen_logp": check_number,
    "ref_rejected_logp": check_number,
    "reference": check_reference,
    "system": check_any_text,
    "explored": check_any_text,
    "label": check_truth,
    "correct": check_correct,
    "judgement": check_judgement,
    "margin": check_number,
    "direction": check_two_numbers,
    "objectives": check_scores,
    "ratings": check_ratings,
    "tools": check_tools,
    "verifier": check_verifier,
}


def problem(row, kind, n=None, also=(), if_there=()):
    """What is wrong with a row, as 'field: reason', or None.

    kind: of FIELDS; without a kind any object is a row. n: responses of the row, if given.
    also: further fields that the row must have; if_there: fields that it may have.
    """
    if not isinstance(row, dict):
        return "row: not a JSON object"
    if not kind:
        return None
    for field in [*FIELDS[kind], *also]:
        if row.get(field) is None:
            return f"{field}: missing"
        reason = CHECKS[field](row[field], row)
        if reason:
            return f"{field}: {reason}"
        if field == "responses" and n and len(row[field]) != n:
            return f"responses: {len(row[field])} where {n} are expected"
    for field in [*OPTIONAL.get(kind, ()), *if_there]:
        if row.get(field) is None:
            continue
        reason = CHECKS[field](row[field], row)
        if reason:
            return f"{field}: {reason}"
    return None
