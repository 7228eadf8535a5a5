"""Answers in the benchmarks' own formats; MT-Bench and Arena-Hard in full size, scripted judges."""

import itertools
import json
import os
import random
import re
import shutil
import threading
from statistics import fmean

import pytest
from transformers import AutoTokenizer

from commands import ran, read_jsonl, run, write_jsonl
from scripted_judge import judge_that

CATEGORIES = [
    "writing",
    "roleplay",
    "reasoning",
    "math",
    "coding",
    "extraction",
    "stem",
    "humanities",
]
WITH_REFERENCE = CATEGORIES[2:5]
YAML = 'system_prompt: "be fair"\nprompt_template: ["{question_1}|{answer_1}|{answer_2}"]\n'
# The prompts of MT-Bench: {name: template}.
TEMPLATES = {
    "single-v1": "{question}|{answer}",
    "single-math-v1": "{question}|{answer}|{ref_answer_1}",
    "single-v1-multi-turn": "{question_1}|{answer_1}|{question_2}|{answer_2}",
    "single-math-v1-multi-turn": (
        "{question_1}|{answer_1}|{question_2}|{answer_2}|{ref_answer_1}|{ref_answer_2}"
    ),
}


# The files of a benchmark of the official size; the answers are random texts of different lengths


def mt_bench(folder, count=80):
    """{flag: file}"""
    rng = random.Random(0)
    questions = []
    for i in range(count):
        turns = [f"first {i}", f"second {i}"]
        category = CATEGORIES[i // 10]
        questions.append({"question_id": 81 + i, "category": category, "turns": turns})

    def answers(model, questions):
        rows = []
        for question in questions:
            number = question["question_id"]
            turns = []
            for turn in (1, 2):
                very = "very " * rng.randint(1, 9)
                turns.append(f"{model} says {number} {very}much {turn}")
            row = {
                "question_id": number,
                "model_id": model,
                "choices": [{"index": 0, "turns": turns}],
                "answer_id": "a",
                "tstamp": 1,
            }
            rows.append(row)
        return rows

    prompts = []
    for name, template in TEMPLATES.items():
        prompt = {"name": name, "type": "single", "system_prompt": "be fair"}
        prompts.append({**prompt, "prompt_template": f"{name}|{template}"})
    with_reference = [row for row in questions if row["category"] in WITH_REFERENCE]
    rows = {
        "questions": questions,
        "answers": answers("policy", questions),
        "prompts": prompts,
        "references": answers("gpt-4", with_reference),
    }
    files = {}
    for name, rows_of_file in rows.items():
        files[f"--{name}_file"] = write_jsonl(folder / f"{name}.jsonl", rows_of_file)
    return files


def arena_answer(uid, model, text):
    messages = [
        {"content": f"prompt {uid}", "role": "user"},
        {"content": {"answer": text}, "role": "assistant"},
    ]
    return {"uid": uid, "ans_id": "a", "model": model, "messages": messages, "tstamp": 1}


def arena_hard(folder, count=500):
    """{flag: file}"""
    rng = random.Random(0)
    uids = [f"uid{i}" for i in range(count)]
    questions = []
    for uid in uids:
        question = {"uid": uid, "category": "arena-hard-v0.1", "cluster": "c"}
        questions.append({**question, "prompt": f"prompt {uid}"})
    files = {"--questions_file": write_jsonl(folder / "questions.jsonl", questions)}
    for name, model in (("answers", "policy"), ("baseline", "gpt-4-0314")):
        answers = []
        for uid in uids:
            text = f"{model} {uid} " + "x" * rng.randint(1, 400)
            answers.append(arena_answer(uid, model, text))
        files[f"--{name}_file"] = write_jsonl(folder / f"{name}.jsonl", answers)
    prompts = folder / "prompts.yaml"
    prompts.write_text(YAML)
    return {**files, "--prompts_file": prompts}


def command(script, files, tmp_path, url, *flags):
    words = [f"eval/{script}.py"]
    for flag, file in files.items():
        words += [flag, file]
    words += ["--judge_url", url, "--judge_model", "judge"]
    return [*words, "--output_dir", tmp_path / "out", *flags]


def judged(script, files, tmp_path, reply, *flags):
    """(the result, the judgments, what was printed, the texts of the judge's requests)"""
    with judge_that(reply) as judge:
        done = ran(*command(script, files, tmp_path, judge.url, *flags))
    name = script.partition("_")[2]
    result = json.loads((tmp_path / f"out/{name}.json").read_text())
    return result, read_jsonl(tmp_path / "out/judgments.jsonl"), done.stdout, judge.asked


def refused(script, files, tmp_path, url="http://127.0.0.1:9/v1", *flags, **options):
    """The one line in which the script gives up; there is no result."""
    done = run(*command(script, files, tmp_path, url, "--max_retries", 0, *flags), **options)
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("out/*.json"))
    return done.stderr


