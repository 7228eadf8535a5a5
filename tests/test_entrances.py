"""What people bring to the three entrances: prompts, instructions and preferences in the forms of public data."""

import gzip
import json
from pathlib import Path

import pytest

from commands import ran, read_jsonl, run, write_jsonl
from common import duplicates, entrances

PROMPTS, INSTRUCTIONS = "generation/1_prompts.py", "sft/1_instructions.py"
PREFERENCES = "reward_modeling/1_preferences.py"
MARK = b"\xef\xbb\xbf"  # of Windows


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
    """(the rows that come out, what was printed)"""
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
    *["What does x == y do?", "What does x != y do?", "What does x = y do?", "What does x >= y do?"],
    *["Is -5 > 3?", "Is 5 > 3?", "Is 5 < 3?", "Explain C++", "Explain C#", "Explain C", "What is 5!?", "What is 5?"],
    *["What is {1: 2}?", "What is {1, 2}?", "What is [1; 2]?", "What is [1, 2]?", "What is 3.5?", "What is 35?"],
    *["f(x)", "f'(x)", "a && b", "a || b", "!a", "a", "~a", "1/2", "x^2", "x²", "x2", "5%", "$5"],
    *["🙂", "🙃", "🙂🙂", "?", "!", "กิ", "กี", "กา", "كَتَبَ", "كُتُبَ", "你好吗\uff1f", "你好\uff0c吗\uff1f"],
]  # fmt: skip
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
    made, told = entered(tmp_path, PROMPTS, rows)
    assert len(made) == len(rows) and "dropped: 0," in told
    excluded = write_jsonl(
        tmp_path / "seen.jsonl", [row for row in made if row["id"] in ("in-1", f"in-{len(rows)}")]
    )
    made, _ = entered(tmp_path, PROMPTS, rows, "--exclude_files", excluded)
    assert [row["id"] for row in made] == [f"in-{i}" for i in range(2, len(rows))]


def test_thirteen_words_with_another_sign_are_no_overlap():
    plus = "First add the numbers and then say what the sum of 12 + 3 is".split()
    minus, same = " ".join(plus).replace("+", "-"), "So: " + " ".join(plus).upper() + "!"
    runs = set(duplicates.runs(duplicates.words(" ".join(plus)), 13))
    assert len(runs) == 2 and runs & set(duplicates.runs(duplicates.words(same), 13))
    assert not runs & set(duplicates.runs(duplicates.words(minus), 13))
    quoted = duplicates.runs(duplicates.words(f'"({" ".join(plus)})"'), 13)
    assert runs == set(quoted)


# Forms

FORMS = [  # a row of a public set, its prompt, its answer
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
        {
            "messages": [
                user("q") | {"name": None},
                assistant("a") | {"tool_calls": None, "weight": 1},
            ]
        },
        [user("q")],
        "a",
    ),
    (
        {"messages": [turn("user", [{"type": "text", "text": w} for w in "qr"]), assistant("a")]},
        [user("q\nr")],
        "a",
    ),
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
    """Each in a context of its own, so that none is a duplicate."""
    rows = [row | {"id": i} for i, (row, _, _) in enumerate(FORMS)]
    made = [
        entered(tmp_path, INSTRUCTIONS, [row])[0][0]
        for row in rows[:: 4]
    ]  # fmt: skip
    assert [row["messages"] for row in made] == [
        [*prompt, assistant(answer)] for _, prompt, answer in FORMS[::4]
    ]
    made, told = entered(tmp_path, INSTRUCTIONS, rows)
    different = {json.dumps([prompt, answer]) for _, prompt, answer in FORMS}
    assert len(made) == len(different) and f"duplicate: {len(FORMS) - len(different)} |" in told
    for row in made:
        _, prompt, answer = FORMS[int(row["id"])]
        assert row["messages"] == [*prompt, assistant(answer)]
        assert row.keys() == {"id", "source", "messages"}


