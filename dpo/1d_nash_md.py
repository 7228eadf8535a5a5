"""Nash-MD (arXiv 2312.00886): on-policy training against a mixture of policy and reference.

The policy samples --num_generations responses y to a prompt. One opponent y' is sampled from the
geometric mixture of policy and reference, with logits (1 - c) log pi + c log pi_ref at each token
and c of --mixture_coefficient. The reward of y is P(y beats y') - 1/2 by a pairwise preference
model, in both orders, less --beta times the log-ratio of y. So the policy learns by the gradient

    (P(y beats y') - 1/2 - beta log(pi(y) / pi_ref(y))) grad log pi(y)

TRL's RLOOTrainer subtracts the mean reward of the prompt's other responses, the leave-one-out
baseline, so that the constant 1/2 cancels. That mean does not depend on y: the gradient stays
unbiased, and its variance is lower. The reference is the policy that the training starts from.
--temperature holds for y and y', --top_p and its like for y alone. A killed run resumes from its
last checkpoint (--save_steps) when the same command is given again.

Reads:  --dataset_name, one or more files of {"id", "prompt"}, without a "system" turn or "tools";
        --preference_model_name_or_path
Writes: --output_dir, a Hugging Face model directory with trainer_state.json, the training curve

    accelerate launch dpo/1d_nash_md.py --model_name_or_path runs/my/sft \
        --preference_model_name_or_path runs/my/preference_model \
        --dataset_name runs/my/iter1/prompts.jsonl --output_dir runs/my/iter1/policy \
        --per_device_train_batch_size 16 --gradient_accumulation_steps 4 --num_generations 4
"""

import os
import sys
from dataclasses import dataclass, field
from statistics import fmean

from trl import ModelConfig

import on_policy
from common import chats, comparisons, training, training_arguments
from common.preference_model import Comparison, PreferenceModel


@dataclass
class Data:
    dataset_name: list[str] = field(metadata={"help": "JSONL files of prompts"})
    preference_model_name_or_path: str = field(metadata={"help": "pairwise preference model"})
    mixture_coefficient: float = field(
        default=0.5, metadata={"help": "c, the reference's share of the opponent"}
    )


def check_arguments(training_args):
    """Refuse what leaves a process without the whole reference, or a row without its place."""
    from transformers.integrations import is_deepspeed_zero3_enabled

    if training_args.beta == 0:
        sys.exit("--beta: above 0; at 0 TRL loads no reference, which the opponent needs")
    if training_args.remove_unused_columns:
        sys.exit("--remove_unused_columns True: the reward needs the place of each prompt")
    by_fsdp = training_args.fsdp or os.environ.get("ACCELERATE_USE_FSDP") == "true"
    # Each process samples its opponents at its own pace: it cannot wait for the weights of others.
    if by_fsdp or is_deepspeed_zero3_enabled():
        sys.exit("1d_nash_md.py: not with ZeRO-3 or FSDP, whose processes hold parts of a model")


class WinMargin:
    """TRL's reward function: P(y beats y') - 1/2, with an opponent y' for each prompt.

    trainer: the RLOOTrainer, set once that is built: it takes this object as an argument.
    """

    def __init__(self, preference_model, tokenizer, coefficient):
        self.__name__ = "win_margin"  # in TRL's log
        self.preference_model = preference_model
        self.tokenizer = tokenizer
        self.coefficient = coefficient
        self.trainer = None

    def __call__(self, prompts, completions, place, log_extra, log_metric, **_):
        """A reward for each completion, None where a comparison is longer than the context.

        All are lists with an entry for each completion, but for the last two, TRL's functions.
        """
        opponents = self.opponents(prompts, place, log_metric)
        log_extra("opponent", opponents)  # for --log_completions
        compared = []
        for prompt, completion, opponent, where in zip(
            prompts, completions, opponents, place, strict=True
        ):
            compared.append(Comparison(prompt, completion[0]["content"], opponent, where))
        rewards = []
        for probability in self.preference_model.probabilities(compared):
            rewards.append(None if probability is None else probability - 0.5)
        return rewards

    def opponents(self, prompts, places, log_metric):
        """The opponent of each completion, a text; within a process equal prompts have the same."""
        texts = []
        for prompt, place in zip(prompts, places, strict=True):
            texts.append(chats.prompt_text(self.tokenizer, prompt, place))
        distinct_texts = list(dict.fromkeys(texts))
        sampled = self.sample(distinct_texts)
        log_metric("opponents/mean_length", fmean(map(len, sampled)))
        responses = self.tokenizer.batch_decode(sampled, skip_special_tokens=True)
        opponent_of_text = dict(zip(distinct_texts, responses, strict=True))
        return [opponent_of_text[text] for text in texts]

    def sample(self, texts):
        """Token ids of a response of the mixture to the text of each prompt."""
        from trl.models import unwrap_model_for_generation

        from common import mixture  # which imports torch

        trainer = self.trainer
        with unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
        ) as unwrapped:
            policy, reference = self.policy_and_reference(unwrapped)
            sampler = mixture.Mixture(
                policy,
                reference,
                self.coefficient,
                set(trainer.eos_token_ids),
                trainer.max_completion_length,
            )
            return sampler.sample(
                self.tokenizer(texts, add_special_tokens=False)["input_ids"],
                temperatures=[trainer.temperature] * len(texts),
                # torch's global one, whose state a checkpoint keeps.
                generators=[None] * len(texts),
            )

    def policy_and_reference(self, policy):
        """The two models of the mixture; under LoRA the policy without its adapters is the second.

        policy: without the wrappers of accelerate.
        """
        if self.trainer.ref_model is not None:
            return policy, self.trainer.ref_model
        base_model = policy.get_base_model()

        def reference(**inputs):
            with policy.disable_adapter():
                return base_model(**inputs)

        return base_model, reference


def load_preference_model(path, row, training_args):
    """The PreferenceModel, in the precision of annotation. row: of a prompt, for an example."""
    question = comparisons.question(row["prompt"], "response", "another")
    dtype = "bfloat16" if training_args.bf16 else "float32"
    return PreferenceModel(path, (row.at("prompt"), question), dtype)


def main():
    data, training_args, model_args = training_arguments.parse(Data, on_policy.Config, ModelConfig)
    check_arguments(training_args)
    prompts = on_policy.read_prompts(data.dataset_name)
    example = (prompts[0].at("prompt"), prompts[0]["prompt"])
    tokenizer = on_policy.load_policy_tokenizer(training_args, model_args, example)
    preference_model = load_preference_model(
        data.preference_model_name_or_path, prompts[0], training_args
    )
    win_margin = WinMargin(preference_model, tokenizer, data.mixture_coefficient)
    final_path, checkpoint = training.begin(training_args)
    trainer = on_policy.build_trainer(prompts, tokenizer, win_margin, training_args, model_args)
    win_margin.trainer = trainer
    on_policy.train(trainer, checkpoint, final_path, prompts)


if __name__ == "__main__":
    main()
