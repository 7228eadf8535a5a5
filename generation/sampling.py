"""What the scripts that sample from a policy share: flags, prompts, vLLM's engine, rows, the loop.

There is no top-k and no top-p. The chat template is rendered and tokenised here without special
tokens, so BOS comes from the template alone.
"""

import hashlib
import sys
from collections import Counter

from common import arguments, chats, engines, models, rows, shards
from common.progress import Progress

# Flags


def add_arguments(parser):
    """The flags of every script that samples."""
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
        "--chunk_size",
        type=arguments.whole(1),
        default=512,
        help="prompts between two writes to disk",
    )


def add_engine_arguments(parser):
    """The flags of vLLM's engine."""
    parser.add_argument(
        "--tensor_parallel_size",
        type=arguments.whole(1),
        default=1,
        help="GPUs that share one model",
    )


def add_response_arguments(parser):
    """The flags of responses of one turn."""
    parser.add_argument(
        "--max_new_tokens",
        type=arguments.whole(1),
        default=2048,
        help="tokens per response at most (paper 3.3)",
    )


def parse(parser):
    """Parse the arguments; the temperatures have to go together with --n."""
    args = shards.parse(parser)
    if args.n % len(args.temperatures):
        parser.error(f"--n {args.n} does not divide by the {len(args.temperatures)} --temperatures")
    if 0 in args.temperatures and args.n > len(args.temperatures):
        parser.error("--temperatures 0: there is one greedy response, give it a share of one")
    return args


# Prompts and tokenizer


def chat(row):
    """The messages that the policy gets: "system" is its own, the annotators do not see it."""
    if row.get("system"):
        return [{"role": "system", "content": row["system"]}, *row["prompt"]]
    return row["prompt"]


def prompt_ids(tokenizer, prompts, tools=None):
    """The token ids of each prompt, up to where the response begins.

    tools: the schemas of the tools that the policy may call, by default the row's own.
    """
    texts = []
    for row in prompts:
        schemas = tools or row.get("tools")
        texts.append(chats.prompt_text(tokenizer, chat(row), row.at("prompt"), schemas))
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


def seed_of(*parts):
    """A seed of these parts, a prompt's id among them.

    By the id, not by a counter: the seed does not depend on the other rows. Of the digest 7 digits,
    28 bits: with what a script adds to it, a seed stays below 2**31.
    """
    text = " ".join(map(str, parts))
    return int(hashlib.sha256(text.encode()).hexdigest()[:7], 16)


class Sampler:
    """The settings with which a script samples, and the lengths of its prompts.

    A script's own class gives `sample(prompts)`, the rows of these prompts with their responses.

    all_prompts: those of all shards, finished ones too. limit: tokens of prompt and response at
    most. tools: as in prompt_ids.
    """

    # What cuts responses off beside --max_new_tokens, for the warning.
    other_limit = ""

    def __init__(self, args, tokenizer, turn_end, all_prompts, limit, tools=None):
        self.args = args
        self.tokenizer = tokenizer
        self.turn_end = turn_end
        self.tools = tools
        self.samples_per_temperature = args.n // len(args.temperatures)
        # Tokens of the longest prompt that leaves room for a response.
        self.max_prompt_tokens = limit - args.max_new_tokens
        self.prompt_tokens = {}
        for row, ids in zip(all_prompts, prompt_ids(tokenizer, all_prompts, tools), strict=True):
            self.prompt_tokens[row["id"]] = len(ids)
        self.fitting_lengths = [
            length for length in self.prompt_tokens.values() if length <= self.max_prompt_tokens
        ]
        if not self.fitting_lengths:
            sys.exit(
                f"{args.prompts_file}: no prompt leaves room for {args.max_new_tokens} new tokens"
            )

    def leaves_room(self, row):
        """Does a prompt leave room for --max_new_tokens?"""
        return self.prompt_tokens[row["id"]] <= self.max_prompt_tokens

    def temperatures(self):
        """The temperature of each of the n responses to a prompt."""
        temperatures = []
        for temperature in self.args.temperatures:
            temperatures += [temperature] * self.samples_per_temperature
        return temperatures

    def finished_row(self, row, samples):
        """A prompt's row with its responses. samples: vLLM's, or of the same fields."""
        return {
            **row,
            "responses": [sample.text for sample in samples],
            "temperatures": self.temperatures(),
            "finish_reasons": [sample.finish_reason for sample in samples],
            "end_tokens": [self.end_token(sample) for sample in samples],
            "response_tokens": [len(sample.token_ids) for sample in samples],
            "prompt_tokens": self.prompt_tokens[row["id"]],
            "policy": self.args.model_name_or_path,
        }

    def end_token(self, sample):
        """The token that ended a sample, "" if none did."""
        # A stop string, which is text, is the other reason to stop.
        if sample.finish_reason != "stop" or isinstance(sample.stop_reason, str):
            return ""
        return self.tokenizer.convert_ids_to_tokens(sample.token_ids[-1])


