"""The row formats of the JSONL files between the stages: read with checks, write whole or not at all, resume.
With shards.py and training.py the only code that two folders share."""

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

FIELDS = {  # that a kind of row must have; keys beyond them pass through
    "instructions": ["id", "messages"],
    "preferences": ["id", "prompt", "chosen", "rejected"],
    "unpaired": ["id", "prompt", "completion", "label"],
    "prompts": ["id", "prompt"],
    "responses": ["id", "prompt", "responses", "finish_reasons"],
    "verifiable": ["id", "prompt", "responses", "finish_reasons", "answer"],
    "rewards": ["id", "prompt", "responses", "finish_reasons", "rewards"],
    "ratings": ["id", "messages", "ratings"],
}
ROLES = {"messages": r"(system )?user assistant( user assistant)*", "prompt": r"(system )?user( assistant user)*"}
ROLES |= dict.fromkeys(
    ["chosen", "rejected", "completion"], r"assistant( user assistant)*"
)  # their order in these fields


def problem(row, kind, n=None):
    """What is wrong with a row of that kind, with n responses if given, as 'field: reason', or None."""
    if not isinstance(row, dict):
        return "row: not a JSON object"
    for field in FIELDS[kind] if kind else []:
        if (value := row.get(field)) is None:
            return f"{field}: missing"
        if field in ("id", "answer") and not (value and isinstance(value, str)):
            return f"{field}: not a non-empty text"
        if field == "label" and not isinstance(value, bool):
            return "label: neither true nor false"
        if field in ROLES:
            try:
                roles, contents = zip(*((turn["role"] + "", turn["content"].strip()) for turn in value), strict=True)
            except (TypeError, KeyError, AttributeError, ValueError):
                return f"{field}: not one or more messages {{role, content}}"
            if field in ("messages", "prompt") and not all(contents):  # a policy's answer may be empty
                return f"{field}: an empty turn"
            if not re.fullmatch(ROLES[field], " ".join(roles)):
                return f"{field}: roles out of order ({', '.join(roles)})"
        if field in ("responses", "finish_reasons", "rewards"):
            if not (value and isinstance(value, list) and len(value) == len(row["responses"])):
                return f"{field}: not a list with one entry for each response"
            if n and len(value) != n:
                return f"{field}: {len(value)} where {n} are expected"
        if field == "responses" and not all(isinstance(v, str) for v in value):
            return "responses: not all texts"
        if field == "rewards" and not all(type(v) in (int, float) and abs(v) < float("inf") for v in value):
            return f"rewards: {value} are not all finite numbers"


def read(path, kind=None, n=None):
    """Yield the rows of a file, n responses each (0: any number, None: as the first); a bad one ends the program."""
    line_of, number = {}, 0
    try:
        lines = open(path, "rb")
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    for number, line in ((i, line) for i, line in enumerate(lines, 1) if line.strip()):
        try:
            row = json.loads(line.decode())
        except ValueError as error:  # cut in half, or not UTF-8
            sys.exit(f"{path}:{number}: row: not a line of JSON ({error})")
        if reason := problem(row, kind, n):
            sys.exit(f"{path}:{number}: {reason}")
        if kind and line_of.setdefault(row["id"], number) != number:
            sys.exit(f"{path}:{number}: id: {row['id']!r} stands on line {line_of[row['id']]} already")
        n = len(row["responses"]) if n is None and "responses" in FIELDS.get(kind, []) else n
        yield row
    number or sys.exit(f"{path}: no rows")


def load(source, split):
    """Rows, unchecked, of a file (.jsonl, .json, .parquet) or of a dataset on the hub: NAME, or NAME:FILE in it."""
    kind, (name, _, file) = {".json": "json", ".parquet": "parquet"}.get(Path(source).suffix), source.partition(":")
    if (source.endswith(".jsonl") and not file) or (os.path.exists(source) and not kind):
        return read(source)
    name, file = (kind, source) if os.path.exists(source) else (name, file or None)
    try:  # the import takes seconds
        return __import__("datasets").load_dataset(name, data_files=file, split="train" if file else split)
    except Exception as error:  # of a broken file, or of the hub, which refuses in many ways
        sys.exit(f"{source}: no such file, and no dataset on the hub ({str(error).splitlines()[0]})")


def fingerprint(arguments):
    """Names the unfinished work of a command: its arguments; size and time of files they name, but model cards."""
    files = [file for name in arguments if os.path.exists(name) for file in (Path(name), *Path(name).glob("*.*"))]
    stats = sorted((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.name != "README.md")
    return hashlib.sha256(repr([*arguments, *stats]).encode()).hexdigest()[:12]


class Writer:
    """Appends rows to an unfinished file; those of a killed run with the same fingerprint stay: `done`, {id: bytes}."""

    def __init__(self, path, resume="new"):
        self.path, self.partial = Path(path), Path(f"{path}.partial-{resume}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.partial, "w+b" if resume == "new" else "a+b", buffering=0)
        except OSError as error:
            sys.exit(f"{self.path}: {error.strerror}")
        self.done = {json.loads(line)["id"]: len(line) for line in open(self.partial, "rb") if line[-2:] == b"}\n"}
        self.file.truncate(sum(self.done.values()))  # a line that was cut in half goes

    def add(self, rows):
        """Append rows, and return the writer; from then on a kill does not lose them."""
        try:
            for row in rows:
                left = json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n"
                while left:
                    left = left[self.file.write(left) :]
        except OSError as error:
            sys.exit(f"{self.path}: {error.strerror}; what is finished is kept, the same command goes on from there")
        return self

    def finish(self):
        """Give the file its name; a shard (NAME.0-of-2) ends with an empty line, which tells that it is whole."""
        if re.search(r"\.\d+-of-\d+$", self.path.name):
            self.file.write(b"\n")
        os.fsync(self.file.fileno())
        publish(self.partial, self.path)


def write(path, rows):
    """Write all rows, or nothing."""
    Writer(path).add(rows).finish()


def publish(partial, path):
    """Give a finished file or model its name, in place of an older one; unfinished ones and checkpoints go."""
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)
    for stale in [*Path(path).glob("checkpoint-*"), *Path(path).parent.glob(f"{Path(path).name}.partial-*")]:
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
