"""The tiny world's benchmarks, in the official formats; its own judge goes by the true reward."""

import json
import math
import os
import runpy
import shutil
import tomllib
import urllib.error
import urllib.request
from statistics import fmean

import pytest

from commands import ROOT, ran, read_jsonl, run, write_jsonl
from scripted_judge import tiny_judge

TRUE_REWARD = runpy.run_path(str(ROOT / "recipes/tiny/true_reward.py"))
ANSWERS = [
    "It is {}.",
    "The answer is {}.",
    "It is {}. Good question. Let me think. I like this one. Well, well.",
    "No.",
]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """(the directory of the benchmarks, {question: right answer}, the judge's address)"""
    out = tmp_path_factory.mktemp("world")
    sizes = "--corpus 10 --instructions 10 --preferences 10 --prompts 10".split()
    sizes += "--validation 10 --test 250 --bench 2".split()
    done = ran("recipes/tiny/1_data.py", "--output_dir", out, *sizes)
    assert ", 200 of AlpacaEval, " in done.stdout
    assert done.stdout.endswith(" of Arena-Hard, 250 of lm-eval\n")
    right = {}
    for row in read_jsonl(out / "evaluation.jsonl"):
        if row["split"] == "test":
            right[row["prompt"][0]["content"]] = row["answer"]
    with tiny_judge(out, [out / "evaluation.jsonl"]) as url:
        yield out / "benchmarks", right, url


def said(question, number, right):
    """An answer, of a quality that depends on the number."""
    return ANSWERS[number % 4].format(right[question] if number % 3 else "green")


def reward(question, text, right):
    return TRUE_REWARD["true_reward"](text, right[question])


def judge(script, url, out, *flags):
    """The result that the script writes."""
    command = [script, *flags, "--judge_url", url, "--judge_model", "true_reward"]
    ran(*command, "--output_dir", out)
    (result,) = [path for path in out.glob("*.json") if path.stem in script]
    return json.loads(result.read_text())


@pytest.mark.parametrize("top_logprobs", ["five", 1.5, [5], -1])
def test_the_judge_refuses_a_number_of_logprobs_that_is_none(sets, top_logprobs):
    _, right, url = sets
    question = next(iter(right))
    prompt = tomllib.loads((ROOT / "annotation/judge_prompts.toml").read_text())["rating"]
    text = prompt.replace("{prompt}", f"user: {question}").replace("{answer}", "No.")
    body = {"model": "true_reward", "messages": [{"role": "user", "content": text}]}
    body |= {"logprobs": True, "top_logprobs": top_logprobs}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/chat/completions", json.dumps(body).encode())
    assert refused.value.code == 400
    message = json.load(refused.value)["error"]["message"]
    assert message == f"top_logprobs: {top_logprobs!r} is not a whole number"


def test_alpaca_eval(sets, tmp_path):
    folder, right, url = sets
    reference = json.loads((folder / "alpaca_eval.json").read_text())
    assert {row["instruction"] for row in reference} <= set(right)
    assert len(reference) == 200
    outputs = []
    for i, row in enumerate(reference):
        outputs.append({**row, "output": said(row["instruction"], i, right), "generator": "p"})
    file = tmp_path / "answers.json"
    file.write_text(json.dumps(outputs))
    flags = ["--model_outputs", file, "--reference_outputs", folder / "alpaca_eval.json"]
    result = judge("eval/2a_alpaca_eval.py", url, tmp_path / "out", *flags)
    wins = []
    for row, answer in zip(reference, outputs, strict=True):
        question = row["instruction"]
        difference = reward(question, answer["output"], right)
        difference -= reward(question, row["output"], right)
        wins.append(1 / (1 + math.exp(-difference / TRUE_REWARD["NOISE"])))
    assert result["win_rate"] == pytest.approx(100 * fmean(wins), abs=1e-3)
    assert 20 < result["win_rate"] < 80
    assert result["judged"] == result["rows"] == 200
    assert result["judge"] == "true_reward"
    assert result["length_controlled_winrate"] is None
    assert result["no_length_controlled_winrate"].startswith("needs the")


