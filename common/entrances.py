"""Rows of public data as conversations, in whatever form they are published.

For generation/1_prompts.py, sft/1_instructions.py and reward_modeling/1_preferences.py. A message
keeps its role and its content. Roles are called user or human, assistant or gpt, system. A turn is
    {"role", "content"}     content is a text, or a list of {"type": "text", "text"}, which are
                            joined by line feeds
    {"from", "value"}       (ShareGPT)
    {"input", "output"}     a question with its answer (Capybara)
A ValueError, 'field: reason', says that a row is of no known format; Dropped, why a row of a known
format cannot be used.
"""

import json
import re
from pathlib import Path

from common.fields import is_number

ROLES = {"human": "user", "gpt": "assistant"}
# Roles of tool calls, and of what tools return.
OF_TOOLS = ("tool", "function", "ipython", "function_call", "observation")
CONVERSATIONS = ("conversations", "conversation")
QUESTIONS = ("instruction", "question", "problem")
# Keys by which a row of another kind is known. A row that has become one kind loses these keys.
OF_OTHER_KINDS = ("context_messages", "messages", *CONVERSATIONS, "completion", "responses")


class Dropped(Exception):
    """A row that is dropped and counted; its text is the reason."""


# Turns


def messages(value, field, with_tools=False):
    """The messages of a list of turns in any of the forms above.

    A content that is null stays null: the check of rows counts it. with_tools: turns of a tool are
    kept, as in a trajectory (common/trajectories.py).
    """
    if not isinstance(value, list):
        raise ValueError(f"{field}: not a list of turns")
    turns = []
    for entry in value:
        if with_tools and is_result(entry):
            turns.append(result(entry, field))
        else:
            turns += messages_of_turn(entry, field)
    return turns


def is_result(entry):
    """Is it the turn of a tool in a trajectory? The answer to one of `tool_calls` is not."""
    if not isinstance(entry, dict) or "tool_call_id" in entry:
        return False
    return entry.get("role") == "tool" and "content" in entry


def result(entry, field):
    turn = message("tool", entry["content"], field)
    if isinstance(entry.get("name"), str):
        turn["name"] = entry["name"]
    return turn


def messages_of_turn(entry, field):
    """One message, or two of a question with its answer."""
    if not isinstance(entry, dict):
        raise ValueError(f"{field}: a turn is not an object")
    if entry.get("input") is not None and "output" in entry:
        question = message("user", entry["input"], field)
        answer = message("assistant", entry["output"], field)
        return [question, answer]
    if entry.get("tool_calls") or entry.get("function_call"):
        raise Dropped("tool calls")
    role_key = "role"
    content_key = "content"
    if entry.get("from") is not None:
        role_key = "from"
        content_key = "value"
    if not isinstance(entry.get(role_key), str) or content_key not in entry:
        raise ValueError(f"{field}: a turn has neither role and content nor from and value")
    role = entry[role_key].strip().lower()
    if role in OF_TOOLS:
        raise Dropped("tool calls")
    return [message(ROLES.get(role, role), entry[content_key], field)]


def message(role, content, field):
    if isinstance(content, list):
        content = "\n".join(text_of(part) for part in content)
    if not isinstance(content, str | None):
        raise ValueError(f"{field}: the content of a turn is not a text")
    return {"role": role, "content": content}


def text_of(part):
    """The text of a part of a content: {"type": "text", "text"}."""
    is_text = isinstance(part, dict) and part.get("type") == "text"
    if not is_text or not isinstance(part.get("text"), str):
        raise Dropped("content that is not text")
    return part["text"]


def from_first_question(turns):
    """The system turn if there is one, and all turns from the first question on."""
    system = turns[:1] if turns and turns[0]["role"] == "system" else []
    rest = turns[len(system) :]
    for index, turn in enumerate(rest):
        if turn["role"] == "user":
            return system + rest[index:]
    return turns


def up_to_last(turns, role):
    """The turns up to the last one of that role; all turns where none is of that role."""
    for end in range(len(turns), 0, -1):
        if turns[end - 1]["role"] == role:
            return turns[:end]
    return turns


# Questions


def field_of(row, fields):
    """The first of the fields that the row has, and that is not null, or None."""
    for field in fields:
        if row.get(field) is not None:
            return field
    return None


