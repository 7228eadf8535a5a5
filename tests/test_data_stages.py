"""The scripts that need no model: conversions, draws, pairs, the verifier, the tiny world's data.

What is expected was worked out by hand.
"""

import itertools
import json
import math
import re
import runpy
from collections import Counter

import pytest

from commands import ROOT, ran, read_jsonl, run, write_jsonl
from common.fields import PER_RESPONSE

DATA = ROOT.parent / "shared" / "data"
TRUE_REWARD = runpy.run_path(str(ROOT / "recipes/tiny/true_reward.py"))


def turn(role, content):
    return {"role": role, "content": content}


def refused(tmp_path, script, *flags):
    """The one line in which a script refuses its input; it must leave no file behind."""
    before = sorted(tmp_path.iterdir())
    done = run(script, *flags)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert sorted(tmp_path.iterdir()) == before
    return done.stderr.strip()


# Instructions


def instructions(tmp_path, *files, name="out.jsonl"):
    done = ran("sft/1_instructions.py", "--datasets", *files, "--output_file", tmp_path / name)
    return read_jsonl(tmp_path / name), done.stdout


S = turn("system", "s")
Q = turn("user", "q")
A = turn("assistant", "a")
Q_WITH_INPUT = turn("user", "q\n\ni")


def sharegpt(*turns):
    return {"conversations": [{"from": who, "value": text} for who, text in turns]}


# {format: (row, its messages)}
INSTRUCTIONS = {
    "messages": ({"messages": [S, Q, A, Q, A]}, [S, Q, A, Q, A]),
    "ShareGPT": (sharegpt(("system", "s"), ("human", "q"), ("gpt", "a")), [S, Q, A]),
    "Alpaca": ({"instruction": "q", "output": "a"}, [Q, A]),
    "Alpaca with input": ({"instruction": "q", "input": "i", "output": "a"}, [Q_WITH_INPUT, A]),
    "Alpaca with empty input": ({"instruction": "q", "input": "", "output": "a"}, [Q, A]),
    "answers before the first question": (
        sharegpt(*[("gpt", "g"), ("human", "h")] * 3),
        [turn("user", "h"), turn("assistant", "g")] * 2,
    ),
    "Magicoder, GPTeacher": (
        {"instruction": "q", "response": "a", "input": "i"},
        [Q_WITH_INPUT, A],
    ),
    "OrcaMath": ({"question": "q", "answer": "a"}, [Q, A]),
    "TRL texts": ({"prompt": "q", "completion": "a"}, [Q, A]),
    "TRL messages": ({"prompt": [S, Q], "completion": [A]}, [S, Q, A]),
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_every_instruction_format_becomes_messages(tmp_path, name):
    """Keys that the script does not know pass through."""
    row, messages = INSTRUCTIONS[name]
    other_keys = {"score": 1.5, "tags": ["x"]}
    file = write_jsonl(tmp_path / "in.jsonl", [row | other_keys])
    (converted,), _ = instructions(tmp_path, file)
    assert converted == {"id": "in-1", "source": str(file), "messages": messages, **other_keys}


def test_a_row_keeps_its_own_id_and_source(tmp_path):
    row = {"id": "own", "source": "there", "messages": [Q, A]}
    assert instructions(tmp_path, write_jsonl(tmp_path / "in.jsonl", [row]))[0] == [row]


def test_instructions_are_cleaned_and_counted(tmp_path):
    rows = [
        {"instruction": "q", "output": "a"},
        {"instruction": "q", "output": "a"},
        # the same instruction in another format
        {"prompt": "q", "completion": "a"},
        {"instruction": "q", "output": " "},
        {"instruction": "", "output": "a"},
        {"messages": [Q]},
        {"messages": [A, Q]},
        {"messages": [Q, Q, A]},
        {"messages": []},
        {"messages": [Q, {"role": "assistant", "content": None}]},
        {"instruction": "q2", "output": "a"},
    ]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    converted, printed = instructions(tmp_path, file)
    assert [row["id"] for row in converted] == ["in-1", "in-11"]
    reasons = "roles out of order: 3, duplicate: 2, an empty turn: 2, "
    reasons += "not one or more messages {role, content}: 2"
    assert f"| {file} | 11 | 2 | 9 | {reasons} |" in printed
    assert "rows in: 11, dropped: 9, rows out: 2, " in printed
    assert (tmp_path / "out.md").read_text() in printed


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "q", "solution": "a"}, "messages: none of messages, "),
        ({"instruction": 1, "output": "a"}, "instruction: not a text"),
        ({"conversations": [{"role": "gpt"}]}, "conversations: a turn has neither role and "),
    ],
)
def test_an_unknown_instruction_format_is_named(tmp_path, row, reason):
    file = write_jsonl(tmp_path / "in.jsonl", [{"messages": [Q, A]}, row])
    flags = ["--datasets", file, "--output_file", tmp_path / "out.jsonl"]
    error = refused(tmp_path, "sft/1_instructions.py", *flags)
    assert error.startswith(f"{file}:2: {reason}")


def test_no_instruction_left(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [{"messages": [Q]}])
    flags = ["--datasets", file, "--output_file", tmp_path / "out.jsonl"]
    assert "no row is left" in refused(tmp_path, "sft/1_instructions.py", *flags)


def test_instructions_of_two_files_of_one_name_have_different_ids(tmp_path):
    """Fine-tuning refuses a duplicate id, so this script must not make one."""
    files = []
    for name in "ab":
        (tmp_path / name).mkdir()
        row = {"instruction": name, "output": "a"}
        files.append(write_jsonl(tmp_path / name / "train.jsonl", [row]))
    converted, _ = instructions(tmp_path, *files)
    assert len({row["id"] for row in converted}) == 2


def test_an_id_that_stands_twice_gets_a_number(tmp_path):
    rows = [{"id": "own", "messages": [turn("user", text), A]} for text in ("q1", "q2")]
    converted, _ = instructions(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows))
    assert [row["id"] for row in converted] == ["own", "own-2"]


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_other_files_than_json_lines(tmp_path, suffix):
    import pandas

    table = pandas.DataFrame([{"instruction": "q", "output": "a"}])
    file = tmp_path / f"in.{suffix}"
    if suffix == "parquet":
        table.to_parquet(file)
    else:
        table.to_json(file, orient="records")
    (converted,), _ = instructions(tmp_path, file)
    assert converted == {"id": "in-1", "source": str(file), "messages": [Q, A]}
    (drawn,), _ = prompts(tmp_path, file, size=0)
    assert drawn["prompt"] == [Q]
    file.write_text("{")
    flags = ["--datasets", file, "--output_file", tmp_path / "new.jsonl"]
    error = run("sft/1_instructions.py", *flags).stderr.splitlines()[-1]
    assert error.startswith(f"{file}: cannot be read (")


