"""Sample n responses to every prompt with vLLM: n/k at each of k temperatures, no top-k, no top-p (paper 3.3).

The engine gets the tokens of the chat, in which the template alone adds BOS, and stops at the token with which the
template ends a turn, beside the model's own ends. Every prompt has a seed of its own, made
from --seed and its id: its responses do not depend on shards or on a resumed run, but for the last bits of the
engine's arithmetic, which depend on what else is in the batch. Finished rows survive a kill: give the same command
again.

Reads:  --prompts_file, {"id", "prompt", "system"?, ...}, where "system" goes to the engine before the prompt; a prompt
        that leaves no room for --max_new_tokens is dropped and counted
Writes: --output_file, the same rows with "responses", "temperatures" and "finish_reasons" ("length": cut off at
        --max_new_tokens), "end_tokens" (which ended each; "" if cut off), "response_tokens", "prompt_tokens" and
        "policy"

    python generation/2_responses.py --model_name_or_path runs/tiny/sft --prompts_file runs/tiny/iter1/prompts.jsonl \
        --n 8 --temperatures 1.0 0.7 --max_new_tokens 128 --output_file runs/tiny/iter1/responses.jsonl

On two GPUs, by the ranks of the launcher (torchrun, accelerate, srun); common/shards.py joins what the two write:
    torchrun --nproc_per_node 2 -- generation/2_responses.py --model_name_or_path runs/tiny/sft ...
    python common/shards.py runs/tiny/iter1/prompts.jsonl runs/tiny/iter1/responses.jsonl 2
"""

import hashlib
import sys
import time

from common import arguments, chats, engines, models, rows, shards


def chat(row):
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return [*system, *row["prompt"]]


def prompt_ids(tokenizer, prompts):
    """The tokens of each prompt, as the engine is asked it."""
    texts = [chats.prompt_text(tokenizer, chat(row), row.at("prompt")) for row in prompts]
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def sampled_end_token(tokenizer, sample):
    """The token that ended a sample of vLLM's, "" if it was cut off."""
    return (
        tokenizer.convert_ids_to_tokens(sample.token_ids[-1])
        if sample.finish_reason == "stop"
        else ""
    )


def cut_off_of(finished):
    """How many responses of rows are cut off."""
    return sum(row["finish_reasons"].count("length") for row in finished)


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--prompts_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--n",
        type=arguments.whole(1, 16384),
        default=8,
        help="responses a prompt (paper, Algorithm 2)",
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
        help="tokens a response at most (paper 3.3)",
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
        help="tokens of prompt and response at most (default: the model's)",
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
    every = list(rows.read(args.prompts_file, "prompts"))
    prompts = every[args.shard :: args.num_shards]

    from transformers import AutoModelForCausalLM

    example = (
        (prompts[0].at("prompt"), chat(prompts[0])) if prompts else None
    )  # a share of the rows may be empty
    tokenizer = models.tokenizer(
        args.model_name_or_path, example, chat_template_kwargs=args.chat_template_kwargs
    )
    models.check(AutoModelForCausalLM, args.model_name_or_path, tokenizer)
    end = chats.turn_end(tokenizer)

    writer = rows.Writer(args.output_file, rows.this_command([args.output_file]))
    todo = [row for row in prompts if row["id"] not in writer.done]
    start, dropped, tokens, warned = time.time(), 0, 0, False
    truncated = cut_off_of(rows.read(writer.partial)) if writer.done else 0
    if todo:
        limit = engines.longest(args.model_name_or_path, args.max_model_len)
        room = limit - args.max_new_tokens
        # Of all prompts, whichever are this shard's or finished: the engine is the same in every process.
        length_of = {
            row["id"]: len(ids)
            for row, ids in zip(every, prompt_ids(tokenizer, every), strict=True)
        }
        longest = max((length for length in length_of.values() if length <= room), default=None)
        if longest is None:
            sys.exit(
                f"{args.prompts_file}: no prompt leaves room for {args.max_new_tokens} new tokens"
            )
        engine = engines.start(
            args.model_name_or_path,
            args.dtype,
            longest + args.max_new_tokens,
            limit,
            tensor_parallel_size=args.tensor_parallel_size,
            seed=args.seed,
        )
        from vllm import SamplingParams

        start = time.time()
    share = args.n // len(args.temperatures)
    for first in range(0, len(todo), args.chunk_size):
        chunk = todo[first : first + args.chunk_size]
        fitting = [row for row in chunk if length_of[row["id"]] <= room]
        dropped += len(chunk) - len(fitting)
        requests, settings = [], []
        for row, ids in zip(
            fitting, prompt_ids(tokenizer, fitting) if fitting else [], strict=True
        ):
            seed = int(hashlib.sha256(f"{args.seed} {row['id']}".encode()).hexdigest()[:7], 16)
            for i, temperature in enumerate(args.temperatures):
                requests.append({"prompt_token_ids": ids})
                settings.append(
                    SamplingParams(
                        n=share,
                        temperature=temperature,
                        max_tokens=args.max_new_tokens,
                        seed=seed + i * share,
                        stop_token_ids=[end.token_id] if end.token else None,
                    )
                )
        outputs = iter(engine.generate(requests, settings, use_tqdm=False) if requests else [])
        finished = []
        for row in fitting:
            answered = [next(outputs) for _ in args.temperatures]
            samples = [sample for request in answered for sample in request.outputs]
            finished.append({
                **row,
                "responses": [sample.text for sample in samples],
                "temperatures": [temperature for temperature in args.temperatures for _ in range(share)],
                "finish_reasons": [sample.finish_reason for sample in samples],
                "end_tokens": [sampled_end_token(tokenizer, sample) for sample in samples],
                "response_tokens": [len(sample.token_ids) for sample in samples],
                "prompt_tokens": len(answered[0].prompt_token_ids),
                "policy": args.model_name_or_path,
            })  # fmt: skip
            tokens += sum(finished[-1]["response_tokens"])
        writer.add(finished)
        cut_off, sampled = cut_off_of(finished), args.n * len(finished)
        truncated += cut_off
        if 2 * cut_off > sampled and not warned:
            warned = True
            print(
                f"{cut_off} of {sampled} responses are cut off at --max_new_tokens {args.max_new_tokens}: raise it, or "
                f"look whether the model has learned to end its turns ({end.token or 'EOS'})",
                flush=True,
            )
        done, seconds = first + len(chunk), time.time() - start
        left = seconds / done * (len(todo) - done)
        told = f"{done} of {len(todo)} prompts, {tokens / seconds:.0f} tokens/s, {left:.0f} s left"
        print(told, end="\r" if sys.stdout.isatty() else "\n", flush=True)
    writer.finish()
    print(
        f"{args.output_file} rows in: {len(prompts)}, finished before: {len(writer.done)}, "
        f"dropped, too long: {dropped}, rows out: {len(prompts) - dropped}, "
        f"truncated responses: {truncated}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
