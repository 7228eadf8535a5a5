"""The paper's academic benchmarks by lm-eval, with the chat template (paper, Tables 3 and 6).

GSM8K 8-shot (gsm8k_cot), MMLU 5-shot, HumanEval 0-shot (humaneval_instruct), TruthfulQA 0-shot
(truthfulqa_mc2), ARC-challenge 25-shot, MBPP 0-shot (mbpp_instruct); few-shot examples are earlier
turns of the chat. HumanEval and MBPP run programs that the model wrote: only with
--run_generated_code, in the sandbox of common/sandbox.py (bubblewrap). Any other task of lm-eval,
or of YAML files in --include_path, can be named, with its own number of examples; its first metric
is reported.

The limit of an answer is 1024 tokens, the task's own if that is more, or --max_gen_toks; the share
of truncated answers stands beside each score. A finished task is not repeated for the same model
and settings: after an interruption the same command resumes.

Reads:  --model_name_or_path; the tasks' data sets, from the hub or from where the files of
        --include_path say
Writes: --output_dir, TASK/result.json and TASK/samples.jsonl as each task ends; when all have,
        academic.json: {"model", "backend", "date", "versions", "tasks": {TASK: {"metric", "value",
        "stderr", "shots", "n", "truncated": share of truncated answers, or null where none is
        generated, "numbers"}}}, with the tasks of earlier calls for the same model and settings;
        prints its table

    python eval/2d_academic.py --model_name_or_path my_policy --output_dir my_academic
"""

import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import answer_limits
import code_eval
import lm_eval_loading
from common import arguments, models, outputs, rows, sandbox, tables
from published import ACADEMIC, AcademicTask

# Tasks that run programs which the model wrote.
CODE = ["humaneval_instruct", "mbpp_instruct"]
# A task that the paper does not have: lm-eval's number of examples, and its first metric.
OTHER_TASK = AcademicTask(column=None, shots=None, metric=None)


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_output("--output_dir", "folder", ["academic.json"], required=True)
    parser.add_argument(
        "--tasks", nargs="+", help=f"default: {' '.join(ACADEMIC)} (paper, Table 6)"
    )
    parser.add_argument(
        "--include_path", help="directory with further tasks, as lm-eval's YAML files"
    )
    parser.add_argument(
        "--run_generated_code", action="store_true", help="run the model's programs, in a sandbox"
    )
    parser.add_argument(
        "--backend", choices=["vllm", "hf"], default="vllm", help="vLLM or transformers"
    )
    parser.add_argument("--chat_template_kwargs", help=arguments.TEMPLATE_HELP)
    parser.add_argument(
        "--dtype",
        choices=arguments.DTYPES,
        help="(default: the weights'; vLLM's auto lowers float32)",
    )
    parser.add_argument(
        "--max_model_len",
        type=arguments.whole(1),
        help="tokens of prompt and answer (default: the model's)",
    )
    parser.add_argument(
        "--max_gen_toks",
        type=arguments.whole(1),
        help="tokens of an answer (default: those of a file in --include_path, else "
        f"{answer_limits.TOKENS} or more)",
    )
    parser.add_argument(
        "--tensor_parallel_size",
        type=arguments.whole(1),
        default=1,
        help="GPUs that share one model, by vLLM",
    )
    parser.add_argument(
        "--batch_size",
        type=arguments.whole(1),
        default=8,
        help="of transformers; vLLM makes its own",
    )
    parser.add_argument(
        "--seed",
        type=arguments.SEED,
        default=1234,
        help="draws the examples that are shown (lm-eval's default)",
    )
    return parser.parse_args()


def selected_tasks(args):
    """The tasks of --tasks, by default the paper's; those that run programs only if allowed."""
    tasks = args.tasks or list(ACADEMIC)
    if args.run_generated_code:
        return tasks
    code_tasks = [task for task in CODE if task in tasks]
    if not code_tasks:
        return tasks
    reason = f"{', '.join(code_tasks)}: {code_eval.REFUSED}"
    if args.tasks:
        sys.exit(reason)
    print(f"left out: {reason}")
    return [task for task in tasks if task not in CODE]


