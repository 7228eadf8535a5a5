"""Let a language model on an OpenAI-compatible server judge the responses (paper, Table 1).

The judge's prompts are in judge_prompts.toml. Three methods:

    rating       a number for each response, its reward
    tournament   pairwise: each response meets the best so far, then the others meet the worst so
                 far; the best gets reward 1, the worst 0, the rest 0.5, and all 0.5 where no
                 comparison had a winner
    all_pairs    pairwise: each meets each; the reward is the mean win probability over the valid
                 comparisons of a response

A pair is compared in both orders, and the results are averaged. The verdict is read after the
judge's thoughts (</think>); raise --max_tokens where they are cut off. A reply without one clear
verdict, and a request that the server refuses, are counted and never guessed; they invalidate their
rating or comparison. A row is dropped and counted if a response has no rating, if the tournament
lacks a comparison, or if a response is in no valid comparison. common/judge.py says which errors
end the run. Replies are on disk as they arrive: after an interruption the same command resumes and
pays for no reply twice. The API key is read from OPENAI_API_KEY.

Reads:  --responses_file, {"id", "prompt", "responses", "finish_reasons", ...}; the judge sees
        prompt and responses only
Writes: --output_file, the same rows with "rewards", one for each response, "annotator", the judge's
        name, and "judgement": [{"response": i, "rating", "reply": the judge's text}], or
        [{"a": i, "b": j, "probability": that response i is better than response j, or null,
        "replies": [i shown first, j shown first]}]
        Dropped rows, with the judge's replies, are in --output_file.dropped.jsonl

    python annotation/1c_llm_judge.py --n 8 \
        --judge_url http://localhost:8000/v1 --judge_model true_reward \
        --responses_file runs/tiny/iter1/responses.jsonl \
        --output_file runs/tiny/iter1/rewards.jsonl
"""

import asyncio
import functools
import itertools
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import judge_prompts
import tournament
from common import arguments, judge, rows, shards, thoughts
from common.progress import Progress

WINS = {"A": 1, "B": 0, "C": 0.5}  # of the response that is shown first; C: a tie
# A resumed run may change these: they say how the server is reached, not what the requests hold.
RUNTIME_FLAGS = ("judge_url", "concurrency", "timeout", "max_retries", "max_refused")


@dataclass
class Reply:
    text: str
    cut_off: bool  # it ended at --max_tokens


@dataclass
class Verdict:
    value: float | None  # the rating, or the win of the response shown first; None: unclear
    reply: str  # the judge's text, or why the server refused the request


# The methods. Each takes n, the number of a row's responses, and `ask`: ask(i) shows the judge one
# response, ask(i, j) two in that order, and gives its Verdict. Each returns (rewards, judgement);
# rewards of None drop the row.


async def rating(n, ask):
    verdicts = await asyncio.gather(*(ask(i) for i in range(n)))
    rewards = []
    judgement = []
    for i, verdict in enumerate(verdicts):
        rewards.append(verdict.value)
        judgement.append({"response": i, "rating": verdict.value, "reply": verdict.reply})
    if None in rewards:
        return None, judgement
    return rewards, judgement


async def compare(ask, i, j):
    """The entry of the judgement for responses i and j, each shown first once."""
    i_first, j_first = await asyncio.gather(ask(i, j), ask(j, i))
    probability = None
    if i_first.value is not None and j_first.value is not None:
        probability = (i_first.value + 1 - j_first.value) / 2
    replies = [i_first.reply, j_first.reply]
    return {"a": i, "b": j, "probability": probability, "replies": replies}


async def linear_tournament(n, ask):
    """A match without a probability ends the tournament: who plays next depends on it."""
    bracket = tournament.linear(n)
    judgement = []
    probability = None  # what a generator is sent to start it
    while True:
        try:
            i, j = bracket.send(probability)
        except StopIteration as end:
            return end.value, judgement
        match = await compare(ask, i, j)
        judgement.append(match)
        probability = match["probability"]
        if probability is None:
            return None, judgement


async def all_pairs(n, ask):
    pairs = itertools.combinations(range(n), 2)
    judgement = await asyncio.gather(*(compare(ask, i, j) for i, j in pairs))
    wins = [[] for _ in range(n)]  # win probabilities of each response, by match
    for match in judgement:
        probability = match["probability"]
        if probability is not None:
            wins[match["a"]].append(probability)
            wins[match["b"]].append(1 - probability)
    if not all(wins):  # a response without a valid comparison
        return None, judgement
    return [sum(won) / len(won) for won in wins], judgement


