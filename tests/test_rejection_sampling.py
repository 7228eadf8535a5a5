"""RSO's rejection sampling: which responses are accepted, how they are paired, what is refused."""

import math
from collections import Counter

import pytest

from commands import ran, read_jsonl, run, write_jsonl

SCRIPT = "annotation/2f_rejection_sampling.py"


def row(name, rewards, responses=None, **other):
    """A row of responses that are called A, B, C ... unless others are given."""
    responses = responses or [chr(ord("A") + i) for i in range(len(rewards))]
    return {
        "id": name,
        "prompt": [{"role": "user", "content": f"Question {name}?"}],
        "responses": responses,
        "finish_reasons": ["stop"] * len(responses),
        "rewards": rewards,
        **other,
    }


def sampled(tmp_path, rows, *flags):
    """(the finished process, the pairs)"""
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    out = tmp_path / "out.jsonl"
    done = ran(SCRIPT, "--rewards_file", file, "--output_file", out, *flags)
    return done, read_jsonl(out)


def texts(pair):
    """(chosen text, rejected text)"""
    return pair["chosen"][0]["content"], pair["rejected"][0]["content"]


# Acceptance

ROWS = 4000


def assert_shares(counter, expected):
    """Every share of the rows lies within four standard errors of what is expected."""
    assert counter.keys() <= expected.keys()
    for outcome, probability in expected.items():
        error = math.sqrt(probability * (1 - probability) / ROWS)
        assert counter[outcome] / ROWS == pytest.approx(probability, abs=4 * error), outcome


# By hand, over the six orders of A, B and C. In the first pass they are accepted with probabilities
# of 1, b and c. If A alone has been accepted, the second pass takes B with 1 and C with c / b.
BY_HAND = [
    ((1 / 2, 1 / 4), {"AB": 67 / 96, "AC": 25 / 96, "BC": 4 / 96}),
    # Here the second pass decides most.
    ((1 / 8, 1 / 16), {"AB": 1129 / 1536, "AC": 403 / 1536, "BC": 4 / 1536}),
]


def accepted_twos(tmp_path, rewards, temperature):
    """How often each two of three responses are accepted."""
    rows = [row(f"{i}", rewards) for i in range(ROWS)]
    flags = ["--accepted", 2, "--rejection_temperature", temperature]
    _, pairs = sampled(tmp_path, rows, *flags)
    return Counter("".join(sorted(texts(pair))) for pair in pairs)


@pytest.mark.parametrize(("first_pass", "expected"), BY_HAND)
def test_responses_are_accepted_as_often_as_by_hand(tmp_path, first_pass, expected):
    rewards = [0.0, *(0.5 * math.log(probability) for probability in first_pass)]
    assert_shares(accepted_twos(tmp_path, rewards, temperature=0.5), expected)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1e-6, {"AB": 1.0}), (1e6, {"AB": 1 / 3, "AC": 1 / 3, "BC": 1 / 3})],
    ids=["the best", "any"],
)
def test_the_temperature_says_how_much_the_reward_counts(tmp_path, temperature, expected):
    assert_shares(accepted_twos(tmp_path, [0.0, -0.1, -0.2], temperature), expected)


def test_the_place_of_a_response_does_not_matter(tmp_path):
    """A row's first responses may have another temperature than its last ones."""
    rows = [row(f"{i}", [1.0] * 4 + [0.9]) for i in range(ROWS)]
    # At this temperature any two are accepted; two of the first four are a tie.
    flags = ["--accepted", 2, "--rejection_temperature", 1e6]
    done, pairs = sampled(tmp_path, rows, *flags)
    assert f"pairs dropped, tie: {ROWS - len(pairs)}, pairs out: {len(pairs)}," in done.stdout
    # Of the 10 possible pairs each of the four is in one with the fifth.
    assert_shares(Counter(texts(pair)[0] for pair in pairs), dict.fromkeys("ABCD", 0.1))


def test_the_accepted_are_put_into_random_pairs(tmp_path):
    """Four are accepted for certain; the best of them meets each of the others as often."""
    rows = [row(f"{i}", [0.0, 3.0, 1.0, 4.0, 2.0]) for i in range(ROWS)]
    flags = ["--accepted", 4, "--rejection_temperature", 0.01]
    done, pairs = sampled(tmp_path, rows, *flags)
    assert f"rows in: {ROWS}, pairs out: {2 * ROWS}," in done.stdout
    opponents = Counter()
    for i, (first, second) in enumerate(zip(pairs[::2], pairs[1::2], strict=True)):
        assert [first["id"], second["id"]] == [f"{i}-1", f"{i}-2"]
        # B, C, D and E, each of them once, the higher reward as the chosen one
        assert sorted([*texts(first), *texts(second)]) == list("BCDE")
        for pair in (first, second):
            assert pair["chosen_reward"] > pair["rejected_reward"]
            if texts(pair)[0] == "D":
                opponents[texts(pair)[1]] += 1
    assert_shares(opponents, dict.fromkeys("BCE", 1 / 3))


# Rows


