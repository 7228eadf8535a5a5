"""Wrong input stops a script with a line that names file, line and field; finished rows survive."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from commands import ROOT, ran, read_jsonl, run, write_jsonl
from common import rows, training


def turn(role, content="words"):
    return {"role": role, "content": content}


def scored(name, n=4, **other):
    return {
        "id": name,
        "prompt": [turn("user")],
        "responses": [f"answer {i}" for i in range(n)],
        "finish_reasons": ["stop"] * n,
        "rewards": [float(i) for i in range(n)],
        "answer": "7",
        **other,
    }


# {script: the flags that it needs, the last of them that of its input}
NO_MODEL = ["--model_name_or_path", "no/such/model"]
NO_MODELS = [*NO_MODEL, "--ref_model_name_or_path", "no/such/model"]
NO_JUDGE = ["--judge_url", "http://127.0.0.1:1/v1", "--judge_model", "j"]
SCRIPTS = {
    "generation/1_prompts.py": ["--size", "2", "--datasets"],
    "generation/2_responses.py": [*NO_MODEL, "--prompts_file"],
    "generation/2d_mixture_responses.py": [*NO_MODELS, "--prompts_file"],
    "generation/2c_tool_responses.py": [*NO_MODEL, "--run_generated_code", "--prompts_file"],
    "annotation/1a_reward_model.py": [*NO_MODEL, "--responses_file"],
    "annotation/1b_preference_model.py": [*NO_MODEL, "--responses_file"],
    "annotation/1c_llm_judge.py": [*NO_JUDGE, "--responses_file"],
    "annotation/1d_verifier.py": ["--responses_file"],
    "annotation/2_pairs.py": ["--rewards_file"],
    "annotation/2b_best.py": ["--rewards_file"],
    "annotation/2d_uncertain_pairs.py": [*NO_MODEL, "--rewards_file"],
    "annotation/2f_rejection_sampling.py": ["--accepted", "2", "--rewards_file"],
    "generation/1b_directions.py": ["--prompts_file"],
    "generation/2b_merge.py": ["--responses_files"],
    "eval/2_kl.py": [*NO_MODELS, "--responses_file"],
    "recipes/tiny/3_true_reward.py": ["--rewards_file"],
}
OF_RESPONSES = [script for script in SCRIPTS if script.startswith("annotation/")] + ["eval/2_kl.py"]


def refused(tmp_path, script, file, *flags, **options):
    """The one line in which a script refuses its input; it must change nothing."""
    out = tmp_path / "out.jsonl"
    out.write_text("older work\n")
    before = sorted(tmp_path.iterdir())
    done = run(script, *SCRIPTS[script], file, "--output_file", out, *flags, **options)
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert out.read_text() == "older work\n"
    assert sorted(tmp_path.iterdir()) == before
    return done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_file_or_an_empty_one(tmp_path, script):
    absent = tmp_path / "none.jsonl"
    assert refused(tmp_path, script, absent) == f"{absent}: No such file or directory\n"
    empty = tmp_path / "in.jsonl"
    empty.write_text("\n")
    assert refused(tmp_path, script, empty) == f"{empty}: no rows\n"


NO_ROWS = {"half": '{"id": "b", "pro', "list": "[1, 2]", "not UTF-8": b'{"id": "\xff"}'}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("line", NO_ROWS.values(), ids=NO_ROWS.keys())
def test_a_line_that_is_no_row(tmp_path, script, line):
    """The blank second line counts: line numbers are those of an editor."""
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a", answer="4"), "", line])
    assert refused(tmp_path, script, file).startswith(f"{file}:3: row: not a ")


def prompt(*turns):
    return {"id": "b", "prompt": [*turns]}


USER, ASSISTANT, SYSTEM = turn("user"), turn("assistant"), turn("system")
# {reason: a bad row}
PROMPTS = {
    "prompt: missing": {"id": "b"},
    "prompt: an empty turn": prompt(turn("user", " \n")),
    "prompt: not one or more messages": prompt(),
    "prompt: not one or more messages {role, content}": prompt({"role": "user", "text": "words"}),
    "prompt: roles out of order (user, user)": prompt(USER, USER),
    "prompt: roles out of order (user, assistant)": prompt(USER, ASSISTANT),
    "prompt: roles out of order (system)": prompt(SYSTEM),
    "prompt: roles out of order (user, system, user)": prompt(USER, SYSTEM, USER),
    "id: missing": {"prompt": [USER]},
    "id: not a non-empty text": {"id": 7, "prompt": [USER]},
    "id: 'a': duplicate, first on line 1": {"id": "a", "prompt": [turn("user", "other words")]},
}


@pytest.mark.parametrize("reason", PROMPTS)
def test_a_bad_prompt(tmp_path, reason):
    good = {"id": "a", "prompt": [USER]}
    file = write_jsonl(tmp_path / "in.jsonl", [good, PROMPTS[reason]])
    assert refused(tmp_path, "generation/2_responses.py", file).startswith(f"{file}:2: {reason}")


@pytest.mark.parametrize("prompt", [None, [], [turn("user"), turn("user")], 7])
def test_a_bad_prompt_at_the_entrance(tmp_path, prompt):
    file = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "words"}, {"prompt": prompt}])
    assert refused(tmp_path, "generation/1_prompts.py", file).startswith(f"{file}:2: prompt: ")


@pytest.mark.parametrize("script", OF_RESPONSES)
@pytest.mark.parametrize(
    "reason, more",
    [
        ("responses: missing", {"responses": None}),
        ("responses: not a list", {"responses": "answer"}),
        ("responses: not a list", {"responses": []}),
        ("responses: not all texts", {"responses": ["a", "b", "c", 4]}),
        ("responses: 3 where 4 are expected", scored("b", 3)),
        (
            "finish_reasons: not a list with one entry for each response",
            {"finish_reasons": ["stop"] * 3},
        ),
    ],
)
def test_bad_responses(tmp_path, script, reason, more):
    row = {key: value for key, value in (scored("b") | more).items() if value is not None}
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a"), row])
    assert refused(tmp_path, script, file).startswith(f"{file}:2: {reason}")


@pytest.mark.parametrize("value", ["1.5", None, True, float("nan"), float("inf")], ids=str)
def test_a_reward_that_is_no_number(tmp_path, value):
    """Every comparison with NaN is false: it would silently make a random pair."""
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a"), scored("b", rewards=[1, 2, value, 4])])
    reason = refused(tmp_path, "annotation/2_pairs.py", file)
    assert reason == f"{file}:2: rewards: {[1, 2, value, 4]} are not all finite numbers\n"


@pytest.mark.parametrize("rewards", [[1.0, 2.0], [1.0] * 5, {"0": 1.0}, None])
def test_rewards_that_do_not_belong_to_the_responses(tmp_path, rewards):
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a"), scored("b", rewards=rewards)])
    error = refused(tmp_path, "annotation/2_pairs.py", file)
    reason = "missing" if rewards is None else "not a list with one entry for each response"
    assert error == f"{file}:2: rewards: {reason}\n"


@pytest.mark.parametrize("script", ["annotation/1a_reward_model.py", "annotation/2_pairs.py"])
def test_another_number_of_responses_than_asked_for(tmp_path, script):
    """Defect 1: four responses were sampled, eight expected, and all rows were silently dropped."""
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a"), scored("b")])
    error = refused(tmp_path, script, file, "--n", 8)
    assert error == f"{file}:1: responses: 4 where 8 are expected\n"


def test_the_true_reward_needs_the_answer(tmp_path):
    unanswered = {key: value for key, value in scored("b").items() if key != "answer"}
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a"), unanswered])
    assert "in.jsonl:2: answer: missing" in refused(tmp_path, "recipes/tiny/3_true_reward.py", file)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_misspelt_flag(tmp_path, script):
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a", answer="4"), scored("b", answer="4")])
    done = run(script, *SCRIPTS[script], file, "--output_file", tmp_path / "out.jsonl", "--sead", 1)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("unrecognized arguments: --sead 1")
    assert list(tmp_path.iterdir()) == [file]


def test_answers_that_do_not_divide_by_the_temperatures(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a")])
    flags = ["--n", 4, "--temperatures", 1, 0.7, 0.5, "--output_file", tmp_path / "out.jsonl"]
    done = run("generation/2_responses.py", *SCRIPTS["generation/2_responses.py"], file, *flags)
    assert done.returncode == 2
    assert done.stderr.endswith("--n 4 does not divide by the 3 --temperatures\n")


WITH_A_MODEL = ["generation/2_responses.py", "generation/2d_mixture_responses.py"]
WITH_A_MODEL += ["annotation/1a_reward_model.py", "eval/2_kl.py"]


@pytest.mark.parametrize("script", WITH_A_MODEL)
def test_a_model_that_is_not_there(tmp_path, script):
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a")])
    error = refused(tmp_path, script, file)
    assert error.startswith("no/such/model: cannot load a model from it (")


# The training scripts import TRL first, which takes seconds: where it can, a command tests two
# things.
TRAINING = ["--model_name_or_path", "no/such/model", "--bf16", "False"]
PAIR = {
    "id": "a",
    "prompt": [turn("user")],
    "chosen": [turn("assistant", "")],
    "rejected": [turn("assistant")],
}


def training_refused(tmp_path, script, *flags):
    before = sorted(tmp_path.iterdir())
    done = run(script, *TRAINING, "--output_dir", tmp_path / "model", *flags)
    assert done.returncode == 1
    assert sorted(tmp_path.iterdir()) == before
    return done.stderr


def test_fine_tuning_refuses_a_conversation_without_an_answer(tmp_path):
    good = {"id": "a", "messages": [turn("user"), turn("assistant")] * 2}
    file = write_jsonl(tmp_path / "in.jsonl", [good, {"id": "b", "messages": [turn("user")]}])
    error = training_refused(tmp_path, "sft/2_finetune.py", "--dataset_name", file)
    assert error == f"{file}:2: messages: roles out of order (user)\n"


def test_a_reward_model_is_not_measured_on_prompts_that_it_was_trained_on(tmp_path):
    """Defect 13: the evaluation set was a part of the training set.

    The answers differ here, the prompt is the same.
    """
    training = write_jsonl(tmp_path / "training.jsonl", [PAIR])
    other_answer = {**PAIR, "id": "b", "chosen": [turn("assistant", "new")]}
    held_out = write_jsonl(tmp_path / "held_out.jsonl", [other_answer])
    flags = ["--dataset_name", training, "--held_out_name", held_out]
    error = training_refused(tmp_path, "reward_modeling/2a_bradley_terry.py", *flags)
    assert error == f"{held_out}: prompt: some prompts stand in {training} too\n"


def test_dpo_refuses_an_answer_by_the_user(tmp_path):
    """Defect 11: chosen answers were stored with the role user.

    A good file before the bad one does not hide it.
    """
    good = write_jsonl(tmp_path / "good.jsonl", [PAIR])
    bad = write_jsonl(tmp_path / "bad.jsonl", [{**PAIR, "chosen": [turn("user")]}])
    flags = ["--ref_model_name_or_path", "no/such/model", "--dataset_name", good, bad]
    error = training_refused(tmp_path, "dpo/1_dpo.py", *flags)
    assert error == f"{bad}:1: chosen: roles out of order (user)\n"


def test_dpo_refuses_a_model_that_is_not_there(tmp_path):
    """The file passes: a pair may hold an empty response, which is the policy's own doing."""
    file = write_jsonl(tmp_path / "in.jsonl", [PAIR])
    flags = ["--ref_model_name_or_path", "no/such/other", "--dataset_name", file]
    error = training_refused(tmp_path, "dpo/1_dpo.py", *flags)
    assert error.startswith("no/such/model: cannot load a model from it (")
    assert len(error.splitlines()) == 1


