"""Train a pairwise preference model by TRL's SFTTrainer: the next token, A or B, names the better response (paper 2.1).

It reads "[CONTEXT] ... [RESPONSE A] ... [RESPONSE B] ..." as a user's turn. Which response is A is drawn for each pair,
so that a side means nothing. A comparison of more than --max_length tokens would lose its end, the answer: it is
dropped and counted. The defaults are the paper's; every other flag of TRL's SFTConfig and ModelConfig passes through. A
run that was killed continues from its last checkpoint (--save_steps) when the same command is given again.

Reads:  --dataset_name and --held_out_name, {"id", "prompt", "chosen", "rejected"} from 1_preferences.py;
        --model_name_or_path, a fine-tuned model or a reward model
Writes: --output_dir, a causal model for annotation/1b_preference_model.py, with trainer_state.json: the training
        curve, and at its end eval_loss on the held-out rows

    accelerate launch reward_modeling/2b_preference_model.py \
        --model_name_or_path meta-llama/Meta-Llama-3-8B-Instruct \
        --dataset_name runs/my/preferences.jsonl --held_out_name runs/my/preferences_held_out.jsonl \
        --output_dir runs/my/preference_model --per_device_train_batch_size 4 --gradient_accumulation_steps 4
"""

import random
import sys
from dataclasses import dataclass, field

from trl import ModelConfig, SFTConfig

from common import chats, comparisons, models, rows, training, training_arguments


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
    max_length: int = field(default=3072, metadata={"help": "tokens a block (paper 2.1)"})


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    pairs = list(rows.read(data.dataset_name, "preferences"))
    held_out = list(rows.read(data.held_out_name, "preferences"))
    if {str(row["prompt"]) for row in pairs} & {str(row["prompt"]) for row in held_out}:
        sys.exit(f"{data.held_out_name}: prompt: some prompts stand in {data.dataset_name} too")

    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTTrainer, get_peft_config

    example = pairs[0].at("prompt"), comparisons.question(pairs[0]["prompt"], "first", "second")
    tokenizer = models.tokenizer(
        model_args.model_name_or_path, example, chat_template_kwargs=data.chat_template_kwargs
    )
    _, answer_length = chats.choice(tokenizer)

    def compared(part, name):
        """Rows of tokens and labels; the answer and what follows it is learned."""
        texts = []
        for row in part:
            responses = [row[name][-1]["content"] for name in ("chosen", "rejected")]
            side = random.Random(f"{training_args.seed} {row['id']}").choice("AB")
            a, b = responses if side == "A" else reversed(responses)
            asked = comparisons.question(row["prompt"] + row["chosen"][:-1], a, b)
            messages = [*asked, {"role": "assistant", "content": side}]
            texts.append(comparisons.text(tokenizer, messages, row.at("prompt")))
        fit = []
        for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
            if len(ids) <= training_args.max_length:
                labels = [chats.NO_LOSS] * (len(ids) - answer_length) + ids[-answer_length:]
                fit.append({"input_ids": ids, "labels": labels})
        print(
            f"{name} rows in: {len(part)}, dropped, too long: {len(part) - len(fit)}, rows out: {len(fit)}"
        )
        return fit or sys.exit(
            f"{name}: no comparison has at most --max_length {training_args.max_length} tokens"
        )

    attention = training.attention(training_args, model_args)
    model = models.load(
        AutoModelForCausalLM,
        model_args.model_name_or_path,
        tokenizer,
        reward_model_too=True,
        dtype=model_args.dtype or "float32",
        attn_implementation=attention,
    )
    train, evaluation = compared(pairs, data.dataset_name), compared(held_out, data.held_out_name)
    final, checkpoint = training.begin(training_args)
    with training.building(tokenizer, lambda: ()):
        trainer = SFTTrainer(
            model,
            training_args,
            train_dataset=Dataset.from_list(train),
            eval_dataset=Dataset.from_list(evaluation),
            processing_class=tokenizer,
            peft_config=get_peft_config(model_args),
        )
    training.train(trainer, checkpoint)
    trainer.evaluate()
    training.finish(trainer, final)


if __name__ == "__main__":
    main()
