"""Model directories: a model is written beside its final name, and renamed when it is complete.

The older model is renamed aside, the new one gets the name, then the older one is removed. A kill
in between loses neither, and the same command puts it right. What a user has put into the directory
of the older model is carried over.
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

# Files of a model directory from before there was a marker; every other one is the user's.
MODEL_FILES = re.compile(
    r"config\.json|generation_config\.json|trainer_state\.json|training_args\.bin"
    r"|armorm\.json|modeling_armorm\.py"
    r"|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
    r"|tokenizer\.json|tokenizer\.model|tokenizer_config\.json"
    r"|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.json|merges\.txt|chat_template\.jinja"
)


def lock_model(partial, path):
    """Make the unfinished directory of a model and lock it, until the returned file is closed."""
    return outputs.open_locked(Path(partial, outputs.LOCK), path)


def recover_model(partial, path):
    """Put right what a kill during publishing has left; True if the model is published now.

    Called under the lock of the partial model, as is publish_model.
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
    """Give a finished model directory its name, in place of an older model of ours.

    The user's files in the older model are carried over.
    """
    partial = Path(partial)
    path = Path(os.path.realpath(path))
    replaced = Path(outputs.partial_name(path, REPLACED))
    if not outputs.replaceable_model(path):
        sys.exit(f"{path}: not a model directory of ours; what is finished is kept as {partial}")
    if not (partial / outputs.MARKER).exists():
        mark(partial)
    # From here on the partial model is complete: after a kill recover_model publishes it.
    for entry in partial.iterdir():
        if outputs.is_temporary(entry.name) and entry.name != outputs.LOCK:
            outputs.remove(entry)
    if path.exists():
        carry_over(path, partial)
        # Left by an earlier kill, after that model had got its name.
        if replaced.exists():
            shutil.rmtree(replaced)
        os.rename(path, replaced)
    os.rename(partial, path)
    (path / outputs.LOCK).unlink(missing_ok=True)
    outputs.remove_stale(path)


def mark(partial):
    """Write the marker of a complete model: its script and the names of our files."""
    # TRL writes a card at each checkpoint, which calls the model by its unfinished name.
    card = partial / "README.md"
    if is_our_card(card):
        card.unlink()
    files = []
    for entry in partial.iterdir():
        if not outputs.is_temporary(entry.name):
            files.append(entry.name)
    marker = {"script": script_name(), "files": sorted(files)}
    outputs.write_json(partial / outputs.MARKER, marker)


def script_name():
    """The running script by its path in the checkout, or by its name."""
    script = Path(sys.argv[0]).resolve()
    if script.is_relative_to(outputs.CHECKOUT):
        return str(script.relative_to(outputs.CHECKOUT))
    return script.name


def carry_over(old, new):
    """Copy into a new model directory what a user has put into the old one."""
    marked_files = None
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        marker = json.loads((old / outputs.MARKER).read_text(encoding="utf-8"))
        marked_files = set(marker["files"])
    for entry in old.iterdir():
        target = new / entry.name
        if not is_ours(entry, marked_files) and not os.path.lexists(target):
            copy_atomically(entry, new / outputs.COPYING, target)


def is_ours(entry, marked_files):
    """Was that entry of a model directory made by a script?

    marked_files: the names in the directory's marker, or None if it has none.
    """
    if entry.name == "README.md":
        return is_our_card(entry)
    if entry.name in (outputs.MARKER, outputs.LOCK, outputs.COPYING):
        return True
    if marked_files is None:
        return MODEL_FILES.fullmatch(entry.name) is not None
    return entry.name in marked_files


def copy_atomically(source, unfinished, target):
    """Copy a file, a link or a directory; a kill never leaves a part of it as `target`."""
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, unfinished, symlinks=True)
    else:
        shutil.copy2(source, unfinished, follow_symlinks=False)
    os.rename(unfinished, target)


def is_our_card(path):
    """Is that a model card of ours or of TRL? It describes the weights that are replaced."""
    if path.name != "README.md" or not path.is_file():
        return False
    head = path.read_text(encoding="utf-8", errors="replace")[:2000]
    return CARD_TAG in head or "generated_from_trainer" in head
