"""The tiny world's own benchmarks, in the formats of AlpacaEval, MT-Bench, Arena-Hard and lm-eval.

Their questions are those of the test split, so that no stage has seen them; a set does not avoid another's. What they
do not take from the questions, the judge's prompts and lm-eval's tasks, stands in benchmark_files/.
"""

from pathlib import Path

import world
from common import outputs, rows

FILES = Path(__file__).parent / "benchmark_files"
CATEGORIES = {  # MT-Bench's, by kind: maths and reasoning are judged with a reference answer
    "add": "math", "subtract": "math", "larger": "reasoning", "sort": "reasoning", "opposite": "humanities",
    "following": "humanities", "category": "stem", "count": "extraction",
}  # fmt: skip
EASY = ("category", "count")  # kinds of which the corpus holds most of the questions
WITH_REFERENCE = ("math", "reasoning")
CONVERSATIONS = 10  # of a category at most


def given(q, rng):
    """An answer of the model that policies are compared with: better than the instructions', far from perfect."""
    return world.answered(q, rng, wrong=0.2, weights=[3, 3, 2, 1])


def write(out, questions, rng):
    """Write the sets of those questions (as world.question makes them) into the directory `out`."""
    for file in FILES.rglob("*.*"):
        if "__pycache__" not in file.parts:
            outputs.write_text(out / file.relative_to(FILES), file.read_text(encoding="utf-8"))
    alpaca, academic = [], []
    for q in questions[:200]:
        about = {"generator": "reference", "dataset": q["kind"]}
        alpaca.append({"instruction": q["text"], "output": given(q, rng), **about})
    outputs.write_json(out / "alpaca_eval.json", alpaca)

    for number, q in enumerate(questions[-300:]):
        asked = [{"role": "user", "content": q["text"]}]
        about = {"answer": q["answer"], "wrong": q["wrong"], "source": q["kind"]}
        academic.append({"id": f"academic-{number}", "prompt": asked, **about})
    rows.write(out / "lm_eval/questions.jsonl", academic)

    conversations, references = [], []
    for category in dict.fromkeys(CATEGORIES.values()):
        of_it = [q for q in questions if CATEGORIES[q["kind"]] == category]
        for turns in list(zip(of_it[::2], of_it[1::2], strict=False))[:CONVERSATIONS]:
            name = len(conversations) + 1
            texts = [q["text"] for q in turns]
            conversations.append({"question_id": name, "category": category, "turns": texts})
            if category in WITH_REFERENCE:
                choices = [
                    {"index": 0, "turns": [world.reasoned(q, q["answer"], rng) for q in turns]}
                ]
                references.append(
                    {"question_id": name, "model_id": "reference", "choices": choices}
                )
    rows.write(out / "mt_bench_questions.jsonl", conversations)
    rows.write(out / "mt_bench_references.jsonl", references)

    hard = [q for q in questions if q["kind"] not in EASY]
    prompts, answers = [], []
    for number, q in enumerate(hard):
        uid = f"hard-{number}"
        prompts.append(
            {"uid": uid, "category": "arena-hard-tiny", "cluster": q["kind"], "prompt": q["text"]}
        )
        said = [
            {"content": q["text"], "role": "user"},
            {"content": {"answer": given(q, rng)}, "role": "assistant"},
        ]
        answers.append(
            {"uid": uid, "ans_id": uid, "model": "baseline", "messages": said, "tstamp": 0}
        )
    rows.write(out / "arena_hard_questions.jsonl", prompts)
    rows.write(out / "arena_hard_baseline.jsonl", answers)
    return {
        "AlpacaEval": len(alpaca),
        "MT-Bench": len(conversations),
        "Arena-Hard": len(hard),
        "lm-eval": len(academic),
    }
