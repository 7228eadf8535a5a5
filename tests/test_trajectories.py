"""Responses of several turns: what the templates make of them, and which tokens the loss counts."""

import importlib
import itertools
import json
import runpy
import shutil
from statistics import fmean
from types import SimpleNamespace

import pytest

from commands import ROOT, ran, read_jsonl, run, write_jsonl
from common import chats, models, response_tokens, trajectories
from test_chats import QUESTION, learned, tokenizer_of
from test_models import loaded, log_probabilities, score
from test_optimisers import BETA, first_loss, log_sigmoid, sigmoid

PROGRAM = "I compute it.\n```python\nprint(3 + 4)\n```"
ANSWER = "The answer is 7."
TRAJECTORY = [
    {"role": "assistant", "content": PROGRAM},
    {"role": "tool", "content": "7"},
    {"role": "assistant", "content": ANSWER},
]
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 3, "b": 4}}\n</tool_call>'
CALLED = [
    {"role": "assistant", "content": CALL},
    {"role": "tool", "name": "add", "content": "7"},
    {"role": "assistant", "content": ANSWER},
]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


def encoded(tokenizer, messages, **options):
    end = chats.turn_end(tokenizer)
    return response_tokens.encode(tokenizer, end, [QUESTION], messages, "FILE:1", **options)


def counted(tokenizer, encoded):
    """The texts of the runs of tokens that the loss counts."""
    texts, ids = [], []
    for token_id, counts in [*zip(encoded.response_ids, encoded.mask, strict=True), (0, 0)]:
        if counts:
            ids.append(token_id)
        elif ids:
            texts.append(tokenizer.decode(ids))
            ids = []
    return texts


@pytest.mark.parametrize("name", ["llama3", "qwen2_5", "gemma", "phi3", "gemma_like", "other_end"])
def test_the_loss_counts_the_assistants_turns_and_what_ends_them(name):
    """Outputs are user's turns, with the prompt's part of the assistant's next turn."""
    tokenizer = tokenizer_of(name)
    end = chats.turn_end(tokenizer)
    whole = encoded(tokenizer, TRAJECTORY)
    assert counted(tokenizer, whole) == [PROGRAM + end.text, ANSWER + end.closing]
    assert whole.left_out == 0
    shown = [
        QUESTION,
        {"role": "assistant", "content": PROGRAM},
        {"role": "user", "content": "```output\n7\n```"},
        {"role": "assistant", "content": ANSWER},
    ]
    text = models.render(tokenizer, shown, "FILE:1")
    # Phi-3 writes EOS after the chat.
    assert text.startswith(tokenizer.decode(whole.prompt_ids + whole.response_ids))
    everything = encoded(tokenizer, TRAJECTORY, assistant_only=False)
    assert everything.response_ids == whole.response_ids
    assert set(everything.mask) == {1}


def test_calls_and_their_results_stand_as_the_template_writes_tools():
    for name in ("qwen2_5", "qwen3"):
        tokenizer = tokenizer_of(name)
        whole = encoded(tokenizer, CALLED, tools=TOOLS)
        assert '"name": "add"' in tokenizer.decode(whole.prompt_ids)
        assert "<tool_response>\n7\n</tool_response>" in tokenizer.decode(whole.response_ids)
        first, last = counted(tokenizer, whole)
        assert first == f"{CALL}<|im_end|>"
        # Qwen3 writes an empty thought before the last answer.
        assert last.removeprefix("<think>\n\n</think>\n\n") == f"{ANSWER}<|im_end|>\n"


def test_a_single_turn_is_the_response_of_other_stages():
    """H = 1: prompt and response are those of the pairs of single turns, and all tokens count."""
    tokenizer = tokenizer_of("llama3")
    end = chats.turn_end(tokenizer)
    messages = trajectories.turns(ANSWER)
    texts = chats.prompt_and_response(tokenizer, end, [QUESTION], messages, "FILE:1")
    single = encoded(tokenizer, messages)
    assert (single.prompt_ids, single.response_ids) == chats.encode(tokenizer, *texts)
    assert set(single.mask) == {1}