# MT-Bench


def stars(text, _):
    """A rating from 1 to 10 that depends on the request's text."""
    return f"Fine. Rating: [[{random.Random(text).randint(10, 100) / 10}]]"


def turns_by_question(file):
    return {row["question_id"]: row["choices"][0]["turns"] for row in read_jsonl(file)}


def scores_by_hand(files):
    """({turn: {question: score}}, {category: [scores]}) of the judge `stars`."""
    answers = turns_by_question(files["--answers_file"])
    references = turns_by_question(files["--references_file"])
    by_turn = {1: {}, 2: {}}
    by_category = {}
    for question in read_jsonl(files["--questions_file"]):
        number, category = question["question_id"], question["category"]
        (q1, q2), (a1, a2) = question["turns"], answers[number]
        if category in WITH_REFERENCE:
            r1, r2 = references[number]
            first = f"single-math-v1|{q1}|{a1}|{r1}"
            second = f"single-math-v1-multi-turn|{q1}|{a1}|{q2}|{a2}|{r1}|{r2}"
        else:
            first = f"single-v1|{q1}|{a1}"
            second = f"single-v1-multi-turn|{q1}|{a1}|{q2}|{a2}"
        for turn, text in ((1, first), (2, second)):
            score = float(re.search(r"\[\[(.+)\]\]", stars(text, 0))[1])
            by_turn[turn][number] = score
            by_category.setdefault(category, []).append(score)
    return by_turn, by_category


def test_mt_bench_by_turn_and_category(tmp_path):
    files = mt_bench(tmp_path)
    result, judgments, printed, requests = judged("2b_mt_bench", files, tmp_path, stars)
    assert "judge at http" in printed
    assert ": 160 requests, 0 known already, about " in printed
    assert len(set(requests)) == 160
    assert result["judgments"] == result["of"] == len(judgments) == 160
    official = ["question_id", "model", "judge", "user_prompt"]
    official += ["judgment", "score", "turn", "tstamp"]
    assert all(list(row) == official for row in judgments)
    by_turn, by_category = scores_by_hand(files)
    scores = {1: {}, 2: {}}
    for row in judgments:
        scores[row["turn"]][row["question_id"]] = row["score"]
    assert scores == by_turn
    turns = [fmean(by_turn[turn].values()) for turn in (1, 2)]
    assert result["turns"] == pytest.approx(turns)
    assert turns[0] != pytest.approx(turns[1])
    assert result["score"] == pytest.approx(fmean(turns))
    assert list(by_category) == CATEGORIES
    for category, score in result["categories"].items():
        assert len(by_category[category]) == 20
        assert score == pytest.approx(fmean(by_category[category]))
    assert result["judge"] == "judge"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", result["date"])
    assert f"| policy | judge | {result['score']:.2f} | {turns[0]:.2f} | " in printed


