"""Every stage with a model: what it writes is compared with a computation by hand, and a kill changes none of it."""

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
from common import engines
from conftest import TRAINING, padded_with_eos, train


@functools.cache
def loaded(path, kind=AutoModelForCausalLM):
    return AutoTokenizer.from_pretrained(path), kind.from_pretrained(path, dtype="float32").eval()


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def log_probabilities(path, prompt, answer, end=True, after=""):
    """Of each token of one answer and what the template puts after it, by hand: one sequence, no padding, no labels."""
    tokenizer, model = loaded(path)
    before = ids_of(
        tokenizer, tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    )
    ids = (
        before
        + ids_of(tokenizer, answer)
        + [tokenizer.eos_token_id] * end
        + ids_of(tokenizer, after)
    )
    with torch.inference_mode():
        of_next = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [of_next[i - 1, ids[i]].item() for i in range(len(before), len(ids))]


def score(path, prompt, answer):
    """Of a reward model, by hand: the last token's, one sequence, no padding."""
    tokenizer, model = loaded(path, AutoModelForSequenceClassification)
    chat = [*prompt, {"role": "assistant", "content": answer}]
    ids = ids_of(tokenizer, tokenizer.apply_chat_template(chat, tokenize=False))
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits.item()


def history(model):
    return json.loads((model / "trainer_state.json").read_text())["log_history"]


def losses(model):
    return [entry["loss"] for entry in history(model) if "loss" in entry]


def wait_for(found, process):
    """What `found` gives, once that is true; the process must not end before."""
    while not (value := found()):
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.05)
    return value


def killed_after_first_rows(file, *command):
    """SIGKILL a stage that has written its first rows; its standard output has room for one line, and then it waits.

    Returns the lines that it had finished.
    """
    out, end = os.pipe()
    os.write(end, bytes(fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096) - 70))
    environment = {**os.environ, "VLLM_LOGGING_STREAM": "ext://sys.stderr"}
    command = [sys.executable, *map(str, command), "--output_file", str(file)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=end, stderr=subprocess.DEVNULL, env=environment
    )
    wait_for(
        lambda: any(part.stat().st_size for part in file.parent.glob(f"{file.name}.partial-*")),
        process,
    )
    process.kill()
    process.wait()
    os.close(out)
    os.close(end)
    (part,) = file.parent.glob(f"{file.name}*")
    return whole_lines(part)


def whole_lines(file):
    return [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"}\n")]


def in_two_shards(order, file, *command):
    """The same rows in two shards, merged; the first one is killed after its first rows and goes on."""
    first, second = (file.with_name(f"{file.name}.{i}-of-2") for i in (0, 1))
    command = [*command, "--chunk_size", 1, "--num_shards", 2]
    kept = killed_after_first_rows(first, *command, "--shard", 0)
    done = ran(*command, "--shard", 0, "--output_file", first)
    assert (
        f"finished before: {len(kept)}, " in done.stdout and whole_lines(first)[: len(kept)] == kept
    )
    if "truncated responses" in done.stdout:  # of all rows, those of the killed run too
        truncated = sum(
            json.loads(line)["finish_reasons"].count("length") for line in whole_lines(first)
        )
        assert f"truncated responses: {truncated}, " in done.stdout
    ran(*command, "--shard", 1, "--output_file", second)
    ran("common/shards.py", order, file, 2)
    return read_jsonl(file)


# sft/2_finetune.py


@pytest.mark.parametrize("packing", [True, False])
def test_fine_tuning_learns_the_answers_only_and_packs_without_mixing(
    tmp_path, base, world, packing
):
    """The first loss is the mean over the answers' tokens, each answer seen in its own conversation."""
    chats = [row["messages"] for row in read_jsonl(world / "instructions.jsonl")[:10]]
    chats = [*chats[2:], [{"role": "system", "content": "Be kind."}, *chats[0], *chats[1]]]
    by_hand = [
        value
        for chat in chats
        for i, turn in enumerate(chat)
        if turn["role"] == "assistant"
        for value in log_probabilities(base, chat[:i], turn["content"])
    ]
    file = write_jsonl(
        tmp_path / "in.jsonl", [{"id": f"{i}", "messages": chat} for i, chat in enumerate(chats)]
    )
    flags = ["--packing", packing, "--max_length", 512, "--per_device_train_batch_size", len(chats)]
    flags += [
        "--model_name_or_path",
        base,
        "--dataset_name",
        file,
        "--max_steps",
        1,
        "--learning_rate",
        0,
    ]
    train("sft/2_finetune.py", tmp_path / "sft", *flags)
    assert losses(tmp_path / "sft") == [pytest.approx(-fmean(by_hand), abs=1e-3)]


