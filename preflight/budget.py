"""Estimate the GPU memory, hours and disk of a run from the model's shape; no weights are loaded.

Bytes follow what this repository's flags make of TRL 1.16, transformers 5.19, accelerate 1.15 and
DeepSpeed 0.19.8. ddp and fsdp train float32 weights under bf16 autocast; zero2 and zero3 train bf16
weights, with float32 ones in the optimizer (arXiv 1910.02054, section 3). All use AdamW and
gradient checkpointing, and never hold the logits of all tokens at once. Without --stage the script
prints the table of docs/scale.md, for recipes/llama3_8b.sh, and what that table assumes:

- GiB: estimates for the highest moment, for scoring the most, for generation the least; 2 for CUDA,
  NCCL and fragments, 4 for vLLM; a batch of 2. What comes within a tenth of the GPU's may not fit.
- Hours: 40% of the peak FLOP/s in training and scoring, 50% of the bandwidth or FLOP/s in
  generation. No evaluation.
- Data: 1e9 tokens to fine-tune on, Table 5's 848,965 preferences, 3 rounds of 20,000 prompts with 8
  responses and of 2 epochs of pairs; 500 tokens a prompt with a response, in pairs half as many
  again of padding.

    python preflight/budget.py --stage dpo --gpus 8 --gib 80 --distributed zero3 \
        --sequence 2048 --batch 2
"""

import argparse
import sys
from dataclasses import dataclass

GIB = 2**30
# Shares of a GPU's peak that are reached: of its FLOP/s in training and scoring, and of its
# bandwidth or FLOP/s in generation.
COMPUTE_UTILISATION = 0.4
DECODING_UTILISATION = 0.5
VLLM_SHARE = 0.92  # of a GPU's memory
VLLM_OVERHEAD = 4 * GIB
CUDA_OVERHEAD = 2 * GIB  # CUDA's context, NCCL and fragmentation

CONFIG_KEYS = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)
DISTRIBUTED = ("ddp", "zero2", "zero3", "zero3_offload", "fsdp")
SEQUENCES_PER_ROW = {"sft": 1, "reward_model": 2, "preference_model": 1, "dpo": 2}
# TRL's head projects tiles of so many tokens and words (TOKEN_CHUNK_SIZE in
# trl/kernels/chunked_logprob.py, _CHUNKED_LOGPROB_CHUNK_SIZE in trl/trainer/utils.py).
TILE_TOKENS = 4096
TILE_WORDS = 32768


# Models, machines and the work of the paper's run


@dataclass(frozen=True)
class Shape:
    """The sizes in a decoder's config.json, and the numbers of parameters that follow from them."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool  # the head shares the embedding's weights
    max_length: int
    biases: int = 0  # of one layer

    @property
    def head(self):
        """Parameters of the language model's head; the embedding has as many."""
        return self.vocabulary * self.hidden

    @property
    def attention(self):
        """Numbers that a token's queries have in one layer, all heads together."""
        return self.heads * self.head_dim

    @property
    def kv(self):
        """Numbers that a token's keys have in one layer; its values have as many."""
        return self.kv_heads * self.head_dim

    @property
    def cache(self):
        """Bytes of a token in the KV cache: keys and values of all layers in bf16."""
        return 4 * self.layers * self.kv

    @property
    def layer(self):
        """Parameters of one layer's matrices."""
        query_and_output = 2 * self.attention
        key_and_value = 2 * self.kv
        mlp = 3 * self.intermediate
        return self.hidden * (query_and_output + key_and_value + mlp)

    @property
    def matrices(self):
        """Parameters of all layers' matrices."""
        return self.layers * self.layer

    @property
    def body(self):
        """Parameters of the model without its head: layers with two norms each, norm, embedding."""
        layers = self.layers * (self.layer + self.biases + 2 * self.hidden)
        return layers + self.hidden + self.head

    @property
    def parameters(self):
        if self.tied:
            return self.body
        return self.body + self.head


@dataclass(frozen=True)
class Machine:
    """The number of GPUs, and the sizes of one: GiB, bf16 FLOP/s, bytes/s of its memory."""

    name: str
    gpus: int
    gib: float
    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Work:
    """The tokens that a stage processes; each of them attends to `context` tokens."""

    tokens: float
    context: int
    reference_tokens: int = 0  # that the reference model scores
    sequence: int = 0  # tokens of the longest row in training


