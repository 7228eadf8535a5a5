"""The scripts that need no model: conversions, draws, pairs, the tiny world's data, against what is known by hand."""

import itertools
import json
import math
import re
import runpy
from collections import Counter

import pytest

from commands import ROOT, ran, read_jsonl, run, write_jsonl

DATA = ROOT.parent / "shared" / "data"
TRUE_REWARD = runpy.run_path(str(ROOT / "recipes/tiny/true_reward.py"))


def turn(role, content):
    return {"role": role, "content": content}


def refused(tmp_path, script, *flags):
    """The one line in which a script refuses its input, having left nothing behind."""
    before = sorted(tmp_path.iterdir())
    done = run(script, *flags)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert sorted(tmp_path.iterdir()) == before
    return done.stderr.strip()


# Instructions


def instructions(tmp_path, *files, name="out.jsonl"):
    done = ran("sft/1_instructions.py", "--datasets", *files, "--output_file", tmp_path / name)
    return read_jsonl(tmp_path / name), done.stdout


Q, A = turn("user", "q"), turn("assistant", "a")
INSTRUCTIONS = {
    "messages": (
        {"messages": [turn("system", "s"), Q, A, Q, A]},
        [turn("system", "s"), Q, A, Q, A],
    ),
    "ShareGPT": (
        {
            "conversations": [
                {"from": f, "value": v} for f, v in (("system", "s"), ("human", "q"), ("gpt", "a"))
            ]
        },
        [turn("system", "s"), Q, A],
    ),
    "Alpaca": ({"instruction": "q", "output": "a"}, [Q, A]),
    "Alpaca with input": (
        {"instruction": "q", "input": "i", "output": "a"},
        [turn("user", "q\n\ni"), A],
    ),
    "Alpaca with empty input": ({"instruction": "q", "input": "", "output": "a"}, [Q, A]),
    "answers before the first question": (
        {
            "conversations": [
                {"from": f, "value": f[0]} for f in ("gpt", "human", "gpt", "human", "gpt", "human")
            ]
        },
        [turn("user", "h"), turn("assistant", "g")] * 2,
    ),
    "Magicoder, GPTeacher": (
        {"instruction": "q", "response": "a", "input": "i"},
        [turn("user", "q\n\ni"), A],
    ),
    "OrcaMath": ({"question": "q", "answer": "a"}, [Q, A]),
    "TRL texts": ({"prompt": "q", "completion": "a"}, [Q, A]),
    "TRL messages": (
        {"prompt": [turn("system", "s"), Q], "completion": [A]},
        [turn("system", "s"), Q, A],
    ),
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_every_instruction_format_becomes_messages(tmp_path, name):
    """And keys that the script does not know pass through."""
    row, messages = INSTRUCTIONS[name]
    file = write_jsonl(tmp_path / "in.jsonl", [row | {"score": 1.5, "tags": ["x"]}])
    (converted,), _ = instructions(tmp_path, file)
    assert converted == {
        "id": "in-1",
        "source": str(file),
        "messages": messages,
        "score": 1.5,
        "tags": ["x"],
    }


def test_a_row_keeps_its_own_id_and_source(tmp_path):
    row = {"id": "own", "source": "there", "messages": [Q, A]}
    assert instructions(tmp_path, write_jsonl(tmp_path / "in.jsonl", [row]))[0] == [row]


def test_instructions_are_cleaned_and_counted(tmp_path):
    good = {"instruction": "q", "output": "a"}
    file = write_jsonl(
        tmp_path / "in.jsonl",
        [
            *[
                good,
                good,
                {"prompt": "q", "completion": "a"},
            ],  # the third says the same in another format
            *[{"instruction": "q", "output": " "}, {"instruction": "", "output": "a"}],
            *[{"messages": [Q]}, {"messages": [A, Q]}, {"messages": [Q, Q, A]}, {"messages": []}],
            {"messages": [Q, {"role": "assistant", "content": None}]},
            {"instruction": "q2", "output": "a"},
        ],
    )
    converted, told = instructions(tmp_path, file)
    assert [row["id"] for row in converted] == ["in-1", "in-11"]
    why = "roles out of order: 3, duplicate: 2, an empty turn: 2, not one or more messages {role, content}: 2"
    assert (
        f"| {file} | 11 | 2 | 9 | {why} |" in told
        and "rows in: 11, dropped: 9, rows out: 2, " in told
    )
    assert (tmp_path / "out.md").read_text() in told


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "solution": "a"},
        {"instruction": 1, "output": "a"},
        {"conversations": [{"role": "gpt"}]},
    ],
)
def test_an_unknown_instruction_format_is_named(tmp_path, row):
    file = write_jsonl(tmp_path / "in.jsonl", [{"messages": [Q, A]}, row])
    flags = ["--datasets", file, "--output_file", tmp_path / "out.jsonl"]
    assert refused(tmp_path, "sft/1_instructions.py", *flags).startswith(
        f"{file}:2: messages: none of messages, "
    )


def test_no_instruction_left(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [{"messages": [Q]}])
    flags = ["--datasets", file, "--output_file", tmp_path / "out.jsonl"]
    assert "no row is left" in refused(tmp_path, "sft/1_instructions.py", *flags)


def test_instructions_of_two_files_of_one_name_have_different_ids(tmp_path):
    """Fine-tuning refuses an id that stands twice, so the entrance must not make one."""
    for name in "ab":
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "train.jsonl", [{"instruction": name, "output": "a"}])
    converted, _ = instructions(
        tmp_path, tmp_path / "a" / "train.jsonl", tmp_path / "b" / "train.jsonl"
    )
    assert len({row["id"] for row in converted}) == 2


