"""Serve a Python that has imported its libraries: most of a small run's time goes into imports.

Writes a directory that can be activated like a virtual environment. Its bin/python hands a script
over to this process, which forks. The fork runs the script with the caller's arguments,
environment, directory and streams, gets the caller's signals, and dies with the caller. Anything
but a script goes to the real Python. The server runs until it is stopped.

    python tests/warm.py my_warm & sleep 30
    VIRTUAL_ENV=$PWD/my_warm OUT=runs/warm bash run_loop.sh
"""

import argparse
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

# None of them may start a thread that computes: a fork would lose it.
PRELOADED = (
    "math_verify",
    "openai",
    "trl.trainer.dpo_trainer",
    "trl.trainer.kto_trainer",
    "trl.trainer.sft_trainer",
    "transformers.models.llama.modeling_llama",
    "transformers.models.llama.tokenization_llama",
    "vllm.entrypoints.llm",
    "vllm.v1.engine.llm_engine",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.attention.backends.cpu_attn",
    "vllm.model_executor.models.llama",
)
PR_SET_PDEATHSIG = 1  # of prctl(2): the signal that a process gets when its parent dies
MESSAGE_BYTES = 16  # for a signal or an exit status, as a decimal number
REQUEST_BYTES = 2**20
# bin/python. It sends the request with its three streams, then each signal that it gets, and
# receives the exit status; a negative one is the signal that ended the script.
CLIENT = """\
#!{python} -IS
import json, os, signal, socket, sys

if not (sys.argv[1:] and sys.argv[1].endswith(".py")):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect({address!r})
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: server.send(b"%d" % number))
request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)])
socket.send_fds(server, [request.encode()], [0, 1, 2])
status = int(server.recv(16) or 1)
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


@dataclass
class Request:
    """A script to run: its words, and what it inherits from its caller."""

    words: list
    directory: str
    environment: dict
    streams: list  # descriptors of standard input, output and error


@dataclass
class Script:
    """A script that runs in a fork: the socket to its caller, and a descriptor of its end."""

    caller: socket.socket
    pidfd: int


class Server:
    """Forks for every script, passes signals on to it and its exit status back to its caller."""

    def __init__(self, listener):
        self.listener = listener
        self.scripts = {}  # by process id
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)

    def serve(self):
        """Serve without end. Only in a fork does it return: the Request to run there."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.listener:
                    request = self.fork()
                    if request:
                        return request
                # An earlier event of the same batch may have ended the script.
                elif key.data in self.scripts:
                    self.handle(key.data, key.fileobj)

    def fork(self):
        """Accept a caller and fork for its script: the Request in the fork, None in the server."""
        caller, _ = self.listener.accept()
        text, streams, _, _ = socket.recv_fds(caller, REQUEST_BYTES, 3)
        pid = os.fork()
        if pid == 0:
            return Request(*json.loads(text), streams)
        for stream in streams:
            os.close(stream)
        script = Script(caller, os.pidfd_open(pid))
        self.scripts[pid] = script
        self.selector.register(script.caller, selectors.EVENT_READ, pid)
        self.selector.register(script.pidfd, selectors.EVENT_READ, pid)
        return None

    def handle(self, pid, source):
        """Handle a message of a script's caller, the death of that caller, or the script's end."""
        if source is self.scripts[pid].caller:
            signal_number = source.recv(MESSAGE_BYTES)
            if signal_number:
                os.kill(pid, int(signal_number))
                return
            os.kill(pid, signal.SIGKILL)  # the caller is dead
        self.finish(pid)

    def finish(self, pid):
        """Wait for a script, and send its exit status to its caller."""
        _, wait_status = os.waitpid(pid, 0)
        status = os.waitstatus_to_exitcode(wait_status)
        script = self.scripts.pop(pid)
        self.selector.unregister(script.caller)
        self.selector.unregister(script.pidfd)
        with contextlib.suppress(BrokenPipeError):  # the caller may have died
            script.caller.send(b"%d" % status)
        script.caller.close()
        os.close(script.pidfd)


def inherit(request):
    """Take over the streams, the directory and the environment of the caller."""
    import torch

    # The fork must not outlive the server.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request.directory)
    os.environ.clear()
    os.environ.update(request.environment)
    # The server has read OMP_NUM_THREADS when it imported torch.
    torch.set_num_threads(int(request.environment.get("OMP_NUM_THREADS") or os.cpu_count()))
    sys.stdout = open(1, "w", buffering=1, closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False)


def run(request):
    """Run the script in this fork, to its end."""
    inherit(request)
    sys.argv = request.words
    script = request.words[0]
    sys.path[0] = str(Path(script).resolve().parent)
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        status = exit_status(end)
    except BaseException:
        traceback.print_exc()
        status = 1
    # sys.exit would wind the interpreter down, and libraries would complain about what is not
    # freed.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def exit_status(end):
    """The status of a SystemExit, whose code may also be None or a message."""
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code
    if isinstance(end.code, str):
        print(end.code, file=sys.stderr)
    return 1


def make_room(python):
    """Remove an earlier server's bin/python, and nothing else."""
    python.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(python):
        return
    if b"socket.send_fds" not in python.read_bytes():
        sys.exit(f"{python}: not an earlier server's; give a directory of its own")
    python.unlink()


def preload():
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else each fork looks through all of it again, which copies the memory


def listen(address, python):
    """The listening socket; bin/python appears once it can be used."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen(64)
    unfinished = python.with_name("python.new")
    unfinished.write_text(CLIENT.format(python=sys.executable, address=address))
    unfinished.chmod(0o755)
    unfinished.rename(python)
    return listener


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory")
    python = Path(parser.parse_args().directory).resolve() / "bin/python"
    make_room(python)
    preload()
    server_pid = os.getpid()

    # Not a TemporaryDirectory: a fork that ends would remove it, too.
    folder = tempfile.mkdtemp()

    def stop(*_):
        # A fork may get the signal before it has set handlers of its own. It leaves the server's
        # folder alone.
        if os.getpid() == server_pid:
            shutil.rmtree(folder, ignore_errors=True)
        # No SystemExit: in what libraries do after a fork Python would print it and go on.
        os._exit(143)

    signal.signal(signal.SIGTERM, stop)
    try:
        listener = listen(f"{folder}/socket", python)
        run(Server(listener).serve())
    finally:
        if os.getpid() == server_pid:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
