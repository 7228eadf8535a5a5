"""Compare the GPUs of this machine with what each stage of a run needs, by footprint.py.

For check.py.
"""

import shutil
import subprocess

import footprint
from disk import list_parts
from needs import number, problem, trainings, value
from settings import (
    PREFIX,
    context,
    context_limit,
    device_batch,
    distributed,
    four_bit,
    global_batch,
    lora_rank,
    max_length,
    new_tokens,
    policy_shape,
    processes,
    prompt_tokens,
    scoring_models,
    shape_of,
)


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


def check_gpus(reachable):
    """Compare their number with GPUS, and the memory of each with the need of every stage.

    Returns the GiB of one; 0 if they are unknown, or without GPUs.
    """
    gpus = number("GPUS")
    if not gpus:
        print("# GPUs: none asked for, the run is the CPU's")
        return 0
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
        return 0
    check_memory(memory, reachable)
    return memory


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
        if not parts:
            unknown.append(stage)
        elif memory and parts["total"] > memory:
            problem(
                f"GPU memory: {stage} needs {parts['total']:.1f} GiB of {memory:.1f} "
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
            options = "--max_length, LoRA by --use_peft True, with --load_in_4bit True"
            remedy = f"DISTRIBUTED, PER_DEVICE_BATCH_SIZE, or {PREFIX[stage]}OPTIONS ({options})"
            yield stage, training_memory(stage, start, reachable), remedy
    remedy = "TENSOR_PARALLEL, MAX_NEW_TOKENS or MAX_MODEL_LEN"
    yield "generation", generation_memory(reachable), remedy
    # The annotators take smaller batches on small GPUs.
    batch_tokens = 4096 if 0 < memory <= 40 else 16384
    for variable, model in scoring_models():
        shape = shape_of(model, reachable)
        parts = shape and footprint.scoring(shape, batch_tokens=batch_tokens)
        yield f"scoring by {variable}", parts, f"{variable} for a smaller model"


def training_memory(stage, start, reachable):
    shape = shape_of(start, reachable)
    if not shape:
        return None
    return footprint.training(
        shape,
        stage,
        gpus=processes(),
        sequence=max_length(stage),
        batch=device_batch(stage),
        distributed=distributed(),
        lora_rank=lora_rank(stage),
        four_bit=four_bit(stage),
    )


def generation_memory(reachable):
    shape = policy_shape(reachable)
    if not shape:
        return None
    split = number("TENSOR_PARALLEL") or 1
    return footprint.generation(shape, sequence=context(shape), tensor_parallel=split)


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
