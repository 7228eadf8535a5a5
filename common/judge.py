"""A client for a language-model judge on any server that speaks OpenAI's protocol.

Refused connections, timeouts and the codes 408, 409, 429 and 5xx are retried with growing pauses.
A failure after that concerns one request, or all:

- One: the server rejects this text (400, 403, 404, 413, 422, 451 ...), or sends something that is
  not a reply. The refusal is counted, its message is kept, and the run goes on as long as refusals
  are no more than a share of all requests (--max_refused).
- All: the key is rejected (401), the quota is used up (429), the server cannot be reached. No
  further request is sent.

Before the first reply a malformed reply, a timeout, a 404 or a 5xx may well concern all requests:
no new request is sent until those under way have ended, and if none of them got a reply, the run
stops.
"""

import asyncio
import os
import re
import sys

from common import arguments

# This many refusals never stop a run: a single row may cause as many.
FEW_REFUSALS = 10
# Beyond this many, refusals stop a run as soon as they are half of the requests so far.
MANY_REFUSALS = 100
# A rating such as 8 or 8.5, or 8/10 with the highest possible one.
NUMBER = r"(-?\d+\.?\d*)(?:\s*/\s*(\d+))?"


def add_flags(parser, required=True):
    """Add the flags of every script that asks a judge."""
    url = os.environ.get("OPENAI_BASE_URL")
    parser.add_argument(
        "--judge_url",
        type=arguments.server_address,
        default=url,
        required=required and not url,
        help="address (default: OPENAI_BASE_URL)",
    )
    parser.add_argument(
        "--judge_model", required=required, help="name that the server knows the judge by"
    )
    parser.add_argument(
        "--concurrency", type=arguments.whole(1), default=32, help="requests at once"
    )
    parser.add_argument(
        "--timeout", type=arguments.real(above=0), default=120.0, help="seconds to wait for a reply"
    )
    parser.add_argument(
        "--max_retries",
        type=arguments.whole(0),
        default=6,
        help="times that a request is tried again",
    )
    parser.add_argument(
        "--max_refused",
        type=arguments.real(0, 1),
        default=0.1,
        help="share of the requests that may be refused, above which the run ends",
    )


def api_key():
    """OPENAI_API_KEY; a local server needs none."""
    key = os.environ.get("OPENAI_API_KEY") or "none"
    # Such a key is not a valid header, and the library would print it in its error.
    if not (key.isascii() and key.isprintable()) or " " in key:
        sys.exit("OPENAI_API_KEY: it holds a blank, or the end of a line")
    return key


class Judge:
    """The judge of one run of a script.

    args: with the flags of add_flags. expected: requests of the run at most. answered: requests
    with a reply, those of earlier runs included. refused: the error messages of the others.
    stopped: why no further request is sent, or None.
    """

    def __init__(self, args, expected, answered=0):
        import openai

        self.client = openai.AsyncOpenAI(
            base_url=args.judge_url,
            api_key=api_key(),
            timeout=args.timeout,
            max_retries=args.max_retries,
        )
        self.model = args.judge_model
        self.slots = asyncio.Semaphore(args.concurrency)
        self.max_refusals = max(FEW_REFUSALS, args.max_refused * (expected + answered))
        self.answered = answered
        self.refused = []
        self.stopped = None
        self.under_way = 0
        # The message of a refusal before the first reply, which may concern all requests; as long
        # as that is open, may_start is not set and new requests wait.
        self.doubt = None
        self.may_start = asyncio.Event()
        self.may_start.set()

    async def ask(self, request, check=lambda choice: None):
        """(the server's first choice as a dictionary with "text", None), or (None, the reason).

        request: the arguments of the protocol besides the model. check: raises an error for a
        choice that is of no use.
        """
        async with self.slots:
            await self.may_start.wait()
            if self.stopped:
                return None, self.stopped
            self.under_way += 1
            try:
                answer = await self.client.chat.completions.create(model=self.model, **request)
                choice = first_choice(answer)
                check(choice)
                reason = None
                self.answered += 1
            # An error of openai's, of check's, or of a reply that is not in the protocol's format.
            except Exception as error:
                choice = None
                reason = self.refuse(error)
            self.under_way -= 1
            self.settle_doubt()
            return choice, reason

    def refuse(self, error):
        """Count the error for its request, or stop the run; its message."""
        message = f"{type(error).__name__}: {error} {error.__cause__ or ''}"
        message = " ".join(message.split())[:300]
        scope = scope_of(error)
        if scope == "all":
            self.stop(message)
            return message
        self.refused.append(message)
        if scope == "perhaps all" and not self.answered:
            self.doubt = self.doubt or message
            self.may_start.clear()
        refusals = len(self.refused)
        requests = self.answered + refusals
        if refusals > self.max_refusals or refusals > max(MANY_REFUSALS, requests / 2):
            self.stop(f"{refusals} of {requests} requests refused, such as {message}")
        return message

    def stop(self, reason):
        """Send no further request; the first reason stays."""
        self.stopped = self.stopped or reason

    def settle_doubt(self):
        """A reply ends a doubt. Without any, it is confirmed once no request is under way."""
        if self.doubt and not self.answered and not self.under_way:
            self.stop(self.doubt)
        if self.stopped or self.answered:
            self.may_start.set()


def scope_of(error):
    """Whether an error concerns "one" request, "all", or "perhaps all"."""
    import openai

    status = getattr(error, "status_code", None)
    if isinstance(error, openai.APITimeoutError):
        return "perhaps all"
    if isinstance(error, openai.APIConnectionError) or status in (401, 429):
        return "all"
    if status == 404 or status is None or status >= 500:
        return "perhaps all"
    return "one"


def first_choice(answer):
    """The first choice of a server's answer as a dictionary, with the reply under "text"."""
    choice = answer.choices[0].model_dump()
    content = choice["message"]["content"]
    # Some servers send the text in parts.
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str | None):
        raise TypeError("the content of the reply is not a text")
    return {**choice, "text": content or ""}


# Reading a verdict in a reply without the judge's thoughts (common/thoughts.py)


def verdicts(reply, pattern):
    """The matches of a pattern in double square brackets, in order; without any, in single ones.

    MT-Bench's scorer reads ratings so (FastChat, fastchat/llm_judge/common.py: one_score_pattern,
    then one_score_pattern_backup). Blanks inside the brackets are ignored.
    """
    in_double = re.findall(rf"\[\[\s*{pattern}\s*\]\]", reply)
    return in_double or re.findall(rf"\[\s*{pattern}\s*\]", reply)


def ratings(reply, lowest, highest):
    """The ratings in brackets, in order; None for one off the scale: [[11]], [[4/5]] of 1 to 10."""
    numbers = []
    for text, highest_named in verdicts(reply, NUMBER):
        number = float(text)
        right_scale = not highest_named or float(highest_named) == highest
        valid = right_scale and lowest <= number <= highest
        numbers.append(number if valid else None)
    return numbers
