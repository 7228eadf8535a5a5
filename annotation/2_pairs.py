"""Choose one pair a prompt from scored responses (paper 3.3; length penalty: eq. 9).

The score of a response is its reward minus --length_penalty times its characters. Both the choice and which of the two
is called chosen go by that score. The published code picks by it and then orients the pair by the bare reward, which
undoes the penalty where the two disagree.

Reads:  --rewards_file, {"id", "prompt", "responses", "finish_reasons", "rewards", ...}
Writes: --output_file, {"id", "prompt", "chosen", "rejected", "chosen_reward", "rejected_reward", ...}, the rewards
        without penalty; with --win_probabilities "chosen_win_probability" and "rejected_win_probability", the mean
        probability sigmoid(difference of scores) to win against the prompt's other whole responses (SPPO); with
        --explored_file "explored", the response of that file's row (XPO, SELM). Dropped and counted: rows with fewer
        than two whole responses (a truncated one teaches to stop in mid-sentence), identical pairs, ties, margins below
        --min_margin.

    python annotation/2_pairs.py --rewards_file runs/tiny/iter1/rewards.jsonl --output_file runs/tiny/iter1/pairs.jsonl
"""

import math
import random
import sys
import time
from collections import Counter

from common import arguments, rows


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--rewards_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--n",
        type=arguments.whole(0),
        help="responses of every row (default: as the first; 0: any)",
    )
    parser.add_argument(
        "--pairing", choices=["best_worst", "best_random", "random_random"], default="best_worst",
        help="which two responses; best_worst is the paper's (3.3)",
    )  # fmt: skip
    parser.add_argument(
        "--length_penalty",
        type=arguments.real(),
        default=0.0,
        help="lambda a character (eq. 9; Table 4: 0.001)",
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
    start, counts, explored = time.time(), Counter(), {}
    if args.explored_file:
        explored = {
            row["id"]: row["responses"][0]
            for row in rows.read(args.explored_file, "responses", n=1)
        }

    def win_probability(i, whole, score):
        return sum(1 / (1 + math.exp(min(score[j] - score[i], 700))) for j in whole if j != i) / (
            len(whole) - 1
        )

    def pairs():
        for row in rows.read(args.rewards_file, "rewards", n=args.n):
            score = [
                r - args.length_penalty * len(t)
                for r, t in zip(row["rewards"], row["responses"], strict=True)
            ]
            whole = [
                i
                for i, reason in enumerate(row["finish_reasons"])
                if args.keep_truncated or reason != "length"
            ]
            counts["rows in"] += 1
            if len(whole) < 2:
                counts["dropped, truncated"] += 1
                continue
            rng = random.Random(
                f"{args.seed} {row['id']}"
            )  # a row's choice does not depend on the other rows
            ranked = sorted(whole, key=lambda i: score[i], reverse=True)
            if args.pairing == "best_worst":
                chosen, rejected = ranked[0], ranked[-1]
            elif args.pairing == "best_random":
                chosen, rejected = ranked[0], rng.choice(ranked[1:])
            else:
                chosen, rejected = sorted(
                    rng.sample(whole, 2), key=lambda i: score[i], reverse=True
                )
            if row["responses"][chosen] == row["responses"][rejected]:
                counts["dropped, identical"] += 1
            elif score[chosen] == score[rejected]:
                counts["dropped, tie"] += 1
            elif score[chosen] - score[rejected] < args.min_margin:
                counts["dropped, margin"] += 1
            else:
                n = len(row["responses"])  # what the row holds for each response is left out
                of_responses = [
                    k
                    for k, v in row.items()
                    if isinstance(v, list) and len(v) == n and k != "prompt"
                ]
                more = {}
                if args.win_probabilities:
                    more["chosen_win_probability"] = win_probability(chosen, whole, score)
                    more["rejected_win_probability"] = win_probability(rejected, whole, score)
                if args.explored_file:
                    if row["id"] not in explored:
                        sys.exit(
                            f"{args.explored_file}: id: {row['id']!r} of {args.rewards_file} is missing"
                        )
                    more["explored"] = explored[row["id"]]
                yield {
                    **{
                        key: value
                        for key, value in row.items()
                        if key not in [*of_responses, "judgement"]
                    },
                    "chosen": [{"role": "assistant", "content": row["responses"][chosen]}],
                    "rejected": [{"role": "assistant", "content": row["responses"][rejected]}],
                    "chosen_reward": row["rewards"][chosen],
                    "rejected_reward": row["rewards"][rejected],
                    **more,
                }

    # Read twice: a bad row stops all before a pair is written, and memory does not grow with the file.
    rows_out = sum(1 for _ in pairs())
    rows_in = counts.pop("rows in")
    if not rows_out:
        sys.exit(f"{args.rewards_file}: no pair is left of {rows_in} rows ({dict(counts)})")
    dropped = "".join(f"{name}: {count}, " for name, count in counts.items())
    rows.write(args.output_file, pairs())
    print(
        f"{args.output_file} rows in: {rows_in}, {dropped}rows out: {rows_out}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
