"""Right and wrong responses for each verifier, for test_verifiers.py.

A table has an entry for each row: its answer, its arguments, the responses that are right, and
those that are wrong.
"""


def boxed(*texts):
    return [f"So it is $\\boxed{{{text}}}$." for text in texts]


# (answer, right, wrong), what stands in the box alone
BOXED = [
    # Fractions, mixed numbers, decimals
    (
        r"\frac{3}{4}",
        [r"\dfrac34", "0.75", r"\tfrac{6}{8}", r"75\%"],
        [r"\frac{4}{3}", "0.7", "34"],
    ),
    (r"\frac{1}{3}", ["1/3", r"\frac{2}{6}"], ["0.33", "3", r"-\frac{1}{3}"]),
    (r"2\frac{1}{3}", [r"\frac{7}{3}", r"2\frac13"], [r"\frac{2}{3}", "2", r"\frac{21}{3}"]),
    (r"\frac{7}{3}", [r"2\frac{1}{3}", r"2 \frac{1}{3}"], [r"2 + \frac{2}{3}", r"\frac13"]),
    ("1.5", [r"\frac32", r"1\frac12", "1.50"], ["1.05", "15"]),
    # Units, percent, money
    (
        "72",
        [r"72\text{ cm}", r"72\,\text{m}^2", r"\$72", r"72^\circ", "72.0"],
        ["720", "7.2", "172"],
    ),
    (r"5\text{ cm}", ["5", "5 cm"], [r"6\text{ cm}", "50"]),
    (r"\$18.90", ["18.90", "18.9"], ["1890", "18.09"]),
    (r"90^\circ", ["90", r"90\text{ degrees}"], [r"45^\circ", "9"]),
    (r"10\%", ["10", "0.1", r"10\%"], [r"1\%", r"100\%"]),
    # Thousands, scientific notation
    ("1,000", ["1000", "1{,}000", r"1\,000", "10^3"], ["1", "100", "10,000", r"1\,00"]),
    ("70000", ["70,000", r"7 \times 10^4", "7e4"], ["7,000", r"7 \times 10^3", "7e3", "7"]),
    (r"3.2 \times 10^{-5}", ["0.000032", "3.2e-5"], [r"3.2 \times 10^{5}", "3.2", "0.00032"]),
    (r"11,\! 111,\! 100", ["11111100", "11,111,100"], ["1111110", "11"]),
    # Intervals and inequalities
    ("[0,1)", ["[0, 1)", r"\left[0,1\right)", r"0 \le x < 1"], ["(0,1)", "[0,1]", "[0,2)"]),
    (
        r"(-\infty,2)\cup(3,\infty)",
        [r"(3,\infty)\cup(-\infty, 2)"],
        [r"(-\infty,2]\cup[3,\infty)", "(2,3)", r"(-\infty,2)"],
    ),
    ("x > 2", ["2<x", r"(2,\infty)"], ["x < 2", r"x \ge 2", "2"]),
    (r"(2,\infty)", ["x > 2"], [r"x \ge 2", "x > 3"]),
    # Sets, lists, tuples, matrices
    (r"\{1,2,3\}", [r"\{3,2,1\}", "1,2,3"], [r"\{1,2\}", r"\{1,2,4\}", r"\{1,2,3,4\}", "6"]),
    ("1,2", ["2, 1", r"1 \text{ and } 2", "x = 1, x = 2"], ["1", "12", "1.2", "1,3"]),
    ("(1,-2)", [r"\left( 1, -2 \right)"], ["(-2,1)", "(1,2)", "-2"]),
    (r"(3,\frac{\pi}{2})", [r"(3, \pi/2)"], [r"(3,\pi)", "(3, 1.57)"]),
    (r"\pm 2", ["2, -2", "-2,2"], ["2", "-2"]),
    (r"\emptyset", [r"\varnothing"], ["0", r"\{0\}"]),
    (
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        [r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"],
        [r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}", "1"],
    ),
    # Roots, pi, expressions, equations
    (r"2\sqrt{3}", [r"2\sqrt3", r"\sqrt{12}"], [r"3\sqrt{2}", r"\sqrt{3}", "2", "3.46"]),
    (r"\frac{\sqrt{2}}{2}", [r"\frac{1}{\sqrt{2}}", r"\sqrt{2}/2"], [r"\frac{\sqrt{2}}{4}"]),
    (r"\frac{\pi}{6}", [r"\pi/6", r"\frac16\pi"], [r"\frac{\pi}{3}", "30", "0.5236"]),
    ("x^2+2x+1", ["(x+1)^2", "1+2x+x^2"], ["x^2+1", "x^2-2x+1", "(x-1)^2"]),
    ("y = 2x+3", ["2x+3", "y=3+2x"], ["y = 3x + 2", "y = 2x"]),
    ("x=4", ["4", "x=4"], ["x=-4", "-4"]),
    ("3+4i", ["4i+3"], ["3-4i", "5"]),
    (r"\log_2 3", [r"\frac{\ln 3}{\ln 2}"], [r"\log_3 2"]),
    (r"\infty", [r"\infty"], [r"-\infty", "0"]),
    (r"\text{Evelyn}", ["Evelyn", r"\text{evelyn}"], [r"\text{Anna}", r"\text{Eve}"]),
    ("no", ["No", r"\text{NO.}"], ["yes", "n"]),
    # Marks and the case of letters mean something in a formula.
    ("120", ["5!"], ["5", "1*20", "12*0"]),
    ("23", ["23"], ["2*3", "2_3", "23!"]),
    ("103", ["103"], ["10_3", "10*3"]),
    (r"\pi", [r"\pi"], [r"\Pi"]),
    ("e", ["e", r"\text{e}"], ["E"]),
    ("X^2", ["X^2", r"X \cdot X"], ["x^2"]),
]
# (answer, right, wrong), whole responses: two boxes, none, a box that is cut off
STATED = [
    (
        "4",
        [
            r"First \boxed{3}. No: \boxed{4}",
            r"$x=\boxed{4}$.",
            "The answer is 4.",
            "#### 4",
            "She has 4 clips left.",
            "The answer is 4, or 4.0.",
            "The answer is 8/2 or 4, because both are equal.",
            "<think>It is \\boxed{5}.</think>\\boxed{4}",
        ],
        [
            r"First \boxed{4}. No: \boxed{3}",
            r"\boxed{4} or \boxed{5}",
            r"I would say 4, but \boxed{5}.",
            r"\boxed{}",
            "four",
            "The answer is -4.",
            "The answer is 4 or 5.",
            "The answer is 5 or 4.",
            "The answer is $4$, $5$ or $6$.",
            r"\boxed{4, 5}",
            r"\boxed{\{3,4,5\}}",
            "#### 14",
            "<think>It is \\boxed{4}.</think>I do not know.",
        ],
    ),
    (
        "5",
        [
            "The answer is not 4 but 5.",
            "The answer isn't 4, but rather 5.",
            "The answer cannot be 4. The answer is 5.",
            "It is not 4. It is 5.",
            "The answer is **5**.",
            "_5_",
            "<answer>5</answer>",
            "**Answer**: `5`",
            "The answer is **not 4**, but *5*.",
            "The answer is 5, not 4.",
            "The answer is 5!",
            "The answer is 5, because 2, 3 are too small.",
            "Of 12, 5 remain.",
            "She has 3 pears and 5 apples.",
            "The sum of 2 and 3 is 5.",
            r"\boxed{4}, no, \boxed{5}",
            r"\boxed{5} or \boxed{5.0}",
        ],
        [
            "The answer is not 5.",
            "The answer is not 5 but 4.",
            "The answer is 4, not 5.",
            "The answer isn't 5",
            "The answer can't be 5.",
            "It is not 5.",
            "The answer is not $5$.",
            r"The answer is not \boxed{5}.",
            "It is 4 or 5.",
            "It is 4 or 5. I am not sure.",
            "4 clips or 5 clips are left.",
            "x = 4 or x = 5",
            "$x = 4$ or $x = 5$",
            "Maybe 4, maybe 5",
            "Possible: 1, 2, 3, 4, 5",
            "The answer is 4, 5.",
            r"\boxed{4} or \boxed{5}",
            r"\boxed{4}, \boxed{5}",
            r"$\boxed{4}$ and $\boxed{5}$",
            # No pattern takes long on a text without blanks.
            "a" * 30_000,
            "1" * 30_000,
            "answer is" + " " * 30_000,
        ],
    ),
    ("4", ["The answer is 4, not 5."], ["The answer is not 4 but 5."]),
    ("X^2", ["So it is $X^2$.", "The answer is X^2."], ["So it is $x^2$.", "The answer is x^2."]),
    (r"\text{Paris}", ["**Paris**", "PARIS!", "The answer is Paris."], ["Rome", "Par*is"]),
    ("4,5", [r"\boxed{4} and \boxed{5}"], [r"\boxed{4}"]),
    ("-1", [r"\boxed{-1}", "The answer is -1."], ["The answer is 1.", r"\boxed{1}"]),
    (
        "(B)",
        [
            "The answer is (B).",
            r"\boxed{\text{B}}",
            "The answer is B, I think.",
            "The answer is B, A is wrong.",
            "The answer is not A but B.",
            r"\boxed{A}. No: \boxed{B}",
        ],
        [
            "The answer is A or B.",
            "(C)",
            "The answer is B, A.",
            "The answer is B, C or D.",
            "The answer isn't B.",
            "The answer is not B but A.",
            r"\boxed{A} or \boxed{B}",
        ],
    ),
    ("A", ["A"], ["The answer is A, B", r"\boxed{B} and \boxed{A}"]),
]
# (answer, what stands in the box, its score): what math-verify cannot tell, as docs/stages.md says
LIMITS = [
    # The subscript of a base is not read.
    ("10_2", "10_3", 1.0),
    # A pair in brackets is no interval if its ends are the wrong way round.
    ("(1,-2)", "[1,-2]", 1.0),
    # A point is an open interval, too.
    ("(1,2)", "1 < x < 2", 1.0),
]

# (answer, arguments, right, wrong)
EXACT = [
    ("Paris", {}, ["Paris", " paris\n", "PARIS", "<think>Rome?</think>Paris"], ["Paris.", "Rome"]),
    ("straße", {}, ["Straße", "STRASSE"], ["Strase", "Strasse 1"]),
    ("a b", {}, ["a b"], ["ab", "a  b", "b a"]),
    (
        "7",
        {"pattern": r"answer is (\d+)"},
        ["The answer is 7.", "The answer is 5. No, the answer is 7"],
        ["7", "The answer is 77", "The answer is 7. No, the answer is 5", "answer is -7"],
    ),
    (
        "yes",
        {"pattern": "(?s).*<verdict>(.*)</verdict>"},
        ["<verdict>Yes</verdict>", "No...\n<verdict> yes </verdict>"],
        ["yes", "<verdict>yes", "<verdict>yes, no</verdict>"],
    ),
]
REGEX = [
    (
        None,
        {"pattern": r"\b\d{4}-\d{2}-\d{2}\b"},
        ["On 2024-05-13.", "2024-05-13"],
        ["2024-5-13", "12024-05-13", "13.05.2024"],
    ),
    (
        None,
        {"pattern": "yes|no", "full": True},
        ["yes", "no\n"],
        ["yes!", "Yes", "yes no", "maybe"],
    ),
    (None, {"pattern": "(?i)yes"}, ["YES", "Oh yes!"], ["no", "ye s"]),
    (None, {"pattern": r"(?s)^#.*\n##", "full": False}, ["# a\ntext\n## b"], ["## b", "a # b"]),
    (None, {"pattern": r"\p{Han}"}, ["一 is one"], ["one"]),
    # It has the answer where the response has the pattern twice.
    (None, {"pattern": r"(\w+) \1"}, ["so so", "it it is"], ["so what", "it is"]),
    # Backtracking that would take years without the thought that it ends with.
    (None, {"pattern": "^(?>a+)+$"}, ["a" * 40], ["a" * 40 + "b"]),
]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "number"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value"],
        }
    },
    "$ref": "#/$defs/node",
}
JSON_SCHEMA = [
    (
        None,
        {"schema": PERSON},
        [
            '{"name": "Ann", "age": 3}',
            'Here it is:\n```json\n{"name": "Ann", "age": 3, "tags": ["a", "b"]}\n```\nBye.',
            '```json\n{"age": "x"}\n```\nNo:\n```json\n{"name": "Ann", "age": 3}\n```',
            '```\n{"name": "Ann", "age": 3.0}\n```',
            '<think>{"name": 1}</think>{"name": "Ann", "age": 0}',
        ],
        [
            '{"name": "Ann"}',
            '{"name": "", "age": 3}',
            '{"name": "Ann", "age": -1}',
            '{"name": "Ann", "age": 3.5}',
            '{"name": "Ann", "age": "3"}',
            '{"name": "Ann", "age": 3, "tags": ["a", "a"]}',
            '{"name": "Ann", "age": 3, "more": 1}',
            '{"name": "Ann", "age": 3,}',
            "{'name': 'Ann', 'age': 3}",
            'It is {"name": "Ann", "age": 3}.',
            '```json\n{"name": "Ann", "age": 3}\n```\nNo:\n```json\n{"age": 3}\n```',
            '{"name": "Ann", "age": NaN}',
            '{"name": "Ann", "age": 1e999}',
            "[" * 100_000,
            # Fences that none closes.
            "```a\n" * 6000,
            "null",
        ],
    ),
    (
        None,
        {"schema": TREE},
        ['{"value": 1}', '{"value": 1, "children": [{"value": 2, "children": [{"value": 3}]}]}'],
        ['{"value": 1, "children": [{"children": []}]}', '{"value": "1"}', "[1]"],
    ),
    # What stands after "const" is no schema, and an integer may be too large for a float.
    (
        None,
        {"schema": {"anyOf": [{"const": {"$ref": "x"}}, {"multipleOf": 0.01}]}},
        ['{"$ref": "x"}', "1"],
        ["1" * 400],
    ),
    (
        None,
        {"schema": {"type": "string", "pattern": "^[A-Z]{3}$"}},
        ['"ABC"', '```json\n"XYZ"\n```'],
        ["ABC", '"AB"', '"abc"', '"ABCD"'],
    ),
]
GERMAN = "Das Wetter ist heute schön, und wir gehen zusammen in den Park spazieren."
ENGLISH = "The weather is nice today, and we are going for a walk in the park together."
FRENCH = "Il fait beau aujourd'hui, et nous allons nous promener ensemble dans le parc."
RUSSIAN = "Сегодня хорошая погода, и мы вместе идём гулять в парк."
CHINESE = "今天天气很好。我们一起去公园散步。然后回家做饭。"
SPANISH = "Hoy hace buen tiempo y vamos juntos a pasear por el parque con los niños."
LANGUAGE = [
    (
        None,
        {"language": "de"},
        [
            GERMAN,
            f"{GERMAN}\n\n```python\nfor x in range(3): print('the weather')\n```",
            GERMAN * 9,
        ],
        [
            ENGLISH,
            FRENCH,
            RUSSIAN,
            "Ja.",
            "42",
            f"{GERMAN * 9}{ENGLISH * 9}",
            "```\nprint()\n```",
            "1" + "a" * 30_000,
        ],
    ),
    (
        None,
        {"language": "en"},
        [ENGLISH, f"<think>{GERMAN}</think>{ENGLISH}", ENGLISH.upper()],
        [GERMAN, SPANISH, CHINESE, f"{ENGLISH * 5}\n\n{SPANISH * 5}"],
    ),
    (None, {"language": "fr"}, [FRENCH], [SPANISH, ENGLISH]),
    # No blanks stand between its words: a digit is no reason to leave out all of them.
    (None, {"language": "zh"}, [CHINESE, f"{CHINESE}2024年5月13日(大约3公里)"], [ENGLISH, RUSSIAN]),
    (None, {"language": "ru"}, [RUSSIAN, RUSSIAN * 6], [CHINESE, GERMAN]),
]
LENGTH = [
    (None, {"at_most": 3}, ["a", "a b c", " a\nb\tc "], ["a b c d", "a-b c - d"]),
    (None, {"at_least": 2}, ["a b", "a b c"], ["a", "a-b"]),
    (None, {"at_least": 2, "at_most": 3, "unit": "words"}, ["a b", "a b c"], ["a", "a b c d"]),
    (
        None,
        {"at_most": 5, "unit": "characters"},
        ["abcde", "  abcde\n", "天气很好。"],
        ["abcdef", "a b c d"],
    ),
    (
        None,
        {"at_least": 3, "unit": "characters"},
        ["abc", "a b"],
        ["ab", "  a  ", "<think>abc</think>a"],
    ),
    (None, {"at_least": 0, "at_most": 0}, [], ["a"]),
    (None, {"at_least": 1, "at_most": 1}, ["word", "<think>two words</think>one"], ["two words"]),
]


