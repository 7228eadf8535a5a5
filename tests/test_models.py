"""Every stage with a model: its output equals a computation by hand, and a kill changes nothing."""

import fcntl
import functools
import json
import math
import os
import shutil
import subprocess
import sys
import time
from statistics import fmean

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ForSequenceClassification,
    LlamaConfig,
)

from commands import ROOT, ran, read_jsonl, run, write_jsonl
from common import engines, weights
from conftest import TRAINING, padded_with_eos, run_here, train

CHATML = """{% for turn in messages -%}
<|im_start|>{{ turn.role }}
{{ turn.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@functools.cache
def loaded(path, kind=AutoModelForCausalLM):
    """(tokenizer, model in float32)"""
    return AutoTokenizer.from_pretrained(path), kind.from_pretrained(path, dtype="float32").eval()


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def log_probabilities(path, prompt, answer, end=True, after=""):
    """Of each token of a response and of what the template puts after it.

    By hand: a single sequence, no padding, no labels.
    """
    tokenizer, model = loaded(path)
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    prompt_ids = ids_of(tokenizer, text)
    ids = prompt_ids + ids_of(tokenizer, answer)
    if end:
        ids.append(tokenizer.eos_token_id)
    ids += ids_of(tokenizer, after)
    with torch.inference_mode():
        # (tokens, vocabulary): row i - 1 predicts token i
        log_p = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [log_p[i - 1, ids[i]].item() for i in range(len(prompt_ids), len(ids))]


def score(path, prompt, answer):
    """Of a reward model, by hand: the last token's logit, a single sequence, no padding."""
    tokenizer, model = loaded(path, AutoModelForSequenceClassification)
    chat = [*prompt, {"role": "assistant", "content": answer}]
    ids = ids_of(tokenizer, tokenizer.apply_chat_template(chat, tokenize=False))
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits.item()


def history(model):
    return json.loads((model / "trainer_state.json").read_text())["log_history"]


def losses(model):
    return [entry["loss"] for entry in history(model) if "loss" in entry]


def wait_for(condition, process):
    """Until the condition holds; the process must not end before."""
    while not condition():
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.05)


def killed_after_first_rows(file, *command):
    """SIGKILL a stage that has written its first rows; return the lines that it had finished.

    Its standard output is a pipe with room for a single line, so that it blocks after the first.
    """
    read_end, write_end = os.pipe()
    os.write(write_end, bytes(fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096) - 70))
    process = subprocess.Popen(
        [sys.executable, *map(str, command), "--output_file", str(file)],
        cwd=ROOT,
        stdout=write_end,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "VLLM_LOGGING_STREAM": "ext://sys.stderr"},
    )

    def has_rows():
        return any(part.stat().st_size for part in file.parent.glob(f"{file.name}.partial-*"))

    wait_for(has_rows, process)
    process.kill()
    process.wait()
    os.close(read_end)
    os.close(write_end)
    (part,) = file.parent.glob(f"{file.name}*")
    return whole_lines(part)


def whole_lines(file):
    return [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"}\n")]


def in_two_shards(order, file, *command):
    """The same rows in two shards, merged; the first shard is killed and resumed."""
    first = file.with_name(f"{file.name}.0-of-2")
    second = file.with_name(f"{file.name}.1-of-2")
    command = [*command, "--chunk_size", 1, "--num_shards", 2]
    finished = killed_after_first_rows(first, *command, "--shard", 0)
    done = ran(*command, "--shard", 0, "--output_file", first)
    assert f"finished before: {len(finished)}, " in done.stdout
    lines = whole_lines(first)
    assert lines[: len(finished)] == finished
    if "truncated responses" in done.stdout:
        # The count is that of all rows, those of the killed run included.
        truncated = sum(json.loads(line)["finish_reasons"].count("length") for line in lines)
        assert f"truncated responses: {truncated}, " in done.stdout
    ran(*command, "--shard", 1, "--output_file", second)
    ran("common/shards.py", order, file, 2)
    return read_jsonl(file)


# sft/2_finetune.py


