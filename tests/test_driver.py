"""run_loop.sh before its first step: what it refuses, and what it would run."""

import contextlib
import itertools
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from commands import ROOT, write_jsonl
from driving import commands, drive, drive_warm, recipe, shards, steps
from scripted_hub import machine

MADE = (
    "tiny",
    "smollm2",
)  # recipes whose models and data the project makes; the others take them from the hub

# What it refuses before it starts, and what it would run


NO_VALUE = "not a value: a word, or a text in quotes, with $NAME of known variables"


@pytest.mark.parametrize(
    ("first_line", "reason"),
    [
        ("LERNING_RATE=1e-4", "LERNING_RATE: run_loop.sh has no such variable"),
        ("LEARNING_RATE=1e-4", "LEARNING_RATE: now DPO_LEARNING_RATE"),
        (': "${N:=4}"', "not of the form NAME=value"),
        ("export N=4", "not of the form NAME=value"),
        ("N=4; rm -r runs", f"N: {NO_VALUE}"),
        ("N=$(rm -r runs)", f"N: {NO_VALUE}"),
        ('N="$(rm -r runs)"', f"N: {NO_VALUE}"),
        ("N=`rm -r runs`", f"N: {NO_VALUE}"),
        ("PROMPTS=my prompts.jsonl", f"PROMPTS: {NO_VALUE}"),
        ("PROMPTS=data/*.jsonl", f"PROMPTS: {NO_VALUE}"),
        ("PROMPTS='my prompts", f"PROMPTS: {NO_VALUE}"),
        ('PROMPTS="$MY_DTA/prompts.jsonl"', f"PROMPTS: {NO_VALUE}"),
    ],
)
def test_a_line_that_is_no_variable_of_the_driver(tmp_path, first_line, reason):
    file = recipe(tmp_path, f"# a comment\n{first_line}\n")
    assert drive(file) == (1, f"run_loop.sh: {file}:2: {reason}\n")
    assert not (tmp_path / "run").exists()


