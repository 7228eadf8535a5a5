"""Compare responses with a pairwise preference model, in both orders (paper 2.1).

P(A is better) is the softmax over the letters A and B, the mean of both orders. The question
is that of the published model (RLHFlow/pair-preference-model-LLaMA3-8B) letter by letter, without
BOS: common/comparisons.py.

--method tournament finds the best and the worst of n by a linear tournament: each response meets
the best so far, then the others meet the worst so far. The best gets reward 1, the worst 0, the
rest 0.5; all get 0.5 where no comparison had a winner. --method all_pairs compares each with each;
the reward is the mean win probability. Comparisons of similar length go through the model together,
in batches of at most --batch_tokens tokens including padding; batch size changes a probability by
rounding only (below 1e-4 in float32). Finished rows survive a kill: the same command resumes.

Reads:  --responses_file, {"id", "prompt", "responses", "finish_reasons", ...}
Writes: --output_file, the same rows with "rewards", one for each response, "annotator" and
        "judgement", the comparisons [{"a": i, "b": j, "probability": that response i is better than
        response j}]. A row in which a comparison is longer than the model's context is dropped and
        counted.

    python annotation/1b_preference_model.py --model_name_or_path runs/tiny/preference_model \
        --n 8 --responses_file runs/tiny/iter1/responses.jsonl \
        --output_file runs/tiny/iter1/rewards.jsonl
"""

import itertools
import math
import sys
from collections import Counter
from dataclasses import dataclass

import tournament
from common import arguments, batches, chats, comparisons, models, rows, shards
from common.progress import Progress


def all_pairs(n):
    """A generator: yields each match (i, j), is sent P(i beats j), returns the rewards."""
    rewards = [0.0] * n
    for i, j in itertools.combinations(range(n), 2):
        probability = yield i, j
        rewards[i] += probability / (n - 1)
        rewards[j] += (1 - probability) / (n - 1)
    return rewards


METHODS = {"tournament": tournament.linear, "all_pairs": all_pairs}


@dataclass
class Comparison:
    """Two responses to a prompt; the first is shown as A."""

    row: rows.Row
    first: str
    second: str

    def swapped(self):
        return Comparison(self.row, self.second, self.first)


class PreferenceModel:
    """A pairwise preference model, which names the better response by its letter.

    example: (FILE:LINE, messages), a question that the chat template has to render.
    """

    def __init__(self, args, example):
        self.tokenizer = load_tokenizer(args, example)
        # Token ids of A and B, and the number of tokens from the letter to the end of the chat.
        self.letter_ids, self.answer_length = chats.choice(self.tokenizer)
        # comparisons.text renders without BOS.
        self.render = models.render if args.bos else comparisons.text
        self.model = load_model(args, self.tokenizer)
        self.context = self.model.config.get_text_config().max_position_embeddings
        default_tokens = batches.default_tokens(self.model.device, on_cpu=2048)
        self.batch_tokens = args.batch_tokens or default_tokens

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
            row = comparison.row
            question = comparisons.question(row["prompt"], comparison.first, comparison.second)
            texts.append(self.render(self.tokenizer, [*question, answer], row.at("prompt")))
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


def load_tokenizer(args, example):
    path = args.model_name_or_path
    tokenizer = models.tokenizer(path, example, chat_template_kwargs=args.chat_template_kwargs)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        sys.exit(f"{path}: its tokenizer has neither a pad token nor an EOS token")
    return tokenizer


def load_model(args, tokenizer):
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return models.load(
        AutoModelForCausalLM,
        args.model_name_or_path,
        tokenizer,
        dtype=args.dtype,
        device_map=device,
    )


class Contest:
    """The comparisons of one row by a method; adds "judgement" and "rewards" to the row."""

    def __init__(self, row, method):
        row["judgement"] = []
        row["rewards"] = None
        self.row = row
        self.matches = METHODS[method](len(row["responses"]))
        self.match = next(self.matches)

    def comparison(self):
        """The Comparison that decides the current match."""
        i, j = self.match
        return Comparison(self.row, self.row["responses"][i], self.row["responses"][j])

    def advance(self, probability):
        """Record P(i beats j) of the current match; after the last one, set the rewards.

        Returns whether another match follows.
        """
        i, j = self.match
        if not math.isfinite(probability):
            rows.refuse(
                self.row,
                f"judgement: the probability of response {i} against {j} is {probability}",
            )
        self.row["judgement"].append({"a": i, "b": j, "probability": probability})
        try:
            self.match = self.matches.send(probability)
        except StopIteration as end:
            self.row["rewards"] = end.value
            return False
        return True