def test_an_id_that_stands_twice_gets_a_number(tmp_path):
    rows = [{"id": "own", "messages": [turn("user", text), A]} for text in ("q1", "q2")]
    converted, _ = instructions(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows))
    assert [row["id"] for row in converted] == ["own", "own-2"]


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_other_files_than_json_lines(tmp_path, suffix):
    import pandas

    table, file = pandas.DataFrame([{"instruction": "q", "output": "a"}]), tmp_path / f"in.{suffix}"
    table.to_parquet(file) if suffix == "parquet" else table.to_json(file, orient="records")
    assert instructions(tmp_path, file)[0] == [
        {"id": "in-1", "source": str(file), "messages": [Q, A]}
    ]
    (drawn,) = prompts(tmp_path, file, size=0)[0]
    assert drawn["prompt"] == [Q]
    file.write_text("{")
    flags = ["--datasets", file, "--output_file", tmp_path / "new.jsonl"]
    told = run("sft/1_instructions.py", *flags).stderr.splitlines()[-1]
    assert told.startswith(f"{file}: cannot be read (")


def test_half_a_character_is_named(tmp_path):
    """Public sets hold texts that were cut inside a pair of surrogates; UTF-8 cannot write one half."""
    file = write_jsonl(tmp_path / "in.jsonl", [r'{"instruction": "q \ud83d", "output": "a"}'])
    told = refused(
        tmp_path,
        "sft/1_instructions.py",
        "--datasets",
        file,
        "--output_file",
        tmp_path / "out.jsonl",
    )
    assert told == f"{file}:1: instruction: half a character (a lone surrogate)"


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [{"instruction": "q", "output": "a"}])
    told = refused(
        tmp_path, "sft/1_instructions.py", "--datasets", file, "--output_file", file / "out.jsonl"
    )
    assert told.startswith(f"{file}/out.jsonl: ")


# Preferences


def preferences(tmp_path, file, *flags, name="out"):
    out, held_out = tmp_path / f"{name}.jsonl", tmp_path / f"{name}_held_out.jsonl"
    done = ran(
        "reward_modeling/1_preferences.py",
        *["--datasets", file, "--output_file", out, "--held_out_file", held_out, *flags],
    )
    return read_jsonl(out), read_jsonl(held_out), done.stdout


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
    file = write_jsonl(tmp_path / "in.jsonl", [row | {"margin": 0.5, "tags": ["x"]}, other])
    training, held_out, _ = preferences(tmp_path, file, "--held_out", 0.5)
    converted = next(row for row in training + held_out if row["id"] == "in-1")
    messages = {"prompt": prompt, "chosen": [A], "rejected": [B]}
    assert converted == {
        "id": "in-1",
        "source": str(file),
        "margin": 0.5,
        "tags": ["x"],
        **messages,
    }


def test_no_held_out_prompt_is_trained_on(tmp_path):
    """Defect 13, in its subtle form too: a prompt has several pairs, and all of them go to one side."""
    pairs = [{"prompt": f"q{i % 40}", "chosen": f"a{i}", "rejected": "b"} for i in range(120)]
    file = write_jsonl(tmp_path / "in.jsonl", pairs)
    training, held_out, told = preferences(tmp_path, file, "--held_out", 0.25)
    prompts = [{row["prompt"][0]["content"] for row in part} for part in (training, held_out)]
    assert (len(training), len(held_out)) == (90, 30) and [len(part) for part in prompts] == [
        30,
        10,
    ]
    assert not prompts[0] & prompts[1] and {
        row["chosen"][0]["content"] for row in training + held_out
    } == {f"a{i}" for i in range(120)}
    assert "rows in: 120, held out: 30, rows out: 90," in told
    again, other = (
        preferences(tmp_path, file, "--held_out", 0.25, "--seed", seed, name=str(seed))
        for seed in (0, 1)
    )
    assert (
        again[:2] == (training, held_out) and {str(row["prompt"]) for row in other[1]} != prompts[1]
    )
    assert {row["id"] for row in other[1]} != {row["id"] for row in held_out}


def test_pairs_that_teach_nothing_are_dropped_and_counted(tmp_path):
    row = {"prompt": "q", "chosen": "a", "rejected": "b"}
    bad = [
        {"rejected": "a"},
        {"chosen": " "},
        {"rejected": ""},
        {"prompt": ""},
        {"chosen": [Q], "prompt": [Q]},
    ]
    bad += [{"prompt": [Q, A]}, {"prompt": []}]
    bad += [{"prompt": None, "chosen": [Q, A], "rejected": [turn("user", "another"), B]}]
    file = write_jsonl(
        tmp_path / "in.jsonl", [row, {**row, "prompt": "q2"}, *({**row, **more} for more in bad)]
    )
    training, held_out, told = preferences(tmp_path, file, "--held_out", 0.5)
    assert {training[0]["id"], held_out[0]["id"]} == {"in-1", "in-2"} and len(
        training + held_out
    ) == 2
    counts = {
        "identical answers": 1,
        "empty answer": 2,
        "prompt: an empty turn": 1,
        "chosen: roles out of order": 1,
    }
    counts |= {
        "prompt: roles out of order": 1,
        "prompt: not one or more messages {role, content}": 1,
    }
    counts |= {"different prompts": 1}
    assert all(f"dropped, {name}: {count}, " in told for name, count in counts.items()), told


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "response": "a"},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        {"prompt": "q", "chosen": None, "rejected": "b"},
    ],
)
def test_an_unknown_preference_format_is_named(tmp_path, row):
    file = write_jsonl(
        tmp_path / "in.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}, row]
    )
    out, held_out = tmp_path / "out.jsonl", tmp_path / "held_out.jsonl"
    flags = ["--datasets", file, "--output_file", out, "--held_out_file", held_out]
    assert refused(tmp_path, "reward_modeling/1_preferences.py", *flags).startswith(
        f"{file}:2: chosen: "
    )


