"""Outputs: what is ours is replaced, whole or not at all, and a kill loses neither version."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from commands import ROOT, ran, read_jsonl, run, write_jsonl
from common import model_outputs, outputs
from conftest import TRAINING

PATHS = {**os.environ, "PYTHONPATH": str(ROOT)}
# A program that kills itself right before a call that opens, renames, makes or removes a file; its
# second argument is the number of that call.
KILLED = """\
import os, signal, sys

folder, remaining = sys.argv[1], int(sys.argv[2])
calls = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.scandir", "os.listdir"}
calls |= {"os.chmod", "os.utime", "shutil.rmtree", "shutil.copyfile", "shutil.copytree"}
calls |= {"shutil.copystat", "shutil.copymode"}

def hook(event, arguments):
    global remaining
    if event in calls:
        remaining -= 1
        if not remaining:
            os.kill(os.getpid(), signal.SIGKILL)

"""
PUBLISH = (
    KILLED
    + """
from common import model_outputs

partial, path = folder + "/model.partial-abc", folder + "/model"
sys.addaudithook(hook)
if os.path.exists(partial) and not model_outputs.recover_model(partial, path):
    model_outputs.publish_model(partial, path)
"""
)
WRITE = (
    KILLED
    + """
from common import rows

sys.addaudithook(hook)
rows.write(folder + "/out.jsonl", ({"id": str(i), "made": "new"} for i in range(100)))
"""
)


def killed(program, folder, at):
    """Run a program that is killed before its call number `at`; False if it has fewer calls."""
    command = [sys.executable, "-c", program, folder, str(at)]
    done = subprocess.run(command, env=PATHS, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def model(path, content):
    """A model directory; the checkpoint in it makes it look unfinished."""
    path.mkdir()
    for name in ("config.json", "model.safetensors"):
        (path / name).write_text(content)
    (path / "checkpoint-2").mkdir()
    (path / "checkpoint-2/state").write_text(content)
    return path


def is_whole(path, content):
    files = [path / "config.json", path / "model.safetensors"]
    return path.is_dir() and all(file.read_text() == content for file in files)


def marker(names):
    """The content of the marker of a model of ours with these files."""
    return json.dumps({"script": "x", "files": names})


def test_a_model_is_published_or_not_whenever_the_process_is_killed(tmp_path):
    """The old or the new model is there, and the user's note; the command repeated mends all."""
    kills = 0
    for at in range(1, 200):
        folder = tmp_path / str(at)
        folder.mkdir()
        path = model(folder / "model", "old")
        (path / outputs.MARKER).write_text(marker(["config.json", "model.safetensors"]))
        (path / "note.txt").write_text("mine")
        (path / "gguf").mkdir()
        (path / "gguf/model.gguf").write_text("converted")
        partial = model(folder / "model.partial-abc", "new")
        if not killed(PUBLISH, str(folder), at):
            break
        kills += 1
        replaced = folder / "model.partial-replaced"
        if not is_whole(path, "old") and not is_whole(path, "new"):
            assert is_whole(replaced, "old")
            assert is_whole(partial, "new")
        assert any((place / "note.txt").exists() for place in (path, replaced, partial))
        assert not killed(PUBLISH, str(folder), 10**6)
        if partial.exists():
            # The new model had its name already: the next publishing removes what remains.
            assert not killed(PUBLISH, str(folder), 10**6)
        assert is_whole(path, "new")
        assert (path / "note.txt").read_text() == "mine"
        assert (path / "gguf/model.gguf").read_text() == "converted"
        shutil.rmtree(folder)
    assert kills >= 30
    assert is_whole(folder / "model", "new")
    assert {path.name for path in folder.iterdir()} == {"model"}


def test_another_command_finds_the_older_model_again(tmp_path):
    """A kill between the two renames, and then a command with other arguments."""
    model(tmp_path / "model.partial-replaced", "old")
    path = tmp_path / "model"
    assert model_outputs.recover_model(tmp_path / "model.partial-other", path) is False
    assert is_whole(path, "old")


