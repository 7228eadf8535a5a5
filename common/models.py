"""Models and tokenizers: loaded with all of their weights, or the program ends in one line.

transformers fills weights that a checkpoint lacks with random numbers, asks whether it may run code
that comes with a model, and fails in many other ways deep in a traceback. Every script loads
through these functions, before it computes. The line names the directory and what is wrong.
"""

import contextlib
import re
import sys
from pathlib import Path

from common import templates, trajectories

SHOWN = 3  # keys that a message names
COMMIT = re.compile("[0-9a-f]{40}")


def refuse(path, reason):
    sys.exit(f"{path}: cannot load a model from it ({reason})")


def first_line(error):
    """What an error of a library says, in one line."""
    kind = type(error).__name__
    if hasattr(error, "errors"):  # pydantic's
        return f"{kind}: {error.errors()[0]['msg']}"[:300]
    lines = []
    for line in str(error).splitlines():
        if line.strip():
            lines.append(line.strip())
    if not lines:
        return kind
    text = lines[0]
    if text.endswith(":"):
        text = " ".join(lines[:2])
    return f"{kind}: {text}"[:300]


@contextlib.contextmanager
def refused(path):
    """Within it an error of the library that reads a model ends the program in one line."""
    try:
        yield
    except Exception as error:
        # A file that is missing or cut, another type, another shape: each library has its errors.
        refuse(path, first_line(error))


def checked_origin(path, trust_remote_code=False, revision=None):
    """Keyword arguments of from_pretrained for a model directory or a model of the hub.

    The model's own code is run from a directory, or from the hub at a pinned commit.
    """
    directory = Path(path)
    if (directory / "adapter_config.json").exists() and not (directory / "config.json").exists():
        refuse(path, "an adapter alone: merge it into its model first")
    if trust_remote_code:
        check_remote_code(path, revision)
    options = {"trust_remote_code": trust_remote_code}
    if revision:
        options["revision"] = revision
    return options


def check_remote_code(path, revision):
    if not Path(path).exists() and not COMMIT.fullmatch(revision or ""):
        refuse(
            path, "its code is run only at a pinned commit: give the 40 digits of one as --revision"
        )
    from transformers import PreTrainedConfig

    with refused(path):
        content, _ = PreTrainedConfig.get_config_dict(path, revision=revision)
    # REPOSITORY--MODULE.CLASS: the revision pins this repository, not that one.
    if "--" in str(content.get("auto_map")):
        refuse(path, "its code is in another repository, at no pinned commit")


def config(path, **options):
    """The configuration of a model."""
    from transformers import AutoConfig

    with refused(path):
        return AutoConfig.from_pretrained(path, **checked_origin(path, **options))


# Tokenizers and their chat templates


def tokenizer(
    path, example=None, template=True, padding_side=None, chat_template_kwargs=None, **options
):
    """The tokenizer of a model.

    template: it needs a chat template, which has to render the example.
    example: (FILE:LINE, messages), by default a question.
    chat_template_kwargs: JSON, {name: value}, from here on part of the template.
    A template that reads the clock gets a fixed date.
    """
    from transformers import AutoTokenizer

    side = {"padding_side": padding_side} if padding_side else {}
    with refused(path):
        loaded = AutoTokenizer.from_pretrained(path, **side, **checked_origin(path, **options))
    if template and not loaded.chat_template:
        sys.exit(f"{path}: its tokenizer has no chat template")
    if loaded.chat_template:
        # An error: the tokenizer has several templates, and none is the default.
        with refused(path):
            loaded.chat_template = prepared_template(path, loaded.get_chat_template())
    set_template_arguments(loaded, chat_template_kwargs)
    if template:
        where, messages = example or (path, [{"role": "user", "content": "question"}])
        check_reads_messages(loaded, where, messages)
    return loaded


def check_reads_messages(tokenizer, where, messages):
    """Exit if the template gives the same text for another question: it leaves out what is said."""
    last = messages[-1]
    altered = [*messages[:-1], {**last, "content": last["content"] + " and another"}]
    options = {"add_generation_prompt": last["role"] == "user"}
    text = render(tokenizer, messages, where, **options)
    if text == render(tokenizer, altered, where, **options):
        sys.exit(f"{tokenizer.name_or_path}: its chat template leaves out what is said")


def check_same_tokens(tokenizer, reference_tokenizer):
    """Exit unless the ids of the policy's tokens, which go through both models, mean the same."""
    reference_ids = reference_tokenizer.get_vocab()
    for token, token_id in tokenizer.get_vocab().items():
        if reference_ids.get(token, token_id) != token_id:
            sys.exit(
                f"{reference_tokenizer.name_or_path}: {token!r} is another token than the policy's"
            )


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
            sys.exit(
                f"--chat_template_kwargs: {name}: the chat template of {tokenizer.name_or_path} "
                "does not read it"
            )
    if values:
        tokenizer.chat_template = templates.with_arguments(tokenizer.chat_template, values)


