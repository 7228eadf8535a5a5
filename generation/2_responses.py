"""Sample n responses to every prompt with vLLM, n/k at each of k temperatures (paper 3.3).

There is no top-k and no top-p. The chat template is rendered and tokenised here without special
tokens, so BOS comes from the template alone. A response stops at the token with which the template
ends a turn, or at one of the model's own stop tokens. Each prompt has its own seed, made from
--seed and its id: its responses do not depend on shards or on a resumed run, except for the last
bits of the engine's arithmetic, which depend on the rest of the batch. Finished rows survive a
kill: the same command resumes.

Reads:  --prompts_file, {"id", "prompt", "system"?, ...}; the engine gets "system" before the
        prompt. A prompt that leaves no room for --max_new_tokens is dropped and counted.
Writes: --output_file, the same rows with
            "responses", "temperatures"
            "finish_reasons"    "length": truncated at --max_new_tokens
            "end_tokens"        the token that ended each response, "" if it is truncated
            "response_tokens", "prompt_tokens"      counts
            "policy"            --model_name_or_path

    python generation/2_responses.py --model_name_or_path runs/tiny/sft \
        --prompts_file runs/tiny/iter1/prompts.jsonl --n 8 --temperatures 1.0 0.7 \
        --max_new_tokens 128 --output_file runs/tiny/iter1/responses.jsonl

On two GPUs each process takes its share by the rank that the launcher gives it (torchrun,
accelerate, srun); common/shards.py joins the two files:
    torchrun --nproc_per_node 2 -- generation/2_responses.py --model_name_or_path runs/tiny/sft ...
    python common/shards.py runs/tiny/iter1/prompts.jsonl runs/tiny/iter1/responses.jsonl 2
"""

import itertools

import sampling
from common import arguments, chats, rows, shards


def parse_arguments():
    parser = arguments.Parser(__doc__)
    sampling.add_arguments(parser)
    sampling.add_engine_arguments(parser)
    sampling.add_response_arguments(parser)
    return sampling.parse(parser)


class ResponseSampler(sampling.EngineSampler):
    """Samples n responses to every prompt of a chunk at once."""

    def sample(self, prompts):
        """The rows of these prompts with n responses each."""
        requests = []
        settings = []
        ids_of_prompts = sampling.prompt_ids(self.tokenizer, prompts)
        for row, ids in zip(prompts, ids_of_prompts, strict=True):
            for sampling_params in self.sampling_params(row):
                requests.append({"prompt_token_ids": ids})
                settings.append(sampling_params)
        outputs = iter(self.engine.generate(requests, settings, use_tqdm=False))
        finished = []
        for row in prompts:
            samples = []
            # The engine keeps the order of the requests: one output for each temperature.
            for output in itertools.islice(outputs, len(self.args.temperatures)):
                samples += output.outputs
            finished.append(self.finished_row(row, samples))
        return finished

    def sampling_params(self, row):
        """vLLM's settings for the requests of a prompt, one for each temperature."""
        from vllm import SamplingParams

        seed = sampling.seed_of(self.args.seed, row["id"])
        settings = []
        for index, temperature in enumerate(self.args.temperatures):
            sampling_params = SamplingParams(
                n=self.samples_per_temperature,
                temperature=temperature,
                max_tokens=self.args.max_new_tokens,
                # vLLM gives the n samples of a request the seeds from this one on.
                seed=seed + index * self.samples_per_temperature,
                stop_token_ids=self.stop_token_ids(),
            )
            settings.append(sampling_params)
        return settings


def main():
    args = parse_arguments()
    all_prompts = list(rows.read(args.prompts_file, "prompts"))
    prompts = list(shards.own_rows(all_prompts, args))
    tokenizer = sampling.load_tokenizer(args, prompts)
    turn_end = chats.turn_end(tokenizer)

    def make_sampler():
        return ResponseSampler(args, tokenizer, turn_end, all_prompts, args.max_new_tokens)

    sampling.write_responses(args, prompts, make_sampler)


if __name__ == "__main__":
    main()
