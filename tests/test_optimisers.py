"""The policy optimisers: each loss by hand on two rows, and what the scripts around them write and refuse."""

import itertools
import json
import math
import random
import runpy
import subprocess
import sys
from statistics import fmean
from types import SimpleNamespace

import pytest

import driving
from commands import ROOT, ran, read_jsonl, run, write_jsonl
from conftest import TRAINING
from record_dry_runs import dry_run
from test_models import history, log_probabilities

BETA = 0.3


def trained(script, monkeypatch, *flags):
    """Runs a training in this process, which has loaded torch and TRL already."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, flags)])
    monkeypatch.syspath_prepend(ROOT / script.split("/")[0])
    runpy.run_path(str(ROOT / script), run_name="__main__")


def refused(script, monkeypatch, model, file, out, *flags):
    """What it says when it stops, before it has written anything."""
    models = ["--model_name_or_path", model, "--ref_model_name_or_path", model]
    with pytest.raises(SystemExit) as stopped:
        trained(
            script,
            monkeypatch,
            *models,
            "--dataset_name",
            file,
            "--output_dir",
            out,
            *TRAINING,
            *flags,
        )
    assert not out.exists()
    return str(stopped.value)


@pytest.fixture(scope="module")
def policy(sft):
    """Not the reference: its weights with noise on them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out, model = sft.with_name("noisy"), AutoModelForCausalLM.from_pretrained(sft, dtype="float32")
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(sft).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two rows of answers of different lengths, with all fields that a loss may want: (file, rows)."""
    rows = [
        {
            "prompt": "Sort these: dog, cat.",
            "chosen": "cat, dog. That is all!",
            "rejected": "dog",
            "explored": "cat.",
        },
        {
            "prompt": "Count these: dog.",
            "chosen": "one",
            "rejected": "It is two, I think.",
            "explored": "It is one.",
        },
    ]
    for i, (row, won) in enumerate(zip(rows, [(0.9, 0.2), (0.6, 0.45)], strict=True)):
        row["id"], row["prompt"] = str(i), [{"role": "user", "content": row["prompt"]}]
        for key in ("chosen", "rejected"):
            row[key] = [{"role": "assistant", "content": row[key]}]
        row["chosen_win_probability"], row["rejected_win_probability"] = won
    return write_jsonl(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", rows), rows


@pytest.fixture(scope="module")
def by_hand(policy, sft, pairs):
    """For each row log pi and log pi_ref of chosen, of rejected, of explored, each a list over tokens, with EOS and the
    template's line break."""

    def text(value):
        return value if isinstance(value, str) else value[0]["content"]

    names = ("chosen", "rejected", "explored")
    return [
        [
            log_probabilities(model, row["prompt"], text(row[name]), after="\n")
            for name in names
            for model in (policy, sft)
        ]
        for row in pairs[1]
    ]


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def loss_of_row(name, row, values):
    """By the definitions of the sources; l are log-ratios, D their difference."""
    w, w_ref, lose, lose_ref, explored, explored_ref = map(sum, values)
    l_w, l_l = w - w_ref, lose - lose_ref
    dpo = -log_sigmoid(BETA * (l_w - l_l))
    targets = [(row[f"{side}_win_probability"] - 0.5) / BETA for side in ("chosen", "rejected")]
    return {
        "sigmoid": dpo,
        "hinge": max(0.0, 1 - BETA * (l_w - l_l)),
        "ipo": (l_w / len(values[0]) - l_l / len(values[2]) - 1 / (2 * BETA))
        ** 2,  # TRL: the mean over tokens
        "nca_pair": -log_sigmoid(BETA * l_w)
        - 0.5 * log_sigmoid(-BETA * l_w)
        - 0.5 * log_sigmoid(-BETA * l_l),
        "slic": max(0.0, 2.5 - w + lose) - 0.2 * w,
        "sppo": ((l_w - targets[0]) ** 2 + (l_l - targets[1]) ** 2) / 2,
        "xpo": dpo + 0.05 * explored,
        "selm": dpo + 0.05 * BETA * (explored - explored_ref) + 0.05 * BETA * explored_ref,
        "rpo": dpo - 0.5 * w / len(values[0]),  # each by its own length
    }[name]


def first_loss(monkeypatch, tmp_path, script, policy, sft, file, *flags):
    command = [
        "--model_name_or_path",
        policy,
        "--ref_model_name_or_path",
        sft,
        "--dataset_name",
        file,
        "--beta",
        BETA,
    ]
    command += [
        "--output_dir",
        tmp_path / "out",
        "--per_device_train_batch_size",
        2,
        "--max_steps",
        1,
        *TRAINING,
    ]
    trained(script, monkeypatch, *command, "--learning_rate", 0, "--max_length", 256, *flags)
    return history(tmp_path / "out")[0]


@pytest.mark.parametrize(
    "name", ["sigmoid", "hinge", "ipo", "nca_pair", "slic", "sppo", "xpo", "selm", "rpo"]
)
def test_the_first_loss_is_that_of_the_definition(
    monkeypatch, tmp_path, policy, sft, pairs, by_hand, name
):
    """Against the reference that is given (defect 2: it was changed to the previous policy in passing)."""
    flags = [
        "--loss_type",
        name,
        "--slic_delta",
        2.5,
        "--slic_weight",
        0.2,
        "--optimism",
        0.05,
        "--rpo_alpha",
        0.5,
    ]
    told = first_loss(monkeypatch, tmp_path, "dpo/1_dpo.py", policy, sft, pairs[0], *flags)
    expected = [
        loss_of_row(name, row, values) for row, values in zip(pairs[1], by_hand, strict=True)
    ]
    assert told["loss"] == pytest.approx(fmean(expected), rel=1e-3)
    assert abs(expected[0] - expected[1]) > 0.01  # each row counts
    assert told["logps/chosen"] == pytest.approx(
        fmean(sum(values[0]) for values in by_hand), abs=1e-2
    )
    margins = [BETA * (sum(v[0]) - sum(v[1]) - sum(v[2]) + sum(v[3])) for v in by_hand]
    assert told["rewards/margins"] == pytest.approx(fmean(margins), abs=1e-2)
    assert told["rewards/accuracies"] == fmean(margin > 0 for margin in margins)


