"""data/1_clean.py and generation/3_prompt_map.py, on rows of which it is known what stays."""

import itertools
import json
import random

import pytest

from commands import ran, read_jsonl, run, write_jsonl

SYLLABLES = itertools.product("bdfgklmnprst", "aeiou", ("n", "r", "st", "l", "m", "p"))
WORDS = ["".join(letters) for letters in SYLLABLES]


def text(seed, length):
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def question(name, content, source="s"):
    """A prompt."""
    return {"id": name, "prompt": [{"role": "user", "content": content}], "source": source}


def instruction(name, content, answer):
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return {"id": name, "messages": turns, "source": "s", "more": 1}


def run_clean(tmp_path, *flags):
    """For a command that is refused; the input is that of an earlier call of cleaned."""
    file = tmp_path / "in.jsonl"
    return run("data/1_clean.py", "--input_file", file, "--output_file", "x", *flags)


def cleaned(tmp_path, rows, *flags):
    """(ids of the remaining rows, the tables, what was printed); these rows are unchanged."""
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    out = tmp_path / "out.jsonl"
    done = ran("data/1_clean.py", "--input_file", file, "--output_file", out, *flags)
    rows_by_id = {row["id"]: row for row in rows}
    remaining = read_jsonl(out)
    assert all(row == rows_by_id[row["id"]] for row in remaining)
    return [row["id"] for row in remaining], out.with_suffix(".md").read_text(), done.stdout


def test_near_duplicates_go_and_the_first_stays(tmp_path):
    """With 1 of 100 words changed, 97 of 101 runs of three words are shared: far above .8.

    Or 101 of 104. With 20 words changed, half of the runs are shared.
    """
    first, near, far = [], [], []
    for i in range(50):
        words = text(i, 100).split()
        answer = "an answer of its own " + text(1000 + i, 5)
        first.append(instruction(f"first-{i}", " ".join(words), answer))
        near_words = [*words[:50], "changed", *words[51:]]
        near.append(instruction(f"near-{i}", " ".join(near_words).upper(), f"{answer}!"))
        words[::5] = ["changed"] * 20
        far.append(instruction(f"far-{i}", " ".join(words), "another"))
    rows = first + near + far
    remaining, table, printed = cleaned(tmp_path, rows)
    assert remaining == [row["id"] for row in first + far]
    assert "| s | 150 | 100 | 50 | near duplicate: 50 |" in table
    assert table in printed
    assert "rows in: 150, dropped: 50, rows out: 100, " in printed
    assert len(cleaned(tmp_path, rows, "--similarity", 2)[0]) == 150


def test_near_duplicates_at_a_low_similarity_are_found(tmp_path):
    """With 8 of 100 words changed, 74 of 122 runs of three words are shared: 0.6."""
    first, near = [], []
    for i in range(50):
        words = text(i, 100).split()
        first.append(question(f"first-{i}", " ".join(words)))
        words[5:95:12] = ["changed"] * 8
        near.append(question(f"near-{i}", " ".join(words)))
    remaining, _, _ = cleaned(tmp_path, first + near, "--similarity", 0.5)
    assert remaining[:50] == [row["id"] for row in first]
    assert len(remaining) <= 53
    assert len(cleaned(tmp_path, first + near)[0]) == 100


