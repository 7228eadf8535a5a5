"""Train a Bradley-Terry reward model with TRL's RewardTrainer (arXiv 2405.07863, 2.1).

The loss is -log sigmoid(r_chosen - r_rejected). The defaults are that paper's; every other flag of
TRL's RewardConfig and ModelConfig passes through. The score is read at the last token that is not
padding: if the pad token also ends chats (EOS, end of turn), a new pad token is added. Pairs longer
than --max_length are dropped and counted. A run that was killed continues from its last checkpoint
(--save_steps) when the same command is given again.

Reads:  --dataset_name and --held_out_name, {"id", "prompt", "chosen", "rejected"} from
        1_preferences.py;
        --model_name_or_path, the fine-tuned model
Writes: --output_dir, a model that AutoModelForSequenceClassification loads, with
        trainer_state.json: the training curve, and at its end eval_loss and eval_accuracy on the
        held-out rows

    accelerate launch reward_modeling/2a_bradley_terry.py \
        --model_name_or_path meta-llama/Meta-Llama-3-8B-Instruct \
        --dataset_name runs/my/preferences.jsonl \
        --held_out_name runs/my/preferences_held_out.jsonl --output_dir runs/my/reward_model \
        --per_device_train_batch_size 8 --gradient_accumulation_steps 8
"""

import functools
import sys
from collections import Counter
from dataclasses import dataclass, field

from trl import ModelConfig, RewardConfig

import training_pairs
from common import models, packing, training, training_arguments, training_data, weights


@dataclass
class Data:
    dataset_name: str = field(metadata={"help": "JSONL file of preferences"})
    held_out_name: str = field(
        metadata={"help": "JSONL file of preferences for the accuracy; shares no prompt"}
    )
    chat_template_kwargs: str | None = field(
        default=None, metadata={"help": training_arguments.TEMPLATE_HELP}
    )


@dataclass
class Config(RewardConfig):
    learning_rate: float = field(default=2e-6, metadata={"help": "peak learning rate (paper 2.1)"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule (paper 2.1)"})
    warmup_steps: float = field(
        default=0.03, metadata={"help": "steps, or below 1 their share (paper 2.1)"}
    )
    num_train_epochs: float = field(default=1, metadata={"help": "epochs (paper 2.1)"})
    weight_decay: float = field(default=1e-3, metadata={"help": "weight decay (published code)"})
    max_length: int = field(
        default=4096, metadata={"help": "tokens; longer pairs are dropped (published code)"}
    )
    packed: bool = field(default=True, metadata={"help": training_arguments.PACKED_HELP})
    # Must stay False: group_by_length needs the length column.
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "True loses what group_by_length goes by"}
    )


def load_model(tokenizer, training_args, model_args):
    from transformers import AutoModelForSequenceClassification

    return models.load(
        AutoModelForSequenceClassification,
        model_args.model_name_or_path,
        tokenizer,
        new_head=True,
        num_labels=1,
        **weights.load_options(training_args, model_args),
    )


def set_padding(tokenizer, model):
    """Pad with a token that never ends a chat: the score is read at the last other token."""
    ends_chats = (tokenizer.eos_token_id, models.last_of_a_chat(tokenizer))
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in ends_chats:
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
        embeddings = model.get_input_embeddings().num_embeddings
        # Never shrink an embedding that is padded beyond the vocabulary.
        model.resize_token_embeddings(max(len(tokenizer), embeddings))
    model.config.pad_token_id = tokenizer.pad_token_id
    # The configuration of a multimodal model keeps it in that of its language model.
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def stored_pairs(name, file, source, tokenizer, training_args):
    """The dataset of the tokenised pairs of a file; prints how many pairs are dropped.

    name: of the dataset's folder.
    """
    # Without the rows' "margin", which would change RewardTrainer's loss.
    columns = {
        "chosen_ids": training_data.TOKEN_IDS,
        "rejected_ids": training_data.TOKEN_IDS,
        "length": "int64",
    }
    limit = training_args.max_length
    dataset, counts = training_data.stored(
        name,
        source,
        functools.partial(tokenised, tokenizer=tokenizer, max_length=limit),
        columns,
        training_args,
        check=functools.partial(refuse_empty, file, limit),
    )
    if training_args.process_index == 0:
        dropped = f"dropped, too long: {counts['too long']}"
        print(f"{file} rows in: {counts['rows in']}, {dropped}, rows out: {counts['rows out']}")
    return dataset


