"""The row formats of the JSONL files between the stages: read with checks, write whole or not at all, resume, shard.

The only code that two folders share. Join the files of several shards, in the order of the rows they are made from, by
    python rows.py prompts.jsonl responses.jsonl responses.jsonl.0-of-2 responses.jsonl.1-of-2
"""

import hashlib
import json
import math
import os
import shutil
import sys
from pathlib import Path

FIELDS = {  # the fields that a kind of row must have; keys beyond them pass through
    "any": [],
    "instructions": ["id", "messages"],
    "preferences": ["id", "prompt", "chosen", "rejected"],
    "prompts": ["id", "prompt"],
    "responses": ["id", "prompt", "responses", "finish_reasons"],
    "rewards": ["id", "prompt", "responses", "finish_reasons", "rewards"],
}


def problem(row, kind):
    """What is wrong with a row of that kind, as 'field: reason', or None."""
    if not isinstance(row, dict):
        return "row: not a JSON object"
    for field in FIELDS[kind]:
        value = row.get(field)
        if field not in row:
            return f"{field}: missing"
        if field == "id" and not (value and isinstance(value, str)):
            return "id: not a non-empty text"
        if field in ("messages", "prompt", "chosen", "rejected") and (reason := _problem_in_chat(value, field)):
            return f"{field}: {reason}"
        if field in ("responses", "finish_reasons", "rewards"):
            if not (value and isinstance(value, list) and len(value) == len(row["responses"])):
                return f"{field}: not a list with one entry for each response"
            if field == "responses" and not all(isinstance(v, str) for v in value):
                return "responses: not all texts"
            if field == "rewards" and not all(type(v) in (int, float) and math.isfinite(v) for v in value):
                return f"rewards: {value} are not all finite numbers"
    return None


def _problem_in_chat(messages, field):
    answer = field in ("chosen", "rejected")
    try:
        turns = [(message["role"] + "", message["content"] + "") for message in messages]
    except (TypeError, KeyError):
        return "not a list of messages {role, content}"
    if not answer and not all(content.strip() for _, content in turns):  # a policy's empty answer may be in a pair
        return "an empty turn"
    roles = [role for role, _ in turns]
    order = roles[1:] if roles[:1] == ["system"] else roles
    expected = (["assistant", "user"] if answer else ["user", "assistant"]) * len(order)
    last = "user" if field == "prompt" else "assistant"
    right = order and order == expected[: len(order)] and order[-1] == last
    return None if right else f"roles out of order ({', '.join(roles) or 'none'})"


def read(path, kind="any", n=None):
    """All rows of a JSONL file, each checked; the first bad one ends the program with file, line and field.

    n: the number of responses that every row must have (default: as many as the first row).
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    rows, line_of = [], {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line.decode())
            except ValueError as error:  # cut in half, or not UTF-8
                sys.exit(f"{path}:{number}: row: not a line of JSON ({error})")
            reason = problem(row, kind)
            if not reason and kind != "any" and line_of.setdefault(row["id"], number) != number:
                reason = f"id: {row['id']!r} stands on line {line_of[row['id']]} already"
            if (
                not reason
                and "responses" in FIELDS[kind]
                and len(row["responses"]) != (n := n or len(row["responses"]))
            ):
                reason = f"responses: {len(row['responses'])} where {n} are expected"
            if reason:
                sys.exit(f"{path}:{number}: {reason}")
            rows.append(row)
    return rows or sys.exit(f"{path}: no rows")


def load(source, split):
    """Rows, unchecked, of a .jsonl file or of a dataset on the Hugging Face hub."""
    if source.endswith(".jsonl") or os.path.exists(source):
        return read(source)
    from datasets import load_dataset

    try:
        return load_dataset(source, split=split)
    except Exception as error:  # the hub refuses in many ways
        sys.exit(f"{source}: no such file, and no dataset on the hub ({str(error).splitlines()[0]})")


def fingerprint(arguments):
    """Names the unfinished work of a command: its arguments, and size and time of the files that they name."""
    digest = hashlib.sha256()
    for argument in arguments:
        digest.update(f"{argument}\0".encode())
        for file in [Path(argument), *sorted(Path(argument).glob("*.*"))] if os.path.exists(argument) else []:
            digest.update(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}\0".encode())
    return digest.hexdigest()[:12]


class Writer:
    """Appends rows to an unfinished file beside `path`, which `finish` gives its name.

    With `resume`, a fingerprint, the rows that a killed run of the same command finished are kept, their ids in `done`.
    """

    def __init__(self, path, resume="new"):
        self.path = Path(path)
        self.partial = self.path.with_name(f"{self.path.name}.partial-{resume}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.partial, "w+b" if resume == "new" else "a+b", buffering=0)
        except OSError as error:
            sys.exit(f"{self.path}: {error.strerror}")
        self.file.seek(0)
        lines = self.file.read().split(b"\n")
        self.file.truncate(self.file.tell() - len(lines.pop()))  # a line that was cut in half
        self.done = {json.loads(line)["id"] for line in lines}

    def add(self, rows):
        """Append rows; when this returns, a kill does not lose them."""
        left = b"".join(json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n" for row in rows)
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError as error:
            sys.exit(f"{self.path}: {error.strerror}; what is finished is kept, the same command goes on from there")

    def finish(self):
        """Give the file its name; unfinished files of other commands go."""
        os.fsync(self.file.fileno())
        self.partial.replace(self.path)
        for stale in self.path.parent.glob(f"{self.path.name}.partial-*"):
            stale.unlink()


def write(path, rows):
    """Write all rows, or nothing."""
    writer = Writer(path)
    writer.add(rows)
    writer.finish()


def unfinished_model(path, resume):
    """(directory, last whole checkpoint or None) in which the model that will be `path` is trained."""
    partial = f"{path}.partial-{resume}"
    for checkpoint in sorted(Path(partial).glob("checkpoint-*"), key=lambda p: -int(p.name.split("-")[1])):
        try:
            json.loads((checkpoint / "trainer_state.json").read_bytes())  # the Trainer writes this file last
            return partial, str(checkpoint)
        except (OSError, ValueError):
            shutil.rmtree(checkpoint)
    return partial, None


def publish_model(partial, path):
    """Give a finished model its name, in place of an older one; checkpoints go."""
    shutil.rmtree(path, ignore_errors=True)
    os.rename(partial, path)
    for stale in [*Path(path).glob("checkpoint-*"), *Path(path).parent.glob(f"{Path(path).name}.partial-*")]:
        shutil.rmtree(stale)


if __name__ == "__main__":  # join shards: rows that they dropped are left out
    made = {row["id"]: row for part in sys.argv[3:] for row in read(part)}
    write(sys.argv[2], [made[row["id"]] for row in read(sys.argv[1]) if row["id"] in made])
