"""What 3_report.py reads besides the answers: settings, trainings, seconds, measures, benchmarks.

A bad file ends the program in one line.
"""

import contextlib
import json
import shlex
import sys
from pathlib import Path

BENCHMARKS = {  # the numbers that the report takes from each, and that must be there
    "alpaca_eval": ["win_rate", "judge", "judged", "rows", "avg_length"],
    "mt_bench": ["score", "turns", "categories", "judge", "date", "judgments", "of"],
    "arena_hard": ["score", "interval", "length", "judge", "date", "questions", "of"],
    "academic": ["tasks", "date", "backend"],
}


@contextlib.contextmanager
def checked(path, wanted):
    try:
        yield
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        sys.exit(f"{path}: {getattr(error, 'strerror', None) or f'not {wanted}'}")


def settings(file):
    """{variable: value} of lines NAME=value, as a shell reads them."""
    found = {}
    with checked(file, "settings with RECIPE and a whole number as SEED"):
        for number, line in enumerate(Path(file).read_text().splitlines(), 1):
            with checked(f"{file}:{number}", "NAME=value with closed quotes"):
                name, value = line.split("=", 1)
                found[name] = " ".join(shlex.split(value))
        int(found["RECIPE"] and found["SEED"])
    return found


def trainings(directories):
    """{name: the log of a Hugging Face Trainer}; a directory called policy has the name of its parent."""
    found = {}
    for directory in map(Path, directories):
        name = (directory.absolute().parent if directory.name == "policy" else directory.absolute()).name
        with checked(directory / "trainer_state.json", "the state of a Hugging Face Trainer"):
            state = json.loads((directory / "trainer_state.json").read_text(), parse_constant=lambda _: None)  # NaN
            found[name] = [entry for entry in state["log_history"] if "step" in entry]
    return found


def seconds(directory):
    """{step: seconds} of the files STEP.seconds."""
    found = {}
    for path in sorted(directory.glob("*.seconds"), key=lambda path: (len(path.stem), path.stem)):
        with checked(path, "a number of seconds"):
            found[path.stem] = float(path.read_text().split()[-1])
            if not 0 <= found[path.stem] < float("inf"):
                raise ValueError
    return found


def measures(files):
    """{file's stem: its content} of what the measures of the reward models have written."""
    found = {}
    for path in files:
        with checked(path, "a file of numbers"):
            found[path.stem] = json.loads(path.read_text())
    return found


def benchmarks(files):
    """{benchmark: {policy: its result}} of files .../POLICY/BENCHMARK/BENCHMARK.json."""
    found = {}
    for path in files:
        with checked(path, f"a result of {', '.join(BENCHMARKS)}"):
            content = json.loads(path.read_text())
            if missing := [field for field in BENCHMARKS[path.stem] if content.get(field) is None]:
                sys.exit(f"{path}: {missing[0]}: missing")
        found.setdefault(path.stem, {})[path.absolute().parents[1].name] = content
    return found
