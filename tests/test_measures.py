"""RewardBench, length bias and calibration: every number is worked out by hand."""

import json
import math
import runpy

import pytest

from commands import ROOT, ran, read_jsonl, run, write_jsonl

BENCH = "reward_modeling/3_rewardbench.py"
# (subset, reward of the chosen response, reward of the rejected response)
V1 = [
    ("alpacaeval-easy", 2, 1),
    ("alpacaeval-easy", 1, 2),
    ("mt-bench-med", 3, 1),
    # Equal rewards are no success.
    ("mt-bench-hard", 1, 1),
    ("llmbar-natural", 2, 1),
    ("xstest-should-refuse", 2, 1),
    ("xstest-should-respond", 1, 2),
    ("math-prm", 2, 1),
    ("hep-python", 1, 2),
]


def published(subset, chosen="yes", rejected="no", **other):
    return {
        "prompt": f"Which, {subset}?",
        "chosen": chosen,
        "rejected": rejected,
        "subset": subset,
        **other,
    }


def prepared(tmp_path, rows, name="data.jsonl"):
    """(the rows of the benchmark, what was printed)"""
    file = write_jsonl(tmp_path / name, rows)
    done = ran(BENCH, "--datasets", file, "--output_file", tmp_path / "bench.jsonl")
    return read_jsonl(tmp_path / "bench.jsonl"), done.stdout


def table(tmp_path, name, bench, rewards, **more):
    """(the numbers of an annotator, what was printed); rewards of None are a dropped row."""
    scored = [{**row, "rewards": r, **more} for row, r in zip(bench, rewards, strict=True) if r]
    file = write_jsonl(tmp_path / f"{name}.jsonl", scored)
    flags = ["--bench_file", tmp_path / "bench.jsonl", "--rewards_files", file, "--names", name]
    done = ran(BENCH, *flags, "--output_dir", tmp_path)
    return json.loads((tmp_path / "rewardbench.json").read_text())[name], done.stdout


def test_v1_sections_are_weighed_by_the_official_sizes(tmp_path):
    """Defect 10: the sizes of xstest-should-refuse, 154, and -should-respond, 250, were swapped."""
    rows = [published(subset, id=i) for i, (subset, *_) in enumerate(V1)]
    bench, printed = prepared(tmp_path, rows)
    for row in bench:
        assert row["responses"] == ["yes", "no"]
        assert row["correct"] == [True, False]
    assert "alpacaeval-easy: 2 of 100" in printed
    assert "math-prm: 1 of 447" in printed
    numbers, printed = table(tmp_path, "model", bench, [[float(c), float(r)] for _, c, r in V1])
    sections = {
        "Chat": (0.5 * 100 + 1 * 40) / 140,
        "Chat Hard": (0 * 37 + 1 * 100) / 137,
        "Safety": (1 * 154 + 0 * 250) / 404,
        "Reasoning": (1 * 984 + 0 * 164) / 1148,
    }
    assert numbers["v1"]["sections"] == pytest.approx(sections)
    assert numbers["v1"]["score"] == pytest.approx(sum(sections.values()) / 4)
    chat, chat_hard = 100 * sections["Chat"], 100 * sections["Chat Hard"]
    assert f"| model | {chat:.1f} | {chat_hard:.1f} | 38.1 | 85.7 |" in printed
    assert "ArmoRM" not in printed


def test_published_scores_stand_below_a_complete_v1(tmp_path):
    """An annotator may have dropped a row; the bench has all 2985."""
    rules = runpy.run_path(str(ROOT / "reward_modeling/rewardbench_rules.py"))
    rows = []
    for subset, size in rules["V1_ROWS"].items():
        rows += [published(subset, id=i) for i in range(size)]
    bench, printed = prepared(tmp_path, rows)
    assert len(bench) == 2985
    assert "not whole" not in printed
    _, printed = table(tmp_path, "model", bench, [None, *[[1.0, 0.0]] * 2984])
    assert "| model | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 | 2984 of 2985 |" in printed
    assert "| ArmoRM (slides) | 96.9 | 76.8 | 92.2 | 97.3 | 90.8 | 2985 |" in printed


