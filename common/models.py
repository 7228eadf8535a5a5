"""Models and tokenizers: loaded whole, or the program ends in one line that names the directory and what is wrong.

transformers fills weights that a checkpoint lacks with random numbers, asks whether it may run code that comes with a
model, and fails in many other ways deep in a traceback. Every script loads through these functions, before it computes.
"""

import contextlib
import re
import sys
from pathlib import Path

from common import templates

SHOWN = 3  # keys that a message names
COMMIT = re.compile("[0-9a-f]{40}")


def refuse(path, reason):
    sys.exit(f"{path}: cannot load a model from it ({reason})")


def first_line(error):
    """What an error of a library says, in one line."""
    if hasattr(error, "errors"):  # pydantic's
        return f"{type(error).__name__}: {error.errors()[0]['msg']}"[:300]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].endswith(":"):
        lines[0] = " ".join(lines[:2])
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__


@contextlib.contextmanager
def refused(path):
    """Within it an error of the library that reads a model ends the program in one line."""
    try:
        yield
    except (
        Exception
    ) as error:  # missing, cut, another type, another shape: each library has errors of its own
        refuse(path, first_line(error))


def checked_origin(path, trust_remote_code=False, revision=None):
    """Keyword arguments of from_pretrained; code is run from the directory itself, or at a pinned commit of the hub."""
    if (Path(path) / "adapter_config.json").exists() and not (Path(path) / "config.json").exists():
        refuse(path, "an adapter alone: merge it into its model first")
    if trust_remote_code and not Path(path).exists() and not COMMIT.fullmatch(revision or ""):
        refuse(
            path, "its code is run only at a pinned commit: give the 40 digits of one as --revision"
        )
    if trust_remote_code:
        from transformers import PreTrainedConfig

        with refused(path):
            named, _ = PreTrainedConfig.get_config_dict(path, revision=revision)
        if "--" in str(named.get("auto_map")):
            refuse(path, "its code is in another repository, at no pinned commit")
    return {"trust_remote_code": trust_remote_code, **({"revision": revision} if revision else {})}


def config(path, **options):
    """The configuration of a model."""
    from transformers import AutoConfig

    with refused(path):
        return AutoConfig.from_pretrained(path, **checked_origin(path, **options))


def tokenizer(
    path, example=None, template=True, padding_side=None, chat_template_kwargs=None, **options
):
    """The tokenizer of a model. template: it has to have a chat template, which renders the example.

    example: (FILE:LINE, messages), by default a question. chat_template_kwargs: JSON, {name: value},
    from here on part of the template. A template that reads the clock gets a fixed date.
    """
    from transformers import AutoTokenizer

    side = {"padding_side": padding_side} if padding_side else {}
    with refused(path):
        loaded = AutoTokenizer.from_pretrained(path, **side, **checked_origin(path, **options))
    if template and not loaded.chat_template:
        sys.exit(f"{path}: its tokenizer has no chat template")
    if loaded.chat_template:
        with refused(path):  # of several templates without a default
            loaded.chat_template = prepared_template(path, loaded.get_chat_template())
    set_template_arguments(loaded, chat_template_kwargs)
    if template:
        where, messages = example or (path, [{"role": "user", "content": "question"}])
        check_reads_messages(loaded, where, messages)
    return loaded


def check_reads_messages(tokenizer, where, messages):
    """A template that gives the same text for another question leaves out what is said."""
    altered = [
        *messages[:-1],
        {**messages[-1], "content": messages[-1]["content"] + " and another"},
    ]
    ends_with_question = messages[-1]["role"] == "user"
    texts = {
        render(tokenizer, chat, where, add_generation_prompt=ends_with_question)
        for chat in (messages, altered)
    }
    if len(texts) == 1:
        sys.exit(f"{tokenizer.name_or_path}: its chat template leaves out what is said")


def prepared_template(path, text):
    """The template without a clock; a line says so."""
    prepared = templates.without_clock(text)
    if "strftime_now(" in prepared:
        refuse(path, "its chat template asks for today's date in a form that is not known here")
    if prepared != text:
        print(
            f"{path}: its chat template asks for today's date, it gets {templates.DATE}",
            file=sys.stderr,
        )
    return prepared


def set_template_arguments(tokenizer, text):
    """Make the arguments of a flag --chat_template_kwargs, JSON or None, part of the template."""
    try:
        values = templates.arguments(text)
    except ValueError as error:
        sys.exit(f"--chat_template_kwargs: {error}")
    for name in values:
        if not templates.reads(tokenizer.chat_template or "", name):
            source = tokenizer.name_or_path
            sys.exit(
                f"--chat_template_kwargs: {name}: the chat template of {source} does not read it"
            )
    if values:
        tokenizer.chat_template = templates.with_arguments(tokenizer.chat_template, values)


