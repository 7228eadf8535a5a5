"""The preference model, its comparisons of n responses, and ArmoRM against computations by hand."""

import functools
import itertools
import json
import math
import runpy
import shutil
from statistics import fmean
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from commands import ROOT, ran, read_jsonl, run, write_jsonl
from common import chats, comparisons, training_data
from common.rows import read as read_rows
from conftest import TRAINING, train
from test_models import history, ids_of, in_two_shards, loaded


def held_out_of(reward_model):
    return ["--held_out_name", reward_model.with_name("held_out.jsonl")]


# reward_modeling/2a_bradley_terry.py


def test_held_out_pairs_that_are_too_long_leave_equal_batches(sft, reward_model, tmp_path):
    """Of ten pairs one is dropped; five and four in a batch would give another accuracy."""
    held_out = read_jsonl(reward_model.with_name("held_out.jsonl"))[1:]
    held_out[0]["chosen"][0]["content"] = "word " * 300
    file = write_jsonl(tmp_path / "held_out.jsonl", held_out)
    flags = ["--model_name_or_path", sft, "--held_out_name", file, "--max_length", 256]
    flags += ["--dataset_name", reward_model.with_name("training.jsonl")]
    flags += "--max_steps 20 --per_device_train_batch_size 16 --learning_rate 1e-3".split()
    done = train("reward_modeling/2a_bradley_terry.py", tmp_path / "out", *flags)
    assert f"{file} rows in: 10, dropped, too long: 1, rows out: 9\n" in done.stdout
    right = 9 * history(tmp_path / "out")[-1]["eval_accuracy"]
    assert 0 < right < 9
    assert right == pytest.approx(round(right))


# reward_modeling/2b_preference_model.py


@pytest.mark.parametrize(
    ("script", "function", "more"),
    [
        ("2a_bradley_terry", "stored_pairs", ()),
        ("2b_preference_model", "stored_comparisons", (3,)),
    ],
)
def test_one_process_of_several_prints_the_counts(
    sft, world, tmp_path, monkeypatch, capsys, script, function, more
):
    monkeypatch.syspath_prepend(str(ROOT / "reward_modeling"))
    stored = runpy.run_path(str(ROOT / f"reward_modeling/{script}.py"))[function]
    read = functools.partial(read_rows, world / "preferences.jsonl", "preferences")
    tokenizer, _ = loaded(sft)
    args = SimpleNamespace(
        seed=0,
        max_length=512,
        output_dir=tmp_path / "out.partial-a",
        dataset_num_proc=None,
        ddp_timeout=1800,
    )
    args.output_dir.mkdir()
    for args.process_index in range(2):
        source = training_data.checked(read, args)
        dataset = stored("training", "FILE", source, tokenizer, *more, args)
        rows = len(list(read()))
        assert len(dataset) == rows
    assert (
        capsys.readouterr().out == f"FILE rows in: {rows}, dropped, too long: 0, rows out: {rows}\n"
    )


@pytest.fixture(scope="module")
def preference_model(sft, reward_model):
    """Overfitted to few pairs: a side that gave the better response away would be learned."""
    out = sft.with_name("preference_model")
    flags = "--max_steps 60 --per_device_train_batch_size 2".split()
    flags += "--max_length 256 --learning_rate 3e-3".split()
    flags += ["--dataset_name", reward_model.with_name("training.jsonl")]
    flags += held_out_of(reward_model)
    train("reward_modeling/2b_preference_model.py", out, "--model_name_or_path", sft, *flags)
    return out


def test_the_side_of_the_better_response_is_drawn(preference_model):
    """With the chosen response always first, A would soon be certain.

    Then the mean loss of the three tokens of the answer would be near 0.
    """
    assert history(preference_model)[-1]["eval_loss"] > 0.8 * math.log(2) / 3


