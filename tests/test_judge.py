"""The judge by a language model against judges of every kind, scripted here, and the tiny world's own judge."""

import itertools
import json
import math
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
from scripted_judge import ENVIRONMENT, tiny_judge

SCRIPT = "annotation/1c_llm_judge.py"
TRUE_REWARD = runpy.run_path(str(ROOT / "recipes/tiny/true_reward.py"))
PROMPTS = (
    'scale = [1, 10]\nrating = "{prompt}|{answer}"\npairwise = "{prompt}|{answer_a}|{answer_b}"\n'
)


def judge_that(reply):
    """A judge whose reply depends on the parts of a text between bars, and on how often that was asked before."""
    return scripted_judge.judge_that(lambda text, before: reply(*text.split("|"), before))


def answers(name, n=3, **more):
    """A row whose responses are numbers, by default 0, 1, 2: what the scripted judges go by."""
    row = {"id": name, "prompt": [{"role": "user", "content": f"question {name}"}]}
    row |= {"responses": [str(i) for i in range(n)]} | more
    return row | {"finish_reasons": ["stop"] * len(row["responses"])}


def command(tmp_path, rows, url, *flags, name="rewards.jsonl"):
    prompts = tmp_path / "prompts.toml"
    prompts.exists() or prompts.write_text(PROMPTS)
    file = tmp_path / "responses.jsonl"
    file.exists() or write_jsonl(file, rows)
    given = ["--judge_url", url, "--judge_model", "judge", "--prompts_file", prompts]
    return [SCRIPT, *given, "--responses_file", file, "--output_file", tmp_path / name, *flags]


def judged(tmp_path, rows, reply, *flags, name="rewards.jsonl"):
    """(the rows that come out, the last line, what the judge was asked)."""
    with judge_that(reply) as judge:
        done = ran(*command(tmp_path, rows, judge.url, *flags, name=name), env=ENVIRONMENT)
    return read_jsonl(tmp_path / name), done.stdout, judge.asked


def failed(tmp_path, rows, url, *flags, env=ENVIRONMENT):
    """The one line in which the script gives up; no rewards appear."""
    done = run(*command(tmp_path, rows, url, *flags), env=env)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "rewards.jsonl").exists()
    return done.stderr


def larger(_, first, second, before):
    return f"I see {first} and {second}. [[{'C' if first == second else 'A' if float(first) > float(second) else 'B'}]]"


# Rating


def test_a_rating_is_the_reward(tmp_path):
    """The raw replies stay, and what the row held; the prompt's roles are told, a known answer is not."""
    turns = [("system", "s"), ("user", "q {answer}"), ("assistant", "a"), ("user", "q2")]
    prompt = [{"role": role, "content": content} for role, content in turns]
    rows = [
        answers("a", 2, answer="SECRET", extra=[1]),
        answers("b", 2, prompt=prompt, responses=["{prompt}", "é"]),
    ]
    replies = {"0": "Fine: [[7]]", "1": "[[2.5]]", "{prompt}": "[[10]], yes, [[10]].", "é": "[[1]]"}
    made, told, asked = judged(tmp_path, rows, lambda _, answer, before: replies[answer])
    assert [row["rewards"] for row in made] == [[7.0, 2.5], [10.0, 1.0]]
    for row, before in zip(made, rows, strict=True):
        judgement = [
            {"response": i, "rating": row["rewards"][i], "reply": replies[text]}
            for i, text in enumerate(row["responses"])
        ]
        assert row == before | {
            "rewards": row["rewards"],
            "annotator": "judge",
            "judgement": judgement,
        }
    conversation = "system: s\n\nuser: q {answer}\n\nassistant: a\n\nuser: q2"
    texts = [
        "user: question a|0",
        "user: question a|1",
        f"{conversation}|{{prompt}}",
        f"{conversation}|é",
    ]
    assert sorted(asked) == sorted(texts)
    assert (
        "at most 4 requests for 2 rows" in told
        and "requests: 4, replies without verdict: 0, " in told
    )


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
]
NONSENSE += [
    "<think>Perhaps [[5]]",
    "[[5]] <think>or",
    "<think>[[5]]</think>",
    "[[5]]</think> I cannot say.",
]


