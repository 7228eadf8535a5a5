"""Serve the tiny world's judge: it speaks OpenAI's protocol and judges by r*.

r* is the world's true reward (true_reward.py).

The judge reads the prompts of annotation/judge_prompts.toml, of AlpacaEval (the alpaca-eval
package's) and of the tiny world's MT-Bench and Arena-Hard (benchmark_files/). It finds question and
answers where these prompts have their placeholders. A text of another form and a question that it
does not know are refused (HTTP 400). The model's name is true_reward.

A rating is round(1 + 3 r*) between 1 and 10, so that fine differences vanish. Of two answers the
one with the higher r* wins, by far (>>) if it has 1 more; equal ones tie. If a request asks for
logprobs, those of the verdict say that the first answer wins with probability
sigmoid((r*(1) - r*(2)) / NOISE), with r* and NOISE of true_reward.py.

Reads:  --questions_files, rows with "prompt" and "answer": the questions whose right answers it
        knows
Writes: --url_file, its address once it listens, such as http://127.0.0.1:8000/v1

    python recipes/tiny/4_judge.py --port 8000 \
        --questions_files runs/tiny/world/prompts.jsonl runs/tiny/world/evaluation.jsonl
"""

import json
import math
import re
import signal
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import true_reward
from common import arguments, outputs, rows

MODEL = "true_reward"
PROMPTS = Path(__file__).parents[2] / "annotation" / "judge_prompts.toml"
BENCHMARKS = Path(__file__).parent / "benchmark_files"
ALPACA_EVAL = "evaluators_configs/alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt"


class Refused(Exception):
    """HTTP status, message."""


# Verdicts on the r* of one or two answers


@dataclass
class Verdict:
    tokens: list[str]  # the reply
    position: int  # of the token that decides
    logprobs: dict[str, float]  # of the tokens that might stand there


def rating_verdict(reward):
    """[[7]]"""
    rating = str(min(10, max(1, round(1 + 3 * reward))))
    return Verdict(["[[", rating, "]]"], 1, {rating: 0.0})


def pairwise_verdict(first, second):
    """[[A]], [[B]], or [[C]] for a tie.

    The rater of this world knows no tie: C has no log-probability, those of A and B are equal.
    """
    winner = "C"
    if first > second:
        winner = "A"
    elif first < second:
        winner = "B"
    return Verdict(["[[", winner, "]]"], 1, win_logprobs(first, second, "A", "B"))


def alpaca_eval_verdict(first, second):
    """The name of the better answer, m or M, as AlpacaEval asks for it; m for a tie."""
    logprobs = win_logprobs(first, second, "m", "M")
    winner = max(logprobs, key=logprobs.get)
    return Verdict([winner], 0, logprobs)


def arena_hard_verdict(first, second):
    """[[A>>B]] and so on, as Arena-Hard asks for it."""
    gap = first - second
    sign = ">>" if abs(gap) >= 1 else ">"
    if gap > 0:
        grade = f"A{sign}B"
    elif gap < 0:
        grade = f"B{sign}A"
    else:
        grade = "A=B"
    return Verdict(["[[", grade, "]]"], 1, {grade: 0.0})


def win_logprobs(first, second, first_name, second_name):
    """The rater's log-probabilities (Bradley-Terry) that each answer wins."""
    logit = (first - second) / true_reward.NOISE
    return {first_name: log_sigmoid(logit), second_name: log_sigmoid(-logit)}


def log_sigmoid(x):
    # exp of a number above 0 could overflow.
    return min(0.0, x) - math.log1p(math.exp(-abs(x)))


# The prompts that the judge can read


@dataclass
class Form:
    pattern: re.Pattern  # matches a whole prompt; its groups are the placeholders
    question: str  # names of placeholders
    answers: tuple[str, ...]
    verdict: Callable  # of the r* of each answer


def compile_form(template, question, answers, verdict):
    """The form of prompts that are made from a template with placeholders {name}."""
    pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.*?)", re.escape(template))
    return Form(re.compile(pattern, re.DOTALL), question, answers, verdict)


def read_forms():
    import yaml

    ours = tomllib.loads(PROMPTS.read_text(encoding="utf-8"))
    alpaca_file = Path(find_spec("alpaca_eval").origin).parent / ALPACA_EVAL
    alpaca = alpaca_file.read_text(encoding="utf-8")
    # The file has a system turn too; the judge is sent the user's turn.
    _, alpaca = alpaca.split("<|im_start|>user\n")
    alpaca = alpaca.strip().removesuffix("<|im_end|>").strip()
    arena_file = BENCHMARKS / "arena_hard_prompts.yaml"
    arena = yaml.safe_load(arena_file.read_text(encoding="utf-8"))["prompt_template"][0]
    forms = [
        compile_form(ours["pairwise"], "prompt", ("answer_a", "answer_b"), pairwise_verdict),
        compile_form(ours["rating"], "prompt", ("answer",), rating_verdict),
        compile_form(alpaca, "instruction", ("output_1", "output_2"), alpaca_eval_verdict),
        compile_form(arena, "question_1", ("answer_1", "answer_2"), arena_hard_verdict),
    ]
    for row in rows.read(BENCHMARKS / "mt_bench_prompts.jsonl"):
        # Of a conversation the second turn is judged.
        turn = "_2" if "multi-turn" in row["name"] else ""
        question = f"question{turn}"
        answer = f"answer{turn}"
        forms.append(compile_form(row["prompt_template"], question, (answer,), rating_verdict))
    return forms


