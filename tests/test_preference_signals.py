"""The preference model, its comparisons of n responses, and ArmoRM: compared with a computation by hand."""

import itertools
import json
import math
import runpy
import shutil
from statistics import fmean

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from commands import ROOT, ran, read_jsonl, run, write_jsonl
from common import chats, comparisons
from conftest import TRAINING, train
from test_models import history, ids_of, in_two_shards, loaded


def held_out_of(reward_model):
    return ["--held_out_name", reward_model.with_name("held_out.jsonl")]


# reward_modeling/2b_preference_model.py


@pytest.fixture(scope="module")
def preference_model(sft, reward_model):
    """Trained hard on few pairs: whoever sees a side by which to tell them would tell all of them."""
    out = sft.with_name("preference_model")
    flags = "--max_steps 60 --per_device_train_batch_size 2 --max_length 256 --learning_rate 3e-3".split()
    flags += [
        "--dataset_name",
        reward_model.with_name("training.jsonl"),
        *held_out_of(reward_model),
    ]
    train("reward_modeling/2b_preference_model.py", out, "--model_name_or_path", sft, *flags)
    return out


def test_the_side_of_the_better_response_is_drawn(preference_model):
    """With the chosen response always first, A would soon be certain: the mean loss of its three tokens near 0."""
    assert history(preference_model)[-1]["eval_loss"] > 0.8 * math.log(2) / 3


