"""Command lines of the scripts that do not train: the docstring is the manual, a wrong argument ends in one line.

An argument that is a number says its range; nan and inf are none. An output is compared with every input: a command
that would overwrite what it reads, or delete what is not ours, ends before anything is read.
"""

import argparse
import math
import os
import urllib.parse
from pathlib import Path

from common import outputs


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that knows which arguments are outputs."""

    def __init__(self, manual):
        super().__init__(description=manual, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.outputs = {}  # {name of the argument: (kind, names of files, suffixes)}

    def add_output(self, flag, kind="file", files=(), suffixes=(), **options):
        """An argument that names what is written; kind as in outputs.problem.

        files: what is written into a folder. suffixes: of what is written beside a file, such as .md in its place.
        """
        action = self.add_argument(flag, **options)
        self.outputs[action.dest] = kind, files, suffixes

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")

    def parse_args(self, args=None, namespace=None):
        parsed = super().parse_args(args, namespace)
        self.check_paths(parsed)
        return parsed

    def check_paths(self, parsed):
        """An input is no empty name, an output is no input."""
        inputs = []
        for name, value in vars(parsed).items():
            if name not in self.outputs:
                inputs += [
                    path
                    for path in listed(value)
                    if isinstance(path, str | Path) and os.path.exists(path)
                ]
                if "" in listed(value) and name.endswith(
                    ("file", "files", "path", "datasets", "models", "directory")
                ):
                    self.error(f"--{name}: empty (a variable that is not set?)")
        written = {}  # {path: the argument that names it}
        for name, (kind, files, suffixes) in self.outputs.items():
            for output in listed(getattr(parsed, name)):
                self.check_output(name, output, kind, inputs, written)
                for file in files:
                    self.check_output(name, Path(output, file), "file", inputs, written)
                for suffix in suffixes:
                    beside = (
                        Path(output).with_suffix(suffix)
                        if suffix.count(".") == 1
                        else Path(f"{output}{suffix}")
                    )
                    self.check_output(f"{name} (beside it)", beside, "file", inputs, written)

    def check_output(self, name, output, kind, inputs, written):
        if reason := outputs.problem(output, kind, inputs):
            self.error(f"--{name}: {reason}")
        if (path := os.path.realpath(output)) in written:
            self.error(f"--{name}: {output}: the same as --{written[path]}")
        written[path] = name


def listed(value):
    """The values of an argument, whether it takes one, several or none."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def whole(low=None, high=2**31 - 1):
    """The type of an argument that is a whole number from low to high."""

    def parse(text):
        return in_range(int(text), text, low, high)

    parse.__name__ = "whole number"  # argparse says: invalid whole number value
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


SEED = whole(0, 2**32 - 1)  # what numpy and vLLM take
TEMPLATE_HELP = 'arguments of the chat template, as JSON: {"enable_thinking": false}'
DTYPES = ("float32", "bfloat16", "float16")


def server_address(text):
    """The type of an argument that is the address of a server; a key in it would end up in logs and settings."""
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
