"""The benchmarks in the pages of 3_report.py: tables as the paper's Tables 2 and 3, plots as its Figures 8 and 9."""

import published
import report_plots

JUDGED = ("alpaca_eval", "mt_bench", "arena_hard")
PUBLISHED = " (published)"  # ends the name of a row that is not ours


def number(value, digits=1, error=None, judged=1, of=1):
    """A cell: a score with its standard error, and how many were judged where that are not all."""
    if value is None:
        return "-"
    text = f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None else "")
    return text + (f" ({judged} of {of})" if judged < of else "")


def by_judges(results):
    """Yields a section for each judge: (heading, paragraphs, header, rows)."""
    found = {name: results["benchmarks"].get(name, {}) for name in JUDGED}
    note = (
        "AlpacaEval 2 and its length-controlled (LC) rate: percent against the reference's answers, ± one standard "
        "error; MT-Bench: 1 to 10; Arena-Hard: percent against the baseline's answers, with its interval of 95%. The "
        "characters are the mean lengths of the answers to AlpacaEval and Arena-Hard. Where a judge left something "
        "without a verdict, the brackets say how much the score stands on."
    )
    missing = {of.get("no_length_controlled_winrate") for of in found["alpaca_eval"].values()} - {
        None
    }
    notes = [note, *(f"No length-controlled rate: {why}." for why in sorted(missing))]
    header = ["policy", "judge", "date", "LC AlpacaEval 2", "AlpacaEval 2", "characters"]
    header += ["MT-Bench", "turn 1", "turn 2", "Arena-Hard", "95%", "characters"]
    for judge in dict.fromkeys(of["judge"] for name in JUDGED for of in found[name].values()):
        its = {
            name: {p: of for p, of in found[name].items() if of["judge"] == judge}
            for name in JUDGED
        }
        table = []
        for policy in dict.fromkeys(policy for name in JUDGED for policy in its[name]):
            alpaca, mt, arena = (its[name].get(policy, {}) for name in JUDGED)
            dates = sorted({str(of["date"]) for of in (alpaca, mt, arena) if of.get("date")})
            judged = {"judged": alpaca.get("judged", 0), "of": alpaca.get("rows", 0)}
            line = [
                policy,
                judge,
                " to ".join(dict.fromkeys((dates or ["-"])[:: len(dates) - 1 or 1])),
            ]
            line += [
                number(
                    alpaca.get("length_controlled_winrate"),
                    1,
                    alpaca.get("lc_standard_error"),
                    **judged,
                )
            ]
            line += [number(alpaca.get("win_rate"), 1, alpaca.get("standard_error"), **judged)]
            line += [number(alpaca.get("avg_length"), 0)]
            line += [number(mt.get("score"), 2, None, mt.get("judgments", 0), mt.get("of", 0))]
            line += [number(turn, 2) for turn in mt.get("turns", [None] * 2)]
            line += [
                number(arena.get("score"), 1, None, arena.get("questions", 0), arena.get("of", 0))
            ]
            line += [" to ".join(number(bound) for bound in arena.get("interval", [None]))]
            table.append([*line, number(arena.get("length"), 0)])
        if not results["settings"].get(
            "EVAL_QUESTIONS"
        ):  # of other questions no score is published
            for name, (lc, mt, arena, *_) in published.SCORES.items():
                line = [
                    name + PUBLISHED,
                    published.JUDGES,
                    "2024",
                    number(lc),
                    *"--",
                    number(mt, 2),
                    *"--",
                ]
                table.append([*line, number(arena), *"--"])
        yield f"Benchmarks, judged by {judge}", notes, header, table


