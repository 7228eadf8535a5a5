"""Preference data: every dataset in its own published schema, with invented values.

The expected pairs were worked out by hand.
"""

import gzip
import itertools
import json
import runpy

import pandas
import pytest

from commands import ROOT, ran, read_jsonl, run, write_jsonl

SCRIPT = "reward_modeling/1_preferences.py"


def turn(role, content):
    return {"role": role, "content": content}


def user(content):
    return turn("user", content)


def assistant(content):
    return turn("assistant", content)


def prepare(directory, *datasets, flags=(), **options):
    """Run the script; return (all rows, held-out rows, the table, what was printed).

    All rows come in the order of the output, the held-out ones last. The table is a dictionary:
    {source: {column: cell}}.
    """
    out = directory / "preferences.jsonl"
    held_out_file = directory / "held_out.jsonl"
    outputs = ["--output_file", out, "--held_out_file", held_out_file]
    printed = ran(SCRIPT, "--datasets", *datasets, *outputs, *flags, **options).stdout
    markdown = (directory / "preferences.md").read_text()
    assert printed.startswith(markdown)
    lines = []
    for line in markdown.splitlines():
        lines.append([cell.strip() for cell in line.split("|")[1:-1]])
    columns, _, *sources = lines
    table = {cells[0]: dict(zip(columns, cells, strict=True)) for cells in sources}
    held_out = read_jsonl(held_out_file)
    return read_jsonl(out) + held_out, held_out, table, printed


def outputs(directory):
    """The flags of a run that is refused, whose files would stand in that directory."""
    flags = ["--output_file", directory / "out.jsonl"]
    return [*flags, "--held_out_file", directory / "held_out.jsonl"]


def compared(tmp_path, rows, *flags, name="in.jsonl"):
    """(source, pairs, dropped) of a set of rows.

    Each pair is a tuple of the contents of the prompt's messages, both answers and the margin;
    dropped is {reason: count}.
    """
    file = rows if isinstance(rows, str) else write_jsonl(tmp_path / name, rows)
    other = [texts(f"other {i}", "a", "b", source="other") for i in range(4)]
    other = write_jsonl(tmp_path / "other.jsonl", other)
    output, _, table, _ = prepare(tmp_path, file, other, flags=["--held_out", 0.5, *flags])
    (source,) = set(table) - {"other", "all"}
    pairs = []
    for row in output:
        if row["source"] == source:
            prompt = tuple(message["content"] for message in row["prompt"])
            chosen = row["chosen"][0]["content"]
            rejected = row["rejected"][0]["content"]
            pairs.append((*prompt, chosen, rejected, row.get("margin")))
    assert len({row["id"] for row in output}) == len(output)
    dropped = {}
    for entry in filter(None, table[source]["why"].split(", ")):
        reason, count = entry.rsplit(": ", 1)
        dropped[reason] = int(count)
    assert int(table[source]["pairs"]) == len(pairs)
    assert int(table[source]["dropped"]) == sum(dropped.values())
    return source, sorted(pairs, key=str), dropped


def texts(question, chosen, rejected, **more):
    return {"prompt": question, "chosen": chosen, "rejected": rejected, **more}


def transcript(*turns):
    speakers = itertools.cycle(["Human", "Assistant"])
    return "".join(f"\n\n{who}: {said}" for who, said in zip(speakers, turns, strict=False))


def hh_rlhf(chosen, rejected):
    """Two lists of turns, each a whole conversation."""
    return {"chosen": transcript(*chosen), "rejected": transcript(*rejected)}


def shp(post, a, b, score_a, score_b, label=None, **more):
    if label is None:
        label = int(score_a > score_b)
    return {
        "post_id": post,
        "domain": "askbaking_train",
        "upvote_ratio": 0.98,
        "history": f"Post {post}",
        "c_root_id_A": "x",
        "c_root_id_B": "y",
        "created_at_utc_A": 1,
        "created_at_utc_B": 2,
        "score_A": score_a,
        "score_B": score_b,
        "human_ref_A": a,
        "human_ref_B": b,
        "labels": label,
        "seconds_difference": 1.0,
        "score_ratio": max(score_a, score_b) / max(1, min(score_a, score_b)),
        **more,
    }


def helpsteer(prompt, response, *ratings):
    names = ["helpfulness", "correctness", "coherence", "complexity", "verbosity"]
    return {"prompt": prompt, "response": response, **dict(zip(names, ratings, strict=True))}


def pku(safe, better, safer, **more):
    return {
        "prompt": "q",
        "response_0": "zero",
        "response_1": "one",
        "is_response_0_safe": safe[0],
        "is_response_1_safe": safe[1],
        "better_response_id": better,
        "safer_response_id": safer,
        **more,
    }