@pytest.mark.parametrize(
    "what", ["cannot load a model from it (", "its tokenizer has no chat template"]
)
def test_fine_tuning_refuses_a_model_in_one_line(tmp_path, base, world, what):
    model = tmp_path / "none"
    if "template" in what:
        shutil.copytree(base, model)
        (model / "chat_template.jinja").unlink()
    flags = [
        "--dataset_name",
        world / "instructions.jsonl",
        "--output_dir",
        tmp_path / "sft",
        *TRAINING,
    ]
    done = run("sft/2_finetune.py", "--model_name_or_path", model, *flags)
    assert done.returncode == 1 and done.stderr.startswith(f"{model}: {what}"), done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "sft").exists()


# reward_modeling/2a_bradley_terry.py


def test_a_reward_model_does_not_pad_with_eos(sft, reward_model):
    """It scores the last token that is no padding: with EOS as padding that is the one before an answer's end."""
    assert AutoTokenizer.from_pretrained(sft.with_name("padded_with_eos")).pad_token == "<|eos|>"
    tokenizer, model = loaded(reward_model, AutoModelForSequenceClassification)
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert (
        model.config.pad_token_id
        == tokenizer.pad_token_id
        < model.get_input_embeddings().num_embeddings
    )


def test_the_held_out_loss_and_accuracy_are_those_of_the_held_out_rows(reward_model):
    """No margin in the loss, though the rows have one; the accuracy is the rows', not a mean over uneven batches."""
    held_out = read_jsonl(reward_model.with_name("held_out.jsonl"))
    assert all(row["margin"] for row in held_out)
    pairs = [
        [score(reward_model, r["prompt"], r[k][0]["content"]) for k in ("chosen", "rejected")]
        for r in held_out
    ]
    told = history(reward_model)[-1]
    assert told["eval_loss"] == pytest.approx(
        fmean(math.log1p(math.exp(r - c)) for c, r in pairs), abs=1e-4
    )
    right = [c > r for c, r in pairs]
    assert fmean(right) != pytest.approx((fmean(right[:8]) + fmean(right[8:])) / 2)
    assert told["eval_accuracy"] == pytest.approx(fmean(right))


# generation/2_responses.py


@pytest.fixture(scope="module")
def sampled(tmp_path_factory, sft, world):
    """Prompts, one of them too long, in one go and in two shards: (prompts, rows, rows from shards, what was told)."""
    folder = tmp_path_factory.mktemp("generation")
    prompts = read_jsonl(world / "prompts.jsonl")[:9]
    prompts[2]["prompt"][0]["content"] = "word " * 600
    prompts[4]["system"] = "Be brief."
    file = write_jsonl(folder / "prompts.jsonl", prompts)
    command = [
        "generation/2_responses.py",
        "--model_name_or_path",
        sft,
        "--prompts_file",
        file,
        "--n",
        4,
    ]
    command += ["--temperatures", 1, 0.01, "--max_new_tokens", 12]
    whole = folder / "whole.jsonl"
    done = ran(*command, "--output_file", whole, env={**os.environ, "VLLM_LOGGING_LEVEL": "INFO"})
    return prompts, read_jsonl(whole), in_two_shards(file, folder / "sharded.jsonl", *command), done


def steered(row):
    """What the policy reads: a row's system prompt stands before its prompt."""
    return (
        [{"role": "system", "content": row["system"]}, *row["prompt"]]
        if "system" in row
        else row["prompt"]
    )


