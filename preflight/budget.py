"""GPU memory, hours and disk that a run needs, computed from the model's shape: no weights are loaded, no GPU is asked.

Bytes follow what this repository's flags make of TRL 1.16, transformers 5.19, accelerate 1.15 and DeepSpeed 0.19.8:
float32 weights under bf16 autocast (ddp, fsdp), or bf16 weights and float32 ones in the optimizer (zero2, zero3; arXiv
1910.02054, section 3), AdamW, gradient checkpointing, no logits as a whole. Without --stage it prints docs/scale.md's
table, of recipes/llama3_8b.sh, and what that assumes:

- GiB: estimates for the highest moment, for scoring the most, for generation the least; 2 for CUDA, NCCL and fragments,
  4 for vLLM; a batch of 2. What comes within a tenth of the GPU's may not fit.
- Hours: 40% of the peak FLOP/s in training and scoring, 50% of the bandwidth or FLOP/s in generation. No evaluation.
- Data: 1e9 tokens to fine-tune on, Table 5's 848,965 preferences, 3 rounds of 20,000 prompts with 8 responses and of 2
  epochs of pairs; 500 tokens a prompt with a response, in pairs half as many again of padding.

    python preflight/budget.py --stage dpo --gpus 8 --gib 80 --distributed zero3 --sequence 2048 --batch 2
"""

import argparse
import itertools
import sys
from collections import namedtuple
from dataclasses import make_dataclass

GIB, USED, DECODING = 2**30, 0.4, 0.5  # the last two: shares of a GPU's peak
FIELDS = "layers hidden intermediate heads kv_heads head_dim vocabulary tied max_length".split()


class Shape(
    make_dataclass("Fields", [*FIELDS, ("biases", int, 0)], frozen=True)
):  # tied: its head is its embedding
    head = property(lambda self: self.vocabulary * self.hidden)
    attention = property(lambda self: self.heads * self.head_dim)
    kv = property(lambda self: self.kv_heads * self.head_dim)
    cache = property(lambda self: 4 * self.layers * self.kv)  # bytes a token, in bf16
    layer = property(
        lambda self: self.hidden * (2 * self.attention + 2 * self.kv + 3 * self.intermediate)
    )
    matrices = property(lambda self: self.layers * self.layer)
    body = property(
        lambda self: (
            self.layers * (self.layer + self.biases + 2 * self.hidden) + self.hidden + self.head
        )
    )
    parameters = property(lambda self: self.body + (0 if self.tied else self.head))


SHAPES = {  # of the published config.json files
    "llama3_8b": Shape(32, 4096, 14336, 32, 8, 128, 128256, False, 8192),
    "llama3.2_1b": Shape(16, 2048, 8192, 32, 8, 64, 128256, True, 131072),
    "qwen2.5_1.5b": Shape(28, 1536, 8960, 12, 2, 128, 151936, True, 32768, biases=2048),
    "llama3_70b": Shape(80, 8192, 28672, 64, 8, 128, 128256, False, 8192),
}
Machine = namedtuple("Machine", "name gpus gib flops bandwidth")
MACHINES = {  # of one GPU: GiB as CUDA reports them; bf16 FLOP/s without sparsity and bytes/s of NVIDIA's data sheets
    "8x80": Machine("8 x 80 GB (H100 SXM)", 8, 79.1, 989e12, 3.35e12),
    "1x141": Machine("1 x 141 GB (H200 SXM)", 1, 139.8, 989e12, 4.8e12),
    "1x24": Machine("1 x 24 GB (RTX 4090)", 1, 23.6, 165e12, 1.008e12),
}
TRAININGS = {  # tokens of a row; tokens in all, and those that each attends to: in sft a batch of packed blocks
    "sft": (8192, {"tokens": 1e9, "context": 2 * 8192}),
    "reward_model": (4096, {"tokens": 848_965 * 2 * 750, "context": 750}),
    "dpo": (
        2048,
        {
            "tokens": 3 * 2 * 20_000 * 2 * 750,
            "context": 750,
            "reference_tokens": 3 * 20_000 * 2 * 750,
        },
    ),
}
RESPONSES = {"tokens": 3 * 20_000 * 8 * 500, "context": 500}


