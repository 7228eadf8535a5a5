"""The questions of the tiny world with a tool: arithmetic that takes a program, or two in turn.

A Question holds its text and its solution: steps, a program each, in which names stand for numbers.
Where a second step depends on the first one's result, even or odd, the policy has to read the
output before it can write the next program. All is drawn from the `random.Random` that the caller
passes: the order of the draws decides what a seed gives.
"""

from dataclasses import dataclass

NAMES = "Anna Ben Carl Dora Emma Finn Gina Hugo Jack Kate Leo Mona".split()
THINGS = "pens cups books coins nuts cards".split()


@dataclass
class Step:
    """A program: numbers that are joined by operators.

    lines: [[number or name, operator, number or name, ...]], an expression a line, all of them
    assigned to `name`.
    """

    sentence: str  # what the assistant says before it
    name: str
    lines: list[list]


@dataclass
class Question:
    """first: the Step that answers it, or leads to one of `second`.

    second: {0: the Step after an even result, 1: after an odd one}, or empty.
    """

    kind: str
    text: str
    first: Step
    second: dict[int, Step]


# Numbers of two and of three digits


def two_digits(rng):
    return rng.randint(12, 99)


def three_digits(rng):
    return rng.randint(102, 999)


# The kinds of questions: functions that return text, sentence and lines of the first step, and
# {parity: second step}. A tiny model learns to copy numbers in minutes where nearly each of them
# follows a word that no other one follows, and where a sentence says it, in the question's own
# order, before a program needs it.


def total(rng):
    a = two_digits(rng)
    b = two_digits(rng)
    c = three_digits(rng)
    thing = rng.choice(THINGS)
    text = f"{rng.choice(NAMES)} has {a} {thing}, finds {b} and buys {c} more. How many is that?"
    return text, f"I add up {a}, {b} and {c}.", [[a, "+", b, "+", c]], {}


def remainder(rng):
    a = two_digits(rng)
    b = two_digits(rng)
    c = rng.randint(102, min(a * b, 999))
    thing = rng.choice(THINGS)
    text = f"{rng.choice(NAMES)} has {a} boxes of {b} {thing} and loses {c}. How many are left?"
    return text, f"I multiply {a} by {b} and subtract {c}.", [[a, "*", b, "-", c]], {}


def price(rng):
    a = two_digits(rng)
    b = two_digits(rng)
    c = two_digits(rng)
    d = two_digits(rng)
    first, second = rng.sample(THINGS, 2)
    text = (
        f"{rng.choice(NAMES)} buys {a} {first} for {b} each and {c} {second} for {d} each. "
        "How much is it?"
    )
    return text, f"It costs {a} times {b} plus {c} times {d}.", [[a, "*", b, "+", c, "*", d]], {}


def scaled(rng):
    a = two_digits(rng)
    b = two_digits(rng)
    c = two_digits(rng)
    thing = rng.choice(THINGS)
    text = (
        f"{rng.choice(NAMES)} has {a} {thing}, finds {b} and sells all for {c} each. "
        "How much is it?"
    )
    return text, f"I have {a} plus {b}, times {c}.", [[a, "+", b], ["x", "*", c]], {}


def product_by_parity(rng):
    a = two_digits(rng)
    b = two_digits(rng)
    c = two_digits(rng)
    d = two_digits(rng)
    thing = rng.choice(THINGS)
    branches = f"If even, add {c}, if odd, take {d}."
    text = f"{rng.choice(NAMES)} has {a} boxes of {b} {thing}. {branches}"
    second = {
        0: Step(f"It was even, add {c}.", "y", [["x", "+", c]]),
        1: Step(f"It was odd, take {d}.", "y", [["x", "-", d]]),
    }
    return text, f"There are {a} times {b}. {branches}", [[a, "*", b]], second


def sum_by_parity(rng):
    a = two_digits(rng)
    b = two_digits(rng)
    c = two_digits(rng)
    d = two_digits(rng)
    thing = rng.choice(THINGS)
    branches = f"If even, times {c}, if odd, plus {d}."
    text = f"{rng.choice(NAMES)} has {a} {thing}, finds {b}. {branches}"
    second = {
        0: Step(f"It was even, times {c}.", "y", [["x", "*", c]]),
        1: Step(f"It was odd, plus {d}.", "y", [["x", "+", d]]),
    }
    return text, f"First I add {a} and {b}. {branches}", [[a, "+", b]], second


KINDS = [total, remainder, price, scaled, product_by_parity, sum_by_parity]


def question(rng):
    """A random Question of a random kind."""
    kind = rng.choice(KINDS)
    text, sentence, first, second = kind(rng)
    return Question(kind.__name__, text, Step(sentence, "x", first), second)
