"""The sections of the report: all that its two pages say in words and tables.

A section is (heading, paragraphs, header of a table, rows of the table).
"""

import math
from pathlib import Path

import report_academic
import report_benchmarks


def cell(value, digits=3):
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def title(results):
    recipe = Path(results["recipe"]).stem
    note = " (tiny world: never comparable with published numbers)" if "tiny" in recipe else ""
    return f"RLHF Workflow, recipe {recipe}{note}"


def best_line(results):
    """A sentence: which policy is the best, by which score, and the baseline's score."""
    best = results["best"]
    base = results["baseline"]
    chosen = results["validation"]
    scores = chosen["scores"]
    by = results["best_by"]
    if chosen["penalty"]:
        by += f" less {chosen['penalty']:g} a character"
    other = f"{base} has {scores[base]:.3f}"
    if best == base:
        other = "no round is better"
    line = f"Best by {by} on the validation prompts: {best} with {scores[best]:.3f}; {other}."
    if chosen["is_proxy"]:
        line += (
            " The policies are trained for what chooses here: how far they exploit it does not "
            "show in this choice."
        )
    return line


# Sections


def sections(results):
    """Yield all sections, in the order of the pages."""
    yield policies_section(results)
    yield proxy_section(results)
    yield from source_sections(results)
    yield from report_benchmarks.sections(results)
    yield from report_academic.sections(results)
    yield from reward_bench_sections(results["measures"])
    yield from bias_sections(results["measures"])
    yield training_section(results["training"])
    yield seconds_section(results)
    yield "Settings", [], ["variable", "value"], list(results["settings"].items())
    yield versions_section(results)


def policies_section(results):
    base = results["baseline"]
    prompts = results["policies"][base]["prompts"]
    legend = (
        f"Means over {prompts} test prompts, ± one standard error. true_reward: known in a made "
        f"world only; win_rate: against {base} by true_reward, a tie counts one half; "
        "proxy_reward: the annotator's, for which the policy is trained; accuracy: share of right "
        "answers; length: characters; kl: log pi - log pi_0 of the policy's own answers, nats; "
        "truncated: share of answers cut at the token limit."
    )
    header, table = main_table(results)
    return "Policies", [best_line(results), legend], header, table


def main_table(results):
    """(header, rows): the metrics of each policy."""
    header = ["policy", "true_reward", "win_rate", "proxy_reward", "accuracy"]
    header += ["length", "kl", "truncated"]
    table = []
    for name, policy in results["policies"].items():
        win_rate = cell(policy["win_rate"])
        if policy["win_rate_stderr"] is not None:
            win_rate += f" ± {policy['win_rate_stderr']:.3f}"
        accuracy = cell(policy["accuracy"])
        if policy["win_rate"] is None and policy["accuracy_stderr"] is not None:
            accuracy += f" ± {policy['accuracy_stderr']:.3f}"
        line = [
            f"{name} (best)" if name == results["best"] else name,
            cell(policy["true_reward"]),
            win_rate,
            cell(policy["proxy_reward"]),
            accuracy,
            cell(policy["length"], 1),
            cell(policy["kl"]),
            cell(policy["truncated"]),
        ]
        table.append(line)
    return header, table


def proxy_section(results):
    base = results["baseline"]
    measured = results["proxy_and_true"]
    note = (
        f"Gains: over {base}, in standard deviations of its rewards over the test prompts. "
        "Correlation: Pearson's, of the two rewards over all test answers of a policy."
    )
    table = []
    for name in results["policies"]:
        proxy_gain = cell(measured["proxy_gain"][name])
        true_gain = cell(measured["true_gain"][name])
        correlation = cell(measured["correlation"][name])
        table.append([name, proxy_gain, true_gain, correlation])
    header = ["policy", "proxy_gain", "true_gain", "correlation"]
    return "Proxy and true reward", [measured["text"], measured["rule"], note], header, table


def source_sections(results):
    """Yield the section of accuracy by source, unless no accuracy is known or sources are many."""
    policies = results["policies"]
    sources = policies[results["baseline"]]["accuracy_by_source"]
    if not 0 < len(sources) <= 15:
        return
    table = []
    for source in sources:
        line = [source]
        for policy in policies.values():
            line.append(cell(policy["accuracy_by_source"].get(source)))
        table.append(line)
    yield "Accuracy by kind of question", [], ["source", *policies], table


def reward_bench_sections(measures):
    """Yield a section for each set of pairs that reward models were measured on."""
    models = measures.get("rewardbench", {})
    benches = {}  # {name of a set: {annotator: its result}}
    for annotator, result_by_bench in models.items():
        for bench, result in result_by_bench.items():
            benches.setdefault(bench, {})[annotator] = result
    note = (
        "Share of pairs whose better response has the higher reward; a section is the mean of its "
        "subsets."
    )
    for bench, result_by_annotator in benches.items():
        first = next(iter(result_by_annotator.values()))
        # The columns are the sections of the first annotator; the pairs are the same for all.
        names = list(first["sections"])
        table = []
        for annotator, result in result_by_annotator.items():
            scores = [cell(result["sections"].get(name)) for name in names]
            scored = sum(result["rows"].values())
            total = sum(result["of"].values())
            table.append([annotator, *scores, cell(result["score"]), f"{scored} of {total}"])
        header = ["annotator", *names, "score", "rows"]
        yield f"Reward models: {bench}", [note], header, table


def bias_sections(measures):
    """Yield the section of length correlation and calibration error, with what of it there is."""
    length_bias = measures.get("length_bias", {})
    calibration = measures.get("calibration", {})
    header = ["annotator"]
    if length_bias:
        header.append("length correlation")
    if calibration:
        header.append("calibration error")
    table = []
    # Either measure may not have been run, or not of every annotator.
    for annotator in length_bias | calibration:
        line = [annotator]
        if length_bias:
            line.append(cell(length_bias.get(annotator, {}).get("mean")))
        if calibration:
            line.append(cell(calibration.get(annotator, {}).get("calibration_error")))
        table.append(line)
    note = (
        "length correlation: Pearson's, of reward and length over the responses to a prompt, mean "
        "over prompts. calibration error: mean distance of the predicted probability from the "
        "share that raters prefer."
    )
    if table:
        yield "Reward models: length and calibration", [note], header, table


def training_section(training):
    """training: {model: its facts}."""
    note = (
        f"The loss of sigmoid DPO begins at ln 2 = {math.log(2):.4f} if the policy begins as its "
        "reference. eval_loss and eval_accuracy are the last on held-out rows."
    )
    fields = next(iter(training.values()))
    table = []
    for name, facts in training.items():
        table.append([name, *(cell(value, 4) for value in facts.values())])
    return "Training", [note], ["model", *fields], table


def seconds_section(results):
    # The total stands as a last step.
    seconds = results["seconds"] | {"all": results["seconds_total"]}
    table = [[step, cell(value, 1)] for step, value in seconds.items()]
    return "Seconds", [], ["step", "seconds"], table


def versions_section(results):
    facts = {
        "date": results["date"],
        "commit": results["commit"],
        "seed": results["seed"],
        **results["machine"],
        **results["versions"],
    }
    table = [[name, cell(value)] for name, value in facts.items()]
    return "Versions and machine", [], ["what", "value"], table
