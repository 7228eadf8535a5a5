"""MT-Bench: a judge rates each answer of 80 conversations of two turns from 1 to 10 (paper 4.1).

The judge reads the official prompts (Zheng et al. 2023) at temperature 0: single-v1 for the first
turn, single-v1-multi-turn for the second, and their single-math forms, with a reference answer, for
maths, reasoning and coding. The score is the mean over both turns of the first number in [[n]], or
else in [n], as the official scorer reads it. The judge's thoughts, before </think>, hold no rating.
A reply without a number between 1 and 10 is counted, never guessed (score -1, as in the official
scorer). Replies are kept as they arrive: after an interruption the same command resumes, and no
request is paid for twice. A key is read from OPENAI_API_KEY.

Reads:  --answers_file from 1_answers.py; --questions_file, --references_file, --prompts_file, by
        default the published ones
Writes: --output_dir, judgments.jsonl in the official format {"question_id", "model", "judge",
        "user_prompt", "judgment", "score", "turn", "tstamp"}; mt_bench.json, the score by turn and
        by category, with judge and date; replies.jsonl, what was paid for; refused.jsonl, refused
        requests with the judge's words

    python eval/2b_mt_bench.py --answers_file my_mt_bench/answers.jsonl \
        --judge_url http://localhost:8000/v1 --judge_model my_judge --output_dir my_mt_bench
"""

import datetime
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import judging
import published
from common import arguments, judge, outputs, rows, tables

FILES = ("judgments.jsonl", "mt_bench.json", "replies.jsonl", "refused.jsonl")
WITH_REFERENCE = ("math", "reasoning", "coding")
NO_RATING = -1  # the official scorer's
REPLY_TOKENS = 2048


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--answers_file", required=True)
    for name in ("questions", "references", "prompts"):
        parser.add_argument(f"--{name}_file", help="(default: the official, at a pinned commit)")
    parser.add_output("--output_dir", "folder", FILES, type=Path, required=True)
    judging.add_flags(parser)
    return parser.parse_args()


# Prompts for the judge


@dataclass
class Inputs:
    """{name: row} of each file."""

    questions: dict
    answers: dict
    prompts: dict
    references: dict  # empty if no question needs one
    references_source: str


@dataclass
class Prompt:
    """What the judge is asked about one turn."""

    name: str  # of the official prompt
    messages: list[dict]


def read_inputs(args):
    default = published.PUBLISHED
    questions = published.read(args.questions_file or default["mt_bench"], "mt_bench")
    answers = published.read(args.answers_file, "mt_bench_answers")
    published.answered(questions, answers, args.answers_file)
    prompts_source = args.prompts_file or default["mt_bench_prompts"]
    prompts = published.read(prompts_source, "mt_bench_prompts")
    references_source = args.references_file or default["mt_bench_references"]
    references = {}
    if any(map(needs_reference, questions.values())):
        references = published.read(references_source, "mt_bench_answers")
    return Inputs(questions, answers, prompts, references, references_source)


def needs_reference(question):
    return question["category"] in WITH_REFERENCE


def make_prompts(inputs, answers_file):
    """{(question, turn): Prompt}; a question without answer, reference or prompt ends the program.

    Turns count from 1.
    """
    prompt_by_turn = {}
    for question_id, question in inputs.questions.items():
        reference = None
        if needs_reference(question):
            reference = inputs.references.get(question_id)
            if reference is None:
                where = f"question {question_id} ({question['category']})"
                sys.exit(f"{inputs.references_source}: {where} has no reference")
        for turn in range(1, len(question["turns"]) + 1):
            try:
                prompt_by_turn[question_id, turn] = make_prompt(
                    question, inputs.answers[question_id], reference, inputs.prompts, turn
                )
            # ValueError and AttributeError come from a bad template.
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                where = f"question {question_id}, turn {turn}"
                sys.exit(f"{answers_file}: {where}: no answer, or no prompt for it ({error})")
    return prompt_by_turn


