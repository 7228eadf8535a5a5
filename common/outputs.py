"""Where results go: what an output may be called, and files that are written atomically.

Unfinished work is called NAME.partial-SOMETHING, beside its final name. A file replaces only a
file; a model replaces only a model directory of ours, which .made_by.json marks, or an empty one.
model_outputs.py publishes models.
"""

import contextlib
import fcntl
import glob
import io
import json
import os
import shutil
import sys
from pathlib import Path

# In a model directory: the script that made it, and the names of the files that are ours.
MARKER = ".made_by.json"
# In an unfinished model: held by the process that makes it.
LOCK = ".lock"
EXAMPLES = "examples-"  # beginning of the names of folders with tokenised rows
# In an unfinished model: what is being copied from the older one.
COPYING = ".copying"
CHECKOUT = Path(__file__).resolve().parents[1]


def partial_name(path, resume):
    """The name of unfinished work: beside the file itself where `path` is a link to it."""
    return f"{os.path.realpath(path)}.partial-{resume}"


# What an output may be called


def problem(output, kind, inputs):
    """Why a file, folder or model must not be written under that name, or None.

    kind: "file"; "model", a directory that is replaced; "folder", which files are written into.
    inputs: the paths that the same command reads.
    """
    try:
        return problem_of_name(output, kind, inputs)
    except OSError as error:  # a name that is too long, a directory that cannot be read
        return f"{output}: {error.strerror}"


def problem_of_name(output, kind, inputs):
    if not str(output).strip():
        return "empty (a variable that is not set?)"
    path = Path(os.path.realpath(output))
    if path in (Path("/"), Path.home(), Path.cwd(), CHECKOUT):  # places that hold everything
        return f"{output}: not a place for results"
    if kind == "folder":
        return problem_of_folder(output, path)
    if any(path == Path(os.path.realpath(name)) for name in inputs):
        return f"{output}: an input of the same command, which would be overwritten"
    if kind == "file":
        return problem_of_file(output, path, inputs)
    return problem_of_model(output, path, inputs)


def problem_of_folder(output, path):
    if path.exists() and not path.is_dir():
        return f"{output}: a file, a directory is needed"
    return None


def problem_of_file(output, path, inputs):
    if path.suffix == ".gz":
        return f"{output}: nothing is gzipped here; give a name without .gz"
    if not path.exists():
        return None
    if not path.is_file():
        return f"{output}: there is something that is not a file"
    for name in inputs:
        is_model = Path(name, "config.json").exists()
        if is_model and path.is_relative_to(os.path.realpath(name)):
            return (
                f"{output}: a file of {name}, an input of the same command, "
                "which would be overwritten"
            )
    return None


def problem_of_model(output, path, inputs):
    for name in [*inputs, Path.home(), Path.cwd(), CHECKOUT]:
        if Path(os.path.realpath(name)).is_relative_to(path):
            return f"{output}: it holds {name}, which would be deleted"
    if not replaceable_model(path):
        return f"{output}: not a model directory of ours; give a new or an empty one"
    return None


def replaceable_model(path):
    """Is there nothing, an empty directory, or a model directory of ours?"""
    if not path.exists():
        return True
    if not path.is_dir():
        return False
    # A model of ours from before there was a marker.
    unmarked = (path / "config.json").exists() and (path / "trainer_state.json").exists()
    return (path / MARKER).exists() or unmarked or not any(path.iterdir())


def table_beside(output, head):
    """The path of the Markdown table beside an output file.

    If a file of that name exists, it has to begin with this table's head; else the program ends.
    """
    path = Path(output).with_suffix(".md")
    if path.exists() and not path.read_bytes().startswith(head.encode()):
        sys.exit(
            f"{path}: not a table of this script, which would be overwritten; "
            "give another --output_file"
        )
    return path


# Locks


def locked(file):
    """Take the lock of an open file, until it is closed; False if another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def open_locked(name, path):
    """The file of that name, open to read and append, and locked. path: the output, for messages.

    A lock that another process holds ends the program.
    """
    try:
        while True:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            file = open(name, "a+b", buffering=0)
            if not locked(file):
                sys.exit(f"{path}: another process is writing it")
            if still_named(file, name):
                return file
            # Between open and lock another process finished and renamed this file, or its
            # directory: the lock is of the finished file. Try again.
            file.close()
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")


def still_named(file, name):
    """Is the open file still the one of that name?"""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(name))
    return False


# Files


def open_partial(path, resume, keep):
    """The unfinished file of `path`, open to read and append, and locked.

    keep: its content stays; else it is emptied. The same command, run twice at once, is refused.
    """
    file = open_locked(partial_name(path, resume), path)
    if not keep:
        file.truncate(0)
    return file


def publish_file(partial, path):
    """Give a finished file its name, in place of an older file."""
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        sys.exit(
            f"{path}: there is something that is not a file; what is finished is kept as {partial}"
        )
    os.replace(partial, path)
    remove_stale(path)


def write_fully(file, data):
    """Write all bytes to an unbuffered file, which may take fewer at a time."""
    remaining = memoryview(data)
    while remaining:
        count = file.write(remaining)
        remaining = remaining[count:]


def write_bytes(path, data):
    """Write a file atomically: all of it, or nothing."""
    partial = partial_name(path, "new")
    with open_partial(path, "new", keep=False) as file:
        try:
            write_fully(file, data)
            os.fsync(file.fileno())
        except OSError as error:
            os.unlink(partial)
            sys.exit(f"{path}: {error.strerror}")
        publish_file(partial, path)


def write_text(path, text):
    write_bytes(path, text.encode(errors="replace"))


def write_json(path, content):
    """A JSON file; a number that is not finite ends the program, since JSON has none."""
    try:
        text = json.dumps(content, indent=2, allow_nan=False)
    except ValueError:
        sys.exit(f"{path}: a number is not finite, which no result may be")
    write_text(path, text + "\n")


def write_figure(path, figure, **options):
    """A figure of matplotlib as a PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", **options)
    write_bytes(path, picture.getvalue())


# Unfinished work of earlier commands


def remove_stale(path):
    """Remove unfinished work of earlier commands under this name, unless a process holds it."""
    for name in glob.glob(f"{glob.escape(str(path))}.partial-*"):
        stale = Path(name)
        # What cannot be removed stays: the output itself is finished.
        with contextlib.suppress(OSError):
            if is_unfinished(stale):
                remove_unlocked(stale)


def remove_unlocked(stale):
    """Remove a partial file or model, unless another process has its lock."""
    lock = stale / LOCK if stale.is_dir() else stale
    if not lock.exists():
        remove(stale)
        return
    with open(lock, "r+b") as file:
        if locked(file):
            remove(stale)


def is_unfinished(path):
    """Does that NAME.partial-... hold what a script leaves: rows, a model, checkpoints, nothing?

    Else it is the user's, by its content.
    """
    if not path.is_dir():
        with open(path, "rb") as file:
            return path.name.endswith(".partial-new") or file.read(1) in (b"", b"{")
    names = [entry.name for entry in path.iterdir()]
    if not names:
        return True
    return any(is_temporary(name) or name in (MARKER, "config.json") for name in names)


def is_temporary(name):
    """Is that file of an unfinished model removed when the model is published?"""
    return name.startswith(("checkpoint-", EXAMPLES)) or name in (LOCK, COPYING)


def remove(path):
    """Remove a file, a link or a directory with its content."""
    if path.is_dir() and not path.is_symlink():
        # On NFS a file that a process still maps keeps a name in the directory until it ends.
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()
