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

import hashlib
import itertools
import sys
from collections import Counter

from common import arguments, chats, engines, models, rows, shards
from common.progress import Progress


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--prompts_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--n",
        # vLLM's limit of samples per request.
        type=arguments.whole(1, 16384),
        default=8,
        help="responses per prompt (paper, Algorithm 2)",
    )
    parser.add_argument(
        "--temperatures",
        type=arguments.real(0, 2),
        nargs="+",
        default=[1.0, 0.7],
        help="equal shares (paper 3.3)",
    )
    parser.add_argument(
        "--max_new_tokens",
        type=arguments.whole(1),
        default=2048,
        help="tokens per response at most (paper 3.3)",
    )
    parser.add_argument("--chat_template_kwargs", help=arguments.TEMPLATE_HELP)
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    parser.add_argument(
        "--dtype",
        choices=arguments.DTYPES,
        help="(default: the weights'; vLLM's auto lowers float32)",
    )
    parser.add_argument(
        "--max_model_len",
        type=arguments.whole(1),
        help="tokens of prompt and response at most (default: the model's context)",
    )
    parser.add_argument(
        "--tensor_parallel_size",
        type=arguments.whole(1),
        default=1,
        help="GPUs that share one model",
    )
    parser.add_argument(
        "--chunk_size",
        type=arguments.whole(1),
        default=512,
        help="prompts between two writes to disk",
    )
    args = shards.parse(parser)
    if args.n % len(args.temperatures):
        parser.error(f"--n {args.n} does not divide by the {len(args.temperatures)} --temperatures")
    if 0 in args.temperatures and args.n > len(args.temperatures):
        parser.error("--temperatures 0: there is one greedy response, give it a share of one")
    return args


# Prompts as tokens


def chat(row):
    """The messages that the policy gets: "system" is its own, the annotators do not see it."""
    if row.get("system"):
        return [{"role": "system", "content": row["system"]}, *row["prompt"]]
    return row["prompt"]


def prompt_ids(tokenizer, prompts):
    """The token ids of each prompt, up to where the response begins."""
    texts = [chats.prompt_text(tokenizer, chat(row), row.at("prompt")) for row in prompts]
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def load_tokenizer(args, prompts):
    """The policy's tokenizer; a policy with missing or broken weights ends the program."""
    from transformers import AutoModelForCausalLM

    example = None
    # A shard may be empty.
    if prompts:
        example = (prompts[0].at("prompt"), chat(prompts[0]))
    tokenizer = models.tokenizer(
        args.model_name_or_path, example, chat_template_kwargs=args.chat_template_kwargs
    )
    models.check(AutoModelForCausalLM, args.model_name_or_path, tokenizer)
    return tokenizer


# Sampling


