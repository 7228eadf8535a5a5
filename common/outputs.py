"""Where results go: a file or a model is written beside its name, and gets the name once it is whole.

Unfinished work is called NAME.partial-SOMETHING. A file replaces only a file. A model replaces only a model directory
of ours, which the file .made_by.json tells, or an empty directory. The older model is renamed aside, the new one gets
the name, then the older one goes: a process that is killed in between loses neither, and the same command puts it
right.
"""

import contextlib
import fcntl
import glob
import json
import os
import re
import shutil
import sys
from pathlib import Path

MARKER = ".made_by.json"  # in a model directory: the script that made it, and the names of the files that are ours
REPLACED = "replaced"  # NAME.partial-replaced is the older model, while the new one gets its name
LOCK = ".lock"  # in an unfinished model, held by the process that makes it
COPYING = ".copying"  # in an unfinished model, what is being copied from the older one
CARD_TAG = "rlhf-workflow"  # in the head of a model card of ours
CHECKOUT = Path(__file__).resolve().parents[1]

# Files of a model directory that was made before there was a marker; every other one is the user's.
MODEL_FILES = re.compile(
    r"config\.json|generation_config\.json|trainer_state\.json|training_args\.bin|armorm\.json|modeling_armorm\.py"
    r"|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
    r"|tokenizer\.json|tokenizer\.model|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.json|merges\.txt|chat_template\.jinja"
)


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
        return f"{output}: a file, a directory is needed" if path.exists() and not path.is_dir() else None
    if any(path == Path(os.path.realpath(name)) for name in inputs):
        return f"{output}: an input of the same command, which would be overwritten"
    if kind == "file":
        if path.exists() and not path.is_file():
            return f"{output}: there is something that is not a file"
        for name in inputs:
            of_model = Path(name, "config.json").exists() and path.is_relative_to(os.path.realpath(name))
            if of_model and path.exists():
                return f"{output}: a file of {name}, an input of the same command, which would be overwritten"
        return None
    held = [*inputs, Path.home(), Path.cwd(), CHECKOUT]
    if inside := [name for name in held if Path(os.path.realpath(name)).is_relative_to(path)]:
        return f"{output}: it holds {inside[0]}, which would be deleted"
    return None if replaceable_model(path) else f"{output}: not a model directory of ours; give a new or an empty one"


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
        sys.exit(f"{path}: not a table of this script, which would be overwritten; give another --output_file")
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
        sys.exit(f"{path}: there is something that is not a file; what is finished is kept as {partial}")
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


def is_unfinished(path):
    """Does that NAME.partial-... hold what a script leaves: rows, a model or its checkpoints, or nothing?"""
    if path.is_dir():
        names = [entry.name for entry in path.iterdir()]
        return not names or any(is_temporary(name) or name in (MARKER, "config.json") for name in names)
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


# Models


def lock_model(partial, path):
    """Make the unfinished directory of a model and lock it, as long as the file that is returned is open."""
    return open_locked(Path(partial, LOCK), path)


def recover_model(partial, path):
    """Put right what a kill while a model got its name has left; True if that model is now there, finished.

    Called under the lock of the partial one, as is publish_model.
    """
    path = Path(os.path.realpath(path))
    replaced = Path(partial_name(path, REPLACED))
    if Path(partial, MARKER).exists():
        publish_model(partial, path)
        return True
    if replaced.exists() and not path.exists():
        os.rename(replaced, path)
    return False


def publish_model(partial, path):
    """Give a finished model directory its name, in place of an older model of ours, whose other files it takes over."""
    partial, path = Path(partial), Path(os.path.realpath(path))
    replaced = Path(partial_name(path, REPLACED))
    if not replaceable_model(path):
        sys.exit(f"{path}: not a model directory of ours; what is finished is kept as {partial}")
    if not (partial / MARKER).exists():  # from here on the model is whole, and a kill loses nothing of it
        if is_our_card(partial / "README.md"):  # TRL's, which it writes at a checkpoint and calls by this name
            (partial / "README.md").unlink()
        own = [entry.name for entry in partial.iterdir() if not is_temporary(entry.name)]
        write_json(partial / MARKER, {"script": script_name(), "files": sorted(own)})
    for entry in partial.iterdir():
        if is_temporary(entry.name) and entry.name != LOCK:
            remove(entry)
    if path.exists():
        carry_over(path, partial)
        if replaced.exists():  # of an earlier kill, after that model got its name
            shutil.rmtree(replaced)
        os.rename(path, replaced)
    os.rename(partial, path)
    (path / LOCK).unlink(missing_ok=True)
    remove_stale(path)


def is_temporary(name):
    """Does that file of an unfinished model go when it is published?"""
    return name.startswith("checkpoint-") or name in (LOCK, COPYING)


def script_name():
    """The running script by its path in the checkout, or by its name."""
    script = Path(sys.argv[0]).resolve()
    return str(script.relative_to(CHECKOUT)) if script.is_relative_to(CHECKOUT) else script.name


def carry_over(old, new):
    """Copy into a new model directory what a user has put into the old one."""
    ours = None
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        ours = set(json.loads((old / MARKER).read_text(encoding="utf-8"))["files"])
    for entry in old.iterdir():
        if is_ours(entry, ours):
            continue
        if not os.path.lexists(new / entry.name):
            copy_whole(entry, new / COPYING, new / entry.name)


def is_ours(entry, ours):
    """Was that entry of a model directory made by a script? ours: the names that its marker tells, or None."""
    if entry.name == "README.md":
        return is_our_card(entry)
    known = MODEL_FILES.fullmatch(entry.name) if ours is None else entry.name in ours
    return bool(known) or entry.name in (MARKER, LOCK, COPYING)


def copy_whole(source, unfinished, target):
    """Copy a file, a link or a directory; under its name it is whole, whenever this process is killed."""
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, unfinished, symlinks=True)
    else:
        shutil.copy2(source, unfinished, follow_symlinks=False)
    os.rename(unfinished, target)


def is_our_card(path):
    """Is that a model card which a script has written, ours or TRL's? It tells of other weights."""
    if path.name != "README.md" or not path.is_file():
        return False
    head = path.read_text(encoding="utf-8", errors="replace")[:2000]
    return CARD_TAG in head or "generated_from_trainer" in head
