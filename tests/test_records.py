"""driver/records.py: which steps are fresh, by the command and the inputs of their files."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from commands import ROOT
from record_dry_runs import all_cases, recorded

SCRIPT = """\
# {comment}
\"\"\"{docstring}\"\"\"
import helper
print({code})
"""


@pytest.fixture
def run(tmp_path):
    """A run of two steps: first/rows from an input outside the run, second/rows from first/rows."""
    (tmp_path / "out/first").mkdir(parents=True)
    (tmp_path / "out/second").mkdir()
    (tmp_path / "input.jsonl").write_text("{}\n")
    (tmp_path / "helper.py").write_text("x = 1\n")
    (tmp_path / "script.py").write_text(SCRIPT.format(comment="", docstring="", code=1))
    return tmp_path


def step(files, *words):
    """A step in the form that the driver passes: its files and the words of its command."""
    fields = [len(files), *files, len(words), *words]
    return "".join(f"{field}\0" for field in fields)


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


def make(run, step, text="{}\n"):
    """Run a step whose files hold that text; return what `begin` printed."""
    printed = records(run, "begin", step)
    count, *fields = step.split("\0")
    for file in fields[: int(count)]:
        Path(file).write_text(text)
    records(run, "end", step)
    return printed


def test_a_step_is_fresh_until_what_it_was_made_from_changes(run):
    steps = first(run), second(run)
    assert records(run, "states", *steps) == ["missing", "missing"]
    assert make(run, steps[0]) == ["anew"]
    assert make(run, steps[1]) == ["anew"]
    assert records(run, "states", *steps) == ["fresh", "fresh"]
    for file in (run / "input.jsonl", run / "out/first/rows.jsonl", run / "script.py"):
        os.utime(file, (2**31, 2**31))
    (run / "script.py").write_text(SCRIPT.format(comment="other", docstring="words", code=1))
    assert records(run, "states", *steps) == ["fresh", "fresh"]

    (run / "out/first/rows.jsonl").write_text('{"edited": 1}\n')
    assert records(run, "states", *steps) == ["fresh", "stale: first/rows.jsonl has changed"]
    (run / "input.jsonl").write_text('{"other": 1}\n')
    expected = [f"stale: {run}/input.jsonl has changed", "stale: after first/rows"]
    assert records(run, "states", *steps) == expected
    # The output is the same as before.
    make(run, steps[0])
    assert records(run, "states", *steps) == ["fresh", "fresh"]

    (run / "helper.py").write_text("x = 2\n")
    (state,) = records(run, "states", steps[0])
    assert state == "stale: script.py or a module that it imports has changed"
    make(run, steps[0])
    make(run, steps[1])
    # A changed command is named before a stale input.
    states = records(run, "states", first(run, "--beta", "0.3"), second(run, "--beta", "0.3"))
    assert states == ["stale: command: --beta (not given), now 0.3"] * 2


def test_a_line_of_a_text_that_looks_like_a_comment_counts(run):
    """A prompt with headings, say; a docstring does not count, whatever it looks like."""
    text = '"""Doc.\n# {heading}\n"""\nPROMPT = """Judge.\n# {line}\n"""\n'
    (run / "script.py").write_text(text.format(heading="a", line="Be strict."))
    only = first(run)
    make(run, only)
    (run / "script.py").write_text(text.format(heading="b\n\n# c", line="Be strict."))
    assert records(run, "states", only) == ["fresh"]
    (run / "script.py").write_text(text.format(heading="a", line="Be lenient."))
    (state,) = records(run, "states", only)
    assert state == "stale: script.py or a module that it imports has changed"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def f(x): ...\n", "def f(x, y): ...\n"),
        ('def f(x=1): "words"\n', 'def f(x=2): "words"\n'),
        ('"""words"""; x = 1\n', '"""words"""; x = 2\n'),
        ('TEXT = """one  \ntwo"""\n', 'TEXT = """one\ntwo"""\n'),
        # A form feed ends no line of Python's.
        ('TEXT = """\x0cwords\n# one"""\n', 'TEXT = """\x0cwords\n# two"""\n'),
    ],
    ids=["body of dots", "docstring on the line", "code after it", "blanks", "form feed"],
)
def test_what_stands_beside_a_docstring_or_in_a_text_counts(run, before, after):
    (run / "script.py").write_text(before)
    make(run, first(run))
    (run / "script.py").write_text(after)
    (state,) = records(run, "states", first(run))
    assert state == "stale: script.py or a module that it imports has changed"