def test_the_likelihood_of_trl_is_a_mean_over_the_tokens_of_a_batch(
    monkeypatch, tmp_path, policy, sft, pairs, by_hand
):
    flags = ["--loss_type", "sigmoid", "sft", "--loss_weights", 1, 0.5]
    told = first_loss(monkeypatch, tmp_path, "dpo/1_dpo.py", policy, sft, pairs[0], *flags)
    tokens = [value for values in by_hand for value in values[0]]
    assert (
        abs(fmean(tokens) - fmean(fmean(values[0]) for values in by_hand)) > 0.01
    )  # which is not RPO's
    dpo = fmean(
        loss_of_row("sigmoid", row, values) for row, values in zip(pairs[1], by_hand, strict=True)
    )
    assert told["loss"] == pytest.approx(dpo - 0.5 * fmean(tokens), rel=1e-3)


def labelled(pairs, *kinds):
    """Rows for KTO, of (place of the pair, side)."""
    return [
        {
            "id": str(i),
            "prompt": pairs[of]["prompt"],
            "completion": pairs[of][side],
            "label": side == "chosen",
        }
        for i, (of, side) in enumerate(kinds)
    ]


def loss_of_kto(policy, sft, rows, mismatched):
    """By the definition; mismatched: (row whose prompt it is, row whose response it is)."""

    def ratio(prompt, completion):
        values = (
            log_probabilities(model, prompt, completion[0]["content"], after="\n")
            for model in (policy, sft)
        )
        of_policy, of_reference = map(sum, values)
        return of_policy - of_reference

    z0 = max(0.0, fmean(ratio(rows[i]["prompt"], rows[j]["completion"]) for i, j in mismatched))
    signs = [1 if row["label"] else -1 for row in rows]
    ratios = [ratio(row["prompt"], row["completion"]) for row in rows]
    return fmean(
        1 - sigmoid(BETA * sign * (value - z0)) for sign, value in zip(signs, ratios, strict=True)
    ), z0


def test_the_loss_of_kto_takes_the_neighbours_answer_for_the_mismatch(
    monkeypatch, tmp_path, policy, sft, pairs
):
    """Not the labels for the tokens, as the published code has it."""
    rows = labelled(pairs[1], (0, "chosen"), (1, "rejected"))
    told = first_loss(
        monkeypatch,
        tmp_path,
        "dpo/1b_kto.py",
        policy,
        sft,
        write_jsonl(tmp_path / "in.jsonl", rows),
    )
    expected, _ = loss_of_kto(policy, sft, rows, [(0, 1), (1, 0)])
    assert told["loss"] == pytest.approx(expected, abs=1e-4)


def test_z0_of_kto_is_of_the_whole_batch(monkeypatch, tmp_path, policy, sft, pairs):
    """Two micro-batches of two, whose own estimates differ: TRL's would be that of each."""
    rows = labelled(pairs[1], (0, "chosen"), (1, "rejected"), (0, "rejected"), (1, "chosen"))
    rows[1]["label"] = rows[2]["label"] = True  # else one's larger loss is the other's smaller
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    random.Random(0).shuffle(rows)  # as --seed 0 does
    both = sft, policy  # with the noise as reference z0 is above 0
    told = first_loss(
        monkeypatch,
        tmp_path,
        "dpo/1b_kto.py",
        *both,
        file,
        "--gradient_accumulation_steps",
        2,
        "--seed",
        0,
    )
    expected, z0 = loss_of_kto(*both, rows, [(0, 1), (1, 0), (2, 3), (3, 2)])
    assert told["loss"] == pytest.approx(expected, abs=1e-4) and told["kl"] == pytest.approx(
        z0, rel=1e-3
    )
    apart = [loss_of_kto(*both, half, [(0, 1), (1, 0)]) for half in (rows[:2], rows[2:])]
    assert abs(fmean(loss for loss, _ in apart) - expected) > 5e-3, (apart, z0)


def test_kto_takes_pairs_apart_and_mixes_good_with_bad(pairs, monkeypatch, tmp_path):
    """Pairs that carry a completion are pairs too."""
    monkeypatch.syspath_prepend(ROOT / "dpo")
    unpaired = runpy.run_path(str(ROOT / "dpo/1b_kto.py"))["unpaired"]
    file = write_jsonl(
        tmp_path / "in.jsonl", [row | {"completion": "other", "label": 1} for row in pairs[1]]
    )
    labelled = unpaired([str(file)], 0)
    expected = [
        (r["prompt"], r[side], side == "chosen")
        for r in pairs[1]
        for side in ("chosen", "rejected")
    ]
    random.Random(0).shuffle(expected)
    assert [(row["prompt"], row["completion"], row["label"]) for row in labelled] == expected


@pytest.mark.parametrize(
    "rows, flags, told",
    [
        ([{"id": "a", "prompt": [{"role": "user", "content": "Q"}], "label": 1,
           "completion": [{"role": "assistant", "content": "A"}]}], [], "in.jsonl:1: label: neither true nor false"),
        ([{"id": "a", "prompt": [{"role": "user", "content": "Q"}], "chosen": [{"role": "assistant", "content": "A"}]}],
         [], "in.jsonl:1: rejected: missing"),
        (None, ["--per_device_train_batch_size", 1], "--per_device_train_batch_size 1: KTO takes its mismatched"),
    ],
)  # fmt: skip
def test_kto_refuses_in_one_line(monkeypatch, tmp_path, sft, pairs, rows, flags, told):
    file = write_jsonl(tmp_path / "in.jsonl", rows) if rows else pairs[0]
    message = refused("dpo/1b_kto.py", monkeypatch, sft, file, tmp_path / "out", *flags)
    assert message.removeprefix(f"{tmp_path}/").startswith(told) and len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "loss, told",
    [
        (["sppo"], "in.jsonl:1: chosen_win_probability: missing"),
        (["xpo"], "in.jsonl:1: explored: missing"),
        (["sigmoid", "slic"], "--loss_type slic: not together with another loss"),
    ],
)
def test_a_loss_refuses_pairs_without_what_it_needs(monkeypatch, tmp_path, sft, pairs, loss, told):
    rows = [{key: row[key] for key in ("id", "prompt", "chosen", "rejected")} for row in pairs[1]]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    message = refused(
        "dpo/1_dpo.py", monkeypatch, sft, file, tmp_path / "out", "--loss_type", *loss
    )
    assert message.removeprefix(f"{tmp_path}/") == told


