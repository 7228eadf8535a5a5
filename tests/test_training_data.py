"""The examples of trainings on disk: one process makes them, however many there are, whole or not.

No number of processes, no kill and no second start changes an example or a count.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from commands import ROOT, ran, read_jsonl, run, write_jsonl
from common import outputs, training
from conftest import TRAINING

# Makes 2000 examples of one token each; every seventh row is dropped. Words: output_dir, rank,
# --dataset_num_proc, what to do in the fourth batch.
SCRIPT = """
import os, signal, sys, time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

from common import rows, training_data

folder, rank, processes, event = sys.argv[1:]
args = SimpleNamespace(
    output_dir=folder,
    process_index=int(rank),
    dataset_num_proc=int(processes) or None,
    ddp_timeout=float(os.environ.get("PATIENCE", 1800)),
)


def read():
    for number in range(2000):
        row = rows.Row(number=number)
        row.place = f"FILE:{number + 1}"
        yield row


def encode(batch):
    Path(folder, f"pid-{os.getpid()}").touch()
    first = batch[0]["number"]
    if event == "encodes nothing":
        sys.exit("made once more")
    if first == 3 * training_data.BATCH and event == "kill":
        os.kill(MAIN, signal.SIGKILL)
        time.sleep(60)
    if first == 3 * training_data.BATCH and event == "kill the worker":
        os.kill(os.getpid(), signal.SIGKILL)
    if first == 3 * training_data.BATCH and event == "refuse":
        rows.refuse(batch[0], "number: refused")
    examples = [{"ids": [row["number"]]} for row in batch if row["number"] % 7]
    return examples, Counter({"dropped": len(batch) - len(examples)})


MAIN = os.getpid()
source = training_data.checked(read, args)
dataset, counts = training_data.stored("training", source, encode, {"ids": ["int32"]}, args)
print(len(dataset), dataset[:]["ids"] == [[n] for n in range(2000) if n % 7], dict(counts))
print(dataset._fingerprint)
"""
WHOLE = "1714 True {'dropped': 286, 'rows in': 2000, 'rows out': 1714}\n"


def start(folder, rank=0, processes=0, event="none"):
    words = [sys.executable, "-c", SCRIPT, folder, str(rank), str(processes), event]
    return subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def printed(process):
    """What a process has printed on its standard output; it must have ended well."""
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


@pytest.fixture
def unfinished(tmp_path):
    folder = tmp_path / "model.partial-a"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("processes", [0, 2])
def test_the_first_process_makes_the_examples_and_all_have_them(unfinished, processes):
    """The others wait. A second start finds the examples, with the name of their caches."""
    others = [start(unfinished, rank, processes, "encodes nothing") for rank in (1, 2)]
    time.sleep(1)
    output = printed(start(unfinished, processes=processes))
    assert output.startswith(WHOLE)
    pids = {path.name for path in unfinished.glob("pid-*")}
    assert len(pids) == (processes or 1)
    for process in others:
        assert printed(process) == output
    assert printed(start(unfinished, event="encodes nothing")) == output
    assert {path.name for path in unfinished.glob("pid-*")} == pids


@pytest.mark.parametrize("processes", [0, 2])
def test_a_killed_start_leaves_no_examples_and_no_process(unfinished, processes):
    killed = start(unfinished, processes=processes, event="kill")
    assert killed.wait() == -signal.SIGKILL
    assert not (unfinished / "examples-training").exists()
    assert (unfinished / "examples-training-unfinished").exists()
    pids = [path.name.removeprefix("pid-") for path in unfinished.glob("pid-*")]
    deadline = time.time() + 30
    while any(Path("/proc", pid).exists() for pid in pids):
        assert time.time() < deadline, "a process has outlived the one that was killed"
        time.sleep(0.1)
    assert printed(start(unfinished, processes=processes)).startswith(WHOLE)
    assert not (unfinished / "examples-training-unfinished").exists()


@pytest.mark.parametrize("processes", [0, 2])
def test_a_refused_row_leaves_nothing_and_ends_all_processes(unfinished, processes):
    other = start(unfinished, 1, processes)
    first = start(unfinished, 0, processes, "refuse")
    assert first.communicate() == ("", "FILE:769: number: refused\n")
    assert first.returncode == 1
    reason = "the first process has given it up, or it is not shared"
    assert other.communicate() == ("", f"{unfinished}: {reason}\n")
    assert other.returncode == 1
    assert not unfinished.exists()


def test_a_process_does_not_wait_for_ever(unfinished, monkeypatch):
    """The first one was killed, on another node say, and its folder stays."""
    monkeypatch.setenv("PATIENCE", "1")
    waiting = start(unfinished, 1)
    _, errors = waiting.communicate()
    reason = "the first process has written nothing for 1.0 s"
    assert errors == f"{unfinished}/examples-training: {reason}\n"


def test_a_killed_worker_ends_the_program_in_a_line(unfinished):
    first = start(unfinished, 0, 2, "kill the worker")
    reason = "--dataset_num_proc: one of its processes was killed; is the memory full?"
    assert first.communicate() == ("", f"{reason}\n")
    assert first.returncode == 1


def test_the_checkpoints_of_a_training_do_not_push_the_examples_out(unfinished):
    """transformers deletes the oldest folders by the name of checkpoint-*, with a number or not."""
    from transformers.trainer_utils import rotate_checkpoints

    printed(start(unfinished))
    examples = unfinished / "examples-training"
    os.utime(examples, (0, 0))
    for step in (1, 2):
        (unfinished / f"checkpoint-{step}").mkdir()
    rotate_checkpoints(str(unfinished), save_total_limit=1, use_mtime=True)
    assert not (unfinished / "checkpoint-1").exists()
    assert (examples / "examples.arrow").exists()
    assert outputs.is_temporary(examples.name)


def test_a_refusal_spares_a_training_that_has_begun(unfinished):
    checkpoint = unfinished / "checkpoint-1"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text("{}\n")
    start(unfinished, event="refuse").communicate()
    assert (checkpoint / "trainer_state.json").exists()


def test_no_room_on_the_disk_is_one_line(disk):
    folder = disk / "model.partial-a"
    folder.mkdir()
    process = start(folder)
    (disk / "filling").write_bytes(bytes(52 * 1024))
    _, errors = process.communicate()
    assert errors.endswith(": No space left on device\n"), errors
    assert len(errors.splitlines()) == 1
    assert not folder.exists()


# Prints the most anonymous memory, in KiB, at the begin of a batch. Words: output_dir, rows.
MEMORY = """
import re, sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

