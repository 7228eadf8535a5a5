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
    parser.add_argument(
        "--max_new_tokens",
        type=arguments.whole(1),
        default=2048,
        help="tokens per response at most (paper 3.3)",
    )
    return sampling.parse(parser)


class ResponseSampler(sampling.Sampler):
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
            # The engine keeps the order of the requests: one output for each temperature.
            outputs_of_prompt = list(itertools.islice(outputs, len(self.args.temperatures)))
            finished.append(self.finished_row(row, outputs_of_prompt))
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

    def finished_row(self, row, outputs):
        """A prompt's row with its responses. outputs: vLLM's, one for each temperature."""
        samples = []
        temperatures = []
        for temperature, output in zip(self.args.temperatures, outputs, strict=True):
            samples += output.outputs
            temperatures += [temperature] * self.samples_per_temperature
        return {
            **row,
            "responses": [sample.text for sample in samples],
            "temperatures": temperatures,
            "finish_reasons": [sample.finish_reason for sample in samples],
            "end_tokens": [self.end_token(sample) for sample in samples],
            "response_tokens": [len(sample.token_ids) for sample in samples],
            "prompt_tokens": len(outputs[0].prompt_token_ids),
            "policy": self.args.model_name_or_path,
        }


def main():
    args = parse_arguments()
    all_prompts = list(rows.read(args.prompts_file, "prompts"))
    prompts = list(shards.own_rows(all_prompts, args))
    tokenizer = sampling.load_tokenizer(args, prompts)
    turn_end = chats.turn_end(tokenizer)

    writer = rows.Writer(args.output_file, rows.this_command([args.output_file]))
    remaining = [row for row in prompts if row["id"] not in writer.done]
    counts = sampling.count_finished(writer)
    # A shard without prompts, or one that is finished, needs no engine.
    if remaining:
        sampler = ResponseSampler(args, tokenizer, turn_end, all_prompts, args.max_new_tokens)
        counts += sampling.sample_in_chunks(sampler, remaining, writer)
    writer.finish()
    print(
        f"{args.output_file} rows in: {len(prompts)}, finished before: {len(writer.done)}, "
        f"dropped, too long: {counts['too long']}, rows out: {len(prompts) - counts['too long']}, "
        f"truncated responses: {counts['truncated']}, {counts['seconds']:.1f} s"
    )


if __name__ == "__main__":
    main()