def test_turns_that_the_template_rewrites_have_no_loss_and_are_counted():
    """Qwen3 takes the thought out of a turn that a user's turn follows."""
    tokenizer = tokenizer_of("qwen3")
    thinking = f"<think>\nI add.\n</think>\n\n{PROGRAM}"
    messages = [{"role": "assistant", "content": thinking}, *TRAJECTORY[1:]]
    whole = encoded(tokenizer, messages)
    assert whole.left_out == 1
    (last,) = counted(tokenizer, whole)
    assert last.endswith(f"{ANSWER}<|im_end|>\n")


def test_fine_tuning_learns_the_assistants_turns_of_a_trajectory():
    tokenizer = tokenizer_of("qwen2_5")
    end = chats.turn_end(tokenizer)
    conversation = chats.conversation(tokenizer, end, [QUESTION, *TRAJECTORY], "FILE:1")
    assert learned(tokenizer, conversation) == [f"{PROGRAM}<|im_end|>", f"{ANSWER}<|im_end|>"]


def test_a_response_as_a_text():
    assert trajectories.text(ANSWER) == ANSWER
    assert trajectories.text(TRAJECTORY) == f"{PROGRAM}\n```output\n7\n```\n{ANSWER}"
    assert trajectories.last_turn(TRAJECTORY) == trajectories.last_turn(ANSWER) == ANSWER
    assert trajectories.said(TRAJECTORY) == PROGRAM + ANSWER


# Losses


def user(text):
    return {"role": "user", "content": text}


def trajectory(*contents):
    """The turns of the assistant and of the tool, by turns."""
    roles = itertools.cycle(["assistant", "tool"])
    return [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]


PAIRS = [
    {
        "id": "0",
        "prompt": [user("Sort these: dog, cat.")],
        "chosen": trajectory("```python\nprint(1)\n```", "cat, dog", "cat, dog. That is all!"),
        "rejected": trajectory("dog"),
    },
    {
        "id": "1",
        "prompt": [user("Count these: dog.")],
        "chosen": trajectory("```python\nprint(7)\n```", "one", "one"),
        "rejected": trajectory("```python\n2\n```", "two dogs", "It is two, I think."),
    },
]


def log_ratio(policy, reference, prompt, messages, closing=True):
    """log pi/pi_ref over the assistant's tokens, turn by turn, by hand.

    closing: with the line break that the template writes after the last turn.
    """
    total = 0.0
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            continue
        history = [*prompt, *trajectories.for_template(messages[:index])]
        is_last = index == len(messages) - 1
        after = "\n" if is_last and closing else ""
        total += sum(log_probabilities(policy, history, message["content"], after=after))
        total -= sum(log_probabilities(reference, history, message["content"], after=after))
    return total


def margins(policy, reference):
    values = []
    for pair in PAIRS:
        chosen = log_ratio(policy, reference, pair["prompt"], pair["chosen"])
        values.append(chosen - log_ratio(policy, reference, pair["prompt"], pair["rejected"]))
    return values


def test_m_dpo_sums_log_ratios_over_the_assistants_tokens(monkeypatch, tmp_path, noisy, sft):
    file = write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    masked = ["--assistant_only_loss", "True"]
    log = first_loss(monkeypatch, tmp_path, "dpo/1_dpo.py", noisy, sft, file, *masked)
    losses = [-log_sigmoid(BETA * margin) for margin in margins(noisy, sft)]
    assert abs(losses[0] - losses[1]) > 0.01
    assert log["loss"] == pytest.approx(fmean(losses), rel=1e-3)
    shutil.rmtree(tmp_path / "out")
    # The tool's tokens make a difference.
    log = first_loss(monkeypatch, tmp_path, "dpo/1_dpo.py", noisy, sft, file)
    assert abs(log["loss"] - fmean(losses)) > 0.01


def test_m_dpo_of_single_turns_is_dpo(monkeypatch, tmp_path, noisy, sft):
    """With a loss of TRL's and with one of ours; sequences are cut in either."""
    single = []
    for pair in PAIRS:
        row = {**pair, "explored": "It is one."}
        for side in ("chosen", "rejected"):
            row[side] = trajectory(f"{side}: {pair['id']}, or not?")
        single.append(row)
    file = write_jsonl(tmp_path / "pairs.jsonl", single)
    for loss in ("sigmoid", "xpo"):
        seen = []
        for masked in ("True", "False"):
            flags = ["--assistant_only_loss", masked, "--loss_type", loss, "--max_length", 24]
            log = first_loss(monkeypatch, tmp_path, "dpo/1_dpo.py", noisy, sft, file, *flags)
            shutil.rmtree(tmp_path / "out")
            seen.append((log["loss"], log["grad_norm"], log["logps/chosen"], log["logps/rejected"]))
        assert seen[0] == seen[1]


