"""Check at once what would stop a run of run_loop.sh later: names on the hub, local rows and models, disk, GPUs.

A name counts if a step that is not skipped reads it. The hub is asked whether it exists, whether this account may read
it and how large it is; with HF_HUB_OFFLINE=1 it has to be in the cache. A model in a directory has to load whole and
has to have a chat template; one on the hub is looked at by the first step that reads it. The prompts of EVAL_PROMPTS
have a split. Disk and memory are budget.py's estimates. With CHECK=no only rows are looked at.

Reads:  run_loop.sh's variables from the environment (not there: empty); preflight/hub_names.md, for names that stand
        for several; nvidia-smi or GPU_MEMORY, the GiB of a GPU; df; the hub, and the addresses of benchmarks
Writes: nothing. Standard output tells what is well, in lines that start with #. Standard error has one line for each
        problem; the exit status is then 1.

    SFT_MODEL=RLHFlow/LLaMA3-SFT PROMPTS=RLHFlow/prompt-collection-v0.1 python preflight/check.py
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path

import budget
from needs import (
    ANNOTATORS,
    BELOW_OUT,
    FILE,
    check_names,
    flag,
    number,
    patiently,
    problem,
    problems,
    trainings,
    value,
    wanted,
)

PREFIX = {
    "sft": "SFT_",
    "reward_model": "RM_",
    "preference_model": "PM_",
    "dpo": "DPO_",
}  # of variables
MAX_LENGTH = {"preference_model": 3072}  # of scripts that the driver gives none
VLLM = 0.92  # of a GPU's memory
# What eval/1_answers.py keeps free for the answers to a question; MT-Bench has two turns, and an answer is read again.
BENCHMARK_TOKENS = {"alpaca_eval": 2048, "mt_bench": 3 * 1024, "arena_hard": 4096}


def many(count, word):
    return f"{count} {word}" + ("" if count == 1 else "es" if word.endswith("s") else "s")


def processes():
    return max(number("GPUS"), 1) * max(number("NODES"), 1)


def distributed():
    return (value("DISTRIBUTED") or "ddp") if processes() > 1 else "ddp"


def batch_of(stage):
    """(global batch, rows a process at once) of a training."""
    whole = number(f"{PREFIX[stage]}BATCH_SIZE")
    return whole, min(number("PER_DEVICE_BATCH_SIZE") or 1, whole // processes())


def options_of(stage):
    """(tokens of a row, LoRA's rank or 0)"""
    name = f"{PREFIX.get(stage, 'ARMORM_')}OPTIONS"
    length = flag(name, "--max_length") or [
        MAX_LENGTH.get(stage) or number(f"{PREFIX.get(stage, 'RM_')}MAX_LENGTH")
    ]
    lora = "--use_peft" in value(name).replace("=", " ").split() and flag(name, "--use_peft") != [
        "False"
    ]
    return int(length[0]), int((flag(name, "--lora_r") or [16])[0]) if lora else 0


def shape_of(model, reachable):
    """The shape of a model, of one that the run makes that of its start; None if it is not known."""
    starts = trainings()
    while (stage := Path(model).name) in starts and Path(model).parent == Path(value("OUT")):
        model = starts.pop(stage)
    path = Path(model, "config.json")
    try:
        if model and not (
            path.exists() or model.startswith(BELOW_OUT) or re.fullmatch(FILE, model)
        ):
            from huggingface_hub import hf_hub_download

            path = hf_hub_download(model, "config.json", local_files_only=not reachable)
        return budget.shape(json.loads(Path(path).read_text(encoding="utf-8")))
    except Exception:  # no such file, a gated model, a kind that budget.py does not know
        return None


def check_disk(download, reachable):
    """The models that are not yet made, the rows, the downloads; by df, which knows the mount point."""
    out, models, checkpoints, rounds = value("OUT") or ".", 0, 0, 0
    for stage, model in trainings().items():
        made = [f"{out}/{stage}"]
        if stage == "dpo":
            made = [f"{out}/iter{t}/policy" for t in range(1, number("ITERATIONS") + 1)]
        missing = [stage for path in made if not os.path.exists(path)]
        rounds = (
            len(missing) if stage == "dpo" and "offline" not in value("OPTIMISER").split() else 0
        )
        if missing and (shape := shape_of(model, reachable)):
            rank = options_of(stage)[1]
            parts = budget.disk(shape, trained=missing, distributed=distributed(), lora_rank=rank)
            models, checkpoints = models + parts["models"], max(checkpoints, parts["checkpoints"])
    tokens = (
        rounds
        * (number("PROMPTS_PER_ITERATION") or 20_000)
        * number("N")
        * number("MAX_NEW_TOKENS")
    )
    rows = budget.disk(budget.SHAPES["llama3_8b"], trained=["dpo"], tokens=tokens)["rows"]
    needs, places = {out: {"models": models, "checkpoints": checkpoints, "rows": rows}}, {}
    if download:
        from huggingface_hub import constants

        needs[constants.HF_HUB_CACHE] = {"downloads": download / budget.GIB}
    for path, need in needs.items():
        path = next(folder for folder in (Path(path).absolute() / "-").parents if folder.exists())
        told = subprocess.run(
            ["df", "-Pk", path], capture_output=True, text=True, check=True
        ).stdout
        _, _, _, free, _, mount = told.splitlines()[-1].split(None, 5)
        places.setdefault((mount, int(free) / 2**20), {}).update(need)
    for (mount, free), need in places.items():
        parts = (
            ", ".join(f"{name} {size:.1f}" for name, size in need.items() if size >= 0.05)
            or "next to nothing"
        )
        told = f"disk: {mount}: {sum(need.values()):.1f} GiB needed ({parts}), {free:.1f} free"
        problem(told) if sum(need.values()) > free else print(f"# {told}")


def new_tokens():
    return number("MAX_NEW_TOKENS") or 2048


def prompt_tokens():
    """Tokens of the longest prompt: an assumption, prompts are not at hand before the run."""
    return number("DPO_MAX_LENGTH") or 2048


def response_tokens():
    """Tokens that the engine may have to make after a prompt: of a round, or of a benchmark, all turns together."""
    return max([new_tokens(), *(BENCHMARK_TOKENS.get(name, 0) for name in value("EVALS").split())])


def context(shape):
    """Tokens of the longest sequence in generation."""
    limit = min(shape.max_length, number("MAX_MODEL_LEN") or shape.max_length)
    return min(limit, prompt_tokens() + response_tokens())


def check_context(reachable):
    """The positions of the policy, if its shape is known, against what generation asks for."""
    shape = shape_of(value("SFT_MODEL") or value("BASE_MODEL"), reachable)
    if not shape:
        return
    limit = min(shape.max_length, number("MAX_MODEL_LEN") or shape.max_length)
    if number("MAX_MODEL_LEN") > shape.max_length:
        problem(
            f"MAX_MODEL_LEN={value('MAX_MODEL_LEN')}: the policy has {shape.max_length} positions"
        )
    elif new_tokens() >= limit:
        problem(
            f"MAX_NEW_TOKENS={new_tokens()}: no prompt fits beside so many, the context has {limit} tokens"
        )
    else:
        print(
            f"# context: {context(shape)} of the policy's {shape.max_length} positions in generation, for prompts of "
            f"DPO_MAX_LENGTH={prompt_tokens()} tokens at most (assumed: the engine takes what its longest prompt needs)"
        )


def stages(reachable, memory):
    """Yields (what, its GiB by part or None, what to change) of every stage that loads a model."""
    for stage, model in trainings().items():
        (sequence, rank), batch = options_of(stage), stage in PREFIX and batch_of(stage)[1]
        if sequence and batch:  # but ArmoRM, which trains no more than heads
            how = {
                "gpus": processes(),
                "sequence": sequence,
                "batch": batch,
                "distributed": distributed(),
            }
            shape = shape_of(model, reachable)
            flags = f"{PREFIX[stage]}OPTIONS (--max_length, LoRA by --use_peft True)"
            parts = shape and budget.training(shape, stage, lora_rank=rank, **how)
            yield stage, parts, f"DISTRIBUTED, PER_DEVICE_BATCH_SIZE, or {flags}"
    shape = shape_of(value("SFT_MODEL") or value("BASE_MODEL"), reachable)
    split = number("TENSOR_PARALLEL") or 1
    parts = shape and budget.generation(shape, sequence=context(shape), tensor_parallel=split)
    yield "generation", parts, "TENSOR_PARALLEL, MAX_NEW_TOKENS or MAX_MODEL_LEN"
    tokens = 4096 if 0 < memory <= 40 else 16384  # as the annotators have it
    scorers = ["reward_model"] * (bool(value("REWARD_MODEL")) or "reward_model" in trainings())
    for name in [
        *scorers,
        *(name for name in ("preference_model", "armorm") if name in ANNOTATORS),
    ]:
        variable = {"armorm": "ARMORM"}.get(name, name.upper())
        shape = shape_of(value(variable) or f"{value('OUT')}/{name}", reachable)
        yield (
            f"scoring by {variable}",
            shape and budget.scoring(shape, batch_tokens=tokens),
            f"{variable} for a smaller model",
        )


def check_gpus(reachable):
    """Their number, and the memory of each against every stage."""
    gpus, listed = number("GPUS"), []
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        told = subprocess.run(command, capture_output=True, text=True)
        listed = told.stdout.split() if told.returncode == 0 else []
    if not gpus:
        return print("# GPUs: none asked for, the run is the CPU's")
    if not listed:
        print(f"# GPUs: none here, {gpus} asked for: not checked")
    elif gpus > len(listed):
        problem(f"GPUS={gpus}: this machine has {len(listed)}")
    else:
        print(f"# GPUs: {len(listed)} here, {gpus} asked for")
    try:
        memory = float(
            value("GPU_MEMORY")
            or min((int(mib) / 1024 for mib in listed if mib.isdigit()), default=0)
        )
    except ValueError:
        return problem(f"GPU_MEMORY={value('GPU_MEMORY')}: not a number (GiB)")
    fits, unknown = [], []
    for what, parts, change in stages(reachable, memory):
        room = memory * (VLLM if what == "generation" else 1)
        if not parts:
            unknown.append(what)
        elif memory and parts["total"] > room:
            told = ", ".join(
                f"{name} {size:.1f}"
                for name, size in parts.items()
                if size >= 0.05 and name != "total"
            )
            problem(
                f"GPU memory: {what} needs {parts['total']:.1f} GiB of {room:.1f} ({told}); change {change}"
            )
        else:
            fits.append(f"{what} {parts['total']:.1f}")
    known = f"{memory:.1f} GiB" if memory else "unknown, set GPU_MEMORY (GiB) to check"
    if fits:
        print(f"# GPU memory: {known}; needed: {', '.join(fits)}")
    if unknown:
        print(f"# GPU memory: not checked, of an unknown shape: {', '.join(unknown)}")


@contextlib.contextmanager
def noted():
    """Within it what would end a script of the run is a problem."""
    try:
        yield
    except SystemExit as error:
        problem(error.code)


def check_evaluation_prompts():
    """Each is of the validation or of the test, as the report needs them; the run's own are."""
    path, splits = value("EVAL_PROMPTS"), ("validation", "test")
    if not os.path.exists(path) or path.startswith(BELOW_OUT):
        return
    from common import rows

    with noted():
        counts = Counter()
        for row in rows.read(path, "prompts"):
            if row.get("split") not in splits:
                rows.refuse(row, "split: not validation or test")
            counts[row["split"]] += 1
        if min(counts[split] for split in splits) < 2:
            problem(f"{path}: split: fewer than two rows of validation or of test")


def check_judge():
    """The judge answers, and knows the model that it is asked for."""
    url, model = value("JUDGE_URL"), value("JUDGE_MODEL")
    judged = [name for name in value("EVALS").split() if name not in ("none", "academic")]
    if not url or not (judged or "llm_judge" in ANNOTATORS):
        return
    headers = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '-')}"}
    request = urllib.request.Request(f"{url.rstrip('/')}/models", headers=headers)
    try:
        with patiently(urllib.request.urlopen, request, None, 10) as reply:
            known = [entry["id"] for entry in json.load(reply)["data"]]
    except Exception as error:  # no server, a refused key, a reply of another form
        return problem(
            f"JUDGE_URL={url}: {str(error) or type(error).__name__}; its /models has to answer"
        )
    if model in known:
        print(f"# judge: {url} serves {model}")
    else:
        problem(f"JUDGE_MODEL={model}: {url} serves {', '.join(known[:5])}")


