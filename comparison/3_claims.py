"""The claims of the paper and the guidebook, tested on the runs of compare.sh; the tiny world's verdicts.

A claim of a difference holds where its 95% interval (bootstrap over seeds and prompts) lies on the claimed side of 0,
fails where it lies on the other, and is undecided else; "costs little" is a win rate of at most 0.03 less. A claim of
several parts holds if all do and fails if one does.

Reads:  --directory, seedS/NAME/ of compare.sh; claims whose runs are not there are "not run"
Writes: in it CLAIMS.md

    python comparison/3_claims.py --directory runs/compare
"""

import json
import math
import sys
from pathlib import Path
from statistics import fmean

import comparing
from common import arguments, outputs

LITTLE = 0.03


def verdict(low, high, bound=0.0):
    return "holds" if low > bound else "fails" if high < bound else "undecided"


def together(parts):
    verdicts = [part[1] for part in parts]
    overall = (
        "fails" if "fails" in verdicts else "undecided" if "undecided" in verdicts else "holds"
    )
    return "; ".join(part[0] for part in parts), overall


def differs(runs, metric, first, second, sign=1, bound=0.0):
    """(what was seen, verdict) of: sign * (first - second) > bound; each a name, or a name and a policy."""
    pair = [side if isinstance(side, tuple) else (side, None) for side in (first, second)]
    mean, low, high = comparing.difference(runs, metric, *pair)
    names = " - ".join(name for name, _ in pair)
    text = f"{metric.replace('_', ' ')}, {names}: {mean:+.3f} ({low:+.3f} to {high:+.3f})"
    return text, verdict(*sorted((sign * low, sign * high)), bound)


def gap(runs, name, policy=None):
    """{seed: per prompt} the proxy's gain over the fine-tuned policy less the true reward's, in standard deviations."""
    proxy, true = (runs.gain(name, metric, policy) for metric in ("proxy_reward", "true_reward"))
    return {seed: proxy[seed] - true[seed] for seed in proxy}


def parted(runs, first, second):
    """Of: the proxy has parted further from the truth in the first than in the second."""
    a, b = gap(runs, *first), gap(runs, *second)
    mean, low, high = comparing.interval({seed: a[seed] - b[seed] for seed in a.keys() & b.keys()})
    kl = [
        fmean(v.mean() for v in runs.values(name, "kl", policy).values())
        for name, policy in (first, second)
    ]
    names = [" ".join(filter(None, side)) for side in (first, second)]
    text = f"gap of {names[0]} (KL {kl[0]:.2f}) - {names[1]} (KL {kl[1]:.2f}): {mean:+.3f} ({low:+.3f} to {high:+.3f})"
    return text, verdict(low, high)


def chosen_fell(runs, name):
    """Of: log pi/pi_0 of the chosen responses is below 0 at the end of each training, in every seed."""
    shown, fell = [], []
    for policy in runs.policies(name):
        ends = []
        for seed in runs.seeds(name, policy):
            run = runs.directory / f"seed{seed}" / name
            history = json.loads((run / policy / "policy/trainer_state.json").read_text())[
                "log_history"
            ]
            beta = float(
                dict(line.split("=", 1) for line in (run / "settings").read_text().splitlines())[
                    "DPO_BETA"
                ]
            )
            told = [
                entry["rewards/chosen"] / beta for entry in history if "rewards/chosen" in entry
            ]
            ends.append(fmean(told[-3:]))
        shown.append(f"{policy} " + " ".join(f"{end:+.2f}" for end in ends))
        fell += [end < 0 for end in ends]
    told = "holds" if all(fell) else "fails" if not any(fell) else "undecided"
    return f"log pi/pi_0 of chosen, {name}, each seed: {', '.join(shown)}", told


def benchmarked(directory):
    """{seed: the scores of its last policy}"""
    files = sorted(directory.glob("seed*/dpo/academic/iter3/academic.json"))
    return {int(file.parents[3].name.removeprefix("seed")): file for file in files}


def tax(runs):
    """Of: what is right at temperature 0 falls by no more than 0.03 from the fine-tuned to the last policy."""
    drops = []
    for file in benchmarked(runs.directory).values():
        both = [json.loads(f.read_text()) for f in (file.parents[1] / "sft" / file.name, file)]
        scores = [{task: values["value"] for task, values in of["tasks"].items()} for of in both]
        drops.append({task: scores[1][task] - scores[0][task] for task in scores[0]})
    shown = [f"{task}: " + " ".join(f"{drop[task]:+.3f}" for drop in drops) for task in drops[0]]
    worst = [min(drop.values()) for drop in drops]
    told = "holds" if min(worst) > -LITTLE else "fails" if max(worst) < -LITTLE else "undecided"
    return f"iter3 - sft, each seed: {', '.join(shown)}", told


def bounded(runs):
    """Of: the KL of best-of-n is at most log n - (n - 1) / n."""
    shown, below = [], []
    for policy in runs.policies("best_of_n"):
        n = int(policy.rsplit("_", 1)[1])
        kls, bound = (
            [v.mean() for v in runs.values("best_of_n", "kl", policy).values()],
            math.log(n) - (n - 1) / n,
        )
        shown.append(f"n={n}: {fmean(kls):.3f} of {bound:.3f}")
        below += [kl <= bound for kl in kls]
    return ", ".join(shown), "holds" if all(below) else "fails"


