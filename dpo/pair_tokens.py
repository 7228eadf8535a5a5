"""Preference pairs as token ids, what --max_length leaves of them, and stored log-probabilities.

dpo/0_reference.py stores a reference's log-probabilities in the rows of pairs, dpo/1_dpo.py trains
with them. Both read the pairs here, so that they speak of the same tokens.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from common import chats, models, response_tokens, rows, training_data, trajectories

SIDES = ("chosen", "rejected")
STORED = tuple(f"ref_{side}_logp" for side in SIDES)  # fields of a row


@dataclass
class TokenOptions:
    """What decides which tokens of a pair count."""

    max_length: int | None  # of prompt and response
    truncation_mode: str  # "keep_start" or "keep_end"
    assistant_only_loss: bool  # of a response of several turns, the assistant's tokens alone


def tokenise(pairs, tokenizer, options, counts, extra_fields=()):
    """Yields (pair, example) of the pairs to train on; adds to the Counter `counts`.

    Counted are the outcome of each pair, "does not fit" or what outcome_of_cut says, and "rewritten
    turns": of the assistant, and altered by the template, so that they have no loss.
    """
    end = chats.turn_end(tokenizer)
    for pair in pairs:
        example, rewritten_turns = tokenise_pair(pair, extra_fields, tokenizer, end, options)
        outcome = "does not fit" if example is None else outcome_of_cut(example, options)
        counts[outcome] += 1
        if outcome in ("complete", "cut"):
            counts["rewritten turns"] += rewritten_turns
            yield pair, example


def dropped(counts):
    """What a line of counts says of the pairs that are not trained on."""
    return (
        f"dropped, too long: {counts['too long']}, "
        f"dropped, equal within --max_length: {counts['equal']}, "
        f"dropped, thoughts or turns that do not fit the prompt: {counts['does not fit']}"
    )


def tokenise_pair(pair, extra_fields, tokenizer, end, options):
    """({"prompt_ids", "chosen_ids", "rejected_ids", ...} of a pair, number of rewritten turns).

    With assistant_only_loss there are "chosen_mask" and "rejected_mask". The extra fields of the
    loss are copied, except "explored", which becomes "explored_ids". None in place of the dict if a
    response has a thought that does not fit the prompt: see chats.prompt_and_response.
    """
    messages_by_side = {side: pair[side] for side in SIDES}
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
            assistant_only=options.assistant_only_loss,
        )
        if encoded is None:
            return None, 0
        # The prompt's tokens are the same for each response.
        example["prompt_ids"] = encoded.prompt_ids
        example[f"{side}_ids"] = encoded.response_ids
        if options.assistant_only_loss and side != "explored":
            example[f"{side}_mask"] = encoded.mask
        rewritten_turns += encoded.left_out
    return example, rewritten_turns


def columns(extra_fields, assistant_only_loss, uses_stored):
    """{field of an example: the type of its values} for training_data.stored.

    uses_stored: the examples have the reference's log-probabilities, as TRL names them.
    """
    types = {"prompt_ids": training_data.TOKEN_IDS}
    for side in SIDES:
        types[f"{side}_ids"] = training_data.TOKEN_IDS
        if assistant_only_loss:
            types[f"{side}_mask"] = training_data.MASK
        if uses_stored:
            types[f"ref_{side}_logps"] = "float64"
    for name in extra_fields:
        if name == "explored":
            types["explored_ids"] = training_data.TOKEN_IDS
        else:
            types[name] = "float64"
    return types


# What is left within --max_length


def kept(options):
    """The slice of a sequence that the trainer's collator leaves."""
    if options.max_length is not None and options.truncation_mode == "keep_end":
        return slice(-options.max_length, None)
    return slice(options.max_length)


def sequence(example, side, options):
    """(token ids of prompt and response, for each 1 if it counts, else 0), within --max_length."""
    prompt = example["prompt_ids"]
    response = example[f"{side}_ids"]
    mask = example.get(f"{side}_mask", [1] * len(response))
    remaining = kept(options)
    return (prompt + response)[remaining], ([0] * len(prompt) + mask)[remaining]


def outcome_of_cut(example, options):
    """What --max_length does to a pair: "complete" (nothing), "cut", or why it is dropped.

    "too long": the prompt leaves no room for a response, or none for a token that counts. "equal":
    chosen and rejected differ only in what is cut off, so that there is nothing to compare.
    """
    limit = options.max_length
    prompt = example["prompt_ids"]
    sequences = {}
    for name in ("chosen_ids", "rejected_ids", "explored_ids"):
        if name in example:
            sequences[name] = prompt + example[name]
    longest = max(map(len, sequences.values()))
    remaining = kept(options)
    for side in ("chosen_mask", "rejected_mask"):
        if side in example and not any(([0] * len(prompt) + example[side])[remaining]):
            return "too long"
    if limit is None or longest <= limit:
        return "complete"
    if options.truncation_mode == "keep_start" and len(prompt) >= limit:
        return "too long"
    if sequences["chosen_ids"][remaining] == sequences["rejected_ids"][remaining]:
        return "equal"
    return "cut"


# Log-probabilities of a reference, stored in the rows


def read(paths, extra_fields=()):
    """Yield the pairs of files: all have log-probabilities of one reference, or none has any."""
    fields = list(extra_fields)
    is_stored = STORED[0] in next(rows.read(paths[0]))
    if is_stored:
        fields += [*STORED, "reference"]
    first = None
    for path in paths:
        for pair in rows.read(path, "preferences", also=fields):
            first = first or pair
            if is_stored:
                check_same_reference(pair, first)
            elif STORED[0] in pair:
                rows.refuse(pair, f"{STORED[0]}: {first.place} has none")
            yield pair


def check_same_reference(pair, first):
    """Exit unless a pair has log-probabilities of the first pair's reference."""
    reference = first["reference"]
    if pair["reference"]["fingerprint"] != reference["fingerprint"]:
        rows.refuse(
            pair,
            f"reference: {pair['reference']['model']}, of other weights than "
            f"{reference['model']} of {first.place}",
        )


def reference_of(pair):
    """The "reference" of a pair's log-probabilities, or None."""
    return pair["reference"] if STORED[0] in pair else None


def check_tokens(pair, example, options):
    """Exit unless the pair's stored log-probabilities are of the tokens of the example."""
    if pair["reference"]["tokens"] != tokens_digest(example, options):
        rows.refuse(
            pair,
            "reference: its log-probabilities are of other tokens; dpo/0_reference.py needs the "
            "training's --max_length, --truncation_mode, --assistant_only_loss, "
            "--chat_template_kwargs, and a model with its tokenizer",
        )


def tokens_digest(example, options):
    """A digest of the tokens of both sides, and of which of them count."""
    sides = [sequence(example, side, options) for side in SIDES]
    return hashlib.sha256(repr(sides).encode()).hexdigest()[:16]


def weights_digest(path):
    """A digest of a model's weights: of its files, or the commit of a model of the hub."""
    directory = Path(path)
    if not directory.is_dir():
        return models.config(path)._commit_hash
    files = [*directory.glob("*.safetensors"), *directory.glob("pytorch_model*.bin")]
    digest = hashlib.sha256()
    for file in sorted(files):
        with open(file, "rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]