@pytest.mark.parametrize(
    "script, kind",
    [
        ("sft/2_finetune.py", "instructions"),
        ("reward_modeling/2a_bradley_terry.py", "preferences"),
        ("reward_modeling/2b_preference_model.py", "preferences"),
        ("dpo/1_dpo.py", "pairs"),
        ("dpo/1b_kto.py", "pairs"),
        ("dpo/1c_rloo.py", "pairs"),
    ],
)
def test_a_training_of_one_step_learns(
    monkeypatch, tmp_path, sft, reward_model, pairs, world, capsys, script, kind
):
    """Its one step would be the warm-up's, at a learning rate of 0."""
    files = {
        "pairs": pairs[0],
        "instructions": tmp_path / "in.jsonl",
        "preferences": reward_model.with_name("training.jsonl"),
    }
    write_jsonl(files["instructions"], read_jsonl(world / "instructions.jsonl")[:8])
    flags = [
        "--model_name_or_path",
        sft,
        "--output_dir",
        tmp_path / "out",
        "--max_steps",
        1,
        "--max_length",
        256,
    ]
    flags += [
        "--per_device_train_batch_size",
        2,
        "--dataset_name",
        files[kind],
        *TRAINING,
        "--learning_rate",
        1e-3,
    ]
    if kind == "preferences":
        flags += ["--held_out_name", reward_model.with_name("held_out.jsonl")]
    if script in ("dpo/1_dpo.py", "dpo/1b_kto.py"):
        flags += ["--ref_model_name_or_path", sft]
    if script == "dpo/1c_rloo.py":
        flags += [
            "--reward_model_name_or_path",
            reward_model,
            "--num_generations",
            2,
            "--max_completion_length",
            8,
        ]
        flags.remove("--max_length")
        flags.remove(256)
    trained(script, monkeypatch, *flags)
    assert [entry["learning_rate"] for entry in history(tmp_path / "out") if "loss" in entry] == [
        1e-3
    ]
    assert (
        "one step in all: without warm-up, in which its learning rate would be 0"
        in capsys.readouterr().out
    )


# RLOO