def test_nonsense_is_counted_and_not_guessed(tmp_path):
    rows = [
        answers(f"{i}", responses=["0", reply, "1"]) for i, reply in enumerate([*NONSENSE, "[[5]]"])
    ]
    made, told, _ = judged(
        tmp_path, rows, lambda _, answer, before: "[[5]]" if answer in "01" and answer else answer
    )
    assert [row["id"] for row in made] == [str(len(NONSENSE))] and len(made) == 1
    n = len(NONSENSE)
    assert (
        f"rows in: {n + 1}, " in told
        and f"without verdict: {n}, requests refused: 0, dropped: {n}, " in told
    )
    assert "rows out: 1, " in told


RATED = {
    "<think>The form is [[5]]. A weak answer would be [[2]].</think>\n\nClear and right. Rating: [[9]]": 9,
    "The form is [[5]].</think>Rating: [[9]]": 9,  # the judge's template has opened the thought
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
    made, told, _ = judged(tmp_path, rows, lambda _, answer, before: answer)
    assert made[0]["rewards"] == [*RATED.values()] and "without verdict: 0, " in told


def test_a_reply_that_was_cut_off_in_an_unmarked_thought_has_no_verdict(tmp_path):
    """The judge's template has opened the thought; the journal keeps that the reply was cut off."""

    def reply(question, answer, before):
        cut_off = question.endswith(" a") and answer == "1"
        message = {
            "role": "assistant",
            "content": "First I look at [[5]]." + "</think>[[9]]" * (not cut_off),
        }
        return 200, {
            "choices": [{"message": message, "finish_reason": "length" if cut_off else "stop"}]
        }

    with judge_that(
        lambda *shown: (401, {}) if shown[0].endswith(" b") else reply(*shown)
    ) as judge:
        failed(tmp_path, [answers("a"), answers("b")], judge.url, "--concurrency", 1)
    made, told, asked = judged(tmp_path, [], reply)
    assert (
        [row["id"] for row in made] == ["b"] and made[0]["rewards"] == [9.0] * 3 and len(asked) == 3
    )
    assert "replies without verdict: 1, requests refused: 0, dropped: 1, rows out: 1, " in told


def test_only_nonsense(tmp_path):
    """The line shows a reply, so that one sees why; given again, the command says so without a request."""
    with judge_that(lambda *_: "I cannot judge this.") as judge:
        for _ in range(2):
            told = failed(tmp_path, [answers("a", 2)], judge.url)
            wanted = "no row is left; replies without verdict: 2, requests refused: 0, such as 'I cannot judge this.'"
            assert told == f"{tmp_path}/responses.jsonl: {wanted}\n"
    assert len(judge.asked) == 2


# Pairs


def probabilities(row):
    return {(entry["a"], entry["b"]): entry["probability"] for entry in row["judgement"]}


def test_a_judge_that_likes_the_first_place_says_nothing(tmp_path):
    made, _, asked = judged(tmp_path, [answers("a")], lambda *_: "[[A]]", "--method", "all_pairs")
    assert set(probabilities(made[0]).values()) == {0.5} and made[0]["rewards"] == [0.5] * 3
    assert sorted(asked) == sorted(
        f"user: question a|{i}|{j}" for i, j in itertools.permutations(range(3), 2)
    )


@pytest.mark.parametrize("method", ["tournament", "all_pairs"])
def test_a_comparison_counts_after_the_thoughts(tmp_path, method):
    def reply(question, first, second, before):
        wrong = "B" if float(first) > float(second) else "A"
        return f"<think>[[{wrong}]] or [[C]]?</think>{larger(question, first, second, before).replace('[[', '[[ ')}"

    made, told, _ = judged(tmp_path, [answers("a")], reply, "--method", method)
    assert made[0]["rewards"] == [0.0, 0.5, 1.0] and "without verdict: 0, " in told


def test_all_pairs_by_hand(tmp_path):
    """Both orders count, a tie is a half; the reward is the mean probability to win; the raw replies stay in order."""
    said = {"01": "A", "10": "A", "02": "A", "20": "B", "12": "C", "21": "A"}
    made, told, _ = judged(
        tmp_path,
        [answers("a")],
        lambda _, a, b, before: f"{a}{b} [[{said[a + b]}]]",
        "--method",
        "all_pairs",
    )
    assert probabilities(made[0]) == {(0, 1): 0.5, (0, 2): 1.0, (1, 2): 0.25}
    assert made[0]["rewards"] == [0.75, 0.375, 0.375]
    assert made[0]["judgement"][2]["replies"] == ["12 [[C]]", "21 [[A]]"]
    assert "at most 6 requests for 1 rows" in told and "requests: 6, " in told


def matches(strengths):
    """The pairs that meet in a linear tournament for the best, then among the others for the worst, by its words."""
    met, best = set(), 0
    for i in range(1, len(strengths)):
        met.add((best, i))
        best = max(best, i, key=strengths.__getitem__)
    worst, *others = (i for i in range(len(strengths)) if i != best)
    for i in others:
        met.add((worst, i))
        worst = min(worst, i, key=strengths.__getitem__)
    return met


def test_the_tournament_finds_best_and_worst(tmp_path):
    """Of a transitive judge; what is known from the first half is not asked again in the second."""
    orders = [random.Random(i).sample(range(8), 8) for i in range(40)] + [
        list(range(8)),
        list(range(7, -1, -1)),
    ]
    rows = [answers(f"{i}", responses=[str(s) for s in order]) for i, order in enumerate(orders)]
    made, told, asked = judged(tmp_path, rows, larger, "--method", "tournament")
    wanted = [{7: 1.0, 0: 0.0}, 0.5]
    assert [row["rewards"] for row in made] == [
        [wanted[0].get(s, wanted[1]) for s in order] for order in orders
    ]
    assert f"at most {42 * 26} requests for 42 rows" in told
    assert (
        len(set(asked)) == len(asked) == sum(2 * len(matches(order)) for order in orders) < 42 * 26
    )
    for row, order in zip(made, orders, strict=True):
        assert set(probabilities(row)) == matches(order)
    assert {len(row["judgement"]) for row in made} <= set(range(7, 14)) and len(
        made[-1]["judgement"]
    ) == 13


@pytest.mark.parametrize("verdict", ["A", "C"])
def test_a_tournament_without_a_winner_calls_none_the_best(tmp_path, verdict):
    """Or a judge that goes by the place would be right about every pair that begins with the better response."""
    made, _, _ = judged(tmp_path, [answers("a", 2), answers("b", 4)], lambda *_: f"[[{verdict}]]",
                        "--method", "tournament", "--n", 0)  # fmt: skip
    assert [row["rewards"] for row in made] == [[0.5] * 2, [0.5] * 4]


def test_two_responses_meet_once(tmp_path):
    """As the rows of RewardBench."""
    made, _, asked = judged(tmp_path, [answers("a", 2)], larger, "--method", "tournament")
    assert made[0]["rewards"] == [0.0, 1.0] and len(asked) == 2


def test_a_comparison_counts_if_both_orders_have_a_verdict(tmp_path):
    """In row a one reply is nonsense: the rest count. In row b response 2 is in no comparison that counts."""
    rows = [answers("a"), answers("b")]

    def reply(question, first, second, before):
        spoilt = first + second == "20" if question.endswith("a") else "2" in (first, second)
        return "[[A]] or [[B]]?" if spoilt else larger(question, first, second, before)

    made, told, _ = judged(tmp_path, rows, reply, "--method", "all_pairs")
    assert [row["id"] for row in made] == ["a"]
    assert probabilities(made[0]) == {(0, 1): 0.0, (0, 2): None, (1, 2): 0.0} and made[0][
        "rewards"
    ] == [0.0, 0.5, 1.0]
    assert made[0]["judgement"][1]["replies"] == ["I see 0 and 2. [[B]]", "[[A]] or [[B]]?"]
    assert "replies without verdict: 5, requests refused: 0, dropped: 1, rows out: 1, " in told


def test_a_tournament_without_one_of_its_comparisons_is_dropped(tmp_path):
    """And nothing more is asked about it."""
    rows = [answers("a", 8), answers("b", 8)]

    def reply(question, *shown):
        return "?" if question.endswith("a") and "1" in shown[:2] else larger(question, *shown)

    made, told, asked = judged(tmp_path, rows, reply, "--method", "tournament")
    assert [row["id"] for row in made] == ["b"] and sum(
        text.startswith("user: question a") for text in asked
    ) == 2
    assert "replies without verdict: 2, requests refused: 0, dropped: 1, rows out: 1, " in told
    (dropped,) = read_jsonl(tmp_path / "rewards.jsonl.dropped.jsonl")
    assert dropped["id"] == "a" and dropped["rewards"] is None
    assert dropped["judgement"] == [{"a": 0, "b": 1, "probability": None, "replies": ["?", "?"]}]


# How the work is cut


@pytest.mark.parametrize("method", ["tournament", "all_pairs"])
def test_the_same_rows_whatever_the_concurrency_and_the_shards(tmp_path, method):
    rows = [
        answers(f"{i}", responses=[f"{(7 * i + 3 * j) % 11}" for j in range(4)]) for i in range(12)
    ]

    def late(*shown):
        time.sleep(random.random() / 200)
        return larger(*shown)

    made, _, _ = judged(tmp_path, rows, late, "--method", method, "--concurrency", 1)
    assert [row["id"] for row in made] == [row["id"] for row in rows]
    judged(tmp_path, rows, late, "--method", method, "--concurrency", 64, name="64.jsonl")
    assert (tmp_path / "rewards.jsonl").read_bytes() == (tmp_path / "64.jsonl").read_bytes()
    flags = ["--method", method, "--num_shards", 5, "--shard", 1]
    assert judged(tmp_path, rows, late, *flags, name="1.jsonl")[0] == made[1::5]
    flags = ["--method", method, "--num_shards", 20, "--shard", 15]
    assert judged(tmp_path, rows, late, *flags, name="none.jsonl")[0] == []


# A judge that fails


def test_a_judge_that_refuses_connections(tmp_path):
    with judge_that(larger) as judge:
        url = judge.url
    told = failed(tmp_path, [answers("a")], url, "--max_retries", 1)
    assert told.startswith(f"{url}: APIConnectionError: Connection error. ") and told.endswith(
        "command goes on\n"
    )


def test_a_judge_that_does_not_answer_in_time(tmp_path):
    with judge_that(lambda *_: time.sleep(5)) as judge:
        told = failed(tmp_path, [answers("a", 1)], judge.url, "--timeout", 0.2, "--max_retries", 1)
        assert (
            told.startswith(f"{judge.url}: APITimeoutError: Request timed out.")
            and len(judge.asked) == 2
        )


def test_a_judge_that_is_busy_is_asked_again(tmp_path):
    def reply(_, answer, before):
        return ([429, 503, 500][before], {"error": {"message": "busy"}}) if before < 3 else "[[5]]"

    made, told, asked = judged(tmp_path, [answers("a")], reply, "--max_retries", 3)
    assert made[0]["rewards"] == [5.0] * 3 and len(asked) == 12 and "requests: 3, " in told


ERRORS = {
    429: ("RateLimitError: Error code: 429", {"error": {"message": "slow down"}}, "slow down"),
    401: (
        "AuthenticationError: Error code: 401",
        {"error": {"message": "a wrong key"}},
        "a wrong key",
    ),
    404: (
        "NotFoundError: Error code: 404",
        {"error": {"message": "no model `judge`"}},
        "no model `judge`",
    ),
    200: ("AttributeError", "<html>welcome</html>", "'choices'"),
}


@pytest.mark.parametrize("status", ERRORS)
def test_a_judge_that_refuses(tmp_path, status):
    start, content, words = ERRORS[status]
    with judge_that(lambda *_: (status, content)) as judge:
        told = failed(
            tmp_path,
            [answers(f"{i}") for i in range(9)],
            judge.url,
            "--max_retries",
            1,
            "--concurrency",
            2,
        )
        assert told.startswith(f"{judge.url}: {start}") and words in told
        assert len(judge.asked) <= (4 if status == 429 else 2), (
            "nothing new is asked once it is clear"
        )


def test_a_request_that_is_refused_costs_its_row(tmp_path):
    """As one that is longer than the judge's context; refused rows are asked again, if the command is."""
    bad = (400, {"error": {"message": "too long"}})
    rows = [answers("a"), answers("b", responses=["0", "long", "1"]), answers("c")]
    made, told, _ = judged(
        tmp_path, rows, lambda _, answer, before: bad if answer == "long" else "[[5]]"
    )
    assert [row["id"] for row in made] == ["a", "c"]
    assert "replies without verdict: 0, requests refused: 1, dropped: 1, rows out: 2, " in told
    (tmp_path / "rewards.jsonl").unlink()
    with judge_that(lambda *_: bad) as judge:
        assert (
            "no row is left; replies without verdict: 0, requests refused: 9, such as "
            in failed(tmp_path, rows, judge.url)
        )


NO_REPLY = {
    "403": (403, {"error": {"message": "content policy"}}),
    "404": (404, {"error": {"message": "not found"}}),
    "413": (413, {"error": {"message": "too large"}}),
    "451": (451, {"error": {"message": "for legal reasons"}}),
    "a lasting 500": (500, {"error": {"message": "an error"}}),
    "choices null": (200, {"choices": None}),
    "no choices": (200, {"choices": []}),
    "a number": (200, {"choices": [{"message": {"role": "assistant", "content": 7}}]}),
    "a page": (200, "<html>welcome</html>"),
    "nothing": (200, ""),
}


@pytest.mark.parametrize("what", NO_REPLY)
def test_one_bad_reply_costs_its_row_alone(tmp_path, what):
    """Its words are kept with the row, and the rest goes on."""
    rows = [answers("a", responses=["bad", "0", "1"]), answers("b"), answers("c")]
    made, told, _ = judged(
        tmp_path,
        rows,
        lambda _, answer, before: NO_REPLY[what] if answer == "bad" else "[[5]]",
        "--max_retries",
        0,
    )
    assert [row["id"] for row in made] == ["b", "c"]
    assert (
        "requests: 8, replies without verdict: 0, requests refused: 1, dropped: 1, rows out: 2, "
        in told
    )
    (dropped,) = read_jsonl(tmp_path / "rewards.jsonl.dropped.jsonl")
    assert (
        dropped["judgement"][0]["reply"].startswith("refused: ")
        and dropped["judgement"][1]["rating"] == 5.0
    )


def test_a_reply_in_parts_is_read(tmp_path):
    parts = [{"type": "text", "text": "I say [["}, {"type": "text", "text": "7]]"}]
    reply = (200, {"choices": [{"message": {"role": "assistant", "content": parts}}]})
    made, _, _ = judged(tmp_path, [answers("a")], lambda *_: reply)
    assert made[0]["rewards"] == [7.0] * 3 and made[0]["judgement"][0]["reply"] == "I say [[7]]"


def test_too_many_refusals_end_the_run(tmp_path):
    """More than a tenth of all requests; a larger share can be allowed."""
    refusal = (403, {"error": {"message": "content policy"}})
    rows = [answers(f"{i}", responses=["bad" if i % 3 == 0 else "0"]) for i in range(60)]

    def reply(_, answer, before):
        return refusal if answer == "bad" else "[[5]]"

    with judge_that(reply) as judge:
        told = failed(tmp_path, rows, judge.url, "--max_retries", 0, "--concurrency", 2)
    assert (
        "11 of " in told
        and "requests refused, such as PermissionDeniedError" in told
        and "content policy" in told
    )
    made, told, _asked = judged(tmp_path, rows, reply, "--max_retries", 0, "--max_refused", 0.5)
    assert len(made) == 40 and "requests refused: 20, dropped: 20, rows out: 40, " in told


@pytest.mark.parametrize("method", ["rating", "tournament"])
def test_a_judge_that_dies_midway_is_not_asked_again_what_it_answered(tmp_path, method):
    """The next one is at another address, and is asked by fewer at once: the same rows, each question answered once."""
    rows = [
        answers(f"{i}", responses=[f"{(7 * i + 3 * j) % 11}" for j in range(5)]) for i in range(20)
    ]
    well = (
        larger
        if method == "tournament"
        else lambda _, answer, before: f"[[{int(answer) % 10 + 1}]]"
    )
    flags, requests = ["--method", method, "--max_retries", 0], itertools.count()
    _, _, asked = judged(tmp_path, rows, well, *flags, name="undisturbed.jsonl")
    with judge_that(lambda *shown: well(*shown) if next(requests) < 67 else None) as first:
        assert "APIConnectionError" in failed(tmp_path, rows, first.url, *flags, "--concurrency", 4)
    with judge_that(well) as second:
        told = ran(
            *command(tmp_path, rows, second.url, *flags, "--concurrency", 3), env=ENVIRONMENT
        ).stdout
    assert len(first.answered) == 67 and sorted(first.answered + second.asked) == sorted(asked)
    assert len(set(asked)) == len(asked) and f"requests: {len(second.asked)}, " in told
    assert (tmp_path / "rewards.jsonl").read_bytes() == (
        tmp_path / "undisturbed.jsonl"
    ).read_bytes()
    assert not list(tmp_path.glob("*.partial-*"))


def test_a_kill_loses_nothing_but_what_is_under_way(tmp_path):
    rows, concurrency = [answers(f"{i}") for i in range(60)], 4
    with judge_that(lambda *_: time.sleep(0.005) or "[[5]]") as judge:
        flags = ["--concurrency", concurrency]
        script = command(tmp_path, rows, judge.url, *flags)
        process = subprocess.Popen(
            [sys.executable, *map(str, script)], cwd=ROOT, env=ENVIRONMENT, stdout=-3
        )
        while len(judge.answered) < 70:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        ran(*script, env=ENVIRONMENT)
    assert [row["id"] for row in read_jsonl(tmp_path / "rewards.jsonl")] == [
        row["id"] for row in rows
    ]
    assert len(judge.asked) - len(set(judge.asked)) <= concurrency and len(set(judge.asked)) == 180


# What is wrong before anything is asked


def test_key_and_address_may_stand_in_the_environment(tmp_path):
    with judge_that(lambda *_: "[[5]]") as judge:
        script = command(tmp_path, [answers("a")], judge.url)
        environment = ENVIRONMENT | {"OPENAI_BASE_URL": judge.url, "OPENAI_API_KEY": "abc"}
        ran(SCRIPT, *script[3:], env=environment)
        assert judge.keys == {"Bearer abc"} and len(judge.asked) == 3
    done = run(SCRIPT, *script[3:], env=ENVIRONMENT)
    assert done.returncode == 2 and "--judge_url" in done.stderr.splitlines()[-1]


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
        told = failed(tmp_path, [answers("a")], "http://127.0.0.1:1/v1")
        assert told.startswith(f"{tmp_path}/prompts.toml: {reason}"), told
    (tmp_path / "prompts.toml").unlink()
    script = command(tmp_path, [answers("a")], "http://127.0.0.1:1/v1")
    (tmp_path / "prompts.toml").unlink()
    assert run(*script).stderr == f"{tmp_path}/prompts.toml: No such file or directory\n"
    assert [path.name for path in tmp_path.iterdir()] == ["responses.jsonl"]


def test_bad_rows_are_named(tmp_path):
    told = failed(tmp_path, [answers("a"), answers("b", 2)], "http://127.0.0.1:1/v1")
    assert told == f"{tmp_path}/responses.jsonl:2: responses: 2 where 3 are expected\n"
    write_jsonl(tmp_path / "responses.jsonl", [answers("a", 1)])
    told = failed(tmp_path, [], "http://127.0.0.1:1/v1", "--method", "tournament")
    assert told == f"{tmp_path}/responses.jsonl: responses: 1, a comparison needs two\n"


# The tiny world's judge


@pytest.fixture(scope="module")
def tiny(world, tmp_path_factory):
    files = [world / f"{name}.jsonl" for name in ("prompts", "evaluation", "preferences", "bench")]
    with tiny_judge(tmp_path_factory.mktemp("judge"), files) as url:
        yield url


def compared(world):
    """Rows of two responses each, from the world's preferences."""
    for row in read_jsonl(world / "preferences.jsonl"):
        texts = [row[side][0]["content"] for side in ("chosen", "rejected")]
        yield {key: row[key] for key in ("id", "prompt", "answer")} | {
            "responses": texts,
            "finish_reasons": ["stop"] * 2,
        }


def asked_of(url, body):
    """(status, answer) of a request in OpenAI's format, or of any other text."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"{url}/chat/completions", data)
        ) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize("method", ["rating", "tournament"])
def test_the_tiny_judge_judges_by_the_true_reward(tmp_path, world, tiny, method):
    file = write_jsonl(tmp_path / "in.jsonl", compared(world))
    flags = ["--judge_url", tiny, "--judge_model", "true_reward", "--method", method]
    ran(
        SCRIPT,
        *flags,
        "--responses_file",
        file,
        "--output_file",
        tmp_path / "out.jsonl",
        env=ENVIRONMENT,
    )
    made = read_jsonl(tmp_path / "out.jsonl")
    assert len(made) == 200
    for row in made:
        true = [TRUE_REWARD["true_reward"](text, row["answer"]) for text in row["responses"]]
        if method == "rating":
            assert row["rewards"] == [min(10, max(1, round(1 + 3 * reward))) for reward in true]
        else:
            (entry,) = row["judgement"]
            assert entry["probability"] == (0.5 if true[0] == true[1] else float(true[0] > true[1]))
    assert len({str(row["rewards"]) for row in made}) > (10 if method == "rating" else 1)


def default_question(world, kind, number=0, **more):
    row = list(compared(world))[number]
    prompt = tomllib.loads((ROOT / "annotation/judge_prompts.toml").read_text())[kind]
    texts = {"{prompt}": f"user: {row['prompt'][0]['content']}", "{answer_a}": row["responses"][0]}
    texts |= {"{answer}": row["responses"][0], "{answer_b}": row["responses"][1]} | more
    for holder, text in texts.items():
        prompt = prompt.replace(holder, text)
    return row, {"model": "true_reward", "messages": [{"role": "user", "content": prompt}]}


def test_the_tiny_judges_log_probabilities(world, tiny):
    """P(A) is Bradley and Terry's; the tokens are the verdict's; as many alternatives as are asked for."""
    for number in range(0, 200, 20):
        row, body = default_question(world, "pairwise", number)
        status, answer = asked_of(tiny, body | {"logprobs": True, "top_logprobs": 5})
        (choice,) = answer["choices"]
        tokens = choice["logprobs"]["content"]
        assert (
            status == 200
            and "".join(token["token"] for token in tokens) == choice["message"]["content"]
        )
        top = {entry["token"]: entry["logprob"] for entry in tokens[1]["top_logprobs"]}
        true = [TRUE_REWARD["true_reward"](text, row["answer"]) for text in row["responses"]]
        assert sum(map(math.exp, top.values())) == pytest.approx(1) and set(top) == {"A", "B"}
        assert math.exp(top["A"]) == pytest.approx(
            1 / (1 + math.exp((true[1] - true[0]) / TRUE_REWARD["NOISE"]))
        )
        if true[0] != true[1]:
            assert (
                tokens[1]["logprob"] == max(top.values()) == tokens[1]["top_logprobs"][0]["logprob"]
            )
        usage = answer["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 50
    _, answer = asked_of(tiny, body | {"logprobs": True, "top_logprobs": 1})
    assert [
        len(token["top_logprobs"]) for token in answer["choices"][0]["logprobs"]["content"]
    ] == [1, 1, 1]
    assert "logprobs" not in asked_of(tiny, body)[1]["choices"][0]


def test_a_very_long_answer_breaks_no_sum(world, tiny):
    for first in (True, False):
        _, body = default_question(
            world, "pairwise", **{"{answer_a}" if first else "{answer_b}": "x" * 100_000}
        )
        status, answer = asked_of(tiny, body | {"logprobs": True, "top_logprobs": 2})
        assert status == 200 and answer["choices"][0]["message"]["content"] == (
            "[[B]]" if first else "[[A]]"
        )


def test_the_tiny_judge_refuses_what_it_does_not_know(world, tiny):
    _, good = default_question(world, "rating")
    _, unknown = default_question(world, "rating", **{"{prompt}": "user: Who are you?"})
    cases = [
        (unknown, 400, "the judge does not know this question: Who are you?"),
        (
            good | {"messages": [{"role": "user", "content": "Hello?"}]},
            400,
            "not the form of a prompt",
        ),
        (good | {"messages": []}, 400, "messages with a text"),
        (good | {"model": "other"}, 404, "The model `other` does not exist."),
        (b"{", 400, "not JSON"),
    ]
    for body, wanted, words in cases:
        status, answer = asked_of(tiny, body)
        assert (
            status == wanted
            and words in answer["error"]["message"]
            and answer["error"]["code"] == wanted
        )
    with urllib.request.urlopen(f"{tiny}/models") as response:
        assert [model["id"] for model in json.load(response)["data"]] == ["true_reward"]


def test_the_tiny_judge_needs_answers(tmp_path):
    file = write_jsonl(
        tmp_path / "in.jsonl", [{"id": "a", "prompt": [{"role": "user", "content": "q"}]}]
    )
    done = run("recipes/tiny/4_judge.py", "--questions_files", file, "--port", 0)
    assert (done.returncode, done.stderr) == (1, f"{file}:1: answer: missing\n")
