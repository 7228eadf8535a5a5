"""Wrong input stops a script with one line that names file, line and field; finished rows survive whatever happens."""

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

OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1"}


def turn(role, content="words"):
    return {"role": role, "content": content}


def scored(name, n=4, **other):
    row = {"id": name, "prompt": [turn("user")], "responses": [f"answer {i}" for i in range(n)]}
    return (
        row
        | {"finish_reasons": ["stop"] * n, "rewards": [float(i) for i in range(n)], "answer": "7"}
        | other
    )


# Script: the flag of its input, and what else it needs before it reads that. No such models exist.
SCRIPTS = {
    "generation/1_prompts.py": ["--size", "2", "--datasets"],
    "generation/2_responses.py": ["--model_name_or_path", "no/such/model", "--prompts_file"],
    "annotation/1a_reward_model.py": ["--model_name_or_path", "no/such/model", "--responses_file"],
    "annotation/1b_preference_model.py": [
        "--model_name_or_path",
        "no/such/model",
        "--responses_file",
    ],
    "annotation/1c_llm_judge.py": [
        "--judge_url",
        "http://127.0.0.1:1/v1",
        "--judge_model",
        "j",
        "--responses_file",
    ],
    "annotation/1d_verifier.py": ["--responses_file"],
    "annotation/2_pairs.py": ["--rewards_file"],
    "annotation/2b_best.py": ["--rewards_file"],
    "annotation/2d_uncertain_pairs.py": ["--model_name_or_path", "no/such/model", "--rewards_file"],
    "generation/1b_directions.py": ["--prompts_file"],
    "generation/2b_merge.py": ["--responses_files"],
    "eval/2_kl.py": [
        *["--model_name_or_path", "no/such/model", "--ref_model_name_or_path", "no/such/model"],
        "--responses_file",
    ],
    "recipes/tiny/3_true_reward.py": ["--rewards_file"],
}
OF_RESPONSES = [script for script in SCRIPTS if script.startswith("annotation/")] + ["eval/2_kl.py"]


def refused(tmp_path, script, file, *flags, **options):
    """The one line in which a script refuses its input, having changed nothing."""
    out = tmp_path / "out.jsonl"
    out.write_text("older work\n")
    before = sorted(tmp_path.iterdir())
    done = run(script, *SCRIPTS[script], file, "--output_file", out, *flags, **options)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert out.read_text() == "older work\n" and sorted(tmp_path.iterdir()) == before
    return done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_file_or_an_empty_one(tmp_path, script):
    assert (
        refused(tmp_path, script, tmp_path / "none.jsonl")
        == f"{tmp_path}/none.jsonl: No such file or directory\n"
    )
    (tmp_path / "in.jsonl").write_text("\n")
    assert refused(tmp_path, script, tmp_path / "in.jsonl") == f"{tmp_path}/in.jsonl: no rows\n"


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "line", ['{"id": "b", "pro', "[1, 2]", b'{"id": "\xff"}'], ids=["half", "list", "not UTF-8"]
)
def test_a_line_that_is_no_row(tmp_path, script, line):
    """The blank second line counts: the number is the editor's."""
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a", answer="4"), "", line])
    assert refused(tmp_path, script, file).startswith(f"{file}:3: row: not a ")


PROMPTS = {
    "prompt: missing": {"id": "b"},
    "prompt: an empty turn": {"id": "b", "prompt": [turn("user", " \n")]},
    "prompt: not one or more messages": {"id": "b", "prompt": []},
    "prompt: not one or more messages {role, content}": {
        "id": "b",
        "prompt": [{"role": "user", "text": "words"}],
    },
    "prompt: roles out of order (user, user)": {"id": "b", "prompt": [turn("user"), turn("user")]},
    "prompt: roles out of order (user, assistant)": {
        "id": "b",
        "prompt": [turn("user"), turn("assistant")],
    },
    "prompt: roles out of order (system)": {"id": "b", "prompt": [turn("system")]},
    "prompt: roles out of order (user, system, user)": {
        "id": "b",
        "prompt": [turn("user"), turn("system"), turn("user")],
    },
    "id: missing": {"prompt": [turn("user")]},
    "id: not a non-empty text": {"id": 7, "prompt": [turn("user")]},
    "id: 'a': duplicate, first on line 1": {"id": "a", "prompt": [turn("user", "other words")]},
}