def test_a_file_is_published_or_not_whenever_the_process_is_killed(tmp_path):
    kills = 0
    for at in range(1, 50):
        out = tmp_path / "out.jsonl"
        out.write_text("old\n")
        if not killed(WRITE, str(tmp_path), at):
            break
        kills += 1
        assert out.read_text() == "old\n" or len(read_jsonl(out)) == 100
    assert kills >= 4
    assert len(read_jsonl(out)) == 100
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_what_a_user_put_into_a_model_is_carried_into_the_new_one(tmp_path):
    """But no file of the older model, and no card of it.

    A model of an earlier version, without a marker, is treated alike.
    """
    files = ["config.json", "trainer_state.json", "model-00001-of-00002.safetensors", "README.md"]
    for name, marked in (("marked", True), ("of_before", False)):
        old = tmp_path / name
        new = tmp_path / f"{name}.partial-abc"
        old.mkdir()
        new.mkdir()
        for file in files:
            (old / file).write_text(f"tags: [{model_outputs.CARD_TAG}]")
        if marked:
            (old / outputs.MARKER).write_text(marker(files))
        (old / "note.txt").write_text("mine")
        for folder in ("gguf", "checkpoint-best"):
            (old / folder).mkdir()
            (old / folder / "model.gguf").write_text("converted")
        (new / "config.json").write_text("new")
        (new / "README.md").write_text("generated_from_trainer")
        model_outputs.publish_model(new, old)
        names = {path.name for path in old.iterdir()}
        of_user = {"note.txt", "gguf", "checkpoint-best"}
        assert names == {outputs.MARKER, "config.json", *of_user}
        (old / "README.md").write_text("my own")
        assert (old / "config.json").read_text() == "new"
        assert (old / "gguf/model.gguf").read_text() == "converted"
        new.mkdir()
        (new / "config.json").write_text("newer")
        model_outputs.publish_model(new, old)
        # The next time they are not taken for ours.
        assert (old / "note.txt").read_text() == "mine"
        assert (old / "README.md").read_text() == "my own"


ONE_STEP = ["--max_steps", 1]

# Names that are refused

INTERPOLATE = ["dpo/2_interpolate.py", "--models", "no/model", "no/other", "--output_dir"]
PAIRS = ["annotation/2_pairs.py", "--rewards_file"]


@pytest.fixture
def precious(tmp_path):
    """A directory in which `folder` holds a user's file and rows."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/thesis.tex").write_text("years of work")
    row = {
        "id": "a",
        "prompt": [{"role": "user", "content": "q"}],
        "responses": ["x", "y"],
        "rewards": [0.0, 1.0],
        "finish_reasons": ["stop", "stop"],
    }
    write_jsonl(tmp_path / "folder/in.jsonl", [row])
    return tmp_path


NOT_OURS = ["", " ", ".", "/", "~", "..", "folder", "folder/", "folder/thesis.tex"]


@pytest.mark.parametrize("name", NOT_OURS)
@pytest.mark.parametrize("command", [INTERPOLATE, PAIRS], ids=["a model", "a file"])
def test_what_is_not_ours_is_never_replaced(precious, name, command):
    output = os.path.expanduser(name)
    if name.startswith("folder"):
        output = f"{precious}/{name}"
    if command is PAIRS:
        if name == "folder/thesis.tex":
            pytest.skip("a file that is named is replaced by a file")
        command = [*PAIRS, precious / "folder/in.jsonl", "--output_file"]
    done = run(*command, output)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert " --output_" in done.stderr
    assert (precious / "folder/thesis.tex").read_text() == "years of work"
    assert {path.name for path in precious.rglob("*")} == {"folder", "thesis.tex", "in.jsonl"}
    assert (ROOT / ".git").exists()


def test_an_input_under_another_name_is_an_input(precious):
    """By a link, and by another spelling of its path."""
    file = precious / "folder/in.jsonl"
    (precious / "link.jsonl").symlink_to(file)
    before = file.read_bytes()
    for name in (precious / "link.jsonl", f"{precious}/folder/../folder/in.jsonl"):
        done = run(*PAIRS, file, "--output_file", name)
        assert done.returncode == 2
        assert done.stderr.endswith("an input of the same command, which would be overwritten\n")
    assert file.read_bytes() == before


@pytest.mark.parametrize("flag", ["--model_name_or_path", "--dataset_name"])
def test_a_training_does_not_replace_the_folder_of_what_it_reads(precious, flag):
    inputs = {"--model_name_or_path": "no/model", "--dataset_name": precious / "no.jsonl"}
    inputs[flag] = precious / "folder"
    flags = ["--output_dir", precious, "--bf16", False]
    for name, path in inputs.items():
        flags += [name, path]
    done = run("sft/2_finetune.py", *flags)
    assert done.returncode == 1
    assert done.stderr.startswith(f"--output_dir: {precious}: it holds {precious}/folder")


def test_a_link_to_a_file_is_written_through(precious):
    """The link stays, and the file to which it points is replaced."""
    (precious / "disk").mkdir()
    (precious / "out.jsonl").symlink_to(precious / "disk/out.jsonl")
    ran(*PAIRS, precious / "folder/in.jsonl", "--output_file", precious / "out.jsonl")
    assert (precious / "out.jsonl").is_symlink()
    assert len(read_jsonl(precious / "disk/out.jsonl")) == 1


def test_a_link_to_another_disk_is_written_through(precious, disk):
    """Partial output is written on the disk of the finished file."""
    (precious / "out.jsonl").symlink_to(disk / "out.jsonl")
    ran(*PAIRS, precious / "folder/in.jsonl", "--output_file", precious / "out.jsonl")
    assert (precious / "out.jsonl").is_symlink()
    assert len(read_jsonl(disk / "out.jsonl")) == 1


def test_a_training_whose_output_ends_with_a_slash_is_beside_it(base, world, tmp_path):
    """And a second time it replaces the first model, with what a user has put into it."""
    flags = ["--dataset_name", world / "corpus.jsonl", *TRAINING, "--max_steps", 1]
    for _ in range(2):
        ran("recipes/tiny/2_base_model.py", *flags, "--output_dir", f"{tmp_path}/made/")
        assert [path.name for path in tmp_path.iterdir()] == ["made"]
        (tmp_path / "made/note.txt").write_text("mine")
    assert (tmp_path / "made/note.txt").read_text() == "mine"
    assert (tmp_path / "made/model.safetensors").exists()


def test_a_file_of_an_input_model_is_not_overwritten(sft, precious):
    before = (sft / "config.json").read_bytes()
    command = ["generation/2_responses.py", "--model_name_or_path", sft]
    command += ["--prompts_file", precious / "no.jsonl"]
    for name in ("config.json", "model.safetensors"):
        done = run(*command, "--output_file", sft / name)
        assert done.returncode == 2
        assert f"a file of {sft}, an input of the same command" in done.stderr
    assert (sft / "config.json").read_bytes() == before


def test_what_only_looks_unfinished_stays(precious):
    """A user's note and folder stay; the partial output of a script goes."""
    (precious / "out.jsonl.partial-notes").write_text("mine")
    (precious / "out.jsonl.partial-backup").mkdir()
    (precious / "out.jsonl.partial-backup/thesis.tex").write_text("mine")
    (precious / "out.jsonl.partial-0123456789ab").write_text('{"id": "a"}\n')
    ran(*PAIRS, precious / "folder/in.jsonl", "--output_file", precious / "out.jsonl")
    names = {path.name for path in precious.iterdir()} - {"folder"}
    assert names == {"out.jsonl", "out.jsonl.partial-notes", "out.jsonl.partial-backup"}