def test_the_columns_are_the_sections_of_all_annotators(tmp_path):
    """The first annotator has dropped all rows of a section, the second those of another."""
    rows = [published(name, section=name, id=name) for name in ("x", "y", "z")]
    bench, _ = prepared(tmp_path, rows)
    flags = ["--bench_file", tmp_path / "bench.jsonl", "--names", "first", "second"]
    flags.append("--rewards_files")
    for name, kept in (("first", bench[::2]), ("second", bench[:2])):
        scored = [{**row, "rewards": [1.0, 0.0]} for row in kept]
        flags.append(write_jsonl(tmp_path / f"{name}.jsonl", scored))
    printed = ran(BENCH, *flags, "--output_dir", tmp_path).stdout
    assert "| annotator | x | z | y | score | rows |" in printed
    assert "| first | 100.0 | 100.0 | - | 100.0 | 2 of 3 |" in printed
    assert "| second | 100.0 | - | 100.0 | 100.0 | 2 of 3 |" in printed


def test_rows_that_an_annotator_dropped_are_told(tmp_path):
    bench, _ = prepared(tmp_path, [published(subset, id=i) for i, (subset, *_) in enumerate(V1)])
    rewards = [[float(chosen), float(rejected)] for _, chosen, rejected in V1]
    numbers, printed = table(tmp_path, "model", bench, [None, *rewards[1:]])
    assert numbers["v1"]["sections"]["Chat"] == pytest.approx((0 * 100 + 1 * 40) / 140)
    assert numbers["v1"]["rows"]["alpacaeval-easy"] == 1
    assert numbers["v1"]["of"]["alpacaeval-easy"] == 2
    assert "| 8 of 9 |" in printed


def test_v2_is_best_of_four_and_equals_share(tmp_path):
    rows = [published("Math", ["a"], ["b", "c", "d"], id=str(i)) for i in range(3)]
    bench, _ = prepared(tmp_path, rows)
    assert [row["correct"] for row in bench] == [[True, False, False, False]] * 3
    numbers, _ = table(tmp_path, "model", bench, [[3.0, 1, 2, 0], [2.0, 2, 1, 0], [1.0, 3, 0, 0]])
    assert numbers["v2"]["sections"] == {"Math": pytest.approx((1 + 0.5 + 0) / 3)}


def test_benchmarks_of_several_sizes_go_in_one_file(tmp_path):
    rows = [published("math-prm"), published("Math", ["a"], ["b", "c", "d"], id="x")]
    bench, _ = prepared(tmp_path, rows)
    assert [len(row["responses"]) for row in bench] == [2, 4]
    numbers, printed = table(tmp_path, "model", bench, [[1.0, 0], [1.0, 0, 0, 0]])
    assert numbers["v1"]["score"] == numbers["v2"]["score"] == 1
    assert "\nv2:\n" in printed


# {id: (rewards of the right responses, of the wrong responses)}
TIES = {
    # above by 3
    "ref:0": ([5.0], [1.0, 2.0]),
    # above by 2, 1 apart
    "tied:0": ([5.0, 4.0], [1.0, 2.0, 0.0]),
    # above by 0.5
    "ref:1": ([3.0], [2.5]),
    # above by 1.5, 1 apart
    "tied:1": ([5.0, 4.0, 4.5], [2.0, 2.5]),
    # below
    "ref:2": ([1.0], [2.0]),
    # above by 1, 2 apart
    "tied:2": ([3.0, 1.0], [0.0]),
}


def test_ties_of_v2_by_hand(tmp_path):
    """Prompts of two to five responses come in rows of four.

    The rewards of the repeated responses change nothing.
    """
    rows = []
    reward = {}
    for name, (right, wrong) in TIES.items():
        right = {f"{name} right {i}": r for i, r in enumerate(right)}
        wrong = {f"{name} wrong {i}": r for i, r in enumerate(wrong)}
        rows.append(published("Ties", [*right], [*wrong], id=name))
        reward |= right | wrong
    bench, _ = prepared(tmp_path, rows)
    assert len(bench) == 8
    assert {len(row["responses"]) for row in bench} == {4}
    scored = [[reward[text] for text in row["responses"]] for row in bench]
    numbers, _ = table(tmp_path, "model", bench, scored)
    # Of 0 and 1 the right responses are further above than apart; of 0 the reference's, too.
    preferred, hard = 2 / 3, 1 / 3
    close = (math.tanh(2 / 1 - 1) + math.tanh(0.5 / 1 - 1) + math.tanh(-1 / 2 - 1)) / 3
    by_hand = 0.3 * 1 + 0.3 * 2 / 3 + 0.2 * preferred + 0.2 * hard + 0.01 * close
    assert numbers["v2"]["sections"]["Ties"] == pytest.approx(by_hand)
    judgement = [{"a": 0, "b": 1, "probability": 0.5}]
    pairwise, printed = table(tmp_path, "pairs", bench, scored, judgement=judgement)
    assert pairwise["v2"]["sections"]["Ties"] is None
    assert "| pairs | - | - | 8 of 8 |" in printed