# Requests


class Judge:
    """right_answers: {question: answer}."""

    def __init__(self, forms, right_answers):
        self.forms = forms
        self.right_answers = right_answers

    def verdict(self, text):
        """The verdict on a text of one of the forms."""
        for form in self.forms:
            match = form.pattern.fullmatch(text)
            if not match:
                continue
            question = match[form.question].removeprefix("user: ")
            if question not in self.right_answers:
                raise Refused(400, f"the judge does not know this question: {question[:200]}")
            right = self.right_answers[question]
            rewards = [true_reward.true_reward(match[name], right) for name in form.answers]
            return form.verdict(*rewards)
        raise Refused(400, "the text has not the form of a prompt that the judge knows")

    def completion(self, request):
        """The answer to a request, as vLLM's server gives it."""
        try:
            model = request["model"]
            text = request["messages"][-1]["content"]
        except (LookupError, TypeError):
            text = None
        if not isinstance(text, str):
            raise Refused(400, "a model and messages with a text are needed")
        if model != MODEL:
            raise Refused(404, f"The model `{model}` does not exist.")
        verdict = self.verdict(text)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(verdict.tokens)},
            "finish_reason": "stop",
        }
        if request.get("logprobs"):
            top_logprobs = request.get("top_logprobs") or 0
            if not isinstance(top_logprobs, int) or top_logprobs < 0:
                raise Refused(400, f"top_logprobs: {top_logprobs!r} is not a whole number")
            choice["logprobs"] = {"content": logprobs_content(verdict, top_logprobs)}
        words = len(text.split())
        return {
            "id": "chatcmpl-judge",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [choice],
            "usage": {
                "prompt_tokens": words,
                "completion_tokens": 1,
                "total_tokens": words + 1,
            },
        }


def logprobs_content(verdict, top_logprobs):
    """The logprobs of a completion: all tokens but the one that decides are certain."""
    content = []
    for i, token in enumerate(verdict.tokens):
        logprobs = verdict.logprobs if i == verdict.position else {token: 0.0}
        likeliest_first = sorted(logprobs, key=lambda name: -logprobs[name])
        # The C of a tie has no log-probability: see pairwise_verdict.
        entry = logprob_entry(token, logprobs.get(token, -9999.0))
        entry["top_logprobs"] = []
        for name in likeliest_first[:top_logprobs]:
            entry["top_logprobs"].append(logprob_entry(name, logprobs[name]))
        content.append(entry)
    return content


def logprob_entry(token, logprob):
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def error_content(status, message):
    return {"error": {"message": message, "type": "invalid_request_error", "code": status}}


# The server


class Server(ThreadingHTTPServer):
    request_queue_size = 1024  # connections waiting to be accepted

    def __init__(self, address, judge):
        super().__init__(address, Handler)
        self.judge = judge


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    wbufsize = -1  # a reply leaves in one piece
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status = 200
        try:
            content = self.content(body)
        except Refused as error:
            status, message = error.args
            content = error_content(status, message)
        except ValueError:
            status = 400
            content = error_content(status, "not JSON")
        self.reply(status, content)

    do_GET = do_POST

    def content(self, body):
        if self.path == "/v1/chat/completions":
            return self.server.judge.completion(json.loads(body))
        if self.path == "/v1/models":
            model = {"id": MODEL, "object": "model", "owned_by": "tiny"}
            return {"object": "list", "data": [model]}
        raise Refused(404, f"nothing is served at {self.path}")

    def reply(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Requests leave no line in the log."""


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--questions_files", nargs="+", required=True)
    parser.add_argument(
        "--port", type=arguments.whole(0, 65535), default=8000, help="0: one that is free"
    )
    parser.add_output("--url_file", type=Path)
    args = parser.parse_args()
    forms = read_forms()
    right_answers = {}
    for file in args.questions_files:
        for row in rows.read(file, "prompts", also=("answer",)):
            right_answers[row["prompt"][-1]["content"]] = row["answer"]

    try:
        server = Server(("127.0.0.1", args.port), Judge(forms, right_answers))
    except OSError as error:
        sys.exit(f"port {args.port}: {error.strerror}")
    # A judge that is told to stop ends with status 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())
    url = f"http://127.0.0.1:{server.server_port}/v1"
    if args.url_file:
        outputs.write_text(args.url_file, url + "\n")
    print(f"{url} knows {len(right_answers)} questions", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
