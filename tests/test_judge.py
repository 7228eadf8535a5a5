"""The judge by a language model, with scripted judges of every kind and the tiny world's judge."""

import itertools
import json
import math
import os
import random
import runpy
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request

import pytest

import scripted_judge
from commands import ROOT, ran, read_jsonl, run, write_jsonl
from scripted_judge import tiny_judge

SCRIPT = "annotation/1c_llm_judge.py"
TRUE_REWARD = runpy.run_path(str(ROOT / "recipes/tiny/true_reward.py"))
PROMPTS = """\
scale = [1, 10]
rating = "{prompt}|{answer}"
pairwise = "{prompt}|{answer_a}|{answer_b}"
"""


def judge_that(reply):
    """A judge with reply(*parts of a text of PROMPTS, how often the text was asked before)."""
    return scripted_judge.judge_that(lambda text, before: reply(*text.split("|"), before))


def answers(name, n=3, **more):
    """A row whose responses are numbers, by default 0, 1, 2, by which the scripted judges go."""
    row = {"id": name, "prompt": [{"role": "user", "content": f"question {name}"}]}
    row |= {"responses": [str(i) for i in range(n)]} | more
    return row | {"finish_reasons": ["stop"] * len(row["responses"])}


def command(tmp_path, rows, url, *flags, name="rewards.jsonl"):
    """Files that exist already are used as they are."""
    prompts = tmp_path / "prompts.toml"
    if not prompts.exists():
        prompts.write_text(PROMPTS)
    file = tmp_path / "responses.jsonl"
    if not file.exists():
        write_jsonl(file, rows)
    script = [SCRIPT, "--judge_url", url, "--judge_model", "judge", "--prompts_file", prompts]
    return [*script, "--responses_file", file, "--output_file", tmp_path / name, *flags]


def judged(tmp_path, rows, reply, *flags, name="rewards.jsonl"):
    """(output rows, what was printed, the texts of the judge's requests)"""
    with judge_that(reply) as judge:
        done = ran(*command(tmp_path, rows, judge.url, *flags, name=name))
    return read_jsonl(tmp_path / name), done.stdout, judge.asked


def failed(tmp_path, rows, url, *flags, **options):
    """The one line in which the script gives up; no rewards appear."""
    done = run(*command(tmp_path, rows, url, *flags), **options)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "rewards.jsonl").exists()
    return done.stderr


def larger(_, first, second, before):
    """The reply of a judge that prefers the larger number."""
    if first == second:
        verdict = "C"
    elif float(first) > float(second):
        verdict = "A"
    else:
        verdict = "B"
    return f"I see {first} and {second}. [[{verdict}]]"


def message(content):
    return {"role": "assistant", "content": content}


# Rating


def test_a_rating_is_the_reward(tmp_path):
    """The raw replies are kept, and so is all that the row held.

    The judge reads the roles of the prompt, not the known answer.
    """
    turns = [("system", "s"), ("user", "q {answer}"), ("assistant", "a"), ("user", "q2")]
    prompt = [{"role": role, "content": content} for role, content in turns]
    rows = [
        answers("a", 2, answer="SECRET", extra=[1]),
        answers("b", 2, prompt=prompt, responses=["{prompt}", "é"]),
    ]
    replies = {"0": "Fine: [[7]]", "1": "[[2.5]]", "{prompt}": "[[10]], yes, [[10]].", "é": "[[1]]"}
    output, printed, requests = judged(tmp_path, rows, lambda _, answer, before: replies[answer])
    assert [row["rewards"] for row in output] == [[7.0, 2.5], [10.0, 1.0]]
    for row, before in zip(output, rows, strict=True):
        judgement = []
        for i, text in enumerate(row["responses"]):
            rating = row["rewards"][i]
            judgement.append({"response": i, "rating": rating, "reply": replies[text]})
        judged_row = {"rewards": row["rewards"], "annotator": "judge", "judgement": judgement}
        assert row == before | judged_row
    conversation = "system: s\n\nuser: q {answer}\n\nassistant: a\n\nuser: q2"
    texts = ["user: question a|0", "user: question a|1"]
    texts += [f"{conversation}|{{prompt}}", f"{conversation}|é"]
    assert sorted(requests) == sorted(texts)
    assert "at most 4 requests for 2 rows" in printed
    assert "requests: 4, replies without verdict: 0, " in printed


