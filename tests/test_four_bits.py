"""LoRA beside 4-bit weights (QLoRA): every training, its reference, what is refused."""

import importlib.util
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from commands import ran, read_jsonl, run, write_jsonl
from conftest import TRAINING, run_here
from test_models import history
from test_optimisers import refused
from test_reference import PAIRS, reference_command

RANK = 4
QLORA = ["--use_peft", "--load_in_4bit", "--lora_r", RANK]
QLORA += "--lora_target_modules all-linear --learning_rate 1e-2 --max_steps 2".split()
# The environment without a GPU lacks bitsandbytes; tests/run.sh puts it into a folder of its own.
LIBRARY = os.environ.get("BITSANDBYTES", "")


@pytest.fixture(scope="module")
def library():
    """The environment of commands that find bitsandbytes."""
    if not LIBRARY:
        pytest.skip("bitsandbytes: tests/run.sh installs it")
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), LIBRARY]))
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture(scope="module")
def stored(tmp_path_factory, sft, library):
    """(file of pairs, file with the log-probabilities of SFT in 4 bits)."""
    folder = tmp_path_factory.mktemp("four_bits")
    file = write_jsonl(folder / "pairs.jsonl", PAIRS)
    out = folder / "stored.jsonl"
    ran(*reference_command(sft, file, "--load_in_4bit", "--output_file", out), env=library)
    return file, out


def commands(reward_model, stored):
    """{name: a training's script and its data}."""
    return {
        "reward_model": [
            "reward_modeling/2a_bradley_terry.py",
            *["--dataset_name", reward_model.with_name("training.jsonl")],
            *["--held_out_name", reward_model.with_name("held_out.jsonl")],
        ],
        "dpo": ["dpo/1_dpo.py", "--dataset_name", stored[1]],
    }


@pytest.mark.parametrize("name", ["reward_model", "dpo"])
def test_the_adapters_are_merged_into_the_original_weights(
    name, sft, reward_model, stored, library, tmp_path
):
    """What is published differs from the start by the adapters alone, not by 4-bit rounding."""
    command = commands(reward_model, stored)[name]
    out = tmp_path / "out"
    flags = ["--model_name_or_path", sft, "--output_dir", out, "--max_length", 256]
    ran(*command, *flags, *TRAINING, *QLORA, "--per_device_train_batch_size", 4, env=library)
    if name == "dpo":
        # Not quite ln 2: without gradients bitsandbytes may compute on a CPU in bfloat16.
        assert history(out)[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    before = load_file(sft / "model.safetensors")
    after = load_file(out / "model.safetensors")
    new = {"score.weight"} if name == "reward_model" else set()
    assert {key for key in after if key not in before} == new
    changed = 0
    for key, weight in before.items():
        if key not in after:  # the head of a language model, in a reward model
            continue
        rows = len(weight)  # a reward model's embedding has grown by a pad token
        difference = after[key][:rows].double() - weight.double()
        if "_proj" not in key:
            assert torch.equal(after[key][:rows], weight), key
        elif difference.any():
            changed += 1
            spectrum = torch.linalg.svdvals(difference)
            assert spectrum[RANK:].max() < 1e-4 * spectrum[0], key
    assert changed > 5


def test_policy_and_reference_have_the_same_quantisation(monkeypatch, sft, stored, tmp_path):
    with_logps = stored[1]
    assert read_jsonl(with_logps)[0]["reference"]["quantization"] == "nf4"
    reason = refused("dpo/1_dpo.py", monkeypatch, sft, with_logps, tmp_path / "out", "--use_peft")
    assert reason == (
        "--load_in_4bit: the policy is to have no quantisation, the pairs have log-probabilities "
        "of a reference with nf4: give dpo/0_reference.py the same flags"
    )


WITHOUT_LORA = "--load_in_4bit: 4-bit weights stay as they are; train LoRA with --use_peft"
NOT_INSTALLED = (
    "--load_in_4bit: bitsandbytes is not installed; requirements.txt, for machines with a GPU, "
    "has it"
)


@pytest.mark.parametrize(
    "flags, variables, reason",
    [
        (["--load_in_4bit"], {}, WITHOUT_LORA),
        (["--load_in_4bit", "--use_peft"], {}, NOT_INSTALLED),
        (
            ["--load_in_4bit", "--use_peft"],
            {"ACCELERATE_USE_FSDP": "true"},
            "--load_in_4bit: not under FSDP; train with DISTRIBUTED=ddp",
        ),
        (
            ["--use_peft", "--use_bnb_nested_quant"],
            {},
            "--use_bnb_nested_quant: it has no effect without --load_in_4bit",
        ),
        (["--use_peft", "--load_in_8bit"], {}, "--load_in_8bit: it has no effect here"),
    ],
)
def test_what_does_not_go_with_4_bits_is_refused(
    flags, variables, reason, monkeypatch, sft, tmp_path
):
    find_spec = importlib.util.find_spec

    def without_bitsandbytes(name, *args):
        return None if name == "bitsandbytes" else find_spec(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", without_bitsandbytes)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    pairs = write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    out = tmp_path / "out"
    assert refused("dpo/1_dpo.py", monkeypatch, sft, pairs, out, *flags) == reason


def test_a_checkpoint_that_is_quantised_is_refused(monkeypatch, sft, tmp_path):
    """Its adapters could not be merged."""
    quantised = tmp_path / "quantised"
    shutil.copytree(sft, quantised)
    config = json.loads((sft / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (quantised / "config.json").write_text(json.dumps(config))
    command = ["--model_name_or_path", quantised, "--output_dir", tmp_path / "out", *TRAINING]
    data = write_jsonl(
        tmp_path / "rows.jsonl",
        [{"id": "0", "messages": PAIRS[0]["prompt"] + PAIRS[0]["chosen"]}],
    )
    with pytest.raises(SystemExit) as stopped:
        run_here("sft/2_finetune.py", monkeypatch, *command, "--dataset_name", data)
    reason = "(its weights are quantised; train the original model)"
    assert str(stopped.value) == f"{quantised}: cannot load a model from it {reason}"


def test_a_reference_refuses_what_does_not_go_with_4_bits(sft, tmp_path):
    pairs = write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    command = reference_command(sft, pairs, "--output_file", tmp_path / "out.jsonl")
    done = run(*command, "--use_bnb_nested_quant")
    assert done.stderr.endswith("--bnb_4bit_quant_type: only with --load_in_4bit\n")