def splitting(model, copy):
    """A copy of a model whose tokenizer reads two characters where an A stands."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.save_pretrained(copy)
    file = copy / "tokenizer.json"
    settings = json.loads(file.read_text())
    settings["normalizer"] = {"type": "Replace", "pattern": {"String": "A"}, "content": "xy"}
    settings["model"]["merges"] = []
    file.write_text(json.dumps(settings))
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((model / name).read_bytes())
    return copy


def test_a_tokenizer_that_splits_a_side_is_refused(sft, reward_model, compared, tmp_path):
    model = splitting(sft, tmp_path / "model")
    flags = ["--dataset_name", reward_model.with_name("training.jsonl"), *held_out_of(reward_model)]
    command = [
        "reward_modeling/2b_preference_model.py",
        "--output_dir",
        tmp_path / "out",
        *TRAINING,
        *flags,
    ]
    done = run(*command, "--model_name_or_path", model)
    refusal = f"{model}: its tokenizer splits 'A' into several tokens"
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == refusal
    done = run(*comparing(model, compared[0]), "--output_file", tmp_path / "rewards.jsonl")
    assert done.returncode == 1 and done.stderr == f"{refusal}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_held_out_prompts_must_not_be_training_prompts(reward_model, sft, tmp_path):
    """Defect 13: the evaluation set of the published Llama-3 reward model is a part of its training set."""
    file = reward_model.with_name("training.jsonl")
    for script in ("2a_bradley_terry", "2b_preference_model", "2c_armorm"):
        flags = ["--ratings_name", tmp_path / "none.jsonl"] if script == "2c_armorm" else []
        if flags:
            row = {
                "id": "0",
                "messages": read_jsonl(file)[0]["prompt"],
                "ratings": {"verbosity": 1},
            }
            row["messages"] = [*row["messages"], {"role": "assistant", "content": "x"}]
            write_jsonl(
                flags[1], [{**row, "id": f"{i}", "ratings": {"verbosity": i}} for i in range(10)]
            )
        command = [
            f"reward_modeling/{script}.py",
            "--model_name_or_path",
            sft,
            "--output_dir",
            tmp_path / "out",
        ]
        done = run(*command, *TRAINING, "--dataset_name", file, "--held_out_name", file, *flags)
        assert done.returncode == 1 and not (tmp_path / "out").exists()
        assert done.stderr.splitlines()[-1] == f"{file}: prompt: some prompts stand in {file} too"


# annotation/1b_preference_model.py


def comparing(model, file, *flags):
    return [
        "annotation/1b_preference_model.py",
        "--model_name_or_path",
        model,
        "--responses_file",
        file,
        *flags,
    ]


def p_first(path, prompt, a, b):
    """P(A) for one order, by hand: one sequence, no padding, no BOS; a prompt of one turn."""
    tokenizer, model = loaded(path)
    asked = (
        f"[CONTEXT] \n\n<turn> user\n {prompt[0]['content']}\n [RESPONSE A] {a} [RESPONSE B] {b} \n"
    )
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
    )
    ids = ids_of(tokenizer, text.replace(tokenizer.bos_token, ""))
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, -1]
    return logits[[ids_of(tokenizer, side)[0] for side in "AB"]].softmax(-1)[0].item()


def test_the_question_is_the_published_models_letter_by_letter():
    """What the chat template and the pattern of its published code make of three turns."""
    turns = [("user", "Q1"), ("assistant", "A1"), ("user", "Q2")]
    prompt = [{"role": role, "content": content} for role, content in turns]
    text = "[CONTEXT] \n\n<turn> user\n Q1\n<turn> assistant\n A1\n<turn> user\n Q2\n"
    text += " [RESPONSE A] a [RESPONSE B] b \n"
    assert comparisons.question(prompt, "a", "b") == [{"role": "user", "content": text}]


def test_training_reads_the_tokens_of_annotation(preference_model):
    """The question as it is asked, without BOS, is what training has before the answer."""
    tokenizer, _ = loaded(preference_model)
    asked = comparisons.question([{"role": "user", "content": "1 + 1?"}], "2", "3")
    annotated = ids_of(
        tokenizer, comparisons.text(tokenizer, asked, "-", add_generation_prompt=True)
    )
    trained = [
        ids_of(
            tokenizer,
            comparisons.text(tokenizer, [*asked, {"role": "assistant", "content": side}], "-"),
        )
        for side in "AB"
    ]
    sides, length = chats.choice(tokenizer)
    assert trained[0][:-length] == annotated and tokenizer.bos_token_id not in annotated
    assert (
        sides
        == tuple(tokens[-length] for tokens in trained)
        == tuple(ids_of(tokenizer, side)[0] for side in "AB")
    )


def test_a_policy_is_asked_with_the_bos_token(compared, preference_model, tmp_path):
    """As it was fine-tuned: ANNOTATOR=policy."""
    file, _, rows, _ = compared
    command = comparing(preference_model, file, "--method", "all_pairs", "--bos")
    ran(*command, "--output_file", tmp_path / "rewards.jsonl")
    with_bos = read_jsonl(tmp_path / "rewards.jsonl")
    assert [row["rewards"] for row in with_bos] != [row["rewards"] for row in rows]


@pytest.fixture(scope="module")
def compared(tmp_path_factory, preference_model, world):
    """Five responses of many lengths to each prompt, one too long: (file, rows by tournament, by all pairs, told)."""
    folder = tmp_path_factory.mktemp("comparisons")
    prompts, pairs = (
        read_jsonl(world / "prompts.jsonl")[:7],
        read_jsonl(world / "preferences.jsonl"),
    )
    for i, row in enumerate(prompts):
        row["responses"] = [
            pairs[5 * i + j]["chosen"][0]["content"] * (j + 1) for j in range(4)
        ] + [""]
        row["finish_reasons"] = ["stop"] * 5
    prompts[2]["responses"][1] = "word " * 600
    file = write_jsonl(folder / "responses.jsonl", prompts)
    done = ran(*comparing(preference_model, file), "--output_file", folder / "tournament.jsonl")
    ran(
        *comparing(preference_model, file, "--method", "all_pairs"),
        "--output_file",
        folder / "all_pairs.jsonl",
    )
    return (
        file,
        read_jsonl(folder / "tournament.jsonl"),
        read_jsonl(folder / "all_pairs.jsonl"),
        done,
    )


def test_both_orders_of_every_pair_count(compared, preference_model):
    file, _, rows, _ = compared
    assert [row["id"] for row in rows] == [
        row["id"] for i, row in enumerate(read_jsonl(file)) if i != 2
    ]
    for row in rows:
        assert [(c["a"], c["b"]) for c in row["judgement"]] == [
            *itertools.combinations(range(5), 2)
        ]
        wins = np.zeros((5, 5))
        for c in row["judgement"]:
            a, b = (row["responses"][c[side]] for side in "ab")
            by_hand = (
                p_first(preference_model, row["prompt"], a, b)
                + 1
                - p_first(preference_model, row["prompt"], b, a)
            ) / 2
            assert c["probability"] == pytest.approx(by_hand, abs=1e-4)
            wins[c["a"], c["b"]], wins[c["b"], c["a"]] = c["probability"], 1 - c["probability"]
        assert row["rewards"] == pytest.approx(wins.sum(1) / 4) and fmean(
            row["rewards"]
        ) == pytest.approx(0.5)
        assert row["annotator"] == str(preference_model)


def test_a_linear_tournament_finds_the_best_and_the_worst(compared):
    _, rows, all_pairs, done = compared
    for row, whole in zip(rows, all_pairs, strict=True):
        p = {(c["a"], c["b"]): c["probability"] for c in whole["judgement"]}
        p |= {(b, a): 1 - value for (a, b), value in p.items()}
        best = 0
        for i in range(1, 5):
            best = best if p[best, i] >= 0.5 else i
        worst, *others = (i for i in range(5) if i != best)
        for i in others:
            worst = i if p[worst, i] >= 0.5 else worst
        assert row["rewards"] == [
            1.0 if i == best else 0.0 if i == worst else 0.5 for i in range(5)
        ]
        for c in row["judgement"]:
            assert c["probability"] == pytest.approx(p[c["a"], c["b"]], abs=1e-4)
        met = [frozenset((c["a"], c["b"])) for c in row["judgement"]]
        assert (
            len(set(met)) == len(met) <= 7
        )  # n - 1 for the best, n - 2 more at most for the worst
    met = sum(len(row["judgement"]) for row in rows)
    assert (
        f"rows in: 7, finished before: 0, dropped, too long: 1, rows out: 6, comparisons: {met}, "
        in done.stdout
    )


def test_small_batches_shards_and_a_kill_change_no_comparison(compared, preference_model, tmp_path):
    file, rows, _, _ = compared
    sharded = in_two_shards(
        file, tmp_path / "out.jsonl", *comparing(preference_model, file), "--batch_tokens", 64
    )
    for row, old in zip(sharded, rows, strict=True):
        for new in (row, old):
            new["judgement"] = [
                {**c, "probability": pytest.approx(c["probability"], abs=1e-4)}
                for c in new["judgement"]
            ]
        assert {**row, "judgement": 0} == {**old, "judgement": 0}
        assert [(c["a"], c["b"], c["probability"].expected) for c in row["judgement"]] == [
            (c["a"], c["b"], c["probability"]) for c in old["judgement"]
        ]


def test_one_response_cannot_be_compared(compared, preference_model, tmp_path):
    row = read_jsonl(compared[0])[0]
    file = write_jsonl(
        tmp_path / "one.jsonl", [{**row, "responses": ["x"], "finish_reasons": ["stop"]}]
    )
    done = run(*comparing(preference_model, file), "--output_file", tmp_path / "out.jsonl")
    assert done.returncode == 1 and done.stderr == f"{file}: responses: 1, a comparison needs two\n"


def test_a_model_that_goes_by_the_place_finds_no_winner(tmp_path):
    """Its probabilities are 0.5 in the mean of both orders: no response is called the best, no pair is made."""
    method = runpy.run_path(str(ROOT / "annotation/1b_preference_model.py"))["tournament"](4)
    next(method)
    with pytest.raises(StopIteration) as finished:
        while True:
            method.send(0.5)
    assert finished.value.value == [0.5] * 4


def test_a_comparison_that_would_lose_its_answer_is_dropped_and_counted(
    sft, reward_model, tmp_path
):
    pairs = read_jsonl(reward_model.with_name("training.jsonl"))
    pairs[1]["chosen"][0]["content"] = "word " * 300
    file = write_jsonl(tmp_path / "pairs.jsonl", pairs[:9])
    command = [
        "reward_modeling/2b_preference_model.py",
        "--model_name_or_path",
        sft,
        "--output_dir",
        tmp_path / "out",
    ]
    command += ["--dataset_name", file, *held_out_of(reward_model), "--max_steps", 1, *TRAINING]
    done = run(*command, "--max_length", 256)
    assert f"{file} rows in: 9, dropped, too long: 1, rows out: 8\n" in done.stdout, done.stderr
    done = run(*command[:4], tmp_path / "none", *command[5:], "--max_length", 5)
    assert done.returncode == 1 and not (tmp_path / "none").exists()
    assert (
        done.stderr.splitlines()[-1] == f"{file}: no comparison has at most --max_length 5 tokens"
    )


# reward_modeling/2c_armorm.py


def learn(out, backbone, ratings, *more):
    flags = "--max_steps 100 --per_device_train_batch_size 32 --gate_size 32 --learning_rate 3e-3".split()
    flags += [
        "--ratings_name",
        ratings,
        "--dataset_name",
        backbone.with_name("training.jsonl"),
        *held_out_of(backbone),
    ]
    command = [
        "reward_modeling/2c_armorm.py",
        "--output_dir",
        out,
        *TRAINING,
        "--model_name_or_path",
        backbone,
    ]
    return run(*command, *flags, *more)


@pytest.fixture(scope="module")
def armorm(reward_model, world):
    out = reward_model.with_name("armorm")
    done = learn(out, reward_model, world / "ratings.jsonl")
    assert done.returncode == 0, done.stderr
    return out


def load_armorm(path):
    kind = AutoModelForSequenceClassification
    return AutoTokenizer.from_pretrained(path, trust_remote_code=True), kind.from_pretrained(
        path, trust_remote_code=True
    ).eval()


def outputs(path, chats):
    tokenizer, model = load_armorm(path)
    texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
    with torch.inference_mode():
        batch = tokenizer(
            texts, add_special_tokens=False, return_tensors="pt", padding=True, padding_side="right"
        )
        return model(**batch), model


def test_every_head_is_the_ridge_regression_of_its_ratings(armorm, world):
    """On the rows that have the rating and no held-out prompt, scaled to [0, 1], without intercept."""
    rated, told = (
        read_jsonl(world / "ratings.jsonl"),
        json.loads((armorm / "armorm.json").read_text())["objectives"],
    )
    held_out = [row["prompt"] for row in read_jsonl(armorm.with_name("held_out.jsonl"))]
    unseen = np.array([row["messages"][:-1] in held_out for row in rated])
    assert 0 < unseen.sum() < 10
    tokenizer, model = load_armorm(armorm)
    assert model.config.objectives == [*told] == ["correct", "manner", "length", "verbosity"]
    features = []
    for row in rated:
        ids = ids_of(tokenizer, tokenizer.apply_chat_template(row["messages"], tokenize=False))
        with torch.inference_mode():
            features.append(
                model.model(torch.tensor([ids])).last_hidden_state[0, -1].double().numpy()
            )
    for i, (name, facts) in enumerate(told.items()):
        ratings = np.array(
            [np.nan if row["ratings"][name] is None else row["ratings"][name] for row in rated]
        )
        known = ~np.isnan(ratings) & ~unseen
        x, y = np.array(features)[known], ratings[known]
        y = (y - np.nanmin(ratings)) / (np.nanmax(ratings) - np.nanmin(ratings))
        by_hand = np.linalg.solve(x.T @ x + facts["alpha"] * np.eye(x.shape[1]), x.T @ y)
        assert facts["rows"] == known.sum() < len(rated)
        predicted = x @ model.regression_layer.weight[i].detach().double().numpy()
        assert predicted == pytest.approx(x @ by_hand, abs=1e-2)


def test_ratings_of_held_out_prompts_teach_nothing(armorm, reward_model, world, tmp_path):
    """Defect 13, for the heads: they tell how well these do on prompts that no one has learned from."""
    held_out = {str(row["prompt"]) for row in read_jsonl(reward_model.with_name("held_out.jsonl"))}
    rated = read_jsonl(world / "ratings.jsonl")
    known = {
        name: [r["ratings"][name] for r in rated if r["ratings"][name] is not None]
        for name in rated[0]["ratings"]
    }
    low, high = (
        {name: pick(values) for name, values in known.items()} for pick in (min, max)
    )  # the scale stays
    for i, row in enumerate([row for row in rated if str(row["messages"][:-1]) in held_out] * 4):
        rated.append({**row, "id": f"more-{i}", "ratings": (low, high)[i % 2]})
    out = tmp_path / "armorm"
    done = learn(
        out, reward_model, write_jsonl(tmp_path / "ratings.jsonl", rated), "--max_steps", 1
    )
    assert done.returncode == 0, done.stderr
    (_, new), (_, old) = load_armorm(out), load_armorm(armorm)
    assert torch.allclose(
        new.regression_layer.weight, old.regression_layer.weight, rtol=1e-2, atol=1e-3
    )
    told = [
        json.loads((path / "armorm.json").read_text())["objectives"]["manner"]
        for path in (out, armorm)
    ]
    assert (
        told[0]["rows"] == told[1]["rows"]
        and told[0]["of"] >= 10
        and abs(told[0]["correlation"]) < 0.5
    )


def test_the_penalty_is_the_smallest_that_frees_an_objective_from_verbosity(armorm, reward_model):
    told = json.loads((armorm / "armorm.json").read_text())["objectives"]
    pairs = read_jsonl(reward_model.with_name("training.jsonl"))
    result, model = outputs(
        armorm, [row["prompt"] + row[side] for row in pairs for side in ("chosen", "rejected")]
    )
    rewards, matrix = result.rewards.numpy(), model.reward_transform_matrix.detach().numpy()
    penalties = [facts["lambda"] for facts in told.values()]
    wanted = np.eye(4)
    wanted[3] -= penalties
    assert (
        matrix == pytest.approx(wanted, abs=1e-6)
        and penalties[3] == 1
        and any(0 < p for p in penalties[:3])
    )
    for i, penalty in enumerate(penalties[:3]):
        assert spearmanr(rewards[:, i] - penalty * rewards[:, 3], rewards[:, 3]).statistic <= 0.031
        if penalty:
            less = penalty - 0.01
            assert spearmanr(rewards[:, i] - less * rewards[:, 3], rewards[:, 3]).statistic > 0.029


def test_the_gate_sums_to_one_over_objectives_and_sees_the_prompt_only(armorm, world):
    """Defect 9: softmax over the pairs gave one gate for all prompts, and the corrected rewards were never used."""
    prompts = [row["prompt"] for row in read_jsonl(world / "prompts.jsonl")[:12]]
    short, long = (
        [{"role": "assistant", "content": text}]
        for text in ("7.", "Well, well. Let me think. It is 7.")
    )
    result, model = outputs(
        armorm, [prompt + answer for prompt in prompts for answer in (short, long)]
    )
    gates = result.gating_output
    assert gates.shape == (24, 4) and gates.sum(1).numpy() == pytest.approx(np.ones(24), abs=1e-5)
    assert gates[::2].numpy() == pytest.approx(gates[1::2].numpy(), abs=1e-5)
    assert gates[::2].std(0).max() > 1e-3
    scale = model.gating.scale.detach()
    by_hand = scale * (gates * (result.rewards @ model.reward_transform_matrix.detach())).sum(1)
    assert result.score.numpy() == pytest.approx(by_hand.numpy(), abs=1e-5)
    uncorrected = scale * (gates * result.rewards).sum(1)
    assert (result.score - uncorrected).abs().max() > 1e-3
    assert result.logits[:, 0].numpy() == pytest.approx(result.score.numpy())
    alone, _ = outputs(armorm, [prompts[3] + short])
    assert alone.score.item() == pytest.approx(result.score[6].item(), abs=1e-4)


def test_armorm_annotates(armorm, world, tmp_path):
    prompts = read_jsonl(world / "prompts.jsonl")[:3]
    answers = ["7.", "Well, well. It is red."]
    file = write_jsonl(
        tmp_path / "in.jsonl",
        [{**p, "responses": answers, "finish_reasons": ["stop"] * 2} for p in prompts],
    )
    command = [
        "annotation/1a_reward_model.py",
        "--model_name_or_path",
        armorm,
        "--trust_remote_code",
    ]
    ran(*command, "--responses_file", file, "--output_file", tmp_path / "out.jsonl")
    ran(
        *command,
        "--responses_file",
        file,
        "--output_file",
        tmp_path / "one.jsonl",
        "--batch_tokens",
        1,
    )
    for row, alone in zip(
        read_jsonl(tmp_path / "out.jsonl"), read_jsonl(tmp_path / "one.jsonl"), strict=True
    ):
        assert alone["rewards"] == pytest.approx(row["rewards"], abs=1e-4)
        result, model = outputs(
            armorm, [row["prompt"] + [{"role": "assistant", "content": a}] for a in answers]
        )
        assert row["rewards"] == pytest.approx(result.score.tolist(), abs=1e-4)
        names = model.config.objectives
        assert list(row["gate"]) == names
        assert list(row["gate"].values()) == pytest.approx(
            result.gating_output[0].tolist(), abs=1e-4
        )
        for objectives, by_hand in zip(row["objectives"], result.rewards.tolist(), strict=True):
            assert list(objectives) == names and list(objectives.values()) == pytest.approx(
                by_hand, abs=1e-4
            )


def with_a_token(model, copy, old, new):
    """A copy of a model in whose tokenizer the added token `old` is `new`."""
    shutil.copytree(model, copy)
    settings = json.loads((copy / "tokenizer.json").read_text())
    (token,) = [token for token in settings["added_tokens"] if token["content"] == old]
    token["content"] = new
    (copy / "tokenizer.json").write_text(json.dumps(settings))
    return copy


STARTS = ["7.", "\nIt is red.", "\n\nIt is red."]


def test_a_response_that_starts_with_a_newline_is_scored(armorm, reward_model, world, tmp_path):
    """The end of the template's header and the start of the response are one token; ours does without that token."""
    backbone = with_a_token(reward_model, tmp_path / "reward_model", "<turn> user", "\n\n")
    for name in ("training.jsonl", "held_out.jsonl"):
        shutil.copy(reward_model.with_name(name), tmp_path / name)
    rated = [row for row in read_jsonl(world / "ratings.jsonl")]
    rated[0]["messages"][-1]["content"] = STARTS[1]
    done = learn(
        tmp_path / "out", backbone, write_jsonl(tmp_path / "ratings.jsonl", rated), "--max_steps", 1
    )
    assert done.returncode == 0, done.stderr
    assert "too long: 0, without the end of a prompt: 0\n" in done.stdout
    tokenizer, model = load_armorm(tmp_path / "out")
    assert [tokenizer.decode([token]) for token in model.config.gate_pattern] == [
        "\n",
        "Answer",
        ":",
    ]
    prompts = [
        {**row, "responses": STARTS, "finish_reasons": ["stop"] * 3}
        for row in read_jsonl(world / "prompts.jsonl")
    ]
    file, out = write_jsonl(tmp_path / "in.jsonl", prompts[:2]), tmp_path / "out.jsonl"
    command = [
        "annotation/1a_reward_model.py",
        "--model_name_or_path",
        tmp_path / "out",
        "--trust_remote_code",
    ]
    done = ran(*command, "--responses_file", file, "--output_file", out)
    assert "dropped, too long: 0, refused by the model's code: 0, rows out: 2, " in done.stdout


