"""run_loop.sh on a loop of minutes: what it redoes and why, and what is left of it when it is killed.

The loop is made once; the tests change it in the order in which they stand, and each leaves it whole.
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
from statistics import fmean, pstdev

import pytest

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
EVALUATED = ("answers", "rewards", "true_rewards", "kl")
LAST = ["results", "sft/README"]

# What every Python begins with, in place of a GPU that breaks: shard 1 of the generation fails that many times.
FAULT = """\
import os, pathlib, sys
left = pathlib.Path(__file__).with_name("failures")
if "generation/2_responses.py" in sys.orig_argv and sys.orig_argv[-3:-2] == ["1"] and int(left.read_text()):
    left.write_text(str(int(left.read_text()) - 1))
    print("a broken GPU", flush=True)
    os._exit(1)
"""


def of_round(t, first="prompts"):
    """The steps of a round from one on, with the evaluation of its policy."""
    made = ["prompts", "responses", "rewards", "pairs", "policy"]
    made = [f"iter{t}/{name}" for name in made[made.index(first) :]]
    return made + [f"eval/iter{t}/{rows}" for rows in EVALUATED]


def first_losses(out):
    states = [json.loads((out / f"iter{t}/policy/trainer_state.json").read_text()) for t in (1, 2)]
    return [state["log_history"][0]["loss"] for state in states]


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
        made -= {
            f"iter{t}/{name}.jsonl" for name in ("prompts", "responses", "rewards", "pairs")
        } | {f"iter{t}/prompts.md"}
    for name in ("sft", "iter1", "iter2"):
        made -= {
            f"eval/{name}/{rows}.jsonl" for rows in ("answers", "rewards", "true_rewards", "kl")
        }
    world = ("corpus", "instructions", "preferences", "ratings", "bench", "prompts", "evaluation")
    made -= {f"world/{name}.jsonl" for name in world}
    made = {name for name in made if not name.startswith("world/benchmarks/")}
    made -= {f"{name}.jsonl" for name in ("instructions", "preferences", "preferences_held_out")}
    for name in ("reward_model", "preference_model", "armorm", "llm_judge"):
        made -= {f"measures/{rows}_{name}.jsonl" for rows in ("bench", "responses")}
    made -= {f"measures/{name}" for name in MEASURES}
    for model in (
        "base",
        "sft",
        "reward_model",
        "preference_model",
        "armorm",
        "iter1/policy",
        "iter2/policy",
    ):
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
    names = "world/evaluation instructions base sft preferences reward_model preference_model armorm".split()
    names += (
        [f"eval/sft/{rows}" for rows in EVALUATED] + of_round(1) + of_round(2) + ["measures/bench"]
    )
    names += [f"measures/{rows}_{name}" for name in ANNOTATORS for rows in ("bench", "responses")]
    names += ["measures/rewardbench", "measures/length_bias", "measures/calibration", *LAST]
    assert (
        steps(printed) == names
        and set(reasons(printed).values()) == {"missing"}
        and nothing_is_left(file)
    )
    logs = {str(path.relative_to(out / "log")) for path in (out / "log").rglob("*.*")}
    assert logs == {f"{name}.{end}" for name in names for end in ("log", "seconds")} | {"judge.log"}
    shown = [
        line
        for line in printed.splitlines()
        if not re.match(r"\[\d+ of \d+\] |#|From the environment", line)
    ]
    assert shown == (out / "log/results.log").read_text().splitlines()[1:], (
        "but lines of steps the report's table"
    )
    assert (
        shown[-1].startswith(f"{out}: report.md, report.html, results.json, ")
        and "| iter2 " in printed
    )
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
    assert (
        list(results["policies"]) == ["sft", "iter1", "iter2"]
        and results["best"] in results["policies"]
    )
    for name, metrics in results["policies"].items():
        for metric in (
            "true_reward",
            "win_rate",
            "proxy_reward",
            "accuracy",
            "length",
            "kl",
            "truncated",
        ):
            assert isinstance(metrics[metric], float), (name, metric)
    assert results["policies"]["sft"]["kl"] == pytest.approx(0, abs=1e-6)
    assert results["training"]["iter1"]["first_loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_a_second_call_does_nothing(short):
    file, out, _ = short
    before = files(out)
    status, printed = drive(file)
    assert (
        status == 0
        and printed.splitlines()[-1].startswith("All is up to date: ")
        and not steps(printed)
    )
    assert files(out) == before


def test_a_run_that_was_moved_with_other_times_and_notes_is_up_to_date(short, tmp_path):
    """What is stale is decided by content: no time of a file, no path of the machine counts."""
    file, out, _ = short
    copy, rng = tmp_path / "elsewhere/copy", random.Random(0)
    shutil.copytree(out, copy)
    for path in copy.rglob("*"):
        os.utime(path, (rng.randrange(2**31), rng.randrange(2**31)))
    (copy / "sft/note.txt").write_text("the one that we like")
    (copy / "iter1/policy/README.md").write_text("# Mine")
    begun = time.time()
    status, printed = drive(file, OUT=str(copy), DRY_RUN="steps")
    assert status == 0 and len(re.findall(r" fresh$", printed, re.MULTILINE)) == len(
        printed.splitlines()
    )
    status, printed = drive(file, OUT=str(copy))
    assert status == 0 and printed.splitlines()[-1].startswith("All is up to date: "), printed
    assert time.time() - begun < 60  # seconds on a quiet machine; a training alone takes longer


def test_an_edited_row_makes_again_exactly_what_depends_on_it(short):
    file, out, _ = short
    before, rewards = files(out), out / "iter2/rewards.jsonl"
    good = rewards.read_bytes()
    rows = read_jsonl(rewards)
    for row in rows:
        row["rewards"] = [-reward for reward in row["rewards"]]  # best is worst
    rewards.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, printed = drive(file, DRY_RUN="steps")
    told = states(printed)
    stale = {name: state for name, state in told.items() if state != "fresh"}
    assert stale.pop("iter2/pairs") == "stale: iter2/rewards.jsonl has changed"
    assert list(stale) == [*of_round(2, "policy"), *LAST]
    assert stale["iter2/policy"] == "stale: after iter2/pairs"
    status, printed = drive_warm(file)
    assert status == 0 and steps(printed) == [*of_round(2, "pairs"), *LAST], printed
    assert reasons(printed)["iter2/pairs"] == "stale: iter2/rewards.jsonl has changed"
    assert reasons(printed)["iter2/policy"] == "stale: iter2/pairs.jsonl has changed"
    changed = {
        path.relative_to(out).parts[0]
        for path, when in files(out).items()
        if before.get(path) != when
    }
    assert changed <= {"iter2", "eval", "results.json", "report.md", "report.html", "sft", "iter1"}
    rewards.write_bytes(good)
    assert drive_warm(file)[0] == 0


def test_a_row_that_changes_nothing_further_down_stops_there(short):
    """The pairs do not tell the rewards that were neither best nor worst."""
    file, out, _ = short
    rewards = out / "iter2/rewards.jsonl"
    good = rewards.read_bytes()
    rows = read_jsonl(rewards)
    middle = sorted(range(4), key=lambda i: rows[0]["rewards"][i])[1]
    rows[0]["rewards"][middle] += 1e-6
    rewards.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, printed = drive_warm(file)
    assert status == 0 and steps(printed) == ["iter2/pairs"]
    rewards.write_bytes(good)
    assert steps(drive_warm(file)[1]) == ["iter2/pairs"]


def states(printed):
    """{step: its state} of a list of steps."""
    return dict(re.findall(r"^(\S+) +((?:fresh|missing|stale).*)$", printed, re.MULTILINE))


def test_a_file_without_a_record_is_taken_as_it_is(short, tmp_path):
    """Of an earlier version, or put there by hand. What a kill has left half made is not."""
    file, out, _ = short
    copy = shutil.copytree(out, tmp_path / "copy")
    (copy / "iter1/pairs.made.json").unlink()
    (copy / "iter1/rewards.made.json").rename(copy / "iter1/rewards.making.json")
    told = states(drive(file, OUT=str(copy), DRY_RUN="steps")[1])
    assert told.pop("iter1/rewards") == "stale: its last run was cut off"
    assert told["iter1/pairs"] == "stale: after iter1/rewards"
    (copy / "iter1/rewards.making.json").rename(copy / "iter1/rewards.made.json")
    told = states(drive(file, OUT=str(copy), DRY_RUN="steps")[1])
    assert told.pop("iter1/pairs") == "fresh, without a record" and set(told.values()) == {"fresh"}


def test_an_input_outside_the_run_is_seen(short, tmp_path):
    file, out, _ = short
    prompts = shutil.copy(out / "world/evaluation.jsonl", tmp_path / "evaluation.jsonl")
    given = {"EVAL_PROMPTS": str(prompts), "DRY_RUN": "steps"}
    status, printed = drive(file, **given)
    assert status == 0 and set(states(printed).values()) == {"fresh"}
    prompts.write_text(prompts.read_text().replace(" ", "  ", 1))
    told = states(drive(file, **given)[1])
    assert told["eval/sft/answers"] == told["iter1/prompts"] == f"stale: {prompts} has changed"
    assert told["reward_model"] == "fresh"


def test_benchmarks_are_added_to_a_finished_run(short):
    """By the world's own judge; a judge that is asked again knows all answers."""
    file, out, _ = short
    before, names, policies = files(out), ["mt_bench", "arena_hard"], ["sft", "iter1", "iter2"]
    evals = " ".join(names)
    status, printed = drive_warm(file, EVALS=evals)
    assert status == 0, printed
    added = [
        step
        for policy in policies
        for step in (
            f"eval/{policy}/mt_bench/answers",
            *(f"eval/{policy}/{name}/{name}" for name in names),
        )
    ]
    assert steps(printed) == [*added, *LAST]
    results = json.loads((out / "results.json").read_text())["benchmarks"]
    assert {name: list(of) for name, of in results.items()} == dict.fromkeys(names, policies)
    assert {of["judge"] for name in names for of in results[name].values()} == {"true_reward"}
    card = (out / "iter2/policy/README.md").read_text()
    assert (
        f"| Arena-Hard | {results['arena_hard']['iter2']['score']:.1f} | judge true_reward, "
        in card
    )
    page = (out / "report.html").read_text()
    assert "<h2>Benchmarks, judged by true_reward</h2>" in page and " (published)" not in page
    changed = {
        str(path.relative_to(out)) for path, when in before.items() if files(out)[path] != when
    }
    assert changed == {"results.json", "report.md", "report.html", "sft/README.md", "judge.url",
                       "iter1/policy/README.md", "iter2/policy/README.md"}  # fmt: skip
    assert not steps(drive(file, EVALS=evals)[1])
    (out / "eval/iter1/arena_hard/arena_hard.json").unlink()
    status, printed = drive_warm(file, EVALS=evals)
    assert status == 0 and steps(printed)[0] == "eval/iter1/arena_hard/arena_hard"
    assert ": 0 requests, " in (out / "log/eval/iter1/arena_hard/arena_hard.log").read_text()
    status, printed = drive_warm(file)  # the report without them
    assert status == 0 and steps(printed) == LAST


