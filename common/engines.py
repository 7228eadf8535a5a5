"""vLLM's engine, started with the context that a run needs instead of all positions of the model.

Most current models have 131,072 positions; the cache of a single sequence of that length takes 16
GiB of an 8B model's GPU. What is sampled does not depend on the context, but for the last bits of
the engine's arithmetic.
"""

import math
import os

from common import models

# Tokens, should the engine's own tokenizer make more of a prompt than transformers' does.
SPARE = 32
# The cache on the CPU holds this many sequences of full length, within the limits below.
SEQUENCES = 16
BLOCK = 256  # tokens; a sequence gets whole blocks of the cache, and vLLM keeps one for itself
SMALLEST = 2**28  # bytes
LARGEST = 2**32  # clearing a larger cache takes seconds


def longest(path, max_model_len=None):
    """Tokens of prompt and response that a model takes, as vLLM reads its config.

    max_model_len: the context that is wanted instead; one that the model does not have ends the
    program.
    """
    silence()
    from vllm.config import ModelConfig

    with models.refused(path):
        return ModelConfig(str(path), max_model_len=max_model_len).max_model_len


def start(path, dtype, context, limit, **options):
    """The engine, in this process: the same seed gives the same rows, and a kill ends the engine.

    dtype: a name, or None for the weights' own, since vLLM's auto lowers float32; context: tokens
    of the longest prompt with its response; limit: what `longest` gives. `models.check` looks at
    the checkpoint before; here the weights in the engine have to be finite.
    """
    silence()
    import torch
    from vllm import LLM

    config = models.config(path)
    dtype = getattr(torch, dtype) if dtype else weights_dtype(config)
    context = min(context + SPARE, limit)
    if not torch.cuda.is_available():
        options["kv_cache_memory_bytes"] = cache_bytes(config, dtype, context)
        # Compiling takes longer than it saves.
        options["enforce_eager"] = True
        # vLLM 0.32 cannot take back the random state of a request with a seed whose prompt was cut
        # in two ("CPU Generator does not use offset").
        options["enable_chunked_prefill"] = False
    with models.refused(path):
        engine = LLM(path, dtype=dtype, max_model_len=context, **options)
        names = engine.apply_model(models.not_finite)  # one of each worker
    if name := next(filter(None, names), None):
        models.refuse(path, f"{name} is not finite")
    return engine


def silence():
    # One process: whoever kills it kills the engine.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


def weights_dtype(config):
    """torch's, of the weights by the model's config."""
    import torch

    return config.dtype or config.get_text_config().dtype or torch.float32


def cache_bytes(config, dtype, context):
    """Bytes of the KV cache on the CPU, for SEQUENCES of `context` tokens.

    dtype: torch's. VLLM_CPU_KVCACHE_SPACE (GiB), which vLLM reads itself, wins over this.
    """
    text_config = config.get_text_config()
    heads = text_config.num_attention_heads
    kv_heads = getattr(text_config, "num_key_value_heads", None) or heads
    head_dim = getattr(text_config, "head_dim", None) or text_config.hidden_size // heads
    # Keys and values of every layer.
    token_bytes = 2 * text_config.num_hidden_layers * kv_heads * head_dim * dtype.itemsize
    blocks = math.ceil(context / BLOCK) + 1
    sequence_bytes = token_bytes * BLOCK * blocks
    # One sequence of full length has to fit, even if it takes more than LARGEST.
    return max(SMALLEST, sequence_bytes, min(SEQUENCES * sequence_bytes, LARGEST))