def test_the_gate_reads_where_the_question_ends(armorm, world):
    """The token before the assistant's header, as the published model reads <|eot_id|>; dropout is for training."""
    tokenizer, model = load_armorm(armorm)
    prompt = read_jsonl(world / "prompts.jsonl")[0]["prompt"]
    result, _ = outputs(armorm, [[*prompt, {"role": "assistant", "content": "7."}]])
    ids = ids_of(tokenizer, tokenizer.apply_chat_template(prompt, tokenize=False))
    with torch.inference_mode():
        hidden = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
        by_hand = (model.gating.mlp(hidden) / 10).softmax(-1)
    assert result.gating_output[0].tolist() == pytest.approx(by_hand.tolist(), abs=1e-5)
    dropouts = [layer.p for layer in model.gating.mlp if isinstance(layer, torch.nn.Dropout)]
    assert dropouts == [0.2] * 3


def test_the_scale_of_the_score_starts_at_one(reward_model, world, tmp_path):
    done = learn(
        tmp_path / "out",
        reward_model,
        world / "ratings.jsonl",
        "--max_steps",
        1,
        "--learning_rate",
        1e-5,
    )
    assert done.returncode == 0, done.stderr
    assert load_armorm(tmp_path / "out")[1].gating.scale.item() == pytest.approx(1, abs=1e-3)


