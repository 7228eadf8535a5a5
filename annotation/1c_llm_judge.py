"""Let a language model judge the responses, on any server that speaks OpenAI's protocol (paper, Table 1: prompting).

What it is asked stands in judge_prompts.toml. --method rating asks for a number for each response, its reward. The
others ask which of two responses is better, in both orders, and take the mean. In the tournament each response meets
the best so far, then the others meet the worst so far; the best gets reward 1, the worst 0, the rest 0.5, and all 0.5
where no comparison had a winner. In all_pairs each meets each; the reward is the mean probability to win. The judge's
thoughts, before </think>, hold no verdict; one that was cut off wants a higher --max_tokens. A reply without one clear
verdict is counted and never guessed; a comparison counts if both its replies have one. A row is dropped and counted if
a response has no rating, if the tournament lacks a comparison, or if a response is in none. A request that the server
refuses costs its row (common/judge.py says which errors end the run). Replies are on disk as they arrive: whatever
stopped the run, the same command goes on and asks nothing twice. A key is read from OPENAI_API_KEY.

Reads:  --responses_file, {"id", "prompt", "responses", "finish_reasons", ...}; the judge sees prompt and responses only
Writes: --output_file, the same rows with "rewards", one for each response, "annotator", the judge's name, and
        "judgement": [{"response": i, "rating", "reply": the judge's words}], or [{"a": i, "b": j, "probability": that
        response i is better than response j, or null, "replies": [i shown first, j shown first]}]
        Rows that were dropped, with what the judge said, stand in --output_file.dropped.jsonl

    python annotation/1c_llm_judge.py --judge_url http://localhost:8000/v1 --judge_model true_reward --n 8 \
        --responses_file runs/tiny/iter1/responses.jsonl --output_file runs/tiny/iter1/rewards.jsonl
"""

import asyncio
import itertools
import re
import sys
import time
import tomllib
from collections import Counter, deque
from pathlib import Path

from common import arguments, judge, rows, shards, thoughts

PLACEHOLDERS = {
    "pairwise": ["{prompt}", "{answer_a}", "{answer_b}"],
    "rating": ["{prompt}", "{answer}"],
}
WINS = {"A": 1, "B": 0, "C": 0.5}  # of the response that is shown first

# A method takes the number of responses and `ask`, which shows the judge one response, or two in that order, and gives
# (the verdict's value or None, the reply). It returns (the rewards or None, the judgement).


async def rating(n, ask):
    replies = await asyncio.gather(*(ask(i) for i in range(n)))
    rewards = [value for value, _ in replies]
    judgement = [
        {"response": i, "rating": value, "reply": reply} for i, (value, reply) in enumerate(replies)
    ]
    return None if None in rewards else rewards, judgement


async def comparison(ask, i, j):
    (wins, first), (loses, second) = await asyncio.gather(ask(i, j), ask(j, i))
    probability = None if None in (wins, loses) else (wins + 1 - loses) / 2
    return {"a": i, "b": j, "probability": probability, "replies": [first, second]}


async def tournament(n, ask):
    made, found = {}, []
    for place in (0, 1):  # the best of all, then the worst of the others
        left = [i for i in range(n) if i not in found]
        while len(left) > 1:
            i, j, *rest = left
            made[i, j] = entry = made.get((i, j)) or await comparison(ask, i, j)
            if entry["probability"] is None:
                return None, [*made.values()]
            left = [((i, j) if entry["probability"] >= 0.5 else (j, i))[place], *rest]
        found += left
    tied = all(entry["probability"] == 0.5 for entry in made.values())
    return [0.5 if tied else {found[0]: 1.0, found[1]: 0.0}.get(i, 0.5) for i in range(n)], [
        *made.values()
    ]


async def all_pairs(n, ask):
    judgement = await asyncio.gather(
        *(comparison(ask, i, j) for i, j in itertools.combinations(range(n), 2))
    )
    counted = [
        (e["a"], e["b"], e["probability"]) for e in judgement if e["probability"] is not None
    ]
    wins = [[p if i == a else 1 - p for a, b, p in counted if i in (a, b)] for i in range(n)]
    return [sum(won) / len(won) for won in wins] if all(wins) else None, judgement


def verdict(reply, cut_off, kind, scale):
    """The rating, or the share of a win of the response shown first; None without one clear verdict.

    cut_off: the reply ended at --max_tokens, so without the end of a thought it may be all thought: the mark of its
    start may stand in the judge's template.
    """
    said = thoughts.without_thoughts(reply, unfinished=cut_off)
    if kind == "rating":
        verdicts = set(judge.ratings(said, *scale))
    else:
        verdicts = {WINS[word] for word in judge.verdicts(said, "([ABC])")}
    return verdicts.pop() if len(verdicts) == 1 else None


def prompts_of(path):
    """The table of judge_prompts.toml, checked."""
    try:
        prompts = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {getattr(error, 'strerror', None) or error}")
    for kind, placeholders in PLACEHOLDERS.items():
        if missing := [text for text in placeholders if text not in str(prompts.get(kind))]:
            sys.exit(f"{path}: {kind}: {missing[0]} is missing")
        if not isinstance(prompts[kind], str):
            sys.exit(f"{path}: {kind}: not a text")
    scale = prompts.get("scale")
    if not (
        isinstance(scale, list)
        and len(scale) == 2
        and all(map(rows.is_number, scale))
        and scale[0] < scale[1]
    ):
        sys.exit(f"{path}: scale: not two numbers, the lower first")
    return prompts


