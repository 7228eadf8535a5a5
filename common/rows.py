"""The rows of the JSONL files between the stages: read with checks, written atomically, resumed.

A row that breaks a rule ends the program in one line, FILE:LINE: FIELD: reason. Numbers are finite
everywhere. A file to read may be gzipped (.jsonl.gz, .json.gz).
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

# Scripts use these as rows.FIELDS and so on.
__all__ = ["FIELDS", "PER_RESPONSE", "is_number", "lines_of", "parse", "problem", "short"]


class Row(dict):
    """A row with its `place`, FILE:LINE."""

    __slots__ = ("place",)

    def at(self, field):
        """FILE:LINE: FIELD, what a message begins with."""
        return f"{self.place}: {field}"


def refuse(row, reason):
    """End the program with a line about that row; reason: 'field: what is wrong'."""
    sys.exit(f"{row.place}: {reason}")


# What belongs to the responses of a row


def per_response(row):
    """{field: list} of the fields with one entry for each response; a wrong length is refused."""
    lists = {}
    for field in PER_RESPONSE:
        if field not in row:
            continue
        if not isinstance(row[field], list) or len(row[field]) != len(row["responses"]):
            refuse(row, f"{field}: not a list with one entry for each response")
        lists[field] = row[field]
    return lists


def with_responses(row, indexes):
    """A copy of a row with some of its responses, in the order of the indexes.

    A judgement is left out, since it refers to the responses by their old indexes.
    """
    selection = Row(row)
    selection.place = row.place
    for field, entries in per_response(row).items():
        selection[field] = [entries[index] for index in indexes]
    selection.pop("judgement", None)
    return selection


# Reading files of the stages


def read(path, kind=None, n=None, also=(), if_there=(), unique=True):
    """Yield the rows of a file; a bad one ends the program.

    kind: a kind of fields.FIELDS. Without a kind any object is a row, and a number that is not
    finite is null.
    n: responses of each row; 0 for any number, None for as many as the first row has.
    also: fields that a row must have beside those of its kind.
    if_there: fields that are checked in the rows that have them.
    unique: no two rows have the same id.
    """
    fields = FIELDS.get(kind, [])
    first_lines = {}  # {id: line number of its first row}
    number = 0
    for number, line in lines_of(path):
        row = checked_row(line, f"{path}:{number}", kind, n, also, if_there)
        if unique and "id" in fields:
            first = first_lines.setdefault(row["id"], number)
            if first != number:
                refuse(row, f"id: {row['id']!r}: duplicate, first on line {first}")
        if n is None and "responses" in fields:
            n = len(row["responses"])
        yield row
    if not number:
        sys.exit(f"{path}: no rows")


def checked_row(line, place, kind, n, also, if_there):
    """The Row of one line; see read."""
    try:
        content = parse(line)
    except ValueError as error:
        sys.exit(f"{place}: {error}")
    reason = problem(content, kind, n, also, if_there)
    if reason:
        sys.exit(f"{place}: {reason}")
    row = Row(content)
    row.place = place
    # Only such a line can hold a number that is not finite: walking through all rows takes time.
    if b"NaN" in line or b"Infinity" in line:
        if kind:
            check_finite(row)
        row.update(finite(content))
    return row


def check_finite(row):
    for field, content in row.items():
        if finite(content) != content:
            refuse(row, f"{field}: a number is not finite")


def finite(value):
    """The value with null for every number that is not finite."""
    if isinstance(value, dict):
        return {name: finite(content) for name, content in value.items()}
    if isinstance(value, list):
        return [finite(entry) for entry in value]
    if isinstance(value, float) and not is_number(value):
        return None
    return value


# Reading published datasets


def load(source, split):
    """Rows, unchecked, of a file or of a dataset on the hub.

    source: a file (.jsonl, .json, gzipped or not; .parquet), or NAME, or NAME:FILE in a dataset.
    """
    if is_file(source):
        return of_file(source)
    name, _, file = source.partition(":")
    if name == "json" and os.path.isfile(file):
        # Not by the library, which takes half characters out without a word.
        return of_entries(file, entries_of(file))
    if file:
        return of_library(source, name, "train", data_files=file)
    return of_library(source, name, split, data_files=None)


def is_file(source):
    """Is it a file, and no name of a dataset? A missing file is recognised by its ending."""
    return os.path.isfile(source) or (source.endswith((".jsonl", ".gz")) and ":" not in source)


def of_file(path):
    """Rows, unchecked, of a file; without a known ending it is read as JSON lines."""
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
        reason = "cannot be read"
        if isinstance(error, FileNotFoundError | ConnectionError) and not os.path.exists(source):
            reason = "no such file, and no dataset on the hub"
        sys.exit(f"{source}: {reason} ({first_words(error)})")
    return of_entries(source, enumerate(dataset, 1))


def of_entries(source, numbered):
    """Yield the rows of (number, entry); number: of the line, or of the row."""
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
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


# Writing


def fingerprint(arguments, written=()):
    """The name of a command's unfinished work: changed arguments or inputs give another one.

    It covers the arguments, and size and mtime of the files that they name, except model cards.
    written: arguments that the command writes, and may change itself.
    """
    outputs_of_command = [str(path) for path in written]
    stats = []
    for argument in arguments:
        path = argument
        # --flag=FILE, or NAME=FILE
        if not os.path.exists(path):
            path = argument.rpartition("=")[2]
        if path not in outputs_of_command and os.path.exists(path):
            stats += stats_of_files(Path(path))
    stats.sort()
    return hashlib.sha256(repr([*arguments, *stats]).encode()).hexdigest()[:12]


def stats_of_files(path):
    """[(name, size, mtime)] of a file, or of the files in a directory."""
    files = path.glob("*.*") if path.is_dir() else [path]
    stats = []
    for file in files:
        if file.is_file() and file.name not in ("README.md", outputs.MARKER):
            stats.append((str(file), file.stat().st_size, file.stat().st_mtime_ns))
    return stats


def this_command(written=()):
    """The fingerprint of the script that is running, with its arguments."""
    return fingerprint([Path(sys.argv[0]).name, *sys.argv[1:]], written)


class Writer:
    """Appends rows to an unfinished file.

    Rows of a killed run with the same fingerprint `resume` are kept: `done`, {id: bytes of its
    line}.
    """

    def __init__(self, path, resume="new"):
        self.path = Path(path)
        self.partial = Path(outputs.partial_name(path, resume))
        self.file = outputs.open_partial(path, resume, keep=resume != "new")
        self.done = complete_rows(self.partial)
        # A row that was cut off goes, and so does what follows it.
        self.file.truncate(sum(self.done.values()))

    def add(self, rows):
        """Append rows, and return the writer; from then on a kill does not lose them."""
        try:
            for row in rows:
                outputs.write_fully(self.file, self.encoded(row))
        except OSError as error:
            self.stop(error)
        return self

    def encoded(self, row):
        """The line of a row; a value that JSON does not have ends the program."""
        try:
            text = json.dumps(row, ensure_ascii=False, allow_nan=False)
        except (ValueError, TypeError) as error:
            self.refuse_unwritable(row, error)
        # A lone surrogate becomes a question mark: UTF-8 cannot write it.
        return text.encode(errors="replace") + b"\n"

    def refuse_unwritable(self, row, error):
        unwritable = "row"
        for field, value in row.items():
            if not writable(value):
                unwritable = field
                break
        sys.exit(f"{self.path}: id {row.get('id')!r}: {unwritable}: not written ({error})")

    def finish(self):
        """Give the file its name. A shard (NAME.0-of-2) ends with an empty line: it is complete."""
        try:
            if re.search(r"\.\d+-of-\d+$", self.path.name):
                self.file.write(b"\n")
            os.fsync(self.file.fileno())
        except OSError as error:
            self.stop(error)
        publish(self.partial, self.path)
        self.file.close()

    def stop(self, error):
        """End the program, on a full disk say."""
        sys.exit(
            f"{self.path}: {error.strerror}; what is finished is kept, "
            "the same command goes on from there"
        )


def writable(value):
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError):
        return False
    return True


def complete_rows(partial):
    """{id: bytes of its line} of an unfinished file's rows, up to the first incomplete one."""
    sizes = {}
    with open(partial, "rb") as lines:
        for line in lines:
            try:
                row_id = parse(line)["id"]
            except (ValueError, TypeError, KeyError):
                break
            is_complete = line.endswith(b"}\n") and isinstance(row_id, str | int)
            if not is_complete or row_id in sizes:
                break
            sizes[row_id] = len(line)
    return sizes


def write(path, rows):
    """Write all rows, or nothing."""
    Writer(path).add(rows).finish()


def publish(partial, path):
    """Give a finished file or model its name, in place of an older one: see common/outputs.py."""
    if os.path.isdir(partial):
        model_outputs.publish_model(partial, path)
    else:
        outputs.publish_file(partial, path)
