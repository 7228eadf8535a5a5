"""The verifiers that rows name: tables of right and wrong responses, weights, what is refused."""

import json
import re

import pytest

import verifier_cases as cases
from commands import ROOT, ran, read_jsonl, run, write_jsonl
from common import fields
from common.rows import fingerprint

SCRIPT = "annotation/1d_verifier.py"
TURN = [{"role": "user", "content": "?"}]
POLITE = """\
from dataclasses import dataclass

from beside_polite import WORD


@dataclass
class Unused:
    word: "str" = WORD


def scores(responses, answer, arguments):
    return [WORD in response.lower() for response in responses]
"""


def row(name, responses, **other):
    return {
        "id": name,
        "prompt": TURN,
        "responses": responses,
        "finish_reasons": ["stop"] * len(responses),
        **other,
    }


def verified(tmp_path, rows, *flags):
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    out = tmp_path / "out.jsonl"
    ran(SCRIPT, "--responses_file", file, "--output_file", out, "--n", 0, *flags)
    return read_jsonl(out)


def refused(tmp_path, rows, *flags):
    """What stands after the name of the input in the one line that refuses it."""
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    before = [path for path in sorted(tmp_path.iterdir()) if ".partial-" not in path.name]
    out = tmp_path / "new.jsonl"
    done = run(SCRIPT, "--responses_file", file, "--output_file", out, "--n", 0, *flags)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    # A response that cannot be scored is met later: what is finished by then is kept.
    assert [path for path in sorted(tmp_path.iterdir()) if ".partial-" not in path.name] == before
    return done.stderr.strip().removeprefix(f"{file}:")


# The tables


def rows_of(tables):
    """A row for each entry of the tables, with the right responses before the wrong ones."""
    rows = []
    for name, table in tables.items():
        for number, (answer, arguments, right, wrong) in enumerate(table):
            verifier = [{"name": name, "arguments": arguments}]
            given = {} if answer is None else {"answer": answer}
            rows.append(row(f"{name} {number}", right + wrong, verifier=verifier, **given))
    return rows


def check_rewards(tables, rows):
    """Every right response of the tables has got 1, every wrong one 0."""
    rewards = {entry["id"]: entry["rewards"] for entry in rows}
    for name, table in tables.items():
        for number, (_, _, right, wrong) in enumerate(table):
            expected = [1.0] * len(right) + [0.0] * len(wrong)
            pairs = zip(right + wrong, expected, rewards[f"{name} {number}"], strict=True)
            mistaken = [text for text, expected, reward in pairs if reward != expected]
            assert not mistaken, (name, number)


def test_right_and_wrong_responses_of_all_verifiers(tmp_path):
    for name, table in (cases.TABLES | {"unit_tests": cases.UNIT_TESTS}).items():
        assert sum(len(right) + len(wrong) for _, _, right, wrong in table) >= 20, name
    check_rewards(cases.TABLES, verified(tmp_path, rows_of(cases.TABLES)))


def test_right_and_wrong_programs(tmp_path, usable_sandbox):
    table = {"unit_tests": cases.UNIT_TESTS}
    check_rewards(table, verified(tmp_path, rows_of(table), "--run_generated_code"))


def test_what_mathematics_cannot_tell_is_on_the_page(tmp_path):
    rows = []
    for number, (answer, text, _) in enumerate(cases.LIMITS):
        rows.append(row(str(number), cases.boxed(text), answer=answer))
    page = (ROOT / "docs/stages.md").read_text()
    for scored, (answer, text, reward) in zip(verified(tmp_path, rows), cases.LIMITS, strict=True):
        assert scored["rewards"] == [reward], answer
        assert f"`{text}` for `{answer}`" in page


# A row's verifiers together


def test_the_reward_is_the_weighted_mean_of_the_verifiers(tmp_path):
    """Rows without a verifier are compared by --method; blank responses get 0 from all."""
    several = [
        {"name": "math", "weight": 3},
        {"name": "length", "arguments": {"at_most": 2, "unit": None}, "weight": None},
        {"name": "regex", "arguments": {"pattern": "^The"}},
        {"name": "regex", "arguments": {"pattern": "\\.$"}},
    ]
    texts = ["The answer is 4.", "4", "The answer is 5.", "no way.", " ", "<think>4.</think>"]
    rows = [
        row("several", texts, answer="4", verifier=several),
        row("one", ["a", "a b c"], verifier=[{"name": "length", "arguments": {"at_most": 1}}]),
        row("name", ["It is 4", "5"], answer="4", verifier="math"),
        row("none", ["is 4", "4"], answer="4"),
        row("null", ["is 4", "4"], answer="4", verifier=None),
    ]
    flags = ["--method", "exact", "--pattern", "is (.*)"]
    written = verified(tmp_path, rows, *flags)
    by_hand = [
        [(3 + 0 + 1 + 1) / 6, (3 + 1) / 6, (1 + 1) / 6, (1 + 1) / 6, 0, 0],
        [1, 0],
        [1, 0],
        [1, 0],
        [1, 0],
    ]
    for source, result, rewards in zip(rows, written, by_hand, strict=True):
        objectives = result.pop("objectives", None)
        assert result.pop("rewards") == pytest.approx(rewards)
        assert result.pop("annotator") == "verifier"
        assert result == source
        if source["id"] == "several":
            names = ["math", "length", "regex", "regex-2"]
            assert objectives[0] == dict(zip(names, [1, 0, 1, 1], strict=True))
            assert objectives[3] == dict(zip(names, [0, 1, 0, 1], strict=True))
            assert objectives[4] == dict.fromkeys(names, 0)
        else:
            assert objectives is None


