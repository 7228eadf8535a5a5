"""Serve the tiny world's judge: it speaks OpenAI's protocol and judges by the true reward r* of true_reward.py.

It is what annotation/1c_llm_judge.py asks, by the prompts of annotation/judge_prompts.toml: it finds question and
answers where these have their placeholders. Of two answers the one with the higher r* wins, equal ones tie. A rating is
round(1 + 3 r*) between 1 and 10, so that fine differences vanish. If a request asks for logprobs, those of the verdict
say that A wins with probability sigmoid((r*(A) - r*(B)) / NOISE). The model's name is true_reward. A text of another
form and a question that the judge does not know are refused (HTTP 400).

Reads:  --questions_files, rows with "prompt" and "answer": the questions whose right answers it knows
Writes: --url_file, its address once it listens, such as http://127.0.0.1:8000/v1

    python recipes/tiny/4_judge.py --questions_files runs/tiny/world/prompts.jsonl runs/tiny/world/evaluation.jsonl \
        --port 8000
"""

import argparse
import json
import math
import os
import re
import signal
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import true_reward

import rows

MODEL = "true_reward"
PROMPTS = Path(__file__).parents[2] / "annotation" / "judge_prompts.toml"


class Refused(Exception):
    """HTTP status, message."""


def shape(prompt):
    """Matches the texts that are made from a prompt; a group for each placeholder."""
    return re.compile(re.sub(r"\\\{\w+\\\}", "(.*?)", re.escape(prompt)), re.DOTALL)


def judged(text, shapes, answers):
    """(the verdict, {verdict: its log-probability})."""
    found = next(filter(None, (shape.fullmatch(text) for shape in shapes)), None)
    if not found:
        raise Refused(400, "the text has not the form of a prompt in judge_prompts.toml")
    question, *responses = found.groups()
    answer = answers.get(question.removeprefix("user: "))
    if answer is None:
        raise Refused(400, f"the judge does not know this question: {question[:200]}")
    rewards = [true_reward.true_reward(response, answer) for response in responses]
    if len(rewards) == 1:
        rating = str(min(10, max(1, round(1 + 3 * rewards[0]))))
        return rating, {rating: 0.0}
    x = (rewards[0] - rewards[1]) / true_reward.NOISE
    logprobs = {side: min(0.0, x) - math.log1p(math.exp(-abs(x))) for side, x in (("A", x), ("B", -x))}
    return "A" if x > 0 else "B" if x < 0 else "C", logprobs


def completion(request, shapes, answers):
    """The answer to a request, as vLLM's server gives it."""
    try:
        model, text = request["model"], request["messages"][-1]["content"] + ""
    except (LookupError, TypeError):
        raise Refused(400, "a model and messages with a text are needed") from None
    if model != MODEL:
        raise Refused(404, f"The model `{model}` does not exist.")
    verdict, likely = judged(text, shapes, answers)
    choice = {"index": 0, "message": {"role": "assistant", "content": f"[[{verdict}]]"}, "finish_reason": "stop"}
    if request.get("logprobs"):
        choice["logprobs"] = {"content": []}
        for token, logprobs in (("[[", {"[[": 0.0}), (verdict, likely), ("]]", {"]]": 0.0})):
            top = [{"token": t, "logprob": p, "bytes": [*t.encode()]} for t, p in logprobs.items()]
            top = sorted(top, key=lambda entry: -entry["logprob"])[: request.get("top_logprobs") or 0]
            own = {"token": token, "logprob": logprobs.get(token, -9999.0), "bytes": [*token.encode()]}
            choice["logprobs"]["content"].append({**own, "top_logprobs": top})
    words = len(text.split())
    usage = {"prompt_tokens": words, "completion_tokens": 1, "total_tokens": words + 1}
    named = {"id": "chatcmpl-judge", "object": "chat.completion", "created": 0, "model": MODEL}
    return {**named, "choices": [choice], "usage": usage}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions_files", nargs="+", required=True)
    parser.add_argument("--port", type=int, default=8000, help="0: one that is free")
    parser.add_argument("--url_file", type=Path)
    args = parser.parse_args()
    prompts = tomllib.loads(PROMPTS.read_text(encoding="utf-8"))
    shapes, answers = [shape(prompts[kind]) for kind in ("pairwise", "rating")], {}
    for file in args.questions_files:
        for number, row in enumerate(rows.read(file, "prompts"), 1):
            if not isinstance(row.get("answer"), str):
                sys.exit(f"{file}: row {number}: answer: missing")
            answers[row["prompt"][-1]["content"]] = row["answer"]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay open
        wbufsize = -1  # a reply leaves in one piece
        disable_nagle_algorithm = True

        def do_POST(self):
            body, status = self.rfile.read(int(self.headers.get("Content-Length") or 0)), 200
            try:
                if self.path == "/v1/chat/completions":
                    content = completion(json.loads(body), shapes, answers)
                elif self.path == "/v1/models":
                    content = {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "tiny"}]}
                else:
                    raise Refused(404, f"nothing is served at {self.path}")
            except (Refused, ValueError) as error:  # of json: not JSON
                status, message = error.args if isinstance(error, Refused) else (400, "not JSON")
                content = {"error": {"message": message, "type": "invalid_request_error", "code": status}}
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
        whole = args.url_file.with_name(f"{args.url_file.name}.partial")
        whole.write_text(url + "\n")
        os.replace(whole, args.url_file)
    print(f"{url} knows {len(answers)} questions", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