METHODS = {"rating": rating, "tournament": linear_tournament, "all_pairs": all_pairs}


def prompt_kind(method):
    """The key of a method's prompt in judge_prompts.toml."""
    return "rating" if method == "rating" else "pairwise"


def max_requests(method, n):
    """Requests that a row of n responses needs at most."""
    if method == "rating":
        return n
    # Of a tournament: n - 1 for the best, n - 2 for the worst.
    comparisons = 2 * n - 3 if method == "tournament" else n * (n - 1) // 2
    return 2 * comparisons  # both orders


def parse_verdict(reply, kind, scale):
    """The rating, or the win of the response shown first; None without one clear verdict."""
    # A truncated reply without </think> may be all thought, even without <think>: the judge's chat
    # template may have written it.
    answer = thoughts.without_thoughts(reply.text, unfinished=reply.cut_off)
    if kind == "rating":
        verdicts = set(judge.ratings(answer, *scale))
    else:
        verdicts = {WINS[letter] for letter in judge.verdicts(answer, "([ABC])")}
    return verdicts.pop() if len(verdicts) == 1 else None


class Annotator:
    """Asks the judge about the responses of rows; every reply is in the journal as it arrives."""

    def __init__(self, args, prompts, client, journal, earlier_replies):
        self.method = METHODS[args.method]
        self.kind = prompt_kind(args.method)
        self.judge_name = args.judge_model
        self.max_tokens = args.max_tokens
        self.prompts = prompts
        self.client = client
        self.journal = journal
        self.earlier_replies = earlier_replies
        self.requests = 0
        self.unparsable = []  # the first 200 characters of replies without a verdict

    async def annotate(self, row):
        """The row with its "rewards", None if it is to be dropped."""
        ask = functools.partial(self.ask, row)
        rewards, judgement = await self.method(len(row["responses"]), ask)
        annotation = {"rewards": rewards, "annotator": self.judge_name, "judgement": judgement}
        return {**row, **annotation}

    async def ask(self, row, *shown):
        """The Verdict on one response of a row, or on two in that order; shown: their indexes."""
        key = " ".join(map(str, (row["id"], *shown)))
        reply = self.earlier_replies.pop(key, None)
        if reply is None:
            choice, reason = await self.client.ask(self.request(row, shown))
            if not choice:
                return Verdict(None, f"refused: {reason}")
            reply = Reply(choice["text"], choice.get("finish_reason") == "length")
            self.record(key, row, reply)
        value = parse_verdict(reply, self.kind, self.prompts["scale"])
        if value is None:
            self.unparsable.append(reply.text[:200])
        return Verdict(value, reply.text)

    def request(self, row, shown):
        responses = [row["responses"][i] for i in shown]
        template = self.prompts[self.kind]
        question = judge_prompts.fill_in(template, self.kind, row["prompt"], responses)
        return {
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_completion_tokens": self.max_tokens,
        }

    def record(self, key, row, reply):
        entry = {"id": key, "row": row["id"], "reply": reply.text, "cut_off": reply.cut_off}
        self.journal.add([entry])
        self.requests += 1

    def failures(self):
        return (
            f"replies without verdict: {len(self.unparsable)}, "
            f"requests refused: {len(self.client.refused)}"
        )


async def annotate_rows(annotator, args, writer, progress):
    """Write the annotated rows in the order of the file; returns the rows that are dropped."""
    todo = (row for row in read_rows(args) if row["id"] not in writer.done)
    # A task starts when it is taken from here.
    tasks = (asyncio.create_task(annotator.annotate(row)) for row in todo)
    # Enough rows at once to keep every slot of the judge busy; memory does not grow with the file.
    running = deque(itertools.islice(tasks, 2 * args.concurrency))
    dropped = []
    done = 0
    while running:
        row = await running.popleft()
        if annotator.client.stopped:
            # No new row starts. Those under way end at their next request; the replies so far
            # are in the journal.
            continue
        running.extend(itertools.islice(tasks, 1))
        if row["rewards"]:
            writer.add([row])
        else:
            dropped.append(row)
        done += 1
        if done % 100 == 0 or done == progress.total:
            requests_per_second = annotator.requests / progress.seconds()
            progress.show(done, rate=f"{requests_per_second:.0f} requests/s")
    return dropped