def test_the_gradient_of_rloo_is_that_of_the_definition(
    monkeypatch, tmp_path, sft, reward_model, pairs
):
    """Of one prompt with two samples: each one's advantage is its score less the other's. The loss itself is 0."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer import rloo_trainer

    flags = [
        "--model_name_or_path",
        sft,
        "--reward_model_name_or_path",
        reward_model,
        "--dataset_name",
        pairs[0],
    ]
    flags += [
        "--output_dir",
        tmp_path / "out",
        "--num_generations",
        2,
        "--per_device_train_batch_size",
        2,
        *TRAINING,
    ]
    flags += [
        "--max_steps",
        1,
        "--learning_rate",
        0,
        "--max_completion_length",
        64,
        "--log_completions",
        "True",
    ]
    kept = []
    monkeypatch.setattr(
        rloo_trainer, "pd", SimpleNamespace(DataFrame=kept.append)
    )  # a table of what it sampled
    trained("dpo/1c_rloo.py", monkeypatch, *flags, "--max_grad_norm", 1e9, "--report_to", "none")
    told = history(tmp_path / "out")[0]
    table = kept[0]
    rewards = table["reward_model"]
    tokenizer, model = (
        AutoTokenizer.from_pretrained(sft),
        AutoModelForCausalLM.from_pretrained(sft, dtype="float32"),
    )
    objective = 0.0
    for prompt, completion, advantage in zip(
        table["prompt"],
        table["completion"],
        (rewards[0] - rewards[1], rewards[1] - rewards[0]),
        strict=True,
    ):
        ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
        answer = tokenizer(completion[0]["content"], add_special_tokens=False)["input_ids"]
        whole = ids + answer + [tokenizer.eos_token_id]
        logps = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        objective -= (
            advantage * sum(logps[i - 1, whole[i]] for i in range(len(ids), len(whole))) / 2
        )
    objective.backward()
    norm = math.sqrt(sum(weight.grad.pow(2).sum().item() for weight in model.parameters()))
    assert told["loss"] == pytest.approx(0, abs=1e-6) and told["grad_norm"] == pytest.approx(
        norm, rel=1e-2
    )
    assert told["reward"] == pytest.approx(fmean(rewards), rel=1e-3)


# comparison/tiny


def value(words, flag):
    """What stands behind a flag, up to the next."""
    rest = words[words.index(flag) + 1 :]
    return " ".join(itertools.takewhile(lambda word: not word.startswith("--"), rest))


EXPECTED = {  # what the third round's training is, in words of its command
    "dpo": {"--loss_type": "sigmoid", "--dataset_name": "OUT/iter3/pairs.jsonl"},
    "rpo": {"--loss_type": "rpo"},
    "sppo": {"--ref_model_name_or_path": "OUT/iter2/policy", "--beta": "0.1"},
    "selm": {"--ref_model_name_or_path": "OUT/iter2/policy", "--learning_rate": "2e-5"},
    "kto": {"script": "dpo/1b_kto.py", "--dataset_name": "OUT/iter3/pairs.jsonl"},
    "raft": {
        "script": "sft/2_finetune.py",
        "--dataset_name": "OUT/iter3/best.jsonl",
        "--packing": "False",
    },
    "restart": {
        "--model_name_or_path": "OUT/sft",
        "--dataset_name": "OUT/iter1/pairs.jsonl OUT/iter2/pairs.jsonl OUT/iter3/pairs.jsonl",
    },
    "reference_previous": {"--ref_model_name_or_path": "OUT/iter2/policy"},
    "offline_mixed": {"--dataset_name": "OUT/iter3/pairs.jsonl OUT/offline_pairs.jsonl"},
    "online_dpo": {"--lr_scheduler_type": "constant", "--warmup_steps": "0"},
    "self_play": {"--ref_model_name_or_path": "OUT/iter2/policy"},
}
OUT = "runs/recorded"  # of a dry run


def listed(checkout, *recipes, **variables):
    """{step: the words of its command}"""
    done = dry_run(checkout, RECIPE=" ".join(recipes), **variables)
    assert done.returncode == 0, done.stderr
    return driving.commands(done.stdout)


@pytest.fixture
def found(checkout, request):
    """The steps of a recipe of comparison/tiny."""
    return listed(checkout, f"comparison/tiny/{request.param}.sh", *TINY)


TINY = "comparison/tiny.sh", "recipes/tiny.sh"


def of(name):
    return pytest.mark.parametrize("found", [name], indirect=True)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recipe_changes_the_training_by_what_it_says(checkout, name):
    words = listed(checkout, f"comparison/tiny/{name}.sh", *TINY)["iter3/policy"]
    expected = {"script": "dpo/1_dpo.py"} | EXPECTED[name]
    assert words[1] == expected.pop("script")
    for flag, text in expected.items():
        assert value(words, flag) == text.replace("OUT", OUT)


@pytest.mark.parametrize(
    "found, policy, temperature",
    [("xpo", "sft", "1.0"), ("selm", "iter2/policy", "0.0")],
    indirect=["found"],
)
def test_optimism_is_about_a_response_of_its_own(found, policy, temperature):
    words = found["iter3/explored"]
    assert value(words, "--model_name_or_path") == f"{OUT}/{policy}"
    assert value(words, "--temperatures") == temperature and value(words, "--n") == "1"
    assert value(found["iter3/pairs"], "--explored_file") == f"{OUT}/iter3/explored.jsonl"


@of("selm")
def test_the_learning_rate_of_selm_falls(found):
    rates = [value(found[f"iter{t}/policy"], "--learning_rate") for t in (1, 2)]
    assert rates == ["1e-4", "6e-5"]


@of("ipo_mixture")
def test_the_enhancer_gives_half_of_the_responses(found):
    assert value(found["iter3/mixture"], "--models") == f"{OUT}/iter2/policy {OUT}/sft"
    main, enhancer = found["iter3/responses_main"], found["iter3/responses_enhancer"]
    assert value(main, "--n") == value(enhancer, "--n") == "2"
    assert value(main, "--seed") != value(enhancer, "--seed")
    assert value(enhancer, "--model_name_or_path") == f"{OUT}/iter3/mixture"


@of("dpa")
def test_dpa_asks_in_a_direction(found):
    directions = found["iter3/directed"]
    assert value(directions, "--system_prompt") == "{helpfulness}, {verbosity}."
    assert value(found["iter3/responses"], "--prompts_file") == f"{OUT}/iter3/directed.jsonl"
    assert value(found["iter3/best"], "--helpfulness") == "correct manner"
    assert found["iter3/policy"][1] == "sft/2_finetune.py"


@of("self_rewarding")
def test_the_policy_of_the_round_judges_itself(found):
    assert value(found["iter3/rewards"], "--model_name_or_path") == f"{OUT}/iter2/policy"


@of("rloo")
def test_rloo_trains_on_prompts(found):
    words = found["iter1/policy"]
    assert value(words, "--dataset_name") == f"{OUT}/iter1/prompts.jsonl"
    assert value(words, "--per_device_train_batch_size") == "256"
    assert "iter1/responses" not in found


@pytest.mark.parametrize(
    "found, size",
    [("offline_dpo", "950"), ("offline_mixed", "300")],
    indirect=["found"],
)
def test_offline_pairs_are_those_of_others(found, size):
    words = found["offline_pairs"]
    assert value(words, "--size") == size
    assert value(words, "--datasets") == f"{OUT}/world/preferences.jsonl"


@of("self_play")
def test_self_play_has_the_prompts_of_the_instructions(found):
    assert value(found["iter3/prompts"], "--datasets") == f"{OUT}/instructions.jsonl"
    assert value(found["iter3/pairs"], "--instructions_file") == f"{OUT}/instructions.jsonl"
    assert "iter3/rewards" not in found


@of("sppo")
def test_sppo_has_win_probabilities(found):
    assert "--win_probabilities" in found["iter3/pairs"]


@of("uncertain")
def test_uncertain_pairs_know_the_earlier_ones(found):
    earlier = f"{OUT}/iter1/pairs.jsonl {OUT}/iter2/pairs.jsonl"
    assert value(found["iter3/pairs"], "--earlier_files") == earlier
    assert "--earlier_files" not in found["iter1/pairs"]


@pytest.mark.parametrize(
    "name, reference",
    [("sppo", "iter2/policy"), ("selm", "iter2/policy"), ("xpo", "sft")],
)
def test_an_optimiser_has_the_reference_of_its_source(checkout, name, reference):
    """Without a recipe of its own, too; what is set wins."""
    words = listed(checkout, "recipes/tiny.sh", OPTIMISER=name)["iter3/policy"]
    assert value(words, "--ref_model_name_or_path") == f"{OUT}/{reference}"
    words = listed(checkout, "recipes/tiny.sh", OPTIMISER=name, REFERENCE="initial")["iter3/policy"]
    assert value(words, "--ref_model_name_or_path") == f"{OUT}/sft"


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
            "OPTIMISER=rloo: its reference is the policy it starts from; set ITERATIONS=1 or",
        ),
        (
            {"ENHANCER": "initial", "N": "5", "TEMPERATURES": "1.0"},
            "N=5: with ENHANCER=initial each policy gives half",
        ),
        ({"RECIPE": "recipes/tiny.sh recipes/none.sh"}, "recipes/none.sh: no such recipe"),
    ],
)
def test_the_driver_refuses_what_does_not_go_together(checkout, variables, message):
    done = dry_run(checkout, **variables)
    assert done.returncode == 1 and done.stderr.startswith(f"run_loop.sh: {message}"), done.stderr


def test_of_several_recipes_the_first_that_sets_a_variable_wins(checkout, tmp_path):
    first = tmp_path / "mine.sh"
    first.write_text("DPO_BETA=0.7\n")
    words = listed(checkout, str(first), "recipes/tiny.sh", OUT="")["iter1/policy"]
    assert value(words, "--beta") == "0.7"
    assert value(words, "--output_dir") == "runs/mine/iter1/policy"


# annotation/2b_best.py, annotation/2c_self_play.py, generation/2b_merge.py, dpo/2_interpolate.py


def row(name, responses, **more):
    prompt = [{"role": "user", "content": f"Question {name}?"}]
    return {
        "id": name,
        "prompt": prompt,
        "responses": responses,
        "finish_reasons": ["stop"] * len(responses),
        **more,
    }


def test_the_best_response_becomes_the_assistants_turn(tmp_path):
    """Not the user's, as the published code of RAFT has it; a response that was cut off or is empty is no example."""
    rows = [
        row(
            "a",
            ["short", "longer answer", "mid"],
            rewards=[1.0, 1.5, 1.2],
            policy="p",
            temperatures=[1.0, 0.7, 0.7],
        ),
        row("b", ["x", "y", " "], rewards=[2.0, 3.0, 4.0]),
        row("c", ["x", "y", ""], rewards=[2.0, 3.0, 1.0]),
    ]
    rows[1]["finish_reasons"] = ["stop", "length", "stop"]
    rows[2]["finish_reasons"] = ["length", "length", "stop"]
    file, out = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    command = ["annotation/2b_best.py", "--rewards_file", file, "--output_file", out]
    done = ran(*command, "--for_training", "--length_penalty", 0.1)
    a, b = read_jsonl(out)
    assert a["messages"] == [*rows[0]["prompt"], {"role": "assistant", "content": "mid"}]
    assert (a["responses"], a["rewards"], a["temperatures"], a["policy"]) == (
        ["mid"],
        [1.2],
        [0.7],
        "p",
    )
    assert (
        b["responses"] == ["x"]
        and "rows in: 3, dropped, truncated or empty: 1, rows out: 2" in done.stdout
    )
    ran(*command)
    assert [r["responses"] for r in read_jsonl(out)] == [["longer answer"], [" "], ["y"]]


