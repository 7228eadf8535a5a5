"""The benchmarks that a judge scores, in the report: the paper's Table 2 and its Figures 8 and 9.

results["benchmarks"] is {benchmark: {policy: result}}; report_inputs.py has the fields of a result.
A benchmark may be missing, and so may a policy in it: the table then has "-". A section is
(heading, paragraphs, header of a table, rows of the table).
"""

import published
import report_plots

JUDGED = ("alpaca_eval", "mt_bench", "arena_hard")
PUBLISHED = " (published)"  # ends the name of a policy that is not ours

CATEGORIES_HEADING = "MT-Bench by category"

JUDGED_HEADER = [
    "policy",
    "judge",
    "date",
    "LC AlpacaEval 2",
    "AlpacaEval 2",
    "characters",
    "MT-Bench",
    "turn 1",
    "turn 2",
    "Arena-Hard",
    "95%",
    "characters",
]
JUDGED_NOTE = (
    "AlpacaEval 2 and its length-controlled (LC) rate: percent against the reference's answers, "
    "± one standard error; MT-Bench: 1 to 10; Arena-Hard: percent against the baseline's answers, "
    "with its interval of 95%. The characters are the mean lengths of the answers to AlpacaEval "
    "and Arena-Hard. Where a judge left something without a verdict, the brackets say how much the "
    "score stands on."
)


def sections(results):
    """Yield a section for each judge, and MT-Bench by category."""
    yield from judged_sections(results)
    yield from category_sections(results)


# Cells


def cell(value, digits=1, error=None):
    """A score and its standard error; "-" for a score that is missing."""
    if value is None:
        return "-"
    text = f"{value:.{digits}f}"
    if error is not None:
        text += f" ± {error:.{digits}f}"
    return text


def judged_cell(value, digits, judged, total, error=None):
    """A score, and how many of its answers have a verdict where some have none."""
    text = cell(value, digits, error)
    if value is not None and judged < total:
        text += f" ({judged} of {total})"
    return text


def date_range(dates):
    if not dates:
        return "-"
    first = min(dates)
    last = max(dates)
    return first if first == last else f"{first} to {last}"


# Benchmarks with a judge: one section for each, since scores of two judges cannot be compared


def judges_of(benchmarks):
    """The names of all judges, each once, in the order of the results."""
    judges = []
    for benchmark in JUDGED:
        for result in benchmarks.get(benchmark, {}).values():
            if result["judge"] not in judges:
                judges.append(result["judge"])
    return judges


def results_by(judge, benchmarks):
    """{benchmark: {policy: its result}}, the results of one judge only."""
    selected = {}
    for benchmark in JUDGED:
        selected[benchmark] = {}
        for policy, result in benchmarks.get(benchmark, {}).items():
            if result["judge"] == judge:
                selected[benchmark][policy] = result
    return selected


def judged_heading(judge):
    return f"Benchmarks, judged by {judge}"


def judged_sections(results):
    """Yield a section for each judge."""
    benchmarks = results["benchmarks"]
    notes = [JUDGED_NOTE]
    for reason in missing_length_control(benchmarks):
        notes.append(f"No length-controlled rate: {reason}.")
    # The published scores hold for the published questions alone.
    other_questions = results["settings"].get("EVAL_QUESTIONS")
    for judge in judges_of(benchmarks):
        selected = results_by(judge, benchmarks)
        table = [judged_row(policy, judge, selected) for policy in policies_of(selected)]
        if not other_questions:
            table += published_judged_rows()
        yield judged_heading(judge), notes, JUDGED_HEADER, table


def missing_length_control(benchmarks):
    """The reasons for which AlpacaEval results have no length-controlled win rate, each once."""
    reasons = set()
    for result in benchmarks.get("alpaca_eval", {}).values():
        reason = result.get("no_length_controlled_winrate")
        if reason is not None:
            reasons.add(reason)
    return sorted(reasons)


def policies_of(selected):
    """The names of the policies with a result in any benchmark, in the order of the results."""
    policies = {}
    for result_by_policy in selected.values():
        policies |= dict.fromkeys(result_by_policy)
    return list(policies)


