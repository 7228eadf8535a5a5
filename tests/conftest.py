"""The tiny world's data and models, made on the spot by the project's own scripts, once for all tests."""

import os
import shutil
import subprocess
import threading

import pytest

from commands import ran, read_jsonl, write_jsonl
from record_dry_runs import copy_checkout
from scripted_hub import Hub

os.environ["HF_HUB_OFFLINE"] = "1"  # no test reaches for the network
# What every training is given here; the losses of all steps are in trainer_state.json.
TRAINING = "--bf16 False --gradient_checkpointing False --dataloader_pin_memory False --disable_tqdm True".split()
TRAINING += "--logging_steps 1 --save_strategy no".split()


LONGEST = ("test_loop.py", "test_compare.py", "test_driver.py")  # these files begin first


def pytest_collection_modifyitems(items):
    items.sort(
        key=lambda item: (
            LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST)
        )
    )


def train(script, output_dir, *flags):
    return ran(script, "--output_dir", output_dir, *TRAINING, *flags)


def padded_with_eos(model, copy):
    """A copy of a model whose tokenizer pads with EOS."""
    from transformers import AutoTokenizer

    shutil.copytree(model, copy)
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(copy)
    return copy


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("world")
    sizes = "--corpus 2000 --instructions 200 --preferences 100 --prompts 120 --validation 10 --test 20 --bench 10"
    ran("recipes/tiny/1_data.py", "--output_dir", out, *sizes.split())
    return out


@pytest.fixture(scope="session")
def base(tmp_path_factory, world):
    out = tmp_path_factory.mktemp("models") / "base"
    flags = "--max_steps 80 --per_device_train_batch_size 8".split()
    train("recipes/tiny/2_base_model.py", out, "--dataset_name", world / "corpus.jsonl", *flags)
    return out


@pytest.fixture(scope="session")
def sft(base, world):
    out = base.with_name("sft")
    flags = "--max_steps 30 --per_device_train_batch_size 2 --max_length 256 --learning_rate 1e-3".split()
    train(
        "sft/2_finetune.py",
        out,
        "--model_name_or_path",
        base,
        "--dataset_name",
        world / "instructions.jsonl",
        *flags,
    )
    return out


@pytest.fixture(scope="session")
def reward_model(sft, world):
    """From a tokenizer that pads with EOS and rows that carry a margin; the held-out rows lie beside it.

    These are 11, 8 of them as the rater said and then 3 turned round: a batch and a half of very different accuracy.
    """
    out, start = (
        sft.with_name("reward_model"),
        padded_with_eos(sft, sft.with_name("padded_with_eos")),
    )
    pairs = [{**row, "margin": 5.0} for row in read_jsonl(world / "preferences.jsonl")]
    held_out, training = (
        pairs[:11],
        [row for row in pairs if row["prompt"] not in [r["prompt"] for r in pairs[:11]]],
    )
    held_out[8:] = [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in held_out[8:]
    ]
    held_out = write_jsonl(sft.with_name("held_out.jsonl"), held_out)
    training = write_jsonl(sft.with_name("training.jsonl"), training)
    flags = "--max_steps 20 --per_device_train_batch_size 16 --max_length 256 --learning_rate 1e-3".split()
    flags += ["--dataset_name", training, "--held_out_name", held_out]
    train("reward_modeling/2a_bradley_terry.py", out, "--model_name_or_path", start, *flags)
    return out


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """For dry_run of record_dry_runs.py."""
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture
def hub():
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
        yield hub
        hub.shutdown()


@pytest.fixture
def disk(tmp_path):
    """A file system with room for 64 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", path], check=True)
