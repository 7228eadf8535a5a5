"""driver/records.py: which steps are fresh, by what their files were made from."""

import json
import os
import subprocess
import sys

import pytest

from commands import ROOT

SCRIPT = """\
# {comment}
\"\"\"{docstring}\"\"\"
import helper
print({code})
"""


@pytest.fixture
def run(tmp_path):
    """A run of two steps by a script of one's own: first/rows from an input outside, second/rows from first/rows."""
    (tmp_path / "out/first").mkdir(parents=True)
    (tmp_path / "out/second").mkdir()
    (tmp_path / "input.jsonl").write_text("{}\n")
    (tmp_path / "helper.py").write_text("x = 1\n")
    (tmp_path / "script.py").write_text(SCRIPT.format(comment="", docstring="", code=1))
    return tmp_path


def step(files, *words):
    files = [str(file) for file in files]
    words = [str(word) for word in words]
    return "".join(f"{word}\0" for word in [len(files), *files, len(words), *words])


def first(run, *flags):
    files = [run / "out/first/rows.jsonl"]
    words = ["--input_file", run / "input.jsonl", "--output_file", *files, *flags]
    return step(files, "python", run / "script.py", *words)


def second(run, *flags):
    files = [run / "out/second/rows.jsonl"]
    words = ["--input_file", run / "out/first/rows.jsonl", "--output_file", *files, *flags]
    return step(files, "python", run / "script.py", *words)


