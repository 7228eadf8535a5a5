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
    """The Python of tests/warm.py, which imports the libraries once for all commands."""
    home = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, home)
    server = subprocess.Popen([sys.executable, "tests/warm.py", home], cwd=ROOT)
    atexit.register(server.terminate)
    while not (home / "bin/python").exists():
        assert server.poll() is None
        time.sleep(0.1)
    return home / "bin/python"


def run(*command, **options):
    """Run a script in the repository's root; its path, or an option of Python, is the first word.

    With options, such as an environment, the script gets a Python of its own: libraries read some
    variables when they are imported.
    """
    command = [sys.executable if options else warm_python(), *map(str, command)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)


def ran(*command, **options):
    """`run` for a command that must succeed; a failure shows what the script printed."""
    done = run(*command, **options)
    assert done.returncode == 0, done.stderr or done.stdout
    return done


def write_jsonl(path, rows):
    """Write a file of rows; a row that is text or bytes already is written as it is."""
    lines = []
    for row in rows:
        if not isinstance(row, str | bytes):
            row = json.dumps(row)
        if isinstance(row, str):
            row = row.encode()
        lines.append(row + b"\n")
    path.write_bytes(b"".join(lines))
    return path


def read_jsonl(path):
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]