def splitting(model, copy):
    """A copy of a model whose tokenizer reads an A as two characters."""
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
    flags = ["--model_name_or_path", model, "--output_dir", tmp_path / "out", *TRAINING]
    flags += ["--dataset_name", reward_model.with_name("training.jsonl")]
    done = run("reward_modeling/2b_preference_model.py", *flags, *held_out_of(reward_model))
    refusal = f"{model}: its tokenizer splits 'A' into several tokens"
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == refusal
    done = run(*comparing(model, compared[0]), "--output_file", tmp_path / "rewards.jsonl")
    assert done.returncode == 1
    assert done.stderr == f"{refusal}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_held_out_prompts_must_not_be_training_prompts(reward_model, sft, tmp_path):
    """Defect 13: the published Llama-3 reward model was evaluated on a part of its training set."""
    out = tmp_path / "out"
    file = reward_model.with_name("training.jsonl")
    chat = [*read_jsonl(file)[0]["prompt"], {"role": "assistant", "content": "x"}]
    rated = [{"id": f"{i}", "messages": chat, "ratings": {"verbosity": i}} for i in range(10)]
    ratings = write_jsonl(tmp_path / "ratings.jsonl", rated)
    for script, *flags in (
        ("2a_bradley_terry",),
        ("2b_preference_model",),
        ("2c_armorm", "--ratings_name", ratings),
    ):
        flags += ["--model_name_or_path", sft, "--output_dir", out, *TRAINING]
        flags += ["--dataset_name", file, "--held_out_name", file]
        done = run(f"reward_modeling/{script}.py", *flags)
        assert done.returncode == 1
        assert not out.exists()
        assert done.stderr.splitlines()[-1] == f"{file}: prompt: some prompts stand in {file} too"


# annotation/1b_preference_model.py


def comparing(model, file, *flags):
    script = "annotation/1b_preference_model.py"
    return [script, "--model_name_or_path", model, "--responses_file", file, *flags]


def p_first(path, prompt, a, b):
    """P(A) for this order, by hand: a single sequence, no padding, no BOS; a prompt of one turn."""
    tokenizer, model = loaded(path)
    question = f"[CONTEXT] \n\n<turn> user\n {prompt[0]['content']}\n"
    question += f" [RESPONSE A] {a} [RESPONSE B] {b} \n"
    chat = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = ids_of(tokenizer, text.replace(tokenizer.bos_token, ""))
    with torch.inference_mode():
        # (vocabulary,): what comes after the question
        logits = model(torch.tensor([ids])).logits[0, -1]
    sides = [ids_of(tokenizer, side)[0] for side in "AB"]
    return logits[sides].softmax(-1)[0].item()


def test_the_question_is_the_published_models_letter_by_letter():
    """What the chat template and the pattern of its published code make of three turns."""
    turns = [("user", "Q1"), ("assistant", "A1"), ("user", "Q2")]
    prompt = [{"role": role, "content": content} for role, content in turns]
    text = "[CONTEXT] \n\n<turn> user\n Q1\n<turn> assistant\n A1\n<turn> user\n Q2\n"
    text += " [RESPONSE A] a [RESPONSE B] b \n"
    assert comparisons.question(prompt, "a", "b") == [{"role": "user", "content": text}]


def test_training_reads_the_tokens_of_annotation(preference_model):
    """The annotator's question, without BOS, is what training has before the answer."""
    tokenizer, _ = loaded(preference_model)
    question = comparisons.question([{"role": "user", "content": "1 + 1?"}], "2", "3")
    text = comparisons.text(tokenizer, question, "-", add_generation_prompt=True)
    question_ids = ids_of(tokenizer, text)
    training_ids = []
    for side in "AB":
        chat = [*question, {"role": "assistant", "content": side}]
        training_ids.append(ids_of(tokenizer, comparisons.text(tokenizer, chat, "-")))
    sides, length = chats.choice(tokenizer)
    assert training_ids[0][:-length] == question_ids
    assert tokenizer.bos_token_id not in question_ids
    assert sides == tuple(ids[-length] for ids in training_ids)
    assert sides == tuple(ids_of(tokenizer, side)[0] for side in "AB")