def shape(config):
    """The shape that a config.json tells, a dict; ValueError if it is none of the decoders known here.

    Of a model that reads pictures as well it is the language model's alone.
    """
    config = config.get("text_config") or config
    names = "num_hidden_layers hidden_size intermediate_size num_attention_heads vocab_size max_position_embeddings"
    values, kind = [config.get(name) for name in names.split()], config.get("model_type")
    if kind not in ("llama", "mistral", "qwen2") or not all(
        type(value) is int and value > 0 for value in values
    ):
        raise ValueError(
            f"model_type {kind!r} is none of llama, mistral, qwen2, or one of {names} is no number"
        )
    layers, hidden, intermediate, heads, vocabulary, length = values
    kv_heads, head_dim = (
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or hidden // heads,
    )
    tied, biases = (
        bool(config.get("tie_word_embeddings")),
        (heads + 2 * kv_heads) * head_dim * (kind == "qwen2"),
    )
    return Shape(
        layers, hidden, intermediate, heads, kv_heads, head_dim, vocabulary, tied, length, biases
    )


def size(shape, stage, lora_rank=0):
    """Parameters of the model, or of LoRA on queries and values, PEFT's choice; a reward model's head is one row."""
    adapters = shape.layers * lora_rank * (2 * shape.hidden + shape.attention + shape.kv)
    return adapters or (shape.body + shape.hidden if stage == "reward_model" else shape.parameters)


def gib(**parts):
    return {name: value / GIB for name, value in (parts | {"total": sum(parts.values())}).items()}


def training(shape, stage, *, gpus, sequence, batch, distributed="ddp", lora_rank=0):
    """GiB on each GPU by part, at the highest moment of a step; a row is a pair, or a block of packed conversations."""
    pairs = {"sft": 0, "reward_model": 1, "preference_model": 0, "dpo": 1}.get(stage)
    whole, trained, share = size(shape, stage), size(shape, stage, lora_rank), 1 / max(1, gpus)
    # Bytes a parameter: weights, gradients (FSDP's are whole in bf16 while it accumulates), optimizer, reference (stays
    # after its only use), ZeRO's float32 gradients in the update. Bytes: buckets, parameters that are gathered.
    states = {
        "ddp": (4, 4, 8, 4, 0, 4 * trained if gpus > 1 else 0),
        "zero2": (2, 2 * share, 12 * share, 2, 4 * share, 2e9),
        "zero3": (
            2 * share,
            2 * share,
            12 * share,
            2 * share,
            4 * share,
            2e9 + 2 * min(whole, 1e9),
        ),
        "zero3_offload": (
            0,
            0,
            0,
            0,
            0,
            2e9 + 2 * min(whole, 1e9),
        ),  # 20 bytes a parameter in the machine's memory
        "fsdp": (4 * share, 4 * share + 2, 8 * share, 4 * share, 0, 4 * (shape.layer + shape.head)),
    }.get(distributed)
    if pairs is None or not states or min(gpus, sequence, batch) < 1 or lora_rank < 0:
        raise ValueError(
            f"no budget for {stage} by {distributed}, {gpus=} {sequence=} {batch=} {lora_rank=}"
        )
    weights, gradients, optimizer, reference, update, buffers = states
    tokens, amp = (
        batch * sequence * (1 + pairs),
        distributed == "ddp",
    )  # autocast keeps what flows in float32
    row = sequence if pairs else tokens  # packed, all blocks of a batch are one row, with a mask
    # Inputs of all layers, mask, one layer's cast weights; what one keeps and makes in its backward pass, mask in bf16.
    stored = (
        tokens * (shape.layers * shape.hidden * (4 if amp else 2) + row) + 2 * shape.layer * amp
    )
    layer = tokens * (
        12 * shape.intermediate + 8 * shape.attention + (26 if amp else 16) * shape.hidden + 2 * row
    )
    # TRL's head works in tiles of 4096 tokens and 32768 words; its gradient is float32 first, then as the weights are.
    logits = 65536 * (min(tokens, 4096) + shape.hidden) + 4 * tokens * shape.hidden
    logits = (logits + shape.head * (4 if amp else 6) * (not lora_rank)) * (stage != "reward_model")
    # The moments: the end of the forward pass, when autocast holds copies of all that is trained; backward; the update.
    highest = max(
        stored + 2 * shape.matrices * (amp and not lora_rank),
        stored + layer + logits,
        update * trained,
    )
    return gib(
        weights=weights * (whole + (trained if lora_rank else 0)), gradients=gradients * trained,
        optimizer=optimizer * trained, reference=reference * whole if stage == "dpo" else 0,
        activations=stored + layer, logits=logits, buffers=2 * GIB + buffers + highest - stored - layer - logits,
    )  # fmt: skip


