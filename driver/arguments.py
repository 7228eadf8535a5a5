"""Parse each step's command with its script's own parser: a wrong flag is found before step 1.

No step runs. A project's script runs up to its parser. A script of the user's own might not stop
there: its --help has to name the flags.

Reads:  the steps on standard input, as driver/records.py
Writes: a line on standard error for each command that its script refuses; the exit status is then 1

    python driver/arguments.py < steps
"""

import argparse
import contextlib
import io
import os
import re
import runpy
import subprocess
import sys

from contents import is_ours
from listed_steps import read_commands, script_position


# Not an Exception: a script may catch those, to say in its own words what its libraries refuse.
class Refused(BaseException):
    """What the parser of a script says of its command."""


def stop_after_parsing(parse_known_args):
    """argparse's parse_known_args, which ends the script when it knows all words."""

    def parse(parser, args=None, namespace=None):
        _, unknown = parse_known_args(parser, args, namespace)
        if unknown:
            raise Refused(f"unrecognized arguments: {' '.join(unknown)}")
        raise SystemExit(0)

    return parse


def refuse(parser, message):
    """In place of argparse's error."""
    raise Refused(message)


def leave(parser, status=0, message=None):
    """In place of argparse's exit."""
    if status:
        raise Refused((message or "").strip().removeprefix(f"{parser.prog}: error: "))
    raise SystemExit(0)


def refusal_of_ours(script, words):
    """What the parser of a project's script says of its arguments; None if it takes them."""
    folder = os.path.dirname(os.path.abspath(script))
    modules_before = set(sys.modules)
    sys.argv = [script, *words]
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return None if end.code in (0, None) else str(end.code)
    except Refused as refused:
        return str(refused)
    finally:
        del sys.path[0]
        forget_modules(set(sys.modules) - modules_before, folder)
    return None


def forget_modules(names, folder):
    """Drop the modules of a folder: those beside another script may have the same names."""
    for name in names:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if os.path.dirname(file) == folder:
            del sys.modules[name]


def refusal_of_users(script, words):
    """What a script of the user's own lacks, by its --help; None if it lacks nothing."""
    help_run = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    if help_run.returncode:
        lines = help_run.stderr.strip().splitlines() or ["it failed"]
        return f"--help: {lines[-1]}"
    known = set(re.findall(r"--[\w-]+", help_run.stdout))
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    missing = [flag for flag in flags if flag not in known]
    if missing:
        return f"its --help does not name {', '.join(missing)}"
    return None


def different_commands():
    """(first file, command) of the steps; of commands that differ in paths alone the first."""
    commands = {}
    for files, command in read_commands():
        key = tuple(word for word in command if "/" not in word or word.endswith(".py"))
        commands.setdefault(key, (files[0], command))
    return commands.values()


def main():
    commands = different_commands()
    argparse.ArgumentParser.parse_known_args = stop_after_parsing(
        argparse.ArgumentParser.parse_known_args
    )
    argparse.ArgumentParser.error = refuse
    argparse.ArgumentParser.exit = leave
    status = 0
    for file, command in commands:
        position = script_position(command)
        script = command[position]
        words = command[position + 1 :]
        refusal = refusal_of_ours if is_ours(script) else refusal_of_users
        reason = refusal(script, words)
        if reason:
            print(f"run_loop.sh: {file}: {script}: {reason}", file=sys.stderr)
            status = 1
    sys.exit(status)


if __name__ == "__main__":
    main()
