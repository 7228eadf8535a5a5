"""Pair a reference answer with the policy's own, which it is to be told from (SPIN, arXiv 2401.01335).

Reads:  --instructions_file, {"id", "messages"}, whose last turn is the reference answer; --responses_file, the policy's
        responses to the same questions by the same ids
Writes: --output_file, {"id", "prompt", "chosen", "rejected"}: the reference answer and the first whole response.
        Dropped and counted: rows without a whole response, and responses that are the reference answer.

    python annotation/2c_self_play.py --instructions_file runs/tiny/world/instructions.jsonl \
        --responses_file my_responses.jsonl --output_file my_pairs.jsonl
"""

import sys
from collections import Counter

from common import arguments, rows


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--instructions_file", required=True)
    parser.add_argument("--responses_file", required=True)
    parser.add_output("--output_file", required=True)
    args = parser.parse_args()
    counts, pairs = Counter(), []
    answers = {
        row["id"]: row["messages"] for row in rows.read(args.instructions_file, "instructions")
    }
    for row in rows.read(args.responses_file, "responses", n=0):
        if answers.get(row["id"], [])[:-1] != row["prompt"]:
            rows.refuse(row, f"id: {row['id']!r} is not of {args.instructions_file}")
        of_row = zip(row["responses"], row["finish_reasons"], strict=True)
        response = next((text for text, reason in of_row if reason != "length"), None)
        answer = answers[row["id"]][-1]
        if response is None:
            counts["dropped, truncated"] += 1
        elif response == answer["content"]:
            counts["dropped, identical"] += 1
        else:
            rejected = [{"role": "assistant", "content": response}]
            pairs.append(
                {"id": row["id"], "prompt": row["prompt"], "chosen": [answer], "rejected": rejected}
            )
    if not pairs:
        sys.exit(f"{args.responses_file}: no pair is left ({dict(counts)})")
    rows.write(args.output_file, pairs)
    dropped = "".join(f"{name}: {count}, " for name, count in counts.items())
    print(
        f"{args.output_file} rows in: {len(pairs) + counts.total()}, {dropped}rows out: {len(pairs)}"
    )


if __name__ == "__main__":
    main()
