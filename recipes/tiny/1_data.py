"""Make the data of the tiny world: short questions from templates, with a right and a wrong answer.

Such as {"kind": "add", "text": "What is 2 plus 3?", "answer": "5", "wrong": "6"}: `kind` is the
template's, `wrong` a plausible wrong answer (world.py). No question is in two of instructions,
preferences, prompts, evaluation and bench; the ratings are of the preferences' questions, the
benchmarks of the evaluation's test questions. The base model's corpus is drawn independently and
excludes only the held-out questions (evaluation and bench), as a web corpus would.

Writes, in --output_dir:
    corpus.jsonl        {"text"}, plain questions and answers, 5% of them wrong: what the base model
                        is trained on
    instructions.jsonl  {"id", "messages", "source"}: 35% wrong, and many bare or rambling answers,
                        so that there is room above the fine-tuned policy
    preferences.jsonl   {"id", "prompt", "chosen", "rejected", "source", "answer"}: a right answer
                        against a wrong one in the same style, and one of the two against any; a
                        rater of true_reward.py orders them
    ratings.jsonl       {"id", "messages", "ratings", "source"}: answers to the questions of the
                        preferences, half of them with up to ten sentences more, so that the length
                        varies, rated by the parts of the true reward and by "verbosity",
                        characters / 60; one rating in five is missing
    prompts.jsonl       {"id", "prompt", "source", "answer"}: the pool of all rounds
    evaluation.jsonl    the same with "split": "validation" or "test"
    bench.jsonl         {"id", "prompt", "chosen", "rejected", "section", "subset", "answer"}: pairs
                        in the order of the true reward, in the sections Correct (right and wrong in
                        one style), Manner (both right), Length (the same bare answer, short and
                        rambling), Hard (bare and right, well-mannered and wrong)
    benchmarks/         the benchmarks of benchmark_sets.py, which ask the test questions

    python recipes/tiny/1_data.py --output_dir runs/tiny/world --seed 0
"""

import random
import sys
from pathlib import Path

import benchmark_sets
import true_reward
import world
from common import arguments, rows

NAMES = "corpus instructions preferences ratings bench prompts evaluation".split()
FILES = [f"{name}.jsonl" for name in NAMES]


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_output("--output_dir", "folder", FILES, required=True)
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    parser.add_argument(
        "--corpus",
        type=arguments.whole(1),
        default=75_000,
        help="documents of the base model's corpus",
    )
    parser.add_argument("--instructions", type=arguments.whole(1), default=5000)
    parser.add_argument(
        "--preferences", type=arguments.whole(1), default=10_000, help="prompts, two pairs each"
    )
    parser.add_argument(
        "--ratings",
        type=arguments.whole(1),
        default=6000,
        help="rated answers, to as many questions at most",
    )
    parser.add_argument("--prompts", type=arguments.whole(1), default=3900)
    parser.add_argument("--validation", type=arguments.whole(1), default=200)
    parser.add_argument("--test", type=arguments.whole(1), default=600)
    parser.add_argument(
        "--bench", type=arguments.whole(1), default=150, help="questions, a pair for each section"
    )
    return parser.parse_args()


def draw_questions(rng, sizes, out):
    """{name: questions} of these sizes, {name: count}; no text of a question comes twice."""
    total = sum(sizes.values())
    by_text = {}
    for _ in range(100 * total):
        if len(by_text) == total:
            break
        question = world.question(rng)
        by_text.setdefault(question["text"], question)
    else:
        sys.exit(f"{out}: the world has not {total} different questions")
    questions = list(by_text.values())
    # Kinds with few questions are used up early: the first set would have most of them.
    rng.shuffle(questions)
    sets = {}
    start = 0
    for name, size in sizes.items():
        sets[name] = questions[start : start + size]
        start += size
    return sets


# Rows


def prompt_rows(questions, name, **fields):
    """Yield a row for each question. name: the first part of its id; fields: what else it holds."""
    for i, question in enumerate(questions):
        yield {
            "id": f"{name}-{i}",
            "prompt": [{"role": "user", "content": question["text"]}],
            "source": question["kind"],
            "answer": question["answer"],
            **fields,
        }


def with_rows(questions, name):
    """(question, its row) of each."""
    return zip(questions, prompt_rows(questions, name), strict=True)


def assistant(text):
    return [{"role": "assistant", "content": text}]


# The weights below are those of world.STYLES: bare, sentence, reasoned, rambling.


def corpus_rows(rng, size, held_out):
    """held_out: texts of questions that the base model must not see."""
    documents = []
    while len(documents) < size:
        question = world.question(rng)
        if question["text"] not in held_out:
            answer = world.answered(question, rng, wrong_rate=0.05, weights=[3, 3, 3, 1])
            documents.append({"text": f"Question: {question['text']}\nAnswer:\n{answer}"})
    return documents


def instruction_rows(rng, questions):
    instructions = []
    for question, row in with_rows(questions, "sft"):
        answer = world.answered(question, rng, wrong_rate=0.35, weights=[5, 3, 1, 2])
        messages = row["prompt"] + assistant(answer)
        instructions.append({"id": row["id"], "messages": messages, "source": row["source"]})
    return instructions


