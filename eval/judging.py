"""Ask a judge and keep its replies, for the scripts of this folder that judge.

Every reply is on disk as it arrives and is never paid for twice, whatever stopped the run and
whichever policy asked the same. Requests that the judge refused are in refused.jsonl beside the
replies, with the error messages, and are sent again by the next run.
"""

import asyncio
import datetime
import hashlib
import json
import sys
import time

from common import arguments, judge, outputs, rows, thoughts
from common.progress import show


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


class Replies:
    """The file of a judge's replies, locked by this process.

    choices: {key of a request: choice}, those of earlier runs and of this one.
    """

    def __init__(self, path):
        self.path = path
        self.file = open_replies(path)
        self.choices = {}
        for number, line in rows.lines_of(path):
            try:
                key, choice = parse_reply(line)
            except ValueError as error:
                sys.exit(f"{path}:{number}: {error}; remove that line to have it asked again")
            self.choices[key] = choice

    def add(self, key, choice):
        """Append a reply; from then on a kill does not lose it."""
        try:
            self.file.write(json.dumps({"id": key, "choice": choice}).encode() + b"\n")
        except OSError as error:
            sys.exit(
                f"{self.path}: {error.strerror}; "
                "what has been answered is kept, the same command goes on"
            )
        self.choices[key] = choice


def open_replies(path):
    """The file of replies, open for more and locked; a last line that was cut off is removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b", buffering=0)
        if not outputs.locked(file):
            sys.exit(f"{path}: another process is writing it")
        # What follows the last newline was being written when an earlier run was killed.
        whole_lines, newline, tail = path.read_bytes().rpartition(b"\n")
        if tail and not tail.startswith(b"{"):
            sys.exit(f"{path}: not the replies of a judge")
        file.truncate(len(whole_lines + newline))
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    return file


def parse_reply(line):
    """(key, choice) of a line; a ValueError says why it is no reply."""
    entry = rows.parse(line)
    try:
        key = entry["id"]
        choice = entry["choice"]
        valid = isinstance(key, str) and isinstance(choice["text"], str)
    except (TypeError, KeyError):
        valid = False
    if not valid:
        raise ValueError("row: not a reply {id, choice: {text}}")
    return key, choice


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


class Run:
    """Sends requests to a judge, as many at once as it allows. refused: {key: error message}."""

    def __init__(self, client, replies, total):
        self.client = client
        self.replies = replies
        self.total = total
        self.refused = {}
        self.done = 0
        self.start = time.time()

    async def ask_all(self, requests):
        await asyncio.gather(*(self.ask(key, request) for key, request in requests.items()))

    async def ask(self, key, request):
        check = with_logprobs if request.get("logprobs") else any_reply
        choice, reason = await self.client.ask(request, check)
        if choice:
            choice["date"] = datetime.datetime.now().isoformat(timespec="seconds")
            self.replies.add(key, choice)
        else:
            self.refused[key] = reason
        self.done += 1
        self.show_progress()

    def show_progress(self):
        """Ten lines a run, and one at the end."""
        interval = self.total // 10 or 1
        if self.done % interval == 0 or self.done == self.total:
            seconds_per_request = (time.time() - self.start) / self.done
            seconds_left = seconds_per_request * (self.total - self.done)
            show(f"{self.done} of {self.total} requests, {seconds_left:.0f} s left")


def key_of(model, request):
    """What names a request to a model in the file of replies."""
    content = json.dumps({"model": model, **request})
    return hashlib.sha256(content.encode()).hexdigest()


def show_estimate(args, requests, answered):
    """Say what is to be asked, and with --prices what it costs. answered: requests with a reply."""
    characters = 0
    most_tokens_out = 0
    for request in requests:
        characters += sum(len(turn["content"]) for turn in request["messages"])
        most_tokens_out += request["max_completion_tokens"]
    # English has about four characters a token.
    tokens_in = characters // 4
    estimate = (
        f"{args.judge_model} at {args.judge_url}: {len(requests)} requests, "
        f"{answered} known already, about {tokens_in} tokens in, at most {most_tokens_out} out"
    )
    if args.prices:
        price_in, price_out = args.prices
        cost_in = tokens_in * price_in / 1e6
        most_cost_out = most_tokens_out * price_out / 1e6
        estimate += f", ${cost_in:.2f} and at most ${most_cost_out:.2f}"
    print(estimate, flush=True)


def ask(args, requests, path):
    """({name: choice or None}, error messages of refusals) for {name: request without the model}.

    A choice is what the server gave, with "text", the reply, and "date"; it is None if the server
    refused that very request. A server that does not answer ends the program in one line. Replies
    are kept in the file `path`.
    """
    replies = Replies(path)
    keys = {name: key_of(args.judge_model, request) for name, request in requests.items()}
    # By key, so that equal requests under several names are sent once.
    todo = {}
    answered = 0
    for name, request in requests.items():
        if keys[name] in replies.choices:
            answered += 1
        else:
            todo[keys[name]] = request
    show_estimate(args, todo.values(), answered)

    client = judge.Judge(args, len(todo), answered=len(replies.choices))
    run = Run(client, replies, len(todo))
    asyncio.run(run.ask_all(todo))
    replies.file.close()
    if client.stopped:
        sys.exit(
            f"{args.judge_url}: {client.stopped}; "
            "what has been answered is kept, the same command goes on"
        )
    write_refused(path.with_name("refused.jsonl"), run.refused, todo)
    choices = {name: replies.choices.get(key) for name, key in keys.items()}
    return choices, list(run.refused.values())


def write_refused(path, refused, requests):
    """Write a row for each refused request, in place of those of an earlier run."""
    path.unlink(missing_ok=True)
    if refused:
        rows.write(path, ({"id": key, "why": why, **requests[key]} for key, why in refused.items()))


def without_thoughts(choices):
    """{name: the judge's text after its thoughts, or None} of what `ask` returns.

    A reply that was cut off in its thoughts has "", also where the judge's chat template opens them
    unseen.
    """
    opened = thoughts.opened_by_template(choice["text"] for choice in choices.values() if choice)
    texts = dict.fromkeys(choices)
    for name, choice in choices.items():
        if choice:
            unfinished = opened and choice.get("finish_reason") == "length"
            texts[name] = thoughts.without_thoughts(choice["text"], unfinished)
    return texts