# Of the published config.json files.
SHAPES = {
    "llama3_8b": Shape(32, 4096, 14336, 32, 8, 128, 128256, False, 8192),
    "llama3.2_1b": Shape(16, 2048, 8192, 32, 8, 64, 128256, True, 131072),
    "qwen2.5_1.5b": Shape(28, 1536, 8960, 12, 2, 128, 151936, True, 32768, biases=2048),
    "llama3_70b": Shape(80, 8192, 28672, 64, 8, 128, 128256, False, 8192),
}
# GiB as CUDA reports them; FLOP/s without sparsity and bytes/s of NVIDIA's data sheets.
MACHINES = {
    "8x80": Machine("8 x 80 GB (H100 SXM)", 8, 79.1, 989e12, 3.35e12),
    "1x141": Machine("1 x 141 GB (H200 SXM)", 1, 139.8, 989e12, 4.8e12),
    "1x24": Machine("1 x 24 GB (RTX 4090)", 1, 23.6, 165e12, 1.008e12),
}

ROUNDS = 3
PROMPTS = 20_000  # of a round
PREFERENCES = 848_965  # Table 5
EPOCHS = 2  # of a round's pairs
RESPONSE_TOKENS = 500  # with the prompt
PADDED_TOKENS = 750  # of a response in a pair, with padding
PAIR_TOKENS = 2 * PADDED_TOKENS
TRAININGS = {
    # A packed batch of two blocks is one row: each token's attention goes over both.
    "sft": Work(1e9, context=2 * 8192, sequence=8192),
    "reward_model": Work(PREFERENCES * PAIR_TOKENS, context=PADDED_TOKENS, sequence=4096),
    "dpo": Work(
        ROUNDS * EPOCHS * PROMPTS * PAIR_TOKENS,
        context=PADDED_TOKENS,
        reference_tokens=ROUNDS * PROMPTS * PAIR_TOKENS,
        sequence=2048,
    ),
}
RESPONSES = Work(ROUNDS * PROMPTS * 8 * RESPONSE_TOKENS, context=RESPONSE_TOKENS)


def shape(config):
    """The Shape of a config.json, which is a dict; ValueError if it is no decoder known here.

    The Shape of a model that reads pictures as well is its language model's alone.
    """
    config = config.get("text_config") or config
    kind = config.get("model_type")
    values = [config.get(key) for key in CONFIG_KEYS]
    # A bool is an int to isinstance, but no size.
    numbers = all(type(value) is int and value > 0 for value in values)
    if kind not in ("llama", "mistral", "qwen2") or not numbers:
        raise ValueError(
            f"model_type {kind!r} is none of llama, mistral, qwen2, "
            f"or one of {' '.join(CONFIG_KEYS)} is no number"
        )
    layers, hidden, intermediate, heads, vocabulary, max_length = values
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or hidden // heads
    biases = 0
    if kind == "qwen2":  # queries, keys and values have one each
        biases = (heads + 2 * kv_heads) * head_dim
    return Shape(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=vocabulary,
        tied=bool(config.get("tie_word_embeddings")),
        max_length=max_length,
        biases=biases,
    )


def size(shape, stage, lora_rank=0):
    """Parameters that a stage trains: the whole model, or LoRA's adapters of that rank.

    PEFT's choice for LoRA are the matrices of queries and values. A reward model's head is one row.
    """
    if lora_rank:
        query_adapter = shape.hidden + shape.attention
        value_adapter = shape.hidden + shape.kv
        return shape.layers * lora_rank * (query_adapter + value_adapter)
    if stage == "reward_model":
        return shape.body + shape.hidden
    return shape.parameters


# Memory


def gib(**parts):
    """{part: GiB} of parts in bytes, with their total."""
    parts["total"] = sum(parts.values())
    return {name: value / GIB for name, value in parts.items()}


