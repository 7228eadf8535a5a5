"""On-policy reinforcement learning without pairs, by TRL's RLOOTrainer (arXiv 2402.14740).

The policy samples --num_generations responses to a prompt, and the reward model scores them. The
policy gradient's baseline is leave-one-out: the mean score of the prompt's other responses. --beta
weights the KL to the reference, which is the policy that the training starts from. Every other flag
of TRL's RLOOConfig and ModelConfig passes through. A killed run resumes from its last checkpoint
(--save_steps) when the same command is given again.

Reads:  --dataset_name, one or more files of {"id", "prompt"}; --reward_model_name_or_path, a
        sequence classifier
Writes: --output_dir, a Hugging Face model directory with trainer_state.json, the training curve

    accelerate launch dpo/1c_rloo.py --model_name_or_path runs/my/sft \
        --reward_model_name_or_path runs/my/reward_model \
        --dataset_name runs/my/iter1/prompts.jsonl --output_dir runs/my/iter1/policy \
        --per_device_train_batch_size 16 --gradient_accumulation_steps 4 --num_generations 4
"""

import json
from dataclasses import dataclass, field

from trl import ModelConfig, RLOOConfig

from common import chats, models, rows, training, training_arguments, weights


@dataclass
class Data:
    dataset_name: list[str] = field(metadata={"help": "JSONL files of prompts"})
    reward_model_name_or_path: str = field(
        metadata={"help": "reward model, one score per sequence"}
    )


@dataclass
class Config(RLOOConfig):
    num_generations: int = field(
        default=4, metadata={"help": "responses per prompt (arXiv 2402.14740, 4)"}
    )
    max_completion_length: int = field(
        default=2048, metadata={"help": "most tokens of a response (arXiv 2405.07863, 3.3)"}
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule, as DPO's"})
    warmup_steps: float = field(
        default=0.03, metadata={"help": "steps, or their share if below 1, as DPO's"}
    )


def read_prompts(paths):
    prompts = []
    for path in paths:
        prompts.extend(rows.read(path, "prompts"))
    return prompts


def load_policy_tokenizer(training_args, model_args, example):
    """The policy's tokenizer; its EOS is the token that ends a turn of its chat template."""
    from transformers import AutoModelForCausalLM

    template_arguments = training_args.chat_template_kwargs or {}
    tokenizer = models.tokenizer(
        model_args.model_name_or_path,
        example,
        padding_side="left",
        chat_template_kwargs=json.dumps(template_arguments),
    )
    # The arguments are part of the template now: None keeps TRL from passing them again.
    training_args.chat_template_kwargs = None
    models.check(AutoModelForCausalLM, model_args.model_name_or_path, tokenizer)
    end = chats.turn_end(tokenizer)
    if end.token:
        # TRL ends a response at this token, and at those that generation_config names.
        tokenizer.eos_token = end.token
    return tokenizer


def load_reward_model(path, example, dtype):
    """(reward model, its tokenizer)."""
    from transformers import AutoModelForSequenceClassification

    tokenizer = models.tokenizer(path, example)
    models.ensure_padding(tokenizer)
    reward_model = models.load(
        AutoModelForSequenceClassification, path, tokenizer, num_labels=1, dtype=dtype
    )
    return reward_model, tokenizer


def build_trainer(prompts, tokenizer, reward_model, reward_tokenizer, training_args, model_args):
    from datasets import Dataset
    from trl import RLOOTrainer, get_peft_config

    def prompts_with_places():
        for row in prompts:
            yield row.at("prompt"), row["prompt"]

    dataset = Dataset.from_list([{"prompt": row["prompt"]} for row in prompts])
    with training.building(tokenizer, prompts_with_places):
        return RLOOTrainer(
            model_args.model_name_or_path,
            reward_model,
            training_args,
            train_dataset=dataset,
            processing_class=tokenizer,
            reward_processing_classes=reward_tokenizer,
            peft_config=get_peft_config(model_args),
        )


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    prompts = read_prompts(data.dataset_name)
    example = (prompts[0].at("prompt"), prompts[0]["prompt"])
    dtype = weights.precision(training_args, model_args)
    tokenizer = load_policy_tokenizer(training_args, model_args, example)
    reward_model, reward_tokenizer = load_reward_model(
        data.reward_model_name_or_path, example, dtype
    )
    final_path, checkpoint = training.begin(training_args)
    # TRL loads the policy itself, with these arguments.
    training_args.model_init_kwargs = weights.load_options(training_args, model_args)
    trainer = build_trainer(
        prompts, tokenizer, reward_model, reward_tokenizer, training_args, model_args
    )
    # TRL has loaded the policy itself, without our check for NaN.
    models.check_finite(model_args.model_name_or_path, trainer.model)
    training.train(trainer, checkpoint)
    if trainer.is_world_process_zero():
        print(f"{final_path} prompts in: {len(prompts)}, {trainer.state.global_step} steps")
    training.finish(trainer, final_path)


if __name__ == "__main__":
    main()
