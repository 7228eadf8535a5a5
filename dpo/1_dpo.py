"""Direct preference optimisation by TRL's DPOTrainer (paper 3.3, Table 7).

The loss is -log sigmoid(beta D), where D is the log-ratio log pi/pi_ref of the chosen response
minus that of the rejected one. A response may have several turns (common/trajectories.py). With
--assistant_only_loss the log-ratio is summed over the tokens of the assistant's turns, without the
tool's results: M-DPO (arXiv 2409.02392). For responses of one turn that is DPO.

In the paper every round starts from the previous policy (--model_name_or_path) and keeps the
initial policy pi_0 as reference. Its log-probabilities stand in the pairs (0_reference.py), or the
model of --ref_model_name_or_path computes them once, before training. A pair's prompt is computed
once, and little padding (common/packing.py); --packed False gives TRL's padded batches.

Responses are trained on verbatim, thoughts included, even where the chat template would rewrite
them. Sequences longer than --max_length are cut. A pair is dropped if its prompt leaves no room, if
its two sides are equal after the cut, or if a thought does not fit the prompt's template. All are
counted.

The defaults are the paper's. Every other flag of TRL's DPOConfig (--loss_type, --beta, ...) and
ModelConfig passes through. Besides TRL's losses --loss_type takes slic, sppo, xpo, selm and rpo,
which losses.py defines. A killed run resumes from its last checkpoint (--save_steps) when the same
command is given again.

Reads:  --dataset_name, one or more files of {"id", "prompt", "chosen", "rejected"}: this round's
        pairs, earlier rounds', an offline preference set; all with "ref_chosen_logp",
        "ref_rejected_logp" and "reference", or none. sppo also reads "chosen_win_probability" and
        "rejected_win_probability"; xpo and selm also read "explored", the text of a response
Writes: --output_dir, a Hugging Face model directory with trainer_state.json, the training curve.
        The first loss of sigmoid DPO is ln 2 where the policy starts as the reference, in float32.

    accelerate launch dpo/1_dpo.py --model_name_or_path runs/my/iter1/policy \
        --ref_model_name_or_path runs/my/sft --dataset_name runs/my/iter2/pairs.jsonl \
        --output_dir runs/my/iter2/policy \
        --per_device_train_batch_size 2 --gradient_accumulation_steps 8
"""

import functools
import sys
from collections import Counter
from dataclasses import dataclass, field

from trl import DPOConfig, ModelConfig

import losses
import pair_tokens
from common import models, training, training_arguments, training_data, weights


@dataclass
class Data:
    dataset_name: list[str] = field(metadata={"help": "JSONL files of pairs, trained on together"})
    ref_model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "reference policy, unless the pairs have its log-probabilities"},
    )
    chat_template_kwargs: str | None = field(
        default=None, metadata={"help": training_arguments.TEMPLATE_HELP}
    )
    assistant_only_loss: bool = field(
        default=False, metadata={"help": training_arguments.ASSISTANT_ONLY_HELP}
    )


