"""Serve the tiny world's judge: it speaks OpenAI's protocol and judges by the true reward r* of true_reward.py.

It reads the prompts of annotation/judge_prompts.toml, of AlpacaEval (the alpaca-eval package's) and of the tiny world's
MT-Bench and Arena-Hard (benchmark_files/), and finds question and answers where these have their placeholders. A rating
is round(1 + 3 r*) between 1 and 10, so that fine differences vanish. Of two answers the one with the higher r* wins, by
far (>>) if it has 1 more; equal ones tie. If a request asks for logprobs, those of the verdict say that the first wins
with probability sigmoid((r*(1) - r*(2)) / NOISE). A text of another form and a question that it does not know are
refused (HTTP 400). The model's name is true_reward.

Reads:  --questions_files, rows with "prompt" and "answer": the questions whose right answers it knows
Writes: --url_file, its address once it listens, such as http://127.0.0.1:8000/v1

    python recipes/tiny/4_judge.py --questions_files runs/tiny/world/prompts.jsonl runs/tiny/world/evaluation.jsonl \
        --port 8000
"""

import json
import math
import re
import signal
import sys
import tomllib
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


# What says the verdict on the r* of the answers: (the reply in pieces, the place of the verdict among them, {verdict:
# its log-probability})


def rated(reward):
    rating = str(min(10, max(1, round(1 + 3 * reward))))
    return ["[[", rating, "]]"], 1, {rating: 0.0}


def compared(first, second, names=("A", "B")):
    x = (first - second) / true_reward.NOISE
    likely = {
        name: min(0.0, y) - math.log1p(math.exp(-abs(y)))
        for name, y in zip(names, (x, -x), strict=True)
    }
    return ["[[", "A" if x > 0 else "B" if x < 0 else "C", "]]"], 1, likely


def named(first, second):
    *_, likely = compared(first, second, ("m", "M"))
    return [max(likely, key=likely.get)], 0, likely


def graded(first, second):
    gap = first - second
    verdict = (
        "A=B"
        if not gap
        else ("A>>B" if gap >= 1 else "A>B")
        if gap > 0
        else "B>>A"
        if gap <= -1
        else "B>A"
    )
    return ["[[", verdict, "]]"], 1, {verdict: 0.0}


def forms():
    """[(matches a text by its placeholders, those of the question and of the answers, what says the verdict)]."""
    import yaml

    ours = tomllib.loads(PROMPTS.read_text(encoding="utf-8"))
    alpaca = (Path(find_spec("alpaca_eval").origin).parent / ALPACA_EVAL).read_text(
        encoding="utf-8"
    )
    alpaca = alpaca.split("<|im_start|>user\n")[1].removesuffix("<|im_end|>").strip()
    arena = yaml.safe_load((BENCHMARKS / "arena_hard_prompts.yaml").read_text(encoding="utf-8"))[
        "prompt_template"
    ][0]
    found = [
        (ours["pairwise"], "prompt", ("answer_a", "answer_b"), compared),
        (ours["rating"], "prompt", ("answer",), rated),
        (alpaca, "instruction", ("output_1", "output_2"), named),
        (arena, "question_1", ("answer_1", "answer_2"), graded),
    ]
    for row in rows.read(BENCHMARKS / "mt_bench_prompts.jsonl"):
        turn = "_2" if "multi-turn" in row["name"] else ""
        found.append((row["prompt_template"], f"question{turn}", (f"answer{turn}",), rated))
    pattern = [
        re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.*?)", re.escape(template)) for template, *_ in found
    ]
    return [(re.compile(p, re.DOTALL), *rest) for p, (_, *rest) in zip(pattern, found, strict=True)]


def judged(text, known, answers):
    """The verdict on a text of one of the known forms."""
    for form, question, responses, verdict in known:
        if match := form.fullmatch(text):
            asked = match[question].removeprefix("user: ")
            if asked not in answers:
                raise Refused(400, f"the judge does not know this question: {asked[:200]}")
            return verdict(
                *(true_reward.true_reward(match[name], answers[asked]) for name in responses)
            )
    raise Refused(400, "the text has not the form of a prompt that the judge knows")


def completion(request, known, answers):
    """The answer to a request, as vLLM's server gives it."""
    try:
        model, text = request["model"], request["messages"][-1]["content"] + ""
    except (LookupError, TypeError):
        raise Refused(400, "a model and messages with a text are needed") from None
    if model != MODEL:
        raise Refused(404, f"The model `{model}` does not exist.")
    pieces, place, likely = judged(text, known, answers)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(pieces)},
        "finish_reason": "stop",
    }
    if request.get("logprobs"):
        choice["logprobs"] = {"content": []}
        for i, token in enumerate(pieces):
            logprobs = likely if i == place else {token: 0.0}
            top = [{"token": t, "logprob": p, "bytes": [*t.encode()]} for t, p in logprobs.items()]
            top = sorted(top, key=lambda entry: -entry["logprob"])[
                : request.get("top_logprobs") or 0
            ]
            own = {
                "token": token,
                "logprob": logprobs.get(token, -9999.0),
                "bytes": [*token.encode()],
            }
            choice["logprobs"]["content"].append({**own, "top_logprobs": top})
    words = len(text.split())
    usage = {"prompt_tokens": words, "completion_tokens": 1, "total_tokens": words + 1}
    about = {"id": "chatcmpl-judge", "object": "chat.completion", "created": 0, "model": MODEL}
    return {**about, "choices": [choice], "usage": usage}


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--questions_files", nargs="+", required=True)
    parser.add_argument(
        "--port", type=arguments.whole(0, 65535), default=8000, help="0: one that is free"
    )
    parser.add_output("--url_file", type=Path)
    args = parser.parse_args()
    known, answers = forms(), {}
    for file in args.questions_files:
        for row in rows.read(file, "prompts", also=("answer",)):
            answers[row["prompt"][-1]["content"]] = row["answer"]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay open
        wbufsize = -1  # a reply leaves in one piece
        disable_nagle_algorithm = True

        def do_POST(self):
            body, status = self.rfile.read(int(self.headers.get("Content-Length") or 0)), 200
            try:
                if self.path == "/v1/chat/completions":
                    content = completion(json.loads(body), known, answers)
                elif self.path == "/v1/models":
                    content = {
                        "object": "list",
                        "data": [{"id": MODEL, "object": "model", "owned_by": "tiny"}],
                    }
                else:
                    raise Refused(404, f"nothing is served at {self.path}")
            except (Refused, ValueError) as error:  # of json: not JSON
                status, message = error.args if isinstance(error, Refused) else (400, "not JSON")
                content = {
                    "error": {"message": message, "type": "invalid_request_error", "code": status}
                }
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 1024  # connections at once

    try:
        server = Server(("127.0.0.1", args.port), Handler)
    except OSError as error:
        sys.exit(f"port {args.port}: {error.strerror}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())
    url = f"http://127.0.0.1:{server.server_port}/v1"
    if args.url_file:
        outputs.write_text(args.url_file, url + "\n")
    print(f"{url} knows {len(answers)} questions", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
