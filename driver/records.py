"""Say which steps of a run are stale, by the content that their files were made from.

Times of files play no part. Beside each file of a step lies its record, NAME.made.json: the
command without paths of the machine, and hashes of the files that it read and of its script with
the modules of this project that it imports. While a step runs, NAME.making.json lies there instead.
A file without a record, from an earlier version or put there by hand, is taken as it is.

Reads:  the steps on standard input, by driver/steps.sh: for each the number of its files, the
        files, the number of words of its command, the words, each followed by a zero byte; the
        files that the commands name
Writes: states: a line for each step: fresh, missing, or stale, with a colon and the reason
        adopt: records for the files that have none. It needs the run's lock: a dry run uses states
        begin: `resume` if the last try had the same inputs, else `anew`; NAME.making.json
        end: the record of what was made

    python driver/records.py begin runs/tiny < one_step
"""

import argparse
import itertools
import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from contents import ROOT, Hashes, code_hash, is_ours, read_json, write_json

# Flags that do not change what is made, with their values: they set memory, speed and logging, and
# where a judge is served.
RUNTIME_FLAGS = (
    "--per_device_train_batch_size",
    "--gradient_accumulation_steps",
    "--use_cpu",
    "--tensor_parallel_size",
    "--save_steps",
    "--save_total_limit",
    "--disable_tqdm",
    "--dataloader_pin_memory",
    "--judge_url",
    "--concurrency",
    "--timeout",
    "--max_retries",
)
# The product of these and of the processes is the global batch, which does change what is made.
BATCH_FLAGS = ("--per_device_train_batch_size", "--gradient_accumulation_steps")
# Ends of the names of flags whose values are paths, or models and sets that may be on the hub.
PATH_ENDINGS = (
    "_path",
    "_file",
    "_files",
    "datasets",
    "models",
    "dataset_name",
    "held_out_name",
    "ratings_name",
    "tokenizer_name",
    "policies",
)
# Other flags of the project's scripts, and of the libraries' trainings, whose values may be paths.
OTHER_PATH_FLAGS = (
    "answers",
    "measures",
    "benchmarks",
    "training",
    "settings",
    "model_outputs",
    "reference_outputs",
    "annotations",
    "verifier",
    "wheel",
    "gsm8k_train",
    "gsm8k_test",
    "hh_rlhf",
    "config",
    "deepspeed",
    "fsdp_config",
    "accelerator_config",
)


# Steps


@dataclass
class Run:
    """A run: its directory, the script of its world's judge, and the files of the steps at hand."""

    out: str
    judge: str | None = None
    files: set = field(default_factory=set)

    def name_of(self, path):
        """A path below the run from there on, any other as it is."""
        below = os.path.relpath(os.path.normpath(path), self.out)
        if below.startswith("..") or os.path.isabs(below):
            return path
        return below

    def lies_in(self, folder):
        """Is it a folder that holds the run, or all of this checkout?"""
        places = [os.path.realpath(place) for place in (self.out, ROOT)]
        folder = os.path.realpath(folder)
        return any(os.path.commonpath([place, folder]) == folder for place in places)


