"""Read the calls of the tool, Python, out of an assistant's turn.

Two formats, each with: `tools`, the schemas that the chat template gets, or None;
`sampling_options`, for vLLM's SamplingParams; `read`, a turn as it is kept and its calls; `answer`,
the message of the tool to a call.
"""

import json
import logging
import re
import sys
from dataclasses import dataclass

from common import chats, thoughts, trajectories

# What a policy that was not trained on outputs goes on with; the published code stops there, too.
OUTPUT = "```output"
FENCE = "```"
CLOSED_BLOCK = re.compile(r"^```python[^\S\n]*\n(?P<program>.*?)^```[^\S\n]*$", re.M | re.S)
OPEN_BLOCK = re.compile(r"^```python[^\S\n]*\n((?!^```).)*\Z", re.M | re.S)
# The tool of native calls, as a chat template gets it.
TOOL = {
    "type": "function",
    "function": {
        "name": "python",
        "description": "Run a Python program. What it prints is returned, errors included. It sees "
        "what earlier programs have defined.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "the program"}},
            "required": ["code"],
        },
    },
}


@dataclass
class Call:
    """A call of the tool in an assistant's turn: a program, or what is wrong with the call."""

    program: str | None
    error: str = ""


class Fenced:
    """Programs in fenced blocks (Iterative preference learning, slides; arXiv 2409.02392).

    A turn that ends with the fence of a closed ```python block is a call of that program. So is a
    turn that goes on with ```output: generation stops there, its last ```python block is called,
    and ```output does not become part of the turn, except for a fence that closes the block. Every
    other turn is a final answer. A thought holds no call.
    """

    def __init__(self):
        self.tools = None
        self.sampling_options = {"stop": [OUTPUT]}

    def read(self, text, stopped_at):
        """(the turn's content, its calls). stopped_at: the stop string of vLLM, or else."""
        stopped = stopped_at == OUTPUT
        turn = text
        if stopped and OPEN_BLOCK.search(text):
            turn = text + FENCE
        blocks = list(CLOSED_BLOCK.finditer(thoughts.without_thoughts(turn)))
        if not blocks:
            return text, []
        last = blocks[-1]
        if not stopped and last.string[last.end() :].strip():
            return text, []
        return turn, [Call(last["program"])]

    def answer(self, output):
        return {"role": "tool", "content": output}


class Native:
    """Calls in the format of the chat template, read by a parser of vLLM.

    parser_name: of vLLM's ToolParserManager. A turn without a call that the parser can read is a
    final answer. A call of another tool, or without the text "code", is answered by its error.
    """

    def __init__(self, parser_name, tokenizer):
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.tool_parsers import ToolParserManager

        self.tools = [TOOL]
        # The marks of a call are special tokens of some models. The one that ends a turn is never
        # in a text.
        self.sampling_options = {"skip_special_tokens": False}
        # A parser logs the traceback of each call that it cannot read.
        logging.getLogger("vllm.tool_parsers").setLevel(logging.CRITICAL)
        try:
            parser_class = ToolParserManager.get_tool_parser(parser_name)
        except KeyError:
            names = ", ".join(ToolParserManager.list_registered())
            sys.exit(f"--tool_call_parser: {parser_name}: not one of vLLM's: {names}")
        messages = [{"role": "user", "content": "question"}]
        self.request = ChatCompletionRequest(model="policy", messages=messages, tools=self.tools)
        try:
            self.parser = parser_class(tokenizer, self.request.tools)
        except (RuntimeError, ValueError) as error:  # its marks are no tokens of this tokenizer
            sys.exit(f"--tool_call_parser: {parser_name}: {error}")

    def read(self, text, stopped_at):
        """(the turn's content, its calls)."""
        answer = thoughts.without_thoughts(text)
        try:
            tool_calls = self.parser.extract_tool_calls(answer, self.request).tool_calls
        except Exception:  # there are some fifty parsers, and a policy may write anything
            return text, []
        calls = []
        for tool_call in tool_calls:
            calls.append(read_call(tool_call.function.name, tool_call.function.arguments))
        return text, calls

    def answer(self, output):
        return {"role": "tool", "name": TOOL["function"]["name"], "content": output}


def read_call(name, arguments):
    """The Call of a tool by that name with these arguments, JSON."""
    if name != TOOL["function"]["name"]:
        return Call(None, f"Error: there is no tool {name!r}; the only tool is python")
    try:
        program = json.loads(arguments)["code"]
    except (ValueError, TypeError, KeyError):
        program = None
    if not isinstance(program, str):
        return Call(None, 'Error: python takes one argument, the text "code"')
    return Call(program)


def check_template(tokenizer, tool_format, prompt, where):
    """Exit if the chat template changes a prompt, or leaves out or refuses the tool or its output.

    prompt: messages. where: FILE:LINE.
    """
    name = tokenizer.name_or_path
    output = "the output of the program"
    turn = {"role": "assistant", "content": "I run a program."}
    messages = trajectories.for_template([*prompt, turn, tool_format.answer(output)])
    text = chats.prompt_text(tokenizer, messages, where, tool_format.tools)
    if not text.startswith(chats.prompt_text(tokenizer, prompt, where, tool_format.tools)):
        # Such as DeepSeek-R1's, and Qwen3's with enable_thinking=false: training could not join
        # the turns to the prompt that the policy saw.
        sys.exit(f"{name}: its chat template writes a prompt otherwise once turns follow it")
    if tool_format.tools and TOOL["function"]["description"] not in text:
        sys.exit(f"{name}: its chat template leaves out the tools: use --tool_format fenced")
    if output not in text:
        sys.exit(f"{name}: its chat template leaves out the output of a tool")
