"""The process of which all programs of a slot are forks, and what a fork does.

    server         has the requests and the answers, and keeps the limits: sandbox_supervisor.py
    parent         of all programs of the server's slot
    first process  of a new process namespace: enters the other namespaces, gives up all rights,
                   waits; its end ends the rest
    program        the program, or the tests of one

A program can read all memory that it inherits. So no process above it may ever have held the
tests, another program, or an output: the parent gets orders without a text, and a program reads
its own text from a socket. A program sees the last two processes alone, and has no descriptor of
the others.
"""

import json
import os
import signal
import socket
from dataclasses import dataclass

from common import (
    sandbox_grading,
    sandbox_isolation,
    sandbox_scripts,
    sandbox_tests,
    sandbox_values,
)

READY = b"ready"
ORDER = 4096  # bytes: more than an order or its answer takes
DESCRIPTORS = 8  # more than an order has
# Exit statuses of the first process.
ENDED, ERROR, OUT_OF_TIME = range(3)


@dataclass
class Zygote:
    """The process that all others of a pool are forks of, and what they share."""

    limits: dict  # the fields of sandbox.Limits
    proc: int  # a descriptor of /proc, which shows all processes of the sandbox
    process_namespace: int  # a descriptor of the namespace of those processes
    users: range  # sandbox_isolation.unused_users()
    address_space: int  # bytes that this process takes before a program starts
    memory: int  # of them, bytes of its own memory; a fork shares it at first


# The server's side


def order(orders, message, descriptors=()):
    """The parent's answer, a number; an OSError holds its error."""
    socket.send_fds(orders, [json.dumps(message).encode()], descriptors)
    text = orders.recv(ORDER)
    if not text:
        raise OSError("the parent of the programs has ended")
    answer = json.loads(text)
    if "error" in answer:
        raise OSError(answer["error"])
    return answer["number"]


def fork(orders, role, descriptors):
    """The process id of a new first process.

    role: "script", "program" or "tests"; descriptors: for what tells that it is ready, its text,
    its output, then those that the program keeps.
    """
    return order(orders, {"role": role}, descriptors)


def wait_for(orders, first_process):
    """Its exit status, once it has ended; minus the number of the signal that ended it."""
    return order(orders, {"wait": first_process})


# The parent


def be_parent(zygote, orders):
    """Do what the server orders, until it ends."""
    while True:
        text, descriptors, _, _ = socket.recv_fds(orders, ORDER, DESCRIPTORS)
        if not text:
            return
        message = json.loads(text)
        try:
            answer = {"number": carry_out(zygote, message, descriptors)}
        except OSError as error:
            answer = {"error": str(error)}
        for descriptor in descriptors:
            os.close(descriptor)
        orders.send(json.dumps(answer).encode())


def carry_out(zygote, message, descriptors):
    if "wait" in message:
        _, wait_status = os.waitpid(message["wait"], 0)
        return os.waitstatus_to_exitcode(wait_status)
    first_process = fork_into_namespace(zygote)
    if first_process == 0:
        try:
            be_first_process(zygote, message["role"], *descriptors)
        finally:  # what comes so far out must not run on as the parent
            os._exit(ERROR)
    return first_process


def fork_into_namespace(zygote):
    """Fork the first process of a new process namespace; the process id, 0 in the new process."""
    first_process = None
    # Both calls are about the next children, and not about this process.
    sandbox_isolation.call("unshare", sandbox_isolation.CLONE_NEWPID)
    try:
        first_process = os.fork()
    finally:
        if first_process != 0:
            back = zygote.process_namespace
            sandbox_isolation.call("setns", back, sandbox_isolation.CLONE_NEWPID)
    return first_process


# The first process of the namespace


def be_first_process(zygote, role, ready, source, output, *kept):
    """Enter namespaces, give up all rights, fork the program, and end as it ends.

    ready: gets a descriptor of /tmp, or the reason why there can be no program.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    redirect(output)
    sandbox_isolation.close_all_but({ready, source, *kept})
    ready = socket.socket(fileno=ready)
    try:
        # Where the machine runs out of memory, the kernel is to end a program first.
        sandbox_isolation.write_file("/proc/self/oom_score_adj", "1000")
        sandbox_isolation.enter_namespaces(zygote.limits["files"])
        os.chdir("/tmp")
        os.setsid()
        files = os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY)
        sandbox_isolation.drop_rights(zygote.limits, zygote.address_space, zygote.users)
        socket.send_fds(ready, [READY], [files])
        sandbox_isolation.close_all_but({source, *kept})
        program = os.fork()
    except Exception as error:
        ready.send(str(error).encode())
        os._exit(ERROR)
    if program == 0:
        try:
            os._exit(sandbox_scripts.run_to_end(lambda: be_program(role, source, *kept)))
        finally:  # what comes so far out must not run on as the first process
            os._exit(ERROR)
    sandbox_isolation.close_all_but(())
    _, wait_status, usage = os.wait4(program, 0)
    code = os.waitstatus_to_exitcode(wait_status)
    processor_seconds = usage.ru_utime + usage.ru_stime
    out_of_time = processor_seconds >= zygote.limits["processor_seconds"]
    if code == -signal.SIGXCPU or (code == -signal.SIGKILL and out_of_time):
        os._exit(OUT_OF_TIME)
    os._exit(ENDED if code == 0 else ERROR)


def redirect(output):
    """Give this process no input, and its output to that descriptor."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for stream in (1, 2):
        os.dup2(output, stream)


# The program


def be_program(role, source, *kept):
    """Read the text from that descriptor, and run it in its role."""
    with socket.socket(fileno=source) as connection:
        text = sandbox_values.receive(connection)
    if text is None:  # the server has ended
        os._exit(ERROR)
    if role == "script":
        sandbox_scripts.run_script(text)
        return
    channel, *others = kept
    channel = socket.socket(fileno=channel)
    if role == "program":
        sandbox_grading.be_program(text, channel)
    else:
        sandbox_tests.be_tests(text, channel, *others)
