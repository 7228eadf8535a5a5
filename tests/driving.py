"""What the tests of the driver share: a recipe of minutes, a driver, what it printed and left."""

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
WORLD_OPTIONS="--corpus 4000 --instructions 400 --preferences 100 --prompts 60 --validation 10 --test 20 --bench 10"
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


def recipe(folder, text=""):
    """A short loop below that folder: of several values of a variable the first one counts."""
    file = folder / "short.sh"
    file.write_text(
        text + SHORT.replace("@OUT@", f"{folder}/run") + (ROOT / "recipes/tiny.sh").read_text()
    )
    return file


def start(recipe, **variables):
    """The driver in a session of its own, as in a terminal; what it prints goes to a file beside the recipe."""
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


def drive(recipe, **variables):
    """(exit status, what was printed) of the driver."""
    status = start(recipe, **variables).wait()
    return status, recipe.with_suffix(".log").read_text()


def drive_warm(recipe, **variables):
    """The same with the Python whose libraries are imported already, as compare.sh has it: for what ends by itself."""
    return drive(recipe, VIRTUAL_ENV=str(warm_python().parents[1]), **variables)


def steps(printed):
    """Names of the steps that were run."""
    return re.findall(r"^\[\d+ of \d+\] \d\d:\d\d:\d\d (\S+): ", printed, re.MULTILINE)


def reasons(printed):
    """{step: why it was run}"""
    return dict(re.findall(r"^\[\d+ of \d+\] \d\d:\d\d:\d\d (\S+): (.*)$", printed, re.MULTILINE))


def commands(printed):
    """{step: the words of its command} of a dry run; of several shards the command that joins them."""
    found = {}
    for line in printed.splitlines():
        if shown := re.search(r"  # (\S+) \((.*)\)$", line):
            found[shown[1]] = shlex.split(line[: shown.start()])
    return found


def shards(printed, step):
    """The commands of the shards of a step in a dry run."""
    lines = [
        line for line in printed.splitlines() if re.search(rf"  # {step} \(.*\), shard \d+$", line)
    ]
    return [shlex.split(line, comments=True) for line in lines]


def processes(recipe):
    """{process: the words of its command} of all that a driver with that recipe has begun."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"RECIPE={recipe}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:  # it has just ended
            continue
    return found


def nothing_is_left(recipe):
    """The kernel takes a moment to end the children of a killed process."""
    for _ in range(100):
        if not processes(recipe):
            return True
        time.sleep(0.1)
    return False


def files(out):
    """{file: its time} of every file but the logs, the records and the lock."""
    kept = (file for file in out.rglob("*") if file.is_file() and out / "log" not in file.parents)
    kept = (
        file
        for file in kept
        if file.name[0] != "." and not file.name.endswith((".made.json", ".making.json"))
    )
    return {file: file.stat().st_mtime_ns for file in kept}
