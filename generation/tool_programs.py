"""Run a trajectory's programs as the cells of a notebook; its tool turns are their outputs.

A process of its own runs the earlier programs of the trajectory again, without their output, and
then the last: a program sees what those before it have defined. As in a notebook, the value of an
expression on the last line is shown. A program that failed is left out of later ones.
"""

import functools
import inspect


def run_cells(cells):
    """Run programs in one namespace; only the last may print and fail.

    The sandbox gets the text of this function: it uses nothing from outside.
    """
    import ast
    import linecache
    import os
    import sys
    import traceback

    namespace = globals()
    del namespace["run_cells"]

    def run(program, file):
        tree = ast.parse(program, file)
        shown = []
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            shown.append(tree.body.pop())
        exec(compile(tree, file, "exec"), namespace)
        # "single" prints the value of an expression, unless it is None.
        exec(compile(ast.Interactive(shown), file, "single"), namespace)

    # By the descriptors: a process that a program starts prints there, too.
    streams = sys.stdout, sys.stderr
    descriptors = {number: os.dup(number) for number in (1, 2)}
    null = os.open(os.devnull, os.O_WRONLY)
    for number in descriptors:
        os.dup2(null, number)
    for program in cells[:-1]:
        try:
            run(program, "earlier.py")
        except BaseException:
            # It ended by sys.exit(), or a second time does what it did not do the first time.
            continue
    # An earlier program may have replaced them.
    sys.stdout, sys.stderr = streams
    sys.stdout.flush()
    for number, descriptor in descriptors.items():
        os.dup2(descriptor, number)

    file = "main.py"
    # For the lines of a traceback: there is no such file.
    linecache.cache[file] = (len(cells[-1]), None, cells[-1].splitlines(keepends=True), file)
    try:
        run(cells[-1], file)
    except SystemExit:
        raise
    except BaseException as error:
        trace = error.__traceback__
        # Without the calls above, which are not the program's.
        while trace and trace.tb_frame.f_code.co_filename != file:
            trace = trace.tb_next
        traceback.print_exception(error.with_traceback(trace))
        sys.exit(1)


@functools.cache
def source_of_run_cells():
    return inspect.getsource(run_cells)


def as_program(cells):
    """The text of a program that runs these, the cells of a notebook, for the sandbox."""
    return f"{source_of_run_cells()}\nrun_cells({cells!r})\n"


def shown(ended, max_characters):
    """What the policy gets to read of a program that has ended (sandbox.Ended)."""
    output = ended.output.rstrip()
    if len(output) > max_characters:
        # The end of a traceback says what is wrong.
        head = max_characters // 2
        tail = max_characters - head
        left_out = len(output) - max_characters
        output = f"{output[:head]}\n[{left_out} characters left out]\n{output[-tail:]}"
    if ended.status not in ("ended", "error"):
        output += f"\n[stopped by the limit: {ended.status}]"
    return output.lstrip("\n")


def answer_calls(trajectories, tool_format, pool, max_characters):
    """Add a tool turn to each of these trajectories for each call of its last turn.

    pool: the sandbox's; max_characters: of an output.
    """
    # The second program of a turn, if any, sees what the first has defined.
    place = 0
    while calling := [one for one in trajectories if len(one.calls) > place]:
        answer_call(calling, place, tool_format, pool, max_characters)
        place += 1


def answer_call(calling, place, tool_format, pool, max_characters):
    """Answer the call at that place of each trajectory's turn; the programs run in parallel."""
    running = []
    programs = []
    for trajectory in calling:
        call = trajectory.calls[place]
        trajectory.programs += 1
        if call.program is None:
            trajectory.failed_programs += 1
            trajectory.messages.append(tool_format.answer(call.error))
            continue
        running.append(trajectory)
        programs.append(as_program([*trajectory.cells, call.program]))
    for trajectory, ended in zip(running, pool.run(programs), strict=True):
        if ended.status == "ended":
            trajectory.cells.append(trajectory.calls[place].program)
        else:
            trajectory.failed_programs += 1
        trajectory.messages.append(tool_format.answer(shown(ended, max_characters)))