def test_half_a_character_is_named(tmp_path):
    """Public data hold texts that were cut inside a surrogate pair; UTF-8 cannot encode a half."""
    file = write_jsonl(tmp_path / "in.jsonl", [r'{"instruction": "q \ud83d", "output": "a"}'])
    flags = ["--datasets", file, "--output_file", tmp_path / "out.jsonl"]
    error = refused(tmp_path, "sft/1_instructions.py", *flags)
    assert error == f"{file}:1: instruction: half a character (a lone surrogate)"


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [{"instruction": "q", "output": "a"}])
    flags = ["--datasets", file, "--output_file", file / "out.jsonl"]
    error = refused(tmp_path, "sft/1_instructions.py", *flags)
    assert error.startswith(f"{file}/out.jsonl: ")


# Preferences


def preferences(tmp_path, file, *flags, name="out"):
    """(training rows, held-out rows, what was printed)"""
    out = tmp_path / f"{name}.jsonl"
    held_out = tmp_path / f"{name}_held_out.jsonl"
    files = ["--datasets", file, "--output_file", out, "--held_out_file", held_out]
    done = ran("reward_modeling/1_preferences.py", *files, *flags)
    return read_jsonl(out), read_jsonl(held_out), done.stdout


def preferences_refused(tmp_path, file, *flags):
    files = ["--datasets", file, "--output_file", tmp_path / "out.jsonl"]
    files += ["--held_out_file", tmp_path / "held_out.jsonl"]
    return refused(tmp_path, "reward_modeling/1_preferences.py", *files, *flags)


B = turn("assistant", "b")
PREFERENCES = {
    "texts": ({"prompt": "q", "chosen": "a", "rejected": "b"}, [Q]),
    "messages": ({"prompt": [Q, A, Q], "chosen": [A], "rejected": [B]}, [Q, A, Q]),
    "whole conversations": ({"chosen": [Q, A, Q, A], "rejected": [Q, A, Q, B]}, [Q, A, Q]),
    "whole conversations and a text": ({"prompt": "q", "chosen": [Q, A], "rejected": [Q, B]}, [Q]),
    "a text and two messages": ({"prompt": "q", "chosen": [A], "rejected": [B]}, [Q]),
}


@pytest.mark.parametrize("name", PREFERENCES)
def test_every_preference_format_becomes_messages(tmp_path, name):
    row, prompt = PREFERENCES[name]
    other = {"prompt": "other", "chosen": "a", "rejected": "b"}
    other_keys = {"margin": 0.5, "tags": ["x"]}
    file = write_jsonl(tmp_path / "in.jsonl", [row | other_keys, other])
    training, held_out, _ = preferences(tmp_path, file, "--held_out", 0.5)
    converted = next(row for row in training + held_out if row["id"] == "in-1")
    messages = {"prompt": prompt, "chosen": [A], "rejected": [B]}
    assert converted == {"id": "in-1", "source": str(file), **messages, **other_keys}


def test_no_held_out_prompt_is_trained_on(tmp_path):
    """Defect 13, its subtle form included: all pairs of a prompt go to the same side."""
    pairs = [{"prompt": f"q{i % 40}", "chosen": f"a{i}", "rejected": "b"} for i in range(120)]
    file = write_jsonl(tmp_path / "in.jsonl", pairs)
    training, held_out, printed = preferences(tmp_path, file, "--held_out", 0.25)
    training_prompts = {row["prompt"][0]["content"] for row in training}
    held_out_prompts = {row["prompt"][0]["content"] for row in held_out}
    assert (len(training), len(held_out)) == (90, 30)
    assert (len(training_prompts), len(held_out_prompts)) == (30, 10)
    assert not training_prompts & held_out_prompts
    chosen = {row["chosen"][0]["content"] for row in training + held_out}
    assert chosen == {f"a{i}" for i in range(120)}
    assert "rows in: 120, held out: 30, rows out: 90," in printed
    flags = ["--held_out", 0.25, "--seed"]
    same_seed = preferences(tmp_path, file, *flags, 0, name="0")
    assert same_seed[:2] == (training, held_out)
    _, other_held_out, _ = preferences(tmp_path, file, *flags, 1, name="1")
    assert {row["prompt"][0]["content"] for row in other_held_out} != held_out_prompts
    assert {row["id"] for row in other_held_out} != {row["id"] for row in held_out}


def test_pairs_that_teach_nothing_are_dropped_and_counted(tmp_path):
    good = {"prompt": "q", "chosen": "a", "rejected": "b"}
    bad_keys = [
        {"rejected": "a"},
        {"chosen": " "},
        {"rejected": ""},
        {"prompt": ""},
        {"chosen": [Q], "prompt": [Q]},
        {"prompt": [Q, A]},
        {"prompt": []},
        {"prompt": None, "chosen": [Q, A], "rejected": [turn("user", "another"), B]},
    ]
    rows = [good, {**good, "prompt": "q2"}]
    rows += [{**good, **keys} for keys in bad_keys]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    training, held_out, printed = preferences(tmp_path, file, "--held_out", 0.5)
    assert {training[0]["id"], held_out[0]["id"]} == {"in-1", "in-2"}
    assert len(training + held_out) == 2
    counts = {
        "identical answers": 1,
        "empty answer": 2,
        "prompt: an empty turn": 1,
        "chosen: roles out of order": 1,
        "prompt: roles out of order": 1,
        "prompt: not one or more messages {role, content}": 1,
        "different prompts": 1,
    }
    for name, count in counts.items():
        assert f"dropped, {name}: {count}, " in printed, printed


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "response": "a"},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        {"prompt": "q", "chosen": None, "rejected": "b"},
    ],
)
def test_an_unknown_preference_format_is_named(tmp_path, row):
    good = {"prompt": "q", "chosen": "a", "rejected": "b"}
    file = write_jsonl(tmp_path / "in.jsonl", [good, row])
    assert preferences_refused(tmp_path, file).startswith(f"{file}:2: chosen: ")


def test_nothing_to_hold_out_is_refused(tmp_path):
    """Without held-out rows the accuracy of a reward model would be that of no pair."""
    rows = [{"prompt": "q", "chosen": f"a{i}", "rejected": "b"} for i in range(9)]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    assert "held out (" in preferences_refused(tmp_path, file, "--held_out", 0.5)


