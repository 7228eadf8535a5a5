"""What all trainings share: their command line, going on from the last whole checkpoint, stopping, publishing.

A training that has met a loss or a weight that is not finite publishes nothing.
"""

import contextlib
import ctypes
import dataclasses
import json
import math
import os
import signal
import sys
from pathlib import Path

import jinja2

import rows
from common import models, outputs

# What is out of range would end in a traceback, hours later, or train nothing.
ABOVE_0 = ("num_train_epochs", "logging_steps", "save_steps", "temperature", "lora_alpha")
AT_LEAST = {
    **dict.fromkeys(["learning_rate", "weight_decay", "warmup_steps", "max_grad_norm", "beta", "label_smoothing"], 0),
    **dict.fromkeys(["adam_beta1", "adam_beta2", "adam_epsilon", "label_smoothing_factor", "ld_alpha"], 0),
    **dict.fromkeys(["desirable_weight", "undesirable_weight", "center_rewards_coefficient", "slic_delta"], 0),
    **dict.fromkeys(["dataloader_num_workers", "neftune_noise_alpha", "lora_dropout", "top_k", "epsilon", "top_p"], 0),
    **dict.fromkeys(["per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"], 1),
    **dict.fromkeys(["max_completion_length", "num_iterations", "steps_per_generation", "lora_r", "gate_size"], 1),
    **dict.fromkeys(["batch_tokens", "vocab_size", "num_hidden_layers"], 1),
    **dict.fromkeys(["max_length", "num_generations"], 2),
    **dict.fromkeys(["seed", "data_seed"], 0),
    "max_steps": -1,
    "hidden_size": 32,
}
AT_MOST = {
    **dict.fromkeys(["seed", "data_seed"], 2**32 - 1),
    **dict.fromkeys(["adam_beta1", "adam_beta2", "label_smoothing_factor", "ld_alpha", "lora_dropout", "top_p"], 1),
    "label_smoothing": 0.5,
}
WITHOUT_EFFECT = (  # of TRL's and transformers' flags: what no script here acts on
    *("model_revision", "trust_remote_code", "load_in_8bit", "load_in_4bit", "resume_from_checkpoint"),
    *("load_best_model_at_end", "push_to_hub"),
)
LOCKS = []  # open files, whose locks are held until the process ends


# The command line


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
    except Exception as error:  # an unknown argument, a bad value, a file that is no YAML: each has its own error
        sys.exit(f"{Path(sys.argv[0]).name}: {models.first_line(error)}")
    for part in parsed:
        check_numbers(part)
        check_effects(part)
        if getattr(part, "model_name_or_path", "") is None:
            sys.exit("--model_name_or_path: it is needed")
    training_args = next(part for part in parsed if hasattr(part, "output_dir"))
    inputs = [path for part in parsed for path in paths_in(part)]
    files = [os.path.realpath(path) for path in listed(getattr(parsed[0], "dataset_name", None))]
    if len(set(files)) < len(files):
        sys.exit("--dataset_name: a file is named twice")
    by_deepspeed = training_args.deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    if by_deepspeed and any(getattr(part, "use_peft", False) for part in parsed):
        sys.exit("--use_peft: DeepSpeed would save a model without its weights; train LoRA with DISTRIBUTED=ddp")
    if training_args.output_dir == "trainer_output":  # what transformers takes where none is given
        sys.exit("--output_dir: it is needed")
    if reason := outputs.problem(training_args.output_dir or "", "model", inputs):
        sys.exit(f"--output_dir: {reason}")
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
            texts = [json.dumps(part) if isinstance(part, dict) else str(part) for part in listed(value)]
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


def attention(training_args, model_args):
    """FlashAttention 2 where it is installed and the training is in bfloat16, or what --attn_implementation says."""
    from transformers.utils import is_flash_attn_2_available

    there = training_args.bf16 and is_flash_attn_2_available()
    return model_args.attn_implementation or ("flash_attention_2" if there else None)


# Beginning


def unfinished_model(path, resume):
    """(directory, last whole checkpoint or None) of the unfinished model `path`.

    The state of the trainer is written last, so that a checkpoint with a whole one is whole.
    """
    partial = outputs.partial_name(path, resume)
    states = Path(partial).glob("checkpoint-*/trainer_state.json")
    whole = [state for state in states if state.read_text().endswith("}\n")]
    return partial, str(max(whole, key=os.path.getmtime).parent) if whole else None


