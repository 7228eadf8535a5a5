"""The tiny world's own benchmarks, in the formats of AlpacaEval, MT-Bench, Arena-Hard and lm-eval.

Their questions are those of the test split, so that no stage has seen them; two benchmarks may
share a question. The judge's prompts and lm-eval's tasks do not depend on the questions: they are
copied from benchmark_files/.
"""

from pathlib import Path

import world
from common import outputs, rows

FILES = Path(__file__).parent / "benchmark_files"
CATEGORIES = {  # MT-Bench's, by kind of question
    "add": "math",
    "subtract": "math",
    "larger": "reasoning",
    "sort": "reasoning",
    "opposite": "humanities",
    "following": "humanities",
    "category": "stem",
    "count": "extraction",
}
WITH_REFERENCE = ("math", "reasoning")  # are judged beside a reference answer
EASY = ("category", "count")  # kinds of which the corpus holds most of the questions
CONVERSATIONS = 10  # of a category at most


def write(out, questions, rng):
    """Write all benchmarks into the directory `out`; returns {benchmark: number of questions}.

    questions: as world.question makes them.
    """
    for file in FILES.rglob("*.*"):
        if "__pycache__" not in file.parts:
            outputs.write_text(out / file.relative_to(FILES), file.read_text(encoding="utf-8"))
    hard = [question for question in questions if question["kind"] not in EASY]
    # Two of them draw from rng: their order decides what a seed gives.
    return {
        "AlpacaEval": write_alpaca_eval(out, questions[:200], rng),
        "MT-Bench": write_mt_bench(out, questions),
        "Arena-Hard": write_arena_hard(out, hard, rng),
        "lm-eval": write_lm_eval(out, questions[-300:]),
    }


def baseline_answer(question, rng):
    """The answer to compare policies with: better than the instructions', far from perfect."""
    return world.answered(question, rng, wrong_rate=0.2, weights=[3, 3, 2, 1])


def write_alpaca_eval(out, questions, rng):
    entries = []
    for question in questions:
        entry = {
            "instruction": question["text"],
            "output": baseline_answer(question, rng),
            "generator": "reference",
            "dataset": question["kind"],
        }
        entries.append(entry)
    outputs.write_json(out / "alpaca_eval.json", entries)
    return len(entries)


def write_mt_bench(out, questions):
    """Conversations of two questions of one category, the second a follow-up in form only."""
    conversations = []
    references = []
    for category in dict.fromkeys(CATEGORIES.values()):
        for turns in question_pairs(questions, category)[:CONVERSATIONS]:
            name = len(conversations) + 1
            texts = [question["text"] for question in turns]
            conversations.append({"question_id": name, "category": category, "turns": texts})
            if category in WITH_REFERENCE:
                choices = [{"index": 0, "turns": [right_answer(turn) for turn in turns]}]
                reference = {"question_id": name, "model_id": "reference", "choices": choices}
                references.append(reference)
    rows.write(out / "mt_bench_questions.jsonl", conversations)
    rows.write(out / "mt_bench_references.jsonl", references)
    return len(conversations)


def question_pairs(questions, category):
    """Pairs of neighbours among the questions of a category; an odd one at the end is left out."""
    selected = [question for question in questions if CATEGORIES[question["kind"]] == category]
    return list(zip(selected[::2], selected[1::2], strict=False))


def right_answer(question):
    # This style draws nothing.
    return world.reasoned(question, question["answer"], None)


def write_arena_hard(out, questions, rng):
    prompts = []
    answers = []
    for number, question in enumerate(questions):
        uid = f"hard-{number}"
        prompt = {
            "uid": uid,
            "category": "arena-hard-tiny",
            "cluster": question["kind"],
            "prompt": question["text"],
        }
        messages = [
            {"content": question["text"], "role": "user"},
            {"content": {"answer": baseline_answer(question, rng)}, "role": "assistant"},
        ]
        answer = {
            "uid": uid,
            "ans_id": uid,
            "model": "baseline",
            "messages": messages,
            "tstamp": 0,
        }
        prompts.append(prompt)
        answers.append(answer)
    rows.write(out / "arena_hard_questions.jsonl", prompts)
    rows.write(out / "arena_hard_baseline.jsonl", answers)
    return len(prompts)


def write_lm_eval(out, questions):
    entries = []
    for number, question in enumerate(questions):
        entry = {
            "id": f"academic-{number}",
            "prompt": [{"role": "user", "content": question["text"]}],
            "answer": question["answer"],
            "wrong": question["wrong"],
            "source": question["kind"],
        }
        entries.append(entry)
    rows.write(out / "lm_eval/questions.jsonl", entries)
    return len(entries)