@pytest.fixture
def gated(reward_model, tmp_path):
    """A directory as the published ArmoRM's: a model with code of its own, written for an earlier transformers."""
    folder = with_a_token(reward_model, tmp_path / "gated", "<turn> user", "\n\n")
    config = json.loads((folder / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config |= {
        "architectures": ["GatedModel"],
        "num_objectives": 3,
        "header": ids_of(tokenizer, "Answer:\n"),
    }
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling_gated.GatedModel"}
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(ROOT / "tests/remote_code/modeling_gated.py", folder)
    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    generator = torch.Generator().manual_seed(0)
    for name, shape in (
        ("regression_layer.weight", (3, 128)),
        ("gating.weight", (3, 128)),
        ("gating.bias", (3,)),
    ):
        weights[name] = torch.randn(shape, generator=generator)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_published_armorm_loads_and_what_its_code_refuses_is_dropped(gated, world, tmp_path):
    """A response with a newline at its start hides the header from its search: that row goes, the rest are scored."""
    prompts = read_jsonl(world / "prompts.jsonl")[:3]
    rows = [
        {**row, "responses": ["7.", "It is red."], "finish_reasons": ["stop"] * 2}
        for row in prompts
    ]
    rows[1]["responses"] = STARTS[:2]
    file, out = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    command = [
        "annotation/1a_reward_model.py",
        "--model_name_or_path",
        gated,
        "--responses_file",
        file,
    ]
    done = ran(*command, "--trust_remote_code", "--output_file", out)
    assert (
        "rows in: 3, finished before: 0, dropped, too long: 0, refused by the model's code: 1, rows out: 2, "
        in done.stdout
    )
    scored = read_jsonl(out)
    assert [row["id"] for row in scored] == [prompts[0]["id"], prompts[2]["id"]]
    for row in scored:
        assert list(row["gate"]) == ["0", "1", "2"] and sum(row["gate"].values()) == pytest.approx(
            1, abs=1e-5
        )
        for reward, objectives in zip(row["rewards"], row["objectives"], strict=True):
            by_hand = sum(row["gate"][name] * value for name, value in objectives.items())
            assert reward == pytest.approx(by_hand, abs=1e-4)
    write_jsonl(
        file, [{**row, "responses": STARTS[1:], "finish_reasons": ["stop"] * 2} for row in prompts]
    )
    done = run(*command, "--trust_remote_code", "--output_file", tmp_path / "none.jsonl")
    assert done.returncode == 1 and not (tmp_path / "none.jsonl").exists()
    assert done.stderr.endswith(
        f"{file}: {gated} scores no row (ValueError: no header of the assistant)\n"
    )


@pytest.mark.parametrize(
    ("template", "pattern"),
    [
        ("{{m.role}}\n\n{{m.content}}<|eos|>", "<|eos|>assistant\n\n"),  # as Llama 3
        (
            "{% if m.role == 'user' %}[INST] {{m.content}} [/INST]{% else %}{{m.content}}<|eos|>{% endif %}",
            " [/INST]",
        ),
        ("{{m.content}}", ""),
    ],
    ids=["a header", "an end alone", "none"],
)
def test_what_every_prompt_ends_with(sft, template, pattern):
    tokenizer = AutoTokenizer.from_pretrained(sft)
    tokenizer.chat_template = "{% for m in messages %}" + template + "{% endfor %}"
    find = runpy.run_path(str(ROOT / "reward_modeling/objectives.py"))["gate_pattern"]
    assert tokenizer.decode(find(tokenizer, "-")) == pattern


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda row: row["ratings"].update(correct="good"),
            "1: ratings: not numbers or null by objective",
        ),
        (lambda row: row.update(ratings=[1, 2]), "1: ratings: not numbers or null by objective"),
        (lambda row: row["ratings"].update(once=1.0), "ratings: once has one value at most"),
        (
            lambda row: row["ratings"].update(few=0.5),
            "ratings: few is rated in 3 rows, at least 10 are needed",
        ),
        (lambda row: row.pop("ratings"), "1: ratings: missing"),
    ],
    ids=["text", "list", "one value", "few values", "missing"],
)
def test_ratings_that_cannot_be_learned(reward_model, world, tmp_path, change, reason):
    rated = read_jsonl(world / "ratings.jsonl")
    change(rated[0])
    if "few" in rated[0].get("ratings", ()):
        rated[1]["ratings"]["few"], rated[2]["ratings"]["few"] = 1, 2
    file = write_jsonl(tmp_path / "ratings.jsonl", rated)
    done = learn(tmp_path / "out", reward_model, file)
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert done.stderr.splitlines()[-1] in (f"{file}: {reason}", f"{file}:{reason}")


def test_the_verbosity_must_be_rated(reward_model, world, tmp_path):
    done = learn(tmp_path / "out", reward_model, world / "ratings.jsonl", "--verbosity", "words")
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    told = "ratings: no objective 'words' among correct, manner, length, verbosity"
    assert done.stderr.splitlines()[-1] == f"{world / 'ratings.jsonl'}: {told}"