@dataclass(frozen=True)
class TrainingState:
    """What one GPU holds besides activations: bytes a parameter, but of the buffers bytes."""

    buffers: float
    weights: float = 0
    gradients: float = 0
    optimizer: float = 0
    reference: float = 0  # the model stays in memory after its only use
    update: float = 0  # float32 gradients, which ZeRO makes in the optimizer's step


def training_state(shape, distributed, gpus, model_size, trained):
    """The TrainingState by kind of distribution; where state is shared out, of one GPU's share.

    model_size, trained: parameters of the model, and those that are trained.
    """
    share = 1 / gpus
    deepspeed_buckets = 2 * 2 * 5e8  # two of 5e8 numbers in bf16
    # ZeRO-3 gathers at most 1e9 parameters at a time (stage3_max_live_parameters), in bf16.
    gathered = 2 * min(model_size, 1e9)
    if distributed == "ddp":
        return TrainingState(
            weights=4,  # float32
            gradients=4,
            optimizer=8,  # Adam's two moments in float32
            reference=4,
            buffers=4 * trained if gpus > 1 else 0,  # buckets: the gradients once more
        )
    if distributed == "zero2":
        return TrainingState(
            weights=2,  # bf16, on each GPU
            gradients=2 * share,
            optimizer=12 * share,  # float32 weights and Adam's two moments
            reference=2,
            update=4 * share,
            buffers=deepspeed_buckets,
        )
    if distributed == "zero3":
        return TrainingState(
            weights=2 * share,
            gradients=2 * share,
            optimizer=12 * share,
            reference=2 * share,
            update=4 * share,
            buffers=deepspeed_buckets + gathered,
        )
    if distributed == "zero3_offload":
        # The state, 20 bytes a parameter, is in the machine's memory.
        return TrainingState(buffers=deepspeed_buckets + gathered)
    return TrainingState(  # fsdp
        weights=4 * share,  # float32
        gradients=4 * share + 2,  # all of them in bf16 while a GPU accumulates
        optimizer=8 * share,
        reference=4 * share,
        # A layer and the head are gathered in bf16 and copied out of that buffer.
        buffers=(2 + 2) * (shape.layer + shape.head),
    )


def stored_activations(shape, tokens, attended, autocast):
    """Bytes that stay from the forward pass to the backward pass: the inputs of all layers.

    tokens: of the batch. attended: tokens of a row, over which the mask goes.
    """
    mask = attended  # a byte each
    if autocast:
        layer_inputs = 4 * shape.layers * shape.hidden  # float32
        cast_weights = 2 * shape.layer  # one layer's at a time, in bf16
    else:
        layer_inputs = 2 * shape.layers * shape.hidden  # bf16
        cast_weights = 0
    return tokens * (layer_inputs + mask) + cast_weights


def layer_activations(shape, tokens, attended, autocast):
    """Bytes of the layer whose forward pass is repeated and then differentiated.

    They are the tensors that autograd saves, which tests/test_budget.py counts, and gradients.
    """
    # The gate, its SiLU, the up projection and the product of the last two, in bf16. In the
    # backward pass two gradients of that size come on top.
    saved_mlp = 4 * 2 * shape.intermediate
    mlp_gradients = 2 * 2 * shape.intermediate
    # Queries, keys and values (repeated for every query head) and the output, in bf16.
    attention = 4 * 2 * shape.attention
    if autocast:
        # Two norms save their input (of the first it is the stored one, counted twice) and its
        # normalized value in float32. Five projections, q, k, v, gate and up, each save a bf16
        # copy of the norm's output.
        norms = 2 * (4 + 4) * shape.hidden
        projection_inputs = 5 * 2 * shape.hidden
    else:
        # Two norms save their input in float32 and its normalized value in bf16. The projections
        # after each save the norm's output, in bf16, together.
        norms = 2 * (4 + 2) * shape.hidden
        projection_inputs = 2 * 2 * shape.hidden
    mask = 2 * attended  # in bf16
    saved = saved_mlp + attention + norms + projection_inputs + mask
    return tokens * (saved + mlp_gradients)