class Step:
    """One step: its files, and its command as launcher, script and the words after it."""

    def __init__(self, run, files, command):
        self.run = run
        self.files = files
        position = script_position(command)
        self.launcher = command[:position]
        self.script = command[position]
        self.words = command[position + 1 :]
        self.is_ours = is_ours(self.script)

    @property
    def name(self):
        """The name of the first file, such as iter2/pairs."""
        return os.path.splitext(os.path.relpath(self.files[0], self.run.out))[0]

    def beside(self, ending):
        """For each file the path beside it with another ending, .made.json or .making.json."""
        return [Path(os.path.splitext(file)[0] + ending) for file in self.files]

    def exists(self):
        return all(os.path.exists(file) for file in self.files)

    def is_in_the_making(self):
        return any(path.exists() for path in self.beside(".making.json"))

    def flags_and_words(self):
        """Yields (flag, word) of the words after the script; each flag first with an empty word.

        A verifier, NAME=FILE.py, is two words.
        """
        flag = ""
        for word in self.words:
            if word.startswith("--"):
                flag, _, word = word.partition("=")
                yield flag, ""
            if flag == "--verifier" and word:
                name, _, word = word.partition("=")
                yield flag, name
            if word:
                yield flag, word

    def is_input(self, flag, word):
        """Does a word of the command name a file or folder that the step reads?

        A text may be the name of one by chance: --pattern . is a regular expression. The flags of
        the project's scripts decide. Of a user's script they are not known: what exists counts.
        """
        name = flag.removeprefix("--").replace("-", "_")
        if name.startswith("output") or name in ("held_out_file", "log_dir"):
            return False
        if not name.endswith(PATH_ENDINGS):
            if self.is_ours and name not in OTHER_PATH_FLAGS:
                return False
            # `mt_bench` after --benchmarks is a name, though a folder may have it.
            if "/" not in word and "." not in word:
                return False
        if os.path.normpath(word) in self.run.files:  # of a step that may not have run yet
            return True
        return os.path.exists(word) and not self.run.lies_in(word)

    def inputs(self):
        """The paths that the command reads."""
        return [word for flag, word in self.flags_and_words() if self.is_input(flag, word)]

    def portable_command(self):
        """The words that decide what is made, without paths of this machine.

        Of an input its last part is kept, since its content is hashed; of an output the path below
        the run.
        """
        words = [os.path.basename(self.script)]
        batch = {}
        for flag, word in self.flags_and_words():
            if flag in BATCH_FLAGS and word:
                batch[flag] = int(word)  # of two the last counts
            elif flag in RUNTIME_FLAGS:
                continue
            elif not word:
                words.append(flag)
            elif self.is_input(flag, word):
                words.append(os.path.basename(os.path.normpath(word)))
            else:
                words.append(self.run.name_of(word))
        if batch:
            global_batch = math.prod(batch.values()) * self.processes()
            words += ["--global_batch_size", str(global_batch)]
        return words

    def processes(self):
        """The processes of a training, from its launcher."""
        if "--num_processes" not in self.launcher:
            return 1
        return int(self.launcher[self.launcher.index("--num_processes") + 1])

    def code(self):
        """The hash of the script; with that of the world's judge if the step asks it."""
        asks_judge = "--judge_model" in self.words and "--judge_url" not in self.words
        if asks_judge and self.run.judge:
            return code_hash(self.script) + code_hash(self.run.judge)
        return code_hash(self.script)

    def record(self, hashes):
        """What is made if the step runs now; an input that is not there yet has no hash."""
        inputs = []
        for path in self.inputs():
            content = hashes.hash(path) if os.path.exists(path) else None
            inputs.append({"path": self.run.name_of(path), "sha256": content})
        return {"command": self.portable_command(), "code": self.code(), "inputs": inputs}


def script_position(command):
    """The place of the script in a command, after python or a launcher."""
    return next(i for i, word in enumerate(command) if word.endswith(".py"))


def read_commands():
    """Yields (files, command) of every step on standard input."""
    words = iter(sys.stdin.buffer.read().decode().split("\0")[:-1])
    for count in words:
        files = list(itertools.islice(words, int(count)))
        length = int(next(words))
        yield files, list(itertools.islice(words, length))


# Comparing records


def difference(old, new):
    """The first reason why what was made from `old` is not what `new` makes; None without one."""
    if old["command"] != new["command"]:
        return f"command: {first_difference(old['command'], new['command'])}"
    for before, now in zip(old["inputs"], new["inputs"], strict=False):
        if before["sha256"] != now["sha256"]:
            return f"{now['path']} has changed"
    if old["code"] != new["code"]:
        return f"{new['command'][0]} or a module that it imports has changed"
    return None


def first_difference(old, new):
    """The first flag for which two commands have different values, with both values."""
    before = values_by_flag(old)
    now = values_by_flag(new)
    for flag in [*now, *before]:
        if before.get(flag) != now.get(flag):
            old_values = before.get(flag, "(not given)")
            new_values = now.get(flag, "(not given)")
            return f"{flag or 'script'} {old_values}, now {new_values}"
    return "the order of its flags"


