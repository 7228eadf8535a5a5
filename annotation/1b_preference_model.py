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

import tournament
from common import arguments, comparisons, rows, shards
from common.preference_model import Comparison, PreferenceModel
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
        row = self.row
        responses = row["responses"]
        return Comparison(row["prompt"], responses[i], responses[j], row.at("prompt"))

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
    preference_model = PreferenceModel(
        args.model_name_or_path,
        example,
        args.dtype,
        batch_tokens=args.batch_tokens,
        bos=args.bos,
        chat_template_kwargs=args.chat_template_kwargs,
    )

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
