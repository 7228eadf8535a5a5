"""tests/warm.py: its forks run a script as Python does, and end with their caller."""

import os
import signal
import subprocess
import sys
import time

import pytest

from commands import ROOT

TELL = """\
import os, sys
print(os.getcwd(), sys.argv[1:], os.environ.get("TOLD"), sys.path[0], end=" ")
print("torch" in sys.modules, sys.stdin.read())
print("a line", file=sys.stderr)
raise {0}
"""
WAIT = """\
import pathlib, signal, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: print("asked to stop", flush=True) or sys.exit(143))
pathlib.Path(sys.argv[1]).write_text("")
time.sleep(60)
"""


def test_a_python_that_is_none_of_its_own_stays(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    command = [sys.executable, "tests/warm.py", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{tmp_path}/bin/python: not an earlier server's")
    assert (tmp_path / "bin/python").is_symlink()


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    home = tmp_path_factory.mktemp("warm")
    server = subprocess.Popen([sys.executable, "tests/warm.py", home], cwd=ROOT)
    while not (home / "bin/python").exists():
        assert server.poll() is None
        time.sleep(0.1)
    yield home / "bin/python"
    lines = (home / "bin/python").read_text().splitlines()
    connecting = next(line for line in lines if "connect" in line)
    address = connecting.split("'")[1]
    assert os.path.exists(address)
    server.terminate()
    assert server.wait() == 143
    assert not os.path.exists(os.path.dirname(address))


@pytest.mark.parametrize(
    "raised, status, error",
    [
        ("SystemExit", 0, ""),
        ("SystemExit(7)", 7, ""),
        ("SystemExit('wrong')", 1, "wrong\n"),
        ("ValueError('broken')", 1, "ValueError: broken\n"),
    ],
)
def test_a_script_is_run_with_all_that_its_caller_has(tmp_path, warm, raised, status, error):
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts/tell.py"
    script.write_text(TELL.format(raised))
    options = {
        "cwd": tmp_path,
        "env": {"TOLD": "yes"},
        "input": "typed",
        "capture_output": True,
        "text": True,
    }
    done = subprocess.run([warm, "scripts/tell.py", "--flag", "two words"], **options)
    assert done.stdout == f"{tmp_path} ['--flag', 'two words'] yes {tmp_path}/scripts True typed\n"
    assert done.returncode == status
    assert done.stderr.startswith("a line\n")
    assert done.stderr.endswith(error)
    cold = subprocess.run([sys.executable, "scripts/tell.py", "--flag", "two words"], **options)
    assert (cold.returncode, cold.stdout) == (status, done.stdout.replace("True", "False"))


def test_what_is_no_script_goes_to_python(warm):
    command = [warm, "-c", "import sys; print('torch' in sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "False\n")


@pytest.mark.parametrize(
    "flags, sent, status, output",
    [
        ([], signal.SIGTERM, -signal.SIGTERM, ""),
        (["deaf"], signal.SIGTERM, 143, "asked to stop\n"),
        ([], signal.SIGKILL, -signal.SIGKILL, ""),
    ],
)
def test_a_script_gets_its_callers_signals_and_dies_with_it(
    tmp_path, warm, flags, sent, status, output
):
    (tmp_path / "wait.py").write_text(WAIT)
    words = [warm, tmp_path / "wait.py", tmp_path / "begun", *flags]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(sent)
    # The output ends with the script.
    printed, _ = process.communicate(timeout=20)
    assert (process.returncode, printed) == (status, output)