def check_models():
    """The models in directories, as the first step that loads them does: their template, keys and shapes."""
    kinds = {
        "SFT_MODEL": "AutoModelForCausalLM",
        "REWARD_MODEL": "AutoModelForSequenceClassification",
    }
    if "preference_model" in ANNOTATORS:
        kinds["PREFERENCE_MODEL"] = "AutoModelForCausalLM"
    starts = {"BASE_MODEL": "sft", "RM_START": "reward_model", "PM_START": "preference_model"}
    kinds |= {
        name: None for name, stage in starts.items() if stage in trainings()
    }  # heads are made there
    named = {name: value(name) for name in kinds if not value(name).startswith(BELOW_OUT)}
    local = {name: path for name, path in named.items() if os.path.isdir(path)}
    if not local:
        return
    import transformers

    from common import models

    for name, path in local.items():
        trusted = name == "REWARD_MODEL" and value("RM_TRUST_REMOTE_CODE") == "yes"
        options = {"trust_remote_code": True} if trusted else {}
        template = name != "BASE_MODEL" or not flag("SFT_OPTIONS", "--chat_template_path")
        with noted():
            tokenizer = models.tokenizer(path, template=template, **options)
            if kinds[name]:
                models.check(getattr(transformers, kinds[name]), path, tokenizer, **options)
            print(f"# models: {name}={path}: well")


def main():
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    check_evaluation_prompts()
    if value("CHECK") == "no":
        sys.exit(1 if problems else 0)
    found = wanted()
    download, reachable = check_names(found) if found else (0, False)
    check_disk(download, reachable)
    check_context(reachable)
    check_gpus(reachable)
    for stage in (stage for stage in PREFIX if stage in trainings()):
        if size := batch_of(stage)[1]:
            whole, name = batch_of(stage)[0], PREFIX[stage].rstrip("_")
            steps, word = (
                many(whole // (size * processes()), "step"),
                "GPU" if number("GPUS") else "process",
            )
            print(
                f"# batches: {name} {whole} = {size} a {word} x {many(processes(), word)} x {steps}"
            )
    check_judge()
    if not problems:  # it takes seconds
        check_models()
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
