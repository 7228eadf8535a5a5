"""The process of a program in the sandbox: as `python program.py` would run it, in a fork.

For sandbox_zygote.py.
"""

import atexit
import io
import linecache
import signal
import sys
import threading
import traceback
import types

FILE = "program.py"


def run_to_end(body):
    """Do it, and wind up as Python does; returns the exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    reseed()
    open_streams()
    status = 1
    try:
        body()
        status = 0
    except SystemExit as end:
        status = exit_status(end)
    except BaseException as error:
        print_error(error)
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException as error:
        print_error(error)
        status = 1
    return status


def reseed():
    """Draw other numbers than the other forks; Python's own `random` does so by itself."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def open_streams():
    """One stream for output and errors, so that they keep their order."""
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    stream = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = stream


def run_script(program):
    """Run a program as the main module."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = [FILE]
    sys.path.insert(0, "/tmp")
    # For the lines of a traceback: there is no such file. Python's own lines all have an end.
    lines = io.StringIO(f"{program}\n", newline=None).readlines()
    linecache.cache[FILE] = (len(program), None, lines, FILE)
    exec(compile(program, FILE, "exec"), vars(module))


def print_error(error):
    """Print a traceback, without the calls before the program's first line."""
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename != FILE:
        trace = trace.tb_next
    traceback.print_exception(error.with_traceback(trace))


def exit_status(end):
    """The status of a SystemExit, whose code may also be None or a message."""
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code & 0xFF
    print(end.code, file=sys.stderr)
    return 1
