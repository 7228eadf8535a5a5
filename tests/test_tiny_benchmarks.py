"""The tiny world's own benchmarks: in the official formats, judged by its own judge as the true reward says."""

import json
import math
import os
import runpy
import shutil
from statistics import fmean

import pytest

from commands import ROOT, ran, read_jsonl, run, write_jsonl
from scripted_judge import ENVIRONMENT, tiny_judge

TRUE_REWARD = runpy.run_path(str(ROOT / "recipes/tiny/true_reward.py"))
ANSWERS = [
    "It is {}.",
    "The answer is {}.",
    "It is {}. Good question. Let me think. I like this one. Well, well.",
    "No.",
]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """(the directory of the sets, {question: right answer}, the judge's address)."""
    out = tmp_path_factory.mktemp("world")
    sizes = "--corpus 10 --instructions 10 --preferences 10 --prompts 10 --validation 10 --test 250 --bench 2"
    done = ran("recipes/tiny/1_data.py", "--output_dir", out, *sizes.split())
    assert ", 200 of AlpacaEval, " in done.stdout and done.stdout.endswith(
        " of Arena-Hard, 250 of lm-eval\n"
    )
    asked = [row for row in read_jsonl(out / "evaluation.jsonl") if row["split"] == "test"]
    with tiny_judge(out, [out / "evaluation.jsonl"]) as url:
        yield out / "benchmarks", {row["prompt"][0]["content"]: row["answer"] for row in asked}, url


def said(question, number, right):
    """An answer, now better, now worse."""
    return ANSWERS[number % 4].format(right[question] if number % 3 else "green")


def reward(question, text, right):
    return TRUE_REWARD["true_reward"](text, right[question])


def judge(script, url, out, *flags):
    command = [
        script,
        *flags,
        "--judge_url",
        url,
        "--judge_model",
        "true_reward",
        "--output_dir",
        out,
    ]
    ran(*command, env={**ENVIRONMENT, "HF_HUB_OFFLINE": "1"})
    return json.loads(next(path for path in out.glob("*.json") if path.stem in script).read_text())


def test_alpaca_eval(sets, tmp_path):
    folder, right, url = sets
    reference = json.loads((folder / "alpaca_eval.json").read_text())
    assert {row["instruction"] for row in reference} <= set(right) and len(reference) == 200
    outputs = [
        {**row, "output": said(row["instruction"], i, right), "generator": "p"}
        for i, row in enumerate(reference)
    ]
    file = tmp_path / "answers.json"
    file.write_text(json.dumps(outputs))
    flags = ["--model_outputs", file, "--reference_outputs", folder / "alpaca_eval.json"]
    result = judge("eval/2a_alpaca_eval.py", url, tmp_path / "out", *flags)
    wins = []
    for row, own in zip(reference, outputs, strict=True):
        gap = reward(row["instruction"], own["output"], right) - reward(
            row["instruction"], row["output"], right
        )
        wins.append(1 / (1 + math.exp(-gap / TRUE_REWARD["NOISE"])))
    assert (
        result["win_rate"] == pytest.approx(100 * fmean(wins), abs=1e-3)
        and 20 < result["win_rate"] < 80
    )
    assert result["judged"] == result["rows"] == 200 and result["judge"] == "true_reward"
    assert result["length_controlled_winrate"] is None and result[
        "no_length_controlled_winrate"
    ].startswith("needs the")


def test_mt_bench(sets, tmp_path):
    folder, right, url = sets
    questions = read_jsonl(folder / "mt_bench_questions.jsonl")
    assert all(
        len(q["turns"]) == 2 and list(q) == ["question_id", "category", "turns"] for q in questions
    )
    assert {"math", "reasoning"} < {q["category"] for q in questions} and len(questions) > 20
    answers = []
    for i, q in enumerate(questions):
        turns = [said(turn, i + j, right) for j, turn in enumerate(q["turns"])]
        answers.append(
            {
                "question_id": q["question_id"],
                "model_id": "p",
                "choices": [{"index": 0, "turns": turns}],
            }
        )
    flags = ["--answers_file", write_jsonl(tmp_path / "answers.jsonl", answers)]
    for name in ("questions", "references", "prompts"):
        flags += [f"--{name}_file", folder / f"mt_bench_{name}.jsonl"]
    result = judge("eval/2b_mt_bench.py", url, tmp_path / "out", *flags)
    by_hand = {}
    for q, answer in zip(questions, answers, strict=True):
        for turn, text in zip(q["turns"], answer["choices"][0]["turns"], strict=True):
            rating = min(10, max(1, round(1 + 3 * reward(turn, text, right))))
            by_hand.setdefault(q["category"], []).append(rating)
    assert result["categories"] == {
        name: pytest.approx(fmean(ratings)) for name, ratings in by_hand.items()
    }
    assert result["judgments"] == result["of"] == 2 * len(questions)


def test_arena_hard(sets, tmp_path):
    folder, right, url = sets
    questions, baseline = (
        read_jsonl(folder / f"arena_hard_{name}.jsonl") for name in ("questions", "baseline")
    )
    assert len(questions) > 20 and not {q["cluster"] for q in questions} & {"category", "count"}
    answers = []
    for i, row in enumerate(baseline):
        turns = [
            row["messages"][0],
            {"role": "assistant", "content": {"answer": said(questions[i]["prompt"], i, right)}},
        ]
        answers.append({**row, "model": "p", "messages": turns})
    flags = ["--answers_file", write_jsonl(tmp_path / "answers.jsonl", answers)]
    flags += ["--questions_file", folder / "arena_hard_questions.jsonl"]
    flags += ["--baseline_file", folder / "arena_hard_baseline.jsonl"]
    result = judge("eval/2c_arena_hard.py", url, tmp_path / "out", *flags, "--prompts_file",
                   folder / "arena_hard_prompts.yaml")  # fmt: skip
    games = []
    for q, own, other in zip(questions, answers, baseline, strict=True):
        texts = [row["messages"][1]["content"]["answer"] for row in (own, other)]
        gap = reward(q["prompt"], texts[0], right) - reward(q["prompt"], texts[1], right)
        games += [0.5 if not gap else float(gap > 0)] * (3 if abs(gap) >= 1 else 1)
    assert result["score"] == pytest.approx(100 * fmean(games)) and result["questions"] == len(
        questions
    )


def test_lm_eval_finds_its_questions_wherever_they_are_moved(sets, tmp_path):
    folder, right, _ = sets
    moved = shutil.copytree(folder / "lm_eval", tmp_path / "moved")
    script = "import sys; from lm_eval.tasks import TaskManager; "
    script += "tasks = TaskManager(include_path=sys.argv[1], include_defaults=False).load(['tiny_answers'])['tasks']; "
    script += "print(*(doc['prompt'][0]['content'] for doc in tasks['tiny_answers'].test_docs()), sep='\\n')"
    done = run("-c", script, moved, env={**os.environ, "HF_HOME": str(tmp_path / "cache")})
    assert set(right) == set(done.stdout.splitlines()), done.stderr
    rows = read_jsonl(folder / "lm_eval/questions.jsonl")
    assert {row["prompt"][0]["content"]: row["answer"] for row in rows} == right
    assert all(row["wrong"] != row["answer"] for row in rows)
