"""Labelled responses as token ids, in the order in which KTO trains on them, with mismatched ones.

z0 of dpo/1b_kto.py is estimated on prompts with the responses of other prompts: TRL takes a
neighbour's in the batch. The rows stand in their files pair by pair, so they are shuffled first.
"""

import functools
import random
import sys
from collections import Counter

from common import chats, response_tokens, rows, training_data

MISMATCHED = ("completion_ids", "mask")  # what a prompt gets of another response, as KL_...

# Rows


def read(paths):
    """Yield the labelled responses of these files, each with its number, "index"."""
    for index, row in enumerate(labelled_responses(paths)):
        row["index"] = index
        yield row


def labelled_responses(paths):
    """Yield {"prompt", "completion", "label"}; a pair gives two of them."""
    for path in paths:
        fields = next(rows.read(path)).keys()
        # A pair may carry a completion too: it is a pair all the same. Rows of neither form are
        # read as pairs, whose reader names the field that is missing.
        is_pair = {"chosen", "rejected"} <= fields
        if is_pair or "completion" not in fields:
            for row in rows.read(path, "preferences"):
                yield labelled_response(row, row["chosen"], True)
                yield labelled_response(row, row["rejected"], False)
        else:
            for row in rows.read(path, "unpaired"):
                yield labelled_response(row, row["completion"], row["label"])


def labelled_response(row, completion, label):
    result = rows.Row(prompt=row["prompt"], completion=completion, label=label)
    if "tools" in row:
        result["tools"] = row["tools"]
    result.place = row.place  # for messages
    return result


# Tokens


def stored(source, tokenizer, data, training_args):
    """(dataset of the responses to train on, in the order of training; counts of `tokenise`).

    It is made in two passes: tokens in the order of the files, then shuffled examples, each with
    the KL_ fields of its neighbour.
    """
    columns = {
        "prompt_ids": training_data.TOKEN_IDS,
        "completion_ids": training_data.TOKEN_IDS,
        "label": "bool",
    }
    if data.assistant_only_loss:
        columns["mask"] = training_data.MASK
    # A shuffled file could be read only as a whole: the tokens are shuffled, on disk.
    in_order, counts = training_data.stored(
        "tokens",
        source,
        functools.partial(
            tokenise,
            tokenizer=tokenizer,
            max_length=training_args.max_length,
            assistant_only=data.assistant_only_loss,
        ),
        columns | {"index": "int64"},
        training_args,
        check=functools.partial(refuse_too_few, data, training_args),
    )
    order = training_order(in_order, counts["rows in"], training_args.seed)
    kl_columns = {}
    if training_args.loss_type == "kto":  # apo_zero_unpaired has no z0
        kl_columns = {f"KL_{name}": columns[name] for name in MISMATCHED if name in columns}
    read_shuffled = functools.partial(
        with_mismatched, order, training_args.per_device_train_batch_size
    )
    dataset, _ = training_data.stored(
        "training",
        training_data.Source(read_shuffled, None, len(order)),
        functools.partial(shuffled_examples, in_order=in_order),
        columns | kl_columns,
        training_args,
    )
    return dataset, counts


def tokenise(labelled, tokenizer, max_length, assistant_only):
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
            assistant_only=assistant_only,
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
            "mask": encoded.mask,
            "label": row["label"],
            "index": row["index"],
        }
        examples.append(example)
    return examples, counts


def refuse_too_few(data, training_args, counts):
    """Exit unless two responses are left to train on."""
    if counts["rows out"] == 1:
        sys.exit(f"{data.dataset_name[0]}: one response is left, KTO needs two or more")
    if counts["rows out"] == 0:
        sys.exit(
            f"{data.dataset_name[0]}: no response is left: "
            f"prompts that leave no room within --max_length {training_args.max_length}: "
            f"{counts['too long']}, "
            f"thoughts or turns that do not fit the prompt: {counts['thought']}"
        )


# Order


def training_order(in_order, total, seed):
    """The places of the responses in training: an array of positions in the dataset in_order.

    All `total` responses of the files are shuffled, then those left out that were dropped.
    """
    import numpy as np

    indexes = in_order.select_columns("index").with_format("numpy")[:]["index"]
    positions = np.full(total, -1)
    positions[indexes] = np.arange(len(indexes))
    shuffled = np.arange(total)
    random.Random(seed).shuffle(shuffled)
    order = positions[shuffled]
    return order[order >= 0]


def with_mismatched(order, batch_size):
    """Yield (position of a response, that of a neighbour in its batch of rows), as TRL pairs them.

    order: the positions as they are trained on.
    """
    for first in range(0, len(order), batch_size):
        batch = list(order[first : first + batch_size])
        neighbours = [batch[-1], *batch[:-1]]
        if len(batch) == 1 and first > 0:
            # The last row alone would be matched with itself.
            neighbours = [order[first - 1]]
        yield from zip(batch, neighbours, strict=True)


def shuffled_examples(positions, in_order):
    """(examples of pairs of positions, each with what is MISMATCHED of the second; no counts)."""
    examples = []
    for position, neighbour in positions:
        example = in_order[int(position)]
        other = in_order[int(neighbour)]
        for name in MISMATCHED:
            example[f"KL_{name}"] = other.get(name)
        examples.append(example)
    return examples, Counter()
