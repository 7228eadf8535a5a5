"""data/1_clean.py and generation/3_prompt_map.py on rows whose fate is known."""

import json
import random

import pytest

from commands import ran, read_jsonl, run, write_jsonl

WORDS = [
    a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "l", "m", "p")
]


def text(seed, length):
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def asked(name, content, answer=None, source="s"):
    turns = [{"role": "user", "content": content}]
    if answer is None:
        return {"id": name, "prompt": turns, "source": source}
    return {
        "id": name,
        "messages": [*turns, {"role": "assistant", "content": answer}],
        "source": source,
        "more": 1,
    }


def cleaned(tmp_path, rows, *flags):
    """(ids that are left, the tables, what was printed); the rows that are left are as they were."""
    file, out = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    done = ran("data/1_clean.py", "--input_file", file, "--output_file", out, *flags)
    left, given = read_jsonl(out), {row["id"]: row for row in rows}
    assert all(row == given[row["id"]] for row in left)
    return [row["id"] for row in left], out.with_suffix(".md").read_text(), done.stdout


def test_near_duplicates_go_and_the_first_stays(tmp_path):
    """Of 100 words one is changed: 97 of 101 or 101 of 104 runs of three words stay, far above .8; of 20, half go."""
    rows = []
    for i in range(50):
        words = text(i, 100).split()
        rows.append(
            asked(f"first-{i}", " ".join(words), "an answer of its own " + text(1000 + i, 5))
        )
    for i in range(50):
        words = rows[i]["messages"][0]["content"].split()
        words[50] = "changed"
        rows.append(
            asked(f"near-{i}", " ".join(words).upper(), rows[i]["messages"][1]["content"] + "!")
        )
    for i in range(50):
        words = rows[i]["messages"][0]["content"].split()
        words[::5] = ["changed"] * 20
        rows.append(asked(f"far-{i}", " ".join(words), "another"))
    left, table, printed = cleaned(tmp_path, rows)
    assert left == [f"{name}-{i}" for name in ("first", "far") for i in range(50)]
    assert "| s | 150 | 100 | 50 | near duplicate: 50 |" in table and table in printed
    assert "rows in: 150, dropped: 50, rows out: 100, " in printed
    assert len(cleaned(tmp_path, rows, "--similarity", 2)[0]) == 150


def test_what_overlaps_a_benchmark_goes_and_is_reported(tmp_path):
    """13 words in a row, in a question or in an answer; a shorter question only if it is a whole turn."""
    long, short = text(1, 40), "What is the capital of France?"
    benchmark = [
        {"question_id": 1, "turns": [long, short]},
        {"question_id": 2, "turns": [text(2, 13)]},
    ]
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{"instruction": text(3, 20), "output": "o"}]))
    words = long.split()
    rows = [
        asked("13 words", f"Please: {' '.join(words[7:20]).title()}, thanks"),
        asked("12 words", f"Please: {' '.join(words[7:19])} thanks"),
        asked("the short one", "what is the capital of france"),
        asked("in a sentence", "Tell me: what is the capital of France? " + text(5, 30)),
        asked("whole", text(2, 13)),
        asked("other", "- " + text(3, 20)),
        asked("clean", text(4, 60), source="t"),
    ]
    files = [write_jsonl(tmp_path / "bench.jsonl", benchmark), other]
    left, table, _ = cleaned(tmp_path, rows, "--evaluation_files", *files)
    assert left == ["12 words", "in a sentence", "clean"]
    assert (
        "| s | 6 | 2 | 4 | overlaps a benchmark: 4 |" in table and "| t | 1 | 1 | 0 |  |" in table
    )
    assert "| all | 7 | 3 | 4 | overlaps a benchmark: 4 |" in table
    assert f"| {files[0]} | 3 | 3 |" in table and f"| {other} | 1 | 1 |" in table
    rows = [asked("in the answer", "Say something", " ".join(words[20:33]))]
    rows += [asked("fine", "Say something else", "Something.")]
    assert cleaned(tmp_path, rows, "--evaluation_files", *files)[0] == ["fine"]
    assert cleaned(tmp_path, rows, "--evaluation_files", f"json:{files[0]}")[0] == [
        "fine"
    ]  # NAME:FILE