def test_a_policy_is_asked_with_the_bos_token(compared, preference_model, tmp_path):
    """ANNOTATOR=policy: a policy was fine-tuned with BOS."""
    file, _, rows, _ = compared
    command = comparing(preference_model, file, "--method", "all_pairs", "--bos")
    ran(*command, "--output_file", tmp_path / "rewards.jsonl")
    with_bos = read_jsonl(tmp_path / "rewards.jsonl")
    assert [row["rewards"] for row in with_bos] != [row["rewards"] for row in rows]


@pytest.fixture(scope="module")
def compared(tmp_path_factory, preference_model, world):
    """(file, rows by tournament, rows by all pairs, the tournament's process).

    Each prompt has five responses of many lengths; a response is longer than the context.
    """
    folder = tmp_path_factory.mktemp("comparisons")
    rows = read_jsonl(world / "prompts.jsonl")[:7]
    pairs = read_jsonl(world / "preferences.jsonl")
    for i, row in enumerate(rows):
        texts = [pair["chosen"][0]["content"] for pair in pairs[5 * i : 5 * i + 4]]
        row["responses"] = [text * times for times, text in enumerate(texts, 1)] + [""]
        row["finish_reasons"] = ["stop"] * 5
    rows[2]["responses"][1] = "word " * 600
    file = write_jsonl(folder / "responses.jsonl", rows)
    tournament = folder / "tournament.jsonl"
    done = ran(*comparing(preference_model, file), "--output_file", tournament)
    all_pairs = folder / "all_pairs.jsonl"
    command = comparing(preference_model, file, "--method", "all_pairs")
    ran(*command, "--output_file", all_pairs)
    return file, read_jsonl(tournament), read_jsonl(all_pairs), done


def test_both_orders_of_every_pair_count(compared, preference_model):
    file, _, rows, _ = compared
    ids = [row["id"] for row in read_jsonl(file)]
    # The response that is too long belongs to the third row.
    del ids[2]
    assert [row["id"] for row in rows] == ids
    for row in rows:
        matches = row["judgement"]
        assert [(m["a"], m["b"]) for m in matches] == [*itertools.combinations(range(5), 2)]
        # wins[a, b]: the probability that a wins against b
        wins = np.zeros((5, 5))
        for match in matches:
            a, b = match["a"], match["b"]
            first, second = row["responses"][a], row["responses"][b]
            in_order = p_first(preference_model, row["prompt"], first, second)
            in_reverse = p_first(preference_model, row["prompt"], second, first)
            by_hand = (in_order + 1 - in_reverse) / 2
            assert match["probability"] == pytest.approx(by_hand, abs=1e-4)
            wins[a, b] = match["probability"]
            wins[b, a] = 1 - match["probability"]
        assert row["rewards"] == pytest.approx(wins.sum(1) / 4)
        assert fmean(row["rewards"]) == pytest.approx(0.5)
        assert row["annotator"] == str(preference_model)


def test_a_linear_tournament_finds_the_best_and_the_worst(compared):
    _, rows, all_pairs, done = compared
    for row, with_all_pairs in zip(rows, all_pairs, strict=True):
        win_probability = {}
        for match in with_all_pairs["judgement"]:
            a, b = match["a"], match["b"]
            win_probability[a, b] = match["probability"]
            win_probability[b, a] = 1 - match["probability"]
        best = 0
        for i in range(1, 5):
            if win_probability[best, i] < 0.5:
                best = i
        worst, *others = (i for i in range(5) if i != best)
        for i in others:
            if win_probability[worst, i] >= 0.5:
                worst = i
        rewards = [0.5] * 5
        rewards[best] = 1.0
        rewards[worst] = 0.0
        assert row["rewards"] == rewards
        matches = row["judgement"]
        for match in matches:
            expected = win_probability[match["a"], match["b"]]
            assert match["probability"] == pytest.approx(expected, abs=1e-4)
        # No pair meets twice: n - 1 matches for the best, at most n - 2 more for the worst.
        assert len({frozenset((m["a"], m["b"])) for m in matches}) == len(matches) <= 7
    comparisons = sum(len(row["judgement"]) for row in rows)
    counts = "rows in: 7, finished before: 0, dropped, too long: 1, rows out: 6, "
    assert f"{counts}comparisons: {comparisons}, " in done.stdout