def test_answers_at_each_temperature(sampled, sft):
    """Equal shares; at a temperature near 0 the answer is the greedy one, which transformers finds too."""
    tokenizer, model = loaded(sft)
    prompts, sampled, _, _ = sampled
    assert [row["id"] for row in sampled] == [
        row["id"] for row in prompts if len(row["prompt"][0]["content"]) < 600
    ]
    agreed = []
    for row in sampled:
        assert (
            row["temperatures"] == [1, 1, 0.01, 0.01]
            and len(row["responses"]) == len(row["finish_reasons"]) == 4
        )
        text = tokenizer.apply_chat_template(
            steered(row), tokenize=False, add_generation_prompt=True
        )
        ids = torch.tensor([ids_of(tokenizer, text)])
        greedy = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12
        )
        greedy = tokenizer.decode(greedy[0, ids.shape[1] :], skip_special_tokens=True)
        agreed += [text == greedy for text in row["responses"][2:]]
    assert (
        fmean(agreed) > 0.4
    )  # two tokens may be as good as equally likely to a model of a few steps
    assert any(row["responses"][0] != row["responses"][1] for row in sampled)


def test_bos_stands_before_a_prompt_once(sampled, sft):
    """Defect 6: an engine that is given text put a second BOS before that of the chat template."""
    tokenizer, _ = loaded(sft)
    for row in sampled[1]:
        text = tokenizer.apply_chat_template(
            steered(row), tokenize=False, add_generation_prompt=True
        )
        ids = ids_of(tokenizer, text)
        assert ids.count(tokenizer.bos_token_id) == 1 and row["prompt_tokens"] == len(ids)
        assert "system" not in row or text.count("Be brief.") == 1


def test_a_truncated_answer_is_marked_and_a_prompt_that_is_too_long_is_dropped(sampled):
    _, sampled, _, done = sampled
    marked = [
        (reason, tokens == 12)
        for row in sampled
        for reason, tokens in zip(row["finish_reasons"], row["response_tokens"], strict=True)
    ]
    assert set(marked) >= {("length", True), ("stop", False)} and ("length", False) not in marked
    truncated = sum(reason == "length" for reason, _ in marked)
    told = f"rows in: 9, finished before: 0, dropped, too long: 1, rows out: 8, truncated responses: {truncated}, "
    assert told in done.stdout


def test_the_policy_is_sampled_in_the_precision_of_its_weights(sampled, sft):
    """Defect 7: policy and reference ran in different precisions. vLLM left alone makes bfloat16 of float32."""
    assert loaded(sft)[1].config.dtype == torch.float32
    assert "dtype=torch.float32" in sampled[-1].stdout + sampled[-1].stderr


def test_shards_and_a_kill_change_no_answer(sampled):
    """Defect 4: shards of equal size lost the last rows. A row's seed is its own, whatever runs beside it."""
    _, whole, sharded, _ = sampled
    assert sharded == whole