@pytest.mark.parametrize("reason", PROMPTS)
def test_a_bad_prompt(tmp_path, reason):
    file = write_jsonl(
        tmp_path / "in.jsonl", [{"id": "a", "prompt": [turn("user")]}, PROMPTS[reason]]
    )
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
    """A NaN compares false with everything: it would make a pair at random, and in silence."""
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a"), scored("b", rewards=[1, 2, value, 4])])
    reason = refused(tmp_path, "annotation/2_pairs.py", file)
    assert reason == f"{file}:2: rewards: {[1, 2, value, 4]} are not all finite numbers\n"


@pytest.mark.parametrize("rewards", [[1.0, 2.0], [1.0] * 5, {"0": 1.0}, None])
def test_rewards_that_do_not_belong_to_the_responses(tmp_path, rewards):
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a"), scored("b", rewards=rewards)])
    reason = refused(tmp_path, "annotation/2_pairs.py", file)
    told = "missing" if rewards is None else "not a list with one entry for each response"
    assert reason == f"{file}:2: rewards: {told}\n"


@pytest.mark.parametrize("script", ["annotation/1a_reward_model.py", "annotation/2_pairs.py"])
def test_another_number_of_responses_than_asked_for(tmp_path, script):
    """Defect 1: four answers were sampled, eight expected, and every row fell away without a word."""
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a"), scored("b")])
    assert (
        refused(tmp_path, script, file, "--n", 8)
        == f"{file}:1: responses: 4 where 8 are expected\n"
    )


def test_the_true_reward_needs_the_answer(tmp_path):
    unanswered = {key: value for key, value in scored("b").items() if key != "answer"}
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a"), unanswered])
    assert "in.jsonl:2: answer: missing" in refused(tmp_path, "recipes/tiny/3_true_reward.py", file)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_misspelt_flag(tmp_path, script):
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a", answer="4"), scored("b", answer="4")])
    done = run(script, *SCRIPTS[script], file, "--output_file", tmp_path / "out.jsonl", "--sead", 1)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].endswith(
        "unrecognized arguments: --sead 1"
    )
    assert list(tmp_path.iterdir()) == [file]


