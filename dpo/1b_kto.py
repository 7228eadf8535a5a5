"""Kahneman-Tversky optimisation by TRL's KTOTrainer (arXiv 2402.01306): from responses that are good or bad, unpaired.

With z0 = max(0, the mean l of mismatched prompts and responses), the loss is w (1 - sigmoid(beta (l - z0))) for a
desirable response, w (1 - sigmoid(beta (z0 - l))) for an undesirable one; l = log pi/pi_ref. z0 is of the global batch,
whatever its accumulation steps. Responses are trained on as they were sampled, cut to --max_length; a prompt that
leaves no room for one is dropped; both are counted. Every other flag of TRL's KTOConfig and ModelConfig passes through.
A run that was killed continues from its last checkpoint (--save_steps) when the same command is given again.

Reads:  --dataset_name, one or several files of {"id", "prompt", "completion", "label"}, or of pairs, {"id", "prompt",
        "chosen", "rejected"}, each of which gives a desirable and an undesirable row; shuffled by --seed
Writes: --output_dir, a Hugging Face model directory with trainer_state.json, the training curve

    accelerate launch dpo/1b_kto.py --model_name_or_path runs/my/iter1/policy --ref_model_name_or_path runs/my/sft \
        --dataset_name runs/my/iter2/pairs.jsonl --output_dir runs/my/iter2/policy \
        --per_device_train_batch_size 4 --gradient_accumulation_steps 4
"""

import random
import sys
from collections import Counter
from dataclasses import dataclass, field

from trl import KTOConfig, ModelConfig

from common import chats, models, rows, training, training_arguments


@dataclass
class Data:
    dataset_name: list[str] = field(
        metadata={"help": "JSONL files of labelled responses or of pairs"}
    )
    ref_model_name_or_path: str = field(metadata={"help": "reference policy pi_0"})
    chat_template_kwargs: str | None = field(
        default=None, metadata={"help": training_arguments.TEMPLATE_HELP}
    )