def records(run, use, *steps, out="out", flags=()):
    command = [sys.executable, ROOT / "driver/records.py", use, run / out, *flags]
    done = subprocess.run(command, input="".join(steps).encode(), capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


def make(run, one, text="{}\n"):
    """Run a step: what it makes is that text."""
    told = records(run, "begin", one)
    for file in one.split("\0")[1 : 1 + int(one.split("\0")[0])]:
        with open(file, "w") as rows:
            rows.write(text)
    records(run, "end", one)
    return told


def test_a_step_is_fresh_until_what_it_was_made_from_changes(run):
    steps = first(run), second(run)
    assert records(run, "states", *steps) == ["missing", "missing"]
    assert [make(run, one) for one in steps] == [["anew"], ["anew"]]
    assert records(run, "states", *steps) == ["fresh", "fresh"]
    for file in (run / "input.jsonl", run / "out/first/rows.jsonl", run / "script.py"):
        os.utime(file, (2**31, 2**31))
    (run / "script.py").write_text(SCRIPT.format(comment="other", docstring="words", code=1))
    assert records(run, "states", *steps) == ["fresh", "fresh"]

    (run / "out/first/rows.jsonl").write_text('{"edited": 1}\n')
    assert records(run, "states", *steps) == ["fresh", "stale: first/rows.jsonl has changed"]
    (run / "input.jsonl").write_text('{"other": 1}\n')
    told = [f"stale: {run}/input.jsonl has changed", "stale: after first/rows"]
    assert records(run, "states", *steps) == told
    make(run, steps[0])  # what comes out is the same as before
    assert records(run, "states", *steps) == ["fresh", "fresh"]

    (run / "helper.py").write_text("x = 2\n")
    assert records(run, "states", steps[0]) == [
        "stale: script.py or a module that it imports has changed"
    ]
    for one in steps:
        make(run, one)
    told = records(run, "states", first(run, "--beta", "0.3"), second(run, "--beta", "0.3"))
    assert told == ["stale: command: --beta (not given), now 0.3"] * 2, (
        "settings are told before what stands above"
    )


def test_how_a_step_is_run_does_not_count_but_the_global_batch_does(run):
    def trained(rows, accumulated, processes, *flags):
        files = [run / "out/first/rows.jsonl"]
        launcher = (
            ["accelerate", "launch", "--num_processes", processes] if processes > 1 else ["python"]
        )
        batch = [
            "--per_device_train_batch_size",
            rows,
            "--gradient_accumulation_steps",
            accumulated,
        ]
        return step(files, *launcher, run / "script.py", "--output_dir", *files, *batch, *flags)

    make(run, trained(4, 2, 1))
    assert records(run, "states", trained(1, 1, 8)) == ["fresh"]
    told = ["stale: command: --global_batch_size 8, now 16"]
    assert records(run, "states", trained(1, 2, 8)) == told
    # The user's flag comes last, and counts.
    assert records(run, "states", trained(4, 1, 1, "--gradient_accumulation_steps", 4)) == told
    assert records(run, "states", trained(4, 1, 1, "--gradient_accumulation_steps", 2)) == ["fresh"]


def test_a_moved_run_is_fresh_and_keeps_no_path_of_the_machine(run):
    make(run, first(run))
    moved = run / "elsewhere"
    moved.mkdir()
    for name in ("out", "input.jsonl", "helper.py", "script.py"):
        (run / name).rename(moved / name)
    assert records(moved, "states", first(moved)) == ["fresh"]
    made = json.loads((moved / "out/first/rows.made.json").read_text())
    assert str(run) not in json.dumps(made["command"])


def test_a_file_without_a_record_is_fresh_only_while_its_inputs_stay(run):
    """As of an earlier version: what stands above it is made anew, and comes out otherwise."""
    steps = first(run), second(run)
    for name in ("first", "second"):
        (run / f"out/{name}/rows.jsonl").write_text("{}\n")
    assert records(run, "states", *steps) == ["fresh, without a record"] * 2
    (run / "out/first/rows.jsonl").unlink()
    assert records(run, "states", *steps) == ["missing", "stale: after first/rows"]
    records(run, "adopt", *steps)  # as the driver does before its first step
    make(run, steps[0], "{}\n{}\n")
    assert records(run, "states", steps[1]) == ["stale: first/rows.jsonl has changed"]


def test_a_step_that_was_cut_off_is_not_fresh_and_goes_on_where_its_inputs_are_the_same(run):
    one = first(run)
    make(run, one)
    assert records(run, "begin", one) == ["anew"]
    (run / "out/first/rows.jsonl").write_text('{"half": ')
    assert records(run, "states", one) == ["stale: its last run was cut off"]
    records(run, "adopt", one)
    assert records(run, "states", one) == ["stale: its last run was cut off"]
    assert records(run, "begin", one) == ["resume"]
    (run / "input.jsonl").write_text('{"other": 1}\n')
    assert records(run, "begin", one) == ["anew"]
    records(run, "end", one)
    assert records(run, "states", one) == ["fresh"]


def test_each_file_of_a_step_has_a_record(run):
    """The answers to two benchmarks, made at once; then one of them is asked for."""

    def answers(*names):
        files = [run / f"out/{name}/answers.jsonl" for name in names]
        words = ["--model", run / "input.jsonl", "--benchmarks", *names, "--output_files", *files]
        return step(files, "python", run / "script.py", *words)

    for name in ("one", "two"):
        (run / f"out/{name}").mkdir()
    make(run, answers("one", "two"))
    assert records(run, "states", answers("one", "two")) == ["fresh"]
    (told,) = records(run, "states", answers("two"))
    assert told == "stale: command: --benchmarks one two, now two"
    (run / "out/two/answers.jsonl").unlink()
    assert records(run, "states", answers("one", "two")) == ["missing"]


def test_of_a_model_only_what_is_loaded_counts(run):
    model = run / "model"
    (model / "additional_chat_templates").mkdir(parents=True)
    for name in (
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "additional_chat_templates/tool.jinja",
    ):
        (model / name).write_text("{}")

    def sampled(path):
        files = [run / "out/first/rows.jsonl"]
        return step(
            files,
            "python",
            run / "script.py",
            "--model_name_or_path",
            path,
            "--output_file",
            *files,
        )

    make(run, sampled(model))
    for name in ("note.txt", "README.md", "trainer_state.json", "policy.made.json"):
        (model / name).write_text("mine")
    assert records(run, "states", sampled(f"{model}/")) == ["fresh"]
    (model / "additional_chat_templates/tool.jinja").write_text("other")
    assert records(run, "states", sampled(model)) == [f"stale: {model} has changed"]


def test_the_script_of_the_worlds_judge_counts_where_it_is_asked(run):
    (run / "judge.py").write_text("score = 1\n")
    files = [run / "out/first/rows.jsonl"]
    asked = step(files, "python", run / "script.py", "--judge_model", "j", "--output_file", *files)
    flags = ["--judge", run / "judge.py"]
    records(run, "begin", asked, flags=flags)
    files[0].write_text("{}\n")
    records(run, "end", asked)
    assert records(run, "states", asked, flags=flags) == ["fresh"]
    (run / "judge.py").write_text("score = 2\n")
    (told,) = records(run, "states", asked, flags=flags)
    assert told.startswith("stale: script.py or a module")


def test_a_script_of_the_project_that_has_finished_is_believed_where_the_driver_was_killed(run):
    """It gives a file its name when it is whole. Of two files both have to be new."""
    files = [run / "out/first/rows.jsonl", run / "out/first/held_out.jsonl"]
    words = [
        "--datasets",
        run / "input.jsonl",
        "--held_out_file",
        files[1],
        "--output_file",
        files[0],
    ]
    one = step(files, "python", ROOT / "reward_modeling/1_preferences.py", *words)
    make(run, one)
    records(run, "begin", one)
    files[0].write_text('{"new": 1}\n')
    assert records(run, "states", one) == ["stale: its last run was cut off"]
    files[1].write_text('{"new": 2}\n')
    assert records(run, "states", one) == ["fresh"]
    assert len(list(run.glob("out/first/*.making.json"))) == 2, (
        "a dry run beside a run changes nothing"
    )
    records(run, "adopt", one)
    assert records(run, "states", one) == ["fresh"]
    assert not list(run.glob("out/first/*.making.json"))
