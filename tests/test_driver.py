"""run_loop.sh on a loop of minutes: what it refuses, what it redoes, and what is left of it when it is killed."""

import contextlib
import fcntl
import itertools
import json
import math
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from statistics import fmean, pstdev

import pytest
from commands import ROOT, read_jsonl, warm_python, write_jsonl
from scripted_hub import machine

MADE = ("tiny", "smollm2")  # recipes whose models and data the project makes; the others take them from the hub
SHORT = """\
: "${OUT:=@OUT@}"
: "${WORLD_OPTIONS:=--corpus 4000 --instructions 400 --preferences 100 --prompts 60 \
--validation 10 --test 20 --bench 10}"
: "${MEASURE:=reward_model preference_model armorm llm_judge}"
: "${EVALS:=none}"
: "${SFT_BATCH_SIZE:=2}"
: "${ITERATIONS:=2}"
: "${PROMPTS_PER_ITERATION:=17}"
: "${N:=4}"
: "${MAX_NEW_TOKENS:=48}"
: "${BATCH_SIZE:=8}"
: "${PER_DEVICE_BATCH_SIZE:=8}"
: "${GPUS:=1}"
"""


MEASURES = (
    "bench.jsonl",
    "rewardbench.json",
    "rewardbench.md",
    "calibration.json",
    "calibration.png",
    "length_bias.json",
    "length_bias.png",
)


# What every Python begins with, in place of a GPU that breaks: shard 1 of the generation fails that many times.
FAULT = """\
import os, pathlib, sys
left = pathlib.Path(__file__).with_name("12")
if "generation/2_responses.py" in sys.orig_argv and sys.orig_argv[-3:-2] == ["1"] and int(left.read_text()):
    left.write_text(str(int(left.read_text()) - 1))
    print("a broken GPU", flush=True)
    os._exit(1)
"""


def recipe(folder, text=""):
    """A short loop below that folder: of several values of a variable the first one counts."""
    file = folder / "short.sh"
    file.write_text(text + SHORT.replace("@OUT@", f"{folder}/run") + (ROOT / "recipes/tiny.sh").read_text())
    return file


