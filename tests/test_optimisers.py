"""The policy optimisers: each loss by hand on two rows; what their scripts write and refuse."""

import itertools
import json
import math
import os
import random
import runpy
import subprocess
from dataclasses import dataclass
from statistics import fmean
from types import SimpleNamespace

import numpy
import pytest
from datasets import Dataset

import driving
from commands import ROOT, ran, read_jsonl, run, write_jsonl
from conftest import TRAINING, run_here
from record_dry_runs import dry_run
from test_models import history, log_probabilities

BETA = 0.3


def refused(script, monkeypatch, model, file, out, *flags):
    """The message with which a training stops; it must have written nothing."""
    command = ["--model_name_or_path", model, "--ref_model_name_or_path", model]
    command += ["--dataset_name", file, "--output_dir", out, *TRAINING]
    with pytest.raises(SystemExit) as stopped:
        run_here(script, monkeypatch, *command, *flags)
    assert not out.exists()
    return str(stopped.value)


@pytest.fixture(scope="module")
def policy(noisy):
    return noisy


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """(file, rows): two rows of responses of different lengths, with all that a loss may need."""
    rows = [
        {
            "id": "0",
            "prompt": [user("Sort these: dog, cat.")],
            "chosen": [assistant("cat, dog. That is all!")],
            "rejected": [assistant("dog")],
            "explored": "cat.",
            "chosen_win_probability": 0.9,
            "rejected_win_probability": 0.2,
        },
        {
            "id": "1",
            "prompt": [user("Count these: dog.")],
            "chosen": [assistant("one")],
            "rejected": [assistant("It is two, I think.")],
            "explored": "It is one.",
            "chosen_win_probability": 0.6,
            "rejected_win_probability": 0.45,
        },
    ]
    return write_jsonl(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", rows), rows


@dataclass
class LogProbabilities:
    """Of one row's responses: lists over tokens, EOS and the template's line break included."""

    chosen: list[float]
    rejected: list[float]
    explored: list[float]


@pytest.fixture(scope="module")
def by_hand(policy, sft, pairs):
    """For each row its log-probabilities (of the policy, of the reference)."""

    def of(model, row):
        texts = [row["chosen"][0]["content"], row["rejected"][0]["content"], row["explored"]]
        logps = [log_probabilities(model, row["prompt"], text, after="\n") for text in texts]
        return LogProbabilities(*logps)

    _, rows = pairs
    return [(of(policy, row), of(sft, row)) for row in rows]


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def loss_of_row(name, row, policy, reference):
    """By the definitions of the sources; w is the chosen response, l the rejected one.

    A ratio is log pi / pi_ref, summed over the tokens.
    """
    logp_w, logp_l = sum(policy.chosen), sum(policy.rejected)
    ratio_w = logp_w - sum(reference.chosen)
    ratio_l = logp_l - sum(reference.rejected)
    explored = sum(policy.explored)
    explored_ref = sum(reference.explored)
    dpo = -log_sigmoid(BETA * (ratio_w - ratio_l))
    # TRL's IPO and sigmoid_norm take the means over the tokens.
    mean_ratio_margin = ratio_w / len(policy.chosen) - ratio_l / len(policy.rejected)
    nca = -log_sigmoid(BETA * ratio_w)
    nca -= 0.5 * (log_sigmoid(-BETA * ratio_w) + log_sigmoid(-BETA * ratio_l))
    sppo_w = ratio_w - (row["chosen_win_probability"] - 0.5) / BETA
    sppo_l = ratio_l - (row["rejected_win_probability"] - 0.5) / BETA
    selm_bonus = BETA * (explored - explored_ref) + BETA * explored_ref
    losses = {
        "sigmoid": dpo,
        "hinge": max(0.0, 1 - BETA * (ratio_w - ratio_l)),
        # not the sigmoid-norm of RSO, which is TRL's sigmoid
        "sigmoid_norm": -log_sigmoid(BETA * mean_ratio_margin),
        "ipo": (mean_ratio_margin - 1 / (2 * BETA)) ** 2,
        "nca_pair": nca,
        "slic": max(0.0, 2.5 - logp_w + logp_l) - 0.2 * logp_w,
        "sppo": (sppo_w**2 + sppo_l**2) / 2,
        "xpo": dpo + 0.05 * explored,
        "selm": dpo + 0.05 * selm_bonus,
        # each row's likelihood by its own length
        "rpo": dpo - 0.5 * logp_w / len(policy.chosen),
    }
    return losses[name]


def mean_loss(name, rows, by_hand):
    losses = [loss_of_row(name, row, *values) for row, values in zip(rows, by_hand, strict=True)]
    # each row counts
    assert abs(losses[0] - losses[1]) > 0.01
    return fmean(losses)


def first_loss(monkeypatch, tmp_path, script, policy, reference, file, *flags):
    """The first entry of the log of a training at a learning rate of 0. reference: or None."""
    out = tmp_path / "out"
    command = ["--model_name_or_path", policy, "--dataset_name", file, "--output_dir", out]
    command += ["--beta", BETA, *TRAINING]
    if reference:
        command += ["--ref_model_name_or_path", reference]
    command += ["--per_device_train_batch_size", 2, "--max_steps", 1]
    run_here(script, monkeypatch, *command, "--learning_rate", 0, "--max_length", 256, *flags)
    return history(out)[0]


LOSSES = "sigmoid hinge sigmoid_norm ipo nca_pair slic sppo xpo selm rpo".split()


@pytest.mark.parametrize("name", LOSSES)
def test_the_first_loss_is_that_of_the_definition(
    monkeypatch, tmp_path, policy, sft, pairs, by_hand, name
):
    """Against the reference of the command.

    Defect 2: the reference was replaced by the previous policy without a word.
    """
    file, rows = pairs
    flags = ["--loss_type", name, "--slic_delta", 2.5, "--slic_weight", 0.2]
    flags += ["--optimism", 0.05, "--rpo_alpha", 0.5]
    reference = None if name == "slic" else sft
    log = first_loss(monkeypatch, tmp_path, "dpo/1_dpo.py", policy, reference, file, *flags)
    assert log["loss"] == pytest.approx(mean_loss(name, rows, by_hand), rel=1e-3)
    logps = [sum(of_policy.chosen) for of_policy, _ in by_hand]
    assert log["logps/chosen"] == pytest.approx(fmean(logps), abs=1e-2)
    if name == "slic":  # no implicit rewards
        return
    margins = []
    for of_policy, of_reference in by_hand:
        chosen = sum(of_policy.chosen) - sum(of_reference.chosen)
        rejected = sum(of_policy.rejected) - sum(of_reference.rejected)
        margins.append(BETA * (chosen - rejected))
    assert log["rewards/margins"] == pytest.approx(fmean(margins), abs=1e-2)
    assert log["rewards/accuracies"] == fmean(margin > 0 for margin in margins)


def test_the_likelihood_of_trl_is_a_mean_over_the_tokens_of_a_batch(
    monkeypatch, tmp_path, policy, sft, pairs, by_hand
):
    file, rows = pairs
    flags = ["--loss_type", "sigmoid", "sft", "--loss_weights", 1, 0.5]
    log = first_loss(monkeypatch, tmp_path, "dpo/1_dpo.py", policy, sft, file, *flags)
    first, second = (of_policy.chosen for of_policy, _ in by_hand)
    over_tokens = fmean(first + second)
    # RPO's mean is another: over rows.
    assert abs(over_tokens - fmean([fmean(first), fmean(second)])) > 0.01
    dpo = mean_loss("sigmoid", rows, by_hand)
    assert log["loss"] == pytest.approx(dpo - 0.5 * over_tokens, rel=1e-3)


def labelled(pairs, *choices):
    """Rows for KTO, of (number of the pair, side)."""
    rows = []
    for i, (number, side) in enumerate(choices):
        prompt, completion = pairs[number]["prompt"], pairs[number][side]
        label = side == "chosen"
        rows.append({"id": str(i), "prompt": prompt, "completion": completion, "label": label})
    return rows


def loss_of_kto(policy, reference, rows, mismatched):
    """(loss, z0) by the definition.

    mismatched: [(row of the prompt, row of the completion)]
    """

    def ratio(prompt, completion):
        text = completion[0]["content"]
        logp = sum(log_probabilities(policy, prompt, text, after="\n"))
        return logp - sum(log_probabilities(reference, prompt, text, after="\n"))

    mismatched_ratios = [ratio(rows[i]["prompt"], rows[j]["completion"]) for i, j in mismatched]
    z0 = max(0.0, fmean(mismatched_ratios))
    losses = []
    for row in rows:
        sign = 1 if row["label"] else -1
        margin = sign * (ratio(row["prompt"], row["completion"]) - z0)
        losses.append(1 - sigmoid(BETA * margin))
    return fmean(losses), z0


def test_the_loss_of_kto_takes_the_neighbours_answer_for_the_mismatch(
    monkeypatch, tmp_path, policy, sft, pairs
):
    """The published code took the labels for the tokens."""
    rows = labelled(pairs[1], (0, "chosen"), (1, "rejected"))
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    log = first_loss(monkeypatch, tmp_path, "dpo/1b_kto.py", policy, sft, file)
    expected, _ = loss_of_kto(policy, sft, rows, [(0, 1), (1, 0)])
    assert log["loss"] == pytest.approx(expected, abs=1e-4)


def test_z0_of_kto_is_of_the_whole_batch(monkeypatch, tmp_path, policy, sft, pairs):
    """Two micro-batches of two, whose own estimates differ: TRL's would be that of each."""
    rows = labelled(pairs[1], (0, "chosen"), (1, "rejected"), (0, "rejected"), (1, "chosen"))
    # With labels of both kinds the errors of the two micro-batches would cancel.
    rows[1]["label"] = rows[2]["label"] = True
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    # as --seed 0 does
    random.Random(0).shuffle(rows)
    # With the noisy model as reference z0 is above 0.
    models = sft, policy
    flags = ["--gradient_accumulation_steps", 2, "--seed", 0]
    log = first_loss(monkeypatch, tmp_path, "dpo/1b_kto.py", *models, file, *flags)
    expected, z0 = loss_of_kto(*models, rows, [(0, 1), (1, 0), (2, 3), (3, 2)])
    assert log["loss"] == pytest.approx(expected, abs=1e-4)
    assert log["kl"] == pytest.approx(z0, rel=1e-3)
    halves = [loss_of_kto(*models, half, [(0, 1), (1, 0)]) for half in (rows[:2], rows[2:])]
    assert abs(fmean(loss for loss, _ in halves) - expected) > 5e-3, (halves, z0)


def test_no_response_of_kto_is_its_own_mismatch():
    """A last batch of one row takes the response before it."""
    with_mismatched = runpy.run_path(str(ROOT / "dpo/labelled_tokens.py"))["with_mismatched"]
    responses = [1, 2, 3, 4, 5]
    assert list(with_mismatched(responses, 2)) == [(1, 2), (2, 1), (3, 4), (4, 3), (5, 4)]
    assert list(with_mismatched(responses, 3)) == [(1, 3), (2, 1), (3, 2), (4, 5), (5, 4)]


def test_kto_takes_pairs_apart_and_mixes_good_with_bad(pairs, tmp_path):
    """A row with a completion and a pair is a pair. All are shuffled, then some left out."""
    names = runpy.run_path(str(ROOT / "dpo/labelled_tokens.py"))
    rows = [row | {"completion": "other", "label": 1} for row in pairs[1]]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    expected = []
    for row in rows:
        expected.append((row["prompt"], row["chosen"], True))
        expected.append((row["prompt"], row["rejected"], False))
    read = list(names["read"]([str(file)]))
    assert [(row["prompt"], row["completion"], row["label"]) for row in read] == expected
    total = len(read)
    assert [row["index"] for row in read] == list(range(total))

    remaining = Dataset.from_dict({"index": [i for i in range(total) if i % 3]})
    order = names["training_order"](remaining, total, 7)
    shuffled = list(range(total))
    random.Random(7).shuffle(shuffled)
    assert [remaining[int(i)]["index"] for i in order] == [i for i in shuffled if i % 3]


WITHOUT_REJECTED = {"id": "a", "prompt": [user("Q")], "chosen": [assistant("A")]}
OF_NO_LABEL = {"id": "a", "prompt": [user("Q")], "completion": [assistant("A")], "label": 1}


@pytest.mark.parametrize(
    "rows, flags, reason",
    [
        ([OF_NO_LABEL], [], "in.jsonl:1: label: neither true nor false"),
        ([WITHOUT_REJECTED], [], "in.jsonl:1: rejected: missing"),
        (
            None,
            ["--per_device_train_batch_size", 1],
            "--per_device_train_batch_size 1: KTO takes its mismatched",
        ),
    ],
)
def test_kto_refuses_in_one_line(monkeypatch, tmp_path, sft, pairs, rows, flags, reason):
    file = write_jsonl(tmp_path / "in.jsonl", rows) if rows else pairs[0]
    message = refused("dpo/1b_kto.py", monkeypatch, sft, file, tmp_path / "out", *flags)
    assert message.removeprefix(f"{tmp_path}/").startswith(reason)
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "loss, reason",
    [
        (["sppo"], "in.jsonl:1: chosen_win_probability: missing"),
        (["xpo"], "in.jsonl:1: explored: missing"),
        (["sigmoid", "slic"], "--loss_type slic: not together with another loss"),
        (
            ["rpo", "--precompute_ref_log_probs", "False"],
            "--precompute_ref_log_probs False: not with --loss_type rpo",
        ),
        (
            ["slic", "--truncation_mode", "keep_end"],
            "--truncation_mode keep_end: not with --loss_type slic",
        ),
    ],
)
def test_a_loss_refuses_pairs_without_what_it_needs(
    monkeypatch, tmp_path, sft, pairs, loss, reason
):
    rows = [{key: row[key] for key in ("id", "prompt", "chosen", "rejected")} for row in pairs[1]]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    flags = ["--loss_type", *loss]
    message = refused("dpo/1_dpo.py", monkeypatch, sft, file, tmp_path / "out", *flags)
    assert message.removeprefix(f"{tmp_path}/") == reason


