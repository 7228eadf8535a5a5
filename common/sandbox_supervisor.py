"""The processes of a program in the sandbox.

    supervisor      a server of the zygote: keeps the limits of time, memory and output
    first process   of a new process namespace: enters the other namespaces, gives up all rights,
                    waits; its end ends the rest
    program         the program, or the tests of one

A program sees the last two alone: it has no descriptor, number or memory of the others. Nothing
of a program is left when its first process has ended. For sandbox_zygote.py.
"""

import contextlib
import os
import re
import selectors
import signal
import socket
import time
from dataclasses import dataclass

from common import sandbox_isolation, sandbox_scripts

TICK = 0.01  # seconds between two looks at the memory of a program
LOOKING = 0.1  # the most of its time that the supervisor looks
FIELD = re.compile(r"^(\w+):\s+(\d+)( kB)?$", re.MULTILINE)
READY = b"ready"
PART = 2**16  # bytes: what a pipe holds
# Exit statuses of the first process.
ENDED, ERROR, OUT_OF_TIME = range(3)
STATUSES = {ENDED: "ended", ERROR: "error", OUT_OF_TIME: "time"}


@dataclass
class Zygote:
    """The process that all programs of a pool are forks of, and what they share."""

    limits: dict  # the fields of sandbox.Limits
    proc: int  # a descriptor of /proc, which shows all processes of the sandbox
    process_namespace: int  # a descriptor of the namespace of those processes
    users: range  # sandbox_isolation.unused_users()
    address_space: int  # bytes that this process takes before a program starts
    memory: int  # of them, bytes of its own memory; a fork shares it at first


# The memory of a program


def process_fields(proc, pid):
    """{name: number} of the numbers in a process's status; bytes where it has kB."""
    descriptor = os.open(f"{pid}/status", os.O_RDONLY, dir_fd=proc)
    with open(descriptor) as file:
        lines = FIELD.findall(file.read())
    return {name: int(number) * (1024 if unit else 1) for name, number, unit in lines}


def memory_in_use(zygote, program):
    """Bytes that a program takes: its processes', without what they share with the zygote, and the
    files in /tmp.

    Memory that two processes share by a fork of the program counts for both.
    """
    processes = {}
    for name in os.listdir(zygote.proc):
        if name.isdigit():
            # It may have ended since.
            with contextlib.suppress(OSError):
                processes[int(name)] = process_fields(zygote.proc, name)
    tree = {program.first_process}
    # A child can have the lower number where numbers have begun again.
    size = 0
    while size < len(tree):
        size = len(tree)
        tree |= {pid for pid, fields in processes.items() if fields.get("PPid") in tree}
    files = os.fstatvfs(program.files)
    total = (files.f_blocks - files.f_bfree) * files.f_frsize
    for pid in tree & processes.keys():
        fields = processes[pid]
        own = fields.get("RssAnon", 0) + fields.get("VmSwap", 0)
        total += max(0, own - zygote.memory)
    return total


# A program, from its start to its end


@dataclass
class Program:
    """A program that runs, as its supervisor sees it; the numbers are descriptors but the first."""

    first_process: int  # process id
    end: int  # can be read once the first process has ended
    output: int
    files: int  # its /tmp
    start_time: float
    text: bytes = b""  # its output so far
    passed: str | None = None  # the limit that it has passed
    runs: bool = True


def start(zygote, body, keep=(), keeps_output=True):
    """Fork a Program in namespaces of its own; an OSError says why that cannot be.

    body: what the program's process does. keep: the descriptors that it keeps.
    """
    output, output_end = os.pipe()
    ready, ready_end = socket.socketpair()
    first_process = fork_into_namespace(zygote)
    if first_process == 0:
        be_first_process(zygote, body, keep, output_end if keeps_output else None, ready_end)
    os.close(output_end)
    ready_end.close()
    os.set_blocking(output, False)
    with ready:
        message, descriptors, _, _ = socket.recv_fds(ready, PART, 1)
    if message != READY:
        os.waitpid(first_process, 0)
        os.close(output)
        raise OSError(message.decode(errors="replace") or "a program's process has ended")
    end = os.pidfd_open(first_process)
    return Program(first_process, end, output, descriptors[0], time.monotonic())


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


