"""The row formats of the JSONL files between the stages: check, read, write whole, resume, shard.

This is the only code that two folders share (`pip install -e .` puts it on the path).

    python rows.py merge --order prompts.jsonl --output_file responses.jsonl PART...
joins the files of several shards in the order of the rows that they were made from.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
from pathlib import Path

FIELDS = {  # kind of row: the fields that it must have, each checked by the function of that name below
    "any": [],
    "instructions": ["id", "messages"],
    "preferences": ["id", "prompt", "chosen", "rejected"],
    "prompts": ["id", "prompt"],
    "responses": ["id", "prompt", "responses", "finish_reasons"],
    "rewards": ["id", "prompt", "responses", "finish_reasons", "rewards"],
}
LAST_ROLE = {"messages": "assistant", "prompt": "user", "chosen": "assistant", "rejected": "assistant"}


def fail(message):
    """End the program with one line on standard error and exit status 1."""
    raise SystemExit(message)


def problem(row, kind):
    """What is wrong with a row of that kind, as 'field: reason', or None."""
    if not isinstance(row, dict):
        return "row: not a JSON object"
    for field in FIELDS[kind]:
        value = row.get(field)
        if field not in row:
            return f"{field}: missing"
        if field == "id" and not (isinstance(value, str) and value):
            return "id: not a non-empty string"
        if field in LAST_ROLE and (reason := _problem_in_chat(value, field)):
            return f"{field}: {reason}"
        if field == "responses" and not (value and isinstance(value, list) and all(isinstance(v, str) for v in value)):
            return "responses: not a non-empty list of strings"
        if field in ("rewards", "finish_reasons") and not (
            isinstance(value, list) and len(value) == len(row["responses"])
        ):
            return f"{field}: not a list of {len(row['responses'])}, one for each response"
        if field == "rewards" and not all(type(v) in (int, float) and math.isfinite(v) for v in value):
            return f"rewards: {value} are not all finite numbers"
    return None


def _problem_in_chat(messages, field):
    if not (messages and isinstance(messages, list)):
        return "not a non-empty list of messages"
    answer = field in ("chosen", "rejected")
    for message in messages:
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            return "a message is not {role, content}"
        if not answer and not message["content"].strip():  # an empty answer is the policy's doing, and may be in a pair
            return f"empty {message['role']} turn"
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    order = ["assistant", "user"] if answer else ["user", "assistant"]
    if not turns or turns != (order * len(turns))[: len(turns)] or turns[-1] != LAST_ROLE[field]:
        return f"roles out of order ({', '.join(roles)})"
    return None


def read(path, kind="any", n=None):
    """All rows of a JSONL file, each checked; the first bad one ends the program with file, line and field.

    n: the number of responses that every row must have (default: as many as the first row).
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    rows, line_of_id = [], {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except UnicodeDecodeError:
            fail(f"{path}:{number}: row: not UTF-8")
        except json.JSONDecodeError as error:
            fail(f"{path}:{number}: row: not JSON, {error.msg} at column {error.colno} (cut off?)")
        if reason := problem(row, kind):
            fail(f"{path}:{number}: {reason}")
        if "id" in FIELDS[kind] and number != line_of_id.setdefault(row["id"], number):
            fail(f"{path}:{number}: id: {row['id']!r} stands on line {line_of_id[row['id']]} already")
        if "responses" in FIELDS[kind] and len(row["responses"]) != (n := n or len(row["responses"])):
            fail(f"{path}:{number}: responses: {len(row['responses'])} answers where {n} are expected")
        rows.append(row)
    return rows or fail(f"{path}: no rows")


def load(source, split="train"):
    """(where, row) of a JSONL file, or of a dataset on the Hugging Face hub if no such file exists; unchecked."""
    if os.path.exists(source) or source.endswith((".jsonl", ".json")) or source.count("/") != 1:
        return [(f"{source}: row {i}", row) for i, row in enumerate(read(source), 1)]
    from datasets import load_dataset

    try:
        return [(f"{source}: row {i}", row) for i, row in enumerate(load_dataset(source, split=split), 1)]
    except Exception as error:  # the hub's many errors (offline, gated, no such name) all end the same way
        fail(f"{source}: no such file, and the hub does not give it ({str(error).splitlines()[0]})")


def fingerprint(arguments):
    """Names the unfinished work of one command: its arguments, and size and time of the files that they name."""
    digest = hashlib.sha256()
    for argument in map(str, arguments):
        digest.update(argument.encode() + b"\0")
        for path in [Path(argument), *sorted(Path(argument).glob("*.*"))] if os.path.exists(argument) else []:
            if path.is_file():
                digest.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\0".encode())
    return digest.hexdigest()[:12]


class Writer:
    """Writes rows to an unfinished file beside `path` that takes its name only when whole.

    With `resume` (a fingerprint), rows that an earlier, killed run of the same command finished are kept: their
    ids are in `done`. A line that was cut in half is taken off.
    """

    def __init__(self, path, resume=None):
        self.path, self.done = Path(path), set()
        self.partial = self.path.with_name(f"{self.path.name}.partial-{resume or 'new'}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.partial, "a+b" if resume else "w+b")
            self.file.seek(0)
            lines = self.file.read().split(b"\n")
            self.file.truncate(self.file.seek(0, os.SEEK_END) - len(lines.pop()))
        except OSError as error:
            fail(f"{path}: {error.strerror}")
        self.done = {json.loads(line)["id"] for line in lines}

    def add(self, rows):
        """Append rows; they are safe from a kill when this returns."""
        try:
            self.file.write(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
            self.file.flush()
        except OSError as error:
            fail(f"{self.path}: {error.strerror}; what is finished is kept: make room and run the same command again")

    def finish(self):
        """Give the file its name; unfinished files of other settings go."""
        try:
            os.fsync(self.file.fileno())
            self.file.close()
            self.partial.replace(self.path)
        except OSError as error:
            fail(f"{self.path}: {error.strerror}")
        for stale in self.path.parent.glob(f"{self.path.name}.partial-*"):
            stale.unlink()


def write(path, rows):
    """Write all rows at once, or nothing."""
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
        except (OSError, json.JSONDecodeError):
            shutil.rmtree(checkpoint)
    return partial, None


def publish_model(partial, path):
    """Give a finished model directory its name, in place of an older one; its checkpoints go."""
    shutil.rmtree(path, ignore_errors=True)
    os.rename(partial, path)
    for stale in [*Path(path).glob("checkpoint-*"), *Path(path).parent.glob(f"{Path(path).name}.partial-*")]:
        shutil.rmtree(stale)


def merge(order, path, parts):
    """Join the shards' files of rows made from the rows of `order`; a row that they dropped is left out."""
    made = {row["id"]: row for part in parts for row in read(part)}
    write(path, [made[row["id"]] for row in read(order) if row["id"] in made])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["merge"])
    parser.add_argument("--order", required=True)
    parser.add_argument("--output_file", required=True)
    parser.add_argument("parts", nargs="+", metavar="PART")
    args = parser.parse_args()
    merge(args.order, args.output_file, args.parts)