@pytest.mark.parametrize(
    "script, kind",
    [
        ("sft/2_finetune.py", "instructions"),
        ("reward_modeling/2a_bradley_terry.py", "preferences"),
        ("reward_modeling/2b_preference_model.py", "preferences"),
        ("dpo/1_dpo.py", "pairs"),
        ("dpo/1b_kto.py", "pairs"),
        ("dpo/1c_rloo.py", "pairs"),
        ("dpo/1d_nash_md.py", "pairs"),
    ],
)
def test_a_training_of_one_step_learns(
    monkeypatch, tmp_path, sft, reward_model, pairs, world, capsys, script, kind
):
    """With a warm-up its only step would have a learning rate of 0."""
    instructions = read_jsonl(world / "instructions.jsonl")[:8]
    files = {
        "pairs": pairs[0],
        "instructions": write_jsonl(tmp_path / "in.jsonl", instructions),
        "preferences": reward_model.with_name("training.jsonl"),
    }
    out = tmp_path / "out"
    flags = ["--model_name_or_path", sft, "--dataset_name", files[kind], "--output_dir", out]
    flags += [*TRAINING, "--max_steps", 1, "--per_device_train_batch_size", 2]
    flags += ["--learning_rate", 1e-3]
    if kind == "preferences":
        flags += ["--held_out_name", reward_model.with_name("held_out.jsonl")]
    if script in ("dpo/1_dpo.py", "dpo/1b_kto.py"):
        flags += ["--ref_model_name_or_path", sft]
    if script == "dpo/1c_rloo.py":
        flags += ["--reward_model_name_or_path", reward_model]
    if script == "dpo/1d_nash_md.py":
        # Any language model tells A from B.
        flags += ["--preference_model_name_or_path", sft]
    if script in ("dpo/1c_rloo.py", "dpo/1d_nash_md.py"):
        flags += ["--num_generations", 2, "--max_completion_length", 8]
    else:
        flags += ["--max_length", 256]
    run_here(script, monkeypatch, *flags)
    learning_rates = [entry["learning_rate"] for entry in history(out) if "loss" in entry]
    assert learning_rates == [1e-3]
    message = "one step in all: without warm-up, in which its learning rate would be 0"
    assert message in capsys.readouterr().out


