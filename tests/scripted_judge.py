"""A judge that speaks OpenAI's protocol and replies as a test says; and the tiny world's judge."""

import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from commands import ROOT


class Judge(ThreadingHTTPServer):
    """`reply(text, before)` takes a request's last message and how often it was asked before.

    It returns the judge's words; or (status, content) of another response; or None, which closes
    the connection without a response.
    """

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply = reply
        self.lock = threading.Lock()
        # the texts of all requests, and of those that got the judge's words
        self.asked = []
        self.answered = []
        self.keys = set()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self):
        judge = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        with judge.lock:
            before = judge.asked.count(text)
            judge.asked.append(text)
            judge.keys.add(self.headers["Authorization"])
        reply = judge.reply(text, before)
        self.close_connection = reply is None
        if reply is None:
            return
        if isinstance(reply, tuple):
            status, content = reply
        else:
            status = 200
            message = {"role": "assistant", "content": reply}
            content = {"choices": [{"message": message}], "model": body["model"]}
            with judge.lock:
                judge.answered.append(text)
        if isinstance(content, str):
            kind, data = "text/html", content
        else:
            kind, data = "application/json", json.dumps(content)
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
    """The address of the tiny world's judge; terminated, it must end at once without an error."""
    url = folder / "judge.url"
    script = ["recipes/tiny/4_judge.py", "--questions_files", *files, "--port", 0]
    command = [sys.executable, *map(str, script), "--url_file", str(url)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not url.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    yield url.read_text().strip()
    process.terminate()
    assert process.wait(10) == 0
    assert process.stderr.read() == b""
