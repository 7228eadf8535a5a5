"""Public data in its many forms at the three entrances: prompts, instructions and preferences."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from commands import ran, read_jsonl, run, write_jsonl
from common import duplicates, entrances

PROMPTS = "generation/1_prompts.py"
INSTRUCTIONS = "sft/1_instructions.py"
PREFERENCES = "reward_modeling/1_preferences.py"
# the byte order mark that Windows writes
MARK = b"\xef\xbb\xbf"


def turn(role, content):
    return {"role": role, "content": content}


def user(content):
    return turn("user", content)


def assistant(content):
    return turn("assistant", content)


def system(content):
    return turn("system", content)


def shares(*turns):
    """ShareGPT's form of turns."""
    return [{"from": who, "value": said} for who, said in turns]


def entered(tmp_path, script, rows, *flags, name="in.jsonl"):
    """(output rows, what was printed)"""
    file = write_jsonl(tmp_path / name, rows) if isinstance(rows, list) else rows
    size = ["--size", 0] if script == PROMPTS else []
    out = tmp_path / f"{Path(script).stem}.jsonl"
    done = ran(script, "--datasets", file, "--output_file", out, *size, *flags)
    return read_jsonl(out), done.stdout


def refused(tmp_path, script, file):
    size = ["--size", 0] if script == PROMPTS else []
    done = run(script, "--datasets", file, "--output_file", tmp_path / "new.jsonl", *size)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("new*"))
    return done.stderr.strip()


# Duplicates

DIFFERENT = [
    *["What is 12 + 3?", "What is 12 - 3?", "What is 12 * 3?", "What is 12 / 3?", "What is 12 3?"],
    *[
        "What does x == y do?",
        "What does x != y do?",
        "What does x = y do?",
        "What does x >= y do?",
    ],
    *["Is -5 > 3?", "Is 5 > 3?", "Is 5 < 3?", "What is 5!?", "What is 5?"],
    *["Explain C++", "Explain C#", "Explain C"],
    *["What is {1: 2}?", "What is {1, 2}?", "What is [1; 2]?", "What is [1, 2]?"],
    *["What is 3.5?", "What is 35?"],
    *["f(x)", "f'(x)", "a && b", "a || b", "!a", "a", "~a", "1/2", "x^2", "x²", "x2", "5%", "$5"],
    *["🙂", "🙃", "🙂🙂", "?", "!", "กิ", "กี", "กา", "كَتَبَ", "كُتُبَ"],
    *["你好吗\uff1f", "你好\uff0c吗\uff1f"],
]
SAME = [
    ["What is 2 plus 2?", "what is 2 plus 2", " WHAT  is\n2 plus 2 ?!", "What is 2 plus 2?\n"],
    ["12+3", "12 + 3", "12 + 3.", "12 +3"],
    ["Hello, world. How are you?", "hello world how are you"],
    ["Don\u2019t say \u201cno\u201d", 'don\'t say "no".'],
    ["Count these: brush, nail.", "count these brush nail"],
    ["caf\u00e9", "cafe\u0301"],
    ["12 \u2212 3", "12 - 3"],
    ["你好吗\uff1f", "你好吗"],
]


def test_signs_make_other_texts_and_punctuation_does_not():
    keys = [duplicates.key(text) for text in DIFFERENT]
    assert len(set(keys)) == len(DIFFERENT)
    for texts in SAME:
        assert len({duplicates.key(text) for text in texts}) == 1, texts


def test_prompts_that_differ_in_signs_or_context_are_drawn(tmp_path):
    contexts = [[user("Go on."), assistant(word), user("Why?")] for word in ("yes", "no")]
    contexts += [[user("Why?")], [system("Be brief."), user("Why?")]]
    rows = [{"prompt": prompt} for prompt in DIFFERENT + contexts]
    output, printed = entered(tmp_path, PROMPTS, rows)
    assert len(output) == len(rows)
    assert "dropped: 0," in printed
    first, *_, last = output
    excluded = write_jsonl(tmp_path / "seen.jsonl", [first, last])
    output, _ = entered(tmp_path, PROMPTS, rows, "--exclude_files", excluded)
    assert [row["id"] for row in output] == [f"in-{i}" for i in range(2, len(rows))]


