"""Supervised fine-tuning of a base model by TRL's SFTTrainer: the initial policy pi_0 (paper 3.1).

The loss is taken on the assistant's tokens only, and conversations are packed into blocks without attending to one
another. The defaults are the paper's; every other flag of TRL's SFTConfig and ModelConfig passes through. A run that
was killed continues from its last checkpoint (--save_steps) when the same command is given again.

Reads:  --dataset_name, files of {"id", "messages"} from 1_instructions.py; --model_name_or_path
Writes: --output_dir, a Hugging Face model directory with trainer_state.json, the training curve

    accelerate launch sft/2_finetune.py --model_name_or_path meta-llama/Meta-Llama-3-8B \
        --chat_template_path meta-llama/Meta-Llama-3-8B-Instruct \
        --dataset_name runs/my/instructions.jsonl --output_dir runs/my/sft --per_device_train_batch_size 4
"""

import sys
from dataclasses import dataclass, field

from trl import ModelConfig, SFTConfig

import rows
import training
from common import models, training_arguments


@dataclass
class Data:
    dataset_name: list[str] = field(metadata={"help": "JSONL files of instructions"})


@dataclass
class Config(SFTConfig):
    learning_rate: float = field(default=2e-5, metadata={"help": "peak learning rate (paper 3.1)"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule (paper 3.1)"})
    warmup_steps: float = field(default=0.03, metadata={"help": "steps, or below 1 their share (paper 3.1)"})
    num_train_epochs: float = field(default=1, metadata={"help": "epochs (paper 3.1)"})
    packing: bool = field(default=True, metadata={"help": "pack conversations into blocks of max_length (paper 3.1)"})
    max_length: int = field(default=8192, metadata={"help": "tokens a block (paper 3.1)"})
    assistant_only_loss: bool = field(default=True, metadata={"help": "no loss on the user's and the system's tokens"})


def learned(example):
    """Does a tokenised conversation, or a block of them, hold a token that the loss is taken on? Without a mask all."""
    return 1 in example.get("assistant_masks", [1])


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    instructions = [row for name in data.dataset_name for row in rows.read(name, "instructions")]

    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTTrainer, get_peft_config

    tokenizer = models.tokenizer(model_args.model_name_or_path, template=False)
    if not (tokenizer.chat_template or training_args.chat_template_path):
        sys.exit(f"{model_args.model_name_or_path}: its tokenizer has no chat template, give --chat_template_path")
    model = models.load(
        AutoModelForCausalLM,
        model_args.model_name_or_path,
        tokenizer,
        dtype=model_args.dtype or "float32",
        attn_implementation=training.attention(training_args, model_args),
    )
    final, checkpoint = training.begin(training_args)

    rendered = [] if training_args.chat_template_path else instructions  # by this tokenizer's own template
    with training.building(tokenizer, lambda: ((row.place, row["messages"]) for row in rendered)):
        trainer = SFTTrainer(
            model,
            training_args,
            train_dataset=Dataset.from_list([{"messages": row["messages"]} for row in instructions]),
            peft_config=get_peft_config(model_args),
        )
    if training_args.assistant_only_loss and not any(map(learned, trainer.train_dataset)):
        sys.exit(f"{data.dataset_name[0]}: no assistant's token within --max_length {training_args.max_length}")
    training.train(trainer, checkpoint)
    training.finish(trainer, final)


if __name__ == "__main__":
    main()
