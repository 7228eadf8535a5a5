"""The tiny world with a tool: its questions, and trajectories that the tool and the answer bear."""

import random
import re
import runpy
import sys

import pytest

from commands import ROOT, ran, read_jsonl, run, write_jsonl
from common import chats, response_tokens, sandbox, trajectories
from test_chats import learned
from test_trajectories import counted

sys.path.insert(0, str(ROOT / "generation"))
import tool_calls
import tool_programs

PATTERN = re.search(r"VERIFIER_PATTERN='(.*)'", (ROOT / "recipes/tiny_tools.sh").read_text())[1]
# The answer by the numbers of a question's text, in their order.
ANSWERS = {
    "total": lambda a, b, c: a + b + c,
    "remainder": lambda a, b, c: a * b - c,
    "price": lambda a, b, c, d: a * b + c * d,
    "scaled": lambda a, b, c: (a + b) * c,
    "product_by_parity": lambda a, b, c, d: a * b - d if a * b % 2 else a * b + c,
    "sum_by_parity": lambda a, b, c, d: a + b + d if (a + b) % 2 else (a + b) * c,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """{name: rows} of a small world."""
    out = tmp_path_factory.mktemp("tools") / "world"
    sizes = "--corpus 1500 --instructions 400 --held_out 300 --prompts 100 --validation 20"
    ran("recipes/tiny_tools/1_data.py", "--output_dir", out, *sizes.split(), "--test", 80)
    return {path.stem: read_jsonl(path) for path in out.glob("*.jsonl")}


def question(row):
    return row.get("messages", row.get("prompt"))[0]["content"]


def test_no_question_is_in_two_sets(made):
    texts = []
    for name in ("instructions", "held_out", "prompts", "evaluation"):
        texts += map(question, made[name])
    assert len(texts) == len(set(texts)) == 900
    unseen = set(map(question, made["held_out"] + made["evaluation"]))
    corpus = {row["text"].splitlines()[0].removeprefix("Question: ") for row in made["corpus"]}
    assert not corpus & unseen
    tested = []
    for row in made["evaluation"]:
        if row["split"] == "test" and "parity" not in row["source"]:
            tested.append(question(row))
    assert list(map(question, made["withheld"])) == tested


def test_a_question_that_is_drawn_twice_is_in_one_set_alone(monkeypatch):
    """With a world of 60 questions, in which nearly each draw is a repetition."""
    monkeypatch.syspath_prepend(str(ROOT / "recipes/tiny_tools"))
    script = runpy.run_path(str(ROOT / "recipes/tiny_tools/1_data.py"))
    questions = script["questions"]
    drawn_once = [questions.question(random.Random(i)) for i in range(60)]
    monkeypatch.setattr(questions, "question", lambda rng: rng.choice(drawn_once))
    rng = random.Random(0)
    sets = script["draw_questions"](rng, {"test": 20, "prompts": 30}, "out")
    texts = [question.text for drawn in sets.values() for question in drawn]
    assert len(texts) == len(set(texts)) == 50
    unseen = {question.text for question in sets["test"]}
    documents = script["corpus_rows"](rng, 100, unseen)
    assert len(documents) == 100
    for document in documents:
        assert document["text"].splitlines()[0].removeprefix("Question: ") not in unseen
    with pytest.raises(SystemExit, match="out: the world has not 61 different questions"):
        script["draw_questions"](rng, {"test": 61}, "out")


def test_answers_are_those_of_the_numbers_in_the_questions(made):
    sources = set()
    for row in made["held_out"] + made["prompts"] + made["evaluation"]:
        numbers = map(int, re.findall(r"\d+", question(row)))
        assert row["answer"] == str(ANSWERS[row["source"]](*numbers)), row
        sources.add(row["source"])
    assert sources == ANSWERS.keys()


def test_the_outputs_are_those_of_the_tool(made):
    """Each program runs in the sandbox, behind the earlier ones of its trajectory that ended."""
    programs, outputs = [], []
    for row in made["held_out"]:
        (messages,) = row["responses"]
        cells = []
        for turn, result in zip(messages[:-1:2], messages[1::2], strict=True):
            _, (call,) = tool_calls.Fenced().read(turn["content"], None)
            programs.append(tool_programs.as_program([*cells, call.program]))
            outputs.append(result["content"])
            if "Error" not in result["content"]:
                cells.append(call.program)
        assert tool_calls.Fenced().read(messages[-1]["content"], None)[1] == []
    with sandbox.Pool() as pool:
        ended = pool.run(programs)
    assert [tool_programs.shown(one, 1000) for one in ended] == outputs
    failed = [output for output in outputs if "SyntaxError" in output]
    assert failed and len(outputs) > 300


def test_trajectories_are_right_but_for_those_with_a_mistake(made):
    turns = set()
    for row in made["held_out"]:
        (messages,) = row["responses"]
        answer = re.match(PATTERN, trajectories.last_turn(messages))[1]
        assert (answer == row["answer"]) == (row["mistake"] == ""), row
        turns.add(len(messages[::2]))
    assert turns == {1, 2, 3}


def test_a_third_of_the_instructions_are_wrong_by_all_mistakes(made):
    mistakes = [row["mistake"] for row in made["instructions"] if row["mistake"]]
    # 0.35 of 400, three standard deviations.
    assert abs(len(mistakes) - 140) < 29
    names = {"operation", "copy", "omission", "misread", "failure", "no tool"}
    assert set(mistakes) == names
    for row in made["instructions"]:
        assert (row["mistake"] == "no tool") == (len(row["messages"]) == 2)


def test_the_assistants_turns_alone_are_learned(made):
    """With the tokenizer of the tiny world: in fine-tuning, and in M-DPO."""
    train_tokenizer = runpy.run_path(str(ROOT / "recipes/tiny/2_base_model.py"))["train_tokenizer"]
    tokenizer = train_tokenizer([row["text"] for row in made["corpus"]], 640)
    end = chats.turn_end(tokenizer)
    for row in made["held_out"][:30]:
        (messages,) = row["responses"]
        said = [turn["content"] + end.text for turn in messages[::2]]
        chat = row["prompt"] + messages
        assert learned(tokenizer, chats.conversation(tokenizer, end, chat, "FILE:1")) == said
        encoded = response_tokens.encode(tokenizer, end, row["prompt"], messages, "FILE:1")
        # The last turn counts through its closing.
        assert counted(tokenizer, encoded) == [*said[:-1], messages[-1]["content"] + end.closing]
        assert len(encoded.prompt_ids + encoded.response_ids) < 256


def test_the_withheld_outputs_are_empty(made):
    for row in made["withheld"]:
        roles = [turn["role"] for turn in row["prompt"]]
        assert roles == ["user", "assistant", "user"]
        assert row["prompt"][-1]["content"] == "```output\n\n```"


# The comparison


def evaluated(directory, rewards):
    """What the evaluation of a policy leaves: a row for each reward, in another order."""
    rows = []
    for i, reward in enumerate(rewards):
        row = {"id": f"test-{i:03}", "prompt": [{"role": "user", "content": "?"}], "split": "test"}
        row |= {"responses": ["x"], "finish_reasons": ["stop"], "rewards": [reward], "kl": [0.5]}
        rows.append(row | {"programs": [2], "failed_programs": [1]})
    directory.mkdir(parents=True)
    write_jsonl(directory / "kl.jsonl", rows[::-1])


def test_tables_of_the_ways_to_learn(tmp_path):
    right = {"base": 20, "raft": 40, "dpo": 60, "mdpo_fixed": 80, "mdpo": 60}
    for seed in (0, 1):
        for name, count in right.items():
            eval_of = tmp_path / f"seed{seed}" / name / "eval"
            evaluated(eval_of / "sft", [1.0] * 20 + [0.0] * 80)
            if name != "base":
                evaluated(eval_of / "iter1", [1.0] * 30 + [0.0] * 70)
                evaluated(eval_of / "iter2", [1.0] * count + [0.0] * (100 - count))
        evaluated(tmp_path / f"seed{seed}/kto/eval/iter1", [1.0] * 100)
    log = tmp_path / "seed0/dpo/log/iter1/responses.log"
    log.parent.mkdir(parents=True)
    log.write_text("rows out: 600, generation 40.0 s, tool 10.0 s\n")
    ran("comparison/4_tools.py", "--directory", tmp_path)
    page = (tmp_path / "TOOLS.md").read_text()
    lines = {}
    for line in page.splitlines():
        if line.startswith("| "):
            cells = line.strip("| ").split(" | ")
            lines[cells[0], cells[1]] = cells[2:]
    # The fine-tuned policy that all runs link to counts once.
    assert lines["SFT", "0"][0] == "2"
    assert lines["RAFT", "2"][2:] == ["0.400 0.400", "0.50", "2.00", "0.50"]
    assert lines["RAFT > SFT", "2"][2] == "holds"
    assert lines["RAFT > SFT", "2"][1].startswith("+0.200 (+0.")
    assert lines["M-DPO, moving reference > single-turn DPO", "2"][2] == "undecided"
    assert lines["M-DPO, moving reference > M-DPO, fixed reference", "2"][2] == "fails"
    # KTO has one round: what is compared has as many.
    assert lines["single-turn KTO > RAFT", "1"][2] == "holds"
    assert lines["M-DPO, moving reference > single-turn KTO", "-"][-1] == "not run"
    assert "40 s of the policies' generation, and 10 s of waiting for the tool: 25% of the" in page


def test_an_empty_comparison_gets_a_line(tmp_path):
    done = run("comparison/4_tools.py", "--directory", tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}: no run of tools.sh is there\n"
