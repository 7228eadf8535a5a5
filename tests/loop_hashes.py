"""Hashes of the rows of the short loop (driving.py): a rewriting of code leaves them as they are.

Rows that models make depend on the last bits of their arithmetic: those hashes are of one CPU.

Records them, from a finished run of that loop with one thread:
    python tests/loop_hashes.py RUN_DIRECTORY
"""

import argparse
import hashlib
import json
from pathlib import Path

RECORD = Path(__file__).with_name("loop_hashes.json")
# Made without a model.
TEXT_ONLY = ("world/", "instructions", "preferences", "iter1/prompts", "iter2/prompts")


def cpu():
    """What tells this machine's CPU from others: name, family, model, and a hash of its flags.

    The flags decide which kernels are used; a virtual machine may hide some.
    """
    fields = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    identity = [fields.get(name) for name in ("model name", "cpu family", "model")]
    flags = " ".join(sorted(fields.get("flags", "").split()))
    return [*identity, hashlib.sha256(flags.encode()).hexdigest()[:12]]


def hashes_of(run):
    """{file: SHA-256} of the JSONL files of a run, whose own path in them counts as OUT."""
    hashes = {}
    for file in sorted(Path(run).rglob("*.jsonl")):
        content = file.read_bytes().replace(str(run).encode(), b"OUT")
        hashes[str(file.relative_to(run))] = hashlib.sha256(content).hexdigest()
    return hashes


def is_text_only(name):
    return name.startswith(TEXT_ONLY)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    run = Path(parser.parse_args().run).resolve()
    RECORD.write_text(json.dumps({"cpu": cpu(), "files": hashes_of(run)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