def test_the_values_of_a_recipe_are_those_of_a_shell(tmp_path):
    """Words, texts in either quotes, other variables and their defaults; what a shell would run stays text."""
    lines = """\
OUT=runs/values   # a comment
SFT_MODEL=${RM_START:-$OUT/start}
REWARD_MODEL="$OUT/the \\"best\\" \\$5"
PROMPTS='$(touch runs/ran) *'
EVAL_PROMPTS=~/evaluation.jsonl
DPO_OPTIONS="--a 1 --b two"
VERIFIER_PATTERN='\\b#(\\d+)'
"""
    (tmp_path / "my.sh").write_text(lines)
    script = "set -euf; for file in steps variables settings stages; do source driver/$file.sh; done; read_settings; "
    names = "SFT_MODEL REWARD_MODEL PROMPTS EVAL_PROMPTS DPO_OPTIONS VERIFIER_PATTERN"
    script += f'for name in {names}; do echo "${{!name}}"; done'
    environment = {**os.environ, "RECIPE": str(tmp_path / "my.sh"), "HOME": "/my/home"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [
        "runs/values/start",
        'runs/values/the "best" $5',
        "$(touch runs/ran) *",
        "/my/home/evaluation.jsonl",
        "--a 1 --b two",
        "\\b#(\\d+)",
    ], done.stderr
    assert not (ROOT / "runs/ran").exists()


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"RECIPE": "recipes/none.sh"}, "recipes/none.sh: no such recipe"),
        ({"REFERENCE": "foo"}, "REFERENCE=foo: one of initial previous"),
        ({"PAIRING": "best"}, "PAIRING=best: one of best_worst best_random random_random FILE.py"),
        (
            {"ANNOTATOR": "oracle"},
            "ANNOTATOR=oracle: one or several of reward_model preference_model armorm llm_judge",
        ),
        ({"EVALS": "none mt_bench"}, "EVALS=none mt_bench: none, or others"),
        (
            {"OPTIMISER": "ppo"},
            "OPTIMISER=ppo: no such file; there are dpa dpo ipo_mixture kto offline online_dpo raft rloo",
        ),
        ({"OPTIMISER": "kto raft"}, "OPTIMISER=kto raft: kto and raft both redefine optimise"),
        (
            {"OPTIMISER": "uncertain sppo"},
            "OPTIMISER=uncertain sppo: uncertain and sppo both redefine make_pairs",
        ),
        (
            {"OPTIMISER": "kto", "DPO_LOSS": "ipo"},
            "DPO_LOSS=ipo: without effect with OPTIMISER=kto",
        ),
        ({"LOSS": "kto"}, "LOSS: now DPO_LOSS, or OPTIMISER for kto, raft"),
        ({"PAIRING": "offline"}, "PAIRING=offline: now OPTIMISER=offline"),
        ({"BENCH": "some/set"}, "BENCH: now REWARD_BENCH"),
        (
            {"LENGHT_PENALTY": ".05"},
            "LENGHT_PENALTY: run_loop.sh has no such variable; LENGTH_PENALTY is one",
        ),
        ({"DPO_BETA": "abc"}, "DPO_BETA=abc: a number is needed"),
        ({"DPO_BETA": "-1"}, "DPO_BETA=-1: a number is needed"),
        ({"SEED": "abc"}, "SEED=abc: a whole number is needed"),
        ({"N": "-4"}, "N=-4: a whole number above 0 is needed"),
        ({"SFT_LEARNING_RATE": "2e"}, "SFT_LEARNING_RATE=2e: a number is needed"),
        ({"DTYPE": "fp8"}, "DTYPE=fp8: one of bfloat16 float16 float32"),
        ({"ANNOTATOR": "my_scorer.py"}, "my_scorer.py: no such file"),
        ({"ANNOTATOR": "a/my.py b/my.py"}, "ANNOTATOR=a/my.py b/my.py: two of one name"),
        ({"DRY_RUN": "maybe"}, "DRY_RUN=maybe: one of yes no steps"),
        (
            {"MEASURE": "armorm oracle"},
            "MEASURE=armorm oracle: one or several of none reward_model preference_model",
        ),
        (
            {"VALIDATION": "oracle"},
            "VALIDATION=oracle: one of true_reward reward_model preference_model armorm",
        ),
        (
            {"VALIDATION": "verifier llm_judge"},
            "VALIDATION=verifier llm_judge: one of true_reward reward_model",
        ),
        (
            {"VALIDATION": "preference_model", "ITERATIONS": "0"},
            "VALIDATION=preference_model: it compares policies, and ITERATIONS=0 makes no second one",
        ),
        # The published code's batch grew with the number of GPUs.
        (
            {"DPO_BATCH_SIZE": "9"},
            "DPO_BATCH_SIZE=9 does not divide by 1 processes x PER_DEVICE_BATCH_SIZE 8",
        ),
        (
            {"GPUS": "3", "SFT_BATCH_SIZE": "24"},
            "RM_BATCH_SIZE=16 does not divide by 3 processes x",
        ),
        (
            {"OPTIMISER": "offline"},
            "OPTIMISER=offline: set ITERATIONS=1, and OFFLINE_PAIRS or PREFERENCES",
        ),
        (
            {"GPUS": "6", "TENSOR_PARALLEL": "4"},
            "TENSOR_PARALLEL=4 does not divide the 6 GPUs of a node",
        ),
        ({"NODES": "2"}, "NODES=2: more than one only in a job of Slurm, see recipes/slurm"),
        (
            {"TEMPERATURES": "1.0 0"},
            "TEMPERATURES=1.0 0: at 0 there is one response, the greedy one; give each of the",
        ),
        (
            {"TEMPERATURES": "0.00"},
            "TEMPERATURES=0.00: at 0 there is one response, the greedy one; give each of the",
        ),
        (
            {"TEMPERATURES": "1 1 1"},
            "N=4: 4 responses of a policy do not divide by the 3 of TEMPERATURES=1 1 1",
        ),
        ({"TEMPERATURES": "warm"}, "TEMPERATURES=warm: not numbers"),
        (
            {"PROMPTS_BY_ROUND": "a/b a/c a/d"},
            "PROMPTS_BY_ROUND=a/b a/c a/d: 3 for ITERATIONS=2; give one a round",
        ),
        (
            {"PROMPTS_BY_ROUND": "a/b a/c", "CLEAN": "--similarity 1"},
            "PROMPTS_BY_ROUND: not with CLEAN",
        ),
        (
            {"PROMPTS_PER_ITERATION": "0"},
            "PROMPTS_PER_ITERATION=0: the first round would take all of PROMPTS; set",
        ),
        (
            {"DPO_LEARNING_RATES": "1e-4"},
            "DPO_LEARNING_RATES=1e-4: 1 for ITERATIONS=2; give one a round",
        ),
        (
            {"OPTIMISER": "kto", "PER_DEVICE_BATCH_SIZE": "1"},
            "OPTIMISER=kto: it takes its mismatched responses from a device's",
        ),
        (
            {"OPTIMISER": "rloo", "ITERATIONS": "1", "N": "3"},
            "OPTIMISER=rloo: DPO_BATCH_SIZE=8 does not divide by N=3",
        ),
        *(
            ({name: "some/where/none.jsonl"}, f"{name}=some/where/none.jsonl: no such file")
            for name in (
                *"PROMPTS EVAL_PROMPTS PREFERENCES RATINGS SFT_DATA OFFLINE_PAIRS EVAL_QUESTIONS".split(),
                "SFT_MODEL",
            )
        ),
        ({"EVAL_PROMPTS": "owner/name"}, "EVAL_PROMPTS=owner/name: no such file"),
        # Arithmetic of bash would run what stands in the brackets.
        ({"N": "a[$(touch runs/ran)]"}, "N=a[$(touch runs/ran)]: a whole number above 0 is needed"),
        ({"N": "0"}, "N=0: a whole number above 0 is needed"),
        ({"OUT": "."}, "OUT=.: not a place for a run"),
        ({"OUT": "/"}, "OUT=/: not a place for a run"),
        ({"OUT": "my runs"}, "OUT=my runs: no dash at its start and no blanks"),
        # Settings, logs and model cards would keep the key.
        (
            {"JUDGE_URL": "http://user:SECRET@host/v1"},
            "JUDGE_URL: an address without user, password and query; a key",
        ),
        (
            {"JUDGE_URL": "http://host/v1?api_key=SECRET"},
            "JUDGE_URL: an address without user, password and query; a key",
        ),
        (
            {"DPO_OPTIONS": "--hub_token SECRET"},
            "DPO_OPTIONS: it holds a key; give keys in the environment",
        ),
        (
            {"RM_OPTIONS": f"--run_name hf_{'SECRET' * 5}"},
            "RM_OPTIONS: it holds a key; give keys in the environment",
        ),
        (
            {"REWARD_MODEL": "owner/name", "RM_TRUST_REMOTE_CODE": "yes", "MEASURE": "none"},
            "REWARD_MODEL=owner/name: it runs code from the hub: set RM_REVISION to a commit",
        ),
        (
            {"RM_TRUST_REMOTE_CODE": "yes"},
            "RM_TRUST_REMOTE_CODE, RM_REVISION: for a REWARD_MODEL that is only asked",
        ),
        (
            {"ANNOTATOR": "armorm", "ARMORM": "owner/name"},
            "ARMORM=owner/name: it runs code from the hub: set ARMORM_TRUST_REMOTE_CODE=yes and ARMORM_REVISION",
        ),
        (
            {
                "ANNOTATOR": "armorm",
                "ARMORM": "owner/name",
                "ARMORM_TRUST_REMOTE_CODE": "yes",
                "ARMORM_REVISION": "main",
            },
            "ARMORM=owner/name: it runs code from the hub: set ARMORM_TRUST_REMOTE_CODE=yes and ARMORM_REVISION",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_value_that_cannot_be(tmp_path, variables, reason):
    status, printed = drive(recipe(tmp_path), **variables)
    assert (
        status == 1
        and printed.startswith(f"run_loop.sh: {reason}")
        and len(printed.splitlines()) == 1
    )
    assert "SECRET" not in printed and not (ROOT / "runs/ran").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("check", ["yes", "no"])
def test_evaluation_prompts_without_a_split_are_refused_before_the_first_step(tmp_path, check):
    """The report, at the end of the run, cannot do without; the directory takes other settings after that."""
    prompts = [
        {"id": str(i), "prompt": [{"role": "user", "content": f"Say {i}."}], "split": "test"}
        for i in range(4)
    ]
    file, evaluation = recipe(tmp_path), tmp_path / "evaluation.jsonl"
    for row, reason in (
        (
            {**prompts[0], "split": "train"},
            f"check: {evaluation}:1: split: not validation or test\n",
        ),
        (
            {"id": "0", "prompt": prompts[0]["prompt"]},
            f"check: {evaluation}:1: split: not validation or test\n",
        ),
        (prompts[0], f"check: {evaluation}: split: fewer than two rows of validation or of test\n"),
    ):
        write_jsonl(evaluation, [row, *prompts[1:]])
        status, printed = drive(file, EVAL_PROMPTS=str(evaluation), CHECK=check)
        assert status == 1 and reason in printed and not steps(printed)
        assert not (tmp_path / "run/settings").exists() and not (tmp_path / "run/world").exists()


def test_a_pool_that_is_too_small_is_told_before_anything_is_trained(tmp_path):
    """The paper's 60,000 prompts gave three rounds of 20,000 and a thousand for the evaluation: not quite."""
    file = recipe(tmp_path)
    status, printed = drive_warm(file, PROMPTS_PER_ITERATION="31", CHECK="no")
    assert (
        status == 1
        and steps(printed) == ["world/evaluation", "instructions"][: len(steps(printed))]
    )
    assert not list((tmp_path / "run").glob("base*"))
    told = f"run_loop.sh: {tmp_path}/run/world/prompts.jsonl: 60 prompts of {{'left': 60}}, 62 are needed; "
    assert printed.endswith(f"{told}ITERATIONS=2, PROMPTS_PER_ITERATION=31\n"), printed
    # A part of the pool is drawn for the evaluation, where none is given.
    world = tmp_path / "run/world"
    prompts = [
        {"id": str(i), "prompt": [{"role": "user", "content": f"Say {i}."}]} for i in range(1100)
    ]
    pool = write_jsonl(tmp_path / "pool.jsonl", prompts)
    settings = {
        "WORLD": "",
        "EVAL_PROMPTS": "",
        "PROMPTS": str(pool),
        "PROMPTS_PER_ITERATION": "51",
    }
    settings |= {
        "BASE_MODEL": "owner/name",
        "CHECK": "no",
        "OUT": f"{tmp_path}/other",
        "MEASURE": "none",
    }
    text = file.read_text().replace("EVAL_PROMPTS=$OUT/world/evaluation.jsonl", "EVAL_PROMPTS=")
    file.write_text(text.replace("WORLD=recipes/tiny", "WORLD="))
    settings |= {
        "SFT_DATA": f"{world}/instructions.jsonl",
        "PREFERENCES": f"{world}/preferences.jsonl",
    }
    status, printed = drive_warm(
        file, **settings, RATINGS=f"{world}/ratings.jsonl", EVAL_QUESTIONS=f"{world}/benchmarks"
    )
    assert status == 1 and steps(printed) == ["evaluation"]
    told = f"{pool}: 100 prompts of {{'in an excluded file': 1000, 'left': 100}}, 102 are needed; ITERATIONS=2, "
    assert told in printed, printed


def test_a_set_of_prompts_a_round(tmp_path):
    sets = [write_jsonl(tmp_path / f"{name}.jsonl", []) for name in "ab"]
    settings = {"PROMPTS_BY_ROUND": f"{sets[0]} {sets[1]}", "DPO_LEARNING_RATES": "1e-4 1e-5"}
    file = recipe(tmp_path, "PROMPTS_PER_ITERATION=0\n")
    status, printed = drive(file, DRY_RUN="1", CHECK="no", **settings)
    assert status == 0
    found = commands(printed)
    for t, pool in zip((1, 2), sets, strict=True):
        flags = dict(itertools.pairwise(found[f"iter{t}/prompts"]))
        assert (flags["--datasets"], flags["--size"]) == (str(pool), "0")
        assert (
            dict(itertools.pairwise(found[f"iter{t}/policy"]))["--learning_rate"]
            == ("1e-4", "1e-5")[t - 1]
        )
    second = found["iter2/prompts"]
    assert second[second.index("--exclude_files") + 2] == f"{tmp_path}/run/iter1/prompts.jsonl"


def test_a_dry_run_needs_no_environment_and_makes_none(tmp_path):
    """A copy of the checkout, with no Python that has a package."""
    copy, tools = tmp_path / "copy", tmp_path / "tools"
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    tools.mkdir()
    for name in "bash dirname basename realpath wc seq env cat grep sed".split():
        (tools / name).symlink_to(shutil.which(name))
    (tools / "python3").symlink_to(Path(sys._base_executable).resolve())  # bare, as a system's
    before = sorted(copy.rglob("*"))
    printed = []
    for home, path in ((copy, str(tools)), (ROOT, os.environ["PATH"])):
        environment = {"PATH": path, "HOME": str(tmp_path), "DRY_RUN": "yes", "GPUS": "0"}
        done = subprocess.run(
            ["bash", "run_loop.sh"], cwd=home, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0 and not done.stderr
        printed.append(done.stdout.splitlines())
    assert sorted(copy.rglob("*")) == before
    assert printed[0][-1] == "# not checked: no environment here, source ./setup.sh makes one"
    # The checkout's own run may have been made already: its states differ.
    listed = [[line.partition("  # ")[0] for line in lines if line[0] != "#"] for lines in printed]
    assert listed[0] == listed[1] and len(listed[0]) > 50


@pytest.mark.parametrize("history", ["round", "all"])
@pytest.mark.parametrize("first", ["previous", "initial"])
@pytest.mark.parametrize("reference", ["initial", "previous"])
def test_a_dry_run_prints_the_commands_and_makes_nothing(tmp_path, reference, first, history):
    """Defect 2: which policy is the reference and where training starts are settings, each by itself."""
    file = recipe(tmp_path)
    variables = {
        "REFERENCE": reference,
        "START": first,
        "HISTORY": history,
        "ITERATIONS": "3",
        "CHECK": "no",
    }
    status, printed = drive(file, DRY_RUN="1", **variables)
    found = commands(printed)
    assert status == 0 and not (tmp_path / "run").exists()
    assert all(
        command[0] == "python" and (ROOT / command[1]).is_file() for command in found.values()
    )
    wanted = "world/evaluation instructions base sft preferences reward_model preference_model armorm".split()
    evaluated = ("answers", "rewards", "true_rewards", "kl")
    wanted += [f"eval/sft/{rows}" for rows in evaluated]
    for t in (1, 2, 3):
        wanted += [
            f"iter{t}/{made}" for made in ("prompts", "responses", "rewards", "pairs", "policy")
        ]
        wanted += [f"eval/iter{t}/{rows}" for rows in evaluated]
    annotators = ("reward_model", "preference_model", "armorm", "llm_judge")
    wanted += ["measures/bench"]
    wanted += [f"measures/{rows}_{name}" for name in annotators for rows in ("bench", "responses")]
    wanted += [
        "measures/rewardbench",
        "measures/length_bias",
        "measures/calibration",
        "results",
        "sft/README",
    ]
    assert list(found) == wanted
    assert printed.count("(missing)") == len(wanted)

    run = tmp_path / "run"
    policies = [f"{run}/sft", f"{run}/iter1/policy", f"{run}/iter2/policy"]
    for t, command in enumerate(
        command for command in found.values() if command[1] == "dpo/1_dpo.py"
    ):
        flags = dict(zip(command[2::2], command[3::2], strict=False))
        assert flags["--model_name_or_path"] == policies[t if first == "previous" else 0]
        assert flags["--ref_model_name_or_path"] == policies[t if reference == "previous" else 0]
        data = command[command.index("--dataset_name") + 1 : command.index("--loss_type")]
        assert data == [
            f"{run}/iter{i + 1}/pairs.jsonl" for i in range(0 if history == "all" else t, t + 1)
        ]
    sampled = [
        command[command.index("--model_name_or_path") + 1]
        for command in found.values()
        if "--temperatures" in command
    ]
    assert sampled == [policies[0]] + [
        p for t in (1, 2, 3) for p in (policies[t - 1], f"{run}/iter{t}/policy")
    ]
    for first_step, last_step in (("22", "24"), ("iter2/responses", f"{run}/iter2/pairs.jsonl")):
        _, part = drive(file, DRY_RUN="1", FROM=first_step, TO=last_step, **variables)
        names = ("iter2/responses", "iter2/rewards", "iter2/pairs")
        assert commands(part) == {name: found[name] for name in names}


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"FROM": "2a"}, "FROM=2a: no such step; DRY_RUN=steps lists all, such as iter1/responses"),
        (
            {"TO": "iter3/pairs"},
            "TO=iter3/pairs: no such step; DRY_RUN=steps lists all, such as iter1/responses",
        ),
        (
            {"FROM": "iter2/pairs", "TO": "14"},
            "FROM=iter2/pairs TO=14: the second comes before the first",
        ),
    ],
)
def test_a_step_that_is_none_is_refused(tmp_path, variables, reason):
    status, printed = drive(recipe(tmp_path), DRY_RUN="yes", **variables)
    assert (status, printed) == (1, f"run_loop.sh: {reason}\n")


