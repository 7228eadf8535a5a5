"""common/sandbox.py: what a program can do there, what it cannot, and what is left of it."""

import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time

import pytest

import sandbox_cheats
import sandbox_escapes
import sandbox_programs
from commands import ROOT, run
from common import sandbox, sandbox_filter

# Small, so that programs reach them soon; several programs at a time mostly wait.
LIMITS = sandbox.Limits(
    seconds=3,
    processor_seconds=1,
    memory=256 * 2**20,
    files=128 * 2**20,
    output=10_000,
)
CHEATS = sandbox_cheats.rows()
ESCAPES = sandbox_escapes.rows()
PROGRAMS = sandbox_programs.rows()


@pytest.fixture(scope="module")
def pool(usable_sandbox):
    with sandbox.Pool(processes=8, limits=LIMITS) as pool:
        yield pool


@pytest.fixture(scope="module")
def slot(usable_sandbox):
    """A pool in which every program follows the one before."""
    with sandbox.Pool(processes=1) as pool:
        yield pool


# Escapes and cheats


@pytest.fixture(scope="module")
def escapes(pool, tmp_path_factory):
    """{what is tried: how the program ended}, all run at the same time as each other."""
    secret = tmp_path_factory.mktemp("outside") / "secret"
    secret.write_text("text")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        port = str(server.getsockname()[1])
        abstract.bind(f"\0sandbox-{port}")
        abstract.listen()
        programs = []
        for *_, program in ESCAPES:
            program = program.replace("PORT", port).replace("PID", str(os.getpid()))
            programs.append(program.replace("SECRET", str(secret)))
        ended = pool.run(programs)
    assert os.listdir(secret.parent) == ["secret"]
    return {row[0]: result for row, result in zip(ESCAPES, ended, strict=True)}


@pytest.mark.parametrize("tried, status, pattern", [row[:3] for row in ESCAPES])
def test_no_program_leaves_the_sandbox_or_takes_more_than_its_share(
    escapes, tried, status, pattern
):
    ended = escapes[tried]
    assert ended.status == status, ended.output
    assert re.search(pattern, ended.output), ended.output
    assert "WORKED" not in ended.output


@pytest.fixture(scope="module")
def cheats(pool):
    """{what the program does: did it pass?}"""
    verdicts = pool.grade([(program, tests) for _, program, tests in CHEATS])
    return {row[0]: verdict for row, verdict in zip(CHEATS, verdicts, strict=True)}


@pytest.mark.parametrize("cheat", [row[0] for row in CHEATS])
def test_no_program_passes_tests_that_it_does_not_solve(cheats, cheat):
    assert cheats[cheat] is False


def test_there_are_at_least_40_of_each_and_each_has_a_name_of_its_own():
    for rows in (ESCAPES, CHEATS):
        assert len({row[0] for row in rows}) == len(rows) >= 40


def test_every_system_call_of_the_list_is_refused(slot):
    program = sandbox_escapes.PRELUDE + "for name in CALLS:\n    call(name, 0, 0, 0, 0, 0)\n"
    # Without a flag of a namespace it is a fork.
    program = program.replace("in CALLS:", "in set(CALLS) - {'clone', 'clone3'}:")
    [ended] = slot.run([program])
    assert ended.status == "ended", ended.output
    lines = ended.output.splitlines()
    assert len(lines) == len(sandbox_filter.DENIED)
    for line in lines:
        assert line.endswith("Operation not permitted"), line


# Programs as they should be


@pytest.fixture(scope="module")
def verdicts(slot):
    verdicts = slot.grade([(program, tests) for _, program, tests, _ in PROGRAMS])
    return {row[0]: verdict for row, verdict in zip(PROGRAMS, verdicts, strict=True)}


@pytest.mark.parametrize("tried, right", [(row[0], row[3]) for row in PROGRAMS])
def test_right_programs_pass_and_wrong_ones_do_not(verdicts, tried, right):
    assert verdicts[tried] is right


def test_a_program_has_what_it_prints_and_how_it_ended(slot):
    program = """\
import sys
print("é", end=" ")
print("to errors", file=sys.stderr)
def f(x):
    return 1 / x
f(0)
"""
    failed, left, ended = slot.run([program, "import sys; sys.exit('reason')", "print(1 + 1)"])
    assert failed.status == "error"
    assert failed.output == (
        "é to errors\nTraceback (most recent call last):\n"
        '  File "program.py", line 6, in <module>\n    f(0)\n'
        '  File "program.py", line 5, in f\n    return 1 / x\n           ~~^~~\n'
        "ZeroDivisionError: division by zero\n"
    )
    assert (left.status, left.output) == ("error", "reason\n")
    assert (ended.status, ended.output) == ("ended", "2\n")
    assert 0 < ended.seconds < 15


