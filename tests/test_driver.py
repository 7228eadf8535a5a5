"""run_loop.sh before its first step: what it refuses, and what it would run."""

import contextlib
import gzip
import itertools
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from commands import ROOT, read_jsonl, run, write_jsonl
from driving import commands, drive, drive_warm, nothing_is_left, recipe, shards, steps
from scripted_hub import machine

# Recipes whose models and data the project makes; the others take them from the hub.
MADE = ("tiny", "tiny_tools", "smollm2")

# What it refuses before it starts, and what it would run


def flags_of(command):
    """{flag: its first value} of a command."""
    return dict(itertools.pairwise(command))


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
    """Words, quoted texts, other variables and their defaults; $(...) stays text."""
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
    script = """\
set -euf
for file in steps variables settings stages; do source driver/$file.sh; done
read_settings
for name in SFT_MODEL REWARD_MODEL PROMPTS EVAL_PROMPTS DPO_OPTIONS VERIFIER_PATTERN; do
  echo "${!name}"
done
"""
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


FILES = "PROMPTS EVAL_PROMPTS PREFERENCES RATINGS SFT_DATA OFFLINE_PAIRS EVAL_QUESTIONS SFT_MODEL"
ARMORM_RUNS_CODE = (
    "ARMORM=owner/name: it runs code from the hub: "
    "set ARMORM_TRUST_REMOTE_CODE=yes and ARMORM_REVISION"
)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"RECIPE": "recipes/none.sh"}, "recipes/none.sh: no such recipe"),
        ({"REFERENCE": "foo"}, "REFERENCE=foo: one of initial previous"),
        (
            {"PAIRING": "best"},
            "PAIRING=best: one of best_worst best_random random_random right_wrong FILE.py",
        ),
        (
            {"ANNOTATOR": "oracle"},
            "ANNOTATOR=oracle: one or several of reward_model preference_model armorm llm_judge",
        ),
        ({"EVALS": "none mt_bench"}, "EVALS=none mt_bench: none, or others"),
        (
            {"OPTIMISER": "ppo"},
            "OPTIMISER=ppo: no such file; "
            "there are dpa dpo ipo_md ipo_mixture kto mdpo mkto nash_md offline online_dpo raft",
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
        (
            {"ANNOTATOR": "verifier a/verifier.py"},
            "ANNOTATOR=verifier a/verifier.py: two of one name",
        ),
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
            "VALIDATION=preference_model: "
            "it compares policies, and ITERATIONS=0 makes no second one",
        ),
        # The published code's batch grew with the number of GPUs.
        (
            {"GPUS": "3", "SFT_BATCH_SIZE": "24"},
            "RM_BATCH_SIZE=16 does not divide by 3 processes",
        ),
        (
            {"OPTIMISER": "raft", "OFFLINE_PAIRS": "mix1"},
            "OFFLINE_PAIRS=mix1: OPTIMISER=raft is not trained on pairs",
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
        ({"OPTIMISER": "ipo_md", "N": "1"}, "OPTIMISER=ipo_md: N=1, a pair needs two responses"),
        (
            {"OPTIMISER": "nash_md", "ITERATIONS": "1", "ANNOTATOR": "reward_model"},
            "OPTIMISER=nash_md: set ANNOTATOR=preference_model, which it asks itself",
        ),
        (
            {"OPTIMISER": "nash_md", "ITERATIONS": "1", "N": "3"},
            "OPTIMISER=nash_md: DPO_BATCH_SIZE=8 does not divide by N=3",
        ),
        (
            {"OPTIMISER": "nash_md", "ITERATIONS": "1", "N": "4", "GPUS": "2"}
            | {"DISTRIBUTED": "zero3"},
            "OPTIMISER=nash_md: its processes hold whole models; set DISTRIBUTED to ddp or zero2",
        ),
        *(
            ({name: "some/where/none.jsonl"}, f"{name}=some/where/none.jsonl: no such file")
            for name in FILES.split()
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
        ({"ANNOTATOR": "armorm", "ARMORM": "owner/name"}, ARMORM_RUNS_CODE),
        (
            {
                "ANNOTATOR": "armorm",
                "ARMORM": "owner/name",
                "ARMORM_TRUST_REMOTE_CODE": "yes",
                "ARMORM_REVISION": "main",
            },
            ARMORM_RUNS_CODE,
        ),
    ],
    # a case is called by its first variable
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_value_that_cannot_be(tmp_path, variables, reason):
    status, printed = drive(recipe(tmp_path), **variables)
    assert status == 1
    assert printed.startswith(f"run_loop.sh: {reason}")
    assert len(printed.splitlines()) == 1
    assert "SECRET" not in printed and not (ROOT / "runs/ran").exists()
    assert not (tmp_path / "run").exists()


def question(i):
    return {"id": str(i), "prompt": [{"role": "user", "content": f"Say {i}."}]}


@pytest.mark.parametrize("check", ["yes", "no"])
def test_evaluation_prompts_without_a_split_are_refused_before_the_first_step(tmp_path, check):
    """The report, at the end of the run, needs the splits.

    The run's directory still takes other settings after the refusal.
    """
    first, *others = [{**question(i), "split": "test"} for i in range(4)]
    file = recipe(tmp_path)
    evaluation = tmp_path / "evaluation.jsonl"
    for row, reason in (
        ({**first, "split": "train"}, ":1: split: not validation or test"),
        ({"id": "0", "prompt": first["prompt"]}, ":1: split: not validation or test"),
        (first, ": split: fewer than two rows of validation or of test"),
    ):
        write_jsonl(evaluation, [row, *others])
        status, printed = drive(file, EVAL_PROMPTS=str(evaluation), CHECK=check)
        assert status == 1
        assert f"check: {evaluation}{reason}\n" in printed
        assert not steps(printed)
        assert not (tmp_path / "run/settings").exists()
        assert not (tmp_path / "run/world").exists()


def test_a_pool_that_is_too_small_is_told_before_anything_is_trained(tmp_path):
    """The paper's 60,000 prompts do not suffice for three rounds of 20,000 and an evaluation."""
    file = recipe(tmp_path)
    status, printed = drive_warm(file, PROMPTS_PER_ITERATION="31", CHECK="no")
    assert status == 1
    assert steps(printed) == ["world/evaluation", "instructions"][: len(steps(printed))]
    assert not list((tmp_path / "run").glob("base*"))
    world = tmp_path / "run/world"
    message = f"run_loop.sh: {world}/prompts.jsonl: 60 prompts of {{'left': 60}}, 62 are needed; "
    assert printed.endswith(f"{message}ITERATIONS=2, PROMPTS_PER_ITERATION=31\n"), printed
    # Without EVAL_PROMPTS a part of the pool is drawn for the evaluation.
    pool = write_jsonl(tmp_path / "pool.jsonl", [question(i) for i in range(1100)])
    text = file.read_text().replace("EVAL_PROMPTS=$OUT/world/evaluation.jsonl", "EVAL_PROMPTS=")
    file.write_text(text.replace("WORLD=recipes/tiny", "WORLD="))
    settings = {
        "WORLD": "",
        "EVAL_PROMPTS": "",
        "PROMPTS": str(pool),
        "PROMPTS_PER_ITERATION": "51",
        "BASE_MODEL": "owner/name",
        "CHECK": "no",
        "OUT": f"{tmp_path}/other",
        "MEASURE": "none",
        "SFT_DATA": f"{world}/instructions.jsonl",
        "PREFERENCES": f"{world}/preferences.jsonl",
        "RATINGS": f"{world}/ratings.jsonl",
        "EVAL_QUESTIONS": f"{world}/benchmarks",
    }
    status, printed = drive_warm(file, **settings)
    assert status == 1
    assert steps(printed) == ["evaluation"]
    counts = "{'in an excluded file': 1000, 'left': 100}"
    message = f"{pool}: 100 prompts of {counts}, 102 are needed; ITERATIONS=2, "
    assert message in printed, printed


def test_a_list_may_stand_on_several_lines_and_blanks_are_no_value(tmp_path):
    lists = {"ANNOTATOR": "reward_model\narmorm", "DPO_OPTIONS": "--beta 0.2\n  --max_length 77"}
    blanks = {"OPTIMISER": " ", "VALIDATION": "\n", "SEED": " "}
    variables = {"DRY_RUN": "1", "CHECK": "no", **lists, **blanks}
    status, printed = drive(recipe(tmp_path), **variables)
    assert status == 0, printed
    step_commands = commands(printed)
    assert {"iter1/rewards_reward_model", "iter1/rewards_armorm"} <= step_commands.keys()
    assert flags_of(step_commands["iter1/policy"])["--seed"] == "0"
    assert flags_of(step_commands["iter1/policy"])["--max_length"] == "77"
    assert flags_of(step_commands["iter1/pairs_reference"])["--max_length"] == "77"


def test_the_reference_reads_a_flag_that_is_spelt_with_hyphens_as_the_training_does(tmp_path):
    variables = {"DRY_RUN": "1", "CHECK": "no"}
    flags = "--max-length=77 --truncation-mode keep_end"
    _, printed = drive(recipe(tmp_path), DPO_OPTIONS=flags, **variables)
    scoring = flags_of(commands(printed)["iter1/pairs_reference"])
    assert (scoring["--max_length"], scoring["--truncation_mode"]) == ("77", "keep_end")
    # Not with log-probabilities that are stored.
    _, printed = drive(recipe(tmp_path), DPO_OPTIONS="--ld-alpha 0.5", **variables)
    assert "iter1/pairs_reference" not in commands(printed)
    assert "--ref_model_name_or_path" in commands(printed)["iter1/policy"]


def test_a_set_of_prompts_a_round(tmp_path):
    a, b = (write_jsonl(tmp_path / f"{name}.jsonl", []) for name in "ab")
    settings = {"PROMPTS_BY_ROUND": f"{a} {b}", "DPO_LEARNING_RATES": "1e-4 1e-5"}
    file = recipe(tmp_path, "PROMPTS_PER_ITERATION=0\n")
    status, printed = drive(file, DRY_RUN="1", CHECK="no", **settings)
    assert status == 0
    step_commands = commands(printed)
    for t, pool, learning_rate in ((1, a, "1e-4"), (2, b, "1e-5")):
        flags = flags_of(step_commands[f"iter{t}/prompts"])
        assert (flags["--datasets"], flags["--size"]) == (str(pool), "0")
        assert flags_of(step_commands[f"iter{t}/policy"])["--learning_rate"] == learning_rate
    second = step_commands["iter2/prompts"]
    assert second[second.index("--exclude_files") + 2] == f"{tmp_path}/run/iter1/prompts.jsonl"


def bare_machine(folder):
    """(a copy of the checkout, a folder for PATH) with a Python that has no package."""
    copy = folder / "copy"
    tools = folder / "tools"
    listing = ["git", "ls-files", "-co", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    tools.mkdir()
    for name in "bash dirname basename realpath wc seq env cat grep sed".split():
        (tools / name).symlink_to(shutil.which(name))
    (tools / "python3").symlink_to(system_python())
    return copy, tools


def system_python():
    return Path(sys._base_executable).resolve()


def bare_dry_run(home, path, **variables):
    environment = {"PATH": path, "HOME": str(home.parent), "DRY_RUN": "yes", "GPUS": "0"}
    return subprocess.run(
        ["bash", "run_loop.sh"],
        cwd=home,
        env=environment | variables,
        capture_output=True,
        text=True,
    )


NOT_CHECKED = "# not checked: no environment here, source ./setup.sh makes one"


def test_a_dry_run_needs_no_environment_and_makes_none(tmp_path):
    copy, tools = bare_machine(tmp_path)
    before = sorted(copy.rglob("*"))
    printed = []
    for home, path in ((copy, str(tools)), (ROOT, os.environ["PATH"])):
        done = bare_dry_run(home, path)
        assert done.returncode == 0
        assert not done.stderr
        printed.append(done.stdout.splitlines())
    assert sorted(copy.rglob("*")) == before
    of_copy, of_checkout = printed
    assert of_copy[-1] == NOT_CHECKED

    # The checkout's own run may exist already: then the states of its steps differ.
    def without_states(lines):
        return [line.partition("  # ")[0] for line in lines if line[0] != "#"]

    assert without_states(of_copy) == without_states(of_checkout)
    assert len(without_states(of_copy)) > 50


# Says that it is older than the one that runs it.
OLD_PYTHON = """\
#!/bin/sh
exec {python} -I -c "import sys; sys.version_info = (3, 8, 18); $3"
"""


def test_a_dry_run_passes_over_a_python_that_is_too_old_or_lacks_packages(tmp_path):
    """A cluster's login node may have both."""
    copy, tools = bare_machine(tmp_path)
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    packages = next(environment.glob("lib/python*/site-packages"))
    (packages / "huggingface_hub.py").write_text("")
    done = bare_dry_run(copy, str(tools), VIRTUAL_ENV=str(environment))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == NOT_CHECKED

    python3 = tools / "python3"
    python3.rename(tools / "python3.12")
    python3.write_text(OLD_PYTHON.format(python=system_python()))
    python3.chmod(0o755)
    done = bare_dry_run(copy, str(tools))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == NOT_CHECKED
    (tools / "python3.12").unlink()
    done = bare_dry_run(copy, str(tools))
    reason = "no Python 3.11 or 3.12: none in an active environment, in .venv or on PATH"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"run_loop.sh: {reason}\n"


def steps_of_three_rounds(scores_all_pairs_anew):
    """Of the tiny recipe, in their order.

    scores_all_pairs_anew: each round's reference is another, and earlier pairs are trained on.
    """
    evaluation = ["answers", "rewards", "true_rewards", "kl"]
    names = ["world/evaluation", "instructions", "base", "sft"]
    names += ["preferences", "reward_model", "preference_model", "armorm"]
    names += [f"eval/sft/{rows}" for rows in evaluation]
    for t in (1, 2, 3):
        names += [f"iter{t}/{rows}" for rows in ("prompts", "responses", "rewards", "pairs")]
        if scores_all_pairs_anew:
            names += [f"iter{t}/iter{earlier}_pairs_reference" for earlier in range(1, t)]
        names += [f"iter{t}/pairs_reference", f"iter{t}/policy"]
        names += [f"eval/iter{t}/{rows}" for rows in evaluation]
    names.append("measures/bench")
    for annotator in ("reward_model", "preference_model", "armorm", "llm_judge"):
        names += [f"measures/bench_{annotator}", f"measures/responses_{annotator}"]
    names += ["measures/rewardbench", "measures/length_bias", "measures/calibration"]
    return [*names, "results", "sft/README"]


def test_a_script_of_ones_own_has_to_write_its_file(tmp_path):
    """Else the rewards of its last run would pass for those of this one."""
    rewards = tmp_path / "run/iter1/rewards.jsonl"
    scorer = tmp_path / "my_scorer.py"
    reads_its_flags = (
        "import argparse, shutil\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--responses_file')\n"
        "parser.add_argument('--output_file')\n"
        "args = parser.parse_args()\n"
    )
    scorer.write_text(reads_its_flags)
    rewards.parent.mkdir(parents=True)
    write_jsonl(rewards, [{"id": "old"}])
    write_jsonl(rewards.with_name("responses.jsonl"), [{"id": "a"}])
    settings = {"FROM": "iter1/rewards", "TO": "iter1/rewards", "CHECK": "no"}
    status, printed = drive(recipe(tmp_path), ANNOTATOR=str(scorer), **settings)
    assert status == 1
    log = f"{tmp_path}/run/log/iter1/rewards.log"
    message = f"run_loop.sh: iter1/rewards: {scorer} has not written {rewards}, see {log}"
    assert printed.splitlines()[-1] == message
    scorer.write_text(f"{reads_its_flags}shutil.copy(args.responses_file, args.output_file)\n")
    status, printed = drive(recipe(tmp_path), ANNOTATOR=str(scorer), **settings)
    assert status == 0, printed
    assert read_jsonl(rewards) == [{"id": "a"}]


@pytest.mark.parametrize("history", ["round", "all"])
@pytest.mark.parametrize("first", ["previous", "initial"])
@pytest.mark.parametrize("reference", ["initial", "previous"])
def test_a_dry_run_prints_the_commands_and_makes_nothing(tmp_path, reference, first, history):
    """Defect 2: reference, start and history of the training are three settings."""
    run = tmp_path / "run"
    file = recipe(tmp_path)
    variables = {
        "REFERENCE": reference,
        "START": first,
        "HISTORY": history,
        "ITERATIONS": "3",
        "CHECK": "no",
    }
    status, printed = drive(file, DRY_RUN="1", **variables)
    step_commands = commands(printed)
    assert status == 0
    assert not run.exists()
    for command in step_commands.values():
        assert command[0] == "python"
        assert (ROOT / command[1]).is_file()
    expected = steps_of_three_rounds((reference, history) == ("previous", "all"))
    assert list(step_commands) == expected
    assert printed.count("(missing)") == len(expected)

    policies = [f"{run}/sft", f"{run}/iter1/policy", f"{run}/iter2/policy", f"{run}/iter3/policy"]
    trainings = [c for c in step_commands.values() if c[1] == "dpo/1_dpo.py"]
    assert len(trainings) == 3
    pairs = [f"{run}/iter{t}/pairs.jsonl" for t in (1, 2, 3)]
    scored = {}  # {file: (pairs, reference)}
    for command in step_commands.values():
        if command[1] == "dpo/0_reference.py":
            flags = flags_of(command)
            scored[flags["--output_file"]] = flags["--pairs_file"], flags["--model_name_or_path"]
    for t, command in enumerate(trainings):
        flags = dict(zip(command[2::2], command[3::2], strict=False))
        assert flags["--model_name_or_path"] == policies[t if first == "previous" else 0]
        reference_path = policies[t if reference == "previous" else 0]
        data = command[command.index("--dataset_name") + 1 : command.index("--loss_type")]
        expected_pairs = pairs[0 if history == "all" else t : t + 1]
        assert [scored[file] for file in data] == [
            (file, reference_path) for file in expected_pairs
        ]
    # Each policy answers the evaluation prompts; all but the last answer those of a round too.
    sampled = []
    for command in step_commands.values():
        if "--temperatures" in command:
            sampled.append(flags_of(command)["--model_name_or_path"])
    expected = [policies[0]]
    for policy, next_policy in itertools.pairwise(policies):
        expected += [policy, next_policy]
    assert sampled == expected
    for first_step, last_step in (("22", "24"), ("iter2/responses", f"{run}/iter2/pairs.jsonl")):
        _, part = drive(file, DRY_RUN="1", FROM=first_step, TO=last_step, **variables)
        names = ("iter2/responses", "iter2/rewards", "iter2/pairs")
        assert commands(part) == {name: step_commands[name] for name in names}


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
    """By the parser of the script, which would see it hours later."""
    wrong = {"DPO_OPTIONS": "--nosuch 1", "RM_OPTIONS": "--weight_decay much", "MEASURE": "none"}
    for dry in ("yes", "no"):
        status, printed = drive_warm(recipe(tmp_path), DRY_RUN=dry, **wrong)
        run = tmp_path / "run"
        assert status == 1
        assert not (run / "world").exists()
        assert not (run / "settings").exists()
        assert [line for line in printed.splitlines() if line[:9] == "run_loop."] == [
            f"run_loop.sh: {run}/reward_model: reward_modeling/2a_bradley_terry.py: "
            "argument --weight_decay/--weight-decay: invalid float value: 'much'",
            f"run_loop.sh: {run}/iter1/policy: dpo/1_dpo.py: unrecognized arguments: --nosuch 1",
            "run_loop.sh: mend what is named above; nothing was run",
        ]


def bare(folder, **variables):
    """(exit status, what a dry run prints) of a recipe of a single model and two files."""
    file = folder / "bare.sh"
    file.write_text(f"OUT={folder}/run\nITERATIONS=2\nGPUS=0\n")
    prompts = {
        "SFT_MODEL": "my_sft",
        "PROMPTS": "my_prompts.jsonl",
        "EVAL_PROMPTS": str(folder / "evaluation.jsonl"),
    }
    return drive(file, DRY_RUN="1", CHECK="no", **(prompts | variables))


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
    """None is trained and none scores the answers; a verifier tells which are right.

    The best policy is chosen by the annotator, on the answers of all policies at once.
    """
    status, printed = bare(tmp_path, **variables)
    assert status == 0
    assert "1a_reward_model.py" not in printed
    assert "2a_bradley_terry.py" not in printed
    listed = list(commands(printed).values())
    annotating = [command for command in listed if command[1].startswith("annotation/1")]
    assert {Path(command[1]).name for command in annotating} == {*scripts}
    checks_answers = "1d_verifier.py" in scripts
    # Two rounds, the answers of all policies, and with a verifier those of each policy.
    assert len(annotating) == (6 if checks_answers else 3)
    answers = [f"{tmp_path}/run/eval/{name}/answers.jsonl" for name in ("sft", "iter1", "iter2")]
    (merging,) = [command for command in listed if command[1] == "generation/2b_merge.py"]
    assert merging[3:6] == answers
    flags = flags_of(annotating[-1])
    assert flags["--responses_file"] == merging[-1]
    assert flags["--n"] == "3"
    assert flags.get("--timeout", "9") == "9"
    assert ("--timeout" in flags) == ("JUDGE_OPTIONS" in variables)
    assert flags.get("--method", "all_pairs") in ("math", "rating", "all_pairs")
    (report,) = [command for command in listed if command[1] == "eval/3_report.py"]
    assert flags_of(report)["--validation_file"] == flags["--output_file"]
    kl = [command for command in listed if command[1] == "eval/2_kl.py"]
    scored = answers[0].replace("answers", "rewards") if checks_answers else answers[0]
    assert flags_of(kl[0])["--responses_file"] == scored


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
            "VALIDATION=true_reward: only in a synthetic world",
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
            "JUDGE_OPTIONS=--max_tokens 9: "
            "a judge that thinks needs ALPACA_EVAL_OPTIONS=--no_logprobs",
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
    assert status == 1
    assert reason in printed
    assert len(printed.splitlines()) == 1


def test_a_verifier_that_chooses_needs_the_answers_of_the_evaluation_prompts(tmp_path):
    rows = [{"id": "a", "answer": "4"}, {"id": "b"}]
    evaluation = write_jsonl(tmp_path / "evaluation.jsonl", rows)
    status, printed = bare(tmp_path, ANNOTATOR="verifier")
    reason = f"VALIDATION=verifier: a row of {evaluation} has no answer"
    assert (status, printed) == (1, f"run_loop.sh: {reason}\n")
    zipped = tmp_path / "evaluation.jsonl.gz"
    zipped.write_bytes(gzip.compress(b'{"id": "a", "answer": "4"}\n'))
    status, printed = bare(tmp_path, ANNOTATOR="verifier", EVAL_PROMPTS=str(zipped))
    assert status == 0, printed


def test_verifiers_of_ones_own_and_programs_are_flags_of_the_verifier(tmp_path):
    flags = "--verifier my_rule=my/rule.py --verifier other=o.py --run_generated_code"
    settings = {"VERIFIERS": "my_rule=my/rule.py other=o.py", "RUN_GENERATED_CODE": "yes"}
    status, printed = bare(tmp_path, ANNOTATOR="verifier", VALIDATION="verifier", **settings)
    assert status == 0, printed
    # Two rounds, the answers of three policies, and all of them to choose the best.
    assert printed.count(flags) == 6
    rows = [{"id": "a", "verifier": "other"}, {"id": "b", "answer": "4"}]
    write_jsonl(tmp_path / "evaluation.jsonl", rows)
    assert bare(tmp_path, ANNOTATOR="verifier")[0] == 0
    for word in ("my/rule.py", "my-rule=rule.py", "rule=rule"):
        status, printed = bare(tmp_path, ANNOTATOR="verifier", VERIFIERS=word)
        reason = f"VERIFIERS={word}: not of the form NAME=FILE.py"
        assert (status, printed) == (1, f"run_loop.sh: {reason}\n")


def test_cleaning_stands_before_training_and_before_the_rounds(tmp_path):
    _, printed = drive(recipe(tmp_path), DRY_RUN="1", CHECK="no", CLEAN="--similarity 0.7")
    step_commands = commands(printed)
    run = tmp_path / "run"
    for before, step, after, flag, cleaned in (
        ("instructions_all", "instructions", "sft", "--dataset_name", run / "instructions.jsonl"),
        ("prompts_all", "prompts", "iter1/prompts", "--datasets", run / "prompts.jsonl"),
    ):
        flags = flags_of(step_commands[step])
        assert flags["--input_file"] == flags_of(step_commands[before])["--output_file"]
        assert flags["--similarity"] == "0.7"
        assert flags["--output_file"] == str(cleaned)
        assert flags_of(step_commands[after])[flag] == str(cleaned)


HUB_RECIPES = sorted({path.stem for path in (ROOT / "recipes").glob("*.sh")} - {*MADE})


def global_batch(flags, processes):
    per_device = int(flags["--per_device_train_batch_size"])
    return per_device * int(flags["--gradient_accumulation_steps"]) * processes


@pytest.mark.parametrize("name", HUB_RECIPES)
def test_every_recipe_passes_a_dry_run_on_eight_gpus(tmp_path, hub, name):
    """Its head says what it is.

    The global batches are the paper's for every number of GPUs (defect 7).
    """
    head = (ROOT / f"recipes/{name}.sh").read_text()
    assert head.startswith("# ")
    assert "Machine: " in head
    assert "Not run here" in head
    needed = re.search(r"Machine: (\d)", head)[1]
    mib = 24_564 if "24 GB" in head else 81_559
    rounds = {"llama3_8b_offline_dpo": 1, "llama3_8b_reward_models": 0}.get(name, 3)
    # The answers of every policy, and the responses of each round.
    samplings = 1 + rounds
    if "offline" not in name:
        samplings += rounds
    for gpus in ("1", "8"):
        environment = {
            **os.environ,
            **machine(tmp_path, hub, [mib] * 8),
            "RECIPE": f"recipes/{name}.sh",
            "GPUS": gpus,
            "CHECK": "yes" if gpus == needed else "no",
            "REQUIREMENTS": "requirements-cpu.txt",
            "DRY_RUN": "1",
        }
        del environment["HF_HUB_OFFLINE"]
        done = subprocess.run(
            ["bash", "run_loop.sh"], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr, done.stderr
        assert ("# hub: " in done.stdout) == (environment["CHECK"] == "yes")
        listed = [shlex.split(line, comments=True) for line in done.stdout.splitlines()]
        script = "2c_tool_responses" if name.endswith("mdpo") else "2_responses"
        sampling = [command for command in listed if f"generation/{script}.py" in command]
        numbers = [flags_of(c)["--shard"] for c in sampling if "--shard" in c]
        assert numbers == (list("01234567") * samplings if gpus == "8" else [])
        trainings = [command for command in listed if "dpo/1_dpo.py" in command]
        assert len(trainings) == rounds
        assert not (tmp_path / "run").exists()
        for command in trainings:
            flags = flags_of(command)
            assert global_batch(flags, int(gpus)) == (32 if name.endswith("mdpo") else 128)
            assert (command[:2] == ["accelerate", "launch"]) == (gpus == "8")
            assert gpus == "1" or (ROOT / flags["--config_file"]).is_file()


def test_nodes_share_the_rows_and_the_training(tmp_path):
    """Two nodes of four GPUs; a model of vLLM takes two GPUs. Each command says where it runs."""
    nodes = {"GPUS": "4", "NODES": "2", "TENSOR_PARALLEL": "2", "SFT_BATCH_SIZE": "8"}
    status, printed = drive(recipe(tmp_path), DRY_RUN="1", CHECK="no", ITERATIONS="1", **nodes)
    assert status == 0

    def places(step, name):
        """The word of each shard's command that starts with that name."""
        words = []
        for command in shards(printed, step):
            words.append(next(word for word in command if word.startswith(name)))
        return words

    sampling, scoring = "iter1/responses", "iter1/rewards"
    pairs_of_gpus = ["CUDA_VISIBLE_DEVICES=0,1", "CUDA_VISIBLE_DEVICES=2,3"]
    single_gpus = [f"CUDA_VISIBLE_DEVICES={gpu}" for gpu in range(4)]
    assert places(sampling, "--nodelist=") == ["--nodelist=node0"] * 2 + ["--nodelist=node1"] * 2
    assert places(sampling, "CUDA_VISIBLE_DEVICES=") == pairs_of_gpus * 2
    assert places(scoring, "--nodelist=") == ["--nodelist=node0"] * 4 + ["--nodelist=node1"] * 4
    assert places(scoring, "CUDA_VISIBLE_DEVICES=") == single_gpus * 2
    step_commands = commands(printed)
    run = tmp_path / "run/iter1"
    merging = ["python", "common/shards.py", f"{run}/prompts.jsonl", f"{run}/responses.jsonl", "4"]
    assert step_commands[sampling] == merging
    training = step_commands["iter1/policy"]
    assert training[0] == "srun"
    assert "--nodes=2" in training
    assert "--ntasks-per-node=1" in training
    flags = flags_of(training)
    assert (flags["--num_machines"], flags["--num_processes"]) == ("2", "8")
    # eight processes of a pair each
    assert global_batch(flags, 8) == 8


def test_the_gpus_that_the_caller_leaves_are_taken(tmp_path):
    """On a shared machine; without GPUS their number, too."""
    variables = {"CUDA_VISIBLE_DEVICES": "5,7", "PER_DEVICE_BATCH_SIZE": "1", "ITERATIONS": "1"}
    file = recipe(tmp_path)
    file.write_text(file.read_text().replace("GPUS=1\n", ""))
    status, printed = drive(file, DRY_RUN="1", CHECK="no", **variables)
    assert status == 0
    for step in ("iter1/responses", "iter1/rewards"):
        devices = [command[:2] for command in shards(printed, step)]
        assert devices == [["env", f"CUDA_VISIBLE_DEVICES={gpu}"] for gpu in (5, 7)]
    status, printed = drive(file, DRY_RUN="1", GPUS="4", **variables)
    reason = "GPUS=4: CUDA_VISIBLE_DEVICES=5,7 names 2"
    assert (status, printed) == (1, f"run_loop.sh: {reason}\n")
    variables["CUDA_VISIBLE_DEVICES"] = "GPU-1a-2b,GPU-3c-4d,-1,7"
    status, printed = drive(file, DRY_RUN="1", CHECK="no", **variables)
    devices = [command[:2] for command in shards(printed, "iter1/responses")]
    assert devices == [["env", f"CUDA_VISIBLE_DEVICES=GPU-{name}"] for name in ("1a-2b", "3c-4d")]
    # The usual way to hide all.
    variables["CUDA_VISIBLE_DEVICES"] = "-1"
    status, printed = drive(file, DRY_RUN="1", CHECK="no", **variables)
    assert status == 0
    assert not shards(printed, "iter1/responses")


SEES = """\
import argparse, os
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument("--output_dir", type=Path)
for name in "seed corpus instructions preferences prompts validation test bench".split():
    parser.add_argument(f"--{name}")
out = parser.parse_args().output_dir
out.mkdir(exist_ok=True)
for name in "evaluation instructions preferences ratings bench prompts".split():
    (out / f"{name}.jsonl").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
"""


@pytest.mark.parametrize(("gpus", "seen"), [("1", "5"), ("2", "5,7"), ("0", "")])
def test_a_step_sees_as_many_gpus_as_are_asked_for(tmp_path, gpus, seen):
    """Transformers' trainer takes all that it sees, in one process as well."""
    world = tmp_path / "world"
    world.mkdir()
    (world / "1_data.py").write_text(SEES)
    file = recipe(tmp_path, f"WORLD={world}\nGPUS={gpus}\n")
    variables = {"CUDA_VISIBLE_DEVICES": "5,7", "TO": "world/evaluation", "CHECK": "no"}
    status, printed = drive(file, JUDGE_URL="http://127.0.0.1:9/v1", **variables)
    assert status == 0, printed
    assert (tmp_path / "run/world/evaluation.jsonl").read_text() == seen


def test_a_world_without_a_judge_needs_the_address_of_one(tmp_path):
    file = recipe(tmp_path, "WORLD=recipes/tiny_tools\n")
    status, printed = drive(file, DRY_RUN="1", CHECK="no")
    assert (status, printed) == (1, f"run_loop.sh: {file}: set JUDGE_URL and JUDGE_MODEL\n")


def test_only_batches_of_what_is_trained_have_to_fit(tmp_path):
    """A batch that a device cannot take at once is cut into equal parts."""
    given = {"SFT_MODEL": "my_sft", "REWARD_MODEL": "my_rm", "MEASURE": "none"}
    variables = {"GPUS": "3", "SFT_BATCH_SIZE": "4", "RM_BATCH_SIZE": "4", "DPO_BATCH_SIZE": "36"}
    file = recipe(tmp_path)
    file.write_text(file.read_text().replace("GPUS=1\n", ""))
    status, printed = drive(file, DRY_RUN="1", CHECK="no", **given, **variables)
    assert status == 0, printed
    flags = flags_of(commands(printed)["iter1/policy"])
    sizes = flags["--per_device_train_batch_size"], flags["--gradient_accumulation_steps"]
    assert sizes == ("6", "2")
    # As many as there are.
    file = recipe(tmp_path, "PER_DEVICE_BATCH_SIZE=999999999999\n")
    status, printed = drive(file, DRY_RUN="1", CHECK="no", **given)
    flags = flags_of(commands(printed)["iter1/policy"])
    sizes = flags["--per_device_train_batch_size"], flags["--gradient_accumulation_steps"]
    assert sizes == ("8", "1")


def job(folder, srun, number=1):
    """The environment of a scripted Slurm job on two nodes; `srun` is the text of its srun."""
    for name, script in {"scontrol": "printf 'n1\nn2\n'", "srun": srun}.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (folder / name).chmod(0o755)
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_ID": str(number),
    }


def test_a_port_that_is_taken_is_passed_over(tmp_path):
    """The processes of a training meet at a port that is computed from the job's number."""
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
OPTIMISER = """\
default DPO_BETA 0.7
optimise() { train_on_pairs dpo/1_dpo.py "$@" -- --loss_type ipo; }
"""


def test_an_idea_of_ones_own_is_one_file(tmp_path):
    """A scorer, a pairing rule and an optimiser, each by its path; each gets its flags."""
    scorer = tmp_path / "scorer.py"
    pairing = tmp_path / "pairs.py"
    optimiser = tmp_path / "mine.sh"
    scorer.write_text(SCORER)
    pairing.write_text(SCORER.replace("responses", "rewards"))
    optimiser.write_text(OPTIMISER)
    variables = {
        "ANNOTATOR": f"{scorer} reward_model",
        "PAIRING": str(pairing),
        "OPTIMISER": str(optimiser),
        "MEASURE": str(scorer),
    }
    status, printed = drive(recipe(tmp_path), DRY_RUN="1", CHECK="no", **variables)
    step_commands = commands(printed)
    assert status == 0
    run = tmp_path / "run/iter1"
    rewards = [f"{run}/rewards_scorer.jsonl", f"{run}/rewards_reward_model.jsonl"]
    flags = ["--responses_file", f"{run}/responses.jsonl", "--output_file", rewards[0]]
    assert step_commands["iter1/rewards_scorer"] == ["python", str(scorer), *flags]
    assert step_commands["iter1/rewards"][3:5] == rewards
    flags = ["--rewards_file", f"{run}/rewards.jsonl", "--output_file", f"{run}/pairs.jsonl"]
    assert step_commands["iter1/pairs"] == ["python", str(pairing), *flags]
    flags = flags_of(step_commands["iter2/policy"])
    assert flags["--loss_type"] == "ipo"
    # The recipe's beta wins over the optimiser's file.
    assert flags["--beta"] == "0.3"
    assert step_commands["measures/bench_scorer"][1] == str(scorer)


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
    assert status == 1
    assert printed.startswith(f"run_loop.sh: {tmp_path}/mine.sh: ")
    assert reason in printed


def test_a_script_of_ones_own_without_the_flags_is_refused_before_the_first_step(tmp_path):
    scorer = tmp_path / "scorer.py"
    variables = {"ANNOTATOR": str(scorer), "MEASURE": "none", "CHECK": "no"}
    no_module = "No module named 'nothing_of_that_name'"
    for text, reason in (
        (SCORER.replace("--output_file", "--output"), "its --help does not name --output_file"),
        ("import nothing_of_that_name\n", f"--help: ModuleNotFoundError: {no_module}"),
    ):
        scorer.write_text(text)
        status, printed = drive_warm(recipe(tmp_path), **variables)
        assert status == 1
        assert not steps(printed)
        assert f"run_loop.sh: {tmp_path}/run/iter1/rewards.jsonl: {scorer}: {reason}\n" in printed


def test_a_flag_of_ones_own_may_have_its_value_after_a_sign(tmp_path):
    script = tmp_path / "world.py"
    script.write_text(SCORER)

    def refusal(flag):
        command = ["python", script, "--output_file", "rows.jsonl", flag]
        fields = ["1", "rows.jsonl", len(command), *command]
        listing = "".join(f"{field}\0" for field in fields)
        return run("driver/arguments.py", input=listing, env=os.environ).stderr

    assert refusal("--responses_file=my.jsonl") == ""
    reason = f"{script}: its --help does not name --responses"
    assert refusal("--responses=my.jsonl") == f"run_loop.sh: rows.jsonl: {reason}\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "scorer.py: No such file or directory"),
        ("x = 1\ndef f(:\n", "scorer.py:2: invalid syntax"),
    ],
)
def test_a_script_of_ones_own_that_cannot_be_read_is_named(tmp_path, text, reason):
    """Its code is compared with the one that made the rewards."""
    rewards = tmp_path / "run/iter1/rewards.jsonl"
    rewards.parent.mkdir(parents=True)
    write_jsonl(rewards, [{"id": "a"}])
    if text:
        (tmp_path / "scorer.py").write_text(text)
    variables = {"ANNOTATOR": f"{tmp_path}/scorer.py", "DRY_RUN": "steps"}
    status, printed = drive(recipe(tmp_path), **variables)
    assert (status, printed) == (1, f"run_loop.sh: {tmp_path}/{reason}\n")


