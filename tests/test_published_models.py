"""The scripts on published models: other chat templates, ends of a turn, pad tokens and heads.

The models are copies of the tiny model with the template or the files of another family.
"""

import copy
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from commands import ran, read_jsonl, run, write_jsonl
from conftest import TRAINING, train

TEMPLATES = Path(__file__).parent / "chat_templates"
LENGTHS = "--max_length 256 --per_device_train_batch_size 2".split()
ONE_STEP = ["--max_steps", 1, *LENGTHS]
THOUGHT = "One nail. Two brushes.\n</think>\n\nThe answer is two."


def with_template(model, name, path):
    """A copy of a model with another chat template."""
    shutil.copytree(model, path)
    shutil.copy(TEMPLATES / f"{name}.jinja", path / "chat_template.jinja")
    return path


def generation_config(model):
    return json.loads((model / "generation_config.json").read_text())


def pair(name, chosen, rejected):
    return {
        "id": name,
        "prompt": [{"role": "user", "content": "Count these: nail, brush."}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def three_pairs_and_another(world):
    """(training pairs, a list of one held-out pair with another prompt)"""
    pairs = read_jsonl(world / "preferences.jsonl")
    training = pairs[:3]
    training_prompts = [pair["prompt"] for pair in training]
    held_out = next(pair for pair in pairs if pair["prompt"] not in training_prompts)
    return training, [held_out]


def preference_flags(folder, model, training, held_out):
    """Write the pairs; return the flags of a reward or preference model's training."""
    flags = ["--dataset_name", write_jsonl(folder / "pairs.jsonl", training)]
    flags += ["--held_out_name", write_jsonl(folder / "held_out.jsonl", held_out)]
    return [*flags, "--model_name_or_path", model]


def dpo(model, reference, pairs, out, *more):
    names = ["--model_name_or_path", model, "--ref_model_name_or_path", reference]
    flags = ["--dataset_name", pairs, "--output_dir", out, "--max_steps", 1]
    return ["dpo/1_dpo.py", *names, *flags, *LENGTHS, *TRAINING, *more]


# The token that ends a turn


@pytest.fixture(scope="module")
def other_end(base, world, tmp_path_factory):
    """(model, finished process) of a fine-tuning whose template ends turns with [CONTEXT]."""
    folder = tmp_path_factory.mktemp("other_end")
    start = with_template(base, "other_end", folder / "base")
    flags = ["--model_name_or_path", start, "--dataset_name", world / "instructions.jsonl"]
    flags += "--max_steps 40 --learning_rate 2e-3 --packing False".split()
    done = train("sft/2_finetune.py", folder / "sft", *flags, *LENGTHS)
    return folder / "sft", done


def test_a_base_whose_template_ends_turns_otherwise_learns_to_stop(other_end):
    model, done = other_end
    message = "EOS is now [CONTEXT], the chat template's end of a turn; it was <|eos|>\n"
    assert message in done.stdout
    tokenizer = AutoTokenizer.from_pretrained(model)
    end = tokenizer.convert_tokens_to_ids("[CONTEXT]")
    assert tokenizer.eos_token_id == end
    assert generation_config(model)["eos_token_id"] == end
    assert json.loads((model / "config.json").read_text())["eos_token_id"] == end


@pytest.fixture(scope="module")
def sampled(other_end, world, tmp_path_factory):
    """Rows of responses of that model."""
    model, _ = other_end
    folder = tmp_path_factory.mktemp("sampled")
    prompts = write_jsonl(folder / "prompts.jsonl", read_jsonl(world / "prompts.jsonl")[:6])
    out = folder / "responses.jsonl"
    sample(model, prompts, out, "--n", 4, "--max_new_tokens", 80)
    return read_jsonl(out)


def sample(model, prompts, out, *flags):
    command = ["generation/2_responses.py", "--model_name_or_path", model]
    command += ["--prompts_file", prompts, "--output_file", out, "--temperatures", 1.0]
    ran(*command, *flags)


def test_its_responses_end(sampled):
    responses, reasons, ends = [], [], []
    for row in sampled:
        responses += row["responses"]
        reasons += row["finish_reasons"]
        ends += row["end_tokens"]
    assert reasons.count("stop") > len(reasons) / 2
    assert ends == ["[CONTEXT]" if reason == "stop" else "" for reason in reasons]
    assert not any("[CONTEXT]" in response for response in responses)


def log_probability(path, row, response, end):
    """Of a response and of the tokens of `end` after its prompt."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    text = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = prompt_ids + tokenizer(response, add_special_tokens=False)["input_ids"]
    if end:
        ids.append(tokenizer.convert_tokens_to_ids(end))
    return log_probability_of_ids(model, ids, len(prompt_ids))


def log_probability_of_ids(model, ids, prompt_length):
    with torch.inference_mode():
        # (tokens, vocabulary): row i - 1 predicts token i
        log_p = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(log_p[i - 1, ids[i]].item() for i in range(prompt_length, len(ids)))


def with_eos(model, token, path):
    """A copy whose tokenizer has another EOS than its end of a turn, as Gemma's and Phi's."""
    shutil.copytree(model, path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.eos_token = token
    tokenizer.save_pretrained(path)
    return path


def with_noise(model, path):
    shutil.copytree(model, path)
    noisy = AutoModelForCausalLM.from_pretrained(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in noisy.parameters():
            weight += 0.02 * torch.randn_like(weight)
    noisy.save_pretrained(path)
    return path


@pytest.mark.parametrize("recorded", [True, False])
def test_the_kl_counts_the_token_that_ended_a_response(other_end, sampled, tmp_path, recorded):
    """The token that generation recorded or, in others' rows, the template's end of a turn.

    EOS does not count where it is another token.
    """
    model, _ = other_end
    policy = with_eos(model, "<|eos|>", tmp_path / "policy")
    reference = with_noise(policy, tmp_path / "reference")
    rows = copy.deepcopy(sampled[:2])
    if recorded:
        stopped = rows[0]["finish_reasons"].index("stop")
        rows[0]["end_tokens"][stopped] = "<|eos|>"
    ends = [row["end_tokens"] for row in rows]
    if not recorded:
        for row in rows:
            del row["end_tokens"]
    file = write_jsonl(tmp_path / "responses.jsonl", rows)
    out = tmp_path / "kl.jsonl"
    flags = ["--model_name_or_path", policy, "--ref_model_name_or_path", reference]
    ran("eval/2_kl.py", *flags, "--responses_file", file, "--output_file", out)
    for row, end_tokens in zip(read_jsonl(out), ends, strict=True):
        for response, end, kl in zip(row["responses"], end_tokens, row["kl"], strict=True):
            log_p = log_probability(policy, row, response, end)
            log_q = log_probability(reference, row, response, end)
            assert kl == pytest.approx(log_p - log_q, abs=2e-3)


def test_generation_stops_where_the_template_ends_a_turn(other_end, world, tmp_path):
    """Even if neither the tokenizer nor generation_config name that token."""
    model = with_eos(other_end[0], "<|eos|>", tmp_path / "model")
    config = generation_config(model)
    config["eos_token_id"] = AutoTokenizer.from_pretrained(model).eos_token_id
    (model / "generation_config.json").write_text(json.dumps(config))
    prompts = write_jsonl(tmp_path / "prompts.jsonl", read_jsonl(world / "prompts.jsonl")[:4])
    out = tmp_path / "responses.jsonl"
    sample(model, prompts, out, "--n", 2, "--max_new_tokens", 80)
    assert any("[CONTEXT]" in row["end_tokens"] for row in read_jsonl(out))


def test_a_template_that_ends_no_turn_is_refused(base, world, tmp_path):
    start = with_template(base, "no_end", tmp_path / "base")
    names = ["--model_name_or_path", start, "--dataset_name", world / "instructions.jsonl"]
    done = run("sft/2_finetune.py", *names, "--output_dir", tmp_path / "sft", *LENGTHS, *TRAINING)
    assert done.returncode == 1
    assert not (tmp_path / "sft").exists()
    assert done.stderr.splitlines()[-1] == (
        f"{start}: its chat template ends an assistant's turn with no token of its tokenizer: "
        "the model would not learn to stop; give another by --chat_template_path"
    )


# Thoughts


def test_pairs_are_trained_on_with_their_thoughts(sft, tmp_path):
    """Though R1's template removes them: the log-probabilities are those of the thoughts.

    The first loss is ln 2.
    """
    model = with_template(sft, "r1_like", tmp_path / "model")
    rows = [
        pair("thoughts differ", THOUGHT, THOUGHT.replace("Two brushes", "I guess")),
        pair("no thought", "The answer is two.", "The answer is six."),
    ]
    file = write_jsonl(tmp_path / "pairs.jsonl", rows)
    done = ran(*dpo(model, model, file, tmp_path / "policy"))
    counts = "pairs in: 2, dropped, too long: 0, dropped, equal within --max_length: 0, "
    counts += "dropped, thoughts or turns that do not fit the prompt: 1, "
    counts += "cut: 0, trained on: 1, 1 steps"
    assert counts in done.stdout
    state = json.loads((tmp_path / "policy/trainer_state.json").read_text())
    log = state["log_history"][0]
    assert log["loss"] == pytest.approx(math.log(2), abs=1e-4)
    for side in ("chosen", "rejected"):
        text = rows[0][side][0]["content"]
        by_hand = sampled_log_probability(model, rows[0], text)
        assert log[f"logps/{side}"] == pytest.approx(by_hand, abs=1e-2)


def sampled_log_probability(path, row, response):
    """Of a response as it was sampled, with the template's end of the turn and its newline."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path)
    text = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = tokenizer(f"{response}<|eos|>\n", add_special_tokens=False)["input_ids"]
    return log_probability_of_ids(model, prompt_ids + ids, len(prompt_ids))


def test_pairs_without_any_thought_are_refused_where_the_prompt_opens_one(sft, tmp_path):
    model = with_template(sft, "r1_like", tmp_path / "model")
    file = write_jsonl(tmp_path / "pairs.jsonl", [pair("no thought", "Two.", "Six.")])
    done = run(*dpo(model, model, file, tmp_path / "policy"))
    assert done.returncode == 1
    assert not (tmp_path / "policy").exists()
    assert done.stderr.splitlines()[-1] == (
        f"{file}: no pair is left within --max_length 256: dropped, too long: 0, "
        "dropped, equal within --max_length: 0, "
        "dropped, thoughts or turns that do not fit the prompt: 1"
    )


def test_a_thought_that_was_cut_off_is_no_answer_to_a_benchmark(sft, tmp_path):
    """The prompt opens a thought, and two tokens do not end it."""
    model = with_template(sft, "r1_like", tmp_path / "model")
    questions = [{"instruction": "Count these: nail, brush."}, {"instruction": "Say it."}]
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(questions))
    command = ["eval/1_answers.py", "--benchmarks", "alpaca_eval", "--model_name_or_path", model]
    command += ["--questions_files", file]

    def answers(tokens):
        out = tmp_path / f"answers{tokens}.json"
        ran(*command, "--output_files", out, "--max_new_tokens", tokens)
        return [answer["output"] for answer in json.loads(out.read_text())]

    assert answers(2) == ["", ""]
    assert any(answers(60))


# Lengths


def test_pairs_that_are_cut_or_dropped_are_counted(sft, tmp_path):
    long = "word " * 80
    rows = [
        pair("fits", "Two.", "Six."),
        pair("cut", "Two. " + long, "Six. " + long),
        pair("equal where it is cut", long + "Two.", long + "Six."),
        pair("too long", "Two.", "Six."),
    ]
    rows[3]["prompt"][0]["content"] += long
    file = write_jsonl(tmp_path / "pairs.jsonl", rows)
    done = ran(*dpo(sft, sft, file, tmp_path / "policy", "--max_length", 64))
    counts = "policy pairs in: 4, dropped, too long: 1, dropped, equal within --max_length: 1, "
    counts += "dropped, thoughts or turns that do not fit the prompt: 0, "
    counts += "cut: 1, trained on: 2, 1 steps\n"
    assert counts in done.stdout


def conversation(name, words, answer):
    question = {"role": "user", "content": "word " * words + "What is 1 plus 1?"}
    return {"id": name, "messages": [question, {"role": "assistant", "content": answer}]}


@pytest.mark.parametrize("packing", [True, False])
def test_conversations_that_are_cut_or_dropped_are_counted(base, tmp_path, packing):
    rows = [
        conversation("fits", 0, "It is 2."),
        conversation("loses its end", 0, "It is " + "word " * 80),
        conversation("loses its answer", 80, "It is 2."),
    ]
    file = write_jsonl(tmp_path / "instructions.jsonl", rows)
    names = ["--model_name_or_path", base, "--dataset_name", file, "--output_dir", tmp_path / "sft"]
    flags = ["--max_length", 64, "--max_steps", 1, "--per_device_train_batch_size", 1]
    done = ran("sft/2_finetune.py", *names, *flags, "--packing", packing, *TRAINING)
    counts = "sft rows in: 3, dropped, no answer within --max_length: 1, "
    counts += "dropped, rewritten by the chat template: 0, cut: 1, rows out: 2; "
    counts += "turns without loss, rewritten by the chat template: 0\n"
    assert counts in done.stdout


def test_a_training_on_nothing_is_refused(base, tmp_path):
    row = conversation("loses its answer", 80, "It is 2.")
    file = write_jsonl(tmp_path / "instructions.jsonl", [row])
    names = ["--model_name_or_path", base, "--dataset_name", file, "--output_dir", tmp_path / "sft"]
    done = run("sft/2_finetune.py", *names, "--max_length", 64, *TRAINING)
    assert done.returncode == 1
    assert not (tmp_path / "sft").exists()
    assert done.stderr.splitlines()[-1] == (
        f"{file}: nothing to learn: in 1 rows no answer of the assistant stands within "
        "--max_length 64, in 0 the chat template rewrites it"
    )


# Reward models


def test_a_pad_token_that_ends_a_chat_gets_another_in_training_and_is_refused_in_scoring(
    sft, world, tmp_path
):
    """The score would be read at the token before it."""
    # With this template a chat ends with the end of its last turn.
    start = with_template(sft, "mistral_like", tmp_path / "start")
    tokenizer = AutoTokenizer.from_pretrained(start)
    tokenizer.pad_token = "<|eos|>"
    tokenizer.eos_token = "<|bos|>"
    tokenizer.chat_template = tokenizer.chat_template.replace("eos_token", "'<|eos|>'")
    tokenizer.save_pretrained(start)
    pairs = read_jsonl(world / "preferences.jsonl")
    held_out = [row for row in pairs if row["prompt"] == pairs[0]["prompt"]]
    training = [row for row in pairs if row["prompt"] != pairs[0]["prompt"]][:8]
    model = tmp_path / "model"
    flags = preference_flags(tmp_path, start, training, held_out)
    done = train("reward_modeling/2a_bradley_terry.py", model, *flags, *ONE_STEP)
    assert AutoTokenizer.from_pretrained(model).pad_token == "[PAD]"
    assert f"{tmp_path}/pairs.jsonl rows in: 8, dropped, too long: 0, rows out: 8\n" in done.stdout

    tokenizer.save_pretrained(model)
    refusal = f"{model}: its tokenizer needs a pad token that does not end a chat"
    prompt = {"id": "1", "prompt": training[0]["prompt"]}
    row = {**prompt, "responses": ["Two."], "finish_reasons": ["stop"]}
    file = write_jsonl(tmp_path / "responses.jsonl", [row])
    scoring = ["annotation/1a_reward_model.py", "--model_name_or_path", model]
    scoring += ["--responses_file", file, "--output_file", tmp_path / "out.jsonl"]
    rloo = ["dpo/1c_rloo.py", "--model_name_or_path", sft, "--reward_model_name_or_path", model]
    rloo += ["--dataset_name", file, "--output_dir", tmp_path / "policy", *TRAINING]
    for command in (scoring, rloo):
        done = run(*command)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == refusal


def test_pairs_that_are_too_long_for_a_reward_model_are_counted(sft, world, tmp_path):
    pairs, held_out = three_pairs_and_another(world)
    pairs[1]["chosen"][0]["content"] = "word " * 300
    flags = preference_flags(tmp_path, sft, pairs, held_out)
    model = tmp_path / "model"
    done = train("reward_modeling/2a_bradley_terry.py", model, *flags, *ONE_STEP)
    assert f"{tmp_path}/pairs.jsonl rows in: 3, dropped, too long: 1, rows out: 2\n" in done.stdout


# Preference models


def test_a_preference_model_is_read_where_it_was_trained(sft, world, tmp_path):
    """Qwen3's template puts an empty thought before the answer: A or B comes after it."""
    start = with_template(sft, "qwen3_like", tmp_path / "start")
    pair = read_jsonl(world / "preferences.jsonl")[0]
    texts = [pair["chosen"][0]["content"], pair["rejected"][0]["content"]]
    row = {"id": "1", "prompt": pair["prompt"], "responses": texts}
    row["finish_reasons"] = ["stop"] * 2
    file = write_jsonl(tmp_path / "responses.jsonl", [row])
    out = tmp_path / "out.jsonl"
    flags = ["--model_name_or_path", start, "--responses_file", file, "--output_file", out]
    ran("annotation/1b_preference_model.py", *flags)
    tokenizer = AutoTokenizer.from_pretrained(start)
    model = AutoModelForCausalLM.from_pretrained(start).eval()
    letters = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "AB"]
    turns = "".join(f"\n<turn> {turn['role']}\n {turn['content']}" for turn in row["prompt"])
    # P(A) of both orders
    probabilities = []
    for a, b in (texts, texts[::-1]):
        question = f"[CONTEXT] \n{turns}\n [RESPONSE A] {a} [RESPONSE B] {b} \n"
        chat = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        text = text.removeprefix(tokenizer.bos_token) + "<think>\n\n</think>\n\n"
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logits = model(ids).logits[0, -1, letters]
        probabilities.append(logits.softmax(-1)[0].item())
    in_order, in_reverse = probabilities
    by_hand = (in_order + 1 - in_reverse) / 2
    (judged,) = read_jsonl(out)
    assert judged["judgement"][0]["probability"] == pytest.approx(by_hand, abs=1e-4)


