"""The claims of the paper and the guidebook, tested on the runs of compare.sh in the tiny world.

A claim of a difference holds where its 95% interval (bootstrap over seeds and prompts) lies on the
claimed side of 0, fails where it lies on the other, and is undecided otherwise; "costs little" is a
win rate of at most 0.03 less. A claim of several parts holds if all do and fails if one does.

Reads:  --directory, seedS/NAME/ of compare.sh; claims whose runs are not there are "not run"
Writes: in it CLAIMS.md

    python comparison/3_claims.py --directory runs/compare
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import comparing
from claim_parts import (
    FAILS,
    HOLDS,
    LITTLE,
    UNDECIDED,
    academic_files,
    bounded,
    budget,
    chosen_fell,
    faster,
    greater,
    less,
    parted,
    tax,
)
from common import arguments, outputs, tables


@dataclass
class Claim:
    text: str  # what is claimed, and where
    needs: list[str]  # names of runs of compare.sh
    # Takes the Runs, gives (what was seen, verdict) of each part. A run is named alone, for its
    # last policy, or with a policy.
    parts: Callable[[comparing.Runs], list[tuple[str, str]]]


CLAIMS = [
    Claim(
        "Iterative DPO beats offline DPO on as many pairs, and that beats fine-tuning (Table 2)",
        ["dpo", "offline_dpo"],
        lambda runs: [
            greater(runs, "win_rate", "dpo", "offline_dpo"),
            greater(runs, "win_rate", "offline_dpo", ("base", "sft")),
            budget(runs, "dpo", "offline_dpo"),
        ],
    ),
    Claim(
        "The length penalty shortens answers and costs little (Table 4)",
        ["dpo", "concise"],
        lambda runs: [
            less(runs, "length", "concise", "dpo"),
            greater(runs, "win_rate", "concise", "dpo", bound=-LITTLE),
        ],
    ),
    Claim(
        "A reward model with more length bias gives longer answers and less true reward (Table 4)",
        ["dpo", "long"],
        lambda runs: [
            greater(runs, "length", "long", "dpo"),
            less(runs, "true_reward", "long", "dpo"),
        ],
    ),
    Claim(
        "The proxy parts from the truth as KL grows (1.2, guidebook 2)",
        ["far"],
        lambda runs: [parted(runs, ("far", "iter3"), ("far", "iter1"))],
    ),
    Claim(
        "Online data mends it: three rounds keep closer to the truth than one on as many prompts "
        "(1.2)",
        ["far", "far_one_round"],
        lambda runs: [
            parted(runs, "far_one_round", "far"),
            greater(runs, "true_reward", "far", "far_one_round"),
            budget(runs, "far", "far_one_round"),
        ],
    ),
    Claim(
        "Best against worst beats best against random, for as many scored responses (3.3)",
        ["dpo", "best_random"],
        lambda runs: [
            greater(runs, "win_rate", "dpo", "best_random"),
            budget(runs, "dpo", "best_random"),
        ],
    ),
    Claim(
        "Best against worst beats random pairs, for as many scored responses (3.3)",
        ["dpo", "random_random"],
        lambda runs: [
            greater(runs, "win_rate", "dpo", "random_random"),
            budget(runs, "dpo", "random_random"),
        ],
    ),
    Claim(
        "Best against the most informative beats best against worst, for as many scored responses "
        "(3.2)",
        ["dpo", "uncertain"],
        lambda runs: [
            greater(runs, "win_rate", "uncertain", "dpo"),
            budget(runs, "dpo", "uncertain"),
        ],
    ),
    Claim(
        "To go on from the previous policy costs little against restarting from pi_0 on all pairs, "
        "and saves time (3.3)",
        ["dpo", "restart"],
        lambda runs: [
            greater(runs, "win_rate", "dpo", "restart", bound=-LITTLE),
            faster(runs, "dpo", "restart"),
        ],
    ),
    Claim(
        "pi_0 as reference is better than the previous policy (3.3)",
        ["dpo", "reference_previous"],
        lambda runs: [greater(runs, "win_rate", "dpo", "reference_previous")],
    ),
    Claim(
        "The chosen responses' log-probability falls in offline DPO (guidebook)",
        ["offline_dpo"],
        lambda runs: [chosen_fell(runs, "offline_dpo")],
    ),
    Claim(
        "It falls in iterative DPO, too",
        ["dpo"],
        lambda runs: [chosen_fell(runs, "dpo")],
    ),
    Claim(
        "The alignment tax is small: at most 0.03 of the tiny benchmarks (Table 3)",
        ["dpo", "alignment_tax"],
        lambda runs: [tax(runs)],
    ),
    Claim(
        "Best-of-n's KL is at most log n - (n - 1) / n (guidebook)",
        ["best_of_n"],
        lambda runs: [bounded(runs)],
    ),
]


def seeds_by_run(runs):
    """{name of compare.sh: its seeds}."""
    seeds = {}
    for name, _, _ in runs.answers:
        seeds[name] = set(runs.seeds(name, runs.policies(name)[-1]))
    seeds["alignment_tax"] = set(academic_files(runs.directory))
    return seeds


def claim_cells(claim, runs, seeds_of):
    """The cells of the table for one claim."""
    # A comparison is of the seeds that all its runs have.
    seeds = set.intersection(*(seeds_of.get(name, set()) for name in claim.needs))
    seen = []
    verdicts = []
    if seeds:
        for part_seen, part_verdict in claim.parts(runs):
            seen.append(part_seen)
            verdicts.append(part_verdict)
    command = f"compare.sh {' '.join(claim.needs)}"
    return [claim.text, command, len(seeds), "; ".join(seen), combined_verdict(verdicts)]


def combined_verdict(verdicts):
    """The verdict on a claim of several parts, or "not run"."""
    if not verdicts:
        return "not run"
    if FAILS in verdicts:
        return FAILS
    if UNDECIDED in verdicts:
        return UNDECIDED
    return HOLDS


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--directory", required=True)
    args = parser.parse_args()
    runs = comparing.Runs(args.directory)
    if not runs.answers:
        sys.exit(f"{runs.directory}: no run of compare.sh is there")

    seeds_of = seeds_by_run(runs)
    lines = ["| claim | command | seeds | seen | verdict |", "|---|---|---|---|---|"]
    for claim in CLAIMS:
        lines.append(tables.markdown_line(claim_cells(claim, runs, seeds_of)))
    table = "\n".join(lines)
    # The page explains the verdicts in the words of the docstring's second paragraph.
    about = " ".join(__doc__.split("\n\n")[1].split())
    text = (
        "# The claims in the tiny world\n\n"
        "    bash comparison/compare.sh claims\n\n"
        "The tiny world's verdicts. The command of one claim is bash comparison/ and what stands "
        f"in its row. {about}\n\n"
        f"{table}\n"
    )
    outputs.write_text(runs.directory / "CLAIMS.md", text)
    print(table)


if __name__ == "__main__":
    main()