def start(recipe, **variables):
    """The driver in a session of its own, as in a terminal; what it prints goes to a file beside the recipe."""
    environment = {**os.environ, "RECIPE": str(recipe), **variables}
    with open(recipe.with_suffix(".log"), "w") as log:
        return subprocess.Popen(
            ["bash", "run_loop.sh"], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip


def drive(recipe, **variables):
    """(exit status, what was printed) of the driver."""
    status = start(recipe, **variables).wait()
    return status, recipe.with_suffix(".log").read_text()


def drive_warm(recipe, **variables):
    """The same with the Python whose libraries are imported already, as compare.sh has it: for what ends by itself."""
    return drive(recipe, VIRTUAL_ENV=str(warm_python().parents[1]), **variables)


def steps(printed):
    """Numbers of the steps that were run; a text with its part for a part of a step."""
    found = re.findall(r"^\[(\d+\w*)\] \d\d:", printed, re.MULTILINE)
    return [int(number) if number.isdigit() else number for number in found]


def processes(recipe):
    """{process: the words of its command} of all that a driver with that recipe has begun."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"RECIPE={recipe}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:  # it has just ended
            continue
    return found


def nothing_is_left(recipe):
    """The kernel takes a moment to end the children of a killed process."""
    for _ in range(100):
        if not processes(recipe):
            return True
        time.sleep(0.1)
    return False


def files(out):
    """Every file but the logs and the lock, with its time."""
    kept = (file for file in out.rglob("*") if file.is_file() and file.parent != out / "log" and file.name != ".lock")
    return {file: file.stat().st_mtime_ns for file in kept}


def first_losses(out):
    states = [json.loads((out / f"iter{t}/policy/trainer_state.json").read_text()) for t in (1, 2)]
    return [state["log_history"][0]["loss"] for state in states]


# What it refuses before it starts, and what it would run

IN_A_VALUE = "with texts and known variables in the value"


@pytest.mark.parametrize(
    ("first_line", "reason"),
    [
        (': "${LERNING_RATE:=1e-4}"', "LERNING_RATE: run_loop.sh has no such variable"),
        ("LEARNING_RATE=1e-4", 'not of the form : "${NAME:=value}"'),
        (': "${N:=4}"; rm -r runs', 'not of the form : "${NAME:=value}"'),
        (': "${N:=4}"; rm -r runs; : "${SEED:=1}"', f'not of the form : "${{NAME:=value}}", {IN_A_VALUE}'),
        (': "${N:=$(rm -r runs)}"', f'not of the form : "${{NAME:=value}}", {IN_A_VALUE}'),
        (': "${N:=`rm -r runs`}"', f'not of the form : "${{NAME:=value}}", {IN_A_VALUE}'),
        (': "${PROMPTS:=$MY_DTA/prompts.jsonl}"', f'not of the form : "${{NAME:=value}}", {IN_A_VALUE}'),
    ],
)
def test_a_line_that_is_no_variable_of_the_driver(tmp_path, first_line, reason):
    file = recipe(tmp_path, f"# a comment\n{first_line}\n")
    assert drive(file) == (1, f"run_loop.sh: {file}:2: {reason}\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"RECIPE": "recipes/none.sh"}, "recipes/none.sh: no such recipe"),
        ({"REFERENCE": "foo"}, "REFERENCE=foo: one of initial previous"),
        ({"PAIRING": "best"}, "PAIRING=best: one of best_worst best_random random_random uncertain"),
        ({"ANNOTATOR": "oracle"}, "ANNOTATOR=oracle: one or several of reward_model preference_model armorm llm_judge"),
        ({"EVALS": "none mt_bench"}, "EVALS=none mt_bench: none, or others"),
        ({"MEASURE": "armorm oracle"}, "MEASURE=armorm oracle: one or several of none reward_model preference_model"),
        ({"VALIDATION": "oracle"}, "VALIDATION=oracle: one of true_reward reward_model preference_model armorm"),
        ({"VALIDATION": "verifier llm_judge"}, "VALIDATION=verifier llm_judge: one of true_reward reward_model"),
        (
            {"VALIDATION": "preference_model", "ITERATIONS": "0"},
            "VALIDATION=preference_model: it compares policies, and ITERATIONS=0 makes no second one",
        ),
        # The published code's batch grew with the number of GPUs.
        ({"BATCH_SIZE": "9"}, "BATCH_SIZE=9 does not divide by 1 processes x PER_DEVICE_BATCH_SIZE 8"),
        ({"GPUS": "3", "SFT_BATCH_SIZE": "24"}, "RM_BATCH_SIZE=16 does not divide by 3 processes x"),
        ({"PAIRING": "offline"}, "PAIRING=offline: set ITERATIONS=1, and OFFLINE_PAIRS or PREFERENCES"),
        ({"GPUS": "6", "TENSOR_PARALLEL": "4"}, "TENSOR_PARALLEL=4 does not divide the 6 GPUs of a node"),
        ({"NODES": "2"}, "NODES=2: more than one only in a job of Slurm, see recipes/slurm"),
        ({"TEMPERATURES": "1.0 0"}, "TEMPERATURES=1.0 0: at 0 there is one response, the greedy one; give each of the"),
        ({"TEMPERATURES": "0.00"}, "TEMPERATURES=0.00: at 0 there is one response, the greedy one; give each of the"),
        ({"TEMPERATURES": "1 1 1"}, "N=4: 4 responses of a policy do not divide by the 3 of TEMPERATURES=1 1 1"),
        ({"TEMPERATURES": "warm"}, "TEMPERATURES=warm: not numbers"),
        ({"PROMPTS_BY_ROUND": "a/b a/c a/d"}, "PROMPTS_BY_ROUND=a/b a/c a/d: 3 for ITERATIONS=2; give one a round"),
        ({"PROMPTS_BY_ROUND": "a/b a/c", "CLEAN": "--similarity 1"}, "PROMPTS_BY_ROUND: not with CLEAN, nor with"),
        ({"PROMPTS_PER_ITERATION": "0"}, "PROMPTS_PER_ITERATION=0: the first round would take all of PROMPTS; set"),
        ({"LEARNING_RATES": "1e-4"}, "LEARNING_RATES=1e-4: 1 for ITERATIONS=2; give one a round"),
        ({"LOSS": "kto", "PER_DEVICE_BATCH_SIZE": "1"}, "LOSS=kto: it takes its mismatched responses from a device's"),
        ({"LOSS": "rloo", "ITERATIONS": "1", "N": "3"}, "LOSS=rloo: BATCH_SIZE=8 does not divide by N=3"),
        *(
            ({name: "some/where/none.jsonl"}, f"{name}=some/where/none.jsonl: no such file")
            for name in (
                *"PROMPTS EVAL_PROMPTS PREFERENCES RATINGS SFT_DATA OFFLINE_PAIRS BENCHMARKS".split(),
                "SFT_MODEL",
            )
        ),
        ({"EVAL_PROMPTS": "owner/name"}, "EVAL_PROMPTS=owner/name: no such file"),
        # Arithmetic of bash would run what stands in the brackets.
        ({"N": "a[$(touch runs/ran)]"}, "N=a[$(touch runs/ran)]: a whole number is needed"),
        ({"FROM": "2a"}, "FROM=2a: a whole number is needed"),
        ({"N": "0"}, "N=0: at least 1 is needed"),
        ({"OUT": "."}, "OUT=.: not a place for a run"),
        ({"OUT": "/"}, "OUT=/: not a place for a run"),
        ({"OUT": "my runs"}, "OUT=my runs: no dash at its start and no blanks"),
        # Settings, logs and model cards would keep the key.
        ({"JUDGE_URL": "http://user:SECRET@host/v1"}, "JUDGE_URL: an address without user, password and query; a key"),
        (
            {"JUDGE_URL": "http://host/v1?api_key=SECRET"},
            "JUDGE_URL: an address without user, password and query; a key",
        ),
        ({"DPO_OPTIONS": "--hub_token SECRET"}, "DPO_OPTIONS: it holds a key; give keys in the environment"),
        ({"RM_OPTIONS": f"--run_name hf_{'SECRET' * 5}"}, "RM_OPTIONS: it holds a key; give keys in the environment"),
        (
            {"REWARD_MODEL": "owner/name", "RM_TRUST_REMOTE_CODE": "yes", "MEASURE": "none"},
            "REWARD_MODEL=owner/name: it runs code from the hub: set RM_REVISION to a commit",
        ),
        ({"RM_TRUST_REMOTE_CODE": "yes"}, "RM_TRUST_REMOTE_CODE, RM_REVISION: for a REWARD_MODEL that is only asked"),
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
    assert status == 1 and printed.startswith(f"run_loop.sh: {reason}") and len(printed.splitlines()) == 1
    assert "SECRET" not in printed and not (ROOT / "runs/ran").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("check", ["yes", "no"])
def test_evaluation_prompts_without_a_split_are_refused_before_the_first_step(tmp_path, check):
    """The report, at the end of the run, cannot do without; the directory takes other settings after that."""
    prompts = [{"id": str(i), "prompt": [{"role": "user", "content": f"Say {i}."}], "split": "test"} for i in range(4)]
    file, evaluation = recipe(tmp_path), tmp_path / "evaluation.jsonl"
    for row, reason in (
        ({**prompts[0], "split": "train"}, f"check: {evaluation}:1: split: not validation or test\n"),
        ({"id": "0", "prompt": prompts[0]["prompt"]}, f"check: {evaluation}:1: split: not validation or test\n"),
        (prompts[0], f"check: {evaluation}: split: fewer than two rows of validation or of test\n"),
    ):
        write_jsonl(evaluation, [row, *prompts[1:]])
        status, printed = drive(file, EVAL_PROMPTS=str(evaluation), CHECK=check)
        assert status == 1 and printed.startswith(reason) and not steps(printed)
        assert not (tmp_path / "run/settings").exists() and not (tmp_path / "run/world").exists()


def test_a_pool_that_is_too_small_is_told_before_anything_is_trained(tmp_path):
    """The paper's 60,000 prompts gave three rounds of 20,000 and a thousand for the evaluation: not quite."""
    file = recipe(tmp_path)
    status, printed = drive_warm(file, PROMPTS_PER_ITERATION="31", CHECK="no")
    assert status == 1 and steps(printed) == [0] and not list((tmp_path / "run").glob("base*"))
    told = f"run_loop.sh: {tmp_path}/run/world/prompts.jsonl: 60 prompts of {{'left': 60}}, 62 are needed; "
    assert printed.endswith(f"{told}ITERATIONS=2, PROMPTS_PER_ITERATION=31\n"), printed
    # A part of the pool is drawn for the evaluation, where none is given.
    world = tmp_path / "run/world"
    prompts = [{"id": str(i), "prompt": [{"role": "user", "content": f"Say {i}."}]} for i in range(1100)]
    pool = write_jsonl(tmp_path / "pool.jsonl", prompts)
    settings = {"WORLD": "", "EVAL_PROMPTS": "", "PROMPTS": str(pool), "PROMPTS_PER_ITERATION": "51"}
    settings |= {"BASE_MODEL": "owner/name", "CHECK": "no", "OUT": f"{tmp_path}/other", "MEASURE": "none"}
    text = file.read_text().replace("EVAL_PROMPTS:=$OUT/world/evaluation.jsonl", "EVAL_PROMPTS:=")
    file.write_text(text.replace("WORLD:=recipes/tiny", "WORLD:="))
    settings |= {"SFT_DATA": f"{world}/instructions.jsonl", "PREFERENCES": f"{world}/preferences.jsonl"}
    status, printed = drive_warm(file, **settings, RATINGS=f"{world}/ratings.jsonl", BENCHMARKS=f"{world}/benchmarks")
    assert status == 1 and steps(printed) == ["2e", 2]
    told = f"{pool}: 100 prompts of {{'in an excluded file': 1000, 'left': 100}}, 102 are needed; ITERATIONS=2, "
    assert told in printed, printed


def test_a_set_of_prompts_a_round(tmp_path):
    sets = [write_jsonl(tmp_path / f"{name}.jsonl", []) for name in "ab"]
    settings = {"PROMPTS_BY_ROUND": f"{sets[0]} {sets[1]}", "LEARNING_RATES": "1e-4 1e-5"}
    file = recipe(tmp_path, ': "${PROMPTS_PER_ITERATION:=0}"\n')
    status, printed = drive(file, DRY_RUN="1", CHECK="no", **settings)
    assert status == 0
    found = {line.rsplit("# step ", 1)[1]: shlex.split(line, comments=True) for line in printed.splitlines()
             if "# step " in line}  # fmt: skip
    for t, pool in zip((1, 2), sets, strict=True):
        flags = dict(itertools.pairwise(found[f"{t}1"]))
        assert (flags["--datasets"], flags["--size"]) == (str(pool), "0")
        assert dict(itertools.pairwise(found[f"{t}5"]))["--learning_rate"] == ("1e-4", "1e-5")[t - 1]
    assert found["21"][found["21"].index("--exclude_files") + 2] == f"{tmp_path}/run/iter1/prompts.jsonl"


def test_a_dry_run_needs_no_environment_and_makes_none(tmp_path):
    """A copy of the checkout, with no Python that has a package."""
    copy, tools = tmp_path / "copy", tmp_path / "tools"
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    tools.mkdir()
    for name in "bash dirname basename realpath wc seq env cat grep sed".split():
        (tools / name).symlink_to(shutil.which(name))
    before = sorted(copy.rglob("*"))
    printed = []
    for home, path in ((copy, str(tools)), (ROOT, os.environ["PATH"])):
        environment = {"PATH": path, "HOME": str(tmp_path), "DRY_RUN": "1", "GPUS": "0"}
        done = subprocess.run(["bash", "run_loop.sh"], cwd=home, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr
        printed.append(done.stdout.splitlines())
    assert sorted(copy.rglob("*")) == before
    assert printed[0][-1] == "# not checked: no environment here, source ./setup.sh makes one"
    assert printed[0][:-1] == [line for line in printed[1] if not line.startswith("# ")]


@pytest.mark.parametrize("history", ["round", "all"])
@pytest.mark.parametrize("first", ["previous", "initial"])
@pytest.mark.parametrize("reference", ["initial", "previous"])
def test_a_dry_run_prints_the_commands_and_makes_nothing(tmp_path, reference, first, history):
    """Defect 2: which policy is the reference and where training starts are settings, each by itself."""
    file = recipe(tmp_path)
    variables = {"REFERENCE": reference, "START": first, "HISTORY": history, "ITERATIONS": "3"}
    status, printed = drive(file, DRY_RUN="1", **variables)
    lines = [line for line in printed.splitlines() if "4_judge.py" not in line and line[0] != "#"]  # without the
    # world's server, which is no step, and the checks
    commands = [shlex.split(line, comments=True) for line in lines]
    assert status == 0 and not (tmp_path / "run").exists()
    assert all(command[0] == "python" and (ROOT / command[1]).is_file() for command in commands)
    numbers = [line.rsplit("# step ", 1)[1] for line in lines]
    wanted = [*range(5), "5a", "5b", "5c", *range(6, 10), *(t * 10 + i for t in (1, 2, 3) for i in range(1, 10))]
    wanted += [41, *(f"4{i}{letter}" for letter in "abcd" for i in (2, 3)), 44, 45, 46, 49, 50]
    assert numbers == [str(number) for number in wanted]

    run = tmp_path / "run"
    policies = [f"{run}/sft", f"{run}/iter1/policy", f"{run}/iter2/policy"]
    for t, command in enumerate(command for command in commands if command[1] == "dpo/1_dpo.py"):
        flags = dict(zip(command[2::2], command[3::2], strict=False))
        assert flags["--model_name_or_path"] == policies[t if first == "previous" else 0]
        assert flags["--ref_model_name_or_path"] == policies[t if reference == "previous" else 0]
        data = command[command.index("--dataset_name") + 1 : command.index("--loss_type")]
        assert data == [f"{run}/iter{i + 1}/pairs.jsonl" for i in range(0 if history == "all" else t, t + 1)]
    sampled = [
        command[command.index("--model_name_or_path") + 1] for command in commands if "--temperatures" in command
    ]
    assert sampled == [policies[0]] + [p for t in (1, 2, 3) for p in (policies[t - 1], f"{run}/iter{t}/policy")]
    _, part = drive(file, DRY_RUN="1", FROM="22", TO="24", **variables)
    part = [line for line in part.splitlines() if "4_judge.py" not in line and line[0] != "#"]
    assert part == lines[numbers.index("22") : numbers.index("25")]


def bare(folder, **variables):
    """(exit status, what a dry run prints) of a recipe without a made world, a reward model and preferences."""
    file = folder / "bare.sh"
    file.write_text(f': "${{OUT:={folder}/run}}"\n: "${{ITERATIONS:=2}}"\n: "${{GPUS:=0}}"\n')
    prompts = {"SFT_MODEL": "my_sft", "PROMPTS": "my_prompts.jsonl", "EVAL_PROMPTS": str(folder / "evaluation.jsonl")}
    return drive(file, DRY_RUN="1", CHECK="no", **prompts, **variables)


@pytest.mark.parametrize(
    ("variables", "scripts"),
    [
        ({"ANNOTATOR": "verifier"}, ["1d_verifier.py"]),
        (
            {"ANNOTATOR": "llm_judge", "JUDGE_URL": "http://h/v1", "JUDGE_MODEL": "j", "JUDGE_OPTIONS": "--timeout 9"},
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
    assert status == 0 and "1a_reward_model.py" not in printed and "2a_bradley_terry.py" not in printed
    commands = [shlex.split(line, comments=True) for line in printed.splitlines() if "# step " in line]
    annotating = [command for command in commands if command[1].startswith("annotation/1")]
    assert {Path(command[1]).name for command in annotating} == {*scripts} and len(annotating) == 3
    run = tmp_path / "run"
    (merging,) = [command for command in commands if command[1] == "generation/2b_merge.py"]
    assert merging[3:6] == [f"{run}/eval/{name}/answers.jsonl" for name in ("sft", "iter1", "iter2")]
    flags = dict(itertools.pairwise(annotating[-1]))
    assert flags["--responses_file"] == merging[-1] and flags["--n"] == "3"
    assert flags.get("--timeout", "9") == "9" and ("--timeout" in flags) == ("JUDGE_OPTIONS" in variables)
    assert flags.get("--method", "all_pairs") in ("math", "rating", "all_pairs")
    (report,) = [command for command in commands if command[1] == "eval/3_report.py"]
    assert dict(itertools.pairwise(report))["--validation_file"] == flags["--output_file"]
    kl = [command for command in commands if command[1] == "eval/2_kl.py"]
    assert dict(itertools.pairwise(kl[0]))["--responses_file"] == f"{run}/eval/sft/answers.jsonl"


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "set REWARD_MODEL or PREFERENCES, for ANNOTATOR=reward_model"),
        ({"ANNOTATOR": "verifier", "MEASURE": "reward_model"}, "set REWARD_MODEL or PREFERENCES, for MEASURE="),
        ({"ANNOTATOR": "verifier", "VALIDATION": "reward_model"}, "set REWARD_MODEL or PREFERENCES, for VALIDATION="),
        ({"ANNOTATOR": "verifier", "LOSS": "rloo", "ITERATIONS": "1"}, "set REWARD_MODEL or PREFERENCES, for LOSS="),
        ({"ANNOTATOR": "policy"}, "VALIDATION=policy: one of true_reward reward_model"),
        ({"ANNOTATOR": "verifier", "VALIDATION": "true_reward"}, "VALIDATION=true_reward: only in a made world"),
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
        ({"ANNOTATOR": "verifier", "VALIDATION": "armorm"}, "set ARMORM, or PREFERENCES and RATINGS"),
        ({"ANNOTATOR": "verifier", "VALIDATION": "preference_model"}, "set PREFERENCE_MODEL or PREFERENCES"),
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
    _, printed = drive(recipe(tmp_path), DRY_RUN="1", CLEAN="--similarity 0.7")
    found = {line.rsplit("# step ", 1)[1]: shlex.split(line, comments=True) for line in printed.splitlines()
             if "# step " in line}  # fmt: skip
    run = tmp_path / "run"
    for before, step, after, flag, cleaned in (("2a", "2b", "3", "--dataset_name", run / "instructions.jsonl"),
                                               ("2c", "2d", "11", "--datasets", run / "prompts.jsonl")):  # fmt: skip
        flags = dict(itertools.pairwise(found[step]))
        assert flags["--input_file"] == dict(itertools.pairwise(found[before]))["--output_file"]
        assert flags["--similarity"] == "0.7" and flags["--output_file"] == str(cleaned)
        assert dict(itertools.pairwise(found[after]))[flag] == str(cleaned)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "recipes").glob("*.sh") if path.stem not in MADE))
def test_every_recipe_passes_a_dry_run_on_eight_gpus(tmp_path, hub, name):
    """Its head says what it is; the global batches are the paper's whatever the number of GPUs (defect 7)."""
    head = (ROOT / f"recipes/{name}.sh").read_text()
    assert head.startswith("# ") and "Machine: " in head and "Not run here" in head
    needed, mib = re.search(r"Machine: (\d)", head)[1], 24_564 if "24 GB" in head else 81_559
    rounds = {"llama3_8b_offline_dpo": 1, "llama3_8b_reward_models": 0}.get(name, 3)
    for gpus in ("1", "8"):
        environment = {**os.environ, **machine(tmp_path, hub, [mib] * 8), "RECIPE": f"recipes/{name}.sh", "GPUS": gpus}
        environment |= {"CHECK": "yes" if gpus == needed else "no", "REQUIREMENTS": "requirements-cpu.txt"}
        del environment["HF_HUB_OFFLINE"]
        done = subprocess.run(
            ["bash", "run_loop.sh"], cwd=ROOT, env=environment | {"DRY_RUN": "1"}, capture_output=True, text=True
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert ("# hub: " in done.stdout) == (environment["CHECK"] == "yes")
        commands = [shlex.split(line, comments=True) for line in done.stdout.splitlines()]
        sampled = [command for command in commands if "generation/2_responses.py" in command]
        assert [c[c.index("--shard") + 1] for c in sampled if "--shard" in c] == (
            list("01234567") * (1 + rounds + rounds * ("offline" not in name)) if gpus == "8" else []
        )
        found = [command for command in commands if "dpo/1_dpo.py" in command]
        assert len(found) == rounds and not (tmp_path / "run").exists()
        for command in found:
            flags = dict(itertools.pairwise(command))
            sizes = [int(flags[f"--{name}"]) for name in ("per_device_train_batch_size", "gradient_accumulation_steps")]
            assert sizes[0] * sizes[1] * int(gpus) == 128
            assert (command[:2] == ["accelerate", "launch"]) == (gpus == "8")
            assert gpus == "1" or (ROOT / flags["--config_file"]).is_file()


def test_nodes_share_the_rows_and_the_training(tmp_path):
    """Two nodes of four GPUs, two of which hold one model of vLLM's: each command says where it runs."""
    nodes = {"GPUS": "4", "NODES": "2", "TENSOR_PARALLEL": "2", "SFT_BATCH_SIZE": "8"}
    status, printed = drive(recipe(tmp_path), DRY_RUN="1", ITERATIONS="1", **nodes)
    found = {}
    for line in printed.splitlines():
        command, _, step = line.partition(" # step ")
        found.setdefault(step, shlex.split(command))
    assert status == 0
    placed = [
        [next(word for word in found[f"{step}, shard {i}"] if word.startswith(name)) for i in range(count)]
        for step, count in (("12", 4), ("13", 8))
        for name in ("--nodelist=", "CUDA_VISIBLE_DEVICES=")
    ]
    assert placed[0] == ["--nodelist=node0"] * 2 + ["--nodelist=node1"] * 2
    assert placed[1] == [f"CUDA_VISIBLE_DEVICES={gpus}" for gpus in ("0,1", "2,3")] * 2
    assert placed[2] == ["--nodelist=node0"] * 4 + ["--nodelist=node1"] * 4
    assert placed[3] == [f"CUDA_VISIBLE_DEVICES={gpu}" for gpu in range(4)] * 2
    run = tmp_path / "run/iter1"
    assert found["12"] == ["python", "shards.py", f"{run}/prompts.jsonl", f"{run}/responses.jsonl", "4"]
    training = found["15"]
    assert training[0] == "srun" and "--nodes=2" in training and "--ntasks-per-node=1" in training
    flags = dict(itertools.pairwise(training))
    assert (flags["--num_machines"], flags["--num_processes"]) == ("2", "8")
    assert int(flags["--per_device_train_batch_size"]) * int(flags["--gradient_accumulation_steps"]) == 1


def job(folder, srun, number=1):
    """The environment of a made-up job of Slurm on two nodes; its srun does that."""
    for name, does in {"scontrol": "printf 'n1\nn2\n'", "srun": srun}.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{does}\n")
        (folder / name).chmod(0o755)
    told = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": str(number)}
    return {"PATH": f"{folder}:{os.environ['PATH']}", **told}


def test_nodes_with_clocks_apart_are_refused(tmp_path):
    """What has to be made again is judged by the times of files."""
    late = 'echo "n1 $(date +%s)"; echo "n2 $(date -d -5min +%s)"'
    status, printed = drive(recipe(tmp_path), **job(tmp_path, late))
    reason = r"run_loop.sh: the clock of n2 is -30[0-2] s off that of n1: set them, by NTP or chrony\n"
    assert status == 1 and re.fullmatch(reason, printed), printed


def test_a_port_that_is_taken_is_passed_over(tmp_path):
    """The processes of a training find one another at a port that follows from the job's number."""
    clocks = '[[ $* == *launch.sh* ]] && exit 1; echo "n1 $(date +%s)"; echo "n2 $(date +%s)"'
    for port in range(20_000, 30_000):
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port + 1)).close()
            taken = socket.create_server(("127.0.0.1", port))
            break
    with taken:
        status, printed = drive(recipe(tmp_path), **job(tmp_path, clocks, port - 20_000), FROM="1", TO="1")
    assert status == 1 and f" --main_process_port {port + 1} " in printed