def test_other_settings_than_those_of_what_is_made_are_refused(short):
    file, out, _ = short
    before = files(out)
    status, printed = drive(file, DPO_BETA="0.2", FROM="iter1/policy", TO="iter1/policy")
    assert status == 1 and printed.splitlines()[-2:] == [
        f"run_loop.sh: {out}: iter1/policy was made with other settings; give another OUT:",
        "  DPO_BETA=0.3, now 0.2",
    ]
    assert files(out) == before


def test_a_setting_on_which_nothing_depends_may_change(short):
    """Of a settings file of an earlier version, too: names that are new since, and old ones."""
    file, out, _ = short
    kept = (out / "settings").read_text()
    lines = [line for line in kept.splitlines() if not line.startswith(("DPO_BETA=", "CLEAN="))]
    (out / "settings").write_text("\n".join([*lines, "BETA=0.3", "GONE=1"]) + "\n")
    status, printed = drive(
        file, DRY_RUN="steps", JUDGE_METHOD="tournament", MEASURE="reward_model", ITERATIONS="3"
    )
    assert status == 0 and "Changed, and nothing that is made depends on it" in printed
    assert "JUDGE_METHOD=rating, now tournament" in printed and "ITERATIONS=2, now 3" in printed
    assert "BETA" not in printed and states(printed)["iter3/prompts"] == "missing"
    why = states(printed)["measures/rewardbench"]
    assert why.startswith("stale: command: --rewards_files bench_reward_model.jsonl ")
    (out / "settings").write_text(kept)