# RLOO


def test_the_gradient_of_rloo_is_that_of_the_definition(
    monkeypatch, tmp_path, sft, reward_model, pairs
):
    """Of a prompt with two samples: the advantage of each is its score less the other's.

    The loss itself is 0.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer import rloo_trainer

    out = tmp_path / "out"
    flags = ["--model_name_or_path", sft, "--reward_model_name_or_path", reward_model]
    flags += ["--dataset_name", pairs[0], "--output_dir", out, *TRAINING]
    flags += ["--per_device_train_batch_size", 2, "--num_generations", 2]
    flags += ["--max_completion_length", 64, "--max_steps", 1, "--learning_rate", 0]
    flags += ["--max_grad_norm", 1e9, "--log_completions", "True", "--report_to", "none"]
    # TRL makes a table of the completions that it logs.
    tables = []
    monkeypatch.setattr(rloo_trainer, "pd", SimpleNamespace(DataFrame=tables.append))
    run_here("dpo/1c_rloo.py", monkeypatch, *flags)
    log = history(out)[0]
    table = tables[0]
    rewards = table["reward_model"]
    advantages = rewards[0] - rewards[1], rewards[1] - rewards[0]
    samples = zip(table["prompt"], table["completion"], advantages, strict=True)
    tokenizer = AutoTokenizer.from_pretrained(sft)
    model = AutoModelForCausalLM.from_pretrained(sft, dtype="float32")
    objective = 0.0
    for prompt, completion, advantage in samples:
        chat = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)
        prompt_ids = chat["input_ids"]
        answer = tokenizer(completion[0]["content"], add_special_tokens=False)["input_ids"]
        ids = prompt_ids + answer + [tokenizer.eos_token_id]
        # (tokens, vocabulary): row i - 1 predicts token i
        logps = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        logp = sum(logps[i - 1, ids[i]] for i in range(len(prompt_ids), len(ids)))
        objective -= advantage * logp / 2
    objective.backward()
    norm = math.sqrt(sum(weight.grad.pow(2).sum().item() for weight in model.parameters()))
    assert log["loss"] == pytest.approx(0, abs=1e-6)
    assert log["grad_norm"] == pytest.approx(norm, rel=1e-2)
    assert log["reward"] == pytest.approx(fmean(rewards), rel=1e-3)


# comparison/tiny


def value(words, flag):
    """The words after a flag, up to the next flag."""
    rest = words[words.index(flag) + 1 :]
    return " ".join(itertools.takewhile(lambda word: not word.startswith("--"), rest))


# Of each recipe: what the command of the third round's training must hold.
EXPECTED = {
    "dpo": {"--loss_type": "sigmoid", "--dataset_name": "OUT/iter3/pairs_reference.jsonl"},
    "rpo": {"--loss_type": "rpo"},
    "sppo": {"reference": "iter2/policy", "--beta": "0.1"},
    "selm": {"reference": "iter2/policy", "--learning_rate": "2e-5"},
    "kto": {"script": "dpo/1b_kto.py", "--dataset_name": "OUT/iter3/pairs.jsonl"},
    "raft": {
        "script": "sft/2_finetune.py",
        "--dataset_name": "OUT/iter3/best.jsonl",
        "--packing": "False",
    },
    "restart": {
        "--model_name_or_path": "OUT/sft",
        "--dataset_name": " ".join(f"OUT/iter{t}/pairs_reference.jsonl" for t in (1, 2, 3)),
    },
    "reference_previous": {"reference": "iter2/policy"},
    "offline_mixed": {
        "--dataset_name": "OUT/iter3/pairs_reference.jsonl OUT/iter1/offline_pairs_reference.jsonl",
    },
    "online_dpo": {"--lr_scheduler_type": "constant", "--warmup_steps": "0"},
    "self_play": {"reference": "iter2/policy"},
}
# of a dry run
OUT = "runs/recorded"


def reference_of(commands):
    """The model whose log-probabilities the third round's pairs have."""
    return value(commands["iter3/pairs_reference"], "--model_name_or_path")


def listed(checkout, *recipes, **variables):
    """{step: the words of its command}"""
    done = dry_run(checkout, RECIPE=" ".join(recipes), **variables)
    assert done.returncode == 0, done.stderr
    return driving.commands(done.stdout)


@pytest.fixture
def step_commands(checkout, request):
    """{step: the words of its command} of a recipe of comparison/tiny."""
    return listed(checkout, f"comparison/tiny/{request.param}.sh", *TINY)


TINY = "comparison/tiny.sh", "recipes/tiny.sh"


def of_recipe(name):
    return pytest.mark.parametrize("step_commands", [name], indirect=True)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recipe_changes_the_training_by_what_it_says(checkout, name):
    commands = listed(checkout, f"comparison/tiny/{name}.sh", *TINY)
    words = commands["iter3/policy"]
    expected = {"script": "dpo/1_dpo.py"} | EXPECTED[name]
    assert words[1] == expected.pop("script")
    if "reference" in expected:
        assert reference_of(commands) == f"{OUT}/{expected.pop('reference')}"
    for flag, text in expected.items():
        assert value(words, flag) == text.replace("OUT", OUT)


@pytest.mark.parametrize(
    "step_commands, policy, temperature",
    [("xpo", "sft", "1.0"), ("selm", "iter2/policy", "0.0")],
    indirect=["step_commands"],
)
def test_optimism_is_about_a_response_of_its_own(step_commands, policy, temperature):
    words = step_commands["iter3/explored"]
    assert value(words, "--model_name_or_path") == f"{OUT}/{policy}"
    assert value(words, "--temperatures") == temperature
    assert value(words, "--n") == "1"
    assert value(step_commands["iter3/pairs"], "--explored_file") == f"{OUT}/iter3/explored.jsonl"


@of_recipe("selm")
def test_the_learning_rate_of_selm_falls(step_commands):
    rates = [value(step_commands[f"iter{t}/policy"], "--learning_rate") for t in (1, 2)]
    assert rates == ["1e-4", "6e-5"]


@of_recipe("ipo_mixture")
def test_the_enhancer_gives_half_of_the_responses(step_commands):
    assert value(step_commands["iter3/mixture"], "--models") == f"{OUT}/iter2/policy {OUT}/sft"
    main = step_commands["iter3/responses_main"]
    enhancer = step_commands["iter3/responses_enhancer"]
    assert value(main, "--n") == value(enhancer, "--n") == "2"
    assert value(main, "--seed") != value(enhancer, "--seed")
    assert value(enhancer, "--model_name_or_path") == f"{OUT}/iter3/mixture"


@of_recipe("dpa")
def test_dpa_asks_in_a_direction(step_commands):
    directions = step_commands["iter3/directed"]
    assert value(directions, "--system_prompt") == "{helpfulness}, {verbosity}."
    responses = step_commands["iter3/responses"]
    assert value(responses, "--prompts_file") == f"{OUT}/iter3/directed.jsonl"
    assert value(step_commands["iter3/best"], "--helpfulness") == "correct manner"
    assert step_commands["iter3/policy"][1] == "sft/2_finetune.py"


@of_recipe("self_rewarding")
def test_the_policy_of_the_round_judges_itself(step_commands):
    assert value(step_commands["iter3/rewards"], "--model_name_or_path") == f"{OUT}/iter2/policy"


@of_recipe("rloo")
def test_rloo_trains_on_prompts(step_commands):
    words = step_commands["iter1/policy"]
    assert value(words, "--dataset_name") == f"{OUT}/iter1/prompts.jsonl"
    assert value(words, "--per_device_train_batch_size") == "256"
    assert "iter1/responses" not in step_commands


