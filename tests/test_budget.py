"""preflight/budget.py against what the libraries really make, and against numbers computed by hand."""

import dataclasses
import json
import time

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    Qwen2Config,
)

import budget
from commands import ran, run

LLAMA = budget.SHAPES["llama3_8b"]
N, GIB = 8_030_261_248, 2**30
TINY = {"vocab_size": 1000, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}  # fmt: skip


def counted(model, trained=False):
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)


def config(shape, kind):
    return kind(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim, tie_word_embeddings=shape.tied, max_position_embeddings=shape.max_length,
    )  # fmt: skip


# Parameters


@pytest.mark.parametrize(
    ("name", "kind", "published"),
    [("llama3_8b", LlamaConfig, N), ("llama3.2_1b", LlamaConfig, 1_235_814_400),
     ("qwen2.5_1.5b", Qwen2Config, 1_543_714_304), ("llama3_70b", LlamaConfig, 70_553_706_496)],
)  # fmt: skip
def test_parameters_of_the_published_models(name, kind, published):
    shape = budget.SHAPES[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(shape, kind))
    assert shape.parameters == counted(model) == published
    assert budget.shape(model.config.to_dict()) == shape


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen2Config])
@pytest.mark.parametrize("more", [{}, {"tie_word_embeddings": True}, {"head_dim": 32}])
def test_parameters_of_any_model(kind, more):
    """Of the reward model and of LoRA as well, with the modules that PEFT chooses."""
    from peft import LoraConfig, get_peft_model

    made = kind(**TINY, **more, num_labels=1)
    shape = budget.shape(made.to_dict())
    with torch.device("meta"):
        policy, reward_model = (
            auto.from_config(made)
            for auto in (AutoModelForCausalLM, AutoModelForSequenceClassification)
        )
        assert budget.size(shape, "dpo") == shape.parameters == counted(policy)
        assert budget.size(shape, "reward_model") == counted(reward_model)
        lora = get_peft_model(policy, LoraConfig(r=8, task_type="CAUSAL_LM"))
    assert budget.size(shape, "dpo", 8) == counted(lora, trained=True)


@pytest.mark.parametrize(
    "wrong", [{"model_type": "gpt2"}, {}, {"model_type": "llama", "hidden_size": "wide"}]
)
def test_another_kind_of_model_is_refused(wrong):
    with pytest.raises(ValueError, match="model_type"):
        budget.shape(wrong)


# FLOPs


@pytest.mark.parametrize("checkpointing", [False, True])
def test_flops_are_those_that_torch_counts(checkpointing):
    """Forward, forward and backward, and with checkpoints a forward pass more, to 1%.

    Of that last one torch leaves out each layer's last matrix, whose result is not needed, and the library the head,
    which TRL's own does do again: for an 8B model the four passes that are counted are 6% more than what is done.
    """
    from torch.utils.flop_counter import FlopCounterMode

    model = AutoModelForCausalLM.from_config(
        LlamaConfig(**TINY, attn_implementation="eager")
    ).train()
    shape, ids = budget.shape(model.config.to_dict()), torch.randint(1000, (2, 256))
    if checkpointing:
        model.gradient_checkpointing_enable()
    with FlopCounterMode(display=False) as forward:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    expected = budget.flops(shape, ids.numel(), 256)
    assert expected == 512 * (
        2 * 3 * 43008 + 2 * 64000 + 4 * 3 * 64 * 256
    )  # 43008: 64 x (64 + 32 + 32 + 64 + 3 x 160)
    assert forward.get_total_flops() == pytest.approx(expected, rel=0.01)
    again = (
        budget.flops(shape, ids.numel(), 256, head=False) - 512 * 2 * 3 * 160 * 64
        if checkpointing
        else 0
    )
    assert backward.get_total_flops() == pytest.approx(2 * expected + again, rel=0.01)


