"""Direct preference optimisation by TRL's DPOTrainer: loss -log sigmoid(beta D) (paper 3.3, Table 7).

In the paper every round starts from the previous policy (--model_name_or_path) and keeps the initial policy pi_0 as
reference (--ref_model_name_or_path). The reference's log-probabilities are computed once, before training. Responses
are trained on as they were sampled, thoughts included, whatever the chat template makes of them. What is longer than
--max_length is cut; pairs that leave nothing to compare are dropped; both are counted. The defaults are the paper's;
every other flag of TRL's DPOConfig (--loss_type, --beta, ...) and ModelConfig passes through. Beside TRL's losses
--loss_type takes slic, sppo, xpo, selm and rpo, which losses.py defines. A run that was killed continues from its last
checkpoint (--save_steps) when the same command is given again.

Reads:  --dataset_name, one or several files of {"id", "prompt", "chosen", "rejected"}: this round's pairs, earlier
        rounds', an offline preference set. sppo reads "chosen_win_probability" and "rejected_win_probability" as
        well, xpo and selm "explored", a response's text
Writes: --output_dir, a Hugging Face model directory with trainer_state.json, the training curve. The first loss of
        sigmoid DPO is ln 2 where start and reference are the same.

    accelerate launch dpo/1_dpo.py --model_name_or_path runs/my/iter1/policy --ref_model_name_or_path runs/my/sft \
        --dataset_name runs/my/iter2/pairs.jsonl --output_dir runs/my/iter2/policy \
        --per_device_train_batch_size 2 --gradient_accumulation_steps 8
"""

import os
import sys
from collections import Counter
from dataclasses import dataclass, field

from trl import DPOConfig, ModelConfig

import losses
from common import chats, models, rows, training, training_arguments


@dataclass
class Data:
    dataset_name: list[str] = field(metadata={"help": "JSONL files of pairs, trained on together"})
    ref_model_name_or_path: str = field(
        metadata={"help": "reference policy; pi_0 in the paper (3.3)"}
    )
    chat_template_kwargs: str | None = field(
        default=None, metadata={"help": training_arguments.TEMPLATE_HELP}
    )