def test_a_judgement_has_one_context(tmp_path):
    """Two sides that differ before their last turns cannot be compared by these."""
    pairs = [
        {"id": "same", "prompt": [Q], "chosen": [A, Q, A], "rejected": [A, Q, B]},
        {"id": "differ", "prompt": [Q], "chosen": [A, Q, A], "rejected": [B, Q, B]},
    ]
    file = write_jsonl(tmp_path / "in.jsonl", pairs)
    out = tmp_path / "out.jsonl"
    done = ran("sft/1b_judgements.py", "--preferences_file", file, "--output_file", out)
    (judgement,) = read_jsonl(out)
    assert judgement["id"] == "judgement-same"
    assert "<turn> assistant\n a\n<turn> user\n q\n" in judgement["messages"][0]["content"]
    assert "rows in: 2, dropped, different prompts: 1, rows out: 1" in done.stdout


# Prompts


def prompts(tmp_path, *files, size, exclude=(), seed=0, name="out.jsonl"):
    """(drawn rows, what was printed)"""
    flags = ["--size", size, "--seed", seed, "--exclude_files", *exclude]
    flags += ["--output_file", tmp_path / name]
    done = ran("generation/1_prompts.py", "--datasets", *files, *flags)
    return read_jsonl(tmp_path / name), done.stdout


def test_every_prompt_format_becomes_messages(tmp_path):
    capybara = [{"input": "q8", "output": "a8"}, {"input": "q9", "output": "a9"}]
    rows = [
        {"prompt": "q1"},
        {"prompt": [turn("system", "s"), turn("user", "q2")], "answer": "7", "tags": ["x"]},
        {"context_messages": [turn("user", "q3"), A, turn("user", "q4")]},
        {"messages": [turn("user", "q5"), A]},
        {"messages": [turn("user", "q6")], "id": "own", "source": "there"},
        {"instruction": "q7"},
        {"conversation": capybara, "source": "Capybara"},
        {"system_prompt": "s", "question": "q10", "response": "a"},
        {"system_prompt": "", "question": "q11", "answer": "11"},
    ]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    drawn_rows, _ = prompts(tmp_path, file, size=9)
    drawn = {row["id"]: row for row in drawn_rows}
    two_turns = [turn("user", "q8"), turn("assistant", "a8"), turn("user", "q9")]
    assert drawn["in-7"]["prompt"] == two_turns
    assert drawn["in-7"]["source"] == "Capybara"
    assert "conversation" not in drawn["in-7"]
    assert drawn["in-8"]["prompt"] == [turn("system", "s"), turn("user", "q10")]
    keys = {"prompt": [turn("user", "q11")], "answer": "11"}
    assert drawn["in-9"] == {"id": "in-9", "source": str(file), **keys}
    assert drawn["in-1"]["prompt"] == [turn("user", "q1")]
    assert drawn["in-4"]["prompt"] == [turn("user", "q5")]
    assert drawn["in-6"]["prompt"] == [turn("user", "q7")]
    keys = {"prompt": rows[1]["prompt"], "answer": "7", "tags": ["x"]}
    assert drawn["in-2"] == {"id": "in-2", "source": str(file), **keys}
    context = rows[2]["context_messages"]
    assert drawn["in-3"] == {"id": "in-3", "source": str(file), "prompt": context}
    assert drawn["own"] == {"id": "own", "source": "there", "prompt": [turn("user", "q6")]}


def test_all_prompts_in_their_order_and_what_public_data_has_is_dropped(tmp_path):
    texts = [{"instruction": f"q{i}"} for i in range(5)]
    bad = [
        {"messages": [Q, A, A]},
        {"instruction": " "},
        {"conversation": [{"input": "", "output": "a"}]},
    ]
    file = write_jsonl(tmp_path / "in.jsonl", texts[:3] + bad + texts[3:])
    drawn, printed = prompts(tmp_path, file, size=0)
    assert [row["prompt"][0]["content"] for row in drawn] == [f"q{i}" for i in range(5)]
    assert "| 8 | 5 | 3 | an empty turn: 2, roles out of order: 1 |" in printed
    assert (tmp_path / "out.md").read_text() in printed


OF_NO_PROMPT_FORMAT = [
    {"answer": "q"},
    {"messages": ["q"]},
    {"conversation": "q"},
    {"instruction": 7},
]


@pytest.mark.parametrize("row", OF_NO_PROMPT_FORMAT)
def test_an_unknown_prompt_format_is_named(tmp_path, row):
    file = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "q"}, row])
    flags = ["--datasets", file, "--size", 1, "--output_file", tmp_path / "out.jsonl"]
    assert refused(tmp_path, "generation/1_prompts.py", *flags).startswith(f"{file}:2: prompt: ")


def test_rounds_repeat_no_prompt(tmp_path):
    """Three rounds of 30 use up a pool of 90; a fourth is refused in one line."""
    rows = [{"id": f"p{i}", "prompt": f"question {i}"} for i in range(90)]
    pool = write_jsonl(tmp_path / "pool.jsonl", rows)
    drawn, earlier = [], []
    for name in ("1.jsonl", "2.jsonl", "3.jsonl"):
        drawn += prompts(tmp_path, pool, size=30, exclude=earlier, name=name)[0]
        earlier.append(tmp_path / name)
    assert {row["id"] for row in drawn} == {f"p{i}" for i in range(90)}
    assert len(drawn) == 90
    flags = ["--datasets", pool, "--size", 1, "--exclude_files", *earlier]
    flags += ["--output_file", tmp_path / "4.jsonl"]
    error = refused(tmp_path, "generation/1_prompts.py", *flags)
    assert error.startswith(f"{tmp_path}/4.jsonl: 1 prompts asked for, 0 are left of ")


def test_excluded_prompts_are_known_by_their_words(tmp_path):
    """Two prompts that differ in capitals, spaces and punctuation alone are the same question.

    Other words, a system turn or an earlier turn make another question.
    """
    question = turn("user", "What is 2 plus 2?")
    variants = ["what is 2 plus 2", "WHAT  is\n2 plus 2 ?!"]
    others = [
        "What is 2 plus 3?",
        "What is 22 plus 2?",
        [question, A, Q],
        [S, question],
        [Q, A, question],
    ]
    file = write_jsonl(tmp_path / "in.jsonl", [{"prompt": prompt} for prompt in variants + others])
    excluded = write_jsonl(tmp_path / "evaluation.jsonl", [{"id": "e", "prompt": [question]}])
    drawn, printed = prompts(tmp_path, file, size=5, exclude=[excluded])
    assert {row["id"] for row in drawn} == {f"in-{i}" for i in range(3, 8)}
    assert "| 7 | 5 | 2 | in an excluded file: 2 |" in printed
    assert "dropped: 2, left: 5, rows out: 5," in printed


def test_a_prompt_is_drawn_once(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [{"prompt": text} for text in ("q 1", "Q 1!", "q 2")])
    drawn, printed = prompts(tmp_path, file, size=2)
    assert {row["id"] for row in drawn} == {"in-1", "in-3"}
    assert "| 3 | 2 | 1 | duplicate: 1 |" in printed