# Results of this and earlier calls


def library_versions():
    versions = {"vllm": lm_eval_loading.vllm_version()}
    for name in ("lm_eval", "transformers", "torch"):
        versions[name] = version(name)
    return versions


def fingerprint(args, versions):
    """A hash of the model's files and of all settings that a score depends on."""
    sizes = f"{args.max_model_len} {args.max_gen_toks} {args.chat_template_kwargs} {args.seed}"
    settings = f"{args.backend} {args.dtype} {sizes} {versions}"
    return rows.fingerprint([settings, args.model_name_or_path, args.include_path or ""])


def finished(folder, made_by):
    """{task: result} of those in the folder that have this fingerprint."""
    results = {}
    for path in sorted(folder.glob("*/result.json")):
        for result in rows.read(path):
            if result.pop("made_by", "") == made_by:
                task = result.pop("task")
                results[task] = result
    return results


# Loading


@dataclass
class Evaluator:
    """A model and tasks, as lm-eval has loaded them."""

    model: Any
    truncated: list[bool]  # one for each answer so far; the model appends to it
    task_manager: Any
    tasks: dict[str, dict]  # {name: what the manager loads of it, {"tasks", "groups"}}


def load(args, names):
    """The Evaluator of these tasks; exits on what cannot be loaded, the cheap checks first."""
    # vLLM divides by the time that its progress bar has taken, which is 0 if bars are off.
    os.environ.pop("TQDM_DISABLE", None)
    # Seconds between two updates of a bar: in a log every update is a line.
    os.environ.setdefault("TQDM_MININTERVAL", "0.1" if sys.stderr.isatty() else "30")
    from transformers import AutoModelForCausalLM

    path = args.model_name_or_path
    dtype = args.dtype or str(models.config(path).dtype or "auto").removeprefix("torch.")
    tokenizer = models.tokenizer(path, chat_template_kwargs=args.chat_template_kwargs)
    models.check(AutoModelForCausalLM, path, tokenizer)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    task_manager, tasks = lm_eval_loading.tasks(names, args)

    settings = {"dtype": dtype, "max_length": args.max_model_len}
    # A stop string inside a thought must not end the answer.
    has_thoughts = "</think>" in str(tokenizer.chat_template)
    settings["think_end_token"] = "</think>" if has_thoughts else None
    with models.refused(path):
        if args.backend == "hf":
            model, truncated = lm_eval_loading.transformers_model(path, args.batch_size, settings)
        else:
            model, truncated = lm_eval_loading.vllm_model(path, args.tensor_parallel_size, settings)
    # Our template has --chat_template_kwargs applied, and a fixed date.
    model.tokenizer.chat_template = tokenizer.chat_template
    return Evaluator(model, truncated, task_manager, tasks)


# Evaluating


def run_tasks(evaluator, args, made_by, start):
    """Evaluate task after task and write each; returns the errors of those that failed.

    start: time.time() of the program's start.
    """
    folder = Path(args.output_dir)
    errors = []
    for task in evaluator.tasks:
        try:
            result, samples = evaluate(evaluator, task, args)
        except Exception as error:  # one that fails does not stop the others
            errors.append(f"{task} ({repr(error)[:300]})")
            continue
        rows.write(folder / task / "samples.jsonl", samples)
        rows.write(folder / task / "result.json", [{"task": task, **result, "made_by": made_by}])
        print(f"{task}: {in_words(result)}, {time.time() - start:.0f} s", flush=True)
    return errors