def test_m_kto_sums_over_the_assistants_tokens(monkeypatch, tmp_path, noisy, sft):
    """z0 is 0 here: the mismatched trajectories are less likely by the policy."""
    rows = []
    for pair, side in zip(PAIRS, ("chosen", "rejected"), strict=True):
        rows.append({**pair, "completion": pair[side], "label": side == "chosen"})
        del rows[-1]["chosen"], rows[-1]["rejected"]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    masked = ["--assistant_only_loss", "True"]
    log = first_loss(monkeypatch, tmp_path, "dpo/1b_kto.py", noisy, sft, file, *masked)
    first, second = rows
    mismatched = [
        log_ratio(noisy, sft, first["prompt"], second["completion"]),
        log_ratio(noisy, sft, second["prompt"], first["completion"]),
    ]
    z0 = max(0.0, fmean(mismatched))
    ratios = [log_ratio(noisy, sft, row["prompt"], row["completion"]) for row in rows]
    losses = [1 - sigmoid(BETA * (ratios[0] - z0)), 1 - sigmoid(BETA * (z0 - ratios[1]))]
    assert log["loss"] == pytest.approx(fmean(losses), abs=1e-4)


def test_tokens_of_the_tool_get_no_gradient(monkeypatch, sft):
    """Of the loss by the hidden state that predicts each token."""
    import torch

    monkeypatch.syspath_prepend(ROOT / "dpo")
    losses = importlib.import_module("losses")
    tokenizer, model = loaded(sft)
    end = chats.turn_end(tokenizer)
    example = {}
    for side in ("chosen", "rejected"):
        encoded = response_tokens.encode(
            tokenizer, end, PAIRS[0]["prompt"], PAIRS[0][side], "FILE:1"
        )
        example["prompt_ids"] = encoded.prompt_ids
        example |= {f"{side}_ids": encoded.response_ids, f"{side}_mask": encoded.mask}
    batch = losses.Collator(tokenizer.pad_token_id or 0)([example])
    hidden = model.model(batch["input_ids"], attention_mask=batch["attention_mask"])[0]
    hidden.retain_grad()
    logps = model.lm_head(hidden)[:, :-1].log_softmax(-1)
    logps = logps.gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    chosen, rejected = (logps * batch["completion_mask"][:, 1:]).sum(1)
    torch.nn.functional.logsigmoid(0.01 * (rejected - chosen)).backward()
    has_gradient = hidden.grad[0, :-1].abs().sum(-1) > 0
    length = len(example["prompt_ids"]) + len(example["chosen_ids"])
    expected = ([0] * len(example["prompt_ids"]) + example["chosen_mask"])[1:]
    assert has_gradient.int().tolist()[: length - 1] == expected
    assert 0 < sum(example["chosen_mask"]) < len(example["chosen_mask"])


# The stages


def responded(row_id, rewards):
    """A row of trajectories of different lengths, each with its index in the last turn."""
    responses = []
    for i, _ in enumerate(rewards):
        program = trajectory(f"```python\nprint({i})\n```", f"{i}", f"It is {i}.")
        responses.append(program if i % 2 else program[-1:])
    return {
        "id": row_id,
        "prompt": [user("Which?")],
        "responses": responses,
        "finish_reasons": ["stop"] * len(rewards),
        "rewards": rewards,
        "annotator": "verifier",
    }


