"""Give each prompt a direction in the plane of helpfulness and verbosity (arXiv 2402.18571).

Directional preference alignment draws an angle t for each prompt from --angles (one angle: the same
for all). The system prompt states it as round(100 cos t) for helpfulness and round(100 sin t) for
verbosity. generation/2_responses.py puts "system" before the prompt; the annotators do not see it.

Reads:  --prompts_file, {"id", "prompt", ...}
Writes: --output_file, the same rows with "system", the text, and "direction", [cos t, sin t]

    python generation/1b_directions.py --prompts_file runs/tiny/iter1/prompts.jsonl \
        --output_file my_directed.jsonl
"""

import math
import random

from common import arguments, rows

SYSTEM_PROMPT = (
    "You are a helpful assistant. Your response should maximize weighted rating = "
    "helpfulness*{helpfulness} + verbosity*{verbosity}."
)


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--prompts_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--angles",
        type=arguments.real(),
        nargs="+",
        default=[-45.0, 0.0, 45.0],
        help="degrees to draw from; one angle: the same for all",
    )
    parser.add_argument(
        "--system_prompt",
        default=SYSTEM_PROMPT,
        help="with {helpfulness} and {verbosity} for the numbers",
    )
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    args = parser.parse_args()
    for name in ("{helpfulness}", "{verbosity}"):
        if name not in args.system_prompt:
            parser.error(f"--system_prompt: {name} is missing")
    return args


def with_direction(row, args):
    """The row with its direction and the system prompt that states it."""
    # Seeded by the row, so that its angle does not depend on the other rows.
    rng = random.Random(f"{args.seed} {row['id']}")
    angle = math.radians(rng.choice(args.angles))
    helpfulness = math.cos(angle)
    verbosity = math.sin(angle)
    # Not str.format: a system prompt may hold other braces.
    text = args.system_prompt
    text = text.replace("{helpfulness}", str(round(100 * helpfulness)))
    text = text.replace("{verbosity}", str(round(100 * verbosity)))
    return {**row, "system": text, "direction": [helpfulness, verbosity]}


def main():
    args = parse_arguments()
    directed_rows = [with_direction(row, args) for row in rows.read(args.prompts_file, "prompts")]
    rows.write(args.output_file, directed_rows)
    print(
        f"{args.output_file} rows in: {len(directed_rows)}, rows out: {len(directed_rows)}, "
        f"angles: {len(args.angles)}"
    )


if __name__ == "__main__":
    main()
