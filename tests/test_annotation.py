"""Annotators: shared prompts, several annotators combined, memory that does not grow."""

import math
from statistics import fmean, pstdev

import pytest
from transformers import AutoModelForSequenceClassification

from commands import ran, read_jsonl, run, write_jsonl
from test_models import loaded, score

# Runs a script and prints its own peak of resident memory in KiB; rusage would include the peak of
# the process that started it.
PEAK = """import os, re, runpy, sys
del sys.argv[0]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])"""
TURN = [{"role": "user", "content": "Which?"}]


def row(i, responses, **other):
    return {
        "id": str(i),
        "prompt": TURN,
        "responses": responses,
        "finish_reasons": ["stop"] * len(responses),
        **other,
    }


# annotation/1a_reward_model.py


def annotation(model, file):
    script = "annotation/1a_reward_model.py"
    return [script, "--model_name_or_path", model, "--responses_file", file]


@pytest.mark.parametrize(
    "responses",
    [
        ["The answer is 7."],
        ["7.", "7.", "7."],
        ["", "7", "7.", "7. Well, well."],
        ["It is 7.", "It is 7. " * 12],
    ],
    ids=["one", "equal", "each begins the next", "short and long"],
)
def test_what_responses_share_is_scored_once_and_changes_nothing(responses, reward_model, tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", [row(i, responses) for i in range(3)])
    out = tmp_path / "out.jsonl"
    by_hand = [score(reward_model, TURN, text) for text in responses]
    for tokens in (1, 50, 5000):
        command = annotation(reward_model, file)
        ran(*command, "--output_file", out, "--batch_tokens", tokens)
        for scored in read_jsonl(out):
            assert scored["rewards"] == pytest.approx(by_hand, abs=1e-4)


def test_a_model_with_two_labels_is_refused(reward_model, tmp_path):
    tokenizer, model = loaded(reward_model, AutoModelForSequenceClassification)
    model.config.num_labels = 2
    kind = type(model)(model.config)
    kind.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    model.config.num_labels = 1
    file = write_jsonl(tmp_path / "in.jsonl", [row(0, ["7."])])
    command = annotation(tmp_path / "model", file)
    done = run(*command, "--output_file", tmp_path / "out.jsonl")
    assert done.returncode == 1
    assert not (tmp_path / "out.jsonl").exists()
    error = done.stderr.splitlines()[-1]
    assert error == f"{tmp_path}/model: gives 2 scores, a reward model gives one"


# annotation/1e_combined.py


def combine(tmp_path, parts, *flags):
    files = [write_jsonl(tmp_path / f"{i}.jsonl", part) for i, part in enumerate(parts)]
    command = ["annotation/1e_combined.py", "--rewards_files", *files]
    return run(*command, "--output_file", tmp_path / "out.jsonl", *flags)


def standardised(scores):
    """{score: its standard score}"""
    return {score: (score - fmean(scores)) / pstdev(scores) for score in scores}


def test_the_sum_of_standardised_scores(tmp_path):
    """A row that an annotator dropped is missing, but counts in the mean of the other annotator."""
    first = [
        row(0, ["a", "b"], rewards=[1.0, 5.0], annotator="rm"),
        row(1, ["a", "b"], rewards=[2.0, 0.0], annotator="rm"),
        row(2, ["a", "b"], rewards=[7.0, 3.0], annotator="rm"),
    ]
    second = [
        row(2, ["a", "b"], rewards=[0.0, 1.0], annotator="judge"),
        row(0, ["a", "b"], rewards=[1.0, 1.0], annotator="judge"),
    ]
    second[0]["judgement"] = [{"a": 0, "b": 1, "probability": 0.0}]
    first[0]["gate"] = {"correctness": 1.0}
    done = combine(tmp_path, [first, second], "--weights", 2, -0.5)
    assert done.returncode == 0, done.stderr
    assert "rows in: 3, dropped, not in every file: 1, rows out: 2, " in done.stdout
    z_rm = standardised([1, 5, 2, 0, 7, 3])
    z_judge = standardised([0, 1, 1, 1])
    combined = read_jsonl(tmp_path / "out.jsonl")
    assert [r["id"] for r in combined] == ["0", "2"]
    assert combined[0]["annotator"] == "2*rm + -0.5*judge"
    for r, scores in zip(combined, [[(1, 1), (5, 1)], [(7, 0), (3, 1)]], strict=True):
        assert not {"judgement", "gate"} & r.keys()
        rewards = [2 * z_rm[rm] - 0.5 * z_judge[judge] for rm, judge in scores]
        assert r["rewards"] == pytest.approx(rewards)
        for objectives, (rm, judge) in zip(r["objectives"], scores, strict=True):
            expected = {"rm": z_rm[rm], "judge": z_judge[judge]}
            assert objectives == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"responses": ["a", "c"]}, "1.jsonl:1: responses: not those of an earlier file"),
        ({"annotator": "rm"}, "1.jsonl: annotator: rm is that of another file, too"),
        ({"id": "9"}, "0.jsonl: id: no row is in all files"),
        ({"rewards": [1.0]}, "1.jsonl:1: rewards: not a list with one entry for each response"),
    ],
    ids=["other responses", "one annotator twice", "no common row", "a reward is missing"],
)
def test_what_cannot_be_combined(tmp_path, change, reason):
    first = row(0, ["a", "b"], rewards=[1.0, 2.0], annotator="rm")
    second = {**first, "annotator": "judge", **change}
    done = combine(tmp_path, [[first], [second]])
    assert done.returncode == 1
    assert not (tmp_path / "out.jsonl").exists()
    assert done.stderr == f"{tmp_path}/{reason}\n".replace("@", str(tmp_path))


