"""Does the response's program pass its tests, in the sandbox (common/sandbox.py)?

The program is the last ```python block of the response, else its last block without a language,
else all of it. It runs only with --run_generated_code.

arguments: {"tests"?}: Python with assertions, a text or a list of texts; without them the row's
answer holds the tests.
"""

import ast
import atexit
import contextlib
import functools
import os

import verifier_arguments


def check(answer, arguments):
    verifier_arguments.check_names(arguments, ["tests"])
    if "tests" not in arguments:
        verifier_arguments.check_answer(answer)
    tests = tests_of(answer, arguments)
    try:
        compile(tests, "tests", "exec")
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"arguments: tests: not Python ({error})") from None
    # Every program would pass comments.
    nodes = ast.walk(ast.parse(tests))
    if not any(isinstance(node, ast.Assert | ast.Raise | ast.Call) for node in nodes):
        raise ValueError("arguments: tests: no assertion, call or raise")


def tests_of(answer, arguments):
    tests = arguments.get("tests", answer)
    lines = tests if isinstance(tests, list) else [tests]
    if not all(isinstance(line, str) and line.strip() for line in lines) or not lines:
        raise ValueError("arguments: tests: neither a text nor a list of texts")
    return "\n".join(lines)


def scores(responses, answer, arguments):
    tests = tests_of(answer, arguments)
    pairs = []
    for response in responses:
        pairs.append((verifier_arguments.last_block(response, ["python", "py", "python3"]), tests))
    return pool().grade(pairs)


@functools.cache
def pool():
    """The processes of the sandbox, which serve all rows."""
    from common import sandbox

    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(sandbox.Pool(len(os.sched_getaffinity(0))))