@pytest.mark.parametrize("packing", [True, False])
def test_fine_tuning_learns_the_answers_only_and_packs_without_mixing(
    tmp_path, base, world, packing
):
    """The first loss is the mean over the answers' tokens.

    Each answer is seen in its own conversation.
    """
    chats = [row["messages"] for row in read_jsonl(world / "instructions.jsonl")[:10]]
    long_chat = [{"role": "system", "content": "Be kind."}, *chats[0], *chats[1]]
    chats = [*chats[2:], long_chat]
    by_hand = []
    for chat in chats:
        for i, turn in enumerate(chat):
            if turn["role"] == "assistant":
                by_hand += log_probabilities(base, chat[:i], turn["content"])
    rows = [{"id": f"{i}", "messages": chat} for i, chat in enumerate(chats)]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    flags = ["--packing", packing, "--max_length", 512, "--per_device_train_batch_size", len(chats)]
    flags += ["--model_name_or_path", base, "--dataset_name", file]
    flags += ["--max_steps", 1, "--learning_rate", 0]
    train("sft/2_finetune.py", tmp_path / "sft", *flags)
    assert losses(tmp_path / "sft") == [pytest.approx(-fmean(by_hand), abs=1e-3)]


REASONS = ["cannot load a model from it (", "its tokenizer has no chat template"]


@pytest.mark.parametrize("reason", REASONS)
def test_fine_tuning_refuses_a_model_in_one_line(tmp_path, base, world, reason):
    model = tmp_path / "none"
    if "template" in reason:
        shutil.copytree(base, model)
        (model / "chat_template.jinja").unlink()
    out = tmp_path / "sft"
    flags = ["--dataset_name", world / "instructions.jsonl", "--output_dir", out, *TRAINING]
    done = run("sft/2_finetune.py", "--model_name_or_path", model, *flags)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f"{model}: {reason}"), done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "sft").exists()


# reward_modeling/2a_bradley_terry.py


def test_a_reward_model_does_not_pad_with_eos(sft, reward_model):
    """It scores the last token that is no padding.

    With EOS as padding that would be the token before the end of the response.
    """
    assert AutoTokenizer.from_pretrained(sft.with_name("padded_with_eos")).pad_token == "<|eos|>"
    tokenizer, model = loaded(reward_model, AutoModelForSequenceClassification)
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.pad_token_id < model.get_input_embeddings().num_embeddings


def test_the_held_out_loss_and_accuracy_are_those_of_the_held_out_rows(reward_model):
    """No margin enters the loss, though the rows have one.

    The accuracy is that of the rows, not a mean over uneven batches.
    """
    held_out = read_jsonl(reward_model.with_name("held_out.jsonl"))
    assert all(row["margin"] for row in held_out)
    row_losses, right = [], []
    for row in held_out:
        chosen = score(reward_model, row["prompt"], row["chosen"][0]["content"])
        rejected = score(reward_model, row["prompt"], row["rejected"][0]["content"])
        row_losses.append(math.log1p(math.exp(rejected - chosen)))
        right.append(chosen > rejected)
    log = history(reward_model)[-1]
    assert log["eval_loss"] == pytest.approx(fmean(row_losses), abs=1e-4)
    assert fmean(right) != pytest.approx((fmean(right[:8]) + fmean(right[8:])) / 2)
    assert log["eval_accuracy"] == pytest.approx(fmean(right))


# generation/2_responses.py


@pytest.fixture(scope="module")
def sampled(tmp_path_factory, sft, world):
    """(prompts, rows, rows from two shards, the finished process); a prompt is too long."""
    folder = tmp_path_factory.mktemp("generation")
    prompts = read_jsonl(world / "prompts.jsonl")[:9]
    prompts[2]["prompt"][0]["content"] = "word " * 600
    prompts[4]["system"] = "Be brief."
    file = write_jsonl(folder / "prompts.jsonl", prompts)
    command = ["generation/2_responses.py", "--model_name_or_path", sft, "--prompts_file", file]
    command += ["--n", 4, "--temperatures", 1, 0.01, "--max_new_tokens", 12]
    out = folder / "whole.jsonl"
    done = ran(*command, "--output_file", out, env={**os.environ, "VLLM_LOGGING_LEVEL": "INFO"})
    sharded = in_two_shards(file, folder / "sharded.jsonl", *command)
    return prompts, read_jsonl(out), sharded, done


