"""Command lines of the scripts that do not train: a wrong argument ends in one line.

The docstring of a script is its manual. A number has a range; nan and inf are refused. An output is
compared with every input: a command that would overwrite what it reads, or delete what is not ours,
ends before anything is read.
"""

import argparse
import math
import os
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from common import outputs

# The endings of the names of arguments that are paths or names of models.
PATH_ENDINGS = ("file", "files", "path", "datasets", "models", "directory")


@dataclass
class Output:
    """An argument that names what is written; see Parser.add_output."""

    kind: str
    files: list[str]
    suffixes: list[str]


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that knows which arguments are outputs."""

    def __init__(self, manual):
        super().__init__(description=manual, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.outputs = {}  # {name of the argument: Output}

    def add_output(self, flag, kind="file", files=(), suffixes=(), **options):
        """Add an argument that names what is written; kind as in outputs.problem.

        files: what is written into a folder. suffixes: of what is written beside a file.
        """
        action = self.add_argument(flag, **options)
        self.outputs[action.dest] = Output(kind, files, suffixes)

    def error(self, message):
        # Without argparse's usage, which would be most of the output.
        self.exit(2, f"{self.prog}: error: {message}\n")

    def parse_args(self, args=None, namespace=None):
        parsed = super().parse_args(args, namespace)
        self.check_paths(parsed)
        return parsed

    def check_paths(self, parsed):
        """Refuse an empty name of an input, and an output that is an input or another output."""
        inputs = self.input_paths(parsed)
        argument_of_path = {}
        for name, output in self.outputs.items():
            for path in listed(getattr(parsed, name)):
                self.check_output(name, path, output.kind, inputs, argument_of_path)
                for file in output.files:
                    self.check_output(name, Path(path, file), "file", inputs, argument_of_path)
                for suffix in output.suffixes:
                    beside = path_beside(path, suffix)
                    label = f"{name} (beside it)"
                    self.check_output(label, beside, "file", inputs, argument_of_path)

    def input_paths(self, parsed):
        """The existing files and directories that arguments name, except the outputs."""
        inputs = []
        for name, value in vars(parsed).items():
            if name in self.outputs:
                continue
            values = listed(value)
            if "" in values and name.endswith(PATH_ENDINGS):
                self.error(f"--{name}: empty (a variable that is not set?)")
            for path in values:
                if isinstance(path, str | Path) and os.path.exists(path):
                    inputs.append(path)
        return inputs

    def check_output(self, name, path, kind, inputs, argument_of_path):
        """Refuse one path that would be written, else add it to argument_of_path."""
        reason = outputs.problem(path, kind, inputs)
        if reason:
            self.error(f"--{name}: {reason}")
        real_path = os.path.realpath(path)
        if real_path in argument_of_path:
            self.error(f"--{name}: {path}: the same as --{argument_of_path[real_path]}")
        argument_of_path[real_path] = name


def path_beside(path, suffix):
    """rows.jsonl with .md: rows.md; with .dropped.jsonl: rows.jsonl.dropped.jsonl."""
    if suffix.count(".") == 1:
        return Path(path).with_suffix(suffix)
    return Path(f"{path}{suffix}")


def listed(value):
    """The values of an argument as a list: none, one or several."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


# Types of arguments


def whole(low=None, high=2**31 - 1):
    """The type of an argument that is a whole number from low to high."""

    def parse(text):
        return in_range(int(text), text, low, high)

    # So that argparse says: invalid whole number value.
    parse.__name__ = "whole number"
    return parse


def real(low=None, high=None, above=None):
    """The type of an argument that is a finite number from low to high, or above a bound."""

    def parse(text):
        number = in_range(float(text), text, low, high)
        if above is not None and number <= above:
            raise argparse.ArgumentTypeError(f"{text}: not above {above:g}")
        return number

    parse.__name__ = "number"
    return parse


def in_range(number, text, low, high):
    if isinstance(number, float) and not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text}: not a finite number")
    if low is not None and number < low:
        raise argparse.ArgumentTypeError(f"{text}: below {low}")
    if high is not None and number > high:
        raise argparse.ArgumentTypeError(f"{text}: above {high}")
    return number


def server_address(text):
    """The type of an argument that is the address of a server, without a password.

    A key in it would end up in logs and settings.
    """
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except ValueError:  # argparse would repeat the text
        raise argparse.ArgumentTypeError("not an address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise argparse.ArgumentTypeError("not an address such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(
            "an address without user, password and query; a key belongs in OPENAI_API_KEY"
        )
    return text


SEED = whole(0, 2**32 - 1)  # what numpy and vLLM take
TEMPLATE_HELP = 'arguments of the chat template, as JSON: {"enable_thinking": false}'
DTYPES = ("float32", "bfloat16", "float16")
