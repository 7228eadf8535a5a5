"""A judge that speaks OpenAI's protocol and says what a test tells it to say; and the tiny world's own."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from commands import ROOT

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}


class Judge(ThreadingHTTPServer):
    """`reply` takes the text of a request's last message, and how often that was asked before.

    It gives the judge's words, or a status with what is sent for it, or None: the connection is closed without a word.
    """

    request_queue_size, daemon_threads = 128, True

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.lock, self.asked, self.answered, self.keys = (
            reply,
            threading.Lock(),
            [],
            [],
            set(),
        )
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
            content = {
                "choices": [{"message": {"role": "assistant", "content": reply}}],
                "model": body["model"],
            }
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


@contextmanager
def tiny_judge(folder, files):
    """The address of the tiny world's judge; at the end it stops at once, and well, when it is told to."""
    url = folder / "judge.url"
    script = [
        "recipes/tiny/4_judge.py",
        "--questions_files",
        *files,
        "--port",
        0,
        "--url_file",
        url,
    ]
    process = subprocess.Popen(
        [sys.executable, *map(str, script)], cwd=ROOT, stdout=-3, stderr=subprocess.PIPE
    )
    while not url.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    yield url.read_text().strip()
    process.terminate()
    assert process.wait(10) == 0 and process.stderr.read() == b""
