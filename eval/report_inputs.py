"""What 3_report.py reads besides the answers: settings, trainings, seconds, measures, benchmarks.

A file that is not as its writer leaves it ends the program in one line that names the file and the field.
"""

import contextlib
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, NotRequired

from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

Number = FiniteFloat | None
Count = Annotated[int, Field(ge=0)]
Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]

# What the report takes from each file; further fields may be there.
strict = with_config(ConfigDict(strict=True, extra="allow"))


@strict
class AlpacaEval(TypedDict):
    win_rate: FiniteFloat
    judge: str
    judged: Count
    rows: Count
    avg_length: FiniteFloat
    date: NotRequired[str | None]
    standard_error: NotRequired[Number]
    length_controlled_winrate: NotRequired[Number]
    lc_standard_error: NotRequired[Number]
    no_length_controlled_winrate: NotRequired[str | None]


@strict
class MtBench(TypedDict):
    score: FiniteFloat
    turns: Pair
    categories: dict[str, Number]
    judge: str
    date: str
    judgments: Count
    of: Count


@strict
class ArenaHard(TypedDict):
    score: FiniteFloat
    interval: Pair
    length: FiniteFloat
    judge: str
    date: str
    questions: Count
    of: Count


@strict
class Task(TypedDict):
    value: FiniteFloat
    stderr: Number
    shots: int | str | None
    truncated: NotRequired[Number]


@strict
class Academic(TypedDict):
    tasks: dict[str, Task]
    date: str
    backend: str


@strict
class Bench(TypedDict):
    sections: dict[str, Number]
    score: Number
    rows: dict[str, Count]
    of: dict[str, Count]


@strict
class LengthBias(TypedDict):
    mean: Number


@strict
class Calibration(TypedDict):
    calibration_error: Number


LogEntry = TypedDict(
    "LogEntry",
    {
        "step": NotRequired[Count],
        "loss": NotRequired[Number],
        "eval_loss": NotRequired[Number],
        "eval_accuracy": NotRequired[Number],
        "rewards/accuracies": NotRequired[Number],
        "rewards/margins": NotRequired[Number],
    },
)


@strict
class TrainerState(TypedDict):
    log_history: list[strict(LogEntry)]


BENCHMARKS = {
    "alpaca_eval": AlpacaEval,
    "mt_bench": MtBench,
    "arena_hard": ArenaHard,
    "academic": Academic,
}
MEASURES = {
    "rewardbench": dict[str, dict[str, Bench]],
    "length_bias": dict[str, LengthBias],
    "calibration": dict[str, Calibration],
}


def read(path, kind, what):
    """The JSON of a file, checked against a type above; what: how a message calls it."""
    with checked(path, what):
        content = json.loads(
            Path(path).read_text(encoding="utf-8"), parse_constant=lambda _: None
        )  # NaN of a Trainer
    try:
        TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            sys.exit(f"{path}: not {what}")
        reason = "missing" if first["type"] == "missing" else first["msg"]
        sys.exit(f"{path}: {'.'.join(map(str, first['loc']))}: {reason}")
    return content


@contextlib.contextmanager
def checked(path, wanted):
    try:
        yield
    except (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        sys.exit(f"{path}: {getattr(error, 'strerror', None) or f'not {wanted}'}")


def settings(file):
    """{variable: value} of lines NAME=value, as a shell reads them."""
    found = {}
    with checked(file, "settings with RECIPE and a whole number as SEED"):
        for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines(), 1):
            with checked(f"{file}:{number}", "NAME=value with closed quotes"):
                name, value = line.split("=", 1)
                found[name] = " ".join(shlex.split(value))
        int(found["RECIPE"] and found["SEED"])
    return found


def trainings(directories):
    """{name: the log of a Hugging Face Trainer}; a directory called policy has the name of its parent."""
    found = {}
    for directory in map(Path, directories):
        name = (
            directory.absolute().parent if directory.name == "policy" else directory.absolute()
        ).name
        state = read(
            directory / "trainer_state.json", TrainerState, "the state of a Hugging Face Trainer"
        )
        found[name] = [entry for entry in state["log_history"] if "step" in entry]
    return found


def by_numbers(path):
    """A key that sorts iter2 before iter10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def seconds(directory):
    """{step: seconds} of the files STEP.seconds."""
    found = {}
    for path in sorted(directory.rglob("*.seconds"), key=by_numbers):
        step = path.relative_to(directory).with_suffix("").as_posix()
        with checked(path, "a number of seconds"):
            found[step] = float(path.read_text().split()[-1])
            if not 0 <= found[step] < float("inf"):
                raise ValueError
    return found


def measures(files):
    """{file's stem: its content} of what the measures of the reward models have written."""
    return {
        path.stem: read(path, MEASURES.get(path.stem, dict), "a file of numbers") for path in files
    }


def benchmarks(files):
    """{benchmark: {policy: its result}} of files .../POLICY/BENCHMARK/BENCHMARK.json."""
    found = {}
    for path in files:
        if path.stem not in BENCHMARKS:
            sys.exit(f"{path}: not a result of {', '.join(BENCHMARKS)}")
        content = read(path, BENCHMARKS[path.stem], f"a result of {path.stem}")
        found.setdefault(path.stem, {})[path.absolute().parents[1].name] = content
    return found