@dataclass
class Config(DPOConfig):
    learning_rate: float = field(default=5e-7, metadata={"help": "peak learning rate (paper 3.3)"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule (paper 3.3)"})
    warmup_steps: float = field(
        default=0.03, metadata={"help": "steps, or below 1 their share (paper 3.3)"}
    )
    num_train_epochs: float = field(default=2, metadata={"help": "epochs a round (paper 3.3)"})
    beta: float = field(default=0.1, metadata={"help": "KL coefficient, the paper's eta (3.3)"})
    max_length: int = field(
        default=2048, metadata={"help": "tokens; longer responses are cut (published code)"}
    )
    precompute_ref_log_probs: bool = field(default=True, metadata={"help": "once for all epochs"})
    logging_first_step: bool = field(
        default=True, metadata={"help": "the first loss tells which reference was used"}
    )
    slic_delta: float = field(default=1.0, metadata={"help": "margin of slic, in nats"})
    slic_weight: float = field(default=0.1, metadata={"help": "weight of slic's regulariser"})
    optimism: float = field(
        default=1e-5, metadata={"help": "alpha of xpo (1e-5 or 5e-6) and selm (1e-4)"}
    )
    rpo_alpha: float = field(
        default=1.0, metadata={"help": "weight of rpo's likelihood of the chosen response"}
    )


def tokenised(pairs, tokenizer, training_args, needed):
    """([{"prompt_ids", "chosen_ids", "rejected_ids", ...}] of the pairs to train on, counts of the others).

    needed: fields of a pair that the loss reads beside them.
    """
    end = chats.turn_end(tokenizer)
    examples, counts = [], Counter()
    for row in pairs:
        responses = {"chosen_ids": row["chosen"], "rejected_ids": row["rejected"]}
        if "explored" in needed:
            responses["explored_ids"] = [{"role": "assistant", "content": row["explored"]}]
        example = {name: row[name] for name in needed if name != "explored"}
        for name, messages in responses.items():
            texts = chats.prompt_and_response(
                tokenizer, end, row["prompt"], messages, row.at("prompt")
            )
            if texts is not None:
                example["prompt_ids"], example[name] = chats.encode(tokenizer, *texts)
        fate = fate_of(example, responses, training_args)
        if fate:
            counts[fate] += 1
        if fate in (None, "cut"):
            examples.append(example)
    return examples, counts


def fate_of(example, names, training_args):
    """What becomes of a pair: "thought", "too long", "equal" (all three are dropped), "cut", or None.

    names: of the responses that it needs.
    """
    if not example.keys() >= names.keys():
        return "thought"
    limit = training_args.max_length
    prompt = example["prompt_ids"]
    longest = max(len(prompt + example[name]) for name in names)
    if limit is None or longest <= limit:
        return None
    part = slice(-limit, None) if training_args.truncation_mode == "keep_end" else slice(limit)
    if training_args.truncation_mode == "keep_start" and len(prompt) >= limit:
        return "too long"
    chosen, rejected = ((prompt + example[name])[part] for name in ("chosen_ids", "rejected_ids"))
    return "equal" if chosen == rejected else "cut"


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    own = [name for name in training_args.loss_type if name in losses.NEEDS]
    if own and len(training_args.loss_type) > 1:
        sys.exit(f"--loss_type {own[0]}: not together with another loss")
    if unknown := [
        name for name in training_args.loss_type if name not in [*losses.NEEDS, *losses.OF_TRL]
    ]:
        sys.exit(f"--loss_type {unknown[0]}: none of {' '.join([*losses.NEEDS, *losses.OF_TRL])}")
    if training_args.beta <= 0:
        sys.exit(f"--beta: {training_args.beta} is not above 0")
    needed = losses.NEEDS[own[0]] if own else []
    pairs = [
        row for name in data.dataset_name for row in rows.read(name, "preferences", also=needed)
    ]

    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import get_peft_config

    example = pairs[0].at("prompt"), pairs[0]["prompt"]
    for name in (model_args.model_name_or_path, data.ref_model_name_or_path):
        models.check(AutoModelForCausalLM, name, models.tokenizer(name, example))
    tokenizer = models.tokenizer(
        model_args.model_name_or_path, chat_template_kwargs=data.chat_template_kwargs
    )
    examples, counts = tokenised(pairs, tokenizer, training_args, needed)
    if not examples:
        if counts["too long"] == len(pairs):
            sys.exit(
                f"{data.dataset_name[0]}: no prompt leaves room within --max_length {training_args.max_length}"
            )
        sys.exit(
            f"{data.dataset_name[0]}: no pair is left within --max_length {training_args.max_length}: prompts that "
            f"leave no room: {counts['too long']}, responses that do not differ there: {counts['equal']}, thoughts "
            f"that do not fit the prompt: {counts['thought']}"
        )
    final, checkpoint = training.begin(training_args)

    attention = training.attention(training_args, model_args)

    def model(
        name,
    ):  # policy and reference in the same precision, or their ratio is off from the first step
        dtype = model_args.dtype or "float32"
        return models.load(AutoModelForCausalLM, name, dtype=dtype, attn_implementation=attention)

    stored = f"{training_args.output_dir}/checkpoint-pairs"
    with training_args.main_process_first(
        local=False
    ):  # the others read the reference's log-probabilities beside it
        if not os.path.exists(f"{stored}/dataset_info.json"):
            Dataset.from_list(examples).save_to_disk(stored)
    trainer_class, collator = losses.TokenTrainer, None
    if own:
        training_args.remove_unused_columns = False
        filler = (
            tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        )
        collator = losses.Collator(filler, training_args.max_length)
        trainer_class = losses.PairTrainer
    policy, reference = model(model_args.model_name_or_path), model(data.ref_model_name_or_path)
    with training.building(tokenizer, lambda: ()):
        trainer = trainer_class(
            policy,
            reference,
            training_args,
            train_dataset=Dataset.load_from_disk(stored),
            data_collator=collator,
            processing_class=tokenizer,
            peft_config=get_peft_config(model_args),
        )
    training.train(trainer, checkpoint)
    if trainer.is_world_process_zero():
        print(
            f"{final} pairs in: {len(pairs)}, dropped, too long: {counts['too long']}, "
            f"dropped, equal within --max_length: {counts['equal']}, "
            f"dropped, thoughts that do not fit the prompt: {counts['thought']}, "
            f"cut: {counts['cut']}, trained on: {len(examples)}, {trainer.state.global_step} steps"
        )
    training.finish(trainer, final)


if __name__ == "__main__":
    main()
