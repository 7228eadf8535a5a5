"""Supervised fine-tuning of a base model by TRL's SFTTrainer: the initial policy pi_0 (paper 3.1).

The loss is taken on the assistant's turns and on the token that ends them, with any chat template.
Where that token is not EOS it is set as EOS. A template may alter a turn, strip earlier thoughts
say, so that the turn cannot be found in the tokens; such turns get no loss. Conversations are
packed into blocks without attending to one another. A conversation longer than --max_length is cut.
One without a turn to learn, because of its length or of the template, is dropped. All of these are
counted. The defaults are the paper's; every other flag of TRL's SFTConfig and ModelConfig passes
through. A killed run resumes from its last checkpoint (--save_steps) when the same command is given
again.

Reads:  --dataset_name, files of {"id", "messages"} from 1_instructions.py; --model_name_or_path
Writes: --output_dir, a Hugging Face model directory with trainer_state.json, the training curve

    accelerate launch sft/2_finetune.py --model_name_or_path meta-llama/Meta-Llama-3-8B \
        --chat_template_path meta-llama/Meta-Llama-3-8B-Instruct \
        --dataset_name runs/my/instructions.jsonl --output_dir runs/my/sft \
        --per_device_train_batch_size 4
"""

import functools
import sys
from collections import Counter
from dataclasses import dataclass, field

from trl import ModelConfig, SFTConfig

from common import chats, models, rows, training, training_arguments, training_data, weights


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
    max_length: int = field(default=8192, metadata={"help": "tokens per block (paper 3.1)"})
    assistant_only_loss: bool = field(
        default=True, metadata={"help": "no loss on the user's and the system's tokens"}
    )


# The model and its chat template


def load_model(data, training_args, model_args, first):
    """(model, tokenizer, ids of new tokens). first: a row, which the template has to render."""
    from transformers import AutoModelForCausalLM

    path = model_args.model_name_or_path
    template_path = training_args.chat_template_path
    tokenizer = models.tokenizer(path, template=False)
    if not (tokenizer.chat_template or template_path):
        sys.exit(f"{path}: its tokenizer has no chat template, give --chat_template_path")
    model = models.load(
        AutoModelForCausalLM,
        path,
        tokenizer,
        **weights.load_options(training_args, model_args),
    )
    new_tokens = []
    if template_path:
        model, tokenizer, new_tokens = with_template(model, tokenizer, template_path)
        # Otherwise TRL would clone it again.
        training_args.chat_template_path = None
    models.set_template_arguments(tokenizer, data.chat_template_kwargs)
    models.check_reads_messages(tokenizer, first.at("messages"), first["messages"])
    chats.teach_turn_end(tokenizer, model)
    return model, tokenizer, new_tokens


def with_template(model, tokenizer, path):
    """(model, tokenizer, ids of new tokens) with the template of a file or another tokenizer."""
    from trl import clone_chat_template

    if path.endswith((".jinja", ".j2")):
        with models.refused(path), open(path, encoding="utf-8") as file:
            tokenizer.chat_template = models.prepared_template(path, file.read())
        return model, tokenizer, []
    with models.refused(path):
        model, tokenizer, new_tokens = clone_chat_template(model, tokenizer, path)
    tokenizer.chat_template = models.prepared_template(path, tokenizer.chat_template)
    return model, tokenizer, new_tokens


def peft_config(model_args, model, new_tokens):
    """The LoRA of --use_peft, or None.

    New tokens are trained with it, at both ends of the model, as TRL does it. Where the head shares
    the embedding's weights, the whole embedding is trained: TRL multiplies by the head's weights
    itself, so that a change of single tokens would not reach it.
    """
    from trl import get_peft_config

    config = get_peft_config(model_args)
    if not (config and new_tokens):
        return config
    trained_modules = config.modules_to_save or []
    if model.config.get_text_config().tie_word_embeddings:
        config.modules_to_save = [*trained_modules, "embed_tokens"]
        config.ensure_weight_tying = True
    else:
        config.trainable_token_indices = {"embed_tokens": new_tokens}
        config.modules_to_save = [*trained_modules, "lm_head"]
    return config


# Conversations as tokens


