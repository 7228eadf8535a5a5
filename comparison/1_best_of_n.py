"""Best-of-n at inference time, and its KL to the policy that it samples from.

The best response is that with the highest "rewards"; of equal rewards the last by text. The KL is
exact for the empirical distribution of a prompt's samples, all of them. With p(y) the share of a
response and F(y) the share of samples that rank no higher, the best of n is y with probability
F(y)^n - (F(y) - p(y))^n. The KL is at most log n - (n - 1) / n, and less where responses repeat, as
they do in the tiny world.

Reads:  --rewards_file, {"id", "responses", "finish_reasons", "rewards", "true_rewards", ...}, many
        samples per prompt
Writes: --output_file, the same rows, in which every field of the responses has the best of the
        first n samples alone, and "kl", a list of one number, nats. "judgement" is dropped.

    python comparison/1_best_of_n.py --n 8 --rewards_file my_samples.jsonl \
        --output_file my_best_of_8.jsonl
"""

import math
from collections import Counter
from statistics import fmean

from common import arguments, rows, trajectories


def divergence(responses, rewards, n):
    """KL of best-of-n to the distribution of these samples, nats."""
    total = len(responses)
    texts = map(trajectories.text, responses)
    counts = Counter(zip(rewards, texts, strict=True))
    below = 0
    kl = 0.0
    for scored_response in sorted(counts):  # by reward, then by text
        count = counts[scored_response]
        # F(y)^n - (F(y) - p(y))^n; it underflows to 0 where n is large, and p log p goes to 0
        probability = ((below + count) / total) ** n - (below / total) ** n
        if probability > 0:
            kl += probability * math.log(probability / (count / total))
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
        sample_count = len(row["responses"])
        if args.n > sample_count:
            rows.refuse(row, f"responses: {sample_count}, too few for the best of {args.n}")
        scored = list(zip(row["rewards"], row["responses"], strict=True))
        best = max(range(args.n), key=scored.__getitem__)
        best_row = rows.with_responses(row, [best])
        best_row["kl"] = [divergence(row["responses"], row["rewards"], args.n)]
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