@dataclass
class Config(KTOConfig):
    learning_rate: float = field(
        default=5e-7, metadata={"help": "peak learning rate (arXiv 2402.01306, 4.1)"}
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule, as DPO's"})
    warmup_steps: float = field(
        default=0.03, metadata={"help": "steps, or below 1 their share, as DPO's"}
    )
    num_train_epochs: float = field(default=2, metadata={"help": "epochs a round, as DPO's"})
    max_length: int = field(default=2048, metadata={"help": "tokens; longer responses are cut"})
    precompute_ref_log_probs: bool = field(default=True, metadata={"help": "once for all epochs"})


def unpaired(names, seed):
    """The labelled responses of these files, shuffled: the estimate of z0 takes neighbours as mismatched."""
    labelled = []
    for name in names:
        first = next(rows.read(name)).keys()
        is_pair = {"chosen", "rejected"} <= first  # it may carry a completion
        kind = "preferences" if is_pair or "completion" not in first else "unpaired"
        for row in rows.read(name, kind):
            if kind == "preferences":
                labelled += [
                    example_of(row, row["chosen"], True),
                    example_of(row, row["rejected"], False),
                ]
            else:
                labelled.append(example_of(row, row["completion"], row["label"]))
    random.Random(seed).shuffle(labelled)
    return labelled


def example_of(row, completion, label):
    example = rows.Row(prompt=row["prompt"], completion=completion, label=label)
    example.place = row.place
    return example


def tokenised(labelled, tokenizer, max_length):
    """([{"prompt_ids", "completion_ids", "label"}] of the responses to train on, counts of the others)."""
    end = chats.turn_end(tokenizer)
    examples, counts = [], Counter()
    for row in labelled:
        where = row.at("prompt")
        texts = chats.prompt_and_response(tokenizer, end, row["prompt"], row["completion"], where)
        if texts is None:
            counts["thought"] += 1
            continue
        prompt_ids, completion_ids = chats.encode(tokenizer, *texts)
        if max_length is not None and len(prompt_ids) >= max_length:
            counts["too long"] += 1
            continue
        counts["cut"] += (
            max_length is not None and len(prompt_ids) + len(completion_ids) > max_length
        )
        examples.append(
            {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "label": row["label"]}
        )
    return examples, counts


def trainer_class(training_args):
    """TRL's trainer, with z0 of all micro-batches of a step: TRL takes that of each by itself, and of two rows a device
    it is hardly an estimate."""
    from trl import KTOTrainer

    class TokenKTOTrainer(KTOTrainer):
        """On responses that are tokens already; those of the KL term are the neighbours' of a micro-batch, as TRL's."""

        def _prepare_dataset(self, dataset, processing_class, args, name):
            def with_neighbours(batch):
                ids = batch["completion_ids"]
                return {"KL_completion_ids": [ids[-1], *ids[:-1]]}

            if not self.calculate_KL:
                return dataset
            return dataset.map(
                with_neighbours, batched=True, batch_size=args.per_device_train_batch_size
            )

    if training_args.gradient_accumulation_steps == 1 or training_args.loss_type != "kto":
        return TokenKTOTrainer  # its micro-batch is the batch, or the loss has no z0

    class WholeBatchKTOTrainer(TokenKTOTrainer):
        """The mean l of mismatched responses is computed when a step's micro-batches are drawn."""

        def get_batch_samples(self, epoch_iterator, num_batches, device):
            import torch

            batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
            ratios = []
            for batch in batches:
                batch = self._prepare_inputs(batch)
                with torch.no_grad(), self.compute_loss_context_manager():
                    logps = super()._compute_kl_logps(self.model_wrapped, batch)
                ratios.append(logps - batch["ref_KL_logps"])
            self.mean_ratio = torch.cat(ratios).mean() if ratios else None
            return batches, count

        def _compute_kl_logps(self, model, batch):
            return (
                batch["ref_KL_logps"] + self.mean_ratio
            )  # TRL subtracts the first again, and clamps the mean at 0

    return WholeBatchKTOTrainer


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    if training_args.beta <= 0:
        sys.exit(f"--beta: {training_args.beta} is not above 0")
    labelled = unpaired(data.dataset_name, training_args.seed)
    if not training_args.precompute_ref_log_probs and training_args.gradient_accumulation_steps > 1:
        sys.exit(
            "--precompute_ref_log_probs False: z0 of the global batch needs the reference's log-probabilities"
        )
    if training_args.per_device_train_batch_size < 2:
        sys.exit(
            "--per_device_train_batch_size 1: KTO takes its mismatched responses from the batch, give 2 or more"
        )

    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import get_peft_config

    attention, dtype = training.attention(training_args, model_args), model_args.dtype or "float32"
    both = []  # the policy and the reference, in the same precision
    for name in (model_args.model_name_or_path, data.ref_model_name_or_path):
        tokenizer = models.tokenizer(name, (labelled[0].at("prompt"), labelled[0]["prompt"]))
        model = models.load(
            AutoModelForCausalLM, name, tokenizer, dtype=dtype, attn_implementation=attention
        )
        both.append(model)
    tokenizer = models.tokenizer(
        model_args.model_name_or_path, chat_template_kwargs=data.chat_template_kwargs
    )
    examples, counts = tokenised(labelled, tokenizer, training_args.max_length)
    if not examples:
        sys.exit(
            f"{data.dataset_name[0]}: no response is left: prompts that leave no room within --max_length "
            f"{training_args.max_length}: {counts['too long']}, thoughts that do not fit the prompt: "
            f"{counts['thought']}"
        )
    final, checkpoint = training.begin(training_args)

    with training.building(tokenizer, lambda: ()):
        trainer = trainer_class(training_args)(
            *both,
            training_args,
            train_dataset=Dataset.from_list(examples),
            processing_class=tokenizer,
            peft_config=get_peft_config(model_args),
        )
    training.train(trainer, checkpoint)
    if trainer.is_world_process_zero():
        print(
            f"{final} responses in: {len(labelled)}, dropped, too long: {counts['too long']}, "
            f"dropped, thoughts that do not fit the prompt: {counts['thought']}, cut: {counts['cut']}, "
            f"trained on: {len(examples)}"
        )
    training.finish(trainer, final)


if __name__ == "__main__":
    main()