def test_what_is_no_rating_is_counted_and_not_guessed(tmp_path):
    odd = [
        "[[11]]",
        "[[0]]",
        "[[]]",
        "7 of 10",
        "[11]",
        "",
        "<think>Perhaps [[5]]",
        "[[5]]</think>",
        "[[4/5]] [[4]]",
    ]
    replies = iter(odd)
    lock = threading.Lock()

    def judge(text, _):
        with lock:
            return next(replies, "[[5]]")

    result, judgments, printed, _ = judged("2b_mt_bench", mt_bench(tmp_path), tmp_path, judge)
    assert result["judgments"] == 160 - len(odd)
    assert result["of"] == 160
    assert result["score"] == 5
    assert sorted(row["judgment"] for row in judgments if row["score"] == -1) == sorted(odd)
    assert f"| {160 - len(odd)} of 160 |" in printed


THOUGHT = "<think>The form is [[5]]. A weak answer would be [[2]].</think>"


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        (f"{THOUGHT}\n\nRight. Rating: [[9]]", 9),
        ("The form is [[5]].</think>Rating: [[9]]", 9),
        # FastChat's scorer takes the first, too.
        ("Rating: [[9]], not [[2]]", 9),
        ("As [2] says: Rating: [[ 9 ]]", 9),
        ("Rating: [[9/10]]", 9),
        ("Rating: [9]", 9),
    ],
)
def test_a_rating_is_the_first_number_in_brackets_after_the_thoughts(tmp_path, reply, score):
    files = mt_bench(tmp_path, count=1)
    result, judgments, _, _ = judged("2b_mt_bench", files, tmp_path, lambda *_: reply)
    assert result["score"] == score
    assert result["judgments"] == 2
    # The reply is kept as it was.
    assert {row["judgment"] for row in judgments} == {reply}


def test_a_thought_that_was_cut_off_is_known_by_the_other_replies(tmp_path):
    """Where the judge's template opens the thought, a reply that is truncated in it has no mark.

    Then [[5]] is not a rating, but the form that the prompt asks for.
    """

    def judge(end):
        """A judge whose untruncated replies have that end."""

        def reply(text, _):
            content, reason = f"The form is [[5]].{end}", "stop"
            if "first 0" in text:
                content, reason = "The form is [[5]].", "length"
            message = {"role": "assistant", "content": content}
            return 200, {"choices": [{"message": message, "finish_reason": reason}]}

        return reply

    files = mt_bench(tmp_path, count=3)
    thinks = judge("</think>Rating: [[9]]")
    result, *_ = judged("2b_mt_bench", files, tmp_path, thinks, "--max_tokens", 99)
    assert (result["score"], result["judgments"], result["of"]) == (9, 4, 6)
    # A judge that does not think gave its rating before it was truncated.
    shutil.rmtree(tmp_path / "out")
    result, *_ = judged("2b_mt_bench", files, tmp_path, judge(" Rating: [[5]]"))
    assert (result["score"], result["judgments"]) == (5, 6)


def test_only_nonsense(tmp_path):
    with judge_that(lambda text, _: "I like it.") as judge:
        error = refused("2b_mt_bench", mt_bench(tmp_path), tmp_path, judge.url)
    assert error == "judge: no reply holds a rating, such as 'I like it.'\n"
    assert len(read_jsonl(tmp_path / "out/judgments.jsonl")) == 160


def test_a_run_that_was_stopped_asks_only_for_what_is_missing(tmp_path):
    files = mt_bench(tmp_path)
    requests = itertools.count()
    lock = threading.Lock()

    def reply_50_times(text, before):
        with lock:
            if next(requests) < 50:
                return stars(text, 0)
            return 401, {"error": {"message": "no such key"}}

    with judge_that(reply_50_times) as judge:
        error = refused("2b_mt_bench", files, tmp_path, judge.url)
    assert "no such key" in error
    assert error.endswith("kept, the same command goes on\n")
    # A kill leaves half a line.
    with open(tmp_path / "out/replies.jsonl", "ab") as file:
        file.write(b'{"key": "cut in ha')
    result, judgments, printed, texts = judged("2b_mt_bench", files, tmp_path, stars)
    assert len(texts) == 110
    assert "110 requests, 50 known already" in printed
    again, _, _, texts = judged("2b_mt_bench", files, tmp_path, stars)
    assert not texts
    assert again == result
    assert result["score"] == pytest.approx(fmean(row["score"] for row in judgments))
    assert result["judgments"] == 160


