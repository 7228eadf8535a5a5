"""Ask a judge, and keep its replies; for the scripts of this folder that judge.

Every reply is on disk as it arrives and is never paid for twice, whatever stopped the run and whichever policy asked
the same. What the judge refused stands in refused.jsonl beside the replies, with its words, and is asked again.
"""

import asyncio
import datetime
import hashlib
import json
import sys
import time

from common import arguments, judge, outputs, rows, thoughts


def add_flags(parser, required=True):
    judge.add_flags(parser, required)
    parser.add_argument(
        "--prices",
        type=arguments.real(0),
        nargs=2,
        help="dollars for a million tokens, of input and of output",
    )
    parser.add_argument(
        "--max_tokens",
        type=arguments.whole(1),
        help="tokens of a reply (default: the benchmark's own; a judge that thinks needs more)",
    )


def kept(path):
    """{key: choice} of a file of replies, and the file, open for more and locked; a line that was cut in half goes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b", buffering=0)
        if not outputs.locked(file):
            sys.exit(f"{path}: another process is writing it")
        whole, newline, tail = path.read_bytes().rpartition(b"\n")
        if tail and not tail.startswith(b"{"):
            sys.exit(f"{path}: not the replies of a judge")
        file.truncate(len(whole + newline))
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    known = {}
    for number, line in rows.lines_of(path):
        try:
            entry = rows.parse(line)
            if not isinstance(entry["id"], str) or not isinstance(entry["choice"]["text"], str):
                raise TypeError
            known[entry["id"]] = entry["choice"]
        except (ValueError, TypeError, KeyError) as error:
            reason = (
                error if isinstance(error, ValueError) else "row: not a reply {id, choice: {text}}"
            )
            sys.exit(f"{path}:{number}: {reason}; remove that line to have it asked again")
    return known, file


def any_reply(choice):
    """No check."""


def with_logprobs(choice):
    """The first token has to be the verdict."""
    reasoning = choice["message"].get("reasoning") or choice["message"].get("reasoning_content")
    if reasoning or thoughts.OPENS.match(choice["text"]):
        raise ValueError(
            "a judge that thinks before its verdict; for such a judge there is --no_logprobs"
        )
    if not (choice["logprobs"] or {}).get("content"):
        raise ValueError(
            "a reply without log-probabilities; for such a judge there is --no_logprobs"
        )


def ask(args, requests, path):
    """({name: choice or None}, why requests were refused) for {name: request without the model}.

    A choice is what the server gave, with "text", the reply, and "date"; it is None if the server refused that very
    request. A server that does not answer ends the program in one line. Replies are kept in the file `path`.
    """
    known, file = kept(path)
    keys = {
        name: hashlib.sha256(
            json.dumps({"model": args.judge_model, **request}).encode()
        ).hexdigest()
        for name, request in requests.items()
    }
    todo = {keys[name]: request for name, request in requests.items() if keys[name] not in known}
    tokens = (
        sum(len(turn["content"]) for request in todo.values() for turn in request["messages"]) // 4
    )
    most = sum(request["max_completion_tokens"] for request in todo.values())
    before = sum(key in known for key in keys.values())
    told = f"{args.judge_model} at {args.judge_url}: {len(todo)} requests, {before} known already, "
    told += f"about {tokens} tokens in, at most {most} out"
    if args.prices:
        told += (
            f", ${tokens * args.prices[0] / 1e6:.2f} and at most ${most * args.prices[1] / 1e6:.2f}"
        )
    print(told, flush=True)
    start = time.time()
    refused = {}  # {key: why}

    def keep(key, choice):
        try:
            file.write(json.dumps({"id": key, "choice": choice}).encode() + b"\n")
        except OSError as error:
            sys.exit(
                f"{path}: {error.strerror}; what has been answered is kept, the same command goes on"
            )

    async def run():
        asked = judge.Judge(args, len(todo), answered=len(known))
        done = 0

        async def one(key, request):
            nonlocal done
            choice, reason = await asked.ask(
                request, with_logprobs if request.get("logprobs") else any_reply
            )
            if choice:
                choice["date"] = datetime.datetime.now().isoformat(timespec="seconds")
                keep(key, choice)
                known[key] = choice
            else:
                refused[key] = reason
            done += 1
            if done % (len(todo) // 10 or 1) == 0 or done == len(todo):
                left = (time.time() - start) / done * (len(todo) - done)
                told = f"{done} of {len(todo)} requests, {left:.0f} s left"
                print(told, end="\r" if sys.stdout.isatty() else "\n", flush=True)

        await asyncio.gather(*(one(*request) for request in todo.items()))
        return asked.stopped

    if stopped := asyncio.run(run()):
        sys.exit(
            f"{args.judge_url}: {stopped}; what has been answered is kept, the same command goes on"
        )
    refused_file = path.with_name("refused.jsonl")
    refused_file.unlink(missing_ok=True)  # of an earlier run
    if refused:
        rows.write(
            refused_file, ({"id": key, "why": why, **todo[key]} for key, why in refused.items())
        )
    return {name: known.get(key) for name, key in keys.items()}, list(refused.values())


def without_thoughts(choices):
    """{name: what the judge says after its thoughts, or None} of what `ask` returns.

    A reply that was cut off in its thoughts says nothing, also where the judge's template opens them unseen.
    """
    opened = thoughts.opened_by_template(choice["text"] for choice in choices.values() if choice)
    said = dict.fromkeys(choices)
    for name, choice in choices.items():
        if choice:
            cut_off = choice.get("finish_reason") == "length"
            said[name] = thoughts.without_thoughts(choice["text"], unfinished=opened and cut_off)
    return said
