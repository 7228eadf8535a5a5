"""Score every response with a reward model (paper 3.3, Algorithm 2).

The tokens that a row's responses share, its prompt above all, go through the model once. What follows them goes through
in batches of like length, of at most --batch_tokens tokens with padding, and at most 8 times as many with the shared
ones that each attends to; the size of the batch changes a score by rounding only (below 1e-4 in float32). Memory does
not grow with the file. Finished rows survive a kill: give the same command again. A model with code of its own
(--trust_remote_code) that weighs objectives, ArmoRM, is read whole.

Reads:  --responses_file, {"id", "prompt", "responses", "finish_reasons", ...}
Writes: --output_file, the same rows with "rewards", one for each response, and "annotator"; of ArmoRM also
        "objectives", [{name: value} for each response], and "gate", {name: weight}. A row in which a prompt and a
        response are longer than the model's context is dropped and counted, and so is one with a response that the
        model's own code refuses.

    python annotation/1a_reward_model.py --model_name_or_path runs/tiny/reward_model --n 8 \
        --responses_file runs/tiny/iter1/responses.jsonl --output_file runs/tiny/iter1/rewards.jsonl

One shard of two, on the second GPU; common/shards.py joins them:
    CUDA_VISIBLE_DEVICES=1 python annotation/1a_reward_model.py --shard 1 --num_shards 2 ...
"""

import itertools
import math
import sys
import time

from common import arguments, models, remote_code, rows, shards