def test_hours_by_hand():
    """A token of fine-tuning: 2 x (32 layers of 218,103,808 + the head's 525,336,576) + 4 x 32 x 4096 x 16384 FLOP."""
    eight, one = budget.MACHINES["8x80"], budget.MACHINES["1x141"]
    work = {"tokens": 1e9, "context": 16384}
    assert budget.flops(LLAMA, 1, 16384) == 23_599_251_456
    hours = budget.training_hours(LLAMA, "sft", eight, **work)
    assert (
        hours
        == pytest.approx(4 * 23_599_251_456e9 / (8 * 989e12 * 0.4) / 3600)
        == pytest.approx(8.285, abs=1e-3)
    )
    assert budget.training_hours(LLAMA, "sft", one, **work) == pytest.approx(8 * hours)
    lora = budget.training_hours(LLAMA, "sft", eight, lora_rank=32, **work)
    assert lora / hours == pytest.approx(
        (4 * 23_599_251_456 - 15_009_316_864) / (4 * 23_599_251_456)
    )
    with_reference = budget.training_hours(LLAMA, "dpo", eight, reference_tokens=1e9, **work)
    assert with_reference / hours == pytest.approx(5 / 4)
    # 1024 sequences of 500 tokens read 16.1 GB and 67.1 GB, 17.3 ms at the peak: more than the 15.8 ms of computing.
    hours = budget.generation_hours(LLAMA, one, tokens=2.4e8, context=500)
    assert hours == pytest.approx(
        2.4e8 / 1024 * (2 * N + 1024 * 500 * 131072) / 4.8e12 / 0.5 / 3600
    )
    # On 80 GB 0.92 x 79.1 - 4 - 14.96 GiB are left for the cache, 62.5 MiB a sequence: 881 of them.
    hours = budget.generation_hours(LLAMA, eight, tokens=2.4e8, context=500)
    assert hours == pytest.approx(
        2.4e8 / 881 * (2 * N + 881 * 500 * 131072) / 3.35e12 / 0.5 / 8 / 3600
    )
    short = budget.generation_hours(
        LLAMA, eight, tokens=2.4e8, context=1
    )  # computing takes longer than reading
    assert short == pytest.approx(2.4e8 * budget.flops(LLAMA, 1, 1) / (8 * 989e12 * 0.5 * 3600))
    assert budget.generation_hours(
        budget.SHAPES["llama3_70b"], one, tokens=1, context=500
    ) == float("inf")


# Memory


def parts(stage="dpo", gpus=8, sequence=2048, batch=2, distributed="zero3", **more):
    made = budget.training(
        LLAMA, stage, gpus=gpus, sequence=sequence, batch=batch, distributed=distributed, **more
    )
    assert made["total"] == pytest.approx(
        sum(value for name, value in made.items() if name != "total")
    )
    assert all(value >= 0 for value in made.values())
    return made


def test_states_by_hand():
    """GiB of 8.03e9 parameters: 29.92 of float32, 14.96 of bf16; Adam has two float32 numbers, ZeRO the weights too."""
    whole = parts(gpus=1, distributed="ddp")
    states = [whole[name] for name in ("weights", "gradients", "optimizer", "reference")]
    assert states == pytest.approx([29.915, 29.915, 59.830, 29.915], abs=1e-3)
    sharded, alone = parts(), parts(gpus=1)
    for name, value in {
        "weights": 1.870,
        "gradients": 1.870,
        "optimizer": 11.218,
        "reference": 1.870,
    }.items():
        assert (
            sharded[name]
            == pytest.approx(value, abs=1e-3)
            == pytest.approx(alone[name] / 8, abs=1e-3)
        )
        assert parts(distributed="zero3_offload")[name] == 0
    zero2 = parts(distributed="zero2")
    assert zero2["weights"] == zero2["reference"] == pytest.approx(14.957, abs=1e-3)
    assert zero2["optimizer"] == sharded["optimizer"]
    fsdp = parts(distributed="fsdp")
    assert fsdp["weights"] == pytest.approx(3.739, abs=1e-3) and fsdp["gradients"] > 14.957
    assert (
        parts(distributed="ddp")["buffers"] > 29.915 + 2
    )  # DDP's buckets are another copy of the gradients


def test_lora_has_states_of_its_adapters_only():
    """32 layers x rank 32 x (4096 + 4096 for the queries, 4096 + 1024 for the values)."""
    lora, full = parts(gpus=1, distributed="ddp", lora_rank=32), parts(gpus=1, distributed="ddp")
    assert (
        lora["gradients"] * GIB == 4 * 32 * 32 * 13312
        and lora["optimizer"] == 2 * lora["gradients"]
    )
    assert (
        full["weights"] < lora["weights"] < 1.01 * full["weights"]
        and lora["reference"] == full["reference"]
    )
    assert full["logits"] - lora["logits"] == pytest.approx(
        4 * 128256 * 4096 / GIB
    )  # the head's gradient


def test_pairs_are_two_sequences_and_packed_blocks_are_one_row():
    pair, block, reward_model = parts("dpo"), parts("sft"), parts("reward_model")
    assert pair["activations"] > 1.9 * block["activations"] and pair["total"] > block["total"]
    assert block["reference"] == reward_model["reference"] == reward_model["logits"] == 0
    assert (
        pair["activations"] == reward_model["activations"]
        and block["activations"] == parts("preference_model")["activations"]
    )
    # In fine-tuning the mask of a batch of two is four times that of one; one byte each, and two more as bf16.
    two, one = parts("sft", batch=2, sequence=8192), parts("sft", batch=1, sequence=8192)
    assert (two["activations"] - 2 * one["activations"]) * GIB == pytest.approx(
        3 * (16384**2 - 2 * 8192**2)
    )
    four = parts("dpo", batch=4)
    assert four["activations"] == pytest.approx(2 * pair["activations"])


