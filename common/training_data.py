"""The examples of a training: made once by the first process, on disk, memory-mapped by all.

Nobody holds all rows. The first process reads a batch of them at a time, has it tokenised, here or
by --dataset_num_proc processes, and appends its examples to a file in output_dir, which by then is
the unfinished folder of `training.begin`. Pages of that file are the operating system's to drop. A
resumed run finds the file again.
"""

import collections
import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from common import outputs, progress, rows, training_arguments

# Types of columns; in a list: one value for each token.
TOKEN_IDS = ["int32"]
MASK = ["int8"]

EXAMPLES_FILE = "examples.arrow"
BATCH = 256  # rows that are tokenised at a time
SECONDS = 10  # between two lines of progress
TASK = []  # in a process of by_processes: the function that it runs


# Rows


@dataclass
class Source:
    """Rows, or what examples are made of, that are read anew whenever they are needed."""

    read: Callable  # gives an iterator over all of them
    first: rows.Row | None
    total: int | None  # rows in all; None in the other processes than the first


def checked(read, training_args):
    """The Source of read, a function that gives an iterator over rows and refuses a bad one.

    The first process reads all rows, so that a bad one is refused before a model is loaded.
    """
    all_rows = read()
    first = next(all_rows)
    if training_args.process_index > 0:
        return Source(read, first, None)
    return Source(read, first, 1 + sum(1 for _ in all_rows))


# Examples


def stored(name, source, encode, columns, training_args, check=None):
    """(dataset of the examples of all rows, counts), in the order of the rows.

    name: of the folder. Call it after training.begin.
    encode: a function of a list of rows; returns (list of their examples, Counter).
    columns: {field of an example: the type of its values}.
    check: a function of the counts, which may refuse them.
    The counts are encode's, with "rows in" and "rows out".
    """
    # A name that `training.finish` leaves out of the model. (Not "checkpoint-*": of these
    # transformers deletes the oldest at each save.)
    folder = Path(training_args.output_dir, f"{outputs.EXAMPLES}{name}")
    if training_args.process_index == 0 and not folder.exists():
        with removing_a_refused_run(folder.parent):
            write(folder, source, encode, columns, training_args.dataset_num_proc or 1, check)
    wait_for(folder, training_args.ddp_timeout)
    return load(folder)


def load(folder):
    """(memory-mapped dataset, counts). What TRL makes of the dataset is cached beside it."""
    from datasets import Dataset

    counts = json.loads((folder / "counts.json").read_text())
    return Dataset.from_file(str(folder / EXAMPLES_FILE)), Counter(counts)


def wait_for(folder, patience):
    """Wait for the first process, without a collective: its time would be limited as a whole.

    patience: seconds in which something has to be written (--ddp_timeout).
    """
    file = unfinished_name(folder) / EXAMPLES_FILE
    size = None
    last_growth = time.time()
    while not folder.exists():
        if not folder.parent.exists():
            sys.exit(f"{folder.parent}: the first process has given it up, or it is not shared")
        with contextlib.suppress(OSError):
            if file.stat().st_size != size:
                size = file.stat().st_size
                last_growth = time.time()
        if time.time() - last_growth > patience:
            sys.exit(f"{folder}: the first process has written nothing for {patience} s")
        time.sleep(0.1)


def unfinished_name(folder):
    return folder.with_name(f"{folder.name}-unfinished")


def write(folder, source, encode, columns, processes, check):
    """Make the folder of `load`, which has its name only when it is whole."""
    from datasets.arrow_writer import ArrowWriter

    unfinished = unfinished_name(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    features = features_of(columns)
    encode_table = functools.partial(as_table, encode, features.arrow_schema)
    counts = Counter()
    try:
        with ArrowWriter(path=str(unfinished / EXAMPLES_FILE), features=features) as writer:
            for table, counts_of_batch in encoded_batches(source, encode_table, processes):
                writer.write_table(table)
                counts.update(counts_of_batch)
            writer.finalize()
        with open(unfinished / EXAMPLES_FILE, "rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        sys.exit(f"{unfinished}: {error.strerror or error}")
    if check:
        check(counts)
    outputs.write_json(unfinished / "counts.json", counts)
    unfinished.rename(folder)


def features_of(columns):
    """The Features of datasets for these types of columns."""
    from datasets import Features, List, Value

    features = {}
    for name, kind in columns.items():
        features[name] = List(Value(kind[0])) if isinstance(kind, list) else Value(kind)
    return Features(features)


def as_table(encode, schema, batch):
    """(Arrow table of a batch's examples, counts): less memory than the examples themselves."""
    import pyarrow

    examples, counts = encode(batch)
    counts["rows in"] += len(batch)
    counts["rows out"] += len(examples)
    return pyarrow.Table.from_pylist(examples, schema=schema), counts


@contextlib.contextmanager
def removing_a_refused_run(output_dir):
    """A refusal within removes the unfinished folder, unless a training has begun in it."""
    try:
        yield
    except SystemExit:
        if not any(output_dir.glob("checkpoint-*/trainer_state.json")):
            # On NFS the lock, which is open, keeps a name in the folder until the program ends.
            shutil.rmtree(output_dir, ignore_errors=True)
        raise


def keep_examples(training_args):
    """Before SFTTrainer is built on stored examples: it must neither cut them nor share them out.

    It would copy all of them to cut them to --max_length, which they have already. Packed by
    several processes, the blocks would depend on how many these are.
    """
    training_args.dataset_num_proc = None
    if not (training_args.packing or training_args.eval_packing):
        training_args.max_length = None


# Batches and processes


def encoded_batches(source, function, processes):
    """Yield what a function makes of each batch of rows, in their order; show progress."""
    tokenising = progress.Progress(source.total, "rows tokenised")
    next_line = SECONDS
    done = 0
    for result in by_processes(function, batches(source.read()), processes):
        yield result
        done = min(done + BATCH, source.total)
        if tokenising.seconds() > next_line:
            tokenising.show(done)
            next_line = tokenising.seconds() + SECONDS


def batches(all_rows):
    """Yield lists of BATCH rows."""
    while batch := list(itertools.islice(all_rows, BATCH)):
        yield batch


def by_processes(function, arguments, processes):
    """Yield function(argument) of each argument, in their order; an exit within ends the program.

    Two arguments a process are read ahead. (The pools of multiprocessing read all of them ahead,
    and never end after a worker's exit.)
    """
    if processes == 1:
        yield from map(function, arguments)
        return
    # Else the tokenizers warn that they were forked after they had used threads.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Forks have the function, with its tokenizer, at no cost.
    fork = multiprocessing.get_context("fork")
    try:
        with ProcessPoolExecutor(processes, fork, begin_worker, (function,)) as pool:
            pending = collections.deque()
            for argument in arguments:
                pending.append(pool.submit(run_task, argument))
                if len(pending) > 2 * processes:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
    except BrokenProcessPool:
        sys.exit("--dataset_num_proc: one of its processes was killed; is the memory full?")


def begin_worker(function):
    TASK.append(function)
    # A worker ends with its parent, even after a SIGKILL; Ctrl-C is the parent's to answer.
    training_arguments.die_with_the_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_task(argument):
    return TASK[-1](argument)
