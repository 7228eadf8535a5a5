"""What stands under an output's name: it is replaced if it is ours, whole or not at all, and a kill loses neither."""

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
# Ends itself, as by SIGKILL, right before the given one of its calls that open, rename, make or remove something there.
KILLED = """\
import os, signal, sys

folder, left = sys.argv[1], int(sys.argv[2])
calls = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.scandir", "os.listdir", "os.chmod", "os.utime",
         "shutil.rmtree", "shutil.copyfile", "shutil.copytree", "shutil.copystat", "shutil.copymode"}

def hook(event, arguments):
    global left
    if event in calls:
        left -= 1
        if not left:
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
    """Run a program that ends before its call number `at`; whether it was killed, or had fewer."""
    command = [sys.executable, "-c", program, folder, str(at)]
    done = subprocess.run(command, env=PATHS, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def model(path, made):
    """A model directory of ours, told by its marker, with a checkpoint as an unfinished one has."""
    path.mkdir()
    for name in ("config.json", "model.safetensors"):
        (path / name).write_text(made)
    (path / "checkpoint-2").mkdir()
    (path / "checkpoint-2/state").write_text(made)
    return path


def is_whole(path, made):
    return path.is_dir() and all(
        (path / name).read_text() == made for name in ("config.json", "model.safetensors")
    )


def test_a_model_is_published_or_not_whenever_the_process_is_killed(tmp_path):
    """Old or new, never neither; the user's note is never lost; given again, the command puts all right."""
    kills = 0
    for at in range(1, 200):
        folder = tmp_path / str(at)
        folder.mkdir()
        old = model(folder / "model", "old")
        (old / outputs.MARKER).write_text(
            json.dumps({"script": "x", "files": ["config.json", "model.safetensors"]})
        )
        (old / "note.txt").write_text("mine")
        (old / "gguf").mkdir()
        (old / "gguf/model.gguf").write_text("converted")
        new = model(folder / "model.partial-abc", "new")
        if not killed(PUBLISH, str(folder), at):
            break
        kills += 1
        aside = folder / "model.partial-replaced"
        assert (
            is_whole(old, "old")
            or is_whole(old, "new")
            or (is_whole(aside, "old") and is_whole(new, "new"))
        )
        assert any((place / "note.txt").exists() for place in (old, aside, new))
        assert not killed(PUBLISH, str(folder), 10**6)
        if (
            folder / "model.partial-abc"
        ).exists():  # it had the name already: what is left goes with the next model
            assert not killed(PUBLISH, str(folder), 10**6)
        assert is_whole(old, "new") and (old / "note.txt").read_text() == "mine"
        assert (old / "gguf/model.gguf").read_text() == "converted"
        shutil.rmtree(folder)
    assert kills >= 30 and is_whole(folder / "model", "new")
    assert {path.name for path in folder.iterdir()} == {"model"}


def test_another_command_finds_the_older_model_again(tmp_path):
    """A kill between the two renames, and then a command with other arguments."""
    model(tmp_path / "model.partial-replaced", "old")
    assert (
        model_outputs.recover_model(tmp_path / "model.partial-other", tmp_path / "model") is False
    )
    assert is_whole(tmp_path / "model", "old")