# The whole loop, once; the tests below it change it in the order in which they stand, and each leaves it whole


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """(recipe, run directory, what was printed) of a loop with the reference of the paper, pi_0."""
    file = recipe(tmp_path_factory.mktemp("loop"))
    status, printed = drive_warm(file)
    assert status == 0, printed
    return file, file.parent / "run", printed


def test_the_loop_finishes_with_every_file(short):
    file, out, printed = short
    made = {str(path.relative_to(out)) for path in files(out)}
    for t in (1, 2):
        made -= {f"iter{t}/{name}.jsonl" for name in ("prompts", "responses", "rewards", "pairs")} | {
            f"iter{t}/prompts.md"
        }
    for name in ("sft", "iter1", "iter2"):
        made -= {f"eval/{name}/{rows}.jsonl" for rows in ("answers", "rewards", "true_rewards", "kl")}
    world = ("corpus", "instructions", "preferences", "ratings", "bench", "prompts", "evaluation")
    made -= {f"world/{name}.jsonl" for name in world}
    made = {name for name in made if not name.startswith("world/benchmarks/")}
    made -= {f"{name}.jsonl" for name in ("instructions", "preferences", "preferences_held_out")}
    for name in ("reward_model", "preference_model", "armorm", "llm_judge"):
        made -= {f"measures/{rows}_{name}.jsonl" for rows in ("bench", "responses")}
    made -= {f"measures/{name}" for name in MEASURES}
    for model in ("base", "sft", "reward_model", "preference_model", "armorm", "iter1/policy", "iter2/policy"):
        assert {f"{model}/model.safetensors", f"{model}/trainer_state.json"} <= made
        made = {name for name in made if not re.fullmatch(rf"{model}/[^/]+", name)}
    assert made == {
        "settings",
        "instructions.md",
        "preferences.md",
        "results.json",
        "report.md",
        "report.html",
        "judge.url",
    }
    numbers = [*range(5), "5a", "5b", "5c", *range(6, 10), *range(11, 20), *range(21, 30)]
    numbers += [31, *(f"3{i}{letter}" for letter in "abcd" for i in (2, 3)), 34, 35, 36, 39, 40]
    assert steps(printed) == numbers and nothing_is_left(file)
    assert {path.name for path in (out / "log").iterdir()} == {f"{n}.{end}" for n in numbers for end in
                                                               ("log", "seconds")} | {"judge.log"}  # fmt: skip
    for t in (1, 2):
        ids = [[row["id"] for row in read_jsonl(out / f"iter{t}/{name}.jsonl")] for name in
               ("prompts", "responses", "rewards", "pairs")]  # fmt: skip
        assert ids[0] == ids[1] == ids[2] and len(set(ids[0])) == 17 and set(ids[3]) <= set(ids[0])
    rounds = [{row["id"] for row in read_jsonl(out / f"iter{t}/prompts.jsonl")} for t in (1, 2)]
    assert not rounds[0] & rounds[1]


