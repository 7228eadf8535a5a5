"""The answers of all policies, as 3_report.py compares them.

The rows of a policy are in the order of the baseline's, and have all fields that the metrics need.
"""

import sys
from pathlib import Path

from common import rows, trajectories

RIGHT = 0.5  # the least reward of a right answer
OPTIONAL = ("rewards", "true_rewards", "correct")  # fields that all rows have, or none


def read(paths):
    """{policy: its rows in the order of the baseline's}, with the fields of the metrics."""
    policies = {}
    base = []
    for path in paths:
        name = Path(path).absolute().parent.name
        if name in policies:
            sys.exit(f"{path}: a second file of the policy {name}; the directory names the policy")
        answers = read_policy(path, base)
        # The first file is the baseline's.
        base = base or answers
        check_fields(answers, base)
        policies[name] = in_order_of(base, answers, path, paths[0])
        add_metrics(policies[name], base)
    # A standard error needs two rows.
    for split in ("validation", "test"):
        if len(of_split(base, split)) < 2:
            sys.exit(f"{paths[0]}: split: fewer than two rows of validation or of test")
    return policies


def read_policy(path, base):
    """The rows of one file, with as many responses each as the baseline's."""
    # Rows of the kind "rewards" must have rewards; without a reward model no row has them.
    kind = "responses"
    if any("rewards" in row for row in rows.read(path)):
        kind = "rewards"
    n = None
    if base:
        n = len(base[0]["responses"])
    return list(rows.read(path, kind, n, also=("kl",), if_there=("true_rewards", "correct")))


def check_fields(answers, base):
    """A bad split ends the program, and so does an optional field that only some rows have."""
    required = []
    for field in OPTIONAL:
        if any(field in row for row in base + answers):
            required.append(field)
    for row in answers:
        if row.get("split") not in ("validation", "test"):
            rows.refuse(row, "split: not validation or test")
        for field in required:
            if row.get(field) is None:
                rows.refuse(row, f"{field}: missing, other rows have it")


def in_order_of(base, answers, path, base_path):
    """The answers in the order of the baseline's rows; both must have the same prompts."""
    # Rows are joined by id, not by their order in the files.
    answers_by_id = {row["id"]: row for row in answers}
    base_by_id = {row["id"]: row for row in base}
    for row_id in base_by_id | answers_by_id:
        row = answers_by_id.get(row_id, {})
        base_row = base_by_id.get(row_id, {})
        same = all(row.get(field) == base_row.get(field) for field in ("id", "prompt", "split"))
        if not same:
            sys.exit(
                f"{path}: id: {row_id!r} is not here and in {base_path} "
                "with the same prompt and split"
            )
    return [answers_by_id[row_id] for row_id in base_by_id]


def add_metrics(answers, base):
    """Add lengths, truncated, and wins over the baseline, which follow from the other fields."""
    for row, base_row in zip(answers, base, strict=True):
        row["lengths"] = [len(trajectories.said(response)) for response in row["responses"]]
        row["truncated"] = [reason == "length" for reason in row["finish_reasons"]]
        if "true_rewards" in base_row:
            pairs = zip(row["true_rewards"], base_row["true_rewards"], strict=True)
            row["wins"] = [win(reward, base_reward) for reward, base_reward in pairs]


def take_verdicts(policies):
    """Call right what a verifier has rewarded, as annotation/2_pairs.py does."""
    for answers in policies.values():
        for row in answers:
            row["correct"] = [reward >= RIGHT for reward in row["rewards"]]


def win(reward, base_reward):
    """1 for a win over the baseline, 0 for a loss; a tie counts one half."""
    if reward == base_reward:
        return 0.5
    return float(reward > base_reward)


def of_split(answers, split):
    return [row for row in answers if row["split"] == split]