def test_a_wrong_flag_is_found_before_the_first_step(tmp_path):
    """By the parser of the script that would get it, hours later."""
    wrong = {"DPO_OPTIONS": "--nosuch 1", "RM_OPTIONS": "--weight_decay much", "MEASURE": "none"}
    for dry in ("yes", "no"):
        status, printed = drive_warm(recipe(tmp_path), DRY_RUN=dry, **wrong)
        run = tmp_path / "run"
        assert status == 1 and not (run / "world").exists() and not (run / "settings").exists()
        assert [line for line in printed.splitlines() if line[:9] == "run_loop."] == [
            f"run_loop.sh: {run}/reward_model: reward_modeling/2a_bradley_terry.py: "
            "argument --weight_decay/--weight-decay: invalid float value: 'much'",
            f"run_loop.sh: {run}/iter1/policy: dpo/1_dpo.py: unrecognized arguments: --nosuch 1",
            "run_loop.sh: mend what is named above; nothing was run",
        ]


def bare(folder, **variables):
    """(exit status, what a dry run prints) of a recipe without a made world, a reward model and preferences."""
    file = folder / "bare.sh"
    file.write_text(f"OUT={folder}/run\nITERATIONS=2\nGPUS=0\n")
    prompts = {
        "SFT_MODEL": "my_sft",
        "PROMPTS": "my_prompts.jsonl",
        "EVAL_PROMPTS": str(folder / "evaluation.jsonl"),
    }
    return drive(file, DRY_RUN="1", CHECK="no", **prompts, **variables)