def test_two_prompts_of_one_id_get_two(tmp_path):
    rows = [{"id": "a", "prompt": "q 1"}, {"id": "a", "prompt": "q 2"}]
    drawn, _ = prompts(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows), size=2)
    assert {row["id"] for row in drawn} == {"a", "a-2"}
    for bad in ("", True, {"a": 1}):
        file = write_jsonl(tmp_path / "bad.jsonl", [{"id": bad, "prompt": "q"}])
        flags = ["--datasets", file, "--size", 1, "--output_file", tmp_path / "new.jsonl"]
        error = refused(tmp_path, "generation/1_prompts.py", *flags)
        assert error == f"{file}:1: id: not a non-empty text"


def test_a_draw_is_marked_with_splits(tmp_path):
    rows = [{"prompt": f"q{i}", "split": "old"} for i in range(20)]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    flags = ["--size", 7, "--splits", "validation", "test", "--output_file", tmp_path / "out.jsonl"]
    ran("generation/1_prompts.py", "--datasets", file, *flags)
    splits = [row["split"] for row in read_jsonl(tmp_path / "out.jsonl")]
    assert splits == ["validation"] * 4 + ["test"] * 3


def test_splits_are_of_a_sample(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "q"}])
    flags = ["--datasets", file, "--output_file", tmp_path / "out.jsonl", "--size", 0]
    done = run("generation/1_prompts.py", *flags, "--splits", "validation", "test")
    assert done.returncode == 2
    assert done.stderr.endswith(
        "error: --splits: they label a sample, --size 0 takes all prompts\n"
    )


def test_the_same_seed_draws_the_same_prompts(tmp_path):
    pool = write_jsonl(tmp_path / "pool.jsonl", [{"prompt": f"question {i}"} for i in range(100)])
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        prompts(tmp_path, pool, size=20, seed=seed, name=name)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.skipif(not DATA.exists(), reason="no real data here")
def test_real_questions_pass_the_entrances(tmp_path):
    """GSM8K: no text is lost, characters beyond ASCII included, and no test question is drawn."""
    for split in ("train", "test"):
        rows = read_jsonl(DATA / "gsm8k" / f"{split}.jsonl")
        pairs = [{"instruction": row["question"], "output": row["answer"]} for row in rows]
        write_jsonl(tmp_path / split, pairs)
    converted, _ = instructions(tmp_path, tmp_path / "train")
    rows = read_jsonl(DATA / "gsm8k" / "train.jsonl")
    for row, published in zip(converted, rows, strict=True):
        contents = [message["content"] for message in row["messages"]]
        assert contents == [published["question"], published["answer"]]
    evaluation, _ = prompts(tmp_path, tmp_path / "test", size=1300, name="tested.jsonl")
    files = [tmp_path / "test", tmp_path / "train"]
    drawn, printed = prompts(tmp_path, *files, size=7000, exclude=[tmp_path / "tested.jsonl"])
    assert "in an excluded file: 1300" in printed
    evaluation_questions = {row["prompt"][0]["content"] for row in evaluation}
    assert not {row["prompt"][0]["content"] for row in drawn} & evaluation_questions


# Pairs


def scored(name, rewards, responses=None, reasons=None, **more):
    """A row of responses with their rewards."""
    return {
        "id": name,
        "prompt": [Q],
        "responses": responses or [f"{name} answer {i}" for i in range(len(rewards))],
        "finish_reasons": reasons or ["stop"] * len(rewards),
        "rewards": rewards,
        "temperatures": [1.0] * len(rewards),
        "response_tokens": [3] * len(rewards),
        **more,
    }


def pairs(tmp_path, rows, *flags, name="out.jsonl"):
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    out = tmp_path / name
    done = ran("annotation/2_pairs.py", "--rewards_file", file, "--output_file", out, *flags)
    return read_jsonl(out), done.stdout


def texts(pair):
    return pair["chosen"][0]["content"], pair["rejected"][0]["content"]


def test_best_against_worst(tmp_path):
    """Defect 1 as well: rows of four responses need no flag to be paired.

    Keys that belong to the responses are removed.
    """
    row = scored("a", [0.5, 2.0, -1.0, 1.0], answer="7", policy="p")
    (pair,), printed = pairs(tmp_path, [row])
    assert pair == {
        "id": "a",
        "prompt": [Q],
        "answer": "7",
        "policy": "p",
        "chosen": [turn("assistant", "a answer 1")],
        "rejected": [turn("assistant", "a answer 2")],
        "chosen_reward": 2.0,
        "rejected_reward": -1.0,
    }
    assert "rows in: 1, rows out: 1, " in printed


def test_lists_that_belong_to_the_prompt_pass_through(tmp_path):
    row = scored("a", [0.5, 2.0, -1.0, 1.0], tags=["x"], turns=[[1], [2]])
    (pair,), _ = pairs(tmp_path, [row])
    assert pair.get("tags") == ["x"]
    assert pair.get("turns") == [[1], [2]]
    assert "temperatures" not in pair


SELECTING_SCRIPTS = {
    "annotation/2_pairs.py": ["--rewards_file"],
    "annotation/2b_best.py": ["--rewards_file"],
    "comparison/1_best_of_n.py": ["--n", 2, "--rewards_file"],
    "generation/2b_merge.py": ["--responses_files"],
}


@pytest.mark.parametrize("script", SELECTING_SCRIPTS)
def test_a_list_as_long_as_the_responses_belongs_to_the_row(tmp_path, script):
    """Fields of the responses are known by name, so that no list of the user's own is cut."""
    row = scored("a", [1.0, 0.0], tags=["x", "y"])
    files = [write_jsonl(tmp_path / "in.jsonl", [row])]
    if script == "generation/2b_merge.py":
        other = scored("a", [1.0, 0.0], tags=["z"])
        files.append(write_jsonl(tmp_path / "other.jsonl", [other]))
    out = tmp_path / "out.jsonl"
    ran(script, *SELECTING_SCRIPTS[script], *files, "--output_file", out)
    (written,) = read_jsonl(out)
    assert written["tags"] == ["x", "y"]


@pytest.mark.parametrize("script", SELECTING_SCRIPTS)
@pytest.mark.parametrize("field", ["temperatures", "response_tokens", "kl"])
def test_a_field_of_the_responses_of_another_length_is_refused(tmp_path, script, field):
    row = scored("a", [1.0, 0.0]) | {field: [1.0]}
    file = write_jsonl(tmp_path / "in.jsonl", [row])
    flags = [*SELECTING_SCRIPTS[script], file, "--output_file", tmp_path / "out.jsonl"]
    error = refused(tmp_path, script, *flags)
    assert error == f"{file}:1: {field}: not a list with one entry for each response"