NONSENSE = [
    "nonsense",
    "",
    "7",
    "[11]",
    "[[A]]",
    "[[11]]",
    "[[0]]",
    "[[3]] or [[4]]",
    "[[4/5]]",
    "[1] or [2]",
    "<think>Perhaps [[5]]",
    "[[5]] <think>or",
    "<think>[[5]]</think>",
    "[[5]]</think> I cannot say.",
]


def test_nonsense_is_counted_and_not_guessed(tmp_path):
    """The judge repeats a response that is no number: that is its reply."""

    def reply(_, answer, before):
        return "[[5]]" if answer in ("0", "1") else answer

    n = len(NONSENSE)
    rows = []
    for i, text in enumerate([*NONSENSE, "[[5]]"]):
        rows.append(answers(f"{i}", responses=["0", text, "1"]))
    output, printed, _ = judged(tmp_path, rows, reply)
    assert [row["id"] for row in output] == [str(n)]
    assert f"rows in: {n + 1}, " in printed
    assert f"without verdict: {n}, requests refused: 0, dropped: {n}, " in printed
    assert "rows out: 1, " in printed


LONG_THOUGHT = "<think>The form is [[5]]. A weak answer would be [[2]].</think>\n\n"
# {reply: its rating}
RATED = {
    f"{LONG_THOUGHT}Clear and right. Rating: [[9]]": 9,
    # The judge's template has opened the thought.
    "The form is [[5]].</think>Rating: [[9]]": 9,
    "[THINK][[2]][/THINK][[9]]": 9,
    "<thinking>[[2]]</thinking><thinking>[[3]]</thinking>[[9]]": 9,
    "It begins with `<think>` and has no `</think>`: [[2]]": 2,
    "Rating: [[ 8 ]]": 8,
    "Rating: [[8/10]]": 8,
    "Rating: [[ 8.5 / 10 ]]": 8.5,
    "Rating: [8]": 8,
    "As [1] says. [[7]]": 7,
}


def test_the_verdict_stands_after_the_thoughts_in_brackets(tmp_path):
    rows = [answers("a", responses=[*RATED])]
    output, printed, _ = judged(tmp_path, rows, lambda _, answer, before: answer)
    assert output[0]["rewards"] == [*RATED.values()]
    assert "without verdict: 0, " in printed


def test_a_reply_that_was_cut_off_in_an_unmarked_thought_has_no_verdict(tmp_path):
    """The judge's template has opened the thought; the journal keeps that the reply was truncated.

    A first run stops at row b.
    """

    def reply(question, answer, before):
        content, reason = "First I look at [[5]].</think>[[9]]", "stop"
        if question.endswith(" a") and answer == "1":
            content, reason = "First I look at [[5]].", "length"
        return 200, {"choices": [{"message": message(content), "finish_reason": reason}]}

    def refuse_b(question, *shown):
        return (401, {}) if question.endswith(" b") else reply(question, *shown)

    with judge_that(refuse_b) as judge:
        failed(tmp_path, [answers("a"), answers("b")], judge.url, "--concurrency", 1)
    rows, printed, requests = judged(tmp_path, [], reply)
    assert [row["id"] for row in rows] == ["b"]
    assert rows[0]["rewards"] == [9.0] * 3
    assert len(requests) == 3
    assert "replies without verdict: 1, requests refused: 0, dropped: 1, rows out: 1, " in printed


def test_only_nonsense(tmp_path):
    """The message shows a reply; repeated, the command says the same without a request."""
    counts = "replies without verdict: 2, requests refused: 0, such as 'I cannot judge this.'"
    with judge_that(lambda *_: "I cannot judge this.") as judge:
        for _ in range(2):
            error = failed(tmp_path, [answers("a", 2)], judge.url)
            assert error == f"{tmp_path}/responses.jsonl: no row is left; {counts}\n"
    assert len(judge.asked) == 2


