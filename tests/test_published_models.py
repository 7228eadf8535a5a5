"""The scripts on models as they are published: other chat templates, ends of a turn, pads and heads.

The models are copies of a tiny one with the template or the files of another family.
"""

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
THOUGHT = "One nail. Two brushes.\n</think>\n\nThe answer is two."


def with_template(model, name, copy):
    """A copy of a model with another chat template."""
    shutil.copytree(model, copy)
    shutil.copy(TEMPLATES / f"{name}.jinja", copy / "chat_template.jinja")
    return copy


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
    """Training pairs, and a held-out one with another prompt."""
    pairs = read_jsonl(world / "preferences.jsonl")
    return pairs[:3], [
        row for row in pairs if row["prompt"] not in [pair["prompt"] for pair in pairs[:3]]
    ][:1]


def dpo(model, reference, pairs, out, *more):
    names = ["--model_name_or_path", model, "--ref_model_name_or_path", reference]
    flags = ["--dataset_name", pairs, "--output_dir", out, "--max_steps", 1]
    return ["dpo/1_dpo.py", *names, *flags, *LENGTHS, *TRAINING, *more]


# The token that ends a turn


@pytest.fixture(scope="module")
def other_end(base, world, tmp_path_factory):
    """A model that is fine-tuned from a base whose template ends turns with [CONTEXT], not with EOS: (model, run)."""
    folder = tmp_path_factory.mktemp("other_end")
    start = with_template(base, "other_end", folder / "base")
    flags = "--max_steps 40 --learning_rate 2e-3 --packing False".split()
    done = train(
        "sft/2_finetune.py",
        folder / "sft",
        "--model_name_or_path",
        start,
        "--dataset_name",
        world / "instructions.jsonl",
        *flags,
        *LENGTHS,
    )
    return folder / "sft", done