def test_nothing_to_hold_out_is_refused(tmp_path):
    """A reward model without held-out rows could not be measured; the accuracy would be taken of nothing."""
    file = write_jsonl(
        tmp_path / "in.jsonl",
        [{"prompt": "q", "chosen": f"a{i}", "rejected": "b"} for i in range(9)],
    )
    out, held_out = tmp_path / "out.jsonl", tmp_path / "held_out.jsonl"
    flags = [
        "--datasets",
        file,
        "--output_file",
        out,
        "--held_out_file",
        held_out,
        "--held_out",
        0.5,
    ]
    assert "held out (" in refused(tmp_path, "reward_modeling/1_preferences.py", *flags)


# Prompts


def prompts(tmp_path, *files, size, exclude=(), seed=0, name="out.jsonl"):
    flags = [
        "--size",
        size,
        "--seed",
        seed,
        "--exclude_files",
        *exclude,
        "--output_file",
        tmp_path / name,
    ]
    done = ran("generation/1_prompts.py", "--datasets", *files, *flags)
    return read_jsonl(tmp_path / name), done.stdout


def test_every_prompt_format_becomes_messages(tmp_path):
    rows = [
        {"prompt": "q1"},
        {"prompt": [turn("system", "s"), turn("user", "q2")], "answer": "7", "tags": ["x"]},
        {"context_messages": [turn("user", "q3"), A, turn("user", "q4")]},
        {"messages": [turn("user", "q5"), A]},
        {"messages": [turn("user", "q6")], "id": "own", "source": "there"},
        {"instruction": "q7"},
        {
            "conversation": [{"input": "q8", "output": "a8"}, {"input": "q9", "output": "a9"}],
            "source": "Capybara",
        },
        {"system_prompt": "s", "question": "q10", "response": "a"},
        {"system_prompt": "", "question": "q11", "answer": "11"},
    ]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    drawn, _ = prompts(tmp_path, file, size=9)
    drawn = {row["id"]: row for row in drawn}
    assert drawn["in-7"]["prompt"] == [
        turn("user", "q8"),
        turn("assistant", "a8"),
        turn("user", "q9"),
    ]
    assert drawn["in-7"]["source"] == "Capybara" and "conversation" not in drawn["in-7"]
    assert drawn["in-8"]["prompt"] == [turn("system", "s"), turn("user", "q10")]
    assert drawn["in-9"] == {
        "id": "in-9",
        "source": str(file),
        "prompt": [turn("user", "q11")],
        "answer": "11",
    }
    assert [drawn[f"in-{i}"]["prompt"] for i in (1, 4, 6)] == [
        [turn("user", f"q{i}")] for i in (1, 5, 7)
    ]
    more = {"prompt": rows[1]["prompt"], "answer": "7", "tags": ["x"]}
    assert drawn["in-2"] == {"id": "in-2", "source": str(file), **more}
    assert drawn["in-3"] == {
        "id": "in-3",
        "source": str(file),
        "prompt": rows[2]["context_messages"],
    }
    assert drawn["own"] == {"id": "own", "source": "there", "prompt": [turn("user", "q6")]}


def test_all_prompts_in_their_order_and_what_public_data_has_is_dropped(tmp_path):
    texts = [{"instruction": f"q{i}"} for i in range(5)]
    bad = [
        {"messages": [Q, A, A]},
        {"instruction": " "},
        {"conversation": [{"input": "", "output": "a"}]},
    ]
    drawn, told = prompts(
        tmp_path, write_jsonl(tmp_path / "in.jsonl", texts[:3] + bad + texts[3:]), size=0
    )
    assert [row["prompt"][0]["content"] for row in drawn] == [f"q{i}" for i in range(5)]
    assert "| 8 | 5 | 3 | an empty turn: 2, roles out of order: 1 |" in told
    assert (tmp_path / "out.md").read_text() in told


@pytest.mark.parametrize(
    "row", [{"answer": "q"}, {"messages": ["q"]}, {"conversation": "q"}, {"instruction": 7}]
)
def test_an_unknown_prompt_format_is_named(tmp_path, row):
    file = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "q"}, row])
    flags = ["--datasets", file, "--size", 1, "--output_file", tmp_path / "out.jsonl"]
    assert refused(tmp_path, "generation/1_prompts.py", *flags).startswith(f"{file}:2: prompt: ")


def test_rounds_repeat_no_prompt(tmp_path):
    """Three rounds of 30 use a pool of 90 up; a fourth is refused in one line."""
    pool = write_jsonl(
        tmp_path / "pool.jsonl", [{"id": f"p{i}", "prompt": f"question {i}"} for i in range(90)]
    )
    drawn, earlier = [], []
    for name in ("1.jsonl", "2.jsonl", "3.jsonl"):
        drawn += prompts(tmp_path, pool, size=30, exclude=earlier, name=name)[0]
        earlier.append(tmp_path / name)
    assert {row["id"] for row in drawn} == {f"p{i}" for i in range(90)} and len(drawn) == 90
    flags = [
        "--datasets",
        pool,
        "--size",
        1,
        "--exclude_files",
        *earlier,
        "--output_file",
        tmp_path / "4.jsonl",
    ]
    told = refused(tmp_path, "generation/1_prompts.py", *flags)
    assert told.startswith(f"{tmp_path}/4.jsonl: 1 prompts asked for, 0 are left of ")