def test_what_it_costs_is_told_before(tmp_path):
    flags = ["--prices", 10, 30]
    _, _, printed, requests = judged("2b_mt_bench", mt_bench(tmp_path), tmp_path, stars, *flags)
    tokens = sum(len(text) + len("be fair") for text in requests) // 4
    expected = f"about {tokens} tokens in, at most {160 * 2048} out, "
    expected += f"${tokens / 1e5:.2f} and at most $9.83\n"
    assert expected in printed


# Arena-Hard


def longer(text, _):
    """The reply of a judge that likes length: an answer that is much longer is much better."""
    _, a, b = map(len, text.split("|"))
    if a == b:
        verdict = "A=B"
    else:
        sign = ">>" if abs(a - b) > 100 else ">"
        verdict = f"A{sign}B" if a > b else f"B{sign}A"
    return f"Mine is [[C]]. My final verdict is: [[{verdict}]]"


def answer_lengths(file):
    """{question: characters of its answer}"""
    lengths = {}
    for row in read_jsonl(file):
        lengths[row["uid"]] = len(row["messages"][1]["content"]["answer"])
    return lengths


def test_a_judge_that_likes_length_gives_what_a_count_gives(tmp_path):
    files = arena_hard(tmp_path)
    result, judgments, printed, requests = judged("2c_arena_hard", files, tmp_path, longer)
    assert "1000 requests" in printed
    assert len(set(requests)) == 1000
    assert result["questions"] == result["of"] == 500
    lengths = answer_lengths(files["--answers_file"])
    baseline_lengths = answer_lengths(files["--baseline_file"])
    wins, games = 0, 0
    for uid, length in lengths.items():
        difference = length - baseline_lengths[uid]
        # A game that is won by far counts three times.
        weight = 3 if abs(difference) > 100 else 1
        games += 2 * weight
        if difference > 0:
            wins += 2 * weight
        elif difference == 0:
            wins += weight
    assert result["score"] == pytest.approx(100 * wins / games)
    low, high = result["interval"]
    assert low < result["score"] < high
    # the standard error of the mean of that many coins
    error = 100 * (0.25 / games) ** 0.5
    assert 2 * error < high - low < 6 * error
    assert result["length"] == pytest.approx(fmean(lengths.values()))
    official = ["uid", "category", "judge", "model", "baseline", "games"]
    for row in judgments:
        assert list(row) == official
        assert len(row["games"]) == 2
    first, second = judgments[0]["games"]
    assert list(first) == ["score", "judgment", "prompt"]
    assert list(first["judgment"]) == ["answer"]
    # The baseline is A in the first game, B in the second, as the official scorer expects.
    assert "|gpt-4-0314 " in first["prompt"][1]["content"].split("policy")[0]
    assert "|policy " in second["prompt"][1]["content"].split("gpt-4")[0]
    assert "| policy | gpt-4-0314 | judge | " in printed
    assert "| 500 of 500 |" in printed


# The verdicts of the two games: A is the baseline in the first and the policy in the second.
@pytest.mark.parametrize(
    ("verdicts", "score"),
    [
        (["A>B", "A>B"], 50),
        (["B>>A", "A>B"], 100),
        (["A=B", "A>>B"], 100 * 3.5 / 4),
        (["A>>B", "B>A"], 0),
        (["A>>B", "A>B"], 25),
        (["a<<b", "B<A"], 100),
        # After the thoughts the last verdict counts.
        (["A>>B]]</think>[[B>A", "B>>A]] or rather [[A>B"], 100),
        ([" B > A ", " A>B"], 100),
    ],
)
def test_games_by_hand(tmp_path, verdicts, score):
    files = arena_hard(tmp_path, count=1)

    def judge(text, _):
        return f"[[{verdicts[text.split('|')[1].startswith('policy')]}]]"

    result, *_ = judged("2c_arena_hard", files, tmp_path, judge)
    assert result["score"] == pytest.approx(score)