def test_small_batches_shards_and_a_kill_change_no_comparison(compared, preference_model, tmp_path):
    file, rows, _, _ = compared
    command = comparing(preference_model, file, "--batch_tokens", 64)
    sharded = in_two_shards(file, tmp_path / "out.jsonl", *command)
    for row, expected in zip(sharded, rows, strict=True):
        assert {**row, "judgement": 0} == {**expected, "judgement": 0}
        for match, expected_match in zip(row["judgement"], expected["judgement"], strict=True):
            assert (match["a"], match["b"]) == (expected_match["a"], expected_match["b"])
            probability = pytest.approx(expected_match["probability"], abs=1e-4)
            assert match["probability"] == probability


def test_one_response_cannot_be_compared(compared, preference_model, tmp_path):
    row = read_jsonl(compared[0])[0] | {"responses": ["x"], "finish_reasons": ["stop"]}
    file = write_jsonl(tmp_path / "one.jsonl", [row])
    done = run(*comparing(preference_model, file), "--output_file", tmp_path / "out.jsonl")
    assert done.returncode == 1
    assert done.stderr == f"{file}: responses: 1, a comparison needs two\n"


def test_a_model_that_goes_by_the_place_finds_no_winner(tmp_path):
    """Both orders together give it probabilities of 0.5: no response is best, no pair follows."""
    method = runpy.run_path(str(ROOT / "annotation/tournament.py"))["linear"](4)
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
    command = ["reward_modeling/2b_preference_model.py", "--model_name_or_path", sft]
    command += ["--dataset_name", file, *held_out_of(reward_model), "--max_steps", 1, *TRAINING]
    done = run(*command, "--output_dir", tmp_path / "out", "--max_length", 256)
    assert f"{file} rows in: 9, dropped, too long: 1, rows out: 8\n" in done.stdout, done.stderr
    done = run(*command, "--output_dir", tmp_path / "none", "--max_length", 5)
    assert done.returncode == 1
    assert not (tmp_path / "none").exists()
    error = done.stderr.splitlines()[-1]
    assert error == f"{file}: no comparison has at most --max_length 5 tokens"


# annotation/2d_uncertain_pairs.py


def test_uncertain_pairs_without_too_long_rows_and_with_equal_features(
    reward_model, world, tmp_path
):
    """Equal features in the first chunk, here of one response, have no scale."""
    rows = read_jsonl(world / "prompts.jsonl")[:3]
    texts = [["7."], ["7.", "It is red.", "No."], ["7.", "word " * 600, "No."]]
    for row, responses in zip(rows, texts, strict=True):
        row |= {"responses": responses, "finish_reasons": ["stop"] * len(responses)}
        row["rewards"] = [float(i) for i in range(len(responses))]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    long_turn = {"role": "assistant", "content": texts[2][1]}
    pair = {"id": "long", "prompt": rows[0]["prompt"], "chosen": [long_turn]}
    pair["rejected"] = [{"role": "assistant", "content": "7."}]
    earlier = write_jsonl(tmp_path / "earlier.jsonl", [pair])
    out = tmp_path / "out.jsonl"
    flags = ["--model_name_or_path", reward_model, "--rewards_file", file, "--output_file", out]
    flags += ["--earlier_files", earlier, "--n", 0, "--chunk_size", 1]
    done = ran("annotation/2d_uncertain_pairs.py", *flags)
    counts = "rows in: 3, dropped, earlier pairs too long: 1, dropped, identical or truncated: 1, "
    counts += "dropped, too long: 1, rows out: 1, earlier pairs: 0, "
    assert counts in done.stdout
    (chosen,) = read_jsonl(out)
    assert chosen["id"] == rows[1]["id"]
    assert chosen["uncertainty"] > 0