def test_the_share_of_a_launcher_is_checked_under_its_own_name(precious):
    file = precious / "folder/in.jsonl"
    shard = shutil.copy(file, precious / "in.jsonl.0-of-2")
    environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    command = ["annotation/1d_verifier.py", "--responses_file", shard]
    command += ["--output_file", precious / "in.jsonl"]
    done = run(*command, "--method", "exact", "--pattern", "(.*)", env=environment)
    assert done.returncode == 2
    assert "an input of the same command" in done.stderr
    for rank, reason in (("5", "RANK=5: not one of 0 to 1"), ("x", "whole numbers are needed")):
        done = run(*command, env={**environment, "RANK": rank})
        assert done.returncode == 2
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) == 1


# Two at once


def test_the_same_command_at_once_is_refused(precious):
    """While another process holds the partial file; afterwards it is free."""
    out = precious / "out.jsonl"
    command = [*PAIRS, precious / "folder/in.jsonl", "--output_file", out]
    with outputs.open_partial(out, "new", keep=False):
        done = run(*command)
        assert done.returncode == 1
        assert done.stderr == f"{out}: another process is writing it\n"
    ran(*command)
    assert len(read_jsonl(out)) == 1


BASE_MODEL = "recipes/tiny/2_base_model.py"


def base_model_flags(world, out):
    return ["--dataset_name", world / "corpus.jsonl", "--output_dir", out, *TRAINING, *ONE_STEP]


def partial_base_model(flags, out):
    """The directory in which the training with these flags keeps its partial output."""
    from common import rows

    name = rows.fingerprint(["2_base_model.py", *map(str, flags)], [out])
    return out.with_name(f"{out.name}.partial-{name}")