# Pairs


def probabilities(row):
    return {(entry["a"], entry["b"]): entry["probability"] for entry in row["judgement"]}


def test_a_judge_that_likes_the_first_place_says_nothing(tmp_path):
    flags = ["--method", "all_pairs"]
    rows, _, requests = judged(tmp_path, [answers("a")], lambda *_: "[[A]]", *flags)
    assert set(probabilities(rows[0]).values()) == {0.5}
    assert rows[0]["rewards"] == [0.5] * 3
    texts = [f"user: question a|{i}|{j}" for i, j in itertools.permutations(range(3), 2)]
    assert sorted(requests) == sorted(texts)


@pytest.mark.parametrize("method", ["tournament", "all_pairs"])
def test_a_comparison_counts_after_the_thoughts(tmp_path, method):
    def reply(question, first, second, before):
        wrong = "B" if float(first) > float(second) else "A"
        verdict = larger(question, first, second, before).replace("[[", "[[ ")
        return f"<think>[[{wrong}]] or [[C]]?</think>{verdict}"

    rows, printed, _ = judged(tmp_path, [answers("a")], reply, "--method", method)
    assert rows[0]["rewards"] == [0.0, 0.5, 1.0]
    assert "without verdict: 0, " in printed


def test_all_pairs_by_hand(tmp_path):
    """Both orders count, a tie is a half; the reward is the mean win probability.

    The raw replies keep their order.
    """
    verdicts = {"01": "A", "10": "A", "02": "A", "20": "B", "12": "C", "21": "A"}

    def reply(_, first, second, before):
        return f"{first}{second} [[{verdicts[first + second]}]]"

    rows, printed, _ = judged(tmp_path, [answers("a")], reply, "--method", "all_pairs")
    assert probabilities(rows[0]) == {(0, 1): 0.5, (0, 2): 1.0, (1, 2): 0.25}
    assert rows[0]["rewards"] == [0.75, 0.375, 0.375]
    assert rows[0]["judgement"][2]["replies"] == ["12 [[C]]", "21 [[A]]"]
    assert "at most 6 requests for 1 rows" in printed
    assert "requests: 6, " in printed


def matches(strengths):
    """The pairs of a linear tournament for the best, then among the others for the worst."""
    pairs = set()
    best = 0
    for i in range(1, len(strengths)):
        pairs.add((best, i))
        if strengths[i] > strengths[best]:
            best = i
    worst, *others = (i for i in range(len(strengths)) if i != best)
    for i in others:
        pairs.add((worst, i))
        if strengths[i] < strengths[worst]:
            worst = i
    return pairs


def test_the_tournament_finds_best_and_worst(tmp_path):
    """With a transitive judge. A match of the first half is not repeated in the second."""
    orders = [random.Random(i).sample(range(8), 8) for i in range(40)]
    orders += [list(range(8)), list(range(7, -1, -1))]
    rows = [answers(f"{i}", responses=[str(s) for s in order]) for i, order in enumerate(orders)]
    output, printed, requests = judged(tmp_path, rows, larger, "--method", "tournament")
    most_requests = 42 * 26
    assert f"at most {most_requests} requests for 42 rows" in printed
    assert len(set(requests)) == len(requests)
    assert len(requests) == sum(2 * len(matches(order)) for order in orders)
    assert len(requests) < most_requests
    rewards = {7: 1.0, 0: 0.0}
    for row, order in zip(output, orders, strict=True):
        assert row["rewards"] == [rewards.get(strength, 0.5) for strength in order]
        assert set(probabilities(row)) == matches(order)
    assert {len(row["judgement"]) for row in output} <= set(range(7, 14))
    assert len(output[-1]["judgement"]) == 13


@pytest.mark.parametrize("verdict", ["A", "C"])
def test_a_tournament_without_a_winner_calls_none_the_best(tmp_path, verdict):
    """Or a judge that goes by position would be right where the better response comes first."""
    rows = [answers("a", 2), answers("b", 4)]
    flags = ["--method", "tournament", "--n", 0]
    rows, _, _ = judged(tmp_path, rows, lambda *_: f"[[{verdict}]]", *flags)
    assert [row["rewards"] for row in rows] == [[0.5] * 2, [0.5] * 4]