def test_the_engine_gets_the_context_that_the_prompts_need(sampled, sft, tmp_path):
    """131,072 positions would not fit into its cache on the CPU; the longest prompt fits now. The answers are the same.

    That most are cut off is said once, after the first of the chunks.
    """
    prompts, whole, _, _ = sampled
    model = shutil.copytree(sft, tmp_path / "model")
    for name, key in (
        ("config.json", "max_position_embeddings"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        settings = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps({**settings, key: 131072}))
    file, out = write_jsonl(tmp_path / "prompts.jsonl", prompts), tmp_path / "out.jsonl"
    command = [
        "generation/2_responses.py",
        "--model_name_or_path",
        model,
        "--prompts_file",
        file,
        "--n",
        4,
    ]
    command += [
        "--temperatures",
        1,
        0.01,
        "--max_new_tokens",
        2,
        "--chunk_size",
        3,
        "--output_file",
        out,
    ]
    done = ran(*command)
    cut = {row["id"]: row["responses"] for row in read_jsonl(out)}
    assert len(cut) == 9 and all(
        text.startswith(start)
        for row in whole
        for text, start in zip(row["responses"], cut[row["id"]], strict=True)
    )
    told = [line for line in done.stdout.splitlines() if "are cut off" in line]
    assert len(told) == 1 and told[0].startswith(
        "12 of 12 responses are cut off at --max_new_tokens 2: raise it, or "
    )
    assert "dropped, too long: 0, rows out: 9, truncated responses: 36, " in done.stdout


def test_the_cache_on_the_cpu_holds_sequences_of_that_context():
    """By hand: keys and values, layers, heads, width, bytes, tokens; of a model with a text_config that of its text."""
    llama = LlamaConfig(
        num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, hidden_size=576
    )
    sequence = 2 * 30 * 3 * 64 * 4 * (1024 + 256)  # whole blocks of 256, and one for vLLM
    assert engines.cache_bytes(llama, torch.float32, 1000) == 16 * sequence
    assert engines.cache_bytes(llama, torch.bfloat16, 10) == 2**28
    assert engines.cache_bytes(llama, torch.float32, 10_000) == 2**32
    assert engines.cache_bytes(llama, torch.float32, 131_072) == 2 * 30 * 3 * 64 * 4 * (
        131_072 + 256
    )
    gemma = Gemma3Config(
        text_config={"num_hidden_layers": 4, "num_key_value_heads": 2, "head_dim": 256}
    )
    assert engines.cache_bytes(gemma, torch.bfloat16, 4096) == 16 * 2 * 4 * 2 * 256 * 2 * (
        4096 + 256
    )


# Models with a text_config


@pytest.fixture(scope="module")
def gemma(tmp_path_factory, sft):
    """(a reward model, a language model) of Gemma 3 with a tower for pictures, and the tokenizer of the tiny world."""
    tokenizer, folder = AutoTokenizer.from_pretrained(sft), tmp_path_factory.mktemp("gemma")
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
    }
    text |= {"pad_token_id": tokenizer.pad_token_id, "sliding_window": 512}
    config = Gemma3Config(
        text_config=text, vision_config={**size, "image_size": 28, "patch_size": 14}, num_labels=1
    )
    paths = []
    for kind in (Gemma3ForSequenceClassification, Gemma3ForConditionalGeneration):
        paths.append(folder / kind.__name__)
        kind(config).save_pretrained(paths[-1])
        tokenizer.save_pretrained(paths[-1])
    return paths


def test_a_model_with_a_text_config_annotates(gemma, world, tmp_path):
    """Its context is the one of its text: the row of 200 words is dropped."""
    prompts = read_jsonl(world / "prompts.jsonl")[:3]
    answered = [
        {**row, "responses": ["1", "It is red."], "finish_reasons": ["stop"] * 2} for row in prompts
    ]
    answered[1]["responses"][0] = "word " * 200
    file, out = write_jsonl(tmp_path / "in.jsonl", answered), tmp_path / "out.jsonl"
    for script, path in zip(("1a_reward_model", "1b_preference_model"), gemma, strict=True):
        command = [
            f"annotation/{script}.py",
            "--model_name_or_path",
            path,
            "--responses_file",
            file,
        ]
        done = ran(*command, "--output_file", out)
        assert "dropped, too long: 1, rows out: 2, " in done.stdout
        if script == "1a_reward_model":
            tokenizer, model = loaded(path, AutoModelForSequenceClassification)
            for row in read_jsonl(out):
                chats = [
                    [*row["prompt"], {"role": "assistant", "content": text}]
                    for text in row["responses"]
                ]
                ids = [
                    ids_of(tokenizer, tokenizer.apply_chat_template(chat, tokenize=False))
                    for chat in chats
                ]
                with torch.inference_mode():
                    by_hand = [model(torch.tensor([one])).logits.item() for one in ids]
                assert row["rewards"] == pytest.approx(by_hand, abs=1e-4)


def test_uncertain_pairs_of_a_model_with_a_text_config(gemma, world, tmp_path):
    rows = [
        {
            **row,
            "responses": ["1", "2", "3"],
            "finish_reasons": ["stop"] * 3,
            "rewards": [0.0, 1.0, 2.0],
        }
        for row in read_jsonl(world / "prompts.jsonl")[:3]
    ]
    file, out = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    command = [
        "annotation/2d_uncertain_pairs.py",
        "--model_name_or_path",
        gemma[0],
        "--rewards_file",
        file,
    ]
    ran(*command, "--output_file", out)
    assert [row["chosen"][0]["content"] for row in read_jsonl(out)] == ["3"] * 3