def judged_row(policy, judge, selected):
    """The cells of one policy, as in JUDGED_HEADER."""
    alpaca = selected["alpaca_eval"].get(policy, {})
    mt_bench = selected["mt_bench"].get(policy, {})
    arena = selected["arena_hard"].get(policy, {})
    dates = set()
    for result in (alpaca, mt_bench, arena):
        if result.get("date"):
            dates.add(result["date"])
    judged = alpaca.get("judged", 0)
    total = alpaca.get("rows", 0)
    controlled = alpaca.get("length_controlled_winrate")
    controlled_error = alpaca.get("lc_standard_error")
    win_rate = alpaca.get("win_rate")
    win_rate_error = alpaca.get("standard_error")
    first_turn, second_turn = mt_bench.get("turns", [None, None])
    interval = "-"
    if arena:
        low, high = arena["interval"]
        interval = f"{cell(low)} to {cell(high)}"
    return [
        policy,
        judge,
        date_range(dates),
        judged_cell(controlled, 1, judged, total, controlled_error),
        judged_cell(win_rate, 1, judged, total, win_rate_error),
        cell(alpaca.get("avg_length"), 0),
        judged_cell(mt_bench.get("score"), 2, mt_bench.get("judgments", 0), mt_bench.get("of", 0)),
        cell(first_turn, 2),
        cell(second_turn, 2),
        judged_cell(arena.get("score"), 1, arena.get("questions", 0), arena.get("of", 0)),
        interval,
        cell(arena.get("length"), 0),
    ]


def published_judged_rows():
    """The paper's Table 2; it has no errors, turns, intervals, or lengths."""
    table = []
    for policy, (controlled, mt_bench, arena, *_) in published.SCORES.items():
        name = policy + PUBLISHED
        alpaca_cells = [cell(controlled), "-", "-"]
        mt_bench_cells = [cell(mt_bench, 2), "-", "-"]
        arena_cells = [cell(arena), "-", "-"]
        scores = alpaca_cells + mt_bench_cells + arena_cells
        table.append([name, published.JUDGES, "2024", *scores])
    return table


def category_sections(results):
    """Yield the section of MT-Bench by category, if there are results of MT-Bench."""
    result_by_policy = results["benchmarks"].get("mt_bench", {})
    if not result_by_policy:
        return
    names = {}
    for result in result_by_policy.values():
        names |= dict.fromkeys(result["categories"])
    table = []
    for policy, result in result_by_policy.items():
        scores = [cell(result["categories"].get(name), 2) for name in names]
        table.append([policy, result["judge"], *scores])
    yield CATEGORIES_HEADING, [], ["policy", "judge", *names], table


# Plots


def figures(results):
    """{heading of a section: its plots}."""
    benchmarks = results["benchmarks"]
    plots = {}
    for judge in judges_of(benchmarks):
        plots[judged_heading(judge)] = judged_plots(results_by(judge, benchmarks), judge)
    if mt_bench := benchmarks.get("mt_bench"):
        categories = field_by_policy(mt_bench, "categories")
        plots[CATEGORIES_HEADING] = report_plots.radar(
            categories, "MT-Bench by category (1 to 10).", 10
        )
    return plots


def field_by_policy(result_by_policy, field):
    """{policy: a field of its result, or None}."""
    return {policy: result.get(field) for policy, result in result_by_policy.items()}


def judged_plots(selected, judge):
    """The plots by round of one judge's scores: percentages in one, MT-Bench in another."""
    alpaca = selected["alpaca_eval"]
    percentages = {
        "AlpacaEval 2": field_by_policy(alpaca, "win_rate"),
        "AlpacaEval 2, LC": field_by_policy(alpaca, "length_controlled_winrate"),
        "Arena-Hard": field_by_policy(selected["arena_hard"], "score"),
    }
    turns = {"turn 1": {}, "turn 2": {}}
    for policy, result in selected["mt_bench"].items():
        turns["turn 1"][policy], turns["turn 2"][policy] = result["turns"]
    mt_bench = turns | {"both": field_by_policy(selected["mt_bench"], "score")}
    return [
        *report_plots.by_round(percentages, f"Scores by round, judged by {judge}.", "percent"),
        *report_plots.by_round(
            mt_bench, f"MT-Bench by round, judged by {judge}.", "score (1 to 10)"
        ),
    ]
