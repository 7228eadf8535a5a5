"""Programs a second in the sandbox, beside a bubblewrap and a start of Python for each program.

Both ways run one-line programs, as many at a time as there are processes. The pool starts before
the clock does, and has numpy and sympy imported; its programs that are graded have one line of
tests, which run in another process.

    python speed/sandbox_speed.py --programs 300 --processes 2
"""

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from common import sandbox, tables

PROGRAM = "print(1 + 1)"
WITH_LIBRARIES = "import numpy, sympy; print(1 + 1)"
GRADED = ("def add(a, b): return a + b", "assert add(1, 1) == 2")


def run_by_itself(program):
    """What a program prints in a bubblewrap and a Python of its own."""
    path = f"import sys; sys.path[:] = [*sys.path[:-1], {sandbox.PACKAGES!r}]; "
    command = ["bwrap", *sandbox.outer_sandbox(), str(sandbox.PYTHON), "-c", path + program]
    done = subprocess.run(command, capture_output=True, text=True, env=sandbox.ENVIRONMENT)
    return done.stdout


def rate(run, programs, expected):
    """Programs a second; exits if one of them did not give what it should."""
    start = time.perf_counter()
    results = run(programs)
    seconds = time.perf_counter() - start
    if results != [expected] * len(programs):
        sys.exit(f"{programs[0]}: a program failed")
    return len(programs) / seconds


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--programs", type=int, default=300)
    parser.add_argument("--processes", type=int, default=2, help="programs at a time")
    args = parser.parse_args()
    if reason := sandbox.unusable():
        sys.exit(reason)

    print(tables.markdown(["way", "programs/s"], []), flush=True)

    def report(way, *measured):
        print(tables.markdown_line([way, f"{rate(*measured):.1f}"]), flush=True)

    with sandbox.Pool(args.processes) as pool:

        def outputs(programs):
            return [ended.output for ended in pool.run(programs)]

        report("pool, run", outputs, [PROGRAM] * args.programs, "2\n")
        report("pool, with libraries", outputs, [WITH_LIBRARIES] * args.programs, "2\n")
        report("pool, graded", pool.grade, [GRADED] * args.programs, True)

    with ThreadPoolExecutor(args.processes) as threads:

        def by_themselves(programs):
            return list(threads.map(run_by_itself, programs))

        report("by itself", by_themselves, [PROGRAM] * args.programs, "2\n")
        report("by itself, with libraries", by_themselves, [WITH_LIBRARIES] * 20, "2\n")


if __name__ == "__main__":
    main()