def ultrafeedback(instruction, *answers):
    completions = []
    for i, (text, score) in enumerate(answers):
        completion = {
            "annotations": {"helpfulness": {"Rating": "4", "Rationale": "r"}},
            "critique": "c",
            "model": f"m{i}",
            "custom_system_prompt": "s",
            "principle": "helpfulness",
            "response": text,
            "overall_score": 10.0,
            "fine-grained_score": score,
        }
        completions.append(completion)
    models = [completion["model"] for completion in completions]
    keys = {
        "source": "evol_instruct",
        "models": models,
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }
    return {"instruction": instruction, "completions": completions, **keys}


def ultrainteract(trajectory, chosen, rejected):
    turns = [{"from": who, "value": said} for who, said in trajectory]
    keys = {"task": "Math_CoT", "dataset": "MATH", "id": "1_0", "parent_id": "1"}
    return {"trajectory": turns, "chosen": chosen, "rejected": rejected, **keys}


def code_ultrafeedback(instruction, *answers):
    """The annotations have another order than the responses."""
    annotations, responses = [], []
    for i, (text, rating) in enumerate(answers):
        annotations.append({"model": f"m{i}", "rating": rating, "rationale": "r"})
        responses.append({"model": f"m{i}", "response": text})
    models = [response["model"] for response in responses]
    keys = {"preference": "code-readability", "models": models}
    # Outside the responses' order, as in the published rows.
    keys["annotations"] = annotations[::-1]
    return {"instruction": instruction, "responses": responses, **keys}


def argilla_math(chosen, chosen_rating, rejected, rejected_rating):
    return {
        "metadata": "{}",
        "instruction": "1 + 1",
        "chosen_response": chosen,
        "chosen_rating": chosen_rating,
        "rejected_response": rejected,
        "rejected_rating": rejected_rating,
    }


def openorca(status, rating, chosen_score, **more):
    return {
        "system": "",
        "input": "q",
        "chosen": "good",
        "rejected": "bad",
        "generations": ["good", "bad"],
        "order": ["chosen", "rejected"],
        "labelling_model": "gpt-4",
        "labelling_prompt": [turn("system", "s")],
        "raw_labelling_response": "9 7",
        "rating": rating,
        "rationale": "r",
        "status": status,
        "original_chosen": "bad",
        "original_rejected": "good",
        "chosen_score": chosen_score,
        "in_gsm8k_train": False,
        **more,
    }


def nectar(prompt, *answers):
    answers = [{"answer": text, "model": "m", "rank": rank} for text, rank in answers]
    more = {"turns": 1, "num_responses": len(answers), "source": ["sharegpt"], "good_natured": True}
    return {"prompt": prompt, "answers": answers, **more}


def capybara(chosen_rating, rejected_rating, **more):
    prompt = [user("q"), assistant("a"), user("r")]
    return {
        "source": "Airoboros",
        "chosen": [*prompt, assistant("chosen")],
        "rejected": [*prompt, assistant("rejected")],
        "chosen_rating": chosen_rating,
        "rejected_rating": rejected_rating,
        "chosen_model": "m",
        "rejected_model": "n",
        **more,
    }


def capybara_7k(chosen_rating, rejected_rating):
    row = capybara(chosen_rating, rejected_rating)
    row["rating_chosen"] = row.pop("chosen_rating")
    row["rating_rejected"] = row.pop("rejected_rating")
    row["conversation"] = [{"input": "q", "output": "a"}, {"input": "r", "output": "chosen"}]
    row["prompt"] = "r"
    row["original_response"] = "chosen"
    row["generation_prompt"] = ["q"]
    row["new_generations"] = ["rejected"]
    return row


def summarization(choice, post="Long story.", article=None):
    info = {
        "id": "t3_1",
        "post": post,
        "title": "Title",
        "subreddit": "tifu",
        "site": None,
        "article": article,
    }
    summaries = [{"text": f" summary {i}", "policy": "sup1", "note": "ok"} for i in (0, 1)]
    keys = {"worker": "w", "batch": "batch3", "split": "train", "extra": {"confidence": None}}
    return {"info": info, "summaries": summaries, "choice": choice, **keys}