def test_thirteen_words_with_another_sign_are_no_overlap():
    plus = "First add the numbers and then say what the sum of 12 + 3 is".split()
    plus = " ".join(plus)

    def runs(text):
        return set(duplicates.runs(duplicates.words(text), 13))

    assert len(runs(plus)) == 2
    assert runs(plus) & runs(f"So: {plus.upper()}!")
    assert not runs(plus) & runs(plus.replace("+", "-"))
    assert runs(plus) == runs(f'"({plus})"')


# Forms

OTHER_KEYS = {"tool_calls": None, "weight": 1}
TEXT_PARTS = [{"type": "text", "text": "q"}, {"type": "text", "text": "r"}]
# A row of a public dataset, its prompt, its answer.
FORMS = [
    ({"instruction": "q", "input": "i", "output": "a"}, [user("q\n\ni")], "a"),
    ({"instruction": "q", "input": " ", "output": "a"}, [user("q")], "a"),
    ({"instruction": "q", "input": None, "response": "a"}, [user("q")], "a"),
    ({"instruction": "q", "input": 7, "output": "a"}, [user("q\n\n7")], "a"),
    ({"instruction": "q", "context": "c", "response": "a"}, [user("q\n\nc")], "a"),
    (
        {"instruction": "q", "history": [["h", "g"]], "system": "s", "output": "a"},
        [system("s"), user("h"), assistant("g"), user("q")],
        "a",
    ),
    ({"system_prompt": "s", "question": "q", "response": "a"}, [system("s"), user("q")], "a"),
    ({"system": "", "question": "q", "answer": "a"}, [user("q")], "a"),
    ({"problem": "q", "solution": "a"}, [user("q")], "a"),
    ({"conversations": shares(("human", "q"), ("gpt", "a"))}, [user("q")], "a"),
    (
        {"system": "s", "conversations": shares(("gpt", "x"), ("user", "q"), ("assistant", "a"))},
        [system("s"), user("q")],
        "a",
    ),
    ({"conversations": [user("q"), assistant("a")]}, [user("q")], "a"),
    ({"conversation": [{"input": "q", "output": "a"}]}, [user("q")], "a"),
    (
        {"messages": [system("t"), user("q"), assistant("a")], "system": "s"},
        [system("t"), user("q")],
        "a",
    ),
    (
        {"messages": [user("q") | {"name": None}, assistant("a") | OTHER_KEYS]},
        [user("q")],
        "a",
    ),
    ({"messages": [turn("user", TEXT_PARTS), assistant("a")]}, [user("q\nr")], "a"),
    ({"prompt": "q", "completion": "a", "system": None}, [user("q")], "a"),
    ({"prompt": [user("q")], "completion": assistant("a")}, [user("q")], "a"),
    ({"messages": [system(""), user("q"), assistant("a")]}, [user("q")], "a"),
    (
        {"messages": [user("q") | {"from": None, "input": None, "output": None}, assistant("a")]},
        [user("q")],
        "a",
    ),
    (
        {"conversations": shares(("system", None), ("human", "q"), ("gpt", "a")), "system": "s"},
        [system("s"), user("q")],
        "a",
    ),
]


def test_every_form_becomes_an_instruction(tmp_path):
    """Alone, where none is a duplicate, and all together."""
    rows = [row | {"id": i} for i, (row, _, _) in enumerate(FORMS)]
    for row, (_, prompt, answer) in zip(rows[::4], FORMS[::4], strict=True):
        (output,), _ = entered(tmp_path, INSTRUCTIONS, [row])
        assert output["messages"] == [*prompt, assistant(answer)]
    output, printed = entered(tmp_path, INSTRUCTIONS, rows)
    different = {json.dumps([prompt, answer]) for _, prompt, answer in FORMS}
    assert len(output) == len(different)
    assert f"duplicate: {len(FORMS) - len(different)} |" in printed
    for row in output:
        _, prompt, answer = FORMS[int(row["id"])]
        assert row["messages"] == [*prompt, assistant(answer)]
        assert row.keys() == {"id", "source", "messages"}


