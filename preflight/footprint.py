"""GPU memory and disk of each stage, from the model's shape.

Bytes follow what this repository's flags make of TRL 1.16, transformers 5.19, accelerate 1.15 and
DeepSpeed 0.19.8. ddp trains float32 weights under bf16 autocast, or float32 adapters (LoRA) of bf16
or 4-bit weights; fsdp float32 shards, or adapters, computed in bf16 without autocast; zero2 and
zero3 train bf16 weights, with float32 ones in the optimizer (arXiv 1910.02054, section 3). All use
AdamW and gradient checkpointing, and never hold the logits of all tokens at once. DPO's pairs have
the reference's log-probabilities. Estimates of training are for the highest moment and the longest
rows, of scoring for the most, of generation for the least.
"""

from dataclasses import dataclass

from shapes import GIB, size

VLLM_SHARE = 0.92  # of a GPU's memory
VLLM_OVERHEAD = 4 * GIB
CUDA_OVERHEAD = 2 * GIB  # CUDA's context, NCCL and fragmentation
# Of a matrix in 4 bits: half a byte, and a float32 scale for each block of 64 numbers
# (arXiv 2305.14314, section 3; --use_bnb_nested_quant takes less).
FOUR_BIT_BYTES = 1 / 2 + 4 / 64
DISTRIBUTED = ("ddp", "zero2", "zero3", "zero3_offload", "fsdp")
SEQUENCES_PER_ROW = {"sft": 1, "reward_model": 2, "preference_model": 1, "dpo": 2}
# TRL's head projects tiles of so many tokens and words (TOKEN_CHUNK_SIZE in
# trl/kernels/chunked_logprob.py, _CHUNKED_LOGPROB_CHUNK_SIZE in trl/trainer/utils.py).
TILE_TOKENS = 4096
TILE_WORDS = 32768


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
            buffers=4 * trained if gpus > 1 else 0,  # buckets: the gradients once more
        )
    if distributed == "zero2":
        return TrainingState(
            weights=2,  # bf16, on each GPU
            gradients=2 * share,
            optimizer=12 * share,  # float32 weights and Adam's two moments
            update=4 * share,
            buffers=deepspeed_buckets,
        )
    if distributed == "zero3":
        return TrainingState(
            weights=2 * share,
            gradients=2 * share,
            optimizer=12 * share,
            update=4 * share,
            buffers=deepspeed_buckets + gathered,
        )
    if distributed == "zero3_offload":
        # The state, 18 bytes a parameter, is in the machine's memory.
        return TrainingState(buffers=deepspeed_buckets + gathered)
    return TrainingState(  # fsdp
        weights=4 * share,  # float32
        gradients=4 * share + 2,  # all of them in bf16 while a GPU accumulates
        optimizer=8 * share,
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


def frozen_weights(shape, stage, state, distributed, four_bit):
    """Bytes of the weights that LoRA freezes, on one GPU."""
    model_size = size(shape, stage)
    if four_bit:
        # Embeddings, head and norms stay bf16.
        return FOUR_BIT_BYTES * shape.matrices + 2 * (model_size - shape.matrices)
    # They are bf16, which ZeRO's are anyway.
    width = state.weights / 2 if distributed in ("ddp", "fsdp") else state.weights
    return width * model_size


def check_training(stage, distributed, lora_rank, four_bit, **counts):
    """ValueError for what is no training. counts: {name: number}, which are at least 1."""
    supported = stage in SEQUENCES_PER_ROW and distributed in DISTRIBUTED
    # 4-bit weights are frozen, and each GPU has all of them.
    four_bit_goes = not four_bit or (lora_rank and distributed == "ddp")
    if not (supported and four_bit_goes) or min(counts.values()) < 1 or lora_rank < 0:
        if four_bit and supported:
            raise ValueError("4-bit weights need a LoRA rank, and ddp")
        listed = " ".join(f"{name}={number}" for name, number in counts.items())
        raise ValueError(
            f"no budget for {stage} by {distributed}, {listed} {lora_rank=} {four_bit=}"
        )


def training(
    shape, stage, *, gpus, sequence, batch, distributed="ddp", lora_rank=0, four_bit=False
):
    """{part: GiB} of each GPU, at the highest moment of a training step.

    sequence, batch: tokens of a row, and rows of a GPU at a time. A row is a pair of sequences, or
    a block of packed conversations. four_bit: LoRA beside 4-bit weights. ValueError for a stage
    that is no training.
    """
    check_training(
        stage, distributed, lora_rank, four_bit, gpus=gpus, sequence=sequence, batch=batch
    )
    model_size = size(shape, stage)
    trained = size(shape, stage, lora_rank)
    state = training_state(shape, distributed, gpus, model_size, trained)
    # Where ddp trains float32 weights, autocast leaves what flows between the layers in float32. In
    # all other cases the model computes with bf16 weights.
    autocast = distributed == "ddp" and not lora_rank
    tokens = batch * sequence * SEQUENCES_PER_ROW[stage]
    # A row holds the two sequences of a pair, or a packed conversation.
    attended = sequence * SEQUENCES_PER_ROW[stage]

    stored = stored_activations(shape, tokens, attended, autocast)
    layer = layer_activations(shape, tokens, attended, autocast)
    logits = 0
    if stage != "reward_model":
        logits = head_activations(shape, tokens, autocast, lora_rank)

    # Three moments compete: the end of the forward pass, when autocast holds bf16 copies of all
    # matrices that are trained; the backward pass; the optimizer's step. The parts below describe
    # the backward pass, and what another moment takes beyond it counts as buffers.
    cast_matrices = 0
    if autocast:
        cast_matrices = 2 * shape.matrices
    forward = stored + cast_matrices
    backward = stored + layer + logits
    highest = max(forward, backward, state.update * trained)
    weights = state.weights * model_size
    if lora_rank:
        frozen = frozen_weights(shape, stage, state, distributed, four_bit)
        weights = frozen + state.weights * trained
    buffers = CUDA_OVERHEAD + state.buffers
    if four_bit:
        buffers += 2 * shape.hidden * shape.intermediate  # a matrix at a time, in bf16
    return gib(
        weights=weights,
        gradients=state.gradients * trained,
        optimizer=state.optimizer * trained,
        activations=stored + layer,
        logits=logits,
        buffers=buffers + highest - stored - layer - logits,
    )


def generation(shape, *, sequence, tensor_parallel=1):
    """{part: GiB} of a GPU with which vLLM works, at least: for a single sequence of that length.

    vLLM takes 0.92 of the GPU's memory in any case; the rest, which it leaves, counts as buffers.
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
    if lora_rank:
        model_bytes = 2  # as the frozen weights
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