def test_two_responses_meet_once(tmp_path):
    """As in the rows of RewardBench."""
    rows, _, requests = judged(tmp_path, [answers("a", 2)], larger, "--method", "tournament")
    assert rows[0]["rewards"] == [0.0, 1.0]
    assert len(requests) == 2


def test_a_comparison_counts_if_both_orders_have_a_verdict(tmp_path):
    """In row a a single reply is nonsense: the other comparisons count.

    In row b no comparison of response 2 counts.
    """
    rows = [answers("a"), answers("b")]

    def reply(question, first, second, before):
        if question.endswith("a"):
            is_nonsense = (first, second) == ("2", "0")
        else:
            is_nonsense = "2" in (first, second)
        return "[[A]] or [[B]]?" if is_nonsense else larger(question, first, second, before)

    output, printed, _ = judged(tmp_path, rows, reply, "--method", "all_pairs")
    assert [row["id"] for row in output] == ["a"]
    assert probabilities(output[0]) == {(0, 1): 0.0, (0, 2): None, (1, 2): 0.0}
    assert output[0]["rewards"] == [0.0, 0.5, 1.0]
    assert output[0]["judgement"][1]["replies"] == ["I see 0 and 2. [[B]]", "[[A]] or [[B]]?"]
    assert "replies without verdict: 5, requests refused: 0, dropped: 1, rows out: 1, " in printed


def test_a_tournament_without_one_of_its_comparisons_is_dropped(tmp_path):
    """And the judge is not asked about it further."""
    rows = [answers("a", 8), answers("b", 8)]

    def reply(question, first, second, before):
        if question.endswith("a") and "1" in (first, second):
            return "?"
        return larger(question, first, second, before)

    output, printed, requests = judged(tmp_path, rows, reply, "--method", "tournament")
    assert [row["id"] for row in output] == ["b"]
    assert sum(text.startswith("user: question a") for text in requests) == 2
    assert "replies without verdict: 2, requests refused: 0, dropped: 1, rows out: 1, " in printed
    (dropped,) = read_jsonl(tmp_path / "rewards.jsonl.dropped.jsonl")
    assert dropped["id"] == "a"
    assert dropped["rewards"] is None
    assert dropped["judgement"] == [{"a": 0, "b": 1, "probability": None, "replies": ["?", "?"]}]


# How the work is cut


def rows_of_numbers(count, n):
    """Rows whose n responses are numbers from 0 to 10."""
    rows = []
    for i in range(count):
        rows.append(answers(f"{i}", responses=[f"{(7 * i + 3 * j) % 11}" for j in range(n)]))
    return rows


@pytest.mark.parametrize("method", ["tournament", "all_pairs"])
def test_the_same_rows_whatever_the_concurrency_and_the_shards(tmp_path, method):
    rows = rows_of_numbers(12, 4)

    def late(*shown):
        time.sleep(random.random() / 200)
        return larger(*shown)

    output, _, _ = judged(tmp_path, rows, late, "--method", method, "--concurrency", 1)
    assert [row["id"] for row in output] == [row["id"] for row in rows]
    judged(tmp_path, rows, late, "--method", method, "--concurrency", 64, name="64.jsonl")
    assert (tmp_path / "rewards.jsonl").read_bytes() == (tmp_path / "64.jsonl").read_bytes()
    flags = ["--method", method, "--num_shards", 5, "--shard", 1]
    assert judged(tmp_path, rows, late, *flags, name="1.jsonl")[0] == output[1::5]
    flags = ["--method", method, "--num_shards", 20, "--shard", 15]
    assert judged(tmp_path, rows, late, *flags, name="none.jsonl")[0] == []


# A judge that fails


def test_a_judge_that_refuses_connections(tmp_path):
    with judge_that(larger) as judge:
        url = judge.url
    error = failed(tmp_path, [answers("a")], url, "--max_retries", 1)
    assert error.startswith(f"{url}: APIConnectionError: Connection error. ")
    assert error.endswith("command goes on\n")