def main():
    parser = arguments.Parser(__doc__)
    methods = {method.__name__: method for method in (rating, tournament, all_pairs)}
    judge.add_flags(parser)
    parser.add_argument("--responses_file", required=True)
    parser.add_output("--output_file", suffixes=[".dropped.jsonl"], required=True)
    parser.add_argument(
        "--n",
        type=arguments.whole(0),
        help="responses of every row (default: as the first; 0: any)",
    )
    parser.add_argument(
        "--method", choices=[*methods], default="rating", help="what the judge is asked"
    )
    parser.add_argument(
        "--prompts_file", default=str(Path(__file__).with_name("judge_prompts.toml"))
    )
    parser.add_argument(
        "--max_tokens", type=arguments.whole(1), default=1024, help="tokens of a reply"
    )
    args = shards.parse(parser)
    prompts = prompts_of(args.prompts_file)
    kind = "rating" if args.method == "rating" else "pairwise"

    def answered():  # read twice, to check it all before the first request; memory does not grow with the file
        shares = args.shard, None, args.num_shards
        return itertools.islice(rows.read(args.responses_file, "responses", n=args.n), *shares)

    sizes = {row["id"]: len(row["responses"]) for row in answered()}
    if kind == "pairwise" and 1 in sizes.values():
        sys.exit(f"{args.responses_file}: responses: 1, a comparison needs two")

    # Finished rows go to the writer, in order; every reply goes to the journal as it arrives.
    manner = ("judge_url", "concurrency", "timeout", "max_retries", "max_refused")
    settings = rows.fingerprint(
        [str(value) for name, value in vars(args).items() if name not in manner]
    )
    writer, journal = (
        rows.Writer(args.output_file, name) for name in (settings, f"{settings}-replies")
    )
    replied = rows.read(journal.partial, "rows") if journal.done else ()
    known = {}  # {request: (reply, whether it was cut off)}
    for entry in replied:
        if entry.get("row") not in writer.done:
            known[entry["id"]] = str(entry.get("reply")), bool(entry.get("cut_off"))
    left = [n for name, n in sizes.items() if name not in writer.done]
    most = [
        {"rating": n, "tournament": 2 * (2 * n - 3), "all_pairs": n * (n - 1)}[args.method]
        for n in left
    ]
    told = f"at most {sum(most) - len(known)} requests for {len(left)} rows"
    print(f"{args.judge_model} at {args.judge_url}: {told}", flush=True)
    start, counts, unparsable, left_out = time.time(), Counter(), [], []

    async def annotate():
        asked = judge.Judge(args, sum(most) - len(known), answered=len(known))

        async def ask(row, *places):
            name = " ".join(map(str, (row["id"], *places)))
            reply, cut_off = known.pop(name, (None, False))
            if reply is None:
                prompt = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in row["prompt"])
                texts = dict(
                    zip(
                        PLACEHOLDERS[kind],
                        [prompt, *(row["responses"][i] for i in places)],
                        strict=True,
                    )
                )
                question = re.sub(
                    "|".join(map(re.escape, texts)), lambda found: texts[found[0]], prompts[kind]
                )
                request = {"messages": [{"role": "user", "content": question}], "temperature": 0}
                choice, reason = await asked.ask(
                    {**request, "max_completion_tokens": args.max_tokens}
                )
                if not choice:
                    return None, f"refused: {reason}"
                reply, cut_off = choice["text"], choice.get("finish_reason") == "length"
                journal.add([{"id": name, "row": row["id"], "reply": reply, "cut_off": cut_off}])
                counts["requests"] += 1
            value = verdict(reply, cut_off, kind, prompts["scale"])
            if value is None:
                unparsable.append(reply[:200])
            return value, reply

        async def judged(row):
            rewards, judgement = await methods[args.method](
                sizes[row["id"]], lambda *places: ask(row, *places)
            )
            return {
                **row,
                "rewards": rewards,
                "annotator": args.judge_model,
                "judgement": judgement,
            }

        tasks = (
            asyncio.create_task(judged(row)) for row in answered() if row["id"] not in writer.done
        )
        running = deque(itertools.islice(tasks, 2 * args.concurrency))
        while running:
            row = await running.popleft()
            if asked.stopped:  # the rest is only waited for
                continue
            running.extend(itertools.islice(tasks, 1))
            writer.add([row]) if row["rewards"] else left_out.append(row)
            counts["rows"] += 1
            done, seconds = counts["rows"], time.time() - start
            if done % 100 == 0 or done == len(left):
                told, wait = (
                    f"{counts['requests'] / seconds:.0f} requests/s",
                    seconds / done * (len(left) - done),
                )
                end = "\r" if sys.stdout.isatty() else "\n"
                print(f"{done} of {len(left)} rows, {told}, {wait:.0f} s left", end=end, flush=True)

        return asked

    asked = asyncio.run(annotate())
    refused = asked.refused
    if asked.stopped:
        sys.exit(
            f"{args.judge_url}: {asked.stopped}; what has been answered is kept, the same command goes on"
        )
    lost = f"replies without verdict: {len(unparsable)}, requests refused: {len(refused)}"
    dropped = Path(f"{args.output_file}.dropped.jsonl")
    if left_out:
        rows.write(dropped, left_out)
    else:
        dropped.unlink(missing_ok=True)  # of an earlier run
    if sizes and len(left_out) == len(sizes) and args.num_shards == 1:
        sys.exit(
            f"{args.responses_file}: no row is left; {lost}, such as {(refused + unparsable)[0]!r}"
        )
    journal.file.close()
    writer.finish()
    told = f"finished before: {len(writer.done)}, requests: {counts['requests']}, {lost}, dropped: {len(left_out)}"
    told += f", rows out: {len(sizes) - len(left_out)}, {time.time() - start:.1f} s"
    print(f"{args.output_file} rows in: {len(sizes)}, {told}")


if __name__ == "__main__":
    main()