def test_training_refuses_a_misspelt_flag(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [PAIR])
    flags = ["--ref_model_name_or_path", "no/such/other", "--dataset_name", file, "--betta", 0.5]
    assert "--betta" in training_refused(tmp_path, "dpo/1_dpo.py", *flags).splitlines()[-1]


def test_a_full_disk_loses_nothing(tmp_path):
    """The older file stays, and one line says what happened."""
    file = write_jsonl(tmp_path / "in.jsonl", [scored(f"{i}") for i in range(100)])
    out = tmp_path / "out.jsonl"
    out.write_text("older work\n")
    command = ["annotation/2_pairs.py", "--rewards_file", file, "--output_file", out]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = run(*command, preexec_fn=limit)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{out}: File too large; ")
    assert len(done.stderr.splitlines()) == 1
    assert out.read_text() == "older work\n"
    ran(*command)
    assert len(read_jsonl(out)) == 100
    assert sorted(tmp_path.iterdir()) == [file, out]


def test_a_text_keeps_its_line_separators(tmp_path):
    """Only a line feed ends a row: real responses hold Unicode's other line separators."""
    texts = ["one\u2028two\x85three\x0bfour\r\nfive", "six", "seven", "eight"]
    line = json.dumps(scored("a", responses=texts), ensure_ascii=False)
    file = write_jsonl(tmp_path / "in.jsonl", [line])
    ran("annotation/2_pairs.py", "--rewards_file", file, "--output_file", tmp_path / "out.jsonl")
    (pair,) = read_jsonl(tmp_path / "out.jsonl")
    assert pair["chosen"][0]["content"] == "eight"
    assert pair["rejected"][0]["content"] == texts[0]


