"""Train a Bradley-Terry reward model by TRL's RewardTrainer: loss -log sigmoid(r_chosen - r_rejected) (paper 2.1).

The defaults are the paper's; every other flag of TRL's RewardConfig and ModelConfig passes through. The score is read
at the last token that is not padding, so padding gets a token of its own where the tokenizer pads with a token that
ends a chat. Pairs longer than --max_length are dropped and counted. A run that was killed continues from its last
checkpoint (--save_steps) when the same command is given again.

Reads:  --dataset_name and --held_out_name, {"id", "prompt", "chosen", "rejected"} from 1_preferences.py;
        --model_name_or_path, the fine-tuned model
Writes: --output_dir, a model that AutoModelForSequenceClassification loads, with trainer_state.json: the training
        curve, and at its end eval_loss and eval_accuracy on the held-out rows

    accelerate launch reward_modeling/2a_bradley_terry.py --model_name_or_path meta-llama/Meta-Llama-3-8B-Instruct \
        --dataset_name runs/my/preferences.jsonl --held_out_name runs/my/preferences_held_out.jsonl \
        --output_dir runs/my/reward_model --per_device_train_batch_size 8 --gradient_accumulation_steps 8
"""

import sys
from dataclasses import dataclass, field

from trl import ModelConfig, RewardConfig

from common import models, rows, training, training_arguments


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
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "True loses what group_by_length goes by"}
    )


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    pairs = list(rows.read(data.dataset_name, "preferences"))
    held_out = list(rows.read(data.held_out_name, "preferences"))
    if {str(row["prompt"]) for row in pairs} & {str(row["prompt"]) for row in held_out}:
        sys.exit(f"{data.held_out_name}: prompt: some prompts stand in {data.dataset_name} too")
    # TRL's eval_accuracy is the mean over batches: it is the rows' if the batches are of one size on every process.
    processes = training_args.world_size
    held_out = held_out[: len(held_out) // processes * processes]
    while len(held_out) % (training_args.per_device_eval_batch_size * processes):
        training_args.per_device_eval_batch_size -= 1

    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, set_seed
    from trl import RewardTrainer, get_peft_config

    tokenizer = models.tokenizer(
        model_args.model_name_or_path,
        (pairs[0].at("prompt"), pairs[0]["prompt"]),
        chat_template_kwargs=data.chat_template_kwargs,
    )
    set_seed(training_args.seed)  # the scoring head starts at random
    dtype, attention = model_args.dtype or "float32", training.attention(training_args, model_args)
    model = models.load(
        AutoModelForSequenceClassification,
        model_args.model_name_or_path,
        tokenizer,
        new_head=True,
        num_labels=1,
        dtype=dtype,
        attn_implementation=attention,
    )
    final, checkpoint = training.begin(training_args)
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id, models.last_of_a_chat(tokenizer)):
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
        model.resize_token_embeddings(
            max(len(tokenizer), model.get_input_embeddings().num_embeddings)
        )
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = tokenizer.pad_token_id

    model_args.lora_task_type = "SEQ_CLS"  # so that LoRA trains the scoring head as well

    def only_pairs(part):  # a "margin" column would change RewardTrainer's loss
        for row in part:
            pair = {key: row[key] for key in ("prompt", "chosen", "rejected")}
            # For --train_sampling_strategy group_by_length: a batch is padded to its longest response.
            yield pair | {
                "length": max(
                    len(str(row["prompt"] + row[side])) for side in ("chosen", "rejected")
                )
            }

    with training.building(tokenizer, lambda: training.compared_chats(pairs + held_out)):
        trainer = RewardTrainer(
            model,
            training_args,
            train_dataset=Dataset.from_list(list(only_pairs(pairs))),
            eval_dataset=Dataset.from_list(list(only_pairs(held_out))),
            processing_class=tokenizer,
            peft_config=get_peft_config(model_args),
        )
    parts = [
        (data.dataset_name, pairs, trainer.train_dataset),
        (data.held_out_name, held_out, trainer.eval_dataset),
    ]
    for name, given, kept in parts:
        if not len(kept):
            sys.exit(f"{name}: no pair has at most --max_length {training_args.max_length} tokens")
        if trainer.is_world_process_zero():
            dropped = len(given) - len(kept)
            print(
                f"{name} rows in: {len(given)}, dropped, too long: {dropped}, rows out: {len(kept)}"
            )
    training.train(trainer, checkpoint)
    trainer.evaluate()
    training.finish(trainer, final)


if __name__ == "__main__":
    main()
