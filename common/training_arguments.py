"""The command line of the trainings, by TRL's parser.

A wrong argument ends in one line, before anything is loaded.
"""

import ctypes
import dataclasses
import json
import math
import os
import signal
import sys
from pathlib import Path

from common import models, outputs, weights

PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends
# Numbers out of these ranges would end in a traceback, perhaps hours later, or train nothing.
ABOVE_0 = ("num_train_epochs", "logging_steps", "save_steps", "temperature", "lora_alpha")
AT_LEAST = {
    "learning_rate": 0,
    "weight_decay": 0,
    "warmup_steps": 0,
    "max_grad_norm": 0,
    "beta": 0,
    "label_smoothing": 0,
    "adam_beta1": 0,
    "adam_beta2": 0,
    "adam_epsilon": 0,
    "label_smoothing_factor": 0,
    "ld_alpha": 0,
    "desirable_weight": 0,
    "undesirable_weight": 0,
    "center_rewards_coefficient": 0,
    "slic_delta": 0,
    "mixture_coefficient": 0,
    "rpo_alpha": 0,
    "dataloader_num_workers": 0,
    "neftune_noise_alpha": 0,
    "lora_dropout": 0,
    "top_k": 0,
    "epsilon": 0,
    "top_p": 0,
    "seed": 0,
    "data_seed": 0,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_completion_length": 1,
    "num_iterations": 1,
    "steps_per_generation": 1,
    "lora_r": 1,
    "gate_size": 1,
    "batch_tokens": 1,
    "dataset_num_proc": 1,
    "vocab_size": 1,
    "num_hidden_layers": 1,
    "max_length": 2,
    "num_generations": 2,
    "hidden_size": 32,
    "max_steps": -1,
}
AT_MOST = {
    "adam_beta1": 1,
    "adam_beta2": 1,
    "label_smoothing_factor": 1,
    "ld_alpha": 1,
    "mixture_coefficient": 1,
    "lora_dropout": 1,
    "top_p": 1,
    "label_smoothing": 0.5,
    "seed": 2**32 - 1,
    "data_seed": 2**32 - 1,
}
TEMPLATE_HELP = (
    'arguments of the chat template, saved with the model, as JSON: {"enable_thinking": false}'
)
ASSISTANT_ONLY_HELP = (
    "of a response of several turns, count the assistant's tokens alone (M-DPO, arXiv 2409.02392)"
)
PACKED_HELP = "compute little padding, and a pair's prompt once; False: TRL's padded batches"
# Flags of TRL and transformers on which no script here acts.
WITHOUT_EFFECT = (
    "model_revision",
    "trust_remote_code",
    "load_in_8bit",
    "bnb_4bit_quant_storage",
    "model_init_kwargs",
    "resume_from_checkpoint",
)


def parse(*kinds):
    """The arguments of a training, one checked object for each of these dataclasses.

    The last two are TRL's. A wrong argument ends the program in one line, and so does an output
    that would overwrite an input or what is not a model of ours.
    """
    die_with_the_launcher()
    parsed = parse_command_line(kinds)
    for part in parsed:
        check_numbers(part)
        check_effects(part, WITHOUT_EFFECT)
    check_inputs(parsed)
    check_output(parsed)
    check_lora(parsed)
    return parsed


def parse_command_line(kinds):
    from trl import TrlParser

    parser = TrlParser(kinds)
    # argparse would print the usage before the message, which is hundreds of lines.
    parser.error = lambda message: parser.exit(2, f"{parser.prog}: error: {message}\n")
    try:
        words = words_with_config(sys.argv[1:])
        parsed = parser.parse_args_and_config(args=words)
    except OSError as error:  # of the file of --config
        sys.exit(f"{error.filename}: {error.strerror}")
    # An unknown argument, a bad value and a file that is no YAML each raise an error of their own.
    except Exception as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {models.first_line(error)}")
    has_dtype = any(word.partition("=")[0] == "--dtype" for word in words)
    if hasattr(parsed[-1], "dtype") and not has_dtype:
        # TRL's default would look as if float32 was asked for; see weights.precision.
        parsed[-1].dtype = None
    return parsed