def test_what_a_program_may_do(slot):
    programs = [
        "import numpy, sympy; assert (sympy.Integer(2) ** 70, numpy.arange(3).sum()) == (2**70, 3)",
        "open('file', 'w').write('text'); assert open('/tmp/file').read() == 'text'",
        "if __name__ == '__main__': import random; random.SystemRandom().random()",
        "import subprocess, sys; subprocess.run(['/bin/sh', '-c', 'exit 0'], check=True)",
        "import threading; t = threading.Thread(target=print); t.start(); t.join()",
        "import os; pid = os.fork()\nif pid: assert os.waitpid(pid, 0)[1] == 0",
        "import pickle\nclass A: pass\nassert type(pickle.loads(pickle.dumps(A()))) is A",
    ]
    for program, ended in zip(programs, slot.run(programs), strict=True):
        assert ended.status == "ended", (program, ended.output)


def test_libraries_are_there_whether_a_program_names_them_or_not(slot):
    """A program that names one is a fork of a process that has imported it."""
    listing = "import sys; print('sym' + 'py' in sys.modules)"
    programs = [
        listing,
        f"{listing}  # sympy",
        "print(__import__('num' + 'py').arange(3).sum())",
        "print(__import__('sym' + 'py').Integer(2) ** 70)",
    ]
    outputs = [ended.output for ended in slot.run(programs)]
    assert outputs == ["False\n", "True\n", "3\n", f"{2**70}\n"]


def test_a_program_that_is_too_long_is_an_error_of_its_own(slot):
    too_long = "#" * 2**24
    failed, ended = slot.run([too_long, "print(1)"])
    assert (failed.status, failed.output) == ("error", "values of more than 16777216 bytes\n")
    assert ended.output == "1\n"
    assert slot.grade([(too_long, "assert True"), ("", "assert True")]) == [False, True]


def test_results_stand_in_the_order_of_the_programs(pool):
    programs = [f"import time; time.sleep({0.3 if i == 0 else 0}); print({i})" for i in range(12)]
    assert [ended.output for ended in pool.run(programs)] == [f"{i}\n" for i in range(12)]


LEAVES_TRACES = """\
import builtins, math, os, random, subprocess, sys
math.pi = builtins.len = sys.trace = 3
os.environ["TRACE"] = "text"
os.mkdir("/tmp/folder")
open("/tmp/trace", "w").write("text")
open("/tmp/math.py", "w").write("pi = 3")
os.umask(0o777)
os.chdir("/tmp/folder")
random.seed(1)
if os.fork() == 0:
    os.setsid()
    while True:
        pass
"""
FINDS_TRACES = """\
import builtins, math, os, random, sys
print(math.pi > 3.1, len([1]), hasattr(sys, "trace"), os.environ.get("TRACE"))
print(os.listdir("/tmp"), os.getcwd(), os.umask(0) < 0o777, os.listdir("/proc"))
print(os.getpid(), random.random())
"""
# Below the functions of sandbox_cheats.py. The third text is its own: the search finds what there
# is. No pattern matches itself.
FINDS_PROGRAMS = """
own = "a text of its own"
patterns = [rb"[a] text of another", rb"[z]ebra printed", rb"[a] text of its own"]
pages = list(memory())
print([any(re.search(pattern, page) for page in pages) for pattern in patterns])
frame = sys._getframe()
while frame:
    assert not re.search("[a] text of another", repr(frame.f_locals))
    frame = frame.f_back
"""


def test_no_program_sees_anything_of_the_one_before(slot):
    first, _, second = slot.run([FINDS_TRACES, LEAVES_TRACES, FINDS_TRACES])
    *lines, numbers = first.output.splitlines()
    assert lines == ["True 1 False None", "[] /tmp True []"]
    assert second.output.splitlines()[:-1] == lines
    # The same number of a process, and another random one.
    pid, drawn = second.output.splitlines()[-1].split()
    assert pid == numbers.split()[0] and drawn != numbers.split()[1]