def preference_rows(rng, questions):
    """Two pairs for each question, in the order of a rater."""
    preferences = []
    for question, row in with_rows(questions, "preference"):
        style = rng.choice(world.STYLES)
        right = style(question, question["answer"], rng)
        wrong = style(question, question["wrong"], rng)
        any_answer = world.answered(question, rng, wrong_rate=0.5, weights=[1, 1, 1, 1])
        # The first pair teaches what is right, the second also how it is said.
        pairs = [(right, wrong), (rng.choice([right, wrong]), any_answer)]
        for i, (first, second) in enumerate(pairs):
            probability = true_reward.probability_preferred(first, second, question["answer"])
            if rng.random() < probability:
                chosen, rejected = first, second
            else:
                chosen, rejected = second, first
            pair = {
                **row,
                "id": f"{row['id']}-{i}",
                "chosen": assistant(chosen),
                "rejected": assistant(rejected),
            }
            preferences.append(pair)
    return preferences


def rating_rows(rng, questions):
    rated = []
    for question, row in with_rows(questions, "rating"):
        text = world.answered(question, rng, wrong_rate=0.5, weights=[1, 1, 1, 0])
        sentences = rng.choice([0, rng.randint(0, 10)])
        text = world.with_filler(text, sentences, rng)
        ratings = true_reward.parts(text, question["answer"])
        ratings["verbosity"] = len(text) / 60
        # As in real data, not every answer is rated by every attribute.
        for name in ratings:
            if rng.random() < 0.2:
                ratings[name] = None
        messages = row["prompt"] + assistant(text)
        rated.append(
            {"id": row["id"], "messages": messages, "ratings": ratings, "source": row["source"]}
        )
    return rated


def bench_rows(rng, questions):
    """A pair for each question and section, (better, worse) by the true reward."""
    by_manner = [world.reasoned, world.sentence, world.bare]  # the best first
    bench = []
    for question, row in with_rows(questions, "bench"):
        right = question["answer"]
        wrong = question["wrong"]
        styles = rng.sample([world.bare, world.sentence, world.reasoned], 2)
        style = styles[0]
        better_style, worse_style = sorted(styles, key=by_manner.index)
        short = world.bare(question, right, rng)
        pairs = {
            "Correct": (style(question, right, rng), style(question, wrong, rng)),
            "Manner": (better_style(question, right, rng), worse_style(question, right, rng)),
            "Length": (short, world.with_filler(short, 5, rng)),
            "Hard": (short, world.reasoned(question, wrong, rng)),
        }
        for section, (better, worse) in pairs.items():
            pair = {
                **row,
                "id": f"{row['id']}-{section}",
                "section": section,
                "subset": row["source"],
                "chosen": assistant(better),
                "rejected": assistant(worse),
            }
            bench.append(pair)
    return bench


def main():
    args = parse_arguments()
    out = Path(args.output_dir)
    rng = random.Random(args.seed)
    sizes = {
        "test": args.test,
        "validation": args.validation,
        "instructions": args.instructions,
        "preferences": args.preferences,
        "prompts": args.prompts,
        "bench": args.bench,
    }
    questions = draw_questions(rng, sizes, out)
    held_out = questions["test"] + questions["validation"] + questions["bench"]
    held_out_texts = {question["text"] for question in held_out}

    # All draw from rng: their order decides what a seed gives.
    corpus = corpus_rows(rng, args.corpus, held_out_texts)
    instructions = instruction_rows(rng, questions["instructions"])
    preferences = preference_rows(rng, questions["preferences"])
    ratings = rating_rows(rng, questions["preferences"][: args.ratings])
    bench = bench_rows(rng, questions["bench"])
    evaluation = [
        *prompt_rows(questions["validation"], "validation", split="validation"),
        *prompt_rows(questions["test"], "test", split="test"),
    ]

    rows.write(out / "corpus.jsonl", corpus)
    rows.write(out / "instructions.jsonl", instructions)
    rows.write(out / "preferences.jsonl", preferences)
    rows.write(out / "ratings.jsonl", ratings)
    rows.write(out / "bench.jsonl", bench)
    rows.write(out / "prompts.jsonl", prompt_rows(questions["prompts"], "prompt"))
    # A generator of its own: the benchmarks' draws depend on no size of the files above.
    benchmark_rng = random.Random(f"{args.seed} benchmarks")
    benchmark_sizes = benchmark_sets.write(out / "benchmarks", questions["test"], benchmark_rng)
    # The last, because a world that has evaluation.jsonl is complete.
    rows.write(out / "evaluation.jsonl", evaluation)

    counts = [
        f"{len(corpus)} documents",
        f"{len(instructions)} instructions",
        f"{len(preferences)} preferences",
        f"{len(ratings)} ratings",
        f"{args.prompts} prompts",
        f"{len(evaluation)} evaluation and {len(bench)} bench rows",
    ]
    counts += [f"{size} of {name}" for name, size in benchmark_sizes.items()]
    print(f"{out}: {', '.join(counts)}")


if __name__ == "__main__":
    main()
