"""Combine annotators: the weighted sum of their standardised scores for every response (paper 2.1: several objectives).

Each annotator's rewards are brought to mean 0 and standard deviation 1 over all responses of its file before they are
weighed, so that a weight means the same for scores, probabilities and verdicts. Rewards that are all equal, of a
verifier that finds nothing right, prefer no response: they add 0, and a line says so.

Reads:  --rewards_files, files of {"id", "prompt", "responses", "finish_reasons", "rewards", "annotator"} over the same
        rows; rows that one of them lacks are left out and counted
Writes: --output_file, the rows of the first file with "rewards", the sum, "annotator", the weights and names, and
        "objectives", [{annotator: standardised score} for each response]

    python annotation/1e_combined.py --rewards_files runs/both/iter1/rewards_armorm.jsonl \
        runs/both/iter1/rewards_verifier.jsonl --weights 1 0.5 --output_file runs/both/iter1/rewards.jsonl
"""

import sys
import time
from statistics import fmean, pstdev

from common import arguments, rows


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--rewards_files", nargs="+", required=True, help="one for each annotator")
    parser.add_argument(
        "--weights",
        nargs="+",
        type=arguments.real(),
        help="of the annotators in that order (default: 1 each)",
    )
    parser.add_output("--output_file", required=True)
    args = parser.parse_args()
    start, weights = time.time(), args.weights or [1.0] * len(args.rewards_files)
    if len(weights) != len(args.rewards_files):
        parser.error(f"--weights: {len(weights)} for {len(args.rewards_files)} files")

    scores, names, first = (
        [],
        [],
        {},
    )  # an annotator's {id: rewards}, its name; {id: responses} of the first file
    varied = 0  # annotators that prefer some response
    for file in args.rewards_files:
        of_file = {}
        for row in rows.read(file, "rewards"):
            of_file[row["id"]] = row["rewards"]
            if first.setdefault(row["id"], hash(tuple(row["responses"]))) != hash(
                tuple(row["responses"])
            ):
                rows.refuse(row, f"responses: not those of {args.rewards_files[0]}")
        name = str(row.get("annotator", file))
        if name in names:
            sys.exit(f"{file}: annotator: {name} stands in another file too")
        values = [reward for rewards in of_file.values() for reward in rewards]
        mean, deviation = fmean(values), pstdev(values)
        if not deviation:
            print(f"{file}: rewards: all are {mean:g}, they add nothing", flush=True)
        scale = deviation or 1.0
        scores.append(
            {
                key: [(reward - mean) / scale for reward in rewards]
                for key, rewards in of_file.items()
            }
        )
        names.append(name)
        varied += deviation > 0
    if not varied:
        sys.exit(f"{args.rewards_files[0]}: rewards: no annotator prefers any response")

    together = " + ".join(f"{weight:g}*{name}" for weight, name in zip(weights, names, strict=True))

    def combined():
        for row in rows.read(args.rewards_files[0], "rewards"):
            if all(row["id"] in of_file for of_file in scores):
                each = list(zip(*(of_file[row["id"]] for of_file in scores), strict=True))
                row["rewards"] = [
                    sum(w * z for w, z in zip(weights, of_one, strict=True)) for of_one in each
                ]
                row["objectives"] = [dict(zip(names, of_one, strict=True)) for of_one in each]
                row.pop("judgement", None)
                yield {**row, "annotator": together}

    rows_out = sum(1 for _ in combined())
    if not rows_out:
        sys.exit(f"{args.rewards_files[0]}: id: no row stands in all files")
    rows.write(args.output_file, combined())
    left_out = len(first) - rows_out
    print(
        f"{args.output_file} rows in: {len(first)}, dropped, not in every file: {left_out}, "
        f"rows out: {rows_out}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
