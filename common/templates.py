"""The text of a chat template, made to give the same chat on every day and at every stage.

A template is a Jinja program that comes with a tokenizer. The changed template is saved with the
models that a training makes: whoever uses them reads and writes what they were trained on.
"""

import datetime
import json
import keyword
import math
import re

DATE = datetime.date(2024, 7, 26)  # Llama 3.1's own, where a template cannot read the clock
HEAD = r"{% set \w+ = .*? \+%}"  # of with_arguments; the + keeps a newline that follows
# What transformers itself passes to a template.
RESERVED = (
    "messages",
    "add_generation_prompt",
    "continue_final_message",
    "tools",
    "documents",
    "bos_token",
    "eos_token",
)
CLOCK = re.compile(
    r"""strftime_now\(\s*(?:format\s*=\s*)?(?P<quote>['"])(?P<format>.*?)(?P=quote)\s*\)"""
)


def without_clock(template):
    """The template with DATE in place of today's date, which it reads by strftime_now("...")."""
    return CLOCK.sub(lambda call: json.dumps(DATE.strftime(call["format"])), template)


def reads(template, name):
    """Does a template read an argument of that name?"""
    return re.search(rf"\b{re.escape(name)}\b", template) is not None


def with_arguments(template, values):
    """The template in which these names have these values, {"enable_thinking": False}.

    They are set at its head. Values of the same names that an earlier training saved there go.
    """
    head = ""
    for name, value in values.items():
        template = re.sub(rf"\A((?:{HEAD})*?){{% set {name} = .*? \+%}}", r"\1", template)
        head += f"{{% set {name} = {json.dumps(value, ensure_ascii=False)} +%}}"
    return head + template


def arguments(text):
    """The {name: value} of a flag --chat_template_kwargs, a JSON object; {} of None.

    ValueError: it is no JSON object, or a value is not a text, a number, true or false.
    """
    try:
        # NaN and infinity become lists, which are refused below.
        values = json.loads(text or "{}", parse_constant=lambda name: [name])
    except (ValueError, RecursionError):
        raise ValueError(f"{text[:200]!r} is not JSON") from None
    if not isinstance(values, dict):
        raise ValueError(f"{text!r} is not a JSON object")
    for name, value in values.items():
        # A number such as 1e999 is read as infinity.
        is_finite = not isinstance(value, float) or math.isfinite(value)
        if not name.isidentifier() or not isinstance(value, str | int | float) or not is_finite:
            raise ValueError(f"{name}: a name with a text, a number, true or false is needed")
        if name in RESERVED or keyword.iskeyword(name) or name in ("true", "false", "none"):
            raise ValueError(f"{name}: no argument can have that name")
    return values