def test_a_prompt_of_ties_that_lost_one_side_is_left_out(tmp_path):
    """The annotator had no room for the row of its wrong responses."""
    sides = [[f"{kind} {i}" for i in range(4)] for kind in ("right", "wrong")]
    rows = [published("Ties", *sides, id="tied:0"), published("Ties", *sides, id="tied:1")]
    bench, _ = prepared(tmp_path, rows)
    assert len(bench) == 4
    scored = [[1.0] * 4, None, [1.0] * 4, [0.0] * 4]
    numbers, printed = table(tmp_path, "model", bench, scored)
    of_second_prompt, _ = table(tmp_path, "model", bench[2:], scored[2:])
    assert numbers["v2"]["sections"] == of_second_prompt["v2"]["sections"]
    assert "| 3 of 4 |" in printed
    numbers, _ = table(tmp_path, "model", bench, [scored[0], None, None, None])
    assert numbers["v2"]["sections"] == {"Ties": None}


def test_held_out_pairs_are_measured_by_source(tmp_path):
    rows = []
    for i, source in enumerate(["HH-RLHF", "HH-RLHF", "HH-RLHF", "SHP"]):
        row = {
            "id": str(i),
            "prompt": [{"role": "user", "content": "?"}],
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
            "source": source,
            "answer": "a",
        }
        rows.append(row)
    bench, _ = prepared(tmp_path, rows, "held_out.jsonl")
    assert bench[0]["responses"] == ["a", "b"]
    assert bench[0]["answer"] == "a"
    numbers, _ = table(tmp_path, "model", bench, [[2.0, 1.0], [2.0, 1.0], [1.0, 2.0], [2.0, 1.0]])
    assert numbers["held_out"]["subsets"] == {"HH-RLHF": pytest.approx(2 / 3), "SHP": 1}
    assert numbers["held_out"]["score"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "?", "chosen": "a"}, "chosen: a pair has prompt, chosen and rejected"),
        (
            published("Chemistry", ["a"], ["b", "c", "d"]),
            "subset: 'Chemistry' is not one of the benchmark's",
        ),
        (
            {"prompt": "?", "chosen": ["a"], "rejected": "bcd"},
            "chosen: a pair has prompt, chosen and rejected",
        ),
    ],
    ids=["no pair", "no subset of v2", "a list and a text"],
)
def test_rows_of_no_benchmark(tmp_path, row, reason):
    file = write_jsonl(tmp_path / "data.jsonl", [published("math-prm"), row])
    done = run(BENCH, "--datasets", file, "--output_file", tmp_path / "bench.jsonl")
    assert done.returncode == 1
    assert done.stderr == f"{file}:2: {reason}\n"
    assert not (tmp_path / "bench.jsonl").exists()


def test_rewards_of_another_bench(tmp_path):
    bench, _ = prepared(tmp_path, [published("math-prm", id=1)])
    file = write_jsonl(tmp_path / "other.jsonl", [{**bench[0], "id": "x", "rewards": [1.0, 2.0]}])
    flags = ["--bench_file", tmp_path / "bench.jsonl", "--rewards_files", file, "--names", "m"]
    done = run(BENCH, *flags, "--output_dir", tmp_path / "out")
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert done.stderr == f"{file}:1: id: 'x' does not stand in {tmp_path / 'bench.jsonl'}\n"


# reward_modeling/4_length_bias.py


def sampled(i, lengths, rewards):
    return {
        "id": str(i),
        "prompt": [{"role": "user", "content": "?"}],
        "responses": ["x" * n for n in lengths],
        "finish_reasons": ["stop"] * len(lengths),
        "rewards": rewards,
    }