@pytest.mark.parametrize(
    ("variables", "scripts"),
    [
        ({"ANNOTATOR": "verifier"}, ["1d_verifier.py"]),
        (
            {
                "ANNOTATOR": "llm_judge",
                "JUDGE_URL": "http://h/v1",
                "JUDGE_MODEL": "j",
                "JUDGE_OPTIONS": "--timeout 9",
            },
            ["1c_llm_judge.py"],
        ),
        (
            {"ANNOTATOR": "policy", "VALIDATION": "preference_model", "PREFERENCE_MODEL": "my_pm"},
            ["1b_preference_model.py"],
        ),
    ],
    ids=["verifier", "llm_judge", "policy"],
)
def test_no_reward_model_is_needed_where_none_is_asked(tmp_path, variables, scripts):
    """None is trained, none scores the answers; the best policy is chosen by what annotates, on all answers at once."""
    status, printed = bare(tmp_path, **variables)
    assert (
        status == 0 and "1a_reward_model.py" not in printed and "2a_bradley_terry.py" not in printed
    )
    found = list(commands(printed).values())
    annotating = [command for command in found if command[1].startswith("annotation/1")]
    assert {Path(command[1]).name for command in annotating} == {*scripts} and len(annotating) == 3
    run = tmp_path / "run"
    (merging,) = [command for command in found if command[1] == "generation/2b_merge.py"]
    assert merging[3:6] == [
        f"{run}/eval/{name}/answers.jsonl" for name in ("sft", "iter1", "iter2")
    ]
    flags = dict(itertools.pairwise(annotating[-1]))
    assert flags["--responses_file"] == merging[-1] and flags["--n"] == "3"
    assert flags.get("--timeout", "9") == "9" and ("--timeout" in flags) == (
        "JUDGE_OPTIONS" in variables
    )
    assert flags.get("--method", "all_pairs") in ("math", "rating", "all_pairs")
    (report,) = [command for command in found if command[1] == "eval/3_report.py"]
    assert dict(itertools.pairwise(report))["--validation_file"] == flags["--output_file"]
    kl = [command for command in found if command[1] == "eval/2_kl.py"]
    assert dict(itertools.pairwise(kl[0]))["--responses_file"] == f"{run}/eval/sft/answers.jsonl"


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "set REWARD_MODEL or PREFERENCES, for ANNOTATOR=reward_model"),
        (
            {"ANNOTATOR": "verifier", "MEASURE": "reward_model"},
            "set REWARD_MODEL or PREFERENCES, for MEASURE=",
        ),
        (
            {"ANNOTATOR": "verifier", "VALIDATION": "reward_model"},
            "set REWARD_MODEL or PREFERENCES, for VALIDATION=",
        ),
        (
            {"OPTIMISER": "rloo", "ITERATIONS": "1"},
            "set REWARD_MODEL or PREFERENCES, for ANNOTATOR=reward_model",
        ),
        ({"ANNOTATOR": "policy"}, "ANNOTATOR=policy: it changes by the round; set VALIDATION"),
        (
            {"ANNOTATOR": "verifier", "VALIDATION": "true_reward"},
            "VALIDATION=true_reward: only in a made world",
        ),
        ({"ANNOTATOR": "verifier", "VALIDATION": "llm_judge"}, "set JUDGE_URL and JUDGE_MODEL"),
        ({"ANNOTATOR": "verifier", "EVALS": "mt_bench"}, "set JUDGE_URL and JUDGE_MODEL"),
        (
            {
                "ANNOTATOR": "llm_judge",
                "EVALS": "alpaca_eval",
                "JUDGE_OPTIONS": "--max_tokens 9",
                "JUDGE_MODEL": "j",
                "JUDGE_URL": "http://h/v1",
            },
            "JUDGE_OPTIONS=--max_tokens 9: a judge that thinks needs ALPACA_EVAL_OPTIONS=--no_logprobs",
        ),
        (
            {"ANNOTATOR": "verifier", "VALIDATION": "armorm"},
            "set ARMORM, or PREFERENCES and RATINGS",
        ),
        (
            {"ANNOTATOR": "verifier", "VALIDATION": "preference_model"},
            "set PREFERENCE_MODEL or PREFERENCES",
        ),
    ],
    ids=str,
)
def test_an_annotator_that_cannot_run_is_refused(tmp_path, variables, reason):
    status, printed = bare(tmp_path, **variables)
    assert status == 1 and reason in printed and len(printed.splitlines()) == 1