# reward_modeling/2c_armorm.py


def learn(out, backbone, ratings, *more):
    flags = ["--model_name_or_path", backbone, "--output_dir", out, *TRAINING]
    flags += "--max_steps 100 --per_device_train_batch_size 32".split()
    flags += "--gate_size 32 --learning_rate 3e-3".split()
    flags += ["--ratings_name", ratings, "--dataset_name", backbone.with_name("training.jsonl")]
    return run("reward_modeling/2c_armorm.py", *flags, *held_out_of(backbone), *more)


@pytest.fixture(scope="module")
def armorm(reward_model, world):
    out = reward_model.with_name("armorm")
    done = learn(out, reward_model, world / "ratings.jsonl")
    assert done.returncode == 0, done.stderr
    return out


def load_armorm(path):
    """(tokenizer, model)"""
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
    kind = AutoModelForSequenceClassification
    return tokenizer, kind.from_pretrained(path, trust_remote_code=True).eval()


def outputs(path, chats):
    """(what the model returns for a batch of chats, the model)"""
    tokenizer, model = load_armorm(path)
    texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
    batch = tokenizer(
        texts, add_special_tokens=False, return_tensors="pt", padding=True, padding_side="right"
    )
    with torch.inference_mode():
        return model(**batch), model


def objectives_of(armorm):
    """{objective: what its training recorded}"""
    return json.loads((armorm / "armorm.json").read_text())["objectives"]


def test_every_head_is_the_ridge_regression_of_its_ratings(armorm, world):
    """On the rows that have the rating and no held-out prompt; scaled to [0, 1], no intercept."""
    rated = read_jsonl(world / "ratings.jsonl")
    objectives = objectives_of(armorm)
    held_out = [row["prompt"] for row in read_jsonl(armorm.with_name("held_out.jsonl"))]
    unseen = np.array([row["messages"][:-1] in held_out for row in rated])
    assert 0 < unseen.sum() < 10
    tokenizer, model = load_armorm(armorm)
    assert model.config.objectives == ["correct", "manner", "length", "verbosity"]
    assert [*objectives] == model.config.objectives
    # (rows, hidden size): the last hidden state of each row's last token
    features = []
    for row in rated:
        ids = ids_of(tokenizer, tokenizer.apply_chat_template(row["messages"], tokenize=False))
        with torch.inference_mode():
            hidden = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
        features.append(hidden.double().numpy())
    features = np.array(features)
    for i, (name, objective) in enumerate(objectives.items()):
        # numpy reads None as NaN
        ratings = np.array([row["ratings"][name] for row in rated], dtype=float)
        used = ~np.isnan(ratings) & ~unseen
        x = features[used]
        y = (ratings[used] - np.nanmin(ratings)) / (np.nanmax(ratings) - np.nanmin(ratings))
        by_hand = np.linalg.solve(x.T @ x + objective["alpha"] * np.eye(x.shape[1]), x.T @ y)
        assert objective["rows"] == used.sum() < len(rated)
        predicted = x @ model.regression_layer.weight[i].detach().double().numpy()
        assert predicted == pytest.approx(x @ by_hand, abs=1e-2)


