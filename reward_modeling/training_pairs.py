"""The preference rows that a reward or preference model is trained on, and the held-out ones."""

import sys

from common import rows


def read(data):
    """The rows of data.dataset_name, and of data.held_out_name, which must share no prompt."""
    pairs = list(rows.read(data.dataset_name, "preferences"))
    held_out = list(rows.read(data.held_out_name, "preferences"))
    if prompts_of(pairs) & prompts_of(held_out):
        sys.exit(f"{data.held_out_name}: prompt: some prompts stand in {data.dataset_name} too")
    return pairs, held_out


def prompts_of(pairs):
    """The keys of the pairs' prompts."""
    return {prompt_key(row["prompt"]) for row in pairs}


def prompt_key(messages):
    """What equal prompts have in common, a member of sets: other keys of messages do not count."""
    return tuple((message["role"], message["content"]) for message in messages)