def test_a_verifier_that_chooses_needs_the_answers_of_the_evaluation_prompts(tmp_path):
    (tmp_path / "evaluation.jsonl").write_text('{"id": "a", "answer": "4"}\n{"id": "b"}\n')
    status, printed = bare(tmp_path, ANNOTATOR="verifier")
    assert (status, printed) == (
        1, f"run_loop.sh: VALIDATION=verifier: a row of {tmp_path}/evaluation.jsonl has no answer\n"
    )  # fmt: skip


def test_cleaning_stands_before_training_and_before_the_rounds(tmp_path):
    _, printed = drive(recipe(tmp_path), DRY_RUN="1", CHECK="no", CLEAN="--similarity 0.7")
    found, run = commands(printed), tmp_path / "run"
    for before, step, after, flag, cleaned in (
        ("instructions_all", "instructions", "sft", "--dataset_name", run / "instructions.jsonl"),
        ("prompts_all", "prompts", "iter1/prompts", "--datasets", run / "prompts.jsonl"),
    ):
        flags = dict(itertools.pairwise(found[step]))
        assert flags["--input_file"] == dict(itertools.pairwise(found[before]))["--output_file"]
        assert flags["--similarity"] == "0.7" and flags["--output_file"] == str(cleaned)
        assert dict(itertools.pairwise(found[after]))[flag] == str(cleaned)


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (ROOT / "recipes").glob("*.sh") if path.stem not in MADE)
)
def test_every_recipe_passes_a_dry_run_on_eight_gpus(tmp_path, hub, name):
    """Its head says what it is; the global batches are the paper's whatever the number of GPUs (defect 7)."""
    head = (ROOT / f"recipes/{name}.sh").read_text()
    assert head.startswith("# ") and "Machine: " in head and "Not run here" in head
    needed, mib = re.search(r"Machine: (\d)", head)[1], 24_564 if "24 GB" in head else 81_559
    rounds = {"llama3_8b_offline_dpo": 1, "llama3_8b_reward_models": 0}.get(name, 3)
    for gpus in ("1", "8"):
        environment = {
            **os.environ,
            **machine(tmp_path, hub, [mib] * 8),
            "RECIPE": f"recipes/{name}.sh",
            "GPUS": gpus,
        }
        environment |= {
            "CHECK": "yes" if gpus == needed else "no",
            "REQUIREMENTS": "requirements-cpu.txt",
        }
        del environment["HF_HUB_OFFLINE"]
        done = subprocess.run(
            ["bash", "run_loop.sh"],
            cwd=ROOT,
            env=environment | {"DRY_RUN": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert ("# hub: " in done.stdout) == (environment["CHECK"] == "yes")
        listed = [shlex.split(line, comments=True) for line in done.stdout.splitlines()]
        sampled = [command for command in listed if "generation/2_responses.py" in command]
        assert [c[c.index("--shard") + 1] for c in sampled if "--shard" in c] == (
            list("01234567") * (1 + rounds + rounds * ("offline" not in name))
            if gpus == "8"
            else []
        )
        found = [command for command in listed if "dpo/1_dpo.py" in command]
        assert len(found) == rounds and not (tmp_path / "run").exists()
        for command in found:
            flags = dict(itertools.pairwise(command))
            sizes = [
                int(flags[f"--{name}"])
                for name in ("per_device_train_batch_size", "gradient_accumulation_steps")
            ]
            assert sizes[0] * sizes[1] * int(gpus) == 128
            assert (command[:2] == ["accelerate", "launch"]) == (gpus == "8")
            assert gpus == "1" or (ROOT / flags["--config_file"]).is_file()


def test_nodes_share_the_rows_and_the_training(tmp_path):
    """Two nodes of four GPUs, two of which hold one model of vLLM's: each command says where it runs."""
    nodes = {"GPUS": "4", "NODES": "2", "TENSOR_PARALLEL": "2", "SFT_BATCH_SIZE": "8"}
    status, printed = drive(recipe(tmp_path), DRY_RUN="1", CHECK="no", ITERATIONS="1", **nodes)
    assert status == 0
    placed = [
        [
            next(word for word in command if word.startswith(name))
            for command in shards(printed, step)
        ]
        for step in ("iter1/responses", "iter1/rewards")
        for name in ("--nodelist=", "CUDA_VISIBLE_DEVICES=")
    ]
    found = commands(printed)
    assert placed[0] == ["--nodelist=node0"] * 2 + ["--nodelist=node1"] * 2
    assert placed[1] == [f"CUDA_VISIBLE_DEVICES={gpus}" for gpus in ("0,1", "2,3")] * 2
    assert placed[2] == ["--nodelist=node0"] * 4 + ["--nodelist=node1"] * 4
    assert placed[3] == [f"CUDA_VISIBLE_DEVICES={gpu}" for gpu in range(4)] * 2
    run = tmp_path / "run/iter1"
    assert found["iter1/responses"] == [
        "python",
        "common/shards.py",
        f"{run}/prompts.jsonl",
        f"{run}/responses.jsonl",
        "4",
    ]
    training = found["iter1/policy"]
    assert training[0] == "srun" and "--nodes=2" in training and "--ntasks-per-node=1" in training
    flags = dict(itertools.pairwise(training))
    assert (flags["--num_machines"], flags["--num_processes"]) == ("2", "8")
    assert (
        int(flags["--per_device_train_batch_size"]) * int(flags["--gradient_accumulation_steps"])
        == 1
    )


def test_the_gpus_that_the_caller_leaves_are_taken(tmp_path):
    """On a shared machine; without GPUS their number, too."""
    given = {"CUDA_VISIBLE_DEVICES": "5,7", "PER_DEVICE_BATCH_SIZE": "1", "ITERATIONS": "1"}
    text = (recipe(tmp_path)).read_text().replace("GPUS=1\n", "")
    (tmp_path / "short.sh").write_text(text)
    status, printed = drive(tmp_path / "short.sh", DRY_RUN="1", CHECK="no", **given)
    assert status == 0
    for step in ("iter1/responses", "iter1/rewards"):
        placed = [command[:2] for command in shards(printed, step)]
        assert placed == [["env", f"CUDA_VISIBLE_DEVICES={gpu}"] for gpu in (5, 7)]
    status, printed = drive(tmp_path / "short.sh", DRY_RUN="1", GPUS="4", **given)
    reason = "GPUS=4: CUDA_VISIBLE_DEVICES=5,7 names 2"
    assert (status, printed) == (1, f"run_loop.sh: {reason}\n")


def job(folder, srun, number=1):
    """The environment of a made-up job of Slurm on two nodes; its srun does that."""
    for name, does in {"scontrol": "printf 'n1\nn2\n'", "srun": srun}.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{does}\n")
        (folder / name).chmod(0o755)
    told = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": str(number)}
    return {"PATH": f"{folder}:{os.environ['PATH']}", **told}


def test_a_port_that_is_taken_is_passed_over(tmp_path):
    """The processes of a training find one another at a port that follows from the job's number."""
    for port in range(20_000, 30_000):
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port + 1)).close()
            taken = socket.create_server(("127.0.0.1", port))
            break
    with taken:
        environment = job(tmp_path, "exit 1", port - 20_000)
        status, printed = drive(recipe(tmp_path), **environment, FROM="base", TO="base", CHECK="no")
    assert status == 1 and "run_loop.sh: base failed; the end of " in printed
    log = (tmp_path / "run/log/base.log").read_text()
    assert f" '--main_process_port' '{port + 1}' " in log