def test_ratings_of_held_out_prompts_teach_nothing(armorm, reward_model, world, tmp_path):
    """Defect 13, for the heads, which are measured on prompts that taught nothing."""
    held_out = {str(row["prompt"]) for row in read_jsonl(reward_model.with_name("held_out.jsonl"))}
    rated = read_jsonl(world / "ratings.jsonl")
    # More ratings of held-out prompts, all at an end of the scale, so that the scale stays.
    lowest, highest = {}, {}
    for name in rated[0]["ratings"]:
        values = [r["ratings"][name] for r in rated if r["ratings"][name] is not None]
        lowest[name] = min(values)
        highest[name] = max(values)
    of_held_out = [row for row in rated if str(row["messages"][:-1]) in held_out]
    for i, row in enumerate(of_held_out * 4):
        rated.append({**row, "id": f"more-{i}", "ratings": (lowest, highest)[i % 2]})
    out = tmp_path / "armorm"
    ratings = write_jsonl(tmp_path / "ratings.jsonl", rated)
    done = learn(out, reward_model, ratings, "--max_steps", 1)
    assert done.returncode == 0, done.stderr
    new_weight = load_armorm(out)[1].regression_layer.weight
    old_weight = load_armorm(armorm)[1].regression_layer.weight
    assert torch.allclose(new_weight, old_weight, rtol=1e-2, atol=1e-3)
    new_manner = objectives_of(out)["manner"]
    assert new_manner["rows"] == objectives_of(armorm)["manner"]["rows"]
    assert new_manner["of"] >= 10
    assert abs(new_manner["correlation"]) < 0.5


def test_the_penalty_is_the_smallest_that_frees_an_objective_from_verbosity(armorm, reward_model):
    chats = []
    for row in read_jsonl(reward_model.with_name("training.jsonl")):
        chats += [row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]]
    result, model = outputs(armorm, chats)
    penalties = [objective["lambda"] for objective in objectives_of(armorm).values()]
    matrix = np.eye(4)
    matrix[3] -= penalties
    assert model.reward_transform_matrix.detach().numpy() == pytest.approx(matrix, abs=1e-6)
    assert penalties[3] == 1
    assert any(0 < p for p in penalties[:3])
    # (responses, objectives), the last of them verbosity
    rewards = result.rewards.numpy()
    verbosity = rewards[:, 3]
    for i, penalty in enumerate(penalties[:3]):
        assert spearmanr(rewards[:, i] - penalty * verbosity, verbosity).statistic <= 0.031
        if penalty:
            less = penalty - 0.01
            assert spearmanr(rewards[:, i] - less * verbosity, verbosity).statistic > 0.029


def test_the_gate_sums_to_one_over_objectives_and_sees_the_prompt_only(armorm, world):
    """Defect 9: a softmax over the pairs gave all prompts the same gate.

    And the corrected rewards were not used.
    """
    prompts = [row["prompt"] for row in read_jsonl(world / "prompts.jsonl")[:12]]
    short = [{"role": "assistant", "content": "7."}]
    long = [{"role": "assistant", "content": "Well, well. Let me think. It is 7."}]
    chats = []
    for prompt in prompts:
        chats += [prompt + short, prompt + long]
    result, model = outputs(armorm, chats)
    gates = result.gating_output
    assert gates.shape == (24, 4)
    assert gates.sum(1).numpy() == pytest.approx(np.ones(24), abs=1e-5)
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


def with_responses(file, world, responses, prompts=3):
    """A file of the first prompts, each with these responses."""
    rows = read_jsonl(world / "prompts.jsonl")[:prompts]
    for row in rows:
        row |= {"responses": responses, "finish_reasons": ["stop"] * len(responses)}
    return write_jsonl(file, rows)


def annotating(model, file):
    flags = ["--model_name_or_path", model, "--trust_remote_code", "--responses_file", file]
    return ["annotation/1a_reward_model.py", *flags]