def generation(shape, *, sequence, tensor_parallel=1):
    """GiB that vLLM needs at least, for one sequence; it takes 0.92 of the GPU in any case and leaves the rest."""
    weights, cache = (
        2 * shape.parameters / tensor_parallel,
        shape.cache * sequence / tensor_parallel,
    )
    return gib(
        weights=weights, cache=cache, buffers=(weights + cache + 4 * GIB) / 0.92 - weights - cache
    )


def scoring(shape, *, batch_tokens=16384):
    """GiB that annotation/1a_reward_model.py needs at most: prompts much longer than their answers."""
    cache = (
        shape.cache * batch_tokens * 9
    )  # of prompts, and of 8 times as many tokens: a copy for each answer
    layer = (
        8 * shape.cache * batch_tokens * shape.heads / shape.kv_heads / shape.layers
    )  # of one layer, for every head
    layer += batch_tokens * (
        6 * shape.intermediate + 16 * shape.hidden + 3 * min(shape.max_length, batch_tokens)
    )
    return gib(
        weights=2 * size(shape, "reward_model"), cache=cache, activations=layer, buffers=2 * GIB
    )


def disk(shape, *, trained, distributed="zero3", lora_rank=0, downloads=0, tokens=0):
    """GiB there at once: models of the stages `trained`, two checkpoints, models of the hub; texts, 5 bytes a token."""
    saved, state = {"ddp": (4, 12), "fsdp": (4, 16), "zero2": (2, 16)}.get(
        distributed, (2, 14)
    )  # bytes a parameter
    models = saved * sum(size(shape, stage) for stage in trained)
    checkpoints = (
        2 * state * max([0, *(size(shape, stage, lora_rank) for stage in trained)])
    )  # until the next is whole
    return gib(
        models=models,
        checkpoints=checkpoints,
        downloads=2 * shape.parameters * downloads,
        rows=2 * 5 * tokens,
    )


def flops(shape, tokens, context, head=True):
    """Of a forward pass in which each token attends to `context` tokens: kernels with a mask skip none."""
    return tokens * (
        2 * (shape.matrices + shape.head * head) + 4 * shape.layers * shape.attention * context
    )


def training_hours(shape, stage, machine, *, tokens, context, lora_rank=0, reference_tokens=0):
    """Two forward passes and a backward as dear as two, with LoRA less one of the matrices: they get no gradient."""
    head = stage != "reward_model"
    work = 4 * flops(shape, tokens, context, head) - (
        flops(shape, tokens, 0, head) if lora_rank else 0
    )
    return (work + flops(shape, reference_tokens, context)) / (
        machine.gpus * machine.flops * USED * 3600
    )


def scoring_hours(shape, machine, *, tokens, context):
    return flops(shape, tokens, context, head=False) / (machine.gpus * machine.flops * USED * 3600)


