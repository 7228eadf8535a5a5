"""What the on-policy trainings share: the flags of TRL's RLOOTrainer, the prompts, the policy."""

import json
import sys
from dataclasses import dataclass, field

from trl import RLOOConfig

from common import chats, models, rows, training, weights


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
    disable_dropout: bool = field(
        default=True, metadata={"help": "as in DPO: responses are sampled without dropout"}
    )


def read_prompts(paths):
    """The prompts of files; one with a system turn or tools of its own is refused."""
    prompts = []
    for path in paths:
        for row in rows.read(path, "prompts"):
            for field_name in ("system", "tools"):
                if row.get(field_name):
                    rows.refuse(row, f"{field_name}: not read by an on-policy training")
            prompts.append(row)
    return prompts


def load_policy_tokenizer(training_args, model_args, example):
    """The policy's tokenizer; its EOS is the token that ends a turn of its chat template."""
    from transformers import AutoModelForCausalLM

    if (
        model_args.lora_modules_to_save
        and weights.precision(training_args, model_args) != "float32"
    ):
        # PEFT's `generate` runs without autocast, in which these float32 modules would meet bf16.
        sys.exit("--lora_modules_to_save: on-policy training samples with them in float32 only")
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


def build_trainer(prompts, tokenizer, reward, training_args, model_args, reward_tokenizer=None):
    """TRL's trainer. reward: a reward model with its tokenizer, or a reward function.

    A reward function also gets each prompt's FILE:LINE: FIELD, as `place`, for messages.
    """
    from datasets import Dataset
    from trl import RLOOTrainer, get_peft_config

    def prompts_with_places():
        for row in prompts:
            yield row.at("prompt"), row["prompt"]

    dataset = Dataset.from_list(
        [{"prompt": prompt, "place": place} for place, prompt in prompts_with_places()]
    )
    # TRL loads the policy itself, with these arguments.
    training_args.model_init_kwargs = weights.load_options(training_args, model_args)
    with training.building(tokenizer, prompts_with_places):
        trainer = RLOOTrainer(
            model_args.model_name_or_path,
            reward,
            training_args,
            train_dataset=dataset,
            processing_class=tokenizer,
            reward_processing_classes=reward_tokenizer,
            peft_config=get_peft_config(model_args),
        )
    # TRL has loaded it without our check for NaN.
    models.check_finite(model_args.model_name_or_path, trainer.model)
    return trainer


def train(trainer, checkpoint, final_path, prompts):
    """Train from that checkpoint or from the start, and publish the policy."""
    training.train(trainer, checkpoint)
    if trainer.is_world_process_zero():
        print(f"{final_path} prompts in: {len(prompts)}, {trainer.state.global_step} steps")
    training.finish(trainer, final_path)