def make_prompt(question, answer, reference, prompts, turn):
    """The Prompt by which a turn is judged; reference: an answer, or None."""
    question_turns = question["turns"]
    answer_turns = answer["choices"][0]["turns"]
    # The prompts of the first turn have fields without a number.
    texts = {"question": question_turns[0], "answer": answer_turns[0]}
    for i in range(turn):
        texts[f"question_{i + 1}"] = question_turns[i]
        texts[f"answer_{i + 1}"] = answer_turns[i]
        if reference:
            texts[f"ref_answer_{i + 1}"] = reference["choices"][0]["turns"][i]
    name = "single-math-v1" if reference else "single-v1"
    if turn == 2:
        name += "-multi-turn"
    # Templates name the fields that they need; others are not read.
    prompt = prompts[name]
    user = prompt["prompt_template"].format(**texts)
    messages = [
        {"role": "system", "content": prompt["system_prompt"]},
        {"role": "user", "content": user},
    ]
    return Prompt(name, messages)


# Ratings


def rating(reply):
    """The first rating in a reply without thoughts, or NO_RATING; reply: None if refused."""
    ratings = judge.ratings(reply or "", 1, 10)
    if not ratings or ratings[0] is None:
        return NO_RATING
    return ratings[0]


def make_judgments(choices, prompt_by_turn, answers, judge_model):
    """Rows in the official format; choices: what the judge replied to each turn."""
    reply_by_turn = judging.without_thoughts(choices)
    judgments = []
    for (question_id, turn), choice in choices.items():
        prompt = prompt_by_turn[question_id, turn]
        judgments.append(
            {
                "question_id": question_id,
                "model": answers[question_id]["model_id"],
                "judge": [judge_model, prompt.name],
                "user_prompt": prompt.messages[1]["content"],
                "judgment": choice["text"] if choice else None,  # None: refused
                "score": rating(reply_by_turn[question_id, turn]),
                "turn": turn,
                "tstamp": time.time(),
            }
        )
    return judgments


def summarise(judgments, rated, inputs, judge_model):
    """The content of mt_bench.json; rated: the judgments with a rating."""
    # One model, unless the file was put together by hand.
    models = {answer["model_id"] for answer in inputs.answers.values()}
    score_by_turn = []
    for turn in (1, 2):
        score_by_turn.append(mean_score(row for row in rated if row["turn"] == turn))
    rated_by_category = {question["category"]: [] for question in inputs.questions.values()}
    for row in rated:
        question = inputs.questions[row["question_id"]]
        rated_by_category[question["category"]].append(row)
    score_by_category = {}
    for category, rated_of_category in rated_by_category.items():
        score_by_category[category] = mean_score(rated_of_category)
    return {
        "model": ", ".join(sorted(models)),
        "judge": judge_model,
        "date": datetime.date.today().isoformat(),
        "score": mean_score(rated),
        "turns": score_by_turn,
        "categories": score_by_category,
        "judgments": len(rated),
        "of": len(judgments),
    }


def mean_score(judgments):
    """None where nothing is rated."""
    scores = [row["score"] for row in judgments]
    return fmean(scores) if scores else None


def table(summary):
    categories = summary["categories"]
    columns = ["model", "judge", "score", "turn 1", "turn 2", *categories, "judgments"]
    scores = [summary["score"], *summary["turns"], *categories.values()]
    rated = f"{summary['judgments']} of {summary['of']}"
    cells = [summary["model"], summary["judge"], *map(score_cell, scores), rated]
    return tables.markdown(columns, [cells])


def score_cell(score):
    return "-" if score is None else f"{score:.2f}"


def main():
    args = parse_arguments()
    inputs = read_inputs(args)
    prompt_by_turn = make_prompts(inputs, args.answers_file)

    options = {"temperature": 0, "max_completion_tokens": args.max_tokens or REPLY_TOKENS}
    requests = {}
    for turn, prompt in prompt_by_turn.items():
        requests[turn] = {"messages": prompt.messages, **options}
    choices, refused = judging.ask(args, requests, args.output_dir / "replies.jsonl")

    judgments = make_judgments(choices, prompt_by_turn, inputs.answers, args.judge_model)
    rows.write(args.output_dir / "judgments.jsonl", judgments)
    rated = [row for row in judgments if row["score"] != NO_RATING]
    if not rated:
        example = refused[0] if refused else judgments[0]["judgment"][:200]
        sys.exit(f"{args.judge_model}: no reply holds a rating, such as {example!r}")
    summary = summarise(judgments, rated, inputs, args.judge_model)
    outputs.write_json(args.output_dir / "mt_bench.json", summary)
    print(table(summary))


if __name__ == "__main__":
    main()