class Sampler:
    """vLLM's engine with a policy, and the settings with which it samples.

    all_prompts: those of all shards, finished ones too. The engine's context is as long as the
    longest of them that leaves room needs, so that the engine is the same in every process.
    """

    def __init__(self, args, tokenizer, turn_end, all_prompts):
        self.args = args
        self.tokenizer = tokenizer
        self.turn_end = turn_end
        self.samples_per_temperature = args.n // len(args.temperatures)
        limit = engines.longest(args.model_name_or_path, args.max_model_len)
        # Tokens of the longest prompt that leaves room for a response.
        self.max_prompt_tokens = limit - args.max_new_tokens
        self.prompt_tokens = {}
        for row, ids in zip(all_prompts, prompt_ids(tokenizer, all_prompts), strict=True):
            self.prompt_tokens[row["id"]] = len(ids)
        fitting_lengths = [
            length for length in self.prompt_tokens.values() if length <= self.max_prompt_tokens
        ]
        if not fitting_lengths:
            sys.exit(
                f"{args.prompts_file}: no prompt leaves room for {args.max_new_tokens} new tokens"
            )
        self.engine = engines.start(
            args.model_name_or_path,
            args.dtype,
            max(fitting_lengths) + args.max_new_tokens,
            limit,
            tensor_parallel_size=args.tensor_parallel_size,
            seed=args.seed,
        )

    def leaves_room(self, row):
        """Does a prompt leave room for --max_new_tokens?"""
        return self.prompt_tokens[row["id"]] <= self.max_prompt_tokens

    def sample(self, prompts):
        """The rows of these prompts with n responses each."""
        if not prompts:
            return []
        requests = []
        settings = []
        for row, ids in zip(prompts, prompt_ids(self.tokenizer, prompts), strict=True):
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

        # By the id, not by a counter: the seed does not depend on the other rows. Of the digest 7
        # digits, 28 bits: with what is added below, a seed stays below 2**31.
        digest = hashlib.sha256(f"{self.args.seed} {row['id']}".encode()).hexdigest()
        seed = int(digest[:7], 16)
        settings = []
        for index, temperature in enumerate(self.args.temperatures):
            sampling_params = SamplingParams(
                n=self.samples_per_temperature,
                temperature=temperature,
                max_tokens=self.args.max_new_tokens,
                # vLLM gives the n samples of a request the seeds from this one on.
                seed=seed + index * self.samples_per_temperature,
                stop_token_ids=[self.turn_end.token_id] if self.turn_end.token else None,
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

    def end_token(self, sample):
        """The token that ended a sample, "" if it is truncated."""
        if sample.finish_reason != "stop":
            return ""
        return self.tokenizer.convert_ids_to_tokens(sample.token_ids[-1])


def count_truncated(finished):
    """How many responses of these rows are truncated."""
    return sum(row["finish_reasons"].count("length") for row in finished)


def warn_of_truncation(truncated, sampled, max_new_tokens, turn_end):
    print(
        f"{truncated} of {sampled} responses are cut off at --max_new_tokens {max_new_tokens}: "
        "raise it, or check whether the model has learned to end its turns "
        f"({turn_end.token or 'EOS'})",
        flush=True,
    )


def main():
    args = parse_arguments()
    all_prompts = list(rows.read(args.prompts_file, "prompts"))
    prompts = list(shards.own_rows(all_prompts, args))
    tokenizer = load_tokenizer(args, prompts)
    turn_end = chats.turn_end(tokenizer)

    writer = rows.Writer(args.output_file, rows.this_command([args.output_file]))
    remaining = [row for row in prompts if row["id"] not in writer.done]
    counts = Counter()
    if writer.done:
        counts["truncated"] = count_truncated(rows.read(writer.partial))
    # A shard without prompts, or one that is finished, needs no engine.
    if remaining:
        sampler = Sampler(args, tokenizer, turn_end, all_prompts)

    progress = Progress(len(remaining), "prompts")
    warned = False
    for first in range(0, len(remaining), args.chunk_size):
        chunk = remaining[first : first + args.chunk_size]
        fitting = [row for row in chunk if sampler.leaves_room(row)]
        finished = sampler.sample(fitting)
        writer.add(finished)
        truncated = count_truncated(finished)
        sampled = args.n * len(finished)
        if 2 * truncated > sampled and not warned:
            warn_of_truncation(truncated, sampled, args.max_new_tokens, turn_end)
            warned = True
        counts["too long"] += len(chunk) - len(fitting)
        counts["truncated"] += truncated
        counts["tokens"] += sum(sum(row["response_tokens"]) for row in finished)
        rate = counts["tokens"] / progress.seconds()
        progress.show(first + len(chunk), f"{rate:.0f} tokens/s")
    writer.finish()
    print(
        f"{args.output_file} rows in: {len(prompts)}, finished before: {len(writer.done)}, "
        f"dropped, too long: {counts['too long']}, rows out: {len(prompts) - counts['too long']}, "
        f"truncated responses: {counts['truncated']}, {progress.seconds():.1f} s"
    )


if __name__ == "__main__":
    main()
