"""Best-of-n at inference time, and its KL to the policy that it samples from.

The KL is exact for the distribution that a prompt's samples make up: with p(y) the share of a response and F(y) the
share of samples that score no higher, the best of n is y with probability F(y)^n - (F(y) - p(y))^n. It is at most
log n - (n - 1) / n (guidebook), and less where responses repeat, as they do here. Responses of one score are ordered by
their text.

Reads:  --rewards_file, {"id", "responses", "finish_reasons", "rewards", "true_rewards", ...}, many samples a prompt
Writes: --output_file, the same rows with the best of the first n samples alone in each list, and "kl", [nats]

    python comparison/1_best_of_n.py --n 8 --rewards_file my_samples.jsonl --output_file my_best_of_8.jsonl
"""

import math
from collections import Counter
from statistics import fmean

from common import arguments, rows


def divergence(responses, rewards, n):
    """KL of best-of-n to the distribution of these samples, nats."""
    counts, total, below, kl = Counter(zip(rewards, responses, strict=True)), len(responses), 0, 0.0
    for key in sorted(counts):
        share = counts[key] / total
        best = ((below + counts[key]) / total) ** n - (below / total) ** n
        kl += best * math.log(best / share)
        below += counts[key]
    return kl


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--rewards_file", required=True)
    parser.add_argument("--n", type=arguments.whole(1), required=True)
    parser.add_output("--output_file", required=True)
    args = parser.parse_args()
    kept = []
    for row in rows.read(args.rewards_file, "rewards"):
        samples = len(row["responses"])
        if args.n > samples:
            rows.refuse(row, f"responses: {samples}, too few for the best of {args.n}")
        kl = divergence(row["responses"], row["rewards"], args.n)
        best = max(range(args.n), key=lambda i: row["rewards"][i])
        for key, value in row.items():
            if isinstance(value, list) and len(value) == samples and key != "prompt":
                row[key] = [value[best]]
        kept.append({**row, "kl": [kl]})
    rows.write(args.output_file, kept)
    bound = math.log(args.n) - (args.n - 1) / args.n
    mean = fmean(row["kl"][0] for row in kept)
    print(
        f"{args.output_file} rows: {len(kept)}, best of {args.n}: KL {mean:.4f} nats, at most {bound:.4f}"
    )


if __name__ == "__main__":
    main()