def evaluate(evaluator, task, args):
    """(result, samples) of one task."""
    import lm_eval
    from lm_eval.utils import handle_non_serializable

    loaded = evaluator.tasks[task]
    # vLLM gives an answer the room that its prompt leaves; transformers needs the limit in advance.
    context = evaluator.model.max_length if args.backend == "hf" else None
    limited_names = answer_limits.limited_by_user(args.include_path)
    answer_limits.set_limits(loaded["tasks"], args.max_gen_toks, limited_names, context)
    paper_task = ACADEMIC.get(task, OTHER_TASK)
    evaluator.truncated.clear()
    # A group such as mmlu is evaluated as one task.
    loaded_task = loaded["groups"].get(task) or loaded["tasks"][task]
    evaluation = lm_eval.simple_evaluate(
        evaluator.model,
        tasks=[loaded_task],
        task_manager=evaluator.task_manager,
        num_fewshot=paper_task.shots,
        apply_chat_template=True,
        fewshot_random_seed=args.seed,
        confirm_run_unsafe_code=args.run_generated_code,
    )
    result = summarise(evaluation, task, paper_task.metric, evaluator.truncated)
    samples = []
    for name, samples_of_task in evaluation["samples"].items():
        for sample in samples_of_task:
            samples.append({"task": name, **sample})
    # Numbers of numpy, and functions in a task's settings, become plain JSON.
    return json.loads(json.dumps([result, samples], default=handle_non_serializable))


def summarise(evaluation, task, metric, truncated):
    """The result of one task; metric: "METRIC,FILTER", or None for its first."""
    numbers = {}
    for name, value in evaluation["results"][task].items():
        if "," in name:  # else it is about the task
            numbers[name] = value
    metric = metric or next(iter(numbers))
    stderr = numbers.get(metric.replace(",", "_stderr,"))
    return {
        "metric": metric,
        "value": numbers[metric],
        "stderr": None if stderr == "N/A" else stderr,
        "shots": next(iter(evaluation["n-shot"].values())),
        "n": sum(count["effective"] for count in evaluation["n-samples"].values()),
        "truncated": fmean(truncated) if truncated else None,
        "numbers": numbers,
    }


def in_words(result):
    text = f"{result['value']:.4f}"
    if result["stderr"] is not None:
        text += f" ± {result['stderr']:.4f}"
    text += f" ({result['metric']}), {result['n']} questions"
    if result["truncated"] is not None:
        text += f", {100 * result['truncated']:.1f}% of the answers cut off"
    return text


def table(model, results):
    """Markdown, in percent: the paper's columns if one of them has a result, then other tasks."""
    tasks = sorted(set(results) - set(ACADEMIC))
    if set(ACADEMIC) & set(results):
        tasks = [*ACADEMIC, *tasks]
    columns = [ACADEMIC.get(task, OTHER_TASK).column or task for task in tasks]
    lines = []
    for label, field in ((model, "value"), ("answers cut off", "truncated")):
        values = [results.get(task, {}).get(field) for task in tasks]
        lines.append([label, *map(percent, values)])
    return tables.markdown(["model", *columns], lines)


def percent(value):
    return "-" if value is None else f"{100 * value:.1f}"


def main():
    args = parse_arguments()
    start = time.time()
    tasks = selected_tasks(args)
    folder = Path(args.output_dir)
    versions = library_versions()
    made_by = fingerprint(args, versions)
    finished_before = finished(folder, made_by)
    todo = [task for task in dict.fromkeys(tasks) if task not in finished_before]

    errors = []
    if todo:
        # Checked before the model is loaded: the code tasks run their programs in the sandbox.
        if args.run_generated_code and (reason := sandbox.unusable()):
            sys.exit(f"--run_generated_code: {reason}")
        evaluator = load(args, todo)
        errors = run_tasks(evaluator, args, made_by, start)

    results = finished(folder, made_by)
    if errors:
        kept = ", ".join(results) or "none"
        sys.exit(f"{'; '.join(errors)}: failed; kept: {kept}; the same command does the rest")
    summary = {
        "model": args.model_name_or_path,
        "backend": args.backend,
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions,
        "tasks": results,
    }
    academic_file = folder / "academic.json"
    outputs.write_json(academic_file, summary)
    print(table(args.model_name_or_path, results))
    counts = f"tasks: {len(results)}, finished before: {len(finished_before)}"
    print(f"{academic_file} {counts}, {time.time() - start:.1f} s")


if __name__ == "__main__":
    main()