def render(tokenizer, messages, where, **options):
    """The text of messages by the chat template, which may refuse them: a system turn, say. where: FILE:LINE."""
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except Exception as error:  # templates are programs
        sys.exit(
            f"{where}: the chat template of {tokenizer.name_or_path} refuses it ({first_line(error)})"
        )
    if not text.strip():
        sys.exit(f"{where}: the chat template of {tokenizer.name_or_path} makes nothing of it")
    return text


def load(auto_class, path, tokenizer=None, new_head=False, reward_model_too=False, **options):
    """The model, in evaluation mode.

    tokenizer: its vocabulary has to fit into the embeddings. new_head: a scoring head that the checkpoint lacks starts
    at random. reward_model_too: a language model may be made of a reward model, whose score is left out.
    """
    origin = {
        name: options.pop(name) for name in ("trust_remote_code", "revision") if name in options
    }
    with quiet(), refused(path):
        model, report = auto_class.from_pretrained(
            path,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **checked_origin(path, **origin),
            **options,
        )
    check_report(path, report, new_head)
    if auto_class.__name__ == "AutoModelForCausalLM" and not reward_model_too:
        check_language_model(path, model.config)
    if tokenizer is not None:
        check_vocabulary(path, model, tokenizer)
    if model.device.type != "meta":
        check_finite(path, model)
    return model


def check(auto_class, path, tokenizer=None, **options):
    """Look at a model that another library will load: its keys and shapes, without reading the weights."""
    from transformers.integrations import is_deepspeed_zero3_enabled

    if is_deepspeed_zero3_enabled():  # ZeRO-3 takes no device map
        return
    load(auto_class, path, tokenizer, device_map="meta", **options)


def check_report(path, report, new_head):
    """report: what from_pretrained tells of the keys of the checkpoint and of the model."""
    missing = sorted(report["missing_keys"])
    if new_head:
        head = [key for key in missing if key.startswith(("score.", "classifier."))]
        missing = [key for key in missing if key not in head]
        if head:
            print(f"{path}: has no scoring head; a new one starts at random: {some(head)}")
    if missing:
        refuse(path, f"weights are missing: {some(missing)}")
    surplus = sorted(key for key in report["unexpected_keys"] if key.startswith("model.layers."))
    if surplus:
        refuse(path, f"weights that its config.json does not have: {some(surplus)}")
    if report["mismatched_keys"]:
        key, stored, wanted = sorted(report["mismatched_keys"], key=str)[0]
        refuse(path, f"{key} is {[*stored]}, by its config.json it has to be {[*wanted]}")


def some(names):
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def check_language_model(path, config):
    """A reward model loads as a language model without a word where the two share their embeddings."""
    names = getattr(config, "architectures", None) or []
    if any("Classification" in name or "Reward" in name for name in names):
        refuse(path, f"it is a {names[0]}, where a language model is asked for")


def last_of_a_chat(tokenizer):
    """The id of the last token of a chat with an answer, where a template writes something behind answers."""
    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    text = render(tokenizer, chat, tokenizer.name_or_path)
    return tokenizer(text, add_special_tokens=False)["input_ids"][-1]


def ensure_padding(tokenizer):
    """A reward model's score is read at the last token that is not padding: the pad token must not end a chat.

    A tokenizer that has none gets one that does not.
    """
    last = last_of_a_chat(tokenizer)
    if tokenizer.pad_token_id is None:
        others = [
            i
            for i in (tokenizer.eos_token_id, tokenizer.bos_token_id, 0, 1)
            if i not in (None, last)
        ]
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(others[0])
    elif tokenizer.pad_token_id == tokenizer.eos_token_id:
        sys.exit(
            f"{tokenizer.name_or_path}: its tokenizer needs a pad token that is not the EOS token"
        )
    elif tokenizer.pad_token_id == last:
        sys.exit(
            f"{tokenizer.name_or_path}: its tokenizer needs a pad token that does not end a chat"
        )


def check_vocabulary(path, model, tokenizer):
    embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > embeddings:
        refuse(path, f"{len(tokenizer)} tokens in its tokenizer, embeddings for {embeddings}")


def check_finite(path, model):
    if name := not_finite(model):
        refuse(path, f"{name} is not finite")


def not_finite(model):
    """The name of a weight that holds NaN or infinity, or None."""
    import torch

    for name, weight in model.named_parameters():
        if (
            weight.dtype in (torch.float32, torch.bfloat16, torch.float16)
            and not torch.isfinite(weight).all()
        ):
            return name
    return None


@contextlib.contextmanager
def quiet():
    """transformers tells of missing weights in a table, below a bar; `load` says it in one line."""
    from transformers.utils import logging

    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()