def test_an_annotator_that_finds_all_responses_equal_adds_nothing(tmp_path):
    """A verifier that finds nothing right in a round must not end the run."""
    model = [row(0, ["a", "b"], rewards=[1.0, 3.0], annotator="rm")]
    verifier = [row(0, ["a", "b"], rewards=[0.0, 0.0], annotator="verifier")]
    judge = [row(0, ["a", "b"], rewards=[5.0, 5.0], annotator="judge")]
    done = combine(tmp_path, [model, verifier])
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/1.jsonl: rewards: all are 0, they add nothing" in done.stdout
    assert read_jsonl(tmp_path / "out.jsonl")[0]["rewards"] == [-1.0, 1.0]

    (tmp_path / "out.jsonl").unlink()
    done = combine(tmp_path, [verifier, judge])
    assert done.returncode == 1 and not (tmp_path / "out.jsonl").exists()
    assert done.stderr == f"{tmp_path}/0.jsonl: rewards: no annotator prefers any response\n"


def test_a_weight_for_each_annotator(tmp_path):
    first = row(0, ["a", "b"], rewards=[1.0, 2.0], annotator="rm")
    second = {**first, "annotator": "judge"}
    done = combine(tmp_path, [[first], [second]], "--weights", 1)
    assert done.returncode == 2 and "--weights: 1 for 2 files" in done.stderr


def one_agreed_one_disputed():
    """Rows of two annotators whose standardised scores are 1 and -1: they agree on the first."""
    first = [row(i, ["a", "b"], rewards=[1.0, 3.0], annotator="rm") for i in range(2)]
    second = [
        row(0, ["a", "b"], rewards=[0.0, 4.0], annotator="judge"),
        row(1, ["a", "b"], rewards=[4.0, 0.0], annotator="judge"),
    ]
    return first, second


def test_a_pessimistic_reward_is_a_lower_confidence_bound(tmp_path):
    """Weights 2 and 1: on the disputed row the deviation is sqrt(8) / 3, and W is 3.

    An annotator that prefers no response has no say in it.
    """
    first, second = one_agreed_one_disputed()
    expected = [[-3, 3], [-1 - math.sqrt(2), 1 - math.sqrt(2)]]
    done = combine(tmp_path, [first, second], "--weights", 2, 1, "--pessimism", 0.5)
    assert done.returncode == 0, done.stderr
    combined = read_jsonl(tmp_path / "out.jsonl")
    for r, by_hand in zip(combined, expected, strict=True):
        assert r["rewards"] == pytest.approx(by_hand)
        assert r["annotator"] == "2*rm + 1*judge - 0.5*disagreement"

    silent = [row(i, ["a", "b"], rewards=[7.0, 7.0], annotator="verifier") for i in range(2)]
    flags = ["--weights", 2, 1, 5, "--pessimism", 0.5]
    done = combine(tmp_path, [first, second, silent], *flags)
    assert done.returncode == 0, done.stderr
    again = read_jsonl(tmp_path / "out.jsonl")
    assert [r["rewards"] for r in again] == [r["rewards"] for r in combined]