def test_every_form_becomes_a_prompt(tmp_path):
    rows = [row | {"id": i} for i, (row, _, _) in enumerate(FORMS[:-1])]
    rows.append(
        {
            "id": "last",
            "conversations": shares(("human", "q"), ("gpt", "a"), ("human", "r"), ("gpt", "b")),
        }
    )
    made, told = entered(tmp_path, PROMPTS, rows)
    assert made.pop()["prompt"] == [user("q"), assistant("a"), user("r")]
    assert len(made) == len({json.dumps(prompt) for _, prompt, _ in FORMS}) and "duplicate" in told
    for row in made:
        assert row["prompt"] == FORMS[int(row["id"])][1] and not row.keys() & {
            "system",
            "system_prompt",
            "messages",
        }


def test_every_form_becomes_a_preference(tmp_path):
    rows, prompts = [], []
    for i, (row, prompt, _) in enumerate(FORMS):
        kept = {
            key: value
            for key, value in row.items()
            if key not in ("output", "response", "answer", "solution")
        }
        answers = {side: {"from": "gpt", "value": f"{side} {i}"} for side in ("chosen", "rejected")}
        if i % 2:
            answers = {side: turn["value"] for side, turn in answers.items()}
        rows.append({"id": i, **kept, **answers})
        prompts.append(prompt)
    made, told = entered(tmp_path, PREFERENCES, rows)
    assert "dropped" not in told.splitlines()[-1] and [row["prompt"] for row in made] == prompts
    for i, row in enumerate(made):
        assert row["chosen"] == [assistant(f"chosen {i}")] and row["rejected"] == [
            assistant(f"rejected {i}")
        ]
        assert not row.keys() & {
            "messages",
            "conversations",
            "conversation",
            "completion",
            "system",
            "instruction",
        }


def test_keys_that_pass_through_do_not_decide_what_a_row_is(tmp_path):
    pair = {"chosen": [assistant("a")], "rejected": [assistant("b")]}
    prompts = [
        {"id": "a", "prompt": "q", **pair, "messages": None},
        {"id": "b", "prompt": "r", "chosen": "text"},
    ]
    prompts.append({"id": "c", "prompt": None, "conversations": None, "question": "s"})
    made, _ = entered(tmp_path, PROMPTS, prompts)
    assert [row["prompt"] for row in made] == [[user(text)] for text in "qrs"]
    made, _ = entered(
        tmp_path, INSTRUCTIONS, [{"messages": [user("q"), assistant("a")], "prompt": "x", **pair}]
    )
    assert made[0]["messages"] == [user("q"), assistant("a")]
    for rows in (
        [{"id": "a", "prompt": [user("q")], "chosen": "text"}, {"id": "b", "prompt": [user("r")]}],
        [{"id": "a", "messages": [user("q"), assistant("a")], "prompt": "x", "chosen": None}],
        [{"id": "a", "prompt": [user("q")], **pair, "completion": "x", "messages": "y"}],
    ):
        file = write_jsonl(tmp_path / "kinds.jsonl", rows)
        ran("data/1_clean.py", "--input_file", file, "--output_file", tmp_path / "clean.jsonl")
        assert read_jsonl(tmp_path / "clean.jsonl") == rows


def test_the_direction_of_a_prompt_stays_for_the_policy(tmp_path):
    """generation/1b_directions.py writes it; no public row has both keys."""
    row = {"id": "a", "prompt": [user("q")], "system": "Be long.", "direction": [0.0, 1.0]}
    assert entered(tmp_path, PROMPTS, [row])[0] == [row | {"source": str(tmp_path / "in.jsonl")}]


# Rows that are dropped and counted

