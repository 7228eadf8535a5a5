"""What the tests share: run a script as a user does, write its input, read its output."""

import atexit
import functools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def warm_python():
    """The Python of tests/warm.py, whose libraries are imported once for all commands of these tests."""
    home = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, home)
    server = subprocess.Popen([sys.executable, "tests/warm.py", home], cwd=ROOT)
    atexit.register(server.terminate)
    while not (home / "bin/python").exists():
        assert server.poll() is None
        time.sleep(0.1)
    return home / "bin/python"


def run(*command, **options):
    """A command in the repository's root, its first word a script's path or an option of the interpreter.

    With options, an environment say, it gets a Python of its own: libraries read some of it when they are imported.
    """
    command = [sys.executable if options else warm_python(), *map(str, command)]
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
