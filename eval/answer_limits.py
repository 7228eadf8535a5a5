"""The tokens that lm-eval's models may answer with, and how many answers they cut off. For 2d_academic.py.

lm-eval stops at 256 tokens where a task sets no limit, and some tasks set 256 or less: a model that reasons for longer
loses the answer, and looks worse than it is.
"""

from pathlib import Path

from common import thoughts

TOKENS = 1024  # at least, where neither --max_gen_toks nor a file of --include_path says otherwise
LEAST = 256  # that a long prompt leaves for the answer; beyond, the prompt is cut on its left
NAMES = (
    "max_gen_toks",
    "max_new_tokens",
    "max_tokens",
    "max_completion_tokens",
)  # lm-eval's for the limit


def limited_by_user(include_path):
    """The names of the tasks whose file in that directory sets a limit itself, not by a file that it includes."""
    from lm_eval.tasks._yaml_loader import load_yaml

    names = set()
    for path in Path(include_path).rglob("*.yaml") if include_path else ():
        try:
            config = load_yaml(path, resolve_func=False, recursive=False)
        except Exception:  # lm-eval skips such a file too
            continue
        options = config.get("generation_kwargs")
        own = isinstance(options, dict) and any(options.get(name) is not None for name in NAMES)
        if isinstance(config.get("task"), str) and own:
            names.add(config["task"])
    return names


def set_limits(tasks, limit, kept, context=None):
    """Set the limit of the tasks that generate: to `limit`, else to TOKENS or the task's own where that is higher.

    tasks: {name: lm-eval's task}; kept: names of tasks whose own limit stays. context: tokens that the model can read,
    of which an answer gets one half at most, or None.
    """
    for name, task in tasks.items():
        if task.get_config("output_type") != "generate_until":
            continue
        options = task.get_config("generation_kwargs")
        own = [int(options.pop(alias)) for alias in NAMES if options.get(alias) is not None]
        tokens = limit or (own[0] if name in kept else max([TOKENS, *own[:1]]))
        options["max_gen_toks"] = min(tokens, context // 2) if context else tokens


def fit(maybe_truncate):
    """In place of lm-eval's function: a prompt that is too long with the answer first takes from the answer's room."""

    def fitted(tokens, max_gen_toks, max_model_len, **options):
        least = min(LEAST, max_gen_toks, max_model_len // 2)
        options |= {"min_gen_toks": least, "shrink_gen_toks": True}
        return maybe_truncate(
            tokens, max_gen_toks=max_gen_toks, max_model_len=max_model_len, **options
        )

    return fitted


def drop_thoughts(postprocess):
    """In place of lm-eval's function: a thought holds no answer, and one that was cut off leaves none."""

    def after_the_thoughts(generation, *args, **options):
        return postprocess(thoughts.without_thoughts(generation), *args, **options)

    return after_the_thoughts


def count_vllm(model):
    """The list to which lm-eval's model of vLLM appends, for every answer, whether it was cut off."""
    generate, cut_off = model._model_generate, []

    def counted(requests, generate=False, sampling_params=None, run=generate):
        outputs = run(requests, generate=generate, sampling_params=sampling_params)
        if generate:
            cut_off.extend(output.outputs[0].finish_reason == "length" for output in outputs)
        return outputs

    model._model_generate = counted
    return cut_off


def count_transformers(model):
    """The same for lm-eval's model of transformers: an answer is cut off that has all its tokens and no end."""
    generate, cut_off = model._model_generate, []

    def counted(context, max_length, stop, **options):
        sequences = generate(context, max_length, stop, **options)
        answers = sequences[:, context.shape[1] :]  # [batch, tokens]
        for answer in answers.tolist():
            ended = model.eot_token_id in answer or any(
                text in model.tok_decode(answer) for text in stop if text
            )
            cut_off.append(sequences.shape[1] >= max_length and not ended)
        return sequences

    model._model_generate = counted
    return cut_off
