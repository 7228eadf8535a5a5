"""Choose one pair per prompt from scored responses (paper 3.3; length penalty: eq. 9).

The score of a response is its reward minus --length_penalty times its characters. The score decides
which two responses are taken and which of them is chosen. The published code selects the two by the
score but calls the one with the higher reward chosen, which undoes the penalty where reward and
score disagree.

Reads:  --rewards_file, {"id", "prompt", "responses", "finish_reasons", "rewards", ...}
Writes: --output_file, {"id", "prompt", "chosen", "rejected", "chosen_reward", "rejected_reward",
        ...}, the rewards without penalty. Other fields pass through, except those with one entry
        for each response and "judgement", which are dropped.
            --win_probabilities     adds "chosen_win_probability" and "rejected_win_probability":
                                    the mean probability sigmoid(difference of scores) to win
                                    against the prompt's other untruncated responses (SPPO)
            --explored_file         adds "explored", the response of that file's row (XPO, SELM)
        Dropped and counted: rows with fewer than two untruncated responses (a truncated one teaches
        to stop in mid-sentence), identical pairs, ties, margins below --min_margin. right_wrong
        calls a response right if its reward is at least 0.5, and drops rows that are all right or
        all wrong.

    python annotation/2_pairs.py --rewards_file runs/tiny/iter1/rewards.jsonl \
        --output_file runs/tiny/iter1/pairs.jsonl
"""

import math
import random
import sys
import time
from collections import Counter

from common import arguments, rows
from scored_responses import make_pair, penalised_scores

# Above it math.exp overflows; the probability is 0 long before.
LARGEST_EXPONENT = 700
RIGHT = 0.5  # the least reward of a right response


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--rewards_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--n",
        type=arguments.whole(0),
        help="responses per row (default: as many as the first row has; 0: any number)",
    )
    parser.add_argument(
        "--pairing",
        choices=["best_worst", "best_random", "random_random", "right_wrong"],
        default="best_worst",
        help="which two responses; best_worst is the paper's (3.3), right_wrong a random right one "
        "against a random wrong one (arXiv 2409.02392)",
    )
    parser.add_argument(
        "--length_penalty",
        type=arguments.real(),
        default=0.0,
        help="lambda per character (eq. 9; Table 4: 0.001)",
    )
    parser.add_argument(
        "--min_margin",
        type=arguments.real(0),
        default=0.0,
        help="smallest difference of scores to keep",
    )
    parser.add_argument(
        "--win_probabilities", action="store_true", help="by Bradley-Terry from the scores"
    )
    parser.add_argument(
        "--explored_file", help="JSONL file of responses to the same prompts, one each"
    )
    parser.add_argument(
        "--keep_truncated", action="store_true", help="let truncated responses into pairs"
    )
    parser.add_argument("--seed", type=arguments.SEED, default=0, help="of the random choices")
    args = parser.parse_args()
    if args.pairing == "right_wrong" and args.length_penalty:
        parser.error("--length_penalty: without effect with --pairing right_wrong")
    return args


def right_and_wrong(row, candidates):
    """(right responses, wrong ones), indexes."""
    right = [i for i in candidates if row["rewards"][i] >= RIGHT]
    wrong = [i for i in candidates if row["rewards"][i] < RIGHT]
    return right, wrong


def reason_without_pair(row, candidates, pairing):
    """Why these responses of a row make no pair, or None."""
    if len(candidates) < 2:
        return "truncated"
    if pairing == "right_wrong":
        right, wrong = right_and_wrong(row, candidates)
        if not wrong:
            return "all right"
        if not right:
            return "all wrong"
    return None


def choose(row, candidates, scores, args):
    """Which two of a row's responses make the pair: the indexes of chosen and rejected."""
    ranked = sorted(candidates, key=lambda i: scores[i], reverse=True)
    # Seeded by the row, so that its choice does not depend on the other rows.
    rng = random.Random(f"{args.seed} {row['id']}")
    if args.pairing == "best_worst":
        return ranked[0], ranked[-1]
    if args.pairing == "best_random":
        return ranked[0], rng.choice(ranked[1:])
    if args.pairing == "right_wrong":
        right, wrong = right_and_wrong(row, candidates)
        return rng.choice(right), rng.choice(wrong)
    return sorted(rng.sample(candidates, 2), key=lambda i: scores[i], reverse=True)


def reason_to_drop(row, chosen, rejected, scores, min_margin):
    """Why a pair is dropped, or None."""
    if row["responses"][chosen] == row["responses"][rejected]:
        return "identical"
    if scores[chosen] == scores[rejected]:
        return "tie"
    if scores[chosen] - scores[rejected] < min_margin:
        return "margin"
    return None


def win_probability(i, candidates, scores):
    """The mean probability that response i wins against the others, by Bradley-Terry."""
    probabilities = []
    for j in candidates:
        if j != i:
            exponent = min(scores[j] - scores[i], LARGEST_EXPONENT)
            probabilities.append(1 / (1 + math.exp(exponent)))
    return sum(probabilities) / len(probabilities)


def pairs(args, explored, counts):
    """Yield the pairs of the rewards file. counts: of rows in, and of those dropped by reason."""
    for row in rows.read(args.rewards_file, "rewards", n=args.n):
        counts["rows in"] += 1
        candidates = []
        for i, finish_reason in enumerate(row["finish_reasons"]):
            if args.keep_truncated or finish_reason != "length":
                candidates.append(i)
        reason = reason_without_pair(row, candidates, args.pairing)
        if reason:
            counts[f"dropped, {reason}"] += 1
            continue
        scores = penalised_scores(row, args.length_penalty)
        chosen, rejected = choose(row, candidates, scores, args)
        reason = reason_to_drop(row, chosen, rejected, scores, args.min_margin)
        if reason:
            counts[f"dropped, {reason}"] += 1
            continue
        pair = make_pair(row, chosen, rejected)
        if args.win_probabilities:
            pair["chosen_win_probability"] = win_probability(chosen, candidates, scores)
            pair["rejected_win_probability"] = win_probability(rejected, candidates, scores)
        if args.explored_file:
            if row["id"] not in explored:
                sys.exit(
                    f"{args.explored_file}: id: {row['id']!r} of {args.rewards_file} is missing"
                )
            pair["explored"] = explored[row["id"]]
        yield pair


def main():
    args = parse_arguments()
    start = time.time()
    explored = {}
    if args.explored_file:
        for row in rows.read(args.explored_file, "responses", n=1):
            explored[row["id"]] = row["responses"][0]

    # Two passes over the file: a bad row ends the program before a pair is written, and memory does
    # not grow with the file.
    counts = Counter()
    rows_out = sum(1 for _ in pairs(args, explored, counts))
    rows_in = counts.pop("rows in")
    if not rows_out:
        sys.exit(f"{args.rewards_file}: no pair is left of {rows_in} rows ({dict(counts)})")
    rows.write(args.output_file, pairs(args, explored, Counter()))

    dropped = "".join(f"{name}: {count}, " for name, count in counts.items())
    print(
        f"{args.output_file} rows in: {rows_in}, {dropped}rows out: {rows_out}, "
        f"{time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
