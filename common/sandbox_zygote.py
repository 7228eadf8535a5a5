"""What runs inside the sandbox: a Python that has imported its libraries and forks for programs.

For sandbox.py, which starts it in bubblewrap. The zygote forks a server for each slot of the pool,
and the server forks for each program (sandbox_supervisor.py).
"""

import contextlib
import gc
import json
import os
import socket
import sys

from common import (
    sandbox_grading,
    sandbox_isolation,
    sandbox_scripts,
    sandbox_supervisor,
    sandbox_values,
)

# The server of a slot


def serve(zygote, connection):
    """Run what is asked for, one request after the other."""
    while (request := sandbox_values.receive(connection)) is not None:
        if "tests" in request:
            answer = grade(zygote, request["program"], request["tests"])
        else:
            answer = run(zygote, request["program"])
        sandbox_values.send(connection, answer)


def run(zygote, program):
    """The report of a program by itself."""
    report, stop = sandbox_supervisor.start(zygote, lambda: sandbox_scripts.run_script(program), ())
    answer = wait_for(report)
    os.close(stop)
    return answer


def grade(zygote, program, tests):
    """The report of the tests, with "passed"; only their process can say so."""
    programs_end, tests_end = socket.socketpair()
    verdict, verdict_end = os.pipe()

    def be_program():
        return sandbox_grading.be_program(program, programs_end)

    def be_tests():
        return sandbox_grading.be_tests(tests, tests_end, verdict_end)

    start = sandbox_supervisor.start
    program_report, stop_program = start(zygote, be_program, {programs_end.fileno()}, False)
    keep = {tests_end.fileno(), verdict_end}
    tests_report, stop_tests = start(zygote, be_tests, keep, False)
    for end in (programs_end, tests_end):
        end.close()
    os.close(verdict_end)
    answer = wait_for(tests_report)
    answer["passed"] = os.read(verdict, len(sandbox_grading.PASSED)) == sandbox_grading.PASSED
    for descriptor in (verdict, stop_tests, stop_program):
        os.close(descriptor)
    programs_answer = wait_for(program_report)
    return programs_answer if "failure" in programs_answer else answer


def wait_for(report):
    """Read a report to its end, and wait for its supervisor."""
    with open(report) as file:
        text = file.read()
    os.wait()
    if text:
        return json.loads(text)
    # The machine ran out of memory.
    return {"status": "memory", "output": "", "seconds": 0.0}


# The zygote


def import_libraries():
    for name in ("numpy.random", "sympy"):
        with contextlib.suppress(ImportError):
            __import__(name)
    # Else every fork looks through all of it again, which copies the memory.
    gc.collect()
    gc.freeze()


def main():
    settings = json.loads(sys.argv[1])
    sys.path[:] = [path for path in sys.path if path != settings["code"]]
    import_libraries()
    sandbox_isolation.new_keyring()
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    fields = sandbox_supervisor.process_fields(proc, os.getpid())
    users = sandbox_isolation.unused_users()
    zygote = sandbox_supervisor.Zygote(
        settings["limits"], proc, users, fields["VmSize"], fields["RssAnon"]
    )
    for descriptor in settings["slots"]:
        if os.fork() == 0:
            sandbox_isolation.close_all_but({descriptor, proc})
            serve(zygote, socket.socket(fileno=descriptor))
            os._exit(0)
    os.write(settings["control"], b"ready")
    # The end of whoever started the sandbox ends this process, the first of its process namespace,
    # and the kernel then kills the others there. PR_SET_PDEATHSIG, which bubblewrap would use, is
    # about the thread that started it, and not about its process.
    os.read(settings["control"], 1)
