"""The parts of the claims of 3_claims.py: functions of Runs that return (what was seen, verdict).

A run is given by its name, which stands for its last policy, or as (name, policy).
"""

import json
import math
from statistics import fmean

import comparing

LITTLE = 0.03
HOLDS = "holds"
FAILS = "fails"
UNDECIDED = "undecided"


def greater(runs, metric, first, second, bound=0.0):
    """first - second > bound."""
    seen, low, high = difference(runs, metric, first, second)
    return seen, verdict(low, high, bound)


def less(runs, metric, first, second):
    """first - second < 0."""
    seen, low, high = difference(runs, metric, first, second)
    return seen, verdict(-high, -low)


def difference(runs, metric, first, second):
    """(what was seen, low, high) of first - second."""
    first_name, first_policy = name_and_policy(first)
    second_name, second_policy = name_and_policy(second)
    # Prompt by prompt, which takes out how hard a prompt is.
    mean, low, high = comparing.paired_interval(
        runs.values(first_name, metric, first_policy),
        runs.values(second_name, metric, second_policy),
    )
    what = f"{metric.replace('_', ' ')}, {first_name} - {second_name}"
    return f"{what}: {mean:+.3f} ({low:+.3f} to {high:+.3f})", low, high


def name_and_policy(side):
    return (side, None) if isinstance(side, str) else side


def verdict(low, high, bound=0.0):
    """Whether a number is above the bound, by its interval."""
    if low > bound:
        return HOLDS
    if high < bound:
        return FAILS
    return UNDECIDED


def parted(runs, first, second):
    """The proxy has parted further from the true reward in the first policy than in the second."""
    mean, low, high = comparing.paired_interval(gap(runs, first), gap(runs, second))
    what = f"gap of {with_kl(runs, first)} - {with_kl(runs, second)}"
    return f"{what}: {mean:+.3f} ({low:+.3f} to {high:+.3f})", verdict(low, high)


def gap(runs, side):
    """{seed: the proxy's gain less the true reward's for each prompt}, in standard deviations."""
    name, policy = name_and_policy(side)
    proxy = runs.gain(name, "proxy_reward", policy)
    true = runs.gain(name, "true_reward", policy)
    return {seed: proxy[seed] - true[seed] for seed in proxy}


def with_kl(runs, side):
    name, policy = name_and_policy(side)
    kl = runs.mean(name, "kl", policy)
    label = f"{name} {policy}" if policy else name
    return f"{label} (KL {kl:.2f})"


def chosen_fell(runs, name):
    """log pi/pi_0 of the chosen responses is below 0 at the end of each training, in each seed."""
    seen = []
    fell = []
    for policy in runs.policies(name):
        ends = []
        for seed in runs.seeds(name, policy):
            end = chosen_at_the_end(runs.directory / f"seed{seed}" / name, policy)
            ends.append(f"{end:+.2f}")
            fell.append(end < 0)
        seen.append(f"{policy} {' '.join(ends)}")
    decided = UNDECIDED
    if all(fell):
        decided = HOLDS
    elif not any(fell):
        decided = FAILS
    what = f"log pi/pi_0 of chosen, {name}, each seed"
    return f"{what}: {', '.join(seen)}", decided


def chosen_at_the_end(run, policy):
    """log pi/pi_0 of the chosen responses, the mean of the last three entries of a log."""
    beta = float(comparing.setting(run, "DPO_BETA"))
    log_ratios = []
    for entry in comparing.read_history(run / policy / "policy/trainer_state.json"):
        if "rewards/chosen" in entry:
            # DPO's implicit reward is beta log pi/pi_0.
            log_ratios.append(entry["rewards/chosen"] / beta)
    return fmean(log_ratios[-3:])


def tax(runs):
    """No score of the tiny benchmarks falls by more than 0.03 from sft to the last policy."""
    changes = []  # of each seed: {task: change}
    for file in academic_files(runs.directory).values():
        before = task_scores(file.parents[1] / "sft" / file.name)
        after = task_scores(file)
        changes.append({task: after[task] - before[task] for task in before})
    seen = []
    for task in changes[0]:
        of_seeds = [f"{change[task]:+.3f}" for change in changes]
        seen.append(f"{task}: {' '.join(of_seeds)}")
    worst_task = [min(change.values()) for change in changes]
    decided = verdict(min(worst_task), max(worst_task), -LITTLE)
    return f"iter3 - sft, each seed: {', '.join(seen)}", decided


def academic_files(directory):
    """{seed: the scores of the last policy of dpo in the tiny benchmarks}."""
    files = {}
    for file in sorted(directory.glob("seed*/dpo/academic/iter3/academic.json")):
        seed = file.parents[3].name.removeprefix("seed")
        files[int(seed)] = file
    return files


def task_scores(file):
    tasks = json.loads(file.read_text())["tasks"]
    return {name: task["value"] for name, task in tasks.items()}


def bounded(runs):
    """The KL of best-of-n is at most log n - (n - 1) / n."""
    seen = []
    below = []
    for policy in runs.policies("best_of_n"):
        n = int(policy.rsplit("_", 1)[1])
        bound = math.log(n) - (n - 1) / n
        seen.append(f"n={n}: {runs.mean('best_of_n', 'kl', policy):.3f} of {bound:.3f}")
        for kl in runs.values("best_of_n", "kl", policy).values():
            below.append(kl.mean() <= bound)
    return ", ".join(seen), HOLDS if all(below) else FAILS


def budget(runs, *names):
    """The pairs that each run was trained on, the mean over seeds; a comparison wants them equal.

    For the reader alone: it always holds.
    """
    seen = []
    for name in names:
        counts = []
        for seed in runs.seeds(name, runs.policies(name)[-1]):
            run = runs.directory / f"seed{seed}" / name
            files = [*run.glob("iter*/pairs.jsonl"), *run.glob("offline_pairs.jsonl")]
            counts.append(sum(len(file.read_bytes().splitlines()) for file in files))
        seen.append(f"{name} {fmean(counts):.0f}")
    return f"pairs: {', '.join(seen)}", HOLDS


def faster(runs, first, second):
    """The first run takes fewer seconds than the second, on the mean over seeds."""
    first_seconds = mean_seconds(runs, first)
    second_seconds = mean_seconds(runs, second)
    seen = f"{first} {first_seconds:.0f} s, {second} {second_seconds:.0f} s"
    return seen, HOLDS if first_seconds < second_seconds else FAILS


def mean_seconds(runs, name):
    return fmean(runs.cost(name, seed)["seconds"] for seed in runs.seeds(name, "iter3"))