def test_verifiers_and_a_reward_model_add_up(tmp_path):
    """A row whose verifiers find all responses equal is ordered by the reward model alone."""
    length = [{"name": "length", "arguments": {"at_most": 1}}]
    rows = [
        row("0", ["a", "a b"], verifier=length),
        row("1", ["a", "b"], verifier=length),
        row("2", ["a b", "b c"], verifier=length),
    ]
    verified(tmp_path, rows)
    scored = []
    for entry, rewards in zip(rows, [[0.0, 1.0], [2.0, 1.0], [0.0, 2.0]], strict=True):
        scored.append({**entry, "rewards": rewards, "annotator": "rm"})
    model = write_jsonl(tmp_path / "model.jsonl", scored)
    files = ["--rewards_files", model, tmp_path / "out.jsonl", "--weights", 1, 4]
    ran("annotation/1e_combined.py", *files, "--output_file", tmp_path / "both.jsonl")
    deviation = 0.816496580927726  # of the model's rewards, by hand: sqrt(2/3)
    differences = []
    for entry in read_jsonl(tmp_path / "both.jsonl"):
        assert entry["annotator"] == "1*rm + 4*verifier"
        differences.append(entry["rewards"][0] - entry["rewards"][1])
    # Of six responses three are short enough: 1 and 0 are two deviations apart.
    assert differences == pytest.approx([-1 / deviation + 8, 1 / deviation, -2 / deviation])


