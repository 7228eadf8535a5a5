"""Kahneman-Tversky optimisation by TRL's KTOTrainer (arXiv 2402.01306): no pairs are needed.

Each response is desirable or undesirable. With l = log pi/pi_ref of a response, and
z0 = max(0, the mean l of mismatched prompts and responses), the loss is

    w (1 - sigmoid(beta (l - z0)))  for a desirable response, w = --desirable_weight,
    w (1 - sigmoid(beta (z0 - l)))  for an undesirable one, w = --undesirable_weight.

A response may have several turns (common/trajectories.py). With --assistant_only_loss only the
tokens of the assistant's turns count, without the tool's results: M-KTO (arXiv 2409.02392).

The reference is given up once it has scored all responses. Responses are packed, so that little
padding is computed (common/packing.py); --packed False gives TRL's padded batches.

z0 is estimated over the global batch, that is over all gradient accumulation steps and processes.

Responses are trained on verbatim; prompt and response are cut to --max_length. A prompt that leaves
no room for a response, or whose template does not fit the response's thought, is dropped. All are
counted. Every other flag of TRL's KTOConfig and ModelConfig passes through. A killed run resumes
from its last checkpoint (--save_steps) when the same command is given again.

Reads:  --dataset_name, one or more files of {"id", "prompt", "completion", "label"}, or of pairs,
        {"id", "prompt", "chosen", "rejected"}, each of which gives a desirable and an undesirable
        row; shuffled by --seed
Writes: --output_dir, a Hugging Face model directory with trainer_state.json, the training curve

    accelerate launch dpo/1b_kto.py --model_name_or_path runs/my/iter1/policy \
        --ref_model_name_or_path runs/my/sft --dataset_name runs/my/iter2/pairs.jsonl \
        --output_dir runs/my/iter2/policy \
        --per_device_train_batch_size 4 --gradient_accumulation_steps 4
"""

import random
import sys
from collections import Counter
from dataclasses import dataclass, field

from trl import KTOConfig, KTOTrainer, ModelConfig
from trl.trainer import kto_trainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from common import (
    chats,
    models,
    packing,
    response_tokens,
    rows,
    training,
    training_arguments,
    weights,
)

# TRL names its cache of the reference's log-probabilities by a hash of all weights, about
# ten seconds a billion. The cache lies in the folder of this run, where a constant will do.
kto_trainer.hash_module = lambda _: "reference"


@dataclass
class Data:
    dataset_name: list[str] = field(
        metadata={"help": "JSONL files of labelled responses or of pairs"}
    )
    ref_model_name_or_path: str = field(metadata={"help": "reference policy pi_ref"})
    chat_template_kwargs: str | None = field(
        default=None, metadata={"help": training_arguments.TEMPLATE_HELP}
    )
    assistant_only_loss: bool = field(
        default=False, metadata={"help": training_arguments.ASSISTANT_ONLY_HELP}
    )


