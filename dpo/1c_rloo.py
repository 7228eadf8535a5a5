"""On-policy reinforcement learning by TRL's RLOOTrainer (arXiv 2402.14740): the baseline without pairs.

Samples --num_generations responses to a prompt, scores them by the reward model, and follows the policy gradient with
the mean of the others' scores as baseline; --beta weights the KL to the reference, which is the policy that it starts
from. Every other flag of TRL's RLOOConfig and ModelConfig passes through. A run that was killed continues from its last
checkpoint (--save_steps) when the same command is given again.

Reads:  --dataset_name, one or several files of {"id", "prompt"}; --reward_model_name_or_path, a sequence classifier
Writes: --output_dir, a Hugging Face model directory with trainer_state.json, the training curve

    accelerate launch dpo/1c_rloo.py --model_name_or_path runs/my/sft --reward_model_name_or_path runs/my/reward_model \
        --dataset_name runs/my/iter1/prompts.jsonl --output_dir runs/my/iter1/policy \
        --per_device_train_batch_size 16 --gradient_accumulation_steps 4 --num_generations 4
"""

import json
from dataclasses import dataclass, field

from trl import ModelConfig, RLOOConfig

from common import chats, models, rows, training, training_arguments


@dataclass
class Data:
    dataset_name: list[str] = field(metadata={"help": "JSONL files of prompts"})
    reward_model_name_or_path: str = field(metadata={"help": "reward model, one score a sequence"})


@dataclass
class Config(RLOOConfig):
    num_generations: int = field(
        default=4, metadata={"help": "responses a prompt (arXiv 2402.14740, 4)"}
    )
    max_completion_length: int = field(
        default=2048, metadata={"help": "tokens a response at most, as paper 3.3"}
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule, as DPO's"})
    warmup_steps: float = field(
        default=0.03, metadata={"help": "steps, or below 1 their share, as DPO's"}
    )


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    prompts = [row for name in data.dataset_name for row in rows.read(name, "prompts")]

    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from trl import RLOOTrainer, get_peft_config

    dtype, name = model_args.dtype or "float32", data.reward_model_name_or_path
    example = prompts[0].at("prompt"), prompts[0]["prompt"]
    tokenizer = models.tokenizer(
        model_args.model_name_or_path,
        example,
        padding_side="left",
        chat_template_kwargs=json.dumps(training_args.chat_template_kwargs or {}),
    )
    training_args.chat_template_kwargs = None  # they are part of the template now
    models.check(AutoModelForCausalLM, model_args.model_name_or_path, tokenizer)
    end = chats.turn_end(tokenizer)
    if end.token:
        tokenizer.eos_token = (
            end.token
        )  # where TRL lets a response end, beside the ends of generation_config
    scorer_tokenizer = models.tokenizer(name, example)
    models.ensure_padding(scorer_tokenizer)
    reward_model = models.load(
        AutoModelForSequenceClassification, name, scorer_tokenizer, num_labels=1, dtype=dtype
    )
    final, checkpoint = training.begin(training_args)

    training_args.model_init_kwargs = {"dtype": dtype}
    if implementation := training.attention(training_args, model_args):
        training_args.model_init_kwargs["attn_implementation"] = implementation
    with training.building(
        tokenizer, lambda: ((row.at("prompt"), row["prompt"]) for row in prompts)
    ):
        trainer = RLOOTrainer(
            model_args.model_name_or_path,
            reward_model,
            training_args,
            train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in prompts]),
            processing_class=tokenizer,
            reward_processing_classes=scorer_tokenizer,
            peft_config=get_peft_config(model_args),
        )
    models.check_finite(model_args.model_name_or_path, trainer.model)
    training.train(trainer, checkpoint)
    if trainer.is_world_process_zero():
        print(f"{final} prompts in: {len(prompts)}, {trainer.state.global_step} steps")
    training.finish(trainer, final)


if __name__ == "__main__":
    main()