def test_self_play_sets_the_instructions_answer_above_the_policys_own(tmp_path):
    rows = [row("a", ["own"]), row("b", ["the answer"]), row("c", ["cut"])]
    rows[2]["finish_reasons"] = ["length"]
    answers = [
        {"id": r["id"], "messages": [*r["prompt"], {"role": "assistant", "content": "the answer"}]}
        for r in rows
    ]
    files = (
        write_jsonl(tmp_path / "in.jsonl", answers),
        write_jsonl(tmp_path / "responses.jsonl", rows),
    )
    command = [
        "annotation/2c_self_play.py",
        "--output_file",
        tmp_path / "out.jsonl",
        "--instructions_file",
        files[0],
    ]
    done = ran(*command, "--responses_file", files[1])
    assert "rows in: 3, dropped, identical: 1, dropped, truncated: 1, rows out: 1" in done.stdout
    (pair,) = read_jsonl(tmp_path / "out.jsonl")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("the answer", "own")
    rows[1]["prompt"] = rows[0]["prompt"]
    done = run(*command, "--responses_file", write_jsonl(files[1], rows))
    assert done.returncode == 1 and done.stderr == f"{files[1]}:2: id: 'b' is not of {files[0]}\n"


def test_the_responses_of_two_policies_are_put_together(tmp_path):
    a = [row(name, [name * 2, name * 3], temperatures=[1.0, 0.7], policy="main") for name in "xy"]
    b = [row(name, [name], temperatures=[1.0], policy="enhancer") for name in "xy"]
    files = write_jsonl(tmp_path / "a.jsonl", a), write_jsonl(tmp_path / "b.jsonl", b)
    command = [
        "generation/2b_merge.py",
        "--output_file",
        tmp_path / "out.jsonl",
        "--responses_files",
        *files,
    ]
    ran(*command)
    x, y = read_jsonl(tmp_path / "out.jsonl")
    assert x["responses"] == ["xx", "xxx", "x"] and y["temperatures"] == [1.0, 0.7, 1.0]
    assert x["policies"] == ["main", "main", "enhancer"] and len(y["finish_reasons"]) == 3
    write_jsonl(files[1], b[::-1])
    told = f"{files[1]}:1: id: not the prompts of {files[0]} in their order\n"
    assert run(*command).stderr == told
    write_jsonl(files[1], b[:1])
    assert run(*command).stderr == told.replace(":1:", ":2:")


def test_weights_are_averaged(tmp_path, policy, sft, base):
    from safetensors.torch import load_file

    command = ["dpo/2_interpolate.py", "--output_dir", tmp_path / "out", "--models", policy, sft]
    ran(*command, "--weights", 0.25, 0.75)
    ours, first, second = (
        load_file(model / "model.safetensors") for model in (tmp_path / "out", policy, sft)
    )
    for name, value in ours.items():
        assert value.allclose(0.25 * first[name] + 0.75 * second[name], atol=1e-6)
    assert log_probabilities(tmp_path / "out", [{"role": "user", "content": "Hello"}], "It is one.")
    done = run(*command, "--weights", 0.5, 0.6)
    assert done.returncode == 2 and "--weights: 2 with the sum 1.1 for 2 models" in done.stderr