def take(items, length, budget, attended=lambda item: 0):
    """Yields lists of items, none shorter than 0.9 of the longest: of `budget` tokens with padding, or one item.

    With the tokens that each attends to in a cache, padded as well, they are at most 8 times as many.
    """
    items = sorted(items, key=length, reverse=True)
    while items:
        longest = length(items[0])
        size = budget // max(1, longest)
        size = min(size, 8 * budget // max(1, longest + max(map(attended, items[: size or 1]))))
        batch = [item for item in items[: size or 1] if length(item) >= 0.9 * longest]
        yield batch
        items = items[len(batch) :]


def chats_of(row):
    """The prompt with each response."""
    return [[*row["prompt"], {"role": "assistant", "content": text}] for text in row["responses"]]


class Scorer:
    """A reward model and its tokenizer; `share`: prompts go through the model once for all their responses."""

    def __init__(self, model, tokenizer, batch_tokens, share):
        self.model, self.tokenizer, self.batch_tokens, self.share = (
            model,
            tokenizer,
            batch_tokens,
            share,
        )
        self.refusal = None  # what the model's own code said of the last sequence that it refused

    def padded(self, ids):
        return self.tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt").to(
            self.model.device
        )

    def outputs(self, chunk):
        """What the model gives for each response of each row, as {name: list}; None for a row that does not fit.

        A response that the model's own code refuses has None.
        """
        import torch

        chats = [chats_of(row) for row in chunk]
        of_row = zip(chunk, chats, strict=True)
        texts = [
            models.render(self.tokenizer, chat, row.at("prompt"))
            for row, several in of_row
            for chat in several
        ]
        ids = iter(self.tokenizer(texts, add_special_tokens=False)["input_ids"])
        ids = [[next(ids) for _ in row] for row in chats]
        results = [[None] * len(row) for row in chats]
        limit = self.model.config.get_text_config().max_position_embeddings
        fit = [i for i, row in enumerate(ids) if max(map(len, row)) <= limit]
        shared = {i: self.shared(ids[i]) for i in fit}
        with torch.inference_mode():
            for group in take(fit, shared.get, self.batch_tokens):
                cache = mask = None
                if any(shared[i] for i in group):
                    prefix = self.padded([ids[i][0][: shared[i]] for i in group])
                    cache, mask = (
                        self.model.base_model(**prefix, use_cache=True).past_key_values,
                        prefix["attention_mask"],
                    )
                of_group = [
                    (place, i, j) for place, i in enumerate(group) for j in range(len(ids[i]))
                ]
                length, attended = (
                    (lambda at: len(ids[at[1]][at[2]]) - shared[at[1]]),
                    (lambda at: shared[at[1]]),
                )
                for batch in take(of_group, length, self.batch_tokens, attended):
                    rest = self.padded([ids[i][j][shared[i] :] for _, i, j in batch])
                    if cache:
                        places = torch.tensor(
                            [place for place, _, _ in batch], device=self.model.device
                        )
                        starts = torch.tensor(
                            [shared[i] for _, i, _ in batch], device=self.model.device
                        )
                        rest["past_key_values"] = of_rows(cache, places)
                        rest["position_ids"] = starts[:, None] + torch.arange(
                            rest["input_ids"].shape[1]
                        ).to(starts)
                        rest["attention_mask"] = torch.cat(
                            [mask[places], rest["attention_mask"]], 1
                        )
                    for (_, i, j), values in zip(batch, self.values(rest), strict=True):
                        results[i][j] = values
        return [row if i in shared else None for i, row in enumerate(results)]

    def values(self, inputs):
        """[{name: value}] of a batch; None for a sequence that the model's own code refuses.

        ArmoRM's looks for the tokens that end the prompt: they are not there if the response's first characters have
        gone into one token with the template's last ones. It refuses the batch for the sake of one.
        """
        try:
            given = self.model(**inputs)
        except ValueError as error:
            if self.share or type(self.model).__module__.startswith("transformers."):
                raise
            count = len(inputs["input_ids"])
            if count == 1:
                self.refusal = models.first_line(error)
                return [None]
            halves = [slice(0, count // 2), slice(count // 2, count)]
            parts = [{name: tensor[half] for name, tensor in inputs.items()} for half in halves]
            return [value for part in parts for value in self.values(part)]
        names = [name for name in ("logits", "score", "rewards", "gating_output") if name in given]
        columns = [given[name].float().tolist() for name in names]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    def shared(self, of_row):
        """How many tokens the chats of a row begin with in common, so that each keeps one at least."""
        if not self.share or len(of_row) == 1:
            return 0
        most = min(map(len, of_row)) - 1
        return next(
            (
                k
                for k, tokens in enumerate(zip(*of_row, strict=False))
                if len(set(tokens)) > 1 or k == most
            )
        )


def of_rows(cache, places):
    """A new cache whose rows are those of another, chosen by place."""
    from transformers import DynamicCache

    return DynamicCache([(layer.keys[places], layer.values[places]) for layer in cache.layers])


def load(path, dtype, example, **origin):
    """(model, tokenizer), checked by an example of a row; what cannot score a response ends the program.

    origin: trust_remote_code, revision and chat_template_kwargs, as models.tokenizer takes them.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    if origin["trust_remote_code"]:
        remote_code.restore_names()
    tokenizer = models.tokenizer(path, example, **origin)
    models.ensure_padding(tokenizer)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    origin.pop("chat_template_kwargs")
    model = models.load(
        AutoModelForSequenceClassification,
        path,
        tokenizer,
        dtype=dtype,
        device_map=device,
        **origin,
    )
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = tokenizer.pad_token_id
    if type(model).__module__.startswith("transformers.") and model.config.num_labels != 1:
        sys.exit(f"{path}: gives {model.config.num_labels} scores, a reward model gives one")
    return model, tokenizer


def annotated(row, given, names):
    """The row with what the model gives for its responses."""
    row["rewards"] = [one["score"] if "score" in one else one["logits"][0] for one in given]
    if not all(map(math.isfinite, row["rewards"])):
        rows.refuse(row, f"rewards: {row['rewards']} are not all finite")
    if "gating_output" in given[0]:
        row["objectives"] = [dict(zip(names, one["rewards"], strict=True)) for one in given]
        row["gate"] = dict(
            zip(names, given[0]["gating_output"], strict=True)
        )  # of the prompt, the same for each
    return row


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run the code that comes with the model"
    )
    parser.add_argument(
        "--revision", help="commit of a model on the hub; its code is run at a pinned commit only"
    )
    parser.add_argument("--responses_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--n",
        type=arguments.whole(0),
        help="responses of every row (default: as the first; 0: any)",
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

    total = sum(1 for _ in answered())
    # A share of the rows may be empty.
    example = next(((row.at("prompt"), chats_of(row)[0]) for row in answered()), None)

    import torch

    model, tokenizer = load(
        args.model_name_or_path,
        args.dtype,
        example,
        trust_remote_code=args.trust_remote_code,
        revision=args.revision,
        chat_template_kwargs=args.chat_template_kwargs,
    )
    # The cache of a prompt serves models that attend to everything and score by the library's own code.
    own = not type(model).__module__.startswith("transformers.")
    share = not own and not getattr(model.config.get_text_config(), "sliding_window", None)
    on_cpu = model.device.type == "cpu"
    small = not on_cpu and torch.cuda.get_device_properties(model.device).total_memory < 40 * 2**30
    batch_tokens = args.batch_tokens or (1024 if on_cpu else 4096 if small else 16_384)
    scorer = Scorer(model, tokenizer, batch_tokens, share)
    names = getattr(model.config, "objectives", None)

    writer = rows.Writer(args.output_file, rows.this_command([args.output_file]))
    todo = (row for row in answered() if row["id"] not in writer.done)
    start, done, dropped, refused = time.time(), len(writer.done), 0, 0
    while chunk := list(itertools.islice(todo, args.chunk_size)):
        finished = []
        for row, given in zip(chunk, scorer.outputs(chunk), strict=True):
            if given is None:
                dropped += 1
            elif None in given:
                refused += 1
            else:
                numbered = [*map(str, range(len(given[0].get("rewards", ()))))]
                finished.append(
                    {
                        **annotated(row, given, names or numbered),
                        "annotator": args.model_name_or_path,
                    }
                )
        writer.add(finished)
        done, seconds = done + len(chunk), time.time() - start
        rate = (done - len(writer.done)) / seconds
        told = f"{done} of {total} rows, {rate:.0f}/s, {(total - done) / rate:.0f} s left"
        print(told, end="\r" if sys.stdout.isatty() else "\n", flush=True)
    if args.num_shards == 1 and total == dropped:
        sys.exit(
            f"{args.responses_file}: every row is longer than the context of {args.model_name_or_path}"
        )
    if args.num_shards == 1 and total == dropped + refused:
        sys.exit(
            f"{args.responses_file}: {args.model_name_or_path} scores no row ({scorer.refusal})"
        )
    writer.finish()
    by_code = f"refused by the model's code: {refused}, " if own else ""
    print(
        f"{args.output_file} rows in: {total}, finished before: {len(writer.done)}, dropped, too long: {dropped}, "
        f"{by_code}rows out: {total - dropped - refused}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
