"""Chats as tokens: one rule for fine-tuning, pairs, labelled responses and the KL.

A sequence is the text of the prompt, which the chat template ends with the opening of an
assistant's turn; then the response; then what the template writes at the end of a turn. The tokens
of the prompt are those that generation starts from. A sampled response stands verbatim, with its
thought, even where the template would trim it, take the thought out (DeepSeek-R1) or write it
otherwise in an older turn (Qwen3).

`where` is FILE:LINE of a row, for the message if the template refuses it.
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
    """What a chat template writes after an answer: first `text`, in all `closing`.

    A policy says `text` to stop. Pairs and labelled responses are trained on through `closing`, as
    TRL does.
    """

    token: str | None  # that ends the turn, "<|im_end|>"; None where the template has none
    token_id: int | None  # its id; where the template has none, that of EOS
    text: str  # from the answer through that token, "<|im_end|>"
    closing: str  # the same with the blanks behind it, "<|im_end|>\n"

    @property
    def blanks(self):
        """What the template writes between an answer and the token: a blank in Llama 2's."""
        return self.text.removesuffix(self.token or "")


def turn_end(tokenizer):
    """The TurnEnd of a tokenizer's template: what two chats with different answers end with."""
    if not tokenizer.is_fast:
        sys.exit(
            f"{tokenizer.name_or_path}: its tokenizer has no fast version, "
            "which tells where a token stands"
        )
    first = suffix_of_answer(tokenizer, "the first")
    second = suffix_of_answer(tokenizer, "a second.")
    suffix = first if first == second else ""
    token = end_token(tokenizer, suffix)
    if token is None:
        return TurnEnd(None, tokenizer.eos_token_id, "", "")
    before, _, after = suffix.partition(token)
    blanks = after[: len(after) - len(after.lstrip())]
    return TurnEnd(
        token=token,
        token_id=tokenizer.convert_tokens_to_ids(token),
        text=before + token,
        closing=before + token + blanks,
    )


def suffix_of_answer(tokenizer, answer):
    """What the template writes after this answer; "" if it does not write the answer verbatim."""
    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}]
    text = models.render(tokenizer, chat, tokenizer.name_or_path)
    _, separator, suffix = text.rpartition(answer)
    return suffix if separator else ""


def end_token(tokenizer, suffix):
    """The first special or added token of what follows an answer, or None.

    If EOS stands right behind that token, it is EOS.
    """
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
    eos_ids = eos if isinstance(eos, list) else [eos]
    return {tokenizer.eos_token_id, *eos_ids} - {None}


