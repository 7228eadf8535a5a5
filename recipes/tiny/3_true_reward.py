"""Add the true reward of true_reward.py to responses; only the tiny world knows it.

Reads:  --rewards_file, {"id", "prompt", "responses", "answer", "rewards"?, ...}: the rewards are
        optional
Writes: --output_file, the same rows with "true_rewards" and "correct" (0 or 1), one for each
        response

    python recipes/tiny/3_true_reward.py --rewards_file runs/tiny/eval/sft/rewards.jsonl \
        --output_file runs/tiny/eval/sft/true_rewards.jsonl
"""

import true_reward
from common import arguments, rows, trajectories


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--rewards_file", required=True)
    parser.add_output("--output_file", required=True)
    args = parser.parse_args()
    scored = list(
        rows.read(args.rewards_file, "responses", also=("answer",), if_there=("rewards",))
    )
    for row in scored:
        row["true_rewards"] = []
        row["correct"] = []
        for response in row["responses"]:
            text = trajectories.last_turn(response)
            parts = true_reward.parts(text, row["answer"])
            row["true_rewards"].append(true_reward.true_reward(text, row["answer"]))
            row["correct"].append(parts["correct"])
    rows.write(args.output_file, scored)
    print(f"{args.output_file} rows in: {len(scored)}, rows out: {len(scored)}")


if __name__ == "__main__":
    main()
