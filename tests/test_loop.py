"""run_loop.sh on a loop of minutes: what it runs again and why, and what remains after a kill.

The loop is run once. The tests change it in their order, and each restores it.
"""

import fcntl
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

import loop_hashes
from commands import ROOT, read_jsonl
from driving import (
    drive,
    drive_warm,
    files,
    nothing_is_left,
    processes,
    reasons,
    recipe,
    start,
    start_warm,
    steps,
)

MEASURES = (
    "bench.jsonl",
    "rewardbench.json",
    "rewardbench.md",
    "calibration.json",
    "calibration.png",
    "length_bias.json",
    "length_bias.png",
)
ANNOTATORS = ("reward_model", "preference_model", "armorm", "llm_judge")
ROUND = ["prompts", "responses", "rewards", "pairs", "pairs_reference", "policy"]
EVALUATION = ("answers", "rewards", "true_rewards", "kl")
LAST = ["results", "sft/README"]

# A sitecustomize.py, which every Python runs at its start. In place of a GPU that breaks, it makes
# shard 1 of the generation fail as many times as the file `failures` says.
FAULT = """\
import os, pathlib, sys
file = pathlib.Path(__file__).with_name("failures")
failures = int(file.read_text())
is_shard_1 = sys.orig_argv[-3:-2] == ["1"]
if "generation/2_responses.py" in sys.orig_argv and is_shard_1 and failures:
    file.write_text(str(failures - 1))
    print("a broken GPU", flush=True)
    os._exit(1)
"""


def of_round(t, first="prompts"):
    """The steps of a round from `first` on, with the evaluation of its policy."""
    names = [f"iter{t}/{name}" for name in ROUND[ROUND.index(first) :]]
    return names + [f"eval/iter{t}/{rows}" for rows in EVALUATION]


def first_losses(out):
    """Of the policies of both rounds."""
    losses = []
    for t in (1, 2):
        state = json.loads((out / f"iter{t}/policy/trainer_state.json").read_text())
        losses.append(state["log_history"][0]["loss"])
    return losses


def changed_files(out, before):
    """The names of files that are new or have another mtime than in {file: its mtime}."""
    changed = [path for path, mtime in files(out).items() if before.get(path) != mtime]
    return {str(path.relative_to(out)) for path in changed}


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """(recipe, run directory, what was printed) of a loop with the reference of the paper, pi_0."""
    file = recipe(tmp_path_factory.mktemp("loop"))
    status, printed = drive_warm(file)
    assert status == 0, printed
    return file, file.parent / "run", printed


def test_the_rows_are_the_recorded_ones(short):
    """Rows that a model wrote are compared on the CPU of the record only."""
    _, out, _ = short
    record = json.loads(loop_hashes.RECORD.read_text())
    same_cpu = loop_hashes.cpu() == record["cpu"]
    hashes = loop_hashes.hashes_of(out)
    assert set(hashes) == set(record["files"])
    compared = [name for name in hashes if same_cpu or loop_hashes.is_text_only(name)]
    assert [name for name in compared if hashes[name] != record["files"][name]] == []


MODELS = ["base", "sft", "reward_model", "preference_model", "armorm"]
MODELS += ["iter1/policy", "iter2/policy"]


def row_files():
    world = ("corpus", "instructions", "preferences", "ratings", "bench", "prompts", "evaluation")
    names = {f"world/{name}.jsonl" for name in world}
    names |= {"instructions.jsonl", "preferences.jsonl", "preferences_held_out.jsonl"}
    for t in (1, 2):
        names |= {f"iter{t}/{rows}.jsonl" for rows in ROUND[:-1]}
    for policy in ("sft", "iter1", "iter2"):
        names |= {f"eval/{policy}/{rows}.jsonl" for rows in EVALUATION}
    for annotator in ANNOTATORS:
        names |= {f"measures/bench_{annotator}.jsonl", f"measures/responses_{annotator}.jsonl"}
    return names