@of_recipe("nash_md")
def test_nash_md_asks_the_preference_model(step_commands):
    words = step_commands["iter1/policy"]
    assert words[1] == "dpo/1d_nash_md.py"
    assert value(words, "--dataset_name") == f"{OUT}/iter1/prompts.jsonl"
    assert value(words, "--preference_model_name_or_path") == f"{OUT}/preference_model"
    assert value(words, "--mixture_coefficient") == "0.5"
    assert "iter1/responses" not in step_commands


@of_recipe("ipo_md")
def test_ipo_md_samples_from_a_mixture_with_the_initial_policy(step_commands):
    words = step_commands["iter3/responses"]
    assert words[1] == "generation/2d_mixture_responses.py"
    assert value(words, "--model_name_or_path") == f"{OUT}/iter2/policy"
    assert value(words, "--ref_model_name_or_path") == f"{OUT}/sft"
    assert value(words, "--mixture_coefficient") == "0.5"
    assert value(words, "--temperatures") == "1.0"
    assert step_commands["iter3/rewards"][1] == "annotation/1b_preference_model.py"
    assert value(step_commands["iter3/policy"], "--loss_type") == "ipo"


@pytest.mark.parametrize(
    "step_commands, size",
    [("offline_dpo", "950"), ("offline_mixed", "300")],
    indirect=["step_commands"],
)
def test_offline_pairs_are_those_of_others(step_commands, size):
    words = step_commands["offline_pairs"]
    assert value(words, "--size") == size
    assert value(words, "--datasets") == f"{OUT}/world/preferences.jsonl"


@of_recipe("self_play")
def test_self_play_has_the_prompts_of_the_instructions(step_commands):
    assert value(step_commands["iter3/prompts"], "--datasets") == f"{OUT}/instructions.jsonl"
    assert value(step_commands["iter3/pairs"], "--instructions_file") == f"{OUT}/instructions.jsonl"
    assert "iter3/rewards" not in step_commands


@of_recipe("rso")
def test_rso_trains_on_accepted_responses_of_the_initial_policy(step_commands):
    assert value(step_commands["iter1/responses"], "--model_name_or_path") == f"{OUT}/sft"
    assert value(step_commands["iter1/responses"], "--n") == "16"
    words = step_commands["iter1/pairs"]
    assert words[1] == "annotation/2f_rejection_sampling.py"
    assert value(words, "--n") == "16"
    assert value(words, "--accepted") == "2"
    assert value(words, "--rejection_temperature") == "0.5"
    reference = step_commands["iter1/pairs_reference"]
    assert value(reference, "--model_name_or_path") == f"{OUT}/sft"
    assert value(step_commands["iter1/policy"], "--loss_type") == "sigmoid"
    assert "iter2/prompts" not in step_commands


def test_rso_has_its_sources_values(checkout, tmp_path):
    """With a recipe that sets none of them. Its hinge-norm is TRL's hinge."""
    mine = tmp_path / "mine.sh"
    mine.write_text("SFT_MODEL=sft\nREWARD_MODEL=rm\nPROMPTS=prompts.jsonl\nDPO_LOSS=hinge\n")
    commands = listed(checkout, str(mine), OPTIMISER="rso")
    assert value(commands["iter1/responses"], "--n") == "64"
    assert value(commands["iter1/responses"], "--temperatures") == "0.7"
    assert value(commands["iter1/pairs"], "--accepted") == "8"
    assert value(commands["iter1/pairs"], "--rejection_temperature") == "0.5"
    assert value(commands["iter1/policy"], "--beta") == "0.05"
    assert value(commands["iter1/policy"], "--loss_type") == "hinge"
    assert "iter2/prompts" not in commands


def test_rso_in_several_rounds_moves_its_reference(checkout):
    variables = {"OPTIMISER": "rso", "REFERENCE": "previous", "N": "16", "ACCEPTED": "4"}
    commands = listed(checkout, "recipes/tiny.sh", **variables)
    assert value(commands["iter3/responses"], "--model_name_or_path") == f"{OUT}/iter2/policy"
    assert reference_of(commands) == f"{OUT}/iter2/policy"


@pytest.mark.parametrize(
    "step_commands, flags",
    [("combined", []), ("pessimistic", ["--pessimism", "1"])],
    indirect=["step_commands"],
)
def test_three_annotators_are_combined(step_commands, flags):
    words = step_commands["iter3/rewards"]
    names = "reward_model preference_model armorm"
    files = " ".join(f"{OUT}/iter3/rewards_{name}.jsonl" for name in names.split())
    assert value(words, "--rewards_files") == files
    assert words[words.index("--rewards_files") + 4 : words.index("--output_file")] == flags
    assert value(step_commands["iter3/rewards_preference_model"], "--method") == "all_pairs"
    assert value(step_commands["iter3/pairs"], "--pairing") == "best_worst"


@of_recipe("sppo")
def test_sppo_has_win_probabilities(step_commands):
    assert "--win_probabilities" in step_commands["iter3/pairs"]


@of_recipe("uncertain")
def test_uncertain_pairs_know_the_earlier_ones(step_commands):
    earlier = f"{OUT}/iter1/pairs.jsonl {OUT}/iter2/pairs.jsonl"
    assert value(step_commands["iter3/pairs"], "--earlier_files") == earlier
    assert "--earlier_files" not in step_commands["iter1/pairs"]


@pytest.mark.parametrize(
    "name, reference",
    [("sppo", "iter2/policy"), ("selm", "iter2/policy"), ("xpo", "sft")],
)
def test_an_optimiser_has_the_reference_of_its_source(checkout, name, reference):
    """Without a recipe of its own, too; a variable that the user sets wins."""
    commands = listed(checkout, "recipes/tiny.sh", OPTIMISER=name)
    assert reference_of(commands) == f"{OUT}/{reference}"
    commands = listed(checkout, "recipes/tiny.sh", OPTIMISER=name, REFERENCE="initial")
    assert reference_of(commands) == f"{OUT}/sft"


def test_the_flags_that_decide_on_the_tokens_reach_the_reference(checkout):
    """And where its log-probabilities cannot be stored, the training computes them."""
    options = "--max_length 200 --truncation_mode keep_end --weight_decay 0.1"
    commands = listed(checkout, "recipes/tiny.sh", DPO_OPTIONS=options)
    words = commands["iter1/pairs_reference"]
    assert " ".join(words).count("--max_length 200 --truncation_mode keep_end") == 1
    assert "--weight_decay" not in words
    for variables in (
        {"DPO_OPTIONS": "--ld_alpha 0.5"},
        {"DPO_OPTIONS": "--precompute_ref_log_probs=False"},
        {"OPTIMISER": "kto"},
        {"DPO_LOSS": "slic"},
    ):
        commands = listed(checkout, "recipes/tiny.sh", **variables)
        assert not [step for step in commands if step.endswith("pairs_reference")]
        words = commands["iter3/policy"]
        assert value(words, "--dataset_name") == f"{OUT}/iter3/pairs.jsonl"
        assert ("--ref_model_name_or_path" in words) == ("DPO_LOSS" not in variables)


def test_a_method_that_needs_the_reference_in_training_gets_it(checkout, tmp_path):
    mine = tmp_path / "mine.sh"
    mine.write_text('optimise() { train_on_pairs dpo/1_dpo.py "$@" -- --ld_alpha 0.5; }\n')
    words = listed(checkout, "recipes/tiny.sh", OPTIMISER=str(mine))["iter3/policy"]
    assert value(words, "--ref_model_name_or_path") == f"{OUT}/sft"
    assert value(words, "--dataset_name") == f"{OUT}/iter3/pairs.jsonl"


def test_of_a_tool_the_reference_counts_the_assistants_turns(checkout):
    commands = listed(checkout, "recipes/tiny_tools.sh")
    assert "--assistant_only_loss" in commands["iter1/pairs_reference"]


