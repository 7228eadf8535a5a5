"""Run programs that a model wrote, in a sandbox of bubblewrap.

A program has no network, no files but its own /tmp, and hard limits. It sees the interpreter, the
system's libraries and the installed packages, all read-only, no variable of the environment and no
other process. For the scripts of this folder; `run` may be used by itself.
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
PACKAGES = sysconfig.get_path("purelib")
PYTHON = Path(sys.executable).resolve()
READ_ONLY = [
    "/usr",
    "/bin",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    str(PYTHON.parent.parent),
    PACKAGES,
]
# What runs in the sandbox: it reads a token and the program, and prints the token at the end. A
# program that ends itself before its tests does not print it. The kernel does not count the
# processes of root, so root becomes nobody first.
RUNNER = f"""
import os, resource, sys
if not os.getuid():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for name, value in {LIMITS}.items():
    resource.setrlimit(getattr(resource, name), (value, value))
token, program = sys.stdin.read().split("\\n", 1)
output = os.dup(1)
null = os.open(os.devnull, os.O_RDWR)
for stream in range(3):
    os.dup2(null, stream)
sys.path.append({PACKAGES!r})
exec(program, {{}})
os.write(output, token.encode())
"""


def run(program):
    """(did the program end without an error, what the sandbox itself printed)."""
    token = secrets.token_hex(16)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    with tempfile.TemporaryFile() as output:
        try:
            subprocess.run(
                [*bubblewrap(), str(PYTHON), "-I", "-B", "-c", RUNNER],
                input=f"{token}\n{program}".encode(errors="replace"),
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return False, ""
        output.seek(0)
        text = output.read().decode(errors="replace")
    return token in text, text


def bubblewrap():
    """The command that runs another in the sandbox."""
    command = ["bwrap", "--die-with-parent", "--new-session"]
    if os.getuid():
        command += ["--unshare-all"]
    else:  # in a user namespace root cannot become another user
        command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    # /tmp comes first: the packages may lie below it.
    command += ["--size", str(TMP), "--perms", "1777", "--tmpfs", "/tmp"]
    for path in map(Path, READ_ONLY):
        # Parents that bubblewrap makes by itself could be read by root alone.
        for parent in reversed(path.parents[:-1]):
            command += ["--perms", "0755", "--dir", str(parent)]
        command += ["--ro-bind-try", str(path), str(path)]
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    command += ["--remount-ro", "/", "--chdir", "/tmp"]
    return command


def unusable():
    """Why no program can run here, in one line, or None."""
    if not shutil.which("bwrap"):
        return (
            "the sandbox needs the command bwrap, which is not there "
            "(Debian: apt install bubblewrap)"
        )
    passed, text = run("assert True")
    if passed:
        return None
    last_line = (text.strip() or "no answer").splitlines()[-1]
    return f"the sandbox does not start ({last_line})"


# In place of code_eval of the hub, the metric of lm-eval's tasks that run programs


def compute(references, predictions, k):
    """({"pass@1": ...} for each of k, {}) as code_eval computes it.

    references: the test of each problem, which ends every program; predictions: the programs of
    each problem.
    """
    passed = []  # of each problem, a truth for each program
    for test, programs in zip(references, predictions, strict=True):
        passed.append([run(f"{program}\n{test}")[0] for program in programs])
    scores = {}
    for sample_size in k:
        if all(len(of_problem) >= sample_size for of_problem in passed):
            estimates = [pass_at(sample_size, of_problem) for of_problem in passed]
            scores[f"pass@{sample_size}"] = sum(estimates) / len(passed)
    return scores, {}


def pass_at(sample_size, passed):
    """The chance that one of sample_size programs, drawn from these, passes (Chen et al. 2021)."""
    without_success = math.comb(passed.count(False), sample_size)
    return 1 - without_success / math.comb(len(passed), sample_size)


def replace_code_eval(allowed):
    """From now on `evaluate.load("code_eval")` gives this module, or an error if not allowed."""
    import evaluate

    load = evaluate.load

    def load_ours(name, *args, **options):
        if name != "code_eval":
            return load(name, *args, **options)
        if not allowed:
            raise PermissionError(REFUSED)
        return sys.modules[__name__]

    evaluate.load = load_ours


def guards(task):
    """Does this task of lm-eval run programs, if any, by this module?"""
    if not getattr(task, "UNSAFE_CODE", False):
        return True
    for metric in task.config.metric_list or []:
        # A metric of lm-eval's tasks is a function that keeps code_eval in a global variable.
        used = getattr(metric["metric"], "__globals__", {}).values()
        if any(value is sys.modules[__name__] for value in used):
            return True
    return False