def test_a_base_whose_template_ends_turns_otherwise_learns_to_stop(other_end):
    model, done = other_end
    assert (
        "EOS is now [CONTEXT], the chat template's end of a turn; it was <|eos|>\n" in done.stdout
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    end = tokenizer.convert_tokens_to_ids("[CONTEXT]")
    assert tokenizer.eos_token_id == end == generation_config(model)["eos_token_id"]
    assert json.loads((model / "config.json").read_text())["eos_token_id"] == end


@pytest.fixture(scope="module")
def sampled(other_end, world, tmp_path_factory):
    """Responses of that model: (file, rows, what was printed)."""
    folder = tmp_path_factory.mktemp("sampled")
    prompts = write_jsonl(folder / "prompts.jsonl", read_jsonl(world / "prompts.jsonl")[:6])
    flags = "--n 4 --temperatures 1.0 --max_new_tokens 80".split()
    done = ran(
        "generation/2_responses.py",
        *("--model_name_or_path", other_end[0], "--prompts_file", prompts),
        *("--output_file", folder / "responses.jsonl", *flags),
    )
    return folder / "responses.jsonl", read_jsonl(folder / "responses.jsonl"), done


def test_its_responses_end(sampled):
    _, rows, _ = sampled
    reasons = [reason for row in rows for reason in row["finish_reasons"]]
    ends = [token for row in rows for token in row["end_tokens"]]
    assert reasons.count("stop") > len(reasons) / 2
    assert ends == ["[CONTEXT]" if reason == "stop" else "" for reason in reasons]
    assert not any("[CONTEXT]" in response for row in rows for response in row["responses"])


def log_probability(path, row, response, end):
    tokenizer, model = (
        AutoTokenizer.from_pretrained(path),
        AutoModelForCausalLM.from_pretrained(path).eval(),
    )
    text = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    answer = tokenizer(response, add_special_tokens=False)["input_ids"]
    if end:
        answer.append(tokenizer.convert_tokens_to_ids(end))
    ids = prompt + answer
    with torch.inference_mode():
        of_next = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(of_next[place - 1, ids[place]].item() for place in range(len(prompt), len(ids)))


def with_eos(model, token, copy):
    """A copy whose tokenizer has another EOS than the token that ends its turns, as Gemma's and Phi's have."""
    shutil.copytree(model, copy)
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.eos_token = token
    tokenizer.save_pretrained(copy)
    return copy


def with_noise(model, copy):
    shutil.copytree(model, copy)
    noisy = AutoModelForCausalLM.from_pretrained(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in noisy.parameters():
            weight += 0.02 * torch.randn_like(weight)
    noisy.save_pretrained(copy)
    return copy


@pytest.mark.parametrize("recorded", [True, False])
def test_the_kl_counts_the_token_that_ended_a_response(other_end, sampled, tmp_path, recorded):
    """The one that generation recorded or, in rows of others, the template's; never EOS where that is another."""
    policy = with_eos(other_end[0], "<|eos|>", tmp_path / "policy")
    reference = with_noise(policy, tmp_path / "reference")
    rows = sampled[1][:2]
    ends = [[token for token in row["end_tokens"]] for row in rows]
    if recorded:
        stopped = rows[0]["finish_reasons"].index("stop")
        ends[0][stopped] = "<|eos|>"
        rows = [{**row, "end_tokens": tokens} for row, tokens in zip(rows, ends, strict=True)]
    else:
        rows = [{key: value for key, value in row.items() if key != "end_tokens"} for row in rows]
    file = write_jsonl(tmp_path / "responses.jsonl", rows)
    ran(
        "eval/2_kl.py",
        *("--model_name_or_path", policy, "--ref_model_name_or_path", reference),
        *("--responses_file", file, "--output_file", tmp_path / "kl.jsonl"),
    )
    for row, tokens in zip(read_jsonl(tmp_path / "kl.jsonl"), ends, strict=True):
        for response, token, kl in zip(row["responses"], tokens, row["kl"], strict=True):
            p, q = (log_probability(path, row, response, token) for path in (policy, reference))
            assert kl == pytest.approx(p - q, abs=2e-3)


def test_generation_stops_where_the_template_ends_a_turn(other_end, world, tmp_path):
    """Though neither the tokenizer nor generation_config name that token."""
    model = with_eos(other_end[0], "<|eos|>", tmp_path / "model")
    config = generation_config(model)
    config["eos_token_id"] = AutoTokenizer.from_pretrained(model).eos_token_id
    (model / "generation_config.json").write_text(json.dumps(config))
    prompts = write_jsonl(tmp_path / "prompts.jsonl", read_jsonl(world / "prompts.jsonl")[:4])
    ran(
        "generation/2_responses.py",
        *("--model_name_or_path", model, "--prompts_file", prompts, "--max_new_tokens", 80),
        *("--output_file", tmp_path / "responses.jsonl", "--n", 2, "--temperatures", 1.0),
    )
    rows = read_jsonl(tmp_path / "responses.jsonl")
    assert "[CONTEXT]" in [token for row in rows for token in row["end_tokens"]]


def test_a_template_that_ends_no_turn_is_refused(base, world, tmp_path):
    start = with_template(base, "no_end", tmp_path / "base")
    names = ["--model_name_or_path", start, "--dataset_name", world / "instructions.jsonl"]
    done = run("sft/2_finetune.py", *names, "--output_dir", tmp_path / "sft", *LENGTHS, *TRAINING)
    assert done.returncode == 1 and not (tmp_path / "sft").exists()
    assert done.stderr.splitlines()[-1] == (
        f"{start}: its chat template ends an assistant's turn with no token of its tokenizer: the model would not "
        "learn to stop; give another by --chat_template_path"
    )


# Thoughts


def test_pairs_are_trained_on_with_their_thoughts(sft, tmp_path):
    """R1's template takes thoughts out: first losses are ln 2, and the margin that follows is that of the thoughts."""
    model = with_template(sft, "r1_like", tmp_path / "model")
    rows = [
        pair("thoughts differ", THOUGHT, THOUGHT.replace("Two brushes", "I guess")),
        pair("no thought", "The answer is two.", "The answer is six."),
    ]
    file = write_jsonl(tmp_path / "pairs.jsonl", rows)
    done = ran(*dpo(model, model, file, tmp_path / "policy"))
    counted = "pairs in: 2, dropped, too long: 0, dropped, equal within --max_length: 0, "
    assert (
        f"{counted}dropped, thoughts that do not fit the prompt: 1, cut: 0, trained on: 1, 1 steps"
        in done.stdout
    )
    state = json.loads((tmp_path / "policy/trainer_state.json").read_text())["log_history"][0]
    assert state["loss"] == pytest.approx(math.log(2), abs=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(model)
    for side in ("chosen", "rejected"):
        text = rows[0][side][0]["content"]
        assert state[f"logps/{side}"] == pytest.approx(
            sampled_log_probability(model, tokenizer, rows[0], text), abs=1e-2
        )


def sampled_log_probability(model, tokenizer, row, response):
    """Of a response behind its prompt, with the end of the turn and the newline that the template writes."""
    prompt = tokenizer.apply_chat_template(
        row["prompt"], tokenize=False, add_generation_prompt=True
    )
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = before + tokenizer(f"{response}<|eos|>\n", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        of_next = (
            AutoModelForCausalLM.from_pretrained(model)(torch.tensor([ids]))
            .logits[0]
            .log_softmax(-1)
        )
    return sum(of_next[place - 1, ids[place]].item() for place in range(len(before), len(ids)))


def test_pairs_without_any_thought_are_refused_where_the_prompt_opens_one(sft, tmp_path):
    model = with_template(sft, "r1_like", tmp_path / "model")
    file = write_jsonl(tmp_path / "pairs.jsonl", [pair("no thought", "Two.", "Six.")])
    done = run(*dpo(model, model, file, tmp_path / "policy"))
    assert done.returncode == 1 and not (tmp_path / "policy").exists()
    assert done.stderr.splitlines()[-1] == (
        f"{file}: no pair is left within --max_length 256: prompts that leave no room: 0, responses that do "
        "not differ there: 0, thoughts that do not fit the prompt: 1"
    )


def test_a_thought_that_was_cut_off_is_no_answer_to_a_benchmark(sft, tmp_path):
    """The prompt opens it, and two tokens do not end it."""
    model = with_template(sft, "r1_like", tmp_path / "model")
    questions = tmp_path / "questions.json"
    questions.write_text(
        json.dumps([{"instruction": "Count these: nail, brush."}, {"instruction": "Say it."}])
    )
    answers = []
    for tokens in (2, 60):
        out = tmp_path / f"answers{tokens}.json"
        names = [
            "--model_name_or_path",
            model,
            "--questions_files",
            questions,
            "--output_files",
            out,
        ]
        ran("eval/1_answers.py", "--benchmarks", "alpaca_eval", *names, "--max_new_tokens", tokens)
        answers.append([answer["output"] for answer in json.loads(out.read_text())])
    assert answers[0] == ["", ""] and any(answers[1])


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
    assert (
        "policy pairs in: 4, dropped, too long: 1, dropped, equal within --max_length: 1, dropped, thoughts that do "
        "not fit the prompt: 0, cut: 1, trained on: 2, 1 steps\n" in done.stdout
    )


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
    flags = [
        "--max_length",
        64,
        "--max_steps",
        1,
        "--packing",
        packing,
        "--per_device_train_batch_size",
        1,
    ]
    done = ran("sft/2_finetune.py", *names, *flags, *TRAINING)
    assert (
        "sft rows in: 3, dropped, no answer within --max_length: 1, dropped, rewritten by the chat template: 0, "
        "cut: 1, rows out: 2; turns without loss, rewritten by the chat template: 0\n"
        in done.stdout
    )


def test_a_training_on_nothing_is_refused(base, tmp_path):
    file = write_jsonl(
        tmp_path / "instructions.jsonl", [conversation("loses its answer", 80, "It is 2.")]
    )
    names = ["--model_name_or_path", base, "--dataset_name", file, "--output_dir", tmp_path / "sft"]
    done = run("sft/2_finetune.py", *names, "--max_length", 64, *TRAINING)
    assert done.returncode == 1 and not (tmp_path / "sft").exists()
    assert done.stderr.splitlines()[-1] == (
        f"{file}: nothing to learn: in 1 rows no answer of the assistant stands within --max_length 64, in 0 the "
        "chat template rewrites it"
    )


# Reward models


def test_a_pad_token_that_ends_a_chat_gets_another_in_training_and_is_refused_in_scoring(
    sft, world, tmp_path
):
    """The score would be read at the token before it."""
    start = with_template(
        sft, "mistral_like", tmp_path / "start"
    )  # a chat ends with the token that ends its last turn
    tokenizer = AutoTokenizer.from_pretrained(start)
    tokenizer.pad_token, tokenizer.eos_token = "<|eos|>", "<|bos|>"
    tokenizer.chat_template = tokenizer.chat_template.replace("eos_token", "'<|eos|>'")
    tokenizer.save_pretrained(start)
    pairs = read_jsonl(world / "preferences.jsonl")
    held_out = [row for row in pairs if row["prompt"] == pairs[0]["prompt"]]
    rest = [row for row in pairs if row["prompt"] != pairs[0]["prompt"]][:8]
    names = ["--dataset_name", write_jsonl(tmp_path / "pairs.jsonl", rest)]
    names += [
        "--held_out_name",
        write_jsonl(tmp_path / "held_out.jsonl", held_out),
        "--model_name_or_path",
        start,
    ]
    done = train(
        "reward_modeling/2a_bradley_terry.py",
        tmp_path / "model",
        *names,
        "--max_steps",
        1,
        *LENGTHS,
    )
    assert AutoTokenizer.from_pretrained(tmp_path / "model").pad_token == "[PAD]"
    assert f"{tmp_path}/pairs.jsonl rows in: 8, dropped, too long: 0, rows out: 8\n" in done.stdout

    tokenizer.save_pretrained(tmp_path / "model")
    row = {
        "id": "1",
        "prompt": rest[0]["prompt"],
        "responses": ["Two."],
        "finish_reasons": ["stop"],
    }
    file = write_jsonl(tmp_path / "responses.jsonl", [row])
    refusal = f"{tmp_path}/model: its tokenizer needs a pad token that does not end a chat"
    scoring = [
        "annotation/1a_reward_model.py",
        "--responses_file",
        file,
        "--output_file",
        tmp_path / "out.jsonl",
    ]
    done = run(*scoring, "--model_name_or_path", tmp_path / "model")
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == refusal
    names = [
        "--model_name_or_path",
        sft,
        "--dataset_name",
        write_jsonl(tmp_path / "prompts.jsonl", [row]),
    ]
    names += [
        "--reward_model_name_or_path",
        tmp_path / "model",
        "--output_dir",
        tmp_path / "policy",
    ]
    done = run("dpo/1c_rloo.py", *names, *TRAINING)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == refusal


def test_pairs_that_are_too_long_for_a_reward_model_are_counted(sft, world, tmp_path):
    pairs, held_out = three_pairs_and_another(world)
    pairs[1]["chosen"][0]["content"] = "word " * 300
    names = [
        "--dataset_name",
        write_jsonl(tmp_path / "pairs.jsonl", pairs),
        "--model_name_or_path",
        sft,
    ]
    names += ["--held_out_name", write_jsonl(tmp_path / "held_out.jsonl", held_out)]
    done = train(
        "reward_modeling/2a_bradley_terry.py",
        tmp_path / "model",
        *names,
        "--max_steps",
        1,
        *LENGTHS,
    )
    assert f"{tmp_path}/pairs.jsonl rows in: 3, dropped, too long: 1, rows out: 2\n" in done.stdout


# Preference models


def test_a_preference_model_is_read_where_it_was_trained(sft, world, tmp_path):
    """Qwen3's template puts an empty thought before the answer: A or B is the token behind it, not before."""
    start = with_template(sft, "qwen3_like", tmp_path / "start")
    row = read_jsonl(world / "preferences.jsonl")[0]
    texts = [row["chosen"][0]["content"], row["rejected"][0]["content"]]
    asked = {"id": "1", "prompt": row["prompt"], "responses": texts, "finish_reasons": ["stop"] * 2}
    file = write_jsonl(tmp_path / "responses.jsonl", [asked])
    ran(
        "annotation/1b_preference_model.py",
        *(
            "--model_name_or_path",
            start,
            "--responses_file",
            file,
            "--output_file",
            tmp_path / "out.jsonl",
        ),
    )
    tokenizer, model = (
        AutoTokenizer.from_pretrained(start),
        AutoModelForCausalLM.from_pretrained(start).eval(),
    )
    turns = "".join(f"\n<turn> {turn['role']}\n {turn['content']}" for turn in row["prompt"])
    probabilities = []
    for a, b in (texts, texts[::-1]):
        question = f"[CONTEXT] \n{turns}\n [RESPONSE A] {a} [RESPONSE B] {b} \n"
        chat = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        text = text.removeprefix(tokenizer.bos_token) + "<think>\n\n</think>\n\n"
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        letters = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "AB"]
        with torch.inference_mode():
            probabilities.append(model(ids).logits[0, -1, letters].softmax(-1)[0].item())
    by_hand = (probabilities[0] + 1 - probabilities[1]) / 2
    (judged,) = read_jsonl(tmp_path / "out.jsonl")
    assert judged["judgement"][0]["probability"] == pytest.approx(by_hand, abs=1e-4)


# What comes with a model


def test_a_generation_config_that_could_not_be_saved_is_mended(sft, tmp_path):
    """Sampling parameters beside greedy decoding, as in old Llama 2 and Vicuna, stopped the first checkpoint."""
    model = tmp_path / "model"
    shutil.copytree(sft, model)
    config = {**generation_config(model), "temperature": 0.9, "top_p": 0.6}
    (model / "generation_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError):
        GenerationConfig.from_pretrained(model).save_pretrained(tmp_path)
    file = write_jsonl(tmp_path / "pairs.jsonl", [pair("1", "Two.", "Six.")])
    ran(*dpo(model, model, file, tmp_path / "policy"))
    saved = generation_config(tmp_path / "policy")
    assert saved["do_sample"] is True and saved["temperature"] == 0.9 and saved["top_p"] == 0.6


def test_template_arguments_reach_generation_training_and_the_kl(sft, world, tmp_path):
    """And are saved with the model, so that it is asked as it was trained."""
    model = with_template(sft, "qwen3_like", tmp_path / "model")
    thoughtless = ["--chat_template_kwargs", '{"enable_thinking": false}']
    prompts = write_jsonl(tmp_path / "prompts.jsonl", read_jsonl(world / "prompts.jsonl")[:2])
    lengths = []
    for flags in ([], thoughtless):
        out = tmp_path / f"responses{len(flags)}.jsonl"
        ran(
            "generation/2_responses.py",
            *("--model_name_or_path", model, "--prompts_file", prompts, "--output_file", out),
            *("--n", 1, "--temperatures", 1.0, "--max_new_tokens", 8, *flags),
        )
        lengths.append(read_jsonl(out)[0]["prompt_tokens"])
    tokenizer = AutoTokenizer.from_pretrained(model)
    empty_thought = tokenizer("<think>\n\n</think>\n\n", add_special_tokens=False)["input_ids"]
    assert lengths[1] == lengths[0] + len(empty_thought)

    file = write_jsonl(tmp_path / "pairs.jsonl", [pair("1", "Two.", "Six.")])
    ran(*dpo(model, model, file, tmp_path / "policy", *thoughtless))
    trained = AutoTokenizer.from_pretrained(tmp_path / "policy")
    chat = [{"role": "user", "content": "question"}]
    text = trained.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<think>\n\n</think>\n\n")
    done = run(
        *dpo(model, model, file, tmp_path / "other", "--chat_template_kwargs", '{"thinking": true}')
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"--chat_template_kwargs: thinking: the chat template of {model} does not read it"
    )


# Weights that a checkpoint lacks


@pytest.fixture(scope="module")
def value_head(reward_model, tmp_path_factory):
    """A reward model whose head has another name, as some are published."""
    copy = tmp_path_factory.mktemp("value_head") / "model"
    shutil.copytree(reward_model, copy)
    weights = load_file(copy / "model.safetensors")
    weights["value_head.weight"] = weights.pop("score.weight")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def test_a_reward_model_with_a_head_of_another_name_is_refused(value_head, sft, world, tmp_path):
    row = {
        "id": "1",
        "prompt": [{"role": "user", "content": "Count: nail."}],
        "responses": ["One.", "Two."],
    }
    row |= {"finish_reasons": ["stop"] * 2, "rewards": [1.0, 0.0]}
    file, out = write_jsonl(tmp_path / "rows.jsonl", [row]), tmp_path / "out"
    policy = ["--model_name_or_path", sft, "--reward_model_name_or_path", value_head]
    for command in (
        [
            "annotation/1a_reward_model.py",
            "--model_name_or_path",
            value_head,
            "--responses_file",
            file,
            "--output_file",
        ],
        [
            "annotation/2d_uncertain_pairs.py",
            "--model_name_or_path",
            value_head,
            "--rewards_file",
            file,
            "--output_file",
        ],
        ["dpo/1c_rloo.py", *policy, "--dataset_name", file, *TRAINING, "--output_dir"],
    ):
        done = run(*command, out)
        assert done.returncode == 1 and not out.exists()
        reason = "cannot load a model from it (weights are missing: score.weight)"
        assert done.stderr.splitlines()[-1] == f"{value_head}: {reason}"


def test_a_language_model_of_an_untied_reward_model_is_refused(reward_model, world, tmp_path):
    """A reward model keeps no head of the language model: a preference model would get one at random."""
    untied = tmp_path / "untied"
    shutil.copytree(reward_model, untied)
    config = json.loads((untied / "config.json").read_text())
    (untied / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    pairs, held_out = three_pairs_and_another(world)
    names = [
        "--dataset_name",
        write_jsonl(tmp_path / "pairs.jsonl", pairs),
        "--model_name_or_path",
        untied,
    ]
    names += ["--held_out_name", write_jsonl(tmp_path / "held_out.jsonl", held_out)]
    done = run(
        "reward_modeling/2b_preference_model.py",
        *names,
        "--output_dir",
        tmp_path / "model",
        *TRAINING,
    )
    assert done.returncode == 1 and not (tmp_path / "model").exists()
    reason = "cannot load a model from it (weights are missing: lm_head.weight)"
    assert done.stderr.splitlines()[-1] == f"{untied}: {reason}"