def test_every_form_becomes_a_prompt(tmp_path):
    rows = [row | {"id": i} for i, (row, _, _) in enumerate(FORMS[:-1])]
    two_questions = shares(("human", "q"), ("gpt", "a"), ("human", "r"), ("gpt", "b"))
    rows.append({"id": "last", "conversations": two_questions})
    output, printed = entered(tmp_path, PROMPTS, rows)
    assert output.pop()["prompt"] == [user("q"), assistant("a"), user("r")]
    assert len(output) == len({json.dumps(prompt) for _, prompt, _ in FORMS})
    assert "duplicate" in printed
    for row in output:
        _, prompt, _ = FORMS[int(row["id"])]
        assert row["prompt"] == prompt
        assert not row.keys() & {"system", "system_prompt", "messages"}


def test_every_form_becomes_a_preference(tmp_path):
    """With the chosen and the rejected answer instead of its own, as texts or as turns."""
    rows = []
    for i, (row, _, _) in enumerate(FORMS):
        pair = {"id": i, **row}
        for key in ("output", "response", "answer", "solution"):
            pair.pop(key, None)
        for side in ("chosen", "rejected"):
            text = f"{side} {i}"
            pair[side] = text if i % 2 else {"from": "gpt", "value": text}
        rows.append(pair)
    output, printed = entered(tmp_path, PREFERENCES, rows)
    assert "dropped" not in printed.splitlines()[-1]
    assert [row["prompt"] for row in output] == [prompt for _, prompt, _ in FORMS]
    keys_of_forms = {"messages", "conversations", "conversation"}
    keys_of_forms |= {"completion", "system", "instruction"}
    for i, row in enumerate(output):
        assert row["chosen"] == [assistant(f"chosen {i}")]
        assert row["rejected"] == [assistant(f"rejected {i}")]
        assert not row.keys() & keys_of_forms


def test_keys_that_pass_through_do_not_decide_what_a_row_is(tmp_path):
    pair = {"chosen": [assistant("a")], "rejected": [assistant("b")]}
    prompts = [
        {"id": "a", "prompt": "q", **pair, "messages": None},
        {"id": "b", "prompt": "r", "chosen": "text"},
        {"id": "c", "prompt": None, "conversations": None, "question": "s"},
    ]
    output, _ = entered(tmp_path, PROMPTS, prompts)
    assert [row["prompt"] for row in output] == [[user(text)] for text in "qrs"]
    chat = [user("q"), assistant("a")]
    output, _ = entered(tmp_path, INSTRUCTIONS, [{"messages": chat, "prompt": "x", **pair}])
    assert output[0]["messages"] == chat
    for rows in (
        [{"id": "a", "prompt": [user("q")], "chosen": "text"}, {"id": "b", "prompt": [user("r")]}],
        [{"id": "a", "messages": chat, "prompt": "x", "chosen": None}],
        [{"id": "a", "prompt": [user("q")], **pair, "completion": "x", "messages": "y"}],
    ):
        file = write_jsonl(tmp_path / "kinds.jsonl", rows)
        ran("data/1_clean.py", "--input_file", file, "--output_file", tmp_path / "clean.jsonl")
        assert read_jsonl(tmp_path / "clean.jsonl") == rows


def test_the_direction_of_a_prompt_stays_for_the_policy(tmp_path):
    """generation/1b_directions.py writes `system` and `direction`; no public row has both."""
    row = {"id": "a", "prompt": [user("q")], "system": "Be long.", "direction": [0.0, 1.0]}
    assert entered(tmp_path, PROMPTS, [row])[0] == [row | {"source": str(tmp_path / "in.jsonl")}]


# Rows that are dropped and counted