def test_what_fits():
    """8 x 80 GB by ZeRO-3 at the recipe's settings; of full trainings on one H200 the reward model's alone, just."""
    room = {name: machine.gib for name, machine in budget.MACHINES.items()}
    for stage, sequence in (("sft", 8192), ("reward_model", 4096), ("dpo", 2048)):
        assert parts(stage, sequence=sequence)["total"] < room["8x80"] / 2
        assert parts(stage, sequence=sequence, distributed="ddp")["total"] > room["8x80"]
        full, lora = (
            parts(stage, 1, sequence, 2, "ddp", lora_rank=rank)["total"] for rank in (0, 32)
        )
        assert lora < room["1x141"] / 1.9 and full > 0.9 * room["1x141"]
        assert (full > room["1x141"]) == (stage != "reward_model")


@pytest.mark.parametrize("autocast", [False, True])
def test_a_layer_keeps_what_is_counted(autocast):
    """The bytes that autograd saves in one layer, under autocast and in bf16; gradients add 4 x intermediate."""
    from transformers import LlamaModel

    made = LlamaConfig(**{**TINY, "num_hidden_layers": 1, "hidden_size": 256, "intermediate_size": 896,
                          "num_attention_heads": 8}, attn_implementation="sdpa")  # fmt: skip
    shape, model = (
        budget.shape(made.to_dict()),
        LlamaModel(made).to(torch.float32 if autocast else torch.bfloat16),
    )
    inputs, rows, length = {p.untyped_storage().data_ptr() for p in model.parameters()}, 4, 96
    states = torch.randn(rows, length, 256, dtype=model.dtype, requires_grad=True)
    positions = torch.arange(length)[None]
    mask, turns = (
        torch.ones(rows, 1, length, length).tril().bool(),
        model.rotary_emb(states, positions),
    )
    kept = {}
    with (
        torch.autograd.graph.saved_tensors_hooks(
            lambda t: (kept.update({t.untyped_storage().data_ptr(): t}), t)[1], lambda t: t
        ),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        out = model.layers[0](
            states, attention_mask=mask, position_ids=positions, position_embeddings=turns
        )
    kept = sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in inputs)
    how = {"gpus": 1, "sequence": length, "batch": 2, "distributed": "ddp" if autocast else "zero3"}
    activations = budget.training(shape, "reward_model", **how)["activations"] * GIB
    stored = rows * length * (256 * (4 if autocast else 2) + length)
    assert out.requires_grad and kept == pytest.approx(
        activations - stored - rows * length * 4 * 896, rel=0.02
    )


def test_generation_and_scoring_by_hand():
    """A token of an 8B model's cache: 2 x 32 layers x 8 heads x 128 x 2 bytes, 128 KiB."""
    one, two = (budget.generation(LLAMA, sequence=8192, tensor_parallel=gpus) for gpus in (1, 2))
    assert one["weights"] == pytest.approx(14.957, abs=1e-3) and one["cache"] == 1
    assert (two["weights"], two["cache"]) == (one["weights"] / 2, 0.5)
    assert one["total"] * 0.92 == pytest.approx(14.957 + 1 + 4, abs=1e-3)
    scored = budget.scoring(LLAMA)
    assert (
        scored["weights"] == pytest.approx((N - 128256 * 4096 + 4096) * 2 / GIB)
        and scored["cache"] == 18
    )
    assert budget.scoring(LLAMA, batch_tokens=4096)["cache"] == 4.5


# Disk


def test_disk_by_hand():
    """Five models in bf16 by ZeRO-3, of them a reward model; checkpoints of 2 + 12 bytes a parameter, two at once."""
    trained = ["sft", "reward_model", "dpo", "dpo", "dpo"]
    made = budget.disk(LLAMA, trained=trained, downloads=2, tokens=1e9)
    assert made["models"] * GIB == 10 * N - 2 * (128256 * 4096 - 4096)
    assert (
        made["checkpoints"] * GIB == 28 * N
        and made["downloads"] * GIB == 4 * N
        and made["rows"] * GIB == 1e10
    )
    assert made["total"] == pytest.approx(
        sum(value for name, value in made.items() if name != "total")
    )
    lora = budget.disk(LLAMA, trained=trained, distributed="ddp", lora_rank=32)
    assert lora["models"] == 2 * made["models"] and lora["checkpoints"] < 0.5
    assert budget.disk(LLAMA, trained=[])["total"] == 0