@dataclass
class Config(DPOConfig):
    learning_rate: float = field(default=5e-7, metadata={"help": "peak learning rate (paper 3.3)"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule (paper 3.3)"})
    warmup_steps: float = field(
        default=0.03, metadata={"help": "steps, or their share if below 1 (paper 3.3)"}
    )
    num_train_epochs: float = field(default=2, metadata={"help": "epochs per round (paper 3.3)"})
    beta: float = field(default=0.1, metadata={"help": "KL coefficient, the paper's eta (3.3)"})
    max_length: int = field(
        default=2048,
        metadata={"help": "tokens of prompt and response; longer ones are cut (published code)"},
    )
    precompute_ref_log_probs: bool = field(default=True, metadata={"help": "once for all epochs"})
    logging_first_step: bool = field(
        default=True, metadata={"help": "the first loss tells which reference was used"}
    )
    packed: bool = field(default=True, metadata={"help": training_arguments.PACKED_HELP})
    slic_delta: float = field(default=1.0, metadata={"help": "margin of slic, in nats"})
    slic_weight: float = field(default=0.1, metadata={"help": "weight of slic's regulariser"})
    optimism: float = field(
        default=1e-5, metadata={"help": "alpha of xpo (1e-5 or 5e-6) and selm (1e-4)"}
    )
    rpo_alpha: float = field(
        default=1.0, metadata={"help": "weight of rpo's likelihood of the chosen response"}
    )


def check_losses(training_args):
    """Exit unless --loss_type names losses of TRL, or one of losses.py, and beta is above 0."""
    known_losses = [*losses.EXTRA_FIELDS, *losses.TRL_LOSSES]
    for name in training_args.loss_type:
        if name not in known_losses:
            sys.exit(f"--loss_type {name}: none of {' '.join(known_losses)}")
        if name in losses.EXTRA_FIELDS:
            check_loss_of_ours(name, training_args)
    if training_args.beta <= 0:
        sys.exit(f"--beta: {training_args.beta} is not above 0")


def check_loss_of_ours(name, training_args):
    """Exit for options of TRL that losses.py does not implement."""
    if len(training_args.loss_type) > 1:
        sys.exit(f"--loss_type {name}: not together with another loss")
    if not training_args.precompute_ref_log_probs:
        sys.exit(f"--precompute_ref_log_probs False: not with --loss_type {name}")
    if training_args.truncation_mode != "keep_start":
        sys.exit(f"--truncation_mode {training_args.truncation_mode}: not with --loss_type {name}")


def check_reference(data, training_args, model_args, stored):
    """Exit unless there is one reference, where the loss needs it.

    stored: the "reference" of the pairs, or None.
    """
    path = data.ref_model_name_or_path
    if training_args.loss_type == ["slic"]:
        if path is not None:
            sys.exit("--ref_model_name_or_path: --loss_type slic has no reference")
    elif stored is None and path is None:
        sys.exit(
            f"--ref_model_name_or_path: it is needed, {data.dataset_name[0]} has no "
            "log-probabilities of a reference (dpo/0_reference.py)"
        )
    elif stored is not None:
        check_stored_reference(path, training_args, model_args, stored)


def check_stored_reference(path, training_args, model_args, stored):
    """Exit if stored log-probabilities do not go with the arguments."""
    if path and pair_tokens.weights_digest(path) != stored["fingerprint"]:
        sys.exit(
            f"--ref_model_name_or_path {path}: the pairs have log-probabilities of "
            f"{stored['model']}, of other weights"
        )
    if not training_args.precompute_ref_log_probs:
        sys.exit("--precompute_ref_log_probs False: the pairs have log-probabilities already")
    quantization = weights.quantization(model_args)
    if stored.get("quantization") != quantization:
        sys.exit(
            f"--load_in_4bit: the policy is to have {quantization or 'no'} quantisation, the pairs "
            f"have log-probabilities of a reference with {stored.get('quantization') or 'none'}: "
            "give dpo/0_reference.py the same flags"
        )
    if training_args.ld_alpha is not None:
        sys.exit("--ld_alpha: not with pairs that have log-probabilities of whole responses")


def check_models(policy_path, reference_path, first):
    """Exit unless each model loads as a language model, with the same tokens, and renders prompts.

    reference_path: or None. first: a pair.
    """
    from transformers import AutoModelForCausalLM

    example = (first.at("prompt"), first["prompt"])
    tokenizers = []
    for path in filter(None, (policy_path, reference_path)):
        tokenizers.append(models.tokenizer(path, example))
        models.check(AutoModelForCausalLM, path, tokenizers[-1])
    models.check_same_tokens(tokenizers[0], tokenizers[-1])


# Tokens


def stored_examples(source, extra_fields, tokenizer, data, training_args, uses_stored):
    """(dataset, counts) of the pairs to train on: see tokenise and training_data.stored."""
    encode = functools.partial(
        tokenise,
        extra_fields=extra_fields,
        tokenizer=tokenizer,
        data=data,
        training_args=training_args,
        uses_stored=uses_stored,
    )
    return training_data.stored(
        "training",
        source,
        encode,
        pair_tokens.columns(extra_fields, data.assistant_only_loss, uses_stored),
        training_args,
        check=functools.partial(refuse_empty, data, training_args),
    )


def tokenise(pairs, extra_fields, tokenizer, data, training_args, uses_stored):
    """(token ids of the pairs to train on, counts of all pairs by outcome).

    uses_stored: each example gets its pair's log-probabilities of the reference, as TRL names them.
    """
    options = pair_tokens.TokenOptions(
        training_args.max_length, training_args.truncation_mode, data.assistant_only_loss
    )
    examples = []
    counts = Counter()
    for pair, example in pair_tokens.tokenise(pairs, tokenizer, options, counts, extra_fields):
        if uses_stored:
            pair_tokens.check_tokens(pair, example, options)
            example["ref_chosen_logps"] = pair["ref_chosen_logp"]
            example["ref_rejected_logps"] = pair["ref_rejected_logp"]
        examples.append(example)
    return examples, counts


def refuse_empty(data, training_args, counts):
    """Exit if no pair is left to train on."""
    if counts["rows out"]:
        return
    file = data.dataset_name[0]
    limit = f"--max_length {training_args.max_length}"
    if counts["too long"] == counts["rows in"]:
        sys.exit(f"{file}: no prompt leaves room within {limit}")
    sys.exit(f"{file}: no pair is left within {limit}: {pair_tokens.dropped(counts)}")


# Training


def load_models(training_args, model_args, reference_path):
    """(policy, reference or None), in the same precision: else their ratio is off from the start.

    None: it is not needed, or it is the policy as it stands before training.
    """
    from transformers import AutoModelForCausalLM

    options = weights.load_options(training_args, model_args)
    policy = models.load(AutoModelForCausalLM, model_args.model_name_or_path, **options)
    if reference_path is None or weights.starts_as(reference_path, training_args, model_args):
        return policy, None
    return policy, models.load(AutoModelForCausalLM, reference_path, **options)


def build_trainer(data, training_args, model_args, tokenizer, dataset, uses_stored):
    from trl import get_peft_config

    loss_name = training_args.loss_type[0]
    trainer_class = losses.TokenTrainer
    if loss_name in losses.EXTRA_FIELDS:
        trainer_class = losses.SlicTrainer if loss_name == "slic" else losses.PairTrainer
    collator = None
    if loss_name in losses.EXTRA_FIELDS or data.assistant_only_loss:
        pad_token_id = tokenizer.pad_token_id
        if pad_token_id is None:
            pad_token_id = tokenizer.eos_token_id
        collator = losses.Collator(
            pad_token_id, training_args.max_length, training_args.truncation_mode
        )
        # Else the fields that model.forward does not take would not reach the collator.
        training_args.remove_unused_columns = False
    # With stored log-probabilities the path has served its purpose, in check_stored_reference.
    reference_path = None if uses_stored else data.ref_model_name_or_path
    policy, reference = load_models(training_args, model_args, reference_path)
    training.choose_packing(training_args, policy)
    with training.building(tokenizer):
        return trainer_class(
            policy,
            reference,
            training_args,
            train_dataset=dataset,
            data_collator=collator,
            processing_class=tokenizer,
            peft_config=get_peft_config(model_args),
        )


def show_counts(path, counts, trainer):
    rewritten = training.rewritten_turns(counts["rewritten turns"])
    print(
        f"{path} pairs in: {counts['rows in']}, {pair_tokens.dropped(counts)}, "
        f"cut: {counts['cut']}, {rewritten}trained on: {counts['rows out']}, "
        f"{trainer.state.global_step} steps"
    )


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    check_losses(training_args)
    # A loss of losses.py stands alone; TRL's losses may be several, and need no extra fields.
    extra_fields = losses.EXTRA_FIELDS.get(training_args.loss_type[0], [])
    read = functools.partial(pair_tokens.read, data.dataset_name, extra_fields)
    source = training_data.checked(read, training_args)
    stored = pair_tokens.reference_of(source.first)
    check_reference(data, training_args, model_args, stored)
    check_models(model_args.model_name_or_path, data.ref_model_name_or_path, source.first)
    tokenizer = models.tokenizer(
        model_args.model_name_or_path, chat_template_kwargs=data.chat_template_kwargs
    )
    uses_stored = stored is not None and training_args.loss_type != ["slic"]
    final_path, checkpoint = training.begin(training_args)
    dataset, counts = stored_examples(
        source, extra_fields, tokenizer, data, training_args, uses_stored
    )
    trainer = build_trainer(data, training_args, model_args, tokenizer, dataset, uses_stored)
    training.train(trainer, checkpoint)
    if trainer.is_world_process_zero():
        show_counts(final_path, counts, trainer)
    training.finish(trainer, final_path)


if __name__ == "__main__":
    main()