def test_excluded_prompts_are_known_by_their_words(tmp_path):
    """Capitals, spaces and punctuation make no other question; other words, a system turn and an earlier turn do."""
    asked = turn("user", "What is 2 plus 2?")
    variants = ["what is 2 plus 2", "WHAT  is\n2 plus 2 ?!"]
    others = [
        "What is 2 plus 3?",
        "What is 22 plus 2?",
        [asked, A, Q],
        [turn("system", "s"), asked],
        [Q, A, asked],
    ]
    file = write_jsonl(tmp_path / "in.jsonl", [{"prompt": prompt} for prompt in variants + others])
    excluded = write_jsonl(tmp_path / "evaluation.jsonl", [{"id": "e", "prompt": [asked]}])
    drawn, told = prompts(tmp_path, file, size=5, exclude=[excluded])
    assert {row["id"] for row in drawn} == {f"in-{i}" for i in range(3, 8)}
    assert (
        "| 7 | 5 | 2 | in an excluded file: 2 |" in told
        and "dropped: 2, left: 5, rows out: 5," in told
    )


def test_a_prompt_is_drawn_once(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [{"prompt": text} for text in ("q 1", "Q 1!", "q 2")])
    drawn, told = prompts(tmp_path, file, size=2)
    assert {row["id"] for row in drawn} == {
        "in-1",
        "in-3",
    } and "| 3 | 2 | 1 | duplicate: 1 |" in told


def test_two_prompts_of_one_id_get_two(tmp_path):
    file = write_jsonl(
        tmp_path / "in.jsonl", [{"id": "a", "prompt": "q 1"}, {"id": "a", "prompt": "q 2"}]
    )
    assert {row["id"] for row in prompts(tmp_path, file, size=2)[0]} == {"a", "a-2"}
    for bad in ("", True, {"a": 1}):
        file = write_jsonl(tmp_path / "bad.jsonl", [{"id": bad, "prompt": "q"}])
        flags = ["--datasets", file, "--size", 1, "--output_file", tmp_path / "new.jsonl"]
        assert (
            refused(tmp_path, "generation/1_prompts.py", *flags)
            == f"{file}:1: id: not a non-empty text"
        )


def test_a_draw_is_marked_with_splits(tmp_path):
    file = write_jsonl(
        tmp_path / "in.jsonl", [{"prompt": f"q{i}", "split": "old"} for i in range(20)]
    )
    flags = ["--size", 7, "--splits", "validation", "test", "--output_file", tmp_path / "out.jsonl"]
    ran("generation/1_prompts.py", "--datasets", file, *flags)
    splits = [row["split"] for row in read_jsonl(tmp_path / "out.jsonl")]
    assert splits == ["validation"] * 4 + ["test"] * 3


def test_the_same_seed_draws_the_same_prompts(tmp_path):
    pool = write_jsonl(tmp_path / "pool.jsonl", [{"prompt": f"question {i}"} for i in range(100)])
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        prompts(tmp_path, pool, size=20, seed=seed, name=name)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.skipif(not DATA.exists(), reason="no real data here")
def test_real_questions_pass_the_entrances(tmp_path):
    """GSM8K: nothing is lost on the way, its characters beyond ASCII included, and no test question is drawn."""
    for split in ("train", "test"):
        rows = read_jsonl(DATA / "gsm8k" / f"{split}.jsonl")
        write_jsonl(
            tmp_path / split,
            [{"instruction": row["question"], "output": row["answer"]} for row in rows],
        )
    converted, _ = instructions(tmp_path, tmp_path / "train")
    rows = read_jsonl(DATA / "gsm8k" / "train.jsonl")
    assert [[m["content"] for m in row["messages"]] for row in converted] == [
        [r["question"], r["answer"]] for r in rows
    ]
    tested, _ = prompts(tmp_path, tmp_path / "test", size=1300, name="tested.jsonl")
    drawn, told = prompts(
        tmp_path,
        tmp_path / "test",
        tmp_path / "train",
        size=7000,
        exclude=[tmp_path / "tested.jsonl"],
    )
    assert "in an excluded file: 1300" in told
    assert not {row["prompt"][0]["content"] for row in drawn} & {
        row["prompt"][0]["content"] for row in tested
    }


# Pairs


def scored(name, rewards, responses=None, reasons=None, **more):
    responses = responses or [f"{name} answer {i}" for i in range(len(rewards))]
    reasons = reasons or ["stop"] * len(rewards)
    row = {
        "id": name,
        "prompt": [Q],
        "responses": responses,
        "finish_reasons": reasons,
        "rewards": rewards,
    }
    return (
        row | {"temperatures": [1.0] * len(rewards), "response_tokens": [3] * len(rewards)} | more
    )


def pairs(tmp_path, rows, *flags, name="out.jsonl"):
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    done = ran(
        "annotation/2_pairs.py", "--rewards_file", file, "--output_file", tmp_path / name, *flags
    )
    return read_jsonl(tmp_path / name), done.stdout


def texts(pair):
    return pair["chosen"][0]["content"], pair["rejected"][0]["content"]


def test_best_against_worst(tmp_path):
    """Defect 1 as well: rows of four answers need no flag to be paired. What belongs to the responses goes."""
    (pair,), told = pairs(tmp_path, [scored("a", [0.5, 2.0, -1.0, 1.0], answer="7", policy="p")])
    assert pair == {
        **{"id": "a", "prompt": [Q], "answer": "7", "policy": "p"},
        **{
            "chosen": [turn("assistant", "a answer 1")],
            "rejected": [turn("assistant", "a answer 2")],
        },
        **{"chosen_reward": 2.0, "rejected_reward": -1.0},
    }
    assert "rows in: 1, rows out: 1, " in told