def head_activations(shape, tokens, autocast, lora_rank):
    """Bytes that TRL's head needs in the backward pass, with the gradient of its weights."""
    tile_logits = 2 * TILE_WORDS * min(tokens, TILE_TOKENS)  # in bf16
    tile_weights = 2 * TILE_WORDS * shape.hidden  # the head's rows of a tile, cast to bf16
    hidden_gradient = 4 * tokens * shape.hidden  # in float32
    if lora_rank:
        weight_gradient = 0
    elif autocast:
        weight_gradient = 4 * shape.head  # in float32, as the weights
    else:
        weight_gradient = (4 + 2) * shape.head  # in float32 first, then in bf16, as the weights
    return tile_logits + tile_weights + hidden_gradient + weight_gradient


def training(shape, stage, *, gpus, sequence, batch, distributed="ddp", lora_rank=0):
    """{part: GiB} of each GPU, at the highest moment of a training step.

    sequence, batch: tokens of a row, and rows of a GPU at a time. A row is a pair of sequences, or
    a block of packed conversations. ValueError for a stage that is no training.
    """
    supported = stage in SEQUENCES_PER_ROW and distributed in DISTRIBUTED
    if not supported or min(gpus, sequence, batch) < 1 or lora_rank < 0:
        raise ValueError(
            f"no budget for {stage} by {distributed}, {gpus=} {sequence=} {batch=} {lora_rank=}"
        )
    model_size = size(shape, stage)
    trained = size(shape, stage, lora_rank)
    state = training_state(shape, distributed, gpus, model_size, trained)
    # Under ddp the weights are float32, and autocast leaves what flows between the layers in
    # float32. With the others the model computes with bf16 weights.
    autocast = distributed == "ddp"
    tokens = batch * sequence * SEQUENCES_PER_ROW[stage]
    # All packed blocks of a batch are one row, with a mask.
    attended = sequence if SEQUENCES_PER_ROW[stage] == 2 else tokens

    stored = stored_activations(shape, tokens, attended, autocast)
    layer = layer_activations(shape, tokens, attended, autocast)
    logits = 0
    if stage != "reward_model":
        logits = head_activations(shape, tokens, autocast, lora_rank)

    # Three moments compete: the end of the forward pass, when autocast holds bf16 copies of all
    # matrices that are trained; the backward pass; the optimizer's step. The parts below describe
    # the backward pass, and what another moment takes beyond it counts as buffers.
    cast_matrices = 0
    if autocast and not lora_rank:
        cast_matrices = 2 * shape.matrices
    forward = stored + cast_matrices
    backward = stored + layer + logits
    highest = max(forward, backward, state.update * trained)
    adapters = trained if lora_rank else 0
    return gib(
        weights=state.weights * (model_size + adapters),
        gradients=state.gradients * trained,
        optimizer=state.optimizer * trained,
        reference=state.reference * model_size if stage == "dpo" else 0,
        activations=stored + layer,
        logits=logits,
        buffers=CUDA_OVERHEAD + state.buffers + highest - stored - layer - logits,
    )


def generation(shape, *, sequence, tensor_parallel=1):
    """{part: GiB} that vLLM needs at least, for a single sequence of that length.

    vLLM takes 0.92 of the GPU's memory in any case and leaves the rest.
    """
    weights = 2 * shape.parameters / tensor_parallel  # in bf16
    cache = shape.cache * sequence / tensor_parallel
    total = (weights + cache + VLLM_OVERHEAD) / VLLM_SHARE
    return gib(weights=weights, cache=cache, buffers=total - weights - cache)


def scoring(shape, *, batch_tokens=16384):
    """{part: GiB} that annotation/1a_reward_model.py needs at most.

    That is for prompts that are much longer than their responses.
    """
    # The script puts prompts of batch_tokens tokens into the cache. For a batch of responses it
    # copies the cache of each one's prompt, up to 8 times as many tokens.
    copied_tokens = 8 * batch_tokens
    cache = shape.cache * (batch_tokens + copied_tokens)
    # One layer's keys and values at a time are repeated for every query head.
    repeated = copied_tokens * shape.cache * shape.heads / shape.kv_heads / shape.layers
    mlp = 3 * 2 * shape.intermediate  # SiLU of the gate, up projection and their product, in bf16
    norms = 16 * shape.hidden  # as much as in a layer's training in bf16, an upper bound
    mask = 3 * min(shape.max_length, batch_tokens)  # a byte each, and bf16
    return gib(
        weights=2 * size(shape, "reward_model"),
        cache=cache,
        activations=repeated + batch_tokens * (mlp + norms + mask),
        buffers=CUDA_OVERHEAD,
    )


