"""Ask a judge on any server that speaks OpenAI's protocol; for the scripts of this folder that judge.

Refused connections, timeouts and the codes 408, 409, 429 and 5xx are tried again, with growing pauses. Every reply is
on disk as it arrives and is never paid for twice, whatever stopped the run and whichever policy asked the same.
"""

import asyncio
import datetime
import hashlib
import json
import os
import sys
import time


def add_flags(parser, required=True):
    url = os.environ.get("OPENAI_BASE_URL")
    parser.add_argument(
        "--judge_url", default=url, required=required and not url, help="address (default: OPENAI_BASE_URL)"
    )
    parser.add_argument("--judge_model", required=required, help="name that the server knows the judge by")
    parser.add_argument("--concurrency", type=int, default=32, help="requests at once")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for a reply")
    parser.add_argument("--max_retries", type=int, default=6, help="times that a request is tried again")
    parser.add_argument("--prices", type=float, nargs=2, help="dollars for a million tokens, of input and of output")


def kept(path):
    """{key: choice} of a file of replies, and the file, open for more; a line that was cut in half goes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b", buffering=0)
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    lines = path.read_bytes().split(b"\n")
    file.truncate(path.stat().st_size - len(lines.pop()))
    return {entry["id"]: entry["choice"] for entry in map(json.loads, lines)}, file


def ask(args, requests, path):
    """({name: choice or None}, why requests were refused) for {name: request without the model}.

    A choice is what the server gave, with "text", the reply, and "date"; it is None if the server refused that very
    request. A server that does not answer ends the program in one line. Replies are kept in the file `path`.
    """
    import openai

    known, file = kept(path)
    requests = {name: {"model": args.judge_model, **request} for name, request in requests.items()}
    keys = {name: hashlib.sha256(json.dumps(request).encode()).hexdigest() for name, request in requests.items()}
    todo = {keys[name]: request for name, request in requests.items() if keys[name] not in known}
    tokens = sum(len(turn["content"]) for request in todo.values() for turn in request["messages"]) // 4
    most = sum(request["max_completion_tokens"] for request in todo.values())
    before = sum(key in known for key in keys.values())
    told = f"{args.judge_model} at {args.judge_url}: {len(todo)} requests, {before} known already, "
    told += f"about {tokens} tokens in, at most {most} out"
    if args.prices:
        told += f", ${tokens * args.prices[0] / 1e6:.2f} and at most ${most * args.prices[1] / 1e6:.2f}"
    print(told, flush=True)
    start, failed, refused = time.time(), [], []

    async def run():
        url, secret = args.judge_url, os.environ.get("OPENAI_API_KEY") or "none"  # a local server needs none
        client = openai.AsyncOpenAI(base_url=url, api_key=secret, timeout=args.timeout, max_retries=args.max_retries)
        slots, done = asyncio.Semaphore(args.concurrency), 0

        async def one(key, request):
            nonlocal done
            async with slots:
                if failed:  # the rest is only waited for
                    return
                try:
                    answer = await client.chat.completions.create(**request)
                    choice = answer.choices[0].model_dump()
                    choice["text"] = choice["message"]["content"] or ""
                    choice["date"] = datetime.datetime.now().isoformat(timespec="seconds")
                    if request.get("logprobs") and not (choice["logprobs"] or {}).get("content"):
                        raise ValueError("a reply without log-probabilities; for such a judge there is --no_logprobs")
                    file.write(json.dumps({"id": key, "choice": choice}).encode() + b"\n")
                    known[key] = choice
                except Exception as error:  # of openai's, or of ours: a reply that is not in its format, a full disk
                    told = " ".join(f"{type(error).__name__}: {error} {error.__cause__ or ''}".split())[:300]
                    only_this = getattr(error, "status_code", None) in (400, 422)  # most often it is too long
                    (refused if only_this else failed).append(told)
                    return
            done += 1
            if done % (len(todo) // 10 or 1) == 0 or done == len(todo):
                left = (time.time() - start) / done * (len(todo) - done)
                told = f"{done} of {len(todo)} requests, {left:.0f} s left"
                print(told, end="\r" if sys.stdout.isatty() else "\n", flush=True)

        await asyncio.gather(*(one(*request) for request in todo.items()))

    asyncio.run(run())
    if failed:
        sys.exit(f"{args.judge_url}: {failed[0]}; what has been answered is kept, the same command goes on")
    return {name: known.get(key) for name, key in keys.items()}, refused