def test_a_step_of_ones_own_without_a_script_is_named(tmp_path):
    optimiser = tmp_path / "mine.sh"
    optimiser.write_text('make_pairs() { step "$2" bash pair.sh "$1"; }\n')
    status, printed = drive(recipe(tmp_path), OPTIMISER=str(optimiser), DRY_RUN="steps")
    command = f"bash pair.sh {tmp_path}/run/iter1/rewards.jsonl"
    reason = f"{command}: no script FILE.py, which a step has to have"
    assert (status, printed) == (1, f"run_loop.sh: {reason}\n")


def test_flags_are_checked_again_once_a_module_or_a_config_file_has_changed(tmp_path):
    """A check that has passed is not repeated while all is the same."""
    scorer = tmp_path / "scorer.py"
    module = tmp_path / "scorer_flags.py"
    settings = tmp_path / "settings.yaml"
    writes = "import os\nimport scorer_flags\n"
    writes += "os.replace(scorer_flags.args.responses_file, scorer_flags.args.output_file)\n"
    scorer.write_text(writes)
    module.write_text(SCORER)
    settings.write_text("weight_decay: 0.1\n")
    responses = tmp_path / "run/iter1/responses.jsonl"
    responses.parent.mkdir(parents=True)
    variables = {
        "ANNOTATOR": str(scorer),
        "DPO_OPTIONS": f"--config {settings}",
        "FROM": "iter1/rewards",
        "TO": "iter1/rewards",
        "CHECK": "no",
    }

    def refusals():
        write_jsonl(responses, [{"id": "a"}])
        status, printed = drive_warm(recipe(tmp_path), **variables)
        assert bool(steps(printed)) == (status == 0), printed
        return [line for line in printed.splitlines() if line.startswith("run_loop.sh: ")]

    assert refusals() == []
    checked = (tmp_path / "run/.checked").stat().st_mtime_ns
    assert refusals() == []
    assert (tmp_path / "run/.checked").stat().st_mtime_ns == checked

    stop = "run_loop.sh: mend what is named above; nothing was run"
    rewards, policy = f"{tmp_path}/run/iter1/rewards.jsonl", f"{tmp_path}/run/iter1/policy"
    module.write_text(SCORER.replace("--output_file", "--output"))
    reason = f"{scorer}: its --help does not name --output_file"
    assert refusals() == [f"run_loop.sh: {rewards}: {reason}", stop]
    module.write_text(SCORER)
    settings.write_text("weight_decay: 0.1\nnosuch: 1\n")
    reason = "dpo/1_dpo.py: unrecognized arguments: --nosuch 1"
    assert refusals() == [f"run_loop.sh: {policy}: {reason}", stop]


