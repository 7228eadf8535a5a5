"""What all trainings share: resuming from the last complete checkpoint, stopping, publishing.

A training that meets a loss or a weight that is not finite publishes nothing.
"""

import contextlib
import math
import os
import signal
import sys
from pathlib import Path

import jinja2

from common import model_outputs, models, outputs, rows, training_arguments, weights

LOCKS = []  # open files, whose locks are held until the process ends


def choose_packing(training_args, model):
    """Turn --packed off for a model whose forward pass cannot be packed, with a line."""
    from common import packing

    reason = packing.obstacle(model) if training_args.packed else None
    if reason:
        training_args.packed = False
        if training_args.process_index == 0:
            print(f"--packed: {reason}; batches are padded")


def fold_packed_rows(training_args, model):
    """Let packed fine-tuning compute shorter rows, where the model takes a mask."""
    from common import packing

    takes_mask = not packing.by_positions(model.config)
    if training_args.packing and takes_mask and packing.obstacle(model) is None:
        packing.fold_backbone(model)


# Beginning


def unfinished_model(path, resume):
    """(directory, last complete checkpoint or None) of the unfinished model `path`.

    The state of the trainer is written last: a checkpoint with a complete state is complete.
    """
    partial = outputs.partial_name(path, resume)
    complete = []
    for state in Path(partial).glob("checkpoint-*/trainer_state.json"):
        if state.read_text().endswith("}\n"):
            complete.append(state)
    if not complete:
        return partial, None
    newest = max(complete, key=os.path.getmtime)
    return partial, str(newest.parent)


def begin(training_args):
    """(final path of the model, checkpoint to resume from or None).

    From here on the training writes into an unfinished directory beside the final path. Call it
    when the models are loaded, so that a refused command leaves nothing behind. The same command,
    run twice at once, is refused. If a kill left the model finished but not renamed, it is renamed
    and the program ends.
    """
    final = training_args.output_dir
    partial = None
    checkpoint = None
    recovered = None
    # One process looks and locks; the others do as it says.
    if training_args.process_index == 0:
        # With the words of a file of --config: they may name rows, which may have changed.
        words = training_arguments.words_with_config(sys.argv[1:])
        command = rows.fingerprint([Path(sys.argv[0]).name, *words], [final])
        partial, checkpoint = unfinished_model(final, command)
        LOCKS.append(model_outputs.lock_model(partial, final))
        recovered = model_outputs.recover_model(partial, final)
    if training_args.world_size > 1:
        from accelerate.utils import broadcast_object_list

        partial, checkpoint, recovered = broadcast_object_list([partial, checkpoint, recovered])
    if recovered:
        print(f"{final}: was finished already, and has its name now")
        sys.exit(0)
    training_args.output_dir = partial
    # With the filter transformers would log a loss that is not finite as if it were.
    training_args.logging_nan_inf_filter = False
    return final, checkpoint


@contextlib.contextmanager
def building(tokenizer, chats=None):
    """While a trainer is built, an error of TRL, its libraries or the template becomes one line.

    chats: a function that yields (FILE:LINE, messages) of all rows, if TRL renders them; the line
    then names the row that the template refuses.
    """
    try:
        yield
    except Exception as error:  # of an argument, a package that is not installed, a template
        if isinstance(error, ValueError | TypeError | jinja2.TemplateError):
            # Exits at the row that the template refuses, if there is one.
            for where, messages in chats() if chats else []:
                models.render(tokenizer, messages, where)
        sys.exit(f"{Path(sys.argv[0]).name}: {models.first_line(error)}")


# Training


def train(trainer, checkpoint):
    """Train from that checkpoint, or from the start; exit with 143 after a SIGTERM.

    A cluster sends SIGTERM before it takes a machine away. The training then saves its state.
    """
    mend_generation_config(trainer)
    weights.widen_adapters(trainer.model)
    skip_warmup_of_one_step(trainer)
    stop_requests = []
    trainer.add_callback(stop_callback(trainer, stop_requests))
    trainer.add_callback(finite_callback(trainer))
    old_handler = signal.signal(signal.SIGTERM, lambda *_: stop_requests.append(True))
    trainer.train(resume_from_checkpoint=checkpoint)
    signal.signal(signal.SIGTERM, old_handler)
    if trainer.state.global_step < trainer.state.max_steps:
        # A launcher ends all processes when one has ended, perhaps before they have saved.
        trainer.accelerator.wait_for_everyone()
        sys.exit(143)


