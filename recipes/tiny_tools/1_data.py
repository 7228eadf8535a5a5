"""Make the data of the tiny world with a tool: arithmetic, and trajectories that solve it.

A question asks for products and sums of numbers of two and three digits (questions.py). A
trajectory is what solves it with a Python tool: a sentence and a program, the tool's output, and a
final answer, or a second program before it (solutions.py). No question is in two of instructions,
held_out, prompts and evaluation. The base model's corpus is drawn independently and excludes only
the questions of held_out and evaluation, as a web corpus would.

Writes, in --output_dir:
    corpus.jsonl        {"text"}: questions with right trajectories, outputs among them: what the
                        base model is trained on
    instructions.jsonl  {"id", "messages", "source", "mistake"}: trajectories, of which
                        --wrong_share are wrong by a "mistake" of solutions.MISTAKES, else ""; in
                        some of the right ones the first program fails and the second does not
    held_out.jsonl      {"id", "prompt", "responses", "finish_reasons", "source", "answer",
                        "mistake"}: more of the same, a response each, for eval/2_kl.py: the mean of
                        its "kl" is what a policy's log-likelihood of them gains over the
                        reference's
    prompts.jsonl       {"id", "prompt", "source", "answer"}: the pool of all rounds
    evaluation.jsonl    the same with "split": "validation" or "test"
    withheld.jsonl      the test questions of one program, each with that program and an empty
                        output: what the policy answers without the tool's result

    python recipes/tiny_tools/1_data.py --output_dir runs/tiny_tools/world --seed 0
"""

import random
import sys
from pathlib import Path

import questions
import solutions
from common import arguments, rows, trajectories

NAMES = "corpus instructions held_out prompts withheld evaluation".split()
FILES = [f"{name}.jsonl" for name in NAMES]
RETRY_RATE = 0.05  # of the right trajectories of one program


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_output("--output_dir", "folder", FILES, required=True)
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    parser.add_argument(
        "--corpus",
        type=arguments.whole(1),
        default=36_000,
        help="documents of the base model's corpus",
    )
    parser.add_argument("--instructions", type=arguments.whole(1), default=5000)
    parser.add_argument(
        "--wrong_share",
        type=arguments.real(0, 1),
        default=0.35,
        help="of the instructions, those with a mistake",
    )
    parser.add_argument("--held_out", type=arguments.whole(1), default=500)
    parser.add_argument("--prompts", type=arguments.whole(1), default=3000)
    parser.add_argument("--validation", type=arguments.whole(1), default=200)
    parser.add_argument("--test", type=arguments.whole(1), default=600)
    return parser.parse_args()


def draw_questions(rng, sizes, out):
    """{name: questions} of these sizes, {name: count}; no text of a question comes twice."""
    total = sum(sizes.values())
    by_text = {}
    for _ in range(100 * total):
        if len(by_text) == total:
            break
        question = questions.question(rng)
        by_text.setdefault(question.text, question)
    else:
        sys.exit(f"{out}: the world has not {total} different questions")
    distinct = list(by_text.values())
    sets = {}
    start = 0
    for name, size in sizes.items():
        sets[name] = distinct[start : start + size]
        start += size
    return sets


# Rows


def user(text):
    return {"role": "user", "content": text}


def prompt_rows(drawn, name, **fields):
    """Yield a row for each question. name: the first part of its id; fields: what else it holds."""
    for i, question in enumerate(drawn):
        yield {
            "id": f"{name}-{i}",
            "prompt": [user(question.text)],
            "source": question.kind,
            "answer": str(solutions.answer(question)),
            **fields,
        }


def withheld_rows(drawn):
    """Those questions of one program with the program and an empty output."""
    of_one_program = [question for question in drawn if not question.second]
    for question, row in zip(of_one_program, prompt_rows(of_one_program, "withheld"), strict=True):
        called = [solutions.call(question.first), solutions.tool("")]
        yield {**row, "prompt": row["prompt"] + trajectories.for_template(called)}


def trajectory(rng, question, wrong_share):
    """(turns, mistake): a solution, wrong by a mistake with that probability, else by ""."""
    if rng.random() < wrong_share:
        return solutions.wrong(question, rng)
    return solutions.right(question, rng, RETRY_RATE), ""


def instruction_rows(rng, drawn, wrong_share):
    instructions = []
    for i, question in enumerate(drawn):
        turns, mistake = trajectory(rng, question, wrong_share)
        row = {
            "id": f"sft-{i}",
            "messages": [user(question.text), *turns],
            "source": question.kind,
            "mistake": mistake,
        }
        instructions.append(row)
    return instructions


def held_out_rows(rng, drawn, wrong_share):
    held_out = []
    for question, row in zip(drawn, prompt_rows(drawn, "held_out"), strict=True):
        turns, mistake = trajectory(rng, question, wrong_share)
        answered = {"responses": [turns], "finish_reasons": ["stop"], "mistake": mistake}
        held_out.append({**row, **answered})
    return held_out


def corpus_rows(rng, size, held_out):
    """held_out: texts of questions that the base model must not see."""
    documents = []
    while len(documents) < size:
        question = questions.question(rng)
        if question.text in held_out:
            continue
        turns = solutions.right(question, rng, RETRY_RATE)
        # The base model learns what follows "Answer:". Of the numbers there only the tool's outputs
        # cannot be copied.
        answer = trajectories.text(turns)
        documents.append({"text": f"Question: {question.text}\nAnswer:\n{answer}"})
    return documents


def main():
    args = parse_arguments()
    out = Path(args.output_dir)
    rng = random.Random(args.seed)
    sizes = {
        "test": args.test,
        "validation": args.validation,
        "held_out": args.held_out,
        "instructions": args.instructions,
        "prompts": args.prompts,
    }
    drawn = draw_questions(rng, sizes, out)
    unseen = drawn["test"] + drawn["validation"] + drawn["held_out"]
    unseen_texts = {question.text for question in unseen}

    # All draw from rng: their order decides what a seed gives.
    corpus = corpus_rows(rng, args.corpus, unseen_texts)
    instructions = instruction_rows(rng, drawn["instructions"], args.wrong_share)
    held_out = held_out_rows(rng, drawn["held_out"], args.wrong_share)
    evaluation = [
        *prompt_rows(drawn["validation"], "validation", split="validation"),
        *prompt_rows(drawn["test"], "test", split="test"),
    ]

    rows.write(out / "corpus.jsonl", corpus)
    rows.write(out / "instructions.jsonl", instructions)
    rows.write(out / "held_out.jsonl", held_out)
    rows.write(out / "prompts.jsonl", prompt_rows(drawn["prompts"], "prompt"))
    rows.write(out / "withheld.jsonl", withheld_rows(drawn["test"]))
    # The last, because a world that has evaluation.jsonl is complete.
    rows.write(out / "evaluation.jsonl", evaluation)

    wrong = sum(bool(row["mistake"]) for row in instructions)
    print(
        f"{out}: {len(corpus)} documents, {len(instructions)} instructions, {wrong} of them wrong, "
        f"{len(held_out)} held out, {args.prompts} prompts, {len(evaluation)} evaluation rows"
    )


if __name__ == "__main__":
    main()
