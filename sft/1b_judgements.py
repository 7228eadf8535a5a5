"""Turn preferences into instructions to judge, so that a policy can compare responses, its own too.

The question is the comparison of annotation/1b_preference_model.py, "[CONTEXT] ... [RESPONSE A] ...
[RESPONSE B] ...", the answer A or B. Which response is A is drawn for each pair. A policy that is
fine-tuned on these beside other instructions is its own preference model (arXiv 2401.10020):
ANNOTATOR=policy.

Reads:  --preferences_file, {"id", "prompt", "chosen", "rejected"} of
        reward_modeling/1_preferences.py
Writes: --output_file, {"id", "messages", "source"}

    python sft/1b_judgements.py --preferences_file runs/tiny/preferences.jsonl \
        --output_file my_judgements.jsonl
"""

import random
import sys

from common import arguments, comparisons, rows


def judgement(pair, side):
    """The instruction to compare the responses of a pair. side: where the chosen one stands."""
    rejected = pair["rejected"][-1]["content"]
    responses = {"A": rejected, "B": rejected}
    responses[side] = pair["chosen"][-1]["content"]
    # The last turns are compared; what is said before them is the context.
    context = pair["prompt"] + pair["chosen"][:-1]
    question = comparisons.question(context, responses["A"], responses["B"])
    return {
        "id": f"judgement-{pair['id']}",
        "messages": [*question, {"role": "assistant", "content": side}],
        "source": "judgements",
    }


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
    drawn = rng.sample(pairs, args.size or len(pairs))
    judgements = [judgement(pair, rng.choice("AB")) for pair in drawn]
    rows.write(args.output_file, judgements)
    print(f"{args.output_file} rows in: {len(pairs)}, rows out: {len(judgements)}")


if __name__ == "__main__":
    main()
