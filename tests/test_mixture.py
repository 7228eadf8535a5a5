"""The geometric mixture of two policies: its probabilities by hand, its rows, and Nash-MD on it."""

import copy
import math
import os
import runpy
import shutil
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessor

from commands import ROOT, ran, read_jsonl, run, write_jsonl
from common import mixture
from conftest import TRAINING, run_here
from test_models import history, in_two_shards, loaded

# common/mixture.py

VOCABULARY = 8
STOP_ID = 7
PROMPTS = [[1, 2, 3, 4, 5], [6], [2, 2, 3]]


def made_model(seed):
    """A language model of random weights, large enough for its probabilities to differ."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def policies():
    """(policy, reference), of different opinions"""
    policy, reference = made_model(1), made_model(2)
    difference = log_p(policy, PROMPTS[0]).exp() - log_p(reference, PROMPTS[0]).exp()
    assert difference.abs().max() > 0.1
    return policy, reference


def log_p(model, token_ids):
    """Log-probabilities of the next token: a single sequence, no padding, no cache."""
    with torch.inference_mode():
        return model(torch.tensor([token_ids])).logits[0, -1].log_softmax(-1)


def mixed_log_p(policies, coefficient, token_ids):
    policy, reference = policies
    mean = (1 - coefficient) * log_p(policy, token_ids) + coefficient * log_p(reference, token_ids)
    return mean.log_softmax(-1)


def generators(count):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


class Recorder(LogitsProcessor):
    """Keeps the scores of every step, [sequences, vocabulary]."""

    def __init__(self):
        self.steps = []

    def __call__(self, input_ids, scores):
        self.steps.append(scores.clone())
        return scores


@pytest.mark.parametrize("coefficient", [0, 0.5, 0.8, 1])
def test_every_token_has_the_mixtures_probabilities(policies, coefficient):
    """Prompts of three lengths together, over several tokens: both models' positions are right."""
    policy, reference = policies
    ids, mask = mixture.left_padded(PROMPTS, policy.device)
    recorder = Recorder()
    sequences = policy.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=6,
        do_sample=False,
        pad_token_id=mixture.PADDING,
        logits_processor=[mixture.MixedLogits(reference, coefficient, mask), recorder],
    )
    assert len(recorder.steps) == 6
    for number, prompt in enumerate(PROMPTS):
        sampled = sequences[number, ids.shape[1] :].tolist()
        for step, scores in enumerate(recorder.steps):
            expected = mixed_log_p(policies, coefficient, prompt + sampled[:step])
            assert torch.allclose(scores[number].log_softmax(-1), expected, atol=1e-5)


def first_tokens(policies, coefficient, temperature, generators):
    """The first token of as many responses to a prompt as there are generators."""
    sampler = mixture.Mixture(*policies, coefficient, {STOP_ID}, max_new_tokens=1)
    count = len(generators)
    return sampler.sample([PROMPTS[0]] * count, [temperature] * count, generators)


@pytest.mark.parametrize("own_generators", [True, False])
@pytest.mark.parametrize("temperature", [1, 0.6])
def test_tokens_are_drawn_by_these_probabilities(policies, temperature, own_generators):
    count = 4000
    torch.manual_seed(0)
    drawn = first_tokens(
        policies, 0.5, temperature, generators(count) if own_generators else [None] * count
    )
    expected = (mixed_log_p(policies, 0.5, PROMPTS[0]) / temperature).softmax(-1)
    for token_id in range(VOCABULARY):
        p = expected[token_id].item()
        # Five standard deviations of a binomial share.
        tolerance = 5 * math.sqrt(p * (1 - p) / count)
        assert drawn.count([token_id]) / count == pytest.approx(p, abs=tolerance)


def test_at_temperature_0_the_likeliest_token_is_drawn(policies):
    likeliest = mixed_log_p(policies, 0.5, PROMPTS[0]).argmax().item()
    assert first_tokens(policies, 0.5, 0, generators(20)) == [[likeliest]] * 20


def test_a_response_does_not_depend_on_its_batch(policies):
    """And it ends with the first stop token."""
    sampler = mixture.Mixture(*policies, 0.5, {STOP_ID}, max_new_tokens=20)
    together = sampler.sample(PROMPTS, [1.0] * 3, generators(3))
    for number, prompt in enumerate(PROMPTS):
        alone = sampler.sample([prompt], [1.0], [generators(3)[number]])
        assert alone == [together[number]]
    lengths = set()
    for response in together:
        lengths.add(len(response))
        assert STOP_ID not in response[:-1]
        assert response[-1] == STOP_ID or len(response) == 20
    assert len(lengths) > 1