def read(paths):
    """Yield the conversations of files."""
    for path in paths:
        yield from rows.read(path, "instructions")


def stored_examples(source, data, tokenizer, training_args):
    """(dataset of {"input_ids", "labels"}, counts): see tokenised and training_data.stored."""
    return training_data.stored(
        "training",
        source,
        functools.partial(tokenised, tokenizer=tokenizer, training_args=training_args),
        {"input_ids": training_data.TOKEN_IDS, "labels": training_data.TOKEN_IDS},
        training_args,
        check=functools.partial(refuse_empty, data, training_args),
    )


def refuse_empty(data, training_args, counts):
    """Exit if no conversation is left."""
    if counts["rows out"] == 0:
        sys.exit(
            f"{data.dataset_name[0]}: nothing to learn: "
            f"in {counts['dropped, too long']} rows no answer of the assistant stands within "
            f"--max_length {training_args.max_length}, "
            f"in {counts['dropped, rewritten']} the chat template rewrites it"
        )


def tokenised(instructions, tokenizer, training_args):
    """(examples, counts): [{"input_ids", "labels"}] of the conversations with something to learn.

    counts: of conversations "dropped, too long", and "dropped, rewritten": the template alters all
    turns of the assistant; of those that are "cut"; and of "rewritten turns", which have no loss.
    """
    turn_end = chats.turn_end(tokenizer)
    examples = []
    counts = Counter()
    for row in instructions:
        # Its left_out: turns of the assistant that the template alters.
        conversation = chats.conversation(
            tokenizer, turn_end, row["messages"], row.at("messages"), row.get("tools")
        )
        if not training_args.assistant_only_loss:
            conversation.labels = list(conversation.input_ids)
            conversation.left_out = 0
        counts["rewritten turns"] += conversation.left_out
        if not has_loss(conversation.labels):
            counts["dropped, rewritten"] += 1
            continue
        length = len(conversation.labels)
        kept = kept_part(length, training_args)
        labels = conversation.labels[kept]
        if not has_loss(labels):
            counts["dropped, too long"] += 1
            continue
        if len(labels) < length:
            counts["cut"] += 1
        examples.append({"input_ids": conversation.input_ids[kept], "labels": labels})
    return examples, counts


def has_loss(labels):
    return any(label != chats.NO_LOSS for label in labels)


def kept_part(length, training_args):
    """The tokens that --max_length leaves of a conversation of that length, as a slice."""
    # Each way of packing but "bfd" cuts a long conversation into several blocks: all is kept.
    splits = training_args.packing and training_args.packing_strategy != "bfd"
    if training_args.max_length is None or splits:
        return slice(None)
    if training_args.truncation_mode == "keep_end" and not training_args.packing:
        return slice(max(0, length - training_args.max_length), None)
    return slice(training_args.max_length)


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    source = training_data.checked(functools.partial(read, data.dataset_name), training_args)

    from trl import SFTTrainer

    model, tokenizer, new_tokens = load_model(data, training_args, model_args, source.first)
    training.fold_packed_rows(training_args, model)
    final_path, checkpoint = training.begin(training_args)
    dataset, counts = stored_examples(source, data, tokenizer, training_args)
    # The labels mask the other turns already.
    training_args.assistant_only_loss = False
    training_data.keep_examples(training_args)
    # The examples are token ids: TRL renders no chat that its template could refuse.
    with training.building(tokenizer):
        trainer = SFTTrainer(
            model,
            training_args,
            train_dataset=dataset,
            processing_class=tokenizer,
            peft_config=peft_config(model_args, model, new_tokens),
        )
    if trainer.is_world_process_zero():
        print(
            f"{final_path} rows in: {counts['rows in']}, "
            f"dropped, no answer within --max_length: {counts['dropped, too long']}, "
            f"dropped, rewritten by the chat template: {counts['dropped, rewritten']}, "
            f"cut: {counts['cut']}, rows out: {counts['rows out']}; "
            f"turns without loss, rewritten by the chat template: {counts['rewritten turns']}"
        )
    training.train(trainer, checkpoint)
    training.finish(trainer, final_path)


if __name__ == "__main__":
    main()