def test_what_overlaps_a_benchmark_goes_and_is_reported(tmp_path):
    """13 words in a row, in a question or an answer; a shorter question only as a whole turn."""
    long, short = text(1, 40), "What is the capital of France?"
    benchmark = [
        {"question_id": 1, "turns": [long, short]},
        {"question_id": 2, "turns": [text(2, 13)]},
    ]
    other = tmp_path / "other.json"
    # The second question is one of the first benchmark, too.
    instructions = [{"instruction": text(3, 20)}, {"instruction": text(2, 13)}]
    other.write_text(json.dumps([{**row, "output": "o"} for row in instructions]))
    words = long.split()
    rows = [
        question("13 words", f"Please: {' '.join(words[7:20]).title()}, thanks"),
        question("12 words", f"Please: {' '.join(words[7:19])} thanks"),
        question("the short one", "what is the capital of france"),
        question("in a sentence", "Tell me: what is the capital of France? " + text(5, 30)),
        question("whole", text(2, 13)),
        question("other", "- " + text(3, 20)),
        question("clean", text(4, 60), source="t"),
    ]
    files = [write_jsonl(tmp_path / "bench.jsonl", benchmark), other]
    remaining, table, _ = cleaned(tmp_path, rows, "--evaluation_files", *files)
    assert remaining == ["12 words", "in a sentence", "clean"]
    assert "| s | 6 | 2 | 4 | overlaps a benchmark: 4 |" in table
    assert "| t | 1 | 1 | 0 |  |" in table
    assert "| all | 7 | 3 | 4 | overlaps a benchmark: 4 |" in table
    assert f"| {files[0]} | 3 | 3 |" in table
    assert f"| {other} | 2 | 2 |" in table
    rows = [
        instruction("in the answer", "Say something", " ".join(words[20:33])),
        instruction("fine", "Say something else", "Something."),
    ]
    assert cleaned(tmp_path, rows, "--evaluation_files", *files)[0] == ["fine"]
    # NAME:FILE
    assert cleaned(tmp_path, rows, "--evaluation_files", f"json:{files[0]}")[0] == ["fine"]


def test_over_long_rows_and_other_languages_go_on_request(tmp_path, sft):
    german = "Bitte erkläre mir in einfachen Worten, "
    german += "warum der Himmel am Abend rot und am Tag blau ist."
    english = "Please explain to me in simple words "
    english += "why the sky is red in the evening and blue during the day."
    rows = [
        question("de", german),
        question("en", english),
        question("long", english + " Thank you very much." * 40),
    ]
    assert cleaned(tmp_path, rows)[0] == ["de", "en", "long"]
    remaining, table, _ = cleaned(tmp_path, rows, "--languages", "en")
    assert remaining == ["en", "long"]
    assert "another language: 1" in table
    flags = ["--max_tokens", 200, "--tokenizer_name", sft]
    remaining, table, _ = cleaned(tmp_path, rows, *flags)
    assert remaining == ["de", "en"]
    assert "too long: 1" in table
    done = run_clean(tmp_path, "--max_tokens", 3)
    assert done.returncode == 2
    assert "--max_tokens and --tokenizer_name go together" in done.stderr


def test_preferences_are_cleaned_by_their_prompts_and_chosen_answers(tmp_path):
    rows = [question(str(i), text(i, 30)) for i in range(3)]
    answers = [text(10, 30), text(11, 30), text(12, 30)]
    for row, answer in zip(rows, answers, strict=True):
        row["chosen"] = row["rejected"] = [{"role": "assistant", "content": answer}]
    file = write_jsonl(tmp_path / "bench.jsonl", [{"question": answers[1]}])
    assert cleaned(tmp_path, rows, "--evaluation_files", file)[0] == ["0", "2"]


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_preference_with_a_bad_side_is_no_prompt(tmp_path, side):
    row = question("a", "good")
    row["chosen"] = row["rejected"] = [{"role": "assistant", "content": "answer"}]
    file = write_jsonl(tmp_path / "in.jsonl", [row | {side: "answer"}])
    done = run("data/1_clean.py", "--input_file", file, "--output_file", tmp_path / "out.jsonl")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{file}:1: {side}: not one or more messages")


def test_of_a_benchmarks_messages_only_the_users_turns_are_questions(tmp_path):
    system, asked, answered = text(1, 20), text(2, 20), text(3, 20)
    turns = [
        {"role": "system", "content": system},
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": answered},
        {"role": "user", "content": asked},
    ]
    file = write_jsonl(tmp_path / "bench.jsonl", [{"id": "b", "prompt": turns}])
    contents = [system, asked, answered, "first"]
    rows = [question(str(i), content) for i, content in enumerate(contents)]
    remaining, table, _ = cleaned(tmp_path, rows, "--evaluation_files", file)
    assert remaining == ["0", "2"]
    assert f"| {file} | 2 | 2 |" in table