# annotation/1a_reward_model.py


@pytest.fixture(scope="module")
def scored(tmp_path_factory, reward_model, world):
    """Answers of many lengths, one longer than the context, in large batches: (file, rows, what was told)."""
    folder = tmp_path_factory.mktemp("annotation")
    prompts, pairs = (
        read_jsonl(world / "prompts.jsonl")[:9],
        read_jsonl(world / "preferences.jsonl"),
    )
    for i, row in enumerate(prompts):
        row["responses"] = [
            "",
            "7.",
            pairs[i]["chosen"][0]["content"],
            pairs[i]["rejected"][0]["content"] * (i + 1),
        ]
        row["finish_reasons"] = ["stop"] * 4
    prompts[2]["responses"][1] = "word " * 600
    file = write_jsonl(folder / "responses.jsonl", prompts)
    done = ran(*annotation(reward_model, file), "--output_file", folder / "whole.jsonl")
    return file, read_jsonl(folder / "whole.jsonl"), done


def annotation(model, file):
    return [
        "annotation/1a_reward_model.py",
        "--model_name_or_path",
        model,
        "--responses_file",
        file,
    ]


def test_scores_are_those_of_one_answer_at_a_time(scored, reward_model):
    file, scored, done = scored
    assert [row["id"] for row in scored] == [
        row["id"] for i, row in enumerate(read_jsonl(file)) if i != 2
    ]
    for row in scored:
        by_hand = [score(reward_model, row["prompt"], text) for text in row["responses"]]
        assert row["rewards"] == pytest.approx(by_hand, abs=1e-4) and row["annotator"] == str(
            reward_model
        )
    assert "rows in: 9, finished before: 0, dropped, too long: 1, rows out: 8, " in done.stdout


def test_small_batches_shards_and_a_kill_change_no_score(scored, reward_model, tmp_path):
    """Defect 5: one row at a time, nothing on disk before the end, nothing to go on from."""
    file, scored, _ = scored
    sharded = in_two_shards(
        file, tmp_path / "out.jsonl", *annotation(reward_model, file), "--batch_tokens", 64
    )
    assert sharded == [
        {**row, "rewards": pytest.approx(row["rewards"], abs=1e-4)} for row in scored
    ]


def test_annotation_refuses_a_tokenizer_that_pads_with_eos(scored, reward_model, tmp_path):
    model = padded_with_eos(reward_model, tmp_path / "model")
    done = run(*annotation(model, scored[0]), "--output_file", tmp_path / "out.jsonl")
    assert done.returncode == 1 and list(tmp_path.iterdir()) == [model]
    assert done.stderr == f"{model}: its tokenizer needs a pad token that is not the EOS token\n"


def test_annotation_on_a_full_disk_goes_on_when_there_is_room(scored, reward_model, tmp_path, disk):
    row = read_jsonl(scored[0])[0]
    file = write_jsonl(
        tmp_path / "responses.jsonl", [{**row, "id": f"{i}", "note": "x" * 900} for i in range(90)]
    )
    command = [
        *annotation(reward_model, file),
        "--chunk_size",
        5,
        "--output_file",
        disk / "out.jsonl",
    ]
    done = run(*command)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"{disk}/out.jsonl: No space left on device; ")
    (partial,) = disk.iterdir()
    kept = whole_lines(partial)
    subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
    assert f"finished before: {len(kept)}, " in ran(*command).stdout
    assert whole_lines(disk / "out.jsonl")[: len(kept)] == kept and len(kept) > 5
    assert [row["id"] for row in read_jsonl(disk / "out.jsonl")] == [f"{i}" for i in range(90)]


# dpo/1_dpo.py


def dpo(start, reference, file, *more):
    flags = [
        "--model_name_or_path",
        start,
        "--ref_model_name_or_path",
        reference,
        "--dataset_name",
        file,
    ]
    return [
        *flags,
        "--per_device_train_batch_size",
        4,
        "--max_length",
        256,
        "--learning_rate",
        1e-3,
        *more,
    ]