@pytest.mark.parametrize("edited", ["__init__", "part", "third", "inner/__init__", "inner/fourth"])
def test_the_modules_of_a_package_count(run, edited):
    package = run / "package"
    (package / "inner").mkdir(parents=True)
    (run / "script.py").write_text("from package.part import x\n")
    (package / "__init__.py").write_text("y = 1\n")
    (package / "part.py").write_text("from . import third\nx = third.x\n")
    (package / "third.py").write_text("from .inner.fourth import x\n")
    (package / "inner/__init__.py").write_text("")
    (package / "inner/fourth.py").write_text("from .. import y as x\n")
    make(run, first(run))
    (package / "inner/no_module.py").write_text("x = 2\n")
    assert records(run, "states", first(run)) == ["fresh"]
    with open(package / f"{edited}.py", "a") as module:
        module.write("x = 2\n")
    (state,) = records(run, "states", first(run))
    assert state == "stale: script.py or a module that it imports has changed"


def test_a_script_that_another_names_counts_with_its_modules(run):
    """The sandbox's files, say, of which a script imports only the one that starts them."""
    (run / "script.py").write_text('RUNS = "inside.py"\n')
    (run / "inside.py").write_text("import helper\n")
    only = first(run)
    make(run, only)
    (run / "helper.py").write_text("x = 1  # the same\n")
    (run / "inside.py").write_text("# the same\nimport helper\n")
    assert records(run, "states", only) == [
        "stale: script.py or a module that it imports has changed"
    ]
    make(run, only)
    (run / "inside.py").write_text("import helper\n")
    assert records(run, "states", only) == ["fresh"]


@pytest.mark.parametrize("script", ["annotation/1d_verifier.py", "generation/2c_tool_responses.py"])
def test_all_of_the_sandbox_counts_for_what_runs_programs(script):
    sys.path.insert(0, str(ROOT / "driver"))
    import contents

    names = {file.name for file in contents.source_files(ROOT / script)}
    assert {path.name for path in ROOT.glob("common/sandbox*.py")} <= names


def test_the_file_of_a_verifier_counts(run):
    file = run / "polite.py"
    file.write_text("x = 1\n")
    verified = first(run, "--verifier", f"polite={file}")
    make(run, verified)
    assert records(run, "states", verified) == ["fresh"]
    renamed = first(run, "--verifier", f"kind={file}")
    reason = "stale: command: --verifier polite polite.py, now kind polite.py"
    assert records(run, "states", renamed) == [reason]
    file.write_text("x = 2\n")
    assert records(run, "states", verified) == [f"stale: {file} has changed"]


def inputs_on_record(run):
    record = json.loads((run / "out/first/rows.made.json").read_text())
    return [entry["path"] for entry in record["inputs"]]


def test_a_text_that_names_a_file_by_chance_is_no_input(run):
    """The flags of the project's scripts say what they read; of a user's script all that exists."""
    out = run / "out/first/rows.jsonl"
    (run / "facts").mkdir()
    chance = ["--pattern", f"{run}/facts", "--facts", f"{run}/facts"]
    responses = ["--responses_file", f"{run}/input.jsonl", "--output_file", out]
    make(run, step([out], "python", ROOT / "annotation/1d_verifier.py", *responses, *chance))
    assert inputs_on_record(run) == [f"{run}/input.jsonl"]
    make(run, first(run, *chance))
    assert inputs_on_record(run) == [f"{run}/{name}" for name in ("input.jsonl", "facts", "facts")]
    # A folder that holds the run has changed as soon as the step has run.
    for word in (".", str(run), f"{run}/out/.."):
        make(run, first(run, "--pattern", word))
        assert inputs_on_record(run) == [f"{run}/input.jsonl"]


def recorded_commands():
    """Yields the words of each command of the recorded dry runs."""
    cases = all_cases()
    for name in cases:
        for _, listed in recorded(cases, name):
            yield from map(shlex.split, listed)


def test_every_script_of_the_worlds_and_stages_is_known_as_the_projects():
    sys.path.insert(0, str(ROOT / "driver"))
    import contents

    scripts = set()
    for words in recorded_commands():
        scripts.add(next(word for word in words if word.endswith(".py")))
    scripts.remove("common/shards.py")
    assert [script for script in sorted(scripts) if not contents.is_ours(script)] == []


def test_every_file_that_the_driver_names_is_an_input_or_an_output():
    sys.path.insert(0, str(ROOT / "driver"))
    import listed_steps

    for words in recorded_commands():
        files = {word for word in words if word.startswith("runs/recorded/")}
        recorded_step = listed_steps.Step(listed_steps.Run("runs/recorded", files=files), [], words)
        known = set(recorded_step.inputs())
        for flag, word in recorded_step.flags_and_words():
            if flag.startswith("--output") or flag in ("--held_out_file", "--log_dir"):
                known.add(word)
        assert files <= known, words


