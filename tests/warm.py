"""Serve a Python whose libraries are imported already: most of a small run's time goes into that.

Writes a directory that can be activated like a virtual environment. Its bin/python hands a script over to this process,
which forks; the fork runs it with the caller's arguments, environment, directory and streams, gets the signals that the
caller gets, and dies with it. What is no script goes to the real Python. Serves until it is stopped.

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
from pathlib import Path

PRELOADED = """
trl.trainer.dpo_trainer trl.trainer.kto_trainer trl.trainer.sft_trainer
transformers.models.llama.modeling_llama transformers.models.llama.tokenization_llama
vllm.entrypoints.llm vllm.v1.engine.llm_engine vllm.v1.executor.uniproc_executor vllm.v1.worker.cpu_worker
vllm.v1.attention.backends.cpu_attn vllm.model_executor.models.llama
""".split()
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


def serve(listener):
    """Fork for every script; in a fork return its (arguments, directory, environment, streams)."""
    of_script, selector = (
        {},
        selectors.DefaultSelector(),
    )  # {its process: its caller, a descriptor of its end}
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                caller, _ = listener.accept()
                request, streams, _, _ = socket.recv_fds(caller, 2**20, 3)
                pid = os.fork()
                if not pid:
                    return *json.loads(request), streams
                for stream in streams:
                    os.close(stream)
                of_script[pid] = caller, os.pidfd_open(pid)
                for waited_for in of_script[pid]:
                    selector.register(waited_for, selectors.EVENT_READ, pid)
            elif key.data in of_script:
                pid, (caller, ended) = key.data, of_script[key.data]
                if key.fileobj is caller:
                    signalled = caller.recv(16)
                    os.kill(pid, int(signalled or signal.SIGKILL))  # nothing: the caller is dead
                    if signalled:
                        continue
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                del of_script[pid]
                for waited_for in (caller, ended):
                    selector.unregister(waited_for)
                with contextlib.suppress(BrokenPipeError):  # dead, as said, or just now
                    caller.send(b"%d" % status)
                caller.close()
                os.close(ended)


def run(arguments, directory, environment, streams):
    """The script in this fork, to its end. An interpreter that winds down would tell of what it does not free."""
    import torch

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: not to outlive the server
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            number,
            {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}[number],
        )
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(
        int(environment.get("OMP_NUM_THREADS") or os.cpu_count())
    )  # read by the server, once
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
    sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).resolve().parent)
    status = 0
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory")
    python = Path(parser.parse_args().directory).resolve() / "bin/python"
    python.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(python):
        if b"socket.send_fds" not in python.read_bytes():
            sys.exit(f"{python}: not an earlier server's; give a directory of its own")
        python.unlink()
    for name in PRELOADED:  # none may start a thread that computes: a fork would lose it
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a fork need not look through all of it again, which would also copy the memory
    server = os.getpid()
    # A fork that gets the signal before it has set its own handlers leaves the server's folder alone.
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143) if os.getpid() == server else os._exit(143)
    )
    folder = (
        tempfile.mkdtemp()
    )  # by hand: a fork would remove a TemporaryDirectory, too, when it ends
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(f"{folder}/socket")
        listener.listen(64)
        unfinished = python.with_name("python.new")
        unfinished.write_text(CLIENT.format(python=sys.executable, address=f"{folder}/socket"))
        unfinished.chmod(0o755)
        unfinished.rename(python)
        run(*serve(listener))
    finally:
        if os.getpid() == server:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
