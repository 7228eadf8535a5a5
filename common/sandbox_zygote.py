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
        try:
            if "tests" in request:
                answer = grade(zygote, request["program"], request["tests"])
            else:
                answer = run(zygote, request["program"])
        except OSError as error:
            answer = {"failure": str(error)}
        sandbox_values.send(connection, answer)


def run(zygote, text):
    """How a program by itself ended."""
    program = sandbox_supervisor.start(zygote, lambda: sandbox_scripts.run_script(text))
    sandbox_supervisor.wait(zygote, program)
    return sandbox_supervisor.finish(zygote, program)


def grade(zygote, text, tests):
    """How the tests ended, with "passed"; only their process can say so."""
    programs_end, tests_end = socket.socketpair()
    verdict, verdict_end = os.pipe()

    def be_program():
        return sandbox_grading.be_program(text, programs_end)

    def be_tests():
        return sandbox_grading.be_tests(tests, tests_end, verdict_end)

    start = sandbox_supervisor.start
    program = start(zygote, be_program, {programs_end.fileno()}, keeps_output=False)
    try:
        keep = {tests_end.fileno(), verdict_end}
        program_of_tests = start(zygote, be_tests, keep, keeps_output=False)
        programs_end.close()
        tests_end.close()
        os.close(verdict_end)
        sandbox_supervisor.wait(zygote, program_of_tests, program)
        answer = sandbox_supervisor.finish(zygote, program_of_tests)
    finally:
        sandbox_supervisor.finish(zygote, program)
    answer["passed"] = os.read(verdict, len(sandbox_grading.PASSED)) == sandbox_grading.PASSED
    os.close(verdict)
    return answer


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
    zygote = sandbox_supervisor.Zygote(
        limits=settings["limits"],
        proc=proc,
        process_namespace=os.open("/proc/self/ns/pid", os.O_RDONLY),
        users=sandbox_isolation.unused_users(),
        address_space=fields["VmSize"],
        memory=fields["RssAnon"],
    )
    for descriptor in settings["slots"]:
        if os.fork() == 0:
            sandbox_isolation.close_all_but({descriptor, proc, zygote.process_namespace})
            serve(zygote, socket.socket(fileno=descriptor))
            os._exit(0)
    os.write(settings["control"], b"ready")
    # The end of whoever started the sandbox ends this process, the first of its process namespace,
    # and the kernel then kills the others there. PR_SET_PDEATHSIG, which bubblewrap would use, is
    # about the thread that started it, and not about its process.
    os.read(settings["control"], 1)
