"""Chats as tokens: one rule for fine-tuning, pairs, labelled responses and the KL, by any chat template.

A sequence is the text of the prompt, which the template ends with the opening of an assistant's turn, then the
response, then what the template writes at the end of a turn. The tokens of the prompt are those that generation starts
from. A response that was sampled stands as it was sampled, its thought included, though the template would trim it,
take the thought out (DeepSeek-R1) or write it otherwise in an older turn (Qwen3).
"""

import itertools
import re
import sys
from dataclasses import dataclass

from common import models, thoughts

OPENING = re.compile(thoughts.OPENING)
OPEN_THOUGHT_AT_END = re.compile(rf"(?:{thoughts.OPENING})\s*\Z")
CLOSED_THOUGHT_AT_END = re.compile(rf"(?:{thoughts.CLOSING})\s*\Z")
NO_LOSS = -100  # the label of a token that torch's cross-entropy leaves out


# What ends a turn


@dataclass
class TurnEnd:
    """What a chat template writes after an answer.

    `text` is what a policy says to stop; `closing` what stands between an answer and the next turn, which pairs and
    labelled responses are trained on with the answer, as TRL does.
    """

    token: str | None  # that ends the turn, "<|im_end|>"; None where the template has none
    token_id: int | None  # its id; where the template has none, that of EOS
    text: str  # from the answer through that token, "<|im_end|>"
    closing: str  # the same with the blanks behind it, "<|im_end|>\n"


def turn_end(tokenizer):
    """The TurnEnd of a tokenizer's template: what two chats with different answers end with."""
    if not tokenizer.is_fast:
        sys.exit(
            f"{tokenizer.name_or_path}: its tokenizer has no fast version, which tells where a token stands"
        )
    suffixes = set()
    for answer in ("the first", "a second."):
        chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}]
        _, found, suffix = models.render(tokenizer, chat, tokenizer.name_or_path).rpartition(answer)
        suffixes.add(suffix if found else "")
    suffix = suffixes.pop() if len(suffixes) == 1 else ""
    token = end_token(tokenizer, suffix)
    if token is None:
        return TurnEnd(None, tokenizer.eos_token_id, "", "")
    before, _, after = suffix.partition(token)
    blanks = after[: len(after) - len(after.lstrip())]
    token_id = tokenizer.convert_tokens_to_ids(token)
    return TurnEnd(token, token_id, before + token, before + token + blanks)


def end_token(tokenizer, suffix):
    """The first special or added token of what follows an answer; EOS, if it stands right behind it. None without."""
    added = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder} - {tokenizer.unk_token_id}
    for token_id in tokenizer(suffix, add_special_tokens=False)["input_ids"]:
        token = tokenizer.convert_ids_to_tokens(token_id)
        if token_id in added and token.strip() and token in suffix:
            after = suffix.partition(token)[2]
            eos = tokenizer.eos_token
            return eos if eos and after.startswith(eos) else token
    return None


def stop_ids(tokenizer, generation_config):
    """The ids at which generation stops, by the tokenizer and the model's generation_config."""
    eos = getattr(generation_config, "eos_token_id", None)
    return {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])} - {None}


def teach_turn_end(tokenizer, model):
    """Before a model is fine-tuned: let it stop where its template ends a turn.

    A base model whose template ends turns with another token than EOS, Qwen2.5's say, would never stop. Its EOS is then
    that token, as TRL's --eos_token sets it; a line says so.
    """
    end = turn_end(tokenizer)
    if end.token is None:
        sys.exit(
            f"{tokenizer.name_or_path}: its chat template ends an assistant's turn with no token of its tokenizer: "
            "the model would not learn to stop; give another by --chat_template_path"
        )
    if end.token_id in stop_ids(tokenizer, model.generation_config):
        return
    print(
        f"EOS is now {end.token}, the chat template's end of a turn; it was {tokenizer.eos_token}"
    )
    tokenizer.eos_token = end.token
    model.config.get_text_config().eos_token_id = end.token_id
    model.generation_config.eos_token_id = end.token_id