def all_steps():
    """In their order."""
    names = ["world/evaluation", "instructions", "base", "sft"]
    names += ["preferences", "reward_model", "preference_model", "armorm"]
    names += [f"eval/sft/{rows}" for rows in EVALUATION]
    names += [*of_round(1), *of_round(2), "measures/bench"]
    for annotator in ANNOTATORS:
        names += [f"measures/bench_{annotator}", f"measures/responses_{annotator}"]
    return [*names, "measures/rewardbench", "measures/length_bias", "measures/calibration", *LAST]


def check_prompts_of_rounds(out):
    """Every row of a round is of its prompts, and no prompt is in both rounds."""
    prompts = []
    for t in (1, 2):
        ids = {}
        for name in ROUND[:-1]:
            ids[name] = [row["id"] for row in read_jsonl(out / f"iter{t}/{name}.jsonl")]
        assert ids["prompts"] == ids["responses"] == ids["rewards"]
        assert len(set(ids["prompts"])) == 17
        assert ids["pairs"] == ids["pairs_reference"]
        assert set(ids["pairs"]) <= set(ids["prompts"])
        prompts.append(set(ids["prompts"]))
    first_round, second_round = prompts
    assert not first_round & second_round


def test_the_loop_finishes_with_every_file(short):
    file, out, printed = short
    names = {str(path.relative_to(out)) for path in files(out)}
    for model in MODELS:
        assert {f"{model}/model.safetensors", f"{model}/trainer_state.json"} <= names
        names = {name for name in names if not re.fullmatch(rf"{model}/[^/]+", name)}
    names = {name for name in names if not name.startswith("world/benchmarks/")}
    assert names - row_files() - {f"measures/{name}" for name in MEASURES} == {
        "settings",
        "instructions.md",
        "preferences.md",
        "iter1/prompts.md",
        "iter2/prompts.md",
        "results.json",
        "report.md",
        "report.html",
        "judge.url",
    }
    names = all_steps()
    assert steps(printed) == names
    assert set(reasons(printed).values()) == {"missing"}
    assert nothing_is_left(file)
    logs = {str(path.relative_to(out / "log")) for path in (out / "log").rglob("*.*")}
    expected = {"judge.log"}
    for name in names:
        expected |= {f"{name}.log", f"{name}.seconds"}
    assert logs == expected
    # Apart from the lines of the steps the driver prints the report's table.
    of_steps = re.compile(r"\[\d+ of \d+\] |#|From the environment")
    table = [line for line in printed.splitlines() if not of_steps.match(line)]
    assert table == (out / "log/results.log").read_text().splitlines()[1:]
    assert table[-1].startswith(f"{out}: report.md, report.html, results.json, ")
    assert "| iter2 " in printed
    check_prompts_of_rounds(out)


def test_the_reference_stays_the_initial_policy(short):
    """Defect 2.

    The first loss of a round is ln 2 only where its start and its reference are the same.
    """
    _, out, _ = short
    first, second = first_losses(out)
    assert first == pytest.approx(math.log(2), abs=1e-4)
    assert abs(second - math.log(2)) > 1e-3


