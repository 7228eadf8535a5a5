"""Compare the free space of the disks with what a run writes, by footprint.py. For check.py."""

import os
import subprocess
from pathlib import Path

import footprint
import shapes
from needs import number, problem, trainings, value
from settings import distributed, lora_rank, shape_of, tokens_of_response


def check_disk(download, reachable):
    """Compare the models, the rows and the downloads with the free space, which df knows.

    download: bytes.
    """
    out = value("OUT") or "."
    needs = {out: run_needs(out, reachable)}
    if download:
        from huggingface_hub import constants

        needs[constants.HF_HUB_CACHE] = {"downloads": download / shapes.GIB}
    # Two folders may lie on the same disk, whose free space changes while others write.
    needs_by_mount = {}
    free_by_mount = {}
    for path, parts in needs.items():
        mount, free = disk_of(path)
        needs_by_mount.setdefault(mount, {}).update(parts)
        free_by_mount[mount] = free
    for mount, parts in needs_by_mount.items():
        free = free_by_mount[mount]
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
            parts = footprint.disk(
                shape,
                trained=[stage] * len(missing),
                distributed=distributed(),
                lora_rank=lora_rank(stage),
            )
            models += parts["models"]
            # With ENHANCER=mixture each round saves a second model (dpo/2_interpolate.py).
            if stage == "dpo" and value("ENHANCER") == "mixture":
                models += parts["models"]
            # ArmoRM's training is that of a small gate, without checkpoints.
            if stage != "armorm":
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
    tokens = rounds * prompts * number("N") * tokens_of_response(number("MAX_TURNS"))
    # Any shape will do: the rows do not depend on it.
    return footprint.disk(shapes.SHAPES["llama3_8b"], trained=["dpo"], tokens=tokens)["rows"]


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
