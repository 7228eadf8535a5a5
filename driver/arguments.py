"""Parse the command of every step with its script's own parser, and run none: a wrong flag is found before step 1.

A project's script runs up to its parser. One of the user's own might not stop there: it is asked for its --help, which
has to name the flags.

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


class Refused(
    BaseException
):  # not an Exception: a script may say what its libraries refuse in its own words
    """What the parser of a script says of its command."""


def stop_after_parsing(parse_known_args):
    """argparse's parse_known_args, which ends the script when all its words are known."""

    def parse(parser, args=None, namespace=None):
        _, unknown = parse_known_args(parser, args, namespace)
        if unknown:
            raise Refused(f"unrecognized arguments: {' '.join(unknown)}")
        raise SystemExit(0)

    return parse


def refuse(parser, message):
    raise Refused(message)


def leave(parser, status=0, message=None):
    if status:
        raise Refused((message or "").strip().removeprefix(f"{parser.prog}: error: "))
    raise SystemExit(0)


def check_own(script, words):
    """None, or what a script of the user's own lacks."""
    told = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    if told.returncode:
        return f"--help: {(told.stderr.strip().splitlines() or ['it failed'])[-1]}"
    named = set(re.findall(r"--[\w-]+", told.stdout))
    missing = [word for word in words if word.startswith("--") and word not in named]
    return f"its --help does not name {', '.join(missing)}" if missing else None


def forget_modules(names, folder):
    """Those of that folder: modules beside another script may have the same names."""
    for name in names:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if os.path.dirname(file) == folder:
            del sys.modules[name]


def check(script, words):
    """None, or what the script's parser says."""
    before = set(sys.modules)
    sys.argv = [script, *words]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return None if end.code in (0, None) else str(end.code)
    except Refused as refused:
        return str(refused)
    finally:
        del sys.path[0]
        forget_modules(set(sys.modules) - before, os.path.dirname(os.path.abspath(script)))
    return None


def read_commands():
    """Yields (first file, command) of every step."""
    words = iter(sys.stdin.buffer.read().decode().split("\0")[:-1])
    for count in words:
        files = [next(words) for _ in range(int(count))]
        yield files[0], [next(words) for _ in range(int(next(words)))]


def main():
    commands = {}  # of those that differ in paths alone the first
    for file, command in read_commands():
        commands.setdefault(
            tuple(word for word in command if "/" not in word or word.endswith(".py")),
            (file, command),
        )
    argparse.ArgumentParser.parse_known_args = stop_after_parsing(
        argparse.ArgumentParser.parse_known_args
    )
    argparse.ArgumentParser.error = refuse
    argparse.ArgumentParser.exit = leave
    wrong = False
    for file, command in commands.values():
        place = next(i for i, word in enumerate(command) if word.endswith(".py"))
        script, words = command[place], command[place + 1 :]
        if reason := (check if is_ours(script) else check_own)(script, words):
            print(f"run_loop.sh: {file}: {script}: {reason}", file=sys.stderr)
            wrong = True
    sys.exit(wrong)


if __name__ == "__main__":
    main()