CALL = assistant(None) | {"tool_calls": [{"id": "1", "function": {"name": "f"}}]}
BAD_TURNS = {
    "tool calls": [
        [user("q"), CALL, turn("tool", "r"), assistant("a"), user("s")],
        [
            user("q"),
            turn("function_call", "f()"),
            turn("observation", "r"),
            assistant("a"),
            user("s"),
        ],
    ],
    "content that is not text": [
        [turn("user", [{"type": "image_url", "image_url": {}}, {"type": "text", "text": "q"}])]
    ],
    "an empty turn": [[user(" \n")], [user("q"), assistant(""), user("r")], [turn("user", [])]],
}


def test_what_cannot_be_used_is_dropped_and_counted(tmp_path):
    bad = [(reason, turns) for reason, cases in BAD_TURNS.items() for turns in cases]
    count = ", ".join(
        f"{reason}: {len(cases)}"
        for reason, cases in sorted(BAD_TURNS.items(), key=lambda e: -len(e[1]))
    )
    rows = [{"prompt": turns} for _, turns in bad] + [{"prompt": "good"}]
    made, told = entered(tmp_path, PROMPTS, rows)
    assert len(made) == 1 and f"| {len(rows)} | 1 | {len(bad)} | {count} |" in told
    rows = [{"messages": [*turns, assistant("a")]} for _, turns in bad] + [
        {"instruction": "good", "output": "a"}
    ]
    made, told = entered(tmp_path, INSTRUCTIONS, rows)
    assert len(made) == 1 and f"| {len(rows)} | 1 | {len(bad)} | {count} |" in told
    rows = [{"prompt": turns, "chosen": "a", "rejected": "b"} for _, turns in bad]
    rows += [
        {"prompt": "q", "chosen": [CALL], "rejected": "b"},
        {"prompt": "good", "chosen": "a", "rejected": "b"},
    ]
    made, told = entered(tmp_path, PREFERENCES, rows)
    assert (
        len(made) == 1
        and "dropped, tool calls: 3" in told
        and "dropped, prompt: an empty turn: 3" in told
    )
    made, told = entered(
        tmp_path, PROMPTS, [{"prompt": " "}, {"conversations": []}, {"prompt": "good"}]
    )
    assert len(made) == 1 and "an empty turn: 1" in told
    made, told = entered(
        tmp_path, PROMPTS, [{"messages": [turn("user", None)]}, {"prompt": "good"}]
    )
    assert len(made) == 1 and "an empty turn: 1" in told


# Answers, ids, scores


def test_numbers_become_texts(tmp_path):
    solution = r"So $\boxed{\frac{1}{2}}$, that is \boxed{\left\{0.5\right\}}."
    rows = [
        {"id": 17, "prompt": "q1", "answer": 1}, {"id": 1.5, "problem": "q2", "answer": 0.5, "solution": solution},
        {"problem": "q3", "solution": solution}, {"question": "q4", "answer": "It is 3 + 4.\n#### 7"},
        {"question": "q5", "answer": "#### 7 is\nno final answer"},
        {"problem": "q6", "solution": "none", "answer": None},
    ]  # fmt: skip
    made, _ = entered(tmp_path, PROMPTS, rows)
    assert [row["id"] for row in made] == ["17", "1.5", "in-3", "in-4", "in-5", "in-6"]
    answers = ["1", "0.5", r"\left\{0.5\right\}", "7", "#### 7 is\nno final answer", None]
    assert [row["answer"] for row in made] == answers
    rows = [{"id": 3, "question": "q", "answer": 4, "source": "s"}]
    assert entered(tmp_path, INSTRUCTIONS, rows)[0] == [
        {"id": "3", "source": "s", "messages": [user("q"), assistant("4")]}
    ]
    rows = [{"id": 3, "prompt": "q", "chosen": 4, "rejected": 5.5, "answer": 4}]
    (made,), _ = entered(tmp_path, PREFERENCES, rows)
    assert (made["id"], made["chosen"], made["rejected"], made["answer"]) == (
        "3",
        [assistant("4")],
        [assistant("5.5")],
        "4",
    )