def test_disk_is_what_a_training_writes(tmp_path, world):
    """A training that does not give the model its name, and so keeps its checkpoint.

    By hand, with two processes on the CPU and --bf16: 14.0 bytes a parameter by ZeRO-3, 16.3 by ZeRO-2.
    """
    script = tmp_path / "unpublished.py"
    script.write_text(
        "import runpy, sys, rows\n"
        "rows.publish = lambda *_: sys.exit('not published')\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    flags = "--bf16 False --gradient_checkpointing False --dataloader_pin_memory False --disable_tqdm True".split()
    flags += "--max_steps 2 --save_steps 1 --save_total_limit 1 --hidden_size 256".split()
    command = [
        script,
        "recipes/tiny/2_base_model.py",
        "--dataset_name",
        world / "corpus.jsonl",
        "--output_dir",
    ]
    assert run(*command, tmp_path / "base", *flags).stderr.endswith("not published\n")
    (partial,) = tmp_path.glob("base.partial-*")
    (checkpoint,) = partial.glob("checkpoint-*")
    shape = budget.shape(json.loads((partial / "config.json").read_text()))
    made = budget.disk(shape, trained=["sft"], distributed="ddp")
    model, state = (
        sum(file.stat().st_size for file in at.glob("*.*")) for at in (partial, checkpoint)
    )
    assert model == pytest.approx(made["models"] * GIB, rel=0.02)
    assert state == pytest.approx(made["checkpoints"] / 2 * GIB, rel=0.02)


# The command


def test_the_table_is_printed():
    start = time.time()
    table, _, assumed = ran("preflight/budget.py").stdout.partition("\n\n")
    assert time.time() - start < 1
    header, _, *rows = table.splitlines()
    assert header.endswith("| hours | measured |") and len(rows) == 13
    assert all(row.endswith("| not run |") and row.count("|") == 8 for row in rows)
    assert (
        sum("8 x 80 GB" in row for row in rows) == 5
        and sum("1 x 141 GB" in row for row in rows) == 8
    )
    assert [row.split(" | ")[1] for row in rows if "does not fit" in row] == [
        "sft, ddp",
        "dpo, ddp",
    ]
    assert assumed.startswith("- GiB: ") and "- Hours: 40% of" in assumed and "- Data: " in assumed


def test_one_budget_is_printed_by_part(tmp_path):
    start = time.time()
    assert "--lora_rank" in ran("preflight/budget.py", "--help").stdout and time.time() - start < 1
    flags = "--stage dpo --gpus 8 --gib 80 --distributed zero3 --sequence 2048 --batch 2".split()
    told = dict(line.split()[:2] for line in ran("preflight/budget.py", *flags).stdout.splitlines())
    assert told == {name: f"{value:.1f}" for name, value in parts().items()}
    LlamaConfig(**TINY).save_pretrained(tmp_path)
    told = ran("preflight/budget.py", "--model", tmp_path, "--stage", "generation").stdout
    assert told.splitlines()[-1].split() == ["total", "4.3", "GiB"]
    done = run("preflight/budget.py", *flags, "--gpus", 1)
    assert (
        done.returncode == 1
        and done.stderr == "dpo: does not fit into 80 GiB\n"
        and "total" in done.stdout
    )


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--stage", "ppo"], "no budget for ppo by zero3"),
        (["--stage", "dpo", "--distributed", "zero1"], "no budget for dpo by zero1"),
        (["--stage", "dpo", "--gpus", "0"], "gpus=0"),
        (["--batch", "two"], "invalid int value: 'two'"),
        (["--model", "no/such-model"], "no/such-model: "),
        (["--model", "{gpt2}"], "model_type 'gpt2' is none of llama, mistral, qwen2"),
    ],
)
def test_bad_input_ends_with_one_line(tmp_path, flags, told):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    done = run(
        "preflight/budget.py", *(str(tmp_path) if flag == "{gpt2}" else flag for flag in flags)
    )
    assert done.returncode == 1 and not done.stdout
    assert told in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_shapes_are_frozen_and_the_module_imports_no_library():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LLAMA.layers = 1
    assert dataclasses.replace(LLAMA, tied=True).parameters == N - 128256 * 4096
    code = "import sys; sys.path.insert(0, 'preflight'); import budget; "
    code += "sys.exit(bool({'torch', 'numpy'} & {*sys.modules}))"
    assert run("-c", code).returncode == 0