def test_lists_that_belong_to_the_prompt_pass_through(tmp_path):
    (pair,), _ = pairs(tmp_path, [scored("a", [0.5, 2.0, -1.0, 1.0], tags=["x"], turns=[[1], [2]])])
    assert (pair.get("tags"), pair.get("turns")) == (
        ["x"],
        [[1], [2]],
    ) and "temperatures" not in pair


def test_the_length_penalty_counts_in_choosing_and_in_orienting(tmp_path):
    """Defect 3: chosen by the penalised score, oriented by the bare reward, the penalty was undone.

    The longest answer has the best reward and the worst score; the best score has the third best reward.
    """
    lengths, rewards = (
        [300, 10, 50, 100],
        [3.0, 2.0, 1.0, 2.5],
    )  # less 0.01 a character: 0, 1.9, 0.5, 1.5
    row = scored("a", rewards, [str(i) * length for i, length in enumerate(lengths)])
    (pair,), _ = pairs(tmp_path, [row], "--length_penalty", 0.01)
    assert texts(pair) == ("1" * 10, "0" * 300)
    assert (pair["chosen_reward"], pair["rejected_reward"]) == (2.0, 3.0)
    (pair,), _ = pairs(tmp_path, [row])
    assert texts(pair) == ("0" * 300, "2" * 50)


def test_a_random_pair_is_oriented_by_the_score_with_its_penalty(tmp_path):
    rows = [
        scored(f"{i}", [1.0, 1.1, 1.2, 1.3], ["a", "b" * 50, "c" * 100, "d" * 150])
        for i in range(60)
    ]
    made, _ = pairs(tmp_path, rows, "--pairing", "random_random", "--length_penalty", 0.01)
    drawn = Counter((chosen[0], rejected[0]) for chosen, rejected in map(texts, made))
    assert set(drawn) == set(itertools.combinations("abcd", 2)) and max(drawn.values()) < 25


def test_best_against_a_random_other(tmp_path):
    rows = [scored(f"{i}", [1.0, 3.0, 2.0, 0.0]) for i in range(60)]
    made, _ = pairs(tmp_path, rows, "--pairing", "best_random")
    assert {pair["chosen_reward"] for pair in made} == {3.0}
    rejected = Counter(pair["rejected_reward"] for pair in made)
    assert set(rejected) == {0.0, 1.0, 2.0} and max(rejected.values()) < 40


@pytest.mark.parametrize("pairing", ["best_random", "random_random"])
def test_a_random_choice_comes_from_the_seed_and_the_row_alone(tmp_path, pairing):
    """However the rows are cut into shards, the pairs are the same."""
    rows = [scored(f"{i}", [1.0, 3.0, 2.0, 0.0, 5.0, 4.0, 6.0, 7.0]) for i in range(40)]
    made, _ = pairs(tmp_path, rows, "--pairing", pairing, name="a")
    assert pairs(tmp_path, rows, "--pairing", pairing, name="b")[0] == made
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert pairs(tmp_path, rows[::-1][:7], "--pairing", pairing, name="c")[0] == made[::-1][:7]
    assert pairs(tmp_path, rows, "--pairing", pairing, "--seed", 1, name="d")[0] != made


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
    made, told = pairs(tmp_path, rows, "--min_margin", 0.5)
    assert [pair["id"] for pair in made] == ["good", "edge"]
    counts = "dropped, margin: 1, dropped, identical: 1, dropped, tie: 1, dropped, truncated: 2, rows out: 2, "
    assert f"rows in: 7, {counts}" in told
    made, _ = pairs(tmp_path, rows, "--min_margin", 0.5, "--keep_truncated")
    assert [pair["id"] for pair in made] == ["good", "edge", "cut", "cut twice"]


def test_the_margin_is_one_of_scores(tmp_path):
    """Rewards 1.0 apart, lengths 90 apart: with the penalty 0.01 a character the scores are 0.1 apart."""
    row = scored("a", [2.0, 1.0], ["x" * 100, "y" * 10])
    flags = ["--length_penalty", 0.01, "--min_margin"]
    pair = pairs(tmp_path, [row, scored("b", [9.0, 0.0])], *flags, 0.2)[0]
    assert [p["id"] for p in pair] == ["b"]
    pair = pairs(tmp_path, [row, scored("b", [9.0, 0.0])], *flags, 0.09)[0]
    assert [p["id"] for p in pair] == ["a", "b"]


@pytest.mark.parametrize("pairing", ["best_worst", "best_random", "random_random"])
def test_a_truncated_answer_is_in_no_pair(tmp_path, pairing):
    """The truncated ones have the best and the worst reward, so that they would be taken."""
    rows = [
        scored(f"{i}", [9.0, 2.0, 1.0, -9.0], reasons=["length", "stop", "stop", "length"])
        for i in range(20)
    ]
    made, _ = pairs(tmp_path, rows, "--pairing", pairing)
    assert {(pair["chosen_reward"], pair["rejected_reward"]) for pair in made} == {
        (2.0, 1.0)
    } and len(made) == 20


