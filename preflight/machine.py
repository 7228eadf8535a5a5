"""Compare the disk and the GPUs of this machine with what a run needs. For check.py.

Disk and memory are budget.py's estimates.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import budget
from needs import ANNOTATORS, BELOW_OUT, FILE, flag, number, problem, trainings, value

# Prefixes of the variables of a training.
PREFIX = {
    "sft": "SFT_",
    "reward_model": "RM_",
    "preference_model": "PM_",
    "dpo": "DPO_",
}
MAX_LENGTH = {"preference_model": 3072}  # default of a script that the driver gives none
# Tokens that eval/1_answers.py keeps free for the answers to a question. MT-Bench has two turns,
# and the first answer is read again in the second.
BENCHMARK_TOKENS = {"alpaca_eval": 2048, "mt_bench": 3 * 1024, "arena_hard": 4096}


# The settings of a training


def processes():
    return max(number("GPUS"), 1) * max(number("NODES"), 1)


def distributed():
    if processes() == 1:
        return "ddp"
    return value("DISTRIBUTED") or "ddp"


def global_batch(stage):
    return number(f"{PREFIX[stage]}BATCH_SIZE")


def device_batch(stage):
    """Rows that one process takes at once."""
    return min(number("PER_DEVICE_BATCH_SIZE") or 1, global_batch(stage) // processes())


def options_variable(stage):
    return f"{PREFIX.get(stage, 'ARMORM_')}OPTIONS"


def max_length(stage):
    """Tokens of a row."""
    words = flag(options_variable(stage), "--max_length")
    if words:
        return int(words[0])
    return MAX_LENGTH.get(stage) or number(f"{PREFIX.get(stage, 'RM_')}MAX_LENGTH")


def lora_rank(stage):
    """The rank of LoRA's matrices; 0 without LoRA."""
    variable = options_variable(stage)
    uses_lora = "--use_peft" in value(variable).replace("=", " ").split()
    if not uses_lora or flag(variable, "--use_peft") == ["False"]:
        return 0
    words = flag(variable, "--lora_r") or [16]  # 16: TRL's default
    return int(words[0])


def shape_of(model, reachable):
    """The budget.Shape of a model, None if it is unknown.

    A model that the run makes has the shape of the model that its training starts from.
    """
    starts = trainings()
    path = Path(model)
    while path.parent == Path(value("OUT")) and path.name in starts:
        model = starts.pop(path.name)
        path = Path(model)
    config = path / "config.json"
    try:
        is_local = config.exists() or model.startswith(BELOW_OUT) or re.fullmatch(FILE, model)
        if model and not is_local:
            from huggingface_hub import hf_hub_download

            config = hf_hub_download(model, "config.json", local_files_only=not reachable)
        return budget.shape(json.loads(Path(config).read_text(encoding="utf-8")))
    except Exception:  # no such file, a gated model, a kind that budget.py does not know
        return None


def policy_shape(reachable):
    return shape_of(value("SFT_MODEL") or value("BASE_MODEL"), reachable)


# Disk


def check_disk(download, reachable):
    """Compare the models, the rows and the downloads with the free space, which df knows.

    download: bytes.
    """
    out = value("OUT") or "."
    needs = {out: run_needs(out, reachable)}
    if download:
        from huggingface_hub import constants

        needs[constants.HF_HUB_CACHE] = {"downloads": download / budget.GIB}
    # Two folders may lie on the same disk.
    needs_by_disk = {}
    for path, parts in needs.items():
        needs_by_disk.setdefault(disk_of(path), {}).update(parts)
    for (mount, free), parts in needs_by_disk.items():
        needed = sum(parts.values())
        listed = list_parts(parts) or "next to nothing"
        line = f"disk: {mount}: {needed:.1f} GiB needed ({listed}), {free:.1f} free"
        if needed > free:
            problem(line)
        else:
            print(f"# {line}")


def run_needs(out, reachable):
    """{part: GiB} of what the run has yet to write."""
    models = checkpoints = 0
    for stage, start in trainings().items():
        missing = missing_models(stage, out)
        if not missing:
            continue
        shape = shape_of(start, reachable)
        if shape:
            parts = budget.disk(
                shape,
                trained=[stage] * len(missing),
                distributed=distributed(),
                lora_rank=lora_rank(stage),
            )
            models += parts["models"]
            checkpoints = max(checkpoints, parts["checkpoints"])
    return {"models": models, "checkpoints": checkpoints, "rows": rows_needed(out)}