def test_a_right_trajectory_is_paired_with_a_wrong_one(tmp_path):
    """At random by the seed; prompts that are all right or all wrong are counted."""
    scored = [responded(f"{i}", [1.0, 0.0, 1.0, 0.0]) for i in range(40)]
    scored += [responded("right", [1.0] * 4), responded("wrong", [0.0] * 4)]
    file = write_jsonl(tmp_path / "rewards.jsonl", scored)
    command = ["annotation/2_pairs.py", "--rewards_file", file, "--pairing", "right_wrong"]
    done = ran(*command, "--output_file", tmp_path / "pairs.jsonl")
    assert "rows in: 42, dropped, all right: 1, dropped, all wrong: 1, rows out: 40" in done.stdout
    seen = set()
    for pair, row in zip(read_jsonl(tmp_path / "pairs.jsonl"), scored, strict=False):
        right = row["responses"].index(pair["chosen"])
        wrong = row["responses"].index(pair["rejected"])
        assert (row["rewards"][right], row["rewards"][wrong]) == (1.0, 0.0)
        seen.add((right, wrong))
    assert len(seen) == 4
    ran(*command, "--seed", 1, "--output_file", tmp_path / "other.jsonl")
    assert read_jsonl(tmp_path / "other.jsonl") != read_jsonl(tmp_path / "pairs.jsonl")


def test_trajectories_go_through_the_stages_of_annotation(tmp_path):
    """Combined, the best of them for fine-tuning; a penalty counts what the assistant said."""
    row = responded("a", [1.0, 2.0, 3.0, 0.0])
    first = write_jsonl(tmp_path / "first.jsonl", [row])
    second = write_jsonl(tmp_path / "second.jsonl", [{**row, "annotator": "other"}])
    out = tmp_path / "combined.jsonl"
    ran("annotation/1e_combined.py", "--rewards_files", first, second, "--output_file", out)
    (combined,) = read_jsonl(out)
    assert combined["responses"] == row["responses"]
    best = ["annotation/2b_best.py", "--rewards_file", first, "--for_training"]
    ran(*best, "--output_file", tmp_path / "best.jsonl")
    (best_row,) = read_jsonl(tmp_path / "best.jsonl")
    assert best_row["messages"] == [*row["prompt"], *row["responses"][2]]
    # 31 and 9 characters: the program outweighs a difference of 1 in the reward, 2 would not.
    row["rewards"] = [1.0, 2.0, 0.0, 0.0]
    write_jsonl(first, [row])
    ran(*best, "--length_penalty", 0.05, "--output_file", tmp_path / "short.jsonl")
    (short_row,) = read_jsonl(tmp_path / "short.jsonl")
    assert short_row["messages"] == [*row["prompt"], *row["responses"][0]]


def test_what_is_no_trajectory_is_refused(tmp_path):
    row = responded("a", [1.0, 0.0])
    wrong = [
        [],
        trajectory("a", "b"),
        [user("a")],
        [{"role": "assistant"}],
        [{"role": "tool", "content": "a"}, {"role": "assistant", "content": "b"}],
        {"role": "assistant", "content": "a"},
    ]
    for response in wrong:
        row["responses"][1] = response
        file = write_jsonl(tmp_path / "rewards.jsonl", [row])
        done = run(
            "annotation/2_pairs.py", "--rewards_file", file, "--output_file", tmp_path / "out.jsonl"
        )
        reason = "responses: not all texts or turns of the assistant and its tools"
        assert done.stderr == f"{file}:1: {reason}\n"


def test_a_reward_model_and_the_kl_read_all_turns(tmp_path, noisy, sft, reward_model):
    row = responded("a", [0.0, 0.0])
    del row["rewards"]
    file = write_jsonl(tmp_path / "responses.jsonl", [row])
    flags = ["--responses_file", file, "--output_file", tmp_path / "out.jsonl"]
    ran("annotation/1a_reward_model.py", "--model_name_or_path", reward_model, *flags)
    (scored,) = read_jsonl(tmp_path / "out.jsonl")
    for response, reward in zip(row["responses"], scored["rewards"], strict=True):
        *turns, last = trajectories.for_template(response)
        by_hand = score(reward_model, [*row["prompt"], *turns], last["content"])
        assert reward == pytest.approx(by_hand, abs=1e-4)
    flags = ["--responses_file", file, "--output_file", tmp_path / "kl.jsonl"]
    models_of = ["--model_name_or_path", noisy, "--ref_model_name_or_path", sft]
    ran("eval/2_kl.py", *models_of, *flags)
    (measured,) = read_jsonl(tmp_path / "kl.jsonl")
    for response, kl in zip(row["responses"], measured["kl"], strict=True):
        by_hand = log_ratio(noisy, sft, row["prompt"], response, closing=False)
        assert kl == pytest.approx(by_hand, abs=1e-3)