def test_no_pair_left(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a", [1.0, 1.0])])
    flags = ["--rewards_file", file, "--output_file", tmp_path / "out.jsonl"]
    told = refused(tmp_path, "annotation/2_pairs.py", *flags)
    assert told == f"{file}: no pair is left of 1 rows ({{'dropped, tie': 1}})"


# The tiny world

SIZES = {
    "corpus": 4000,
    "instructions": 1500,
    "preferences": 1500,
    "prompts": 300,
    "validation": 50,
    "test": 100,
}
SIZES |= {"ratings": 400, "bench": 20}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A directory for each of three runs: twice seed 0, once seed 1."""
    directory = tmp_path_factory.mktemp("world")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        sizes = [word for size, count in SIZES.items() for word in (f"--{size}", count)]
        ran("recipes/tiny/1_data.py", "--output_dir", directory / name, "--seed", seed, *sizes)
    return directory


def test_the_worlds_sets_share_no_question(world):
    a = world / "a"
    names = ("instructions", "preferences", "prompts", "evaluation", "bench")
    sets = {name: read_jsonl(a / f"{name}.jsonl") for name in names}
    assert Counter(row["split"] for row in sets["evaluation"]) == {"validation": 50, "test": 100}
    assert (len(sets["instructions"]), len(sets["prompts"])) == (1500, 300)
    asked = {
        name: {row.get("messages", row.get("prompt"))[0]["content"] for row in sets[name]}
        for name in sets
    }
    assert [len(asked[name]) for name in sets] == [1500, 1500, 300, 150, 20]
    assert not any(asked[a] & asked[b] for a, b in itertools.combinations(asked, 2))
    assert all(len({row["id"] for row in rows}) == len(rows) for rows in sets.values())
    corpus = [
        row["text"].removeprefix("Question: ").split("\nAnswer:\n")
        for row in read_jsonl(a / "corpus.jsonl")
    ]
    assert len(corpus) == 4000 and not {question for question, _ in corpus} & (
        asked["evaluation"] | asked["bench"]
    )


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
    drawn, told = prompts(tmp_path, world / "a" / "prompts.jsonl", size=250, exclude=excluded)
    assert {"answer", "source"} <= set(
        drawn[0]
    ) and "rows in: 300, dropped: 0, left: 300, rows out: 250, " in told


def right_answer(question):
    """Of questions that add or subtract, found without the world's own code; of the others None."""
    numbers = [int(number) for number in re.findall(r"\d+", question)]
    if re.search("plus|together|finds", question):
        return sum(numbers)
    return abs(numbers[0] - numbers[1]) if re.search("minus|Take|loses", question) else None


def said(answer):
    """The number that stands last in the sentence of the answer."""
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
    rows, wrong = read_jsonl(world / "a" / f"{name}.jsonl"), []
    for row in rows:
        if name == "corpus":
            question, answer = row["text"].removeprefix("Question: ").split("\nAnswer:\n")
        else:
            question, answer = (message["content"] for message in row["messages"])
        if right_answer(question) is not None:
            wrong.append(said(answer) != right_answer(question))
    assert len(wrong) > 200
    assert abs(sum(wrong) / len(wrong) - wanted) < 3 * math.sqrt(wanted * (1 - wanted) / len(wrong))


def test_the_answers_of_the_pool_are_right(world):
    rows = read_jsonl(world / "a" / "prompts.jsonl") + read_jsonl(world / "a" / "evaluation.jsonl")
    known = [(right_answer(row["prompt"][0]["content"]), row["answer"]) for row in rows]
    known = [(str(mine), its) for mine, its in known if mine is not None]
    assert len(known) > 40 and all(mine == its for mine, its in known)


RIGHT = "Since adding 3 to 4 gives 7, the answer is 7."
BY_HAND = [  # by the docstring of true_reward.py, for the answer 7
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
    row = scored("a", [0.0] * len(BY_HAND), [text for text, _ in BY_HAND], answer="7")
    small = scored(
        "b", [0.0] * len(BY_HAND), ["The answer is MONDAY."] * len(BY_HAND), answer="Monday"
    )
    file = write_jsonl(tmp_path / "in.jsonl", [row, small])
    ran(
        "recipes/tiny/3_true_reward.py",
        "--rewards_file",
        file,
        "--output_file",
        tmp_path / "out.jsonl",
    )
    first, second = read_jsonl(tmp_path / "out.jsonl")
    assert first["true_rewards"] == pytest.approx([reward for _, reward in BY_HAND])
    assert first["correct"] == [
        float(i in (0, 1, 5, 7, 9, 10, 12, 13, 15)) for i in range(len(BY_HAND))
    ]
    assert set(second["true_rewards"]) == {2.5}
    assert {
        key: value for key, value in first.items() if key not in ("true_rewards", "correct")
    } == row


def test_the_bench_is_in_the_order_of_the_true_reward(world):
    """In sections; in the one on length the rater's taste goes against it."""
    against, rows = [], read_jsonl(world / "a" / "bench.jsonl")
    assert Counter(row["section"] for row in rows) == dict.fromkeys(
        ["Correct", "Manner", "Length", "Hard"], 20
    )
    for row in rows:
        better, worse = texts(row)
        assert TRUE_REWARD["true_reward"](better, row["answer"]) > TRUE_REWARD["true_reward"](
            worse, row["answer"]
        )
        if row["section"] == "Length":
            assert worse.startswith(better)
            against.append(TRUE_REWARD["probability_preferred"](better, worse, row["answer"]) < 0.5)
    assert sum(against) > 10


def test_ratings_are_the_parts_of_the_true_reward(world):
    """And the characters; about one in five is missing."""
    answer = {
        row["prompt"][0]["content"]: row["answer"]
        for row in read_jsonl(world / "a" / "preferences.jsonl")
    }
    rows, missing = read_jsonl(world / "a" / "ratings.jsonl"), 0
    for row in rows:
        question, text = (turn["content"] for turn in row["messages"])
        by_hand = TRUE_REWARD["parts"](text, answer[question]) | {"verbosity": len(text) / 60}
        assert row["ratings"].keys() == by_hand.keys()
        missing += sum(value is None for value in row["ratings"].values())
        assert all(value in (None, by_hand[name]) for name, value in row["ratings"].items())
    assert len(rows) == 400 and abs(missing / 1600 - 0.2) < 0.05


def test_preferences_follow_the_raters_probability(world):
    """Bradley-Terry: in every range of the probability as many pairs go that way as it says, four sigma wide."""
    groups = {}
    for row in read_jsonl(world / "a" / "preferences.jsonl"):
        chosen, rejected = texts(row)
        if chosen == rejected:
            continue
        first, second = sorted((chosen, rejected))
        felt = [
            TRUE_REWARD["true_reward"](text, row["answer"])
            + TRUE_REWARD["TASTE_FOR_LENGTH"] * len(text) / 60
            for text in (first, second)
        ]
        p = 1 / (1 + math.exp((felt[1] - felt[0]) / TRUE_REWARD["NOISE"]))
        groups.setdefault(min(int(p * 5), 4), []).append((chosen == first, p))
    assert sorted(groups) == [0, 1, 2, 3, 4]
    for pairs in groups.values():
        surplus = sum(outcome - p for outcome, p in pairs)
        assert len(pairs) > 30 and abs(surplus) < 4 * math.sqrt(sum(p * (1 - p) for _, p in pairs))


def test_a_rater_is_noisy_and_likes_length():
    """By hand, with what the docstring calls felt: a right answer is preferred, more words for the same are too."""
    preferred, taste, noise = (
        TRUE_REWARD[key] for key in ("probability_preferred", "TASTE_FOR_LENGTH", "NOISE")
    )
    assert preferred("7.", "8.", "7") == pytest.approx(1 / (1 + math.exp(-2 / noise)))
    assert preferred("8.", "7.", "7") == pytest.approx(1 / (1 + math.exp(2 / noise)))
    assert preferred("7.", "7.", "7") == 0.5
    longer = preferred(
        "The answer is 7." + " Good." * 4, "The answer is 7.", "7"
    )  # 24 characters more
    assert longer == pytest.approx(1 / (1 + math.exp(-taste * 24 / 60 / noise))) and longer > 0.5


def test_rows_are_json_that_any_reader_reads(world):
    """One object a line, no byte order mark, each ended by a line feed."""
    data = (world / "a" / "prompts.jsonl").read_bytes()
    assert data.endswith(b"}\n") and all(
        isinstance(json.loads(line), dict) for line in data[:-1].split(b"\n")
    )


# Verifier


def verified(tmp_path, file, *flags, name="rewards.jsonl"):
    done = ran(
        "annotation/1d_verifier.py",
        "--responses_file",
        file,
        "--output_file",
        tmp_path / name,
        *flags,
    )
    return read_jsonl(tmp_path / name), done.stdout


def test_the_verifier_compares_as_mathematics(tmp_path):
    texts = ["Thus \\boxed{0.5}.", "#### 0.25", "$\\frac{2}{4}$", "half", "", "First 3, then 1/2"]
    row = scored("a", [9.0] * len(texts), texts, answer="\\frac{1}{2}", topic="fractions")
    made, told = verified(tmp_path, write_jsonl(tmp_path / "in.jsonl", [row]))
    assert made == [row | {"rewards": [1.0, 0.0, 1.0, 0.0, 0.0, 1.0], "annotator": "verifier"}]
    assert "rows in: 1, finished before: 0, rows out: 1, " in told


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
    """Without the marks of LaTeX's mathematics, which math-verify wants to see."""
    row = scored(
        "a", [9.0] * 2, [f"So it is \\boxed{{{text}}}." for text in (answer, wrong)], answer=answer
    )
    made, _ = verified(tmp_path, write_jsonl(tmp_path / "in.jsonl", [row]))
    assert made[0]["rewards"] == [1.0, 0.0]


OPTION_B = [
    "B", "(B)", "B) 12", "**B**", "B. Paris", "(b)", "Option B is correct.", "So I'd go with B.", "\\boxed{B}",
    "The answer is B.", "The answer is (B) because A and C are wrong.", "the answer is b.", "Answer: B",
    "**Answer:** B",
    "The correct option is (B) 12.", "Thus $\\boxed{\\text{(B)}}$.", "The answer is A. No, the answer is B.",
    "A) 10\nB) 12\nC) 14\n\nThe answer is B.", "(B) because A and C are wrong.", "I think B.", "<answer>B</answer>",
    "A is too small.\nC is too large.\nSo B", "<think>\\boxed{A}</think>B", "Is it A?</think>\n\nThe answer is B.",
]  # fmt: skip
NO_OPTION = [
    "", "A good answer is 12.", "I think so.", "Answer: A good start", "The answer is a prime number.", "It is not A.",
    "The answer is A or B.", "B or C", "A) 10\nB) 12\nC) 14", "So A = 5.", "\\boxed{A, B}", "An A-level test", "12",
    "<think>\\boxed{A}", "The answer is A.</think>", "A <think> or",
]  # fmt: skip


def test_the_verifier_reads_the_option_that_a_response_chooses(tmp_path):
    """Whichever option is right, no response of the second kind is: an article and a pronoun are no option."""
    rows = [
        scored(f"{answer}", [9.0] * len(OPTION_B), OPTION_B, answer=answer)
        for answer in ("B", "(B)", "A")
    ]
    rows += [scored(f"none, {a}", [9.0] * len(NO_OPTION), NO_OPTION, answer=a) for a in "ABCI"]
    made, _ = verified(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows), "--n", 0)
    by_hand = [1.0, 1.0, 0.0, *[0.0] * 4]
    for row, wanted in zip(made, by_hand, strict=True):
        wrong = [
            t
            for t, reward in zip(row["responses"], row["rewards"], strict=True)
            if reward != wanted
        ]
        assert not wrong, row["answer"]


def test_an_answer_in_a_thought_is_no_answer(tmp_path):
    """Nor is one in a thought that was cut off; one without marks is known by another that ends."""
    texts = ["<think>\nMaybe \\boxed{3}? No.\n</think>\n\nThe answer is 4.", "<think>4</think>\\boxed{5}",
             "<think>\nlet me try \\boxed{4}", "4", "[THINK]4[/THINK]", "let me try \\boxed{4}"]  # fmt: skip
    row = scored(
        "a", [9.0] * 6, texts, ["stop", "stop", "length", "stop", "stop", "length"], answer="4"
    )
    made, told = verified(tmp_path, write_jsonl(tmp_path / "in.jsonl", [row]))
    assert (
        made[0]["rewards"] == [1, 0, 0, 1, 0, 1]
        and "without an answer after their thoughts: 2, " in told
    )
    unmarked = scored("b", [9.0] * 6, ["Maybe 5.</think>4", *"44444"], answer="4")
    file = write_jsonl(tmp_path / "in.jsonl", [row, unmarked])
    for number, shard in enumerate((["--num_shards", 2, "--shard", 0], []), 1):
        made, told = verified(tmp_path, file, *shard, name=f"{number}.jsonl")
        assert made[0]["rewards"] == [1, 0, 0, 1, 0, 0] and "after their thoughts: 3, " in told
    flags = ["--method", "exact", "--pattern", "(\\d)"]
    assert verified(tmp_path, file, *flags, name="exact.jsonl")[0][0]["rewards"] == [
        1,
        0,
        0,
        1,
        0,
        0,
    ]


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("\\frac43", "\\frac34"), ("(-2,1)", "(2,1)"), ("\\text{Evelyn}", "Anna"), ("Evelyn", "Anna"), ("-1", "1"),
        ("70,000", "7,000"), ("72 dollars", "27 dollars"), ("11,\\! 111", "1,\\! 111"), ("yes", "no"), ("x+1", "x-1"),
    ],
)  # fmt: skip
def test_the_verifier_reads_what_the_answer_is_said_to_be(tmp_path, answer, wrong):
    forms = ["The answer is {}.", "**Answer:** {}\n", "The answer is ${}$.", "So the answer is {}, because 2 is not.",
             "It is \\boxed{{{}}}."]  # fmt: skip
    texts = [form.format(text) for text in (answer, wrong) for form in forms]
    row = scored("a", [9.0] * len(texts), texts, answer=answer)
    made, _ = verified(tmp_path, write_jsonl(tmp_path / "in.jsonl", [row]))
    assert made[0]["rewards"] == [1.0] * len(forms) + [0.0] * len(forms)