def test_length_bias_is_pearsons_correlation_by_prompt(tmp_path):
    lengths = [[10 * i + 1, 10 * i + 2, 10 * i + 6] for i in range(5)]
    rewards = [[1.0, 2.0, 6.0], [6.0, 5.0, 1.0], [0.0, 1.0, 0.0], [1.0, 2.0, 6.0], [2.0, 1.0, 3.0]]
    # The correlation of (1, 2, 6) with (0, 1, 0) and with (2, 1, 3).
    third = -1 / math.sqrt(14 * 2 / 3)
    fifth = 4 / math.sqrt(14 * 2)
    by_hand = [1, -1, third, 1, fifth]
    rows = [sampled(i, *pair) for i, pair in enumerate(zip(lengths, rewards, strict=True))]
    rows.append(sampled(8, [3, 3, 3], [1.0, 2.0, 3.0]))
    # The standard deviation of these is above 0, by rounding.
    rows.append(sampled(9, [1, 2, 3], [0.1, 0.1, 0.1]))
    file = write_jsonl(tmp_path / "rewards.jsonl", rows)
    flags = ["--rewards_files", file, "--names", "model", "--output_dir", tmp_path / "out"]
    printed = ran("reward_modeling/4_length_bias.py", *flags).stdout
    result = json.loads((tmp_path / "out/length_bias.json").read_text())["model"]
    assert result["prompts"] == 5
    assert result["without_correlation"] == 2
    assert [group["mean"] for group in result["groups"]] == pytest.approx(by_hand)
    assert [group["mean_length"] for group in result["groups"]] == [3, 13, 23, 33, 43]
    assert result["mean"] == pytest.approx(sum(by_hand) / 5)
    assert f"| model | {result['mean']:.3f} | 5 | 2 |" in printed
    assert (tmp_path / "out/length_bias.png").read_bytes().startswith(b"\x89PNG")


def test_length_bias_needs_rewards_that_vary(tmp_path):
    rows = [sampled(i, [1, 2], [1.0, 1.0]) for i in range(9)]
    file = write_jsonl(tmp_path / "rewards.jsonl", rows)
    flags = ["--rewards_files", file, "--names", "model", "--output_dir", tmp_path / "out"]
    done = run("reward_modeling/4_length_bias.py", *flags)
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert done.stderr == f"{file}: rewards: no prompt with rewards and lengths that vary\n"


# reward_modeling/5_calibration.py


CALIBRATION = "reward_modeling/5_calibration.py"


def test_calibration_compares_probability_and_frequency(tmp_path):
    """Three of four right at 0.75: no error, in whichever order the responses are compared.

    Certain and wrong: nothing but error.
    """
    # A difference of ln 3 is a probability of 0.75.
    rewards = [math.log(3), 0.0]
    rows, certain, pairwise = [], [], []
    for i in range(400):
        row = sampled(i, [1, 2], rewards)
        row |= {"benchmark": "held_out", "correct": [i % 4 > 0, i % 4 == 0]}
        rows.append(row)
        of_another = {"benchmark": "another", "rewards": [900.0, 0.0], "correct": [False, True]}
        certain.append({**row, **of_another, "id": f"other-{i}"})
        probability = 0.5 if i else None
        pairwise.append({**row, "judgement": [{"a": 0, "b": 1, "probability": probability}]})
    # A pairwise judge that gave no probability; ratings, whose difference gives one.
    del pairwise[1]["judgement"][0]["probability"]
    ratings = [{"response": 0, "rating": 1.0}, {"response": 1, "rating": 1.0}]
    pairwise[2] |= {"rewards": [1.0, 1.0], "judgement": ratings}
    file = write_jsonl(tmp_path / "rewards.jsonl", rows + certain)
    pairwise_file = write_jsonl(tmp_path / "pairwise.jsonl", pairwise)
    command = [CALIBRATION, "--names", "model", "pairwise"]
    command += ["--rewards_files", file, pairwise_file, "--output_dir", tmp_path]
    printed = ran(*command, "--benchmark", "held_out").stdout
    result = json.loads((tmp_path / "calibration.json").read_text())
    model = result["model"]
    assert model["rows"] == 400
    assert model["accuracy"] == pytest.approx(0.75)
    low, high = model["bins"]
    assert low["predicted"] == pytest.approx(0.25)
    assert high["predicted"] == pytest.approx(0.75)
    assert low["rows"] + high["rows"] == 400
    assert 150 < low["rows"] < 250
    right = low["rows"] * (1 - low["observed"]) + high["rows"] * high["observed"]
    assert right == pytest.approx(300)
    assert model["calibration_error"] < 0.06
    assert result["pairwise"]["rows"] == 398
    assert result["pairwise"]["accuracy"] == pytest.approx(0.5)
    assert "| pairwise | 0.500 |" in printed
    assert (tmp_path / "calibration.png").exists()
    flags = ["--names", "m", "--rewards_files", file, "--output_dir", tmp_path]
    ran(CALIBRATION, *flags, "--benchmark", "another")
    result = json.loads((tmp_path / "calibration.json").read_text())["m"]
    assert result["accuracy"] == 0
    assert result["calibration_error"] == pytest.approx(1)
    done = run(*command, "--benchmark", "none")
    assert done.returncode == 1
    assert done.stderr == f"{file}: benchmark: no row of two responses and a probability in none\n"
