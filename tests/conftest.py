"""The tiny world's data and models: the project's own scripts make them, once for all tests."""

import os
import runpy
import shutil
import subprocess
import sys
import threading

import pytest

from commands import ROOT, ran, read_jsonl, write_jsonl
from common import sandbox
from record_dry_runs import copy_checkout
from scripted_hub import Hub

# No test uses the network.
os.environ["HF_HUB_OFFLINE"] = "1"
# Nor the judge of whoever runs the tests.
for name in [name for name in os.environ if name.startswith("OPENAI_")]:
    del os.environ[name]
# Flags of every training here; the losses of all steps are in trainer_state.json.
TRAINING = "--bf16 False --gradient_checkpointing False --dataloader_pin_memory False".split()
TRAINING += "--disable_tqdm True --logging_steps 1 --save_strategy no".split()
# These files run first, because they take longest.
LONGEST = ("test_loop.py", "test_compare.py", "test_driver.py")


def pytest_collection_modifyitems(items):
    rank = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def usable_sandbox():
    """Skips where common/sandbox.py cannot run; pytest_unconfigure says so."""
    if reason := sandbox.unusable():
        pytest.skip(reason)


def pytest_unconfigure(config):
    """Say in the last line that tests were skipped for want of a sandbox."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # in a worker of xdist
        return
    reasons = []
    for report in reporter.stats.get("skipped", []):
        _, _, reason = str(report.longrepr[-1]).partition("Skipped: ")
        if reason.startswith("the sandbox "):
            reasons.append(reason)
    if reasons:
        reporter.write_line(f"{len(reasons)} tests were skipped: {reasons[0]}")


def train(script, output_dir, *flags):
    return ran(script, "--output_dir", output_dir, *TRAINING, *flags)


def run_here(script, monkeypatch, *flags):
    """Run a training in this process, which has imported torch and TRL already."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, flags)])
    monkeypatch.syspath_prepend(ROOT / script.split("/")[0])
    runpy.run_path(str(ROOT / script), run_name="__main__")


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
    sizes = "--corpus 2000 --instructions 200 --preferences 100 --prompts 120".split()
    sizes += "--validation 10 --test 20 --bench 10".split()
    ran("recipes/tiny/1_data.py", "--output_dir", out, *sizes)
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
    flags = ["--model_name_or_path", base, "--dataset_name", world / "instructions.jsonl"]
    flags += "--max_steps 30 --per_device_train_batch_size 2".split()
    flags += "--max_length 256 --learning_rate 1e-3".split()
    train("sft/2_finetune.py", out, *flags)
    return out


@pytest.fixture(scope="session")
def noisy(sft):
    """SFT's weights with noise on them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = sft.with_name("noisy")
    model = AutoModelForCausalLM.from_pretrained(sft, dtype="float32")
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(sft).save_pretrained(out)
    return out


@pytest.fixture(scope="session")
def reward_model(sft, world):
    """Trained from a tokenizer that pads with EOS, on rows that carry a margin.

    Beside it are its training.jsonl and held_out.jsonl. Of the 11 held-out rows the first 8 are as
    the rater said and the last 3 are swapped: one and a half batches of very different accuracy.
    """
    out = sft.with_name("reward_model")
    start = padded_with_eos(sft, sft.with_name("padded_with_eos"))
    pairs = [{**row, "margin": 5.0} for row in read_jsonl(world / "preferences.jsonl")]
    held_out = pairs[:11]
    held_out_prompts = [row["prompt"] for row in held_out]
    training = [row for row in pairs if row["prompt"] not in held_out_prompts]
    for row in held_out[8:]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    flags = ["--model_name_or_path", start]
    flags += ["--dataset_name", write_jsonl(sft.with_name("training.jsonl"), training)]
    flags += ["--held_out_name", write_jsonl(sft.with_name("held_out.jsonl"), held_out)]
    flags += "--max_steps 20 --per_device_train_batch_size 16".split()
    flags += "--max_length 256 --learning_rate 1e-3".split()
    train("reward_modeling/2a_bradley_terry.py", out, *flags)
    return out


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A copy of the checkout, for dry_run of record_dry_runs.py."""
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
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", path], check=True)
