"""A hub, nvidia-smi and df as a test wants them.

By default the hub has everything that preflight/hub_names.md lists, and the machine has no GPU.
"""

import json
import os
import re
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from commands import ROOT

TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "preflight/hub_names.md").read_text().splitlines()
    if re.match(r"\| \S+[/:]", line)
]
NAME = r"[\w.-]+/[\w.-]+"
API = re.compile(rf"/api/(model|dataset)s/({NAME})(/auth-check|/revision/([^?]+))?")
H100 = "NVIDIA H100 80GB HBM3"
LLAMA_8B = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}
QWEN = {
    "model_type": "qwen2",
    "num_hidden_layers": 28,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}


def split(name):
    """(OWNER/NAME, REVISION or None, PART or None)"""
    return re.fullmatch(r"([^@:]*)(?:@([^:]*))?(?::(.*))?", name).groups()


class Hub(ThreadingHTTPServer):
    """It has every name but those in `missing`.

    Those in `gated` need a token. The first `broken` requests are not answered.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        # the names of all requests
        self.asked = []
        self.broken = 0
        self.missing = set()
        self.gated = {name for name, _, gated, _ in TABLE if gated == "yes"}
        self.configs = {"Qwen/Qwen2.5-1.5B-Instruct": QWEN}
        # {(name, revision): the files of its parts}
        self.parts = defaultdict(list)
        for name, kind, *_ in TABLE:
            if kind == "file" or ":/" in name:
                continue
            repo, revision, part = split(name)
            if part:
                file = part if Path(part).suffix else f"{part}/train.jsonl.gz"
                self.parts[repo, revision].append(file)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def files(self, kind, name, revision):
        """{file: its size} of a model or a dataset."""
        if kind == "model":
            shards = {f"model-{i}.safetensors": 2**33 for i in (1, 2)}
            return {"config.json": 0, "pytorch_model.bin": 2**40, **shards}
        parts = dict.fromkeys(self.parts[name, revision], 0)
        return {"README.md": 0, "train.parquet": 2**30, **parts}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/v1/models":
            # A judge answers at the same address.
            return self.answer(200, {"data": [{"id": "judge"}]})
        address = API.match(self.path)
        if address:
            kind, name, check, revision = address.groups()
            revision = unquote(revision or "") or None
            return self.api(kind, name, check == "/auth-check", revision)
        if "/resolve/" in self.path:
            return self.config()
        return self.answer(404, {})

    def api(self, kind, name, is_check, revision):
        hub = self.server
        with hub.lock:
            hub.asked.append(name)
            broken = len(hub.asked) <= hub.broken
        if broken:
            self.close_connection = True
            return None
        if name in hub.missing:
            return self.answer(404, {}, "RepoNotFound")
        if is_check:
            if name in hub.gated and self.headers["Authorization"] != "Bearer good":
                return self.answer(403, {}, "GatedRepo")
            return self.answer(200, {})
        files = hub.files(kind, name, revision).items()
        siblings = [{"rfilename": file, "size": size} for file, size in files]
        gated = "manual" if name in hub.gated else False
        return self.answer(200, {"id": name, "siblings": siblings, "gated": gated})

    do_HEAD = do_GET

    def config(self):
        name = re.match(rf"/({NAME})/resolve/main/config.json", self.path)[1]
        self.answer(200, self.server.configs.get(name, LLAMA_8B))

    def answer(self, status, content, code=None):
        data = json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Length": str(len(data)), "ETag": '"1"', "X-Repo-Commit": "0" * 40}
        if code:
            headers["X-Error-Code"] = code
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


def machine(folder, hub, gpus=(), free=100_000, gpu_name=H100):
    """The environment of a machine with that hub.

    gpus: MiB of each GPU; free: GiB of free disk.
    """
    sizes = "".join(f"echo {mib}\n" for mib in gpus) or "exit 9\n"
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    scripts = {
        "nvidia-smi": f"case $1 in *name*) echo {gpu_name} && exit ;; esac\n{sizes}",
        "df": f'echo head\necho "/dev/disk 1 1 {free * 2**20} 1% /the disk"\n',
    }
    for tool, text in scripts.items():
        (tools / tool).write_text(f"#!/bin/sh\n{text}")
        (tools / tool).chmod(0o755)
    return {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "HOME": str(folder),
        "HF_HOME": str(folder / "hf"),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "good",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OUT": str(folder / "run"),
    }