def stop_callback(trainer, stop_requests):
    """A callback that saves and stops all processes after the same step.

    At the end of each step the processes add up their requests. (With --enable_jit_checkpoint of
    transformers a process stops alone, and the collectives of the others get mixed up.)
    """
    import torch
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            count = torch.tensor([len(stop_requests)], device=args.device)
            if trainer.accelerator.reduce(count).item():
                control.should_save = True
                control.should_training_stop = True

    return Stop()


def finite_callback(trainer):
    """A callback that ends all processes at a loss that is not finite."""
    from transformers import TrainerCallback

    class Finite(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            # The logged loss is the mean over processes: all of them leave together.
            loss = (logs or {}).get("loss", 0.0)
            if not math.isfinite(loss):
                step = state.global_step
                leave(trainer, f"the loss is {loss} at step {step}; nothing is published")

    return Finite()


def mend_generation_config(trainer):
    """Make a generation_config valid that transformers would refuse to save at a checkpoint.

    In those of Llama 2 and Vicuna sampling parameters stand beside greedy decoding. They are meant
    for sampling, so do_sample becomes true. If that does not do, only the special tokens stay.
    """
    from transformers import GenerationConfig

    model = trainer.accelerator.unwrap_model(trainer.model)
    config = getattr(model, "generation_config", None)
    if config is None or savable(config):
        return
    config.do_sample = True
    if config.temperature == 0 or not savable(config):
        model.generation_config = GenerationConfig(
            bos_token_id=config.bos_token_id,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
        )


def savable(generation_config):
    try:
        generation_config.validate(strict=True)
    except ValueError:
        return False
    return True


def skip_warmup_of_one_step(trainer):
    """Train without warm-up if there is one step in all: with it the learning rate would be 0."""
    create_scheduler = trainer.create_scheduler

    # The number of steps is known only when the trainer creates its scheduler.
    def create(num_training_steps, *args, **options):
        if num_training_steps == 1 and trainer.args.warmup_steps:
            trainer.args.warmup_steps = 0
            if trainer.is_world_process_zero():
                print("one step in all: without warm-up, in which its learning rate would be 0")
        return create_scheduler(num_training_steps, *args, **options)

    trainer.create_scheduler = create


# Ending


def leave(trainer, reason):
    """End all processes; one of them says the reason."""
    name = trainer.args.output_dir.rpartition(".partial-")[0]
    sys.exit(f"{name}: {reason}" if trainer.is_world_process_zero() else 1)


def check_weights(trainer):
    """End the training if a weight is not finite. Each process looks at the weights it holds."""
    import torch

    bad_weights = 0
    for weight in trainer.model.parameters():
        # Under ZeRO-3 a process holds a part of each weight, ds_tensor.
        held = getattr(weight, "ds_tensor", weight)
        if held.is_floating_point() and not torch.isfinite(held.detach()).all():
            bad_weights += 1
    count = torch.tensor([bad_weights], device=trainer.args.device)
    if trainer.accelerator.reduce(count).item():
        leave(trainer, "weights are not finite; nothing is published")


def finish(trainer, path):
    """Save the model and its training curve, publish them, and end the process."""
    check_weights(trainer)
    saves = trainer.args.should_save or not weights.is_quantized(trainer.model)
    if hasattr(trainer.model, "merge_and_unload") and saves:
        trainer.model = weights.merged(trainer.model)
    trainer.save_model()
    trainer.save_state()
    if trainer.is_world_process_zero():
        models.check(type(trainer.accelerator.unwrap_model(trainer.model)), trainer.args.output_dir)
        rows.publish(trainer.args.output_dir, path)
    # A launcher ends all processes when one has trouble in its last moments.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    if trainer.accelerator.num_processes > 1:
        # Threads of gloo and DeepSpeed may abort an interpreter that winds down.
        sys.stdout.flush()
        os._exit(0)


def rewritten_turns(count):
    """The part of a line of counts about turns that the chat template alters; "" without any."""
    return f"turns without loss, rewritten by the chat template: {count}, " if count else ""