@pytest.mark.parametrize(
    "variables, message",
    [
        (
            {"OPTIMISER": "dpa"},
            "OPTIMISER=dpa: set ANNOTATOR=armorm, and by its objectives HELPFULNESS and VERBOSITY",
        ),
        (
            {"OPTIMISER": "dpa", "HELPFULNESS": "correct", "VERBOSITY": "verbosity"}
            | {"DIRECTION_PROMPT": "{verbosity}"},
            "DIRECTION_PROMPT={verbosity}: {helpfulness} is missing",
        ),
        (
            {"DPO_LEARNING_RATES": "1e-4 1e-5"},
            "DPO_LEARNING_RATES=1e-4 1e-5: 2 for ITERATIONS=3; give one a round",
        ),
        ({"DPO_LOSS": "dpo"}, "DPO_LOSS=dpo: one or several of sigmoid hinge ipo"),
        ({"OPTIMISER": "ppo"}, "OPTIMISER=ppo: no such file; there are dpa dpo "),
        (
            {"OPTIMISER": "rloo", "ITERATIONS": "3"},
            "OPTIMISER=rloo: its reference is the policy it starts from; set ITERATIONS=1, or",
        ),
        (
            {"OPTIMISER": "nash_md", "ITERATIONS": "3", "DPO_BATCH_SIZE": "8"},
            "OPTIMISER=nash_md: its reference is the policy it starts from; set ITERATIONS=1, or",
        ),
        (
            {"OPTIMISER": "rloo", "ITERATIONS": "2", "REFERENCE": "previous", "START": "initial"},
            "OPTIMISER=rloo: its reference is the policy it starts from; set ITERATIONS=1, or "
            "REFERENCE=previous with START=previous",
        ),
        (
            {"OPTIMISER": "nash_md", "ITERATIONS": "1", "MIXTURE_COEFFICIENT": "3"},
            "MIXTURE_COEFFICIENT=3: not in 0 to 1",
        ),
        (
            {"OPTIMISER": "rso", "ITERATIONS": "1", "HISTORY": "all"},
            "OPTIMISER=rso: pairs of earlier rounds are of other policies than its reference",
        ),
        (
            {"ENHANCER": "initial", "N": "5", "TEMPERATURES": "1.0"},
            "N=5: with ENHANCER=initial each policy gives half",
        ),
        (
            {"OPTIMISER": "rso", "N": "16"},
            "OPTIMISER=rso: its responses are of the policy that is its reference; "
            "set ITERATIONS=1 or REFERENCE=previous",
        ),
        (
            {"OPTIMISER": "rso", "ITERATIONS": "1", "ENHANCER": "initial"},
            "OPTIMISER=rso: its responses are of one policy; not with ENHANCER=initial",
        ),
        (
            {"OPTIMISER": "rso", "ITERATIONS": "1", "ACCEPTED": "3"},
            "ACCEPTED=3: an even number below N=64 is needed",
        ),
        (
            {"OPTIMISER": "rso", "ITERATIONS": "1", "N": "8"},
            "ACCEPTED=8: an even number below N=8 is needed",
        ),
        (
            {"OPTIMISER": "rso", "PAIRING": "best_random"},
            "PAIRING=best_random: without effect with OPTIMISER=rso",
        ),
        (
            {"PESSIMISM": "1"},
            "PESSIMISM=1: one annotator cannot disagree; name several in ANNOTATOR",
        ),
        (
            {"PESSIMISM": ".5", "ANNOTATOR": "reward_model armorm", "ANNOTATOR_WEIGHTS": "1 0.0"},
            "PESSIMISM=.5: with ANNOTATOR_WEIGHTS above 0 only",
        ),
        (
            {"PESSIMISM": ".5", "ANNOTATOR": "reward_model armorm", "ANNOTATOR_WEIGHTS": "-1 1"},
            "PESSIMISM=.5: with ANNOTATOR_WEIGHTS above 0 only",
        ),
        ({"PESSIMISM": "-1"}, "PESSIMISM=-1: a number is needed"),
        (
            {"PESSIMISM": "1", "OPTIMISER": "rloo"},
            "PESSIMISM=1: without effect with OPTIMISER=rloo",
        ),
        ({"RECIPE": "recipes/tiny.sh recipes/none.sh"}, "recipes/none.sh: no such recipe"),
    ],
)
def test_the_driver_refuses_what_does_not_go_together(checkout, variables, message):
    done = dry_run(checkout, **variables)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f"run_loop.sh: {message}"), done.stderr


def test_of_several_recipes_the_first_that_sets_a_variable_wins(checkout, tmp_path):
    first = tmp_path / "mine.sh"
    first.write_text("DPO_BETA=0.7\n")
    words = listed(checkout, str(first), "recipes/tiny.sh", OUT="")["iter1/policy"]
    assert value(words, "--beta") == "0.7"
    assert value(words, "--output_dir") == "runs/mine/iter1/policy"


# annotation/2b_best.py, annotation/2c_self_play.py, generation/2b_merge.py, dpo/2_interpolate.py


def row(name, responses, **more):
    return {
        "id": name,
        "prompt": [user(f"Question {name}?")],
        "responses": responses,
        "finish_reasons": ["stop"] * len(responses),
        **more,
    }


def test_the_best_response_becomes_the_assistants_turn(tmp_path):
    """Not the user's, as in the published code of RAFT.

    A truncated or empty response is no example.
    """
    first = row("a", ["short", "longer answer", "mid"], rewards=[1.0, 1.5, 1.2])
    first |= {"temperatures": [1.0, 0.7, 0.7], "policy": "p"}
    second = row("b", ["x", "y", " "], rewards=[2.0, 3.0, 4.0])
    second["finish_reasons"] = ["stop", "length", "stop"]
    third = row("c", ["x", "y", ""], rewards=[2.0, 3.0, 1.0])
    third["finish_reasons"] = ["length", "length", "stop"]
    file = write_jsonl(tmp_path / "in.jsonl", [first, second, third])
    out = tmp_path / "out.jsonl"
    command = ["annotation/2b_best.py", "--rewards_file", file, "--output_file", out]
    done = ran(*command, "--for_training", "--length_penalty", 0.1)
    a, b = read_jsonl(out)
    assert a["messages"] == [*first["prompt"], assistant("mid")]
    assert a["responses"] == ["mid"]
    assert a["rewards"] == [1.2]
    assert a["temperatures"] == [0.7]
    assert a["policy"] == "p"
    assert b["responses"] == ["x"]
    assert "rows in: 3, dropped, without a response to keep: 1, rows out: 2" in done.stdout
    ran(*command)
    assert [r["responses"] for r in read_jsonl(out)] == [["longer answer"], [" "], ["y"]]


def test_responses_below_the_least_reward_are_not_kept(tmp_path):
    """As RAFT wants it with a verifier: of the right ones the first, or none."""
    rewards = [[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.5, 0.0, 0.4]]
    file = write_jsonl(
        tmp_path / "in.jsonl",
        [row(name, ["x", "y", "z"], rewards=of) for name, of in zip("abc", rewards, strict=True)],
    )
    out = tmp_path / "out.jsonl"
    command = ["annotation/2b_best.py", "--rewards_file", file, "--output_file", out]
    done = ran(*command, "--min_reward", 0.5)
    assert [(r["id"], r["responses"]) for r in read_jsonl(out)] == [("a", ["y"]), ("c", ["x"])]
    assert "rows in: 3, dropped, without a response to keep: 1, rows out: 2" in done.stdout
    out.unlink()
    failed = run(*command, "--min_reward", 2)
    assert failed.returncode == 1
    assert failed.stderr == f"{file}: no response to keep in 3 rows\n"
    assert not out.exists()


