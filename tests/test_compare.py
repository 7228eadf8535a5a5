"""comparison/compare.sh on a small world: stopped, resumed, repeated, and with a run that fails."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from commands import ROOT, read_jsonl

SMALL_WORLD = "--corpus 2000 --instructions 200 --preferences 100 --prompts 60 "
SMALL_WORLD += "--validation 10 --test 20 --bench 10"
SMALL = {
    "WORLD_OPTIONS": SMALL_WORLD,
    "SEEDS": "0",
    "SFT_EPOCHS": "1",
    "RM_EPOCHS": "1",
    "ARMORM_OPTIONS": "--gate_size 8 --max_steps 5",
    "N": "4",
    "PROMPTS_PER_ITERATION": "12",
    "MAX_NEW_TOKENS": "48",
    "DPO_BATCH_SIZE": "4",
    "PER_DEVICE_BATCH_SIZE": "4",
}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("compare") / "runs"


def start(out, *names, script="compare.sh"):
    return subprocess.Popen(
        ["bash", f"comparison/{script}", *names],
        cwd=ROOT,
        env={**os.environ, **SMALL, "OUT": str(out)},
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def a_process_remains(out):
    """Whether a process has that directory in its environment."""
    for file in Path("/proc").glob("[0-9]*/environ"):
        # A process may end before its file is read.
        with contextlib.suppress(OSError):
            if str(out).encode() in file.read_bytes():
                return True
    return False


def nothing_is_left(out):
    """The last process takes a moment to end."""
    for _ in range(100):
        if not a_process_remains(out):
            return True
        time.sleep(0.1)
    return False


def test_it_goes_on_where_it_was_stopped(out):
    process = start(out, "dpo", "best_of_n")
    while not (out / "seed0/dpo/iter1/rewards.jsonl").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    mtimes = {path: path.stat().st_mtime_ns for path in out.glob("seed0/*/iter1/*.jsonl")}
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert nothing_is_left(out)
    assert not (out / "COMPARISON.md").exists()
    process = start(out, "dpo", "best_of_n")
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    assert mtimes == {path: path.stat().st_mtime_ns for path in mtimes}
    assert "All is up to date: " in (out / "seed0/base.log").read_text()
    table = [line for line in printed.splitlines() if line.startswith("| ")]
    names = [line.split(" | ")[0].strip("| ") for line in table]
    assert names[:2] == ["optimiser", "sft"]
    assert set(names[2:]) == {"dpo", "best_of_2", "best_of_4", "best_of_8", "best_of_16"}
    assert (out / "COMPARISON.md").read_text() in printed
    lines = (out / "CLAIMS.md").read_text().splitlines()
    claims = {line.split(" | ")[1]: line for line in lines if "| compare.sh " in line}
    assert claims["compare.sh best_of_n"].endswith("| holds |")
    assert "| not run |" in claims["compare.sh dpo concise"]
    assert len(read_jsonl(out / "seed0/dpo/eval/iter3/kl.jsonl")) == 30
    assert nothing_is_left(out)


def test_what_fails_is_named_and_the_rest_is_told(out):
    """What fails is a directory of another experiment. A finished run is not run again."""
    shutil.copytree(out / "seed0/dpo", out / "seed0/kto")
    process = start(out, "dpo", "kto")
    printed, errors = process.communicate()
    assert process.returncode == 1
    assert f"compare.sh: seed0/kto failed; the end of {out}/seed0/kto.log:\n" in errors
    reason = f"{out}/seed0/kto: iter1/policy was made with other settings; give another OUT:"
    assert reason in (out / "seed0/kto.log").read_text()
    assert "OPTIMISER=dpo, now kto" in errors
    assert "All is up to date: " in (out / "seed0/dpo.log").read_text()
    assert "| dpo | 1 | " in printed


@pytest.mark.parametrize("script", ["compare.sh", "tools.sh"])
def test_a_second_comparison_is_refused(tmp_path, script):
    """It would take the first one's Python away."""
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(tmp_path, "dpo", script=script)
        printed, errors = process.communicate()
    assert (process.returncode, printed) == (1, "")
    assert errors == f"{script}: {tmp_path}: another comparison is at work there\n"
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_comparison_that_is_killed_leaves_no_process_and_no_lock(tmp_path):
    process = start(tmp_path, "dpo")
    while not (tmp_path / "seed0/base/world").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert nothing_is_left(tmp_path)
    with open(tmp_path / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
