"""The rows of public data as conversations: what generation/1_prompts.py, sft/1_instructions.py and
reward_modeling/1_preferences.py have in common.

A message keeps its role and its content. Names of roles: user, human; assistant, gpt; system. The forms of a turn:
    {"role", "content"}     content a text, or a list of {"type": "text", "text"}, which are joined by line feeds
    {"from", "value"}       (ShareGPT)
    {"input", "output"}     a question with its answer (Capybara)
A ValueError says 'field: reason' of a row of no known format, Dropped why a row of a known form cannot be used.
"""

import re
from pathlib import Path

from common.fields import is_number

ROLES = {"human": "user", "gpt": "assistant"}
OF_TOOLS = (
    "tool",
    "function",
    "ipython",
    "function_call",
    "observation",
)  # roles of calls and of what they return
CONVERSATIONS = ("conversations", "conversation")
QUESTIONS = ("instruction", "question", "problem")
# What a row of another kind is known by. A row that has become one kind does not keep these keys.
OF_OTHER_KINDS = ("context_messages", "messages", *CONVERSATIONS, "completion", "responses")


class Dropped(Exception):
    """A row that is dropped and counted; its text is the reason."""


def messages(value, field):
    """The turns of a list in any form above, as messages; null content stays null, the check of rows counts it."""
    if not isinstance(value, list):
        raise ValueError(f"{field}: not a list of turns")
    turns = []
    for entry in value:
        if not isinstance(entry, dict):
            raise ValueError(f"{field}: a turn is not an object")
        if entry.get("input") is not None and "output" in entry:
            turns += [
                message("user", entry["input"], field),
                message("assistant", entry["output"], field),
            ]
            continue
        if entry.get("tool_calls") or entry.get("function_call"):
            raise Dropped("tool calls")
        keys = ("role", "content") if entry.get("from") is None else ("from", "value")
        if not isinstance(entry.get(keys[0]), str) or keys[1] not in entry:
            raise ValueError(f"{field}: a turn has neither role and content nor from and value")
        role = entry[keys[0]].strip().lower()
        if role in OF_TOOLS:
            raise Dropped("tool calls")
        turns.append(message(ROLES.get(role, role), entry[keys[1]], field))
    return turns


def message(role, content, field):
    if isinstance(content, list):
        content = "\n".join(text_of(part) for part in content)
    if not isinstance(content, str | None):
        raise ValueError(f"{field}: the content of a turn is not a text")
    return {"role": role, "content": content}


def text_of(part):
    """The text of a part of a content: {"type": "text", "text"}."""
    if (
        not isinstance(part, dict)
        or part.get("type") != "text"
        or not isinstance(part.get("text"), str)
    ):
        raise Dropped("content that is not text")
    return part["text"]


def from_first_question(turns):
    """Without what stands before the first question but the system turn."""
    system = turns[:1] if turns and turns[0]["role"] == "system" else []
    rest = turns[len(system) :]
    first = next((i for i, turn in enumerate(rest) if turn["role"] == "user"), 0)
    return system + rest[first:]


def up_to_last(turns, role):
    """Without what stands after the last turn of that role."""
    places = [i for i, turn in enumerate(turns) if turn["role"] == role]
    return turns[: places[-1] + 1] if places else turns


def field_of(row, fields):
    """The first of the fields that the row has, and that is not null."""
    return next((field for field in fields if row.get(field) is not None), None)


def asked(row, field):
    """The messages of a question in a field of QUESTIONS: with the earlier turns and the input that belong to it.

    `input`, or `context`, of an instruction follows it after an empty line (Alpaca, Dolly); `history` is a list of
    [question, answer] before it (LLaMA-Factory).
    """
    parts = [text(row[field], field)]
    turns = []
    if field == "instruction":
        for more in ("input", "context"):
            if row.get(more) is not None:
                parts.append(text_or_number(row[more], more))
        history = row.get("history") or []
        if not isinstance(history, list):
            raise ValueError("history: not a list of [question, answer]")
        for earlier in history:
            if not (isinstance(earlier, list) and len(earlier) == 2):
                raise ValueError("history: not a list of [question, answer]")
            turns += [
                message("user", earlier[0], "history"),
                message("assistant", earlier[1], "history"),
            ]
    content = "\n\n".join(part for part in parts if part.strip())
    return [*turns, message("user", content, field)]


def used_with(field):
    """The keys of a row that are a part of the question in that field."""
    return (field, "input", "context", "history") if field == "instruction" else (field,)


def text(value, field):
    if not isinstance(value, str):
        raise ValueError(f"{field}: not a text")
    return value


def text_or_number(value, field):
    """A text; a number becomes one, true and false do not."""
    if is_number(value):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"{field}: neither a text nor a number")
    return value


def with_system(turns, row):
    """The messages with the row's system prompt before them, unless they have one; a blank one goes."""
    if turns and turns[0]["role"] == "system":
        if (turns[0]["content"] or "").strip():
            return turns
        turns = turns[1:]
    field = field_of(row, ("system", "system_prompt"))
    system = text(row[field], field) if field and not is_directed(row) else ""
    return [{"role": "system", "content": system}, *turns] if system.strip() else turns


def is_directed(row):
    """Is it a row of generation/1b_directions.py? Its system prompt is for the policy alone, and stays a key."""
    return "direction" in row and "system" in row


def rest_of(row, used):
    """What passes through: all but the id, what the conversation was made of, and what a row of another kind has."""
    gone = {"id", "system_prompt", *used, *OF_OTHER_KINDS}
    if not is_directed(row):
        gone.add("system")
    rest = {name: value for name, value in row.items() if name not in gone}
    if is_number(rest.get("answer")):
        rest["answer"] = str(rest["answer"])
    return rest


def final_answer(row):
    """The answer of a prompt that a verifier compares with, a text, or None.

    What stands after #### in the last line of `answer` (GSM8K), `answer` as it is, or else what the last \\boxed{} of
    the `solution` to a `problem` holds (MATH).
    """
    if row.get("answer") is not None:
        answer = text_or_number(row["answer"], "answer")
        marked = re.search(r"^#### *(.+)\Z", answer.strip(), re.MULTILINE)
        return marked[1] if marked else answer
    if isinstance(row.get("problem"), str) and isinstance(row.get("solution"), str):
        return last_boxed(row["solution"])
    return None


def last_boxed(text):
    """What the last \\boxed{} of a text holds, or None: without one, or where it is cut off."""
    _, found, rest = text.rpartition("\\boxed{")
    depth = 1
    for brace in re.finditer(
        r"\\.|[{}]", rest if found else ""
    ):  # \{ and \} are signs of the answer
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return rest[: brace.start()]
    return None


def name_of(row):
    """The id of a row as a text, or None."""
    if row.get("id") is None:
        return None
    if row["id"] == "" or not (isinstance(row["id"], str) or is_number(row["id"])):
        raise ValueError("id: not a non-empty text")
    return str(row["id"])


def numbered_name(name, dataset, number):
    """The id of a row that has none, or whose name stands before it already."""
    return f"{name or Path(dataset.removesuffix('.gz')).stem}-{number}"