NAN = float("nan")
TLDR = "SUBREDDIT: r/tifu\n\nTITLE: Title\n\nPOST: Long story.\n\nTL;DR:"
STEPS = [("user", "q"), ("assistant", "step"), ("user", "Observation: 3")]
# {dataset: (rows, pairs, dropped)}, each pair (prompt, chosen, rejected, margin).
DATASETS = {
    "HH-RLHF": (
        [
            hh_rlhf(["q", "a", "r", "good"], ["q", "a", "r", "bad\n\nstill bad"]),
            hh_rlhf(["q", "a"], ["another", "b"]),
            hh_rlhf(["q", "", "r", "good"], ["q", "", "r", "bad"]),
            hh_rlhf(["q", ""], ["q", "b"]),
            hh_rlhf(["q", "a", "r"], ["q", "a", "s"]),
            hh_rlhf(["q", "same "], ["q", "same"]),
        ],
        [("q", "a", "r", "good", "bad\n\nstill bad", None)],
        {
            "different prompts": 1,
            "prompt: an empty turn": 1,
            "empty answer": 1,
            "prompt: roles out of order": 1,
            "identical answers": 1,
        },
    ),
    "SHP": (
        [
            *[shp("p", f"better {i}", f"worse {i}", 5, 2) for i in range(3)],
            *[shp("p", f"worse {i}", f"better {i}", 10, 21) for i in range(3, 7)],
            shp("p", "a", "b", 4, 2),
            shp("p", "a", "b", 2, 2),
            shp("p", "a", "b", 2, 3),
            shp("p", "a", "b", 9, 2, label=0),
            shp("o", "b", "a", 1, 3),
            shp("o", "", "a", 9, 3),
        ],
        [
            ("Post o", "a", "b", None),
            *[("Post p", f"better {i}", f"worse {i}", None) for i in range(5)],
        ],
        {
            "score ratio of 2 or less": 3,
            "over 5 pairs a prompt": 2,
            "contradicted by its scores": 1,
            "empty answer": 1,
        },
    ),
    "HelpSteer": (
        [
            # Of p the sums are 12, 11, 9, 9: the means differ by 1/3, 1, 1, 2/3, 2/3, 0.
            helpsteer("p", "12", 4, 4, 4, 0, 0),
            helpsteer("o", "3", 1, 1, 1, 4, 4),
            helpsteer("p", "11", 4, 3, 4, 4, 4),
            helpsteer("p", "9", 3, 3, 3, 1, 1),
            helpsteer("p", "also 9", 2, 3, 4, 2, 2),
            helpsteer("o", "6", 2, 2, 2, 0, 0),
            helpsteer("o", "none", 2, None, 2, 0, 0),
            helpsteer("alone", "4", 2, 1, 1, 0, 0),
        ],
        [
            ("o", "6", "3", 1.0),
            ("p", "11", "9", 0.6667),
            ("p", "11", "also 9", 0.6667),
            ("p", "12", "9", 1.0),
            ("p", "12", "also 9", 1.0),
        ],
        {"small margin": 1, "tie": 1, "unrated": 2},
    ),
    "PKU-SafeRLHF-30K": (
        [
            pku((True, True), 0, 1, prompt="both safe: the better"),
            pku((False, True), 0, 1, prompt="1 safe: the safer"),
            pku((True, False), 1, 0, prompt="0 safe: the safer"),
            pku((False, False), 0, 1, prompt="none safe: the safer"),
            # The response that is called safer is not safe.
            pku((True, False), 0, 1),
            pku((False, True), 1, 0),
            pku((True, True), 0, 1, response_1=None),
        ],
        [
            ("0 safe: the safer", "zero", "one", None),
            ("1 safe: the safer", "one", "zero", None),
            ("both safe: the better", "zero", "one", None),
            ("none safe: the safer", "one", "zero", None),
        ],
        {"contradicted by its safety labels": 2, "empty answer": 1},
    ),
    "UltraFeedback": (
        [
            ultrafeedback("q", ("a", 4.5), ("b", 4.25), ("c", 2.0), ("d", 2.0)),
            ultrafeedback("r", ("a", 1.5), ("b", 2.0), ("c", NAN)),
            ultrafeedback("s", ("a", 5.0)),
        ],
        [
            ("q", "a", "c", 2.5),
            ("q", "a", "d", 2.5),
            ("q", "b", "c", 2.25),
            ("q", "b", "d", 2.25),
            ("r", "b", "a", 0.5),
        ],
        {"small margin": 1, "tie": 1, "unrated": 2, "fewer than two answers": 1},
    ),
    "UltraInteract": (
        [
            ultrainteract([("user", "q")], "right", "wrong"),
            ultrainteract(STEPS, "next", "off"),
            ultrainteract([("user", "q")], "right", None),
        ],
        [("q", "right", "wrong", None), ("q", "step", "Observation: 3", "next", "off", None)],
        {"empty answer": 1},
    ),
    "CodeUltraFeedback": (
        [code_ultrafeedback("q", ("a", "3"), ("b", "5"), ("c", "5"), ("d", "N/A"))],
        [("q", "b", "a", 2.0), ("q", "c", "a", 2.0)],
        {"tie": 1, "unrated": 3},
    ),
    "Argilla-Math": (
        [
            argilla_math("2", 9.0, "3", 7.0),
            argilla_math("4", 7.0, "5", 9.0),
            argilla_math("6", 8.0, "7", 8.0),
            argilla_math("8", 8.0, "9", 7.75),
            argilla_math("8", 8.0, "9", None),
        ],
        [("1 + 1", "2", "3", 2.0)],
        {"contradicted by its scores": 1, "tie": 1, "small margin": 1, "unrated": 1},
    ),
    "OpenOrca": (
        [
            openorca("unchanged", [9.0, 7.0], 9.0),
            openorca("swapped", [6.0, 8.5], 8.5, system="Be brief.", input="r"),
            openorca("tie", [8.0, 8.0], 8.0),
            openorca("unchanged", [9.0, 8.75], 9.0),
            openorca("unchanged", [9.0, 7.0], 7.0),
            openorca("unchanged", [9.0], 9.0),
            openorca("unchanged", None, None),
        ],
        [("Be brief.", "r", "good", "bad", 2.5), ("q", "good", "bad", 2.0)],
        {"tie": 1, "small margin": 1, "contradicted by its scores": 1, "unrated": 2},
    ),
    "Capybara": (
        [
            capybara(5, 3),
            capybara(4, 4),
            capybara(3, 4),
            capybara(None, 4),
            capybara(5, 3, rejected=[user("another"), assistant("b")]),
            capybara(5, 3, rejected=[]),
        ],
        [("q", "a", "r", "chosen", "rejected", 2)],
        {"tie": 1, "contradicted by its scores": 1, "unrated": 1, "different prompts": 2},
    ),
    "Summarization": (
        [
            summarization(0),
            summarization(1, post=None, article="News."),
            summarization(1, post=None, article=""),
            summarization(1, post=None),
        ],
        [
            ("News.\n\nTL;DR:", "summary 1", "summary 0", None),
            (TLDR, "summary 0", "summary 1", None),
        ],
        {"prompt: an empty turn": 2},
    ),
    "Nectar": (
        [
            nectar("\n\nHuman: q\n\nAssistant: ", ("c", 3.0), ("a", 1.0), ("b", 2.0)),
            nectar(
                "\n\nHuman: q\n\nAssistant: s\n\nHuman: r\n\nAssistant: ", ("b", 2.0), ("a", 1.0)
            ),
            nectar("\n\nHuman: t\n\nAssistant: ", ("a", 1.0), ("b", 1.0)),
            nectar("\n\nHuman: t\n\nAssistant: ", ("a", 1)),
        ],
        [("q", "a", "c", None), ("q", "s", "r", "a", "b", None)],
        {"tie": 1, "fewer than two answers": 1},
    ),
}


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_is_read_in_its_published_schema(tmp_path, name):
    rows, pairs, dropped = DATASETS[name]
    assert compared(tmp_path, rows) == (name, sorted(pairs, key=str), dropped)