def test_the_rows_of_pairs(tmp_path):
    """Truncated and identical responses are no candidates; the length penalty counts."""
    responses = ["cut o", "short", "much longer", "much longer", "ok"]
    first = row("a", [5.0, 1.0, 4.0, 4.0, 3.0], responses)
    first["finish_reasons"][0] = "length"
    first |= {"temperatures": [1.0] * 5, "judgement": [], "source": "s", "policy": "p"}
    second = row("b", [1.0, 1.0, 1.0], ["same", "same", "cut o"])
    second["finish_reasons"][2] = "length"
    third = row("c", [1.0, 1.0, 1.0], ["x", "y", "cut o"])
    third["finish_reasons"][2] = "length"
    flags = ["--n", 0, "--accepted", 2, "--rejection_temperature", 1e-6]
    done, (pair,) = sampled(tmp_path, [first, second, third], *flags)
    assert pair == {
        "id": "a-1",
        "prompt": first["prompt"],
        "source": "s",
        "policy": "p",
        "chosen": [{"role": "assistant", "content": "much longer"}],
        "rejected": [{"role": "assistant", "content": "ok"}],
        "chosen_reward": 4.0,
        "rejected_reward": 3.0,
    }
    counts = "rows in: 3, rows dropped, identical or truncated: 1, rows with all accepted: 1, "
    counts += "pairs dropped, tie: 1, pairs out: 1, "
    assert counts in done.stdout
    # The scores of short, much longer and ok are now -2, -2.6 and 1.8.
    _, (pair,) = sampled(tmp_path, [first], *flags, "--length_penalty", 0.6)
    assert texts(pair) == ("ok", "short")
    assert (pair["chosen_reward"], pair["rejected_reward"]) == (3.0, 1.0)


def test_where_there_are_too_few_all_are_accepted_and_an_odd_one_stays_alone(tmp_path):
    few = row("a", [3.0, 2.0, 1.0, 1.0, 1.0], ["x", "y", "z", "z", "z"])
    done, pairs = sampled(tmp_path, [few], "--accepted", 4)
    assert [pair["id"] for pair in pairs] == ["a-1"]
    assert "rows in: 1, rows with all accepted: 1, pairs out: 1, " in done.stdout


def test_a_trajectory_is_a_response(tmp_path):
    def turns(text):
        return [
            {"role": "assistant", "content": "I run it."},
            {"role": "tool", "content": text},
            {"role": "assistant", "content": text},
        ]

    rows = [row("a", [1.0, 1.0, 2.0], [turns("1"), turns("1"), turns("2")])]
    _, (pair,) = sampled(tmp_path, rows, "--accepted", 2)
    assert (pair["chosen"], pair["rejected"]) == (turns("2"), turns("1"))


def test_the_pairs_of_a_row_do_not_depend_on_the_other_rows(tmp_path):
    """Nor on their order; another seed gives others."""
    rows = [row(f"{i}", [float(reward) for reward in range(8)]) for i in range(20)]
    flags = ["--accepted", 4, "--rejection_temperature", 3]
    _, pairs = sampled(tmp_path, rows, *flags)
    by_id = {pair["id"]: pair for pair in pairs}
    assert len(by_id) == len(pairs) == 40
    _, backwards = sampled(tmp_path, rows[::-1], *flags)
    assert {pair["id"]: pair for pair in backwards} == by_id
    _, shard = sampled(tmp_path, rows[1::2], *flags)
    assert {pair["prompt"][0]["content"] for pair in shard} == {
        odd["prompt"][0]["content"] for odd in rows[1::2]
    }
    assert all(by_id[pair["id"]] == pair for pair in shard)
    _, others = sampled(tmp_path, rows, *flags, "--seed", 1)
    assert [texts(pair) for pair in others] != [texts(pair) for pair in pairs]


def test_an_id_of_a_pair_cannot_be_that_of_another_rows_pair(tmp_path):
    """Though one row is named as a pair of the other."""
    rows = [row(name, [4.0, 3.0, 2.0, 1.0, 0.0]) for name in ("a", "a-1", "a-2")]
    _, pairs = sampled(tmp_path, rows, "--accepted", 4)
    ids = [pair["id"] for pair in pairs]
    assert ids == ["a-1", "a-2", "a-1-1", "a-1-2", "a-2-1", "a-2-2"]


# Refusals


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--accepted", 3], "--accepted: 3: an even number is needed"),
        (["--accepted", 0], "argument --accepted: 0: below 2"),
        (["--rejection_temperature", 0], "argument --rejection_temperature: 0: not above 0"),
        (["--rejection_temperature", "nan"], "argument --rejection_temperature: nan: not a finite"),
    ],
)
def test_a_flag_that_is_refused(tmp_path, flags, reason):
    file = write_jsonl(tmp_path / "in.jsonl", [row("a", [1.0, 2.0, 3.0])])
    out = tmp_path / "out.jsonl"
    done = run(SCRIPT, "--rewards_file", file, "--output_file", out, *flags)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert reason in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("rewards", "accepted", "reason"),
    [
        ([1.0, 2.0], 2, "{file}:1: responses: 2, --accepted 2 would take all\n"),
        ([1.0] * 3, 2, "{file}: no pair is left (rows in: 1, pairs dropped, tie: 1)\n"),
    ],
)
def test_rows_that_make_no_pairs(tmp_path, rewards, accepted, reason):
    file = write_jsonl(tmp_path / "in.jsonl", [row("a", rewards)])
    out = tmp_path / "out.jsonl"
    done = run(SCRIPT, "--rewards_file", file, "--output_file", out, "--accepted", accepted)
    assert done.returncode == 1
    assert done.stderr == reason.format(file=file)
    assert not out.exists()