def ifeval(*instructions, **more):
    """The arguments of these instructions, (id, its arguments) each."""
    ids = [instruction_id for instruction_id, _ in instructions]
    kwargs = [arguments for _, arguments in instructions]
    return {"instruction_id_list": ids, "kwargs": kwargs, **more}


NO_COMMA = ("punctuation:no_comma", {})
LOWERCASE = ("change_case:english_lowercase", {})
THREE_BULLETS = ("detectable_format:number_bullet_lists", {"num_bullets": 3})
IFEVAL = [
    (None, ifeval(NO_COMMA), ["No commas here."], ["One, two.", "1,000"]),
    (
        None,
        ifeval(NO_COMMA, LOWERCASE, THREE_BULLETS),
        ["* this is the first\n* this is the second\n* and this is the last point of all"],
        [
            "* This is the first\n* this is the second\n* and this is the last point of all",
            "* this is the first\n* this is the second, and last",
            "* this is the first\n* this is the second\n* and this is the third\n* and more of it",
            "this is the first, the second and the third of the points",
        ],
    ),
    (
        None,
        ifeval(
            ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 3})
        ),
        ["One is here. Two is here. Three is here."],
        ["Dr. Smith met Mr. Jones. They talked.", "One. Two"],
    ),
    (
        None,
        ifeval(
            ("length_constraints:number_words", {"relation": "less than", "num_words": 6}),
            ("keywords:existence", {"keywords": ["sun", "moon"]}),
        ),
        ["The sun and the moon.", "moon sun"],
        ["The sun.", "The sun and the moon and all the stars."],
    ),
    (
        None,
        ifeval(
            (
                "change_case:capital_word_frequency",
                {"capital_relation": "at least", "capital_frequency": 2},
            )
        ),
        ["I say NO and NEVER."],
        ["Say No and Never.", "say NO"],
    ),
    (
        None,
        ifeval(
            ("startend:quotation", {}),
            ("detectable_format:title", {}),
            ("startend:end_checker", {"end_phrase": "That is all."}),
        ),
        ['"<<A title>>\nWords. That is all."'],
        [
            "<<A title>>\nWords. That is all.",
            '"Words. That is all."',
            '"<<A title>> That is all. No."',
        ],
    ),
    (
        None,
        ifeval(("detectable_format:json_format", {})),
        ['{"a": 1}', "```json\n[1]\n```"],
        ["{a}"],
    ),
    (
        None,
        ifeval(("combination:two_responses", {})),
        ["One.\n******\nTwo."],
        ["One.", "One.******One."],
    ),
    (
        None,
        ifeval(
            (
                "keywords:letter_frequency",
                {"letter": "z", "let_frequency": 2, "let_relation": "at least"},
            )
        ),
        ["Zebras in a zoo."],
        ["A zebra.", "Bees."],
    ),
    (
        None,
        ifeval(
            (
                "keywords:letter_frequency",
                {"letter": "#", "let_frequency": 3, "let_relation": "less than"},
            )
        ),
        ["# One", "No hashes: 9", "##"],
        ["###", "# a\n## b"],
    ),
    # Published rows have null for the arguments of other instructions.
    (
        None,
        ifeval(
            ("language:response_language", {"language": "de", "num_words": None, "keywords": None})
        ),
        [GERMAN],
        [ENGLISH],
    ),
    # Strict: the line around the answer counts; loose: it does not.
    (None, ifeval(NO_COMMA), ["A fine day."], ["Sure, here it is:\nA fine day."]),
    (
        None,
        ifeval(NO_COMMA, loose=True),
        ["Sure, here it is:\nA fine day.", "A fine day.\nWell, bye.", "A, b\nA fine day.\nc, d"],
        ["A fine, day.\nReally, fine.", "One, two."],
    ),
]
ADD = "assert add(1, 2) == 3\nassert add(-1, 1) == 0"
UNIT_TESTS = [
    (
        None,
        {"tests": ADD},
        [
            "def add(a, b):\n    return a + b",
            "Here:\n```python\ndef add(a, b):\n    return a + b\n```\nIt adds.",
            "```python\nadd = max\n```\nNo:\n```python\nadd = lambda a, b: a + b\n```",
            "```\nimport operator\nadd = operator.add\n```",
            "```py\ndef add(*numbers):\n    return sum(numbers)\n```",
            "```python\ndef add(a, b):\n    print(a)\n    return a + b\nprint(add(1, 2))\n```",
            "<think>\ndef add(a, b): return 0\n</think>\ndef add(a, b): return a + b",
            "```bash\nls\n```\n```python\ndef add(a, b): return a + b\n```\n```text\n3\n```",
        ],
        [
            "def add(a, b):\n    return a - b",
            "def add(a, b):\n    print(a + b)",
            "def add(a, b):\n    return str(a + b)",
            "def add(a, b):\n    return 3",
            "def add(a, b)\n    return a + b",
            "def plus(a, b):\n    return a + b",
            "def add(a, b):\n    while True:\n        pass",
            "import sys\nsys.exit(0)",
            "import os\ndef add(a, b):\n    os._exit(0)",
            "def add(a, b):\n    raise SystemExit",
            "def add(a, b):\n    return add(a, b)",
            "class Same:\n    __eq__ = lambda *_: True\ndef add(a, b):\n    return Same()",
            "assert False",
            "It is a + b.",
        ],
    ),
    (
        "def check(f):\n    assert f([3, 1]) == [1, 3]\n    assert f([]) == []\ncheck(ordered)",
        {},
        ["def ordered(values):\n    return sorted(values)", "ordered = sorted"],
        ["def ordered(values):\n    values.sort()", "def ordered(values):\n    return values"],
    ),
    (
        None,
        {"tests": ["assert half(3) == 1.5", "assert half(0) == 0"]},
        ["def half(x):\n    return x / 2"],
        ["def half(x):\n    return x // 2", "def half(x):\n    return 1 / (2 / x)"],
    ),
]


def math_rows():
    for answer, right, wrong in BOXED:
        yield answer, {}, boxed(*right), boxed(*wrong)
    for answer, right, wrong in STATED:
        yield answer, {}, right, wrong


TABLES = {
    "exact": EXACT,
    "math": list(math_rows()),
    "regex": REGEX,
    "json_schema": JSON_SCHEMA,
    "language": LANGUAGE,
    "length": LENGTH,
    "ifeval": IFEVAL,
}