@pytest.fixture(scope="module")
def policy(tmp_path_factory, sft, world):
    """Twelve steps of DPO from the reference itself."""
    folder = tmp_path_factory.mktemp("dpo")
    pairs = [
        row for row in read_jsonl(world / "preferences.jsonl") if row["chosen"] != row["rejected"]
    ][:24]
    file = write_jsonl(folder / "pairs.jsonl", pairs)
    train(
        "dpo/1_dpo.py",
        folder / "policy",
        *dpo(sft, sft, file),
        "--save_strategy",
        "steps",
        "--save_steps",
        1,
    )
    return folder / "policy"


def test_the_first_loss_is_ln_2_where_start_and_reference_are_the_same(policy):
    assert losses(policy)[0] == pytest.approx(math.log(2), abs=1e-4) and len(losses(policy)) == 12
    assert losses(policy)[-1] < 0.67


def test_a_killed_training_goes_on_from_its_last_whole_checkpoint(policy, sft, tmp_path):
    """To the weights of the run that was not killed. A checkpoint that a kill left half written is passed over."""
    out = tmp_path / "policy"
    command = [
        "dpo/1_dpo.py",
        "--output_dir",
        out,
        *TRAINING,
        *dpo(sft, sft, policy.with_name("pairs.jsonl")),
    ]
    command += ["--save_strategy", "steps", "--save_steps", 1]
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    wait_for(lambda: [*tmp_path.glob("policy.partial-*/checkpoint-3/trainer_state.json")], process)
    process.kill()
    process.wait()
    (partial,) = tmp_path.iterdir()
    half = partial / "checkpoint-11"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    done = ran(*command)
    again = done.stdout.count("'loss':")  # steps that were trained now
    assert 0 < again <= 9 and [entry["step"] for entry in history(out) if "loss" in entry] == [
        *range(1, 13)
    ]
    assert losses(out) == pytest.approx(losses(policy), abs=1e-4)
    for new, old in zip(loaded(out)[1].parameters(), loaded(policy)[1].parameters(), strict=True):
        torch.testing.assert_close(new, old)
    assert [path.name for path in tmp_path.iterdir()] == ["policy"] and not [
        *out.glob("checkpoint-*")
    ]


def test_a_training_that_is_asked_to_stop_saves_its_state_first(policy, sft, tmp_path):
    """As a cluster asks that needs the machine. No step is done twice."""
    out = tmp_path / "policy"
    command = ["dpo/1_dpo.py", "--output_dir", out, *TRAINING, "--max_steps", 40]
    command += dpo(sft, sft, policy.with_name("pairs.jsonl"))
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    told = 0
    for line in process.stdout:
        told += "'loss':" in line
        if told == 1:
            process.send_signal(15)
    assert process.wait() == 143 and not out.exists()
    (state,) = tmp_path.glob("policy.partial-*/checkpoint-*/trainer_state.json")
    saved = json.loads(state.read_text())["global_step"]
    assert told == saved < 40
    done = ran(*command)
    assert done.stdout.count("'loss':") == 40 - saved
    assert [entry["step"] for entry in history(out) if "loss" in entry] == [*range(1, 41)]


# eval/2_kl.py


def test_flash_attention_is_used_where_it_is(monkeypatch):
    from types import SimpleNamespace

    import transformers.utils

    from common import training

    chosen = []
    for there, bf16, flag in [
        (True, True, None),
        (True, False, None),
        (False, True, None),
        (True, True, "sdpa"),
    ]:
        monkeypatch.setattr(
            transformers.utils, "is_flash_attn_2_available", lambda there=there: there
        )
        chosen.append(
            training.attention(
                SimpleNamespace(bf16=bf16), SimpleNamespace(attn_implementation=flag)
            )
        )
    assert chosen == ["flash_attention_2", None, None, "sdpa"]


