"""The numbers of 3_report.py: metrics of a policy, proxy against true reward, training losses."""

import contextlib
import itertools
from statistics import StatisticsError, correlation, fmean, stdev

# Each metric is the mean of a field of the rows that holds one number for each response.
METRICS = {
    "true_reward": "true_rewards",
    "win_rate": "wins",
    "proxy_reward": "rewards",
    "accuracy": "correct",
    "length": "lengths",
    "kl": "kl",
    "truncated": "truncated",
}
GAP = 0.25  # standard deviations that the proxy may gain over the true reward


def prompt_means(answers, metric):
    """The mean of a metric over the responses to each prompt; none where it is not known."""
    field = METRICS[metric]
    return [fmean(row[field]) for row in answers if field in row]


def measure(answers):
    """The metrics of one policy on the rows of one split."""
    result = {}
    for metric in METRICS:
        means = prompt_means(answers, metric)
        result[metric] = fmean(means) if means else None
    # Prompts are independent, responses to one prompt are not: the error is that over prompts.
    for metric in ("win_rate", "accuracy"):
        means = prompt_means(answers, metric)
        result[f"{metric}_stderr"] = stdev(means) / len(means) ** 0.5 if means else None
    result["accuracy_by_source"] = accuracy_by_source(answers)
    result["prompts"] = len(answers)
    return result


def accuracy_by_source(answers):
    correct_by_source = {}
    for row in answers:
        if "correct" in row:
            source = str(row.get("source", "-"))
            correct_by_source.setdefault(source, []).extend(row["correct"])
    accuracy = {}
    for source in sorted(correct_by_source):
        accuracy[source] = fmean(correct_by_source[source])
    return accuracy


def training_facts(log):
    """First and last loss of a training, and its last evaluation on held-out rows."""
    first = {}
    last = {}
    evaluation = {}
    for entry in log:
        if "loss" in entry:
            first = first or entry
            last = entry
        if "eval_loss" in entry:
            evaluation = entry
    return {
        "first_step": first.get("step"),
        "first_loss": first.get("loss"),
        "last_loss": last.get("loss"),
        "eval_loss": evaluation.get("eval_loss"),
        "eval_accuracy": evaluation.get("eval_accuracy"),
    }


# Proxy and true reward


def proxy_and_true(test):
    """Whether the proxy and the true reward part as the policy moves: numbers, and sentences.

    test: {policy: its rows of the test split}, the baseline first.
    """
    base = next(iter(test))
    proxy = gains(test, "proxy_reward")
    true = gains(test, "true_reward")
    result = {
        "proxy_gain": proxy,
        "true_gain": true,
        "correlation": {name: reward_correlation(answers) for name, answers in test.items()},
        "part": None,
        "rounds": [],
        "rule": (
            "They part in a round if the proxy rises and the true reward does not, or if the gap "
            "(the proxy's gain over the baseline less the true reward's) is above "
            f"{GAP} standard deviations and above the last round's."
        ),
    }
    # Without both rewards for all policies nothing can be said.
    if None in proxy.values() or None in true.values():
        result["text"] = (
            f"Not known: a reward is missing or does not vary over the test prompts of {base}."
        )
        return result
    sentences = [f"Changes are in standard deviations of {base}'s rewards over the test prompts."]
    for old, new in itertools.pairwise(test):
        change = round_change(proxy, true, old, new)
        result["rounds"].append(change)
        sentences.append(round_sentence(change, base))
    result["part"] = any(change["part"] for change in result["rounds"])
    result["text"] = " ".join(sentences)
    return result


def gains(test, metric):
    """{policy: gain over the baseline, in standard deviations of the baseline's rewards, or None}.

    None for all where the reward is missing or does not vary.
    """
    base = next(iter(test))
    # The two rewards have different scales; the baseline's spread is a unit that both have.
    base_means = prompt_means(test[base], metric)
    unit = stdev(base_means) if base_means else 0
    if not unit:
        return dict.fromkeys(test)
    gain_by_policy = {}
    for name, answers in test.items():
        gain = fmean(prompt_means(answers, metric)) - fmean(base_means)
        gain_by_policy[name] = gain / unit
    return gain_by_policy


def reward_correlation(answers):
    """Pearson's correlation of the two rewards over all responses; None where there is none."""
    proxy = []
    true = []
    for row in answers:
        proxy += row.get("rewards", [])
        true += row.get("true_rewards", [])
    # There is none where a reward is not known or does not vary.
    with contextlib.suppress(StatisticsError):
        return correlation(proxy, true)
    return None


def round_change(proxy, true, old, new):
    """What one round has changed. proxy, true: {policy: gain}; old, new: names of policies."""
    proxy_change = proxy[new] - proxy[old]
    true_change = true[new] - true[old]
    old_gap = proxy[old] - true[old]
    gap = proxy[new] - true[new]
    return {
        "from": old,
        "to": new,
        "proxy_change": proxy_change,
        "true_change": true_change,
        "gap": gap,
        "part": (proxy_change > 0 and true_change <= 0) or gap > max(GAP, old_gap),
    }


def round_sentence(change, base):
    part = "part" if change["part"] else "do not part"
    return (
        f"From {change['from']} to {change['to']} the proxy {in_words(change['proxy_change'])} "
        f"and the true reward {in_words(change['true_change'])}: they {part}, "
        f"the gap since {base} is {change['gap']:+.2f}."
    )


def in_words(change):
    verb = "falls" if change < 0 else "rises"
    return f"{verb} by {abs(change):.2f}"
