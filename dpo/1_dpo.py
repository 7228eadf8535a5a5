"""Direct preference optimisation by TRL's DPOTrainer (paper 3.3, Table 7).

The loss is -log sigmoid(beta D), where D is the log-ratio log pi/pi_ref of the chosen response
minus that of the rejected one. A response may have several turns (common/trajectories.py). With
--assistant_only_loss the log-ratio is summed over the tokens of the assistant's turns, without the
tool's results: M-DPO (arXiv 2409.02392). For responses of one turn that is DPO.

In the paper every round starts from the previous policy (--model_name_or_path) and keeps the
initial policy pi_0 as reference (--ref_model_name_or_path). The reference's log-probabilities are
computed once, before training. Responses are trained on verbatim, thoughts included, even where
the chat template would rewrite them. Sequences longer than --max_length are cut. A pair is dropped
if its prompt leaves no room, if its two sides are equal after the cut, or if a thought does not fit
the prompt's template. All are counted.

The defaults are the paper's. Every other flag of TRL's DPOConfig (--loss_type, --beta, ...) and
ModelConfig passes through. Besides TRL's losses --loss_type takes slic, sppo, xpo, selm and rpo,
which losses.py defines. A killed run resumes from its last checkpoint (--save_steps) when the same
command is given again.

Reads:  --dataset_name, one or more files of {"id", "prompt", "chosen", "rejected"}: this round's
        pairs, earlier rounds', an offline preference set. sppo also reads "chosen_win_probability"
        and "rejected_win_probability"; xpo and selm also read "explored", the text of a response
Writes: --output_dir, a Hugging Face model directory with trainer_state.json, the training curve.
        The first loss of sigmoid DPO is ln 2 where the policy starts as the reference.

    accelerate launch dpo/1_dpo.py --model_name_or_path runs/my/iter1/policy \
        --ref_model_name_or_path runs/my/sft --dataset_name runs/my/iter2/pairs.jsonl \
        --output_dir runs/my/iter2/policy \
        --per_device_train_batch_size 2 --gradient_accumulation_steps 8
"""

import os
import sys
from collections import Counter
from dataclasses import dataclass, field

from trl import DPOConfig, ModelConfig

import losses
from common import chats, models, response_tokens, rows, training, training_arguments, trajectories


