"""The tests' process: which names are the program's, and what the program may not do to the tests.

For sandbox_forks.py; how the two processes speak is in sandbox_grading.py.
"""

import ast
import builtins
import dis
import os
import sys
import types

from common import sandbox_grading, sandbox_values

PASSED = b"passed"
# What the program may ask of functions and iterators of the tests.
GIVEN_OPERATIONS = ("call", "iter", "next", "len")
LOADS = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")
STORES = ("STORE_NAME", "STORE_GLOBAL")


def be_tests(tests, channel, verdict):
    """Run the tests against the program; write PASSED to that descriptor if none fails."""
    tree = ast.parse(tests, "tests.py")
    code = compile(tree, "tests.py", "exec")
    let_sympy_run_no_text()
    handles = sandbox_grading.Handles(own=False)
    operations = {name: sandbox_grading.OPERATIONS[name] for name in GIVEN_OPERATIONS}
    peer = sandbox_grading.Peer(channel, handles, operations)
    variables = {"__name__": "tests"}
    variables.update(definitions(peer, tree, code))
    exec(code, variables)
    os.write(verdict, PASSED)


def let_sympy_run_no_text():
    """Let sympy refuse texts as expressions: it runs them as Python, and they may be results."""
    if "sympy" not in sys.modules:
        return
    from sympy.core.sympify import SympifyError
    from sympy.parsing import sympy_parser

    def refuse(*_):
        raise SympifyError("a text")

    sympy_parser.eval_expr = refuse


# Names


def definitions(peer, tree, code):
    """{name: its value} of those names that the tests look up and the program defines.

    A program that names its own function `abs` or `math` could judge itself. So a name of Python's
    is the program's only where the tests leave no doubt (entry_points).
    """
    names = names_of(code, LOADS)
    values = peer.ask("names", sorted(names))
    if type(values) is not dict:
        sandbox_grading.give_up()
    defined = {name for name in values if name in names and not name.startswith("__")}
    modules = defined & sandbox_values.SAFE_MODULES
    pythons = modules | {name for name in defined if hasattr(builtins, name)}
    entries = pythons & entry_points(tree, defined)
    names_of_tests = names_of(code, STORES)
    # Or where they look up nothing else of the program.
    if len(defined - names_of_tests) == 1:
        entries = pythons - names_of_tests
    variables = {name: values[name] for name in (defined - pythons) | entries}
    for name in modules - entries:
        variables[name] = sandbox_values.safe_module(name)
    return variables


def names_of(code, operations):
    """The variables outside functions with which some code, its functions too, does these."""
    names = set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in operations:
            names.add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= names_of(constant, operations)
    return names


def entry_points(tree, defined):
    """The names of Python's that must be the program's.

    Every assert, and every call of a function of the tests, tests the program. So what it names is
    the program's if that is one name, without the tests' own functions and modules, and Python's
    names that the program does not define. A variable of the tests counts as a name: it may hold a
    result, which the program must not judge. And whoever calls a module means a function.

    defined: the names that the program defines.
    """
    names_of_tests = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            names_of_tests.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names_of_tests |= {
                (alias.asname or alias.name).partition(".")[0] for alias in node.names
            }
    entries = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node.func) in sandbox_values.SAFE_MODULES:
            entries.add(node.func.id)
        elif isinstance(node, ast.Assert) or calls_one_of(node, names_of_tests):
            candidates = variables_in(node) - names_of_tests
            candidates -= {name for name in vars(builtins) if name not in defined}
            if len(candidates) == 1:
                entries |= candidates
    return entries


def name_of(node):
    return node.id if isinstance(node, ast.Name) else None


def calls_one_of(node, functions):
    """Is this a statement that calls one of these functions, and nothing else?"""
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    return is_call and name_of(node.value.func) in functions


def variables_in(statement):
    """The variables that a statement reads, without its own and without `math` in `math.pi`."""
    read, written = set(), set()
    of_modules = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and name_of(node.value) in sandbox_values.SAFE_MODULES:
            of_modules.add(node.value)
        elif isinstance(node, ast.Name) and node not in of_modules:
            (read if isinstance(node.ctx, ast.Load) else written).add(node.id)
    return read - written
