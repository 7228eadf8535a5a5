"""Best-of-n at inference time, and its KL to the policy that it samples from.

The KL is exact for the distribution that a prompt's samples make up. With p(y) the share of a
response and F(y) the share of samples that score no higher, the best of n is y with probability
F(y)^n - (F(y) - p(y))^n. The KL is at most log n - (n - 1) / n (guidebook), and less where
responses repeat, as they do here. Responses with the same score are ordered by their text.

Reads:  --rewards_file, {"id", "responses", "finish_reasons", "rewards", "true_rewards", ...}, many
        samples a prompt
Writes: --output_file, the same rows with the best of the first n samples alone in each field of the
        responses, and "kl", [nats]. A judgement is left out.

    python comparison/1_best_of_n.py --n 8 --rewards_file my_samples.jsonl \
        --output_file my_best_of_8.jsonl
"""

import math
from collections import Counter
from statistics import fmean

from common import arguments, rows


def divergence(responses, rewards, n):
    """KL of best-of-n to the distribution of these samples, nats."""
    total = len(responses)
    counts = Counter(zip(rewards, responses, strict=True))
    below = 0
    kl = 0.0
    for scored_response in sorted(counts):
        count = counts[scored_response]
        # F(y)^n - (F(y) - p(y))^n
        best_of_n = ((below + count) / total) ** n - (below / total) ** n
        kl += best_of_n * math.log(best_of_n / (count / total))
        below += count
    return kl


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--rewards_file", required=True)
    parser.add_argument("--n", type=arguments.whole(1), required=True)
    parser.add_output("--output_file", required=True)
    args = parser.parse_args()

    best_rows = []
    for row in rows.read(args.rewards_file, "rewards"):
        samples = len(row["responses"])
        if args.n > samples:
            rows.refuse(row, f"responses: {samples}, too few for the best of {args.n}")
        rewards = row["rewards"]
        best = max(range(args.n), key=rewards.__getitem__)
        best_row = rows.with_responses(row, [best])
        best_row["kl"] = [divergence(row["responses"], rewards, args.n)]
        best_rows.append(best_row)
    rows.write(args.output_file, best_rows)

    bound = math.log(args.n) - (args.n - 1) / args.n
    mean = fmean(row["kl"][0] for row in best_rows)
    print(
        f"{args.output_file} rows: {len(best_rows)}, best of {args.n}: KL {mean:.4f} nats, "
        f"at most {bound:.4f}"
    )


if __name__ == "__main__":
    main()