def test_a_file_is_published_or_not_whenever_the_process_is_killed(tmp_path):
    kills = 0
    for at in range(1, 50):
        out = tmp_path / "out.jsonl"
        out.write_text("old\n")
        if not killed(WRITE, str(tmp_path), at):
            break
        kills += 1
        assert out.read_text() == "old\n" or len(read_jsonl(out)) == 100
    assert (
        kills >= 4
        and len(read_jsonl(out)) == 100
        and [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    )


def test_what_a_user_put_into_a_model_is_carried_into_the_new_one(tmp_path):
    """Also from a model of before, without a marker; but no file of the older model, and no card that tells of it."""
    for name, marked in (("marked", True), ("of_before", False)):
        old, new = tmp_path / name, tmp_path / f"{name}.partial-abc"
        for path in (old, new):
            path.mkdir()
        for file in (
            "config.json",
            "trainer_state.json",
            "model-00001-of-00002.safetensors",
            "README.md",
        ):
            (old / file).write_text(f"tags: [{model_outputs.CARD_TAG}]")
        if marked:
            files = [path.name for path in old.iterdir()]
            (old / outputs.MARKER).write_text(json.dumps({"script": "x", "files": files}))
        (old / "note.txt").write_text("mine")
        for folder in ("gguf", "checkpoint-best"):
            (old / folder).mkdir()
            (old / folder / "model.gguf").write_text("converted")
        (new / "config.json").write_text("new")
        (new / "README.md").write_text("generated_from_trainer")
        model_outputs.publish_model(new, old)
        kept = {"note.txt", "gguf", "checkpoint-best"}
        assert {path.name for path in old.iterdir()} == {outputs.MARKER, "config.json", *kept}
        (old / "README.md").write_text("my own")
        assert (old / "config.json").read_text() == "new" and (
            old / "gguf/model.gguf"
        ).read_text() == "converted"
        new.mkdir()
        (new / "config.json").write_text("newer")
        model_outputs.publish_model(new, old)
        assert (old / "note.txt").read_text() == "mine", "it is not taken for ours the next time"
        assert (old / "README.md").read_text() == "my own"


# Names that are refused

INTERPOLATE = ["dpo/2_interpolate.py", "--models", "no/model", "no/other", "--output_dir"]
PAIRS = ["annotation/2_pairs.py", "--rewards_file"]


@pytest.fixture
def precious(tmp_path):
    """A folder of a user's, with rows below it."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/thesis.tex").write_text("years of work")
    row = {
        "id": "a",
        "prompt": [{"role": "user", "content": "q"}],
        "responses": ["x", "y"],
        "rewards": [0.0, 1.0],
    }
    write_jsonl(tmp_path / "folder/in.jsonl", [row | {"finish_reasons": ["stop", "stop"]}])
    return tmp_path


@pytest.mark.parametrize(
    "name", ["", " ", ".", "/", "~", "..", "folder", "folder/", "folder/thesis.tex"]
)
@pytest.mark.parametrize("command", [INTERPOLATE, PAIRS], ids=["a model", "a file"])
def test_what_is_not_ours_is_never_replaced(precious, name, command):
    place = {"~": os.path.expanduser("~"), "folder": precious / "folder", "folder/": f"{precious}/folder/",
             "folder/thesis.tex": precious / "folder/thesis.tex"}.get(name, name)  # fmt: skip
    if command is PAIRS:
        if name == "folder/thesis.tex":
            pytest.skip("a file that is named is replaced by a file")
        command = [*PAIRS, precious / "folder/in.jsonl", "--output_file"]
    done = run(*command, place)
    assert (
        done.returncode == 2 and len(done.stderr.splitlines()) == 1 and " --output_" in done.stderr
    )
    assert (precious / "folder/thesis.tex").read_text() == "years of work"
    assert {path.name for path in precious.rglob("*")} == {"folder", "thesis.tex", "in.jsonl"}
    assert (ROOT / ".git").exists()


def test_an_input_under_another_name_is_an_input(precious):
    """By a link, and by another way to write its path."""
    file = precious / "folder/in.jsonl"
    (precious / "link.jsonl").symlink_to(file)
    before = file.read_bytes()
    for name in (precious / "link.jsonl", f"{precious}/folder/../folder/in.jsonl"):
        done = run(*PAIRS, file, "--output_file", name)
        assert done.returncode == 2 and done.stderr.endswith(
            "an input of the same command, which would be overwritten\n"
        )
    assert file.read_bytes() == before


@pytest.mark.parametrize("flag", ["--model_name_or_path", "--dataset_name"])
def test_a_training_does_not_replace_the_folder_of_what_it_reads(precious, flag):
    given = {
        "--model_name_or_path": "no/model",
        "--dataset_name": precious / "no.jsonl",
        flag: precious / "folder",
    }
    words = [word for pair in given.items() for word in pair]
    done = run("sft/2_finetune.py", *words, "--output_dir", precious, "--bf16", False)
    assert done.returncode == 1 and done.stderr.startswith(
        f"--output_dir: {precious}: it holds {precious}/folder"
    )


def test_a_link_to_a_file_is_written_through(precious):
    """The link stays, and what it points to is replaced."""
    (precious / "disk").mkdir()
    (precious / "out.jsonl").symlink_to(precious / "disk/out.jsonl")
    ran(*PAIRS, precious / "folder/in.jsonl", "--output_file", precious / "out.jsonl")
    assert (precious / "out.jsonl").is_symlink() and len(
        read_jsonl(precious / "disk/out.jsonl")
    ) == 1


def test_a_link_to_another_disk_is_written_through(precious, disk):
    """Unfinished work stands where the finished file will."""
    (precious / "out.jsonl").symlink_to(disk / "out.jsonl")
    ran(*PAIRS, precious / "folder/in.jsonl", "--output_file", precious / "out.jsonl")
    assert (precious / "out.jsonl").is_symlink() and len(read_jsonl(disk / "out.jsonl")) == 1


def test_a_training_whose_output_ends_with_a_slash_is_beside_it(base, world, tmp_path):
    """And a second time it replaces the first model, with what a user has put into it."""
    flags = ["--dataset_name", world / "corpus.jsonl", *TRAINING, "--max_steps", 1]
    for _ in range(2):
        ran("recipes/tiny/2_base_model.py", *flags, "--output_dir", f"{tmp_path}/made/")
        assert [path.name for path in tmp_path.iterdir()] == ["made"]
        (tmp_path / "made/note.txt").write_text("mine")
    assert (tmp_path / "made/note.txt").read_text() == "mine" and (
        tmp_path / "made/model.safetensors"
    ).exists()


def test_a_file_of_an_input_model_is_not_overwritten(sft, precious):
    before = (sft / "config.json").read_bytes()
    for name in ("config.json", "model.safetensors"):
        command = [
            "generation/2_responses.py",
            "--model_name_or_path",
            sft,
            "--prompts_file",
            precious / "no.jsonl",
        ]
        done = run(*command, "--output_file", sft / name)
        assert (
            done.returncode == 2 and f"a file of {sft}, an input of the same command" in done.stderr
        )
    assert (sft / "config.json").read_bytes() == before


def test_what_only_looks_unfinished_stays(precious):
    """A note and a folder of a user's; what a script has left goes."""
    (precious / "out.jsonl.partial-notes").write_text("mine")
    (precious / "out.jsonl.partial-backup").mkdir()
    (precious / "out.jsonl.partial-backup/thesis.tex").write_text("mine")
    (precious / "out.jsonl.partial-0123456789ab").write_text('{"id": "a"}\n')
    ran(*PAIRS, precious / "folder/in.jsonl", "--output_file", precious / "out.jsonl")
    left = {path.name for path in precious.iterdir()} - {"folder"}
    assert left == {"out.jsonl", "out.jsonl.partial-notes", "out.jsonl.partial-backup"}


def test_the_share_of_a_launcher_is_checked_under_its_own_name(precious):
    file = precious / "folder/in.jsonl"
    share = shutil.copy(file, precious / "in.jsonl.0-of-2")
    environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    command = [
        "annotation/1d_verifier.py",
        "--responses_file",
        share,
        "--output_file",
        precious / "in.jsonl",
    ]
    done = run(*command, "--method", "exact", "--pattern", "(.*)", env=environment)
    assert done.returncode == 2 and "an input of the same command" in done.stderr
    for rank, told in {"5": "RANK=5: not one of 0 to 1", "x": "whole numbers are needed"}.items():
        done = run(*command, env={**environment, "RANK": rank})
        assert done.returncode == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1


# Two at once


def test_the_same_command_at_once_is_refused(precious):
    """While another process holds the unfinished file; afterwards it is free."""
    command = [*PAIRS, precious / "folder/in.jsonl", "--output_file", precious / "out.jsonl"]
    with outputs.open_partial(precious / "out.jsonl", "new", keep=False):
        done = run(*command)
        assert (done.returncode, done.stderr) == (
            1,
            f"{precious}/out.jsonl: another process is writing it\n",
        )
    ran(*command)
    assert len(read_jsonl(precious / "out.jsonl")) == 1


def test_the_same_training_at_once_is_refused(base, world, tmp_path):
    out = tmp_path / "base"
    flags = [
        "--dataset_name",
        world / "corpus.jsonl",
        "--output_dir",
        out,
        *TRAINING,
        "--max_steps",
        1,
    ]
    from common import rows

    partial = f"{out}.partial-{rows.fingerprint(['2_base_model.py', *map(str, flags)], [out])}"
    with model_outputs.lock_model(partial, out):
        done = run("recipes/tiny/2_base_model.py", *flags)
        assert (
            done.returncode == 1
            and done.stderr.splitlines()[-1] == f"{out}: another process is writing it"
        )
    ran("recipes/tiny/2_base_model.py", *flags)
    assert (out / outputs.MARKER).exists() and not (out / outputs.LOCK).exists()


def test_a_finished_training_without_its_name_is_not_done_again(base, world, tmp_path):
    """As a kill leaves it: whole, but under the name of unfinished work."""
    from common import rows

    out = tmp_path / "base"
    flags = [
        "--dataset_name",
        world / "corpus.jsonl",
        "--output_dir",
        out,
        *TRAINING,
        "--max_steps",
        1,
    ]
    partial = (
        tmp_path / f"base.partial-{rows.fingerprint(['2_base_model.py', *map(str, flags)], [out])}"
    )
    shutil.copytree(base, partial)
    done = ran("recipes/tiny/2_base_model.py", *flags)
    assert f"{out}: was finished already" in done.stdout and not partial.exists()
    assert (out / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


# A full disk


def test_a_report_survives_a_full_disk(tmp_path, disk):
    """It is not stuck at a file that is there in part: with room it is written."""
    from test_report import make

    make(tmp_path)
    command = ["eval/3_report.py", *make_flags(tmp_path), "--output_dir", disk / "out"]
    done = run(*command)
    assert (
        done.returncode == 1
        and "No space left on device" in done.stderr
        and len(done.stderr.splitlines()) == 1
    )
    assert not list((disk / "out").glob("*.partial-*"))
    subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
    ran(*command)
    assert json.loads((disk / "out/results.json").read_text())["best"]


def make_flags(run_of):
    names = ("sft", "iter1/policy", "iter2/policy")
    answers = [run_of / "eval" / name.split("/")[0] / "kl.jsonl" for name in names]
    trained = [run_of / name for name in names]
    return [
        "--answers",
        *answers,
        "--training",
        *trained,
        "--settings",
        run_of / "settings",
        "--log_dir",
        run_of / "log",
    ]


# What is not finite


def test_a_training_whose_loss_is_not_finite_publishes_nothing(base, world, tmp_path):
    """A rate that no model survives."""
    flags = [
        "--model_name_or_path",
        base,
        "--dataset_name",
        world / "instructions.jsonl",
        "--max_length",
        256,
    ]
    flags += [
        "--output_dir",
        tmp_path / "sft",
        *TRAINING,
        "--max_steps",
        20,
        "--learning_rate",
        1e30,
    ]
    done = run("sft/2_finetune.py", *flags, "--max_grad_norm", 0)
    told = done.stderr.splitlines()[-1]
    assert (
        done.returncode == 1
        and "nothing is published" in told
        and told.startswith(f"{tmp_path}/sft: ")
    )
    assert "Traceback" not in done.stderr and not (tmp_path / "sft").exists()


def test_weights_that_are_not_finite_are_not_published(base, world, tmp_path, monkeypatch):
    """Also where no loss was logged: the last step has spoilt them."""
    flags = [
        "--model_name_or_path",
        base,
        "--dataset_name",
        world / "instructions.jsonl",
        "--max_length",
        256,
    ]
    flags += [
        "--output_dir",
        tmp_path / "sft",
        *TRAINING,
        *("--max_steps", 1, "--warmup_steps", 0, "--learning_rate", 3e38, "--weight_decay", 9),
    ]
    done = run("sft/2_finetune.py", *flags)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith("nothing is published")
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
    assert [row["note"] for row in rows.read(file)] == [None], (
        "in the data of others it is a missing value"
    )


# The launcher


def test_nothing_outlives_a_launcher_that_was_killed(base, world, tmp_path):
    """Two processes of accelerate: they end with it, though nobody can tell them to."""
    config = ROOT / "recipes/accelerate/ddp.yaml"
    command = ["-m", "accelerate.commands.launch", "--config_file", config, "--num_processes", 2]
    command += [
        "--main_process_port",
        0,
        "sft/2_finetune.py",
        "--model_name_or_path",
        base,
        "--use_cpu",
        True,
    ]
    command += [
        "--dataset_name",
        world / "instructions.jsonl",
        "--output_dir",
        tmp_path / "sft",
        *TRAINING,
    ]
    command += ["--max_length", 128, "--per_device_train_batch_size", 1, "--num_train_epochs", 99]
    with open(tmp_path / "log", "w") as log:
        launcher = subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=ROOT, stdout=log, stderr=log
        )
    workers = []
    while len(workers) < 2:
        assert launcher.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.2)
        workers = [
            pid for pid in children(launcher.pid) if "'loss'" in (tmp_path / "log").read_text()
        ]
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
