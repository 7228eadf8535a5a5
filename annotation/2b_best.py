"""Keep the best of each prompt's responses: best-of-n answers, and data for fine-tuning on them.

Iterated fine-tuning on them is rejection-sampling fine-tuning (RAFT, arXiv 2304.06767). The score
of a response is its reward minus --length_penalty times its characters. Of equal scores the first
response is the best.

Reads:  --rewards_file, {"id", "prompt", "responses", "finish_reasons", "rewards", ...}
Writes: --output_file, the same rows with every per-response field reduced to the best response's
        entry, and "messages", the prompt and that response, as sft/2_finetune.py reads them. A
        "judgement" is dropped. With --for_training, truncated and empty responses are skipped,
        with --min_reward those below it; rows without another response are dropped and counted.

    python annotation/2b_best.py --rewards_file runs/tiny/iter1/rewards.jsonl \
        --output_file my_best.jsonl
"""

import sys
import time

from common import arguments, rows, trajectories
from scored_responses import penalised_scores, trainable


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
        "--length_penalty",
        type=arguments.real(),
        default=0.0,
        help="lambda per character (paper, eq. 9)",
    )
    parser.add_argument(
        "--min_reward",
        type=arguments.real(),
        help="skip responses of a lower reward, before any penalty (default: none)",
    )
    parser.add_argument(
        "--for_training", action="store_true", help="skip truncated and empty responses"
    )
    return parser.parse_args()


def with_best(row, candidates, length_penalty):
    """The row with the best of the candidates, indexes of responses, as its only response."""
    scores = penalised_scores(row, length_penalty)
    best = max(candidates, key=lambda i: scores[i])
    best_row = rows.with_responses(row, [best])
    best_row["messages"] = [*row["prompt"], *trajectories.turns(row["responses"][best])]
    return best_row


def main():
    args = parse_arguments()
    start = time.time()
    rows_in = 0
    best_rows = []
    for row in rows.read(args.rewards_file, "rewards", n=args.n):
        rows_in += 1
        candidates = range(len(row["responses"]))
        if args.for_training:
            # sft/2_finetune.py refuses an empty turn, and a truncated one teaches to stop in
            # mid-sentence.
            candidates = trainable(row)
        if args.min_reward is not None:
            candidates = [i for i in candidates if row["rewards"][i] >= args.min_reward]
        if candidates:
            best_rows.append(with_best(row, candidates, args.length_penalty))
    if not best_rows:
        sys.exit(f"{args.rewards_file}: no response to keep in {rows_in} rows")
    rows.write(args.output_file, best_rows)
    dropped = rows_in - len(best_rows)
    print(
        f"{args.output_file} rows in: {rows_in}, dropped, without a response to keep: {dropped}, "
        f"rows out: {len(best_rows)}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