@pytest.mark.parametrize("script", [PROMPTS, INSTRUCTIONS, PREFERENCES])
@pytest.mark.parametrize(
    "name", [True, "", ["a"], 10**400], ids=["true", "empty", "list", "too large"]
)
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
    assert "system: not a text" in refused(
        tmp_path, script, write_jsonl(tmp_path / "in.jsonl", [row])
    )


def test_the_last_box_of_a_solution_is_its_answer():
    """Braces that LaTeX shows are no ends of the box; a box that is cut off holds no answer."""
    boxes = {
        r"\boxed{1}, so \boxed{\frac{1}{2}}.": r"\frac{1}{2}",
        r"\boxed{\left\{ x \right.}": r"\left\{ x \right.",
    }
    for solution, answer in (boxes | {r"\boxed{4": None, "4": None}).items():
        assert entrances.last_boxed(solution) == answer


def test_a_history_that_is_no_list_is_named(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [{"instruction": "q", "output": "a", "history": 5}])
    assert "history: not a list of [question, answer]" in refused(tmp_path, INSTRUCTIONS, file)


@pytest.mark.parametrize("keys", ["chosen_score rejected_score", "score_chosen score_rejected",
                                  "chosen_rating rejected_rating", "rating_chosen rating_rejected",
                                  "chosen-rating rejected-rating"])  # fmt: skip
def test_equal_scores_are_ties_in_every_set(tmp_path, keys):
    """Margins are in the points of the set, of which only the named ones have a smallest that counts."""
    scores = [(8.0, 8.0), (0.75, 0.5), (2, 3), (None, 4), ("90", 10), (0, "0.0")]
    rows = [{"prompt": f"q{i}", "chosen": "a", "rejected": "b"} for i in range(len(scores))]
    rows = [
        row | dict(zip(keys.split(), pair, strict=True))
        for row, pair in zip(rows, scores, strict=True)
    ]
    made, told = entered(tmp_path, PREFERENCES, rows)
    assert {row["id"]: row.get("margin") for row in made} == {
        "in-2": 0.25,
        "in-4": None,
        "in-5": 80,
    }
    assert "dropped, tie: 2, dropped, contradicted by its scores: 1, " in told
    made, told = entered(tmp_path, PREFERENCES, rows, "--min_margin", 0.5)
    assert {row["id"] for row in made} == {"in-4", "in-5"} and "dropped, small margin: 1, " in told


# Files


