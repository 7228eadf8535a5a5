"""The three processes of a program in the sandbox.

    supervisor      enters new namespaces, keeps the limits of time, memory and output
    first process   of the new process namespace: gives up all rights, waits; its end ends the rest
    program         the program, or the tests of one

A program sees the last two alone: it has no descriptor, number or memory of the others. Nothing
of a program is left when its first process has ended. For sandbox_zygote.py.
"""

import contextlib
import json
import os
import re
import selectors
import signal
import time
from dataclasses import dataclass

from common import sandbox_isolation, sandbox_scripts

TICK = 0.01  # seconds between two looks at the memory of a program
LOOKING = 0.1  # the most of its time that the supervisor looks
FIELD = re.compile(r"^(\w+):\s+(\d+)( kB)?$", re.MULTILINE)
PART = 2**16  # bytes: what a pipe holds
# Exit statuses of the first process.
ENDED, ERROR, OUT_OF_TIME, NOT_ISOLATED = range(4)
STATUSES = {ENDED: "ended", ERROR: "error", OUT_OF_TIME: "time"}


@dataclass
class Zygote:
    """The process that all programs of a pool are forks of, and what they share."""

    limits: dict  # the fields of sandbox.Limits
    proc: int  # a descriptor of /proc, which shows all processes of the sandbox
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


def memory_in_use(zygote, first_process):
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
    tree = {first_process}
    # A child can have the lower number where numbers have begun again.
    size = 0
    while size < len(tree):
        size = len(tree)
        tree |= {pid for pid, fields in processes.items() if fields.get("PPid") in tree}
    files = os.statvfs("/tmp")
    total = (files.f_blocks - files.f_bfree) * files.f_frsize
    for pid in tree & processes.keys():
        fields = processes[pid]
        own = fields.get("RssAnon", 0) + fields.get("VmSwap", 0)
        total += max(0, own - zygote.memory)
    return total


# The supervisor


def start(zygote, body, keep, keeps_output=True):
    """Fork the supervisor of a program; returns a descriptor of its report, and one that stops it.

    body: what the program's process does; it returns the exit status. keep: the descriptors that
    it keeps. Closing the second descriptor kills the program.
    """
    report, report_end = os.pipe()
    stop_end, stop = os.pipe()
    if os.fork() == 0:
        sandbox_isolation.close_all_but({report_end, stop_end, zygote.proc, *keep})
        try:
            answer = supervise(zygote, body, keep, (report_end, stop_end), keeps_output)
        except Exception as error:
            answer = {"failure": str(error)}
        with open(report_end, "w") as file:
            json.dump(answer, file)
        os._exit(0)
    os.close(report_end)
    os.close(stop_end)
    return report, stop


def supervise(zygote, body, keep, own, keeps_output):
    """Run the program in its namespaces; returns its report as a dict.

    own: the descriptors of this process, for its report and for the order to stop.
    """
    sandbox_isolation.enter_namespaces(zygote.limits["files"])
    output, output_end = os.pipe()
    start_time = time.monotonic()
    first_process = os.fork()
    if first_process == 0:
        be_first_process(zygote, body, keep, output_end if keeps_output else None)
    sandbox_isolation.close_all_but({output, zygote.proc, *own})
    os.set_blocking(output, False)
    status, text = watch(zygote, first_process, output, own[1], start_time)
    seconds = time.monotonic() - start_time
    # Of a process namespace all processes die with the first; this waits for the last.
    with contextlib.suppress(ProcessLookupError):
        os.kill(first_process, signal.SIGKILL)
    _, wait_status = os.waitpid(first_process, 0)
    text += rest_of(output)
    code = os.waitstatus_to_exitcode(wait_status)
    if status is None and code == NOT_ISOLATED:
        return {"failure": text.decode(errors="replace")}
    status = status or STATUSES.get(code, "error")
    return {"status": status, "output": cut(text, zygote.limits), "seconds": seconds}


def watch(zygote, first_process, output, stop, start_time):
    """Wait for the end of a program; returns (why it has to end, None if it has, its output)."""
    process = os.pidfd_open(first_process)
    text = b""
    next_look = start_time + TICK
    with selectors.DefaultSelector() as selector:
        for descriptor in (output, process, stop):
            selector.register(descriptor, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select(TICK)}
            if output in ready:
                part = os.read(output, PART)
                text += part
                if not part:  # closed by the program
                    selector.unregister(output)
            if len(text) > zygote.limits["output"]:
                return "output", text
            if stop in ready:
                return "stopped", text
            if process in ready:
                return None, text
            # Looking takes time itself: it must not be more often for a flood of output, and not
            # take a core where many programs run at a time.
            now = time.monotonic()
            if now > next_look:
                reason = limit_passed(zygote, first_process, start_time)
                if reason:
                    return reason, text
                seconds = time.monotonic() - now
                next_look = now + max(TICK, seconds / LOOKING)


def limit_passed(zygote, first_process, start_time):
    """The limit that a running program has passed, or None."""
    if time.monotonic() - start_time > zygote.limits["seconds"]:
        return "time"
    if memory_in_use(zygote, first_process) > zygote.limits["memory"]:
        return "memory"
    return None


def rest_of(output):
    """What a dead program has left in the pipe."""
    with contextlib.suppress(BlockingIOError):
        return os.read(output, PART)
    return b""


def cut(text, limits):
    """The output as text; a last line says that it was cut."""
    whole = text[: limits["output"]].decode(errors="replace")
    if len(text) > limits["output"]:
        whole += f"\n[cut after {limits['output']} bytes]\n"
    return whole


# The first process of the namespace


def be_first_process(zygote, body, keep, output):
    """Give up all rights, fork the program, and end as it ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    redirect(output)
    try:
        write_oom_score(zygote.proc)
        sandbox_isolation.close_all_but(keep)
        os.chdir("/tmp")
        os.setsid()
        sandbox_isolation.drop_rights(zygote.limits, zygote.address_space, zygote.users)
        program = os.fork()
    except Exception as error:
        os.write(2, str(error).encode())
        os._exit(NOT_ISOLATED)
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


def write_oom_score(proc):
    """Where the machine runs out of memory, the kernel is to end a program first."""
    descriptor = os.open("self/oom_score_adj", os.O_WRONLY, dir_fd=proc)
    os.write(descriptor, b"1000")
    os.close(descriptor)