def test_self_play_sets_the_instructions_answer_above_the_policys_own(tmp_path):
    rows = [row("a", ["own"]), row("b", ["the answer"]), row("c", ["cut"])]
    rows[2]["finish_reasons"] = ["length"]
    examples = []
    for r in rows:
        examples.append({"id": r["id"], "messages": [*r["prompt"], assistant("the answer")]})
    instructions = write_jsonl(tmp_path / "in.jsonl", examples)
    responses = write_jsonl(tmp_path / "responses.jsonl", rows)
    out = tmp_path / "out.jsonl"
    command = ["annotation/2c_self_play.py", "--instructions_file", instructions]
    command += ["--responses_file", responses, "--output_file", out]
    done = ran(*command)
    assert "rows in: 3, dropped, identical: 1, dropped, truncated: 1, rows out: 1" in done.stdout
    (pair,) = read_jsonl(out)
    assert pair["chosen"][0]["content"] == "the answer"
    assert pair["rejected"][0]["content"] == "own"
    rows[1]["prompt"] = rows[0]["prompt"]
    write_jsonl(responses, rows)
    done = run(*command)
    assert done.returncode == 1
    assert done.stderr == f"{responses}:2: prompt: not that of 'b' in {instructions}\n"
    write_jsonl(responses, [row("x", ["own"])])
    assert run(*command).stderr == f"{responses}:1: id: 'x' is not of {instructions}\n"


def test_the_responses_of_two_policies_are_put_together(tmp_path):
    a = [row(name, [name * 2, name * 3], temperatures=[1.0, 0.7], policy="main") for name in "xy"]
    b = [row(name, [name], temperatures=[1.0], policy="enhancer") for name in "xy"]
    files = write_jsonl(tmp_path / "a.jsonl", a), write_jsonl(tmp_path / "b.jsonl", b)
    out = tmp_path / "out.jsonl"
    command = ["generation/2b_merge.py", "--output_file", out, "--responses_files", *files]
    ran(*command)
    x, y = read_jsonl(out)
    assert x["responses"] == ["xx", "xxx", "x"]
    assert y["temperatures"] == [1.0, 0.7, 1.0]
    assert x["policies"] == ["main", "main", "enhancer"]
    assert len(y["finish_reasons"]) == 3
    write_jsonl(files[1], b[::-1])
    message = f"{files[1]}:1: id: not the prompts of {files[0]} in their order\n"
    assert run(*command).stderr == message
    write_jsonl(files[1], b[:1])
    assert run(*command).stderr == f"{files[1]}: 1 rows, {files[0]} has more\n"
    write_jsonl(files[0], a[:1])
    write_jsonl(files[1], b)
    assert run(*command).stderr == f"{files[0]}: 1 rows, {files[1]} has more\n"
    a[0]["split"] = "test"
    write_jsonl(files[0], a)
    assert "rows in each: 2, files: 2, rows out: 1\n" in ran(*command, "--split", "test").stdout


def test_weights_are_averaged(tmp_path, policy, sft, base):
    from safetensors.torch import load_file

    out = tmp_path / "out"
    command = ["dpo/2_interpolate.py", "--output_dir", out, "--models", policy, sft]
    ran(*command, "--weights", 0.25, 0.75)
    first = load_file(policy / "model.safetensors")
    second = load_file(sft / "model.safetensors")
    for name, value in load_file(out / "model.safetensors").items():
        assert value.allclose(0.25 * first[name] + 0.75 * second[name], atol=1e-6)
    assert log_probabilities(out, [user("Hello")], "It is one.")
    done = run(*command, "--weights", 0.5, 0.6)
    assert done.returncode == 2
    assert "--weights: 2 with the sum 1.1 for 2 models" in done.stderr


def test_pairs_carry_what_sppo_and_xpo_read(tmp_path):
    scored = row("a", ["best", "mid", "worst"], rewards=[2.0, 1.0, -1.0])
    rewarded = write_jsonl(tmp_path / "in.jsonl", [scored])
    explored = write_jsonl(tmp_path / "explored.jsonl", [row("a", ["other"])])
    out = tmp_path / "out.jsonl"
    command = ["annotation/2_pairs.py", "--rewards_file", rewarded, "--output_file", out]
    ran(*command, "--win_probabilities", "--explored_file", explored)
    (pair,) = read_jsonl(out)
    assert pair["chosen_win_probability"] == pytest.approx((sigmoid(1) + sigmoid(3)) / 2)
    assert pair["rejected_win_probability"] == pytest.approx((sigmoid(-3) + sigmoid(-2)) / 2)
    assert pair["explored"] == "other"
    done = run(*command, "--explored_file", write_jsonl(explored, [row("b", ["other"])]))
    assert done.returncode == 1
    assert done.stderr == f"{explored}: id: 'a' of {rewarded} is missing\n"


def test_a_direction_stands_in_the_system_prompt_and_decides_what_is_best(tmp_path):
    """By standardised parts: 45 degrees choose the longest, -45 the shortest of equal help."""
    rows = [row(name, ["bad", "good", "good and long"]) for name in "abcdefgh"]
    directed = tmp_path / "directed.jsonl"
    command = ["generation/1b_directions.py", "--output_file", directed]
    command += ["--prompts_file", write_jsonl(tmp_path / "in.jsonl", rows)]
    ran(*command, "--angles", -45, 45)
    texts = {-45: "helpfulness*71 + verbosity*-71.", 45: "helpfulness*71 + verbosity*71."}
    scored, angles = [], {}
    for prompt in read_jsonl(directed):
        x, y = prompt["direction"]
        angle = round(math.degrees(math.atan2(y, x)))
        assert prompt["system"].endswith(f"weighted rating = {texts[angle]}")
        objectives = [
            {"help": 0.0, "kind": 1.0, "length": 0.1},
            {"help": 5.0, "kind": 2.0, "length": 0.3},
            {"help": 5.0, "kind": 2.0, "length": 0.4},
        ]
        scored.append({**prompt, "rewards": [0.0, 1.0, 1.0], "objectives": objectives})
        angles[prompt["id"]] = angle
    assert set(angles.values()) == {-45, 45}
    scored[0]["finish_reasons"] = ["length"] * 3
    # An empty response is the least verbose, but teaches nothing.
    for scored_row in scored[1:4]:
        scored_row["responses"][0] = ""
        scored_row["objectives"][0] = {"help": 5.0, "kind": 2.0, "length": -9.0}
    file = write_jsonl(tmp_path / "scored.jsonl", scored)
    out = tmp_path / "best.jsonl"
    best = ["annotation/2e_directional.py", "--rewards_file", file, "--output_file", out]
    best += ["--verbosity", "length", "--helpfulness"]
    done = ran(*best, "help", "kind")
    assert "rows in: 8, dropped, truncated or empty: 1, rows out: 7" in done.stdout
    for example in read_jsonl(out):
        system, question, response = example["messages"]
        assert (system["role"], question["role"]) == ("system", "user")
        expected = {-45: "good", 45: "good and long"}[angles[example["id"]]]
        assert response == assistant(expected)
    assert run(*best, "none").stderr == f"{file}:1: objectives: none is called 'none'\n"
    del scored[0]["direction"]
    write_jsonl(file, scored)
    assert run(*best, "help").stderr == f"{file}:1: direction: missing\n"
    ran(*command, "--angles", -45, "--system_prompt", "{verbosity} and {helpfulness}{}")
    assert {prompt["system"] for prompt in read_jsonl(directed)} == {"-71 and 71{}"}
    done = run(*command, "--system_prompt", "{helpfulness}")
    assert done.returncode == 2
    assert done.stderr.endswith("error: --system_prompt: {verbosity} is missing\n")


def test_judgements_name_the_better_response_on_either_side(tmp_path, world):
    preferences = write_jsonl(tmp_path / "in.jsonl", read_jsonl(world / "preferences.jsonl")[:40])
    out = tmp_path / "out.jsonl"
    command = ["sft/1b_judgements.py", "--preferences_file", preferences, "--output_file", out]
    ran(*command)
    judgements = {}
    for judgement in read_jsonl(out):
        judgements[judgement["id"].removeprefix("judgement-")] = judgement["messages"]
    sides = set()
    for pair in read_jsonl(preferences):
        question, side = (turn["content"] for turn in judgements[pair["id"]])
        a, b = pair["chosen"][0]["content"], pair["rejected"][0]["content"]
        if side == "B":
            a, b = b, a
        expected = f"[CONTEXT] \n\n<turn> user\n {pair['prompt'][0]['content']}\n"
        assert question == f"{expected} [RESPONSE A] {a} [RESPONSE B] {b} \n"
        sides.add(side)
    assert sides == {"A", "B"}
    ran(*command, "--size", 7)
    assert len(read_jsonl(out)) == 7
    done = run(*command, "--size", 41)
    assert done.returncode == 1
    assert done.stderr == f"{preferences}: 41 pairs asked for, 40 are there\n"