CALL = assistant(None) | {"tool_calls": [{"id": "1", "function": {"name": "f"}}]}
SHAREGPT_CALL = [turn("function_call", "f()"), turn("observation", "r")]
IMAGE_AND_TEXT = [{"type": "image_url", "image_url": {}}, {"type": "text", "text": "q"}]
# The reason for which a row is dropped, and the turns of its prompt.
BAD_TURNS = [
    ("an empty turn", [user(" \n")]),
    ("an empty turn", [user("q"), assistant(""), user("r")]),
    ("an empty turn", [turn("user", [])]),
    ("tool calls", [user("q"), CALL, turn("tool", "r"), assistant("a"), user("s")]),
    ("tool calls", [user("q"), *SHAREGPT_CALL, assistant("a"), user("s")]),
    ("content that is not text", [turn("user", IMAGE_AND_TEXT)]),
]


def test_what_cannot_be_used_is_dropped_and_counted(tmp_path):
    # One row of seven is left; the most frequent reason comes first.
    counts = Counter(reason for reason, _ in BAD_TURNS)
    reasons = ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
    cells = f"| 7 | 1 | 6 | {reasons} |"
    rows = [{"prompt": turns} for _, turns in BAD_TURNS]
    output, printed = entered(tmp_path, PROMPTS, [*rows, {"prompt": "good"}])
    assert len(output) == 1
    assert cells in printed
    rows = [{"messages": [*turns, assistant("a")]} for _, turns in BAD_TURNS]
    good = {"instruction": "good", "output": "a"}
    output, printed = entered(tmp_path, INSTRUCTIONS, [*rows, good])
    assert len(output) == 1
    assert cells in printed
    rows = [{"prompt": turns, "chosen": "a", "rejected": "b"} for _, turns in BAD_TURNS]
    rows += [
        {"prompt": "q", "chosen": [CALL], "rejected": "b"},
        {"prompt": "good", "chosen": "a", "rejected": "b"},
    ]
    output, printed = entered(tmp_path, PREFERENCES, rows)
    assert len(output) == 1
    assert "dropped, tool calls: 3" in printed
    assert "dropped, prompt: an empty turn: 3" in printed
    for bad in (
        [{"prompt": " "}, {"conversations": []}],
        [{"messages": [turn("user", None)]}],
    ):
        output, printed = entered(tmp_path, PROMPTS, [*bad, {"prompt": "good"}])
        assert len(output) == 1
        assert "an empty turn: 1" in printed


# Answers, ids, scores


def test_numbers_become_texts(tmp_path):
    solution = r"So $\boxed{\frac{1}{2}}$, that is \boxed{\left\{0.5\right\}}."
    rows = [
        {"id": 17, "prompt": "q1", "answer": 1},
        {"id": 1.5, "problem": "q2", "answer": 0.5, "solution": solution},
        {"problem": "q3", "solution": solution},
        {"question": "q4", "answer": "It is 3 + 4.\n#### 7"},
        {"question": "q5", "answer": "#### 7 is\nno final answer"},
        {"problem": "q6", "solution": "none", "answer": None},
    ]
    output, _ = entered(tmp_path, PROMPTS, rows)
    assert [row["id"] for row in output] == ["17", "1.5", "in-3", "in-4", "in-5", "in-6"]
    answers = ["1", "0.5", r"\left\{0.5\right\}", "7", "#### 7 is\nno final answer", None]
    assert [row["answer"] for row in output] == answers
    rows = [{"id": 3, "question": "q", "answer": 4, "source": "s"}]
    (output,), _ = entered(tmp_path, INSTRUCTIONS, rows)
    assert output == {"id": "3", "source": "s", "messages": [user("q"), assistant("4")]}
    rows = [{"id": 3, "prompt": "q", "chosen": 4, "rejected": 5.5, "answer": 4}]
    (output,), _ = entered(tmp_path, PREFERENCES, rows)
    assert output["id"] == "3"
    assert output["chosen"] == [assistant("4")]
    assert output["rejected"] == [assistant("5.5")]
    assert output["answer"] == "4"