def test_answers_that_do_not_divide_by_the_temperatures(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a")])
    flags = ["--n", 4, "--temperatures", 1, 0.7, 0.5, "--output_file", tmp_path / "out.jsonl"]
    done = run("generation/2_responses.py", *SCRIPTS["generation/2_responses.py"], file, *flags)
    assert done.returncode == 2 and done.stderr.endswith(
        "--n 4 does not divide by the 3 --temperatures\n"
    )


@pytest.mark.parametrize(
    "script", ["generation/2_responses.py", "annotation/1a_reward_model.py", "eval/2_kl.py"]
)
def test_a_model_that_is_not_there(tmp_path, script):
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a")])
    assert refused(tmp_path, script, file, env=OFFLINE).startswith(
        "no/such/model: cannot load a model from it ("
    )


# The training scripts import TRL first, seconds each, so one command tells two things where it can.
TRAINING = ["--model_name_or_path", "no/such/model", "--bf16", "False"]
PAIR = {
    "id": "a",
    "prompt": [turn("user")],
    "chosen": [turn("assistant", "")],
    "rejected": [turn("assistant")],
}


def training_refused(tmp_path, script, *flags):
    before = sorted(tmp_path.iterdir())
    done = run(script, *TRAINING, "--output_dir", tmp_path / "model", *flags, env=OFFLINE)
    assert done.returncode == 1 and sorted(tmp_path.iterdir()) == before
    return done.stderr


def test_fine_tuning_refuses_a_conversation_without_an_answer(tmp_path):
    good = {"id": "a", "messages": [turn("user"), turn("assistant")] * 2}
    file = write_jsonl(tmp_path / "in.jsonl", [good, {"id": "b", "messages": [turn("user")]}])
    told = training_refused(tmp_path, "sft/2_finetune.py", "--dataset_name", file)
    assert told == f"{file}:2: messages: roles out of order (user)\n"


def test_a_reward_model_is_not_measured_on_prompts_that_it_was_trained_on(tmp_path):
    """Defect 13: the evaluation set was a part of the training set. The answers differ here, the prompt is the same."""
    training = write_jsonl(tmp_path / "training.jsonl", [PAIR])
    held_out = write_jsonl(
        tmp_path / "held_out.jsonl", [{**PAIR, "id": "b", "chosen": [turn("assistant", "new")]}]
    )
    flags = ["--dataset_name", training, "--held_out_name", held_out]
    told = training_refused(tmp_path, "reward_modeling/2a_bradley_terry.py", *flags)
    assert told == f"{held_out}: prompt: some prompts stand in {training} too\n"


def test_dpo_refuses_an_answer_by_the_user(tmp_path):
    """Defect 11: chosen answers were stored with the role user. A good file before the bad one does not hide it."""
    good = write_jsonl(tmp_path / "good.jsonl", [PAIR])
    bad = write_jsonl(tmp_path / "bad.jsonl", [{**PAIR, "chosen": [turn("user")]}])
    flags = ["--ref_model_name_or_path", "no/such/model", "--dataset_name", good, bad]
    assert (
        training_refused(tmp_path, "dpo/1_dpo.py", *flags)
        == f"{bad}:1: chosen: roles out of order (user)\n"
    )


def test_dpo_refuses_a_model_that_is_not_there(tmp_path):
    """An empty answer is the policy's doing and may stand in a pair: the file passes, the model does not."""
    file = write_jsonl(tmp_path / "in.jsonl", [PAIR])
    flags = ["--ref_model_name_or_path", "no/such/other", "--dataset_name", file]
    told = training_refused(tmp_path, "dpo/1_dpo.py", *flags)
    assert (
        told.startswith("no/such/model: cannot load a model from it (")
        and len(told.splitlines()) == 1
    )


def test_training_refuses_a_misspelt_flag(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [PAIR])
    flags = ["--ref_model_name_or_path", "no/such/other", "--dataset_name", file, "--betta", 0.5]
    assert "--betta" in training_refused(tmp_path, "dpo/1_dpo.py", *flags).splitlines()[-1]


def test_a_full_disk_loses_nothing(tmp_path):
    """The older file stays, and one line says what happened."""
    file = write_jsonl(tmp_path / "in.jsonl", [scored(f"{i}") for i in range(100)])
    out = tmp_path / "out.jsonl"
    out.write_text("older work\n")
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))}
    done = run("annotation/2_pairs.py", "--rewards_file", file, "--output_file", out, **limit)
    assert done.returncode == 1 and done.stderr.startswith(f"{out}: File too large; ")
    assert len(done.stderr.splitlines()) == 1 and out.read_text() == "older work\n"
    ran("annotation/2_pairs.py", "--rewards_file", file, "--output_file", out)
    assert len(read_jsonl(out)) == 100 and sorted(tmp_path.iterdir()) == [file, out]


def test_a_text_keeps_its_line_separators(tmp_path):
    """Only a line feed ends a row: Unicode's other line ends stand in real answers."""
    texts = ["one\u2028two\x85three\x0bfour\r\nfive", "six", "seven", "eight"]
    file = write_jsonl(
        tmp_path / "in.jsonl", [json.dumps(scored("a", responses=texts), ensure_ascii=False)]
    )
    ran("annotation/2_pairs.py", "--rewards_file", file, "--output_file", tmp_path / "out.jsonl")
    (pair,) = read_jsonl(tmp_path / "out.jsonl")
    assert [pair["chosen"][0]["content"], pair["rejected"][0]["content"]] == ["eight", texts[0]]


def test_rows_are_written_whole_or_not_at_all(tmp_path):
    def interrupted():
        yield {"id": "new"}
        raise KeyboardInterrupt

    file = write_jsonl(tmp_path / "out.jsonl", [{"id": "old"}])
    with pytest.raises(KeyboardInterrupt):
        rows.write(file, interrupted())
    assert read_jsonl(file) == [{"id": "old"}]
    rows.write(file, [{"id": "new"}])
    assert read_jsonl(file) == [{"id": "new"}] and list(tmp_path.iterdir()) == [file]


