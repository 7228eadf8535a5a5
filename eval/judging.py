"""Ask a judge on any server that speaks OpenAI's protocol; for the benchmarks whose judging is a script of this folder.

Refused connections, timeouts and the codes 408, 409, 429 and 5xx are tried again, with growing pauses. Every reply is
on disk as it arrives and is never paid for twice, whatever stopped the run and whichever policy asked the same.
"""

import asyncio
import hashlib
import json
import os
import sys
import time
from pathlib import Path


def add_flags(parser):
    url = os.environ.get("OPENAI_BASE_URL")
    parser.add_argument("--judge_url", default=url, required=not url, help="address (default: OPENAI_BASE_URL)")
    parser.add_argument("--judge_model", required=True, help="name that the server knows the judge by")
    parser.add_argument("--concurrency", type=int, default=32, help="requests at once")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for a reply")
    parser.add_argument("--max_retries", type=int, default=6, help="times that a request is tried again")
    parser.add_argument("--prices", type=float, nargs=2, help="dollars for a million tokens, of input and of output")


def kept(path):
    """{key: reply} of a file of replies, and the file, open for more; a line that was cut in half goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+b", buffering=0)
    lines = path.read_bytes().split(b"\n")
    file.truncate(path.stat().st_size - len(lines.pop()))
    return {entry["key"]: entry["reply"] for entry in map(json.loads, lines)}, file


def ask(args, questions, max_tokens, path):
    """{name: reply, or None if the server refused that very request} for {name: messages}, at temperature 0.

    path: where replies are kept. A server that does not answer, or refuses all, ends the program in one line.
    """
    import openai

    def key(messages):
        return hashlib.sha256(json.dumps([args.judge_model, max_tokens, messages]).encode()).hexdigest()

    known, file = kept(Path(path))
    keys = {name: key(messages) for name, messages in questions.items()}
    todo = {keys[name]: messages for name, messages in questions.items() if keys[name] not in known}
    tokens = sum(len(turn["content"]) for messages in todo.values() for turn in messages) // 4
    told = f"{args.judge_model} at {args.judge_url}: {len(todo)} requests, {len(questions) - len(todo)} known already, "
    told += f"about {tokens} tokens in, at most {max_tokens * len(todo)} out"
    if args.prices:
        told += (
            f", ${tokens * args.prices[0] / 1e6:.2f} and at most ${max_tokens * len(todo) * args.prices[1] / 1e6:.2f}"
        )
    print(told, flush=True)
    start, failed, refused = time.time(), [], []

    async def run():
        key = os.environ.get("OPENAI_API_KEY") or "none"  # a local server needs none
        client = openai.AsyncOpenAI(
            base_url=args.judge_url, api_key=key, timeout=args.timeout, max_retries=args.max_retries
        )
        slots, done = asyncio.Semaphore(args.concurrency), 0

        async def one(key, messages):
            nonlocal done
            async with slots:
                if failed:  # the rest is only waited for
                    return
                try:
                    answer = await client.chat.completions.create(
                        model=args.judge_model, messages=messages, temperature=0, max_completion_tokens=max_tokens
                    )
                    known[key] = answer.choices[0].message.content or ""
                    file.write(json.dumps({"key": key, "reply": known[key]}).encode() + b"\n")
                except Exception as error:  # of openai's, or of ours: a reply that is not in its format, a full disk
                    told = " ".join(f"{type(error).__name__}: {error} {error.__cause__ or ''}".split())[:300]
                    only_this = getattr(error, "status_code", None) in (400, 422)  # most often it is too long
                    (refused if only_this else failed).append(told)
                    return
            done += 1
            if done % (len(todo) // 10 or 1) == 0 or done == len(todo):
                seconds = time.time() - start
                told = f"{done} of {len(todo)} requests, {seconds / done * (len(todo) - done):.0f} s left"
                print(told, end="\r" if sys.stdout.isatty() else "\n", flush=True)

        await asyncio.gather(*(one(*request) for request in todo.items()))

    asyncio.run(run())
    if failed:
        sys.exit(f"{args.judge_url}: {failed[0]}; what has been answered is kept, the same command goes on")
    replies = {name: known.get(keys[name]) for name in questions}
    if not any(replies.values()):
        sys.exit(f"{args.judge_url}: no request was answered, such as {(refused or [''])[0]!r}")
    return replies