def test_the_reference_stays_the_initial_policy(short):
    """Defect 2. The first loss of a round is ln 2 only where its start and its reference are the same."""
    one, two = first_losses(short[1])
    assert one == pytest.approx(math.log(2), abs=1e-4) and abs(two - math.log(2)) > 1e-3


def test_the_results_hold_every_policy_with_every_metric(short):
    results = json.loads((short[1] / "results.json").read_text())
    assert list(results["policies"]) == ["sft", "iter1", "iter2"] and results["best"] in results["policies"]
    for name, metrics in results["policies"].items():
        for metric in ("true_reward", "win_rate", "proxy_reward", "accuracy", "length", "kl", "truncated"):
            assert isinstance(metrics[metric], float), (name, metric)
    assert results["policies"]["sft"]["kl"] == pytest.approx(0, abs=1e-6)
    assert results["training"]["iter1"]["first_loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_a_second_call_does_nothing(short):
    """Whichever of the two files that a step makes is the older one."""
    file, out, _ = short
    written = (out / "preferences.jsonl").stat().st_mtime_ns
    os.utime(out / "preferences_held_out.jsonl", ns=(written + 10**6, written + 10**6))
    before = files(out)
    status, printed = drive(file)
    assert status == 0 and printed.startswith("All is up to date: ") and len(printed.splitlines()) == 1
    assert files(out) == before


def test_benchmarks_are_added_to_a_finished_run(short):
    """By the world's own judge; a judge that is asked again knows all answers."""
    file, out, _ = short
    before, names, policies = files(out), ["mt_bench", "arena_hard"], ["sft", "iter1", "iter2"]
    evals = " ".join(names)
    status, printed = drive_warm(file, EVALS=evals)
    assert status == 0, printed
    assert steps(printed) == [*(s for p in policies for s in (f"37_{p}", *(f"38_{p}_{n}" for n in names))), 39, 40]
    results = json.loads((out / "results.json").read_text())["benchmarks"]
    assert {name: list(of) for name, of in results.items()} == dict.fromkeys(names, policies)
    assert {of["judge"] for name in names for of in results[name].values()} == {"true_reward"}
    card = (out / "iter2/policy/README.md").read_text()
    assert f"| Arena-Hard | {results['arena_hard']['iter2']['score']:.1f} | judge true_reward, " in card
    page = (out / "report.html").read_text()
    assert "<h2>Benchmarks, judged by true_reward</h2>" in page and " (published)" not in page
    changed = {str(path.relative_to(out)) for path, when in before.items() if files(out)[path] != when}
    assert changed == {"results.json", "report.md", "report.html", "sft/README.md", "judge.url",
                       "iter1/policy/README.md", "iter2/policy/README.md"}  # fmt: skip
    assert drive(file, EVALS=evals)[1].startswith("All is up to date: ")
    (out / "eval/iter1/arena_hard/arena_hard.json").unlink()
    status, printed = drive_warm(file, EVALS=evals)
    assert status == 0 and steps(printed) == ["38_iter1_arena_hard", 39, 40] and ": 0 requests, " in printed


def test_other_settings_in_the_same_directory_are_refused(short):
    file, out, _ = short
    before = files(out)
    status, printed = drive(file, BETA="0.2", FROM="15", TO="15")
    assert status == 1 and printed.splitlines()[1:] == ["< BETA=0.3", "> BETA=0.2"]
    assert printed.startswith(f"run_loop.sh: {out} holds a run with other settings") and files(out) == before


def test_a_second_driver_is_refused(short):
    file, out, _ = short
    with open(out / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert drive(file) == (1, f"run_loop.sh: {out}: another run_loop.sh is at work there\n")


def test_what_lies_downstream_of_a_lost_file_is_done_again(short):
    file, out, _ = short
    before = files(out)
    (out / "iter1/pairs.jsonl").unlink()
    status, printed = drive_warm(file)
    assert status == 0 and steps(printed) == [*range(14, 20), *range(22, 30), 39, 40]
    after = files(out)
    kept = ["world", "base", "sft", "reward_model", "eval/sft", "iter1/prompts.jsonl", "iter1/responses.jsonl"]
    kept += ["iter1/rewards.jsonl", "iter2/prompts.jsonl", "settings"]
    assert after.keys() == before.keys() and nothing_is_left(file)
    changed = {str(path.relative_to(out)) for path in after if after[path] != before[path]}
    changed -= {"sft/README.md"}  # its scores may have changed
    assert not [name for name in changed if name.startswith((*kept, "instructions", "preferences"))]
    assert {f"iter{t}/pairs.jsonl" for t in (1, 2)} | {"iter2/responses.jsonl", "results.json"} <= changed


@pytest.mark.parametrize(
    ("number", "sent", "status"), [("15", signal.SIGINT, 130), ("12", signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_signal_leaves_no_process_and_loses_nothing(short, number, sent, status):
    """Defect 8: servers were ended by a pattern that matched what others ran, or stayed."""
    file, out, _ = short

    def finished():  # what a killed step has got done so far stays, for the next start
        return {path: when for path, when in files(out).items() if ".partial-" not in str(path)}

    before = finished()
    driver = start(file, FROM=number, TO=number)
    while not steps(file.with_suffix(".log").read_text()):
        assert driver.poll() is None
        time.sleep(0.1)
    time.sleep(2)  # in the middle of its imports: on a fast machine the whole step takes six seconds
    assert processes(file) and driver.poll() is None
    if sent == signal.SIGINT:
        os.killpg(driver.pid, sent)  # as a terminal does
    else:
        driver.send_signal(sent)
    assert driver.wait() == status and nothing_is_left(file)
    assert finished() == before


def test_a_part_in_two_shards_gives_the_same_rows(short):
    """Defect 4: 17 prompts, 2 processes. One that fails is tried again, and named if it fails again."""
    file, out, _ = short
    before = {name: read_jsonl(out / f"iter1/{name}.jsonl") for name in ("responses", "rewards")}
    times = files(out)
    fault = file.parent / "fault"
    fault.mkdir()
    (fault / "sitecustomize.py").write_text(FAULT)
    some = {"PYTHONPATH": str(fault), "GPUS": "2", "PER_DEVICE_BATCH_SIZE": "1"}
    (fault / "12").write_text("1")
    status, printed = drive(file, FROM="12", TO="13", **some)
    assert status == 0 and steps(printed) == [12, 13] and nothing_is_left(file)
    assert f"[12] shard 1 of 2 failed; once more, {out}/log/12.1.again.log" in printed
    assert read_jsonl(out / "iter1/responses.jsonl") == before["responses"]
    for row, old in zip(read_jsonl(out / "iter1/rewards.jsonl"), before["rewards"], strict=True):
        assert row == {**old, "rewards": pytest.approx(old["rewards"], abs=1e-4)}
    changed = {str(path.relative_to(out)) for path, when in files(out).items() if times.get(path) != when}
    assert changed == {"iter1/responses.jsonl", "iter1/rewards.jsonl"}

    (fault / "12").write_text("2")
    status, printed = drive(file, FROM="12", TO="12", **some)
    assert status == 1 and nothing_is_left(file)
    assert f"step 12, shard 1 of 2, failed; the end of {out}/log/12.1.again.log:\na broken GPU\n" in printed
    (out / "iter1/responses.jsonl.0-of-2").unlink()


def test_a_failed_step_shows_its_last_lines_and_how_to_repeat_it(short):
    """Defect 8: without `set -e` the loop went on with what the last round had left."""
    file, out, _ = short
    pool = out / "world/prompts.jsonl"
    good = pool.read_bytes()
    pool.write_bytes(good + b'{"id": "cut in ha\n')
    status, printed = drive(file, FROM="11", TO="12")
    assert status == 1 and steps(printed) == [11] and f"\n{pool}:61: row: not a line of JSON" in printed
    assert "run_loop.sh: step 11 failed; the end of " in printed
    command = re.search(r"for this step alone: (.*)\n$", printed)[1]
    pool.write_bytes(good)
    again = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0 and steps(again.stdout) == [11], again.stderr


def test_every_annotator_labels_a_round_and_they_combine(short, tmp_path):
    """By the models of the loop above: the sum of what each says, standardised and weighted."""
    file, out, _ = short
    models = {"SFT_MODEL": "sft", "REWARD_MODEL": "reward_model", "PREFERENCE_MODEL": "preference_model"}
    models = {name: f"{out}/{path}" for name, path in {**models, "ARMORM": "armorm"}.items()}
    names, weights = "reward_model preference_model armorm llm_judge verifier".split(), [1, 2, 0.5, 1, 3]
    settings = {"OUT": f"{tmp_path}/run", "MEASURE": "none", "ITERATIONS": "1", **models}
    settings |= {"ANNOTATOR": " ".join(names), "ANNOTATOR_WEIGHTS": " ".join(map(str, weights))}
    assert drive_warm(file, **settings, TO="0")[0] == 0
    status, printed = drive_warm(file, **settings, FROM="11", TO="14")
    assert status == 0, printed
    assert steps(printed) == [11, 12, "13a", "13b", "13c", "13d", "13e", 13, 14]
    of_each = [read_jsonl(tmp_path / f"run/iter1/rewards_{name}.jsonl") for name in names]
    z = []
    for scored in of_each:
        values = [reward for row in scored for reward in row["rewards"]]
        z.append([[(r - fmean(values)) / pstdev(values) for r in row["rewards"]] for row in scored])
    combined = read_jsonl(tmp_path / "run/iter1/rewards.jsonl")
    assert len(combined) == 17 and nothing_is_left(file)
    for i, row in enumerate(combined):
        by_hand = [sum(w * of[i][j] for w, of in zip(weights, z, strict=True)) for j in range(4)]
        assert row["rewards"] == pytest.approx(by_hand, abs=1e-6) and len(row["objectives"][0]) == 5


# Killed


def test_a_loop_that_is_killed_seven_times_ends_with_the_same_rows(short, tmp_path):
    """SIGKILL of the driver, or of what it runs. With REFERENCE=previous, the first loss is ln 2 in every round."""
    file, out, rng = recipe(tmp_path), tmp_path / "run", random.Random(0)
    finished = {}  # (file, id) of every row on disk after a kill: the row
    for attempt in range(7):
        driver = start(file, REFERENCE="previous", MEASURE="none")
        begun, wait = rng.randint(1, 4), rng.uniform(0, 8)
        while driver.poll() is None and len(steps(file.with_suffix(".log").read_text())) < begun:
            time.sleep(0.1)
        time.sleep(wait)
        children = [pid for pid, words in processes(file).items() if words[0] == "python"]
        if driver.poll() is not None:  # it was at its end
            break
        os.kill(children[0] if children and attempt % 2 else driver.pid, signal.SIGKILL)
        assert driver.wait() != 0 and nothing_is_left(file)
        for path in out.rglob("*.jsonl*"):
            name = path.relative_to(out).with_name(path.name.split(".partial-")[0])
            for line in path.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n") and "id" in (row := json.loads(line)):
                    assert finished.setdefault((name, row["id"]), line) == line
    assert attempt > 3 and len({name for name, _ in finished}) > 8
    status, printed = drive(file, REFERENCE="previous", MEASURE="none")
    assert status == 0, printed
    at_the_end = {}
    for path in out.rglob("*.jsonl"):
        for line in path.read_bytes().splitlines(keepends=True):
            if "id" in (row := json.loads(line)):
                assert at_the_end.setdefault((path.relative_to(out), row["id"]), line) is line, "a row stands twice"
    assert finished.items() <= at_the_end.items()
    assert not [path for path in out.rglob("*") if ".partial-" in path.name or path.name.startswith("checkpoint-")]
    assert first_losses(out) == pytest.approx([math.log(2)] * 2, abs=1e-4)
    # Iteration 1 is the same for both references: it is as if nobody had killed it.
    for name in ("prompts", "responses", "pairs"):
        new, old = (read_jsonl(run / f"iter1/{name}.jsonl") for run in (out, short[1]))
        fields = ("id", "prompt", "responses", "finish_reasons", "chosen", "rejected")
        assert [[row.get(k) for k in fields] for row in new] == [[row.get(k) for k in fields] for row in old]


def test_a_full_disk_stops_the_driver_in_plain_words(tmp_path, disk):
    file = recipe(tmp_path, f': "${{OUT:={disk}}}"\n')
    status, printed = drive(file, TO="0", CHECK="no")
    assert status == 1 and f"\n{disk}/world/corpus.jsonl: No space left on device; " in printed
    assert f"No space is left on the disk of {disk}." in printed and "for this step alone: " in printed
    subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
    status, printed = drive(file, TO="0")
    assert status == 0 and len(read_jsonl(disk / "world/evaluation.jsonl")) == 30
