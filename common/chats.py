"""The tokens of chats: what is trained on and scored is what a policy is asked and what it says.

One rule for every chat template. A response stands as it was sampled, between the prompt, which
the template ends with the opening of an assistant's turn, and what the template writes after an
answer. Templates that take thoughts out of a response or put empty ones in change nothing of it.
"""

import sys
from dataclasses import dataclass

from common import models

THOUGHT = "<think>"
THOUGHT_END = "</think>"
NO_LOSS = -100  # the label of a token that torch's cross-entropy leaves out


# What ends a turn


@dataclass
class TurnEnd:
    """What a chat template writes after an answer."""

    token: str | None  # the token that ends the turn, "<|im_end|>"; None where the template has none
    token_id: int | None  # its id; where the template has none, that of EOS
    text: str  # from the answer to that token, "<|im_end|>"
    closing: str  # the same with the blanks behind it, "<|im_end|>\n"


def turn_end(tokenizer):
    """The TurnEnd of a tokenizer's template: what two chats with different answers end with."""
    rests = set()
    for answer in ("the first", "a second."):
        chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}]
        text = models.render(tokenizer, chat, tokenizer.name_or_path)
        rests.add(text.rpartition(answer)[2])
    rest = rests.pop() if len(rests) == 1 else ""
    token = first_added_token(tokenizer, rest)
    if token is None:
        return TurnEnd(None, tokenizer.eos_token_id, "", "")
    before, _, after = rest.partition(token)
    blanks = after[: len(after) - len(after.lstrip())]
    token_id = tokenizer.convert_tokens_to_ids(token)
    return TurnEnd(token, token_id, before + token, before + token + blanks)


def first_added_token(tokenizer, text):
    """The first token of a text that no words are made of, such as "<|im_end|>", or None."""
    added = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    for token_id in tokenizer(text, add_special_tokens=False)["input_ids"]:
        token = tokenizer.convert_ids_to_tokens(token_id)
        if token_id in added and token.strip():
            return token
    return None


def stop_ids(tokenizer, generation_config):
    """The ids at which generation stops, by the tokenizer and the model's generation_config."""
    listed = getattr(generation_config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(listed if isinstance(listed, list) else [listed])}
    return ids - {None}


def teach_turn_end(tokenizer, model):
    """Before a model is fine-tuned: let it stop where its template ends a turn.

    A base model whose template ends turns with another token than EOS, Qwen2.5's say, would never
    stop. Its EOS is then that token, as TRL's --eos_token sets it; a line says so.
    """
    end = turn_end(tokenizer)
    if end.token is None:
        sys.exit(
            f"{tokenizer.name_or_path}: its chat template ends an assistant's turn with no token: "
            "the model would not learn to stop; give another by --chat_template_path"
        )
    if end.token_id in stop_ids(tokenizer, model.generation_config):
        return
    print(f"EOS is now {end.token}, the chat template's end of a turn; it was {tokenizer.eos_token}")
    tokenizer.eos_token = end.token
    model.config.get_text_config().eos_token_id = end.token_id
    model.generation_config.eos_token_id = end.token_id


# Prompts and responses


def prompt_text(tokenizer, messages, where):
    """The text that a policy goes on from."""
    return models.render(tokenizer, messages, where, add_generation_prompt=True)


def opens_thought(prompt):
    """Does the text of a prompt end within a thought, as DeepSeek-R1's does?"""
    return prompt.rstrip().endswith(THOUGHT)


def response_text(prompt, response):
    """The response as it follows the text of its prompt, which may have opened the thought already."""
    if opens_thought(prompt) and response.lstrip().startswith(THOUGHT):
        return response.lstrip().removeprefix(THOUGHT).lstrip("\n")
    return response


def lacks_thought(prompt, response):
    """Does the prompt open a thought that the response does not end? No answer of that policy then."""
    return opens_thought(prompt) and THOUGHT_END not in response


