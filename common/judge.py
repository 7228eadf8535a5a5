"""Ask a judge on any server that speaks OpenAI's protocol.

Refused connections, timeouts and the codes 408, 409, 429 and 5xx are tried again, with growing pauses. What is refused
after that concerns one request, or all:

- One: the server says no to this text (400, 403, 404, 413, 422, 451 ...), or sends something that is no reply. It is
  counted, its words are kept, and the rest goes on, as long as that is no more than a share of all.
- All: the key is refused (401), the quota is used up (429), the server cannot be reached. Nothing more is asked.

As long as nothing was answered, a reply that is none, a timeout, a 404 or a 5xx may well concern all: no new request
leaves until those under way have ended, and if none of them was answered, nothing more is asked.
"""

import asyncio
import os
import re
import sys

from common import arguments

FEW = 10  # refused requests that never are too many: a single row may ask as many
MANY = 100  # of which half of those so far are too many, without waiting for the share of all
NUMBER = (
    r"(-?\d+\.?\d*)(?:\s*/\s*(\d+))?"  # a rating, 8 or 8.5, or 8/10 with the highest that there is
)


def add_flags(parser, required=True):
    """The arguments of every script that asks a judge."""
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


class Judge:
    """The judge of one run of a script, inside its event loop.

    args: of add_flags; expected: requests of the run at most. answered: requests with a reply, those of earlier runs
    included; refused: the server's words for every request without one; stopped: why nothing more is asked, or None.
    """

    def __init__(self, args, expected, answered=0):
        import openai

        key = os.environ.get("OPENAI_API_KEY") or "none"  # a local server needs none
        if (
            not (key.isascii() and key.isprintable()) or " " in key
        ):  # the library would repeat it in its error
            sys.exit("OPENAI_API_KEY: it holds a blank, or the end of a line")
        self.client = openai.AsyncOpenAI(
            base_url=args.judge_url, api_key=key, timeout=args.timeout, max_retries=args.max_retries
        )
        self.model = args.judge_model
        self.slots = asyncio.Semaphore(args.concurrency)
        self.limit = max(FEW, args.max_refused * (expected + answered))
        self.answered = answered
        self.refused = []
        self.stopped = None
        self.under_way = 0
        self.doubt = None  # what was refused while nothing was answered
        self.certain = asyncio.Event()
        self.certain.set()

    async def ask(self, request, check=lambda choice: None):
        """(a choice of the server's as a dictionary with "text", None), or (None, why there is none).

        request: what the protocol takes beside the model; check: raises an error for a choice that is of no use.
        """
        async with self.slots:
            await self.certain.wait()
            if self.stopped:
                return None, self.stopped
            self.under_way += 1
            try:
                answer = await self.client.chat.completions.create(model=self.model, **request)
                choice = choice_of(answer)
                check(choice)
            except (
                Exception
            ) as error:  # of openai's, or of ours for a reply that is not in its format
                choice, reason = None, self.no_reply(error)
            else:
                reason = None
                self.answered += 1
            self.under_way -= 1
            self.settle()
            return choice, reason

    def no_reply(self, error):
        """Count an error for its request, or stop; its words."""
        words = " ".join(f"{type(error).__name__}: {error} {error.__cause__ or ''}".split())[:300]
        kind = concerns(error)
        if kind == "all":
            self.stopped = self.stopped or words
            return words
        self.refused.append(words)
        if kind == "perhaps all" and not self.answered:
            self.doubt = self.doubt or words
            self.certain.clear()
        asked = self.answered + len(self.refused)
        if len(self.refused) > self.limit or len(self.refused) > max(MANY, asked / 2):
            self.stopped = (
                self.stopped or f"{len(self.refused)} of {asked} requests refused, such as {words}"
            )
        return words

    def settle(self):
        """An answer ends a doubt; without one it is certain when no request is under way any more."""
        if self.doubt and not self.answered and not self.under_way:
            self.stopped = self.stopped or self.doubt
        if self.stopped or self.answered:
            self.certain.set()


def concerns(error):
    """Does an error concern "one" request, "all", or "perhaps all"?"""
    import openai

    status = getattr(error, "status_code", None)
    if isinstance(error, openai.APITimeoutError):
        return "perhaps all"
    if isinstance(error, openai.APIConnectionError) or status in (401, 429):
        return "all"
    if status == 404 or status is None or status >= 500:
        return "perhaps all"
    return "one"


def choice_of(answer):
    """The first choice of a server's answer, with "text", its words; some servers send them in parts."""
    choice = answer.choices[0].model_dump()
    content = choice["message"]["content"]
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str | None):
        raise TypeError("the content of the reply is not a text")
    return {**choice, "text": content or ""}


# Reading a verdict, in a reply without the judge's thoughts (common/thoughts.py)


def verdicts(reply, pattern):
    """What a pattern finds in double square brackets, in order; where it finds nothing there, in single ones.

    MT-Bench's scorer reads ratings so (FastChat, fastchat/llm_judge/common.py: one_score_pattern, then
    one_score_pattern_backup). Blanks inside the brackets count for nothing.
    """
    in_double = re.findall(rf"\[\[\s*{pattern}\s*\]\]", reply)
    return in_double or re.findall(rf"\[\s*{pattern}\s*\]", reply)


def ratings(reply, lowest, highest):
    """The ratings in brackets, in order, as numbers; None for one off the scale, as [[11]] or [[4/5]] of 1 to 10."""
    found = []
    for value, of in verdicts(reply, NUMBER):
        on_scale = lowest <= float(value) <= highest and (not of or float(of) == highest)
        found.append(float(value) if on_scale else None)
    return found