def test_pairs_carry_what_sppo_and_xpo_read(tmp_path):
    rewarded = write_jsonl(
        tmp_path / "in.jsonl", [row("a", ["best", "mid", "worst"], rewards=[2.0, 1.0, -1.0])]
    )
    explored = write_jsonl(tmp_path / "explored.jsonl", [row("a", ["other"])])
    command = [
        "annotation/2_pairs.py",
        "--rewards_file",
        rewarded,
        "--output_file",
        tmp_path / "out.jsonl",
    ]
    ran(*command, "--win_probabilities", "--explored_file", explored)
    (pair,) = read_jsonl(tmp_path / "out.jsonl")
    assert pair["chosen_win_probability"] == pytest.approx((sigmoid(1) + sigmoid(3)) / 2)
    assert pair["rejected_win_probability"] == pytest.approx((sigmoid(-3) + sigmoid(-2)) / 2)
    assert pair["explored"] == "other"
    done = run(*command, "--explored_file", write_jsonl(explored, [row("b", ["other"])]))
    assert done.returncode == 1 and done.stderr == f"{explored}: id: 'a' of {rewarded} is missing\n"


def test_a_direction_stands_in_the_system_prompt_and_decides_what_is_best(tmp_path):
    """By standardised parts: at 45 degrees the longest, at -45 the shortest of those that help as much."""
    made = [row(name, ["bad", "good", "good and long"]) for name in "abcdefgh"]
    directed = tmp_path / "directed.jsonl"
    command = ["generation/1b_directions.py", "--output_file", directed]
    command += ["--prompts_file", write_jsonl(tmp_path / "in.jsonl", made)]
    ran(*command, "--angles", -45, 45)
    texts = {-45: "helpfulness*71 + verbosity*-71.", 45: "helpfulness*71 + verbosity*71."}
    scored, angles = [], {}
    for one in read_jsonl(directed):
        angles[one["id"]] = round(math.degrees(math.atan2(*one["direction"][::-1])))
        assert one["system"].endswith(f"weighted rating = {texts[angles[one['id']]]}")
        objectives = [
            {"help": 0.0, "kind": 1.0, "length": 0.1},
            {"help": 5.0, "kind": 2.0, "length": 0.3},
        ]
        objectives += [{"help": 5.0, "kind": 2.0, "length": 0.4}]
        scored.append({**one, "rewards": [0.0, 1.0, 1.0], "objectives": objectives})
    assert set(angles.values()) == {-45, 45}
    scored[0]["finish_reasons"] = ["length"] * 3
    for one in scored[1:4]:  # the least verbose, and nothing to learn from
        one["responses"][0], one["objectives"][0] = "", {"help": 5.0, "kind": 2.0, "length": -9.0}
    best = [
        "annotation/2e_directional.py",
        "--output_file",
        tmp_path / "best.jsonl",
        "--verbosity",
        "length",
    ]
    best += ["--rewards_file", write_jsonl(tmp_path / "scored.jsonl", scored), "--helpfulness"]
    done = ran(*best, "help", "kind")
    assert "rows in: 8, dropped, truncated or empty: 1, rows out: 7" in done.stdout
    for one in read_jsonl(tmp_path / "best.jsonl"):
        assert [turn["role"] for turn in one["messages"]] == ["system", "user", "assistant"]
        assert (
            one["messages"][2]["content"] == {-45: "good", 45: "good and long"}[angles[one["id"]]]
        )
    told = run(*best, "none").stderr
    assert told == f"{tmp_path}/scored.jsonl:1: objectives: none is called 'none'\n"
    del scored[0]["direction"]
    write_jsonl(tmp_path / "scored.jsonl", scored)
    assert run(*best, "help").stderr == f"{tmp_path}/scored.jsonl:1: direction: missing\n"
    ran(*command, "--angles", -45, "--system_prompt", "{verbosity} and {helpfulness}{}")
    assert {one["system"] for one in read_jsonl(directed)} == {"-71 and 71{}"}
    done = run(*command, "--system_prompt", "{helpfulness}")
    assert done.returncode == 2 and done.stderr.endswith(
        "error: --system_prompt: {verbosity} is missing\n"
    )


def test_judgements_name_the_better_response_on_either_side(tmp_path, world):
    preferences = write_jsonl(tmp_path / "in.jsonl", read_jsonl(world / "preferences.jsonl")[:40])
    command = [
        "sft/1b_judgements.py",
        "--preferences_file",
        preferences,
        "--output_file",
        tmp_path / "out.jsonl",
    ]
    ran(*command)
    judgements = {
        r["id"].removeprefix("judgement-"): r["messages"]
        for r in read_jsonl(tmp_path / "out.jsonl")
    }
    sides = set()
    for pair in read_jsonl(preferences):
        question, answer = (turn["content"] for turn in judgements[pair["id"]])
        texts = [pair[name][0]["content"] for name in ("chosen", "rejected")]
        a, b = texts if answer == "A" else texts[::-1]
        asked = pair["prompt"][0]["content"]
        assert (
            question
            == f"[CONTEXT] \n\n<turn> user\n {asked}\n [RESPONSE A] {a} [RESPONSE B] {b} \n"
        )
        sides.add(answer)
    assert sides == {"A", "B"}
    ran(*command, "--size", 7)
    assert len(read_jsonl(tmp_path / "out.jsonl")) == 7
    done = run(*command, "--size", 41)
    assert (
        done.returncode == 1 and done.stderr == f"{preferences}: 41 pairs asked for, 40 are there\n"
    )