def test_no_program_finds_the_text_or_the_output_of_another_in_its_memory(slot):
    other = "# a text of another\nprint('zebra', 'printed')"
    *_, ended = slot.run([other] * 5 + [sandbox_cheats.PRELUDE + FINDS_PROGRAMS])
    assert (ended.status, ended.output) == ("ended", "[False, False, True]\n")


def test_a_pool_runs_on_after_all_that(pool, escapes, cheats):
    assert {ended.output for ended in pool.run(["print('alive')"] * 8)} == {"alive\n"}


def test_four_pools_at_once_with_threads_do_not_count_each_others_processes(usable_sandbox):
    program = """\
import threading, time
threads = [threading.Thread(target=time.sleep, args=[0.3]) for _ in range(6)]
for thread in threads:
    thread.start()
"""
    results = []

    def run_two():
        with sandbox.Pool(processes=1) as pool:
            results.extend(pool.run([program] * 2))

    threads = [threading.Thread(target=run_two) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ended.status for ended in results] == ["ended"] * 8


# A Python, its packages and the checkout where every user can read them.
AS_NOBODY = """\
set -e
mount -t tmpfs tmpfs /media
mkdir /media/python /media/packages /media/checkout
mount --bind "$1" /media/python
mount --bind "$2" /media/packages
mount --bind "$3" /media/checkout
export PYTHONPATH=/media/checkout:/media/checkout/tests:/media/packages
exec setpriv --reuid 65534 --regid 65534 --clear-groups "/media/python/bin/$4" -c "$5"
"""
CHECKS_ALL = """\
import re
import sandbox_escapes
import sandbox_programs
from common import sandbox
from test_sandbox import LIMITS

sandbox.FOLDERS = {
    "/media/checkout/common": f"{sandbox.CODE}/common",
    "/media/packages": sandbox.PACKAGES,
}
escapes = [row for row in sandbox_escapes.rows() if row[1] != "time"]
with sandbox.Pool(4, LIMITS) as pool:
    # Nothing is there outside; the other tests have a server, a file and a process.
    names = {"PORT": "1", "PID": "1", "SECRET": "/nowhere/secret"}
    texts = [re.sub("|".join(names), lambda name: names[name[0]], row[3]) for row in escapes]
    ended = pool.run(texts)
    programs = sandbox_programs.rows()
    verdicts = pool.grade([(program, tests) for _, program, tests, _ in programs])
for (tried, status, pattern, _), result in zip(escapes, ended):
    if result.status != status or not re.search(pattern, result.output):
        print(tried, result)
for (tried, *_, right), verdict in zip(programs, verdicts):
    if verdict != right:
        print(tried, verdict)
print(len(ended), len(verdicts), "checked")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="all tests here are those of an ordinary user")
def test_an_ordinary_user_has_the_same_sandbox(usable_sandbox):
    prefix = str(sandbox.PYTHON.parent.parent)
    command = ["unshare", "--mount", "bash", "-c", AS_NOBODY, "bash", prefix]
    command += [sysconfig.get_path("purelib"), ROOT, sandbox.PYTHON.name, CHECKS_ALL]
    done = subprocess.run(command, capture_output=True, text=True)
    if "UnusableError" in done.stderr:
        pytest.skip(f"the sandbox of an ordinary user: {done.stderr.splitlines()[-1]}")
    assert re.fullmatch(r"\d+ \d+ checked\n", done.stdout), done.stdout + done.stderr


def test_pass_at_k_counts_the_programs_that_pass(usable_sandbox):
    code = """\