def test_a_verdict_in_single_brackets_counts_where_no_other_is(tmp_path):
    def judge(text, _):
        return "[A=B]" if text.split("|")[1].startswith("policy") else "Not [A>>B] but [B>A]"

    result, *_ = judged("2c_arena_hard", arena_hard(tmp_path, count=1), tmp_path, judge)
    assert result["score"] == 75


def test_a_question_without_two_verdicts_is_left_out_and_counted(tmp_path):
    nonsense = {
        "prompt uid0": "who knows [[A>>>B]]",
        "prompt uid1": "<think>Perhaps [[A>B]]",
        "prompt uid2": "[[A>B]]</think>",
        "prompt uid3": "A>B",
        "prompt uid4": "",
    }

    def judge(text, _):
        question, a, _ = text.split("|")
        if question in nonsense and a.startswith("policy"):
            return nonsense[question]
        return longer(text, 0)

    files = arena_hard(tmp_path, count=100)
    result, judgments, printed, _ = judged("2c_arena_hard", files, tmp_path, judge)
    assert result["questions"] == 95
    assert result["of"] == 100
    assert "| 95 of 100 |" in printed
    without_verdict = []
    for row in judgments:
        if None in [game["score"] for game in row["games"]]:
            without_verdict.append(row["uid"])
    assert without_verdict == [f"uid{i}" for i in range(5)]


def test_a_request_that_is_refused_costs_its_question(tmp_path):
    def judge(text, _):
        if "uid7|policy" in text:
            return 400, {"error": {"message": "too long"}}
        return longer(text, 0)

    files = arena_hard(tmp_path, count=10)
    result, judgments, _, _ = judged("2c_arena_hard", files, tmp_path, judge)
    assert result["questions"] == 9
    second_game = judgments[7]["games"][1]
    assert second_game["score"] is None
    assert second_game["judgment"] == {"answer": None}


# Bad input, the same for both

BENCHMARKS = [("2b_mt_bench", mt_bench), ("2c_arena_hard", arena_hard)]


@pytest.mark.parametrize(("script", "make"), BENCHMARKS)
def test_a_judge_that_is_down_or_refuses_the_key(tmp_path, script, make):
    files = make(tmp_path)
    assert "APIConnectionError" in refused(script, files, tmp_path)
    with judge_that(lambda text, _: (401, {"error": {"message": "wrong key"}})) as judge:
        assert "wrong key" in refused(script, files, tmp_path, judge.url)


@pytest.mark.parametrize(("script", "make"), BENCHMARKS)
def test_answers_to_other_questions(tmp_path, script, make):
    files = make(tmp_path)
    file = files["--answers_file"]
    good = read_jsonl(file)
    name = "question_id" if "mt" in script else "uid"
    write_jsonl(file, good[3:])
    error = refused(script, files, tmp_path)
    reason = f"3 of {len(good)} questions have no answer, such as '{good[0][name]}'"
    assert error == f"{file}: {reason}\n"
    write_jsonl(file, [*good, {**good[0], name: "new"}])
    error = refused(script, files, tmp_path)
    assert error == f"{file}: 1 answers have no question, such as 'new'\n"
    write_jsonl(file, [*good, good[0]])
    error = refused(script, files, tmp_path)
    assert error.startswith(f"{file}:{len(good) + 1}: {name}: ")
    assert error.endswith("stands twice\n")
    write_jsonl(file, [*good[:5], '{"cut in ha'])
    assert refused(script, files, tmp_path).startswith(f"{file}:6: row: not a line of JSON")
    write_jsonl(file, [*good[:5], {name: 1}])
    assert "missing; another file, or another version?" in refused(script, files, tmp_path)
    # The order does not matter.
    write_jsonl(file, good[::-1])
    judged(script, files, tmp_path, stars if "mt" in script else longer)