# Disk


def disk(shape, *, trained, distributed="zero3", lora_rank=0, downloads=0, tokens=0):
    """{part: GiB} that are on the disk at the same time.

    trained: the stages, one for each model that the run saves. downloads: models of the hub.
    tokens: of all responses.
    """
    # Bytes a parameter, of a saved model and of a checkpoint. A checkpoint has the model as it is
    # saved, too, and Adam's moments (8).
    if distributed == "ddp":
        model_bytes = 4
        checkpoint_bytes = 4 + 8
    elif distributed == "fsdp":
        model_bytes = 4
        checkpoint_bytes = 4 + 8 + 4  # FSDP saves the weights once more
    elif distributed == "zero2":
        model_bytes = 2
        checkpoint_bytes = 2 + 12 + 2  # float32 weights beside the moments; bf16 ones once more
    else:
        model_bytes = 2
        checkpoint_bytes = 2 + 12  # float32 weights beside the moments
    models = sum(size(shape, stage) for stage in trained)
    largest_trained = max((size(shape, stage, lora_rank) for stage in trained), default=0)
    return gib(
        models=model_bytes * models,
        # The last one goes when the next is complete.
        checkpoints=2 * checkpoint_bytes * largest_trained,
        downloads=2 * shape.parameters * downloads,
        # 5 bytes a token: as responses, and again with their rewards.
        rows=2 * 5 * tokens,
    )


# Hours


def flops(shape, tokens, context, head=True):
    """FLOPs of a forward pass in which each token attends to `context` tokens.

    Attention counts all of them: kernels with a mask skip none.
    """
    parameters = shape.matrices
    if head:
        parameters += shape.head
    # A multiplication and an addition: for each parameter, and in attention for each number of a
    # key and of a value.
    attention = 2 * 2 * shape.layers * shape.attention * context
    return tokens * (2 * parameters + attention)


def hours_at_peak(machine, work):
    """Hours for that many FLOPs, in training or scoring."""
    return work / (machine.gpus * machine.flops * COMPUTE_UTILISATION * 3600)


def training_flops(shape, stage, *, tokens, context, lora_rank=0, reference_tokens=0):
    """FLOPs of a training, with the reference model's forward pass over `reference_tokens`."""
    head = stage != "reward_model"
    # A forward pass, another one for the checkpointed layers, and a backward pass that costs two:
    # gradients of the activations, and of the matrices.
    work = 4 * flops(shape, tokens, context, head)
    if lora_rank:
        work -= flops(shape, tokens, 0, head)  # frozen matrices get no gradient
    return work + flops(shape, reference_tokens, context)


def training_hours(shape, stage, machine, **work):
    return hours_at_peak(machine, training_flops(shape, stage, **work))


def scoring_hours(shape, machine, *, tokens, context):
    """Hours of one forward pass, without the language model's head."""
    return hours_at_peak(machine, flops(shape, tokens, context, head=False))


