"""A hub, nvidia-smi and df as a test wants them: everything that preflight/hub_names.md lists is there, and no GPU."""

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
LLAMA_8B = {
    "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192,
}  # fmt: skip


QWEN = LLAMA_8B | {
    "model_type": "qwen2", "num_hidden_layers": 28, "hidden_size": 1536, "intermediate_size": 8960,
    "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}  # fmt: skip


def split(name):
    """(OWNER/NAME, REVISION or None, PART or None)"""
    return re.fullmatch(r"([^@:]*)(?:@([^:]*))?(?::(.*))?", name).groups()


class Hub(ThreadingHTTPServer):
    """Every name is there, but `missing`; `gated` ones want a token; the first `broken` requests are not answered."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.broken, self.lock = [], 0, threading.Lock()
        self.missing, self.gated = set(), {name for name, _, gated, _ in TABLE if gated == "yes"}
        self.parts, self.configs = defaultdict(list), {"Qwen/Qwen2.5-1.5B-Instruct": QWEN}
        for name, kind, *_ in TABLE:
            repo, revision, part = (
                split(name) if kind != "file" and ":/" not in name else (name, None, None)
            )
            self.parts[repo, revision] += (
                [part if Path(part).suffix else f"{part}/train.jsonl.gz"] if part else []
            )
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        hub = self.server
        if self.path == "/v1/models":  # a judge beside the hub
            return self.answer(200, {"data": [{"id": "judge"}]})
        if not (
            found := re.match(
                rf"/api/(model|dataset)s/({NAME})(/auth-check|/revision/([^?]+))?", self.path
            )
        ):
            return self.answer(404, {}) if "/resolve/" not in self.path else self.config()
        with hub.lock:
            hub.asked.append(found[2])
            if broken := len(hub.asked) <= hub.broken:
                self.close_connection = True
        if broken:
            return None
        if found[2] in hub.missing:
            return self.answer(404, {}, "RepoNotFound")
        if found[3] == "/auth-check":
            open_to = found[2] not in hub.gated or self.headers["Authorization"] == "Bearer good"
            return self.answer(200, {}) if open_to else self.answer(403, {}, "GatedRepo")
        files = {"README.md": 0, "train.parquet": 2**30} | dict.fromkeys(
            hub.parts[found[2], unquote(found[4] or "") or None], 0
        )
        if found[1] == "model":
            files = {"config.json": 0, "pytorch_model.bin": 2**40} | {
                f"model-{i}.safetensors": 2**33 for i in (1, 2)
            }
        listed = [{"rfilename": name, "size": size} for name, size in files.items()]
        gated = "manual" if found[2] in hub.gated else False
        return self.answer(200, {"id": found[2], "siblings": listed, "gated": gated})

    do_HEAD = do_GET

    def config(self):
        name = re.match(rf"/({NAME})/resolve/main/config.json", self.path)[1]
        self.answer(200, self.server.configs.get(name, LLAMA_8B))

    def answer(self, status, content, code=None):
        data = json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Length": str(len(data)), "ETag": '"1"', "X-Repo-Commit": "0" * 40}
        for name, text in (headers | ({"X-Error-Code": code} if code else {})).items():
            self.send_header(name, text)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


def machine(folder, hub, gpus=(), free=100_000):
    """The environment of a machine with GPUs of so many MiB, with so many GiB free, and with that hub."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for tool, text in {
        "nvidia-smi": "".join(f"echo {mib}\n" for mib in gpus) or "exit 9\n",
        "df": f'echo head\necho "/dev/disk 1 1 {free * 2**20} 1% /the disk"\n',
    }.items():
        (tools / tool).write_text(f"#!/bin/sh\n{text}")
        (tools / tool).chmod(0o755)
    return {
        "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(folder), "HF_HOME": str(folder / "hf"),
        "HF_ENDPOINT": hub.url, "HF_TOKEN": "good", "OUT": str(folder / "run"), "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