def test_another_version_of_the_prompts(tmp_path):
    files = mt_bench(tmp_path)
    write_jsonl(files["--prompts_file"], read_jsonl(files["--prompts_file"])[1:])
    error = refused("2b_mt_bench", files, tmp_path)
    assert error.endswith("no answer, or no prompt for it ('single-v1')\n")
    files = arena_hard(tmp_path)
    files["--prompts_file"].write_text("prompt_template: 7\n")
    assert "not as in Arena-Hard v0.1" in refused("2c_arena_hard", files, tmp_path)


def test_the_published_files_without_a_network(tmp_path):
    files = mt_bench(tmp_path)
    del files["--prompts_file"]
    proxy = {"https_proxy": "http://127.0.0.1:9", "XDG_CACHE_HOME": str(tmp_path)}
    error = refused("2b_mt_bench", files, tmp_path, env={**os.environ, **proxy})
    assert error.startswith("https://raw.githubusercontent.com/")
    assert "fetch it elsewhere and give its path" in error


def test_files_from_the_hub(tmp_path):
    """A cached file is used; without a network a missing file is refused in one line."""
    files = mt_bench(tmp_path)
    snapshot = tmp_path / "hub/datasets--owner--name/snapshots/1234/data"
    snapshot.mkdir(parents=True)
    (tmp_path / "hub/datasets--owner--name/refs").mkdir()
    (tmp_path / "hub/datasets--owner--name/refs/main").write_text("1234")
    files["--questions_file"].rename(snapshot / "question.jsonl")
    files["--questions_file"] = "hf://datasets/owner/name/data/question.jsonl"
    offline = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub")}
    with judge_that(stars) as judge:
        ran(*command("2b_mt_bench", files, tmp_path, judge.url), env=offline)
    assert json.loads((tmp_path / "out/mt_bench.json").read_text())["judgments"] == 160
    shutil.rmtree(tmp_path / "out")
    files["--questions_file"] = "hf://datasets/owner/name/other.jsonl"
    error = refused("2b_mt_bench", files, tmp_path, env=offline)
    assert error.startswith("hf://datasets/owner/name/other.jsonl: ")
    assert error.endswith("and give its path\n")


# eval/1_answers.py


def answered(base, tmp_path, benchmark, questions, *flags):
    """(file of the answers, what was printed)"""
    out = tmp_path / "answers"
    command = ["eval/1_answers.py", "--benchmarks", benchmark, "--model_name_or_path", base]
    command += ["--model_name", "tiny", "--questions_files", questions, "--output_files", out]
    done = ran(*command, "--max_new_tokens", 12, *flags)
    return out, done.stdout


def test_two_turns_in_the_official_format(tmp_path, sft):
    files = mt_bench(tmp_path)
    questions = read_jsonl(files["--questions_file"])[::7]
    questions_file = write_jsonl(tmp_path / "few.jsonl", questions)
    out, printed = answered(sft, tmp_path, "mt_bench", questions_file, "--chunk_size", 5)
    rows = read_jsonl(out)
    assert [row["question_id"] for row in rows] == [row["question_id"] for row in questions]
    for row in rows:
        assert list(row) == ["question_id", "answer_id", "model_id", "choices", "tstamp"]
        assert row["model_id"] == "tiny"
        assert len(row["choices"][0]["turns"]) == 2
    assert f"questions: {len(rows)}, finished before: 0, turns: {2 * len(rows)}," in printed
    choices = [row["choices"] for row in rows]
    in_one_chunk, _ = answered(sft, tmp_path, "mt_bench", questions_file)
    assert [row["choices"] for row in read_jsonl(in_one_chunk)] == choices
    files |= {"--answers_file": in_one_chunk, "--questions_file": questions_file}
    result, *_ = judged("2b_mt_bench", files, tmp_path, stars)
    assert result["judgments"] == 2 * len(rows)
    # Another seed changes answers, and only those of the categories with a temperature.
    other_seed, _ = answered(sft, tmp_path, "mt_bench", questions_file, "--seed", 1)
    changed_categories = set()
    for question, row, old in zip(questions, read_jsonl(other_seed), choices, strict=True):
        if row["choices"] != old:
            changed_categories.add(question["category"])
    assert changed_categories
    assert changed_categories <= {"writing", "roleplay", "stem", "humanities"}