KILLS_THE_JUDGE = """\
import argparse, contextlib, os, pathlib, signal
parser = argparse.ArgumentParser()
parser.add_argument("--url_file", required=True)
parser.add_argument("--output_file", required=True)
args = parser.parse_args()
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    words = []
    with contextlib.suppress(OSError):  # it has just ended
        words = (folder / "cmdline").read_bytes().decode().split("\\0")
    if "recipes/tiny/4_judge.py" in words and args.url_file in words:
        os.kill(int(folder.name), signal.SIGKILL)
        pathlib.Path(args.output_file).write_text("{}\\n")
"""
ASKS_TWICE = """\
measure_annotators() {
  local to=$OUT/measures
  annotate llm_judge "$OUT/iter1/responses.jsonl" "$to/before.jsonl" --n 2
  step "$to/killed.jsonl" python KILLER --url_file "$OUT/judge.url" --output_file "$to/killed.jsonl"
  annotate llm_judge "$OUT/iter1/responses.jsonl" "$to/after.jsonl" --n 2
}
"""


def test_a_judge_that_has_died_is_started_again(tmp_path):
    """Between two steps that ask it: the second gets the replies that the first has got."""
    killer = tmp_path / "killer.py"
    optimiser = tmp_path / "mine.sh"
    killer.write_text(KILLS_THE_JUDGE)
    optimiser.write_text(ASKS_TWICE.replace("KILLER", str(killer)))
    file = recipe(tmp_path)
    out = tmp_path / "run"
    assert drive_warm(file, TO="world/evaluation", CHECK="no")[0] == 0
    rows = []
    for row in read_jsonl(out / "world/prompts.jsonl")[:3]:
        responses = [f"The answer is {row['answer']}.", "No idea."]
        rows.append({**row, "responses": responses, "finish_reasons": ["stop", "stop"]})
    (out / "iter1").mkdir()
    write_jsonl(out / "iter1/responses.jsonl", rows)
    names = [f"measures/{name}" for name in ("before", "killed", "after")]
    variables = {"FROM": names[0], "TO": names[-1], "CHECK": "no"}
    status, printed = drive_warm(file, OPTIMISER=str(optimiser), **variables)
    assert status == 0, printed
    assert steps(printed) == names
    log = f"{out}/log/judge"
    line = f"The judge has died, see {log}.log; it is started again, {log}.again.log"
    assert printed.splitlines().count(line) == 1
    before, after = (read_jsonl(out / f"{name}.jsonl") for name in (names[0], names[-1]))
    assert before == after
    assert [row["rewards"][0] > row["rewards"][1] for row in before] == [True] * 3
    assert nothing_is_left(file)


