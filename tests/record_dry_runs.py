"""Record what dry runs of the driver print, in tests/dry_runs; tests/test_dry_runs.py compares.

A record lists the commands of a run in order, each with the name of its step. Its first line may
name a base record: a step whose command is the base's is listed by its name alone. Of the shards of
a step only the first is listed. Record again and look at what has changed:

    python tests/record_dry_runs.py && git diff tests/dry_runs
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "tests/dry_runs"
BATCHES = {
    "SFT_BATCH_SIZE": "64",
    "RM_BATCH_SIZE": "64",
    "PM_BATCH_SIZE": "64",
    "DPO_BATCH_SIZE": "256",
}
MACHINES = {
    "gpus_0": {"GPUS": "0"},
    "gpus_8": {"GPUS": "8"},
    "nodes_2": {"GPUS": "8", "NODES": "2"},
}
SAME = "# where a name stands alone: as in "


class Case(NamedTuple):
    """A dry run: its variables, and the base record that its own record names, or ""."""

    variables: dict
    base: str


def all_cases():
    """{name of the record: case}, each after its base."""
    cases = {}
    for path in sorted(ROOT.glob("recipes/*.sh"), key=lambda path: path.stem != "llama3_8b_quick"):
        base = "recipes/llama3_8b_quick" if path.stem.startswith("llama3_8b_") else ""
        name = f"recipes/{path.stem}"
        variables = {"GPUS": "1", "RECIPE": f"recipes/{path.name}"}
        cases[name] = Case(variables, base if name != base else "")
    for path in sorted(ROOT.glob("comparison/tiny/*.sh"), key=lambda path: path.stem != "dpo"):
        recipe = f"comparison/tiny/{path.name} comparison/tiny.sh recipes/tiny.sh"
        variables = {"GPUS": "1", "RECIPE": recipe, "MEASURE": "none", "EVALS": "none"}
        base = "optimisers/dpo" if path.stem != "dpo" else ""
        cases[f"optimisers/{path.stem}"] = Case(variables, base)
    for path in sorted(ROOT.glob("comparison/tiny_tools/*.sh")):
        recipe = f"comparison/tiny_tools/{path.name} recipes/tiny_tools.sh"
        variables = {"GPUS": "1", "RECIPE": recipe}
        cases[f"tools/{path.stem}"] = Case(variables, "recipes/tiny_tools")
    for machine, settings in MACHINES.items():
        for base in ("recipes/tiny", "recipes/llama3_8b", "optimisers/xpo"):
            batches = BATCHES if "tiny.sh" in cases[base].variables["RECIPE"] else {}
            variables = cases[base].variables | batches | settings
            cases[f"{machine}/{Path(base).name}"] = Case(variables, base)
    return cases


def copy_checkout(folder):
    """A copy of all files that git does not ignore, with a `python` that has no packages.

    A dry run finds no environment there and skips parsing its commands, which takes seconds.
    """
    listing = ["git", "ls-files", "-co", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    python = folder / "tools/python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    return folder


def dry_run(checkout, **variables):
    """The finished process of a dry run in such a copy; it inherits PATH alone."""
    environment = {
        "PATH": f"{checkout}/tools:{os.environ['PATH']}",
        "HOME": str(checkout),
        "DRY_RUN": "yes",
        "CHECK": "no",
        "OUT": "runs/recorded",
    }
    return subprocess.run(
        ["bash", "run_loop.sh"],
        cwd=checkout,
        env=environment | variables,
        capture_output=True,
        text=True,
    )


def commands(printed):
    """[(step, commands)] of a dry run: a single command, or the shards' and the one that joins."""
    steps = {}
    for line in printed.splitlines():
        command, _, comment = line.rpartition("# ")
        step = re.sub(r" \(missing\)(, shard \d+)?$", "", comment)
        if command:
            steps.setdefault(step, []).append(command.rstrip())
    return list(steps.items())


def of_shard(command, shard, gpus):
    """The command of a shard, derived from that of the first shard."""
    command = command.replace(".0-of-", f".{shard}-of-")
    command = command.replace("--shard 0 ", f"--shard {shard} ")
    command = command.replace("_DEVICES=0 ", f"_DEVICES={shard % gpus} ")
    return command.replace("=node0 ", f"=node{shard // gpus} ")


def without_further_shards(steps, gpus):
    """The same steps with the first shard of each; the others must be derived from it."""
    shortened = []
    for step, lines in steps:
        *shards, last = lines
        if shards != [of_shard(lines[0], i, gpus) for i in range(len(shards))]:
            raise ValueError(f"{step}: a shard is not like the first one")
        shortened.append((step, [*shards[:1], last]))
    return shortened


def current(checkout, case):
    """The steps that the driver lists now, in the form of a record."""
    done = dry_run(checkout, **case.variables)
    if done.returncode:
        raise ValueError(f"{case.variables}: {done.stderr}")
    return without_further_shards(commands(done.stdout), max(int(case.variables["GPUS"]), 1))


def recorded(cases, name):
    """The steps of a record; for a name alone the commands of the base record."""
    base = {}
    if cases[name].base:
        base = dict(recorded(cases, cases[name].base))
    steps = {}
    for line in (RECORDS / f"{name}.txt").read_text().splitlines():
        command, _, step = line.rpartition("# ")
        if line.startswith(SAME):
            continue
        if command:
            steps.setdefault(step, []).append(command.rstrip())
        else:
            steps[step] = base.get(step)
    return list(steps.items())


def write(cases, name, steps):
    base, lines = {}, []
    if cases[name].base:
        base = dict(recorded(cases, cases[name].base))
        lines.append(f"{SAME}{cases[name].base}.txt")
    for step, step_commands in steps:
        if base.get(step) == step_commands:
            lines.append(f"# {step}")
        else:
            lines += [f"{command}  # {step}" for command in step_commands]
    file = RECORDS / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")


def main():
    cases = all_cases()
    with tempfile.TemporaryDirectory() as folder:
        checkout = copy_checkout(Path(folder))
        steps = {name: current(checkout, case) for name, case in cases.items()}
    shutil.rmtree(RECORDS, ignore_errors=True)
    for name in cases:
        write(cases, name, steps[name])
    print(f"{RECORDS}: {len(cases)} records")


if __name__ == "__main__":
    main()