# One's own idea


SCORER = """\
import argparse, json
parser = argparse.ArgumentParser()
parser.add_argument("--responses_file", required=True)
parser.add_argument("--output_file", required=True)
args = parser.parse_args()
"""


def test_an_idea_of_ones_own_is_one_file(tmp_path):
    """A scorer, a pairing rule and an optimiser, by their paths; each has the flags that it is given."""
    scorer, pairing, optimiser = (tmp_path / name for name in ("scorer.py", "pairs.py", "mine.sh"))
    scorer.write_text(SCORER)
    pairing.write_text(SCORER.replace("responses", "rewards"))
    optimiser.write_text(
        'default DPO_BETA 0.7\noptimise() { train_on_pairs dpo/1_dpo.py "$@" -- --loss_type ipo; }\n'
    )
    own = {
        "ANNOTATOR": f"{scorer} reward_model",
        "PAIRING": str(pairing),
        "OPTIMISER": str(optimiser),
    }
    file = recipe(tmp_path)
    status, printed = drive(file, DRY_RUN="1", CHECK="no", MEASURE=str(scorer), **own)
    found, run = commands(printed), tmp_path / "run"
    assert status == 0
    rewards = [f"{run}/iter1/rewards_scorer.jsonl", f"{run}/iter1/rewards_reward_model.jsonl"]
    flags = ["--responses_file", f"{run}/iter1/responses.jsonl", "--output_file", rewards[0]]
    assert found["iter1/rewards_scorer"] == ["python", str(scorer), *flags]
    assert found["iter1/rewards"][3:5] == rewards
    flags = [
        "--rewards_file",
        f"{run}/iter1/rewards.jsonl",
        "--output_file",
        f"{run}/iter1/pairs.jsonl",
    ]
    assert found["iter1/pairs"] == ["python", str(pairing), *flags]
    flags = dict(itertools.pairwise(found["iter2/policy"]))
    # The recipe's beta wins over the optimiser's file.
    assert flags["--loss_type"] == "ipo" and flags["--beta"] == "0.3"
    assert found["measures/bench_scorer"][1] == str(scorer)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("optimise() { if; }\n", "line 1: syntax error near unexpected token `;'"),
        ("mine=1\n", "it redefines no stage of driver/stages.sh and sets no default"),
        ("default BETA 1\n", "BETA: run_loop.sh has no such variable"),
    ],
)
def test_an_optimiser_that_cannot_be_is_refused(tmp_path, text, reason):
    (tmp_path / "mine.sh").write_text(text)
    status, printed = drive(recipe(tmp_path), DRY_RUN="1", OPTIMISER=str(tmp_path / "mine.sh"))
    assert (
        status == 1
        and printed.startswith(f"run_loop.sh: {tmp_path}/mine.sh: ")
        and reason in printed
    )


def test_a_script_of_ones_own_without_the_flags_is_refused_before_the_first_step(tmp_path):
    scorer = tmp_path / "scorer.py"
    for text, reason in (
        (SCORER.replace("--output_file", "--output"), "its --help does not name --output_file"),
        (
            "import nothing_of_that_name\n",
            "--help: ModuleNotFoundError: No module named 'nothing_of_that_name'",
        ),
    ):
        scorer.write_text(text)
        status, printed = drive_warm(
            recipe(tmp_path), ANNOTATOR=str(scorer), MEASURE="none", CHECK="no"
        )
        assert status == 1 and not steps(printed)
        assert f"run_loop.sh: {tmp_path}/run/iter1/rewards.jsonl: {scorer}: {reason}\n" in printed