def test_a_model_in_a_warm_cache_needs_no_hub(scored, reward_model, tmp_path):
    """By its name on the hub; one that is not there is told in one line."""
    file, scored, _ = scored
    cache = tmp_path / "models--owner--name"
    shutil.copytree(reward_model, cache / "snapshots/1234")
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text("1234")
    offline = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    ran(*annotation("owner/name", file), "--output_file", tmp_path / "out.jsonl", env=offline)
    assert [row["rewards"] for row in read_jsonl(tmp_path / "out.jsonl")] == [
        row["rewards"] for row in scored
    ]
    done = run(
        *annotation("owner/other", file), "--output_file", tmp_path / "out.jsonl", env=offline
    )
    assert done.returncode == 1 and done.stderr.startswith(
        "owner/other: cannot load a model from it ("
    )
    assert len(done.stderr.splitlines()) == 1


def test_kl_is_the_difference_of_log_probabilities_over_the_answer(policy, sft, world, tmp_path):
    """With EOS, unless the answer was cut off, and a system prompt before the policy's question alone. Nothing depends
    on what shares a batch."""
    prompts = read_jsonl(world / "prompts.jsonl")[:3]
    answers = ["The answer is", "7.", "Well, well. I hope this helps. The answer is red."]
    for row in prompts:
        row |= {"responses": answers, "finish_reasons": ["length", "stop", "stop"], "note": "kept"}
    prompts[1]["system"] = "Be brief."
    file = write_jsonl(tmp_path / "in.jsonl", prompts)

    def kl(of, name, *flags):
        command = ["eval/2_kl.py", "--model_name_or_path", of, "--ref_model_name_or_path", sft]
        ran(*command, "--responses_file", file, "--output_file", tmp_path / name, *flags)
        return [row.pop("kl") for row in read_jsonl(tmp_path / name)], tmp_path / name

    of_policy, out = kl(policy, "policy.jsonl")
    for row, values in zip(read_jsonl(out), of_policy, strict=True):
        for answer, reason, value in zip(answers, row["finish_reasons"], values, strict=True):
            new, old = (
                sum(log_probabilities(model, prompt, answer, reason == "stop"))
                for model, prompt in ((policy, steered(row)), (sft, row["prompt"]))
            )
            assert value == pytest.approx(new - old, abs=1e-3) and abs(value) > 0.01
    assert [{k: v for k, v in row.items() if k != "kl"} for row in read_jsonl(out)] == prompts
    assert kl(policy, "small.jsonl", "--batch_tokens", 32)[0] == [
        pytest.approx(v, abs=1e-4) for v in of_policy
    ]
    assert kl(sft, "same.jsonl")[0][::2] == [[0, 0, 0]] * 2


def test_lora_leaves_whole_models(base, sft, reward_model, policy, world, tmp_path):
    """An adapter would stop vLLM and the next stage: it is merged into the weights it was trained on."""
    lora = "--use_peft --lora_r 4 --lora_target_modules all-linear --max_steps 2 --learning_rate 1e-2".split()
    files = ["--dataset_name", reward_model.with_name("training.jsonl")]
    files += ["--held_out_name", reward_model.with_name("held_out.jsonl")]
    start = ["--model_name_or_path", sft]
    instructions = ["--dataset_name", world / "instructions.jsonl"]
    train("sft/2_finetune.py", tmp_path / "sft", *start, *instructions, "--max_length", 256, *lora)
    train(
        "reward_modeling/2a_bradley_terry.py",
        tmp_path / "rm",
        *start,
        *files,
        "--max_length",
        256,
        *lora,
    )
    train("dpo/1_dpo.py", tmp_path / "dpo", *dpo(sft, sft, policy.with_name("pairs.jsonl")), *lora)
    for name, kind in {
        "sft": AutoModelForCausalLM,
        "rm": AutoModelForSequenceClassification,
        "dpo": None,
    }.items():
        assert not (tmp_path / name / "adapter_config.json").exists()
        before, after = (
            loaded(path, kind or AutoModelForCausalLM)[1].state_dict()
            for path in (sft, tmp_path / name)
        )
        weight = "model.layers.0.self_attn.q_proj.weight"
        assert before.keys() == after.keys() and not torch.equal(before[weight], after[weight])
