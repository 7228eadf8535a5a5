"""Pair a reference answer with the policy's own response, which loses (SPIN, arXiv 2401.01335).

Reads:  --instructions_file, {"id", "messages"}, whose last turn is the reference answer
        --responses_file, the policy's responses to the same questions, with the same ids
Writes: --output_file, {"id", "prompt", "chosen", "rejected"}: the reference answer and the first
        untruncated response. Dropped and counted: rows without an untruncated response, and
        responses that are the reference answer.

    python annotation/2c_self_play.py --instructions_file runs/tiny/world/instructions.jsonl \
        --responses_file my_responses.jsonl --output_file my_pairs.jsonl
"""

import sys
from collections import Counter

from common import arguments, rows, trajectories


def first_untruncated(row):
    """The first response that is not truncated, or None."""
    for response, finish_reason in zip(row["responses"], row["finish_reasons"], strict=True):
        if finish_reason != "length":
            return response
    return None


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--instructions_file", required=True)
    parser.add_argument("--responses_file", required=True)
    parser.add_output("--output_file", required=True)
    args = parser.parse_args()

    conversations = {}
    for row in rows.read(args.instructions_file, "instructions"):
        conversations[row["id"]] = row["messages"]

    pairs = []
    dropped = Counter()
    for row in rows.read(args.responses_file, "responses", n=0):
        conversation = conversations.get(row["id"])
        if conversation is None:
            rows.refuse(row, f"id: {row['id']!r} is not of {args.instructions_file}")
        if conversation[:-1] != row["prompt"]:
            rows.refuse(row, f"prompt: not that of {row['id']!r} in {args.instructions_file}")
        reference = conversation[-1]
        response = first_untruncated(row)
        if response is None:
            dropped["dropped, truncated"] += 1
        elif trajectories.turns(response) == [reference]:
            dropped["dropped, identical"] += 1
        else:
            pair = {
                "id": row["id"],
                "prompt": row["prompt"],
                "chosen": [reference],
                "rejected": trajectories.turns(response),
            }
            pairs.append(pair)
    if not pairs:
        sys.exit(f"{args.responses_file}: no pair is left ({dict(dropped)})")
    rows.write(args.output_file, pairs)
    dropped_counts = "".join(f"{name}: {count}, " for name, count in dropped.items())
    print(
        f"{args.output_file} rows in: {len(pairs) + dropped.total()}, {dropped_counts}"
        f"rows out: {len(pairs)}"
    )


if __name__ == "__main__":
    main()
