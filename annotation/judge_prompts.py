"""The prompts of 1c_llm_judge.py: read from judge_prompts.toml, checked and filled in."""

import re
import sys
import tomllib
from pathlib import Path

from common import rows, trajectories

DEFAULT_FILE = Path(__file__).with_name("judge_prompts.toml")
PLACEHOLDERS = {
    "pairwise": ["{prompt}", "{answer_a}", "{answer_b}"],
    "rating": ["{prompt}", "{answer}"],
}


def load(path):
    """{"pairwise": template, "rating": template, "scale": [lowest, highest rating]} of a file."""
    try:
        prompts = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {getattr(error, 'strerror', None) or error}")
    for kind, placeholders in PLACEHOLDERS.items():
        for placeholder in placeholders:
            if placeholder not in str(prompts.get(kind)):
                sys.exit(f"{path}: {kind}: {placeholder} is missing")
        if not isinstance(prompts[kind], str):
            sys.exit(f"{path}: {kind}: not a text")
    if not is_scale(prompts.get("scale")):
        sys.exit(f"{path}: scale: not two numbers, the lower first")
    return prompts


def is_scale(value):
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(map(rows.is_number, value)) and value[0] < value[1]


def fill_in(template, kind, prompt, responses):
    """The template of a kind with a prompt (messages) and its one or two responses filled in.

    A response of several turns is shown as one text.
    """
    conversation = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
    shown = [conversation, *map(trajectories.text, responses)]
    texts = dict(zip(PLACEHOLDERS[kind], shown, strict=True))
    # In one pass: a response may itself hold the text "{answer_b}".
    any_placeholder = "|".join(map(re.escape, texts))
    return re.sub(any_placeholder, lambda match: texts[match[0]], template)
