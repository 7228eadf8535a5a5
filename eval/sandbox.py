"""Run programs that a model wrote, in a sandbox of bubblewrap: no network, no files but its own /tmp, hard limits.

A program sees the interpreter, the system's libraries and the installed packages, all read-only, no variable of the
environment and no other process. For the scripts of this folder; `run` may be used by itself.
"""

import math
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

REFUSED = "programs that the model wrote run only with --run_generated_code"
SECONDS = 15  # of the clock, for a program that only waits
TMP = 64 * 2**20  # bytes of all its files, which are in memory
LIMITS = {  # each for one process
    "RLIMIT_CPU": 3,  # seconds: what code_eval of the hub gives
    "RLIMIT_AS": 2**30,
    "RLIMIT_NPROC": 8,  # processes and threads of one program together
    "RLIMIT_FSIZE": 16 * 2**20,
    "RLIMIT_NOFILE": 64,
    "RLIMIT_CORE": 0,
}
# The kernel does not count root's processes, so root becomes nobody first. The token is what a program that ends itself
# before its tests does not print.
RUNNER = f"""
import os, resource, sys
if not os.getuid():
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
for name, value in {LIMITS}.items():
    resource.setrlimit(getattr(resource, name), (value, value))
token, program = sys.stdin.read().split("\\n", 1)
told, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
for stream in range(3):
    os.dup2(null, stream)
sys.path.append({sysconfig.get_path("purelib")!r})
exec(program, {{}})
os.write(told, token.encode())
"""


def run(program):
    """(did it end without an error, what the sandbox itself has to say)"""
    python = Path(sys.executable).resolve()
    read_only = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache"]
    read_only += [str(python.parent.parent), sysconfig.get_path("purelib")]
    command = ["bwrap", "--die-with-parent", "--new-session"]
    if os.getuid():
        command += ["--unshare-all"]
    else:  # in a user namespace root cannot become another user
        command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    command += [
        "--size",
        str(TMP),
        "--perms",
        "1777",
        "--tmpfs",
        "/tmp",
    ]  # first: the packages may lie below it
    for path in map(Path, read_only):
        for parent in reversed(path.parents[:-1]):
            command += ["--perms", "0755", "--dir", str(parent)]  # else root's alone
        command += ["--ro-bind-try", str(path), str(path)]
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    command += ["--remount-ro", "/", "--chdir", "/tmp"]
    token = secrets.token_hex(16)
    with tempfile.TemporaryFile() as told:
        try:
            subprocess.run(
                [*command, str(python), "-I", "-B", "-c", RUNNER],
                input=f"{token}\n{program}".encode(errors="replace"),
                stdout=told,
                stderr=subprocess.STDOUT,
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                },
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return False, ""
        told.seek(0)
        text = told.read().decode(errors="replace")
    return token in text, text


def unusable():
    """Why no program can run here, in one line, or None."""
    if not shutil.which("bwrap"):
        return "the sandbox needs the command bwrap, which is not there (Debian: apt install bubblewrap)"
    passed, text = run("assert True")
    return (
        None
        if passed
        else f"the sandbox does not start ({(text.strip() or 'no answer').splitlines()[-1]})"
    )


def compute(references, predictions, k):
    """What code_eval of the hub computes: pass@k of each problem's programs, of which its test is the end."""
    passed = [
        [run(f"{program}\n{test}")[0] for program in programs]
        for test, programs in zip(references, predictions, strict=True)
    ]
    scores = {
        f"pass@{i}": sum(1 - math.comb(p.count(False), i) / math.comb(len(p), i) for p in passed)
        / len(passed)
        for i in k
        if all(len(p) >= i for p in passed)
    }
    return scores, {}


def replace_code_eval(allowed):
    """From now on `evaluate.load("code_eval")` gives this module, or an error if running programs is not allowed."""
    import evaluate

    load = evaluate.load

    def replaced(name, *args, **options):
        if name != "code_eval":
            return load(name, *args, **options)
        if not allowed:
            raise PermissionError(REFUSED)
        return sys.modules[__name__]

    evaluate.load = replaced


def guards(task):
    """Does this task of lm-eval run programs, if any, by this module?"""
    metrics = [metric["metric"] for metric in task.config.metric_list or []]
    used = [value for metric in metrics for value in getattr(metric, "__globals__", {}).values()]
    return not getattr(task, "UNSAFE_CODE", False) or any(
        value is sys.modules[__name__] for value in used
    )
