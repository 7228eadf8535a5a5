"""preflight/budget.py and its modules against what the libraries allocate, and by hand."""

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

import compute
import footprint
import shapes
from commands import ran, run

LLAMA = shapes.SHAPES["llama3_8b"]
# parameters of LLAMA
N = 8_030_261_248
GIB = 2**30
TINY = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def counted(model, trained=False):
    """Parameters of a model; of those that are trained alone."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)


def config(shape, kind):
    return kind(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=shape.max_length,
    )


# Parameters


@pytest.mark.parametrize(
    ("name", "kind", "published"),
    [
        ("llama3_8b", LlamaConfig, N),
        ("llama3.2_1b", LlamaConfig, 1_235_814_400),
        ("qwen2.5_1.5b", Qwen2Config, 1_543_714_304),
        ("llama3_70b", LlamaConfig, 70_553_706_496),
    ],
)
def test_parameters_of_the_published_models(name, kind, published):
    shape = shapes.SHAPES[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(shape, kind))
    assert shape.parameters == counted(model) == published
    assert shapes.shape(model.config.to_dict()) == shape


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen2Config])
@pytest.mark.parametrize("more", [{}, {"tie_word_embeddings": True}, {"head_dim": 32}])
def test_parameters_of_any_model(kind, more):
    """Of the reward model and of LoRA as well, with the modules that PEFT chooses."""
    from peft import LoraConfig, get_peft_model

    model_config = kind(**TINY, **more, num_labels=1)
    shape = shapes.shape(model_config.to_dict())
    with torch.device("meta"):
        policy = AutoModelForCausalLM.from_config(model_config)
        reward_model = AutoModelForSequenceClassification.from_config(model_config)
        assert shapes.size(shape, "dpo") == shape.parameters == counted(policy)
        assert shapes.size(shape, "reward_model") == counted(reward_model)
        lora = get_peft_model(policy, LoraConfig(r=8, task_type="CAUSAL_LM"))
    assert shapes.size(shape, "dpo", 8) == counted(lora, trained=True)


NOT_OURS = [{"model_type": "gpt2"}, {}, {"model_type": "llama", "hidden_size": "wide"}]


@pytest.mark.parametrize("wrong", NOT_OURS)
def test_another_kind_of_model_is_refused(wrong):
    with pytest.raises(ValueError, match="model_type"):
        shapes.shape(wrong)


# FLOPs


@pytest.mark.parametrize("checkpointing", [False, True])
def test_flops_are_those_that_torch_counts(checkpointing):
    """Forward and backward, and with checkpoints a second forward pass, to 1%.

    In that second pass torch skips the last matrix of each layer, whose result is not needed, and
    transformers skips the head, which TRL's checkpointing does recompute. For an 8B model the four
    passes of the budget are 6% more than the FLOPs that are done.
    """
    from torch.utils.flop_counter import FlopCounterMode

    model_config = LlamaConfig(**TINY, attn_implementation="eager")
    model = AutoModelForCausalLM.from_config(model_config).train()
    shape = shapes.shape(model_config.to_dict())
    ids = torch.randint(1000, (2, 256))
    if checkpointing:
        model.gradient_checkpointing_enable()
    with FlopCounterMode(display=False) as forward:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    expected = compute.flops(shape, ids.numel(), 256)
    # Weights of a layer: 64 x (64 + 32 + 32 + 64) in attention and 64 x 3 x 160 in the MLP.
    layer = 43008
    assert expected == 512 * (2 * 3 * layer + 2 * 64000 + 4 * 3 * 64 * 256)
    assert forward.get_total_flops() == pytest.approx(expected, rel=0.01)
    recomputed = 0
    if checkpointing:
        recomputed = compute.flops(shape, ids.numel(), 256, head=False) - 512 * 2 * 3 * 160 * 64
    assert backward.get_total_flops() == pytest.approx(2 * expected + recomputed, rel=0.01)


def test_hours_by_hand():
    """FLOPs of a token of fine-tuning, for the weights and for attention.

    2 x (32 layers of 218,103,808 weights + 525,336,576 of the head) + 4 x 32 x 4096 x 16384.
    """
    eight = shapes.MACHINES["8x80"]
    single = shapes.MACHINES["1x141"]
    work = {"tokens": 1e9, "context": 16384}
    token = 23_599_251_456
    assert compute.flops(LLAMA, 1, 16384) == token
    hours = compute.training_hours(LLAMA, "sft", eight, **work)
    assert hours == pytest.approx(4 * token * 1e9 / (8 * 989e12 * 0.4) / 3600)
    assert hours == pytest.approx(8.285, abs=1e-3)
    assert compute.training_hours(LLAMA, "sft", single, **work) == pytest.approx(8 * hours)
    lora = compute.training_hours(LLAMA, "sft", eight, lora_rank=32, **work)
    assert lora / hours == pytest.approx((4 * token - 15_009_316_864) / (4 * token))
    with_reference = compute.training_hours(LLAMA, "dpo", eight, reference_tokens=1e9, **work)
    assert with_reference / hours == pytest.approx(5 / 4)

    # Generation. Bytes of the cache of a sequence:
    cache = 500 * 131072
    # A step of 1024 sequences reads 16.1 GB of weights and 67.1 GB of cache: 17.3 ms at the peak
    # bandwidth, more than the 15.8 ms of computing.
    hours = compute.generation_hours(LLAMA, single, tokens=2.4e8, context=500)
    step = (2 * N + 1024 * cache) / 4.8e12
    assert hours == pytest.approx(2.4e8 / 1024 * step / 0.5 / 3600)
    # On 80 GB 0.92 x 79.1 - 4 - 14.96 GiB remain for the cache, 62.5 MiB a sequence: 881 of them.
    hours = compute.generation_hours(LLAMA, eight, tokens=2.4e8, context=500)
    step = (2 * N + 881 * cache) / 3.35e12
    assert hours == pytest.approx(2.4e8 / 881 * step / 0.5 / 8 / 3600)
    # With a short context computing takes longer than reading.
    hours = compute.generation_hours(LLAMA, eight, tokens=2.4e8, context=1)
    assert hours == pytest.approx(2.4e8 * compute.flops(LLAMA, 1, 1) / (8 * 989e12 * 0.5 * 3600))
    llama_70b = shapes.SHAPES["llama3_70b"]
    assert compute.generation_hours(llama_70b, single, tokens=1, context=500) == float("inf")


# Memory


def sum_of_parts(parts):
    return sum(value for name, value in parts.items() if name != "total")


def parts(stage="dpo", gpus=8, sequence=2048, batch=2, distributed="zero3", **more):
    """{part: GiB} of a training of LLAMA."""
    settings = {"gpus": gpus, "sequence": sequence, "batch": batch, "distributed": distributed}
    gib = footprint.training(LLAMA, stage, **settings, **more)
    assert gib["total"] == pytest.approx(sum_of_parts(gib))
    assert all(value >= 0 for value in gib.values())
    return gib


def test_states_by_hand():
    """GiB of 8.03e9 parameters: 29.92 in float32, 14.96 in bf16.

    Adam has two float32 numbers a parameter; ZeRO's optimizer has the float32 weights too.
    """
    ddp = parts(gpus=1, distributed="ddp")
    states = [ddp[name] for name in ("weights", "gradients", "optimizer")]
    assert states == pytest.approx([29.915, 29.915, 59.830], abs=1e-3)
    sharded = parts()
    unsharded = parts(gpus=1)
    gib = {"weights": 1.870, "gradients": 1.870, "optimizer": 11.218}
    for name, value in gib.items():
        assert sharded[name] == pytest.approx(value, abs=1e-3)
        assert unsharded[name] / 8 == pytest.approx(value, abs=1e-3)
        assert sharded[name] == pytest.approx(unsharded[name] / 8, abs=1e-3)
        assert parts(distributed="zero3_offload")[name] == 0
    zero2 = parts(distributed="zero2")
    assert zero2["weights"] == pytest.approx(14.957, abs=1e-3)
    assert zero2["optimizer"] == sharded["optimizer"]
    fsdp = parts(distributed="fsdp")
    assert fsdp["weights"] == pytest.approx(3.739, abs=1e-3)
    assert fsdp["gradients"] > 14.957
    # DDP's buckets are another copy of the gradients.
    assert parts(distributed="ddp")["buffers"] > 29.915 + 2


def test_lora_has_states_of_its_adapters_only():
    """32 layers x rank 32 x (4096 + 4096 for the queries, 4096 + 1024 for the values)."""
    full = parts(gpus=1, distributed="ddp")
    lora = parts(gpus=1, distributed="ddp", lora_rank=32)
    assert lora["gradients"] * GIB == 4 * 32 * 32 * 13312
    assert lora["optimizer"] == 2 * lora["gradients"]
    # The frozen ones are bf16.
    assert full["weights"] / 2 < lora["weights"] < 1.01 * full["weights"] / 2
    sharded = parts(distributed="fsdp", lora_rank=32)["weights"]
    assert sharded == pytest.approx(parts(distributed="fsdp")["weights"] / 2, rel=0.01)
    # In 4 bits: a scale of 4 bytes for 64 numbers of the matrices; the rest is bf16.
    matrices = 32 * 4096 * (2 * 4096 + 2 * 1024 + 3 * 14336)
    adapters = 4 * 32 * 32 * 13312
    four_bit = parts(gpus=1, distributed="ddp", lora_rank=32, four_bit=True)
    expected = (0.5 + 4 / 64) * matrices + 2 * (N - matrices) + adapters
    assert four_bit["weights"] == pytest.approx(expected / GIB)
    assert (four_bit["total"] < 16, lora["total"] < 30) == (True, True)
    gradient_of_head = 4 * 128256 * 4096 / GIB
    assert full["logits"] - lora["logits"] == pytest.approx(gradient_of_head)


def test_pairs_are_two_sequences_in_a_row():
    pair = parts("dpo")
    block = parts("sft")
    reward_model = parts("reward_model")
    assert pair["activations"] > 1.9 * block["activations"]
    assert pair["total"] > block["total"]
    assert reward_model["logits"] == 0
    assert pair["activations"] == reward_model["activations"]
    assert block["activations"] == parts("preference_model")["activations"]
    for stage in ("sft", "dpo"):
        batch_of_4 = parts(stage, batch=4)["activations"]
        assert batch_of_4 == pytest.approx(2 * parts(stage)["activations"])
    # The mask goes over both sequences of a pair, a byte as bool and two as bf16.
    longer = pair["activations"] - 2 * block["activations"]
    assert longer * GIB == pytest.approx(2 * 2 * 2048 * 3 * 2048)


def test_what_fits():
    """The recipe's settings fit on 8 x 80 GB with ZeRO-3.

    Of the full trainings fine-tuning does not fit on a single H200, the others only just.
    """
    gib_of_80 = shapes.MACHINES["8x80"].gib
    gib_of_141 = shapes.MACHINES["1x141"].gib
    for stage, sequence in (("sft", 8192), ("reward_model", 4096), ("dpo", 2048)):
        assert parts(stage, sequence=sequence)["total"] < gib_of_80 / 2
        assert parts(stage, sequence=sequence, distributed="ddp")["total"] > gib_of_80
        full = parts(stage, 1, sequence, 2, "ddp")["total"]
        lora = parts(stage, 1, sequence, 2, "ddp", lora_rank=32)["total"]
        assert lora < gib_of_141 / 5
        assert full > 0.9 * gib_of_141
        assert (full > gib_of_141) == (stage == "sft")


@pytest.mark.parametrize("autocast", [False, True])
def test_a_layer_keeps_what_is_counted(autocast):
    """The bytes that autograd saves in a layer, under autocast and in bf16.

    In the budget the gradients add 4 x intermediate a token.
    """
    from transformers import LlamaModel

    rows, length, hidden, intermediate = 4, 96, 256, 896
    size = {"num_hidden_layers": 1, "hidden_size": hidden, "intermediate_size": intermediate}
    model_config = LlamaConfig(
        **{**TINY, **size, "num_attention_heads": 8}, attn_implementation="sdpa"
    )
    model = LlamaModel(model_config).to(torch.float32 if autocast else torch.bfloat16)
    states = torch.randn(rows, length, hidden, dtype=model.dtype, requires_grad=True)
    positions = torch.arange(length)[None]
    # (rows, heads, queries, keys)
    mask = torch.ones(rows, 1, length, length).tril().bool()
    # {address of its storage: a tensor that autograd keeps}; views share a storage
    saved = {}

    def save(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        out = model.layers[0](
            states,
            attention_mask=mask,
            position_ids=positions,
            position_embeddings=model.rotary_emb(states, positions),
        )
    assert out.requires_grad
    for weight in model.parameters():
        saved.pop(weight.untyped_storage().data_ptr(), None)
    saved_bytes = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())

    distributed = "ddp" if autocast else "zero3"
    settings = {"gpus": 1, "sequence": length, "batch": 2, "distributed": distributed}
    shape = shapes.shape(model_config.to_dict())
    activations = footprint.training(shape, "reward_model", **settings)["activations"] * GIB
    # What the budget counts beside the layer: its input, kept as a checkpoint, and the mask.
    input_bytes = rows * length * hidden * (4 if autocast else 2)
    mask_bytes = rows * length * length
    gradient_bytes = rows * length * 4 * intermediate
    expected = activations - input_bytes - mask_bytes - gradient_bytes
    assert saved_bytes == pytest.approx(expected, rel=0.02)


def test_generation_and_scoring_by_hand():
    """A token of an 8B model's cache: 2 x 32 layers x 8 heads x 128 x 2 bytes, 128 KiB."""
    on_one_gpu = footprint.generation(LLAMA, sequence=8192, tensor_parallel=1)
    on_two_gpus = footprint.generation(LLAMA, sequence=8192, tensor_parallel=2)
    assert on_one_gpu["weights"] == pytest.approx(14.957, abs=1e-3)
    assert on_one_gpu["cache"] == 1
    assert on_one_gpu["total"] * 0.92 == pytest.approx(14.957 + 1 + 4, abs=1e-3)
    assert on_two_gpus["weights"] == on_one_gpu["weights"] / 2
    assert on_two_gpus["cache"] == 0.5
    scoring = footprint.scoring(LLAMA)
    assert scoring["weights"] == pytest.approx((N - 128256 * 4096 + 4096) * 2 / GIB)
    assert scoring["cache"] == 18
    assert footprint.scoring(LLAMA, batch_tokens=4096)["cache"] == 4.5