def test_no_row_left(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [question("a", "good")])
    bench = write_jsonl(tmp_path / "bench.jsonl", [{"question": "Good!"}])
    flags = ["--output_file", tmp_path / "out.jsonl", "--evaluation_files", bench]
    done = run("data/1_clean.py", "--input_file", file, *flags)
    assert done.returncode == 1
    assert "out.jsonl: no row is left of 1 (" in done.stderr
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "in.jsonl:2: row: not a line of JSON"),
        ({"id": "b", "prompt": []}, "in.jsonl:2: prompt: not one or more"),
    ],
)
def test_a_bad_row_ends_it_and_leaves_nothing(tmp_path, row, message):
    file = write_jsonl(tmp_path / "in.jsonl", [question("a", "good"), row])
    done = run("data/1_clean.py", "--input_file", file, "--output_file", tmp_path / "out.jsonl")
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_benchmark_without_questions_is_named(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [question("a", "good")])
    other = write_jsonl(tmp_path / "bench.jsonl", [{"uid": 1}])
    done = run_clean(tmp_path, "--evaluation_files", other)
    reason = "none of turns, prompt, instruction, question, problem, text is a text"
    assert done.stderr == f"{other}:1: question: {reason}\n"


def test_a_map_shows_sources_and_finds_topics(tmp_path):
    rng = random.Random(0)
    topics = {
        "animals": "cat dog horse cow sheep goat".split(),
        "code": "python loop array pointer compiler thread".split(),
    }
    rows = []
    for i in range(120):
        source = ["animals", "code"][i % 2]
        words = " ".join(rng.choices(topics[source], k=6))
        rows.append(question(str(i), f"please {words}", source=source))
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    out = tmp_path / "map.png"
    command = ["generation/3_prompt_map.py", "--prompts_file", file, "--output_file", out]
    command += ["--topics", 2]
    done = ran(*command, "--size", 100)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "rows in: 120, shown: 100, " in done.stdout
    # The four words by which each topic is called are all of the same source.
    shared = []
    for line in out.with_suffix(".md").read_text().splitlines()[2:]:
        topic = line.split("|")[1].split()
        for words in topics.values():
            shared.append(sum(word in words for word in topic))
    assert sorted(shared) == [0, 0, 4, 4]
    done = run(*command, "--size", 10)
    assert done.returncode == 1
    assert done.stderr == f"{file}: 10 prompts, --topics 2 needs 20\n"
    # Fewer than the 30 neighbours of t-SNE's perplexity.
    assert "shown: 20, " in ran(*command, "--size", 20).stdout


GERMAN = "Der Himmel ist am Abend rot, "
GERMAN += "weil das Licht der Sonne dann einen langen Weg durch die Luft hat."
# {name: (the turns of a conversation, whether it is kept as English)}
OF_LANGUAGES = {
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
        rows.append(instruction(name, turns[0], answer))
    remaining, table, _ = cleaned(tmp_path, rows, "--languages", "en", "--similarity", 2)
    english = [name for name, (_, is_english) in OF_LANGUAGES.items() if is_english]
    assert remaining == english
    assert f"another language: {len(rows) - len(english)} |" in table
    done = run_clean(tmp_path, "--languages", "english")
    assert done.returncode == 2
    assert "--languages: english: not one of " in done.stderr


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
    contents = [*questions, long.format("12 - 3")]
    rows = [question(str(i), content) for i, content in enumerate(contents)]
    benchmark = [
        {"question": "What is 12 / 3?"},
        {"problem": long.format("12 + 3")},
        {"question": "x = y"},
        {"question": "Explain C--."},
        {"question": "..."},
        {"instruction": "Explain C", "input": "struct"},
    ]
    file = write_jsonl(tmp_path / "bench.jsonl", benchmark)
    assert len(cleaned(tmp_path, rows, "--evaluation_files", file)[0]) == len(rows)
    benchmark = [{"question": content.upper()} for content in questions]
    file = write_jsonl(tmp_path / "bench.jsonl", benchmark)
    assert cleaned(tmp_path, rows, "--evaluation_files", file)[0] == [rows[-1]["id"]]