def steered(row):
    """The chat that the policy reads: a row's system prompt comes before its prompt."""
    if "system" in row:
        return [{"role": "system", "content": row["system"]}, *row["prompt"]]
    return row["prompt"]


def prompt_text(tokenizer, row):
    return tokenizer.apply_chat_template(steered(row), tokenize=False, add_generation_prompt=True)


def test_answers_at_each_temperature(sampled, sft):
    """Equal shares; near a temperature of 0 the response is the greedy one of transformers."""
    tokenizer, model = loaded(sft)
    prompts, rows, _, _ = sampled
    short_prompts = [row for row in prompts if len(row["prompt"][0]["content"]) < 600]
    assert [row["id"] for row in rows] == [row["id"] for row in short_prompts]
    agreed = []
    for row in rows:
        assert row["temperatures"] == [1, 1, 0.01, 0.01]
        assert len(row["responses"]) == len(row["finish_reasons"]) == 4
        ids = torch.tensor([ids_of(tokenizer, prompt_text(tokenizer, row))])
        mask = torch.ones_like(ids)
        output = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=12)
        greedy = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
        agreed += [text == greedy for text in row["responses"][2:]]
    # To a model of a few steps two tokens may be almost equally likely.
    assert fmean(agreed) > 0.4
    assert any(row["responses"][0] != row["responses"][1] for row in rows)


def test_bos_stands_before_a_prompt_once(sampled, sft):
    """Defect 6: an engine that is given text put a second BOS before that of the chat template."""
    tokenizer, _ = loaded(sft)
    _, rows, _, _ = sampled
    for row in rows:
        text = prompt_text(tokenizer, row)
        ids = ids_of(tokenizer, text)
        assert ids.count(tokenizer.bos_token_id) == 1
        assert row["prompt_tokens"] == len(ids)
        assert "system" not in row or text.count("Be brief.") == 1


def test_a_truncated_answer_is_marked_and_a_prompt_that_is_too_long_is_dropped(sampled):
    _, rows, _, done = sampled
    responses = []
    for row in rows:
        for reason, tokens in zip(row["finish_reasons"], row["response_tokens"], strict=True):
            responses.append((reason, tokens == 12))
    assert set(responses) >= {("length", True), ("stop", False)}
    assert ("length", False) not in responses
    truncated = sum(reason == "length" for reason, _ in responses)
    counts = "rows in: 9, finished before: 0, dropped, too long: 1, rows out: 8, "
    assert f"{counts}truncated responses: {truncated}, " in done.stdout


def test_the_policy_is_sampled_in_the_precision_of_its_weights(sampled, sft):
    """Defect 7: policy and reference ran in different precisions.

    By default vLLM converts float32 to bfloat16.
    """
    assert loaded(sft)[1].config.dtype == torch.float32
    _, _, _, done = sampled
    assert "dtype=torch.float32" in done.stdout + done.stderr


def test_shards_and_a_kill_change_no_answer(sampled):
    """Defect 4: shards of equal size lost the last rows.

    The seed of a row does not depend on the rows beside it.
    """
    _, rows, sharded, _ = sampled
    assert sharded == rows


