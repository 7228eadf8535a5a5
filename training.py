"""What all trainings share: they go on from their last whole checkpoint, and save one when they are asked to stop."""

import os
import signal
import sys
from pathlib import Path

import rows


def attention(training_args, model_args):
    """FlashAttention 2 where it is installed and the training is in bfloat16, or what --attn_implementation says."""
    from transformers.utils import is_flash_attn_2_available

    there = training_args.bf16 and is_flash_attn_2_available()
    return model_args.attn_implementation or ("flash_attention_2" if there else None)


def unfinished_model(path, resume):
    """(directory, last whole checkpoint or None) of the unfinished model `path`; its last file tells what is whole."""
    partial = f"{path}.partial-{resume}"
    whole = [s for s in Path(partial).glob("checkpoint-*/trainer_state.json") if s.read_text().endswith("}\n")]
    return partial, str(max(whole, key=os.path.getmtime).parent) if whole else None


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

    trainer.add_callback(Stop())
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    trainer.train(resume_from_checkpoint=checkpoint)
    signal.signal(signal.SIGTERM, before)
    if trainer.state.global_step < trainer.state.max_steps:
        trainer.accelerator.wait_for_everyone()  # the first to leave takes the others with it, saved or not
        sys.exit(143)


def finish(trainer, path):
    """Save the whole model and the curve of its training, give them their name, and end the process."""
    if hasattr(trainer.model, "merge_and_unload"):  # LoRA: vLLM and the next stages read whole models
        trainer.model = trainer.model.merge_and_unload()
    trainer.save_model()
    trainer.save_state()
    if trainer.is_world_process_zero():
        rows.publish(trainer.args.output_dir, path)
    trainer.accelerator.wait_for_everyone()  # a launcher ends all processes when one has trouble in its last moments
    trainer.accelerator.end_training()
    if trainer.accelerator.num_processes > 1:  # threads of gloo and DeepSpeed may abort an interpreter that winds down
        sys.stdout.flush()
        os._exit(0)
