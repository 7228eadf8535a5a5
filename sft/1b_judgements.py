"""Turn preferences into instructions to judge: so that a policy can compare responses, its own too (arXiv 2401.10020).

The question is the comparison that annotation/1b_preference_model.py asks, "[CONTEXT] ... [RESPONSE A] ... [RESPONSE B]
...", the answer A or B; which response is A is drawn for each pair. Fine-tuned on these beside other instructions, a
policy is its own preference model: ANNOTATOR=policy.

Reads:  --preferences_file, {"id", "prompt", "chosen", "rejected"} from reward_modeling/1_preferences.py
Writes: --output_file, {"id", "messages", "source"}

    python sft/1b_judgements.py --preferences_file runs/tiny/preferences.jsonl --output_file my_judgements.jsonl
"""

import random
import sys

from common import arguments, comparisons, rows


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--preferences_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument("--size", type=arguments.whole(0), default=0, help="pairs to draw (0: all)")
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    args = parser.parse_args()
    pairs = list(rows.read(args.preferences_file, "preferences"))
    if len(pairs) < args.size:
        sys.exit(f"{args.preferences_file}: {args.size} pairs asked for, {len(pairs)} are there")
    rng = random.Random(args.seed)
    made = []
    for row in rng.sample(pairs, args.size or len(pairs)):
        texts = [row[name][-1]["content"] for name in ("chosen", "rejected")]
        side = rng.choice("AB")
        a, b = texts if side == "A" else reversed(texts)
        asked = comparisons.question(row["prompt"] + row["chosen"][:-1], a, b)
        messages = [*asked, {"role": "assistant", "content": side}]
        made.append({"id": f"judgement-{row['id']}", "messages": messages, "source": "judgements"})
    rows.write(args.output_file, made)
    print(f"{args.output_file} rows in: {len(pairs)}, rows out: {len(made)}")


if __name__ == "__main__":
    main()
