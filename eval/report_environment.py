"""What a report says of where it was made: date, commit, versions, machine."""

import contextlib
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path


def output_of(*command):
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        run = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        return ", ".join(run.stdout.splitlines()) or None


def environment():
    installed = {
        distribution.name: distribution.version for distribution in metadata.distributions()
    }
    libraries = ("torch", "transformers", "trl", "vllm", "datasets", "accelerate", "numpy")
    versions = {name: installed.get(name) or installed.get(f"{name}-cpu") for name in libraries}
    versions["python"] = sys.version.split()[0]
    commit = output_of(
        "git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+dirty"
    )
    cpu = output_of("grep", "-m1", "model name", "/proc/cpuinfo") or os.uname().machine
    gpu = output_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    machine = {"cpu": cpu.split(": ")[-1], "cpus": os.cpu_count(), "gpu": gpu}
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit,
        "versions": versions,
        "machine": machine,
    }
