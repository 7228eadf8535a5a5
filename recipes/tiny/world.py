"""The questions of the tiny world, their right answers, and the styles in which they get answered.

A question is {"kind", "text", "answer", "reason", "wrong"}: `reason` is half a sentence that leads
to the answer, which stands where it says {}; `wrong` is a plausible wrong answer. All is drawn from
the `random.Random` that the caller passes: the order of the draws decides what a seed gives.
"""

NAMES = "Anna Ben Carl Dora Emma Finn Gina Hugo Jack Kate Leo Mona".split()
CATEGORIES = {
    "an animal": "cat dog horse cow bird fish lion mouse".split(),
    "a colour": "red blue green yellow black white brown pink".split(),
    "a fruit": "apple pear plum cherry lemon grape melon fig".split(),
    "a tool": "hammer saw nail drill rope brush ladder spade".split(),
}
THINGS = [*CATEGORIES["an animal"], *CATEGORIES["a fruit"], *CATEGORIES["a tool"]]
OPPOSITES = (
    "big small|hot cold|up down|fast slow|old new|light dark|good bad|wet dry|open closed|"
    "full empty|high low|long short|rich poor|hard soft|loud quiet|early late|near far|"
    "thick thin|clean dirty|happy sad|strong weak|left right|true false|day night"
).split("|")
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December"
MONTHS = MONTHS.split()
COUNTS = "one two three four five six".split()
FILLER = [
    "Good question.",
    "Let me think.",
    "I like this one.",
    "Many ask me this.",
    "Well, well.",
    "Ask me more.",
    "I hope this helps.",
    "Good to know.",
    "You may write it down.",
    "Thank you for asking.",
]


# The kinds of questions: functions that return all of a question but its kind


def add(rng):
    a = rng.randint(1, 5)
    b = rng.randint(1, 5)
    templates = [
        "What is {0} plus {1}?",
        "How much is {0} and {1} together?",
        "{2} has {0} coins and finds {1}. How many now?",
    ]
    template = rng.choice(templates)
    wrong = a + b + rng.choice([-2, -1, 1, 2])
    text = template.format(a, b, rng.choice(NAMES))
    reason = f"adding {b} to {a} gives {{}}"
    return {"text": text, "answer": str(a + b), "reason": reason, "wrong": str(wrong)}


def subtract(rng):
    b = rng.randint(1, 5)
    difference = rng.randint(2, 6)
    a = b + difference
    templates = [
        "What is {0} minus {1}?",
        "Take {1} from {0}.",
        "{2} has {0} coins and loses {1}. How many are left?",
    ]
    template = rng.choice(templates)
    text = template.format(a, b, rng.choice(NAMES))
    reason = f"taking {b} from {a} leaves {{}}"
    wrong = difference + rng.choice([-2, -1, 1, 2])
    return {"text": text, "answer": str(difference), "reason": reason, "wrong": str(wrong)}


def larger(rng):
    a, b = rng.sample(range(1, 13), 2)
    word = rng.choice(["larger", "smaller"])
    template = rng.choice(["Which number is {}, {} or {}?", "Tell me the {} one of {} and {}."])
    text = template.format(word, a, b)
    right = max(a, b) if word == "larger" else min(a, b)
    wrong = a + b - right
    reason = f"{{}} is the {word} number"
    return {"text": text, "answer": str(right), "reason": reason, "wrong": str(wrong)}


def sort(rng):
    numbers = rng.sample(range(1, 10), 3)
    templates = ["Sort these numbers: {}.", "Put {} in order.", "Write {} from small to large."]
    template = rng.choice(templates)
    right = sorted(numbers)
    wrong = sorted(numbers)
    # A wrong answer is the same numbers in another order.
    while wrong == right:
        rng.shuffle(wrong)
    text = template.format(listed(numbers))
    reason = "I put the smallest first"
    return {"text": text, "answer": listed(right), "reason": reason, "wrong": listed(wrong)}


def opposite(rng):
    # The opposite of big is small, and of small big.
    opposites = {}
    for pair in OPPOSITES:
        first, second = pair.split()
        opposites[first] = second
        opposites[second] = first
    word = rng.choice(list(opposites))
    templates = [
        "What is the opposite of {}?",
        "Which word means the opposite of {}?",
        "Not {} but?",
    ]
    text = rng.choice(templates).format(word)
    right = opposites[word]
    wrong = rng.choice([other for other in opposites if other != right])
    reason = f"{{}} is the opposite of {word}"
    return {"text": text, "answer": right, "reason": reason, "wrong": wrong}


def following(rng):
    cycle, unit = rng.choice([(DAYS, "day"), (MONTHS, "month")])
    i = rng.randrange(len(cycle))
    step = rng.choice([-1, 1])
    word = "after" if step == 1 else "before"
    template = rng.choice(["Which {} comes {} {}?", "Name the {} {} {}."])
    text = template.format(unit, word, cycle[i])
    right = cycle[(i + step) % len(cycle)]
    # One step too far.
    wrong = cycle[(i + 2 * step) % len(cycle)]
    reason = f"{{}} is {word} {cycle[i]}"
    return {"text": text, "answer": right, "reason": reason, "wrong": wrong}


def category(rng):
    name, other = rng.sample(sorted(CATEGORIES), 2)
    right = rng.choice(CATEGORIES[name])
    others = rng.sample(CATEGORIES[other], 2)
    words = [right, *others]
    rng.shuffle(words)
    template = rng.choice(["Which of these is {}: {}?", "One word here is {}: {}. Which?"])
    text = template.format(name, listed(words))
    wrong = rng.choice(others)
    return {"text": text, "answer": right, "reason": f"{{}} is {name}", "wrong": wrong}


def count(rng):
    words = rng.sample(THINGS, rng.randint(1, 6))
    template = rng.choice(["How many words are in this list: {}?", "Count these: {}."])
    text = template.format(listed(words))
    right = COUNTS[len(words) - 1]
    wrong = rng.choice([word for word in COUNTS if word != right])
    return {"text": text, "answer": right, "reason": "I count {}", "wrong": wrong}


def listed(words):
    return ", ".join(str(word) for word in words)


KINDS = [add, subtract, larger, sort, opposite, following, category, count]


def question(rng):
    """A random question of a random kind."""
    kind = rng.choice(KINDS)
    return {"kind": kind.__name__, **kind(rng)}


# The styles of answers: functions of a question and of the answer to give


def bare(q, answer, rng):
    return f"It is {answer}."


def sentence(q, answer, rng):
    return f"The answer is {answer}."


def reasoned(q, answer, rng):
    return f"Since {q['reason'].format(answer)}, the answer is {answer}."


def rambling(q, answer, rng):
    style = rng.choice([bare, sentence, reasoned])
    text = style(q, answer, rng)
    return with_filler(text, rng.randint(2, 5), rng)


def with_filler(text, sentences, rng):
    """The text with so many sentences more that say nothing."""
    return " ".join([text, *rng.sample(FILLER, sentences)])


STYLES = [bare, sentence, reasoned, rambling]


def answered(q, rng, wrong_rate, weights):
    """An answer to q, wrong with that probability. weights: of STYLES, one of which is drawn."""
    answer = q["wrong"] if rng.random() < wrong_rate else q["answer"]
    (style,) = rng.choices(STYLES, weights)
    return style(q, answer, rng)
