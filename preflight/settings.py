"""What the variables of a run say of its trainings, its generation and its scoring.

For the checks of disk, GPUs and hours.
"""

import json
import re
import sys
from pathlib import Path

import shapes
from needs import ANNOTATORS, BELOW_OUT, FILE, flag, flags_of, number, trainings, value

# Prefixes of the variables of a training.
PREFIX = {
    "sft": "SFT_",
    "reward_model": "RM_",
    "preference_model": "PM_",
    "dpo": "DPO_",
}
MAX_LENGTH = {"preference_model": 3072}  # default of a script that the driver gives none
# Tokens that eval/1_answers.py keeps free for the answers to a question. MT-Bench has two turns,
# and the first answer is read again in the second.
BENCHMARK_TOKENS = {"alpaca_eval": 2048, "mt_bench": 3 * 1024, "arena_hard": 4096}


# Trainings


def processes():
    return max(number("GPUS"), 1) * max(number("NODES"), 1)


def distributed():
    if processes() == 1:
        return "ddp"
    return value("DISTRIBUTED") or "ddp"


def global_batch(stage):
    return number(f"{PREFIX[stage]}BATCH_SIZE")


def device_batch(stage):
    """Rows that one process takes at once: the driver's, a divisor of its share of the batch."""
    rows = global_batch(stage) // processes()
    size = min(number("PER_DEVICE_BATCH_SIZE") or 1, rows)
    while size > 1 and rows % size:
        size -= 1
    return size


def options_variable(stage):
    return f"{PREFIX.get(stage, 'ARMORM_')}OPTIONS"


def max_length(stage):
    """Tokens of a row."""
    length = whole_number(options_variable(stage), "--max_length")
    if length is not None:
        return length
    return MAX_LENGTH.get(stage) or number(f"{PREFIX.get(stage, 'RM_')}MAX_LENGTH")


def lora_rank(stage):
    """The rank of LoRA's matrices; 0 without LoRA."""
    variable = options_variable(stage)
    if not is_on(variable, "--use_peft"):
        return 0
    rank = whole_number(variable, "--lora_r")
    return 16 if rank is None else rank  # 16: TRL's default


def four_bit(stage):
    """Whether LoRA's frozen weights have 4 bits. The training refuses what does not go with it."""
    goes = lora_rank(stage) and distributed() == "ddp"
    return bool(goes) and is_on(options_variable(stage), "--load_in_4bit")


def is_on(variable, option):
    """Whether a variable of flags turns an option on, by its name alone or with True."""
    is_named = option in flags_of(variable).split()
    answer = "".join(flag(variable, option)).lower()
    return is_named and answer not in ("false", "f", "no", "n", "0")


def whole_number(variable, option):
    """The number after an option in a variable of flags, or None; another word ends the program."""
    words = flag(variable, option)
    if not words:
        return None
    if not re.fullmatch("[0-9]+", words[0]):
        sys.exit(f"{variable}: {option}: {words[0]!r} is not a whole number")
    return int(words[0])


def shape_of(model, reachable):
    """The Shape of a model, None if it is unknown.

    A model that the run makes has the shape of the model that its training starts from.
    """
    starts = trainings()
    path = Path(model)
    while path.parent == Path(value("OUT")) and path.name in starts:
        model = starts.pop(path.name)
        path = Path(model)
    config = path / "config.json"
    try:
        is_local = config.exists() or model.startswith(BELOW_OUT) or re.fullmatch(FILE, model)
        if model and not is_local:
            from huggingface_hub import hf_hub_download

            config = hf_hub_download(model, "config.json", local_files_only=not reachable)
        return shapes.shape(json.loads(Path(config).read_text(encoding="utf-8")))
    except Exception:  # no such file, a gated model, a kind that shapes.py does not know
        return None


def policy_shape(reachable):
    return shape_of(value("SFT_MODEL") or value("BASE_MODEL"), reachable)


def scoring_models():
    """Yields (variable, model) of each model that scores responses."""
    out = value("OUT")
    if value("REWARD_MODEL") or "reward_model" in trainings():
        yield "REWARD_MODEL", value("REWARD_MODEL") or f"{out}/reward_model"
    if "preference_model" in ANNOTATORS:
        yield "PREFERENCE_MODEL", value("PREFERENCE_MODEL") or f"{out}/preference_model"
    if "armorm" in ANNOTATORS:
        yield "ARMORM", value("ARMORM") or f"{out}/armorm"


# Generation


def new_tokens():
    return number("MAX_NEW_TOKENS") or 2048


def prompt_tokens():
    """Tokens of the longest prompt: an assumption, since there are no prompts before the run."""
    return number("DPO_MAX_LENGTH") or 2048


def response_tokens():
    """Tokens that may follow a prompt: a round's response, or all turns of a benchmark."""
    benchmarks = [BENCHMARK_TOKENS.get(name, 0) for name in value("EVALS").split()]
    turns = max(number("MAX_TURNS"), number("EVAL_MAX_TURNS"))
    return max([tokens_of_response(turns), *benchmarks])


def tokens_of_response(turns):
    """Tokens of a response at most: with a tool of all its turns, each with the tool's output."""
    if value("TOOL") in ("", "none"):
        return new_tokens()
    characters = whole_number("TOOL_OPTIONS", "--max_output_characters") or 1000
    # As generation/2c_tool_responses.py counts: a character is a token, and the template's.
    return max(turns, 1) * (new_tokens() + characters + 64)


def context_limit(shape):
    return min(shape.max_length, number("MAX_MODEL_LEN") or shape.max_length)


def context(shape):
    """Tokens of the longest sequence in generation."""
    return min(context_limit(shape), prompt_tokens() + response_tokens())