def test_how_a_step_is_run_does_not_count_but_the_global_batch_does(run):
    def trained(per_device, accumulation, processes, *flags):
        files = [run / "out/first/rows.jsonl"]
        launcher = ["python"]
        if processes > 1:
            launcher = ["accelerate", "launch", "--num_processes", processes]
        batch = ["--per_device_train_batch_size", per_device]
        batch += ["--gradient_accumulation_steps", accumulation]
        return step(files, *launcher, run / "script.py", "--output_dir", *files, *batch, *flags)

    make(run, trained(4, 2, 1))
    assert records(run, "states", trained(1, 1, 8)) == ["fresh"]
    expected = ["stale: command: --global_batch_size 8, now 16"]
    assert records(run, "states", trained(1, 2, 8)) == expected
    # The user's flag comes last, and counts.
    assert records(run, "states", trained(4, 1, 1, "--gradient_accumulation_steps", 4)) == expected
    assert records(run, "states", trained(4, 1, 1, "--gradient_accumulation_steps", 2)) == ["fresh"]
    # TRL takes hyphens, too.
    hyphens = ["--gradient-accumulation-steps", 2, "--save-steps", 7]
    assert records(run, "states", trained(4, 1, 1, *hyphens)) == ["fresh"]
    command = [sys.executable, ROOT / "driver/records.py", "states", run / "out"]
    done = subprocess.run(command, input=trained("two", 1, 1), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "run_loop.sh: first/rows: --per_device_train_batch_size two: not a whole number\n"
    )


def test_an_input_more_counts(run):
    """A folder that now has the name of a model of the hub, say."""
    make(run, first(run, "--model_name_or_path", "gpt2"))
    assert records(run, "states", first(run, "--model_name_or_path", "gpt2")) == ["fresh"]
    folder = os.path.relpath(run / "gpt2")
    before = first(run, "--model_name_or_path", folder)
    make(run, before)
    (run / "gpt2").mkdir()
    (run / "gpt2/config.json").write_text("{}")
    assert records(run, "states", before) != ["fresh"]


def test_a_moved_run_is_fresh_and_keeps_no_path_of_the_machine(run):
    make(run, first(run))
    moved = run / "elsewhere"
    moved.mkdir()
    for name in ("out", "input.jsonl", "helper.py", "script.py"):
        (run / name).rename(moved / name)
    assert records(moved, "states", first(moved)) == ["fresh"]
    record = json.loads((moved / "out/first/rows.made.json").read_text())
    assert str(run) not in json.dumps(record["command"])


def test_a_file_without_a_record_is_fresh_only_while_its_inputs_stay(run):
    """As in a run of an earlier version; here its input is made again, with other rows."""
    steps = first(run), second(run)
    for name in ("first", "second"):
        (run / f"out/{name}/rows.jsonl").write_text("{}\n")
    assert records(run, "states", *steps) == ["fresh, without a record"] * 2
    (run / "out/first/rows.jsonl").unlink()
    assert records(run, "states", *steps) == ["missing", "stale: after first/rows"]
    # The driver adopts before its first step.
    records(run, "adopt", *steps)
    make(run, steps[0], "{}\n{}\n")
    assert records(run, "states", steps[1]) == ["stale: first/rows.jsonl has changed"]


def test_a_step_that_was_cut_off_is_not_fresh_and_goes_on_where_its_inputs_are_the_same(run):
    first_step = first(run)
    make(run, first_step)
    assert records(run, "begin", first_step) == ["anew"]
    (run / "out/first/rows.jsonl").write_text('{"half": ')
    assert records(run, "states", first_step) == ["stale: its last run was cut off"]
    records(run, "adopt", first_step)
    assert records(run, "states", first_step) == ["stale: its last run was cut off"]
    assert records(run, "begin", first_step) == ["resume"]
    (run / "input.jsonl").write_text('{"other": 1}\n')
    assert records(run, "begin", first_step) == ["anew"]
    records(run, "end", first_step)
    assert records(run, "states", first_step) == ["fresh"]


def test_each_file_of_a_step_has_a_record(run):
    """A step writes the answers to two benchmarks; then the run wants a single one."""

    def answers(*names):
        files = [run / f"out/{name}/answers.jsonl" for name in names]
        words = ["--model", run / "input.jsonl", "--benchmarks", *names, "--output_files", *files]
        return step(files, "python", run / "script.py", *words)

    for name in ("one", "two"):
        (run / f"out/{name}").mkdir()
    make(run, answers("one", "two"))
    assert records(run, "states", answers("one", "two")) == ["fresh"]
    (state,) = records(run, "states", answers("two"))
    assert state == "stale: command: --benchmarks one two, now two"
    (run / "out/two/answers.jsonl").unlink()
    assert records(run, "states", answers("one", "two")) == ["missing"]