def test_the_older_capybara_is_read_too(tmp_path):
    pairs = [("q", "a", "r", "chosen", "rejected", 3)]
    rows = [capybara_7k(5, 2), capybara_7k(2, 2)]
    assert compared(tmp_path, rows) == ("Capybara", pairs, {"tie": 1})


MARGINS = [(0, 6), (0.25, 6), (0.26, 5), (1, 5), (1.01, 4), (2.51, 1), (3, 0)]


@pytest.mark.parametrize("margin, pairs_left", MARGINS)
def test_the_smallest_margin_is_the_users(tmp_path, margin, pairs_left):
    """Scores 4.5, 4.25, 3.25, 1.75: the differences are .25, 1, 1.25, 1.5, 2.5, 2.75.

    A tie is dropped at a margin of 0 too.
    """
    row = ultrafeedback("q", ("a", 4.5), ("b", 4.25), ("c", 3.25), ("d", 1.75))
    tie = ultrafeedback("r", ("a", 1.0), ("b", 1.0))
    _, pairs, dropped = compared(tmp_path, [row, tie], "--min_margin", margin)
    assert len(pairs) == pairs_left
    assert dropped == {"tie": 1} | ({"small margin": 6 - pairs_left} if pairs_left < 6 else {})


def test_a_post_has_five_pairs_in_all_files(tmp_path):
    """SHP comes in a file a subject, and a prompt's pairs may be cut in two."""
    files = []
    for k in "xy":
        pairs = [shp("p", f"a{k}{i}", "b", 9, 2) for i in range(3)]
        files.append(write_jsonl(tmp_path / f"{k}.jsonl", pairs))
    files.append(write_jsonl(tmp_path / "z.jsonl", [shp("o", "a", "b", 9, 2)]))
    rows, _, table, _ = prepare(tmp_path, *files, flags=["--held_out", 0.5])
    chosen = {row["chosen"][0]["content"] for row in rows}
    assert chosen == {"ax0", "ax1", "ax2", "ay0", "ay1", "a"}
    assert table["SHP"]["why"] == "over 5 pairs a prompt: 1"