# Prompts and responses


def prompt_text(tokenizer, messages, where):
    """The text that a policy goes on from. where: what a message says of a row, 'FILE:LINE: field'."""
    return models.render(tokenizer, messages, where, add_generation_prompt=True)


def prompt_and_response(tokenizer, end, prompt, messages, where):
    """(text of a prompt, text of the response to it through the closing), or None if they do not go together.

    messages: the response, as it was sampled or as a preference set has it; further turns may stand before its last.
    """
    text = prompt_text(tokenizer, prompt, where)
    full_prompt = text
    if len(messages) > 1:
        full_prompt = prompt_text(tokenizer, [*prompt, *messages[:-1]], where)
    chat = [*prompt, *messages]
    response = template_response(tokenizer, end, chat, full_prompt, where)
    if response is None or not is_verbatim(response, messages[-1]["content"], end):
        response = verbatim_response(full_prompt, messages[-1]["content"], end)
    if response is None or not full_prompt.startswith(text):
        return None
    return text, full_prompt[len(text) :] + response


def opens_thought(prompt):
    """Does the text of a prompt end within a thought, as DeepSeek-R1's does?"""
    return OPEN_THOUGHT_AT_END.search(prompt) is not None


def has_thought(response):
    return bool(thoughts.OPENS.search(response) or thoughts.CLOSES.search(response))


def template_response(tokenizer, end, messages, prompt, where):
    """What the template writes behind that prompt for the last of the messages, through the closing.

    None for a response with a thought, and where the template does not write the response behind the prompt.
    """
    if has_thought(messages[-1]["content"]):
        return None
    text = models.render(tokenizer, messages, where)
    if end.text:
        before, found, _ = text.rpartition(end.text)
        text = before + found + end.closing.removeprefix(end.text)
    response = text[len(prompt) :]
    if not text.startswith(prompt) or messages[-1]["content"].strip() not in response:
        return None
    return response


def is_verbatim(written, response, end):
    """Does the template write this response unchanged, and around it nothing that the response has itself?"""
    if end.token is None:
        written = written.rstrip()
    before = written.removesuffix(response + end.closing)
    if before + response + end.closing != written or (before and response.startswith(before)):
        return False
    return not (blanks_before(end) and response.endswith(blanks_before(end)))


def blanks_before(end):
    """What the template writes between an answer and the token that ends its turn: a blank, in Llama 2's."""
    return end.text.removesuffix(end.token or "")


def verbatim_response(prompt, response, end):
    """The response as it stands, through the closing; None if its thought does not fit the prompt.

    A prompt may open a thought (DeepSeek-R1's): the response has to end it, and does not open it again. Or it may hold
    an empty one (Qwen3's without thinking): the response must not have another.
    """
    opened = opens_thought(prompt)
    again = OPENING.match(response.lstrip())
    if opened and again:
        blanks = prompt[len(prompt.rstrip()) :]
        response = response.lstrip()[again.end() :].removeprefix(blanks)
    if opened and not thoughts.CLOSES.search(response):
        return None
    if CLOSED_THOUGHT_AT_END.search(prompt) and has_thought(response):
        return None
    if response.endswith(blanks_before(end)):  # the policy has learned to say them
        return response + end.closing.removeprefix(blanks_before(end))
    return response + end.closing


# Tokens


def encode(tokenizer, prompt, response):
    """(token ids of the text of a prompt, ids of the text that follows it)."""
    ids, starts = encode_parts(tokenizer, prompt + response, [len(prompt)])
    count = sum(start < len(prompt) for start in starts)
    return ids[:count], ids[count:]