def asked(row, field):
    """The messages of a question in a field of QUESTIONS.

    An instruction is followed, after an empty line, by its `input` or `context` (Alpaca, Dolly).
    Before it come the earlier turns in `history` (LLaMA-Factory).
    """
    parts = [text(row[field], field)]
    turns = []
    if field == "instruction":
        for more in ("input", "context"):
            if row.get(more) is not None:
                parts.append(text_or_number(row[more], more))
        turns = history_turns(row)
    content = "\n\n".join(part for part in parts if part.strip())
    return [*turns, message("user", content, field)]


def history_turns(row):
    """The messages of `history`, a list of [question, answer]."""
    history = row.get("history") or []
    if not isinstance(history, list):
        raise ValueError("history: not a list of [question, answer]")
    turns = []
    for exchange in history:
        if not isinstance(exchange, list) or len(exchange) != 2:
            raise ValueError("history: not a list of [question, answer]")
        question, answer = exchange
        turns.append(message("user", question, "history"))
        turns.append(message("assistant", answer, "history"))
    return turns


def used_with(field):
    """The keys of a row that are a part of the question in that field."""
    if field == "instruction":
        return (field, "input", "context", "history")
    return (field,)


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
    """The messages after the row's system prompt, unless they have a system turn of their own.

    Blank system prompts and turns are left out.
    """
    if turns and turns[0]["role"] == "system":
        content = turns[0]["content"] or ""
        if content.strip():
            return turns
        turns = turns[1:]
    field = field_of(row, ("system", "system_prompt"))
    if field is None or is_directed(row):
        return turns
    system = text(row[field], field)
    if not system.strip():
        return turns
    return [{"role": "system", "content": system}, *turns]


# Other keys


def is_directed(row):
    """Is it a row of generation/1b_directions.py? Its system prompt, which is for the policy alone,
    stays a key."""
    return "direction" in row and "system" in row


def rest_of(row, used):
    """The keys that pass through, with their values.

    Left out are the id, used (the keys that became the conversation), and OF_OTHER_KINDS.
    """
    excluded = {"id", "system_prompt", *used, *OF_OTHER_KINDS}
    if not is_directed(row):
        excluded.add("system")
    rest = {key: value for key, value in row.items() if key not in excluded}
    if is_number(rest.get("answer")):
        rest["answer"] = str(rest["answer"])
    if isinstance(rest.get("tools"), str):
        rest["tools"] = schemas(rest["tools"])
    return rest


def schemas(text):
    """The schemas of tools in a text of JSON, a list; None for a blank text."""
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError("tools: not a list of schemas") from None


def final_answer(row):
    """The answer with which a verifier compares, a text, or None.

    Of `answer`: what follows #### in its last line (GSM8K), otherwise all of it. Without an
    `answer`: what the last \\boxed{} of the `solution` to a `problem` holds (MATH).
    """
    if row.get("answer") is not None:
        answer = text_or_number(row["answer"], "answer")
        marked = re.search(r"^#### *(.+)\Z", answer.strip(), re.MULTILINE)
        return marked[1] if marked else answer
    if isinstance(row.get("problem"), str) and isinstance(row.get("solution"), str):
        return last_boxed(row["solution"])
    return None


def instructions_to_check(row):
    """A row's "verifier" for IFEval's instructions, or None: of `instruction_id_list` and `kwargs`.

    Published rows have null for the arguments that an instruction does not take.
    """
    ids = row.get("instruction_id_list")
    kwargs = row.get("kwargs")
    if not isinstance(ids, list) or not isinstance(kwargs, list):
        return None
    given = []
    for arguments in kwargs:
        if not isinstance(arguments, dict):
            raise ValueError("kwargs: not a list of objects")
        given.append({name: value for name, value in arguments.items() if value is not None})
    return [{"name": "ifeval", "arguments": {"instruction_id_list": ids, "kwargs": given}}]


def last_boxed(text):
    """What the last \\boxed{} of a text holds, or None: without one, or where it is cut off."""
    _, start, rest = text.rpartition("\\boxed{")
    if not start:
        return None
    depth = 1
    # \{ and \}, which belong to the answer, are matched first and change nothing.
    for brace in re.finditer(r"\\.|[{}]", rest):
        if brace[0] == "{":
            depth += 1
        elif brace[0] == "}":
            depth -= 1
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
    """The id of a row that has none, or that has the id of an earlier row, which is then the name.

    Without a name it is made of the dataset's. number: of the row.
    """
    name = name or Path(dataset.removesuffix(".gz")).stem
    return f"{name}-{number}"
