"""What runs inside the sandbox: a Python that has imported its libraries and forks for programs.

For sandbox.py, which starts it in bubblewrap. For each slot of the pool the zygote forks a server
(sandbox_supervisor.py) and two parents of the slot's programs (sandbox_forks.py): one before it
imports the libraries and one after, since half of a fork's time goes into their memory.
"""

import contextlib
import gc
import json
import os
import socket
import sys
from dataclasses import dataclass

from common import (
    sandbox_forks,
    sandbox_isolation,
    sandbox_supervisor,
    sandbox_tests,
    sandbox_values,
)

LIBRARIES = ("numpy", "sympy")


@dataclass
class Parent:
    """The parent of a slot's programs, as the server sees it."""

    zygote: sandbox_forks.Zygote  # as it was when the parent was forked
    orders: socket.socket


# The server of a slot


def serve(connection, bare, with_libraries):
    """Run what is asked for, one request after the other. bare, with_libraries: each a Parent."""
    while (request := sandbox_values.receive(connection)) is not None:
        try:
            program = request["program"]
            # One that names none can still import them, in the second that this takes.
            named = any(name in program for name in LIBRARIES)
            if "tests" in request:
                answer = grade(with_libraries, program, request["tests"])
            else:
                answer = run(with_libraries if named else bare, program)
            sandbox_values.send(connection, answer)
        # Whatever goes wrong with one program, the next one has a server.
        except Exception as error:
            failure = {"failure": f"{type(error).__name__}: {error}"}
            sandbox_values.send(connection, failure)


def run(parent, text):
    """How a program by itself ended."""
    program = sandbox_supervisor.start(parent.orders, "script", text)
    try:
        sandbox_supervisor.wait(parent.zygote, program)
    finally:
        answer = sandbox_supervisor.finish(parent.zygote, parent.orders, program)
    return answer


def grade(parent, text, tests):
    """How the tests ended, with "passed"; only their process can say so."""
    zygote = parent.zygote
    orders = parent.orders
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


def this_process(limits, proc):
    """The Zygote that this process is by now."""
    # Else every fork looks through all of it again, which copies the memory.
    gc.collect()
    gc.freeze()
    fields = sandbox_supervisor.process_fields(proc, os.getpid())
    return sandbox_forks.Zygote(
        limits=limits,
        proc=proc,
        process_namespace=os.open("/proc/self/ns/pid", os.O_RDONLY),
        users=sandbox_isolation.unused_users(),
        address_space=fields["VmSize"],
        memory=fields["RssAnon"],
    )


def fork_parent(zygote):
    """Fork the parent of a slot's programs."""
    # With limits between messages: an order and its descriptors come together.
    orders, orders_end = socket.socketpair(type=socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        sandbox_isolation.close_all_but({orders_end.fileno(), zygote.process_namespace})
        sandbox_forks.be_parent(zygote, orders_end)
        os._exit(0)
    orders_end.close()
    return Parent(zygote, orders)


def fork_server(descriptor, bare, with_libraries):
    """Fork the server of a slot."""
    orders = (bare.orders, with_libraries.orders)
    if os.fork() == 0:
        kept = [descriptor, bare.zygote.proc, *(each.fileno() for each in orders)]
        sandbox_isolation.close_all_but(kept)
        serve(socket.socket(fileno=descriptor), bare, with_libraries)
        os._exit(0)
    # Whoever waits for a server that has ended must see its end.
    os.close(descriptor)
    for each in orders:
        each.close()


def main():
    settings = json.loads(sys.argv[1])
    sys.path[:] = [path for path in sys.path if path != settings["code"]]
    sandbox_isolation.new_keyring()
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    zygote = this_process(settings["limits"], proc)
    bare = [fork_parent(zygote) for _ in settings["slots"]]
    import_libraries()
    zygote = this_process(settings["limits"], proc)
    with_libraries = [fork_parent(zygote) for _ in settings["slots"]]
    for slot in zip(settings["slots"], bare, with_libraries, strict=True):
        fork_server(*slot)
    os.write(settings["control"], b"ready")
    # The end of whoever started the sandbox ends this process, the first of its process namespace,
    # and the kernel then kills the others there. PR_SET_PDEATHSIG, which bubblewrap would use, is
    # about the thread that started it, and not about its process.
    os.read(settings["control"], 1)