def test_a_judge_that_does_not_answer_in_time(tmp_path):
    with judge_that(lambda *_: time.sleep(5)) as judge:
        error = failed(tmp_path, [answers("a", 1)], judge.url, "--timeout", 0.2, "--max_retries", 1)
        assert error.startswith(f"{judge.url}: APITimeoutError: Request timed out.")
        assert len(judge.asked) == 2


def test_a_judge_that_is_busy_is_asked_again(tmp_path):
    def reply(_, answer, before):
        if before < 3:
            return [429, 503, 500][before], {"error": {"message": "busy"}}
        return "[[5]]"

    rows, printed, requests = judged(tmp_path, [answers("a")], reply, "--max_retries", 3)
    assert rows[0]["rewards"] == [5.0] * 3
    assert len(requests) == 12
    assert "requests: 3, " in printed


def error(words):
    return {"error": {"message": words}}


# {status: (how the message starts, what the server sends, a part of the message)}
ERRORS = {
    429: ("RateLimitError: Error code: 429", error("slow down"), "slow down"),
    401: ("AuthenticationError: Error code: 401", error("a wrong key"), "a wrong key"),
    404: ("NotFoundError: Error code: 404", error("no model `judge`"), "no model `judge`"),
    200: ("AttributeError", "<html>welcome</html>", "'choices'"),
}


@pytest.mark.parametrize("status", ERRORS)
def test_a_judge_that_refuses(tmp_path, status):
    start, content, words = ERRORS[status]
    rows = [answers(f"{i}") for i in range(9)]
    with judge_that(lambda *_: (status, content)) as judge:
        error = failed(tmp_path, rows, judge.url, "--max_retries", 1, "--concurrency", 2)
        assert error.startswith(f"{judge.url}: {start}")
        assert words in error
        # Nothing new is asked once it is clear.
        assert len(judge.asked) <= (4 if status == 429 else 2)


def test_a_request_that_is_refused_costs_its_row(tmp_path):
    """For example a request that is longer than the judge's context.

    A repeated command asks again for refused rows.
    """
    refusal = (400, {"error": {"message": "too long"}})
    rows = [answers("a"), answers("b", responses=["0", "long", "1"]), answers("c")]

    def reply(_, answer, before):
        return refusal if answer == "long" else "[[5]]"

    output, printed, _ = judged(tmp_path, rows, reply)
    assert [row["id"] for row in output] == ["a", "c"]
    assert "replies without verdict: 0, requests refused: 1, dropped: 1, rows out: 2, " in printed
    (tmp_path / "rewards.jsonl").unlink()
    with judge_that(lambda *_: refusal) as judge:
        error = failed(tmp_path, rows, judge.url)
    counts = "replies without verdict: 0, requests refused: 9, such as "
    assert f"no row is left; {counts}" in error


NO_REPLY = {
    "403": (403, error("content policy")),
    "404": (404, error("not found")),
    "413": (413, error("too large")),
    "451": (451, error("for legal reasons")),
    "a lasting 500": (500, error("an error")),
    "choices null": (200, {"choices": None}),
    "no choices": (200, {"choices": []}),
    "a number": (200, {"choices": [{"message": message(7)}]}),
    "a page": (200, "<html>welcome</html>"),
    "nothing": (200, ""),
}


@pytest.mark.parametrize("what", NO_REPLY)
def test_one_bad_reply_costs_its_row_alone(tmp_path, what):
    """Its words are kept with the row, and the other rows go on."""
    rows = [answers("a", responses=["bad", "0", "1"]), answers("b"), answers("c")]

    def reply(_, answer, before):
        return NO_REPLY[what] if answer == "bad" else "[[5]]"

    output, printed, _ = judged(tmp_path, rows, reply, "--max_retries", 0)
    assert [row["id"] for row in output] == ["b", "c"]
    counts = "requests: 8, replies without verdict: 0, requests refused: 1, dropped: 1, "
    assert f"{counts}rows out: 2, " in printed
    (dropped,) = read_jsonl(tmp_path / "rewards.jsonl.dropped.jsonl")
    assert dropped["judgement"][0]["reply"].startswith("refused: ")
    assert dropped["judgement"][1]["rating"] == 5.0


