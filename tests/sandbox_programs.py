"""Right and wrong programs with their tests, for test_sandbox.py: those below WRONG fail."""

TEXT = """\
== the form of HumanEval
def has_close_elements(numbers, threshold):
    pairs = [(a, b) for i, a in enumerate(numbers) for b in numbers[i + 1:]]
    return any(abs(a - b) < threshold for a, b in pairs)
# tests
METADATA = {"author": "jt", "dataset": "test"}
def check(candidate):
    assert candidate([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3) == True
    assert candidate([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.05) == False
check(has_close_elements)
== the form of MBPP
from collections import Counter
import math
def most_common(words, n):
    return Counter(words).most_common(n)
def volume(radius):
    return 4 / 3 * math.pi * radius ** 3
# tests
assert most_common(["red", "red", "blue"], 1) == [("red", 2)]
assert math.isclose(volume(10), 4188.790204786391, rel_tol=0.001)
== a function by a name of Python
def sum(a, b):
    return len([i for i in range(1, min(a, b) + 1) if a % i == 0 and b % i == 0])
# tests
assert sum(10, 15) == 2
== two functions, one by a name of Python
def sum(a, b):
    return a + b
def mul(a, b):
    return a * b
# tests
assert sum(1, 2) == 3
assert mul(2, sum(1, 2)) == 6
== the same by the name of a module
import math
def select(values):
    return values[:1]
def encode(text):
    return text[::-1]
# tests
import math as m
assert encode(select(["ab"])[0]) == "ba" and m.pi > 3
== a function by a name of Python that the tests give to their own
import math
def pow(x):
    return x * x
def cube(x):
    return x * pow(x)
# tests
def check(candidate):
    assert math.isclose(candidate(3), 9)
check(pow)
== a method by the name of a function
def append(values):
    return values + [0]
def sum(a, b):
    return a + b
# tests
found = []
found.append(sum(1, 2))
assert found == [3]
== every kind of value
def same(value):
    return value
# tests
from collections import Counter, OrderedDict, defaultdict
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
for value in [
    None, True, 0, -1, 2**70, 1.5, float("inf"), 2j, "", "é\\n\\0\\ud800", b"\\xff",
    bytearray(b"a"), [], [1, [2, [3]]], (), (1, (2,)), {}, {"a": {1: (2, None)}, (1, 2): []},
    {1, 2}, frozenset({1}), range(3), [None, {"a": [(1, {2})]}], int, type(None),
    Fraction(2**70, 3), Decimal("1.10"), date(2024, 2, 29), time(1, 2, 3, 4), timedelta(-1, 2, 3),
    datetime(2024, 2, 29, 1, tzinfo=timezone(timedelta(hours=-3))), datetime(1, 1, 1),
    Counter("aab"), OrderedDict([(2, 1), (1, 2)]), defaultdict(list, {1: [2]}), defaultdict(None),
]:
    assert same(value) == value and type(same(value)) is type(value), value
assert same(float("nan")) != same(float("nan"))
== dictionaries and tuples with more than items
import collections
def swap(point, counter, groups, order):
    counter.update("ab")
    groups["new"].append(point.y)
    order.move_to_end(1)
    return type(point)(point.y, y=point.x)
# tests
from collections import Counter, OrderedDict, defaultdict, namedtuple
counter, groups, order = Counter("a"), defaultdict(list), OrderedDict([(1, 2), (2, 3)])
found = swap(namedtuple("Point", "x y")(1, 2), counter, groups, order)
assert found == (2, 1) and found.x == 2 and found._asdict() == {"x": 2, "y": 1}
assert counter == Counter("aab") and groups["new"] == [2] and groups["none"] == []
assert list(order) == [2, 1]
assert swap.__name__ == "swap"
== values of other types as plain ones
import collections, enum, numpy
class Colour(enum.IntEnum):
    RED = 1
Point = collections.namedtuple("Point", "x y")
def values():
    counter = collections.Counter("aab")
    default = collections.defaultdict(list, {1: [2]})
    return [counter, default, Point(1, 2), Colour.RED, numpy.int64(3), numpy.bool_(True)]
# tests
assert values() == [{"a": 2, "b": 1}, {1: [2]}, (1, 2), 1, 3, True]
assert values()[-1] is True
== arrays
import numpy as np
def double(array):
    return array * 2
# tests
assert np.array_equal(double(np.arange(6.0).reshape(2, 3)), np.array([[0, 2, 4], [6, 8, 10.0]]))
== arguments that it changes
def change(matrix, table, names):
    matrix[0].append(3)
    matrix.append(matrix[0])
    table["a"] = matrix
    names.discard("x")
    return matrix
# tests
row, table, names = [1], {}, {"x", "y"}
matrix = [row]
assert change(matrix, table, names) is matrix
assert row == [1, 3] and matrix == [[1, 3], [1, 3]]
assert matrix[1] is row and table["a"] is matrix and names == {"y"}
== a value that holds itself
def ring():
    value = [1]
    value.append(value)
    return value
# tests
assert ring()[1][1][0] == 1
== a list that the tests keep, in order
def sort_all(lists):
    for values in lists:
        values.sort()
# tests
first, second = [3, 1], [2, 0]
assert sort_all([first, second]) is None
assert (first, second) == ([1, 3], [0, 2])
== a generator
def primes(end):
    for n in range(2, end):
        if all(n % d for d in range(2, n)):
            yield n
# tests
assert list(primes(12)) == [2, 3, 5, 7, 11]
assert next(primes(12)) == 2 and [2 * p for p in primes(4)] == [4, 6]
assert sum(zip(primes(4), primes(4)), ()) == (2, 2, 3, 3)
== lazy results of Python
def squares(values):
    return map(lambda x: x * x, values)
def pairs(table):
    return table.items()
# tests
assert list(squares([1, 2])) == [1, 4] and sorted(pairs({2: 1, 1: 2})) == [(1, 2), (2, 1)]
assert set(squares(x for x in (1, 2))) == {1, 4}
== classes and their objects
class Pair(object):
    def __init__(self, a, b):
        self.a = a
        self.b = b
    def __eq__(self, other):
        return (self.a, self.b) == (other.a, other.b)
    def __len__(self):
        return 2
    def __repr__(self):
        return f"Pair({self.a}, {self.b})"
    def swapped(self):
        return Pair(self.b, self.a)
    @property
    def total(self):
        return self.a + self.b
def longest_chain(pairs):
    return max(pair.b for pair in pairs)
# tests
pair = Pair(5, b=24)
assert longest_chain([pair, Pair(15, 25)]) == 25
assert pair.total == 29 and pair.swapped().a == 24 and len(pair) == 2
assert repr(pair) == "Pair(5, 24)" and isinstance(pair, Pair)
assert pair == Pair(5, 24) and pair != Pair(5, 25) and pair.swapped() == Pair(24, 5)
pair.a = 6
assert pair.total == 30
== functions as values
def compose(*functions):
    def composed(x):
        for function in functions:
            x = function(x)
        return x
    return composed
def sort_by(values, key):
    return sorted(values, key=key)
# tests
def twice(values):
    values.append(0)
    return values * 2
assert compose(lambda x: x + 1, str, len)(99) == 3
assert compose(twice, len)([1]) == 4
assert sort_by(["bb", "a"], key=len) == ["a", "bb"]
assert sort_by([1, 2], key=lambda x: -x) == [2, 1]
== errors that the tests expect
class TooSmall(ValueError):
    pass
def root(x):
    if x < 0:
        raise TooSmall("below zero")
    return x ** 0.5 / x
# tests
try:
    root(-1)
except ValueError as error:
    assert str(error) == "below zero"
else:
    assert False
try:
    root(0)
    assert False
except ZeroDivisionError:
    pass
== errors with more than a text
class Own(KeyError):
    def __str__(self):
        return "words"
def fail(kind):
    if kind == "own":
        raise Own("key", 1)
    raise {"key": KeyError, "value": ValueError, "file": OSError}[kind](2, "text")
# tests
for kind, expected in [("key", KeyError), ("value", ValueError), ("file", FileNotFoundError)]:
    try:
        fail(kind)
    except expected as error:
        assert error.args == (2, "text") and str(error) == str(expected(2, "text"))
    else:
        assert False
try:
    fail("none")
except KeyError as error:
    assert error.args == ("none",) and str(error) == "'none'"
try:
    fail("own")
except KeyError as error:
    assert error.args == ("words",)
== state from call to call
calls = []
def count():
    calls.append(1)
    return len(calls)
LIMIT = 3
# tests
assert [count(), count()] == [1, 2] and LIMIT == 3
== a function of the program inside the tests
import random
def encode(text):
    return text[::-1]
def decode(text):
    return text[::-1]
# tests
from random import randint
for _ in range(50):
    text = "".join(chr(randint(97, 122)) for _ in range(20))
    assert decode(encode(text)) == text
== recursion and large numbers
import functools
@functools.cache
def factorial(n):
    return n * factorial(n - 1) if n else 1
# tests
import math
assert factorial(400) == math.factorial(400) and factorial(400) * 2**9000 > 2**9000
assert [factorial(3), -factorial(2000 // 20)] == [6, -math.factorial(100)]
== what it prints and what stands below its guard
print("text" * 10_000)
def f():
    print("more")
    return 1
if __name__ == "__main__":
    raise ValueError
# tests
print(f())
assert f() == 1
== floats by their bits
def third():
    return [0.1 + 0.2, 1 / 3, -0.0, 5e-324]
# tests
assert third() == [0.30000000000000004, 1 / 3, 0.0, 5e-324] and str(third()[2]) == "-0.0"
== sympy outside
def half(x):
    return x / 2
# tests
import sympy
x = sympy.Symbol("x")
assert sympy.simplify(half(3.0)) == 1.5 and sympy.Rational("1/2") * 2 == 1
assert sympy.solve(x - sympy.Integer(int(half(8)))) == [4]
== sympy inside
def expand(text):
    import sympy
    return str(sympy.expand(text))
# tests
assert expand("(x + 1)**2") == "x**2 + 2*x + 1"
WRONG
== a wrong number
def f(x):
    return x + 1.0000001
# tests
assert f(1) == 2
== a list for a tuple
def f(x):
    return [x]
# tests
assert f(1) == (1,)
== a text for a number
def f(x):
    return str(x)
# tests
assert f(1) == 1
== an error of the program's first lines
def f(x):
    return x
1 / 0
# tests
assert f(1) == 1
== not Python
def f(x:
# tests
pass
== no such function
def g(x):
    return x
# tests
assert f(1) == 1
== an error in a call
def f(x):
    return x[0]
# tests
f(1)
== right in the first call alone
calls = []
def f(x):
    calls.append(x)
    return x if len(calls) == 1 else 0
# tests
assert f(1) == 1 and f(1) == 1
== tests that are not Python
def f(x):
    return x
# tests
assert f(1) ==
== another object
class Pair:
    pass
def f():
    return Pair()
# tests
assert f() == f()
== an object of the tests
def f(x):
    return x.a
# tests
class Own:
    a = 1
assert f(Own()) == 1
"""


def rows():
    """[(what is tried, program, tests, is it right?)]"""
    table = []
    for right, text in zip((True, False), TEXT.split("WRONG\n"), strict=True):
        for part in text.removeprefix("== ").split("\n== "):
            tried, _, rest = part.partition("\n")
            program, _, tests = rest.partition("# tests\n")
            table.append((tried, program, tests, right))
    return table