def read_rows(args):
    return shards.own_rows(rows.read(args.responses_file, "responses", n=args.n), args)


def count_responses(args):
    """{id: number of responses} of this shard's rows; all of them are checked."""
    counts = {row["id"]: len(row["responses"]) for row in read_rows(args)}
    if prompt_kind(args.method) == "pairwise" and 1 in counts.values():
        sys.exit(f"{args.responses_file}: responses: 1, a comparison needs two")
    return counts


def run_fingerprint(args):
    """A hash of all settings that decide the output; it is part of the unfinished files' names."""
    settings = [str(value) for name, value in vars(args).items() if name not in RUNTIME_FLAGS]
    return rows.fingerprint(settings)


def replies_of_earlier_run(journal, finished):
    """{request: Reply} of a run that was interrupted, without those about finished rows.

    A row that it dropped is not finished: it is judged once more, by the same replies.
    """
    replies = {}
    if not journal.done:
        return replies
    for entry in rows.read(journal.partial, "rows"):
        if entry.get("row") not in finished:
            replies[entry["id"]] = Reply(str(entry.get("reply")), bool(entry.get("cut_off")))
    return replies


def write_dropped(path, dropped):
    if dropped:
        rows.write(path, dropped)
    else:
        # Those of an earlier run do not belong to these rewards.
        path.unlink(missing_ok=True)


def parse_arguments():
    parser = arguments.Parser(__doc__)
    judge.add_flags(parser)
    parser.add_argument("--responses_file", required=True)
    parser.add_output("--output_file", suffixes=[".dropped.jsonl"], required=True)
    parser.add_argument(
        "--n",
        type=arguments.whole(0),
        help="responses per row (default: as many as the first row has; 0: any number)",
    )
    parser.add_argument(
        "--method", choices=[*METHODS], default="rating", help="what the judge is asked"
    )
    parser.add_argument("--prompts_file", default=str(judge_prompts.DEFAULT_FILE))
    parser.add_argument(
        "--max_tokens", type=arguments.whole(1), default=1024, help="tokens of a reply"
    )
    return shards.parse(parser)


def main():
    args = parse_arguments()
    prompts = judge_prompts.load(args.prompts_file)
    # The file is read twice: here to check it before the first request, then row by row.
    response_counts = count_responses(args)

    # Finished rows go to the writer in the order of the file, replies to the journal as they come.
    fingerprint = run_fingerprint(args)
    writer = rows.Writer(args.output_file, fingerprint)
    journal = rows.Writer(args.output_file, f"{fingerprint}-replies")
    earlier_replies = replies_of_earlier_run(journal, writer.done)

    remaining = [n for name, n in response_counts.items() if name not in writer.done]
    requests = sum(max_requests(args.method, n) for n in remaining) - len(earlier_replies)
    print(
        f"{args.judge_model} at {args.judge_url}: "
        f"at most {requests} requests for {len(remaining)} rows",
        flush=True,
    )
    progress = Progress(len(remaining), "rows")
    client = judge.Judge(args, requests, answered=len(earlier_replies))
    annotator = Annotator(args, prompts, client, journal, earlier_replies)
    dropped = asyncio.run(annotate_rows(annotator, args, writer, progress))
    if client.stopped:
        sys.exit(
            f"{args.judge_url}: {client.stopped}; "
            "what has been answered is kept, the same command goes on"
        )

    write_dropped(Path(f"{args.output_file}.dropped.jsonl"), dropped)
    losses = annotator.failures()
    if response_counts and len(dropped) == len(response_counts) and args.num_shards == 1:
        example = (client.refused + annotator.unparsable)[0]
        sys.exit(f"{args.responses_file}: no row is left; {losses}, such as {example!r}")
    # finish() removes unfinished files that nobody locks: the journal is no longer needed.
    journal.file.close()
    writer.finish()
    print(
        f"{args.output_file} rows in: {len(response_counts)}, "
        f"finished before: {len(writer.done)}, requests: {annotator.requests}, {losses}, "
        f"dropped: {len(dropped)}, rows out: {len(response_counts) - len(dropped)}, "
        f"{progress.seconds():.1f} s"
    )


if __name__ == "__main__":
    main()
