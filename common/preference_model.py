"""A pairwise preference model: the probability that one response to a prompt is better (paper 2.1).

P(first is better) is the softmax over the letters A and B, the mean of both orders. The question is
that of common/comparisons.py. Comparisons of similar length go through the model together; the size
of a batch changes a probability by rounding only.
"""

import sys
from dataclasses import dataclass

from common import batches, chats, comparisons, models


@dataclass
class Comparison:
    """Two responses to a prompt; the first is shown as A.

    A response is a text, or messages. where: FILE:LINE of the prompt, for messages.
    """

    prompt: list[dict]
    first: str | list[dict]
    second: str | list[dict]
    where: str

    def swapped(self):
        return Comparison(self.prompt, self.second, self.first, self.where)


class PreferenceModel:
    """A pairwise preference model, which names the better response by its letter.

    example: (FILE:LINE, messages), a question that the chat template has to render.
    batch_tokens: tokens of a batch with padding, by default by device and memory.
    bos: ask with the BOS token of the chat template.
    """

    def __init__(
        self, path, example, dtype, batch_tokens=None, bos=False, chat_template_kwargs=None
    ):
        self.tokenizer = load_tokenizer(path, example, chat_template_kwargs)
        # Token ids of A and B, and the number of tokens from the letter to the end of the chat.
        self.letter_ids, self.answer_length = chats.choice(self.tokenizer)
        # comparisons.text renders without BOS.
        self.render = models.render if bos else comparisons.text
        self.model = load_model(path, self.tokenizer, dtype)
        self.context = self.model.config.get_text_config().max_position_embeddings
        default_tokens = batches.default_tokens(self.model.device, on_cpu=2048)
        self.batch_tokens = batch_tokens or default_tokens

    def probabilities(self, compared):
        """P(first is better) of each Comparison; None where it is longer than the context."""
        # Both orders of all comparisons are batched together, by length.
        swapped = [comparison.swapped() for comparison in compared]
        p_shown_first = self.probabilities_of_a([*compared, *swapped])
        p_first = p_shown_first[: len(compared)]
        p_second = p_shown_first[len(compared) :]
        probabilities = []
        for first, second in zip(p_first, p_second, strict=True):
            if first is None or second is None:
                probabilities.append(None)
            else:
                probabilities.append((first + 1 - second) / 2)
        return probabilities

    def probabilities_of_a(self, compared):
        """P(A) of each Comparison in the order in which it is shown, or None."""
        import torch

        prompts = self.tokenized(compared)
        fitting = [i for i, ids in enumerate(prompts) if len(ids) <= self.context]
        p_a = [None] * len(prompts)
        with torch.inference_mode():
            for batch in batches.by_length(fitting, lambda i: len(prompts[i]), self.batch_tokens):
                p_of_batch = self.p_a_of_batch([prompts[i] for i in batch])
                for i, probability in zip(batch, p_of_batch, strict=True):
                    p_a[i] = probability
        return p_a

    def tokenized(self, compared):
        """Token ids of each question with its chat template, up to where the answer begins."""
        # Which letter stands in the answer does not matter: it is cut off.
        answer = {"role": "assistant", "content": "A"}
        texts = []
        for comparison in compared:
            question = comparisons.question(comparison.prompt, comparison.first, comparison.second)
            texts.append(self.render(self.tokenizer, [*question, answer], comparison.where))
        token_ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [ids[: -self.answer_length] for ids in token_ids]

    def p_a_of_batch(self, prompts):
        """P(A) of each prompt."""
        # Padded on the left: the token after the last position is the letter in every row.
        inputs = self.tokenizer.pad(
            {"input_ids": prompts}, padding_side="left", return_tensors="pt"
        )
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        outputs = self.model(**inputs.to(self.model.device), logits_to_keep=1)
        logits = outputs.logits[:, -1, self.letter_ids].float()  # [prompts, 2]
        return logits.softmax(-1)[:, 0].tolist()


def load_tokenizer(path, example, chat_template_kwargs):
    tokenizer = models.tokenizer(path, example, chat_template_kwargs=chat_template_kwargs)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        sys.exit(f"{path}: its tokenizer has neither a pad token nor an EOS token")
    return tokenizer


def load_model(path, tokenizer, dtype):
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return models.load(AutoModelForCausalLM, path, tokenizer, dtype=dtype, device_map=device)