def test_the_page_of_rows_lists_the_fields_of_the_responses():
    page = (ROOT / "docs/rows.md").read_text()
    section = page.partition("## Fields of the responses")[2].partition("(`PER_RESPONSE`")[0]
    assert re.findall(r"`(\w+)`", section) == list(PER_RESPONSE)


def test_the_length_penalty_counts_in_choosing_and_in_orienting(tmp_path):
    """Defect 3: pairs chosen by the penalised score were oriented by the bare reward again.

    The longest response has the best reward and the worst score; the best score has the third
    best reward.
    """
    lengths = [300, 10, 50, 100]
    # Less 0.01 a character the scores are 0, 1.9, 0.5, 1.5.
    rewards = [3.0, 2.0, 1.0, 2.5]
    row = scored("a", rewards, [str(i) * length for i, length in enumerate(lengths)])
    (pair,), _ = pairs(tmp_path, [row], "--length_penalty", 0.01)
    assert texts(pair) == ("1" * 10, "0" * 300)
    assert (pair["chosen_reward"], pair["rejected_reward"]) == (2.0, 3.0)
    (pair,), _ = pairs(tmp_path, [row])
    assert texts(pair) == ("0" * 300, "2" * 50)


def test_a_random_pair_is_oriented_by_the_score_with_its_penalty(tmp_path):
    responses = ["a", "b" * 50, "c" * 100, "d" * 150]
    rows = [scored(f"{i}", [1.0, 1.1, 1.2, 1.3], responses) for i in range(60)]
    output, _ = pairs(tmp_path, rows, "--pairing", "random_random", "--length_penalty", 0.01)
    drawn = Counter((chosen[0], rejected[0]) for chosen, rejected in map(texts, output))
    assert set(drawn) == set(itertools.combinations("abcd", 2))
    assert max(drawn.values()) < 25


def test_best_against_a_random_other(tmp_path):
    rows = [scored(f"{i}", [1.0, 3.0, 2.0, 0.0]) for i in range(60)]
    output, _ = pairs(tmp_path, rows, "--pairing", "best_random")
    assert {pair["chosen_reward"] for pair in output} == {3.0}
    rejected = Counter(pair["rejected_reward"] for pair in output)
    assert set(rejected) == {0.0, 1.0, 2.0} and max(rejected.values()) < 40


@pytest.mark.parametrize("pairing", ["best_random", "random_random"])
def test_a_random_choice_comes_from_the_seed_and_the_row_alone(tmp_path, pairing):
    """However the rows are cut into shards, the pairs are the same."""
    rows = [scored(f"{i}", [1.0, 3.0, 2.0, 0.0, 5.0, 4.0, 6.0, 7.0]) for i in range(40)]
    output, _ = pairs(tmp_path, rows, "--pairing", pairing, name="a")
    assert pairs(tmp_path, rows, "--pairing", pairing, name="b")[0] == output
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert pairs(tmp_path, rows[::-1][:7], "--pairing", pairing, name="c")[0] == output[::-1][:7]
    assert pairs(tmp_path, rows, "--pairing", pairing, "--seed", 1, name="d")[0] != output


def test_pairs_without_a_preference_are_dropped_and_counted(tmp_path):
    rows = [
        scored("good", [1.0, 0.0]),
        scored("edge", [0.5, 0.0]),
        scored("narrow", [0.49, 0.0]),
        scored("identical", [1.0, 0.0], ["same", "same"]),
        scored("tie", [1.0, 1.0]),
        scored("cut", [1.0, 0.0], reasons=["stop", "length"]),
        scored("cut twice", [1.0, 0.0], reasons=["length", "length"]),
    ]
    output, printed = pairs(tmp_path, rows, "--min_margin", 0.5)
    assert [pair["id"] for pair in output] == ["good", "edge"]
    counts = "rows in: 7, dropped, margin: 1, dropped, identical: 1, dropped, tie: 1, "
    counts += "dropped, truncated: 2, rows out: 2, "
    assert counts in printed
    output, _ = pairs(tmp_path, rows, "--min_margin", 0.5, "--keep_truncated")
    assert [pair["id"] for pair in output] == ["good", "edge", "cut", "cut twice"]


def test_the_margin_is_one_of_scores(tmp_path):
    """Rewards 1.0 apart, lengths 90 apart: less 0.01 a character the scores are 0.1 apart."""
    row = scored("a", [2.0, 1.0], ["x" * 100, "y" * 10])
    flags = ["--length_penalty", 0.01, "--min_margin"]
    pair = pairs(tmp_path, [row, scored("b", [9.0, 0.0])], *flags, 0.2)[0]
    assert [p["id"] for p in pair] == ["b"]
    pair = pairs(tmp_path, [row, scored("b", [9.0, 0.0])], *flags, 0.09)[0]
    assert [p["id"] for p in pair] == ["a", "b"]


@pytest.mark.parametrize("pairing", ["best_worst", "best_random", "random_random"])
def test_a_truncated_answer_is_in_no_pair(tmp_path, pairing):
    """The truncated ones have the best and the worst reward, so that they would be taken."""
    reasons = ["length", "stop", "stop", "length"]
    rows = [scored(f"{i}", [9.0, 2.0, 1.0, -9.0], reasons=reasons) for i in range(20)]
    output, _ = pairs(tmp_path, rows, "--pairing", pairing)
    assert {(pair["chosen_reward"], pair["rejected_reward"]) for pair in output} == {(2.0, 1.0)}
    assert len(output) == 20