def encode_parts(tokenizer, text, places):
    """(token ids of a text, where each token starts in it), read so that generation from each place would give them.

    The text before a place has to have the tokens that it has alone. If a token of the whole text spans the place, as
    one may that is made of two newlines, what stands before and behind it is read separately.
    """
    whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    cuts = [place for place in places if not splits_at(tokenizer, text, whole, place)]
    if not cuts:
        return whole["input_ids"], [start for start, _ in whole["offset_mapping"]]
    ids, starts = [], []
    for first, last in itertools.pairwise([0, *cuts, len(text)]):
        part = tokenizer(text[first:last], add_special_tokens=False, return_offsets_mapping=True)
        ids += part["input_ids"]
        starts += [first + start for start, _ in part["offset_mapping"]]
    return ids, starts


def splits_at(tokenizer, text, encoded, place):
    """Are the tokens of a text up to this place those that the text before it has alone, and none spans it?"""
    alone = tokenizer(text[:place], add_special_tokens=False)["input_ids"]
    count = len(alone)
    if encoded["input_ids"][:count] != alone:
        return False
    offsets = encoded["offset_mapping"]
    return not offsets[:count] or offsets[count - 1][1] <= place


# Choices between A and B


def choice(tokenizer):
    """(ids of A and of B as an answer, number of tokens from the letter to the end of the chat).

    Seen in two chats that differ only in the answer; a template may put an empty thought before it, as Qwen3's does.
    Where the letters are not one token each, the program ends.
    """
    chats = []
    for letter in "AB":
        chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": letter}]
        text = models.render(tokenizer, chat, tokenizer.name_or_path)
        chats.append(tokenizer(text, add_special_tokens=False)["input_ids"])
    a, b = chats
    differing = [index for index in range(min(len(a), len(b))) if a[index] != b[index]]
    if len(a) != len(b) or len(differing) != 1:
        lengths = {
            letter: len(tokenizer(letter, add_special_tokens=False)["input_ids"]) for letter in "AB"
        }
        longest = max(lengths, key=lengths.get)
        sys.exit(f"{tokenizer.name_or_path}: its tokenizer splits {longest!r} into several tokens")
    index = differing[0]
    return (a[index], b[index]), len(a) - index


# Conversations


@dataclass
class Conversation:
    """The tokens of a conversation for supervised fine-tuning."""

    input_ids: list[int]
    labels: list[int]  # NO_LOSS but on what the assistant says and on what ends its turns
    left_out: int  # turns of the assistant that are written otherwise than they would be sampled


def conversation(tokenizer, end, messages, where):
    """The Conversation of these messages; end: the tokenizer's TurnEnd.

    A turn of the assistant is learned if the whole text holds it as it would be sampled: behind the prompt of the
    messages before it, all of its words, up to the token that ends it. Other turns stay without loss and are counted.
    Only the last turn may have a thought: templates take it out of older ones.
    """
    text = models.render(tokenizer, messages, where)
    if has_thought(messages[-1]["content"]):
        prompt = prompt_text(tokenizer, messages[:-1], where)
        response = verbatim_response(prompt, messages[-1]["content"], end)
        text = prompt + (response or "")
    spans, left_out = [], 0
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            span = span_of_turn(tokenizer, end, messages[: index + 1], text, where)
            spans += [span] if span else []
            left_out += span is None
    ids, starts = encode_parts(tokenizer, text, [first for first, _ in spans])
    labels = []
    for token_id, start in zip(ids, starts, strict=True):
        learned = any(first <= start < last for first, last in spans)
        labels.append(token_id if learned else NO_LOSS)
    return Conversation(ids, labels, left_out)


def span_of_turn(tokenizer, end, messages, text, where):
    """(start, end) in the text of a conversation of its turn messages[-1], through its end token.

    None if the text does not hold it as it would be sampled.
    """
    prompt = prompt_text(tokenizer, messages[:-1], where)
    response = template_response(tokenizer, end, messages, prompt, where)
    if response is None and has_thought(messages[-1]["content"]):
        response = verbatim_response(prompt, messages[-1]["content"], end)
    if response is None:
        return None
    through_end = prompt + response.removesuffix(end.closing.removeprefix(end.text))
    return (len(prompt), len(through_end)) if text.startswith(through_end) else None