def test_without_pessimism_the_rewards_are_the_sum_byte_for_byte(tmp_path):
    first, second = one_agreed_one_disputed()
    flags = ["--weights", 0.1, 0.7]
    combine(tmp_path, [first, second], *flags)
    before = (tmp_path / "out.jsonl").read_bytes()
    assert [r["rewards"] for r in read_jsonl(tmp_path / "out.jsonl")] == [
        [0.1 * -1.0 + 0.7 * -1.0, 0.1 * 1.0 + 0.7 * 1.0],
        [0.1 * -1.0 + 0.7 * 1.0, 0.1 * 1.0 + 0.7 * -1.0],
    ]
    combine(tmp_path, [first, second], *flags, "--pessimism", 0)
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_a_pessimist_prefers_what_annotators_agree_on(tmp_path):
    """Standardised by hand: the sums are (1.17, 1.06, -2.22), and b is the one in dispute."""
    responses = ["a", "b", "c"]
    first = [row(0, responses, rewards=[1.0, 3.0, -1.0], annotator="rm")]
    second = [row(0, responses, rewards=[1.5, 0.6, 0.0], annotator="judge")]
    z_rm, z_judge = standardised([1, 3, -1]), standardised([1.5, 0.6, 0])
    sums = [z_rm[1] + z_judge[1.5], z_rm[3] + z_judge[0.6], z_rm[-1] + z_judge[0]]
    # Of two annotators of equal weight the deviation is half the distance of their scores.
    halves = [
        abs(z_rm[1] - z_judge[1.5]) / 2,
        abs(z_rm[3] - z_judge[0.6]) / 2,
        abs(z_rm[-1] - z_judge[0]) / 2,
    ]
    done = combine(tmp_path, [first, second], "--pessimism", 1)
    assert done.returncode == 0, done.stderr
    (combined,) = read_jsonl(tmp_path / "out.jsonl")
    expected = [total - 2 * half for total, half in zip(sums, halves, strict=True)]
    assert combined["rewards"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("count", "flags", "reason"),
    [
        (1, ["--pessimism", 1], "--pessimism: one annotator cannot disagree; give two or more"),
        (2, ["--pessimism", 1, "--weights", 1, 0], "--pessimism: with --weights above 0 only"),
        (2, ["--pessimism", 1, "--weights", 1, -1], "--pessimism: with --weights above 0 only"),
        (2, ["--pessimism", -1], "argument --pessimism: -1: below 0"),
        (2, ["--pessimism", "nan"], "argument --pessimism: nan: not a finite number"),
    ],
)
def test_pessimism_needs_annotators_that_can_disagree(tmp_path, count, flags, reason):
    parts = one_agreed_one_disputed()[:count]
    done = combine(tmp_path, parts, *flags)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith(f"error: {reason}\n")
    assert not (tmp_path / "out.jsonl").exists()


# annotation/2_pairs.py


def test_memory_does_not_grow_with_the_file(tmp_path):
    """The memory for 5,400 rows more, of 16 KB each, is less than a tenth of their size."""

    def peak(count):
        scored = []
        for i in range(10, 10 + count):
            long_text = (f"{i}" * 8000)[:8000]
            scored.append(row(i, [long_text, "b" * 8000], rewards=[1.0, 0.0]))
        file = write_jsonl(tmp_path / "rewards.jsonl", scored)
        flags = ["--rewards_file", file, "--output_file", tmp_path / "pairs.jsonl", "--n", 2]
        done = ran("-c", PEAK, "annotation/2_pairs.py", *flags)
        assert len(read_jsonl(tmp_path / "pairs.jsonl")) == count
        return int(done.stdout.split()[-1]) * 1024

    memory_of_600 = peak(600)
    memory_of_6000 = peak(6000)
    assert memory_of_6000 - memory_of_600 < 0.1 * 5400 * 16_000


def test_the_preferred_response_is_the_assistants(tmp_path):
    """Defect 11: the chosen answers were stored as the user's."""
    file = write_jsonl(tmp_path / "rewards.jsonl", [row(0, ["good", "bad"], rewards=[1.0, 0.0])])
    ran("annotation/2_pairs.py", "--rewards_file", file, "--output_file", tmp_path / "pairs.jsonl")
    (pair,) = read_jsonl(tmp_path / "pairs.jsonl")
    assert pair["chosen"] == [{"role": "assistant", "content": "good"}]
    assert pair["rejected"] == [{"role": "assistant", "content": "bad"}]
