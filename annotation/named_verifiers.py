"""The verifiers that rows name, and their scores. For 1d_verifier.py.

A row's "verifier" is a name, or a list of {"name", "weight"?, "arguments"?}. What does not suit
ends the program in one line that names the row.
"""

import contextlib
import importlib.util
import sys
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import verifier_arguments
from common import rows
from verifiers import exact, ifeval, json_schema, language, length, math_answer, regex, unit_tests

BUILT_IN = {
    "exact": exact,
    "ifeval": ifeval,
    "json_schema": json_schema,
    "language": language,
    "length": length,
    "math": math_answer,
    "regex": regex,
    "unit_tests": unit_tests,
}
# They run programs that the model wrote.
OF_PROGRAMS = ("unit_tests",)
REFUSED = "programs that the model wrote run only with --run_generated_code"


@dataclass
class Named:
    """A verifier as a row names it."""

    name: str
    weight: float
    arguments: dict
    # Its name in "objectives"; that of a second one of the same name has a number.
    label: str


class Verifiers:
    """Scores the responses of a row by the verifiers that it names.

    own: {name: module} of the user's. default: "verifier" of rows without one. runs_programs:
    whether programs that the model wrote may run.
    """

    def __init__(self, own, default, runs_programs):
        self.modules = BUILT_IN | own
        self.default = default
        self.runs_programs = runs_programs
        self.too_slow = 0  # scores that are 0 because the verifier took too long

    def of_row(self, row):
        """A Named for each verifier of a row."""
        field = row.get("verifier")
        if field is None:
            field = self.default
        if isinstance(field, str):
            field = [{"name": field}]
        named = []
        seen = Counter()
        for entry in field:
            name = entry["name"]
            seen[name] += 1
            label = name if seen[name] == 1 else f"{name}-{seen[name]}"
            weight = entry.get("weight")
            # A table of columns has null for what a row does not give.
            arguments = without_null(entry.get("arguments") or {})
            named.append(Named(name, 1.0 if weight is None else weight, arguments, label))
        return named

    def check(self, row):
        """Refuse a row whose verifiers are not known, or do not suit it."""
        for verifier in self.of_row(row):
            if verifier.name not in self.modules:
                known = ", ".join(sorted(self.modules))
                refuse(row, verifier, f"not one of {known}; --verifier NAME=FILE.py adds one")
            if verifier.name in OF_PROGRAMS and not self.runs_programs:
                refuse(row, verifier, REFUSED)
            module = self.modules[verifier.name]
            if not hasattr(module, "check"):
                continue
            with errors_in_one_line(row, verifier, module, ValueError):
                module.check(row.get("answer"), verifier.arguments)

    def scores(self, row, texts):
        """{label: [score of each text]}; texts: responses of the row, none of them blank."""
        scores_by_label = {}
        for verifier in self.of_row(row):
            module = self.modules[verifier.name]
            with errors_in_one_line(row, verifier, module, ()):
                scores = self.scores_by(module, texts, row.get("answer"), verifier.arguments)
            with errors_in_one_line(row, verifier, module, ValueError):
                scores_by_label[verifier.label] = as_floats(scores, len(texts))
        return scores_by_label

    def scores_by(self, module, texts, answer, arguments):
        """The scores by a verifier; 0 for a response on which it is TooSlow."""
        try:
            return module.scores(texts, answer, arguments)
        except verifier_arguments.TooSlow:
            if len(texts) == 1:
                self.too_slow += 1
                return [0.0]
        # One response may be too slow: the others keep their scores.
        scores = []
        for text in texts:
            scores += self.scores_by(module, [text], answer, arguments)
        return scores

    def mean(self, row, scores):
        """The weighted mean of scores, one for each verifier of the row."""
        weights = [verifier.weight for verifier in self.of_row(row)]
        largest = max(weights)
        # The sum of weights that a float can hold may be one that it cannot.
        return fmean(scores, [weight / largest for weight in weights])


def without_null(arguments):
    return {name: value for name, value in arguments.items() if value is not None}


def refuse(row, verifier, reason):
    """End the program; a verifier that the row does not name itself is not named."""
    field = "" if row.get("verifier") is None else f"verifier: {verifier.name}: "
    rows.refuse(row, f"{field}{reason}")


@contextlib.contextmanager
def errors_in_one_line(row, verifier, module, expected):
    """End the program on an error of a verifier.

    An expected one says what is wrong with the row; of any other the place is told.
    """
    try:
        yield
    except expected as error:
        refuse(row, verifier, error)
    except Exception as error:
        refuse(row, verifier, f"{described(error)}{place(error, module.__file__)}")


def described(error):
    return f"{type(error).__name__}: {rows.first_words(error)}"


def place(error, file):
    """Where in a file an error arose, such as (my_rule.py:3), or nothing."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == file:
            return f" ({Path(file).name}:{frame.lineno})"
    return ""


def as_floats(scores, n):
    """The scores as floats; a ValueError unless there are n of them, from 0 to 1."""
    try:
        numbers = [float(score) for score in scores]
    except (TypeError, ValueError):
        raise ValueError(f"scores: {rows.short(scores)} are not all numbers") from None
    if len(numbers) != n:
        raise ValueError(f"scores: {len(numbers)} for {n} responses")
    for number in numbers:
        if not 0 <= number <= 1:
            raise ValueError(f"scores: {number} is not from 0 to 1")
    return numbers


# The user's own


def load(flags):
    """{name: module} of the words NAME=FILE.py after --verifier, or a ValueError."""
    modules = {}
    for flag in flags:
        name, _, file = flag.partition("=")
        if not name.isidentifier() or not file.endswith(".py"):
            raise ValueError(f"{flag}: not of the form NAME=FILE.py")
        if name in BUILT_IN or name in modules:
            raise ValueError(f"{flag}: there is a verifier {name} already")
        modules[name] = load_file(name, file)
    return modules


def load_file(name, file):
    if not Path(file).is_file():
        raise ValueError(f"{file}: no such file")
    specification = importlib.util.spec_from_file_location(f"own_verifier_{name}", file)
    module = importlib.util.module_from_spec(specification)
    # It may hold dataclasses, which look for their module here, and import a file beside it.
    sys.modules[module.__name__] = module
    folder = str(Path(file).resolve().parent)
    sys.path.append(folder)
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{file}: {described(error)}{place(error, module.__file__)}") from None
    finally:
        sys.path.remove(folder)
    if not callable(getattr(module, "scores", None)):
        raise ValueError(f"{file}: no function scores(responses, answer, arguments)")
    return module
