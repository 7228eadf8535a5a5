"""How questions are solved with the tool: right trajectories, and those with a mistake.

A mistake is one that a policy can unlearn: the output that it leads to is the tool's own, so that
all later turns follow from what the tool said. The programs are straight lines of arithmetic; the
outputs are what the tool gives for them, which the tests verify by the sandbox.
"""

import copy

MISTAKES = ["operation", "copy", "omission", "misread", "failure", "no tool"]
WEIGHTS = [7, 8, 6, 6, 4, 4]  # of the mistakes
# What the tool says about a program whose last bracket is not closed.
UNCLOSED = """\
  File "main.py", line {line}
    print("{name} =", {name}
         ^
SyntaxError: '(' was never closed"""


def assistant(content):
    return {"role": "assistant", "content": content}


def tool(content):
    return {"role": "tool", "content": content}


# Programs


def program(step):
    """The text of a step's program, without the fence."""
    lines = []
    for expression in step.lines:
        lines.append(f"{step.name} = {' '.join(map(str, expression))}")
    lines.append(f'print("{step.name} =", {step.name})')
    return "\n".join(lines)


def call(step, closed=True):
    """The turn that calls the tool; closed: with the last bracket."""
    text = program(step) if closed else program(step).removesuffix(")")
    return assistant(f"{step.sentence}\n```python\n{text}\n```")


def result(step, values):
    """What the program computes. values: {name: number}; it gets the step's own."""
    for expression in step.lines:
        text = " ".join(map(str, expression))
        # The text is this module's own: numbers, names and operators.
        values[step.name] = eval(text, {}, values)
    return values[step.name]


def output(step, number):
    return f"{step.name} = {number}"


def final(number):
    return assistant(f"The answer is {number}.")


def answer(question):
    """The right answer, a number."""
    values = {}
    number = result(question.first, values)
    if question.second:
        number = result(question.second[number % 2], values)
    return number


# Trajectories


def right(question, rng, retry_rate=0.0):
    """The turns of a right solution.

    retry_rate: how often a question of one program is first answered by one that fails.
    """
    turns = []
    if not question.second and rng.random() < retry_rate:
        turns += failed_call(question.first)
    number = solve(question, {}, turns)
    return [*turns, final(number)]


def solve(question, values, turns):
    """Add the turns up to the last output to `turns`; returns its number."""
    number = result(question.first, values)
    turns += [call(question.first), tool(output(question.first, number))]
    if question.second:
        step = question.second[number % 2]
        number = result(step, values)
        turns += [call(step), tool(output(step, number))]
    return number


def failed_call(step):
    error = UNCLOSED.format(line=len(step.lines) + 1, name=step.name)
    return [call(step, closed=False), tool(error)]


def wrong(question, rng):
    """(the turns of a wrong solution, its mistake)."""
    right_answer = answer(question)
    while True:
        (mistake,) = rng.choices(MISTAKES, WEIGHTS)
        turns = MAKERS[mistake](question, rng)
        # A mistake may be without effect: in the branch that is not taken, say.
        if turns[-1] != final(right_answer):
            return turns, mistake


def with_operation(question, rng):
    """One operator is another; or the wrong one of two second steps."""
    changed = copy.deepcopy(question)
    if changed.second and rng.random() < 0.5:
        changed.second = {0: changed.second[1], 1: changed.second[0]}
    else:
        expression = rng.choice(changed.first.lines)
        place = rng.randrange(1, len(expression), 2)
        expression[place] = rng.choice([sign for sign in "+-*" if sign != expression[place]])
    return right(changed, rng)


def with_copy(question, rng):
    """One digit of one number is another in the program."""
    changed = copy.deepcopy(question)
    step = rng.choice([changed.first, *changed.second.values()])
    expression = rng.choice(step.lines)
    places = [place for place, term in enumerate(expression) if isinstance(term, int)]
    place = rng.choice(places)
    expression[place] = with_other_digit(expression[place], rng)
    return right(changed, rng)


def with_omission(question, rng):
    """The last operation is left out; of two programs the second is."""
    changed = copy.deepcopy(question)
    lines = changed.first.lines
    if changed.second:
        changed.second = {}
    elif len(lines) > 1:
        lines.pop()
    else:
        lines[0] = lines[0][:-2]
    return right(changed, rng)


def with_misread(question, rng):
    """The final answer is not what the last output says."""
    turns = right(question, rng)
    return [*turns[:-1], final(with_other_digit(answer(question), rng))]


def with_failure(question, rng):
    """The program fails, and the answer is guessed."""
    return [*failed_call(question.first), final(guess(question, rng))]


def without_tool(question, rng):
    return [final(guess(question, rng))]


MAKERS = {
    "operation": with_operation,
    "copy": with_copy,
    "omission": with_omission,
    "misread": with_misread,
    "failure": with_failure,
    "no tool": without_tool,
}


def with_other_digit(number, rng):
    """The number with one digit changed, its length kept."""
    digits = list(str(abs(number)))
    place = rng.randrange(len(digits))
    lowest = 1 if place == 0 else 0
    others = [str(digit) for digit in range(lowest, 10) if str(digit) != digits[place]]
    digits[place] = rng.choice(others)
    sign = -1 if number < 0 else 1
    return sign * int("".join(digits))


def guess(question, rng):
    """A number of about the size of the answer."""
    return max(1, int(answer(question) * rng.uniform(0.5, 1.5)))