def test_mt_bench(sets, tmp_path):
    folder, right, url = sets
    questions = read_jsonl(folder / "mt_bench_questions.jsonl")
    for question in questions:
        assert list(question) == ["question_id", "category", "turns"]
        assert len(question["turns"]) == 2
    assert {"math", "reasoning"} < {question["category"] for question in questions}
    assert len(questions) > 20
    answers = []
    for i, question in enumerate(questions):
        turns = [said(turn, i + j, right) for j, turn in enumerate(question["turns"])]
        choices = [{"index": 0, "turns": turns}]
        row = {"question_id": question["question_id"], "model_id": "p", "choices": choices}
        answers.append(row)
    flags = ["--answers_file", write_jsonl(tmp_path / "answers.jsonl", answers)]
    for name in ("questions", "references", "prompts"):
        flags += [f"--{name}_file", folder / f"mt_bench_{name}.jsonl"]
    result = judge("eval/2b_mt_bench.py", url, tmp_path / "out", *flags)
    ratings = {}
    for question, answer in zip(questions, answers, strict=True):
        for turn, text in zip(question["turns"], answer["choices"][0]["turns"], strict=True):
            rating = min(10, max(1, round(1 + 3 * reward(turn, text, right))))
            ratings.setdefault(question["category"], []).append(rating)
    by_hand = {category: fmean(values) for category, values in ratings.items()}
    assert result["categories"] == pytest.approx(by_hand)
    assert result["judgments"] == result["of"] == 2 * len(questions)


def test_arena_hard(sets, tmp_path):
    folder, right, url = sets
    questions = read_jsonl(folder / "arena_hard_questions.jsonl")
    baseline = read_jsonl(folder / "arena_hard_baseline.jsonl")
    assert len(questions) > 20
    assert not {question["cluster"] for question in questions} & {"category", "count"}
    answers = []
    for i, row in enumerate(baseline):
        content = {"answer": said(questions[i]["prompt"], i, right)}
        messages = [row["messages"][0], {"role": "assistant", "content": content}]
        answers.append({**row, "model": "p", "messages": messages})
    flags = ["--answers_file", write_jsonl(tmp_path / "answers.jsonl", answers)]
    flags += ["--questions_file", folder / "arena_hard_questions.jsonl"]
    flags += ["--baseline_file", folder / "arena_hard_baseline.jsonl"]
    flags += ["--prompts_file", folder / "arena_hard_prompts.yaml"]
    result = judge("eval/2c_arena_hard.py", url, tmp_path / "out", *flags)

    def reward_of(row, question):
        return reward(question["prompt"], row["messages"][1]["content"]["answer"], right)

    games = []
    for question, answer, other in zip(questions, answers, baseline, strict=True):
        difference = reward_of(answer, question) - reward_of(other, question)
        win = 0.5 if difference == 0 else float(difference > 0)
        # A game that is won by far counts three times.
        games += [win] * (3 if abs(difference) >= 1 else 1)
    assert result["score"] == pytest.approx(100 * fmean(games))
    assert result["questions"] == len(questions)


PRINT_QUESTIONS = """\
import sys
from lm_eval.tasks import TaskManager
manager = TaskManager(include_path=sys.argv[1], include_defaults=False)
task = manager.load(["tiny_answers"])["tasks"]["tiny_answers"]
for doc in task.test_docs():
    print(doc["prompt"][0]["content"])
"""


def test_lm_eval_finds_its_questions_wherever_they_are_moved(sets, tmp_path):
    folder, right, _ = sets
    moved = shutil.copytree(folder / "lm_eval", tmp_path / "moved")
    cache = {**os.environ, "HF_HOME": str(tmp_path / "cache")}
    done = run("-c", PRINT_QUESTIONS, moved, env=cache)
    assert set(right) == set(done.stdout.splitlines()), done.stderr
    rows = read_jsonl(folder / "lm_eval/questions.jsonl")
    assert {row["prompt"][0]["content"]: row["answer"] for row in rows} == right
    assert all(row["wrong"] != row["answer"] for row in rows)
