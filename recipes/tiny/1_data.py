"""Make the data of the tiny world: no question of the evaluation sets, of a round or of a stage stands in another.

The base model's corpus is drawn apart and avoids the evaluation questions only, as a web corpus would.

Writes, in --output_dir:
    corpus.jsonl        {"text"}, plain questions and answers, 5% of them wrong: what the base model is trained on
    instructions.jsonl  {"id", "messages", "source"}: 35% wrong, and many bare or rambling answers, so that there is
                        room above the fine-tuned policy
    preferences.jsonl   {"id", "prompt", "chosen", "rejected", "source", "answer"}: a right answer against a wrong one
                        in the same style, and one of the two against any; a rater of true_reward.py orders them
    ratings.jsonl       {"id", "messages", "ratings", "source"}: answers to the questions of the preferences, half
                        of them with up to ten sentences more, so that the length varies, rated by the parts of the true
                        reward and by "verbosity", characters / 60; one rating in five is missing
    prompts.jsonl       {"id", "prompt", "source", "answer"}: the pool of all rounds
    evaluation.jsonl    the same with "split": "validation" or "test"
    bench.jsonl         {"id", "prompt", "chosen", "rejected", "section", "subset", "answer"}: pairs in the order of the
                        true reward, in the sections Correct (right and wrong in one style), Manner (both right), Length
                        (the same bare answer, short and rambling), Hard (bare and right, well-mannered and wrong)
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

FILES = [
    f"{name}.jsonl"
    for name in "corpus instructions preferences ratings bench prompts evaluation".split()
]


def main():
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
    args = parser.parse_args()
    rng, out = random.Random(args.seed), Path(args.output_dir)

    sizes = [
        args.test,
        args.validation,
        args.instructions,
        args.preferences,
        args.prompts,
        args.bench,
    ]
    asked = {}
    for _ in range(100 * sum(sizes)):
        if len(asked) == sum(sizes):
            break
        q = world.question(rng)
        asked.setdefault(q["text"], q)
    else:
        sys.exit(f"{out}: the world has not {sum(sizes)} different questions")
    questions = list(asked.values())
    rng.shuffle(questions)
    test, validation, instructed, compared, pool, benched = (
        questions[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))
    )

    def prompts(part, name, **more):
        for i, q in enumerate(part):
            message = {"role": "user", "content": q["text"]}
            yield {
                "id": f"{name}-{i}",
                "prompt": [message],
                "source": q["kind"],
                "answer": q["answer"],
                **more,
            }

    def assistant(text):
        return [{"role": "assistant", "content": text}]

    held_out = {q["text"] for q in test + validation + benched}
    corpus = []
    while len(corpus) < args.corpus:
        q = world.question(rng)
        if q["text"] not in held_out:
            answer = world.answered(q, rng, wrong=0.05, weights=[3, 3, 3, 1])
            corpus.append({"text": f"Question: {q['text']}\nAnswer:\n{answer}"})

    instructions = []
    for row, q in zip(prompts(instructed, "sft"), instructed, strict=True):
        answer = world.answered(q, rng, wrong=0.35, weights=[5, 3, 1, 2])
        instructions.append(
            {
                "id": row["id"],
                "messages": row["prompt"] + assistant(answer),
                "source": row["source"],
            }
        )

    preferences = []
    for row, q in zip(prompts(compared, "preference"), compared, strict=True):
        style = rng.choice(world.STYLES)
        answers = [style(q, q[answer], rng) for answer in ("answer", "wrong")]
        answers.append(world.answered(q, rng, wrong=0.5, weights=[1, 1, 1, 1]))
        for i, (first, second) in enumerate([answers[:2], [rng.choice(answers[:2]), answers[2]]]):
            preferred = rng.random() < true_reward.probability_preferred(first, second, q["answer"])
            chosen, rejected = (first, second) if preferred else (second, first)
            pair = {
                "id": f"{row['id']}-{i}",
                "chosen": assistant(chosen),
                "rejected": assistant(rejected),
            }
            preferences.append({**row, **pair})

    ratings = []
    for row, q in zip(prompts(compared[: args.ratings], "rating"), compared, strict=False):
        text = world.answered(q, rng, wrong=0.5, weights=[1, 1, 1, 0])
        text = " ".join([text, *rng.sample(world.FILLER, rng.choice([0, rng.randint(0, 10)]))])
        rated = true_reward.parts(text, q["answer"]) | {"verbosity": len(text) / 60}
        rated = {name: None if rng.random() < 0.2 else value for name, value in rated.items()}
        messages = row["prompt"] + assistant(text)
        ratings.append(
            {"id": row["id"], "messages": messages, "ratings": rated, "source": row["source"]}
        )

    bench = []
    for row, q in zip(prompts(benched, "bench"), benched, strict=True):
        styles = rng.sample([world.bare, world.sentence, world.reasoned], 2)
        better, worse = sorted(styles, key=[world.reasoned, world.sentence, world.bare].index)
        short = world.bare(q, q["answer"], rng)
        pairs = {
            "Correct": [styles[0](q, q[answer], rng) for answer in ("answer", "wrong")],
            "Manner": [style(q, q["answer"], rng) for style in (better, worse)],
            "Length": [short, " ".join([short, *rng.sample(world.FILLER, 5)])],
            "Hard": [short, world.reasoned(q, q["wrong"], rng)],
        }
        for section, (chosen, rejected) in pairs.items():
            about = {"id": f"{row['id']}-{section}", "section": section, "subset": row["source"]}
            bench.append(
                {**row, **about, "chosen": assistant(chosen), "rejected": assistant(rejected)}
            )

    evaluation = [
        *prompts(validation, "validation", split="validation"),
        *prompts(test, "test", split="test"),
    ]
    rows.write(out / "corpus.jsonl", corpus)
    rows.write(out / "instructions.jsonl", instructions)
    rows.write(out / "preferences.jsonl", preferences)
    rows.write(out / "ratings.jsonl", ratings)
    rows.write(out / "bench.jsonl", bench)
    rows.write(out / "prompts.jsonl", prompts(pool, "prompt"))
    sets = benchmark_sets.write(out / "benchmarks", test, random.Random(f"{args.seed} benchmarks"))
    rows.write(
        out / "evaluation.jsonl", evaluation
    )  # the last: where it stands, the world is whole
    told = f"{len(corpus)} documents, {len(instructions)} instructions, {len(preferences)} preferences, "
    told += f"{len(ratings)} ratings, {args.prompts} prompts, {len(evaluation)} evaluation and {len(bench)} bench rows"
    print(f"{out}: {told}", *(f"{count} of {name}" for name, count in sets.items()), sep=", ")


if __name__ == "__main__":
    main()