def test_no_pair_left(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a", [1.0, 1.0])])
    flags = ["--rewards_file", file, "--output_file", tmp_path / "out.jsonl"]
    error = refused(tmp_path, "annotation/2_pairs.py", *flags)
    assert error == f"{file}: no pair is left of 1 rows ({{'dropped, tie': 1}})"


# The tiny world

SIZES = {
    "corpus": 4000,
    "instructions": 1500,
    "preferences": 1500,
    "prompts": 300,
    "validation": 50,
    "test": 100,
    "ratings": 400,
    "bench": 20,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A directory for each of three runs: twice seed 0, once seed 1."""
    directory = tmp_path_factory.mktemp("world")
    sizes = []
    for size, count in SIZES.items():
        sizes += [f"--{size}", count]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        ran("recipes/tiny/1_data.py", "--output_dir", directory / name, "--seed", seed, *sizes)
    return directory


def question_and_answer(text):
    """Of a text of the corpus."""
    return text.removeprefix("Question: ").split("\nAnswer:\n")


def test_the_worlds_sets_share_no_question(world):
    a = world / "a"
    names = ("instructions", "preferences", "prompts", "evaluation", "bench")
    sets = {name: read_jsonl(a / f"{name}.jsonl") for name in names}
    assert Counter(row["split"] for row in sets["evaluation"]) == {"validation": 50, "test": 100}
    assert (len(sets["instructions"]), len(sets["prompts"])) == (1500, 300)
    questions = {}
    for name, rows in sets.items():
        chats = [row.get("messages", row.get("prompt")) for row in rows]
        questions[name] = {chat[0]["content"] for chat in chats}
        assert len({row["id"] for row in rows}) == len(rows)
    assert [len(questions[name]) for name in sets] == [1500, 1500, 300, 150, 20]
    for first, second in itertools.combinations(questions.values(), 2):
        assert not first & second
    corpus = [question_and_answer(row["text"]) for row in read_jsonl(a / "corpus.jsonl")]
    assert len(corpus) == 4000
    corpus_questions = {question for question, _ in corpus}
    assert not corpus_questions & (questions["evaluation"] | questions["bench"])


def test_the_worlds_data_come_from_the_seed(world):
    names = sorted(path.name for path in (world / "a").iterdir() if path.is_file())
    sets = "bench corpus evaluation instructions preferences prompts ratings".split()
    assert names == [f"{name}.jsonl" for name in sets]
    drawn = [
        "alpaca_eval.json",
        "mt_bench_questions.jsonl",
        "arena_hard_baseline.jsonl",
        "lm_eval/questions.jsonl",
    ]
    for name in [*names, *(f"benchmarks/{name}" for name in drawn)]:
        a, b, c = ((world / run / name).read_bytes() for run in "abc")
        assert a == b != c, name


def test_the_worlds_data_pass_the_entrances(world, tmp_path):
    """No row of the world is dropped on the way into fine-tuning and into a round."""
    converted, _ = instructions(tmp_path, world / "a" / "instructions.jsonl")
    assert len(converted) == 1500
    excluded = [world / "a" / "evaluation.jsonl"]
    drawn, printed = prompts(tmp_path, world / "a" / "prompts.jsonl", size=250, exclude=excluded)
    assert {"answer", "source"} <= set(drawn[0])
    assert "rows in: 300, dropped: 0, left: 300, rows out: 250, " in printed


def right_answer(question):
    """Of questions that add or subtract, computed without the world's own code; else None."""
    numbers = [int(number) for number in re.findall(r"\d+", question)]
    if re.search("plus|together|finds", question):
        return sum(numbers)
    if re.search("minus|Take|loses", question):
        return abs(numbers[0] - numbers[1])
    return None


def said(answer):
    """The last number of the answer's first sentence with a number."""
    sentence = next(part for part in answer.split(". ") if re.search(r"\d", part))
    return int(re.findall(r"\d+", sentence)[-1])


@pytest.mark.parametrize(
    "name, documented",
    [
        ("corpus", r"plain questions and answers, (\d+)% of them wrong"),
        ("instructions", r"(\d+)% wr"),
    ],
)
def test_as_many_answers_are_wrong_as_the_docstring_says(world, name, documented):
    wanted = int(re.search(documented, (ROOT / "recipes/tiny/1_data.py").read_text())[1]) / 100
    wrong = []
    for row in read_jsonl(world / "a" / f"{name}.jsonl"):
        if name == "corpus":
            question, answer = question_and_answer(row["text"])
        else:
            question, answer = (message["content"] for message in row["messages"])
        if right_answer(question) is not None:
            wrong.append(said(answer) != right_answer(question))
    assert len(wrong) > 200
    assert abs(sum(wrong) / len(wrong) - wanted) < 3 * math.sqrt(wanted * (1 - wanted) / len(wrong))


def test_the_answers_of_the_pool_are_right(world):
    rows = read_jsonl(world / "a" / "prompts.jsonl") + read_jsonl(world / "a" / "evaluation.jsonl")
    compared = 0
    for row in rows:
        answer = right_answer(row["prompt"][0]["content"])
        if answer is not None:
            assert str(answer) == row["answer"]
            compared += 1
    assert compared > 40


RIGHT = "Since adding 3 to 4 gives 7, the answer is 7."
# Responses and their rewards by the docstring of true_reward.py, for the answer 7.
BY_HAND = [
    ("7.", 2.0),
    (" 7\n", 2.0),
    ("8.", 0.0),
    ("", 0.0),
    ("I think 7.", 0.0),
    ("The answer is 7.", 2.5),
    ("The answer is 8.", 0.5),
    (RIGHT, 3.0),
    ("Since adding 3 to 4 gives 8, the answer is 8.", 1.0),
    ("The answer is 8. No, the answer is 7.", 2.5),
    ("The answer is 7. Or 8?", 2.5),
    ("The answer is 7 or 8.", 0.5),
    (RIGHT + " " + "x" * (60 - len(RIGHT) - 1), 3.0),
    (RIGHT + " " + "x" * (90 - len(RIGHT) - 1), 2.5),
    ("x" * 240, -3.0),
    ("It is 7.", 2.0),
]


def test_the_true_reward_is_what_its_docstring_says(tmp_path):
    n = len(BY_HAND)
    row = scored("a", [0.0] * n, [text for text, _ in BY_HAND], answer="7")
    of_other_case = scored("b", [0.0] * n, ["The answer is MONDAY."] * n, answer="Monday")
    file = write_jsonl(tmp_path / "in.jsonl", [row, of_other_case])
    flags = ["--rewards_file", file, "--output_file", tmp_path / "out.jsonl"]
    ran("recipes/tiny/3_true_reward.py", *flags)
    first, second = read_jsonl(tmp_path / "out.jsonl")
    correct = (0, 1, 5, 7, 9, 10, 12, 13, 15)
    assert first.pop("true_rewards") == pytest.approx([reward for _, reward in BY_HAND])
    assert first.pop("correct") == [float(i in correct) for i in range(n)]
    assert set(second["true_rewards"]) == {2.5}
    # Everything else is as it was.
    assert first == row


def test_the_bench_is_in_the_order_of_the_true_reward(world):
    """In all four sections; in the one on length the rater's taste goes against it."""
    true_reward = TRUE_REWARD["true_reward"]
    probability_preferred = TRUE_REWARD["probability_preferred"]
    rows = read_jsonl(world / "a" / "bench.jsonl")
    sections = Counter(row["section"] for row in rows)
    assert sections == dict.fromkeys(["Correct", "Manner", "Length", "Hard"], 20)
    against_the_taste = 0
    for row in rows:
        better, worse = texts(row)
        answer = row["answer"]
        assert true_reward(better, answer) > true_reward(worse, answer)
        if row["section"] == "Length":
            assert worse.startswith(better)
            against_the_taste += probability_preferred(better, worse, answer) < 0.5
    assert against_the_taste > 10


def test_ratings_are_the_parts_of_the_true_reward(world):
    """And verbosity counts the characters; about one rating in five is missing."""
    answer = {}
    for row in read_jsonl(world / "a" / "preferences.jsonl"):
        answer[row["prompt"][0]["content"]] = row["answer"]
    rows = read_jsonl(world / "a" / "ratings.jsonl")
    missing = 0
    for row in rows:
        question, text = (turn["content"] for turn in row["messages"])
        by_hand = TRUE_REWARD["parts"](text, answer[question]) | {"verbosity": len(text) / 60}
        assert row["ratings"].keys() == by_hand.keys()
        missing += sum(value is None for value in row["ratings"].values())
        assert all(value in (None, by_hand[name]) for name, value in row["ratings"].items())
    assert len(rows) == 400 and abs(missing / 1600 - 0.2) < 0.05


def test_preferences_follow_the_raters_probability(world):
    """Bradley-Terry: in every range of the probability as many pairs go that way as it says.

    The tolerance is four standard deviations.
    """

    def utility(text, answer):
        taste = TRUE_REWARD["TASTE_FOR_LENGTH"] * len(text) / 60
        return TRUE_REWARD["true_reward"](text, answer) + taste

    groups = {}
    for row in read_jsonl(world / "a" / "preferences.jsonl"):
        chosen, rejected = texts(row)
        if chosen == rejected:
            continue
        first, second = sorted((chosen, rejected))
        difference = utility(second, row["answer"]) - utility(first, row["answer"])
        p = 1 / (1 + math.exp(difference / TRUE_REWARD["NOISE"]))
        groups.setdefault(min(int(p * 5), 4), []).append((chosen == first, p))
    assert sorted(groups) == [0, 1, 2, 3, 4]
    for pairs in groups.values():
        surplus = sum(outcome - p for outcome, p in pairs)
        assert len(pairs) > 30
        assert abs(surplus) < 4 * math.sqrt(sum(p * (1 - p) for _, p in pairs))


def test_a_rater_is_noisy_and_likes_length():
    """By hand, from the docstring: a right answer is preferred, and so are more words."""
    preferred = TRUE_REWARD["probability_preferred"]
    taste = TRUE_REWARD["TASTE_FOR_LENGTH"]
    noise = TRUE_REWARD["NOISE"]
    assert preferred("7.", "8.", "7") == pytest.approx(1 / (1 + math.exp(-2 / noise)))
    assert preferred("8.", "7.", "7") == pytest.approx(1 / (1 + math.exp(2 / noise)))
    assert preferred("7.", "7.", "7") == 0.5
    text = "The answer is 7."
    # The longer text has 24 characters more.
    longer = preferred(text + " Good." * 4, text, "7")
    assert longer == pytest.approx(1 / (1 + math.exp(-taste * 24 / 60 / noise)))
    assert longer > 0.5


def test_rows_are_json_that_any_reader_reads(world):
    """One object a line, no byte order mark, each ended by a line feed."""
    data = (world / "a" / "prompts.jsonl").read_bytes()
    assert data.endswith(b"}\n")
    assert all(isinstance(json.loads(line), dict) for line in data[:-1].split(b"\n"))


# Verifier


def verified(tmp_path, file, *flags, name="rewards.jsonl"):
    out = tmp_path / name
    files = ["--responses_file", file, "--output_file", out]
    done = ran("annotation/1d_verifier.py", *files, *flags)
    return read_jsonl(out), done.stdout


def run_verifier(tmp_path, file, *flags):
    """For a command that is refused."""
    files = ["--responses_file", file, "--output_file", tmp_path / "out.jsonl"]
    return run("annotation/1d_verifier.py", *files, *flags)


def test_the_verifier_compares_as_mathematics(tmp_path):
    texts = ["Thus \\boxed{0.5}.", "#### 0.25", "$\\frac{2}{4}$", "half", "", "First 3, then 1/2"]
    row = scored("a", [9.0] * len(texts), texts, answer="\\frac{1}{2}", topic="fractions")
    rows, printed = verified(tmp_path, write_jsonl(tmp_path / "in.jsonl", [row]))
    assert rows == [row | {"rewards": [1.0, 0.0, 1.0, 0.0, 0.0, 1.0], "annotator": "verifier"}]
    assert "rows in: 1, finished before: 0, rows out: 1, " in printed


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("2\\sqrt{3}", "2"),
        ("3x", "3"),
        ("x+1", "x-1"),
        ("\\pi", "3"),
        ("(-2,1)", "(2,1)"),
        ("(3,\\frac{\\pi}{2})", "(3,\\pi)"),
        ("\\text{Evelyn}", "\\text{Anna}"),
        ("1,000", "1"),
        ("$72", "27"),
        ("10\\%", "20\\%"),
    ],
)
def test_the_verifier_reads_an_answer_as_the_sets_of_problems_write_it(tmp_path, answer, wrong):
    """Without the dollar signs of LaTeX, which math-verify wants to see."""
    texts = [f"So it is \\boxed{{{text}}}." for text in (answer, wrong)]
    row = scored("a", [9.0] * 2, texts, answer=answer)
    rows, _ = verified(tmp_path, write_jsonl(tmp_path / "in.jsonl", [row]))
    assert rows[0]["rewards"] == [1.0, 0.0]


