"""What the tests share: run a script as a user does, write its input, read its output."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command, **options):
    """A command in the repository's root, its first word a script's path or an option of the interpreter."""
    command = [sys.executable, *map(str, command)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)


def ran(*command, **options):
    """`run` for a command that has to succeed; a failure shows the script's own words."""
    done = run(*command, **options)
    assert done.returncode == 0, done.stderr or done.stdout
    return done


def write_jsonl(path, rows):
    """A file of rows; one that is a text or bytes already is written as it is."""
    texts = [row if isinstance(row, str | bytes) else json.dumps(row) for row in rows]
    lines = [text.encode() if isinstance(text, str) else text for text in texts]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def read_jsonl(path):
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]
