"""The tokens of a prompt and of its response, of one or several turns, and which are learned."""

from dataclasses import dataclass

from common import chats


@dataclass
class Encoded:
    """The tokens of a prompt and of the response to it, through the closing of its last turn."""

    prompt_ids: list[int]
    response_ids: list[int]
    mask: list[int]  # for each token of the response: 1 if the loss counts it, else 0
    left_out: int  # turns of the assistant that the template rewrites: their tokens have mask 0


def encode(tokenizer, end, prompt, messages, where, tools=None, assistant_only=True, tail=""):
    """Encode a response to a prompt; None if they do not go together (chats.prompt_and_response).

    end: the tokenizer's TurnEnd. messages: of the response. assistant_only: only the tokens of the
    assistant's turns and those that end them count, as in M-DPO; else all of the response's. tail:
    the part of the last turn's closing that is left out.
    """
    texts = chats.prompt_and_response(tokenizer, end, prompt, messages, where, tools)
    if texts is None:
        return None
    text_of_all = "".join(texts).removesuffix(tail)
    spans, left_out = earlier_turns(tokenizer, end, prompt, messages, text_of_all, where, tools)
    before_last = chats.prompt_text(tokenizer, [*prompt, *messages[:-1]], where, tools)
    # The last turn counts through its closing, as a response of a single turn does.
    spans.append((len(before_last), len(text_of_all)))
    # The first turn begins where the prompt ends.
    positions = {len(texts[0]), *(first for first, _ in spans)}
    ids, starts = chats.encode_parts(tokenizer, text_of_all, sorted(positions))
    prompt_length = sum(start < len(texts[0]) for start in starts)
    if assistant_only:
        mask = [int(chats.within(start, spans)) for start in starts]
    else:
        mask = [1] * len(ids)
    return Encoded(ids[:prompt_length], ids[prompt_length:], mask[prompt_length:], left_out)


def earlier_turns(tokenizer, end, prompt, messages, text_of_all, where, tools):
    """(where the assistant's turns but the last stand, number of those that are rewritten)."""
    spans = []
    left_out = 0
    for index, message in enumerate(messages[:-1]):
        if message["role"] != "assistant":
            continue
        before = [*prompt, *messages[:index]]
        span = sampled_span(tokenizer, end, before, message, text_of_all, where, tools)
        if span is None:
            left_out += 1
        else:
            spans.append(span)
    return spans, left_out


def sampled_span(tokenizer, end, before, message, text_of_all, where, tools):
    """(start, end) of a turn behind the messages before it, verbatim or as the template writes it.

    None if the text does not hold it there.
    """
    prompt = chats.prompt_text(tokenizer, before, where, tools)
    verbatim = chats.verbatim_response(prompt, message["content"], end)
    span = chats.span_behind(prompt, verbatim, end, text_of_all)
    if span is None:
        written = chats.template_response(tokenizer, end, [*before, message], prompt, where, tools)
        span = chats.span_behind(prompt, written, end, text_of_all)
    return span
