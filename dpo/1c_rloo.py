"""On-policy reinforcement learning without pairs, by TRL's RLOOTrainer (arXiv 2402.14740).

The policy samples --num_generations responses to a prompt, and the reward model scores them. The
policy gradient's baseline is leave-one-out: the mean score of the prompt's other responses. --beta
weights the KL to the reference, which is the policy that the training starts from. Every other flag
of TRL's RLOOConfig and ModelConfig passes through. A killed run resumes from its last checkpoint
(--save_steps) when the same command is given again.

Reads:  --dataset_name, one or more files of {"id", "prompt"}, without a "system" turn or "tools";
        --reward_model_name_or_path, a sequence classifier
Writes: --output_dir, a Hugging Face model directory with trainer_state.json, the training curve

    accelerate launch dpo/1c_rloo.py --model_name_or_path runs/my/sft \
        --reward_model_name_or_path runs/my/reward_model \
        --dataset_name runs/my/iter1/prompts.jsonl --output_dir runs/my/iter1/policy \
        --per_device_train_batch_size 16 --gradient_accumulation_steps 4 --num_generations 4
"""

from dataclasses import dataclass, field

from trl import ModelConfig

import on_policy
from common import models, training, training_arguments, weights


@dataclass
class Data:
    dataset_name: list[str] = field(metadata={"help": "JSONL files of prompts"})
    reward_model_name_or_path: str = field(
        metadata={"help": "reward model, one score per sequence"}
    )


def load_reward_model(path, example, dtype):
    """(reward model, its tokenizer)."""
    from transformers import AutoModelForSequenceClassification

    tokenizer = models.tokenizer(path, example)
    models.ensure_padding(tokenizer)
    reward_model = models.load(
        AutoModelForSequenceClassification, path, tokenizer, num_labels=1, dtype=dtype
    )
    return reward_model, tokenizer


def main():
    data, training_args, model_args = training_arguments.parse(Data, on_policy.Config, ModelConfig)
    prompts = on_policy.read_prompts(data.dataset_name)
    example = (prompts[0].at("prompt"), prompts[0]["prompt"])
    dtype = weights.precision(training_args, model_args)
    tokenizer = on_policy.load_policy_tokenizer(training_args, model_args, example)
    reward_model, reward_tokenizer = load_reward_model(
        data.reward_model_name_or_path, example, dtype
    )
    final_path, checkpoint = training.begin(training_args)
    trainer = on_policy.build_trainer(
        prompts, tokenizer, reward_model, training_args, model_args, reward_tokenizer
    )
    on_policy.train(trainer, checkpoint, final_path, prompts)


if __name__ == "__main__":
    main()
