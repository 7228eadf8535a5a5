"""Pair the responses that statistical rejection sampling accepts (RSO, arXiv 2309.06657).

RSO wants pairs of responses from the policy that maximises r(x, y) - beta KL to pi,

    pi_r(y|x) = pi(y|x) exp(r(x, y) / beta) / Z(x)          (eq. 4 there),

where pi is the policy that gave the responses. Rejection sampling makes responses of pi ones of
pi_r, exactly so as their number grows. Algorithm 1 there goes over the candidates in passes, until
--accepted are accepted. In each pass r_max is the best r that remains, and each remaining candidate
is accepted with probability exp((r - r_max) / beta). beta is --rejection_temperature, r the reward
minus --length_penalty times characters. A small beta takes the best responses, a large one any.
The accepted ones are put into random pairs ("first-round-rank", section 5.2); in each the response
of the higher r is the chosen one.

The candidates are the untruncated responses; identical ones are one candidate, as in Algorithm 1.
They are shuffled: else those of the first temperature would be taken first. Where there are fewer
than --accepted, all are accepted, and an odd one stays without a pair.

Reads:  --rewards_file, {"id", "prompt", "responses", "finish_reasons", "rewards", ...}, in each
        row more responses than --accepted
Writes: --output_file, {"id", "prompt", "chosen", "rejected", "chosen_reward", "rejected_reward",
        ...} as annotation/2_pairs.py, but several a row: their ids are the row's with -1, -2 ...
        Dropped and counted: rows with fewer than two candidates, and pairs of equal r.

    python annotation/2f_rejection_sampling.py --rewards_file runs/tiny/iter1/rewards.jsonl \
        --accepted 4 --output_file my_pairs.jsonl
"""

import math
import random
import sys
import time
from collections import Counter

from common import arguments, rows
from scored_responses import make_pair, penalised_scores


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
        "--accepted",
        type=arguments.whole(2),
        default=8,
        help="responses of a row to accept, an even number: two make a pair",
    )
    parser.add_argument(
        "--rejection_temperature",
        type=arguments.real(above=0),
        default=0.5,
        help="beta, in units of the reward; the source's rewards are log-odds, as a "
        "Bradley-Terry model's",
    )
    parser.add_argument(
        "--length_penalty",
        type=arguments.real(),
        default=0.0,
        help="lambda per character (RLHF Workflow, eq. 9)",
    )
    parser.add_argument("--seed", type=arguments.SEED, default=0, help="of the random choices")
    args = parser.parse_args()
    if args.accepted % 2:
        parser.error(f"--accepted: {args.accepted}: an even number is needed")
    return args


def different_responses(row):
    """Indexes of the untruncated responses, of identical ones the first."""
    indexes = []
    for i, response in enumerate(row["responses"]):
        earlier = [row["responses"][j] for j in indexes]
        if row["finish_reasons"][i] != "length" and response not in earlier:
            indexes.append(i)
    return indexes


def accept(candidates, scores, count, temperature, rng):
    """Algorithm 1: the accepted ones of the candidates, all indexes of responses."""
    remaining = rng.sample(candidates, len(candidates))
    accepted = []
    while remaining and len(accepted) < count:
        # The best one is accepted for certain, so that a pass never accepts none.
        best_score = max(scores[i] for i in remaining)
        rejected = []
        for i in remaining:
            probability = math.exp((scores[i] - best_score) / temperature)
            if len(accepted) < count and rng.random() < probability:
                accepted.append(i)
            else:
                rejected.append(i)
        remaining = rejected
    return accepted


def random_pairs(accepted, scores, rng):
    """[(response of the higher score, its partner)]; each accepted one is in one pair at most."""
    shuffled = rng.sample(accepted, len(accepted))
    ranked_pairs = []
    # Not strict: of an odd number the last has no partner.
    for first, second in zip(shuffled[::2], shuffled[1::2], strict=False):
        if scores[first] >= scores[second]:
            ranked_pairs.append((first, second))
        else:
            ranked_pairs.append((second, first))
    return ranked_pairs


def pairs(args, counts):
    """Yield the pairs of the rewards file. counts: of rows, and of what is dropped by reason."""
    for row in rows.read(args.rewards_file, "rewards", n=args.n):
        n = len(row["responses"])
        if n <= args.accepted:
            rows.refuse(row, f"responses: {n}, --accepted {args.accepted} would take all")
        counts["rows in"] += 1
        candidates = different_responses(row)
        if len(candidates) < 2:
            counts["rows dropped, identical or truncated"] += 1
            continue
        if len(candidates) <= args.accepted:
            counts["rows with all accepted"] += 1
        scores = penalised_scores(row, args.length_penalty)
        # Seeded by the row, so that its pairs do not depend on the other rows.
        rng = random.Random(f"{args.seed} {row['id']}")
        accepted = accept(candidates, scores, args.accepted, args.rejection_temperature, rng)
        for number, (chosen, rejected) in enumerate(random_pairs(accepted, scores, rng), 1):
            if scores[chosen] == scores[rejected]:
                counts["pairs dropped, tie"] += 1
                continue
            pair = make_pair(row, chosen, rejected)
            # Every id gets a number, so that no pair's id can be that of another row's pair.
            pair["id"] = f"{row['id']}-{number}"
            yield pair


def main():
    args = parse_arguments()
    start = time.time()
    # Two passes over the file: a bad row ends the program before a pair is written, and memory does
    # not grow with the file.
    counts = Counter()
    pairs_out = sum(1 for _ in pairs(args, counts))
    listing = "".join(f"{name}: {count}, " for name, count in counts.items())
    if not pairs_out:
        sys.exit(f"{args.rewards_file}: no pair is left ({listing.removesuffix(', ')})")
    rows.write(args.output_file, pairs(args, Counter()))
    print(f"{args.output_file} {listing}pairs out: {pairs_out}, {time.time() - start:.1f} s")


if __name__ == "__main__":
    main()