# What comes with a model


def test_a_generation_config_that_could_not_be_saved_is_mended(sft, tmp_path):
    """Sampling parameters with greedy decoding, as in old Llama 2 and Vicuna, cannot be saved."""
    model = tmp_path / "model"
    shutil.copytree(sft, model)
    config = {**generation_config(model), "temperature": 0.9, "top_p": 0.6}
    (model / "generation_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError):
        GenerationConfig.from_pretrained(model).save_pretrained(tmp_path)
    file = write_jsonl(tmp_path / "pairs.jsonl", [pair("1", "Two.", "Six.")])
    ran(*dpo(model, model, file, tmp_path / "policy"))
    saved = generation_config(tmp_path / "policy")
    assert saved["do_sample"] is True
    assert saved["temperature"] == 0.9
    assert saved["top_p"] == 0.6


def test_template_arguments_reach_generation_training_and_the_kl(sft, world, tmp_path):
    """They are saved with the model, which then gets the prompts of its training."""
    model = with_template(sft, "qwen3_like", tmp_path / "model")
    without_thinking = ["--chat_template_kwargs", '{"enable_thinking": false}']
    prompts = write_jsonl(tmp_path / "prompts.jsonl", read_jsonl(world / "prompts.jsonl")[:2])

    def prompt_tokens(*flags):
        out = tmp_path / f"responses{len(flags)}.jsonl"
        sample(model, prompts, out, "--n", 1, "--max_new_tokens", 8, *flags)
        return read_jsonl(out)[0]["prompt_tokens"]

    tokenizer = AutoTokenizer.from_pretrained(model)
    empty_thought = tokenizer("<think>\n\n</think>\n\n", add_special_tokens=False)["input_ids"]
    assert prompt_tokens(*without_thinking) == prompt_tokens() + len(empty_thought)

    file = write_jsonl(tmp_path / "pairs.jsonl", [pair("1", "Two.", "Six.")])
    ran(*dpo(model, model, file, tmp_path / "policy", *without_thinking))
    trained = AutoTokenizer.from_pretrained(tmp_path / "policy")
    chat = [{"role": "user", "content": "question"}]
    text = trained.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<think>\n\n</think>\n\n")
    unknown = ["--chat_template_kwargs", '{"thinking": true}']
    done = run(*dpo(model, model, file, tmp_path / "other", *unknown))
    assert done.returncode == 1
    reason = f"thinking: the chat template of {model} does not read it"
    assert done.stderr.splitlines()[-1] == f"--chat_template_kwargs: {reason}"


# Weights that a checkpoint lacks


@pytest.fixture(scope="module")
def value_head(reward_model, tmp_path_factory):
    """A reward model whose head has another name, as some are published."""
    path = tmp_path_factory.mktemp("value_head") / "model"
    shutil.copytree(reward_model, path)
    weights = load_file(path / "model.safetensors")
    weights["value_head.weight"] = weights.pop("score.weight")
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path


def test_a_reward_model_with_a_head_of_another_name_is_refused(value_head, sft, world, tmp_path):
    row = {
        "id": "1",
        "prompt": [{"role": "user", "content": "Count: nail."}],
        "responses": ["One.", "Two."],
        "finish_reasons": ["stop"] * 2,
        "rewards": [1.0, 0.0],
    }
    file = write_jsonl(tmp_path / "rows.jsonl", [row])
    out = tmp_path / "out"
    model = ["--model_name_or_path", value_head, "--output_file", out]
    rloo = ["--model_name_or_path", sft, "--reward_model_name_or_path", value_head]
    rloo += ["--dataset_name", file, "--output_dir", out, *TRAINING]
    reason = "cannot load a model from it (weights are missing: score.weight)"
    for command in (
        ["annotation/1a_reward_model.py", *model, "--responses_file", file],
        ["annotation/2d_uncertain_pairs.py", *model, "--rewards_file", file],
        ["dpo/1c_rloo.py", *rloo],
    ):
        done = run(*command)
        assert done.returncode == 1
        assert not out.exists()
        assert done.stderr.splitlines()[-1] == f"{value_head}: {reason}"


def test_a_language_model_of_an_untied_reward_model_is_refused(reward_model, world, tmp_path):
    """A reward model has no language-model head: a preference model would get a random head."""
    untied = tmp_path / "untied"
    shutil.copytree(reward_model, untied)
    config = json.loads((untied / "config.json").read_text())
    (untied / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    pairs, held_out = three_pairs_and_another(world)
    flags = preference_flags(tmp_path, untied, pairs, held_out)
    flags += ["--output_dir", tmp_path / "model", *TRAINING]
    done = run("reward_modeling/2b_preference_model.py", *flags)
    assert done.returncode == 1
    assert not (tmp_path / "model").exists()
    reason = "cannot load a model from it (weights are missing: lm_head.weight)"
    assert done.stderr.splitlines()[-1] == f"{untied}: {reason}"