def tokenised(pairs, tokenizer, max_length):
    """(examples of the pairs that are not too long, counts), both sides as RewardTrainer's."""
    examples = []
    counts = Counter()
    for row in pairs:
        example = {"length": 0}
        for side in ("chosen", "rejected"):
            messages = row["prompt"] + row[side]
            text = models.render(tokenizer, messages, row.at("prompt"))
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            example[f"{side}_ids"] = ids
            # For --train_sampling_strategy group_by_length: a batch is padded to its longest side.
            example["length"] = max(example["length"], len(str(messages)))
        longest = max(len(example["chosen_ids"]), len(example["rejected_ids"]))
        if max_length is not None and longest > max_length:
            counts["too long"] += 1
        else:
            examples.append(example)
    return examples, counts


def refuse_empty(file, max_length, counts):
    """Exit if no pair is left."""
    if counts["rows out"] == 0:
        sys.exit(f"{file}: no pair has at most --max_length {max_length} tokens")


def new_trainer(model, tokenizer, training_args, model_args, pairs, held_out):
    from trl import RewardTrainer, get_peft_config

    # So that LoRA trains the scoring head as well.
    model_args.lora_task_type = "SEQ_CLS"
    training.choose_packing(training_args, model)
    if training_args.packed:
        packing.pack_backbone(model, 2)  # of chosen and rejected
    # Longer pairs are dropped already: TRL would look through all of them again.
    training_args.max_length = None
    with training.building(tokenizer):
        return RewardTrainer(
            model,
            training_args,
            train_dataset=pairs,
            eval_dataset=held_out,
            processing_class=tokenizer,
            peft_config=get_peft_config(model_args),
        )


def trim_to_equal_batches(name, trainer):
    """Trim held_out to a multiple of the processes and lower per_device_eval_batch_size until all
    eval batches are equal.

    TRL's eval_accuracy is the mean over batches: only with equal batches is it the mean over rows.
    name: the file of the held-out rows, for messages.
    """
    held_out = trainer.eval_dataset
    processes = trainer.args.world_size
    size = len(held_out) // processes * processes
    trimmed = len(held_out) - size
    if not size:
        sys.exit(f"{name}: {trimmed} pairs remain for {processes} processes")
    if trimmed and trainer.is_world_process_zero():
        print(f"{name} dropped, so that all {processes} processes have as many rows: {trimmed}")
    trainer.eval_dataset = held_out.select(range(size))
    while size % (trainer.args.per_device_eval_batch_size * processes):
        trainer.args.per_device_eval_batch_size -= 1


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    # The pairs are rendered by the model's own template.
    training_arguments.check_effects(training_args, ("chat_template_path", "eos_token"))
    pairs, held_out = training_pairs.sources(data, training_args)

    from transformers import set_seed

    # (place for messages, messages to try the template on)
    example = (pairs.first.at("prompt"), pairs.first["prompt"])
    tokenizer = models.tokenizer(
        model_args.model_name_or_path,
        example,
        chat_template_kwargs=data.chat_template_kwargs,
    )
    # The scoring head is randomly initialised.
    set_seed(training_args.seed)
    model = load_model(tokenizer, training_args, model_args)
    # From here on output_dir is a partial folder; training.finish renames it to `final`.
    final, checkpoint = training.begin(training_args)
    set_padding(tokenizer, model)
    train = stored_pairs("training", data.dataset_name, pairs, tokenizer, training_args)
    evaluation = stored_pairs("held_out", data.held_out_name, held_out, tokenizer, training_args)
    trainer = new_trainer(model, tokenizer, training_args, model_args, train, evaluation)
    # Only now is it known which held-out pairs are not too long.
    trim_to_equal_batches(data.held_out_name, trainer)
    training.train(trainer, checkpoint)
    trainer.evaluate()
    training.finish(trainer, final)


if __name__ == "__main__":
    main()