class EngineSampler(Sampler):
    """A Sampler with vLLM's engine.

    response_tokens: of the longest response. The engine's context is as long as the longest of
    all_prompts that leaves room needs, so that the engine is the same in every process.
    """

    def __init__(self, args, tokenizer, turn_end, all_prompts, response_tokens, tools=None):
        limit = engines.longest(args.model_name_or_path, args.max_model_len)
        super().__init__(args, tokenizer, turn_end, all_prompts, limit, tools)
        # Tokens of a prompt with its response.
        self.context = min(max(self.fitting_lengths) + response_tokens, limit)
        self.engine = engines.start(
            args.model_name_or_path,
            args.dtype,
            self.context,
            limit,
            tensor_parallel_size=args.tensor_parallel_size,
            seed=args.seed,
        )

    def stop_token_ids(self):
        """For vLLM, beside the model's own stop tokens: that with which the template ends turns."""
        return [self.turn_end.token_id] if self.turn_end.token else None


# The rows of a file, a chunk at a time


def count(finished):
    """A Counter of what these rows hold."""
    counts = Counter()
    for row in finished:
        counts["tokens"] += sum(row["response_tokens"])
        counts["truncated"] += row["finish_reasons"].count("length")
        counts["at max_turns"] += row["finish_reasons"].count("turns")
        counts["programs"] += sum(row.get("programs", []))
        counts["failed programs"] += sum(row.get("failed_programs", []))
    return counts


def count_finished(writer):
    """The same of the rows that a killed run has written."""
    if not writer.done:
        return Counter()
    return count(rows.read(writer.partial))


def write_responses(args, prompts, make_sampler):
    """Sample the responses to these prompts, write their rows and print the counts.

    make_sampler: a function without arguments, which loads the model.
    """
    writer = rows.Writer(args.output_file, rows.this_command([args.output_file]))
    remaining = [row for row in prompts if row["id"] not in writer.done]
    counts = count_finished(writer)
    # A shard without prompts, or one that is finished, needs no model.
    if remaining:
        counts += sample_in_chunks(make_sampler(), remaining, writer)
    writer.finish()
    print(
        f"{args.output_file} rows in: {len(prompts)}, finished before: {len(writer.done)}, "
        f"dropped, too long: {counts['too long']}, rows out: {len(prompts) - counts['too long']}, "
        f"truncated responses: {counts['truncated']}, {counts['seconds']:.1f} s"
    )


def sample_in_chunks(sampler, prompts, writer):
    """Sample these prompts and write their rows, --chunk_size at a time; returns their counts.

    Further counts are "too long", prompts that leave no room and are dropped, and "seconds".
    """
    args = sampler.args
    counts = Counter()
    progress = Progress(len(prompts), "prompts")
    warned = False
    for first in range(0, len(prompts), args.chunk_size):
        chunk = prompts[first : first + args.chunk_size]
        fitting = [row for row in chunk if sampler.leaves_room(row)]
        finished = sampler.sample(fitting) if fitting else []
        writer.add(finished)
        counts_of_chunk = count(finished)
        sampled = args.n * len(finished)
        if 2 * counts_of_chunk["truncated"] > sampled and not warned:
            warn_of_truncation(counts_of_chunk["truncated"], sampled, sampler)
            warned = True
        counts += counts_of_chunk
        counts["too long"] += len(chunk) - len(fitting)
        rate = counts["tokens"] / progress.seconds()
        progress.show(first + len(chunk), f"{rate:.0f} tokens/s")
    counts["seconds"] = progress.seconds()
    return counts


def warn_of_truncation(truncated, sampled, sampler):
    limit = f"{sampler.args.max_new_tokens}{sampler.other_limit}"
    print(
        f"{truncated} of {sampled} responses are cut off at --max_new_tokens {limit}: "
        "raise it, or check whether the model has learned to end its turns "
        f"({sampler.turn_end.token or 'EOS'})",
        flush=True,
    )