def begin(training_args):
    """(name of the model, checkpoint to go on from or None); from here on the training writes beside that name.

    Called when the models are loaded, so that what is refused before leaves nothing. The same command at once is
    refused; a model that a kill has left finished, but without its name, gets it, and the program ends.
    """
    final = training_args.output_dir
    partial = checkpoint = recovered = None
    if training_args.process_index == 0:  # the others do as it finds it
        partial, checkpoint = unfinished_model(final, rows.this_command([final]))
        LOCKS.append(outputs.lock_model(partial, final))
        recovered = outputs.recover_model(partial, final)
    if training_args.world_size > 1:
        from accelerate.utils import broadcast_object_list

        partial, checkpoint, recovered = broadcast_object_list([partial, checkpoint, recovered])
    if recovered:
        print(f"{final}: was finished already, and has its name now")
        sys.exit(0)
    training_args.output_dir = partial
    training_args.logging_nan_inf_filter = False  # which would log a loss that is not finite as if it were
    return final, checkpoint


@contextlib.contextmanager
def building(tokenizer, chats):
    """Around the making of a trainer: what TRL, its libraries or the chat template refuse is said in one line.

    chats: a function that yields (FILE:LINE, messages) of all rows, to find the one that the template refuses.
    """
    try:
        yield
    except Exception as error:  # of an argument, a package that is not installed, a template
        if isinstance(error, ValueError | TypeError | jinja2.TemplateError):
            for where, messages in chats():
                models.render(tokenizer, messages, where)
        sys.exit(f"{Path(sys.argv[0]).name}: {models.first_line(error)}")


def compared_chats(pairs):
    """Yields (FILE:LINE, messages) of both sides of pairs."""
    for row in pairs:
        for side in ("chosen", "rejected"):
            yield row.place, row["prompt"] + row[side]


# Training


def train(trainer, checkpoint):
    """Train from that checkpoint, or from the start; after a SIGTERM save the state and exit with status 143.

    A cluster sends SIGTERM before it takes a machine away. All processes stop after the same step: they ask one another
    at the end of each (transformers' --enable_jit_checkpoint does not, and its collectives then get mixed up)."""
    from transformers import TrainerCallback

    asked = []

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            import torch

            count = torch.tensor([len(asked)], device=args.device)
            if trainer.accelerator.reduce(count).item():
                control.should_save = control.should_training_stop = True

    class Finite(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):  # the loss is the mean of all processes
            loss = (logs or {}).get("loss", 0.0)
            if not math.isfinite(loss):
                leave(trainer, f"the loss is {loss} at step {state.global_step}; nothing is published")

    trainer.add_callback(Stop())
    trainer.add_callback(Finite())
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    trainer.train(resume_from_checkpoint=checkpoint)
    signal.signal(signal.SIGTERM, before)
    if trainer.state.global_step < trainer.state.max_steps:
        # A launcher ends all processes when one has ended, perhaps before they have saved.
        trainer.accelerator.wait_for_everyone()
        sys.exit(143)


def leave(trainer, reason):
    """End all processes, with the reason once."""
    name = trainer.args.output_dir.rpartition(".partial-")[0]
    sys.exit(f"{name}: {reason}" if trainer.is_world_process_zero() else 1)


def check_weights(trainer):
    """Each process looks at the weights, or the part of them, that it holds."""
    import torch

    parts = [getattr(weight, "ds_tensor", weight) for weight in trainer.model.parameters()]  # ds_tensor: ZeRO-3's part
    bad = sum(not torch.isfinite(part.detach()).all() for part in parts if part.is_floating_point())
    count = torch.tensor([int(bad)], device=trainer.args.device)
    if trainer.accelerator.reduce(count).item():
        leave(trainer, "weights are not finite; nothing is published")


def finish(trainer, path):
    """Save the whole model and the curve of its training, give them their name, and end the process."""
    check_weights(trainer)
    if hasattr(trainer.model, "merge_and_unload"):  # LoRA: vLLM and the next stages read whole models
        trainer.model = trainer.model.merge_and_unload()
    trainer.save_model()
    trainer.save_state()
    if trainer.is_world_process_zero():
        models.check(type(trainer.accelerator.unwrap_model(trainer.model)), trainer.args.output_dir)
        rows.publish(trainer.args.output_dir, path)
    trainer.accelerator.wait_for_everyone()  # a launcher ends all processes when one has trouble in its last moments
    trainer.accelerator.end_training()
    if trainer.accelerator.num_processes > 1:  # threads of gloo and DeepSpeed may abort an interpreter that winds down
        sys.stdout.flush()
        os._exit(0)