def render(tokenizer, messages, where, **options):
    """The text of messages by the chat template, which may refuse them: a system turn, say.

    Outputs of programs become user's turns. where: FILE:LINE, for the message.
    """
    template = f"the chat template of {tokenizer.name_or_path}"
    try:
        text = tokenizer.apply_chat_template(
            trajectories.for_template(messages), tokenize=False, **options
        )
    except Exception as error:  # templates are programs
        sys.exit(f"{where}: {template} refuses it ({first_line(error)})")
    if not text.strip():
        sys.exit(f"{where}: {template} makes nothing of it")
    return text


# Models


def load(auto_class, path, tokenizer=None, new_head=False, reward_model_too=False, **options):
    """The model, in evaluation mode.

    tokenizer: the embeddings must have room for its vocabulary.
    new_head: a scoring head that the checkpoint lacks starts at random.
    reward_model_too: a reward model may be loaded as a language model, without its scoring head.
    """
    origin = {}
    for name in ("trust_remote_code", "revision"):
        if name in options:
            origin[name] = options.pop(name)
    with quiet(), refused(path):
        model, report = auto_class.from_pretrained(
            path,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # check_report refuses them, in one line
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
    """Look at a model that another library will load: its keys and shapes, but not its weights."""
    from transformers.integrations import is_deepspeed_zero3_enabled

    if is_deepspeed_zero3_enabled():  # ZeRO-3 takes no device map
        return
    load(auto_class, path, tokenizer, device_map="meta", **options)


def check_report(path, report, new_head):
    """report: what from_pretrained says about the keys of the checkpoint and of the model."""
    missing = sorted(report["missing_keys"])
    if new_head:
        head = [key for key in missing if key.startswith(("score.", "classifier."))]
        missing = [key for key in missing if key not in head]
        if head:
            print(f"{path}: has no scoring head; a new one starts at random: {some(head)}")
    if missing:
        refuse(path, f"weights are missing: {some(missing)}")
    # Surplus layers mean a wrong config.json; other surplus keys, such as a head's, do no harm.
    surplus = sorted(key for key in report["unexpected_keys"] if key.startswith("model.layers."))
    if surplus:
        refuse(path, f"weights that its config.json does not have: {some(surplus)}")
    if report["mismatched_keys"]:
        key, stored, expected = sorted(report["mismatched_keys"], key=str)[0]
        refuse(path, f"{key} is {[*stored]}, by its config.json it has to be {[*expected]}")


def some(names):
    """The first names of a list, and how many more there are."""
    text = ", ".join(names[:SHOWN])
    if len(names) > SHOWN:
        text += f" and {len(names) - SHOWN} more"
    return text


def check_language_model(path, config):
    """Refuse a reward model: where embeddings are tied it would load without any missing weight."""
    names = getattr(config, "architectures", None) or []
    if any("Classification" in name or "Reward" in name for name in names):
        refuse(path, f"it is a {names[0]}, where a language model is asked for")


def check_vocabulary(path, model, tokenizer):
    embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > embeddings:
        refuse(path, f"{len(tokenizer)} tokens in its tokenizer, embeddings for {embeddings}")


def check_finite(path, model):
    name = not_finite(model)
    if name:
        refuse(path, f"{name} is not finite")


def not_finite(model):
    """The name of a weight that holds NaN or infinity, or None."""
    import torch

    checked_types = (torch.float32, torch.bfloat16, torch.float16)
    for name, weight in model.named_parameters():
        if weight.dtype in checked_types and not torch.isfinite(weight).all():
            return name
    return None


@contextlib.contextmanager
def quiet():
    """Without the progress bar and the table of missing weights: `load` names them in one line."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    had_bar = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bar:
            logging.enable_progress_bar()


# Padding


def last_of_a_chat(tokenizer):
    """The id of a chat's last token, which a template may write behind the last answer."""
    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    text = render(tokenizer, chat, tokenizer.name_or_path)
    return tokenizer(text, add_special_tokens=False)["input_ids"][-1]


def ensure_padding(tokenizer):
    """A reward model's score is read at the last token that is not padding.

    So the pad token must not be one that ends a chat. A tokenizer without a pad token gets one.
    """
    last = last_of_a_chat(tokenizer)
    reason = f"{tokenizer.name_or_path}: its tokenizer needs a pad token that"
    if tokenizer.pad_token_id is None:
        candidates = [tokenizer.eos_token_id, tokenizer.bos_token_id, 0, 1]
        usable = [token_id for token_id in candidates if token_id not in (None, last)]
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(usable[0])
    elif tokenizer.pad_token_id == tokenizer.eos_token_id:
        sys.exit(f"{reason} is not the EOS token")
    elif tokenizer.pad_token_id == last:
        sys.exit(f"{reason} does not end a chat")
