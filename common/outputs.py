"""Where results go: what an output may be called, and files that are written whole or not at all.

Unfinished work is called NAME.partial-SOMETHING, beside the name that it gets when it is whole. A file replaces only a
file, a model only a model directory of ours (.made_by.json tells) or an empty one: model_outputs.py publishes models.
"""

import contextlib
import fcntl
import glob
import json
import os
import shutil
import sys
from pathlib import Path

MARKER = ".made_by.json"  # in a model directory: the script that made it, and the names of the files that are ours
LOCK = ".lock"  # in an unfinished model, held by the process that makes it
COPYING = ".copying"  # in an unfinished model, what is being copied from the older one
CHECKOUT = Path(__file__).resolve().parents[1]


def partial_name(path, resume):
    """The name of unfinished work: beside the file itself where `path` is a link to it."""
    return f"{os.path.realpath(path)}.partial-{resume}"


# What an output may be called


def problem(output, kind, inputs):
    """Why a file, folder or model must not be written under that name, or None.

    kind: "file"; "model", a directory that is replaced as a whole; "folder", one that files are written into. inputs:
    the paths that the same command reads.
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
        return (
            f"{output}: a file, a directory is needed"
            if path.exists() and not path.is_dir()
            else None
        )
    if any(path == Path(os.path.realpath(name)) for name in inputs):
        return f"{output}: an input of the same command, which would be overwritten"
    if kind == "file":
        if path.suffix == ".gz":
            return f"{output}: nothing is gzipped here; give a name without .gz"
        if path.exists() and not path.is_file():
            return f"{output}: there is something that is not a file"
        for name in inputs:
            of_model = Path(name, "config.json").exists() and path.is_relative_to(
                os.path.realpath(name)
            )
            if of_model and path.exists():
                return f"{output}: a file of {name}, an input of the same command, which would be overwritten"
        return None
    held = [*inputs, Path.home(), Path.cwd(), CHECKOUT]
    if inside := [name for name in held if Path(os.path.realpath(name)).is_relative_to(path)]:
        return f"{output}: it holds {inside[0]}, which would be deleted"
    return (
        None
        if replaceable_model(path)
        else f"{output}: not a model directory of ours; give a new or an empty one"
    )


def replaceable_model(path):
    """Is there nothing, an empty directory, or a model directory of ours?"""
    if not path.exists():
        return True
    if not path.is_dir():
        return False
    unmarked = (path / "config.json").exists() and (path / "trainer_state.json").exists()
    return (path / MARKER).exists() or unmarked or not any(path.iterdir())


def table_beside(output, head):
    """The path of the table in Markdown beside an output file; one that is there has to begin with that head."""
    path = Path(output).with_suffix(".md")
    if path.exists() and not path.read_bytes().startswith(head.encode()):
        sys.exit(
            f"{path}: not a table of this script, which would be overwritten; give another --output_file"
        )
    return path


# Files


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
    """The file of that name, open to read and append, and locked. path: the output, for the messages."""
    try:
        while True:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            file = open(name, "a+b", buffering=0)
            if not locked(file):
                sys.exit(f"{path}: another process is writing it")
            if still_named(file, name):
                return file
            file.close()  # the other process has just finished, and given this file, or its directory, another name
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")


def still_named(file, name):
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(name))
    return False


def open_partial(path, resume, keep):
    """The unfinished file of `path`, open to read and append, and locked: the same command at once is refused."""
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


def remove_stale(path):
    """Remove what earlier commands left unfinished under this name, but not what another process is writing."""
    for name in glob.glob(f"{glob.escape(str(path))}.partial-*"):
        stale = Path(name)
        lock = stale / LOCK if stale.is_dir() else stale
        with contextlib.suppress(OSError):  # what cannot be removed stays: the work itself is done
            if not is_unfinished(stale):
                continue
            if not lock.exists():
                remove(stale)
                continue
            with open(lock, "r+b") as file:
                if locked(file):
                    remove(stale)


def is_temporary(name):
    """Does that file of an unfinished model go when it is published?"""
    return name.startswith("checkpoint-") or name in (LOCK, COPYING)


def is_unfinished(path):
    """Does that NAME.partial-... hold what a script leaves: rows, a model or its checkpoints, or nothing?"""
    if path.is_dir():
        names = [entry.name for entry in path.iterdir()]
        return not names or any(
            is_temporary(name) or name in (MARKER, "config.json") for name in names
        )
    with open(path, "rb") as file:
        return path.name.endswith(".partial-new") or file.read(1) in (b"", b"{")


def remove(path):
    """Remove a file, a link or a whole directory."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def write_bytes(path, data):
    """Write a file whole, or not at all."""
    with open_partial(path, "new", keep=False) as file:
        try:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError as error:
            os.unlink(partial_name(path, "new"))
            sys.exit(f"{path}: {error.strerror}")
        publish_file(partial_name(path, "new"), path)


def write_text(path, text):
    write_bytes(path, text.encode(errors="replace"))


def write_json(path, content):
    """A JSON file, whole; a number that is not finite ends the program, since JSON has none."""
    try:
        text = json.dumps(content, indent=2, allow_nan=False)
    except ValueError:
        sys.exit(f"{path}: a number is not finite, which no result may be")
    write_text(path, text + "\n")


def write_figure(path, figure, **options):
    """A figure of matplotlib as a PNG, whole."""
    import io

    picture = io.BytesIO()
    figure.savefig(picture, format="png", **options)
    write_bytes(path, picture.getvalue())
