"""What all trainings share: going on from the last whole checkpoint, stopping, publishing.

A training that has met a loss or a weight that is not finite publishes nothing.
"""

import contextlib
import math
import os
import signal
import sys
from pathlib import Path

import jinja2

from common import model_outputs, models, outputs, rows

LOCKS = []  # open files, whose locks are held until the process ends


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
        LOCKS.append(model_outputs.lock_model(partial, final))
        recovered = model_outputs.recover_model(partial, final)
    if training_args.world_size > 1:
        from accelerate.utils import broadcast_object_list

        partial, checkpoint, recovered = broadcast_object_list([partial, checkpoint, recovered])
    if recovered:
        print(f"{final}: was finished already, and has its name now")
        sys.exit(0)
    training_args.output_dir = partial
    training_args.logging_nan_inf_filter = (
        False  # which would log a loss that is not finite as if it were
    )
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
            yield row.at("prompt"), row["prompt"] + row[side]


# Training


def train(trainer, checkpoint):
    """Train from that checkpoint, or from the start; after a SIGTERM save the state and exit with status 143.

    A cluster sends SIGTERM before it takes a machine away. All processes stop after the same step: they ask one another
    at the end of each (transformers' --enable_jit_checkpoint does not, and its collectives then get mixed up)."""
    from transformers import TrainerCallback

    mend_generation_config(trainer)
    asked = []

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            import torch

            count = torch.tensor([len(asked)], device=args.device)
            if trainer.accelerator.reduce(count).item():
                control.should_save = control.should_training_stop = True

    class Finite(TrainerCallback):
        def on_log(
            self, args, state, control, logs=None, **_
        ):  # the loss is the mean of all processes
            loss = (logs or {}).get("loss", 0.0)
            if not math.isfinite(loss):
                leave(
                    trainer, f"the loss is {loss} at step {state.global_step}; nothing is published"
                )

    trainer.add_callback(Stop())
    trainer.add_callback(Finite())
    warm_up_before_a_step(trainer)
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    trainer.train(resume_from_checkpoint=checkpoint)
    signal.signal(signal.SIGTERM, before)
    if trainer.state.global_step < trainer.state.max_steps:
        # A launcher ends all processes when one has ended, perhaps before they have saved.
        trainer.accelerator.wait_for_everyone()
        sys.exit(143)


def mend_generation_config(trainer):
    """Make a generation_config that transformers would refuse to save, at the first checkpoint, one that it saves.

    In those of Llama 2 and Vicuna sampling parameters stand beside greedy decoding; they are meant for sampling.
    """
    from transformers import GenerationConfig

    model = trainer.accelerator.unwrap_model(trainer.model)
    config = getattr(model, "generation_config", None)
    if config is None or savable(config):
        return
    config.do_sample = True
    if config.temperature == 0 or not savable(config):
        tokens = {
            name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
        }
        model.generation_config = GenerationConfig(**tokens)


def savable(generation_config):
    try:
        generation_config.validate(strict=True)
    except ValueError:
        return False
    return True


def warm_up_before_a_step(trainer):
    """Leave out the warm-up of a training of one step: its learning rate would be 0, and the step nothing."""
    create_scheduler = trainer.create_scheduler

    def create(num_training_steps, *args, **options):
        if num_training_steps == 1 and trainer.args.warmup_steps:
            trainer.args.warmup_steps = 0
            if trainer.is_world_process_zero():
                print("one step in all: without warm-up, in which its learning rate would be 0")
        return create_scheduler(num_training_steps, *args, **options)

    trainer.create_scheduler = create


def leave(trainer, reason):
    """End all processes, with the reason once."""
    name = trainer.args.output_dir.rpartition(".partial-")[0]
    sys.exit(f"{name}: {reason}" if trainer.is_world_process_zero() else 1)


def check_weights(trainer):
    """Each process looks at the weights, or the part of them, that it holds."""
    import torch

    parts = [
        getattr(weight, "ds_tensor", weight) for weight in trainer.model.parameters()
    ]  # ds_tensor: ZeRO-3's part
    bad = sum(not torch.isfinite(part.detach()).all() for part in parts if part.is_floating_point())
    count = torch.tensor([int(bad)], device=trainer.args.device)
    if trainer.accelerator.reduce(count).item():
        leave(trainer, "weights are not finite; nothing is published")


def finish(trainer, path):
    """Save the whole model and the curve of its training, give them their name, and end the process."""
    check_weights(trainer)
    if hasattr(
        trainer.model, "merge_and_unload"
    ):  # LoRA: vLLM and the next stages read whole models
        trainer.model = trainer.model.merge_and_unload()
    trainer.save_model()
    trainer.save_state()
    if trainer.is_world_process_zero():
        models.check(type(trainer.accelerator.unwrap_model(trainer.model)), trainer.args.output_dir)
        rows.publish(trainer.args.output_dir, path)
    trainer.accelerator.wait_for_everyone()  # a launcher ends all processes when one has trouble in its last moments
    trainer.accelerator.end_training()
    if (
        trainer.accelerator.num_processes > 1
    ):  # threads of gloo and DeepSpeed may abort an interpreter that winds down
        sys.stdout.flush()
        os._exit(0)