def test_armorm_annotates(armorm, world, tmp_path):
    responses = ["7.", "Well, well. It is red."]
    file = with_responses(tmp_path / "in.jsonl", world, responses)
    command = annotating(armorm, file)
    ran(*command, "--output_file", tmp_path / "out.jsonl")
    ran(*command, "--output_file", tmp_path / "one.jsonl", "--batch_tokens", 1)
    in_batches = read_jsonl(tmp_path / "out.jsonl")
    one_by_one = read_jsonl(tmp_path / "one.jsonl")
    for row, alone in zip(in_batches, one_by_one, strict=True):
        assert alone["rewards"] == pytest.approx(row["rewards"], abs=1e-4)
        chats = [row["prompt"] + [{"role": "assistant", "content": text}] for text in responses]
        result, model = outputs(armorm, chats)
        assert row["rewards"] == pytest.approx(result.score.tolist(), abs=1e-4)
        names = model.config.objectives
        assert list(row["gate"]) == names
        gate = result.gating_output[0].tolist()
        assert list(row["gate"].values()) == pytest.approx(gate, abs=1e-4)
        for objectives, by_hand in zip(row["objectives"], result.rewards.tolist(), strict=True):
            assert list(objectives) == names
            assert list(objectives.values()) == pytest.approx(by_hand, abs=1e-4)


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
    """The end of the template's header and the start of the response merge into a single token.

    Our models find the header without that token.
    """
    backbone = with_a_token(reward_model, tmp_path / "reward_model", "<turn> user", "\n\n")
    for name in ("training.jsonl", "held_out.jsonl"):
        shutil.copy(reward_model.with_name(name), tmp_path / name)
    rated = read_jsonl(world / "ratings.jsonl")
    rated[0]["messages"][-1]["content"] = STARTS[1]
    ratings = write_jsonl(tmp_path / "ratings.jsonl", rated)
    done = learn(tmp_path / "out", backbone, ratings, "--max_steps", 1)
    assert done.returncode == 0, done.stderr
    assert "too long: 0, without the end of a prompt: 0\n" in done.stdout
    tokenizer, model = load_armorm(tmp_path / "out")
    pattern = [tokenizer.decode([token]) for token in model.config.gate_pattern]
    assert pattern == ["\n", "Answer", ":"]
    file = with_responses(tmp_path / "in.jsonl", world, STARTS, prompts=2)
    command = annotating(tmp_path / "out", file)
    done = ran(*command, "--output_file", tmp_path / "out.jsonl")
    assert "dropped, too long: 0, refused by the model's code: 0, rows out: 2, " in done.stdout


def test_the_gate_reads_where_the_question_ends(armorm, world):
    """At the token before the assistant's header, as the published model reads <|eot_id|>.

    Dropout is for training.
    """
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
    flags = ["--max_steps", 1, "--learning_rate", 1e-5]
    done = learn(tmp_path / "out", reward_model, world / "ratings.jsonl", *flags)
    assert done.returncode == 0, done.stderr
    _, model = load_armorm(tmp_path / "out")
    assert model.gating.scale.item() == pytest.approx(1, abs=1e-3)


