"""The row formats of the JSONL files between the stages: read with checks, write whole or not at all, resume.

A row that is not as it has to be ends the program in one line, FILE:LINE: FIELD: reason. Numbers are finite everywhere.
"""

import hashlib
import json
import os
import re
import stat
import sys
from pathlib import Path

from common import outputs

FIELDS = {  # that a kind of row must have; keys beyond them pass through
    "rows": ["id"],
    "instructions": ["id", "messages"],
    "preferences": ["id", "prompt", "chosen", "rejected"],
    "unpaired": ["id", "prompt", "completion", "label"],
    "prompts": ["id", "prompt"],
    "responses": ["id", "prompt", "responses", "finish_reasons"],
    "verifiable": ["id", "prompt", "responses", "finish_reasons", "answer"],
    "rewards": ["id", "prompt", "responses", "finish_reasons", "rewards"],
    "ratings": ["id", "messages", "ratings"],
    "corpus": ["text"],
}
OPTIONAL = {  # that are checked where they are there, since the stages which read such rows use them
    "preferences": ["margin"],
    "prompts": ["system"],
    "responses": ["system"],
}


class Row(dict):
    """A row that knows where it stands: `place` is FILE:LINE."""

    __slots__ = ("place",)


def refuse(row, reason):
    """End the program with a line about that row; reason: 'field: what is wrong'."""
    sys.exit(f"{row.place}: {reason}")


# What a field may hold: each check takes the value and its row, and gives what is wrong or None


def check_text(value, row):
    return None if value and isinstance(value, str) else "not a non-empty text"


def check_any_text(value, row):
    return None if isinstance(value, str) else "not a text"


