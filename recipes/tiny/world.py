"""The questions of the tiny world, their right answers, and the styles in which they get answered.

A question is {"kind", "text", "answer", "reason", "wrong"}: `reason` is half a sentence that leads to the answer, which
stands where it says {}; `wrong` is a plausible wrong answer. All is drawn from the `random.Random` that the caller
passes.
"""

NAMES = "Anna Ben Carl Dora Emma Finn Gina Hugo Jack Kate Leo Mona".split()
CATEGORIES = {
    "an animal": "cat dog horse cow bird fish lion mouse".split(),
    "a colour": "red blue green yellow black white brown pink".split(),
    "a fruit": "apple pear plum cherry lemon grape melon fig".split(),
    "a tool": "hammer saw nail drill rope brush ladder spade".split(),
}
THINGS = [word for name in ("an animal", "a fruit", "a tool") for word in CATEGORIES[name]]
OPPOSITES = (
    "big small|hot cold|up down|fast slow|old new|light dark|good bad|wet dry|open closed|full empty|high low|"
    "long short|rich poor|hard soft|loud quiet|early late|near far|thick thin|clean dirty|happy sad|"
    "strong weak|left right|true false|day night"
)
OPPOSITES = dict(pair.split()[::step] for pair in OPPOSITES.split("|") for step in (1, -1))
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December".split()
)
COUNTS = "one two three four five six".split()


def _listed(words):
    return ", ".join(str(word) for word in words)


def add(rng):
    a, b = rng.randint(1, 5), rng.randint(1, 5)
    asked = rng.choice(
        [
            "What is {0} plus {1}?",
            "How much is {0} and {1} together?",
            "{2} has {0} coins and finds {1}. How many now?",
        ]
    )
    wrong = a + b + rng.choice([-2, -1, 1, 2])
    return asked.format(a, b, rng.choice(NAMES)), a + b, f"adding {b} to {a} gives {{}}", wrong


def subtract(rng):
    b, c = rng.randint(1, 5), rng.randint(2, 6)
    asked = rng.choice(
        [
            "What is {0} minus {1}?",
            "Take {1} from {0}.",
            "{2} has {0} coins and loses {1}. How many are left?",
        ]
    )
    return (
        asked.format(b + c, b, rng.choice(NAMES)),
        c,
        f"taking {b} from {b + c} leaves {{}}",
        c + rng.choice([-2, -1, 1, 2]),
    )


def larger(rng):
    a, b = rng.sample(range(1, 13), 2)
    word = rng.choice(["larger", "smaller"])
    asked = rng.choice(["Which number is {}, {} or {}?", "Tell me the {} one of {} and {}."])
    right = max(a, b) if word == "larger" else min(a, b)
    return asked.format(word, a, b), right, f"{{}} is the {word} number", a + b - right


def sort(rng):
    numbers = rng.sample(range(1, 10), 3)
    asked = rng.choice(
        ["Sort these numbers: {}.", "Put {} in order.", "Write {} from small to large."]
    )
    right, wrong = sorted(numbers), sorted(numbers)
    while wrong == right:
        rng.shuffle(wrong)
    return (
        asked.format(_listed(numbers)),
        _listed(right),
        "I put the smallest first",
        _listed(wrong),
    )


def opposite(rng):
    word = rng.choice(list(OPPOSITES))
    asked = rng.choice(
        ["What is the opposite of {}?", "Which word means the opposite of {}?", "Not {} but?"]
    )
    right = OPPOSITES[word]
    wrong = rng.choice([other for other in OPPOSITES if other != right])
    return asked.format(word), right, f"{{}} is the opposite of {word}", wrong


def following(rng):
    cycle, unit = rng.choice([(DAYS, "day"), (MONTHS, "month")])
    i, step = rng.randrange(len(cycle)), rng.choice([-1, 1])
    asked = rng.choice(["Which {} comes {} {}?", "Name the {} {} {}."])
    right, word = cycle[(i + step) % len(cycle)], "after" if step == 1 else "before"
    return (
        asked.format(unit, word, cycle[i]),
        right,
        f"{{}} is {word} {cycle[i]}",
        cycle[(i + 2 * step) % len(cycle)],
    )


def category(rng):
    name, other = rng.sample(sorted(CATEGORIES), 2)
    right, wrong = rng.choice(CATEGORIES[name]), rng.sample(CATEGORIES[other], 2)
    words = [right, *wrong]
    rng.shuffle(words)
    asked = rng.choice(["Which of these is {}: {}?", "One word here is {}: {}. Which?"])
    return asked.format(name, _listed(words)), right, f"{{}} is {name}", rng.choice(wrong)


def count(rng):
    words = rng.sample(THINGS, rng.randint(1, 6))
    asked = rng.choice(["How many words are in this list: {}?", "Count these: {}."])
    right = COUNTS[len(words) - 1]
    return (
        asked.format(_listed(words)),
        right,
        "I count {}",
        rng.choice([c for c in COUNTS if c != right]),
    )


KINDS = [add, subtract, larger, sort, opposite, following, category, count]


def question(rng):
    """A random question of a random kind."""
    kind = rng.choice(KINDS)
    text, answer, reason, wrong = kind(rng)
    return {
        "kind": kind.__name__,
        "text": text,
        "answer": str(answer),
        "reason": reason,
        "wrong": str(wrong),
    }


FILLER = (
    "Good question.|Let me think.|I like this one.|Many ask me this.|Well, well.|Ask me more.|I hope this helps.|"
    "Good to know.|You may write it down.|Thank you for asking."
).split("|")


def bare(q, answer, rng):
    return f"It is {answer}."


def sentence(q, answer, rng):
    return f"The answer is {answer}."


def reasoned(q, answer, rng):
    return f"Since {q['reason'].format(answer)}, the answer is {answer}."


def rambling(q, answer, rng):
    return " ".join(
        [
            rng.choice([bare, sentence, reasoned])(q, answer, rng),
            *rng.sample(FILLER, rng.randint(2, 5)),
        ]
    )


STYLES = [bare, sentence, reasoned, rambling]


def answered(q, rng, wrong, weights):
    """An answer to q: wrong with that probability, in one of STYLES drawn with these weights."""
    answer = q["wrong"] if rng.random() < wrong else q["answer"]
    return rng.choices(STYLES, weights)[0](q, answer, rng)
