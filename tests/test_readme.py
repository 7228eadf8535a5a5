"""What the README, the docstrings and the driver say can be run as it stands: scripts, flags, files, variables."""

import ast
import functools
import itertools
import os
import re
import shlex
import subprocess

import pytest
from commands import ROOT, ran, run

README = (ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else ""
DRIVER = (ROOT / "run_loop.sh").read_text()
PROGRAMS = sorted(
    str(path.relative_to(ROOT))
    for folder in ROOT.iterdir()
    if folder.is_dir() and not folder.name.startswith(".") and folder.name not in ("runs", "tests")
    for path in folder.rglob("[0-9]*_*.py")
)
UNDERSTOOD = [*PROGRAMS, "recipes/budget.py", "benchmarks/training_speed.py"]  # their --help lists their flags
ARGPARSE = [script for script in PROGRAMS if "arguments.Parser" in (ROOT / script).read_text()]
SHARED = ["rows.py", "shards.py", "training.py", *(f"common/{path.name}" for path in (ROOT / "common").glob("*.py"))]
SOURCES = "".join((ROOT / name).read_text() for name in [*SHARED, "setup.sh", "run_loop.sh", *PROGRAMS])


@functools.cache
def flags_of(script):
    """The flags in the list of options that --help prints; its description, the docstring, names flags too."""
    told = run(script, "--help")
    assert told.returncode == 0, told.stderr
    options = told.stdout.partition("\noptions:\n")[2]
    return set(re.findall(r"--\w+", " ".join(line for line in options.splitlines() if re.match(r"  -", line))))


@functools.cache
def dry_run():
    every = "reward_model preference_model armorm llm_judge verifier"
    environment = {**os.environ, "DRY_RUN": "1", "GPUS": "0", "ITERATIONS": "2", "ANNOTATOR": every}
    return subprocess.run(
        ["bash", "run_loop.sh"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


def fences():
    return "\n".join(re.findall(r"^```\w*\n(.*?)^```", README, re.DOTALL | re.MULTILINE))


def docstring(script):
    return ast.get_docstring(ast.parse((ROOT / script).read_text()), clean=False)


def commands(text):
    """(variables, script, its words) of every line that starts a script, however it is continued."""
    for line in text.replace("\\\n", " ").splitlines():
        if not re.match(r"\s*(\w+=\S*\s+)*(python|bash|source|sbatch|torchrun|accelerate launch) (?!-m)", line):
            continue
        words = shlex.split(line, comments=True)
        start = next(i for i, word in enumerate(words) if "=" not in word)
        script = next(i for i, word in enumerate(words) if re.search(r"\.(py|sh|sbatch)$", word) and i > start)
        yield [word.split("=")[0] for word in words[:start]], words[script], words[script + 1 :]


def variables():
    """The variables that run_loop.sh knows."""
    return [
        name
        for array in re.findall(r"^(?:SETTINGS|MANNER)=\((.*?)\)", DRIVER, re.DOTALL | re.M)
        for name in array.split()
    ]


def table():
    """(names, default) of every row of the README's table of variables."""
    for line in re.findall(r"^\| `[A-Z].*", README, re.MULTILINE):
        names, default = line.split("|")[1:3]
        if names := re.findall(r"`([A-Z_0-9]+)`", names):
            yield names, default.strip()


@pytest.mark.parametrize("source", ["README.md", "run_loop.sh", "shards.py", *PROGRAMS])
def test_commands_name_scripts_and_flags_that_exist(source):
    """What can be copied can be run: from the README, the docstring of a script, the driver's dry run."""
    found = list(commands({"README.md": fences, "run_loop.sh": dry_run}.get(source, lambda: docstring(source))()))
    assert found, "no command"
    for variable, script, words in found:
        assert (ROOT / script).is_file(), script
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        assert given <= (flags_of(script) if script in UNDERSTOOD else set()), script
        if script == "run_loop.sh":
            assert set(variable) <= set(variables())
    if source in PROGRAMS or source == "shards.py":
        assert source in [script for _, script, _ in found], "a docstring shows its own script's command"


def plain(path):
    """A path below a run's directory, whatever the run's name and the iteration."""
    return re.sub(r"iter\d+", "iterN", re.sub(r"^runs/\w+/?", "", path))


@pytest.mark.parametrize("source", ["README.md", *PROGRAMS])
def test_commands_read_files_that_are_made(source):
    """Defect 14: one command wrote a .json file, the next read a .jsonl file. Every path is one of the driver's."""
    made = {"settings", "log", "results.json"}
    made |= {"model", "data"}  # what recipes/smollm2/ makes before its run
    for _, script, words in commands(dry_run()):
        for flag, path in itertools.pairwise(words):
            if flag in ("--output_file", "--output_dir", "--held_out_file"):
                made.add(plain(path))
                if script.endswith("1_data.py"):
                    made |= {
                        f"{plain(path)}/{name}" for name in re.findall(r"^    (\w+\.jsonl)", docstring(script), re.M)
                    }
    assert {"world/prompts.jsonl", "sft", "iterN/pairs.jsonl", "eval/iterN/kl.jsonl", ""} <= made
    for _, script, words in commands(fences() if source == "README.md" else docstring(source)):
        paths = {plain(word) for word in words if word.startswith("runs/")}
        assert paths <= made, script


def test_every_file_that_the_readme_names_exists():
    """A script by its path, or by its name alone; a data file is one that some script speaks of; a user's is my...."""
    assert README
    for path in re.findall(r"\]\(([^):#]+)\)", README):
        assert (ROOT / path).exists(), path
    for path in set(re.findall(r"[\w./*?-]+\.(?:py|sh|md|txt|toml|yaml|cff|html|jsonl|json)\b", README)):
        name = path.split("/")[-1]
        if name.startswith("my"):
            continue
        if name.endswith(("html", "json", "jsonl")):
            assert name in SOURCES, path
        else:
            found = list(ROOT.glob(path.removeprefix("./"))) or [p for p in PROGRAMS if p.split("/")[-1] == name]
            assert len(found) == 1 or (found and "*" in path), path


def test_the_readme_and_the_driver_know_the_same_variables():
    named = [name for names, _ in table() for name in names]
    assert sorted(named) == sorted(variables())
    for name in re.findall(r"\$\{([A-Z_0-9]+):=", fences()):
        assert name in named, name


def test_the_readmes_defaults_are_the_drivers():
    """The values that a recipe gets for what it leaves out, where the table gives values."""
    defaults = dict(re.findall(r'"\$\{([A-Z_0-9]+):=([^}$]*)\}"', DRIVER))
    assert len(defaults) > 20
    for names, default in table():
        if names[0] not in ("RECIPE", "OUT", "GPUS", "NODES"):
            told = [value.strip(' "') for value in default.split(", ")] if default else [""] * len(names)
            assert [defaults[name] for name in names] == told, names


def test_the_readmes_messages_are_the_scripts():
    """The table of troubles quotes what a script says, but for messages that come from elsewhere."""
    elsewhere = "No space left on device", "operator torchvision::nms does not exist", "available KV cache memory"
    messages = re.findall(r"^\| `([^`]+)`", README.partition("\n## Troubleshooting")[2], re.MULTILINE)
    assert messages
    for message in messages:
        if message not in elsewhere:
            parts = [part.strip() for part in re.split(r"FILE:|\d+|: |\.\.\.", message)]
            assert all(part in SOURCES for part in parts), message


@pytest.mark.parametrize("script", ARGPARSE)
def test_help_is_answered_before_anything_heavy_is_imported(script):
    told = ran("-X", "importtime", script, "--help")
    imported = {line.split("|")[-1].strip().split(".")[0] for line in told.stderr.splitlines()}
    assert {"argparse", "common"} <= imported
    assert not imported & {
        "torch",
        "transformers",
        "vllm",
        "datasets",
        "trl",
        "numpy",
        "pandas",
        "matplotlib",
        "accelerate",
    }
    assert docstring(script).splitlines()[0] in told.stdout
