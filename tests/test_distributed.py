"""Training with two processes on the CPU: losses and weights of one process, and a resumed run."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from commands import ROOT, ran, read_jsonl, write_jsonl
from conftest import TRAINING

# TRAINING without --save_strategy. Six steps are less than an epoch: two processes would fill up
# its last batch from its start.
FLAGS = [*TRAINING[:-2], "--use_cpu", "True", "--max_length", 128, "--max_steps", 6]


@pytest.fixture(scope="module")
def commands(base, sft, world):
    """{training: its command}, each for a global batch of 4."""
    pairs = read_jsonl(world / "preferences.jsonl")
    held_out_prompts = [row["prompt"] for row in pairs[:5]]
    held_out = [row for row in pairs if row["prompt"] in held_out_prompts]
    training = [row for row in pairs if row not in held_out][:40]
    held_out_file = write_jsonl(sft.with_name("distributed_held.jsonl"), held_out)
    training_file = write_jsonl(sft.with_name("distributed_trained.jsonl"), training)

    of_sft = ["--model_name_or_path", base, "--dataset_name", world / "instructions.jsonl"]
    preferences = ["--model_name_or_path", sft, "--dataset_name", training_file]
    of_reward_model = ["--held_out_name", held_out_file, "--learning_rate", 1e-3]
    of_dpo = ["--ref_model_name_or_path", sft, "--learning_rate", 1e-4]
    return {
        "sft": ["sft/2_finetune.py", *of_sft],
        "reward_model": ["reward_modeling/2a_bradley_terry.py", *preferences, *of_reward_model],
        "dpo": ["dpo/1_dpo.py", *preferences, *of_dpo],
    }


def launch(how):
    """The words before a script that start two processes; how: ddp or zero3."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = ROOT / f"recipes/accelerate/{how}.yaml"
    command = ["-m", "accelerate.commands.launch", "--config_file", config, "--num_processes", 2]
    return [*command, "--main_process_port", port]


def log(out, key="loss"):
    """The values of a key in the log of a training."""
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    return [entry[key] for entry in history if key in entry]


def weights(out):
    from safetensors.torch import load_file

    return load_file(out / "model.safetensors")


@pytest.fixture(scope="module")
def alone(commands, tmp_path_factory):
    """{training: its directory} with a single process."""
    folder = tmp_path_factory.mktemp("alone")
    flags = [*FLAGS, "--save_strategy", "no", "--per_device_train_batch_size", 4]
    for name, command in commands.items():
        ran(*command, *flags, "--output_dir", folder / name)
    return {name: folder / name for name in commands}


NO_COMPILER = not shutil.which("c++")
compiles = pytest.mark.skipif(NO_COMPILER, reason="DeepSpeed compiles a part of itself on the CPU")


@pytest.mark.parametrize(
    ("name", "how"),
    [
        pytest.param("sft", "zero3", marks=compiles),
        ("reward_model", "ddp"),
        ("dpo", "ddp"),
        pytest.param("dpo", "zero3", marks=compiles),
    ],
)
def test_two_processes_that_were_stopped_and_go_on_train_as_one(
    commands, alone, tmp_path, name, how
):
    """DDP is stopped by SIGTERM, as by a cluster, and saves its state; ZeRO-3 by SIGKILL."""
    out = tmp_path / "out"
    command = [*commands[name], *FLAGS, "--output_dir", out]
    command += ["--save_steps", 1, "--per_device_train_batch_size", 2]
    words = [sys.executable, *map(str, launch(how) + command)]
    with open(tmp_path / "log", "w") as printed:
        process = subprocess.Popen(
            words, cwd=ROOT, stdout=printed, stderr=printed, start_new_session=True
        )
    while not list(tmp_path.glob("out.partial-*/checkpoint-1/trainer_state.json")):
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM if how == "ddp" else signal.SIGKILL)
    assert process.wait()
    assert not out.exists()
    ran(*launch(how), *command)
    assert len(log(alone[name])) == 6
    assert log(out) == pytest.approx(log(alone[name]), abs=1e-3)
    if name == "reward_model":
        assert log(out, "eval_accuracy") == pytest.approx(log(alone[name], "eval_accuracy"))
    of_one = weights(alone[name])
    of_two = weights(out)
    assert of_one.keys() == of_two.keys()
    for key, value in of_one.items():
        assert value.shape == of_two[key].shape
        assert value.allclose(of_two[key], atol=1e-3)
    assert not [path for path in out.iterdir() if path.is_dir()]
