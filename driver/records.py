"""Say which steps of a run have to be run, by what their files were made from, never by the times of files.

Beside each file of a step lies its record, NAME.made.json: the command without paths of the machine, and hashes of
the files that it read and of the script with the modules of this project that it imports. While a step runs, there is
NAME.making.json instead. A file without a record, of an earlier version or put there by hand, is taken as it is.

Reads:  the steps on standard input, by driver/steps.sh: for each the number of its files, the files, the number of
        words of its command, the words, each followed by a zero byte; the files that the commands name
Writes: states: a line a step: fresh, missing, or stale, with a colon and the reason
        adopt: records for the files that have none. Only with the run's lock: a dry run reads states alone
        begin: `resume` if the last try was of the same inputs, else `anew`; the record of what is in the making
        end: the record of what is made

    python driver/records.py begin runs/tiny < one_step
"""

import argparse
import math
import os
import sys
from pathlib import Path
from typing import ClassVar

from contents import Hashes, code_hash, is_ours, read_json, write_json

# Flags that do not change what is made, with their values: of memory, speed and logging, and where a judge is served.
MANNER = (
    "--per_device_train_batch_size --gradient_accumulation_steps --use_cpu --tensor_parallel_size --save_steps "
    "--save_total_limit --disable_tqdm --dataloader_pin_memory --judge_url --concurrency --timeout --max_retries"
).split()
BATCH = ("--per_device_train_batch_size", "--gradient_accumulation_steps")
# What ends a flag whose values are paths; the values of another are paths if they have a slash or a dot.
PATHS = (
    "_path",
    "_file",
    "_files",
    "datasets",
    "models",
    "dataset_name",
    "held_out_name",
    "ratings_name",
    "policies",
)


# What a step is


def is_input(flag, word):
    """Does a word name what is read? `sft` after --model_name is a name, though a folder of the project has it, too."""
    written = flag.startswith("--output") or flag in ("--held_out_file", "--log_dir")
    is_path = flag.endswith(PATHS) or "/" in word or "." in word
    return (
        not written and is_path and (os.path.exists(word) or os.path.normpath(word) in Step.listed)
    )


class Step:
    """One step: its files, and its command from the script on. listed: the files of all steps at hand."""

    listed: ClassVar[set] = set()
    judge = None  # the script that serves it

    def __init__(self, files, words, out):
        self.files, self.out = files, os.path.normpath(out)
        Step.listed.update(map(os.path.normpath, files))
        place = next(i for i, word in enumerate(words) if word.endswith(".py"))
        self.launcher, self.script, self.words = words[:place], words[place], words[place + 1 :]

    @property
    def name(self):
        """Of the first file, as in iter2/pairs."""
        return os.path.splitext(os.path.relpath(self.files[0], self.out))[0]

    def beside(self, ending):
        return [Path(os.path.splitext(file)[0] + ending) for file in self.files]

    def exists(self):
        return all(os.path.exists(file) for file in self.files)

    def flagged(self):
        """Yields (flag, word) of the words after the script; the flag itself comes with an empty word."""
        flag = ""
        for word in self.words:
            if word.startswith("--"):
                flag, _, word = word.partition("=")
                yield flag, ""
            if word:
                yield flag, word

    def inputs(self):
        """The paths that the command reads."""
        return [word for flag, word in self.flagged() if is_input(flag, word)]

    def name_of(self, path):
        """A path below the run from there on, any other as it is."""
        below = os.path.relpath(os.path.normpath(path), self.out)
        return path if below.startswith("..") or os.path.isabs(below) else below

    def command(self):
        """The words that say what is made, with no path of this machine: of an input its last part, its content is
        hashed; of an output what is below the run."""
        kept, batch = [os.path.basename(self.script)], {}
        for flag, word in self.flagged():
            if flag in BATCH and word:
                batch[flag] = int(word)  # of two the last counts
            elif flag in MANNER:
                continue
            elif not word:
                kept.append(flag)
            elif is_input(flag, word):
                kept.append(os.path.basename(os.path.normpath(word)))
            else:
                kept.append(self.name_of(word))
        if batch:
            kept += ["--global_batch_size", str(math.prod(batch.values()) * self.processes())]
        return kept

    def processes(self):
        """Of a training, as its launcher is told."""
        words = self.launcher
        return int(words[words.index("--num_processes") + 1]) if "--num_processes" in words else 1

    def code(self):
        """The hash of its script; of one that asks the judge of a made world of that judge's, too."""
        asks = "--judge_model" in self.words and "--judge_url" not in self.words
        return code_hash(self.script) + (code_hash(self.judge) if asks and self.judge else "")

    def record(self, hashes):
        inputs = [
            {
                "path": self.name_of(path),
                "sha256": hashes.of(path) if os.path.exists(path) else None,
            }
            for path in self.inputs()
        ]
        return {"command": self.command(), "code": self.code(), "inputs": inputs}