# Disk


def test_disk_by_hand():
    """Five models in bf16 by ZeRO-3, one of them a reward model.

    Two checkpoints at a time, of 2 + 12 bytes a parameter.
    """
    trained = ["sft", "reward_model", "dpo", "dpo", "dpo"]
    disk = footprint.disk(LLAMA, trained=trained, downloads=2, tokens=1e9)
    assert disk["models"] * GIB == 10 * N - 2 * (128256 * 4096 - 4096)
    assert disk["checkpoints"] * GIB == 28 * N
    assert disk["downloads"] * GIB == 4 * N
    assert disk["rows"] * GIB == 1e10
    assert disk["total"] == pytest.approx(sum_of_parts(disk))
    lora = footprint.disk(LLAMA, trained=trained, distributed="ddp", lora_rank=32)
    assert lora["models"] == disk["models"]
    assert lora["checkpoints"] < 0.5
    assert footprint.disk(LLAMA, trained=[])["total"] == 0


def test_disk_is_what_a_training_writes(tmp_path, world):
    """A training that is stopped before it publishes its model still has its checkpoint.

    Measured once with two processes on the CPU and --bf16: 14.0 bytes a parameter with ZeRO-3,
    16.3 with ZeRO-2.
    """
    script = tmp_path / "unpublished.py"
    script.write_text(
        "import runpy, sys\n"
        "from common import rows\n"
        "rows.publish = lambda *_: sys.exit('not published')\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    flags = "--bf16 False --gradient_checkpointing False".split()
    flags += "--dataloader_pin_memory False --disable_tqdm True".split()
    flags += "--max_steps 2 --save_steps 1 --save_total_limit 1 --hidden_size 256".split()
    flags += ["--dataset_name", world / "corpus.jsonl", "--output_dir", tmp_path / "base"]
    done = run(script, "recipes/tiny/2_base_model.py", *flags)
    assert done.stderr.endswith("not published\n")
    (partial,) = tmp_path.glob("base.partial-*")
    (checkpoint,) = partial.glob("checkpoint-*")

    def size(folder):
        return sum(file.stat().st_size for file in folder.glob("*.*"))

    shape = shapes.shape(json.loads((partial / "config.json").read_text()))
    disk = footprint.disk(shape, trained=["sft"], distributed="ddp")
    assert size(partial) == pytest.approx(disk["models"] * GIB, rel=0.02)
    assert size(checkpoint) == pytest.approx(disk["checkpoints"] / 2 * GIB, rel=0.02)


# The command


def test_the_table_is_printed():
    start = time.time()
    table, _, assumed = ran("preflight/budget.py").stdout.partition("\n\n")
    assert time.time() - start < 1
    header, _, *rows = table.splitlines()
    assert header.endswith("| hours | measured |") and len(rows) == 13
    assert all(row.endswith("| not run |") and row.count("|") == 8 for row in rows)
    assert sum("8 x 80 GB" in row for row in rows) == 5
    assert sum("1 x 141 GB" in row for row in rows) == 8
    too_large = [row.split(" | ")[1] for row in rows if "does not fit" in row]
    assert too_large == ["sft, ddp"]
    assert assumed.startswith("- GiB: ")
    assert "- Hours: 40% of" in assumed
    assert "- Data: " in assumed


def test_the_table_of_sizes_is_printed():
    table = ran("preflight/budget.py", "--sizes").stdout.partition("\n\n")[0]
    rows = [row.split(" | ") for row in table.splitlines()[2:]]
    assert len(rows) == 3 * 3 * 2
    by_row = {(row[0].strip("| "), row[1], row[2][:1]): row[3:5] for row in rows}
    # 8B on one GPU: 4-bit LoRA and LoRA are equally fast, and the former needs less.
    gib, hours = by_row["llama3_8b", "LoRA 32, 4-bit, ddp", "1"]
    assert gib == "17 / 15 / 13"
    assert hours == by_row["llama3_8b", "LoRA 32, ddp", "1"][1]
    # 70B: of three ways that of 4 bits alone fits.
    assert by_row["llama3_70b", "LoRA 32, ddp", "8"][1] == "- / - / -"
    assert "-" not in by_row["llama3_70b", "LoRA 32, 4-bit, ddp", "8"][1]


def test_one_budget_is_printed_by_part(tmp_path):
    assert "--lora_rank" in ran("preflight/budget.py", "--help").stdout
    flags = "--stage dpo --gpus 8 --gib 80 --distributed zero3 --sequence 2048 --batch 2".split()
    lines = ran("preflight/budget.py", *flags).stdout.splitlines()
    printed = dict(line.split()[:2] for line in lines)
    assert printed == {name: f"{value:.1f}" for name, value in parts().items()}
    LlamaConfig(**TINY).save_pretrained(tmp_path)
    printed = ran("preflight/budget.py", "--model", tmp_path, "--stage", "generation").stdout
    assert printed.splitlines()[-1].split() == ["total", "4.3", "GiB"]
    done = run("preflight/budget.py", *flags, "--gpus", 1)
    assert done.returncode == 1
    assert done.stderr == "dpo: does not fit into 80 GiB\n"
    assert "total" in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stage", "ppo"], "no budget for ppo by zero3"),
        (["--stage", "dpo", "--distributed", "zero1"], "no budget for dpo by zero1"),
        (["--stage", "dpo", "--gpus", "0"], "--gpus: 0 is not above 0"),
        (["--stage", "generation", "--sequence", "-5"], "--sequence: -5 is not above 0"),
        (["--sizes", "--stage", "dpo"], "--sizes: not with --stage or --model"),
        (["--sizes", "--model", "llama3_70b"], "--sizes: not with --stage or --model"),
        (
            ["--stage", "dpo", "--lora_rank", "8", "--load_in_4bit"],
            "4-bit weights need a LoRA rank, and ddp",
        ),
        (["--batch", "two"], "invalid int value: 'two'"),
        (["--batch", "2"], "--batch: without effect without --stage"),
        (["--stage", "scoring", "--gpus", "8"], "--gpus: without effect with --stage scoring"),
        (["--model", "no/such-model"], "no/such-model: "),
        (["--model", "{gpt2}"], "model_type 'gpt2' is none of llama, mistral, qwen2"),
    ],
)
def test_bad_input_ends_with_one_line(tmp_path, flags, message):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    flags = [flag.replace("{gpt2}", str(tmp_path)) for flag in flags]
    done = run("preflight/budget.py", *flags)
    assert done.returncode == 1
    assert not done.stdout
    assert message in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_shapes_are_frozen_and_the_module_imports_no_library():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LLAMA.layers = 1
    assert dataclasses.replace(LLAMA, tied=True).parameters == N - 128256 * 4096
    code = "import sys; sys.path.insert(0, 'preflight'); import budget; "
    code += "sys.exit(bool({'torch', 'numpy'} & {*sys.modules}))"
    assert run("-c", code).returncode == 0