def generation_hours(shape, machine, *, tokens, context, tensor_parallel=1):
    """Hours of generation; infinite if not one sequence fits beside the weights.

    For each token of a batch the weights and the cache are read, and computed with.
    """
    weights = 2 * shape.parameters  # bytes in bf16
    room = tensor_parallel * (VLLM_SHARE * machine.gib - 4) * GIB - weights
    max_sequences = 1024 if machine.gib >= 70 else 256  # vLLM's default of max_num_seqs
    batch = min(max_sequences, room // (shape.cache * context))
    if batch < 1:
        return float("inf")
    bytes_read = weights + batch * shape.cache * context
    work = flops(shape, batch, context)
    seconds = max(bytes_read / machine.bandwidth, work / machine.flops)
    seconds = seconds / DECODING_UTILISATION / machine.gpus
    return tokens / batch * seconds / 3600


# The command


def parse_arguments():
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
    numbers = {"gpus": 8, "gib": 80, "sequence": 2048, "batch": 2, "lora_rank": 0}
    for name, default in numbers.items():
        parser.add_argument(
            f"--{name}", type=int, default=default, help=f"of --stage (default: {default})"
        )
    return parser.parse_args()


def load_shape(name):
    """The Shape of a model that is listed here, in a directory or on the hub."""
    if name in SHAPES:
        return SHAPES[name]
    from transformers import AutoConfig  # takes seconds

    return shape(AutoConfig.from_pretrained(name).to_dict())


def stage_memory(model, args):
    """{part: GiB} of the stage that the arguments name."""
    if args.stage == "generation":
        return generation(model, sequence=args.sequence)
    if args.stage == "scoring":
        return scoring(model)
    return training(
        model,
        args.stage,
        gpus=args.gpus,
        sequence=args.sequence,
        batch=args.batch,
        distributed=args.distributed,
        lora_rank=args.lora_rank,
    )


@dataclass(frozen=True)
class Estimate:
    """A line of the table: the stage, its GiB by part, its FLOPs and its hours."""

    title: str
    parts: dict
    flops: float
    hours: float


def training_estimates(model, machine, distributed, lora_rank=0):
    """Yields the Estimate of each training, with a batch of 2."""
    for stage, work in TRAININGS.items():
        parts = training(
            model,
            stage,
            gpus=machine.gpus,
            sequence=work.sequence,
            batch=2,
            distributed=distributed,
            lora_rank=lora_rank,
        )
        computed = training_flops(
            model,
            stage,
            tokens=work.tokens,
            context=work.context,
            lora_rank=lora_rank,
            reference_tokens=work.reference_tokens,
        )
        title = f"{stage}, LoRA {lora_rank}" if lora_rank else f"{stage}, {distributed}"
        yield Estimate(title, parts, computed, hours_at_peak(machine, computed))


def response_estimates(model, machine):
    """Yields the Estimates of generating the responses of all rounds, and of scoring them."""
    tokens = RESPONSES.tokens
    context = RESPONSES.context
    memory = generation(model, sequence=model.max_length)
    hours = generation_hours(model, machine, tokens=tokens, context=context)
    yield Estimate("generation", memory, flops(model, tokens, context), hours)
    hours = scoring_hours(model, machine, tokens=tokens, context=context)
    yield Estimate("scoring", scoring(model), flops(model, tokens, context, head=False), hours)


def print_lines(machine, estimates):
    for estimate in estimates:
        parts = dict(estimate.parts)
        total = parts.pop("total")
        largest = sorted(parts, key=parts.get, reverse=True)[:3]
        largest = ", ".join(f"{name} {parts[name]:.0f}" for name in largest)
        time = "- | does not fit"
        if total <= machine.gib:
            time = f"{estimate.flops / 1e18:.3g} | {estimate.hours:.1f}"
        print(f"| {machine.name} | {estimate.title} | {total:.0f} | {largest} | {time} | not run |")


def print_table(model):
    """The table of docs/scale.md: the recipe on 8 GPUs, and what a single large one can do."""
    print("| GPUs | stage | GiB on each | of which | EFLOP | hours | measured |")
    print("| --- " * 7 + "|")
    machine = MACHINES["8x80"]
    print_lines(machine, training_estimates(model, machine, "zero3"))
    print_lines(machine, response_estimates(model, machine))
    machine = MACHINES["1x141"]
    print_lines(machine, training_estimates(model, machine, "ddp"))
    print_lines(machine, training_estimates(model, machine, "ddp", lora_rank=32))
    print_lines(machine, response_estimates(model, machine))


def main():
    args = parse_arguments()
    try:
        model = load_shape(args.model)
        parts = stage_memory(model, args) if args.stage else {}
    except (OSError, ValueError) as error:
        sys.exit(f"{args.model}: {str(error).splitlines()[0]}")
    if not args.stage:
        print_table(model)
        assumptions = __doc__.split("\n\n")[2]
        print(f"\n{assumptions}")
        return
    for part, size_in_gib in parts.items():
        print(f"{part:12}{size_in_gib:8.1f} GiB")
    if parts["total"] > args.gib:
        sys.exit(f"{args.stage}: does not fit into {args.gib} GiB")


if __name__ == "__main__":
    main()
