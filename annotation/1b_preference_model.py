"""Compare responses with a pairwise preference model: P(A is better), the mean of both orders (paper 2.1).

The question is that of the published model, letter by letter, without BOS (common/comparisons.py).

--method tournament finds the best and the worst of n by a linear tournament: each response meets the best so far, then
the others meet the worst so far. The best gets reward 1, the worst 0, the rest 0.5; all get 0.5 where no comparison had
a winner. --method all_pairs compares each with each; the reward is the mean probability to win. Comparisons of like
length go through the model together, in batches of at most --batch_tokens tokens with padding; the size of the batch
changes a probability by rounding only (below 1e-4 in float32). Finished rows survive a kill: give the same command
again.

Reads:  --responses_file, {"id", "prompt", "responses", "finish_reasons", ...}
Writes: --output_file, the same rows with "rewards", one for each response, "annotator" and "judgement", the comparisons
        [{"a": i, "b": j, "probability": that response i is better than response j}]. A row in which a comparison is
        longer than the model's context is dropped and counted.

    python annotation/1b_preference_model.py --model_name_or_path runs/tiny/preference_model --n 8 \
        --responses_file runs/tiny/iter1/responses.jsonl --output_file runs/tiny/iter1/rewards.jsonl
"""

import itertools
import math
import sys
import time

from common import arguments, chats, comparisons, models, rows, shards


def tournament(n):
    """A coroutine that yields the next comparison (i, j), is sent P(i is better), and returns the rewards."""
    best, known = 0, {}
    for i in range(1, n):
        known[best, i] = yield best, i
        best = best if known[best, i] >= 0.5 else i
    others = [i for i in range(n) if i != best]
    worst = others[0]
    for i in others[1:]:
        if (worst, i) not in known:
            known[worst, i] = yield worst, i
        worst = i if known[worst, i] >= 0.5 else worst
    if all(
        abs(p - 0.5) < 1e-6 for p in known.values()
    ):  # such as by a model that goes by the place alone
        return [0.5] * n
    return [1.0 if i == best else 0.0 if i == worst else 0.5 for i in range(n)]


def all_pairs(n):
    """The same, where each meets each."""
    wins = [0.0] * n
    for i, j in itertools.combinations(range(n), 2):
        probability = yield i, j
        wins[i] += probability / (n - 1)
        wins[j] += (1 - probability) / (n - 1)
    return wins


METHODS = {"tournament": tournament, "all_pairs": all_pairs}