def test_the_pair_of_most_information_is_chosen(tmp_path, reward_model, world):
    """By numpy over the hidden states of each sequence alone; the second row's choice depends on the first's."""
    import numpy
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(reward_model)
    model = AutoModelForSequenceClassification.from_pretrained(reward_model, dtype="float32").eval()
    texts = ["one", "It is two.", "The answer is one. I am glad to help!", "three", "two, two"]
    made = [row(name, texts, rewards=[float(len(t)) for t in texts]) for name in "abcd"]
    made[1]["finish_reasons"][3] = "length"
    made[3]["responses"] = ["same"] * 5
    file, phi = write_jsonl(tmp_path / "in.jsonl", made), []
    for one in made:
        for text in one["responses"]:
            chat = tokenizer.apply_chat_template(
                [*one["prompt"], {"role": "assistant", "content": text}], tokenize=False
            )
            ids = torch.tensor([tokenizer(chat, add_special_tokens=False)["input_ids"]])
            with torch.inference_mode():
                phi.append(model.base_model(ids).last_hidden_state[0, -1].double().numpy())
    phi = numpy.array(phi) - numpy.mean(phi, axis=0)
    phi /= numpy.linalg.norm(phi, axis=1).mean()
    sigma, expected = 0.1 * numpy.eye(phi.shape[1]), {}
    for i in range(3):
        of_row, best = phi[5 * i : 5 * i + 5], 2
        others = [j for j in range(5) if j != best and made[i]["finish_reasons"][j] != "length"]
        inverse = numpy.linalg.inv(sigma)
        norms = {
            j: (of_row[best] - of_row[j]) @ inverse @ (of_row[best] - of_row[j]) for j in others
        }
        other = max(norms, key=norms.get)
        sigma += numpy.outer(of_row[best] - of_row[other], of_row[best] - of_row[other])
        expected["abc"[i]] = (texts[other], norms[other] ** 0.5)
    out = tmp_path / "out.jsonl"
    command = [
        "annotation/2d_uncertain_pairs.py",
        "--model_name_or_path",
        reward_model,
        "--rewards_file",
        file,
    ]
    done = ran(*command, "--ridge", 0.1, "--output_file", out)
    assert (
        "rows in: 4, dropped, identical or truncated: 1, rows out: 3, earlier pairs: 0"
        in done.stdout
    )
    for pair in read_jsonl(out):
        text, uncertainty = expected[pair["id"]]
        assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == (texts[2], text)
        assert pair["uncertainty"] == pytest.approx(uncertainty, rel=1e-3)
    gained = numpy.linalg.slogdet(sigma / 0.1)[1]
    assert float(done.stdout.split("ridge: ")[1].split(",")[0]) == pytest.approx(gained, abs=0.02)

    # The next round asks what these pairs have not told: the same rows give other pairs, of less uncertainty.
    again = tmp_path / "again.jsonl"
    done = ran(*command, "--ridge", 0.1, "--earlier_files", out, "--output_file", again)
    assert "rows out: 3, earlier pairs: 3" in done.stdout
    for i, pair in enumerate(read_jsonl(again)):
        of_row = phi[5 * i : 5 * i + 5]
        differences = {texts[j]: of_row[2] - of_row[j] for j in (0, 1, 3, 4) if (i, j) != (1, 3)}
        norms = {text: d @ numpy.linalg.inv(sigma) @ d for text, d in differences.items()}
        other = max(norms, key=norms.get)
        assert pair["rejected"][0]["content"] == other
        assert pair["uncertainty"] == pytest.approx(norms[other] ** 0.5, rel=1e-3)
        assert pair["uncertainty"] < expected[pair["id"]][1]
        sigma += numpy.outer(differences[other], differences[other])
    gained = numpy.linalg.slogdet(sigma / 0.1)[1]
    assert float(done.stdout.split("ridge: ")[1].split(",")[0]) == pytest.approx(gained, abs=0.02)


# comparison


def test_best_of_n_takes_the_best_of_the_first_n_and_its_divergence_is_exact(tmp_path):
    """Four samples of three texts, shares 1/2, 1/4, 1/4 from the worst on: of two, 1/4, 5/16, 7/16."""
    samples = row(
        "a", ["w", "b", "w", "m"], rewards=[0.0, 2.0, 0.0, 1.0], true_rewards=[0.0, 1.0, 0.0, 2.0]
    )
    out = tmp_path / "out.jsonl"
    command = [
        "comparison/1_best_of_n.py",
        "--rewards_file",
        write_jsonl(tmp_path / "in.jsonl", [samples]),
    ]
    done = ran(*command, "--n", 2, "--output_file", out)
    (best,) = read_jsonl(out)
    assert best["responses"] == ["b"] and best["true_rewards"] == [1.0]
    kl = sum(p * math.log(p / q) for p, q in ((0.25, 0.5), (0.3125, 0.25), (0.4375, 0.25)))
    assert best["kl"] == [pytest.approx(kl)] and kl < math.log(2) - 0.5
    assert f"KL {kl:.4f} nats, at most {math.log(2) - 0.5:.4f}" in done.stdout
    done = run(*command, "--n", 5, "--output_file", out)
    assert done.returncode == 1 and done.stderr.endswith(
        "in.jsonl:1: responses: 4, too few for the best of 5\n"
    )


def test_the_comparison_is_of_the_last_round_with_its_cost(tmp_path):
    """Two prompts, a win and a tie against the fine-tuned policy in one seed, two wins in another. Both ties and the
    first seed twice is drawn once in 64 times."""
    for seed, true in ((0, [2.0, 1.0]), (1, [2.0, 3.0])):
        for name, policy, rewards in (
            ("base", "sft", [1.0, 1.0]),
            ("dpo", "iter1", [0, 0]),
            ("dpo", "iter2", true),
        ):
            made = [
                row(
                    f"{i}",
                    ["four"],
                    rewards=[r + 1],
                    true_rewards=[r],
                    correct=[1.0],
                    kl=[0.5],
                    split="test",
                )
                for i, r in enumerate(rewards)
            ]
            folder = tmp_path / f"seed{seed}" / name / "eval" / policy
            folder.mkdir(parents=True)
            write_jsonl(folder / "kl.jsonl", made)
        run_of, log = tmp_path / f"seed{seed}/dpo", tmp_path / f"seed{seed}/dpo/log"
        (run_of / "iter1/policy").mkdir(parents=True)
        outside = {"reward_model": 100, "eval/iter1/answers": 100}
        for step, seconds in ({"iter1/pairs": 11, "iter2/pairs": 7} | outside).items():
            file = log / f"{step}.seconds"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{seconds}\n")
        told = {"log_history": [{"num_tokens": 10.0}, {"num_tokens": 30.0}, {"loss": 1.0}]}
        (run_of / "iter1/policy/trainer_state.json").write_text(json.dumps(told))
        write_jsonl(
            run_of / "iter1/responses.jsonl", [row("0", ["a", "b"], response_tokens=[3, 4])]
        )
    ran("comparison/2_table.py", "--directory", tmp_path)
    text = (tmp_path / "COMPARISON.md").read_text()
    assert 'SEEDS="0 1" bash comparison/compare.sh' in text
    assert (
        "| dpo | 2 | 0.875 | 0.625 to 1.000 | 2.000 | 3.000 | 1.000 | 4.0 | 0.50 | 18 | 7 | 30 |"
        in text
    )
    assert "| sft | 2 | 0.500 | 0.500 to 0.500 | 1.000 |" in text
    assert "does not improve" not in text
    assert (tmp_path / "kl.png").stat().st_size > 5000 and (tmp_path / "compute.png").exists()
    done = run("comparison/2_table.py", "--directory", tmp_path / "none")
    assert done.returncode == 1 and done.stderr.endswith("none: no run of compare.sh is there\n")


