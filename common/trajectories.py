"""Responses of several turns: those of the assistant, and the results of the tool between them.

A response is a text, or the messages of a trajectory a_1, o_1, ..., o_{H-1}, a_H
(arXiv 2409.02392, section 2): the assistant's turns as they were sampled, and the tool's, which
hold what the program or the call gave.

A program stands in a fenced block at the end of the assistant's turn. Its output becomes a user's
turn with a block "output", which every chat template can write. A call in the template's own format
is answered by a tool turn with a "name", which the template writes as it writes tools.
"""


def turns(response):
    """The messages of a response."""
    if isinstance(response, str):
        return [{"role": "assistant", "content": response}]
    return response


def for_template(messages):
    """The messages as the chat template gets them: outputs of programs become user's turns."""
    shown = []
    outputs = []
    for message in messages:
        if is_output(message):
            outputs.append(message["content"])
            continue
        if outputs:
            shown.append(as_user(outputs))
            outputs = []
        shown.append(message)
    if outputs:
        shown.append(as_user(outputs))
    return shown


def is_output(message):
    """Is it what a program printed, not the result of a call in the template's own format?"""
    return message["role"] == "tool" and "name" not in message


def as_user(outputs):
    """The user's turn that shows what the programs of a turn have printed."""
    blocks = [f"```output\n{output}\n```" for output in outputs]
    return {"role": "user", "content": "\n".join(blocks)}


def text(response):
    """A response as one text, for who reads the whole of it: a judge, a report."""
    return "\n".join(message["content"] for message in for_template(turns(response)))


def last_turn(response):
    """The text of the last turn, which holds the final answer."""
    return turns(response)[-1]["content"]


def said(response):
    """What the assistant said, without the tool's results."""
    contents = []
    for message in turns(response):
        if message["role"] == "assistant":
            contents.append(message["content"])
    return "".join(contents)
