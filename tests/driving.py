"""What the tests of the driver share: a recipe of minutes, the driver, its output and files."""

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

from commands import ROOT, warm_python

SHORT = """\
OUT=@OUT@
WORLD_OPTIONS="@WORLD@"
MEASURE="reward_model preference_model armorm llm_judge"
EVALS=none
SFT_BATCH_SIZE=2
ITERATIONS=2
PROMPTS_PER_ITERATION=17
N=4
MAX_NEW_TOKENS=48
DPO_BATCH_SIZE=8
PER_DEVICE_BATCH_SIZE=8
GPUS=1
"""


WORLD = "--corpus 4000 --instructions 400 --preferences 100 --prompts 60 "
WORLD += "--validation 10 --test 20 --bench 10"


def recipe(folder, text=""):
    """A short loop below that folder; where a variable is set twice, the first value counts."""
    short = SHORT.replace("@OUT@", f"{folder}/run").replace("@WORLD@", WORLD)
    file = folder / "short.sh"
    file.write_text(text + short + (ROOT / "recipes/tiny.sh").read_text())
    return file


def start(recipe, **variables):
    """The driver in a session of its own, as in a terminal; it prints into a file by the recipe."""
    environment = {**os.environ, "RECIPE": str(recipe), **variables}
    with open(recipe.with_suffix(".log"), "w") as log:
        return subprocess.Popen(
            ["bash", "run_loop.sh"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def start_warm(recipe, **variables):
    """The driver with the Python whose libraries are imported already, as compare.sh does."""
    return start(recipe, VIRTUAL_ENV=str(warm_python().parents[1]), **variables)


def drive(recipe, **variables):
    """(exit status, what was printed) of the driver."""
    status = start(recipe, **variables).wait()
    return status, recipe.with_suffix(".log").read_text()


def drive_warm(recipe, **variables):
    """The same with the Python whose libraries are imported already, as compare.sh does."""
    status = start_warm(recipe, **variables).wait()
    return status, recipe.with_suffix(".log").read_text()


def steps(printed):
    """The names of the steps that were run."""
    return re.findall(r"^\[\d+ of \d+\] \d\d:\d\d:\d\d (\S+): ", printed, re.MULTILINE)


def reasons(printed):
    """{step: the reason why it was run}"""
    return dict(re.findall(r"^\[\d+ of \d+\] \d\d:\d\d:\d\d (\S+): (.*)$", printed, re.MULTILINE))


def commands(printed):
    """{step: the words of its command} of a dry run; for shards the command that joins them."""
    words = {}
    for line in printed.splitlines():
        comment = re.search(r"  # (\S+) \((.*)\)$", line)
        if comment:
            words[comment[1]] = shlex.split(line[: comment.start()])
    return words


def shards(printed, step):
    """The commands of the shards of a step in a dry run."""
    comment = re.compile(rf"  # {step} \(.*\), shard \d+$")
    lines = [line for line in printed.splitlines() if comment.search(line)]
    return [shlex.split(line, comments=True) for line in lines]


def processes(recipe):
    """{process id: the words of its command} of all that a driver with that recipe has started."""
    words = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            if f"RECIPE={recipe}".encode() in environment:
                command = (folder / "cmdline").read_bytes().decode()
                words[int(folder.name)] = command.split("\0")
        except OSError:
            # It has just ended.
            continue
    return words


def nothing_is_left(recipe):
    """Whether no process of a driver remains; the kernel needs a moment to end them."""
    for _ in range(100):
        if not processes(recipe):
            return True
        time.sleep(0.1)
    return False


def files(out):
    """{file: its mtime} of every file but the logs, the records and the lock."""
    times = {}
    for file in out.rglob("*"):
        is_log = out / "log" in file.parents
        is_record = file.name.endswith((".made.json", ".making.json"))
        is_hidden = file.name.startswith(".")
        if file.is_file() and not (is_log or is_record or is_hidden):
            times[file] = file.stat().st_mtime_ns
    return times