def missing_models(stage, out):
    """The directories of a stage's models that are not there yet."""
    directories = [f"{out}/{stage}"]
    if stage == "dpo":
        rounds = range(1, number("ITERATIONS") + 1)
        directories = [f"{out}/iter{t}/policy" for t in rounds]
    return [directory for directory in directories if not os.path.exists(directory)]


def rows_needed(out):
    """GiB of the responses of all rounds that have no policy yet."""
    rounds = 0
    if "offline" not in value("OPTIMISER").split():
        rounds = len(missing_models("dpo", out))
    prompts = number("PROMPTS_PER_ITERATION") or 20_000
    tokens = rounds * prompts * number("N") * number("MAX_NEW_TOKENS")
    # Any shape will do: the rows do not depend on it.
    return budget.disk(budget.SHAPES["llama3_8b"], trained=["dpo"], tokens=tokens)["rows"]


def disk_of(path):
    """(mount point, GiB that are free there) of a path, which need not exist yet."""
    path = Path(path).absolute()
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    table = subprocess.run(
        ["df", "-Pk", existing], capture_output=True, text=True, check=True
    ).stdout
    _, _, _, free_kib, _, mount = table.splitlines()[-1].split(None, 5)
    return mount, int(free_kib) / 2**20


def list_parts(parts):
    listed = []
    for name, gib in parts.items():
        if name != "total" and gib >= 0.05:
            listed.append(f"{name} {gib:.1f}")
    return ", ".join(listed)


# The context of generation


def new_tokens():
    return number("MAX_NEW_TOKENS") or 2048


def prompt_tokens():
    """Tokens of the longest prompt: an assumption, since there are no prompts before the run."""
    return number("DPO_MAX_LENGTH") or 2048


def response_tokens():
    """Tokens that may follow a prompt: a round's response, or all turns of a benchmark."""
    benchmarks = [BENCHMARK_TOKENS.get(name, 0) for name in value("EVALS").split()]
    return max([new_tokens(), *benchmarks])


def context_limit(shape):
    return min(shape.max_length, number("MAX_MODEL_LEN") or shape.max_length)


def context(shape):
    """Tokens of the longest sequence in generation."""
    return min(context_limit(shape), prompt_tokens() + response_tokens())


def check_context(reachable):
    """Compare the policy's positions, if its shape is known, with what generation needs."""
    shape = policy_shape(reachable)
    if not shape:
        return
    if number("MAX_MODEL_LEN") > shape.max_length:
        problem(
            f"MAX_MODEL_LEN={value('MAX_MODEL_LEN')}: the policy has {shape.max_length} positions"
        )
    elif new_tokens() >= context_limit(shape):
        problem(
            f"MAX_NEW_TOKENS={new_tokens()}: no prompt fits beside so many, "
            f"the context has {context_limit(shape)} tokens"
        )
    else:
        print(
            f"# context: {context(shape)} of the policy's {shape.max_length} positions in "
            f"generation, for prompts of DPO_MAX_LENGTH={prompt_tokens()} tokens at most "
            "(assumed: the engine takes what its longest prompt needs)"
        )


# GPUs


def check_gpus(reachable):
    """Compare their number with GPUS, and the memory of each with the need of every stage."""
    gpus = number("GPUS")
    if not gpus:
        print("# GPUs: none asked for, the run is the CPU's")
        return
    installed = installed_gpus()
    if not installed:
        print(f"# GPUs: none here, {gpus} asked for: not checked")
    elif gpus > len(installed):
        problem(f"GPUS={gpus}: this machine has {len(installed)}")
    else:
        print(f"# GPUs: {len(installed)} here, {gpus} asked for")
    try:
        memory = float(value("GPU_MEMORY") or smallest_memory(installed))
    except ValueError:
        problem(f"GPU_MEMORY={value('GPU_MEMORY')}: not a number (GiB)")
        return
    check_memory(memory, reachable)


