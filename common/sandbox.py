"""Run programs that a model wrote, in a sandbox of bubblewrap; docs/sandbox.md says against what.

    with sandbox.Pool(processes=2) as pool:
        [ended] = pool.run(["print(1 + 1)"])
        passed = pool.grade([("def add(a, b): return a + b", "assert add(1, 2) == 3")])

A program has no network, no files but its own /tmp, and hard limits. It sees the interpreter, the
system's libraries and the installed packages, all read-only, no variable of the environment and no
other process. Each has a process, namespaces and a /tmp of its own, which end with it; what takes
time, the start of Python and the import of numpy and sympy, is done once for a pool.
"""

import contextlib
import dataclasses
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common import sandbox_values

PYTHON = Path(sys.executable).resolve()
READ_ONLY = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache"]
# Not all that lies about the interpreter: that may be a home.
READ_ONLY += [str(PYTHON), f"{sys.base_prefix}/lib", f"{sys.base_prefix}/lib64"]
# Where the sandbox sees the folder of this file, and the installed packages: those may lie below
# /tmp, where each program has files of its own.
CODE = "/sandbox/code"
PACKAGES = "/sandbox/packages"
FOLDERS = {
    str(Path(__file__).resolve().parent): f"{CODE}/common",
    sysconfig.get_path("purelib"): PACKAGES,
}
# Not /dev/zero: shared memory that is a mapping of it is counted for no process.
DEVICES = ("/dev/null", "/dev/random", "/dev/urandom")
# What the zygote needs to open namespaces; root's also has to become other users and to end theirs.
CAPABILITIES = ("CAP_SYS_ADMIN",)
CAPABILITIES_OF_ROOT = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_KILL")
ZYGOTE = "sandbox_zygote.py"  # a file's name, by which the driver finds what runs inside
START = f"""\
import sys
sys.path.insert(0, {CODE!r})
# The interpreter of a virtual environment may have packages of its own.
sys.path[:] = [path for path in sys.path if not path.endswith("-packages")] + [{PACKAGES!r}]
from common import {ZYGOTE.removesuffix(".py")} as zygote
zygote.main()
"""
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    # A thread would not survive the fork.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Sets of text have one order, so that a program prints the same in every pool.
    "PYTHONHASHSEED": "0",
}


class UnusableError(RuntimeError):
    """The sandbox does not start here; the text says why, in one line."""