def test_a_reply_in_parts_is_read(tmp_path):
    parts = [{"type": "text", "text": "I say [["}, {"type": "text", "text": "7]]"}]
    reply = (200, {"choices": [{"message": message(parts)}]})
    rows, _, _ = judged(tmp_path, [answers("a")], lambda *_: reply)
    assert rows[0]["rewards"] == [7.0] * 3
    assert rows[0]["judgement"][0]["reply"] == "I say [[7]]"


def test_too_many_refusals_end_the_run(tmp_path):
    """More than a tenth of all requests; a larger share can be allowed."""
    refusal = (403, {"error": {"message": "content policy"}})
    rows = [answers(f"{i}", responses=["bad" if i % 3 == 0 else "0"]) for i in range(60)]

    def reply(_, answer, before):
        return refusal if answer == "bad" else "[[5]]"

    with judge_that(reply) as judge:
        error = failed(tmp_path, rows, judge.url, "--max_retries", 0, "--concurrency", 2)
    assert "11 of " in error
    assert "requests refused, such as PermissionDeniedError" in error
    assert "content policy" in error
    flags = ["--max_retries", 0, "--max_refused", 0.5]
    output, printed, _ = judged(tmp_path, rows, reply, *flags)
    assert len(output) == 40
    assert "requests refused: 20, dropped: 20, rows out: 40, " in printed


@pytest.mark.parametrize("method", ["rating", "tournament"])
def test_a_judge_that_dies_midway_is_not_asked_again_what_it_answered(tmp_path, method):
    """The next judge is at another address, with another concurrency.

    The rows are the same, and each question is answered once.
    """
    rows = rows_of_numbers(20, 5)
    flags = ["--method", method, "--max_retries", 0]
    requests = itertools.count()

    def rate(_, answer, before):
        return f"[[{int(answer) % 10 + 1}]]"

    reply = larger if method == "tournament" else rate

    def reply_and_die(*shown):
        return reply(*shown) if next(requests) < 67 else None

    _, _, questions = judged(tmp_path, rows, reply, *flags, name="undisturbed.jsonl")
    with judge_that(reply_and_die) as first:
        error = failed(tmp_path, rows, first.url, *flags, "--concurrency", 4)
    assert "APIConnectionError" in error
    with judge_that(reply) as second:
        script = command(tmp_path, rows, second.url, *flags, "--concurrency", 3)
        printed = ran(*script).stdout
    assert len(first.answered) == 67
    assert sorted(first.answered + second.asked) == sorted(questions)
    assert len(set(questions)) == len(questions)
    assert f"requests: {len(second.asked)}, " in printed
    undisturbed = (tmp_path / "undisturbed.jsonl").read_bytes()
    assert (tmp_path / "rewards.jsonl").read_bytes() == undisturbed
    assert not list(tmp_path.glob("*.partial-*"))


