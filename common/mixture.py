"""Sample from the geometric mixture of two policies on their logits, token by token.

The mixture of policy pi and reference pi_ref with coefficient c gives the next token the
probability

    softmax(((1 - c) log pi + c log pi_ref) / T)

It is the opponent of Nash-MD (arXiv 2312.00886) and the sampler of IPO-MD (arXiv 2403.08635). The
geometric mixture over whole responses, normalised, is another distribution. That one cannot be
sampled; both papers use the token-wise mixture instead. transformers' `generate` runs
the policy; the reference runs in a logits processor, with a KV cache of its own.
"""

import contextlib

import torch
from transformers import GenerationConfig, LogitsProcessor

# Fills the padding on the left, which is masked, and what follows a response, which is cut off.
PADDING = 0


class MixedLogits(LogitsProcessor):
    """Mixes the policy's logits with those of the reference at the same position.

    reference: a language model, or a function that is called like one.
    attention_mask: of the prompts, [sequences, tokens], 0 where they are padded on the left.
    """

    def __init__(self, reference, coefficient, attention_mask):
        self.reference = reference
        self.coefficient = coefficient
        self.attention_mask = attention_mask
        self.cache = None

    def __call__(self, input_ids, scores):
        """input_ids: all tokens so far; scores: the policy's logits, [sequences, vocabulary].

        Logits are log-probabilities up to a constant, which the softmax takes out again.
        """
        return torch.lerp(scores, self.reference_logits(input_ids), self.coefficient)

    def reference_logits(self, input_ids):
        """The reference's logits of the next token, [sequences, vocabulary]."""
        new_ids = input_ids
        if self.cache is not None:
            new_ids = input_ids[:, -1:]
            sampled = torch.ones_like(new_ids)
            self.attention_mask = torch.cat([self.attention_mask, sampled], dim=1)
        # Positions count from the first token that is not padding, as `generate` counts them.
        positions = (self.attention_mask.cumsum(-1) - 1).clamp(min=0)
        outputs = self.reference(
            input_ids=new_ids,
            attention_mask=self.attention_mask,
            position_ids=positions[:, -new_ids.shape[1] :],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = outputs.past_key_values
        return outputs.logits[:, -1].float()


class GumbelNoise(LogitsProcessor):
    """Makes the largest score a sample of softmax(scores / temperature).

    The index of the largest of log p_i + g_i is distributed as p, where the g_i are independent
    and Gumbel distributed (the Gumbel-max trick). So `generate` decodes greedily, and each sequence
    has random numbers of its own, which do not depend on the rest of the batch.

    temperatures: one for each sequence. generators: torch's, one for each sequence; an entry None
    stands for torch's global generator.
    """

    def __init__(self, temperatures, generators):
        self.temperatures = temperatures
        self.generators = generators

    def __call__(self, input_ids, scores):
        # Draws in float32 are multiples of 2**-24. The smallest would give so large a Gumbel value
        # that its token wins whatever its score.
        noise = torch.empty_like(scores, dtype=torch.float64)  # [sequences, vocabulary]
        for noise_of_sequence, generator in zip(noise, self.generators, strict=True):
            noise_of_sequence.exponential_(generator=generator)
        temperatures = noise.new_tensor(self.temperatures)[:, None]
        # -log of an exponential variable is Gumbel distributed. Multiplied by T it stands for a
        # division of the scores by T, and T = 0 is the greedy choice.
        return scores - temperatures * noise.log()


def left_padded(prompts, device):
    """(ids, attention mask), each [prompts, tokens], of lists of token ids."""
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), PADDING)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.tensor(prompt)
        mask[row, length - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


@contextlib.contextmanager
def without_defaults(model):
    """Within it `generate` takes nothing from the model's generation_config: no penalties, say."""
    own_config = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own_config


class Mixture:
    """The geometric mixture of a policy and a reference.

    Both have the same tokens (models.check_same_tokens) and logits of the same width.
    reference: as in MixedLogits. stop_ids: the tokens that end a response.
    """

    def __init__(self, policy, reference, coefficient, stop_ids, max_new_tokens):
        self.policy = policy
        self.reference = reference
        self.coefficient = coefficient
        self.stop_ids = stop_ids
        self.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(stop_ids) or None,
            pad_token_id=PADDING,
        )

    def sample(self, prompts, temperatures, generators):
        """A response to each prompt: its token ids, through the one that ends it.

        prompts: lists of token ids. temperatures, generators: as in GumbelNoise.
        """
        ids, mask = left_padded(prompts, self.policy.device)
        processors = [
            MixedLogits(self.reference, self.coefficient, mask),
            GumbelNoise(temperatures, generators),
        ]
        with without_defaults(self.policy):
            sequences = self.policy.generate(
                ids,
                attention_mask=mask,
                generation_config=self.generation_config,
                logits_processor=processors,
            )
        return [self.through_end(sampled) for sampled in sequences[:, ids.shape[1] :].tolist()]

    def through_end(self, token_ids):
        """The tokens up to the first that ends a response; all if none does."""
        for index, token_id in enumerate(token_ids):
            if token_id in self.stop_ids:
                return token_ids[: index + 1]
        return token_ids
