"""Training by two processes on the CPU: the losses of one, whole weights, and a run that was killed goes on."""

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

# Without when to save. Six steps are less than an epoch, whose last batch two processes fill up from its start.
FLAGS = [*TRAINING[:-2], "--use_cpu", "True", "--max_length", 128, "--max_steps", 6]


@pytest.fixture(scope="module")
def commands(base, sft, world):
    """The trainings, on a global batch of 4."""
    folder = sft.parent
    pairs = read_jsonl(world / "preferences.jsonl")
    held_out = [row for row in pairs if row["prompt"] in [r["prompt"] for r in pairs[:5]]]
    files = {"held": held_out, "trained": [row for row in pairs if row not in held_out][:40]}
    files = {
        name: write_jsonl(folder / f"distributed_{name}.jsonl", rows)
        for name, rows in files.items()
    }
    data = ["--dataset_name", files["trained"]]
    return {
        "sft": ["sft/2_finetune.py", "--model_name_or_path", base, "--dataset_name", world / "instructions.jsonl"],
        "reward_model": ["reward_modeling/2a_bradley_terry.py", "--model_name_or_path", sft, *data, "--held_out_name",
                         files["held"], "--learning_rate", 1e-3],
        "dpo": ["dpo/1_dpo.py", "--model_name_or_path", sft, "--ref_model_name_or_path", sft, *data,
                "--learning_rate", 1e-4],
    }  # fmt: skip


def launch(how):
    """The words before a script that start two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = ROOT / f"recipes/accelerate/{how}.yaml"
    command = ["-m", "accelerate.commands.launch", "--config_file", config, "--num_processes", 2]
    return [*command, "--main_process_port", port]


def log(out, key="loss"):
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    return [entry[key] for entry in history if key in entry]


def weights(out):
    from safetensors.torch import load_file

    return load_file(out / "model.safetensors")


@pytest.fixture(scope="module")
def alone(commands, tmp_path_factory):
    """{training: its directory} by one process."""
    folder = tmp_path_factory.mktemp("alone")
    for name, command in commands.items():
        flags = [
            "--output_dir",
            folder / name,
            "--save_strategy",
            "no",
            "--per_device_train_batch_size",
            4,
        ]
        ran(*command, *FLAGS, *flags)
    return {name: folder / name for name in commands}


compiles = pytest.mark.skipif(
    not shutil.which("c++"), reason="DeepSpeed compiles a part of itself on the CPU"
)


@pytest.mark.parametrize("how", ["ddp", pytest.param("zero3", marks=compiles)])
@pytest.mark.parametrize("name", ["sft", "reward_model", "dpo"])
def test_two_processes_that_were_stopped_and_go_on_train_as_one(
    commands, alone, tmp_path, name, how
):
    """DDP by SIGTERM, as a cluster does, after which they save their state; ZeRO-3 by SIGKILL."""
    out, sent = tmp_path / "out", {"ddp": signal.SIGTERM, "zero3": signal.SIGKILL}[how]
    command = [
        *commands[name],
        *FLAGS,
        "--output_dir",
        out,
        "--save_steps",
        1,
        "--per_device_train_batch_size",
        2,
    ]
    words = [sys.executable, *map(str, launch(how) + command)]
    with open(tmp_path / "log", "w") as printed:
        process = subprocess.Popen(
            words, cwd=ROOT, stdout=printed, stderr=printed, start_new_session=True
        )
    while not list(tmp_path.glob("out.partial-*/checkpoint-1/trainer_state.json")):
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.02)
    os.killpg(process.pid, sent)
    assert process.wait() and not out.exists()
    ran(*launch(how), *command)
    assert len(log(alone[name])) == 6 and log(out) == pytest.approx(log(alone[name]), abs=1e-3)
    if name == "reward_model":
        assert log(out, "eval_accuracy") == pytest.approx(log(alone[name], "eval_accuracy"))
    whole, other = weights(alone[name]), weights(out)
    assert {key: value.shape for key, value in whole.items()} == {
        key: value.shape for key, value in other.items()
    }
    assert all(value.allclose(other[key], atol=1e-3) for key, value in whole.items())
    assert not [path for path in out.iterdir() if path.is_dir()]
