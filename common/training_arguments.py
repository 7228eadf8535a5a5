"""The command line of the trainings: TRL's parser, a wrong argument ends in one line before anything is loaded."""

import ctypes
import dataclasses
import json
import math
import os
import signal
import sys
from pathlib import Path

from common import models, outputs

# What is out of range would end in a traceback, hours later, or train nothing.
ABOVE_0 = ("num_train_epochs", "logging_steps", "save_steps", "temperature", "lora_alpha")
AT_LEAST = {
    **dict.fromkeys(
        [
            "learning_rate",
            "weight_decay",
            "warmup_steps",
            "max_grad_norm",
            "beta",
            "label_smoothing",
        ],
        0,
    ),
    **dict.fromkeys(
        ["adam_beta1", "adam_beta2", "adam_epsilon", "label_smoothing_factor", "ld_alpha"], 0
    ),
    **dict.fromkeys(
        ["desirable_weight", "undesirable_weight", "center_rewards_coefficient", "slic_delta"], 0
    ),
    "rpo_alpha": 0,
    **dict.fromkeys(
        [
            "dataloader_num_workers",
            "neftune_noise_alpha",
            "lora_dropout",
            "top_k",
            "epsilon",
            "top_p",
        ],
        0,
    ),
    **dict.fromkeys(
        [
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "gradient_accumulation_steps",
        ],
        1,
    ),
    **dict.fromkeys(
        ["max_completion_length", "num_iterations", "steps_per_generation", "lora_r", "gate_size"],
        1,
    ),
    **dict.fromkeys(["batch_tokens", "vocab_size", "num_hidden_layers"], 1),
    **dict.fromkeys(["max_length", "num_generations"], 2),
    **dict.fromkeys(["seed", "data_seed"], 0),
    "max_steps": -1,
    "hidden_size": 32,
}
AT_MOST = {
    **dict.fromkeys(["seed", "data_seed"], 2**32 - 1),
    **dict.fromkeys(
        ["adam_beta1", "adam_beta2", "label_smoothing_factor", "ld_alpha", "lora_dropout", "top_p"],
        1,
    ),
    "label_smoothing": 0.5,
}
TEMPLATE_HELP = (
    'arguments of the chat template, saved with the model, as JSON: {"enable_thinking": false}'
)
# Of TRL's and transformers' flags what no script here acts on.
WITHOUT_EFFECT = (
    "model_revision",
    "trust_remote_code",
    "load_in_8bit",
    "load_in_4bit",
    "resume_from_checkpoint",
)


def parse(*kinds):
    """The arguments of a training, one object for each of these dataclasses, checked; the last two are TRL's.

    A wrong argument ends the program in one line, as does an output that would overwrite an input or what is not ours.
    """
    die_with_the_launcher()
    from trl import TrlParser

    parser = TrlParser(kinds)
    # Without the usage, which is hundreds of lines.
    parser.error = lambda message: parser.exit(2, f"{parser.prog}: error: {message}\n")
    try:
        parsed = parser.parse_args_and_config(args=words_with_config(sys.argv[1:]))
    except OSError as error:  # of --config
        sys.exit(f"{error.filename}: {error.strerror}")
    except (
        Exception
    ) as error:  # an unknown argument, a bad value, a file that is no YAML: each has its own error
        sys.exit(f"{Path(sys.argv[0]).name}: {models.first_line(error)}")
    for part in parsed:
        check_numbers(part)
        check_effects(part)
    check_inputs(parsed)
    check_output(parsed)
    return parsed


def words_with_config(words):
    """The words of the command line, after those that a YAML file (--config) stands for: they win over it.

    As words its values are checked as theirs are.
    """
    import yaml

    if "--config" not in words:
        return words
    place = words.index("--config")
    with open(words[place + 1], encoding="utf-8") as file:
        settings = yaml.safe_load(file)
    if not isinstance(settings, dict):
        raise ValueError(f"{words[place + 1]}: not names and values")
    found = []
    for name, value in settings.items():
        if value is not None:
            texts = [
                json.dumps(part) if isinstance(part, dict) else str(part) for part in listed(value)
            ]
            found += [f"--{name}", *texts]
    return [*found, *words[:place], *words[place + 2 :]]


def listed(value):
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def die_with_the_launcher():
    """A worker of accelerate or torchrun ends when its launcher is killed, even by SIGKILL."""
    if "LOCAL_RANK" in os.environ:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


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


def check_effects(part):
    """A flag that would be accepted and do nothing is refused."""
    for field in dataclasses.fields(part):
        if field.name in WITHOUT_EFFECT and getattr(part, field.name) != field.default:
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
    if any(getattr(part, "model_name_or_path", "") is None for part in parsed):
        sys.exit("--model_name_or_path: it is needed")
    files = [os.path.realpath(path) for path in listed(getattr(parsed[0], "dataset_name", None))]
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
    by_deepspeed = training_args.deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    if by_deepspeed and any(getattr(part, "use_peft", False) for part in parsed):
        sys.exit(
            "--use_peft: DeepSpeed would save a model without its weights; train LoRA with DISTRIBUTED=ddp"
        )