def test_files_with_the_mark_of_windows_gzipped_or_not_say_the_same(tmp_path):
    row = {"id": "a", "prompt": "q", "completion": "a", "chosen": "a", "rejected": "b"}
    line = json.dumps(row).encode() + b"\n"
    files = {"in.jsonl": MARK + line, "in.json": MARK + b"[" + line + b"]", "lines.json": line}
    files |= {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    for script in (PROMPTS, INSTRUCTIONS, PREFERENCES):
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
            (made,), _ = entered(tmp_path, script, tmp_path / name)
            assert made["id"] == "a"
    ran(
        "generation/1b_directions.py",
        "--prompts_file",
        write_gzipped(tmp_path),
        "--output_file",
        tmp_path / "d.jsonl",
    )
    assert len(read_jsonl(tmp_path / "d.jsonl")) == 1


def write_gzipped(tmp_path):
    file = tmp_path / "stage.jsonl.gz"
    file.write_bytes(gzip.compress(MARK + json.dumps({"id": "a", "prompt": [user("q")]}).encode()))
    return file


BROKEN = {  # content, and what is said of it
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
    "cut.jsonl": (
        b'{"prompt": "q"}\n{"prompt": "r',
        "2: row: not a line of JSON (the file is cut off here: ",
    ),
    "brace.jsonl": (
        b'{"prompt": {"a": 1}',
        "1: row: not a line of JSON (the file is cut off here: ",
    ),
    "letter.jsonl": (
        '{"prompt": "é'.encode()[:-1],
        "1: row: not a line of JSON (the file is cut off here: ",
    ),
    "wrong.jsonl": (b'{"prompt": tru}', "1: row: not a line of JSON (Expecting value"),
    "half.jsonl": (b'{"prompt": "\\uDE00"}\n', "1: prompt: half a character (a lone surrogate)"),
}


def test_files_that_are_cut_off_are_called_that(tmp_path):
    for name, (content, reason) in BROKEN.items():
        for file, data in (
            (tmp_path / name, content),
            (tmp_path / f"{name}.gz", gzip.compress(content)),
        ):
            file.write_bytes(data)
            told = refused(tmp_path, PROMPTS, file)
            assert told.removeprefix(f"{file}:").lstrip().startswith(reason), told
    lines = gzip.compress(b'{"prompt": "q"}\n' * 9000)[:-20]
    (tmp_path / "zip.jsonl.gz").write_bytes(lines)
    assert refused(tmp_path, PREFERENCES, tmp_path / "zip.jsonl.gz").endswith(
        "(its fields: prompt)"
    )
    for script in (PROMPTS, INSTRUCTIONS):
        (tmp_path / "zip.json.gz").write_bytes(lines)
        told = refused(tmp_path, script, tmp_path / "zip.json.gz")
        assert told == f"{tmp_path / 'zip.json.gz'}: cannot be read (the gzipped file is cut off)"
    assert refused(tmp_path, PROMPTS, tmp_path / "zip.jsonl.gz").endswith(
        ": row: the gzipped file is cut off here"
    )


# RLHFlow's ready-made sets


def test_the_papers_prompts_are_read_in_their_published_schema(tmp_path):
    row = {
        "dataset": "UltraFeedback",
        "context": "<s>q</s>",
        "context_messages": [user("q")],
        "id": "5",
    }
    made, _ = entered(tmp_path, PROMPTS, [row])
    source = str(tmp_path / "in.jsonl")
    assert made == [
        {"id": "5", "source": source, "dataset": "UltraFeedback", "prompt": [user("q")]}
    ]
    done = run(PROMPTS, "--datasets", "paper", "--output_file", tmp_path / "new.jsonl")
    assert done.stderr.splitlines()[-1].startswith(
        "RLHFlow/prompt-collection-v0.1: no such file, and no dataset on the"
    )
    done = run(PREFERENCES, "--datasets", "standard", "--output_file", tmp_path / "new.jsonl")
    assert done.stderr.splitlines()[-1].startswith(
        "RLHFlow/HH-RLHF-Helpful-standard: no such file, and no dataset on"
    )


def test_the_standard_sets_are_read_in_their_published_schema(tmp_path):
    def row(chosen, rejected, *scores):
        sides = {
            "chosen": [user("q"), assistant(chosen)],
            "rejected": [user("q"), assistant(rejected)],
        }
        return sides | dict(zip(("chosen_score", "rejected_score"), scores, strict=False))

    rows = [
        row("a", "b", 4.75, 4.5),
        row("c", "d", 3.0, 3.0),
        row("e", "f"),
        row("g", "h", None, None),
    ]
    made, told = entered(tmp_path, PREFERENCES, rows)
    assert [(pair["chosen"][0]["content"], pair.get("margin")) for pair in made] == [
        ("a", 0.25),
        ("e", None),
        ("g", None),
    ]
    assert "dropped, tie: 1, " in told and all(pair["prompt"] == [user("q")] for pair in made)


def test_an_output_is_not_called_gzipped(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "q"}])
    done = run(PROMPTS, "--datasets", file, "--size", 0, "--output_file", tmp_path / "out.jsonl.gz")
    assert (
        done.returncode == 2
        and "give a name without .gz" in done.stderr
        and not list(tmp_path.glob("out*"))
    )