def test_a_prompt_keeps_its_verifier(tmp_path):
    """Rows of IFEval get one; what names no verifier is refused where prompts are drawn."""
    named = [{"name": "length", "arguments": {"at_most": 3}}]
    ids = ["punctuation:no_comma", "length_constraints:number_words"]
    # The hub's table has null for the arguments that an instruction does not take.
    nulls = {"num_words": None, "relation": None}
    kwargs = [nulls, {"num_words": 3, "relation": "at least", "keyword": None}]
    rows = [
        {"prompt": "q1", "verifier": named},
        {"prompt": "q2", "verifier": "math", "answer": "1"},
        {"key": 1000, "prompt": "q3", "instruction_id_list": ids, "kwargs": kwargs},
        {"prompt": "q4", "kwargs": {}, "verifier": None},
    ]
    output, _ = entered(tmp_path, PROMPTS, rows)
    given = [{}, {"num_words": 3, "relation": "at least"}]
    of_ifeval = [{"name": "ifeval", "arguments": {"instruction_id_list": ids, "kwargs": given}}]
    assert [row.get("verifier") for row in output] == [named, "math", of_ifeval, None]
    assert not {"instruction_id_list", "kwargs"} & output[2].keys()
    # They pass through the stages before the annotation.
    file = tmp_path / "1_prompts.jsonl"
    directed = tmp_path / "directions.jsonl"
    ran("generation/1b_directions.py", "--prompts_file", file, "--output_file", directed)
    assert read_jsonl(directed)[2]["verifier"] == of_ifeval
    bad = write_jsonl(tmp_path / "bad.jsonl", [*rows, {"prompt": "q5", "verifier": "my/rule.py"}])
    reason = "'my/rule.py': a path; name it, and give its file by --verifier NAME=FILE.py"
    assert refused(tmp_path, PROMPTS, bad) == f"{bad}:5: verifier: {reason}"
    bad = write_jsonl(tmp_path / "bad.jsonl", [{**rows[2], "kwargs": [7, 7]}])
    assert refused(tmp_path, PROMPTS, bad) == f"{bad}:1: kwargs: not a list of objects"


def test_the_sets_of_mathematics_give_their_final_answers(tmp_path):
    """GSM8K's and MATH's rows as they are published, beside each other."""
    gsm8k = {"question": "How many?", "answer": "6*7=<<6*7=42>>42\n#### 1,042"}
    mathematics = {
        "problem": "How much?",
        "level": "Level 1",
        "type": "Algebra",
        "solution": r"It is $\boxed{\frac{1}{2}}$.",
    }
    output, _ = entered(tmp_path, PROMPTS, [gsm8k, mathematics])
    assert [row["answer"] for row in output] == ["1,042", r"\frac{1}{2}"]
    assert [row["prompt"] for row in output] == [[user("How many?")], [user("How much?")]]


OF_NO_ID = {"true": True, "empty": "", "list": ["a"], "too large": 10**400}


@pytest.mark.parametrize("script", [PROMPTS, INSTRUCTIONS, PREFERENCES])
@pytest.mark.parametrize("name", OF_NO_ID.values(), ids=OF_NO_ID.keys())
def test_other_ids_are_refused(tmp_path, script, name):
    row = {"id": name, "prompt": "q", "completion": "a", "chosen": "a", "rejected": "b"}
    file = write_jsonl(tmp_path / "in.jsonl", ["", row])
    assert refused(tmp_path, script, file) == f"{file}:2: id: not a non-empty text"


@pytest.mark.parametrize("answer", [True, ["4"], {"value": 4}], ids=str)
def test_other_answers_of_prompts_are_refused(tmp_path, answer):
    file = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "q", "answer": answer}])
    assert refused(tmp_path, PROMPTS, file) == f"{file}:1: answer: neither a text nor a number"


@pytest.mark.parametrize("script", [PROMPTS, INSTRUCTIONS, PREFERENCES])
def test_a_system_prompt_that_is_no_text_is_named(tmp_path, script):
    row = {"prompt": "q", "completion": "a", "chosen": "a", "rejected": "b", "system": ["s"]}
    file = write_jsonl(tmp_path / "in.jsonl", [row])
    assert "system: not a text" in refused(tmp_path, script, file)