import sys, time, types
sys.path.insert(0, "eval")
import code_eval
programs = ["def f(x): return x + 1", "def f(x): return x", "import os; os._exit(0)"]
print(code_eval.compute(["assert f(1) == 2"], [programs], [1, 2, 4]))
# As the hub's is called: https://huggingface.co/spaces/evaluate-metric/code_eval
print(code_eval.compute(references=["assert f(1) == 2"], predictions=[programs]))
print(code_eval.compute(references=[], predictions=[], k=[1]))
slow = ["import time\\ntime.sleep(600)", "while True: pass", "pass"]
start = time.monotonic()
print(code_eval.compute(["assert 1"], [slow], [1], num_workers=3, timeout=1))
assert time.monotonic() - start < 15
# Its import takes seconds.
evaluate = sys.modules["evaluate"] = types.SimpleNamespace(load=None)
code_eval.replace_code_eval(True)
assert evaluate.load(path="code_eval") is code_eval
"""
    done = run("-c", code, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout.splitlines() == [
        "({'pass@1': 0.33333333333333337, 'pass@2': 0.6666666666666667}, {})",
        "({'pass@1': 0.33333333333333337}, {})",
        "({'pass@1': nan}, {})",
        "({'pass@1': 0.33333333333333337}, {})",
    ], done.stderr


def test_the_example_of_the_page_prints_what_the_page_says(usable_sandbox):
    page = (ROOT / "docs/sandbox.md").read_text()
    [example] = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    [printed] = re.findall(r"^```text\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    done = run("-c", example, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout == printed, done.stderr
    assert f"{len(ESCAPES)} escapes and {len(CHEATS)} cheats" in page


# What is left


def parents_of_processes():
    """{process id: that of its parent}"""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except OSError:  # it has ended
                continue
    return parents


def descendants(pid):
    """The processes that this one has started, and theirs, by their numbers here."""
    parents = parents_of_processes()
    found = {pid}
    for _ in parents:
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {pid}


def alive(pids):
    """Those that run; a dead one may wait for its parent to take note."""
    running = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                state = file.read().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            running.append(pid)
    return running


OWNER = """\
from common import sandbox
pool = sandbox.Pool(processes=2)
print("started", flush=True)
pool.run(["import time; time.sleep(600)"] * 2)
"""


def test_nothing_outlives_the_process_that_has_the_pool(usable_sandbox):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as owner:
        assert owner.stdout.readline() == b"started\n"
        # bubblewrap, the zygote, and for each program a server and two processes.
        deadline = time.monotonic() + 10
        while len(pids := descendants(owner.pid)) < 8:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        owner.kill()
    deadline = time.monotonic() + 10
    while alive(pids):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.05)


def test_a_pool_that_is_closed_leaves_no_process_mount_or_file(
    usable_sandbox, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with sandbox.Pool(processes=1) as pool:
        pool.run(["import os; os.fork()", "open('file', 'w')"])
        pids = descendants(pool.process.pid)
        with open("/proc/self/mounts") as file:
            assert sandbox.CODE not in file.read()
    assert pids and not alive(pids)
    assert not list(tmp_path.iterdir())


def test_a_pool_that_is_closed_ends_even_if_its_owner_has_forked(usable_sandbox):
    pool = sandbox.Pool(processes=1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    closing = threading.Thread(target=pool.close)
    closing.start()
    closing.join(10)
    still_closing = closing.is_alive()
    os.close(reader)
    os.close(writer)
    os.waitpid(child, 0)
    closing.join()
    assert not still_closing


def test_a_server_that_has_ended_is_an_error_and_not_a_wait_without_end(usable_sandbox):
    with sandbox.Pool(processes=1) as pool:
        parents = parents_of_processes()
        # The child of bubblewrap is the zygote; its children are the server and its helper.
        for pid in descendants(pool.process.pid):
            if parents[pid] != pool.process.pid:
                os.kill(pid, signal.SIGKILL)
        with pytest.raises(sandbox.UnusableError, match="has ended"):
            pool.run(["print(1)"])


# Where there is no sandbox


def test_a_machine_without_bubblewrap_gets_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    reason = sandbox.unusable()
    assert reason == (
        "the sandbox needs the command bwrap, which is not there (Debian: apt install bubblewrap)"
    )
    with pytest.raises(sandbox.UnusableError, match="bwrap"):
        sandbox.Pool()


def test_a_bubblewrap_that_may_not_start_gets_its_own_words(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permission to create namespaces' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    reason = "the sandbox does not start (bwrap: No permission to create namespaces)"
    assert sandbox.unusable() == reason


def test_a_run_that_has_to_skip_the_sandbox_says_so_in_its_last_line():
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider"]
    command += ["tests/test_sandbox.py", "-k", "order_of_the_programs or anything_of_the_one"]
    environment = {**os.environ, "PATH": "/nowhere"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines()[-1] == (
        "2 tests were skipped: the sandbox needs the command bwrap, which is not there "
        "(Debian: apt install bubblewrap)"
    ), done.stdout


def test_memory_is_counted_once_while_others_look(usable_sandbox):
    """Servers that share a descriptor of /proc would see some processes twice, and others not."""
    program = "import time; taken = b'1' * (70 << 20); time.sleep(1)"
    limits = sandbox.Limits(memory=128 << 20)
    with sandbox.Pool(processes=6, limits=limits) as pool:
        statuses = [ended.status for ended in pool.run([program] * 12)]
    assert statuses == ["ended"] * 12
