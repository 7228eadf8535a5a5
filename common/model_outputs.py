"""Model directories: a model is written beside its name, and gets the name once it is whole.

The older model is renamed aside, the new one gets the name, then the older one goes: a process that is killed in
between loses neither, and the same command puts it right. What a user has put into the older one is carried over.
"""

import contextlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

from common import outputs

REPLACED = "replaced"  # NAME.partial-replaced is the older model, while the new one gets its name
CARD_TAG = "rlhf-workflow"  # in the head of a model card of ours

# Files of a model directory that was made before there was a marker; every other one is the user's.
MODEL_FILES = re.compile(
    r"config\.json|generation_config\.json|trainer_state\.json|training_args\.bin|armorm\.json|modeling_armorm\.py"
    r"|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
    r"|tokenizer\.json|tokenizer\.model|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.json|merges\.txt|chat_template\.jinja"
)


def lock_model(partial, path):
    """Make the unfinished directory of a model and lock it, as long as the file that is returned is open."""
    return outputs.open_locked(Path(partial, outputs.LOCK), path)


def recover_model(partial, path):
    """Put right what a kill while a model got its name has left; True if that model is now there, finished.

    Called under the lock of the partial one, as is publish_model.
    """
    path = Path(os.path.realpath(path))
    replaced = Path(outputs.partial_name(path, REPLACED))
    if Path(partial, outputs.MARKER).exists():
        publish_model(partial, path)
        return True
    if replaced.exists() and not path.exists():
        os.rename(replaced, path)
    return False


def publish_model(partial, path):
    """Give a finished model directory its name, in place of an older model of ours, whose other files it takes over."""
    partial, path = Path(partial), Path(os.path.realpath(path))
    replaced = Path(outputs.partial_name(path, REPLACED))
    if not outputs.replaceable_model(path):
        sys.exit(f"{path}: not a model directory of ours; what is finished is kept as {partial}")
    if not (
        partial / outputs.MARKER
    ).exists():  # from here on the model is whole, and a kill loses nothing of it
        if is_our_card(
            partial / "README.md"
        ):  # TRL's, which it writes at a checkpoint and calls by this name
            (partial / "README.md").unlink()
        own = [entry.name for entry in partial.iterdir() if not outputs.is_temporary(entry.name)]
        outputs.write_json(
            partial / outputs.MARKER, {"script": script_name(), "files": sorted(own)}
        )
    for entry in partial.iterdir():
        if outputs.is_temporary(entry.name) and entry.name != outputs.LOCK:
            outputs.remove(entry)
    if path.exists():
        carry_over(path, partial)
        if replaced.exists():  # of an earlier kill, after that model got its name
            shutil.rmtree(replaced)
        os.rename(path, replaced)
    os.rename(partial, path)
    (path / outputs.LOCK).unlink(missing_ok=True)
    outputs.remove_stale(path)


def script_name():
    """The running script by its path in the checkout, or by its name."""
    script = Path(sys.argv[0]).resolve()
    return (
        str(script.relative_to(outputs.CHECKOUT))
        if script.is_relative_to(outputs.CHECKOUT)
        else script.name
    )


def carry_over(old, new):
    """Copy into a new model directory what a user has put into the old one."""
    ours = None
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        ours = set(json.loads((old / outputs.MARKER).read_text(encoding="utf-8"))["files"])
    for entry in old.iterdir():
        if is_ours(entry, ours):
            continue
        if not os.path.lexists(new / entry.name):
            copy_whole(entry, new / outputs.COPYING, new / entry.name)


def is_ours(entry, ours):
    """Was that entry of a model directory made by a script? ours: the names that its marker tells, or None."""
    if entry.name == "README.md":
        return is_our_card(entry)
    known = MODEL_FILES.fullmatch(entry.name) if ours is None else entry.name in ours
    return bool(known) or entry.name in (outputs.MARKER, outputs.LOCK, outputs.COPYING)


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