def test_the_models_own_generation_config_has_no_part_and_stays(policies):
    policy, reference = policies
    sampler = mixture.Mixture(policy, reference, 0.5, {STOP_ID}, max_new_tokens=20)
    expected = sampler.sample(PROMPTS, [1.0] * 3, generators(3))
    own_config = policy.generation_config
    own_config.repetition_penalty = 50.0
    try:
        assert sampler.sample(PROMPTS, [1.0] * 3, generators(3)) == expected
        assert policy.generation_config is own_config
    finally:
        own_config.repetition_penalty = None


# generation/2d_mixture_responses.py

SCRIPT = "generation/2d_mixture_responses.py"


def sampling(policy, reference, prompts, *flags):
    command = [SCRIPT, "--model_name_or_path", policy, "--ref_model_name_or_path", reference]
    command += ["--prompts_file", prompts, "--max_new_tokens", 12]
    return [*command, *flags]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory, world):
    """A file of nine prompts; one is too long, one has a system prompt."""
    rows = read_jsonl(world / "prompts.jsonl")[:9]
    rows[2]["prompt"][0]["content"] = "word " * 600
    rows[4]["system"] = "Be brief."
    return write_jsonl(tmp_path_factory.mktemp("mixture") / "prompts.jsonl", rows)


@pytest.fixture(scope="module")
def sampled(prompts, sft, noisy):
    """(rows of c = .5, the finished process)"""
    out = prompts.with_name("whole.jsonl")
    command = sampling(sft, noisy, prompts, "--n", 4, "--temperatures", 1, 0.7)
    done = ran(*command, "--output_file", out)
    return read_jsonl(out), done


def test_its_rows_are_those_of_2_responses(sampled, prompts, sft, noisy):
    rows, done = sampled
    out = prompts.with_name("by_the_engine.jsonl")
    command = ["generation/2_responses.py", "--model_name_or_path", sft]
    command += ["--prompts_file", prompts, "--max_new_tokens", 12]
    command += ["--n", 4, "--temperatures", 1, 0.7, "--output_file", out]
    printed = ran(*command).stdout
    by_engine = read_jsonl(out)
    for row, row_of_engine in zip(rows, by_engine, strict=True):
        assert row.pop("mixture") == {"reference": str(noisy), "coefficient": 0.5}
        assert [*row] == [*row_of_engine]
        for field in ("id", "prompt_tokens", "temperatures", "policy"):
            assert row[field] == row_of_engine[field]
    counts = "rows in: 9, finished before: 0, dropped, too long: 1, rows out: 8, "
    assert counts in done.stdout
    assert counts in printed


def test_text_tokens_and_reasons_of_a_row_agree(sampled, sft):
    tokenizer, _ = loaded(sft)
    rows, done = sampled
    reasons = []
    for row in rows:
        fields = ("responses", "response_tokens", "finish_reasons", "end_tokens")
        for text, tokens, reason, end in zip(*(row[field] for field in fields), strict=True):
            reasons.append(reason)
            assert end == (tokenizer.eos_token if reason == "stop" else "")
            assert reason == "stop" or tokens == 12
            assert tokenizer.eos_token not in text
        assert len(set(row["responses"])) > 1
    assert set(reasons) == {"stop", "length"}
    assert f"truncated responses: {reasons.count('length')}, " in done.stdout


def test_shards_batches_and_a_kill_change_no_response(sampled, prompts, sft, noisy):
    rows, _ = sampled
    command = sampling(sft, noisy, prompts, "--n", 4, "--temperatures", 1, 0.7)
    command += ["--batch_tokens", 100]
    sharded = in_two_shards(prompts, prompts.with_name("sharded.jsonl"), *command)
    fields = ("id", "responses", "finish_reasons", "response_tokens")
    for row, expected in zip(sharded, rows, strict=True):
        assert [row[field] for field in fields] == [expected[field] for field in fields]