def test_the_example_on_the_page_of_stages(tmp_path):
    page = (ROOT / "docs/stages.md").read_text()
    example = json.loads(re.search(r"^```json\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[1])
    texts = ["2, 3, 5", "2 and 3", "2, 3, 5 and 7 are primes below 10", "4, 6, 8"]
    (written,) = verified(tmp_path, [row("a", texts) | example])
    assert written["rewards"] == pytest.approx([1, 1 / 3, 2 / 3, 1 / 3])


def test_a_verifier_of_ones_own(tmp_path):
    (tmp_path / "polite.py").write_text(POLITE)
    (tmp_path / "beside_polite.py").write_text('WORD = "please"\n')
    flags = ["--verifier", f"polite={tmp_path}/polite.py"]
    rows = [row("0", ["Please.", "Now!"], verifier="polite")]
    assert verified(tmp_path, rows, *flags)[0]["rewards"] == [1.0, 0.0]
    # It shares the row with the others.
    both = [{"name": "polite", "weight": 0.5}, {"name": "exact"}]
    rows = [row("0", ["Please.", "Now!"], verifier=both, answer="now!")]
    assert verified(tmp_path, rows, *flags)[0]["rewards"] == pytest.approx([1 / 3, 2 / 3])
    # A killed run does not go on with rewards of another version.
    before = fingerprint(flags)
    (tmp_path / "polite.py").write_text(f"{POLITE}\n")
    assert fingerprint(flags) != before


# What is refused

# {reason: "verifier" of a row}, by the check of rows, which needs no verifier
FIELD = {
    "neither a name nor a list of {name, weight, arguments}": 7,
    "neither a name nor a list of {name, weight, arguments} ": [],
    "neither a name nor a list of {name, weight, arguments}  ": ["math"],
    "neither a name nor a list of {name, weight, arguments}   ": {"name": "math"},
    "'my/rule.py': a path; name it, and give its file by --verifier NAME=FILE.py": "my/rule.py",
    "'rule.py': a path; name it, and give its file by --verifier NAME=FILE.py": "rule.py",
    "'..\\\\rule': a path; name it, and give its file by --verifier NAME=FILE.py": "..\\rule",
    "'': not a name": "",
    "'os.system': not a name": "os.system",
    "math: weights: not one of name, weight, arguments": [{"name": "math", "weights": 1}],
    "math: weight: 0 is not a number above 0": [{"name": "math", "weight": 0}],
    "math: weight: -1 is not a number above 0": [{"name": "math", "weight": -1}],
    "math: weight: True is not a number above 0": [{"name": "math", "weight": True}],
    "math: weight: inf is not a number above 0": [{"name": "math", "weight": float("inf")}],
    "math: arguments: not an object": [{"name": "math", "arguments": ["x"]}],
}


def test_a_field_that_names_no_verifier_is_refused_where_rows_are_read():
    for reason, field in FIELD.items():
        for kind, entry in (
            ("prompts", {"id": "a", "prompt": TURN}),
            ("verifiable", row("a", "b")),
        ):
            problem = fields.problem({**entry, "verifier": field, "responses": ["b"]}, kind)
            assert problem == f"verifier: {reason.rstrip()}"


SCHEMA = {"schema": {"$ref": "http://127.0.0.1/schema.json"}}
NO_COMMA = ["punctuation:no_comma"]
WORDS = ["length_constraints:number_words"]
# (verifier, answer, arguments, what is wrong)
UNSUITED = [
    ("exact", None, {}, "answer: missing"),
    ("exact", "a", {"patern": "(a)"}, "arguments: patern: not one of pattern"),
    ("exact", "a", {"pattern": "a"}, "arguments: pattern: one group is needed, the final answer"),
    ("math", None, {}, "answer: missing"),
    ("math", "$", {}, "answer: '$' is not mathematics"),
    ("math", "1", {"pattern": "("}, "arguments: pattern: missing ) at position 1"),
    ("regex", None, {}, "arguments: pattern: missing"),
    ("regex", None, {"pattern": 7}, "arguments: pattern: not a non-empty text"),
    ("regex", None, {"pattern": "[a"}, "arguments: pattern: unterminated character set"),
    ("regex", None, {"pattern": "a", "full": 1}, "arguments: full: neither true nor false"),
    ("json_schema", None, {}, "arguments: schema: missing"),
    ("json_schema", None, {"schema": "x"}, "arguments: schema: not a JSON schema (an object)"),
    ("json_schema", None, {"schema": {"type": "text"}}, "arguments: schema: 'text' is not valid"),
    ("json_schema", None, {"schema": {"pattern": "("}}, "arguments: schema: '(' is not a 'regex'"),
    ("json_schema", None, SCHEMA, "arguments: schema: $ref 'http://127.0.0.1/schema.json' is not"),
    ("json_schema", None, {"schema": {"$dynamicRef": "#a"}}, "arguments: schema: $ref '#a' is not"),
    ("ifeval", None, {}, "arguments: instruction_id_list: missing"),
    (
        "ifeval",
        None,
        {"instruction_id_list": NO_COMMA, "kwargs": []},
        "arguments: kwargs: 0 for 1 of instruction_id_list",
    ),
    (
        "ifeval",
        None,
        {"instruction_id_list": ["no_comma"], "kwargs": [{}]},
        "arguments: instruction_id_list: 'no_comma' is not one of keywords:existence, ",
    ),
    # lm-eval would draw what is missing, or out of range.
    (
        "ifeval",
        None,
        {"instruction_id_list": WORDS, "kwargs": [{"num_words": 3}]},
        "arguments: kwargs: length_constraints:number_words needs num_words, relation, ",
    ),
    (
        "ifeval",
        None,
        {"instruction_id_list": WORDS, "kwargs": [{"num_words": -3, "relation": "at least"}]},
        "arguments: kwargs: length_constraints:number_words: num_words: -3",
    ),
    (
        "ifeval",
        None,
        {"instruction_id_list": WORDS, "kwargs": [{"num_words": 3, "relation": "about"}]},
        "arguments: kwargs: length_constraints:number_words: The supported relation",
    ),
    (
        "ifeval",
        None,
        {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": "sun"}]},
        "arguments: kwargs: keywords:existence: keywords: not a list",
    ),
    (
        "ifeval",
        None,
        {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["c++ ("]}]},
        "arguments: kwargs: keywords:existence: ",
    ),
    ("unit_tests", None, {}, "answer: missing"),
    ("unit_tests", "assert (", {}, "arguments: tests: not Python ('(' was never closed"),
    ("unit_tests", "# f(1) == 2", {}, "arguments: tests: no assertion, call or raise"),
    ("unit_tests", None, {"tests": []}, "arguments: tests: neither a text nor a list of texts"),
    ("language", None, {}, "arguments: language: missing"),
    ("language", None, {"language": "German"}, "arguments: language: 'German' is not one of ace "),
    ("length", None, {}, "arguments: at_least: missing, and at_most, too"),
    ("length", None, {"at_most": -1}, "arguments: -1 is not a whole number from 0"),
    ("length", None, {"at_most": 1.5}, "arguments: 1.5 is not a whole number from 0"),
    ("length", None, {"at_most": 1, "at_least": 2}, "arguments: at_most: 1 is below at_least, 2"),
    ("length", None, {"at_most": 1, "unit": "tokens"}, "arguments: unit: not one of words, char"),
]
# Prints, as JSON, what check() says about each entry of a file, and, of verifiers that would
# backtrack for years, the scores and the number of those that were given up.
CHECK = """
import json, sys
sys.path.insert(0, "annotation")
import named_verifiers, verifier_arguments
said = []
for name, answer, arguments, _ in json.load(open(sys.argv[1])):
    try:
        said.append(named_verifiers.BUILT_IN[name].check(answer, arguments))
    except ValueError as error:
        said.append(str(error))
verifier_arguments.PATTERN_TIMEOUT = 0.1
slow = "a" * 60 + "b"
pattern = "^(a|aa)+$"
schema = {"patternProperties": {pattern: True}, "additionalProperties": False}
verifiers = named_verifiers.Verifiers({}, None, False)
for name, arguments, texts in (
    ("regex", {"pattern": pattern}, ["aa", slow, "b"]),
    ("exact", {"pattern": "^((?:a|aa)+)$"}, [slow, "aa"]),
    ("json_schema", {"schema": schema}, ['{"aa": 1}', json.dumps({slow: 1}), '{"b": 1}']),
):
    row = {"answer": "aa", "verifier": [{"name": name, "arguments": arguments}]}
    said.append([verifiers.scores(row, texts)[name], verifiers.too_slow])
print(json.dumps(said))
"""


def test_answers_and_arguments_that_do_not_suit_are_refused(tmp_path):
    file = tmp_path / "unsuited.json"
    file.write_text(json.dumps(UNSUITED))
    said = json.loads(ran("-c", CHECK, file).stdout)
    assert said[len(UNSUITED) :] == [[[1, 0, 0], 1], [[0, 1], 2], [[1, 0, 0], 3]]
    for (name, _, arguments, reason), error in zip(UNSUITED, said, strict=False):
        assert error is not None and error.startswith(reason), (name, arguments, error)


BROKEN = "def scores(responses, answer, arguments):\n    return {}\n"
CHECKING = "def check(answer, arguments):\n    {}\n" + BROKEN.format([])
# (flags, "verifier" of the second row, what the line says); @: the file of the verifier `own`
REFUSALS = [
    ([], "nosuch", "2: verifier: nosuch: not one of exact, ifeval, json_schema, language, length"),
    (
        [],
        "unit_tests",
        "2: verifier: unit_tests: programs that the model wrote run only with --run",
    ),
    ([], "regex", "2: verifier: regex: arguments: pattern: missing"),
    (["--verifier", "own.py"], "exact", "--verifier: own.py: not of the form NAME=FILE.py"),
    (
        ["--verifier", "own=@"] * 2,
        "own",
        "--verifier: own=@: there is a verifier own already",
    ),
    (["--verifier", "math=@"], "own", "--verifier: math=@: there is a verifier math already"),
    (["--verifier", "own=no.py"], "own", "--verifier: no.py: no such file"),
]
# {what the user's file holds: what the line says}
OWN = {
    "x = (\n": "--verifier: @: SyntaxError: '(' was never closed",
    "x = 1 / 0\n": "--verifier: @: ZeroDivisionError: division by zero (own.py:1)",
    "x = 1\n": "--verifier: @: no function scores(responses, answer, arguments)",
    BROKEN.format("[1, 2, 3]"): "2: verifier: own: scores: 3 for 2 responses",
    BROKEN.format("[2, 0]"): "2: verifier: own: scores: 2.0 is not from 0 to 1",
    BROKEN.format("[float('nan'), 0]"): "2: verifier: own: scores: nan is not from 0 to 1",
    BROKEN.format("['a', 'b']"): "2: verifier: own: scores: ['a', 'b'] are not all numbers",
    BROKEN.format("None"): "2: verifier: own: scores: None are not all numbers",
    BROKEN.format("answer[0]"): "2: verifier: own: TypeError: 'NoneType' object is not subscr",
    CHECKING.format("raise ValueError('answer: odd')"): "2: verifier: own: answer: odd",
    CHECKING.format("answer.x"): "2: verifier: own: AttributeError: 'NoneType' object has no",
}


def test_rows_flags_and_files_that_are_refused(tmp_path):
    file = tmp_path / "own.py"
    own = [([*"--verifier own=@".split()], "own", said, text) for text, said in OWN.items()]
    refusals = [(*refusal, BROKEN.format([])) for refusal in REFUSALS]
    for flags, verifier, said, text in refusals + own:
        file.write_text(text)
        flags = [flag.replace("@", str(file)) for flag in flags]
        rows = [row("a", ["4"], answer="4"), row("b", ["4", "5"], verifier=verifier)]
        error = refused(tmp_path, rows, *flags)
        assert error.startswith(said.replace("@", str(file))), error