def test_the_results_hold_every_policy_with_every_metric(short):
    _, out, _ = short
    results = json.loads((out / "results.json").read_text())
    assert list(results["policies"]) == ["sft", "iter1", "iter2"]
    assert results["best"] in results["policies"]
    names = "true_reward win_rate proxy_reward accuracy length kl truncated".split()
    for policy, metrics in results["policies"].items():
        for name in names:
            assert isinstance(metrics[name], float), (policy, name)
    assert results["policies"]["sft"]["kl"] == pytest.approx(0, abs=1e-6)
    assert results["training"]["iter1"]["first_loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_a_second_call_does_nothing(short):
    file, out, _ = short
    before = files(out)
    status, printed = drive(file)
    assert status == 0
    assert printed.splitlines()[-1].startswith("All is up to date: ")
    assert not steps(printed)
    assert files(out) == before


def test_a_run_that_was_moved_with_other_times_and_notes_is_up_to_date(short, tmp_path):
    """Staleness is decided by content: neither mtimes nor absolute paths count."""
    file, out, _ = short
    rng = random.Random(0)
    copy = tmp_path / "elsewhere/copy"
    shutil.copytree(out, copy)
    for path in copy.rglob("*"):
        os.utime(path, (rng.randrange(2**31), rng.randrange(2**31)))
    (copy / "sft/note.txt").write_text("the one that we like")
    (copy / "iter1/policy/README.md").write_text("# Mine")
    begun = time.time()
    status, printed = drive(file, OUT=str(copy), DRY_RUN="steps")
    assert status == 0
    assert len(re.findall(r" fresh$", printed, re.MULTILINE)) == len(printed.splitlines())
    status, printed = drive(file, OUT=str(copy))
    assert status == 0, printed
    assert printed.splitlines()[-1].startswith("All is up to date: "), printed
    # It takes seconds on a quiet machine; a training alone takes longer than a minute.
    assert time.time() - begun < 60


def test_an_edited_row_makes_again_exactly_what_depends_on_it(short):
    file, out, _ = short
    before = files(out)
    rewards = out / "iter2/rewards.jsonl"
    good = rewards.read_bytes()
    rows = read_jsonl(rewards)
    # The best response becomes the worst.
    for row in rows:
        row["rewards"] = [-reward for reward in row["rewards"]]
    rewards.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, printed = drive(file, DRY_RUN="steps")
    step_states = states(printed)
    stale = {name: state for name, state in step_states.items() if state != "fresh"}
    assert stale.pop("iter2/pairs") == "stale: iter2/rewards.jsonl has changed"
    assert list(stale) == [*of_round(2, "pairs_reference"), *LAST]
    assert stale["iter2/pairs_reference"] == "stale: after iter2/pairs"
    status, printed = drive_warm(file)
    assert status == 0, printed
    assert steps(printed) == [*of_round(2, "pairs"), *LAST], printed
    assert reasons(printed)["iter2/pairs"] == "stale: iter2/rewards.jsonl has changed"
    changed_pairs = "stale: iter2/pairs_reference.jsonl has changed"
    assert reasons(printed)["iter2/policy"] == changed_pairs
    changed = {name.split("/")[0] for name in changed_files(out, before)}
    assert changed <= {"iter2", "eval", "results.json", "report.md", "report.html", "sft", "iter1"}
    rewards.write_bytes(good)
    assert drive_warm(file)[0] == 0


def test_a_row_that_changes_nothing_further_down_stops_there(short):
    """The pairs do not hold the rewards between the best and the worst."""
    file, out, _ = short
    rewards = out / "iter2/rewards.jsonl"
    good = rewards.read_bytes()
    rows = read_jsonl(rewards)
    middle = sorted(range(4), key=lambda i: rows[0]["rewards"][i])[1]
    rows[0]["rewards"][middle] += 1e-6
    rewards.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, printed = drive_warm(file)
    assert status == 0
    assert steps(printed) == ["iter2/pairs"]
    rewards.write_bytes(good)
    assert steps(drive_warm(file)[1]) == ["iter2/pairs"]


def states(printed):
    """{step: its state} of a list of steps."""
    return dict(re.findall(r"^(\S+) +((?:fresh|missing|stale).*)$", printed, re.MULTILINE))


def test_a_file_without_a_record_is_taken_as_it_is(short, tmp_path):
    """It may be of an earlier version, or put there by hand; that of a killed step is stale."""
    file, out, _ = short
    copy = shutil.copytree(out, tmp_path / "copy")
    (copy / "iter1/pairs.made.json").unlink()
    (copy / "iter1/rewards.made.json").rename(copy / "iter1/rewards.making.json")
    _, printed = drive(file, OUT=str(copy), DRY_RUN="steps")
    step_states = states(printed)
    assert step_states.pop("iter1/rewards") == "stale: its last run was cut off"
    assert step_states["iter1/pairs"] == "stale: after iter1/rewards"
    (copy / "iter1/rewards.making.json").rename(copy / "iter1/rewards.made.json")
    _, printed = drive(file, OUT=str(copy), DRY_RUN="steps")
    step_states = states(printed)
    assert step_states.pop("iter1/pairs") == "fresh, without a record"
    assert set(step_states.values()) == {"fresh"}


def test_an_input_outside_the_run_is_seen(short, tmp_path):
    file, out, _ = short
    prompts = shutil.copy(out / "world/evaluation.jsonl", tmp_path / "evaluation.jsonl")
    variables = {"EVAL_PROMPTS": str(prompts), "DRY_RUN": "steps"}
    status, printed = drive(file, **variables)
    assert status == 0
    assert set(states(printed).values()) == {"fresh"}
    prompts.write_text(prompts.read_text().replace(" ", "  ", 1))
    _, printed = drive(file, **variables)
    step_states = states(printed)
    assert step_states["eval/sft/answers"] == f"stale: {prompts} has changed"
    assert step_states["iter1/prompts"] == f"stale: {prompts} has changed"
    assert step_states["reward_model"] == "fresh"


def test_benchmarks_are_added_to_a_finished_run(short):
    """By the world's own judge; a repeated benchmark needs no further request."""
    file, out, _ = short
    before = files(out)
    policies = ["sft", "iter1", "iter2"]
    evals = "mt_bench arena_hard"
    status, printed = drive_warm(file, EVALS=evals)
    assert status == 0, printed
    added = []
    for policy in policies:
        added.append(f"eval/{policy}/mt_bench/answers")
        added.append(f"eval/{policy}/mt_bench/mt_bench")
        added.append(f"eval/{policy}/arena_hard/arena_hard")
    assert steps(printed) == [*added, *LAST]
    results = json.loads((out / "results.json").read_text())["benchmarks"]
    assert list(results) == ["mt_bench", "arena_hard"]
    for results_by_policy in results.values():
        assert list(results_by_policy) == policies
        assert {result["judge"] for result in results_by_policy.values()} == {"true_reward"}
    card = (out / "iter2/policy/README.md").read_text()
    score = results["arena_hard"]["iter2"]["score"]
    assert f"| Arena-Hard | {score:.1f} | judge true_reward, " in card
    page = (out / "report.html").read_text()
    assert "<h2>Benchmarks, judged by true_reward</h2>" in page
    assert " (published)" not in page
    assert before.keys() <= files(out).keys()
    earlier_files = {str(path.relative_to(out)) for path in before}
    cards = {"sft/README.md", "iter1/policy/README.md", "iter2/policy/README.md"}
    reports = {"results.json", "report.md", "report.html"}
    assert changed_files(out, before) & earlier_files == cards | reports | {"judge.url"}
    assert not steps(drive(file, EVALS=evals)[1])
    (out / "eval/iter1/arena_hard/arena_hard.json").unlink()
    status, printed = drive_warm(file, EVALS=evals)
    assert status == 0
    assert steps(printed)[0] == "eval/iter1/arena_hard/arena_hard"
    assert ": 0 requests, " in (out / "log/eval/iter1/arena_hard/arena_hard.log").read_text()
    # Without EVALS the report leaves the benchmarks out again.
    status, printed = drive_warm(file)
    assert status == 0
    assert steps(printed) == LAST


def test_other_settings_than_those_of_what_is_made_are_refused(short):
    file, out, _ = short
    before = files(out)
    status, printed = drive(file, DPO_BETA="0.2", FROM="iter1/policy", TO="iter1/policy")
    assert status == 1
    assert printed.splitlines()[-2:] == [
        f"run_loop.sh: {out}: iter1/policy was made with other settings; give another OUT:",
        "  DPO_BETA=0.3, now 0.2",
    ]
    assert files(out) == before


def test_a_setting_on_which_nothing_depends_may_change(short):
    """In the settings of an earlier version, too, with names that are gone and without new ones."""
    file, out, _ = short
    settings = out / "settings"
    before = settings.read_text()
    lines = [line for line in before.splitlines() if not line.startswith(("DPO_BETA=", "CLEAN="))]
    settings.write_text("\n".join([*lines, "BETA=0.3", "GONE=1"]) + "\n")
    variables = {"JUDGE_METHOD": "tournament", "MEASURE": "reward_model", "ITERATIONS": "3"}
    status, printed = drive(file, DRY_RUN="steps", **variables)
    assert status == 0
    assert "Changed, and nothing that is made depends on it" in printed
    assert "JUDGE_METHOD=rating, now tournament" in printed
    assert "ITERATIONS=2, now 3" in printed
    assert "BETA" not in printed
    assert states(printed)["iter3/prompts"] == "missing"
    state = states(printed)["measures/rewardbench"]
    assert state.startswith("stale: command: --rewards_files bench_reward_model.jsonl ")
    settings.write_text(before)


def test_a_second_driver_is_refused(short):
    file, out, _ = short
    with open(out / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, printed = drive(file)
        assert status == 1
        assert printed.endswith(f"run_loop.sh: {out}: another run_loop.sh is at work there\n")


def test_a_lost_file_is_made_again_alone_if_it_comes_out_the_same(short):
    file, out, _ = short
    before = files(out)
    (out / "iter1/pairs.jsonl").unlink()
    _, printed = drive(file, DRY_RUN="steps")
    step_states = states(printed)
    assert step_states["iter1/pairs"] == "missing"
    assert step_states["iter1/pairs_reference"] == "stale: after iter1/pairs"
    status, printed = drive_warm(file)
    assert status == 0
    assert steps(printed) == ["iter1/pairs"]
    assert nothing_is_left(file)
    assert changed_files(out, before) == {"iter1/pairs.jsonl"}


@pytest.mark.parametrize(
    ("number", "sent", "status"),
    [("iter1/policy", signal.SIGINT, 130), ("iter1/responses", signal.SIGTERM, 143)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_signal_leaves_no_process_and_loses_nothing(short, number, sent, status):
    """Defect 8: servers were ended by a pattern that matched others' processes, or stayed."""
    file, out, _ = short

    def finished():
        """The partial output of a killed step stays for the next start."""
        return {path: mtime for path, mtime in files(out).items() if ".partial-" not in str(path)}

    before = finished()
    driver = start(file, FROM=number, TO=number)
    while not steps(file.with_suffix(".log").read_text()):
        assert driver.poll() is None
        time.sleep(0.1)
    # In the middle of the step's imports: on a fast machine it takes six seconds in all.
    time.sleep(2)
    assert processes(file)
    assert driver.poll() is None
    if sent == signal.SIGINT:
        # A terminal sends it to the whole group.
        os.killpg(driver.pid, sent)
    else:
        driver.send_signal(sent)
    assert driver.wait() == status
    assert nothing_is_left(file)
    assert finished() == before


def test_a_part_in_two_shards_gives_the_same_rows(short):
    """Defect 4: 17 prompts, 2 processes.

    A shard that fails is tried again, and named if it fails again.
    """
    file, out, _ = short
    responses = read_jsonl(out / "iter1/responses.jsonl")
    rewards = read_jsonl(out / "iter1/rewards.jsonl")
    before = files(out)
    fault = file.parent / "fault"
    fault.mkdir()
    (fault / "sitecustomize.py").write_text(FAULT)
    variables = {"PYTHONPATH": str(fault), "GPUS": "2", "PER_DEVICE_BATCH_SIZE": "1"}
    log = f"{out}/log/iter1/responses.1.again.log"
    (fault / "failures").write_text("1")
    status, printed = drive(file, FROM="12", TO="iter1/rewards", **variables)
    assert status == 0
    assert steps(printed) == ["iter1/responses", "iter1/rewards"]
    assert nothing_is_left(file)
    assert f"iter1/responses: shard 1 of 2 failed; once more, {log}" in printed
    assert read_jsonl(out / "iter1/responses.jsonl") == responses
    for row, old in zip(read_jsonl(out / "iter1/rewards.jsonl"), rewards, strict=True):
        assert row == {**old, "rewards": pytest.approx(old["rewards"], abs=1e-4)}
    assert changed_files(out, before) == {"iter1/responses.jsonl", "iter1/rewards.jsonl"}

    (fault / "failures").write_text("2")
    status, printed = drive(file, FROM="iter1/responses", TO="iter1/responses", **variables)
    assert status == 1
    assert nothing_is_left(file)
    assert f"iter1/responses, shard 1 of 2, failed; the end of {log}:\n" in printed
    (out / "iter1/responses.jsonl.0-of-2").unlink()


def test_a_failed_step_shows_its_last_lines_and_how_to_repeat_it(short):
    """Defect 8: without `set -e` the loop went on with the files of the last round."""
    file, out, _ = short
    pool = out / "world/prompts.jsonl"
    good = pool.read_bytes()
    pool.write_bytes(good + b'{"id": "cut in ha\n')
    status, printed = drive(file, FROM="11", TO="12", CHECK="no")
    assert status == 1
    assert steps(printed) == ["iter1/prompts"]
    assert f"\n{pool}:61: row: not a line of JSON" in printed
    assert "run_loop.sh: iter1/prompts failed; the end of " in printed
    command = re.search(r"for this step alone: (.*)\n$", printed)[1]
    pool.write_bytes(good)
    again = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert steps(again.stdout) == ["iter1/prompts"], again.stderr


def test_every_annotator_labels_a_round_and_they_combine(short, tmp_path):
    """With the models of the loop above: the weighted sum of the standardised rewards."""
    file, out, _ = short
    weights = {
        "reward_model": 1,
        "preference_model": 2,
        "armorm": 0.5,
        "llm_judge": 1,
        "verifier": 3,
    }
    run = tmp_path / "run"
    settings = {
        "OUT": str(run),
        "MEASURE": "none",
        "ITERATIONS": "1",
        "SFT_MODEL": f"{out}/sft",
        "REWARD_MODEL": f"{out}/reward_model",
        "PREFERENCE_MODEL": f"{out}/preference_model",
        "ARMORM": f"{out}/armorm",
        "ANNOTATOR": " ".join(weights),
        "ANNOTATOR_WEIGHTS": " ".join(map(str, weights.values())),
    }
    assert drive_warm(file, **settings, TO="world/evaluation")[0] == 0
    status, printed = drive_warm(file, **settings, FROM="11", TO="iter1/pairs")
    assert status == 0, printed
    names = ["prompts", "responses", *(f"rewards_{name}" for name in weights), "rewards", "pairs"]
    assert steps(printed) == [f"iter1/{name}" for name in names]
    # (rows, responses)
    expected = np.zeros((17, 4))
    for name, weight in weights.items():
        rows = read_jsonl(run / f"iter1/rewards_{name}.jsonl")
        rewards = np.array([row["rewards"] for row in rows])
        expected += weight * (rewards - rewards.mean()) / rewards.std()
    combined = read_jsonl(run / "iter1/rewards.jsonl")
    assert len(combined) == 17
    assert nothing_is_left(file)
    for row, by_hand in zip(combined, expected, strict=True):
        assert row["rewards"] == pytest.approx(by_hand, abs=1e-6)
        assert len(row["objectives"][0]) == 5


# Killed


def start_and_kill(file, steps_begun, wait, kill_a_step):
    """SIGKILL the driver, or the step that it runs, some seconds after it has begun those steps.

    The step runs in the Python of warm.py, which dies with the one that the driver has started.
    Returns False if the driver had finished before.
    """
    driver = start_warm(file, REFERENCE="previous", MEASURE="none")
    log = file.with_suffix(".log")
    while driver.poll() is None and len(steps(log.read_text())) < steps_begun:
        time.sleep(0.1)
    time.sleep(wait)
    children = [pid for pid, words in processes(file).items() if is_step(words)]
    if driver.poll() is not None:
        return False
    os.kill(children[0] if children and kill_a_step else driver.pid, signal.SIGKILL)
    assert driver.wait() != 0
    assert nothing_is_left(file)
    return True


def is_step(words):
    """Is it a command of the stages, or of the world? Not the driver's own."""
    return any(re.fullmatch(r"(?!driver/)\S+\.py", word) for word in words[:4])


def rows_on_disk(out, pattern):
    """[(file, id, line)] of all whole rows; a partial file counts as the file that it becomes."""
    rows = []
    for path in out.rglob(pattern):
        name = path.relative_to(out).with_name(path.name.split(".partial-")[0])
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                row = json.loads(line)
                if "id" in row:
                    rows.append((name, row["id"], line))
    return rows


def test_a_loop_that_is_killed_seven_times_ends_with_the_same_rows(short, tmp_path):
    """SIGKILL of the driver, or of the step that it runs.

    With REFERENCE=previous, the first loss is ln 2 in every round.
    """
    file = recipe(tmp_path)
    out = tmp_path / "run"
    rng = random.Random(0)
    # {(file, id): line} of every row on disk after a kill
    finished = {}
    for attempt in range(7):
        steps_begun, wait = rng.randint(1, 4), rng.uniform(0, 3)
        if not start_and_kill(file, steps_begun, wait, kill_a_step=attempt % 2):
            break
        for name, row_id, line in rows_on_disk(out, "*.jsonl*"):
            assert finished.setdefault((name, row_id), line) == line
    assert attempt > 3
    assert len({name for name, _ in finished}) > 8
    status, printed = drive_warm(file, REFERENCE="previous", MEASURE="none")
    assert status == 0, printed
    rows = rows_on_disk(out, "*.jsonl")
    at_the_end = {(name, row_id): line for name, row_id, line in rows}
    assert len(at_the_end) == len(rows), "no row stands twice"
    assert finished.items() <= at_the_end.items()
    temporary = re.compile(r"\.partial-|checkpoint-|\.making\.json|-of-")
    assert not [path for path in out.rglob("*") if temporary.search(path.name)]
    assert first_losses(out) == pytest.approx([math.log(2)] * 2, abs=1e-4)
    # Iteration 1 is the same for both references: it is as if nobody had killed it.
    _, undisturbed, _ = short
    fields = ("id", "prompt", "responses", "finish_reasons", "chosen", "rejected")
    for name in ("prompts", "responses", "pairs"):
        new_rows = read_jsonl(out / f"iter1/{name}.jsonl")
        old_rows = read_jsonl(undisturbed / f"iter1/{name}.jsonl")
        for new, old in zip(new_rows, old_rows, strict=True):
            for field in fields:
                assert new.get(field) == old.get(field)


def test_a_full_disk_stops_the_driver_in_plain_words(tmp_path, disk):
    file = recipe(tmp_path, f"OUT={disk}\n")
    status, printed = drive(file, TO="world/evaluation", CHECK="no")
    assert status == 1
    assert f"\n{disk}/world/corpus.jsonl: No space left on device; " in printed
    assert f"No space is left on the disk of {disk}." in printed
    assert "for this step alone: " in printed
    subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
    status, printed = drive(file, TO="world/evaluation")
    assert status == 0
    assert len(read_jsonl(disk / "world/evaluation.jsonl")) == 30