def features(reward_model, rows):
    """(rows, responses, hidden size): last hidden states, centred and scaled to a mean norm of 1.

    Each sequence is run alone.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(reward_model)
    model = AutoModelForSequenceClassification.from_pretrained(reward_model, dtype="float32").eval()
    phi = []
    for scored in rows:
        for text in scored["responses"]:
            chat = [*scored["prompt"], assistant(text)]
            text = tokenizer.apply_chat_template(chat, tokenize=False)
            ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
            with torch.inference_mode():
                phi.append(model.base_model(ids).last_hidden_state[0, -1].double().numpy())
    phi = numpy.array(phi) - numpy.mean(phi, axis=0)
    phi /= numpy.linalg.norm(phi, axis=1).mean()
    return phi.reshape(len(rows), -1, phi.shape[1])


def most_informative(sigma, phi, best, others):
    """(the other response, the uncertainty of its pair with the best); sigma is updated."""
    inverse = numpy.linalg.inv(sigma)
    variances = {}
    for other in others:
        difference = phi[best] - phi[other]
        variances[other] = difference @ inverse @ difference
    other = max(variances, key=variances.get)
    sigma += numpy.outer(phi[best] - phi[other], phi[best] - phi[other])
    return other, math.sqrt(variances[other])


def information(printed):
    """The log-determinant over the ridge's that the script prints."""
    return float(printed.split("ridge: ")[1].split(",")[0])


def test_the_pair_of_most_information_is_chosen(tmp_path, reward_model, world):
    """With numpy. The choice for the second row depends on the first's."""
    texts = ["one", "It is two.", "The answer is one. I am glad to help!", "three", "two, two"]
    best = 2
    others = {"a": [0, 1, 3, 4], "b": [0, 1, 4], "c": [0, 1, 3, 4]}
    rows = [row(name, texts, rewards=[float(len(t)) for t in texts]) for name in "abcd"]
    rows[1]["finish_reasons"][3] = "length"
    rows[3]["responses"] = ["same"] * 5
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    phi = dict(zip("abcd", features(reward_model, rows), strict=True))
    sigma = 0.1 * numpy.eye(phi["a"].shape[1])
    out = tmp_path / "out.jsonl"
    command = ["annotation/2d_uncertain_pairs.py", "--model_name_or_path", reward_model]
    command += ["--rewards_file", file, "--ridge", 0.1]
    done = ran(*command, "--output_file", out)
    counts = "rows in: 4, dropped, identical or truncated: 1, rows out: 3, earlier pairs: 0"
    assert counts in done.stdout
    pairs = {pair["id"]: pair for pair in read_jsonl(out)}
    assert list(pairs) == ["a", "b", "c"]
    for name, pair in pairs.items():
        other, uncertainty = most_informative(sigma, phi[name], best, others[name])
        assert pair["chosen"][0]["content"] == texts[best]
        assert pair["rejected"][0]["content"] == texts[other]
        assert pair["uncertainty"] == pytest.approx(uncertainty, rel=1e-3)
    gained = numpy.linalg.slogdet(sigma / 0.1)[1]
    assert information(done.stdout) == pytest.approx(gained, abs=0.02)

    # In the next round these pairs are known: the same rows give other, less uncertain pairs.
    again = tmp_path / "again.jsonl"
    done = ran(*command, "--earlier_files", out, "--output_file", again)
    assert "rows out: 3, earlier pairs: 3" in done.stdout
    next_pairs = read_jsonl(again)
    assert [pair["id"] for pair in next_pairs] == ["a", "b", "c"]
    for pair in next_pairs:
        name = pair["id"]
        other, uncertainty = most_informative(sigma, phi[name], best, others[name])
        assert pair["rejected"][0]["content"] == texts[other]
        assert pair["uncertainty"] == pytest.approx(uncertainty, rel=1e-3)
        assert pair["uncertainty"] < pairs[name]["uncertainty"]
    gained = numpy.linalg.slogdet(sigma / 0.1)[1]
    assert information(done.stdout) == pytest.approx(gained, abs=0.02)


# comparison


def test_best_of_n_takes_the_best_of_the_first_n_and_its_divergence_is_exact(tmp_path):
    """Four samples of three texts, from the worst on 1/2, 1/4 and 1/4 of all samples.

    The best of two is each of them in 1/4, 5/16 and 7/16 of all cases.
    """
    samples = row("a", ["w", "b", "w", "m"], rewards=[0.0, 2.0, 0.0, 1.0])
    samples["true_rewards"] = [0.0, 1.0, 0.0, 2.0]
    file = write_jsonl(tmp_path / "in.jsonl", [samples])
    out = tmp_path / "out.jsonl"
    command = ["comparison/1_best_of_n.py", "--rewards_file", file]
    done = ran(*command, "--n", 2, "--output_file", out)
    (best,) = read_jsonl(out)
    assert best["responses"] == ["b"]
    assert best["true_rewards"] == [1.0]
    kl = sum(p * math.log(p / q) for p, q in ((0.25, 0.5), (0.3125, 0.25), (0.4375, 0.25)))
    bound = math.log(2) - 0.5
    assert best["kl"] == [pytest.approx(kl)]
    assert kl < bound
    assert f"KL {kl:.4f} nats, at most {bound:.4f}" in done.stdout
    done = run(*command, "--n", 5, "--output_file", out)
    assert done.returncode == 1
    assert done.stderr.endswith("in.jsonl:1: responses: 4, too few for the best of 5\n")


def test_best_of_n_takes_the_last_of_equal_rewards_by_text_and_any_n(tmp_path):
    """As its divergence ranks them. Of 400 samples the worst is the best of 400 hardly ever."""
    responses = [f"{i:03}" for i in range(400)]
    samples = row("a", responses[::-1], rewards=[1.0] * 400)
    file = write_jsonl(tmp_path / "in.jsonl", [samples])
    out = tmp_path / "out.jsonl"
    ran("comparison/1_best_of_n.py", "--rewards_file", file, "--n", 400, "--output_file", out)
    (best,) = read_jsonl(out)
    assert best["responses"] == ["399"]
    bound = math.log(400) - 399 / 400
    assert bound - 0.1 < best["kl"][0] < bound


def write_answers(run, policy, true_rewards, rewards, text="four"):
    """What a run of compare.sh leaves of a policy's evaluation: a row for each test prompt."""
    rows = []
    for i, (true_reward, reward) in enumerate(zip(true_rewards, rewards, strict=True)):
        answer = row(f"{i}", [text], rewards=[float(reward)], true_rewards=[float(true_reward)])
        rows.append({**answer, "correct": [1.0], "kl": [0.5], "split": "test"})
    folder = run / "eval" / policy
    folder.mkdir(parents=True)
    write_jsonl(folder / "kl.jsonl", rows)


def write_log_history(policy, entries):
    policy.mkdir(parents=True)
    (policy / "trainer_state.json").write_text(json.dumps({"log_history": entries}))