def test_the_last_box_of_a_solution_is_its_answer():
    """Braces that LaTeX prints do not end the box; a truncated box holds no answer."""
    answers = {
        r"\boxed{1}, so \boxed{\frac{1}{2}}.": r"\frac{1}{2}",
        r"\boxed{\left\{ x \right.}": r"\left\{ x \right.",
        r"\boxed{4": None,
        "4": None,
    }
    for solution, answer in answers.items():
        assert entrances.last_boxed(solution) == answer


def test_a_history_that_is_no_list_is_named(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [{"instruction": "q", "output": "a", "history": 5}])
    assert "history: not a list of [question, answer]" in refused(tmp_path, INSTRUCTIONS, file)


SCORE_KEYS = [
    "chosen_score rejected_score",
    "score_chosen score_rejected",
    "chosen_rating rejected_rating",
    "rating_chosen rating_rejected",
    "chosen-rating rejected-rating",
]


@pytest.mark.parametrize("keys", SCORE_KEYS)
def test_equal_scores_are_ties_in_every_set(tmp_path, keys):
    """A margin is in the dataset's own points; by default there is no smallest margin."""
    key_of_chosen, key_of_rejected = keys.split()
    scores = [(8.0, 8.0), (0.75, 0.5), (2, 3), (None, 4), ("90", 10), (0, "0.0")]
    rows = []
    for i, (chosen, rejected) in enumerate(scores):
        pair = {"prompt": f"q{i}", "chosen": "a", "rejected": "b"}
        rows.append({**pair, key_of_chosen: chosen, key_of_rejected: rejected})
    output, printed = entered(tmp_path, PREFERENCES, rows)
    margins = {row["id"]: row.get("margin") for row in output}
    assert margins == {"in-2": 0.25, "in-4": None, "in-5": 80}
    assert "dropped, tie: 2, dropped, contradicted by its scores: 1, " in printed
    output, printed = entered(tmp_path, PREFERENCES, rows, "--min_margin", 0.5)
    assert {row["id"] for row in output} == {"in-4", "in-5"}
    assert "dropped, small margin: 1, " in printed


# Files


