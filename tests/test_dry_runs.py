"""The commands of the driver's dry runs: those that are recorded in tests/dry_runs."""

import os
import shlex

import pytest

from commands import run
from driving import commands
from record_dry_runs import BATCHES, RECORDS, all_cases, current, dry_run, recorded

CASES = all_cases()
QUICK = {"RECIPE": "recipes/llama3_8b_quick.sh", "GPUS": "8"}


def value(words, flag):
    """The word after the last such flag: the scripts, too, take the last of two."""
    position = len(words) - words[::-1].index(flag)
    return words[position]


def in_rounds(checkout, step, **variables):
    """The words of the commands of a step of the three rounds."""
    done = dry_run(checkout, **QUICK | variables)
    assert done.returncode == 0, done.stderr
    step_commands = commands(done.stdout)
    return [step_commands[f"iter{t}/{step}"] for t in (1, 2, 3)]


@pytest.mark.parametrize("name", CASES)
def test_a_dry_run_has_the_recorded_commands(checkout, name):
    """Where a change is meant, python tests/record_dry_runs.py writes the records anew."""
    assert current(checkout, CASES[name]) == recorded(CASES, name)


def test_there_is_no_other_record():
    files = {str(path.relative_to(RECORDS)) for path in RECORDS.rglob("*.*")}
    assert files == {f"{name}.txt" for name in CASES}


def test_the_scripts_take_the_recorded_commands():
    """By the driver's own check, which parses commands that differ in paths alone once."""
    steps = []
    for name in CASES:
        for step, step_commands in recorded(CASES, name):
            for command in step_commands:
                words = shlex.split(command)
                steps += ["1", step, str(len(words)), *words]
    # An address for the world's judge.
    environment = {**os.environ, "OPENAI_BASE_URL": "http://localhost"}
    listing = "".join(f"{word}\0" for word in steps)
    done = run("driver/arguments.py", input=listing, env=environment)
    assert done.returncode == 0, done.stderr


# An optimiser's file holds its source's values, for every policy; tuning belongs to recipes.


def test_a_method_has_its_sources_values_with_any_recipe(checkout):
    xpo = in_rounds(checkout, "policy", OPTIMISER="xpo")
    assert {value(words, "--optimism") for words in xpo} == {"1e-5"}
    sppo = in_rounds(checkout, "policy", OPTIMISER="sppo")
    assert {value(words, "--beta") for words in sppo} == {"0.001"}
    selm = in_rounds(checkout, "policy", OPTIMISER="selm")
    assert {value(words, "--optimism") for words in selm} == {"1e-4"}
    assert {value(words, "--beta") for words in selm} == {"0.01"}
    assert [value(words, "--learning_rate") for words in selm] == ["5e-7", "3e-7", "1e-7"]
    out = "runs/recorded"
    expected = ["RLHFlow/LLaMA3-SFT", f"{out}/iter1/policy", f"{out}/iter2/policy"]
    scored = in_rounds(checkout, "pairs_reference", OPTIMISER="selm", GPUS="1")
    assert [value(words, "--model_name_or_path") for words in scored] == expected
    annotator = {"PREFERENCE_MODEL": "RLHFlow/pair-preference-model-LLaMA3-8B"}
    sampled = in_rounds(checkout, "responses", OPTIMISER="ipo_md", GPUS="1", **annotator)
    assert {value(words, "--n") for words in sampled} == {"2"}
    assert {value(words, "--temperatures") for words in sampled} == {"1.0"}
    assert {value(words, "--mixture_coefficient") for words in sampled} == {"0.5"}


@pytest.mark.parametrize("name", ["xpo", "selm", "sppo"])
def test_a_method_brings_no_tuning_of_the_tiny_world(checkout, name):
    done = dry_run(checkout, **QUICK, OPTIMISER=name)
    assert value(commands(done.stdout)["iter1/pairs"], "--length_penalty") == "0"


def test_a_variable_of_the_caller_without_effect_is_refused(checkout):
    done = dry_run(checkout, **QUICK, OPTIMISER="kto", DPO_LOSS="ipo")
    assert done.returncode == 1
    assert not done.stdout
    assert done.stderr == "run_loop.sh: DPO_LOSS=ipo: without effect with OPTIMISER=kto\n"


@pytest.mark.parametrize(
    "variable, step",
    [
        ("SFT_OPTIONS", "sft"),
        ("RM_OPTIONS", "reward_model"),
        ("PM_OPTIONS", "preference_model"),
        ("DPO_OPTIONS", "iter1/policy"),
    ],
)
def test_a_flag_of_the_users_stands_after_the_drivers(checkout, variable, step):
    done = dry_run(checkout, GPUS="8", **BATCHES, **{variable: "--save_strategy no"})
    assert commands(done.stdout)[step][-2:] == ["--save_strategy", "no"]
