"""Inputs that once ended in a traceback, were accepted in silence, or cost files: bad_inputs/cases.jsonl.

Each case holds its command (D is its folder), its files, what is right, and the exit status and the words that are
expected now. Those that are refused before a model is loaded run with the other tests; the rest, marked slow, by
`bash tests/bad_models.sh`.
"""

import hashlib
import re
import shutil

import pytest

from bad_inputs import change
from commands import ROOT, read_jsonl, run

CASES = {case["case"]: case for case in read_jsonl(ROOT / "tests/bad_inputs/cases.jsonl")}


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
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def prepare(case, folder, models):
    """The files of a case; models: {name: directory}, or None where no model is loaded: then a name has to do."""
    (folder / "out.jsonl").write_text("older work\n")
    for name, text in case["files"].items():
        (folder / name).write_text(text)
    source, changed = change.OF_MODELS.get(case["case"], (None, None))
    source = source or START.get(case["case"].split()[0], "reward_model")
    copies = {"m": source, "m2": "reward_model" if "reward model" in case["case"] else "sft"}
    for copy, source in {**copies, "reward_model": "reward_model"}.items():
        if re.search(rf"(D|RUN)/{copy}\b", case["command"]):
            if models:
                shutil.copytree(models[source], folder / copy)
            else:
                (folder / copy).mkdir()
                (folder / copy / "config.json").write_text("{}")
    if changed:
        changed(folder / "m")
    if case["case"] in change.OF_FOLDERS:
        change.OF_FOLDERS[case["case"]](folder)


def told(case, folder):
    """How the command of a case ended, which must not have touched a file that was there, or left a new one."""
    before = content(folder)
    names = {"D": folder, "RUN": folder}
    command = [
        re.sub(r"^(D|RUN)\b", lambda found: str(names[found[0]]), word)
        for word in case["command"].split(" ")
    ]
    done = run(*command)
    after = content(folder)
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    if done.returncode:
        changed = {
            name for name in before.keys() | after.keys() if after.get(name) != before.get(name)
        }
        assert not {name for name in changed if ".partial-" not in name}, changed
    return done


def check(name, folder, models=None):
    case = CASES[name]
    prepare(case, folder, models)
    done = told(case, folder)
    said = (done.stderr if done.returncode else done.stdout + done.stderr).replace(str(folder), "D")
    assert done.returncode == case["status"] and re.search(case["says"], said), said
    if done.returncode and not models:
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.get("model")])
def test_it_is_answered_before_a_model_is_loaded(name, tmp_path):
    check(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.get("model")])
def test_it_is_answered_when_the_model_is_loaded(name, tmp_path, base, sft, reward_model):
    check(name, tmp_path, {"base": base, "sft": sft, "reward_model": reward_model})