OPTION_B = [
    "B",
    "(B)",
    "B) 12",
    "**B**",
    "B. Paris",
    "(b)",
    "Option B is correct.",
    "So I'd go with B.",
    "\\boxed{B}",
    "The answer is B.",
    "The answer is (B) because A and C are wrong.",
    "the answer is b.",
    "Answer: B",
    "**Answer:** B",
    "The correct option is (B) 12.",
    "Thus $\\boxed{\\text{(B)}}$.",
    "The answer is A. No, the answer is B.",
    "A) 10\nB) 12\nC) 14\n\nThe answer is B.",
    "(B) because A and C are wrong.",
    "I think B.",
    "<answer>B</answer>",
    "A is too small.\nC is too large.\nSo B",
    "<think>\\boxed{A}</think>B",
    "Is it A?</think>\n\nThe answer is B.",
]
NO_OPTION = [
    "",
    "A good answer is 12.",
    "I think so.",
    "Answer: A good start",
    "The answer is a prime number.",
    "It is not A.",
    "The answer is A or B.",
    "B or C",
    "A) 10\nB) 12\nC) 14",
    "So A = 5.",
    "\\boxed{A, B}",
    "An A-level test",
    "12",
    "<think>\\boxed{A}",
    "The answer is A.</think>",
    "A <think> or",
]