def test_of_a_model_only_what_is_loaded_counts(run):
    model = run / "model"
    template = model / "additional_chat_templates/tool.jinja"
    template.parent.mkdir(parents=True)
    template.write_text("{}")
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).write_text("{}")

    def sampled(path):
        files = [run / "out/first/rows.jsonl"]
        words = ["--model_name_or_path", path, "--output_file", *files]
        return step(files, "python", run / "script.py", *words)

    make(run, sampled(model))
    for name in ("note.txt", "README.md", "trainer_state.json", "policy.made.json"):
        (model / name).write_text("mine")
    assert records(run, "states", sampled(f"{model}/")) == ["fresh"]
    template.write_text("other")
    assert records(run, "states", sampled(model)) == [f"stale: {model} has changed"]


def test_the_script_of_the_worlds_judge_counts_where_it_is_asked(run):
    (run / "judge.py").write_text("score = 1\n")
    out = run / "out/first/rows.jsonl"
    judged = step([out], "python", run / "script.py", "--judge_model", "j", "--output_file", out)
    flags = ["--judge", run / "judge.py"]
    records(run, "begin", judged, flags=flags)
    out.write_text("{}\n")
    records(run, "end", judged)
    assert records(run, "states", judged, flags=flags) == ["fresh"]
    (run / "judge.py").write_text("score = 2\n")
    (state,) = records(run, "states", judged, flags=flags)
    assert state.startswith("stale: script.py or a module")


def test_a_file_beside_a_script_that_it_names_counts_as_the_script(run):
    (run / "helper.py").write_text('PROMPTS = "prompts.toml"\n')
    (run / "prompts.toml").write_text("text = 1\n")
    make(run, first(run))
    (run / "other.toml").write_text("text = 1\n")
    assert records(run, "states", first(run)) == ["fresh"]
    (run / "prompts.toml").write_text("text = 2\n")
    (state,) = records(run, "states", first(run))
    assert state.startswith("stale: script.py or a module")


def test_a_script_of_the_project_that_has_finished_is_believed_where_the_driver_was_killed(run):
    """A file gets its name when it is complete. Of two files both must be new."""
    out = run / "out/first/rows.jsonl"
    held_out = run / "out/first/held_out.jsonl"
    words = ["--datasets", run / "input.jsonl", "--held_out_file", held_out, "--output_file", out]
    preparing = step([out, held_out], "python", ROOT / "reward_modeling/1_preferences.py", *words)
    make(run, preparing)
    records(run, "begin", preparing)
    out.write_text('{"new": 1}\n')
    assert records(run, "states", preparing) == ["stale: its last run was cut off"]
    held_out.write_text('{"new": 2}\n')
    assert records(run, "states", preparing) == ["fresh"]
    # Listing the states, as a dry run does beside a run, changes nothing.
    assert len(list(run.glob("out/first/*.making.json"))) == 2
    records(run, "adopt", preparing)
    assert records(run, "states", preparing) == ["fresh"]
    assert not list(run.glob("out/first/*.making.json"))


def refusal(run, use, only, out="out"):
    command = [sys.executable, ROOT / "driver/records.py", use, run / out]
    done = subprocess.run(command, input=only.encode(), capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
    return done.stderr.decode()


def test_what_can_be_neither_read_nor_written_ends_in_a_line(run, disk):
    unreadable = "/proc/self/mem"
    only = first(run, "--prompts_file", unreadable)
    (run / "out/first/rows.jsonl").write_text("{}\n")
    assert refusal(run, "states", only) == f"run_loop.sh: {unreadable}: Input/output error\n"
    rows = disk / "rows.jsonl"
    rows.write_bytes(bytes(2**16))
    only = step([rows], "python", run / "script.py", "--output_file", rows)
    reason = f"run_loop.sh: {disk}/rows.making.json: No space left on device\n"
    assert refusal(run, "begin", only, out=disk) == reason
    assert [path.name for path in disk.iterdir()] == ["rows.jsonl"]


def test_a_run_can_be_looked_at_where_nothing_can_be_written(run, disk):
    """In another's run say; the hashes of large files are computed again."""
    with open(run / "input.jsonl", "wb") as large:
        large.truncate(2**26)
    rows = disk / "rows.jsonl"
    words = ["--input_file", run / "input.jsonl", "--output_file", rows]
    only = step([rows], "python", run / "script.py", *words)
    records(run, "begin", only, out=disk)
    rows.write_text("{}\n")
    records(run, "end", only, out=disk)
    os.utime(run / "input.jsonl", (0, 0))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert records(run, "states", only, out=disk) == ["fresh"]
