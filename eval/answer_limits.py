"""The tokens that lm-eval's models may answer with, and how many answers they cut off.

lm-eval stops at 256 tokens where a task sets no limit, and some tasks set 256 or less: a model that
reasons for longer loses the answer, and looks worse than it is. For 2d_academic.py.
"""

from pathlib import Path

from common import thoughts

TOKENS = 1024  # at least, where neither --max_gen_toks nor a file of --include_path says otherwise
LEAST = 256  # that a long prompt leaves for the answer; beyond, the prompt is cut on its left
# lm-eval's names for the limit.
NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


def limited_by_user(include_path):
    """The names of the tasks whose own file in that directory sets a limit.

    A limit that a task takes from a file which its own includes does not count.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    names = set()
    if not include_path:
        return names
    for path in Path(include_path).rglob("*.yaml"):
        try:
            config = load_yaml(path, resolve_func=False, recursive=False)
        except Exception:  # lm-eval skips such a file too
            continue
        options = config.get("generation_kwargs")
        if not isinstance(options, dict) or not isinstance(config.get("task"), str):
            continue
        if limits_in(options):
            names.add(config["task"])
    return names


def limits_in(options):
    """The limits that generation options set, under any of the names."""
    return [options[name] for name in NAMES if options.get(name) is not None]


def set_limits(tasks, limit, limited_names, context=None):
    """Set the limit of the tasks that generate: `limit`, else TOKENS or the task's, if higher.

    tasks: {name: lm-eval's task}. limited_names: tasks whose own limit stays, unless `limit` is
    given. context: tokens that the model can read, half of which an answer gets at most, or None.
    """
    for name, task in tasks.items():
        if task.get_config("output_type") != "generate_until":
            continue
        options = task.get_config("generation_kwargs")
        task_limits = [int(value) for value in limits_in(options)]
        # Of several names for the limit only one may stay.
        for alias in NAMES:
            if options.get(alias) is not None:
                del options[alias]
        if limit:
            tokens = limit
        elif name in limited_names:
            tokens = task_limits[0]
        else:
            tokens = max([TOKENS, *task_limits[:1]])
        if context:
            tokens = min(tokens, context // 2)
        options["max_gen_toks"] = tokens


# In place of functions of lm-eval


def shorten_answer_first(maybe_truncate):
    """A prompt that is too long with its answer first takes from the answer's room."""

    def truncate(tokens, max_gen_toks, max_model_len, **options):
        options["min_gen_toks"] = min(LEAST, max_gen_toks, max_model_len // 2)
        options["shrink_gen_toks"] = True
        return maybe_truncate(
            tokens, max_gen_toks=max_gen_toks, max_model_len=max_model_len, **options
        )

    return truncate


def drop_thoughts(postprocess):
    """A thought holds no answer, and one that was cut off leaves none."""

    def postprocess_answer(generation, *args, **options):
        return postprocess(thoughts.without_thoughts(generation), *args, **options)

    return postprocess_answer


def count_vllm(model):
    """The list to which lm-eval's vLLM model appends, for every answer, whether it was cut off."""
    model_generate = model._model_generate
    cut_off = []

    def generate_and_count(requests, generate=False, sampling_params=None):
        outputs = model_generate(requests, generate=generate, sampling_params=sampling_params)
        if generate:  # else only likelihoods
            for output in outputs:
                cut_off.append(output.outputs[0].finish_reason == "length")
        return outputs

    model._model_generate = generate_and_count
    return cut_off


def count_transformers(model):
    """The same for lm-eval's transformers model: cut off has all its tokens and no end."""
    model_generate = model._model_generate
    cut_off = []

    def generate_and_count(context, max_length, stop, **options):
        sequences = model_generate(context, max_length, stop, **options)  # [batch, tokens]
        answers = sequences[:, context.shape[1] :]  # [batch, tokens of the answer]
        is_full = sequences.shape[1] >= max_length
        for answer in answers.tolist():
            cut_off.append(is_full and not has_ended(model, answer, stop))
        return sequences

    model._model_generate = generate_and_count
    return cut_off


def has_ended(model, answer, stop):
    """Does an answer, a list of token ids, hold the token or one of the texts that end it?"""
    if model.eot_token_id in answer:
        return True
    return any(text in model.tok_decode(answer) for text in stop if text)
