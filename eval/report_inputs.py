"""What 3_report.py reads besides the answers: settings, trainings, seconds, measures, benchmarks.

A damaged file ends the program in one line that names the file and the field.
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

# The types below hold what the report takes from each file; other fields may be there.
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


def read(path, kind, description):
    """The JSON of a file, checked against a type above. description: of the file, in messages."""
    with checked(path, description):
        text = Path(path).read_text(encoding="utf-8")
        # A Trainer writes NaN, which JSON does not have: it becomes null.
        content = json.loads(text, parse_constant=lambda name: None)
    try:
        TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            sys.exit(f"{path}: not {description}")
        field = ".".join(map(str, first["loc"]))
        reason = "missing" if first["type"] == "missing" else first["msg"]
        sys.exit(f"{path}: {field}: {reason}")
    return content


@contextlib.contextmanager
def checked(path, description):
    """An error within ends the program: what the system says, or that it is not `description`."""
    try:
        yield
    except (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"not {description}"
        sys.exit(f"{path}: {reason}")


def settings(file):
    """{variable: value} of lines NAME=value, as a shell reads them."""
    value_by_name = {}
    with checked(file, "settings with RECIPE and a whole number as SEED"):
        lines = Path(file).read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            with checked(f"{file}:{number}", "NAME=value with closed quotes"):
                name, value = line.split("=", 1)
                value_by_name[name] = " ".join(shlex.split(value))
        if not value_by_name["RECIPE"]:
            raise ValueError
        int(value_by_name["SEED"])
    return value_by_name


def trainings(directories):
    """{name: the log of a Hugging Face Trainer} of model directories.

    The name is the directory's, or its parent's if it is called policy.
    """
    logs = {}
    for directory in map(Path, directories):
        named = directory.absolute()
        if directory.name == "policy":
            named = named.parent
        file = directory / "trainer_state.json"
        state = read(file, TrainerState, "the state of a Hugging Face Trainer")
        logs[named.name] = [entry for entry in state["log_history"] if "step" in entry]
    return logs


def seconds(directory):
    """{step: seconds} of the files STEP.seconds."""
    seconds_by_step = {}
    for path in sorted(directory.rglob("*.seconds"), key=by_numbers):
        step = path.relative_to(directory).with_suffix("").as_posix()
        with checked(path, "a number of seconds"):
            value = float(path.read_text().split()[-1])
            if not 0 <= value < float("inf"):
                raise ValueError
            seconds_by_step[step] = value
    return seconds_by_step


def by_numbers(path):
    """A key that sorts iter2 before iter10."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if part.isdigit() else part for part in parts]


def measures(files):
    """{stem of the file: its content} of the files that measure reward models."""
    content_by_name = {}
    for path in files:
        kind = MEASURES.get(path.stem, dict)
        content_by_name[path.stem] = read(path, kind, "a file of numbers")
    return content_by_name


def benchmarks(files):
    """{benchmark: {policy: its result}} of files .../POLICY/BENCHMARK/BENCHMARK.json."""
    results = {}
    for path in files:
        if path.stem not in BENCHMARKS:
            sys.exit(f"{path}: not a result of {', '.join(BENCHMARKS)}")
        policy = path.absolute().parents[1].name
        result = read(path, BENCHMARKS[path.stem], f"a result of {path.stem}")
        results.setdefault(path.stem, {})[policy] = result
    return results
