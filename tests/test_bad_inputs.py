"""Inputs that once ended in a traceback, were accepted silently, or destroyed files.

Each case of bad_inputs/cases.jsonl holds its command (D is its folder), its files, what is right,
and the expected exit status and message. Most are refused before a model is loaded.
"""

import hashlib
import re
import shutil

import pytest

from bad_inputs import change
from commands import ROOT, read_jsonl, run

CASES = {case["case"]: case for case in read_jsonl(ROOT / "tests/bad_inputs/cases.jsonl")}


# The model of a case, by the case's first word; else the reward model.
START = {
    "sft": "base",
    "bt": "base",
    "dpo": "sft",
    "gen": "sft",
    "kl": "sft",
    "pm": "sft",
    "interpolate": "sft",
}


def content(folder):
    """{file: digest} of everything below a folder."""
    digests = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            digests[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def prepare(case, folder, models):
    """Write the files of a case.

    models: {name: directory}; or None where no model is loaded, so that an empty one suffices.
    """
    (folder / "out.jsonl").write_text("older work\n")
    for name, text in case["files"].items():
        (folder / name).write_text(text)
    name = case["case"]
    source, change_of_model = change.OF_MODELS.get(name, (None, None))
    source = source or START.get(name.split()[0], "reward_model")
    second_source = "reward_model" if "reward model" in name else "sft"
    sources = {"m": source, "m2": second_source, "reward_model": "reward_model"}
    for copy, source in sources.items():
        if re.search(rf"(D|RUN)/{copy}\b", case["command"]):
            if models:
                shutil.copytree(models[source], folder / copy)
            else:
                (folder / copy).mkdir()
                (folder / copy / "config.json").write_text("{}")
    if change_of_model:
        change_of_model(folder / "m")
    if name in change.OF_FOLDERS:
        change.OF_FOLDERS[name](folder)


def ended(case, folder):
    """The finished command of a case; one that fails must neither change a file nor leave one."""
    before = content(folder)
    command = [re.sub(r"^(D|RUN)\b", str(folder), word) for word in case["command"].split(" ")]
    done = run(*command)
    after = content(folder)
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    if done.returncode:
        names = before.keys() | after.keys()
        changed = {name for name in names if after.get(name) != before.get(name)}
        assert not {name for name in changed if ".partial-" not in name}, changed
    return done


def check(name, folder, models=None):
    case = CASES[name]
    prepare(case, folder, models)
    done = ended(case, folder)
    printed = done.stderr if done.returncode else done.stdout + done.stderr
    printed = printed.replace(str(folder), "D")
    assert done.returncode == case["status"], printed
    assert re.search(case["says"], printed), printed
    if done.returncode and not models:
        assert len(done.stderr.splitlines()) == 1


WITHOUT_A_MODEL = [name for name, case in CASES.items() if not case.get("model")]
WITH_A_MODEL = [name for name, case in CASES.items() if case.get("model")]


@pytest.mark.parametrize("name", WITHOUT_A_MODEL)
def test_it_is_answered_before_a_model_is_loaded(name, tmp_path):
    check(name, tmp_path)


@pytest.mark.parametrize("name", WITH_A_MODEL)
def test_it_is_answered_when_the_model_is_loaded(name, tmp_path, base, sft, reward_model):
    check(name, tmp_path, {"base": base, "sft": sft, "reward_model": reward_model})