def test_a_verifier_reads_the_last_turn(tmp_path):
    row = responded("a", [0.0] * 4)
    del row["rewards"]
    file = write_jsonl(tmp_path / "responses.jsonl", [{**row, "answer": "3"}])
    command = ["annotation/1d_verifier.py", "--responses_file", file]
    ran(*command, "--output_file", tmp_path / "out.jsonl")
    (scored,) = read_jsonl(tmp_path / "out.jsonl")
    assert scored["rewards"] == [0.0, 0.0, 0.0, 1.0]


def test_fine_tuning_data_may_hold_trajectories(tmp_path):
    """Turns of a tool between the assistant's; a row that calls it by tool_calls is dropped."""
    kept = [user("q?"), *trajectory("```python\n1\n```", "", "It is 1.")]
    named = [user("q?"), *CALLED]
    called = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add"}}]}
    dropped = [user("q?"), called, {"role": "tool", "content": "7"}, CALLED[-1]]
    in_rows = []
    for messages in (kept, named, dropped):
        in_rows.append({"id": f"{len(in_rows)}", "messages": messages})
    file = write_jsonl(tmp_path / "in.jsonl", in_rows)
    command = ["sft/1_instructions.py", "--datasets", file]
    done = ran(*command, "--output_file", tmp_path / "out.jsonl")
    assert "| 3 | 2 | 1 | tool calls: 1 |" in done.stdout
    assert [row["messages"] for row in read_jsonl(tmp_path / "out.jsonl")] == [kept, named]


def test_a_silent_program_can_be_learned_from(tmp_path):
    row = responded("a", [1.0])
    row["responses"] = [trajectory("```python\nx = 1\n```", "", "It is 1.")]
    file = write_jsonl(tmp_path / "rewards.jsonl", [row])
    out = tmp_path / "best.jsonl"
    ran("annotation/2b_best.py", "--rewards_file", file, "--for_training", "--output_file", out)
    assert len(read_jsonl(out)) == 1


def test_outputs_of_two_programs_are_one_turn_of_the_user():
    messages = [*TRAJECTORY[:2], {"role": "tool", "content": "8"}, TRAJECTORY[2]]
    shown = trajectories.for_template(messages)
    assert [turn["role"] for turn in shown] == ["assistant", "user", "assistant"]
    assert shown[1]["content"] == "```output\n7\n```\n```output\n8\n```"


def test_pairs_without_a_token_that_counts_are_dropped(monkeypatch):
    """Where the template rewrites the first turn, the cut may leave tokens of the tool alone."""
    monkeypatch.syspath_prepend(ROOT / "dpo")
    outcome = runpy.run_path(str(ROOT / "dpo/pair_tokens.py"))["outcome_of_cut"]
    example = {"prompt_ids": [1] * 10, "chosen_ids": [2] * 30, "rejected_ids": [3] * 5}
    example |= {"chosen_mask": [0] * 20 + [1] * 10, "rejected_mask": [1] * 5}
    for limit, expected in ((None, "complete"), (40, "complete"), (31, "cut"), (30, "too long")):
        settings = SimpleNamespace(max_length=limit, truncation_mode="keep_start")
        assert outcome(example, settings) == expected
    settings = SimpleNamespace(max_length=12, truncation_mode="keep_end")
    assert outcome(example, settings) == "cut"


def test_schemas_of_tools_are_checked(tmp_path):
    """A dataset may hold them as JSON; where a prompt has them, the policy and the training do."""
    prompts = [
        {"id": "a", "prompt": "q?", "tools": json.dumps(TOOLS)},
        {"id": "b", "prompt": "another?", "tools": ""},
    ]
    file = write_jsonl(tmp_path / "prompts.jsonl", prompts)
    command = ["generation/1_prompts.py", "--size", 0, "--datasets"]
    ran(*command, file, "--output_file", tmp_path / "drawn.jsonl")
    drawn = read_jsonl(tmp_path / "drawn.jsonl")
    assert [row["tools"] for row in drawn] == [TOOLS, None]
    write_jsonl(file, [{**prompts[0], "tools": '"add"'}])
    done = run(*command, file, "--output_file", tmp_path / "refused.jsonl")
    assert done.stderr == f"{file}:1: tools: not a list of schemas\n"