@dataclass
class Data:
    dataset_name: list[str] = field(metadata={"help": "JSONL files of pairs, trained on together"})
    ref_model_name_or_path: str = field(
        metadata={"help": "reference policy; pi_0 in the paper (3.3)"}
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


def read_pairs(paths, extra_fields):
    pairs = []
    for path in paths:
        pairs.extend(rows.read(path, "preferences", also=extra_fields))
    return pairs


def check_models(model_paths, pairs):
    """Exit unless each model loads as a language model and its template renders the prompts."""
    from transformers import AutoModelForCausalLM

    example = (pairs[0].at("prompt"), pairs[0]["prompt"])
    for path in model_paths:
        tokenizer = models.tokenizer(path, example)
        models.check(AutoModelForCausalLM, path, tokenizer)


# Tokens


def tokenise(pairs, extra_fields, tokenizer, data, training_args):
    """(token ids of the pairs to train on, counts of all pairs by outcome).

    The outcome of a pair is "thought", or what outcome_of_cut says. "rewritten turns": of the
    assistant, which the template alters, so that they have no loss.
    """
    end = chats.turn_end(tokenizer)
    examples = []
    counts = Counter()
    for pair in pairs:
        example, rewritten_turns = tokenise_pair(pair, extra_fields, tokenizer, end, data)
        if example is None:
            outcome = "thought"
        else:
            outcome = outcome_of_cut(example, training_args)
        counts[outcome] += 1
        if outcome in ("complete", "cut"):
            examples.append(example)
            counts["rewritten turns"] += rewritten_turns
    return examples, counts


def tokenise_pair(pair, extra_fields, tokenizer, end, data):
    """({"prompt_ids", "chosen_ids", "rejected_ids", ...} of a pair, number of rewritten turns).

    With --assistant_only_loss there are "chosen_mask" and "rejected_mask". The extra fields of the
    loss are copied, except "explored", which becomes "explored_ids". None in place of the dict if a
    response has a thought that does not fit the prompt: see chats.prompt_and_response.
    """
    messages_by_side = {"chosen": pair["chosen"], "rejected": pair["rejected"]}
    example = {}
    for name in extra_fields:
        if name == "explored":
            messages_by_side["explored"] = trajectories.turns(pair["explored"])
        else:
            example[name] = pair[name]
    rewritten_turns = 0
    for side, messages in messages_by_side.items():
        encoded = response_tokens.encode(
            tokenizer,
            end,
            pair["prompt"],
            messages,
            pair.at("prompt"),
            tools=pair.get("tools"),
            assistant_only=data.assistant_only_loss,
        )
        if encoded is None:
            return None, 0
        # The prompt's tokens are the same for each response.
        example["prompt_ids"] = encoded.prompt_ids
        example[f"{side}_ids"] = encoded.response_ids
        if data.assistant_only_loss and side != "explored":
            example[f"{side}_mask"] = encoded.mask
        rewritten_turns += encoded.left_out
    return example, rewritten_turns


def outcome_of_cut(example, training_args):
    """What --max_length does to a pair: "complete", "cut", or why it is dropped.

    "too long": the prompt leaves no room for a response, or none for a token that counts. "equal":
    chosen and rejected differ only in what is cut off, so that there is nothing to compare.
    """
    limit = training_args.max_length
    prompt = example["prompt_ids"]
    sequences = {}
    for name in ("chosen_ids", "rejected_ids", "explored_ids"):
        if name in example:
            sequences[name] = prompt + example[name]
    longest = max(len(sequence) for sequence in sequences.values())
    # The tokens that the trainer's collator will leave of a sequence.
    remaining = slice(limit)
    if limit is not None and training_args.truncation_mode == "keep_end":
        remaining = slice(-limit, None)
    for side in ("chosen_mask", "rejected_mask"):
        if side in example and not any(([0] * len(prompt) + example[side])[remaining]):
            return "too long"
    if limit is None or longest <= limit:
        return "complete"
    if training_args.truncation_mode == "keep_start" and len(prompt) >= limit:
        return "too long"
    if sequences["chosen_ids"][remaining] == sequences["rejected_ids"][remaining]:
        return "equal"
    return "cut"


def refuse_empty(data, training_args, counts, pairs):
    """Exit: no pair is left to train on."""
    limit = f"--max_length {training_args.max_length}"
    if counts["too long"] == len(pairs):
        sys.exit(f"{data.dataset_name[0]}: no prompt leaves room within {limit}")
    sys.exit(
        f"{data.dataset_name[0]}: no pair is left within {limit}: "
        f"prompts that leave no room: {counts['too long']}, "
        f"responses that do not differ there: {counts['equal']}, "
        f"thoughts or turns that do not fit the prompt: {counts['thought']}"
    )


# Training


def stored_dataset(examples, training_args):
    """The dataset of the tokenised pairs, read from a folder that all processes share.

    TRL caches the reference's log-probabilities beside it. A resumed run finds the same folder.
    """
    from datasets import Dataset

    # output_dir is unfinished until training.finish renames it and removes folders "checkpoint-*".
    folder = f"{training_args.output_dir}/checkpoint-pairs"
    with training_args.main_process_first(local=False):
        if not os.path.exists(f"{folder}/dataset_info.json"):
            Dataset.from_list(examples).save_to_disk(folder)
    return Dataset.load_from_disk(folder)


def load_models(data, training_args, model_args):
    """(policy, reference), in the same precision: else their ratio is off from the first step."""
    from transformers import AutoModelForCausalLM

    options = {
        "dtype": model_args.dtype or "float32",
        "attn_implementation": training.attention(training_args, model_args),
    }
    policy = models.load(AutoModelForCausalLM, model_args.model_name_or_path, **options)
    reference = models.load(AutoModelForCausalLM, data.ref_model_name_or_path, **options)
    return policy, reference


def build_trainer(data, training_args, model_args, tokenizer, examples):
    from trl import get_peft_config

    dataset = stored_dataset(examples, training_args)
    trainer_class = losses.TokenTrainer
    if training_args.loss_type[0] in losses.EXTRA_FIELDS:
        trainer_class = losses.PairTrainer
    collator = None
    if trainer_class is losses.PairTrainer or data.assistant_only_loss:
        pad_token_id = tokenizer.pad_token_id
        if pad_token_id is None:
            pad_token_id = tokenizer.eos_token_id
        collator = losses.Collator(
            pad_token_id, training_args.max_length, training_args.truncation_mode
        )
        # Else the fields that model.forward does not take would not reach the collator.
        training_args.remove_unused_columns = False
    policy, reference = load_models(data, training_args, model_args)
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


def show_counts(path, pairs, counts, trainer):
    trained_on = counts["complete"] + counts["cut"]
    rewritten = training.rewritten_turns(counts["rewritten turns"])
    print(
        f"{path} pairs in: {len(pairs)}, dropped, too long: {counts['too long']}, "
        f"dropped, equal within --max_length: {counts['equal']}, "
        f"dropped, thoughts or turns that do not fit the prompt: {counts['thought']}, "
        f"cut: {counts['cut']}, {rewritten}trained on: {trained_on}, "
        f"{trainer.state.global_step} steps"
    )


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    check_losses(training_args)
    # A loss of losses.py stands alone; TRL's losses may be several, and need no extra fields.
    extra_fields = losses.EXTRA_FIELDS.get(training_args.loss_type[0], [])
    pairs = read_pairs(data.dataset_name, extra_fields)
    check_models([model_args.model_name_or_path, data.ref_model_name_or_path], pairs)
    tokenizer = models.tokenizer(
        model_args.model_name_or_path, chat_template_kwargs=data.chat_template_kwargs
    )
    examples, counts = tokenise(pairs, extra_fields, tokenizer, data, training_args)
    if not examples:
        refuse_empty(data, training_args, counts, pairs)
    final_path, checkpoint = training.begin(training_args)
    trainer = build_trainer(data, training_args, model_args, tokenizer, examples)
    training.train(trainer, checkpoint)
    if trainer.is_world_process_zero():
        show_counts(final_path, pairs, counts, trainer)
    training.finish(trainer, final_path)


if __name__ == "__main__":
    main()