def difference(old, new):
    """The first reason why what was made from `old` is not what `new` makes; None if there is none."""
    if old["command"] != new["command"]:
        return f"command: {first_difference(old['command'], new['command'])}"
    for before, now in zip(old["inputs"], new["inputs"], strict=False):
        if before["sha256"] != now["sha256"]:
            return f"{now['path']} has changed"
    if old["code"] != new["code"]:
        return f"{new['command'][0]} or a module that it imports has changed"
    return None


def first_difference(old, new):
    """The first flag of which two commands have other values, with both."""
    before, now = by_flag(old), by_flag(new)
    for flag in [*now, *before]:
        if before.get(flag) != now.get(flag):
            return f"{flag or 'script'} {before.get(flag, '(not given)')}, now {now.get(flag, '(not given)')}"
    return "the order of its flags"


def by_flag(words):
    """{flag: its values}; the script has an empty flag."""
    found, flag = {}, ""
    for word in words:
        if word.startswith("--"):
            flag = word
            found[flag] = ""
        else:
            found[flag] = f"{found.get(flag, '')} {word}".strip()
    return found


# The three uses


def state(step, hashes, remade):
    """fresh, missing or stale, with the reason. remade: {file: step} of what the steps before it will make again."""
    if not step.exists():
        return "missing"
    new = step.record(hashes)
    if is_in_the_making(step):
        return "fresh" if was_finished(step, new, hashes) else "stale: its last run was cut off"
    made = [read_json(path) for path in step.beside(".made.json")]
    reasons = list(filter(None, (difference(old, new) for old in made if old)))
    words = [os.path.normpath(word) for _, word in step.flagged()]
    upstream = [remade[word] for word in words if word in remade]
    if reasons and (reasons[0].startswith("command: ") or not upstream):
        return f"stale: {reasons[0]}"
    if upstream:
        return f"stale: after {upstream[0]}"
    return "fresh" if all(made) else "fresh, without a record"


def is_in_the_making(step):
    return any(path.exists() for path in step.beside(".making.json"))


def was_finished(step, new, hashes):
    """Whether what was in the making is whole: this project's scripts give a file its name when it is. A script of the
    user's own may have written half of it."""
    making = [read_json(path) or {} for path in step.beside(".making.json")]
    same = all("record" in one and not difference(one["record"], new) for one in making)
    before = [one.get("before") for one in making]
    now = [hashes.of(file) for file in step.files]
    return is_ours(step.script) and same and all(a != b for a, b in zip(before, now, strict=True))


def print_states(steps, hashes):
    remade = {}
    for step in steps:
        told = state(step, hashes, remade)
        if told.startswith(("missing", "stale")):
            remade |= dict.fromkeys(map(os.path.normpath, step.files), step.name)
        print(" ".join(told.split()))


def adopt(steps, hashes):
    """Take files without a record for what their inputs, as they are now, have made: if a step before them makes its
    files anew, and others, they are stale."""
    for step in filter(Step.exists, steps):
        if is_in_the_making(step):
            if was_finished(step, step.record(hashes), hashes):
                end(step)  # the driver was killed before it could
            continue
        for path in step.beside(".made.json"):
            if not path.exists():
                write_json(path, step.record(hashes))


def begin(step, hashes):
    last, new = read_json(step.beside(".making.json")[0]), step.record(hashes)
    for file, making, made in zip(
        step.files, step.beside(".making.json"), step.beside(".made.json"), strict=True
    ):
        making.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            making, {"record": new, "before": hashes.of(file) if os.path.exists(file) else None}
        )
        made.unlink(missing_ok=True)
    print("resume" if last and not difference(last["record"], new) else "anew")


def end(step):
    for making, made in zip(step.beside(".making.json"), step.beside(".made.json"), strict=True):
        write_json(made, read_json(making)["record"])
        making.unlink()


def read_steps(out):
    words = iter(sys.stdin.buffer.read().decode().split("\0")[:-1])
    for count in words:
        files = [next(words) for _ in range(int(count))]
        yield Step(files, [next(words) for _ in range(int(next(words)))], out)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("use", choices=["states", "adopt", "begin", "end"])
    parser.add_argument("out", help="directory of the run")
    parser.add_argument("--judge", help="the script of the made world's judge")
    args = parser.parse_args()
    steps, hashes = list(read_steps(args.out)), Hashes(args.out)
    Step.judge = args.judge if args.judge and os.path.exists(args.judge) else None
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