def test_the_comparison_names_what_it_knows():
    done = subprocess.run(
        ["bash", ROOT / "comparison/compare.sh", "dpo", "ppo"], capture_output=True, text=True
    )
    told = "compare.sh: ppo: all, short, claims, explorations, or some of dpo offline_dpo ipo"
    assert done.returncode == 1 and done.stderr.startswith(told) and not done.stdout
    known = done.stderr.split("some of ")[1].split()
    recipes = {path.stem for path in ROOT.glob("comparison/tiny/*.sh")}
    assert set(known) == recipes | {"best_of_n", "interpolation", "alignment_tax"}


def made_run(directory, seed, name, policy, true, proxy=None, text="four"):
    """What a run of compare.sh leaves of one policy: a row a test prompt."""
    made = [
        row(
            f"{i}",
            [text],
            rewards=[float(p)],
            true_rewards=[float(t)],
            correct=[1.0],
            kl=[0.5],
            split="test",
        )
        for i, (t, p) in enumerate(zip(true, proxy or true, strict=True))
    ]
    folder = directory / f"seed{seed}" / name / "eval" / policy
    folder.mkdir(parents=True)
    write_jsonl(folder / "kl.jsonl", made)


def test_a_claim_holds_fails_or_is_undecided_by_its_interval(tmp_path):
    """Forty prompts a seed: offline DPO wins eight of ten, iterative DPO nine of ten; random pairs as often, but on
    other prompts; best against random always. The penalised answers are shorter and lose as rarely."""
    base = [0.0, 1.0] * 20
    wins = {"offline_dpo": 32, "dpo": 36, "random_random": 36, "best_random": 40, "concise": 36}
    for seed in (0, 1):
        made_run(tmp_path, seed, "base", "sft", base)
        for name, won in wins.items():
            true = [b + (1 if i < won else -1) for i, b in enumerate(base)]
            if name == "random_random":
                true = true[::-1] if seed else true
            made_run(
                tmp_path, seed, name, "iter3", true, text="or" if name == "concise" else "four"
            )
            run_of = tmp_path / f"seed{seed}" / name
            (run_of / "iter3/policy").mkdir(parents=True)
            (run_of / "settings").write_text("DPO_BETA=0.3\n")
            write_jsonl(
                run_of / ("offline_pairs.jsonl" if name == "offline_dpo" else "iter3/pairs.jsonl"),
                [{}] * won,
            )
            log = [
                {"rewards/chosen": value}
                for value in (0.0, 0.9, *[-0.6 if name == "offline_dpo" else 0.6] * 3)
            ]
            (run_of / "iter3/policy/trainer_state.json").write_text(
                json.dumps({"log_history": log})
            )
    made_run(tmp_path, 0, "self_play", "iter3", [b - (i < 9) for i, b in enumerate(base)])
    for policy, value in (("sft", 0.5), ("iter3", 0.48)):
        (tmp_path / f"seed1/dpo/academic/{policy}").mkdir(parents=True)
        scores = json.dumps({"tasks": {"tiny_answers": {"value": value}}})
        (tmp_path / f"seed1/dpo/academic/{policy}/academic.json").write_text(scores)
    ran("comparison/2_table.py", "--directory", tmp_path)
    text = (tmp_path / "COMPARISON.md").read_text()
    assert (
        text.count("does not improve") == 1
        and "- self_play does not improve: its target is what" in text
    )
    done = ran("comparison/3_claims.py", "--directory", tmp_path)
    assert (tmp_path / "CLAIMS.md").read_text().endswith(done.stdout)
    told = {
        line.split(" | ")[1].removeprefix("compare.sh "): line
        for line in done.stdout.splitlines()[2:]
    }
    verdicts = {runs: line.rsplit("| ", 1)[1].removesuffix(" |") for runs, line in told.items()}
    assert verdicts["dpo offline_dpo"] == "holds" and verdicts["dpo concise"] == "holds"
    assert verdicts["dpo best_random"] == "fails" and verdicts["dpo random_random"] == "undecided"
    assert verdicts["dpo long"] == verdicts["far"] == verdicts["best_of_n"] == "not run"
    assert (
        "| 1 | iter3 - sft, each seed: tiny_answers: -0.020 | holds |" in told["dpo alignment_tax"]
    )
    assert verdicts["offline_dpo"] == "holds" and "iter3 -2.00 -2.00" in told["offline_dpo"]
    assert verdicts["dpo"] == "fails"
    assert "win rate, dpo - offline_dpo: +0.100 (" in told["dpo offline_dpo"]
    assert "; pairs: dpo 36, offline_dpo 32 | holds |" in told["dpo offline_dpo"]
    assert "length, concise - dpo: -2.000 (-2.000 to -2.000)" in told["dpo concise"]