def wait(zygote, program, *others):
    """Let them run until the first has ended or passed a limit."""
    with selectors.DefaultSelector() as selector:
        for each in (program, *others):
            selector.register(each.output, selectors.EVENT_READ, each)
            selector.register(each.end, selectors.EVENT_READ, each)
        next_look = time.monotonic() + TICK
        while program.runs:
            for key, _ in selector.select(TICK):
                handle(zygote, selector, key.data, key.fd)
            # Looking takes time itself: it must not be more often for a flood of output, and not
            # take a core where many programs run at a time.
            now = time.monotonic()
            if now > next_look:
                look(zygote, program, *others)
                seconds = time.monotonic() - now
                next_look = now + max(TICK, seconds / LOOKING)


def handle(zygote, selector, program, descriptor):
    """Take a program's output, or note its end."""
    if descriptor == program.end:
        selector.unregister(program.end)
        program.runs = False
        return
    part = os.read(program.output, PART)
    program.text += part
    if not part:  # the program has closed it
        selector.unregister(program.output)
    if len(program.text) > zygote.limits["output"]:
        selector.unregister(program.output)
        kill(program, "output")


def look(zygote, *programs):
    """Kill those that have passed a limit."""
    for program in programs:
        if time.monotonic() - program.start_time > zygote.limits["seconds"]:
            kill(program, "time")
        elif memory_in_use(zygote, program) > zygote.limits["memory"]:
            kill(program, "memory")


def kill(program, passed):
    """End a program with all its processes, for this limit."""
    program.passed = program.passed or passed
    program.runs = False
    # Of a process namespace all processes die with the first.
    os.kill(program.first_process, signal.SIGKILL)


def finish(zygote, program):
    """End a program if it still runs; returns how it ended, the fields of sandbox.Ended."""
    seconds = time.monotonic() - program.start_time
    kill(program, None)
    # It ends when the last process of its namespace has.
    _, wait_status = os.waitpid(program.first_process, 0)
    with contextlib.suppress(BlockingIOError):
        program.text += os.read(program.output, PART)
    for descriptor in (program.end, program.output, program.files):
        os.close(descriptor)
    status = STATUSES.get(os.waitstatus_to_exitcode(wait_status), "error")
    return {
        "status": program.passed or status,
        "output": cut(program.text, zygote.limits["output"]),
        "seconds": seconds,
    }


def cut(output, limit):
    """The output as text; a last line says that it was cut."""
    text = output[:limit].decode(errors="replace")
    if len(output) > limit:
        text += f"\n[cut after {limit} bytes]\n"
    return text


# The first process of the namespace


def be_first_process(zygote, body, keep, output, ready):
    """Enter namespaces, give up all rights, fork the program, and end as it ends.

    ready: gets a descriptor of /tmp, or the reason why there can be no program.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    redirect(output)
    sandbox_isolation.close_all_but({ready.fileno(), *keep})
    try:
        # Where the machine runs out of memory, the kernel is to end a program first.
        sandbox_isolation.write_file("/proc/self/oom_score_adj", "1000")
        sandbox_isolation.enter_namespaces(zygote.limits["files"])
        os.chdir("/tmp")
        os.setsid()
        files = os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY)
        sandbox_isolation.drop_rights(zygote.limits, zygote.address_space, zygote.users)
        socket.send_fds(ready, [READY], [files])
        sandbox_isolation.close_all_but(keep)
        program = os.fork()
    except Exception as error:
        ready.send(str(error).encode())
        os._exit(ERROR)
    if program == 0:
        try:
            os._exit(sandbox_scripts.run_to_end(body))
        finally:  # what comes so far out must not run on as the supervisor
            os._exit(1)
    sandbox_isolation.close_all_but(())
    _, wait_status, usage = os.wait4(program, 0)
    code = os.waitstatus_to_exitcode(wait_status)
    processor_seconds = usage.ru_utime + usage.ru_stime
    out_of_time = processor_seconds >= zygote.limits["processor_seconds"]
    if code == -signal.SIGXCPU or (code == -signal.SIGKILL and out_of_time):
        os._exit(OUT_OF_TIME)
    os._exit(ENDED if code == 0 else ERROR)


def redirect(output):
    """Give this process no input, and its output to that descriptor or to nobody."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for stream in (1, 2):
        os.dup2(null if output is None else output, stream)
