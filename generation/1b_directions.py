"""Give each prompt a direction in the plane of helpfulness and verbosity (directional preference alignment).

An angle t is drawn for each prompt, or given, and stands in the system prompt as round(100 cos t) for helpfulness and
round(100 sin t) for verbosity (DPA, arXiv 2402.18571). generation/2_responses.py puts "system" before the prompt; the
annotators do not see it.

Reads:  --prompts_file, {"id", "prompt", ...}
Writes: --output_file, the same rows with "system", the text, and "direction", [cos t, sin t]

    python generation/1b_directions.py --prompts_file runs/tiny/iter1/prompts.jsonl --output_file my_directed.jsonl
"""

import math
import random

from common import arguments, rows

TEXT = (
    "You are a helpful assistant. Your response should maximize weighted rating = "
    "helpfulness*{helpfulness} + verbosity*{verbosity}."
)


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--prompts_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--angles",
        type=arguments.real(),
        nargs="+",
        default=[-45.0, 0.0, 45.0],
        help="degrees to draw from",
    )
    parser.add_argument(
        "--system_prompt", default=TEXT, help="with {helpfulness} and {verbosity} for the numbers"
    )
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    args = parser.parse_args()
    if missing := [
        name for name in ("{helpfulness}", "{verbosity}") if name not in args.system_prompt
    ]:
        parser.error(f"--system_prompt: {missing[0]} is missing")
    made = []
    for row in rows.read(args.prompts_file, "prompts"):
        angle = math.radians(random.Random(f"{args.seed} {row['id']}").choice(args.angles))
        direction = [math.cos(angle), math.sin(angle)]
        helpfulness, verbosity = (round(100 * part) for part in direction)
        text = args.system_prompt.replace("{helpfulness}", str(helpfulness)).replace(
            "{verbosity}", str(verbosity)
        )
        made.append({**row, "system": text, "direction": direction})
    rows.write(args.output_file, made)
    print(
        f"{args.output_file} rows in: {len(made)}, rows out: {len(made)}, angles: {len(args.angles)}"
    )


if __name__ == "__main__":
    main()
