"""The tokens of a prompt and of its response, of one or several turns, and which are learned."""

from dataclasses import dataclass

from common import chats


@dataclass
class Encoded:
    """The tokens of a prompt and of the response to it."""

    prompt_ids: list[int]
    response_ids: list[int]
    mask: list[int]  # for each token of the response: 1 if it counts, else 0
    left_out: int  # turns of the assistant that the template rewrites: their tokens have mask 0


def encode(tokenizer, end, prompt, messages, where, tools=None, assistant_only=True):
    """The Encoded to train on, through the closing of the response's last turn.

    None if the two do not go together (chats.prompt_and_response). end: the tokenizer's TurnEnd.
    messages: of the response. assistant_only: only the tokens of the assistant's turns and those
    that end them count, as in M-DPO; else all of the response's.
    """
    texts = chats.prompt_and_response(tokenizer, end, prompt, messages, where, tools)
    if texts is None:
        return None
    text = "".join(texts)
    spans, left_out = earlier_turns(tokenizer, end, prompt, messages, text, where, tools)
    before_last = chats.prompt_text(tokenizer, [*prompt, *messages[:-1]], where, tools)
    spans.append((len(before_last), len(text)))
    encoded = encode_spans(tokenizer, text, len(texts[0]), spans, left_out)
    if not assistant_only:
        encoded.mask = [1] * len(encoded.response_ids)
        encoded.left_out = 0
    return encoded


def encode_sampled(tokenizer, end, prompt, messages, where, tools=None):
    """The Encoded of a response as it was sampled: its last turn verbatim, without what ends it.

    None if the template writes the prompt otherwise once turns follow.
    """
    prompt_text = chats.prompt_text(tokenizer, prompt, where, tools)
    before_last = chats.prompt_text(tokenizer, [*prompt, *messages[:-1]], where, tools)
    if not before_last.startswith(prompt_text):
        return None
    text = before_last + messages[-1]["content"]
    spans, left_out = earlier_turns(tokenizer, end, prompt, messages, text, where, tools)
    spans.append((len(before_last), len(text)))
    return encode_spans(tokenizer, text, len(prompt_text), spans, left_out)


def encode_spans(tokenizer, text, prompt_length, spans, left_out):
    """The Encoded of a text; prompt_length: its characters; spans: (start, end) of what counts."""
    # In generation a turn is tokenised apart from what stands before it.
    positions = {prompt_length, *(first for first, _ in spans)}
    ids, starts = chats.encode_parts(tokenizer, text, sorted(positions))
    prompt_tokens = sum(start < prompt_length for start in starts)
    mask = [int(chats.within(start, spans)) for start in starts]
    return Encoded(ids[:prompt_tokens], ids[prompt_tokens:], mask[prompt_tokens:], left_out)


def earlier_turns(tokenizer, end, prompt, messages, text, where, tools):
    """(where the assistant's turns but the last stand, number of those that are rewritten)."""
    spans = []
    left_out = 0
    for index, message in enumerate(messages[:-1]):
        if message["role"] != "assistant":
            continue
        before = [*prompt, *messages[:index]]
        span = sampled_span(tokenizer, end, before, message, text, where, tools)
        if span is None:
            left_out += 1
        else:
            spans.append(span)
    return spans, left_out


def sampled_span(tokenizer, end, before, message, text, where, tools):
    """(start, end) of a turn behind the messages before it, verbatim or as the template writes it.

    None if the text does not hold it there.
    """
    prompt = chats.prompt_text(tokenizer, before, where, tools)
    verbatim = chats.verbatim_response(prompt, message["content"], end)
    span = chats.span_behind(prompt, verbatim, end, text)
    if span is None:
        written = chats.template_response(tokenizer, end, [*before, message], prompt, where, tools)
        span = chats.span_behind(prompt, written, end, text)
    return span