def annotate(chunk, method, probabilities):
    """Adds "rewards" and "judgement" to rows; those with a comparison that does not fit get None."""
    running = []  # (row, its coroutine, its next comparison)
    for row in chunk:
        row["judgement"], row["rewards"] = [], None
        running.append((row, match := METHODS[method](len(row["responses"])), next(match)))
    while running:  # one comparison of each row at a time, all rows together
        asked = [(row, *(row["responses"][i] for i in pair)) for row, _, pair in running]
        answers, left = probabilities(asked), []
        for (row, match, (i, j)), answer in zip(running, answers, strict=True):
            if answer is None:
                continue
            if not math.isfinite(answer):
                rows.refuse(
                    row, f"judgement: the probability of response {i} against {j} is {answer}"
                )
            row["judgement"].append({"a": i, "b": j, "probability": answer})
            try:
                left.append((row, match, match.send(answer)))
            except StopIteration as finished:
                row["rewards"] = finished.value
        running = left
    return chunk


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--responses_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--n",
        type=arguments.whole(0),
        help="responses of every row (default: as the first; 0: any)",
    )
    parser.add_argument(
        "--method", choices=[*METHODS], default="tournament", help="which responses meet"
    )
    parser.add_argument(
        "--bos",
        action="store_true",
        help="ask with the BOS token of the chat template, as a policy that judges itself was fine-tuned",
    )
    parser.add_argument(
        "--batch_tokens",
        type=arguments.whole(1),
        help="tokens a batch, padding included (default: by device and memory)",
    )
    parser.add_argument(
        "--dtype",
        choices=arguments.DTYPES,
        default="float32",
        help="of weights and activations: float32, bfloat16",
    )
    parser.add_argument(
        "--chunk_size", type=arguments.whole(1), default=512, help="rows between two writes to disk"
    )
    parser.add_argument("--chat_template_kwargs", help=arguments.TEMPLATE_HELP)
    args = shards.parse(parser)

    def answered():  # read twice: first to check all of it, then by chunks, so that memory does not grow with the file
        checked = rows.read(args.responses_file, "responses", n=args.n)
        return itertools.islice(checked, args.shard, None, args.num_shards)

    total, example = 0, None
    for row in answered():
        total += 1
        example = example or (
            row.at("prompt"),
            comparisons.question(row["prompt"], *(row["responses"] * 2)[:2]),
        )
        if len(row["responses"]) < 2:
            sys.exit(
                f"{args.responses_file}: responses: {len(row['responses'])}, a comparison needs two"
            )

    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = models.tokenizer(
        args.model_name_or_path, example, chat_template_kwargs=args.chat_template_kwargs
    )
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        sys.exit(
            f"{args.model_name_or_path}: its tokenizer has neither a pad token nor an EOS token"
        )
    side_ids, answer_length = chats.choice(tokenizer)
    answer = {
        "role": "assistant",
        "content": "A",
    }  # which one does not matter: the probability is read before it

    rendered = models.render if args.bos else comparisons.text

    def ids_of(compared):
        texts = []
        for row, a, b in compared:
            messages = [*comparisons.question(row["prompt"], a, b), answer]
            texts.append(rendered(tokenizer, messages, row.at("prompt")))
        return [
            ids[:-answer_length] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]
        ]

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = models.load(
        AutoModelForCausalLM,
        args.model_name_or_path,
        tokenizer,
        dtype=args.dtype,
        device_map=device,
    )

    limit = model.config.get_text_config().max_position_embeddings
    on_cpu = model.device.type == "cpu"
    small = not on_cpu and torch.cuda.get_device_properties(model.device).total_memory < 40 * 2**30
    batch_tokens = args.batch_tokens or (2048 if on_cpu else 4096 if small else 16_384)

    @torch.inference_mode()
    def probabilities(compared):
        """P(first is better) for each (row, first, second); None where that is longer than the context."""
        ids = ids_of([(p, a, b) for p, a, b in compared] + [(p, b, a) for p, a, b in compared])
        p_a = [None] * len(ids)
        fitting = (i for i in range(len(ids)) if len(ids[i]) <= limit)
        order = sorted(fitting, key=lambda i: len(ids[i]), reverse=True)
        while order:
            size = max(1, batch_tokens // len(ids[order[0]]))
            batch, order = order[:size], order[size:]
            padded = tokenizer.pad(
                {"input_ids": [ids[i] for i in batch]}, padding_side="left", return_tensors="pt"
            )
            padded["position_ids"] = (padded["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            logits = (
                model(**padded.to(model.device), logits_to_keep=1).logits[:, -1, side_ids].float()
            )
            for i, p in zip(batch, logits.softmax(-1)[:, 0].tolist(), strict=True):
                p_a[i] = p
        both = zip(p_a[: len(compared)], p_a[len(compared) :], strict=True)
        return [None if None in (ab, ba) else (ab + 1 - ba) / 2 for ab, ba in both]

    writer = rows.Writer(args.output_file, rows.this_command([args.output_file]))
    todo = (row for row in answered() if row["id"] not in writer.done)
    start, done, dropped, made = time.time(), len(writer.done), 0, 0
    while chunk := list(itertools.islice(todo, args.chunk_size)):
        annotate(chunk, args.method, probabilities)
        finished = [
            {**row, "annotator": args.model_name_or_path} for row in chunk if row["rewards"]
        ]
        writer.add(finished)
        dropped += len(chunk) - len(finished)
        made += sum(len(row["judgement"]) for row in finished)
        done, seconds = done + len(chunk), time.time() - start
        left = seconds / (done - len(writer.done)) * (total - done)
        told = f"{done} of {total} rows, {made / seconds:.0f} comparisons/s, {left:.0f} s left"
        print(told, end="\r" if sys.stdout.isatty() else "\n", flush=True)
    if args.num_shards == 1 and total == dropped:
        sys.exit(
            f"{args.responses_file}: every row is longer than the context of {args.model_name_or_path}"
        )
    writer.finish()
    print(
        f"{args.output_file} rows in: {total}, finished before: {len(writer.done)}, dropped, too long: {dropped}, "
        f"rows out: {total - dropped}, comparisons: {made}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