def annotate(chunk, method, preference_model):
    """Add "judgement" and "rewards" to rows; the rewards are None if a comparison does not fit."""
    contests = [Contest(row, method) for row in chunk]
    # The next match of a row may depend on its last one, so all rows advance by one match at a
    # time: their comparisons fill the batches.
    while contests:
        compared = [contest.comparison() for contest in contests]
        probabilities = preference_model.probabilities(compared)
        remaining = []
        for contest, probability in zip(contests, probabilities, strict=True):
            if probability is not None and contest.advance(probability):
                remaining.append(contest)
        contests = remaining


def annotate_rows(args, preference_model, writer, progress):
    """Write the rows that are not yet in the output file; returns counts."""
    todo = (row for row in read_rows(args) if row["id"] not in writer.done)
    done = len(writer.done)
    counts = Counter()
    while chunk := list(itertools.islice(todo, args.chunk_size)):
        annotate(chunk, args.method, preference_model)
        for row in chunk:
            if row["rewards"] is None:
                counts["dropped"] += 1
            else:
                counts["comparisons"] += len(row["judgement"])
                row["annotator"] = args.model_name_or_path
                writer.add([row])
        done += len(chunk)
        comparisons_per_second = counts["comparisons"] / progress.seconds()
        progress.show(done, rate=f"{comparisons_per_second:.0f} comparisons/s")
    return counts


def read_rows(args):
    return shards.own_rows(rows.read(args.responses_file, "responses", n=args.n), args)


def check_rows(args):
    """(number of this shard's rows, example of a question or None): all rows are checked."""
    total = 0
    example = None
    for row in read_rows(args):
        total += 1
        n = len(row["responses"])
        if n < 2:
            sys.exit(f"{args.responses_file}: responses: {n}, a comparison needs two")
        if example is None:
            question = comparisons.question(row["prompt"], *row["responses"][:2])
            example = (row.at("prompt"), question)
    return total, example


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--responses_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--n",
        type=arguments.whole(0),
        help="responses per row (default: as many as the first row has; 0: any number)",
    )
    parser.add_argument(
        "--method", choices=[*METHODS], default="tournament", help="which pairs are compared"
    )
    parser.add_argument(
        "--bos",
        action="store_true",
        help=(
            "ask with the BOS token of the chat template, as a policy that judges itself "
            "was fine-tuned"
        ),
    )
    parser.add_argument(
        "--batch_tokens",
        type=arguments.whole(1),
        help="tokens per batch, padding included (default: by device and memory)",
    )
    parser.add_argument(
        "--dtype",
        choices=arguments.DTYPES,
        default="float32",
        help="of weights and activations",
    )
    parser.add_argument(
        "--chunk_size", type=arguments.whole(1), default=512, help="rows between two writes to disk"
    )
    parser.add_argument("--chat_template_kwargs", help=arguments.TEMPLATE_HELP)
    return shards.parse(parser)


def main():
    args = parse_arguments()
    # The file is read twice: here to check it all, then in chunks, so that memory does not grow.
    total, example = check_rows(args)
    preference_model = PreferenceModel(args, example)

    writer = rows.Writer(args.output_file, rows.this_command([args.output_file]))
    progress = Progress(total, "rows", finished_before=len(writer.done))
    counts = annotate_rows(args, preference_model, writer, progress)

    # One shard of several may lose all its rows.
    if args.num_shards == 1 and total == counts["dropped"]:
        sys.exit(
            f"{args.responses_file}: "
            f"every row is longer than the context of {args.model_name_or_path}"
        )
    writer.finish()
    print(
        f"{args.output_file} rows in: {total}, finished before: {len(writer.done)}, "
        f"dropped, too long: {counts['dropped']}, rows out: {total - counts['dropped']}, "
        f"comparisons: {counts['comparisons']}, {progress.seconds():.1f} s"
    )


if __name__ == "__main__":
    main()