def test_an_answer_that_is_no_mathematics_is_refused(tmp_path):
    row = scored("a", [0.0], ["7"], answer="$")
    done = run("annotation/1d_verifier.py", "--responses_file", write_jsonl(tmp_path / "in.jsonl", [row]),
               "--output_file", tmp_path / "out.jsonl")  # fmt: skip
    assert done.returncode == 1 and not (tmp_path / "out.jsonl").exists()
    assert (
        done.stderr.splitlines()[-1]
        == f"{tmp_path}/in.jsonl: id 'a': answer: '$' is not mathematics"
    )


def test_the_verifier_sees_what_the_true_reward_calls_correct(tmp_path, world):
    """With the pattern of the tiny recipe, on right and wrong answers in every style; in two shards as in one."""
    pattern = re.search(r"VERIFIER_PATTERN='(.*)'", (ROOT / "recipes/tiny.sh").read_text())[1]
    file = tmp_path / "in.jsonl"
    pairs = read_jsonl(world / "a" / "preferences.jsonl")[:400]
    write_jsonl(
        file,
        [
            scored(row["id"], [0.0] * 2, list(texts(row)), **{"answer": row["answer"]})
            for row in pairs
        ],
    )
    flags = ["--method", "exact", "--pattern", pattern]
    made, _ = verified(tmp_path, file, *flags)
    for row in made:
        parts = [TRUE_REWARD["parts"](text, row["answer"])["correct"] for text in row["responses"]]
        assert row["rewards"] == parts, row
    assert {reward for row in made for reward in row["rewards"]} == {0.0, 1.0} and len(made) == 400
    halves = [
        verified(tmp_path, file, *flags, "--num_shards", 2, "--shard", i, name=f"{i}.jsonl")[0]
        for i in (0, 1)
    ]
    assert halves == [made[0::2], made[1::2]]