def test_the_same_training_at_once_is_refused(base, world, tmp_path):
    out = tmp_path / "base"
    flags = base_model_flags(world, out)
    with model_outputs.lock_model(str(partial_base_model(flags, out)), out):
        done = run(BASE_MODEL, *flags)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == f"{out}: another process is writing it"
    ran(BASE_MODEL, *flags)
    assert (out / outputs.MARKER).exists()
    assert not (out / outputs.LOCK).exists()


def test_a_finished_training_without_its_name_is_not_done_again(base, world, tmp_path):
    """As after a kill: the model is complete, but under its partial name."""
    out = tmp_path / "base"
    flags = base_model_flags(world, out)
    partial = partial_base_model(flags, out)
    shutil.copytree(base, partial)
    done = ran(BASE_MODEL, *flags)
    assert f"{out}: was finished already" in done.stdout
    assert not partial.exists()
    assert (out / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


# A full disk


def test_a_report_survives_a_full_disk(tmp_path, disk):
    """A partial file does not block it: once there is room, it is written."""
    from test_report import make

    make(tmp_path)
    command = ["eval/3_report.py", *make_flags(tmp_path), "--output_dir", disk / "out"]
    done = run(*command)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list((disk / "out").glob("*.partial-*"))
    subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
    ran(*command)
    assert json.loads((disk / "out/results.json").read_text())["best"]


def make_flags(run_of):
    names = ("sft", "iter1/policy", "iter2/policy")
    answers = [run_of / "eval" / name.split("/")[0] / "kl.jsonl" for name in names]
    trained = [run_of / name for name in names]
    flags = ["--answers", *answers, "--training", *trained]
    return [*flags, "--settings", run_of / "settings", "--log_dir", run_of / "log"]


# What is not finite


def finetune(base, world, out):
    command = ["sft/2_finetune.py", "--model_name_or_path", base, "--max_length", 256]
    command += ["--dataset_name", world / "instructions.jsonl"]
    return [*command, "--output_dir", out, *TRAINING]


def test_a_training_whose_loss_is_not_finite_publishes_nothing(base, world, tmp_path):
    """A learning rate that no model survives."""
    out = tmp_path / "sft"
    flags = ["--max_steps", 20, "--learning_rate", 1e30, "--max_grad_norm", 0]
    done = run(*finetune(base, world, out), *flags)
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert "nothing is published" in error
    assert error.startswith(f"{out}: ")
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_weights_that_are_not_finite_are_not_published(base, world, tmp_path, monkeypatch):
    """Even if every loss that was logged is finite: the last step has spoilt the weights."""
    flags = [*ONE_STEP, "--warmup_steps", 0, "--learning_rate", 3e38, "--weight_decay", 9]
    done = run(*finetune(base, world, tmp_path / "sft"), *flags)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("nothing is published")
    assert not (tmp_path / "sft").exists()


def test_a_row_that_is_not_finite_is_not_written(tmp_path):
    from common import rows

    with pytest.raises(SystemExit, match=r"out.jsonl: id 'a': kl: not written"):
        rows.write(tmp_path / "out.jsonl", [{"id": "a", "kl": [math.nan]}])
    assert not (tmp_path / "out.jsonl").exists()
    file = tmp_path / "in.jsonl"
    file.write_text('{"id": "a", "note": NaN}\n')
    with pytest.raises(SystemExit, match=r"in.jsonl:1: note: a number is not finite"):
        list(rows.read(file, "rows"))
    # In public data NaN is a missing value.
    assert [row["note"] for row in rows.read(file)] == [None]


# The launcher


def test_nothing_outlives_a_launcher_that_was_killed(base, world, tmp_path):
    """Two processes of accelerate end with it, though it cannot tell them to."""
    config = ROOT / "recipes/accelerate/ddp.yaml"
    command = ["-m", "accelerate.commands.launch", "--config_file", config, "--num_processes", 2]
    command += ["--main_process_port", 0, *finetune(base, world, tmp_path / "sft"), "--use_cpu"]
    command += [True, "--max_length", 128, "--per_device_train_batch_size", 1]
    command += ["--num_train_epochs", 99]
    log = tmp_path / "log"
    with open(log, "w") as file:
        launcher = subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=ROOT, stdout=file, stderr=file
        )
    workers = []
    # until both train
    while len(workers) < 2:
        assert launcher.poll() is None, log.read_text()
        time.sleep(0.2)
        if "'loss'" in log.read_text():
            workers = children(launcher.pid)
    launcher.kill()
    launcher.wait()
    for _ in range(100):
        if not any(os.path.exists(f"/proc/{pid}") for pid in workers):
            return
        time.sleep(0.1)
    pytest.fail("a worker goes on")


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return file.read().split()
    except OSError:
        return []