STARTS_SLOWLY = """\
import argparse, pathlib, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--questions_files", nargs="+")
parser.add_argument("--port")
parser.add_argument("--url_file", type=pathlib.Path)
args = parser.parse_args()
if "FAILS":
    sys.exit("no questions")
time.sleep(5)
args.url_file.write_text("http://127.0.0.1:9/v1")
time.sleep(600)
"""
TELLS_THE_ADDRESS = """\
import argparse, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--judge_model")
parser.add_argument("--output_file", type=pathlib.Path)
parser.parse_args().output_file.write_text(os.environ["OPENAI_BASE_URL"])
"""
ASKS_ONCE = """\
measure_annotators() {
  step "$OUT/address.jsonl" python SCRIPT --judge_model j --output_file "$OUT/address.jsonl"
}
"""


@pytest.mark.parametrize("fails", ["", "yes"])
def test_a_judge_may_take_its_time_to_start_while_it_lives(tmp_path, fails):
    """With a `sleep` that takes no time: the driver counts no pauses."""
    world = tmp_path / "world"
    world.mkdir()
    (world / "1_data.py").write_text(SEES)
    (world / "4_judge.py").write_text(STARTS_SLOWLY.replace("FAILS", fails))
    script = tmp_path / "asks.py"
    script.write_text(TELLS_THE_ADDRESS)
    optimiser = tmp_path / "mine.sh"
    optimiser.write_text(ASKS_ONCE.replace("SCRIPT", str(script)))
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sleep").symlink_to(shutil.which("true"))
    variables = {"FROM": "address", "TO": "address", "CHECK": "no", "OPTIMISER": str(optimiser)}
    path = f"{tools}:{os.environ['PATH']}"
    file = recipe(tmp_path, f"WORLD={world}\n")
    status, printed = drive_warm(file, PATH=path, **variables)
    assert nothing_is_left(file)
    if fails:
        log = f"{tmp_path}/run/log/judge.log"
        assert status == 1
        assert printed.endswith(f"run_loop.sh: the judge did not start, see {log}\n")
        return
    assert status == 0, printed
    assert (tmp_path / "run/address.jsonl").read_text() == "http://127.0.0.1:9/v1"


