"""The weights of a model that is trained: how they are loaded, and how LoRA's are merged."""

import copy
import importlib.util
import os
import sys

from common import models


def attention(training_args, model_args):
    """What --attn_implementation says; else FlashAttention 2 if installed, for a bf16 training."""
    from transformers.utils import is_flash_attn_2_available

    if model_args.attn_implementation:
        return model_args.attn_implementation
    if training_args.bf16 and is_flash_attn_2_available():
        return "flash_attention_2"
    return None


def precision(training_args, model_args):
    """The data type of the weights: --dtype; else bfloat16 for the frozen weights under LoRA.

    Weights that are trained are float32: in bfloat16 small steps would be lost.
    """
    if model_args.dtype:
        return model_args.dtype
    return "bfloat16" if model_args.use_peft and training_args.bf16 else "float32"


def load_options(training_args, model_args):
    """The options with which from_pretrained loads a model that is trained, and its reference.

    A checkpoint that is quantised itself is refused: there are no weights to merge adapters into.
    """
    path = model_args.model_name_or_path
    if getattr(models.config(path), "quantization_config", None):
        models.refuse(path, "its weights are quantised; train the original model")
    dtype = precision(training_args, model_args)
    if model_args.load_in_4bit and dtype == "auto":
        sys.exit("--dtype auto: not with --load_in_4bit, name the type to compute in")
    options = {"dtype": dtype, "attn_implementation": attention(training_args, model_args)}
    if model_args.load_in_4bit:
        options |= in_4_bits(model_args, dtype)
    return options


def check_bitsandbytes():
    """Exit without the library that 4-bit weights need."""
    if importlib.util.find_spec("bitsandbytes") is None:
        sys.exit(
            "--load_in_4bit: bitsandbytes is not installed; "
            "requirements.txt, for machines with a GPU, has it"
        )


def in_4_bits(args, dtype):
    """The options with which from_pretrained loads a model with 4-bit matrices (QLoRA).

    args: with the flags of TRL's ModelConfig. dtype: of the other weights and of the computing.
    """
    import torch
    from transformers import BitsAndBytesConfig

    quantization_config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_type=args.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=args.use_bnb_nested_quant,
    )
    # Weights are quantised where they are placed: each process uses its own GPU. (TRL places them
    # itself where it loads the model.)
    device = "cpu"
    if torch.cuda.is_available():
        device = int(os.environ.get("LOCAL_RANK", 0))
    return {"dtype": dtype, "quantization_config": quantization_config, "device_map": {"": device}}


def quantization(args):
    """The name of the 4-bit format that flags of TRL's ModelConfig ask for, or None."""
    if not args.load_in_4bit:
        return None
    return args.bnb_4bit_quant_type + (" nested" if args.use_bnb_nested_quant else "")


def starts_as(reference_path, training_args, model_args):
    """True if both paths are one model, whose log-probabilities are computed before training."""
    paths = (reference_path, model_args.model_name_or_path)
    return training_args.precompute_ref_log_probs and len(set(map(os.path.realpath, paths))) == 1


# LoRA


def widen_adapters(model):
    """What is trained beside frozen weights is float32: TRL and PEFT leave some in bfloat16."""
    if not hasattr(model, "merge_and_unload"):
        return
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def merged(model):
    """The model with its adapters merged, in the precision of its frozen weights.

    vLLM and the next stages read models, not adapters.
    """
    if is_quantized(model):
        model = with_original_weights(model)
    # All frozen weights have one type.
    frozen = next(weight for weight in model.parameters() if not weight.requires_grad)
    return model.merge_and_unload().to(frozen.dtype)


def is_quantized(model):
    return getattr(model, "is_loaded_in_4bit", False)


def with_original_weights(model):
    """A model with adapters, on the CPU, with the checkpoint's weights for their 4-bit copies.

    The adapters were trained beside the copies. But if these were published, the next round would
    quantise them again, and the errors would add up.
    """
    from bitsandbytes.nn import Params4bit
    from peft import get_peft_model

    base = model.get_base_model()
    config = copy.deepcopy(base.config)
    del config.quantization_config
    with models.quiet():
        original = type(base).from_pretrained(
            config.name_or_path,
            config=config,
            dtype=base.dtype,
            # Embeddings that have grown and a new head are not in the checkpoint: copied below.
            ignore_mismatched_sizes=True,
        )
    if base.can_generate():
        original.generation_config = base.generation_config
    original = get_peft_model(original, model.peft_config["default"])
    others = {}
    for name, weight in model.named_parameters():
        if not isinstance(weight, Params4bit):
            others[name] = weight
    original.load_state_dict(others, strict=False)
    return original