def words_with_config(words):
    """The words of the command line, with --config FILE replaced by the words it stands for.

    They come first, so that the command line wins. As words the values of the YAML file are checked
    like those of the command line.
    """
    import yaml

    if "--config" not in words:
        return words
    index = words.index("--config")
    if index + 1 == len(words):
        raise ValueError("--config: no file")
    path = words[index + 1]
    with open(path, encoding="utf-8") as file:
        settings = yaml.safe_load(file)
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: not names and values")
    config_words = []
    for name, value in settings.items():
        if value is not None:
            config_words.append(f"--{name}")
            for part in listed(value):
                is_dict = isinstance(part, dict)
                config_words.append(json.dumps(part) if is_dict else str(part))
    return [*config_words, *words[:index], *words[index + 2 :]]


def listed(value):
    """The values of an argument, whether it has one, several or none."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def die_with_the_launcher():
    """A worker of accelerate or torchrun ends when its launcher is killed, even by SIGKILL."""
    if "LOCAL_RANK" in os.environ:
        die_with_the_parent()


def die_with_the_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# Checks


def check_numbers(part):
    """Numbers of the arguments: finite, and in range."""
    for field in dataclasses.fields(part):
        for value in listed(getattr(part, field.name)):
            if isinstance(value, int | float) and not isinstance(value, bool):
                check_number(field.name, value)


def check_number(name, value):
    if isinstance(value, float) and not math.isfinite(value):
        sys.exit(f"--{name}: {value} is not a finite number")
    if value <= 0 and name in ABOVE_0:
        sys.exit(f"--{name}: {value} is not above 0")
    if value < AT_LEAST.get(name, value):
        sys.exit(f"--{name}: {value} is below {AT_LEAST[name]}")
    if value > AT_MOST.get(name, value):
        sys.exit(f"--{name}: {value} is above {AT_MOST[name]}")
    if name == "max_steps" and value == 0:
        sys.exit("--max_steps: 0 steps train nothing")


def check_effects(part, names):
    """Of these flags one that is given is refused: it would be accepted and do nothing."""
    for field in dataclasses.fields(part):
        if field.name in names and getattr(part, field.name) != field.default:
            sys.exit(f"--{field.name}: it has no effect here")


def paths_in(part):
    """The files and directories that a dataclass of arguments names, except what is written."""
    for field in dataclasses.fields(part):
        if field.name in ("output_dir", "logging_dir", "run_name"):
            continue
        value = getattr(part, field.name)
        for path in listed(value):
            if isinstance(path, str) and os.path.exists(path):
                yield path


def check_inputs(parsed):
    """A model is named, and no file of rows twice."""
    for part in parsed:
        if getattr(part, "model_name_or_path", "") is None:
            sys.exit("--model_name_or_path: it is needed")
    datasets = listed(getattr(parsed[0], "dataset_name", None))
    files = [os.path.realpath(path) for path in datasets]
    if len(set(files)) < len(files):
        sys.exit("--dataset_name: a file is named twice")


def check_output(parsed):
    """The model's directory is named, and replaces nothing but a model of ours."""
    training_args = next(part for part in parsed if hasattr(part, "output_dir"))
    if training_args.output_dir == "trainer_output":  # what transformers takes where none is given
        sys.exit("--output_dir: it is needed")
    inputs = [path for part in parsed for path in paths_in(part)]
    if reason := outputs.problem(training_args.output_dir or "", "model", inputs):
        sys.exit(f"--output_dir: {reason}")


def check_lora(parsed):
    """LoRA, and 4-bit weights under it (QLoRA, arXiv 2305.14314), go with how it is trained."""
    training_args = next(part for part in parsed if hasattr(part, "output_dir"))
    model_args = parsed[-1]
    if not hasattr(model_args, "use_peft"):
        return
    by_deepspeed = training_args.deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    if by_deepspeed and model_args.use_peft:
        sys.exit(
            "--use_peft: DeepSpeed would save a model without its weights; "
            "train LoRA with DISTRIBUTED=ddp"
        )
    by_fsdp = training_args.fsdp or os.environ.get("ACCELERATE_USE_FSDP") == "true"
    if not model_args.load_in_4bit:
        for name in ("use_bnb_nested_quant", "bnb_4bit_quant_type"):
            if getattr(model_args, name) != getattr(type(model_args), name):
                sys.exit(f"--{name}: it has no effect without --load_in_4bit")
    elif not model_args.use_peft:
        sys.exit("--load_in_4bit: 4-bit weights stay as they are; train LoRA with --use_peft")
    elif by_fsdp:
        sys.exit("--load_in_4bit: not under FSDP; train with DISTRIBUTED=ddp")
    else:
        weights.check_bitsandbytes()