TIME_LEFT = """
set -euo pipefail
source driver/steps.sh
source driver/engine.sh
OUT=$1 FROM="" TO=""
for t in 1 2; do
  for file in responses.jsonl rewards.jsonl pairs.jsonl policy; do
    step "$OUT/iter$t/$file" make
  done
done
states=(missing missing missing missing missing missing missing missing)
last=7
time_left 0
"""


def test_time_left_goes_by_equal_steps_then_by_the_budget(tmp_path):
    log = tmp_path / "log/iter1"
    log.mkdir(parents=True)

    def left():
        done = subprocess.run(
            ["bash", "-c", TIME_LEFT, "-", tmp_path], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert left() == ""
    # A second call of responses, of 600 s as measured; what the others take is unknown.
    (log / "responses.seconds").write_text("600\n")
    assert left() == ", at least 11 min left\n"
    # The measured responses count, not the computed ones.
    (tmp_path / "log/budget").write_text("iter/responses 7000\niter/rewards 300\n")
    assert left() == ", at least 21 min left\n"
    with open(tmp_path / "log/budget", "a") as budget:
        budget.write("iter/pairs 0\niter/policy 1200\n")
    assert left() == ", about 61 min left\n"


# run_step with commands that take no time: `launch` lets 70 seconds pass.
RUN_STEP = """
set -euf
OUT=$1 NODES=1 GRACE=0 FROM="" TO="" outcome=$2 attempt_is=$3
source driver/engine.sh
name_of() { echo pairs; }
asks_judge() { return 1; }
records() { [[ $1 != begin ]] || echo "$attempt_is"; }
time_left() { :; }
launch() { SECONDS=$((SECONDS + 70)) pids+=(none); }
wait_for() { [[ $outcome == ends ]] || exit 143; }
step_files=("$OUT/pairs.jsonl") step_shards=(1) step_command_0=(true)
stop_with_this_script
run_step 0 "a reason"
"""


def test_a_resumed_step_has_the_seconds_before_its_interruption(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("")
    seconds = tmp_path / "log/pairs.seconds"
    partial = tmp_path / "log/pairs.seconds.partial"

    def run_step(outcome, attempt):
        command = ["bash", "-c", RUN_STEP, "-", tmp_path, outcome, attempt]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == {"ends": 0, "is_stopped": 143}[outcome], done.stderr
        return done.stdout

    run_step("is_stopped", "anew")
    run_step("is_stopped", "resume")
    assert not seconds.exists()
    assert 140 <= int(partial.read_text()) < 150
    printed = run_step("ends", "resume")
    total = int(seconds.read_text())
    assert 210 <= total < 220
    assert f"pairs took {total} s" in printed
    assert not partial.exists()
    # Of other inputs: what an earlier attempt took is no part of it.
    run_step("is_stopped", "anew")
    run_step("ends", "anew")
    assert 70 <= int(seconds.read_text()) < 80