def test_a_kill_loses_nothing_but_what_is_under_way(tmp_path):
    rows = [answers(f"{i}") for i in range(60)]
    concurrency = 4

    def slow(*_):
        time.sleep(0.005)
        return "[[5]]"

    with judge_that(slow) as judge:
        script = command(tmp_path, rows, judge.url, "--concurrency", concurrency)
        process = subprocess.Popen(
            [sys.executable, *map(str, script)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        while len(judge.answered) < 70:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        ran(*script)
    output = read_jsonl(tmp_path / "rewards.jsonl")
    assert [row["id"] for row in output] == [row["id"] for row in rows]
    assert len(judge.asked) - len(set(judge.asked)) <= concurrency
    assert len(set(judge.asked)) == 180


# What is wrong before anything is asked


def test_key_and_address_may_stand_in_the_environment(tmp_path):
    with judge_that(lambda *_: "[[5]]") as judge:
        script = command(tmp_path, [answers("a")], judge.url)
        environment = os.environ | {"OPENAI_BASE_URL": judge.url, "OPENAI_API_KEY": "abc"}
        ran(SCRIPT, *script[3:], env=environment)
        assert judge.keys == {"Bearer abc"}
        assert len(judge.asked) == 3
    done = run(SCRIPT, *script[3:])
    assert done.returncode == 2
    assert "--judge_url" in done.stderr.splitlines()[-1]


BAD_PROMPTS = {
    PROMPTS.replace("{answer_b}", "b"): "pairwise: {answer_b} is missing",
    PROMPTS.replace("|{answer}", "|{anwser}"): "rating: {answer} is missing",
    PROMPTS.replace("rating =", "ratings ="): "rating: {prompt} is missing",
    PROMPTS.replace("[1, 10]", '["1", "10"]'): "scale: not two numbers",
    PROMPTS.replace("scale", "scales"): "scale: not two numbers",
    PROMPTS.replace("]", ""): "Unclosed array",
}


def test_bad_prompts_are_named(tmp_path):
    """Without a request, whatever the method: the address does not exist."""
    for text, reason in BAD_PROMPTS.items():
        (tmp_path / "prompts.toml").write_text(text)
        error = failed(tmp_path, [answers("a")], "http://127.0.0.1:1/v1")
        assert error.startswith(f"{tmp_path}/prompts.toml: {reason}"), error
    (tmp_path / "prompts.toml").unlink()
    script = command(tmp_path, [answers("a")], "http://127.0.0.1:1/v1")
    (tmp_path / "prompts.toml").unlink()
    assert run(*script).stderr == f"{tmp_path}/prompts.toml: No such file or directory\n"
    assert [path.name for path in tmp_path.iterdir()] == ["responses.jsonl"]


def test_bad_rows_are_named(tmp_path):
    error = failed(tmp_path, [answers("a"), answers("b", 2)], "http://127.0.0.1:1/v1")
    assert error == f"{tmp_path}/responses.jsonl:2: responses: 2 where 3 are expected\n"
    write_jsonl(tmp_path / "responses.jsonl", [answers("a", 1)])
    error = failed(tmp_path, [], "http://127.0.0.1:1/v1", "--method", "tournament")
    assert error == f"{tmp_path}/responses.jsonl: responses: 1, a comparison needs two\n"


# The tiny world's judge


@pytest.fixture(scope="module")
def tiny(world, tmp_path_factory):
    files = [world / f"{name}.jsonl" for name in ("prompts", "evaluation", "preferences", "bench")]
    with tiny_judge(tmp_path_factory.mktemp("judge"), files) as url:
        yield url


def compared(world):
    """Rows of two responses each, from the world's preferences."""
    rows = []
    for pair in read_jsonl(world / "preferences.jsonl"):
        row = {key: pair[key] for key in ("id", "prompt", "answer")}
        row["responses"] = [pair[side][0]["content"] for side in ("chosen", "rejected")]
        row["finish_reasons"] = ["stop"] * 2
        rows.append(row)
    return rows


def request(url, body):
    """(status, content) of the response to a request in OpenAI's format, or to any other bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    post = urllib.request.Request(f"{url}/chat/completions", data)
    try:
        with urllib.request.urlopen(post) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def true_rewards(row):
    return [TRUE_REWARD["true_reward"](text, row["answer"]) for text in row["responses"]]


@pytest.mark.parametrize("method", ["rating", "tournament"])
def test_the_tiny_judge_judges_by_the_true_reward(tmp_path, world, tiny, method):
    file = write_jsonl(tmp_path / "in.jsonl", compared(world))
    out = tmp_path / "out.jsonl"
    flags = ["--judge_url", tiny, "--judge_model", "true_reward", "--method", method]
    ran(SCRIPT, *flags, "--responses_file", file, "--output_file", out)
    rows = read_jsonl(out)
    assert len(rows) == 200
    for row in rows:
        first, second = true_rewards(row)
        if method == "rating":
            ratings = [min(10, max(1, round(1 + 3 * reward))) for reward in (first, second)]
            assert row["rewards"] == ratings
        else:
            (match,) = row["judgement"]
            assert match["probability"] == (0.5 if first == second else float(first > second))
    assert len({str(row["rewards"]) for row in rows}) > (10 if method == "rating" else 1)


def default_request(row, kind, **texts):
    """The body of a request with the default prompt; texts replace those of the row."""
    prompt = tomllib.loads((ROOT / "annotation/judge_prompts.toml").read_text())[kind]
    first, second = row["responses"]
    texts = {
        "prompt": f"user: {row['prompt'][0]['content']}",
        "answer": first,
        "answer_a": first,
        "answer_b": second,
        **texts,
    }
    for name, text in texts.items():
        prompt = prompt.replace(f"{{{name}}}", text)
    return {"model": "true_reward", "messages": [{"role": "user", "content": prompt}]}


def test_the_tiny_judges_log_probabilities(world, tiny):
    """P(A) is Bradley and Terry's; the tokens are the verdict's, with their alternatives."""
    for row in compared(world)[::20]:
        body = default_request(row, "pairwise")
        status, answer = request(tiny, body | {"logprobs": True, "top_logprobs": 5})
        assert status == 200
        (choice,) = answer["choices"]
        tokens = choice["logprobs"]["content"]
        assert "".join(token["token"] for token in tokens) == choice["message"]["content"]
        # The verdict stands between brackets.
        _, verdict, _ = tokens
        top = {entry["token"]: entry["logprob"] for entry in verdict["top_logprobs"]}
        assert set(top) == {"A", "B"}
        assert sum(map(math.exp, top.values())) == pytest.approx(1)
        first, second = true_rewards(row)
        p_first = 1 / (1 + math.exp((second - first) / TRUE_REWARD["NOISE"]))
        assert math.exp(top["A"]) == pytest.approx(p_first)
        if first != second:
            assert verdict["logprob"] == max(top.values())
            assert verdict["logprob"] == verdict["top_logprobs"][0]["logprob"]
        usage = answer["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 50
    _, answer = request(tiny, body | {"logprobs": True, "top_logprobs": 1})
    tokens = answer["choices"][0]["logprobs"]["content"]
    assert [len(token["top_logprobs"]) for token in tokens] == [1, 1, 1]
    _, answer = request(tiny, body)
    assert "logprobs" not in answer["choices"][0]


def test_a_very_long_answer_breaks_no_sum(world, tiny):
    row = compared(world)[0]
    for long, verdict in (("answer_a", "[[B]]"), ("answer_b", "[[A]]")):
        body = default_request(row, "pairwise", **{long: "x" * 100_000})
        status, answer = request(tiny, body | {"logprobs": True, "top_logprobs": 2})
        assert status == 200
        assert answer["choices"][0]["message"]["content"] == verdict


def test_the_tiny_judge_refuses_what_it_does_not_know(world, tiny):
    row = compared(world)[0]
    good = default_request(row, "rating")
    unknown = default_request(row, "rating", prompt="user: Who are you?")
    hello = [{"role": "user", "content": "Hello?"}]
    cases = [
        (unknown, 400, "the judge does not know this question: Who are you?"),
        (good | {"messages": hello}, 400, "not the form of a prompt"),
        (good | {"messages": []}, 400, "messages with a text"),
        (good | {"model": "other"}, 404, "The model `other` does not exist."),
        (b"{", 400, "not JSON"),
    ]
    for body, expected, words in cases:
        status, answer = request(tiny, body)
        assert status == expected
        assert words in answer["error"]["message"]
        assert answer["error"]["code"] == expected
    with urllib.request.urlopen(f"{tiny}/models") as response:
        assert [model["id"] for model in json.load(response)["data"]] == ["true_reward"]


def test_the_tiny_judge_needs_answers(tmp_path):
    row = {"id": "a", "prompt": [{"role": "user", "content": "q"}]}
    file = write_jsonl(tmp_path / "in.jsonl", [row])
    done = run("recipes/tiny/4_judge.py", "--questions_files", file, "--port", 0)
    assert (done.returncode, done.stderr) == (1, f"{file}:1: answer: missing\n")