def encode(tokenizer, prompt, rest):
    """(token ids of the text of a prompt, ids of the text that follows it).

    Tokens are read from the whole text where it begins with the prompt's own tokens. Else one
    would span both, which no sampling gives: each part is read alone.
    """
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = tokenizer(prompt + rest, add_special_tokens=False)["input_ids"]
    if ids[: len(prompt_ids)] == prompt_ids:
        return prompt_ids, ids[len(prompt_ids) :]
    return prompt_ids, tokenizer(rest, add_special_tokens=False)["input_ids"]


def answer(tokenizer, end, prompt, messages, where):
    """(text of a prompt, text of the answer to it, closed as by the template), or None.

    prompt, messages: of a pair or a labelled response; messages end with the assistant's turn, as
    it was sampled. None: the template writes the prompt otherwise before several turns, or opens a
    thought that the answer does not end.
    """
    text = prompt_text(tokenizer, prompt, where)
    before = text
    if len(messages) > 1:
        before = prompt_text(tokenizer, [*prompt, *messages[:-1]], where)
    said = messages[-1]["content"]
    if not before.startswith(text) or lacks_thought(before, said):
        return None
    return text, before[len(text) :] + response_text(before, said) + end.closing


# Choices between A and B


def choice(tokenizer):
    """(ids of A and of B as an answer, how many tokens a chat has from such an answer on).

    Seen in two chats that differ only in the answer; a template may put an empty thought before
    it, as Qwen3's does. Where the letters are not one token each, the program ends.
    """
    chats = []
    for letter in "AB":
        chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": letter}]
        text = models.render(tokenizer, chat, tokenizer.name_or_path)
        chats.append(tokenizer(text, add_special_tokens=False)["input_ids"])
    a, b = chats
    differing = [place for place in range(min(len(a), len(b))) if a[place] != b[place]]
    if len(a) != len(b) or len(differing) != 1:
        sys.exit(f"{tokenizer.name_or_path}: its tokenizer splits 'A' or 'B' into several tokens")
    place = differing[0]
    return (a[place], b[place]), len(a) - place


# Conversations


@dataclass
class Conversation:
    """The tokens of a conversation for supervised fine-tuning."""

    input_ids: list[int]
    labels: list[int]  # NO_LOSS but on what the assistant says and on what ends its turns
    left_out: int  # turns of the assistant that are written otherwise than they would be sampled


def conversation(tokenizer, end, messages, where):
    """The Conversation of these messages; end: the tokenizer's TurnEnd.

    A turn of the assistant is learned if the whole text holds it as it would be sampled: behind
    the prompt of the messages before it, in its own words, up to the token that ends it. R1's
    template takes thoughts out and Qwen3's writes an older turn without the empty thought of the
    last one: such turns stay without loss and are counted.
    """
    text = models.render(tokenizer, messages, where)
    spans, left_out = [], 0
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = prompt_text(tokenizer, messages[:place], where)
        through = turn_text(tokenizer, end, messages[: place + 1], prompt, where)
        if place == len(messages) - 1 and THOUGHT_END in message["content"]:
            text = through
        in_place = through.startswith(prompt) and text.startswith(through)
        if in_place and response_text(prompt, message["content"]).strip() in through[len(prompt) :]:
            spans.append((len(prompt), len(through)))
        else:
            left_out += 1
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = []
    for token_id, (start, stop) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        learned = any(first <= start < stop <= last for first, last in spans)
        labels.append(token_id if learned else NO_LOSS)
    return Conversation(encoded["input_ids"], labels, left_out)


def turn_text(tokenizer, end, messages, prompt, where):
    """The text of messages, the last of which is the assistant's, through the token that ends it.

    An answer with its thought stands behind its prompt as it was sampled.
    """
    answer = messages[-1]["content"]
    if THOUGHT_END in answer:
        return prompt + response_text(prompt, answer) + end.text
    text = models.render(tokenizer, messages, where)
    head, found, _ = text.rpartition(end.text)
    return head + found
