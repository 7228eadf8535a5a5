"""vLLM's engine, started with the context that a run needs instead of all positions of the model.

Most current models have 131,072 positions; the cache of a single sequence of that length takes 16 GiB of an 8B model's
GPU. What is sampled does not depend on the context, but for the last bits of the engine's arithmetic.
"""

import math
import os

from common import models

SPARE = (
    32  # tokens, should the engine's own tokenizer make more of a prompt than transformers' does
)
# On the CPU: the cache is for so many sequences of full length, within these limits; clearing GiB takes seconds.
SEQUENCES = 16
BLOCK = 256  # tokens; a sequence gets whole blocks of the cache, and vLLM keeps one for itself
SMALLEST, LARGEST = 2**28, 2**32  # bytes


def longest(path, max_model_len=None):
    """Tokens of prompt and response that a model takes, as vLLM reads its config; or max_model_len, if it is not more.

    A context of which vLLM says that the model does not have it ends the program.
    """
    silence()
    from vllm.config import ModelConfig

    with models.refused(path):
        return ModelConfig(str(path), max_model_len=max_model_len).max_model_len


def start(path, dtype, context, limit, **options):
    """The engine, in this process: the same seed gives the same rows, and whoever kills it kills the engine.

    dtype: a name, or None for the weights' own, since vLLM's auto lowers float32; context: tokens of the longest prompt
    with its response; limit: what `longest` gives. `models.check` looks at the checkpoint before; here the weights in
    the engine have to be finite.
    """
    silence()
    import torch
    from vllm import LLM

    config = models.config(path)
    dtype = (
        getattr(torch, dtype)
        if dtype
        else config.dtype or config.get_text_config().dtype or torch.float32
    )
    context = min(context + SPARE, limit)
    on_cpu = not torch.cuda.is_available()
    cache = cache_bytes(config, dtype, context) if on_cpu else None
    with models.refused(path):
        engine = LLM(
            path,
            dtype=dtype,
            max_model_len=context,
            # On the CPU compiling takes longer than it saves, and vLLM 0.32 cannot take back the random state of a
            # request with a seed whose prompt was cut in two ("CPU Generator does not use offset").
            enforce_eager=on_cpu,
            enable_chunked_prefill=False if on_cpu else None,
            kv_cache_memory_bytes=cache,
            **options,
        )
        names = engine.apply_model(models.not_finite)
    if name := next(filter(None, names), None):
        models.refuse(path, f"{name} is not finite")
    return engine


def silence():
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


def cache_bytes(config, dtype, context):
    """Bytes of the KV cache on the CPU: keys and values of every layer, for SEQUENCES of `context` tokens.

    dtype: torch's. VLLM_CPU_KVCACHE_SPACE (GiB), which vLLM reads itself, wins over what this gives.
    """
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    tokens = (math.ceil(context / BLOCK) + 1) * BLOCK
    sequence = 2 * text.num_hidden_layers * heads * head_dim * dtype.itemsize * tokens
    return max(SMALLEST, sequence, min(SEQUENCES * sequence, LARGEST))