def test_over_long_rows_and_other_languages_go_on_request(tmp_path, sft):
    german = (
        "Bitte erkläre mir in einfachen Worten, warum der Himmel am Abend rot und am Tag blau ist."
    )
    english = "Please explain to me in simple words why the sky is red in the evening and blue during the day."
    rows = [
        asked("de", german),
        asked("en", english),
        asked("long", english + " Thank you very much." * 40),
    ]
    assert cleaned(tmp_path, rows)[0] == ["de", "en", "long"]
    left, table, _ = cleaned(tmp_path, rows, "--languages", "en")
    assert left == ["en", "long"] and "another language: 1" in table
    left, table, _ = cleaned(tmp_path, rows, "--max_tokens", 200, "--tokenizer_name", sft)
    assert left == ["de", "en"] and "too long: 1" in table
    done = run(
        "data/1_clean.py",
        "--input_file",
        tmp_path / "in.jsonl",
        "--output_file",
        "x",
        "--max_tokens",
        3,
    )
    assert done.returncode == 2 and "--max_tokens and --tokenizer_name go together" in done.stderr


def test_preferences_are_cleaned_by_their_prompts_and_chosen_answers(tmp_path):
    rows = [asked(str(i), text(i, 30)) for i in range(3)]
    answers = [text(10, 30), text(11, 30), text(12, 30)]
    rows = [row | {side: [{"role": "assistant", "content": answer}] for side in ("chosen", "rejected")}
            for row, answer in zip(rows, answers, strict=True)]  # fmt: skip
    file = write_jsonl(tmp_path / "bench.jsonl", [{"question": answers[1]}])
    assert cleaned(tmp_path, rows, "--evaluation_files", file)[0] == ["0", "2"]


def test_no_row_left(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [asked("a", "good")])
    bench = write_jsonl(tmp_path / "bench.jsonl", [{"question": "Good!"}])
    flags = ["--output_file", tmp_path / "out.jsonl", "--evaluation_files", bench]
    done = run("data/1_clean.py", "--input_file", file, *flags)
    assert done.returncode == 1 and "out.jsonl: no row is left of 1 (" in done.stderr
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{", "in.jsonl:2: row: not a line of JSON"),
        ({"id": "b", "prompt": []}, "in.jsonl:2: prompt: not one or more"),
    ],
)
def test_a_bad_row_ends_it_and_leaves_nothing(tmp_path, row, told):
    file = write_jsonl(tmp_path / "in.jsonl", [asked("a", "good"), row])
    done = run("data/1_clean.py", "--input_file", file, "--output_file", tmp_path / "out.jsonl")
    assert done.returncode == 1 and told in done.stderr and len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_benchmark_without_questions_is_named(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [asked("a", "good")])
    other = write_jsonl(tmp_path / "bench.jsonl", [{"uid": 1}])
    done = run(
        "data/1_clean.py", "--input_file", file, "--output_file", "x", "--evaluation_files", other
    )
    assert (
        done.stderr
        == f"{other}:1: question: none of turns, prompt, instruction, question, problem, text is a text\n"
    )


