"""The steps of a run as driver/steps.sh lists them: what each reads, and what its record says.

For records.py and arguments.py.
"""

import itertools
import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from contents import ROOT, code_hash, is_ours

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
        """Is it a folder that holds the run, or all of this checkout? Each step changes it."""
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
            name = "--" + flag.removeprefix("--").replace("-", "_")  # TRL takes both
            if name in BATCH_FLAGS and word:
                if not word.isdecimal():
                    sys.exit(f"run_loop.sh: {self.name}: {flag} {word}: not a whole number")
                batch[name] = int(word)  # of two the last counts
            elif name in RUNTIME_FLAGS:
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
    for position, word in enumerate(command):
        if word.endswith(".py"):
            return position
    sys.exit(f"run_loop.sh: {' '.join(command)}: no script FILE.py, which a step has to have")


def read_commands():
    """Yields (files, command) of every step on standard input."""
    words = iter(sys.stdin.buffer.read().decode().split("\0")[:-1])
    for count in words:
        files = list(itertools.islice(words, int(count)))
        length = int(next(words))
        yield files, list(itertools.islice(words, length))
