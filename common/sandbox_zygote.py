"""What runs inside the sandbox: a Python that has imported its libraries and forks for programs.

For sandbox.py, which starts it in bubblewrap. For each slot of the pool the zygote forks a server
(sandbox_supervisor.py) and the parent of the slot's programs (sandbox_forks.py).
"""

import contextlib
import gc
import json
import os
import socket
import sys

from common import (
    sandbox_forks,
    sandbox_isolation,
    sandbox_supervisor,
    sandbox_tests,
    sandbox_values,
)

# The server of a slot


def serve(zygote, connection, orders):
    """Run what is asked for, one request after the other."""
    while (request := sandbox_values.receive(connection)) is not None:
        try:
            if "tests" in request:
                answer = grade(zygote, orders, request["program"], request["tests"])
            else:
                answer = run(zygote, orders, request["program"])
            sandbox_values.send(connection, answer)
        # Whatever goes wrong with one program, the next one has a server.
        except Exception as error:
            failure = {"failure": f"{type(error).__name__}: {error}"}
            sandbox_values.send(connection, failure)


def run(zygote, orders, text):
    """How a program by itself ended."""
    program = sandbox_supervisor.start(orders, "script", text)
    try:
        sandbox_supervisor.wait(zygote, program)
    finally:
        answer = sandbox_supervisor.finish(zygote, orders, program)
    return answer


def grade(zygote, orders, text, tests):
    """How the tests ended, with "passed"; only their process can say so."""
    start = sandbox_supervisor.start
    finish = sandbox_supervisor.finish
    with contextlib.ExitStack() as stack:
        programs_end, tests_end = stack.enter_context(sandbox_supervisor.connected())
        verdict, verdict_end = os.pipe()
        stack.callback(os.close, verdict)
        with open(verdict_end, "wb") as writer:
            program = start(orders, "program", text, programs_end.fileno(), prints=False)
            stack.callback(finish, zygote, orders, program)
            kept = (tests_end.fileno(), writer.fileno())
            program_of_tests = start(orders, "tests", tests, *kept)
        # Only so does each of the two see the end of the other.
        programs_end.close()
        tests_end.close()
        try:
            sandbox_supervisor.wait(zygote, program_of_tests, program)
        finally:
            answer = finish(zygote, orders, program_of_tests)
        passed = os.read(verdict, len(sandbox_tests.PASSED))
        answer["passed"] = passed == sandbox_tests.PASSED
    return answer


# The zygote


def import_libraries():
    for name in ("numpy.random", "sympy"):
        with contextlib.suppress(ImportError):
            __import__(name)
    # Else every fork looks through all of it again, which copies the memory.
    gc.collect()
    gc.freeze()


def fork_slot(zygote, descriptor):
    """Fork the server of a slot, and the parent of its programs."""
    # With limits between messages: an order and its descriptors come together.
    orders, orders_end = socket.socketpair(type=socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        sandbox_isolation.close_all_but({orders_end.fileno(), zygote.process_namespace})
        sandbox_forks.be_parent(zygote, orders_end)
        os._exit(0)
    if os.fork() == 0:
        sandbox_isolation.close_all_but({descriptor, orders.fileno(), zygote.proc})
        serve(zygote, socket.socket(fileno=descriptor), orders)
        os._exit(0)
    # Whoever waits for a server that has ended must see its end.
    for each in (descriptor, orders.detach(), orders_end.detach()):
        os.close(each)


def main():
    settings = json.loads(sys.argv[1])
    sys.path[:] = [path for path in sys.path if path != settings["code"]]
    import_libraries()
    sandbox_isolation.new_keyring()
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    fields = sandbox_supervisor.process_fields(proc, os.getpid())
    zygote = sandbox_forks.Zygote(
        limits=settings["limits"],
        proc=proc,
        process_namespace=os.open("/proc/self/ns/pid", os.O_RDONLY),
        users=sandbox_isolation.unused_users(),
        address_space=fields["VmSize"],
        memory=fields["RssAnon"],
    )
    for descriptor in settings["slots"]:
        fork_slot(zygote, descriptor)
    os.write(settings["control"], b"ready")
    # The end of whoever started the sandbox ends this process, the first of its process namespace,
    # and the kernel then kills the others there. PR_SET_PDEATHSIG, which bubblewrap would use, is
    # about the thread that started it, and not about its process.
    os.read(settings["control"], 1)