def teach_turn_end(tokenizer, model):
    """Before a model is fine-tuned: let it stop where its template ends a turn.

    A base model whose template ends turns with another token than EOS, Qwen2.5's say, would never
    stop. Its EOS becomes that token, as with TRL's --eos_token; a line says so.
    """
    end = turn_end(tokenizer)
    if end.token is None:
        sys.exit(
            f"{tokenizer.name_or_path}: its chat template ends an assistant's turn with no token "
            "of its tokenizer: the model would not learn to stop; give another by "
            "--chat_template_path"
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


def prompt_text(tokenizer, messages, where, tools=None):
    """The text that a policy continues. tools: the schemas of the tools that it may call."""
    return models.render(tokenizer, messages, where, tools=tools, add_generation_prompt=True)


def prompt_and_response(tokenizer, end, prompt, messages, where, tools=None):
    """(text of a prompt, text of the response through the closing).

    None if the two do not go together: the response's thought does not fit the prompt, or the
    template writes the prompt otherwise once further turns follow.

    messages: the response, sampled or of a preference set; further turns may precede its last.
    """
    text = prompt_text(tokenizer, prompt, where, tools)
    full_prompt = text
    if len(messages) > 1:
        full_prompt = prompt_text(tokenizer, [*prompt, *messages[:-1]], where, tools)
    content = messages[-1]["content"]
    response = template_response(tokenizer, end, [*prompt, *messages], full_prompt, where, tools)
    if response is None or not is_verbatim(response, content, end):
        response = verbatim_response(full_prompt, content, end)
    if response is None or not full_prompt.startswith(text):
        return None
    return text, full_prompt[len(text) :] + response


def opens_thought(prompt):
    """Does the text of a prompt end within a thought, as DeepSeek-R1's does?"""
    return OPEN_THOUGHT_AT_END.search(prompt) is not None


def has_thought(response):
    return bool(thoughts.OPENS.search(response) or thoughts.CLOSES.search(response))


def template_response(tokenizer, end, messages, prompt, where, tools=None):
    """What the template writes behind that prompt for the last message, through the closing.

    None for a response with a thought, and where the template does not write the response behind
    the prompt.
    """
    content = messages[-1]["content"]
    if has_thought(content):
        return None
    text = models.render(tokenizer, messages, where, tools=tools)
    if end.text:
        # What the template writes after a chat, behind the end of the last turn, is left out.
        before, separator, _ = text.rpartition(end.text)
        text = before + separator + end.closing.removeprefix(end.text)
    response = text[len(prompt) :]
    if not text.startswith(prompt) or content.strip() not in response:
        return None
    return response


def is_verbatim(written, response, end):
    """Does the template write this response unchanged, and only what the response lacks around it?

    written: what the template writes for the response, through the closing.
    """
    if end.token is None:
        written = written.rstrip()
    # What the template writes before the response: an empty thought, say, or a newline.
    before = written.removesuffix(response + end.closing)
    if before + response + end.closing != written:
        return False
    # A policy may have learned to say that itself: then the template would write it twice.
    if before and response.startswith(before):
        return False
    return not (end.blanks and response.endswith(end.blanks))


def verbatim_response(prompt, response, end):
    """The response itself, through the closing; None if its thought does not fit the prompt.

    A prompt may open a thought, as DeepSeek-R1's does: the response has to end it, and its own
    opening, if any, is left out. Or a prompt may hold an empty thought, as Qwen3's does without
    thinking: the response must not have another.
    """
    opened = opens_thought(prompt)
    own_opening = OPENING.match(response.lstrip())
    if opened and own_opening:
        blanks = prompt[len(prompt.rstrip()) :]
        response = response.lstrip()[own_opening.end() :].removeprefix(blanks)
    if opened and not thoughts.CLOSES.search(response):
        return None
    if CLOSED_THOUGHT_AT_END.search(prompt) and has_thought(response):
        return None
    if response.endswith(end.blanks):
        # The policy has learned to say these blanks itself: they are not written twice.
        return response + end.closing.removeprefix(end.blanks)
    return response + end.closing


# Tokens


def encode(tokenizer, prompt, response):
    """(token ids of the text of a prompt, ids of the text that follows it)."""
    ids, starts = encode_parts(tokenizer, prompt + response, [len(prompt)])
    prompt_tokens = sum(start < len(prompt) for start in starts)
    return ids[:prompt_tokens], ids[prompt_tokens:]


def encode_parts(tokenizer, text, positions):
    """(token ids of a text, character at which each token starts).

    The ids behind each position are those that generation from there would give: the text before it
    has the tokens that it has alone. Where a token spans a position, as one for two newlines may,
    the text before it and the text behind it are tokenised separately.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    cuts = []
    for position in positions:
        if not splits_at(tokenizer, text, encoded, position):
            cuts.append(position)
    if not cuts:
        return encoded["input_ids"], [start for start, _ in encoded["offset_mapping"]]
    ids = []
    starts = []
    for first, last in itertools.pairwise([0, *cuts, len(text)]):
        part = tokenizer(text[first:last], add_special_tokens=False, return_offsets_mapping=True)
        ids += part["input_ids"]
        starts += [first + start for start, _ in part["offset_mapping"]]
    return ids, starts


def splits_at(tokenizer, text, encoded, position):
    """Has the text before this position the tokens that it has alone, and does none span it?"""
    alone = tokenizer(text[:position], add_special_tokens=False)["input_ids"]
    count = len(alone)
    if encoded["input_ids"][:count] != alone:
        return False
    offsets = encoded["offset_mapping"]
    if not offsets[:count]:
        return True
    _, end_of_last = offsets[count - 1]
    return end_of_last <= position


# Choices between A and B


def choice(tokenizer):
    """(ids of A and of B as an answer, number of tokens from the letter to the end of the chat).

    Two chats that differ only in the answer tell both; a template may write an empty thought before
    the answer, as Qwen3's does. If a letter is several tokens, the program ends.
    """
    a = ids_of_chat(tokenizer, "A")
    b = ids_of_chat(tokenizer, "B")
    differing = [index for index in range(min(len(a), len(b))) if a[index] != b[index]]
    if len(a) != len(b) or len(differing) != 1:
        refuse_choice(tokenizer)
    index = differing[0]
    return (a[index], b[index]), len(a) - index


def ids_of_chat(tokenizer, answer):
    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}]
    text = models.render(tokenizer, chat, tokenizer.name_or_path)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def refuse_choice(tokenizer):
    """Exit with the letter that has more tokens."""
    a = tokenizer("A", add_special_tokens=False)["input_ids"]
    b = tokenizer("B", add_special_tokens=False)["input_ids"]
    longer = "A" if len(a) >= len(b) else "B"
    sys.exit(f"{tokenizer.name_or_path}: its tokenizer splits {longer!r} into several tokens")


# Conversations


@dataclass
class Conversation:
    """The tokens of a conversation for supervised fine-tuning."""

    input_ids: list[int]
    labels: list[int]  # NO_LOSS except on the assistant's turns and the tokens that end them
    left_out: int  # turns of the assistant that are not written as they would be sampled


def conversation(tokenizer, end, messages, where, tools=None):
    """The Conversation of these messages; end: the tokenizer's TurnEnd.

    A turn of the assistant is learned if the text holds it as it would be sampled: behind the
    prompt of the messages before it, verbatim, up to the token that ends it. Other turns have no
    loss and are counted. Only the last turn may have a thought: templates take older ones out.
    """
    text = models.render(tokenizer, messages, where, tools=tools)
    if has_thought(messages[-1]["content"]):
        prompt = prompt_text(tokenizer, messages[:-1], where, tools)
        response = verbatim_response(prompt, messages[-1]["content"], end)
        text = prompt + (response or "")
    spans = []
    left_out = 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        span = span_of_turn(tokenizer, end, messages[: index + 1], text, where, tools)
        if span is None:
            left_out += 1
        else:
            spans.append(span)
    ids, starts = encode_parts(tokenizer, text, [first for first, _ in spans])
    labels = []
    for token_id, start in zip(ids, starts, strict=True):
        labels.append(token_id if within(start, spans) else NO_LOSS)
    return Conversation(ids, labels, left_out)


def within(position, spans):
    """Is a position in one of the (start, end)?"""
    return any(first <= position < last for first, last in spans)


def span_of_turn(tokenizer, end, messages, text, where, tools=None):
    """(start, end) of the turn messages[-1] in the text of its conversation, through its end token.

    None if the text does not hold the turn as it would be sampled.
    """
    prompt = prompt_text(tokenizer, messages[:-1], where, tools)
    content = messages[-1]["content"]
    response = template_response(tokenizer, end, messages, prompt, where, tools)
    if response is None and has_thought(content):
        response = verbatim_response(prompt, content, end)
    return span_behind(prompt, response, end, text)


def span_behind(prompt, response, end, text):
    """(start, end) of a response behind its prompt in a text, through its end token, or None."""
    if response is None:
        return None
    through_end = prompt + response.removesuffix(end.closing.removeprefix(end.text))
    if not text.startswith(through_end):
        return None
    return len(prompt), len(through_end)