@pytest.mark.parametrize(
    "flags", [["--method", "exact"], ["--pattern", "no group"], ["--pattern", "(open"]], ids=str
)
def test_the_verifier_wants_one_group(tmp_path, flags):
    file = write_jsonl(tmp_path / "in.jsonl", [scored("a", [0.0], ["7"], answer="7")])
    done = run(
        "annotation/1d_verifier.py",
        "--responses_file",
        file,
        "--output_file",
        tmp_path / "out.jsonl",
        *flags,
    )
    assert done.returncode == 2 and "--pattern: " in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("answer", [None, "", 7])
def test_the_verifier_needs_an_answer(tmp_path, answer):
    file = write_jsonl(
        tmp_path / "in.jsonl", [scored("a", [0.0], ["7"], answer="7"), scored("b", [0.0], ["7"])]
    )
    if answer is not None:
        file = write_jsonl(file, [read_jsonl(file)[0], scored("b", [0.0], ["7"], answer=answer)])
    done = run(
        "annotation/1d_verifier.py",
        "--responses_file",
        file,
        "--output_file",
        tmp_path / "out.jsonl",
    )
    told = "missing" if answer is None else "not a non-empty text"
    assert (done.returncode, done.stderr) == (1, f"{file}:2: answer: {told}\n")