def test_a_coefficient_of_0_is_the_policy_and_of_1_the_reference(prompts, sft, noisy):
    """By the responses, whose seeds are the same: a model mixed with itself is itself."""

    def responses(policy, reference, coefficient):
        out = prompts.with_name(f"{policy.name}_{reference.name}_{coefficient}.jsonl")
        flags = ["--n", 2, "--temperatures", 1, "--mixture_coefficient", coefficient]
        ran(*sampling(policy, reference, prompts, *flags), "--output_file", out)
        return [row["responses"] for row in read_jsonl(out)]

    of_sft = responses(sft, sft, 0.5)
    of_noisy = responses(noisy, noisy, 0.5)
    assert responses(sft, noisy, 0) == of_sft
    assert responses(sft, noisy, 1) == of_noisy
    assert of_sft != of_noisy


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--mixture_coefficient", "1.5"], "argument --mixture_coefficient: 1.5: above 1"),
        (["--mixture_coefficient", "-0.1"], "argument --mixture_coefficient: -0.1: below 0"),
        (["--tensor_parallel_size", "2"], "unrecognized arguments: --tensor_parallel_size 2"),
    ],
)
def test_a_wrong_flag_is_refused(prompts, tmp_path, flags, reason):
    done = run(*sampling("none", "none", prompts, *flags), "--output_file", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.endswith(f"error: {reason}\n")


def test_a_reference_of_another_width_is_refused(prompts, sft, tmp_path):
    wide = shutil.copytree(sft, tmp_path / "wide")
    model = copy.deepcopy(loaded(wide)[1])
    width = model.config.vocab_size
    model.resize_token_embeddings(width + 3)
    model.save_pretrained(wide)
    done = run(*sampling(sft, wide, prompts), "--output_file", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr == f"{wide}: logits of {width + 3} tokens, the policy has {width}\n"
    assert not (tmp_path / "out").exists()


# dpo/1d_nash_md.py


def nash_md(sft, preference_model, file, out, *flags):
    command = ["--model_name_or_path", sft, "--dataset_name", file, "--output_dir", out]
    # Any language model tells A from B.
    command += ["--preference_model_name_or_path", preference_model, *TRAINING]
    return [*command, "--max_steps", 1, "--max_completion_length", 24, *flags]


def logged_table(monkeypatch):
    """A list of the tables of completions that TRL will log, {column: values}."""
    from trl.trainer import rloo_trainer

    tables = []
    monkeypatch.setattr(rloo_trainer, "pd", SimpleNamespace(DataFrame=tables.append))
    return tables


@pytest.mark.parametrize("lora", [False, True])
def test_the_reward_is_the_annotators_probability(monkeypatch, tmp_path, world, sft, noisy, lora):
    """Less 1/2; the four responses to a prompt have the same opponent."""
    tables = logged_table(monkeypatch)
    file = write_jsonl(tmp_path / "prompts.jsonl", read_jsonl(world / "prompts.jsonl")[:4])
    flags = ["--per_device_train_batch_size", 16, "--learning_rate", 1e-3]
    flags += ["--log_completions", "True", "--report_to", "none", "--use_peft", lora]
    run_here("dpo/1d_nash_md.py", monkeypatch, *nash_md(sft, noisy, file, tmp_path / "out", *flags))
    table = tables[0]
    rows = []
    for number, prompt in enumerate(table["prompt"]):
        (completion,) = table["completion"][number]
        responses = [completion["content"], table["opponent"][number]]
        row = {"id": f"{number}", "prompt": prompt, "responses": responses}
        rows.append(row | {"finish_reasons": ["stop", "stop"]})
    compared = write_jsonl(tmp_path / "responses.jsonl", rows)
    command = ["annotation/1b_preference_model.py", "--model_name_or_path", noisy]
    command += ["--method", "all_pairs", "--responses_file", compared]
    ran(*command, "--output_file", tmp_path / "rewards.jsonl")
    expected = []
    for row in read_jsonl(tmp_path / "rewards.jsonl"):
        (match,) = row["judgement"]
        expected.append(match["probability"] - 0.5)
    assert table["win_margin"] == pytest.approx(expected, abs=1e-4)
    assert len(set(table["win_margin"])) > 4
    opponents = {}
    for row in rows:
        opponents.setdefault(row["prompt"][0]["content"], set()).add(row["responses"][1])
    assert [len(texts) for texts in opponents.values()] == [1] * 4
    # A policy that has learned differs from its start.
    before, after = loaded(sft)[1].state_dict(), loaded(tmp_path / "out")[1].state_dict()
    assert any(not torch.equal(weight, after[name]) for name, weight in before.items())


def test_the_first_opponent_is_the_policys_own(monkeypatch, tmp_path, world, sft, noisy):
    """Policy and reference are one then: on average neither wins."""
    tables = logged_table(monkeypatch)
    file = write_jsonl(tmp_path / "prompts.jsonl", read_jsonl(world / "prompts.jsonl")[:100])
    flags = ["--per_device_train_batch_size", 200, "--num_generations", 2]
    flags += ["--log_completions", "True", "--report_to", "none", "--learning_rate", 0]
    run_here("dpo/1d_nash_md.py", monkeypatch, *nash_md(sft, noisy, file, tmp_path / "out", *flags))
    margins = torch.tensor(tables[0]["win_margin"]).view(100, 2).mean(1)
    # Five standard errors of the mean over prompts.
    assert abs(margins.mean()) < 5 * margins.std() / math.sqrt(100)
    log = history(tmp_path / "out")[0]
    assert log["reward"] == pytest.approx(margins.mean().item(), abs=1e-6)
    assert log["kl"] == pytest.approx(0, abs=1e-6)
    assert 1 < log["opponents/mean_length"] <= 24


def test_under_lora_the_reference_is_the_policy_without_its_adapters(monkeypatch, sft):
    from peft import LoraConfig, get_peft_model

    tokenizer, start = loaded(sft)
    policy = get_peft_model(copy.deepcopy(start), LoraConfig(init_lora_weights=False))
    monkeypatch.syspath_prepend(ROOT / "dpo")
    margin = runpy.run_path(str(ROOT / "dpo/1d_nash_md.py"))["WinMargin"](None, tokenizer, 0.5)
    margin.trainer = SimpleNamespace(ref_model=None)
    base_model, reference = margin.policy_and_reference(policy)
    ids = torch.tensor([tokenizer("1 + 2 =")["input_ids"]])
    with torch.inference_mode():
        of_start = start(ids).logits
        assert torch.allclose(reference(input_ids=ids).logits, of_start, atol=1e-5)
        assert not torch.allclose(base_model(ids).logits, of_start, atol=1e-2)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--beta", 0], "--beta: above 0; at 0 TRL loads no reference, which the opponent needs"),
        (
            ["--remove_unused_columns", "True"],
            "--remove_unused_columns True: the reward needs the place of each prompt",
        ),
        (
            ["--fsdp", "full_shard"],
            "1d_nash_md.py: not with ZeRO-3 or FSDP, whose processes hold parts of a model",
        ),
        (["--mixture_coefficient", 1.5], "--mixture_coefficient: 1.5 is above 1"),
        (["--mixture_coefficient", -0.5], "--mixture_coefficient: -0.5 is below 0"),
    ],
)
def test_nash_md_refuses_in_one_line(monkeypatch, tmp_path, world, sft, flags, reason):
    out = tmp_path / "out"
    command = nash_md(sft, sft, world / "prompts.jsonl", out, *flags)
    with pytest.raises(SystemExit) as stopped:
        run_here("dpo/1d_nash_md.py", monkeypatch, *command)
    assert str(stopped.value) == reason
    assert not out.exists()


@pytest.mark.parametrize("field", ["system", "tools"])
def test_a_prompt_that_an_on_policy_training_would_change_is_refused(
    monkeypatch, tmp_path, sft, field
):
    row = {"id": "0", "prompt": [{"role": "user", "content": "Say hello."}]}
    row[field] = [{"role": "system", "content": "Be brief."}]
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [row])
    with pytest.raises(SystemExit) as stopped:
        run_here("dpo/1d_nash_md.py", monkeypatch, *nash_md(sft, sft, prompts, tmp_path / "out"))
    assert str(stopped.value).startswith(f"{prompts}:1: {field}: ")
    assert not (tmp_path / "out").exists()


def test_nash_md_refuses_parts_of_a_model(tmp_path, world, sft):
    environment = {**os.environ, "ACCELERATE_USE_FSDP": "true"}
    command = nash_md(sft, sft, world / "prompts.jsonl", tmp_path / "out")
    done = run("dpo/1d_nash_md.py", *command, env=environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("1d_nash_md.py: not with ZeRO-3 or FSDP")