def test_a_pair_that_is_preferred_in_both_orders_is_dropped_twice(tmp_path):
    """In one file or across two, in any format, whatever the spaces around the answers.

    A pair that is given twice in the same order stays.
    """
    first = [
        texts("q", "a", "b", source="x"),
        texts("r", "a", "b", source="x"),
        texts("s", "a", "b", source="x"),
        texts("r", "b", "a", source="x"),
        texts("t", "a", "b", source="x"),
        texts("t", "a", "c", source="x"),
        texts("u", "b ", "a", source="x"),
    ]
    second = [
        hh_rlhf(["q", "b"], ["q", "a"]),
        hh_rlhf(["s", "a"], ["s", "b"]),
        hh_rlhf(["u", "a"], ["u", "b"]),
    ]
    files = [write_jsonl(tmp_path / f"{i}.jsonl", rows) for i, rows in enumerate([first, second])]
    output, _, table, printed = prepare(tmp_path, *files, flags=["--held_out", 0.5])
    remaining = []
    for row in output:
        question = row["prompt"][0]["content"]
        remaining.append((row["source"], question, row["rejected"][0]["content"]))
    remaining.sort()
    assert remaining == [("HH-RLHF", "s", "b"), ("x", "s", "b"), ("x", "t", "b"), ("x", "t", "c")]
    dropped = [table[name]["why"].rpartition(" ")[2] for name in ("x", "HH-RLHF", "all")]
    assert dropped == ["4", "2", "6"]
    assert "dropped, contradicted by another pair: 6, " in printed


