"""Hours of each stage, from the model's shape and the GPUs.

A forward pass costs two FLOPs a parameter and token, and attention's products. Training and scoring
reach a share of the GPU's peak FLOP/s, generation of its bandwidth or FLOP/s.
"""

from footprint import VLLM_SHARE
from shapes import GIB

# Shares of a GPU's peak that are reached: of its FLOP/s in training and scoring, and of its
# bandwidth or FLOP/s in generation.
COMPUTE_UTILISATION = 0.4
DECODING_UTILISATION = 0.5


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
    # vLLM's default of max_num_seqs.
    max_sequences = 256
    if machine.gib >= 70 and "A100" not in machine.name:
        max_sequences = 1024
    batch = min(max_sequences, room // (shape.cache * context))
    if batch < 1:
        return float("inf")
    bytes_read = weights + batch * shape.cache * context
    work = flops(shape, batch, context)
    seconds = max(bytes_read / machine.bandwidth, work / machine.flops)
    seconds = seconds / DECODING_UTILISATION / machine.gpus
    return tokens / batch * seconds / 3600
