"""The server of a slot: starts programs, keeps their limits, and takes what they print.

Nothing of a program is left when its first process (sandbox_forks.py) has ended. For
sandbox_zygote.py.
"""

import collections
import contextlib
import os
import re
import selectors
import signal
import socket
import time
from dataclasses import dataclass

from common import sandbox_forks, sandbox_values

TICK = 0.01  # seconds between two looks at the memory of a program
LOOKING = 0.1  # the most of its time that the supervisor looks
# Of several numbers the last, which is that in the innermost namespace.
FIELD = re.compile(r"^(NSpid|VmSize|VmSwap|RssAnon):(?:\s+\d+)*?\s+(\d+)( kB)?$", re.MULTILINE)
PROGRAM = 2  # the number of a program's process in its own namespace
# Places in /proc/PID/stat, after the process's name.
PARENT = 1
FLAGS = 6
PF_FORKNOEXEC = 0x40  # of linux/sched.h: has not executed another file since its fork
PART = 2**16  # bytes: what a pipe holds
STATUSES = {
    sandbox_forks.ENDED: "ended",
    sandbox_forks.ERROR: "error",
    sandbox_forks.OUT_OF_TIME: "time",
}


# The memory of a program


def process_fields(proc, path):
    """{name: number} of FIELD in the status of a process or thread; bytes where it has kB."""
    lines = FIELD.findall(read_file(proc, f"{path}/status"))
    return {name: int(number) * (1024 if unit else 1) for name, number, unit in lines}


def read_file(proc, path):
    descriptor = os.open(path, os.O_RDONLY, dir_fd=proc)
    # A process may give itself a name that is no text.
    with open(descriptor, errors="replace") as file:
        return file.read()


def parent_and_flags(proc, pid):
    # The name before these fields may hold anything, a parenthesis too.
    fields = read_file(proc, f"{pid}/stat").rpartition(")")[2].split()
    return int(fields[PARENT]), int(fields[FLAGS])


def names_in(proc, folder):
    """What a folder of /proc lists. Opened anew: servers share the descriptor of /proc, and with it
    the place up to which one of them has read."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY, dir_fd=proc)
    try:
        return os.listdir(descriptor)
    finally:
        os.close(descriptor)


def private_memory(proc, pid, fields):
    """Bytes of the private memory of a process with these fields."""
    if "RssAnon" not in fields:
        # Its first thread has ended; the others have the memory.
        for thread in names_in(proc, f"{pid}/task"):
            fields = fields | process_fields(proc, f"{pid}/task/{thread}")
    return fields.get("RssAnon", 0) + fields.get("VmSwap", 0)


def memory_in_use(zygote, program):
    """Bytes that a program takes: its processes', without what they share with the zygote, and the
    files in /tmp.

    Memory that two processes share by a fork of the program counts for both. A process shares with
    the zygote if neither it nor one between it and the program's process has executed a file.
    """
    children = collections.defaultdict(list)
    for name in names_in(zygote.proc, "."):
        if name.isdigit():
            # It may have ended since.
            with contextlib.suppress(OSError):
                parent, flags = parent_and_flags(zygote.proc, name)
                children[parent].append((int(name), flags))
    files = os.fstatvfs(program.files)
    total = (files.f_blocks - files.f_bfree) * files.f_frsize
    # The first process has nothing of its own.
    remaining = [(*child, None) for child in children[program.first_process]]
    while remaining:
        pid, flags, parent_shares = remaining.pop()
        shares = False
        with contextlib.suppress(OSError):
            fields = process_fields(zygote.proc, pid)
            if parent_shares is None:  # its parent is the first process, or has ended
                parent_shares = fields["NSpid"] == PROGRAM
            shares = parent_shares and bool(flags & PF_FORKNOEXEC)
            memory = private_memory(zygote.proc, pid, fields)
            total += max(0, memory - zygote.memory) if shares else memory
        remaining += [(*child, shares) for child in children[pid]]
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


def start(orders, role, text, *kept, prints=True):
    """Start a Program in namespaces of its own; an OSError says why that cannot be.

    orders: a socket to the parent of the programs; role: as of sandbox_forks.fork; kept: the
    descriptors that the program keeps; prints: else its output goes nowhere.
    """
    with contextlib.ExitStack() as stack:
        output, output_end = os.pipe()
        stack.callback(os.close, output_end)
        on_failure = stack.enter_context(contextlib.ExitStack())
        on_failure.callback(os.close, output)
        os.set_blocking(output, False)
        if not prints:
            null = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, null)
        ready, ready_end = stack.enter_context(connected())
        source, source_end = stack.enter_context(connected())
        target = output_end if prints else null
        descriptors = [ready_end.fileno(), source_end.fileno(), target, *kept]
        first_process = sandbox_forks.fork(orders, role, descriptors)
        on_failure.callback(end, orders, first_process)
        ready_end.close()
        source_end.close()
        files = when_ready(ready)
        on_failure.callback(os.close, files)
        # Else it has ended already, and its status says how.
        with contextlib.suppress(ConnectionError):
            sandbox_values.send(source, text)
        ended = os.pidfd_open(first_process)
        on_failure.pop_all()
    return Program(first_process, ended, output, files, time.monotonic())


@contextlib.contextmanager
def connected():
    """Two connected sockets, which are closed afterwards."""
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def when_ready(ready):
    """The descriptor of a new program's /tmp, once the program can be sent its text."""
    message, descriptors, _, _ = socket.recv_fds(ready, PART, 1)
    if message != sandbox_forks.READY:
        raise OSError(message.decode(errors="replace") or "a program's process has ended")
    return descriptors[0]


def end(orders, first_process):
    """Kill a first process, with all others of its namespace, and wait for it; its exit status."""
    os.kill(first_process, signal.SIGKILL)
    # It ends when the last process of its namespace has.
    return sandbox_forks.wait_for(orders, first_process)


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


def finish(zygote, orders, program):
    """End a program if it still runs; returns how it ended, the fields of sandbox.Ended."""
    seconds = time.monotonic() - program.start_time
    exit_status = end(orders, program.first_process)
    with contextlib.suppress(BlockingIOError):
        program.text += os.read(program.output, PART)
    for descriptor in (program.end, program.output, program.files):
        os.close(descriptor)
    status = STATUSES.get(exit_status, "error")
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
