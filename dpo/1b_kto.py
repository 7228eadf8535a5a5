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

import functools
import sys
from dataclasses import dataclass, field

from trl import KTOConfig, KTOTrainer, ModelConfig
from trl.trainer import kto_trainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

import labelled_tokens
from common import models, packing, training, training_arguments, training_data, weights

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

    def _prepare_dataset(self, dataset, *_):
        return dataset


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


def build_trainer(policy, reference, training_args, model_args, tokenizer, dataset):
    from trl import get_peft_config

    # With one micro-batch per step, or a loss without z0, TRL's own estimate is enough.
    trainer_class = TokenKTOTrainer
    if training_args.gradient_accumulation_steps > 1 and training_args.loss_type == "kto":
        trainer_class = GlobalBatchKTOTrainer
    collator = None
    if "mask" in dataset.column_names:
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
            train_dataset=dataset,
            processing_class=tokenizer,
            peft_config=get_peft_config(model_args),
        )


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    check_arguments(training_args)
    source = training_data.checked(
        functools.partial(labelled_tokens.read, data.dataset_name), training_args
    )
    example = (source.first.at("prompt"), source.first["prompt"])
    policy, reference = load_models(data, training_args, model_args, example)
    tokenizer = models.tokenizer(
        model_args.model_name_or_path, chat_template_kwargs=data.chat_template_kwargs
    )
    final_path, checkpoint = training.begin(training_args)
    dataset, counts = labelled_tokens.stored(source, tokenizer, data, training_args)
    trainer = build_trainer(policy, reference, training_args, model_args, tokenizer, dataset)
    training.train(trainer, checkpoint)
    rewritten = training.rewritten_turns(counts["rewritten turns"])
    if trainer.is_world_process_zero():
        print(
            f"{final_path} responses in: {counts['rows in']}, "
            f"dropped, too long: {counts['too long']}, "
            f"dropped, thoughts or turns that do not fit the prompt: {counts['thought']}, "
            f"cut: {counts['cut']}, {rewritten}trained on: {counts['rows out']}"
        )
    training.finish(trainer, final_path)


if __name__ == "__main__":
    main()