def test_files_with_the_mark_of_windows_gzipped_or_not_say_the_same(tmp_path):
    row = {"id": "a", "prompt": "q", "completion": "a", "chosen": "a", "rejected": "b"}
    line = json.dumps(row).encode() + b"\n"
    files = {"in.jsonl": MARK + line, "in.json": MARK + b"[" + line + b"]", "lines.json": line}
    files |= {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    for script in (PROMPTS, INSTRUCTIONS, PREFERENCES):
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
            (output,), _ = entered(tmp_path, script, tmp_path / name)
            assert output["id"] == "a"
    # A later stage reads such a file, too.
    prompt = {"id": "a", "prompt": [user("q")]}
    file = tmp_path / "stage.jsonl.gz"
    file.write_bytes(gzip.compress(MARK + json.dumps(prompt).encode()))
    out = tmp_path / "directions.jsonl"
    ran("generation/1b_directions.py", "--prompts_file", file, "--output_file", out)
    assert len(read_jsonl(out)) == 1


CUT_OFF = "row: not a line of JSON (the file is cut off here: "
# {name: (content, the reason that is printed)}
BROKEN = {
    "cut.json": (b'[{"prompt": "q"},\n {"prompt": "r', "cannot be read (cut off in line 2: "),
    "comma.json": (b'[{"prompt": "q"},\n', "cannot be read (cut off in line 2: "),
    "open.json": (b'[{"prompt": "q"}', "cannot be read (cut off in line 1: "),
    "wrong.json": (b'[{"prompt": tru}]', "cannot be read (line 1: "),
    "missing.json": (b'[{"prompt": "q"} {"prompt": "r"}]', "cannot be read (line 1: no comma"),
    "two.json": (
        b'[{"prompt": "q"}]\n[{"prompt": "r"}]',
        "cannot be read (line 1: more after the end of the list)",
    ),
    "half.json": (
        b'[{"prompt": "q"},\n{"prompt": "\\ud83d"}]',
        "2: prompt: half a character (a lone surrogate)",
    ),
    "twice.json": (b'[{"prompt": "q", "prompt": "r"}]', "1: prompt: stands twice in one object"),
    "empty.json": (b"[]", "no rows"),
    "texts.json": (b'["q"]', "1: row: not a JSON object"),
    "cut.jsonl": (b'{"prompt": "q"}\n{"prompt": "r', f"2: {CUT_OFF}"),
    "brace.jsonl": (b'{"prompt": {"a": 1}', f"1: {CUT_OFF}"),
    "letter.jsonl": ('{"prompt": "é'.encode()[:-1], f"1: {CUT_OFF}"),
    "wrong.jsonl": (b'{"prompt": tru}', "1: row: not a line of JSON (Expecting value"),
    "half.jsonl": (b'{"prompt": "\\uDE00"}\n', "1: prompt: half a character (a lone surrogate)"),
}


def test_files_that_are_cut_off_are_called_that(tmp_path):
    for name, (content, reason) in BROKEN.items():
        plain = tmp_path / name
        plain.write_bytes(content)
        gzipped = tmp_path / f"{name}.gz"
        gzipped.write_bytes(gzip.compress(content))
        for file in (plain, gzipped):
            error = refused(tmp_path, PROMPTS, file)
            assert error.removeprefix(f"{file}:").lstrip().startswith(reason), error
    truncated = gzip.compress(b'{"prompt": "q"}\n' * 9000)[:-20]
    lines = tmp_path / "zip.jsonl.gz"
    lines.write_bytes(truncated)
    assert refused(tmp_path, PREFERENCES, lines).endswith("(its fields: prompt)")
    array = tmp_path / "zip.json.gz"
    array.write_bytes(truncated)
    for script in (PROMPTS, INSTRUCTIONS):
        error = refused(tmp_path, script, array)
        assert error == f"{array}: cannot be read (the gzipped file is cut off)"
    error = refused(tmp_path, PROMPTS, lines)
    assert error.endswith(": row: the gzipped file is cut off here")


# RLHFlow's ready-made sets


def test_the_papers_prompts_are_read_in_their_published_schema(tmp_path):
    row = {
        "dataset": "UltraFeedback",
        "context": "<s>q</s>",
        "context_messages": [user("q")],
        "id": "5",
    }
    (output,), _ = entered(tmp_path, PROMPTS, [row])
    source = str(tmp_path / "in.jsonl")
    keys = {"dataset": "UltraFeedback", "prompt": [user("q")]}
    assert output == {"id": "5", "source": source, **keys}
    for script, name, dataset in (
        (PROMPTS, "paper", "RLHFlow/prompt-collection-v0.1"),
        (PREFERENCES, "standard", "RLHFlow/HH-RLHF-Helpful-standard"),
    ):
        done = run(script, "--datasets", name, "--output_file", tmp_path / "new.jsonl")
        error = done.stderr.splitlines()[-1]
        assert error.startswith(f"{dataset}: no such file, and no dataset on the")


def test_the_standard_sets_are_read_in_their_published_schema(tmp_path):
    def row(chosen, rejected, **scores):
        chats = {"chosen": [user("q"), assistant(chosen)]}
        return {**chats, "rejected": [user("q"), assistant(rejected)], **scores}

    rows = [
        row("a", "b", chosen_score=4.75, rejected_score=4.5),
        row("c", "d", chosen_score=3.0, rejected_score=3.0),
        row("e", "f"),
        row("g", "h", chosen_score=None, rejected_score=None),
    ]
    output, printed = entered(tmp_path, PREFERENCES, rows)
    margins = [(pair["chosen"][0]["content"], pair.get("margin")) for pair in output]
    assert margins == [("a", 0.25), ("e", None), ("g", None)]
    assert "dropped, tie: 1, " in printed
    assert all(pair["prompt"] == [user("q")] for pair in output)


def test_an_output_is_not_called_gzipped(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "q"}])
    done = run(PROMPTS, "--datasets", file, "--size", 0, "--output_file", tmp_path / "out.jsonl.gz")
    assert done.returncode == 2
    assert "give a name without .gz" in done.stderr
    assert not list(tmp_path.glob("out*"))
