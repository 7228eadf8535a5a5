"""A reward model that scores the responses of many rows, for 1a_reward_model.py.

The tokens that a row's responses share, mostly its prompt, go through the model once. Their keys
and values are cached, and each response gets a copy of them.
"""

import itertools
import sys
from dataclasses import dataclass
from typing import Any

from common import models, remote_code, trajectories

# What models give for a sequence: the library's the logits, ArmoRM a score, the rewards by
# objective, and the weights of the objectives.
OUTPUTS = ("logits", "score", "rewards", "gating_output")


@dataclass
class Continuation:
    """What follows the shared prefix of a row in its chat with one response."""

    row: int  # index of the row in the chunk
    response: int
    token_ids: list[int]  # without the prefix
    prefix: int  # index of the row's prefix in the cache
    prefix_length: int  # tokens


@dataclass
class PrefixCache:
    """The keys and values of P prefixes, padded on the right to the longest, T tokens."""

    layers: list  # of the model, each with .keys and .values, [P, heads, T, head size]
    attention_mask: Any  # [P, T], 0 at padding


def chats_of(row):
    """The prompt with each response."""
    chats = []
    for response in row["responses"]:
        chats.append([*row["prompt"], *trajectories.turns(response)])
    return chats


def similar_batches(items, length, max_tokens, prefix_length=lambda item: 0):
    """Yield batches of items, longest first: at most max_tokens tokens with padding, or one item.

    length: tokens of an item that the model computes. prefix_length: tokens in a cache that an item
    attends to. With them a batch has at most 8 times max_tokens, since each item needs a copy.
    No item is shorter than 0.9 of the longest in its batch, so that padding stays below a tenth.
    """
    remaining = sorted(items, key=length, reverse=True)
    while remaining:
        longest = length(remaining[0])
        size = max(1, max_tokens // max(1, longest))
        longest_prefix = max(map(prefix_length, remaining[:size]))
        most_attended = 8 * max_tokens // max(1, longest_prefix + longest)
        size = max(1, min(size, most_attended))
        batch = [item for item in remaining[:size] if length(item) >= 0.9 * longest]
        yield batch
        remaining = remaining[len(batch) :]


class Scorer:
    """A reward model and its tokenizer.

    batch_tokens: tokens of a batch, padding included. share_prefix: what a row's responses share
    goes through the model once for all of them.
    """

    def __init__(self, model, tokenizer, batch_tokens, share_prefix):
        self.model = model
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self.share_prefix = share_prefix
        self.refusal = None  # why the model's own code last refused a sequence

    def outputs(self, chunk):
        """What the model gives for the responses of each row, [{name: value}].

        None in place of the list: a sequence of the row is longer than the context. None in place
        of an entry: the model's own code refuses that response.
        """
        import torch

        token_ids = self.tokenized(chunk)
        context = self.model.config.get_text_config().max_position_embeddings
        outputs = [None] * len(chunk)
        prefix_lengths = {}  # of the rows that fit into the context
        for row, sequences in enumerate(token_ids):
            if max(map(len, sequences)) <= context:
                outputs[row] = [None] * len(sequences)
                prefix_lengths[row] = self.prefix_length(sequences)
        with torch.inference_mode():
            for group in similar_batches(prefix_lengths, prefix_lengths.get, self.batch_tokens):
                for continuation, output in self.score_group(group, token_ids, prefix_lengths):
                    outputs[continuation.row][continuation.response] = output
        return outputs

    def tokenized(self, chunk):
        """The token ids of each row's chats, as [row][response] -> ids."""
        texts = []
        for row in chunk:
            for chat in chats_of(row):
                texts.append(models.render(self.tokenizer, chat, row.at("prompt")))
        # One call for the chunk: the tokenizer works in parallel.
        token_ids = iter(self.tokenizer(texts, add_special_tokens=False)["input_ids"])
        return [list(itertools.islice(token_ids, len(row["responses"]))) for row in chunk]

    def prefix_length(self, sequences):
        """How many tokens the sequences of a row share at the start; each keeps one at least."""
        if not self.share_prefix or len(sequences) == 1:
            return 0
        most = min(map(len, sequences)) - 1
        for position in range(most):
            if len({sequence[position] for sequence in sequences}) > 1:
                return position
        return most

    def score_group(self, group, token_ids, prefix_lengths):
        """Yield (continuation, output) for each response of the rows of a group.

        The prefixes of the group go through the model as one batch, then the continuations in as
        many batches as they need, each with a copy of its prefix from the cache.
        """
        cache = None
        prefixes = [token_ids[row][0][: prefix_lengths[row]] for row in group]
        if any(prefixes):
            cache = self.prefix_cache(prefixes)
        continuations = []
        for index, row in enumerate(group):
            length = prefix_lengths[row]
            for response, ids in enumerate(token_ids[row]):
                continuations.append(Continuation(row, response, ids[length:], index, length))
        for batch in similar_batches(
            continuations,
            length=lambda continuation: len(continuation.token_ids),
            max_tokens=self.batch_tokens,
            prefix_length=lambda continuation: continuation.prefix_length,
        ):
            inputs = self.padded([continuation.token_ids for continuation in batch])
            if cache:
                inputs.update(self.after_prefix(inputs, batch, cache))
            yield from zip(batch, self.batch_outputs(inputs), strict=True)

    def padded(self, sequences):
        """Token ids and attention mask of sequences, each [B, L], padded on the right."""
        batch = self.tokenizer.pad(
            {"input_ids": sequences}, padding_side="right", return_tensors="pt"
        )
        return batch.to(self.model.device)

    def prefix_cache(self, prefixes):
        # The base model gives no score: it is read after the last token of a whole chat.
        inputs = self.padded(prefixes)
        cache = self.model.base_model(**inputs, use_cache=True).past_key_values
        return PrefixCache(cache.layers, inputs["attention_mask"])

    def after_prefix(self, inputs, batch, cache):
        """The inputs with which B continuations of at most L tokens attend to their prefixes."""
        import torch
        from transformers import DynamicCache

        device = self.model.device
        prefixes = torch.tensor([continuation.prefix for continuation in batch], device=device)
        starts = torch.tensor([continuation.prefix_length for continuation in batch], device=device)

        # Each continuation gets a copy of the keys and values of its row's prefix, gathered from
        # [P, heads, T, head size] to [B, heads, T, head size]. A copy, because the model appends
        # those of the continuation to the cache that it is given.
        gathered = []
        for layer in cache.layers:
            gathered.append((layer.keys[prefixes], layer.values[prefixes]))

        # A continuation follows T cached tokens, and the last of them may be padding of its prefix.
        # The mask hides that, and positions go on from the prefix's length without padding.
        length = inputs["input_ids"].shape[1]
        positions = starts[:, None] + torch.arange(length, device=device)  # [B, L]
        mask = torch.cat([cache.attention_mask[prefixes], inputs["attention_mask"]], dim=1)
        return {
            "past_key_values": DynamicCache(gathered),
            "position_ids": positions,
            "attention_mask": mask,  # [B, T + L]
        }

    def batch_outputs(self, inputs):
        """[{name: value}] of a batch; None for a sequence that the model's own code refuses."""
        try:
            outputs = self.model(**inputs)
        except ValueError as error:
            if not has_own_code(self.model):
                raise
            return self.outputs_of_halves(inputs, error)
        by_sequence = [{} for _ in inputs["input_ids"]]
        for name in OUTPUTS:
            if name in outputs:
                values = outputs[name].float().tolist()
                for output, value in zip(by_sequence, values, strict=True):
                    output[name] = value
        return by_sequence

    def outputs_of_halves(self, inputs, error):
        """The outputs of a batch that the model's own code refused: one sequence is the reason.

        ArmoRM's code looks for the tokens that end the prompt. They are not there if the first
        characters of the response were merged with the template's last ones into one token.
        """
        size = len(inputs["input_ids"])
        if size == 1:
            self.refusal = models.first_line(error)
            return [None]
        outputs = []
        for half in (slice(0, size // 2), slice(size // 2, size)):
            outputs += self.batch_outputs({name: tensor[half] for name, tensor in inputs.items()})
        return outputs


def has_own_code(model):
    """Does the model come with its code, in place of the library's?"""
    return not type(model).__module__.startswith("transformers.")


def can_share_prefix(model):
    """The cache of a prefix serves models of the library's code that attend to all tokens."""
    sliding_window = getattr(model.config.get_text_config(), "sliding_window", None)
    return not has_own_code(model) and not sliding_window


def load(path, dtype, example, trust_remote_code=False, revision=None, chat_template_kwargs=None):
    """(model, tokenizer); what cannot score the example, (FILE:LINE, messages), ends the program.

    The options are those of models.tokenizer.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    if trust_remote_code:
        remote_code.restore_names()
    origin = {"trust_remote_code": trust_remote_code, "revision": revision}
    tokenizer = models.tokenizer(path, example, chat_template_kwargs=chat_template_kwargs, **origin)
    models.ensure_padding(tokenizer)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = models.load(
        AutoModelForSequenceClassification,
        path,
        tokenizer,
        dtype=dtype,
        device_map=device,
        **origin,
    )
    # The score is read at the last token that is not this one.
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = tokenizer.pad_token_id
    if not has_own_code(model) and model.config.num_labels != 1:
        sys.exit(f"{path}: gives {model.config.num_labels} scores, a reward model gives one")
    return model, tokenizer