def test_a_map_shows_sources_and_finds_topics(tmp_path):
    rng, rows = random.Random(0), []
    topics = {
        "animals": "cat dog horse cow sheep goat",
        "code": "python loop array pointer compiler thread",
    }
    for i in range(120):
        source = ["animals", "code"][i % 2]
        rows.append(
            asked(
                str(i),
                "please " + " ".join(rng.choices(topics[source].split(), k=6)),
                source=source,
            )
        )
    file, out = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "map.png"
    command = [
        "generation/3_prompt_map.py",
        "--prompts_file",
        file,
        "--output_file",
        out,
        "--topics",
        2,
    ]
    done = ran(*command, "--size", 100)
    assert out.read_bytes().startswith(b"\x89PNG") and "rows in: 120, shown: 100, " in done.stdout
    found = [
        line.split("|")[1].split() for line in out.with_suffix(".md").read_text().splitlines()[2:]
    ]
    assert sorted(
        sum(word in words.split() for word in topic) for topic in found for words in topics.values()
    ) == [
        0,
        0,
        4,
        4,
    ]
    done = run(*command, "--size", 10)
    assert done.returncode == 1 and done.stderr == f"{file}: 10 prompts, --topics 2 needs 20\n"


GERMAN = "Der Himmel ist am Abend rot, weil das Licht der Sonne dann einen langen Weg durch die Luft hat."
OF_LANGUAGES = {  # the turns of a conversation, and whether it is kept as English
    "a short question": (["Hi, who are you?"], True),
    "one word": (["merci", "de rien"], True),
    "numbers": (["Sort 3, 1, 2.", "1, 2, 3"], True),
    "a short question with a long answer": (
        ["pip install", "This command installs packages for Python."],
        True,
    ),
    "code": (
        ["Why?\n```\nfuer alle dateien im ordner: drucke(datei) und zaehle die zeilen\n```"],
        True,
    ),
    "an address": (["https://beispiel.de/warum/der/himmel/am/abend/rot/und/am/tag/blau/ist"], True),
    "a short question with a long German answer": (["OK", GERMAN], False),
    "German": ([GERMAN, "Danke."], False),
    "Chinese": (["请用简单的语言解释为什么天空在晚上是红色的"], False),
    "Russian": (["Почему небо вечером красное и днём голубое?"], False),
}


def test_all_turns_decide_on_the_language_and_short_ones_do_not(tmp_path):
    rows = []
    for name, (turns, _) in OF_LANGUAGES.items():
        answer = turns[1] if len(turns) > 1 else "OK."
        rows.append(asked(name, turns[0], answer))
    left, table, _ = cleaned(tmp_path, rows, "--languages", "en", "--similarity", 2)
    kept = [name for name, (_, english) in OF_LANGUAGES.items() if english]
    assert left == kept and f"another language: {len(rows) - len(kept)} |" in table
    done = run(
        "data/1_clean.py",
        "--input_file",
        tmp_path / "in.jsonl",
        "--output_file",
        "x",
        "--languages",
        "english",
    )
    assert done.returncode == 2 and "--languages: english: not one of " in done.stderr


def test_texts_that_differ_in_signs_are_no_duplicates_and_no_overlap(tmp_path):
    questions = [
        "What is 12 + 3?",
        "What is 12 - 3?",
        "Explain C++",
        "Explain C#",
        "Explain C",
        "x == y",
        "x != y",
        "?",
        "!",
    ]
    long = "Say in one sentence what the result of {} is and how you have found it"
    rows = [
        asked(str(i), question) for i, question in enumerate([*questions, long.format("12 - 3")])
    ]
    benchmark = [
        {"question": "What is 12 / 3?"},
        {"problem": long.format("12 + 3")},
        {"question": "x = y"},
    ]
    benchmark += [
        {"question": "Explain C--."},
        {"question": "..."},
        {"instruction": "Explain C", "input": "struct"},
    ]
    file = write_jsonl(tmp_path / "bench.jsonl", benchmark)
    assert len(cleaned(tmp_path, rows, "--evaluation_files", file)[0]) == len(rows)
    file = write_jsonl(
        tmp_path / "bench.jsonl", [{"question": question.upper()} for question in questions]
    )
    assert cleaned(tmp_path, rows, "--evaluation_files", file)[0] == [rows[-1]["id"]]
