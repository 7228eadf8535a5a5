"""Train a pairwise preference model with TRL's SFTTrainer (arXiv 2405.07863, 2.1).

The model reads "[CONTEXT] ... [RESPONSE A] ... [RESPONSE B] ..." as a user's turn; the next token,
A or B, names the better response. Which response is A is drawn for each pair, so that a side means
nothing. A comparison of more than --max_length tokens would lose its end, which is the answer: it
is dropped and counted. The defaults are that paper's; every other flag of TRL's SFTConfig and
ModelConfig passes through. A run that was killed continues from its last checkpoint (--save_steps)
when the same command is given again.

Reads:  --dataset_name and --held_out_name, {"id", "prompt", "chosen", "rejected"} from
        1_preferences.py;
        --model_name_or_path, a fine-tuned model or a reward model
Writes: --output_dir, a causal model for annotation/1b_preference_model.py, with
        trainer_state.json: the training curve, and at its end eval_loss on the held-out rows

    accelerate launch reward_modeling/2b_preference_model.py \
        --model_name_or_path meta-llama/Meta-Llama-3-8B-Instruct \
        --dataset_name runs/my/preferences.jsonl \
        --held_out_name runs/my/preferences_held_out.jsonl --output_dir runs/my/preference_model \
        --per_device_train_batch_size 4 --gradient_accumulation_steps 4
"""

import functools
import random
import sys
from collections import Counter
from dataclasses import dataclass, field

from trl import ModelConfig, SFTConfig

import training_pairs
from common import chats, comparisons, models, training, training_arguments, training_data, weights


@dataclass
class Data:
    dataset_name: str = field(metadata={"help": "JSONL file of preferences"})
    held_out_name: str = field(
        metadata={"help": "JSONL file of preferences for the held-out loss; shares no prompt"}
    )
    chat_template_kwargs: str | None = field(
        default=None, metadata={"help": training_arguments.TEMPLATE_HELP}
    )


@dataclass
class Config(SFTConfig):
    learning_rate: float = field(default=5e-6, metadata={"help": "peak learning rate (paper 2.1)"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule (paper 2.1)"})
    warmup_steps: float = field(
        default=0.03, metadata={"help": "steps, or below 1 their share (paper 2.1)"}
    )
    num_train_epochs: float = field(default=1, metadata={"help": "epochs (paper 2.1)"})
    packing: bool = field(
        default=True, metadata={"help": "pack comparisons into blocks of max_length (paper 2.1)"}
    )
    max_length: int = field(default=3072, metadata={"help": "tokens per block (paper 2.1)"})


def comparison_text(row, tokenizer, seed):
    """The text of one comparison with its answer, the sides drawn by seed and row id."""
    context, chosen, rejected = comparisons.sides(row)
    # A generator for each row, so that the draw does not depend on the order of the rows.
    better = random.Random(f"{seed} {row['id']}").choice("AB")
    a, b = (chosen, rejected) if better == "A" else (rejected, chosen)
    messages = comparisons.question(context, a, b)
    messages.append({"role": "assistant", "content": better})
    return comparisons.text(tokenizer, messages, row.at("prompt"))


def stored_comparisons(name, file, source, tokenizer, answer_length, training_args):
    """The dataset of the comparisons of a file; prints how many are dropped.

    name: of the dataset's folder.
    """
    limit = training_args.max_length
    encode = functools.partial(
        tokenised,
        tokenizer=tokenizer,
        answer_length=answer_length,
        seed=training_args.seed,
        max_length=limit,
    )
    dataset, counts = training_data.stored(
        name,
        source,
        encode,
        {"input_ids": training_data.TOKEN_IDS, "labels": training_data.TOKEN_IDS},
        training_args,
        check=functools.partial(refuse_empty, file, limit),
    )
    if training_args.process_index == 0:
        dropped = f"dropped, too long: {counts['too long']}"
        print(f"{file} rows in: {counts['rows in']}, {dropped}, rows out: {counts['rows out']}")
    return dataset


def tokenised(pairs, tokenizer, answer_length, seed, max_length):
    """({"input_ids", "labels"} of the comparisons that are not too long, counts).

    The loss is on the last answer_length tokens: the answer and what the template writes after it.
    """
    texts = [comparison_text(row, tokenizer, seed) for row in pairs]
    examples = []
    counts = Counter()
    for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
        if len(ids) > max_length:
            counts["too long"] += 1
            continue
        labels = [chats.NO_LOSS] * (len(ids) - answer_length) + ids[-answer_length:]
        examples.append({"input_ids": ids, "labels": labels})
    return examples, counts


def refuse_empty(file, max_length, counts):
    """Exit if no comparison is left."""
    if counts["rows out"] == 0:
        sys.exit(f"{file}: no comparison has at most --max_length {max_length} tokens")


def load_tokenizer(data, path, row):
    """The tokenizer, and the number of tokens from the answer to the end of a chat."""
    question = comparisons.question(row["prompt"], "first", "second")
    # (place for messages, messages to try the template on)
    example = (row.at("prompt"), question)
    tokenizer = models.tokenizer(path, example, chat_template_kwargs=data.chat_template_kwargs)
    # The ids of A and B themselves are needed by annotation only.
    _, answer_length = chats.choice(tokenizer)
    return tokenizer, answer_length


def load_model(tokenizer, training_args, model_args):
    from transformers import AutoModelForCausalLM

    return models.load(
        AutoModelForCausalLM,
        model_args.model_name_or_path,
        tokenizer,
        reward_model_too=True,
        **weights.load_options(training_args, model_args),
    )


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    # The pairs are rendered by the model's own template.
    training_arguments.check_effects(training_args, ("chat_template_path", "eos_token"))
    pairs, held_out = training_pairs.sources(data, training_args)

    from trl import SFTTrainer, get_peft_config

    path = model_args.model_name_or_path
    tokenizer, answer_length = load_tokenizer(data, path, pairs.first)
    model = load_model(tokenizer, training_args, model_args)
    training.fold_packed_rows(training_args, model)
    # From here on output_dir is a partial folder; training.finish renames it to `final`.
    final, checkpoint = training.begin(training_args)
    encoding = (tokenizer, answer_length, training_args)
    train = stored_comparisons("training", data.dataset_name, pairs, *encoding)
    evaluation = stored_comparisons("held_out", data.held_out_name, held_out, *encoding)
    training_data.keep_examples(training_args)
    # The examples are token ids, so TRL renders no chat that its template could refuse. TRL 1.16.0
    # keeps their labels, with packing too.
    with training.building(tokenizer):
        trainer = SFTTrainer(
            model,
            training_args,
            train_dataset=train,
            eval_dataset=evaluation,
            processing_class=tokenizer,
            peft_config=get_peft_config(model_args),
        )
    training.train(trainer, checkpoint)
    trainer.evaluate()
    training.finish(trainer, final)


if __name__ == "__main__":
    main()
