"""A judge that speaks OpenAI's protocol and says what a test tells it to say."""

import json
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}


class Judge(ThreadingHTTPServer):
    """`reply` takes the text of a request's last message, and how often that was asked before.

    It gives the judge's words, or a status with what is sent for it, or None: the connection is closed without a word.
    """

    request_queue_size, daemon_threads = 128, True

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.lock, self.asked, self.answered, self.keys = reply, threading.Lock(), [], [], set()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", -1, True

    def do_POST(self):
        judge, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        with judge.lock:
            before = judge.asked.count(text)
            judge.asked.append(text)
            judge.keys.add(self.headers["Authorization"])
        reply = judge.reply(text, before)
        self.close_connection = reply is None
        if reply is None:
            return
        kind, status = "application/json", 200
        if isinstance(reply, tuple):
            status, content = reply
            kind = "text/html" if isinstance(content, str) else kind
        else:
            content = {"choices": [{"message": {"role": "assistant", "content": reply}}], "model": body["model"]}
            with judge.lock:
                judge.answered.append(text)
        data = content if isinstance(content, str) else json.dumps(content)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After-Ms", "1")
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, *_):
        pass


@contextmanager
def judge_that(reply):
    with Judge(reply) as judge:
        threading.Thread(target=judge.serve_forever, args=(0.01,), daemon=True).start()
        yield judge
        judge.shutdown()