def is_number(value):
    """A JSON number that a float can hold: no NaN, no infinity, no integer of 400 digits."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def check_number(value, row):
    return None if is_number(value) else f"{short(value)} is not a finite number"


def check_probability(value, row):
    return None if is_number(value) and 0 <= value <= 1 else f"{short(value)} is not a probability"


def check_truth(value, row):
    return None if isinstance(value, bool) else "neither true nor false"


def check_two_numbers(value, row):
    good = isinstance(value, list) and len(value) == 2 and all(map(is_number, value))
    return None if good else f"{short(value)} is not two numbers"


def short(value):
    """A value in a message."""
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}..."


ROLES = {
    "messages": r"(system )?user assistant( user assistant)*",
    "prompt": r"(system )?user( assistant user)*",
    "chosen": r"assistant( user assistant)*",
    "rejected": r"assistant( user assistant)*",
    "completion": r"assistant( user assistant)*",
}


def conversation(field):
    """The check of messages whose roles are in the order of that field."""

    def check(value, row):
        good = isinstance(value, list) and value and all(map(is_message, value))
        if not good:
            return "not one or more messages {role, content}"
        if field in ("messages", "prompt"):  # a policy's answer may be empty
            if not all(turn["content"].strip() for turn in value):
                return "an empty turn"
        roles = [turn["role"] for turn in value]
        if not re.fullmatch(ROLES[field], " ".join(roles)):
            return f"roles out of order ({', '.join(role if role.isalpha() else repr(role) for role in roles)})"
        return None

    return check


def is_message(turn):
    return isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)


def for_each_response(good, complaint):
    """The check of a list with one entry for each response, each of them good."""

    def check(value, row):
        responses = row.get("responses")
        if not (value and isinstance(value, list) and isinstance(responses, list) and len(value) == len(responses)):
            return "not a list with one entry for each response"
        return None if all(map(good, value)) else complaint(value)

    return check


def is_text(value):
    return isinstance(value, str)


def is_scores(value):
    """{name: number} of one response."""
    return isinstance(value, dict) and bool(value) and all(map(is_number, value.values()))


def is_comparison(value):
    """{"a": i, "b": j, "probability": number or null}, or what a judge says of one response."""
    return isinstance(value, dict) and (
        value.get("probability") is None or check_probability(value["probability"], None) is None
    )


def check_judgement(value, row):
    good = isinstance(value, list) and all(map(is_comparison, value))
    return None if good else "not a list of comparisons with a probability, or null, each"


check_texts = for_each_response(is_text, lambda value: "not all texts")
check_numbers = for_each_response(is_number, lambda value: f"{short(value)} are not all finite numbers")
check_correct = for_each_response(
    lambda value: isinstance(value, bool) or is_number(value), lambda value: "not all true or false"
)
check_scores = for_each_response(is_scores, lambda value: "not {name: number} for each response")


def check_ratings(value, row):
    """{objective: number or null}"""
    good = isinstance(value, dict) and all(rating is None or is_number(rating) for rating in value.values())
    return None if good else "not numbers or null by objective"


CHECKS = {
    **{name: check_text for name in ("id", "answer", "text", "benchmark", "section", "subset", "group")},
    **{name: conversation(name) for name in ROLES},
    **{name: check_texts for name in ("responses", "finish_reasons")},
    **{name: check_numbers for name in ("rewards", "true_rewards", "kl")},
    **{name: check_probability for name in ("chosen_win_probability", "rejected_win_probability")},
    "system": check_any_text,
    "explored": check_any_text,
    "label": check_truth,
    "correct": check_correct,
    "judgement": check_judgement,
    "margin": check_number,
    "direction": check_two_numbers,
    "objectives": check_scores,
    "ratings": check_ratings,
}


def problem(row, kind, n=None, also=(), if_there=()):
    """What is wrong with a row of that kind, with n responses if given, as 'field: reason', or None.

    also: further fields that the row must have; if_there: that it may have.
    """
    if not isinstance(row, dict):
        return "row: not a JSON object"
    if not kind:
        return None
    for field in [*FIELDS[kind], *also]:
        if row.get(field) is None:
            return f"{field}: missing"
        if reason := CHECKS[field](row[field], row):
            return f"{field}: {reason}"
        if field == "responses" and n and len(row[field]) != n:
            return f"responses: {len(row[field])} where {n} are expected"
    for field in [*OPTIONAL.get(kind, ()), *if_there]:
        if row.get(field) is not None and (reason := CHECKS[field](row[field], row)):
            return f"{field}: {reason}"
    return None


# Reading


def parse(line):
    """The value of one line of JSON, bytes. Else a ValueError that says 'field: reason'.

    What JSON leaves open is refused: two equal keys, half a character (a lone surrogate). NaN and infinity, which
    Python writes and JSON has not, are read as they are: it is for the check of a field to refuse them.
    """
    try:
        value = json.loads(line.decode(), object_pairs_hook=without_repeated_keys)
    except RecursionError:
        raise ValueError("row: not a line of JSON (nested too deeply)") from None
    except RepeatedKey as error:
        raise ValueError(f"{error}: stands twice in one object") from None
    except ValueError as error:  # cut in half, or not UTF-8
        raise ValueError(f"row: not a line of JSON ({error})") from None
    if b"\\ud" in line.lower() and isinstance(value, dict):
        for name, content in value.items():
            try:
                json.dumps([name, content], ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raise ValueError(
                    f"{name.encode(errors='replace').decode()}: half a character (a lone surrogate)"
                ) from None
    return value


class RepeatedKey(Exception):
    pass


def without_repeated_keys(pairs):
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise RepeatedKey(next(key for key in keys if keys.count(key) > 1))
    return made


def read(path, kind=None, n=None, also=(), if_there=(), unique=True):
    """Yield the rows of a file; a bad one ends the program.

    n: responses of each row; 0 for any number, None for as many as the first has. also: fields that a row must have
    beside those of its kind; if_there: fields that are checked where they are there. unique: no two rows have one id.
    Without a kind any object is a row, and a number that is not finite is null.
    """
    first_line = {}  # of an id
    number = 0
    for number, line in lines_of(path):
        try:
            row = parse(line)
        except ValueError as error:
            sys.exit(f"{path}:{number}: {error}")
        if reason := problem(row, kind, n, also, if_there):
            sys.exit(f"{path}:{number}: {reason}")
        if b"NaN" in line or b"Infinity" in line:
            row = finite(row, f"{path}:{number}" if kind else None)
        row = Row(row)
        row.place = f"{path}:{number}"
        if unique and "id" in FIELDS.get(kind, []) and first_line.setdefault(row["id"], number) != number:
            refuse(row, f"id: {row['id']!r} stands on line {first_line[row['id']]} already")
        if n is None and "responses" in FIELDS.get(kind, []):
            n = len(row["responses"])
        yield row
    if not number:
        sys.exit(f"{path}: no rows")


def lines_of(path):
    """Yield (number, line) of the lines of a file that are not blank."""
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a pipe cannot be read twice, and may never end
            sys.exit(f"{path}: not a regular file")
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")


def finite(value, place=None):
    """The value with null for every number that is not finite; with a place such a field ends the program."""
    if isinstance(value, dict):
        made = {}
        for name, content in value.items():
            made[name] = finite(content)
            if place and made[name] != content:
                sys.exit(f"{place}: {name}: a number is not finite")
        return made
    if isinstance(value, list):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not is_number(value) else value


def load(source, split):
    """Rows, unchecked, of a file (.jsonl, .json, .parquet) or of a dataset on the hub: NAME, or NAME:FILE in it."""
    kind, (name, _, file) = {".json": "json", ".parquet": "parquet"}.get(Path(source).suffix), source.partition(":")
    if (source.endswith(".jsonl") and not file) or (os.path.exists(source) and not kind):
        return read(source)
    name, file = (kind, source) if os.path.exists(source) else (name, file or None)
    if kind == "json":
        check_json(source)
    try:
        from datasets import load_dataset  # the import takes seconds

        dataset = load_dataset(name, data_files=file, split="train" if file else split)
    except Exception as error:  # of a broken file, or of the hub, which refuses in many ways
        what = "cannot be read" if os.path.exists(source) else "no such file, and no dataset on the hub"
        sys.exit(f"{source}: {what} ({first_words(error)})")
    return map(finite, dataset)


def check_json(path):
    """The library that reads JSON files crashes on what is neither a list nor an object."""
    try:
        with open(path, "rb") as file:
            start = file.read(4096).lstrip()
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    if start[:1] not in (b"[", b"{"):
        sys.exit(f"{path}: cannot be read (neither a list nor an object of JSON)")


def first_words(error):
    return next(iter(str(error).splitlines()), type(error).__name__)


# Writing


def fingerprint(arguments, written=()):
    """Names the unfinished work of a command: its arguments; size and time of files they name, except model cards.

    written: those of the files and directories that the command writes, which it may change itself.
    """
    named = [argument.rpartition("=")[2] if argument.startswith("--") else argument for argument in arguments]
    paths = [Path(name) for name in named if name not in map(str, written) and os.path.exists(name)]
    stats = sorted(
        (str(file), file.stat().st_size, file.stat().st_mtime_ns)
        for path in paths
        for file in (path.glob("*.*") if path.is_dir() else [path])
        if file.is_file() and file.name not in ("README.md", outputs.MARKER)
    )
    return hashlib.sha256(repr([*arguments, *stats]).encode()).hexdigest()[:12]


def this_command(written=()):
    """The fingerprint of the script that is running, with its arguments."""
    return fingerprint([Path(sys.argv[0]).name, *sys.argv[1:]], written)


class Writer:
    """Appends rows to an unfinished file; those of a killed run with the same fingerprint stay: `done`, {id: bytes}."""

    def __init__(self, path, resume="new"):
        self.path = Path(path)
        self.partial = Path(outputs.partial_name(path, resume))
        self.file = outputs.open_partial(path, resume, keep=resume != "new")
        self.done = whole_rows(self.partial)
        self.file.truncate(sum(self.done.values()))  # what was cut off, and what follows it, goes

    def add(self, rows):
        """Append rows, and return the writer; from then on a kill does not lose them."""
        try:
            for row in rows:
                left = self.encoded(row)
                while left:
                    left = left[self.file.write(left) :]
        except OSError as error:
            sys.exit(f"{self.path}: {error.strerror}; what is finished is kept, the same command goes on from there")
        return self

    def encoded(self, row):
        """The line of a row; what JSON does not have ends the program."""
        try:
            return json.dumps(row, ensure_ascii=False, allow_nan=False).encode(errors="replace") + b"\n"
        except (ValueError, TypeError) as error:
            field = next((name for name, value in row.items() if not writable(value)), "row")
            sys.exit(f"{self.path}: id {row.get('id')!r}: {field}: not written ({error})")

    def finish(self):
        """Give the file its name; a shard (NAME.0-of-2) ends with an empty line, which tells that it is whole."""
        try:
            if re.search(r"\.\d+-of-\d+$", self.path.name):
                self.file.write(b"\n")
            os.fsync(self.file.fileno())
        except OSError as error:
            sys.exit(f"{self.path}: {error.strerror}; what is finished is kept, the same command goes on from there")
        publish(self.partial, self.path)
        self.file.close()


def writable(value):
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError):
        return False
    return True


def whole_rows(partial):
    """{id: bytes of its line} of the rows of an unfinished file, up to the first that is not whole."""
    done = {}
    with open(partial, "rb") as lines:
        for line in lines:
            try:
                row = parse(line)
                if not line.endswith(b"}\n") or not isinstance(row["id"], str | int) or row["id"] in done:
                    break
            except (ValueError, TypeError, KeyError):
                break
            done[row["id"]] = len(line)
    return done


def write(path, rows):
    """Write all rows, or nothing."""
    Writer(path).add(rows).finish()


def publish(partial, path):
    """Give a finished file or model its name, in place of an older one: see common/outputs.py."""
    if os.path.isdir(partial):
        outputs.publish_model(partial, path)
    else:
        outputs.publish_file(partial, path)