def test_answers_of_two_benchmarks_at_once(tmp_path, sft):
    files = arena_hard(tmp_path, count=3)
    questions = [
        {"instruction": "What is 1 plus 2?", "output": "3", "dataset": "d"},
        {"instruction": "word " * 600, "dataset": "d"},
    ]
    questions_file = tmp_path / "alpaca.json"
    questions_file.write_text(json.dumps(questions))
    command = ["eval/1_answers.py", "--benchmarks", "arena_hard", "alpaca_eval"]
    command += ["--questions_files", files["--questions_file"], questions_file]
    command += ["--model_name_or_path", sft, "--model_name", "tiny", "--max_new_tokens", 12]
    done = run(*command, "--output_files", tmp_path / "one.jsonl")
    assert done.returncode == 2
    assert "--output_files: one for each of --benchmarks" in done.stderr

    tokenizer = AutoTokenizer.from_pretrained(sft)

    def prompt_length(text):
        chat = [{"role": "user", "content": text}]
        return len(tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"])

    # The longest prompt but the long one leaves room for two tokens.
    texts = [row["prompt"] for row in read_jsonl(files["--questions_file"])]
    limit = max(map(prompt_length, ["What is 1 plus 2?", *texts])) + 2
    arena, alpaca = tmp_path / "arena.jsonl", tmp_path / "answers.json"
    flags = ["--max_model_len", limit, "--output_files", arena, alpaca]
    printed = ran(*command, *flags).stdout
    pattern = r"^arena_hard: \d+ of \d+ answers are cut off at 12 tokens, or at the end of"
    assert re.search(pattern, printed, re.MULTILINE)
    first = read_jsonl(arena)[0]
    baseline = read_jsonl(files["--baseline_file"])[0]
    assert list(first) == list(baseline)
    assert list(first["messages"][1]) == list(baseline["messages"][1])
    assert first["messages"][0] == baseline["messages"][0]
    assert first["uid"] == "uid0"
    first, long = json.loads(alpaca.read_text())
    assert first["instruction"] == "What is 1 plus 2?"
    assert first["generator"] == "tiny"
    assert first["dataset"] == "d"
    assert first["output"]
    assert long["output"] == ""
    assert "without room: 1" in printed
    output_ids = tokenizer(first["output"], add_special_tokens=False)["input_ids"]
    assert prompt_length("What is 1 plus 2?") + len(output_ids) <= limit


def test_answers_need_a_model_with_a_chat_template(tmp_path, base):
    files = arena_hard(tmp_path, count=3)
    model = tmp_path / "model"
    command = ["eval/1_answers.py", "--benchmarks", "arena_hard", "--model_name_or_path", model]
    command += ["--questions_files", files["--questions_file"]]
    command += ["--output_files", tmp_path / "out.jsonl"]
    done = run(*command)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{model}: cannot load a model from it (")
    shutil.copytree(base, model)
    (model / "chat_template.jinja").unlink()
    done = run(*command)
    assert done.returncode == 1
    assert done.stderr == f"{model}: its tokenizer has no chat template\n"
    assert not (tmp_path / "out.jsonl").exists()