def test_a_half_line_is_mended_and_finished_rows_are_kept_byte_for_byte(tmp_path):
    """Finished rows are kept as bytes, spaces and all: they are not read and written again."""
    partial = tmp_path / "out.jsonl.partial-abc"
    kept = '{"id":  "a", "text": "é\u2028"}\n{"id": "b"}\n'.encode()
    partial.write_bytes(kept + b'{"id": "c", "te')
    stale = write_jsonl(tmp_path / "out.jsonl.partial-other", [{"id": "z"}])
    writer = rows.Writer(tmp_path / "out.jsonl", "abc")
    assert writer.done.keys() == {"a", "b"} and partial.read_bytes() == kept
    writer.add([{"id": "c", "text": "ü"}])
    assert not (tmp_path / "out.jsonl").exists() and stale.exists()
    writer.finish()
    assert (tmp_path / "out.jsonl").read_bytes() == kept + '{"id": "c", "text": "ü"}\n'.encode()
    assert list(tmp_path.iterdir()) == [tmp_path / "out.jsonl"]


def test_a_killed_process_loses_no_row_that_it_added(tmp_path):
    """Killed at any moment: what `add` returned for is there, and the file goes on in order."""
    script = (
        "from common import rows; w = rows.Writer('out.jsonl', 'abc'); n = len(w.done)\n"
        "while True: w.add([{'id': str(n), 'text': 'x' * 5000}]); print(n, flush=True); n += 1"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for wanted in (30, 70):
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        while (told := int(process.stdout.readline())) < wanted:
            pass
        process.send_signal(signal.SIGKILL)
        last = [told, *map(int, process.stdout.read().split())][-1]
        process.wait()
        writer = rows.Writer(tmp_path / "out.jsonl", "abc")
        assert len(writer.done) - last in (1, 2), "ids from 0 to the last told, or one more"
        writer.file.close()
    writer = rows.Writer(tmp_path / "out.jsonl", "abc")
    writer.finish()
    assert [row["id"] for row in read_jsonl(tmp_path / "out.jsonl")] == [
        str(i) for i in range(len(writer.done))
    ]


def test_unfinished_work_is_gone_on_with_by_the_same_command_only(tmp_path):
    """Other flags, other input or another model of the same name: nothing is mixed."""
    file, model = write_jsonl(tmp_path / "in.jsonl", [{"id": "a"}]), tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    command = ["--input", str(file), "--model", str(model), "--seed", "1"]
    first = rows.fingerprint(command)
    assert rows.fingerprint(list(command)) == first != rows.fingerprint([*command[:-1], "2"])
    (model / "config.json").write_text('{"a": 1}')
    second = rows.fingerprint(command)
    write_jsonl(file, [{"id": "b"}])
    os.utime(file, ns=(time.time_ns(), time.time_ns() + 10**9))
    assert len({first, second, rows.fingerprint(command)}) == 3


def test_training_goes_on_from_the_last_whole_checkpoint(tmp_path):
    """By age, not by name: 10 is after 9. What a kill left half written does not count."""
    partial = tmp_path / "model.partial-abc"
    for step, state in ((9, "{\n}\n"), (10, "{\n}\n"), (11, '{"log_hist'), (12, None)):
        (partial / f"checkpoint-{step}").mkdir(parents=True)
        if state:
            (partial / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    found = training.unfinished_model(tmp_path / "model", "abc")
    assert found == (str(partial), str(partial / "checkpoint-10"))
    assert training.unfinished_model(tmp_path / "model", "other") == (
        str(tmp_path / "model.partial-other"),
        None,
    )


def test_a_finished_model_takes_the_place_of_the_older_one(tmp_path):
    for directory in ("model", "model.partial-abc/checkpoint-10", "model.partial-stale", "model_2"):
        (tmp_path / directory).mkdir(parents=True)
    for name in ("config.json", "trainer_state.json"):  # what a model of before is known by
        (tmp_path / "model" / name).touch()
    (tmp_path / "model.partial-abc" / "new").touch()
    rows.publish(tmp_path / "model.partial-abc", tmp_path / "model")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        ".made_by.json",
        "model",
        "model_2",
        "new",
    ]
