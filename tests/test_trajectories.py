"""Responses of several turns: what the templates make of them, and which tokens the loss counts."""

import pytest

from common import chats, models, trajectories
from test_chats import QUESTION, learned, tokenizer_of

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
    return trajectories.encode(tokenizer, end, [QUESTION], messages, "FILE:1", **options)


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
    messages = trajectories.for_template([QUESTION, *TRAJECTORY])
    conversation = chats.conversation(tokenizer, end, messages, "FILE:1")
    assert learned(tokenizer, conversation) == [f"{PROGRAM}<|im_end|>", f"{ANSWER}<|im_end|>"]


def test_a_response_as_a_text():
    assert trajectories.text(ANSWER) == ANSWER
    assert trajectories.text(TRAJECTORY) == f"{PROGRAM}\n```output\n7\n```\n{ANSWER}"
    assert trajectories.last_turn(TRAJECTORY) == trajectories.last_turn(ANSWER) == ANSWER
    assert trajectories.said(TRAJECTORY) == PROGRAM + ANSWER