def budget(runs, *names):
    """What each was trained on, which a comparison wants to be equal: pairs, the mean over seeds. No verdict."""
    counts = []
    for name in names:
        of_seeds = []
        for seed in runs.seeds(name, runs.policies(name)[-1]):
            run = runs.directory / f"seed{seed}" / name
            files = [*run.glob("iter*/pairs.jsonl"), *run.glob("offline_pairs.jsonl")]
            of_seeds.append(sum(len(file.read_bytes().splitlines()) for file in files))
        counts.append(f"{name} {fmean(of_seeds):.0f}")
    return f"pairs: {', '.join(counts)}", "holds"


def faster(runs, first, second):
    """Of: the first takes fewer seconds than the second, on the mean over seeds."""
    means = [
        fmean(runs.cost(name, seed)["seconds"] for seed in runs.seeds(name, "iter3"))
        for name in (first, second)
    ]
    return f"{first} {means[0]:.0f} s, {second} {means[1]:.0f} s", "holds" if means[0] < means[
        1
    ] else "fails"


CLAIMS = [  # what it says and where, the runs it needs, the parts
    ("Iterative DPO beats offline DPO on as many pairs, and that beats fine-tuning (Table 2)", "dpo offline_dpo",
     lambda r: [differs(r, "win_rate", "dpo", "offline_dpo"), differs(r, "win_rate", "offline_dpo", ("base", "sft")),
                budget(r, "dpo", "offline_dpo")]),
    ("The length penalty shortens answers and costs little (Table 4)", "dpo concise",
     lambda r: [differs(r, "length", "concise", "dpo", -1), differs(r, "win_rate", "concise", "dpo", bound=-LITTLE)]),
    ("A reward model with more length bias gives longer answers and less true reward (Table 4)", "dpo long",
     lambda r: [differs(r, "length", "long", "dpo"), differs(r, "true_reward", "long", "dpo", -1)]),
    ("The proxy parts from the truth as KL grows (1.2, guidebook 2)", "far",
     lambda r: [parted(r, ("far", "iter3"), ("far", "iter1"))]),
    ("Online data mends it: three rounds keep closer to the truth than one on as many prompts (1.2)",
     "far far_one_round",
     lambda r: [parted(r, ("far_one_round", None), ("far", None)),
                differs(r, "true_reward", "far", "far_one_round"), budget(r, "far", "far_one_round")]),
    ("Best against worst beats best against random, for as many scored responses (3.3)", "dpo best_random",
     lambda r: [differs(r, "win_rate", "dpo", "best_random"), budget(r, "dpo", "best_random")]),
    ("Best against worst beats random pairs, for as many scored responses (3.3)", "dpo random_random",
     lambda r: [differs(r, "win_rate", "dpo", "random_random"), budget(r, "dpo", "random_random")]),
    ("Best against the most informative beats best against worst, for as many scored responses (3.2)", "dpo uncertain",
     lambda r: [differs(r, "win_rate", "uncertain", "dpo"), budget(r, "dpo", "uncertain")]),
    ("To go on from the previous policy costs little against restarting from pi_0 on all pairs, and saves time (3.3)",
     "dpo restart",
     lambda r: [differs(r, "win_rate", "dpo", "restart", bound=-LITTLE), faster(r, "dpo", "restart")]),
    ("pi_0 as reference is better than the previous policy (3.3)", "dpo reference_previous",
     lambda r: [differs(r, "win_rate", "dpo", "reference_previous")]),
    ("The chosen responses' log-probability falls in offline DPO (guidebook)", "offline_dpo",
     lambda r: [chosen_fell(r, "offline_dpo")]),
    ("It falls in iterative DPO, too", "dpo", lambda r: [chosen_fell(r, "dpo")]),
    ("The alignment tax is small: at most 0.03 of the tiny benchmarks (Table 3)", "dpo alignment_tax",
     lambda r: [tax(r)]),
    ("Best-of-n's KL is at most log n - (n - 1) / n (guidebook)", "best_of_n", lambda r: [bounded(r)]),
]  # fmt: skip


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--directory", required=True)
    args = parser.parse_args()
    runs, directory = comparing.Runs(args.directory), Path(args.directory)
    if not runs.answers:
        sys.exit(f"{directory}: no run of compare.sh is there")
    seeds_of = {
        name: set(runs.seeds(name, runs.policies(name)[-1]))
        for name in {name for name, _, _ in runs.answers}
    }
    seeds_of["alignment_tax"] = set(benchmarked(directory))
    lines = ["| claim | command | seeds | seen | verdict |", "|---|---|---|---|---|"]
    for text, needed, parts in CLAIMS:
        seen, told = "", "not run"
        seeds = len(set.intersection(*(seeds_of.get(name, set()) for name in needed.split())))
        if seeds:
            seen, told = together(parts(runs))
        lines.append(f"| {text} | compare.sh {needed} | {seeds} | {seen} | {told} |")
    head = "# The claims in the tiny world\n\n    bash comparison/compare.sh claims\n\n"
    head += "The tiny world's verdicts. The command of one claim is bash comparison/ and what stands in its row. "
    about = " ".join(__doc__.split("\n\n")[1].split())
    outputs.write_text(directory / "CLAIMS.md", f"{head}{about}\n\n" + "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