def test_the_engine_gets_the_context_that_the_prompts_need(sampled, sft, tmp_path):
    """131,072 positions would not fit into its cache on the CPU; the longest prompt does.

    The responses are the same. After the first chunk a single line says that most are truncated.
    """
    prompts, rows, _, _ = sampled
    model = shutil.copytree(sft, tmp_path / "model")
    for name, key in (
        ("config.json", "max_position_embeddings"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        settings = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps({**settings, key: 131072}))
    file = write_jsonl(tmp_path / "prompts.jsonl", prompts)
    out = tmp_path / "out.jsonl"
    command = ["generation/2_responses.py", "--model_name_or_path", model, "--prompts_file", file]
    command += ["--n", 4, "--temperatures", 1, 0.01, "--max_new_tokens", 2, "--chunk_size", 3]
    done = ran(*command, "--output_file", out)
    truncated = {row["id"]: row["responses"] for row in read_jsonl(out)}
    assert len(truncated) == 9
    for row in rows:
        for text, start in zip(row["responses"], truncated[row["id"]], strict=True):
            assert text.startswith(start)
    lines = [line for line in done.stdout.splitlines() if "are cut off" in line]
    assert len(lines) == 1
    message = "12 of 12 responses are cut off at --max_new_tokens 2: raise it, or "
    assert lines[0].startswith(message)
    assert "dropped, too long: 0, rows out: 9, truncated responses: 36, " in done.stdout


def test_the_cache_on_the_cpu_holds_sequences_of_that_context():
    """By hand: keys and values, layers, heads, width, bytes.

    A model with a text_config has the cache of its text model.
    """
    llama = LlamaConfig(
        num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, hidden_size=576
    )
    token = 2 * 30 * 3 * 64 * 4
    # 1000 tokens are four blocks of 256; vLLM keeps a block for itself.
    assert engines.cache_bytes(llama, torch.float32, 1000) == 16 * token * (1024 + 256)
    assert engines.cache_bytes(llama, torch.bfloat16, 10) == 2**28
    assert engines.cache_bytes(llama, torch.float32, 10_000) == 2**32
    assert engines.cache_bytes(llama, torch.float32, 131_072) == token * (131_072 + 256)
    text_config = {"num_hidden_layers": 4, "num_key_value_heads": 2, "head_dim": 256}
    gemma = Gemma3Config(text_config=text_config)
    token = 2 * 4 * 2 * 256 * 2
    assert engines.cache_bytes(gemma, torch.bfloat16, 4096) == 16 * token * (4096 + 256)


# Models with a text_config


@pytest.fixture(scope="module")
def gemma(tmp_path_factory, sft):
    """[a reward model, a language model] of Gemma 3 with a vision tower and the tiny tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(sft)
    folder = tmp_path_factory.mktemp("gemma")
    size = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    text = {
        **size,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "vocab_size": 644,
        "max_position_embeddings": 128,
        "pad_token_id": tokenizer.pad_token_id,
        "sliding_window": 512,
    }
    vision = {**size, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=vision, num_labels=1)
    paths = []
    for kind in (Gemma3ForSequenceClassification, Gemma3ForConditionalGeneration):
        path = folder / kind.__name__
        kind(config).save_pretrained(path)
        tokenizer.save_pretrained(path)
        paths.append(path)
    return paths


def test_a_model_with_a_text_config_annotates(gemma, world, tmp_path):
    """Its context is that of its text model: the row of 200 words is dropped."""
    rows = read_jsonl(world / "prompts.jsonl")[:3]
    for row in rows:
        row |= {"responses": ["1", "It is red."], "finish_reasons": ["stop"] * 2}
    rows[1]["responses"][0] = "word " * 200
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    out = tmp_path / "out.jsonl"
    for script, model in zip(("1a_reward_model", "1b_preference_model"), gemma, strict=True):
        flags = ["--model_name_or_path", model, "--responses_file", file, "--output_file", out]
        done = ran(f"annotation/{script}.py", *flags)
        assert "dropped, too long: 1, rows out: 2, " in done.stdout
        if script == "1a_reward_model":
            for row in read_jsonl(out):
                by_hand = [score(model, row["prompt"], text) for text in row["responses"]]
                assert row["rewards"] == pytest.approx(by_hand, abs=1e-4)


def test_uncertain_pairs_of_a_model_with_a_text_config(gemma, world, tmp_path):
    reward_model, _ = gemma
    rows = read_jsonl(world / "prompts.jsonl")[:3]
    for row in rows:
        row |= {"responses": ["1", "2", "3"], "finish_reasons": ["stop"] * 3}
        row["rewards"] = [0.0, 1.0, 2.0]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    out = tmp_path / "out.jsonl"
    flags = ["--model_name_or_path", reward_model, "--rewards_file", file, "--output_file", out]
    ran("annotation/2d_uncertain_pairs.py", *flags)
    assert [row["chosen"][0]["content"] for row in read_jsonl(out)] == ["3"] * 3


# annotation/1a_reward_model.py


@pytest.fixture(scope="module")
def scored(tmp_path_factory, reward_model, world):
    """(file, scored rows, the finished process) of responses of many lengths, in large batches.

    A response is longer than the context.
    """
    folder = tmp_path_factory.mktemp("annotation")
    rows = read_jsonl(world / "prompts.jsonl")[:9]
    pairs = read_jsonl(world / "preferences.jsonl")
    for i, row in enumerate(rows):
        chosen = pairs[i]["chosen"][0]["content"]
        rejected = pairs[i]["rejected"][0]["content"]
        row["responses"] = ["", "7.", chosen, rejected * (i + 1)]
        row["finish_reasons"] = ["stop"] * 4
    rows[2]["responses"][1] = "word " * 600
    file = write_jsonl(folder / "responses.jsonl", rows)
    out = folder / "whole.jsonl"
    done = ran(*annotation(reward_model, file), "--output_file", out)
    return file, read_jsonl(out), done


def annotation(model, file):
    script = "annotation/1a_reward_model.py"
    return [script, "--model_name_or_path", model, "--responses_file", file]


def test_scores_are_those_of_one_answer_at_a_time(scored, reward_model):
    file, rows, done = scored
    ids = [row["id"] for row in read_jsonl(file)]
    # The response that is too long belongs to the third row.
    del ids[2]
    assert [row["id"] for row in rows] == ids
    for row in rows:
        by_hand = [score(reward_model, row["prompt"], text) for text in row["responses"]]
        assert row["rewards"] == pytest.approx(by_hand, abs=1e-4)
        assert row["annotator"] == str(reward_model)
    assert "rows in: 9, finished before: 0, dropped, too long: 1, rows out: 8, " in done.stdout


def test_small_batches_shards_and_a_kill_change_no_score(scored, reward_model, tmp_path):
    """Defect 5: one row at a time, nothing on disk before the end, nothing to go on from."""
    file, rows, _ = scored
    command = [*annotation(reward_model, file), "--batch_tokens", 64]
    sharded = in_two_shards(file, tmp_path / "out.jsonl", *command)
    expected = [{**row, "rewards": pytest.approx(row["rewards"], abs=1e-4)} for row in rows]
    assert sharded == expected


def test_annotation_refuses_a_tokenizer_that_pads_with_eos(scored, reward_model, tmp_path):
    model = padded_with_eos(reward_model, tmp_path / "model")
    done = run(*annotation(model, scored[0]), "--output_file", tmp_path / "out.jsonl")
    assert done.returncode == 1 and list(tmp_path.iterdir()) == [model]
    assert done.stderr == f"{model}: its tokenizer needs a pad token that is not the EOS token\n"


def test_annotation_on_a_full_disk_goes_on_when_there_is_room(scored, reward_model, tmp_path, disk):
    row = read_jsonl(scored[0])[0]
    rows = [{**row, "id": f"{i}", "note": "x" * 900} for i in range(90)]
    file = write_jsonl(tmp_path / "responses.jsonl", rows)
    out = disk / "out.jsonl"
    command = [*annotation(reward_model, file), "--chunk_size", 5, "--output_file", out]
    done = run(*command)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"{out}: No space left on device; ")
    (partial,) = disk.iterdir()
    finished = whole_lines(partial)
    assert len(finished) > 5
    subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
    assert f"finished before: {len(finished)}, " in ran(*command).stdout
    assert whole_lines(out)[: len(finished)] == finished
    assert [row["id"] for row in read_jsonl(out)] == [f"{i}" for i in range(90)]


# dpo/1_dpo.py


def dpo(start, reference, file, *more):
    flags = ["--model_name_or_path", start, "--ref_model_name_or_path", reference]
    flags += ["--dataset_name", file, "--per_device_train_batch_size", 4]
    return [*flags, "--max_length", 256, "--learning_rate", 1e-3, *more]


EVERY_STEP = ["--save_strategy", "steps", "--save_steps", 1]


@pytest.fixture(scope="module")
def policy(tmp_path_factory, sft, world):
    """Twelve steps of DPO from the reference itself."""
    folder = tmp_path_factory.mktemp("dpo")
    rows = read_jsonl(world / "preferences.jsonl")
    pairs = [row for row in rows if row["chosen"] != row["rejected"]]
    file = write_jsonl(folder / "pairs.jsonl", pairs[:24])
    train("dpo/1_dpo.py", folder / "policy", *dpo(sft, sft, file, *EVERY_STEP))
    return folder / "policy"


def test_the_first_loss_is_ln_2_where_start_and_reference_are_the_same(policy):
    assert losses(policy)[0] == pytest.approx(math.log(2), abs=1e-4)
    assert len(losses(policy)) == 12
    assert losses(policy)[-1] < 0.67


def test_a_killed_training_goes_on_from_its_last_whole_checkpoint(policy, sft, tmp_path):
    """It arrives at the weights of the run that was not killed.

    An incomplete checkpoint is skipped.
    """
    out = tmp_path / "policy"
    pairs = policy.with_name("pairs.jsonl")
    command = ["dpo/1_dpo.py", "--output_dir", out, *TRAINING, *dpo(sft, sft, pairs, *EVERY_STEP)]
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    wait_for(lambda: [*tmp_path.glob("policy.partial-*/checkpoint-3/trainer_state.json")], process)
    process.kill()
    process.wait()
    (partial,) = tmp_path.iterdir()
    incomplete = partial / "checkpoint-11"
    incomplete.mkdir()
    (incomplete / "model.safetensors").write_bytes(b"half")
    done = ran(*command)
    resumed_steps = done.stdout.count("'loss':")
    assert 0 < resumed_steps <= 9
    assert [entry["step"] for entry in history(out) if "loss" in entry] == [*range(1, 13)]
    assert losses(out) == pytest.approx(losses(policy), abs=1e-4)
    for new, old in zip(loaded(out)[1].parameters(), loaded(policy)[1].parameters(), strict=True):
        torch.testing.assert_close(new, old)
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    assert not [*out.glob("checkpoint-*")]


def test_a_training_that_is_asked_to_stop_saves_its_state_first(policy, sft, tmp_path):
    """A cluster that needs the machine asks so. No step is trained twice."""
    out = tmp_path / "policy"
    command = ["dpo/1_dpo.py", "--output_dir", out, *TRAINING, "--max_steps", 40]
    command += dpo(sft, sft, policy.with_name("pairs.jsonl"))
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    steps = 0
    for line in process.stdout:
        steps += "'loss':" in line
        if steps == 1:
            process.send_signal(15)
    assert process.wait() == 143
    assert not out.exists()
    (state,) = tmp_path.glob("policy.partial-*/checkpoint-*/trainer_state.json")
    saved = json.loads(state.read_text())["global_step"]
    assert steps == saved < 40
    done = ran(*command)
    assert done.stdout.count("'loss':") == 40 - saved
    assert [entry["step"] for entry in history(out) if "loss" in entry] == [*range(1, 41)]


# eval/2_kl.py


def test_flash_attention_is_used_where_it_is(monkeypatch):
    from types import SimpleNamespace

    import transformers.utils

    for available, bf16, flag, expected in [
        (True, True, None, "flash_attention_2"),
        (True, False, None, None),
        (False, True, None, None),
        (True, True, "sdpa", "sdpa"),
    ]:

        def is_available(available=available):
            return available

        monkeypatch.setattr(transformers.utils, "is_flash_attn_2_available", is_available)
        config = SimpleNamespace(bf16=bf16)
        model_config = SimpleNamespace(attn_implementation=flag)
        assert weights.attention(config, model_config) == expected


def test_a_model_in_a_warm_cache_needs_no_hub(scored, reward_model, tmp_path):
    """By its name on the hub; one that is not in the cache is refused in one line."""
    file, rows, _ = scored
    cache = tmp_path / "models--owner--name"
    shutil.copytree(reward_model, cache / "snapshots/1234")
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text("1234")
    offline = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    out = tmp_path / "out.jsonl"
    ran(*annotation("owner/name", file), "--output_file", out, env=offline)
    assert [row["rewards"] for row in read_jsonl(out)] == [row["rewards"] for row in rows]
    done = run(*annotation("owner/other", file), "--output_file", out, env=offline)
    assert done.returncode == 1
    assert done.stderr.startswith("owner/other: cannot load a model from it (")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "script",
    [
        "eval/2_kl.py",
        "dpo/1_dpo.py",
        "dpo/1b_kto.py",
        "generation/2d_mixture_responses.py",
    ],
)
def test_a_reference_with_other_tokens_is_refused(policy, sft, world, tmp_path, script):
    """The token ids of the policy go through both models."""
    other = shutil.copytree(sft, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = sorted(vocabulary, key=vocabulary.get)[300:302]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    flags = ["--model_name_or_path", policy, "--ref_model_name_or_path", other]
    out = tmp_path / "out"
    if script == "eval/2_kl.py":
        row = read_jsonl(world / "prompts.jsonl")[0]
        row |= {"responses": ["7."], "finish_reasons": ["stop"]}
        file = write_jsonl(tmp_path / "in.jsonl", [row])
        flags += ["--responses_file", file, "--output_file", out]
    elif script == "generation/2d_mixture_responses.py":
        flags += ["--prompts_file", world / "prompts.jsonl", "--output_file", out]
    else:
        flags += ["--dataset_name", policy.with_name("pairs.jsonl"), "--output_dir", out, *TRAINING]
    done = run(script, *flags)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"{other}: ")
    assert done.stderr.endswith(" is another token than the policy's\n")
    assert not out.exists()


def test_kl_is_the_difference_of_log_probabilities_over_the_answer(policy, sft, world, tmp_path):
    """With EOS, unless the response is truncated; the result does not depend on the batch.

    A system prompt stands before the policy's prompt, not before the reference's.
    """
    rows = read_jsonl(world / "prompts.jsonl")[:3]
    responses = ["The answer is", "7.", "Well, well. I hope this helps. The answer is red."]
    reasons = ["length", "stop", "stop"]
    for row in rows:
        row |= {"responses": responses, "finish_reasons": reasons, "note": "kept"}
    rows[1]["system"] = "Be brief."
    file = write_jsonl(tmp_path / "in.jsonl", rows)

    def kl(model, name, *flags):
        """(the rows without "kl", their lists of KL)"""
        out = tmp_path / name
        command = ["eval/2_kl.py", "--model_name_or_path", model, "--ref_model_name_or_path", sft]
        ran(*command, "--responses_file", file, "--output_file", out, *flags)
        output = read_jsonl(out)
        return output, [row.pop("kl") for row in output]

    output, kl_of_policy = kl(policy, "policy.jsonl")
    assert output == rows
    for row, values in zip(rows, kl_of_policy, strict=True):
        for response, reason, value in zip(responses, reasons, values, strict=True):
            end = reason == "stop"
            log_p = sum(log_probabilities(policy, steered(row), response, end))
            reference_log_p = sum(log_probabilities(sft, row["prompt"], response, end))
            assert value == pytest.approx(log_p - reference_log_p, abs=1e-3)
            assert abs(value) > 0.01
    _, in_small_batches = kl(policy, "small.jsonl", "--batch_tokens", 32)
    assert in_small_batches == [pytest.approx(values, abs=1e-4) for values in kl_of_policy]
    # The row in the middle has a system prompt.
    _, kl_of_reference = kl(sft, "same.jsonl")
    assert kl_of_reference[::2] == [[0, 0, 0]] * 2


def test_lora_leaves_whole_models(base, sft, reward_model, policy, world, tmp_path):
    """vLLM and the next stage could not load an adapter: it is merged into the model's weights."""
    lora = "--use_peft --lora_r 4 --lora_target_modules all-linear".split()
    lora += "--max_steps 2 --learning_rate 1e-2".split()
    start = ["--model_name_or_path", sft, "--max_length", 256]
    instructions = ["--dataset_name", world / "instructions.jsonl"]
    preferences = ["--dataset_name", reward_model.with_name("training.jsonl")]
    preferences += ["--held_out_name", reward_model.with_name("held_out.jsonl")]
    pairs = policy.with_name("pairs.jsonl")
    train("sft/2_finetune.py", tmp_path / "sft", *start, *instructions, *lora)
    train("reward_modeling/2a_bradley_terry.py", tmp_path / "rm", *start, *preferences, *lora)
    train("dpo/1_dpo.py", tmp_path / "dpo", *dpo(sft, sft, pairs, *lora))
    weight = "model.layers.0.self_attn.q_proj.weight"
    kinds = {
        "sft": AutoModelForCausalLM,
        "rm": AutoModelForSequenceClassification,
        "dpo": AutoModelForCausalLM,
    }
    for name, kind in kinds.items():
        assert not (tmp_path / name / "adapter_config.json").exists()
        before = loaded(sft, kind)[1].state_dict()
        after = loaded(tmp_path / name, kind)[1].state_dict()
        assert before.keys() == after.keys()
        assert not torch.equal(before[weight], after[weight])


@pytest.mark.parametrize("precision", [[], ["--dtype", "float32"]])
def test_lora_freezes_weights_in_bfloat16(monkeypatch, sft, reward_model, tmp_path, precision):
    """What is trained, the scoring head too, is float32; the merged model is as what was frozen."""
    trained = []
    widen = weights.widen_adapters

    def spy(model):
        widen(model)
        trained.extend(weight.dtype for weight in model.parameters() if weight.requires_grad)

    monkeypatch.setattr(weights, "widen_adapters", spy)
    flags = "--use_peft --lora_r 4 --use_cpu True --max_steps 1 --max_length 256".split()
    flags += ["--model_name_or_path", reward_model, *precision, *TRAINING, "--bf16", "True"]
    flags += ["--dataset_name", reward_model.with_name("training.jsonl")]
    flags += ["--held_out_name", reward_model.with_name("held_out.jsonl")]
    flags += ["--output_dir", tmp_path / "rm"]
    run_here("reward_modeling/2a_bradley_terry.py", monkeypatch, *flags)
    assert len(trained) > 1 and set(trained) == {torch.float32}
    saved = load_file(tmp_path / "rm/model.safetensors")
    frozen = torch.float32 if precision else torch.bfloat16
    assert {weight.dtype for weight in saved.values()} == {frozen}


def test_lora_trains_the_new_tokens_of_a_template(base, world, tmp_path):
    """The base model's head shares the embedding's weights; the template brings two new tokens."""
    tokenizer, model = loaded(base)
    assert model.config.tie_word_embeddings
    tokens = ["<|im_start|>", "<|im_end|>"]
    tokenizer.add_tokens(tokens, special_tokens=True)
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(tmp_path / "chatml")
    flags = "--use_peft --lora_r 4 --lora_target_modules all-linear".split()
    flags += "--max_steps 2 --learning_rate 1e-2".split()
    start = ["--model_name_or_path", base, "--chat_template_path", tmp_path / "chatml"]
    instructions = ["--dataset_name", world / "instructions.jsonl", "--max_length", 256]
    train("sft/2_finetune.py", tmp_path / "sft", *start, *instructions, *flags)

    tokenizer, trained = loaded(tmp_path / "sft")
    embedding = trained.get_input_embeddings().weight
    assert trained.get_output_embeddings().weight is embedding
    assert len(embedding) == len(tokenizer)
    # The first step of Adam changes each weight that has a gradient by about the learning rate.
    count = len(model.get_input_embeddings().weight)
    change = (embedding[:count] - model.get_input_embeddings().weight).abs()
    assert change.max() > 0.005
