"""Combine annotators by a weighted sum of their standardised scores (paper 2.1).

Each annotator's rewards are brought to mean 0 and standard deviation 1 over all responses of its
file before they are weighted, so that a weight means the same for scores, probabilities and
verdicts. Rewards that are all equal, those of a verifier that finds nothing right say, prefer no
response: they add 0, and a line says so.

--pessimism LAMBDA makes the reward a lower confidence bound,

    reward = weighted sum of the scores - LAMBDA W deviation,

with W the sum of the weights, and deviation the weighted standard deviation of a response's scores
over the annotators. Those that prefer no response are left out. Uncertainty-weighted optimisation
(arXiv 2310.02743) subtracts the variance instead, over reward models of equal weight; the deviation
is in units of the score, so that LAMBDA counts standard deviations. The pessimism of arXiv
2312.11456 subtracts another width, in the linear case a norm of how far the response's features lie
from those of pi_0; the annotators' disagreement stands in for it here.

Reads:  --rewards_files, files of {"id", "prompt", "responses", "finish_reasons", "rewards",
        "annotator"} over the same rows; rows that one of them lacks are dropped and counted
Writes: --output_file, the rows of the first file, with the combined "rewards"; "annotator": the
        weights, the names and LAMBDA; "objectives": [{annotator: standardised score} for each
        response]. What the first annotator said beside its rewards, "judgement" and "gate", is
        removed

    python annotation/1e_combined.py --rewards_files runs/both/iter1/rewards_armorm.jsonl \
        runs/both/iter1/rewards_verifier.jsonl --weights 1 0.5 \
        --output_file runs/both/iter1/rewards.jsonl
"""

import json
import math
import sys
import time
from dataclasses import dataclass
from statistics import fmean, pstdev

from common import arguments, rows


@dataclass
class Annotator:
    name: str
    weight: float
    scores: dict  # {id: [standardised score of each response]}
    deviation: float  # of its rewards; 0 means that all of them are equal


def read_rewards(file, hash_by_id):
    """({id: rewards}, the annotator's name) of a file.

    hash_by_id: {id: hash of the responses} of the files so far; the responses of a row must be the
    same in all files.
    """
    rewards = {}
    name = file
    for row in rows.read(file, "rewards"):
        name = str(row.get("annotator", file))
        rewards[row["id"]] = row["rewards"]
        # The texts themselves would take the memory of the whole file.
        digest = hash(json.dumps(row["responses"]))
        if hash_by_id.setdefault(row["id"], digest) != digest:
            rows.refuse(row, "responses: not those of an earlier file")
    return rewards, name


def standardise(rewards, file):
    """({id: scores} of mean 0 and deviation 1 over all responses, the deviation before)."""
    all_rewards = []
    for rewards_of_row in rewards.values():
        all_rewards += rewards_of_row
    mean = fmean(all_rewards)
    deviation = pstdev(all_rewards)
    if not deviation:
        print(f"{file}: rewards: all are {mean:g}, they add nothing", flush=True)
    scale = deviation or 1.0
    scores = {}
    for row_id, rewards_of_row in rewards.items():
        scores[row_id] = [(reward - mean) / scale for reward in rewards_of_row]
    return scores, deviation


def read_annotators(files, weights):
    """(an Annotator for each file, number of rows that are in any of them)"""
    annotators = []
    names = set()
    hash_by_id = {}
    for file, weight in zip(files, weights, strict=True):
        rewards, name = read_rewards(file, hash_by_id)
        if name in names:
            sys.exit(f"{file}: annotator: {name} is that of another file, too")
        names.add(name)
        scores, deviation = standardise(rewards, file)
        annotators.append(Annotator(name, weight, scores, deviation))
    return annotators, len(hash_by_id)


def scaled_deviation(annotators, scores):
    """W times the weighted standard deviation of a response's scores, {annotator: score}."""
    preferring = [annotator for annotator in annotators if annotator.deviation]
    total_weight = sum(annotator.weight for annotator in preferring)
    weighted_sum = sum(annotator.weight * scores[annotator.name] for annotator in preferring)
    mean = weighted_sum / total_weight
    squares = 0.0
    for annotator in preferring:
        squares += annotator.weight * (scores[annotator.name] - mean) ** 2
    return total_weight * math.sqrt(squares / total_weight)


def combined_rows(file, annotators, pessimism):
    """Yield the rows of a file that all annotators have, with their combined rewards."""
    formula = " + ".join(f"{annotator.weight:g}*{annotator.name}" for annotator in annotators)
    if pessimism:
        formula += f" - {pessimism:g}*disagreement"
    for row in rows.read(file, "rewards"):
        if not all(row["id"] in annotator.scores for annotator in annotators):
            continue
        row["rewards"] = []
        row["objectives"] = []
        for i in range(len(row["responses"])):
            scores = {annotator.name: annotator.scores[row["id"]][i] for annotator in annotators}
            reward = sum(annotator.weight * scores[annotator.name] for annotator in annotators)
            if pessimism:
                reward -= pessimism * scaled_deviation(annotators, scores)
            row["objectives"].append(scores)
            row["rewards"].append(reward)
        row["annotator"] = formula
        # They explain the first annotator's rewards, not these.
        row.pop("judgement", None)
        row.pop("gate", None)
        yield row


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--rewards_files", nargs="+", required=True, help="one for each annotator")
    parser.add_argument(
        "--weights",
        nargs="+",
        type=arguments.real(),
        help="of the annotators in that order (default: 1 each)",
    )
    parser.add_argument(
        "--pessimism",
        type=arguments.real(0),
        default=0.0,
        help="LAMBDA, standard deviations of the annotators' scores below their mean",
    )
    parser.add_output("--output_file", required=True)
    args = parser.parse_args()
    args.weights = args.weights or [1.0] * len(args.rewards_files)
    if len(args.weights) != len(args.rewards_files):
        parser.error(f"--weights: {len(args.weights)} for {len(args.rewards_files)} files")
    if args.pessimism and len(args.rewards_files) < 2:
        parser.error("--pessimism: one annotator cannot disagree; give two or more")
    if args.pessimism and min(args.weights) <= 0:
        parser.error("--pessimism: with --weights above 0 only")
    return args


def main():
    args = parse_arguments()
    start = time.time()
    first_file = args.rewards_files[0]
    annotators, rows_in = read_annotators(args.rewards_files, args.weights)
    if not any(annotator.deviation for annotator in annotators):
        sys.exit(f"{first_file}: rewards: no annotator prefers any response")

    # Counted before they are written: if no row is left, an earlier output stays.
    rows_out = sum(1 for _ in combined_rows(first_file, annotators, args.pessimism))
    if not rows_out:
        sys.exit(f"{first_file}: id: no row is in all files")
    rows.write(args.output_file, combined_rows(first_file, annotators, args.pessimism))
    print(
        f"{args.output_file} rows in: {rows_in}, dropped, not in every file: {rows_in - rows_out}, "
        f"rows out: {rows_out}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