def values_by_flag(words):
    """{flag: its values, with blanks between}; the script has an empty flag."""
    values = {}
    flag = ""
    for word in words:
        if word.startswith("--"):
            flag = word
            values[flag] = ""
        else:
            values[flag] = f"{values.get(flag, '')} {word}".strip()
    return values


# States


def state(step, hashes, remade):
    """fresh, missing or stale, with the reason.

    remade: {file: step that will make it again} of the steps before.
    """
    if not step.exists():
        return "missing"
    new = step.record(hashes)
    if step.is_in_the_making():
        return "fresh" if was_finished(step, new, hashes) else "stale: its last run was cut off"
    records = [read_json(path) for path in step.beside(".made.json")]
    reasons = [difference(record, new) for record in records if record]
    reason = next(filter(None, reasons), None)
    words = [os.path.normpath(word) for _, word in step.flags_and_words()]
    remade_by = next((remade[word] for word in words if word in remade), None)
    # Changed settings are said first, then a step above that will change the inputs.
    if reason and reason.startswith("command: "):
        return f"stale: {reason}"
    if remade_by:
        return f"stale: after {remade_by}"
    if reason:
        return f"stale: {reason}"
    return "fresh" if all(records) else "fresh, without a record"


def was_finished(step, new, hashes):
    """Are the files of a step that was in the making complete?

    This project's scripts give a file its name when it is complete, so a file that is new is. A
    script of the user's own may have written half of it.
    """
    if not step.is_ours:
        return False
    for path, file in zip(step.beside(".making.json"), step.files, strict=True):
        making = read_json(path) or {}
        same_inputs = "record" in making and not difference(making["record"], new)
        if not same_inputs or hashes.hash(file) == making.get("before"):
            return False
    return True


# The commands


def print_states(steps, hashes):
    remade = {}
    for step in steps:
        text = state(step, hashes, remade)
        if text.startswith(("missing", "stale")):
            for file in step.files:
                remade[os.path.normpath(file)] = step.name
        print(" ".join(text.split()))


def adopt(steps, hashes):
    """Give files without a record one of their inputs as they are now.

    If a step before them makes its files again, and they differ, these are stale.
    """
    for step in steps:
        if not step.exists():
            continue
        if step.is_in_the_making():
            if was_finished(step, step.record(hashes), hashes):
                end(step)  # the driver was killed before it could
            continue
        for path in step.beside(".made.json"):
            if not path.exists():
                write_json(path, step.record(hashes))


def begin(step, hashes):
    """Replace the records by what is in the making, with the hash of each file as it was."""
    making_files = step.beside(".making.json")
    records = step.beside(".made.json")
    last = read_json(making_files[0])
    new = step.record(hashes)
    for file, making_file, record in zip(step.files, making_files, records, strict=True):
        making_file.parent.mkdir(parents=True, exist_ok=True)
        before = hashes.hash(file) if os.path.exists(file) else None
        write_json(making_file, {"record": new, "before": before})
        record.unlink(missing_ok=True)
    same = last and not difference(last["record"], new)
    print("resume" if same else "anew")


def end(step):
    making_files = step.beside(".making.json")
    for making_file, record in zip(making_files, step.beside(".made.json"), strict=True):
        write_json(record, read_json(making_file)["record"])
        making_file.unlink()


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("use", choices=["states", "adopt", "begin", "end"])
    parser.add_argument("out", help="directory of the run")
    parser.add_argument("--judge", help="the script of the made world's judge")
    return parser.parse_args()


def main():
    args = parse_arguments()
    run = Run(os.path.normpath(args.out))
    if args.judge and os.path.exists(args.judge):
        run.judge = args.judge
    steps = []
    for files, command in read_commands():
        run.files.update(os.path.normpath(file) for file in files)
        steps.append(Step(run, files, command))
    hashes = Hashes(args.out)
    if args.use == "states":
        print_states(steps, hashes)
    elif args.use == "adopt":
        adopt(steps, hashes)
    elif args.use == "begin":
        begin(steps[0], hashes)
    else:
        end(steps[0])


if __name__ == "__main__":
    main()