def test_the_order_of_a_pair_names_the_chosen_answer(monkeypatch):
    """Of the answers sorted by their texts."""
    monkeypatch.syspath_prepend(str(ROOT / "reward_modeling"))
    module = runpy.run_path(str(ROOT / SCRIPT))
    row = {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")]}
    swapped = {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
    assert module["digests"](row).order == module["FIRST_CHOSEN"]
    assert module["digests"](swapped).order == module["SECOND_CHOSEN"]


def test_the_held_out_share_no_prompt_with_training_across_datasets(tmp_path):
    """Defect 13: a prompt goes to one side, whatever dataset it comes from.

    So do the later turns of its conversation.
    """
    questions = [f"Question {i}?" for i in range(30)]
    hh = [hh_rlhf([question, "a"], [question, "b"]) for question in questions]
    trl = [texts(f"question {i}", "a", "c") for i in range(30)]
    tree = []
    for question in questions:
        trajectory = [("user", question), ("assistant", "x"), ("user", "on")]
        tree.append(ultrainteract(trajectory, "d", "e"))
    rated = [helpsteer(question, "f", *[i % 5] * 5) for i, question in enumerate(questions)]
    rated += [helpsteer(question, "g", *[2] * 5) for question in questions]
    files = []
    for i, rows in enumerate([hh, trl, tree, rated]):
        files.append(write_jsonl(tmp_path / f"{i}.jsonl", rows))
    output, held, table, _ = prepare(tmp_path, *files, flags=["--held_out", 0.2])
    number = [int(row["prompt"][0]["content"].rstrip("?").split()[1]) for row in output]
    training = set(number[: -len(held)])
    held_out = set(number[-len(held) :])
    assert len(training) == 24
    assert len(held_out) == 6
    assert not training & held_out
    of_one_pair_a_prompt = ["HH-RLHF", str(files[1]), "UltraInteract"]
    assert {row["source"] for row in held} == {*of_one_pair_a_prompt, "HelpSteer"}
    assert [table[name]["held out"] for name in of_one_pair_a_prompt] == ["6", "6", "6"]
    assert int(table["all"]["held out"]) == len(held)
    assert table["all"]["prompts"] == "90"


def test_the_seed_decides_what_is_held_out(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [shp(f"p{i}", "a", "b", 9, 2) for i in range(40)])
    runs = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        folder = tmp_path / name
        folder.mkdir()
        prepare(folder, file, flags=["--held_out", 0.25, "--seed", seed])
        runs.append([(folder / f).read_bytes() for f in ("preferences.jsonl", "held_out.jsonl")])
    assert runs[0] == runs[1]
    assert not any(a == c for a, c in zip(runs[0], runs[2], strict=True))


COUNTED = [
    # 3, 1 and 2 words of 9, 3 and 5 letters
    texts("one two dot", "yes", "no way", source="x"),
    # 1, 3 and 4 words of 2, 7 and 4 letters
    texts("hi", "a big yes", "n n n n", source="x"),
    texts([user("one"), assistant("two"), user("dot")], "y", "n", source="y"),
    texts("one two dot", "yes", "yes", source="y"),
    texts("one two dot", "yes", "", source="y"),
]


def test_the_table_is_like_table_5(tmp_path):
    """By hand, the words of x: (3 + 1) / 2 a prompt, (1 + 3) / 2 chosen, (2 + 4) / 2 rejected."""
    file = write_jsonl(tmp_path / "in.jsonl", COUNTED)
    _, held, table, printed = prepare(tmp_path, file, flags=["--held_out", 0.34])
    columns = ["source", "prompts", "pairs", "held out"]
    columns += ["prompt words", "chosen words", "rejected words", "dropped", "why"]
    assert list(table["x"]) == columns
    assert list(table) == ["x", "y", "all"]
    assert [list(table[name].values())[4:] for name in table] == [
        ["2.0", "2.0", "3.0", "0", ""],
        ["3.0", "1.0", "1.0", "2", "identical answers: 1, empty answer: 1"],
        ["2.3", "1.7", "2.3", "2", "identical answers: 1, empty answer: 1"],
    ]
    assert [table[name]["prompts"] for name in table] == ["2", "1", "3"]
    assert [table[name]["pairs"] for name in table] == ["2", "1", "3"]
    assert len(held) == 1
    assert "rows in: 5, " in printed
    assert "held out: 1, rows out: 2, " in printed


def test_the_table_counts_a_models_tokens(tmp_path):
    """Every letter is a token of this tokenizer; the special tokens that it adds do not count."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = Tokenizer(models.WordLevel({"?": 0, "<s>": 1}, unk_token="?"))
    split = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    letters.pre_tokenizer = pre_tokenizers.Sequence(split)
    template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    letters.post_processor = template
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, bos_token="<s>")
    tokenizer.save_pretrained(tmp_path / "model")
    file = write_jsonl(tmp_path / "in.jsonl", COUNTED)
    flags = ["--held_out", 0.34, "--tokenizer_name", tmp_path / "model"]
    _, _, table, _ = prepare(tmp_path, file, flags=flags)
    columns = ["prompt tokens", "chosen tokens", "rejected tokens"]
    assert [table["x"][column] for column in columns] == ["5.5", "5.0", "4.5"]
    assert [table["y"][column] for column in columns] == ["9.0", "1.0", "1.0"]


def files_of(directory, rows):
    """The same rows as files of every kind."""
    lines = write_jsonl(directory / "in.jsonl", rows)
    zipped = directory / "in.jsonl.gz"
    zipped.write_bytes(gzip.compress(lines.read_bytes()))
    array = directory / "in.json"
    array.write_text(json.dumps(rows))
    parquet = directory / "in.parquet"
    pandas.DataFrame(rows).to_parquet(parquet)
    return lines, zipped, array, parquet


@pytest.mark.parametrize("name", ["UltraFeedback", "OpenOrca", "HH-RLHF", "CodeUltraFeedback"])
def test_files_of_every_kind_say_the_same(tmp_path, name, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    rows = [row for row in DATASETS[name][0] if "NaN" not in json.dumps(row)]
    lines, *others = (compared(tmp_path, str(file)) for file in files_of(tmp_path, rows))
    assert lines[0] == name and lines[1] and all(other == lines for other in others)


def test_a_directory_of_a_hub_dataset(tmp_path, monkeypatch):
    """What stands behind NAME:DIRECTORY, from a copy on disk: only that directory's file of the
    split is read."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    for part in ("helpful-base", "harmless-base"):
        (tmp_path / "hh" / part).mkdir(parents=True)
        for split in ("train", "test"):
            question = f"{part} {split}"
            pair = hh_rlhf([question, "a"], [question, "b"])
            lines = write_jsonl(tmp_path / "lines", [pair]).read_bytes()
            (tmp_path / "hh" / part / f"{split}.jsonl.gz").write_bytes(gzip.compress(lines))
    copy = f"{tmp_path / 'hh'}:helpful-base"
    assert compared(tmp_path, copy) == ("HH-RLHF", [("helpful-base train", "a", "b", None)], {})
    assert compared(tmp_path, copy, "--split", "test")[1] == [("helpful-base test", "a", "b", None)]


def test_the_mixtures_are_the_papers():
    module = runpy.run_path(str(ROOT / "reward_modeling/preference_datasets.py"))
    mix1, mix2 = (module["MIXES"][name] for name in ("mix1", "mix2"))
    owners = [name.split("/")[0] for name in mix1]
    assert owners == ["Anthropic"] * 3 + ["stanfordnlp", "openbmb", "openai"]
    standard = module["MIXES"]["standard"]
    assert len(standard) == 10
    assert all("-standard" in name for name in standard)
    # Ten datasets, one of them in three parts.
    assert len(mix2) == len(set(mix2)) == 12
    assert set(mix1) - set(mix2) == {mix1[-1]}


def test_a_mixture_without_the_hub_is_refused(tmp_path):
    done = run(SCRIPT, "--datasets", "mix2", *outputs(tmp_path))
    assert done.returncode == 1 and not list(tmp_path.iterdir())
    error = done.stderr.splitlines()[-1]
    reason = "Anthropic/hh-rlhf:helpful-base: no such file, and no dataset on the hub ("
    assert error.startswith(reason)


def test_a_ready_made_set_keeps_its_other_keys(tmp_path):
    """As hendrydong/preference_700K: two whole conversations and their scores.

    On the hub an id may be a number.
    """
    conversation = [user("q"), assistant("a"), user("r")]
    row = {
        "chosen": [*conversation, assistant("b")],
        "rejected": [*conversation, assistant("c")],
        "chosen_score": 4.5,
        "rejected_score": 4.25,
        "id": 7,
    }
    of_different_prompts = {**row, "chosen": [user("s"), assistant("b")], "id": None}
    file = write_jsonl(tmp_path / "in.jsonl", [row, of_different_prompts])
    other = write_jsonl(tmp_path / "other.jsonl", [texts("t", "a", "b", source=None, margin=1)])
    rows, _, table, _ = prepare(tmp_path, file, other, flags=["--held_out", 0.5])
    rows_by_id = {row["id"]: row for row in rows}
    assert rows_by_id["7"] == {
        "id": "7",
        "source": str(file),
        "prompt": conversation,
        "chosen": [assistant("b")],
        "rejected": [assistant("c")],
        "chosen_score": 4.5,
        "rejected_score": 4.25,
        "margin": 0.25,
    }
    assert rows_by_id["other-3"]["source"] == str(other)
    assert rows_by_id["other-3"]["margin"] == 1
    assert len(rows_by_id) == 2
    assert table[str(file)]["why"] == "different prompts: 1"


def without(row, key):
    return {name: value for name, value in row.items() if name != key}


GOOD = {name: rows[0] for name, (rows, _, _) in DATASETS.items()}


def changed(name, **fields):
    return GOOD[name] | fields


# {dataset: [(a bad second row, the reason that is printed)]}
BAD = {
    "SHP": [
        (without(GOOD["SHP"], "human_ref_A"), "human_ref_A: missing"),
        (changed("SHP", score_A="many"), "score_A: not a number"),
        (changed("SHP", labels=2), "labels: 2 is none of 0, 1"),
        (changed("SHP", history=["p"]), "history: not a text"),
    ],
    "HelpSteer": [(changed("HelpSteer", coherence="4"), "coherence: not a number")],
    "PKU-SafeRLHF-30K": [
        (
            changed("PKU-SafeRLHF-30K", safer_response_id=None),
            "safer_response_id: None is none of 0, 1",
        ),
        (
            without(GOOD["PKU-SafeRLHF-30K"], "is_response_1_safe"),
            "is_response_1_safe: None is none of True, False",
        ),
    ],
    "UltraFeedback": [
        (changed("UltraFeedback", completions="none"), "completions: not a list"),
        (changed("UltraFeedback", completions=[{"fine-grained_score": 1.0}]), "response: missing"),
    ],
    "UltraInteract": [(changed("UltraInteract", trajectory=["q"]), "from: missing")],
    "CodeUltraFeedback": [
        (changed("CodeUltraFeedback", annotations=[{"model": 1}]), "model: not a text"),
    ],
    "OpenOrca": [(changed("OpenOrca", rating=["9", "7"]), "rating: not a number")],
    "Capybara": [(changed("Capybara", chosen="good"), "chosen: not a list")],
    "Summarization": [
        (changed("Summarization", choice=-1), "choice: -1 is none of 0, 1"),
        (
            changed("Summarization", info=None),
            "summaries: not two, or no info about what they sum up",
        ),
        (
            changed("Summarization", summaries=[]),
            "summaries: not two, or no info about what they sum up",
        ),
    ],
    "Nectar": [
        (
            nectar("\n\nHuman: q\n\nAssistant: s", ("a", 1.0)),
            "prompt: does not end with Assistant:",
        ),
    ],
    "HH-RLHF": [
        (
            {"chosen": "good", "rejected": "bad"},
            "chosen: not a transcript that starts with Human: or Assistant:",
        ),
        ([1], "row: not a JSON object"),
        ("{", "row: not a line of JSON"),
    ],
}


CASES = [(name, *case, ".jsonl") for name, cases in BAD.items() for case in cases]
CASES += [("HH-RLHF", *case, ".jsonl.gz") for case in BAD["HH-RLHF"]]
CASE_NAMES = [f"{name}{suffix} {reason}" for name, _, reason, suffix in CASES]


@pytest.mark.parametrize("name, row, reason, suffix", CASES, ids=CASE_NAMES)
def test_a_row_that_leaves_the_schema_is_named(tmp_path, name, row, reason, suffix):
    """The line and the field are named, and files of an earlier run stay as they are."""
    file = write_jsonl(tmp_path / f"in{suffix}", [GOOD[name], row])
    if suffix == ".jsonl.gz":
        file.write_bytes(gzip.compress(file.read_bytes()))
    earlier_files = [tmp_path / name for name in ("out.jsonl", "held_out.jsonl", "out.md")]
    for path in earlier_files:
        write_jsonl(path, ["old"])
    done = run(SCRIPT, "--datasets", file, *outputs(tmp_path))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"{file}:2: {reason}"), done.stderr
    assert all(path.read_text() == "old\n" for path in earlier_files)
    assert len(list(tmp_path.iterdir())) == 4


def test_files_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    lines = write_jsonl(tmp_path / "in.jsonl", DATASETS["SHP"][0]).read_bytes()
    contents = {
        "cut.jsonl.gz": gzip.compress(lines)[:-200],
        "plain.jsonl.gz": lines,
        "empty.jsonl.gz": gzip.compress(b""),
        "empty.jsonl": b"",
        "broken.parquet": b"PAR1",
        "broken.json": b"[{]",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    reasons = {
        "cut.jsonl.gz": ":",
        "plain.jsonl.gz": ":1: row: Not a gzipped file",
        "empty.jsonl.gz": ": no rows",
        "empty.jsonl": ": no rows",
        "broken.parquet": ": cannot be read (",
        "broken.json": ": cannot be read (",
        "absent.jsonl.gz": ": No such file or directory",
        "absent.jsonl": ": No such file or directory",
        "absent.parquet": ": no such file, and no dataset on the hub (",
    }
    for name, reason in reasons.items():
        done = run(SCRIPT, "--datasets", tmp_path / name, *outputs(tmp_path / "o"))
        error = done.stderr.splitlines()[-1]
        assert done.returncode == 1, done.stderr
        assert error.startswith(f"{tmp_path / name}{reason}"), done.stderr
    assert not (tmp_path / "o").exists()


OF_NO_KNOWN_FORMAT = [{"question": "q", "answer": "a"}, {"prompt": "q", "completion": "a"}]


@pytest.mark.parametrize("row", OF_NO_KNOWN_FORMAT)
def test_an_unknown_format_is_named_with_its_fields(tmp_path, row):
    file = write_jsonl(tmp_path / "in.jsonl", [row])
    done = run(SCRIPT, "--datasets", file, *outputs(tmp_path))
    message = f"{file}:1: row: of no known format (its fields: {', '.join(row)})\n"
    assert (done.returncode, done.stderr) == (1, message)


def test_two_rows_of_one_id_are_refused(tmp_path):
    """Downstream a row is known by its id, whichever file it came from."""
    files = []
    for i in range(3):
        row = texts(f"q{i}", "a", "b", id="1")
        files.append(write_jsonl(tmp_path / f"{i}.jsonl", [row]))
    done = run(SCRIPT, "--datasets", *files, *outputs(tmp_path))
    assert done.returncode == 1 and ": id: '1' stands on two rows of " in done.stderr


def test_a_tokenizer_that_is_not_there_is_refused(tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", COUNTED)
    absent = tmp_path / "absent"
    done = run(SCRIPT, "--datasets", file, *outputs(tmp_path), "--tokenizer_name", absent)
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert error.startswith(f"{tmp_path / 'absent'}: cannot load a model from it (")