@pytest.fixture
def gated(reward_model, tmp_path):
    """A model directory as the published ArmoRM's, with code for an earlier transformers."""
    folder = with_a_token(reward_model, tmp_path / "gated", "<turn> user", "\n\n")
    config = json.loads((folder / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config |= {
        "architectures": ["GatedModel"],
        "num_objectives": 3,
        "header": ids_of(tokenizer, "Answer:\n"),
        "auto_map": {"AutoModelForSequenceClassification": "modeling_gated.GatedModel"},
    }
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
    """A newline at the start of a response hides the header from its search.

    That row is dropped, the others are scored.
    """
    file = with_responses(tmp_path / "in.jsonl", world, ["7.", "It is red."])
    rows = read_jsonl(file)
    rows[1]["responses"] = STARTS[:2]
    write_jsonl(file, rows)
    out = tmp_path / "out.jsonl"
    done = ran(*annotating(gated, file), "--output_file", out)
    counts = "rows in: 3, finished before: 0, dropped, too long: 0, "
    counts += "refused by the model's code: 1, rows out: 2, "
    assert counts in done.stdout
    scored = read_jsonl(out)
    assert [row["id"] for row in scored] == [rows[0]["id"], rows[2]["id"]]
    for row in scored:
        assert list(row["gate"]) == ["0", "1", "2"]
        assert sum(row["gate"].values()) == pytest.approx(1, abs=1e-5)
        for reward, objectives in zip(row["rewards"], row["objectives"], strict=True):
            by_hand = sum(row["gate"][name] * value for name, value in objectives.items())
            assert reward == pytest.approx(by_hand, abs=1e-4)
    with_responses(file, world, STARTS[1:])
    done = run(*annotating(gated, file), "--output_file", tmp_path / "none.jsonl")
    assert done.returncode == 1
    assert not (tmp_path / "none.jsonl").exists()
    reason = f"{gated} scores no row (ValueError: no header of the assistant)"
    assert done.stderr.endswith(f"{file}: {reason}\n")


LIKE_LLAMA_3 = "{{m.role}}\n\n{{m.content}}<|eos|>"
LIKE_LLAMA_2 = "{% if m.role == 'user' %}[INST] {{m.content}} [/INST]"
LIKE_LLAMA_2 += "{% else %}{{m.content}}<|eos|>{% endif %}"


@pytest.mark.parametrize(
    ("template", "pattern"),
    [
        (LIKE_LLAMA_3, "<|eos|>assistant\n\n"),
        (LIKE_LLAMA_2, " [/INST]"),
        ("{{m.content}}", ""),
    ],
    ids=["a header", "an end alone", "none"],
)
def test_what_every_prompt_ends_with(sft, template, pattern):
    tokenizer = AutoTokenizer.from_pretrained(sft)
    tokenizer.chat_template = "{% for m in messages %}" + template + "{% endfor %}"
    find = runpy.run_path(str(ROOT / "reward_modeling/objectives.py"))["gate_pattern"]
    assert tokenizer.decode(find(tokenizer, "-")) == pattern


NOT_NUMBERS = "1: ratings: not numbers or null by objective"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda row: row["ratings"].update(correct="good"), NOT_NUMBERS),
        (lambda row: row.update(ratings=[1, 2]), NOT_NUMBERS),
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
    assert done.returncode == 1
    assert not (tmp_path / "out").exists()
    assert done.stderr.splitlines()[-1] in (f"{file}: {reason}", f"{file}:{reason}")


def test_pairs_of_which_none_is_usable(reward_model, world, tmp_path):
    """Each has a chat that is longer than the context; the other one is usable."""
    pairs = read_jsonl(reward_model.with_name("held_out.jsonl"))
    for row in pairs:
        row["chosen"][0]["content"] = "word " * 600
    file = write_jsonl(tmp_path / "held_out.jsonl", pairs)
    flags = ["--max_steps", 1, "--held_out_name", file]
    done = learn(tmp_path / "out", reward_model, world / "ratings.jsonl", *flags)
    assert done.returncode == 1
    assert not (tmp_path / "out").exists()
    assert done.stderr.splitlines()[-1] == f"{file}: no pair has two usable chats"
    rated = read_jsonl(world / "ratings.jsonl")
    for row in rated:
        row["messages"][-1]["content"] = "word " * 600
    done = learn(tmp_path / "out", reward_model, write_jsonl(tmp_path / "rated.jsonl", rated))
    counts = f"too long: {len(rated)}, without the end of a prompt: 0"
    reason = f"checkpoint-ratings: no chat is left ({counts})"
    assert done.stderr.splitlines()[-1] == f"{reward_model}: {reason}"


def test_the_verbosity_must_be_rated(reward_model, world, tmp_path):
    ratings = world / "ratings.jsonl"
    done = learn(tmp_path / "out", reward_model, ratings, "--verbosity", "words")
    assert done.returncode == 1
    assert not (tmp_path / "out").exists()
    message = "ratings: no objective 'words' among correct, manner, length, verbosity"
    assert done.stderr.splitlines()[-1] == f"{ratings}: {message}"
