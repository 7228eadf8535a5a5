"""The rows of the JSONL files between the stages: read with checks, write whole or not at all, resume.

A row that is not as it has to be ends the program in one line, FILE:LINE: FIELD: reason. Numbers are finite everywhere.
A file to read may be gzipped (.jsonl.gz, .json.gz).
"""

import hashlib
import json
import os
import re
import sys
from pathlib import Path

from common import model_outputs, outputs
from common.fields import FIELDS, PER_RESPONSE, is_number, problem, short
from common.json_files import entries_of, lines_of, parse

__all__ = ["FIELDS", "PER_RESPONSE", "is_number", "lines_of", "parse", "problem", "short"]


class Row(dict):
    """A row that knows where it stands: `place` is FILE:LINE."""

    __slots__ = ("place",)

    def at(self, field):
        """FILE:LINE: FIELD, what a message begins with."""
        return f"{self.place}: {field}"


def refuse(row, reason):
    """End the program with a line about that row; reason: 'field: what is wrong'."""
    sys.exit(f"{row.place}: {reason}")


# What belongs to the responses of a row


def per_response(row):
    """{field: list} of what a row holds for each of its responses; a list of another length ends the program."""
    found = {}
    for field in PER_RESPONSE:
        if field not in row:
            continue
        if not isinstance(row[field], list) or len(row[field]) != len(row["responses"]):
            refuse(row, f"{field}: not a list with one entry for each response")
        found[field] = row[field]
    return found


def with_responses(row, indexes):
    """A copy of a row with these of its responses alone. A judgement goes, since it numbers the others."""
    kept = Row(row)
    kept.place = row.place
    for field, entries in per_response(row).items():
        kept[field] = [entries[i] for i in indexes]
    kept.pop("judgement", None)
    return kept


# Reading


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
        if (
            unique
            and "id" in FIELDS.get(kind, [])
            and first_line.setdefault(row["id"], number) != number
        ):
            refuse(row, f"id: {row['id']!r}: duplicate, first on line {first_line[row['id']]}")
        if n is None and "responses" in FIELDS.get(kind, []):
            n = len(row["responses"])
        yield row
    if not number:
        sys.exit(f"{path}: no rows")


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
    """Rows, unchecked, of a file (.jsonl, .json, gzipped or not; .parquet), or of a dataset on the hub: NAME, or
    NAME:FILE in it."""
    if is_file(source):
        return of_file(source)
    name, _, file = source.partition(":")
    if name == "json" and os.path.isfile(
        file
    ):  # the library takes half characters out without a word
        return of_entries(file, entries_of(file))
    return of_library(source, name, "train" if file else split, data_files=file or None)


def is_file(source):
    """A file, and no name of a dataset? One that is missing is known by its ending."""
    return os.path.isfile(source) or (source.endswith((".jsonl", ".gz")) and ":" not in source)


def of_file(path):
    """Rows, unchecked, of a file; what has no known ending is JSON lines."""
    if path.endswith(".parquet"):
        return of_library(path, "parquet", "train", data_files=path)
    if path.endswith((".json", ".json.gz")):
        return of_entries(path, entries_of(path))
    return read(path)


def of_library(source, name, split, **options):
    """Rows of a dataset that `datasets` reads; source: how messages name it."""
    try:
        from datasets import load_dataset  # the import takes seconds

        dataset = load_dataset(name, split=split, **options)
    except Exception as error:  # of a broken file, or of the hub, which refuses in many ways
        missing = isinstance(error, FileNotFoundError | ConnectionError) and not os.path.exists(
            source
        )
        what = "no such file, and no dataset on the hub" if missing else "cannot be read"
        sys.exit(f"{source}: {what} ({first_words(error)})")
    return of_entries(source, enumerate(dataset, 1))


def of_entries(source, numbered):
    """Yield rows whose place is that number, a line or the number of the row."""
    empty = True
    for number, entry in numbered:
        empty = False
        if not isinstance(entry, dict):
            sys.exit(f"{source}:{number}: row: not a JSON object")
        row = Row(finite(entry))
        row.place = f"{source}:{number}"
        yield row
    if empty:
        sys.exit(f"{source}: no rows")


def first_words(error):
    """The first line of an error, or of its cause where the library has wrapped it up."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).splitlines()), type(error).__name__)


# Writing


def fingerprint(arguments, written=()):
    """Names the unfinished work of a command: its arguments; size and time of files they name, except model cards.

    written: those of the files and directories that the command writes, which it may change itself.
    """
    named = [
        argument.rpartition("=")[2] if argument.startswith("--") else argument
        for argument in arguments
    ]
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
            sys.exit(
                f"{self.path}: {error.strerror}; what is finished is kept, the same command goes on from there"
            )
        return self

    def encoded(self, row):
        """The line of a row; what JSON does not have ends the program."""
        try:
            return (
                json.dumps(row, ensure_ascii=False, allow_nan=False).encode(errors="replace")
                + b"\n"
            )
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
            sys.exit(
                f"{self.path}: {error.strerror}; what is finished is kept, the same command goes on from there"
            )
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
                if (
                    not line.endswith(b"}\n")
                    or not isinstance(row["id"], str | int)
                    or row["id"] in done
                ):
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
        model_outputs.publish_model(partial, path)
    else:
        outputs.publish_file(partial, path)
