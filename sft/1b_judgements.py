"""Turn preference pairs into SFT examples of pairwise judging, for a policy that judges responses.

The question is the comparison of annotation/1b_preference_model.py, "[CONTEXT] ... [RESPONSE A] ...
[RESPONSE B] ...", the answer A or B. Which response is A is drawn for each pair. A policy that is
fine-tuned on these beside other instructions can judge its own responses (arXiv 2401.10020):
ANNOTATOR=policy.

Reads:  --preferences_file, {"id", "prompt", "chosen", "rejected"} of
        reward_modeling/1_preferences.py
Writes: --output_file, {"id", "messages", "source"}. The last turns of the two sides are compared.
        Pairs whose sides differ before the last turn have no common context: they are dropped and
        counted.

    python sft/1b_judgements.py --preferences_file runs/tiny/preferences.jsonl \
        --output_file my_judgements.jsonl
"""

import random
import sys

from common import arguments, comparisons, rows


def judgement(pair, chosen_side):
    """The example of a pair. chosen_side: the letter of the chosen response, A or B."""
    rejected_side = "B" if chosen_side == "A" else "A"
    responses = {
        chosen_side: pair["chosen"][-1]["content"],
        rejected_side: pair["rejected"][-1]["content"],
    }
    context = pair["prompt"] + pair["chosen"][:-1]
    question = comparisons.question(context, responses["A"], responses["B"])
    return {
        "id": f"judgement-{pair['id']}",
        "messages": [*question, {"role": "assistant", "content": chosen_side}],
        "source": "judgements",
    }


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--preferences_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument("--size", type=arguments.whole(0), default=0, help="pairs to draw (0: all)")
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    args = parser.parse_args()
    pairs = []
    different_contexts = 0
    for pair in rows.read(args.preferences_file, "preferences"):
        if pair["chosen"][:-1] == pair["rejected"][:-1]:
            pairs.append(pair)
        else:
            different_contexts += 1
    if not pairs:
        sys.exit(f"{args.preferences_file}: no pair has the same turns before the last one")
    if len(pairs) < args.size:
        sys.exit(f"{args.preferences_file}: {args.size} pairs asked for, {len(pairs)} are there")
    rng = random.Random(args.seed)
    drawn = rng.sample(pairs, args.size or len(pairs))
    judgements = [judgement(pair, rng.choice("AB")) for pair in drawn]
    rows.write(args.output_file, judgements)
    print(
        f"{args.output_file} rows in: {len(pairs) + different_contexts}, "
        f"dropped, different prompts: {different_contexts}, rows out: {len(judgements)}"
    )


if __name__ == "__main__":
    main()
