"""Sample n responses to every prompt from the geometric mixture of a policy and a reference.

The sampler of IPO-MD (arXiv 2403.08635): at each token the probabilities are
softmax(((1 - c) log pi + c log pi_ref) / T), with c of --mixture_coefficient. That is another
policy than the mean of the two models' weights (dpo/2_interpolate.py).

vLLM cannot mix the logits of two models within a step, so both run in transformers, on one GPU:
this is slower than 2_responses.py. Otherwise responses are sampled as there: no top-k and no top-p,
the chat template of the policy, the same stop tokens. Each response has its own seed, made from
--seed, the prompt's id and its index: rows do not depend on shards or on a resumed run, except for
the last bits of the arithmetic, which depend on the rest of the batch. Finished rows survive a
kill: the same command resumes.

Reads:  --prompts_file, {"id", "prompt", "system"?, ...}; the policies get "system" before the
        prompt. A prompt that leaves no room for --max_new_tokens is dropped and counted.
Writes: --output_file, the rows of 2_responses.py, and in each
            "mixture"   {"reference": --ref_model_name_or_path, "coefficient": c}

    python generation/2d_mixture_responses.py --model_name_or_path runs/tiny/iter1/policy \
        --ref_model_name_or_path runs/tiny/sft --prompts_file runs/tiny/iter2/prompts.jsonl \
        --n 2 --temperatures 1.0 --max_new_tokens 128 --output_file my_mixture_responses.jsonl
"""

import sys
from dataclasses import dataclass

import sampling
from common import arguments, batches, chats, engines, models, rows, shards


def parse_arguments():
    parser = arguments.Parser(__doc__)
    sampling.add_arguments(parser)
    sampling.add_response_arguments(parser)
    parser.add_argument("--ref_model_name_or_path", required=True, help="the reference pi_ref")
    parser.add_argument(
        "--mixture_coefficient",
        type=arguments.real(0, 1),
        default=0.5,
        help="c: 0 samples from the policy, 1 from the reference",
    )
    parser.add_argument(
        "--batch_tokens",
        type=arguments.whole(1),
        default=65_536,
        help="tokens of a batch, prompts and --max_new_tokens; both models keep keys and values",
    )
    # A chunk takes longer than vLLM's.
    parser.set_defaults(chunk_size=64)
    return sampling.parse(parser)


def load_tokenizer(args, prompts):
    """The policy's tokenizer, after a check that both models load and have the same tokens."""
    from transformers import AutoModelForCausalLM

    tokenizer = sampling.load_tokenizer(args, prompts)
    reference = args.ref_model_name_or_path
    reference_tokenizer = models.tokenizer(reference, template=False)
    models.check(AutoModelForCausalLM, reference, reference_tokenizer)
    models.check_same_tokens(tokenizer, reference_tokenizer)
    width = models.config(args.model_name_or_path).get_text_config().vocab_size
    reference_width = models.config(reference).get_text_config().vocab_size
    if width != reference_width:
        sys.exit(f"{reference}: logits of {reference_width} tokens, the policy has {width}")
    return tokenizer


@dataclass
class Request:
    """One response that is to be sampled."""

    prompt_ids: list[int]
    temperature: float
    seed: int
    index: int  # among the requests of its chunk


@dataclass
class Sample:
    """A sampled response, with the names of vLLM's fields."""

    text: str
    token_ids: list[int]  # with the one that ended it
    finish_reason: str
    stop_reason: None = None  # vLLM's could be a text


class MixtureSampler(sampling.Sampler):
    """Samples n responses to every prompt of a chunk, in batches of prompts of like length."""

    def __init__(self, args, tokenizer, turn_end, all_prompts):
        paths = (args.model_name_or_path, args.ref_model_name_or_path)
        limit = min(engines.longest(path, args.max_model_len) for path in paths)
        super().__init__(args, tokenizer, turn_end, all_prompts, limit)
        from common import mixture  # which imports torch

        policy, reference = (load_model(path, args.dtype, tokenizer) for path in paths)
        # The tokens at which vLLM would stop.
        stop_ids = chats.stop_ids(tokenizer, policy.generation_config) | {turn_end.token_id}
        self.mixture = mixture.Mixture(
            policy, reference, args.mixture_coefficient, stop_ids - {None}, args.max_new_tokens
        )

    def sample(self, prompts):
        """The rows of these prompts with n responses each."""
        requests = self.requests_of(prompts)
        samples = [None] * len(requests)
        for batch in batches.by_length(requests, self.tokens_of, self.args.batch_tokens):
            for request, sample in zip(batch, self.samples_of(batch), strict=True):
                samples[request.index] = sample
        finished = []
        for index, row in enumerate(prompts):
            first = index * self.args.n
            finished_row = self.finished_row(row, samples[first : first + self.args.n])
            finished_row["mixture"] = {
                "reference": self.args.ref_model_name_or_path,
                "coefficient": self.args.mixture_coefficient,
            }
            finished.append(finished_row)
        return finished

    def requests_of(self, prompts):
        """n requests for each of these prompts."""
        requests = []
        ids_of_prompts = sampling.prompt_ids(self.tokenizer, prompts)
        for row, ids in zip(prompts, ids_of_prompts, strict=True):
            for index, temperature in enumerate(self.temperatures()):
                seed = sampling.seed_of(self.args.seed, row["id"], index)
                requests.append(Request(ids, temperature, seed, index=len(requests)))
        return requests

    def tokens_of(self, request):
        """Tokens of a request, at most."""
        return len(request.prompt_ids) + self.args.max_new_tokens

    def samples_of(self, batch):
        """A Sample for each Request."""
        import torch

        device = self.mixture.policy.device
        generators = [torch.Generator(device).manual_seed(request.seed) for request in batch]
        sampled = self.mixture.sample(
            [request.prompt_ids for request in batch],
            [request.temperature for request in batch],
            generators,
        )
        return [self.sample_of(token_ids) for token_ids in sampled]

    def sample_of(self, token_ids):
        """The Sample of these tokens."""
        ended = token_ids[-1] in self.mixture.stop_ids
        text = self.tokenizer.decode(
            token_ids[:-1] if ended else token_ids,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        return Sample(text, token_ids, "stop" if ended else "length")


def load_model(path, dtype, tokenizer):
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = dtype or "auto"  # the weights'
    return models.load(AutoModelForCausalLM, path, tokenizer, dtype=dtype, device_map=device)


def main():
    args = parse_arguments()
    all_prompts = list(rows.read(args.prompts_file, "prompts"))
    prompts = list(shards.own_rows(all_prompts, args))
    tokenizer = load_tokenizer(args, prompts)
    turn_end = chats.turn_end(tokenizer)

    def make_sampler():
        return MixtureSampler(args, tokenizer, turn_end, all_prompts)

    sampling.write_responses(args, prompts, make_sampler)


if __name__ == "__main__":
    main()