def test_a_second_driver_is_refused(short):
    file, out, _ = short
    with open(out / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, printed = drive(file)
        assert status == 1 and printed.endswith(
            f"run_loop.sh: {out}: another run_loop.sh is at work there\n"
        )


def test_a_lost_file_is_made_again_alone_if_it_comes_out_the_same(short):
    file, out, _ = short
    before = files(out)
    (out / "iter1/pairs.jsonl").unlink()
    told = states(drive(file, DRY_RUN="steps")[1])
    assert told["iter1/pairs"] == "missing" and told["iter1/policy"] == "stale: after iter1/pairs"
    status, printed = drive_warm(file)
    assert status == 0 and steps(printed) == ["iter1/pairs"] and nothing_is_left(file)
    changed = {
        str(path.relative_to(out)) for path, when in files(out).items() if before[path] != when
    }
    assert changed == {"iter1/pairs.jsonl"}


@pytest.mark.parametrize(
    ("number", "sent", "status"),
    [("iter1/policy", signal.SIGINT, 130), ("iter1/responses", signal.SIGTERM, 143)],
    ids=["Ctrl-C", "SIGTERM"],
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
    time.sleep(
        2
    )  # in the middle of its imports: on a fast machine the whole step takes six seconds
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
    (fault / "failures").write_text("1")
    status, printed = drive(file, FROM="12", TO="iter1/rewards", **some)
    assert (
        status == 0
        and steps(printed) == ["iter1/responses", "iter1/rewards"]
        and nothing_is_left(file)
    )
    assert (
        f"iter1/responses: shard 1 of 2 failed; once more, {out}/log/iter1/responses.1.again.log"
        in printed
    )
    assert read_jsonl(out / "iter1/responses.jsonl") == before["responses"]
    for row, old in zip(read_jsonl(out / "iter1/rewards.jsonl"), before["rewards"], strict=True):
        assert row == {**old, "rewards": pytest.approx(old["rewards"], abs=1e-4)}
    changed = {
        str(path.relative_to(out)) for path, when in files(out).items() if times.get(path) != when
    }
    assert changed == {"iter1/responses.jsonl", "iter1/rewards.jsonl"}

    (fault / "failures").write_text("2")
    status, printed = drive(file, FROM="iter1/responses", TO="iter1/responses", **some)
    assert status == 1 and nothing_is_left(file)
    assert (
        f"iter1/responses, shard 1 of 2, failed; the end of {out}/log/iter1/responses.1.again.log:\n"
        in printed
    )
    (out / "iter1/responses.jsonl.0-of-2").unlink()


def test_a_failed_step_shows_its_last_lines_and_how_to_repeat_it(short):
    """Defect 8: without `set -e` the loop went on with what the last round had left."""
    file, out, _ = short
    pool = out / "world/prompts.jsonl"
    good = pool.read_bytes()
    pool.write_bytes(good + b'{"id": "cut in ha\n')
    status, printed = drive(file, FROM="11", TO="12", CHECK="no")
    assert (
        status == 1
        and steps(printed) == ["iter1/prompts"]
        and f"\n{pool}:61: row: not a line of JSON" in printed
    )
    assert "run_loop.sh: iter1/prompts failed; the end of " in printed
    command = re.search(r"for this step alone: (.*)\n$", printed)[1]
    pool.write_bytes(good)
    again = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0 and steps(again.stdout) == ["iter1/prompts"], again.stderr


def test_every_annotator_labels_a_round_and_they_combine(short, tmp_path):
    """By the models of the loop above: the sum of what each says, standardised and weighted."""
    file, out, _ = short
    models = {
        "SFT_MODEL": "sft",
        "REWARD_MODEL": "reward_model",
        "PREFERENCE_MODEL": "preference_model",
    }
    models = {name: f"{out}/{path}" for name, path in {**models, "ARMORM": "armorm"}.items()}
    names, weights = (
        "reward_model preference_model armorm llm_judge verifier".split(),
        [1, 2, 0.5, 1, 3],
    )
    settings = {"OUT": f"{tmp_path}/run", "MEASURE": "none", "ITERATIONS": "1", **models}
    settings |= {"ANNOTATOR": " ".join(names), "ANNOTATOR_WEIGHTS": " ".join(map(str, weights))}
    assert drive_warm(file, **settings, TO="world/evaluation")[0] == 0
    status, printed = drive_warm(file, **settings, FROM="11", TO="iter1/pairs")
    assert status == 0, printed
    made = ["prompts", "responses", *(f"rewards_{name}" for name in names), "rewards", "pairs"]
    assert steps(printed) == [f"iter1/{name}" for name in made]
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
                assert at_the_end.setdefault((path.relative_to(out), row["id"]), line) is line, (
                    "a row stands twice"
                )
    assert finished.items() <= at_the_end.items()
    left = (".partial-", "checkpoint-", ".making.json", "-of-")
    assert not [path for path in out.rglob("*") if any(part in path.name for part in left)]
    assert first_losses(out) == pytest.approx([math.log(2)] * 2, abs=1e-4)
    # Iteration 1 is the same for both references: it is as if nobody had killed it.
    for name in ("prompts", "responses", "pairs"):
        new, old = (read_jsonl(run / f"iter1/{name}.jsonl") for run in (out, short[1]))
        fields = ("id", "prompt", "responses", "finish_reasons", "chosen", "rejected")
        assert [[row.get(k) for k in fields] for row in new] == [
            [row.get(k) for k in fields] for row in old
        ]


def test_a_full_disk_stops_the_driver_in_plain_words(tmp_path, disk):
    file = recipe(tmp_path, f"OUT={disk}\n")
    status, printed = drive(file, TO="world/evaluation", CHECK="no")
    assert status == 1 and f"\n{disk}/world/corpus.jsonl: No space left on device; " in printed
    assert (
        f"No space is left on the disk of {disk}." in printed and "for this step alone: " in printed
    )
    subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
    status, printed = drive(file, TO="world/evaluation")
    assert status == 0 and len(read_jsonl(disk / "world/evaluation.jsonl")) == 30