def academic(results):
    """The section of lm-eval's tasks, with each policy's difference from the first: the alignment tax."""
    found = results["benchmarks"].get("academic", {})
    if not found:
        return
    tasks = list(dict.fromkeys(task for of in found.values() for task in of["tasks"]))
    known = list(published.ACADEMIC)
    tasks.sort(key=lambda task: known.index(task) if task in known else len(known))
    scores = {policy: [of["tasks"].get(task, {}) for task in tasks] for policy, of in found.items()}
    dates = sorted({f"{of['date']} by {of['backend']}" for of in found.values()})
    table = [
        [
            policy,
            *(
                number(100 * of["value"], 1, 100 * (of["stderr"] or 0)) if of else "-"
                for of in line
            ),
        ]
        for policy, line in scores.items()
    ]
    base = next(iter(scores))
    for policy, line in scores.items():
        cut = [of.get("truncated") for of in line]
        if any(share is not None for share in cut):
            table.append(
                [f"{policy}, answers cut off", *(number(share and 100.0 * share) for share in cut)]
            )
    for policy in list(scores)[1:]:
        both = zip(scores[policy], scores[base], strict=True)
        gaps = [
            f"{100 * (own['value'] - its['value']):+.1f}" if own and its else "-"
            for own, its in both
        ]
        table.append([f"{policy} - {base}", *gaps])
    columns = [known.index(task) for task in tasks if task in known]
    for name, values in published.SCORES.items() if columns else ():
        places = {known[column]: values[3 + column] for column in columns}
        table.append([name + PUBLISHED, *(number(places.get(task)) for task in tasks)])
    shots = ", ".join(f"{task} {of['shots']}" for task, of in found[base]["tasks"].items())
    note = f"Percent, ± one standard error; lm-eval with the chat template, {', '.join(dates)}; "
    note += f"examples shown: {shots}. A difference from {base} below zero is the tax that the alignment takes, "
    note += "unless more answers were cut off at the token limit."
    names = [published.ACADEMIC[task][0] if task in known else task for task in tasks]
    yield "Academic benchmarks", [note], ["policy", *names], table


def categories(results):
    """The section of MT-Bench by category."""
    found = results["benchmarks"].get("mt_bench", {})
    if found:
        names = list(dict.fromkeys(name for of in found.values() for name in of["categories"]))
        table = [
            [policy, of["judge"], *(number(of["categories"].get(name), 2) for name in names)]
            for policy, of in found.items()
        ]
        yield "MT-Bench by category", [], ["policy", "judge", *names], table


def sections(results):
    yield from by_judges(results)
    yield from categories(results)
    yield from academic(results)


def figures(results):
    """{heading of a section: its plots}."""
    found, plots = results["benchmarks"], {}
    for judge in dict.fromkeys(
        of["judge"] for name in JUDGED for of in found.get(name, {}).values()
    ):
        its = {
            name: {p: of for p, of in found.get(name, {}).items() if of["judge"] == judge}
            for name in JUDGED
        }
        curves = {
            "AlpacaEval 2": {p: of["win_rate"] for p, of in its["alpaca_eval"].items()},
            "AlpacaEval 2, LC": {
                p: of.get("length_controlled_winrate") for p, of in its["alpaca_eval"].items()
            },
            "Arena-Hard": {p: of["score"] for p, of in its["arena_hard"].items()},
        }
        turns = {
            f"turn {i + 1}": {p: of["turns"][i] for p, of in its["mt_bench"].items()}
            for i in range(2)
        }
        turns |= {"both": {p: of["score"] for p, of in its["mt_bench"].items()}}
        plots[f"Benchmarks, judged by {judge}"] = [
            *report_plots.by_round(curves, f"Scores by round, judged by {judge}.", "percent"),
            *report_plots.by_round(
                turns, f"MT-Bench by round, judged by {judge}.", "score (1 to 10)"
            ),
        ]
    if radar := {p: of["categories"] for p, of in found.get("mt_bench", {}).items()}:
        plots["MT-Bench by category"] = report_plots.radar(
            radar, "MT-Bench by category (1 to 10).", 10
        )
    if tasks := {p: of["tasks"] for p, of in found.get("academic", {}).items()}:
        values = {
            p: {task: 100 * of["value"] for task, of in of_it.items()} for p, of_it in tasks.items()
        }
        names = dict.fromkeys(task for of_it in values.values() for task in of_it)
        curves = {task: {p: of_it.get(task) for p, of_it in values.items()} for task in names}
        plots["Academic benchmarks"] = [
            *report_plots.by_round(curves, "Academic benchmarks by round.", "percent"),
            *report_plots.radar(values, "Academic benchmarks (percent).", 100),
        ]
    return plots