@dataclass(frozen=True)
class Limits:
    """What one program may take. In `grade` the program and its tests have these each."""

    seconds: float = 15  # of the clock
    processor_seconds: int = 3  # of the processor, each process: what code_eval of the hub gives
    memory: int = 2**30  # bytes, of all its processes and files together
    files: int = 64 * 2**20  # bytes of all its files, which are in memory
    processes: int = 8  # processes and threads together
    output: int = 64 * 2**10  # bytes


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    status: "ended"; "error": by an exception, a signal or another exit status than 0; or the limit
    for which it was killed: "time", "memory", "output".
    """

    output: str  # what it printed, errors among it; a last line says if it was cut
    status: str
    seconds: float  # of the clock


class Pool:
    """Sandboxes that are ready to run programs; may be used by several threads.

    processes: programs at a time, by default one for each core. Raises UnusableError.
    """

    def __init__(self, processes=None, limits=None):
        self.processes = processes or len(os.sched_getaffinity(0))
        self.limits = limits or Limits()
        self.connections = queue.SimpleQueue()
        self.sockets = []
        self.bubblewrap = shutil.which("bwrap")
        if not self.bubblewrap:
            raise UnusableError(
                "the sandbox needs the command bwrap, which is not there "
                "(Debian: apt install bubblewrap)"
            )
        if PYTHON.is_relative_to("/tmp"):
            raise UnusableError(f"the sandbox cannot use a Python below /tmp ({PYTHON})")
        self.start()

    def start(self):
        control, control_inside = socket.socketpair()
        self.sockets.append(control)
        inside = [control_inside]
        for _ in range(self.processes):
            connection, connection_inside = socket.socketpair()
            self.sockets.append(connection)
            self.connections.put(connection)
            inside.append(connection_inside)
        descriptors = [end.fileno() for end in inside]
        settings = {
            "code": CODE,
            "limits": dataclasses.asdict(self.limits),
            "control": descriptors[0],
            "slots": descriptors[1:],
        }
        python = [str(PYTHON), "-s", "-B", "-c", START, json.dumps(settings)]
        with tempfile.TemporaryFile() as errors:
            self.process = subprocess.Popen(
                [self.bubblewrap, *outer_sandbox(), *python],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=ENVIRONMENT,
                pass_fds=descriptors,
            )
            for end in inside:
                end.close()
            if control.recv(16) != b"ready":
                self.close()
                errors.seek(0)
                raise does_not_start(errors.read().decode(errors="replace"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """End every process of the pool, and wait for it."""
        for end in self.sockets:
            # A process that the owner has forked may have it too.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.process.wait()

    def run(self, programs):
        """The Ended of each program, in their order; one of 16 MiB or more is an error."""
        requests = [{"program": program} for program in programs]
        return [Ended(**answer) for answer in self.ask(requests)]

    def grade(self, programs_and_tests):
        """Does each program pass its tests? They run in another process than the program.

        programs_and_tests: pairs of the text of a program and the text of its tests, which call
        its functions by their names and raise where one is wrong.
        """
        requests = []
        for program, tests in programs_and_tests:
            requests.append({"program": program, "tests": tests})
        return [answer.get("passed") is True for answer in self.ask(requests)]

    def ask(self, requests):
        with ThreadPoolExecutor(self.processes) as threads:
            return list(threads.map(self.ask_one, requests))

    def ask_one(self, request):
        """The answer of the next sandbox that is free."""
        connection = self.connections.get()
        try:
            sandbox_values.send(connection, request)
            answer = sandbox_values.receive(connection)
        except OverflowError as error:  # no program is that long
            return {"output": f"{error}\n", "status": "error", "seconds": 0.0}
        except OSError as error:
            raise UnusableError(f"the sandbox has ended ({error})") from error
        finally:
            self.connections.put(connection)
        if answer is None:
            raise UnusableError("the sandbox has ended")
        if "failure" in answer:
            raise does_not_start(answer["failure"])
        return answer


def does_not_start(text):
    """The error for what the sandbox printed instead of starting."""
    last_line = (text.strip() or "no answer").splitlines()[-1]
    return UnusableError(f"the sandbox does not start ({last_line})")


def outer_sandbox():
    """The arguments of bubblewrap for the sandbox that the zygote runs in."""
    # The end of the zygote ends every other process there.
    command = ["--as-pid-1", "--new-session"]
    command += ["--cap-drop", "ALL"]
    if os.getuid():
        command += ["--unshare-all"]
        capabilities = CAPABILITIES
    else:  # in a user namespace root cannot become another user
        command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
        capabilities = CAPABILITIES_OF_ROOT
    command += ["--hostname", "sandbox"]
    for capability in capabilities:
        command += ["--cap-add", capability]
    command += ["--perms", "1777", "--tmpfs", "/tmp", "--perms", "0755", "--dir", "/dev"]
    for source, path in [*zip(READ_ONLY, READ_ONLY, strict=True), *FOLDERS.items()]:
        # Parents that bubblewrap makes by itself could be read by root alone.
        for parent in reversed(Path(path).parents[:-1]):
            command += ["--perms", "0755", "--dir", str(parent)]
        command += ["--ro-bind-try", source, path]
    for device in DEVICES:
        command += ["--dev-bind", device, device]
    command += ["--proc", "/proc", "--remount-ro", "/", "--chdir", "/"]
    return command


def unusable():
    """Why no program can run here, in one line, or None."""
    try:
        with Pool(processes=1) as pool:
            [ended] = pool.run(["assert True"])
    except UnusableError as error:
        return str(error)
    if ended.status != "ended":
        return str(does_not_start(ended.output or ended.status))
    return None