from common import rows, training_data

folder, total = sys.argv[1:]
args = SimpleNamespace(
    output_dir=folder, process_index=0, dataset_num_proc=None, ddp_timeout=1800
)
peaks = [0]


def read():
    for number in range(int(total)):
        yield rows.Row(number=number)


def encode(batch):
    status = Path("/proc/self/status").read_text()
    peaks.append(int(re.search(r"RssAnon:\\s*(\\d+)", status)[1]))
    # Numbers above 256 are objects of their own in Python.
    return [{"ids": list(range(1000, 1500))} for _ in batch], Counter()


source = training_data.checked(read, args)
training_data.stored("training", source, encode, {"ids": ["int32"]}, args)
encode([])
print(max(peaks))
"""


def test_four_times_the_rows_take_hardly_more_memory(tmp_path):
    """3 million more tokens: as lists of Python they would take 36 bytes each, 105 MiB."""
    peaks = []
    for rows in (2000, 8000):
        folder = tmp_path / f"{rows}.partial-a"
        folder.mkdir()
        words = [sys.executable, "-c", MEMORY, folder, str(rows)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 20 * 1024, peaks


# The scripts


@pytest.fixture(scope="module")
def commands(sft, base, reward_model):
    """{training: its command}, of 600 rows each: more than two batches. One row is too long."""
    rows = read_jsonl(reward_model.with_name("training.jsonl"))
    pairs = []
    conversations = []
    for number in range(600):
        row = json.loads(json.dumps(rows[number % len(rows)]))
        if number == 300:
            row["prompt"][0]["content"] *= 100
        pairs.append(row | {"id": str(number)})
        messages = row["prompt"] + row["chosen"]
        conversations.append({"id": str(number), "messages": messages, "source": "test"})
    instructions = write_jsonl(sft.with_name("many_conversations.jsonl"), conversations)
    of_sft = ["--model_name_or_path", base, "--dataset_name", instructions]
    preferences = ["--model_name_or_path", sft]
    preferences += ["--dataset_name", write_jsonl(sft.with_name("many_pairs.jsonl"), pairs)]
    held_out = ["--held_out_name", reward_model.with_name("held_out.jsonl")]
    reference = ["--ref_model_name_or_path", sft]
    return {
        "sft": ["sft/2_finetune.py", *of_sft],
        "reward_model": ["reward_modeling/2a_bradley_terry.py", *preferences, *held_out],
        "preference_model": ["reward_modeling/2b_preference_model.py", *preferences, *held_out],
        "dpo": ["dpo/1_dpo.py", *preferences, *reference],
        "kto": ["dpo/1b_kto.py", *preferences, *reference],
    }


def trained(command, out, *flags):
    """(losses, line of counts) of a training."""
    words = [*TRAINING, "--max_length", 200, "--max_steps", 3, "--learning_rate", 1e-3]
    done = ran(*command, *words, *flags, "--output_dir", out)
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == 3
    counts = [line for line in done.stdout.splitlines() if " in: " in line]
    return losses, counts[0].replace(str(out), "OUT")


@pytest.mark.parametrize(
    ("name", "rows_in", "dropped"),
    [
        ("sft", "rows in: 600", "dropped, no answer within --max_length: 1"),
        ("reward_model", "rows in: 600", "dropped, too long: 1"),
        ("preference_model", "rows in: 600", "dropped, too long: 1"),
        ("dpo", "pairs in: 600", "dropped, too long: 1"),
        ("kto", "responses in: 1200", "dropped, too long: 2"),
    ],
)
def test_the_number_of_processes_changes_no_example(commands, tmp_path, name, rows_in, dropped):
    losses, counts = trained(commands[name], tmp_path / "one")
    assert f" {rows_in}, {dropped}, " in counts
    two = trained(commands[name], tmp_path / "two", "--dataset_num_proc", 2)
    assert two == (losses, counts)
    # Neither examples nor TRL's caches of them remain.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    for out in tmp_path.iterdir():
        assert not [path for path in out.iterdir() if path.is_dir()]


def test_a_row_that_the_template_refuses_leaves_nothing(commands, tmp_path, sft):
    """It is found in one of the processes of --dataset_num_proc."""
    model = shutil.copytree(sft, tmp_path / "model")
    template = model / "chat_template.jinja"
    refusal = "{% if messages[0].content == 'Q' %}{{ raise_exception('no Q') }}{% endif %}"
    template.write_text(refusal + template.read_text())
    script, *flags = commands["dpo"]
    file = tmp_path / "in.jsonl"
    rows = read_jsonl(flags[flags.index("--dataset_name") + 1])
    rows[400]["prompt"] = [{"role": "user", "content": "Q"}]
    write_jsonl(file, rows)
    flags += ["--model_name_or_path", model, "--dataset_name", file, "--dataset_num_proc", 2]
    done = run(script, *flags, "--output_dir", tmp_path / "out", *TRAINING)
    assert done.returncode == 1
    reason = f"the chat template of {model} refuses it (TemplateError: no Q)"
    assert done.stderr.splitlines()[-1] == f"{file}:401: prompt: {reason}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "model"]


@pytest.mark.parametrize("script", ["2a_bradley_terry", "2b_preference_model"])
def test_another_template_for_tokenised_pairs_is_refused(commands, tmp_path, sft, script):
    flags = commands["reward_model"][1:]
    done = run(
        f"reward_modeling/{script}.py",
        *flags,
        *("--chat_template_path", sft),
        *("--output_dir", tmp_path / "out", *TRAINING),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "--chat_template_path: it has no effect here"


def test_rows_that_a_config_names_have_unfinished_work_of_their_own(tmp_path, monkeypatch):
    """Else a run with changed rows would take the examples of the old ones."""
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"id": "a"}])
    config = tmp_path / "config.yaml"
    config.write_text(f"dataset_name: {rows}\n")
    monkeypatch.setattr(sys, "argv", ["script.py", "--config", str(config)])

    def unfinished_folder():
        args = SimpleNamespace(output_dir=str(tmp_path / "model"), process_index=0, world_size=1)
        training.begin(args)
        training.LOCKS.pop().close()
        return args.output_dir

    first = unfinished_folder()
    assert unfinished_folder() == first
    write_jsonl(rows, [{"id": "a"}, {"id": "b"}])
    assert unfinished_folder() != first
