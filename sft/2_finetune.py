"""Supervised fine-tuning of a base model by TRL's SFTTrainer: the initial policy pi_0 (paper 3.1).

The loss is taken on what the assistant says and on the token that ends its turns, by any chat template; where that
token is not EOS it becomes EOS. Conversations are packed into blocks without attending to one another. One that is
longer than --max_length is cut; without an answer of the assistant in what is left it is dropped. Both are counted.
The defaults are the paper's; every other flag of TRL's SFTConfig and ModelConfig passes through. A run that was killed
continues from its last checkpoint (--save_steps) when the same command is given again.

Reads:  --dataset_name, files of {"id", "messages"} from 1_instructions.py; --model_name_or_path
Writes: --output_dir, a Hugging Face model directory with trainer_state.json, the training curve

    accelerate launch sft/2_finetune.py --model_name_or_path meta-llama/Meta-Llama-3-8B \
        --chat_template_path meta-llama/Meta-Llama-3-8B-Instruct \
        --dataset_name runs/my/instructions.jsonl --output_dir runs/my/sft --per_device_train_batch_size 4
"""

import sys
from collections import Counter
from dataclasses import dataclass, field

from trl import ModelConfig, SFTConfig

from common import chats, models, rows, training, training_arguments


@dataclass
class Data:
    dataset_name: list[str] = field(metadata={"help": "JSONL files of instructions"})
    chat_template_kwargs: str | None = field(
        default=None, metadata={"help": training_arguments.TEMPLATE_HELP}
    )


@dataclass
class Config(SFTConfig):
    learning_rate: float = field(default=2e-5, metadata={"help": "peak learning rate (paper 3.1)"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule (paper 3.1)"})
    warmup_steps: float = field(
        default=0.03, metadata={"help": "steps, or below 1 their share (paper 3.1)"}
    )
    num_train_epochs: float = field(default=1, metadata={"help": "epochs (paper 3.1)"})
    packing: bool = field(
        default=True, metadata={"help": "pack conversations into blocks of max_length (paper 3.1)"}
    )
    max_length: int = field(default=8192, metadata={"help": "tokens a block (paper 3.1)"})
    assistant_only_loss: bool = field(
        default=True, metadata={"help": "no loss on the user's and the system's tokens"}
    )


def with_template(model, tokenizer, path):
    """(model, tokenizer, ids of new tokens) with the chat template of a file or of another tokenizer."""
    from trl import clone_chat_template

    if path.endswith((".jinja", ".j2")):
        with models.refused(path), open(path, encoding="utf-8") as file:
            tokenizer.chat_template = models.prepared_template(path, file.read())
        return model, tokenizer, []
    with models.refused(path):
        model, tokenizer, added = clone_chat_template(model, tokenizer, path)
    tokenizer.chat_template = models.prepared_template(path, tokenizer.chat_template)
    return model, tokenizer, added


def peft_config(model_args, added):
    """The LoRA of --use_peft, or None; added tokens are trained with it, at both ends of the model, as TRL does it."""
    from trl import get_peft_config

    config = get_peft_config(model_args)
    if config and added:
        config.trainable_token_indices = {"embed_tokens": added}
        config.modules_to_save = [*(config.modules_to_save or []), "lm_head"]
    return config


def tokenised(instructions, tokenizer, training_args):
    """([{"input_ids", "labels"}] of the conversations that have something to learn, counts of the others)."""
    end = chats.turn_end(tokenizer)
    examples, counts = [], Counter()
    for row in instructions:
        conversation = chats.conversation(tokenizer, end, row["messages"], row.at("messages"))
        if not training_args.assistant_only_loss:
            conversation.labels = list(conversation.input_ids)
            conversation.left_out = 0
        counts["turns"] += conversation.left_out
        if not learns(conversation.labels):
            counts["rewritten"] += 1
            continue
        part = kept_part(len(conversation.labels), training_args)
        if not learns(conversation.labels[part]):
            counts["too long"] += 1
            continue
        example = {"input_ids": conversation.input_ids[part], "labels": conversation.labels[part]}
        counts["cut"] += len(example["labels"]) < len(conversation.labels)
        examples.append(example)
    return examples, counts


def learns(labels):
    return any(label != chats.NO_LOSS for label in labels)


def kept_part(length, training_args):
    """The tokens that --max_length leaves, of a conversation of that length, as a slice."""
    splits = (
        training_args.packing and training_args.packing_strategy != "bfd"
    )  # into several blocks
    if training_args.max_length is None or splits:
        return slice(None)
    if training_args.truncation_mode == "keep_end" and not training_args.packing:
        return slice(max(0, length - training_args.max_length), None)
    return slice(training_args.max_length)


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    instructions = [row for name in data.dataset_name for row in rows.read(name, "instructions")]

    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTTrainer

    tokenizer = models.tokenizer(model_args.model_name_or_path, template=False)
    if not (tokenizer.chat_template or training_args.chat_template_path):
        sys.exit(
            f"{model_args.model_name_or_path}: its tokenizer has no chat template, give --chat_template_path"
        )
    model = models.load(
        AutoModelForCausalLM,
        model_args.model_name_or_path,
        tokenizer,
        dtype=model_args.dtype or "float32",
        attn_implementation=training.attention(training_args, model_args),
    )
    added = []
    if training_args.chat_template_path:
        model, tokenizer, added = with_template(model, tokenizer, training_args.chat_template_path)
        training_args.chat_template_path = None  # TRL has nothing left to do
    models.set_template_arguments(tokenizer, data.chat_template_kwargs)
    first = instructions[0]
    models.check_reads_messages(tokenizer, first.at("messages"), first["messages"])
    chats.teach_turn_end(tokenizer, model)

    examples, counts = tokenised(instructions, tokenizer, training_args)
    if not examples:
        sys.exit(
            f"{data.dataset_name[0]}: nothing to learn: in {counts['too long']} rows no answer of the assistant stands "
            f"within --max_length {training_args.max_length}, in {counts['rewritten']} the chat template rewrites it"
        )
    training_args.assistant_only_loss = False  # the labels hold it
    final, checkpoint = training.begin(training_args)
    with training.building(tokenizer, lambda: ()):
        trainer = SFTTrainer(
            model,
            training_args,
            train_dataset=Dataset.from_list(examples),
            processing_class=tokenizer,
            peft_config=peft_config(model_args, added),
        )
    if trainer.is_world_process_zero():
        print(
            f"{final} rows in: {len(instructions)}, dropped, no answer within --max_length: {counts['too long']}, "
            f"dropped, rewritten by the chat template: {counts['rewritten']}, cut: {counts['cut']}, "
            f"rows out: {len(examples)}; turns without loss, rewritten by the chat template: {counts['turns']}"
        )
    training.train(trainer, checkpoint)
    training.finish(trainer, final)


if __name__ == "__main__":
    main()