@dataclass
class Config(KTOConfig):
    learning_rate: float = field(
        default=5e-7, metadata={"help": "peak learning rate (arXiv 2402.01306, 4.1)"}
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule, as DPO's"})
    warmup_steps: float = field(
        default=0.03, metadata={"help": "steps, or their share if below 1, as DPO's"}
    )
    num_train_epochs: float = field(default=2, metadata={"help": "epochs per round, as DPO's"})
    max_length: int = field(
        default=2048, metadata={"help": "tokens of prompt and response; longer ones are cut"}
    )
    precompute_ref_log_probs: bool = field(default=True, metadata={"help": "once for all epochs"})
    packed: bool = field(default=True, metadata={"help": training_arguments.PACKED_HELP})


# Rows


def unpaired(paths, seed):
    """The labelled responses of these files, shuffled.

    KTO takes neighbours as mismatched: the two sides of a pair should rarely be neighbours.
    """
    labelled = []
    for path in paths:
        fields = next(rows.read(path)).keys()
        # A pair may carry a completion too: it is a pair all the same. Rows of neither form are
        # read as pairs, whose reader names the field that is missing.
        is_pair = {"chosen", "rejected"} <= fields
        if is_pair or "completion" not in fields:
            for row in rows.read(path, "preferences"):
                labelled.append(labelled_response(row, row["chosen"], True))
                labelled.append(labelled_response(row, row["rejected"], False))
        else:
            for row in rows.read(path, "unpaired"):
                labelled.append(labelled_response(row, row["completion"], row["label"]))
    random.Random(seed).shuffle(labelled)
    return labelled


def labelled_response(row, completion, label):
    result = rows.Row(prompt=row["prompt"], completion=completion, label=label)
    if "tools" in row:
        result["tools"] = row["tools"]
    result.place = row.place  # for messages
    return result


def tokenise(labelled, tokenizer, data, max_length):
    """(token ids and labels of the responses to train on, counts of the cut and the dropped).

    "rewritten turns": of the assistant, which the template alters, so that they have no loss.
    """
    end = chats.turn_end(tokenizer)
    examples = []
    counts = Counter()
    for row in labelled:
        encoded = response_tokens.encode(
            tokenizer,
            end,
            row["prompt"],
            row["completion"],
            row.at("prompt"),
            tools=row.get("tools"),
            assistant_only=data.assistant_only_loss,
        )
        if encoded is None:
            counts["thought"] += 1
            continue
        if max_length is not None:
            room = max_length - len(encoded.prompt_ids)
            if room <= 0 or not any(encoded.mask[:room]):
                counts["too long"] += 1
                continue
            if len(encoded.prompt_ids) + len(encoded.response_ids) > max_length:
                counts["cut"] += 1  # by the trainer's collator
        counts["rewritten turns"] += encoded.left_out
        example = {
            "prompt_ids": encoded.prompt_ids,
            "completion_ids": encoded.response_ids,
            "label": row["label"],
        }
        if data.assistant_only_loss:
            example["mask"] = encoded.mask
        examples.append(example)
    return examples, counts


def refuse_empty(data, training_args, counts):
    """Exit: no response is left to train on."""
    sys.exit(
        f"{data.dataset_name[0]}: no response is left: "
        f"prompts that leave no room within --max_length {training_args.max_length}: "
        f"{counts['too long']}, thoughts or turns that do not fit the prompt: {counts['thought']}"
    )


# Training


def check_arguments(training_args):
    if training_args.beta <= 0:
        sys.exit(f"--beta: {training_args.beta} is not above 0")
    if training_args.loss_type != "kto":  # apo_zero_unpaired has no z0
        return
    if not training_args.precompute_ref_log_probs and training_args.gradient_accumulation_steps > 1:
        sys.exit(
            "--precompute_ref_log_probs False: z0 of the global batch needs the reference's "
            "log-probabilities, or --gradient_accumulation_steps 1"
        )
    if training_args.per_device_train_batch_size < 2:
        sys.exit(
            "--per_device_train_batch_size 1: KTO takes its mismatched responses from the batch, "
            "give 2 or more"
        )


class TokenKTOTrainer(KTOTrainer):
    """TRL's KTOTrainer on tokenised responses, to which it adds the mismatched ones.

    With --packed the model and its reference compute packed rows (common/packing.py).
    """

    def packed(self, model):
        if not self.args.packed:
            return model
        return packing.PackedModel(model, self.model.config, 1)

    def _precompute_ref_logps(self, *args):
        """The dataset with the reference's log-probabilities; the reference is then given up."""
        dataset = super()._precompute_ref_logps(*args)
        self.ref_model = None
        return dataset

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return super().compute_loss(self.packed(model), inputs, return_outputs, num_items_in_batch)

    def compute_ref_log_probs(self, model, inputs):
        return super().compute_ref_log_probs(self.packed(model), inputs)

    def _prepare_dataset(self, dataset, processing_class, args, name):
        if not self.calculate_KL:
            return dataset
        batch_size = args.per_device_train_batch_size
        mismatched = mismatched_responses(list(dataset["completion_ids"]), batch_size)
        dataset = dataset.add_column("KL_completion_ids", mismatched)
        if "mask" in dataset.column_names:
            masks = mismatched_responses(list(dataset["mask"]), batch_size)
            dataset = dataset.add_column("KL_mask", masks)
        return dataset


def mismatched_responses(responses, batch_size):
    """For each response that of a neighbour in its batch of rows, as TRL does it."""
    mismatched = []
    for first in range(0, len(responses), batch_size):
        batch = responses[first : first + batch_size]
        if len(batch) == 1 and first > 0:
            # The last row alone would be matched with itself.
            batch = responses[first - 1 : first]
        mismatched += [batch[-1], *batch[:-1]]
    return mismatched


class GlobalBatchKTOTrainer(TokenKTOTrainer):
    """One z0 for all micro-batches of a step.

    TRL estimates z0 from each micro-batch alone; with two rows per device that is very noisy.
    """

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Draw a step's micro-batches and compute the mean l of their mismatched responses."""
        import torch

        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        log_ratios = []
        for batch in batches:
            batch = self._prepare_inputs(batch)
            with torch.no_grad(), self.compute_loss_context_manager():
                logps = super()._compute_kl_logps(self.packed(self.model_wrapped), batch)
            log_ratios.append(logps - batch["ref_KL_logps"])
        self.mean_log_ratio = torch.cat(log_ratios).mean() if log_ratios else None
        return batches, count

    def _compute_kl_logps(self, model, batch):
        # TRL subtracts ref_KL_logps again, so that each row's l is the step's mean; then it takes
        # the mean over processes and clamps it at 0.
        return batch["ref_KL_logps"] + self.mean_log_ratio


class MaskedCollator(DataCollatorForUnpairedPreference):
    """TRL's batch, in which only the tokens count that the examples' masks have."""

    def torch_call(self, examples):
        import torch

        batch = super().torch_call(examples)
        for prefix in ("", "KL_"):
            if f"{prefix}mask" not in examples[0]:
                continue
            completion_mask = batch[f"{prefix}completion_mask"]
            for sequence, example in zip(completion_mask, examples, strict=True):
                mask = [0] * len(example["prompt_ids"]) + example[f"{prefix}mask"]
                # The padding is on the right.
                mask = torch.tensor(mask[: self.max_length])
                sequence[: len(mask)] = mask
        return batch


def load_models(data, training_args, model_args, example):
    """[policy, reference], in the same precision. None: the policy starts as the reference."""
    from transformers import AutoModelForCausalLM

    # In different precisions their ratio would be off from the first step.
    options = weights.load_options(training_args, model_args)
    paths = [model_args.model_name_or_path]
    if not weights.starts_as(data.ref_model_name_or_path, training_args, model_args):
        paths.append(data.ref_model_name_or_path)
    tokenizers = [models.tokenizer(path, example) for path in paths]
    models.check_same_tokens(tokenizers[0], tokenizers[-1])
    loaded = []
    for path, tokenizer in zip(paths, tokenizers, strict=True):
        loaded.append(models.load(AutoModelForCausalLM, path, tokenizer, **options))
    return loaded if len(loaded) == 2 else [*loaded, None]


def build_trainer(policy, reference, training_args, model_args, tokenizer, examples):
    from trl import get_peft_config

    # With one micro-batch per step, or a loss without z0, TRL's own estimate is enough.
    trainer_class = TokenKTOTrainer
    if training_args.gradient_accumulation_steps > 1 and training_args.loss_type == "kto":
        trainer_class = GlobalBatchKTOTrainer
    collator = None
    if "mask" in examples[0]:
        pad_token_id = tokenizer.pad_token_id
        if pad_token_id is None:
            pad_token_id = tokenizer.eos_token_id
        collator = MaskedCollator(pad_token_id, training_args.max_length)
        # Else the masks, which model.forward does not take, would not reach the collator.
        training_args.remove_unused_columns = False
    training.choose_packing(training_args, policy)
    with training.building(tokenizer):
        return trainer_class(
            policy,
            reference,
            training_args,
            data_collator=collator,
            train_dataset=training.stored_dataset(examples, training_args),
            processing_class=tokenizer,
            peft_config=get_peft_config(model_args),
        )


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    check_arguments(training_args)
    labelled = unpaired(data.dataset_name, training_args.seed)
    example = (labelled[0].at("prompt"), labelled[0]["prompt"])
    policy, reference = load_models(data, training_args, model_args, example)
    tokenizer = models.tokenizer(
        model_args.model_name_or_path, chat_template_kwargs=data.chat_template_kwargs
    )
    examples, counts = tokenise(labelled, tokenizer, data, training_args.max_length)
    if not examples:
        refuse_empty(data, training_args, counts)
    if len(examples) == 1:
        sys.exit(f"{data.dataset_name[0]}: one response is left, KTO needs two or more")
    final_path, checkpoint = training.begin(training_args)
    trainer = build_trainer(policy, reference, training_args, model_args, tokenizer, examples)
    training.train(trainer, checkpoint)
    rewritten = training.rewritten_turns(counts["rewritten turns"])
    if trainer.is_world_process_zero():
        print(
            f"{final_path} responses in: {len(labelled)}, "
            f"dropped, too long: {counts['too long']}, "
            f"dropped, thoughts or turns that do not fit the prompt: {counts['thought']}, "
            f"cut: {counts['cut']}, {rewritten}trained on: {len(examples)}"
        )
    training.finish(trainer, final_path)


if __name__ == "__main__":
    main()
