"""Keep the best of each prompt's responses: best-of-n answers, and data for fine-tuning on them.

The latter, iterated, is rejection-sampling fine-tuning (RAFT, arXiv 2304.06767). The score of a response is its reward
minus --length_penalty times its characters. Of equal scores the first counts.

Reads:  --rewards_file, {"id", "prompt", "responses", "finish_reasons", "rewards", ...}
Writes: --output_file, the same rows with the best response alone in each list, and "messages", the prompt and that
        response in the assistant's turn, as sft/2_finetune.py reads them. With --for_training responses that were
        cut off or are empty are passed over, and rows that are left with none dropped and counted.

    python annotation/2b_best.py --rewards_file runs/tiny/iter1/rewards.jsonl --output_file my_best.jsonl
"""

import sys
import time

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
        "--length_penalty",
        type=arguments.real(),
        default=0.0,
        help="lambda a character (paper, eq. 9)",
    )
    parser.add_argument(
        "--for_training", action="store_true", help="pass over what is cut off or empty: no example"
    )
    args = parser.parse_args()
    start, counts = time.time(), {"in": 0, "dropped": 0}

    def best():
        for row in rows.read(args.rewards_file, "rewards", n=args.n):
            counts["in"] += 1
            score = [
                r - args.length_penalty * len(t)
                for r, t in zip(row["rewards"], row["responses"], strict=True)
            ]
            reasons, n = row["finish_reasons"], len(row["responses"])
            fit = range(n)
            if args.for_training:  # sft/2_finetune.py refuses an empty turn
                fit = [
                    i for i in range(n) if reasons[i] != "length" and row["responses"][i].strip()
                ]
            if not fit:
                counts["dropped"] += 1
                continue
            first = max(fit, key=lambda i: score[i])
            for key, value in row.items():
                if isinstance(value, list) and len(value) == n and key != "prompt":
                    row[key] = [value[first]]
            yield {
                **row,
                "messages": [*row["prompt"], {"role": "assistant", "content": row["responses"][0]}],
            }

    kept = list(best())
    if not kept:
        sys.exit(f"{args.rewards_file}: no whole response in {counts['in']} rows")
    rows.write(args.output_file, kept)
    told = f"rows in: {counts['in']}, dropped, truncated or empty: {counts['dropped']}, rows out: {len(kept)}"
    print(f"{args.output_file} {told}, {time.time() - start:.1f} s")


if __name__ == "__main__":
    main()