def test_what_a_trainer_samples_is_counted_with_nash_mds_opponents(tmp_path):
    """Of 2 prompts: 4 responses of 8 tokens on average, and an opponent of 6."""
    nash_md = tmp_path / "seed0/nash_md"
    write_answers(tmp_path / "seed0/base", "sft", [1, 1], rewards=[2, 2])
    write_answers(nash_md, "iter1", [2, 1], rewards=[1, 1])
    steps = []
    for mean_length, opponents in ((7.0, 5.0), (9.0, 7.0)):
        lengths = {"completions/mean_length": mean_length, "opponents/mean_length": opponents}
        steps.append({"num_tokens": 50.0, **lengths})
    write_log_history(nash_md / "iter1/policy", [*steps, {"train_loss": 0.0}])
    write_jsonl(nash_md / "iter1/prompts.jsonl", [{"id": "0"}, {"id": "1"}])
    (nash_md / "settings").write_text("N=4\n")
    ran("comparison/2_table.py", "--directory", tmp_path)
    line = next(
        line
        for line in (tmp_path / "COMPARISON.md").read_text().splitlines()
        if line.startswith("| nash_md |")
    )
    assert line.endswith(f"| {2 * (4 * 8 + 6)} | 50 |")


def test_the_comparison_is_of_the_last_round_with_its_cost(tmp_path):
    """Two prompts: a win and a tie against the fine-tuned policy in a seed, two wins in another.

    The bootstrap draws the tie twice and the first seed twice in 1 of 64 samples.
    """
    # What stands outside the rounds costs nothing.
    seconds = {"iter1/pairs": 11, "iter2/pairs": 7, "reward_model": 100, "eval/iter1/answers": 100}
    for seed, true_rewards in ((0, [2, 1]), (1, [2, 3])):
        dpo = tmp_path / f"seed{seed}/dpo"
        write_answers(tmp_path / f"seed{seed}/base", "sft", [1, 1], rewards=[2, 2])
        write_answers(dpo, "iter1", [0, 0], rewards=[1, 1])
        write_answers(dpo, "iter2", true_rewards, rewards=[r + 1 for r in true_rewards])
        for step, duration in seconds.items():
            file = dpo / f"log/{step}.seconds"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{duration}\n")
        entries = [{"num_tokens": 10.0}, {"num_tokens": 30.0}, {"loss": 1.0}]
        write_log_history(dpo / "iter1/policy", entries)
        responses = row("0", ["a", "b"], response_tokens=[3, 4])
        write_jsonl(dpo / "iter1/responses.jsonl", [responses])
    ran("comparison/2_table.py", "--directory", tmp_path)
    text = (tmp_path / "COMPARISON.md").read_text()
    assert 'SEEDS="0 1" bash comparison/compare.sh' in text
    cells = "dpo | 2 | 0.875 | 0.625 to 1.000 | 2.000 | 3.000 | 1.000 | 4.0 | 0.50 | 18 | 7 | 30"
    assert f"| {cells} |" in text
    assert "| sft | 2 | 0.500 | 0.500 to 0.500 | 1.000 |" in text
    assert "does not clearly improve" not in text
    assert (tmp_path / "kl.png").stat().st_size > 5000
    assert (tmp_path / "compute.png").exists()
    done = run("comparison/2_table.py", "--directory", tmp_path / "none")
    assert done.returncode == 1
    assert done.stderr.endswith("none: no run of compare.sh is there\n")


def test_the_comparison_names_what_it_knows():
    command = ["bash", ROOT / "comparison/compare.sh", "dpo", "ppo"]
    done = subprocess.run(command, capture_output=True, text=True)
    message = "compare.sh: ppo: all, short, claims, explorations, or some of dpo offline_dpo ipo"
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert not done.stdout
    names = done.stderr.split("some of ")[1].split()
    recipes = {path.stem for path in ROOT.glob("comparison/tiny/*.sh")}
    assert set(names) == recipes | {"best_of_n", "interpolation", "alignment_tax"}


def test_the_comparison_with_a_tool_names_what_it_knows():
    command = ["bash", ROOT / "comparison/tools.sh", "mdpo", "ppo"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("tools.sh: ppo: some of raft dpo")
    names = done.stderr.split("some of ")[1].split()
    assert set(names) == {path.stem for path in ROOT.glob("comparison/tiny_tools/*.sh")}


@pytest.mark.parametrize("jobs", ["0", "two"])
def test_a_comparison_wants_a_number_of_runs_at_a_time(tmp_path, jobs):
    command = ["bash", ROOT / "comparison/tools.sh", "mdpo"]
    env = {**os.environ, "JOBS": jobs, "OUT": str(tmp_path / "out")}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert done.stderr == f"tools.sh: JOBS={jobs}: a number of runs at a time\n"
    assert not (tmp_path / "out").exists()


def write_run(run, true_rewards, text, pairs_file, pairs, chosen_reward):
    """A run of a recipe of comparison/tiny, of three rounds."""
    write_answers(run, "iter3", true_rewards, true_rewards, text)
    (run / "settings").write_text("DPO_BETA=0.3\n")
    chosen_rewards = [0.0, 0.9, *[chosen_reward] * 3]
    entries = [{"rewards/chosen": value} for value in chosen_rewards]
    write_log_history(run / "iter3/policy", entries)
    write_jsonl(run / pairs_file, [{}] * pairs)


def test_a_claim_holds_fails_or_is_undecided_by_its_interval(tmp_path):
    """Forty prompts a seed: offline DPO wins eight of ten, iterative DPO nine of ten.

    Random pairs win as often, but on other prompts; best against random wins always. The responses
    of the length penalty are shorter and lose as rarely.
    """
    base = [0.0, 1.0] * 20
    wins = {"offline_dpo": 32, "dpo": 36, "random_random": 36, "best_random": 40, "concise": 36}
    for seed in (0, 1):
        folder = tmp_path / f"seed{seed}"
        write_answers(folder / "base", "sft", base, base)
        for name, won in wins.items():
            rewards = [b + (1 if i < won else -1) for i, b in enumerate(base)]
            if name == "random_random" and seed == 1:
                rewards = rewards[::-1]
            run_folder = folder / name
            if name == "offline_dpo":
                write_run(run_folder, rewards, "four", "offline_pairs.jsonl", won, -0.6)
            else:
                text = "or" if name == "concise" else "four"
                write_run(run_folder, rewards, text, "iter3/pairs.jsonl", won, 0.6)
    losing = [b - (i < 9) for i, b in enumerate(base)]
    write_answers(tmp_path / "seed0/self_play", "iter3", losing, losing)
    for policy, value in (("sft", 0.5), ("iter3", 0.48)):
        folder = tmp_path / f"seed1/dpo/academic/{policy}"
        folder.mkdir(parents=True)
        scores = {"tasks": {"tiny_answers": {"value": value}}}
        (folder / "academic.json").write_text(json.dumps(scores))
    ran("comparison/2_table.py", "--directory", tmp_path)
    text = (tmp_path / "COMPARISON.md").read_text()
    assert text.count("does not clearly improve") == 1
    assert "- self_play does not clearly improve: its target is what" in text
    done = ran("comparison/3_claims.py", "--directory", tmp_path)
    assert (tmp_path / "CLAIMS.md").read_text().endswith(done.stdout)
    printed, verdicts = {}, {}
    for line in done.stdout.splitlines()[2:]:
        runs = line.split(" | ")[1].removeprefix("compare.sh ")
        printed[runs] = line
        verdicts[runs] = line.rsplit("| ", 1)[1].removesuffix(" |")
    assert verdicts["dpo offline_dpo"] == "holds"
    assert verdicts["dpo concise"] == "holds"
    assert verdicts["dpo best_random"] == "fails"
    assert verdicts["dpo random_random"] == "undecided"
    assert verdicts["dpo long"] == verdicts["far"] == verdicts["best_of_n"] == "not run"
    cells = "1 | iter3 - sft, each seed: tiny_answers: -0.020 | holds"
    assert f"| {cells} |" in printed["dpo alignment_tax"]
    assert verdicts["offline_dpo"] == "holds"
    assert "iter3 -2.00 -2.00" in printed["offline_dpo"]
    assert verdicts["dpo"] == "fails"
    assert "win rate, dpo - offline_dpo: +0.100 (" in printed["dpo offline_dpo"]
    assert "; pairs: dpo 36, offline_dpo 32 | holds |" in printed["dpo offline_dpo"]
    assert "length, concise - dpo: -2.000 (-2.000 to -2.000)" in printed["dpo concise"]
