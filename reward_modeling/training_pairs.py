"""The preference rows that a reward or preference model is trained on, and the held-out ones."""

import functools
import hashlib
import sys

from common import rows, training_data


def sources(data, training_args):
    """(Source of data.dataset_name, of data.held_out_name), which must share no prompt."""
    read_held_out = functools.partial(rows.read, data.held_out_name, "preferences")
    read_pairs = functools.partial(read_without, data, prompts_of(read_held_out()))
    pairs = training_data.checked(read_pairs, training_args)
    return pairs, training_data.checked(read_held_out, training_args)


def lists(data, training_args):
    """The rows of both sources, for a training that holds them all."""
    pairs, held_out = sources(data, training_args)
    return list(pairs.read()), list(held_out.read())


def read_without(data, held_out_prompts):
    """Yield the rows of data.dataset_name; a held-out prompt ends the program."""
    for row in rows.read(data.dataset_name, "preferences"):
        if prompt_key(row["prompt"]) in held_out_prompts:
            sys.exit(f"{data.held_out_name}: prompt: some prompts stand in {data.dataset_name} too")
        yield row


def prompts_of(pairs):
    """The keys of the pairs' prompts."""
    return {prompt_key(row["prompt"]) for row in pairs}


def prompt_key(messages):
    """What equal prompts have in common, a member of sets: other keys of messages do not count."""
    contents = [(message["role"], message["content"]) for message in messages]
    return hashlib.sha256(repr(contents).encode()).digest()


def compared_chats(pairs):
    """Yields (FILE:LINE, messages) of both sides of pairs."""
    for row in pairs:
        for side in ("chosen", "rejected"):
            yield row.at("prompt"), row["prompt"] + row[side]