def generation_hours(shape, machine, *, tokens, context, tensor_parallel=1):
    """For each token of a batch the weights and the cache are read, and computed with; infinite if no sequence fits."""
    room = tensor_parallel * (0.92 * machine.gib - 4) * GIB - 2 * shape.parameters
    batch = min(
        1024 if machine.gib >= 70 else 256, room // (shape.cache * context)
    )  # vLLM's max_num_seqs
    read, work = 2 * shape.parameters + batch * shape.cache * context, flops(shape, batch, context)
    seconds = max(read / machine.bandwidth, work / machine.flops) / DECODING / machine.gpus
    return tokens / batch * seconds / 3600 if batch >= 1 else float("inf")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.error = lambda message: sys.exit(f"budget.py: {message}")
    parser.add_argument(
        "--model", default="llama3_8b", help=f"{', '.join(SHAPES)}; a directory; a name on the hub"
    )
    parser.add_argument(
        "--stage", help="sft, reward_model, preference_model, dpo, generation or scoring: by part"
    )
    parser.add_argument(
        "--distributed", default="zero3", help="ddp, zero2, zero3, zero3_offload or fsdp"
    )
    for name, default in {
        "gpus": 8,
        "gib": 80,
        "sequence": 2048,
        "batch": 2,
        "lora_rank": 0,
    }.items():
        parser.add_argument(
            f"--{name}", type=int, default=default, help=f"of --stage (default: {default})"
        )
    how = vars(parser.parse_args())
    name, stage, room = (how.pop(key) for key in ("model", "stage", "gib"))
    try:  # the import takes seconds
        model = SHAPES.get(name) or shape(
            __import__("transformers").AutoConfig.from_pretrained(name).to_dict()
        )
        if stage == "generation":
            parts = generation(model, sequence=how["sequence"])
        elif stage:
            parts = scoring(model) if stage == "scoring" else training(model, stage, **how)
    except (OSError, ValueError) as error:
        sys.exit(f"{name}: {str(error).splitlines()[0]}")
    if stage:
        print(*(f"{part:12}{value:8.1f} GiB" for part, value in parts.items()), sep="\n")
        sys.exit(0 if parts["total"] <= room else f"{stage}: does not fit into {room} GiB")
    print(
        "| GPUs | stage | GiB on each | of which | EFLOP | hours | measured |\n"
        + "| --- " * 7
        + "|"
    )
    for machine, way, ranks in (
        (MACHINES["8x80"], "zero3", [0]),
        (MACHINES["1x141"], "ddp", [0, 32]),
    ):
        rows, peak = [], machine.gpus * machine.flops * USED * 3600
        for rank, (stage, (row, work)) in itertools.product(ranks, TRAININGS.items()):
            hours = training_hours(model, stage, machine, lora_rank=rank, **work)
            parts = training(
                model,
                stage,
                gpus=machine.gpus,
                sequence=row,
                batch=2,
                distributed=way,
                lora_rank=rank,
            )
            rows += [(f"{stage}, {f'LoRA {rank}' if rank else way}", parts, hours * peak, hours)]
        took = (
            generation_hours(model, machine, **RESPONSES),
            scoring_hours(model, machine, **RESPONSES),
        )
        rows += [
            (
                "generation",
                generation(model, sequence=model.max_length),
                flops(model, **RESPONSES),
                took[0],
            )
        ]
        rows += [("scoring", scoring(model), took[1] * peak, took[1])]
        for title, parts, work, hours in rows:
            largest = ", ".join(
                f"{p} {parts[p]:.0f}" for p in sorted(parts, key=parts.get, reverse=True)[1:4]
            )
            told = (
                f"{work / 1e18:.3g} | {hours:.1f}"
                if parts["total"] <= machine.gib
                else "- | does not fit"
            )
            print(
                f"| {machine.name} | {title} | {parts['total']:.0f} | {largest} | {told} | not run |"
            )
    print("\n" + __doc__.split("\n\n")[2])


if __name__ == "__main__":
    main()
