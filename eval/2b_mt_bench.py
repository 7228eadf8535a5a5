"""MT-Bench: a judge rates each answer of 80 conversations of two turns from 1 to 10 (paper 4.1; Zheng et al. 2023).

The judge reads the official prompts at temperature 0: single-v1 for the first turn, single-v1-multi-turn for the
second, and their single-math forms, with a reference answer, for maths, reasoning and coding. The score is the mean
over both turns of the first number in [[n]], or else in [n], as the official scorer reads it. What the judge thinks
before </think> is no verdict. A reply without a number between 1 and 10 is counted and never guessed (score -1, as the
official scorer knows it). Replies are kept as they arrive: whatever stopped the run, the same command goes on, and
nothing is paid for twice. A key is read from OPENAI_API_KEY.

Reads:  --answers_file from 1_answers.py; --questions_file, --references_file, --prompts_file, by default the published
Writes: --output_dir, judgments.jsonl in the official format {"question_id", "model", "judge", "user_prompt",
        "judgment", "score", "turn", "tstamp"}; mt_bench.json, the score by turn and by category, with judge and date;
        replies.jsonl, what was paid for; refused.jsonl, what the judge refused, and its words

    python eval/2b_mt_bench.py --answers_file my_mt_bench/answers.jsonl \
        --judge_url http://localhost:8000/v1 --judge_model my_judge --output_dir my_mt_bench
"""

import datetime
import sys
import time
from pathlib import Path
from statistics import fmean

import judging
import published
from common import arguments, judge, outputs, rows

FILES = ("judgments.jsonl", "mt_bench.json", "replies.jsonl", "refused.jsonl")
WITH_REFERENCE = ("math", "reasoning", "coding")


def prompt_of(question, answer, reference, prompts, turn):
    """(name of the prompt, messages) by which a turn is judged."""
    turns, said = question["turns"], answer["choices"][0]["turns"]
    kind = ("single-math-v1" if reference else "single-v1") + ("-multi-turn" if turn == 2 else "")
    texts = {"question": turns[0], "answer": said[0]}
    for i in range(turn):
        texts |= {f"question_{i + 1}": turns[i], f"answer_{i + 1}": said[i]}
        texts |= {f"ref_answer_{i + 1}": reference["choices"][0]["turns"][i]} if reference else {}
    prompt = prompts[kind]
    asked = prompt["prompt_template"].format(**texts)
    return kind, [
        {"role": "system", "content": prompt["system_prompt"]},
        {"role": "user", "content": asked},
    ]


def rating(said):
    """The first rating in what the judge says, or -1."""
    found = judge.ratings(said or "", 1, 10)
    return -1 if not found or found[0] is None else found[0]


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--answers_file", required=True)
    for name in ("questions", "references", "prompts"):
        parser.add_argument(f"--{name}_file", help="(default: the official, at a pinned commit)")
    parser.add_output("--output_dir", "folder", FILES, type=Path, required=True)
    judging.add_flags(parser)
    args = parser.parse_args()
    default = published.PUBLISHED
    questions = published.read(args.questions_file or default["mt_bench"], "mt_bench")
    answers = published.read(args.answers_file, "mt_bench_answers")
    published.answered(questions, answers, args.answers_file)
    prompts_file = args.prompts_file or default["mt_bench_prompts"]
    prompts = published.read(prompts_file, "mt_bench_prompts")
    references = {}
    if any(question["category"] in WITH_REFERENCE for question in questions.values()):
        references_file = args.references_file or default["mt_bench_references"]
        references = published.read(references_file, "mt_bench_answers")

    asked, kinds = {}, {}
    for name, question in questions.items():
        needs = question["category"] in WITH_REFERENCE
        if needs and name not in references:
            sys.exit(
                f"{references_file}: question {name} ({question['category']}) has no reference"
            )
        for turn in range(1, len(question["turns"]) + 1):
            try:
                kinds[name, turn], asked[name, turn] = prompt_of(
                    question, answers[name], references.get(name) if needs else None, prompts, turn
                )
            except (
                LookupError,
                TypeError,
                ValueError,
                AttributeError,
            ) as error:  # the last two: of a bad template
                sys.exit(
                    f"{args.answers_file}: question {name}, turn {turn}: no answer, or no prompt for it ({error})"
                )
    options = {"temperature": 0, "max_completion_tokens": args.max_tokens or 2048}
    requests = {at: {"messages": m, **options} for at, m in asked.items()}
    choices, refused = judging.ask(args, requests, args.output_dir / "replies.jsonl")
    replies = {at: choice and choice["text"] for at, choice in choices.items()}
    said = judging.without_thoughts(choices)

    judgments, models = [], {answer["model_id"] for answer in answers.values()}
    for (name, turn), reply in replies.items():
        judgments.append({
            "question_id": name,
            "model": answers[name]["model_id"],
            "judge": [args.judge_model, kinds[name, turn]],
            "user_prompt": asked[name, turn][1]["content"],
            "judgment": reply,
            "score": rating(said[name, turn]),
            "turn": turn,
            "tstamp": time.time(),
        })  # fmt: skip
    rows.write(args.output_dir / "judgments.jsonl", judgments)
    rated = [j for j in judgments if j["score"] != -1]
    if not rated:
        told = (refused or [judgments[0]["judgment"][:200]])[0]
        sys.exit(f"{args.judge_model}: no reply holds a rating, such as {told!r}")

    def mean(part):
        return fmean(j["score"] for j in part) if part else None

    categories = dict.fromkeys(question["category"] for question in questions.values())
    result = {
        "model": ", ".join(sorted(models)),
        "judge": args.judge_model,
        "date": datetime.date.today().isoformat(),
        "score": mean(rated),
        "turns": [mean([j for j in rated if j["turn"] == turn]) for turn in (1, 2)],
        "categories": {
            c: mean([j for j in rated if questions[j["question_id"]]["category"] == c])
            for c in categories
        },
        "judgments": len(rated),
        "of": len(judgments),
    }
    outputs.write_json(args.output_dir / "mt_bench.json", result)
    told = [result["score"], *result["turns"], *result["categories"].values()]
    cells = " | ".join("-" if value is None else f"{value:.2f}" for value in told)
    print(f"| model | judge | score | turn 1 | turn 2 | {' | '.join(categories)} | judgments |")
    print(f"|{' --- |' * (6 + len(categories))}")
    print(
        f"| {result['model']} | {args.judge_model} | {cells} | {len(rated)} of {len(judgments)} |"
    )


if __name__ == "__main__":
    main()