def installed_gpus():
    """The memory of each GPU in MiB, as words of nvidia-smi."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    listing = subprocess.run(command, capture_output=True, text=True)
    return listing.stdout.split() if listing.returncode == 0 else []


def smallest_memory(installed):
    """GiB of the smallest GPU; 0 if it is unknown."""
    return min((int(mib) / 1024 for mib in installed if mib.isdigit()), default=0)


def check_memory(memory, reachable):
    """Compare each stage's estimate with the GiB of a GPU. memory: 0 if it is unknown."""
    fitting = []
    unknown = []
    for stage, parts, remedy in memory_by_stage(memory, reachable):
        available = memory
        if stage == "generation":
            available = memory * budget.VLLM_SHARE
        if not parts:
            unknown.append(stage)
        elif memory and parts["total"] > available:
            problem(
                f"GPU memory: {stage} needs {parts['total']:.1f} GiB of {available:.1f} "
                f"({list_parts(parts)}); change {remedy}"
            )
        else:
            fitting.append(f"{stage} {parts['total']:.1f}")
    size = f"{memory:.1f} GiB" if memory else "unknown, set GPU_MEMORY (GiB) to check"
    if fitting:
        print(f"# GPU memory: {size}; needed: {', '.join(fitting)}")
    if unknown:
        print(f"# GPU memory: not checked, of an unknown shape: {', '.join(unknown)}")


def memory_by_stage(memory, reachable):
    """Yields (stage, its GiB by part or None, variables to change) of all that load a model."""
    for stage, start in trainings().items():
        # ArmoRM is left out: its training loads a model, but trains small heads alone.
        if stage in PREFIX and device_batch(stage) and max_length(stage):
            options = f"{PREFIX[stage]}OPTIONS (--max_length, LoRA by --use_peft True)"
            remedy = f"DISTRIBUTED, PER_DEVICE_BATCH_SIZE, or {options}"
            yield stage, training_memory(stage, start, reachable), remedy
    remedy = "TENSOR_PARALLEL, MAX_NEW_TOKENS or MAX_MODEL_LEN"
    yield "generation", generation_memory(reachable), remedy
    # The annotators take smaller batches on small GPUs.
    batch_tokens = 4096 if 0 < memory <= 40 else 16384
    for variable, model in scoring_models():
        shape = shape_of(model, reachable)
        parts = shape and budget.scoring(shape, batch_tokens=batch_tokens)
        yield f"scoring by {variable}", parts, f"{variable} for a smaller model"


def training_memory(stage, start, reachable):
    shape = shape_of(start, reachable)
    if not shape:
        return None
    return budget.training(
        shape,
        stage,
        gpus=processes(),
        sequence=max_length(stage),
        batch=device_batch(stage),
        distributed=distributed(),
        lora_rank=lora_rank(stage),
    )


def generation_memory(reachable):
    shape = policy_shape(reachable)
    if not shape:
        return None
    split = number("TENSOR_PARALLEL") or 1
    return budget.generation(shape, sequence=context(shape), tensor_parallel=split)


def scoring_models():
    """Yields (variable, model) of each model that scores responses."""
    out = value("OUT")
    if value("REWARD_MODEL") or "reward_model" in trainings():
        yield "REWARD_MODEL", value("REWARD_MODEL") or f"{out}/reward_model"
    if "preference_model" in ANNOTATORS:
        yield "PREFERENCE_MODEL", value("PREFERENCE_MODEL") or f"{out}/preference_model"
    if "armorm" in ANNOTATORS:
        yield "ARMORM", value("ARMORM") or f"{out}/armorm"


def print_batches():
    """A line for each training: how its global batch is split."""
    for stage, prefix in PREFIX.items():
        if stage not in trainings() or not device_batch(stage):
            continue
        steps = global_batch(stage) // (device_batch(stage) * processes())
        device = "GPU" if number("GPUS") else "process"
        print(
            f"# batches: {prefix.rstrip('_')} {global_batch(stage)} = {device_batch(stage)} "
            f"a {device} x {plural(processes(), device)} x {plural(steps, 'step')}"
        )


def plural(count, word):
    if count == 1:
        return f"{count} {word}"
    if word.endswith("s"):
        return f"{count} {word}es"
    return f"{count} {word}s"