def test_rows_are_written_whole_or_not_at_all(tmp_path):
    def interrupted():
        yield {"id": "new"}
        raise KeyboardInterrupt

    file = write_jsonl(tmp_path / "out.jsonl", [{"id": "old"}])
    with pytest.raises(KeyboardInterrupt):
        rows.write(file, interrupted())
    assert read_jsonl(file) == [{"id": "old"}]
    rows.write(file, [{"id": "new"}])
    assert read_jsonl(file) == [{"id": "new"}]
    assert list(tmp_path.iterdir()) == [file]


def test_a_half_line_is_mended_and_finished_rows_are_kept_byte_for_byte(tmp_path):
    """Finished rows are kept as bytes, spaces included: they are not parsed and written again."""
    out = tmp_path / "out.jsonl"
    partial = tmp_path / "out.jsonl.partial-abc"
    finished = '{"id":  "a", "text": "é\u2028"}\n{"id": "b"}\n'.encode()
    partial.write_bytes(finished + b'{"id": "c", "te')
    stale = write_jsonl(tmp_path / "out.jsonl.partial-other", [{"id": "z"}])
    writer = rows.Writer(out, "abc")
    assert writer.done.keys() == {"a", "b"}
    assert partial.read_bytes() == finished
    writer.add([{"id": "c", "text": "ü"}])
    assert not out.exists()
    assert stale.exists()
    writer.finish()
    assert out.read_bytes() == finished + '{"id": "c", "text": "ü"}\n'.encode()
    assert list(tmp_path.iterdir()) == [out]


