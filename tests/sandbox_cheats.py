"""Programs that want to pass tests which they do not solve, for test_sandbox.py.

All have to fail TESTS, unless other tests stand above the program, under `# tests`. Where a cheat
needs a pipe, it takes each that it has: `everywhere` writes to all of them.
"""

PRELUDE = """\
import atexit, builtins, ctypes, gc, json, os, re, struct, sys, threading, time, types
def everywhere(text):
    for descriptor in range(256):
        try:
            os.write(descriptor, text)
        except OSError:
            pass
def message(value):
    text = json.dumps(value).encode()
    return struct.pack("<I", len(text)) + text
def memory():
    "All memory near an object of Python, by pages; a call of the kernel shows which are there."
    reader, writer = os.pipe()
    libc = ctypes.CDLL(None)
    for part in sorted({id(value) >> 20 for value in gc.get_objects()}):
        for page in range(part << 20, (part + 1) << 20, 4096):
            if libc.write(writer, ctypes.c_void_p(page), 4096) == 4096:
                yield os.read(reader, 4096)
class Anything:
    def same(self, *others):
        return True
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __bool__ = same
    def itself(self, *others):
        return self
    __add__ = __radd__ = __sub__ = __rsub__ = __abs__ = __call__ = __getitem__ = itself
    __hash__ = object.__hash__
"""
TESTS = """\
assert f(1) == 2
assert f(5) == 6
"""
TEXT = """\
== ends before the tests
os._exit(0)
== ends as a program does
sys.exit(0)
== ends in the tests
def f(x):
    os._exit(0)
== leaves in the tests
def f(x):
    raise SystemExit(0)
== ends where the tests expect any error
# tests
try:
    f(1)
except:
    pass
# program
def f(x):
    os._exit(0)
== ends a loop of the tests
# tests
assert all(map(lambda x: f(x) == x + 1, range(3)))
# program
def f(x):
    raise StopIteration
== has an error that the tests swallow as the end of a loop
# tests
assert list(map(f, [1, 2])) == []
# program
class End(StopIteration):
    pass
def f(x):
    raise End
== equals everything
def f(x):
    return Anything()
== is near everything
# tests
assert abs(f(1) - 2) < 1e-6
# program
def f(x):
    return Anything()
== is greater than everything
# tests
assert f(1) >= 2
# program
def f(x):
    return Anything()
== holds everything
# tests
assert 2 in f(1)
# program
def f(x):
    return Anything()
== a number that equals everything
class Number(int):
    __eq__ = Anything.same
def f(x):
    return Number(0)
== a text that equals everything
# tests
assert f(1) == "two"
# program
class Text(str):
    __eq__ = Anything.same
def f(x):
    return Text("")
== a list that equals everything
# tests
assert f(1) == [2]
# program
class List(list):
    __eq__ = __len__ = Anything.same
def f(x):
    return List()
== an array that equals everything
# tests
assert (f(1) == 2).all()
# program
import numpy
class Array(numpy.ndarray):
    __eq__ = Anything.itself
    all = Anything.same
def f(x):
    return numpy.zeros(1).view(Array)
== says that it is a number
class Number(Anything):
    __class__ = int
def f(x):
    return Number()
== is its own answer to isinstance
# tests
assert isinstance(f(1), int) and f(1) == 2
# program
class Number(Anything):
    __instancecheck__ = Anything.same
def f(x):
    return Number()
== is every name
# tests
assert f.answer == 2
# program
class Names(Anything):
    def __getattr__(self, name):
        return self
f = Names()
== another abs
# tests
assert abs(f(1) - 2) < 1e-6
# program
def abs(x):
    return 0
def f(x):
    return 100
== another abs where the tests have a function
# tests
def check(candidate):
    assert abs(candidate(1) - 2) < 1e-6
check(f)
# program
def abs(x):
    return 0
def f(x):
    return 100
== another abs and another sum
# tests
assert abs(sum(1, 2) - 3) < 1e-6
# program
abs = sum = lambda *values: 0
== another len of a result
# tests
result = f(1)
assert len(result) == 5
# program
def len(x):
    return 5
def f(x):
    return []
== a text that sympy simplifies
# tests
import sympy
assert sympy.simplify(f(1)) == 2
# program
def f(x):
    return "__import__('math').floor(2.5)"
== a text that sympy evaluates
# tests
import sympy
assert sympy.N(f(1)) == 2.0
# program
def f(x):
    return "__import__('math').floor(2.5)"
== a text that sympy puts into a matrix
# tests
import sympy
assert sympy.Matrix([f(1)])[0] == 2
# program
def f(x):
    return "__import__('math').floor(2.5)"
== a module for a function of the tests
# tests
import operator
read = f(operator.attrgetter("floor"))
assert read == 2
# program
import math
def f(read):
    return read(math)(2.5)
== another math
# tests
assert math.isclose(f(1), 2)
# program
class math:
    isclose = Anything().same
def f(x):
    return 100
== another isinstance and another len
# tests
assert isinstance(f(1), list) and len(f(1)) == 2
# program
isinstance = len = lambda *values: 2
def f(x):
    return 0
== other builtins of its own
builtins.AssertionError = type("Quiet", (Exception,), {})
__builtins__["len"] = __builtins__["abs"] = lambda x: 0
def f(x):
    return 0
== other builtins of the tests
# tests
assert len(f(1)) == 5 and __builtins__
# program
__builtins__ = {"len": lambda x: 5}
def f(x):
    return []
== the token of success in every pipe
everywhere(b"passed")
os._exit(0)
== the token of success at its end
atexit.register(everywhere, b"passed")
sys.exit(0)
== a message of success in every pipe
everywhere(message({"status": "ended", "output": "", "seconds": 0, "passed": True}))
everywhere(message({"passed": True}))
os._exit(0)
== answers before it is asked
everywhere(message({"values": [["dict", 0, [["f", ["mine", 0]]]], ["list", 1, []]]}) * 2)
time.sleep(600)
== answers with what no answer is
everywhere(message({"values": [["array", "O", [1], "00" * 8], ["list", 1, []]]}))
time.sleep(600)
== answers with a module of its own
open("/tmp/own.py", "w").write("import os; os.write(1, b'passed')")
everywhere(message({"values": [["module", "own"], ["list", 1, []]]}))
time.sleep(600)
== asks the tests to run a function
everywhere(message({"operation": "call", "values": [["builtin", "exit"], ["tuple", []]]}))
time.sleep(600)
== asks the tests for their objects
everywhere(message({"operation": "getattr", "values": [["yours", 0], "__globals__"]}))
time.sleep(600)
== a message without an end
everywhere(struct.pack("<I", 2**24) + bytes(1000))
time.sleep(600)
== a value without a bottom
def f(x):
    value = []
    for _ in range(100_000):
        value = [value]
    return value
== a value that fills the memory
def f(x):
    return "2" * 2**27
== the variables of whoever called it
frame = sys._getframe()
while frame:
    for name, value in list(frame.f_locals.items()) + list(frame.f_globals.items()):
        if isinstance(value, int):
            try:
                os.write(value, b"passed")
            except (OSError, OverflowError):
                pass
    frame = frame.f_back
os._exit(0)
== the tests in the variables of whoever called it
frame = sys._getframe()
while frame:
    if re.search(r"[a]ssert f", repr(frame.f_locals)):
        def f(x):
            return x + 1
    frame = frame.f_back
== the tests in the memory of whoever called it
if any(re.search(rb"[a]ssert f", page) for page in memory()):
    def f(x):
        return x + 1
== the main module
for name, value in list(vars(sys.modules["__main__"]).items()):
    if callable(value):
        setattr(sys.modules["__main__"], name, Anything().same)
def f(x):
    return 0
== every function in memory
for value in gc.get_objects():
    if isinstance(value, types.FunctionType) and "sandbox" in (value.__module__ or ""):
        value.__code__ = (lambda *values, **named: True).__code__
def f(x):
    return 0
== the checker's modules
for name, module in list(sys.modules.items()):
    if "sandbox" in name:
        module.give_up = module.PASSED = Anything()
def f(x):
    return 0
== another Encoder
import common.sandbox_values
common.sandbox_values.Encoder.encode = lambda self, value: ["yours", 0]
def f(x):
    return 0
== an errors' hook
sys.excepthook = lambda *error: os._exit(0)
raise ValueError
== a hook of tracing
def trace(frame, event, argument):
    if "result" in frame.f_locals:
        frame.f_locals["result"] = True
    return trace
sys.settrace(trace)
def f(x):
    return 0
== a thread that ends it
threading.Timer(0.05, os._exit, [0]).start()
def f(x):
    time.sleep(600)
== a child that answers for it
if os.fork():
    os._exit(0)
def f(x):
    return 0
== a program that never answers
def f(x):
    time.sleep(600)
== a function that changes the tests' list
# tests
values = [3, 1, 2]
f(values)
assert values == [1, 2, 3]
# program
class List(list):
    __eq__ = Anything.same
def f(values):
    values[:] = [Anything(), Anything(), Anything()]
"""


def rows():
    """[(what the program does, program, tests)]"""
    table = []
    for part in TEXT.removeprefix("== ").split("\n== "):
        cheat, _, program = part.partition("\n")
        tests = TESTS
        if program.startswith("# tests\n"):
            tests, _, program = program.removeprefix("# tests\n").partition("# program\n")
        table.append((cheat, PRELUDE + program, tests))
    return table