def test_the_verifier_reads_the_option_that_a_response_chooses(tmp_path):
    """A response without an option is never right: an article or a pronoun is no option."""
    rows = []
    for answer in ("B", "(B)", "A"):
        rows.append(scored(answer, [9.0] * len(OPTION_B), OPTION_B, answer=answer))
    for answer in "ABCI":
        rows.append(scored(f"none, {answer}", [9.0] * len(NO_OPTION), NO_OPTION, answer=answer))
    output, _ = verified(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows), "--n", 0)
    by_hand = [1.0, 1.0, 0.0, *[0.0] * 4]
    for row, expected in zip(output, by_hand, strict=True):
        rewards = dict(zip(row["responses"], row["rewards"], strict=True))
        wrong = [text for text, reward in rewards.items() if reward != expected]
        assert not wrong, row["answer"]


def test_an_answer_in_a_thought_is_no_answer(tmp_path):
    """Nor is one in a truncated thought.

    A truncated thought without an opening mark is recognised where another response of the file
    closes one.
    """
    texts = [
        "<think>\nMaybe \\boxed{3}? No.\n</think>\n\nThe answer is 4.",
        "<think>4</think>\\boxed{5}",
        "<think>\nlet me try \\boxed{4}",
        "4",
        "[THINK]4[/THINK]",
        "let me try \\boxed{4}",
    ]
    reasons = ["stop", "stop", "length", "stop", "stop", "length"]
    row = scored("a", [9.0] * 6, texts, reasons, answer="4")
    rows, printed = verified(tmp_path, write_jsonl(tmp_path / "in.jsonl", [row]))
    assert rows[0]["rewards"] == [1, 0, 0, 1, 0, 1]
    assert "without an answer after their thoughts: 2, " in printed
    unmarked = scored("b", [9.0] * 6, ["Maybe 5.</think>4", *"44444"], answer="4")
    file = write_jsonl(tmp_path / "in.jsonl", [row, unmarked])
    for number, shard in enumerate((["--num_shards", 2, "--shard", 0], []), 1):
        rows, printed = verified(tmp_path, file, *shard, name=f"{number}.jsonl")
        assert rows[0]["rewards"] == [1, 0, 0, 1, 0, 0]
        assert "after their thoughts: 3, " in printed
    flags = ["--method", "exact", "--pattern", "(\\d)"]
    rows, _ = verified(tmp_path, file, *flags, name="exact.jsonl")
    assert rows[0]["rewards"] == [1, 0, 0, 1, 0, 0]


def test_the_verifier_reads_the_latex_that_a_pattern_finds(tmp_path):
    texts = ["RESULT \\sqrt{12}", "RESULT 2\\sqrt{2}", "RESULT $\\sqrt{12}$", "RESULT 2\\sqrt{3}"]
    row = scored("a", [9.0] * 4, texts, answer="2\\sqrt{3}")
    file = write_jsonl(tmp_path / "in.jsonl", [row])
    rows, _ = verified(tmp_path, file, "--pattern", "RESULT (.*)")
    assert rows[0]["rewards"] == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("\\frac43", "\\frac34"),
        ("(-2,1)", "(2,1)"),
        ("\\text{Evelyn}", "Anna"),
        ("Evelyn", "Anna"),
        ("-1", "1"),
        ("70,000", "7,000"),
        ("72 dollars", "27 dollars"),
        ("11,\\! 111", "1,\\! 111"),
        ("yes", "no"),
        ("x+1", "x-1"),
    ],
)
def test_the_verifier_reads_what_the_answer_is_said_to_be(tmp_path, answer, wrong):
    forms = [
        "The answer is {}.",
        "**Answer:** {}\n",
        "The answer is ${}$.",
        "So the answer is {}, because 2 is not.",
        "It is \\boxed{{{}}}.",
    ]
    texts = [form.format(text) for text in (answer, wrong) for form in forms]
    row = scored("a", [9.0] * len(texts), texts, answer=answer)
    rows, _ = verified(tmp_path, write_jsonl(tmp_path / "in.jsonl", [row]))
    assert rows[0]["rewards"] == [1.0] * len(forms) + [0.0] * len(forms)


def test_an_answer_that_is_no_mathematics_is_refused(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a", [0.0], ["7"], answer="$")])
    done = run_verifier(tmp_path, file)
    assert done.returncode == 1
    assert not (tmp_path / "out.jsonl").exists()
    error = done.stderr.splitlines()[-1]
    assert error == f"{file}:1: answer: '$' is not mathematics"


def test_the_verifier_sees_what_the_true_reward_calls_correct(tmp_path, world):
    """With the pattern of the tiny recipe, on right and wrong answers in every style.

    Two shards give the same rewards as one.
    """
    pattern = re.search(r"VERIFIER_PATTERN='(.*)'", (ROOT / "recipes/tiny.sh").read_text())[1]
    responses = []
    for pair in read_jsonl(world / "a" / "preferences.jsonl")[:400]:
        responses.append(scored(pair["id"], [0.0] * 2, list(texts(pair)), answer=pair["answer"]))
    file = write_jsonl(tmp_path / "in.jsonl", responses)
    flags = ["--method", "exact", "--pattern", pattern]
    rows, _ = verified(tmp_path, file, *flags)
    for row in rows:
        parts = [TRUE_REWARD["parts"](text, row["answer"])["correct"] for text in row["responses"]]
        assert row["rewards"] == parts, row
    assert {reward for row in rows for reward in row["rewards"]} == {0.0, 1.0}
    assert len(rows) == 400
    for i in (0, 1):
        shard = ["--num_shards", 2, "--shard", i]
        assert verified(tmp_path, file, *flags, *shard, name=f"{i}.jsonl")[0] == rows[i::2]


WITHOUT_ONE_GROUP = [["--method", "exact"], ["--pattern", "no group"], ["--pattern", "(open"]]


@pytest.mark.parametrize("flags", WITHOUT_ONE_GROUP, ids=str)
def test_the_verifier_wants_one_group(tmp_path, flags):
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a", [0.0], ["7"], answer="7")])
    done = run_verifier(tmp_path, file, *flags)
    assert done.returncode == 2 and "--pattern: " in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("answer", [None, "", 7])
def test_the_verifier_needs_an_answer(tmp_path, answer):
    good = scored("a", [0.0], ["7"], answer="7")
    bad = scored("b", [0.0], ["7"])
    reason = "missing"
    if answer is not None:
        bad["answer"] = answer
        reason = "not a non-empty text"
    file = write_jsonl(tmp_path / "in.jsonl", [good, bad])
    done = run_verifier(tmp_path, file)
    assert (done.returncode, done.stderr) == (1, f"{file}:2: answer: {reason}\n")