ADD_FOREVER = """\
from common import rows

writer = rows.Writer("out.jsonl", "abc")
n = len(writer.done)
while True:
    writer.add([{"id": str(n), "text": "x" * 5000}])
    print(n, flush=True)
    n += 1
"""


def test_a_killed_process_loses_no_row_that_it_added(tmp_path):
    """Killed at any moment: a row is there once `add` has returned, and the next run goes on."""
    out = tmp_path / "out.jsonl"
    for enough in (30, 70):
        process = subprocess.Popen(
            [sys.executable, "-c", ADD_FOREVER],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        printed = -1
        while printed < enough:
            printed = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        last = [printed, *map(int, process.stdout.read().split())][-1]
        process.wait()
        writer = rows.Writer(out, "abc")
        # The ids from 0 to the last that was printed, or one more.
        assert len(writer.done) - last in (1, 2)
        writer.file.close()
    writer = rows.Writer(out, "abc")
    writer.finish()
    ids = [row["id"] for row in read_jsonl(out)]
    assert ids == [str(i) for i in range(len(writer.done))]


def test_unfinished_work_is_gone_on_with_by_the_same_command_only(tmp_path):
    """Other flags, other input or another model of the same name do not resume it."""
    file = write_jsonl(tmp_path / "in.jsonl", [{"id": "a"}])
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    command = ["--input", str(file), "--model", str(model), "--seed", "1"]
    first = rows.fingerprint(command)
    assert rows.fingerprint(list(command)) == first
    assert rows.fingerprint([*command[:-1], "2"]) != first
    (model / "config.json").write_text('{"a": 1}')
    second = rows.fingerprint(command)
    write_jsonl(file, [{"id": "b"}])
    os.utime(file, ns=(time.time_ns(), time.time_ns() + 10**9))
    assert len({first, second, rows.fingerprint(command)}) == 3


def test_training_goes_on_from_the_last_whole_checkpoint(tmp_path):
    """By mtime, not by name: 10 is after 9. An incomplete checkpoint does not count."""
    model = tmp_path / "model"
    partial = tmp_path / "model.partial-abc"
    for step, state in ((9, "{\n}\n"), (10, "{\n}\n"), (11, '{"log_hist'), (12, None)):
        checkpoint = partial / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        if state:
            (checkpoint / "trainer_state.json").write_text(state)
    resumed = training.unfinished_model(model, "abc")
    assert resumed == (str(partial), str(partial / "checkpoint-10"))
    of_another_command = training.unfinished_model(model, "other")
    assert of_another_command == (str(tmp_path / "model.partial-other"), None)


def test_a_finished_model_takes_the_place_of_the_older_one(tmp_path):
    for directory in ("model", "model.partial-abc/checkpoint-10", "model.partial-stale", "model_2"):
        (tmp_path / directory).mkdir(parents=True)
    # By these files a model of an earlier version is recognised.
    for name in ("config.json", "trainer_state.json"):
        (tmp_path / "model" / name).touch()
    (tmp_path / "model.partial-abc" / "new").touch()
    rows.publish(tmp_path / "model.partial-abc", tmp_path / "model")
    names = sorted(path.name for path in tmp_path.rglob("*"))
    assert names == [".made_by.json", "model", "model_2", "new"]
