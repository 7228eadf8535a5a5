"""Direct preference optimisation by TRL's DPOTrainer: loss -log sigmoid(beta D) (paper 3.3, Table 7).

In the paper every round starts from the previous policy (--model_name_or_path) and keeps the initial policy pi_0 as
reference (--ref_model_name_or_path). The reference's log-probabilities are computed once, before training. The
defaults are the paper's; every other flag of TRL's DPOConfig (--loss_type, --beta, ...) and ModelConfig passes
through. Beside TRL's losses --loss_type takes slic, sppo, xpo and selm, which losses.py defines. A run that was killed
continues from its last checkpoint (--save_steps) when the same command is given again.

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
from dataclasses import dataclass, field

import losses
from trl import DPOConfig, DPOTrainer, ModelConfig

import rows
import training
from common import models, training_arguments


@dataclass
class Data:
    dataset_name: list[str] = field(metadata={"help": "JSONL files of pairs, trained on together"})
    ref_model_name_or_path: str = field(metadata={"help": "reference policy; pi_0 in the paper (3.3)"})


@dataclass
class Config(DPOConfig):
    learning_rate: float = field(default=5e-7, metadata={"help": "peak learning rate (paper 3.3)"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule (paper 3.3)"})
    warmup_steps: float = field(default=0.03, metadata={"help": "steps, or below 1 their share (paper 3.3)"})
    num_train_epochs: float = field(default=2, metadata={"help": "epochs a round (paper 3.3)"})
    beta: float = field(default=0.1, metadata={"help": "KL coefficient, the paper's eta (3.3)"})
    max_length: int = field(default=2048, metadata={"help": "tokens; longer responses are cut (published code)"})
    precompute_ref_log_probs: bool = field(default=True, metadata={"help": "once for all epochs"})
    logging_first_step: bool = field(default=True, metadata={"help": "the first loss tells which reference was used"})
    slic_delta: float = field(default=1.0, metadata={"help": "margin of slic, in nats"})
    slic_weight: float = field(default=0.1, metadata={"help": "weight of slic's regulariser"})
    optimism: float = field(default=1e-5, metadata={"help": "alpha of xpo (1e-5 or 5e-6) and selm (1e-4)"})


def fits(tokenizer, row, max_length):
    """Does the prompt leave a token for the responses?"""
    text = models.render(tokenizer, row["prompt"], row.place, add_generation_prompt=True)
    return max_length is None or len(tokenizer(text, add_special_tokens=False)["input_ids"]) < max_length


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    own = [name for name in training_args.loss_type if name in losses.NEEDS]
    if own and len(training_args.loss_type) > 1:
        sys.exit(f"--loss_type {own[0]}: not together with another loss")
    if unknown := [name for name in training_args.loss_type if name not in [*losses.NEEDS, *losses.OF_TRL]]:
        sys.exit(f"--loss_type {unknown[0]}: none of {' '.join([*losses.NEEDS, *losses.OF_TRL])}")
    if training_args.beta <= 0:
        sys.exit(f"--beta: {training_args.beta} is not above 0")
    needed = losses.NEEDS[own[0]] if own else []
    pairs = [row for name in data.dataset_name for row in rows.read(name, "preferences", also=needed)]
    fields = ["prompt", "chosen", "rejected", *needed]

    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import get_peft_config

    example = pairs[0].place, pairs[0]["prompt"]
    for name in (model_args.model_name_or_path, data.ref_model_name_or_path):
        models.check(AutoModelForCausalLM, name, models.tokenizer(name, example))
    tokenizer = models.tokenizer(model_args.model_name_or_path)
    if not any(fits(tokenizer, row, training_args.max_length) for row in pairs):
        sys.exit(f"{data.dataset_name[0]}: no prompt leaves room within --max_length {training_args.max_length}")
    final, checkpoint = training.begin(training_args)

    attention = training.attention(training_args, model_args)

    def model(name):  # policy and reference in the same precision, or their ratio is off from the first step
        dtype = model_args.dtype or "float32"
        return models.load(AutoModelForCausalLM, name, dtype=dtype, attn_implementation=attention)

    stored = f"{training_args.output_dir}/checkpoint-pairs"
    with training_args.main_process_first(local=False):  # the others read the reference's log-probabilities beside it
        if not os.path.exists(f"{stored}/dataset_info.json"):
            Dataset.from_list([{field: row[field] for field in fields} for row in pairs]).save_to_disk(stored)
    trainer_class, collator = DPOTrainer, None
    if own:
        training_args.remove_unused_columns = False
        collator = losses.Collator(tokenizer.pad_token_id, training_args.max_length, tokenizer=tokenizer)
        trainer_class = losses.PairTrainer
    policy, reference = model(model_args.model_name_or_path), model(data.ref_model_name_or_path)
    with training.building(tokenizer, lambda: training.compared_chats(pairs)):
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
        kept, steps = len(trainer.train_dataset), trainer.state.global_step
        print(
            f"{final} pairs in: {len(pairs)}, dropped, too long: {len(pairs) - kept}, trained on: {kept}, {steps} steps"
        )
    training.finish(trainer, final)


if __name__ == "__main__":
    main()
