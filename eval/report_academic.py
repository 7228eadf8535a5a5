"""The benchmarks of lm-eval in the report: the paper's Table 3, and the alignment tax.

results["benchmarks"]["academic"] is {policy: result}; report_inputs.py has the fields of a result.
A policy may be without some tasks: the table then has "-".
"""

import published
import report_plots
from report_benchmarks import PUBLISHED, cell

HEADING = "Academic benchmarks"


def sections(results):
    """Yield the section of lm-eval's tasks, if there are results.

    Its rows: the scores, the shares of truncated answers, the differences from the first policy
    (the alignment tax), the published scores.
    """
    result_by_policy = results["benchmarks"].get("academic", {})
    if not result_by_policy:
        return
    tasks = tasks_of(result_by_policy)
    table = score_rows(result_by_policy, tasks)
    table += truncation_rows(result_by_policy, tasks)
    table += difference_rows(result_by_policy, tasks)
    table += published_rows(tasks)
    columns = []
    for task in tasks:
        column = published.ACADEMIC[task][0] if task in published.ACADEMIC else task
        columns.append(column)
    yield HEADING, [note(result_by_policy)], ["policy", *columns], table


def tasks_of(result_by_policy):
    """The names of all tasks: first those of the paper in its order, then others as they come."""
    names = {}
    for result in result_by_policy.values():
        names |= dict.fromkeys(result["tasks"])
    paper_tasks = [name for name in published.ACADEMIC if name in names]
    other_tasks = [name for name in names if name not in published.ACADEMIC]
    return paper_tasks + other_tasks


def note(result_by_policy):
    base = next(iter(result_by_policy))
    dates = {f"{result['date']} by {result['backend']}" for result in result_by_policy.values()}
    dates = ", ".join(sorted(dates))
    base_tasks = result_by_policy[base]["tasks"].items()
    shots = ", ".join(f"{name} {task['shots']}" for name, task in base_tasks)
    return (
        f"Percent, ± one standard error; lm-eval with the chat template, {dates}; "
        f"examples shown: {shots}. A difference from {base} below zero is the tax that the "
        "alignment takes, unless more answers were cut off at the token limit."
    )


def score_rows(result_by_policy, tasks):
    table = []
    for policy, result in result_by_policy.items():
        line = [policy]
        for name in tasks:
            task = result["tasks"].get(name)
            if task is None:
                line.append("-")
            else:
                line.append(cell(percent(task["value"]), 1, percent(task["stderr"] or 0)))
        table.append(line)
    return table


def truncation_rows(result_by_policy, tasks):
    """Percent of answers that the token limit cut off, for policies where it was counted."""
    table = []
    for policy, result in result_by_policy.items():
        shares = [result["tasks"].get(name, {}).get("truncated") for name in tasks]
        # None for a task that generates nothing.
        if shares.count(None) == len(shares):
            continue
        cells = [cell(percent(share)) for share in shares]
        table.append([f"{policy}, answers cut off", *cells])
    return table


def difference_rows(result_by_policy, tasks):
    """Each later policy's score less the first policy's, in points of a percent."""
    base, *others = result_by_policy
    base_tasks = result_by_policy[base]["tasks"]
    table = []
    for policy in others:
        policy_tasks = result_by_policy[policy]["tasks"]
        line = [f"{policy} - {base}"]
        for name in tasks:
            if name in policy_tasks and name in base_tasks:
                difference = policy_tasks[name]["value"] - base_tasks[name]["value"]
                line.append(f"{100 * difference:+.1f}")
            else:
                line.append("-")
        table.append(line)
    return table


def published_rows(tasks):
    """The paper's Table 3; no rows where none of our tasks is in it."""
    if not any(task in published.ACADEMIC for task in tasks):
        return []
    table = []
    for policy, scores in published.SCORES.items():
        # The first three scores are those of the judged benchmarks.
        score_by_task = dict(zip(published.ACADEMIC, scores[3:], strict=True))
        cells = [cell(score_by_task.get(task)) for task in tasks]
        table.append([policy + PUBLISHED, *cells])
    return table


def percent(share):
    return None if share is None else 100.0 * share


def figures(results):
    """{heading of the section: its plots}."""
    result_by_policy = results["benchmarks"].get("academic", {})
    if not result_by_policy:
        return {}
    by_policy = {}  # {policy: {task: percent}}
    by_task = {}  # {task: {policy: percent}}
    for policy, result in result_by_policy.items():
        by_policy[policy] = {}
        for name, task in result["tasks"].items():
            score = percent(task["value"])
            by_policy[policy][name] = score
            by_task.setdefault(name, {})[policy] = score
    plots = [
        *report_plots.by_round(by_task, "Academic benchmarks by round.", "percent"),
        *report_plots.radar(by_policy, "Academic benchmarks (percent).", 100),
    ]
    return {HEADING: plots}
