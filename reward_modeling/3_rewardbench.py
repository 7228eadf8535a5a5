"""Measure annotators on RewardBench v1 and v2, or on any preference pairs (paper, Table 1). In two steps:

--datasets writes the pairs as responses, which any script of annotation/ can score; --rewards_files reads what they
wrote, one file for each annotator, and makes one table. So every reward model, preference model, judge or verifier is
measured by the code that annotates with it.

Reads:  --datasets, allenai/reward-bench, allenai/reward-bench-2, or JSONL files of their schemas (prompt, chosen,
        rejected, subset) or of preferences: their "section", or else one, and their "subset" or "source"
        --rewards_files with --names and --bench_file, the file that was annotated
Writes: --output_file, {"id", "prompt", "responses", "finish_reasons", "correct": [bool x n], "subset", "section",
        "benchmark"}. A prompt of v2's Ties comes in rows of four, with responses repeated where four do not divide them
        --output_dir, rewardbench.json with every number, rewardbench.md with the tables that it prints

v1: a pair counts if the chosen response has the higher reward; a section is the mean of its subsets, weighed by their
official sizes (PRM's as 984). v2: the right one of four has the highest reward, equals share; Ties by its own formula,
which needs rewards that compare beyond four responses, so not for pairwise annotators. The score is the mean of the
sections.

    python reward_modeling/3_rewardbench.py --output_file runs/tiny/measures/bench.jsonl \
        --datasets runs/tiny/world/bench.jsonl runs/tiny/preferences_held_out.jsonl
    python reward_modeling/3_rewardbench.py --bench_file runs/tiny/measures/bench.jsonl --names reward_model \
        --rewards_files runs/tiny/measures/bench_reward_model.jsonl --output_dir runs/tiny/measures
"""

import sys
from collections import Counter
from pathlib import Path
from statistics import fmean

from common import arguments, outputs, rows
from rewardbench_rules import PUBLISHED, ROWS_OF, SECTION_OF, SIZES, V2, ties

FILES = ("rewardbench.md", "rewardbench.json")
OF_BENCH = ("benchmark", "section", "subset", "correct", "group")  # fields of a bench row


def text_of(value):
    return (value if isinstance(value, str) else value[-1]["content"]) + ""


def check_bench_row(row):
    """Its section is its benchmark's; all but v2's Ties have right responses, and wrong ones to tell them from."""
    sections = {"v1": [SECTION_OF.get(row["subset"])], "v2": V2}.get(
        row["benchmark"], [row["section"]]
    )
    if row["section"] not in sections or (row["section"] == "Ties") != (row["subset"] == "Ties"):
        rows.refuse(
            row,
            f"section: {row['section']!r} is not that of {row['subset']!r} in {row['benchmark']}",
        )
    if row["subset"] != "Ties" and len(set(map(bool, row["correct"]))) != 2:
        rows.refuse(row, "correct: not both right and wrong responses")


def bench_rows(dataset):
    """Yields bench rows of a dataset."""
    split = "filtered" if dataset.endswith("reward-bench") else "test"
    for number, row in enumerate(rows.load(dataset, split), 1):
        try:
            prompt = (
                row["prompt"]
                if isinstance(row["prompt"], list)
                else [{"role": "user", "content": row["prompt"]}]
            )
            v2 = isinstance(row["chosen"], list) and isinstance(row["chosen"][0], str)
            chosen, rejected = (row[k] if v2 else [text_of(row[k])] for k in ("chosen", "rejected"))
            subset = row["subset"] if "subset" in row else row.get("source", "-")
            section = row.get("section")
            checked = {
                "id": "-",
                "prompt": prompt,
                "responses": [*chosen, *rejected],
                "subset": subset,
            }
            checked |= {"finish_reasons": [""] * len(checked["responses"])}
        except (KeyError, TypeError, IndexError):
            sys.exit(f"{dataset}:{number}: chosen: a pair has prompt, chosen and rejected")
        if section is not None:
            checked["section"] = section
        if reason := rows.problem(checked, "responses", 0, ("subset",), ("section",)):
            sys.exit(f"{dataset}:{number}: {reason}")
        responses, correct = [*chosen, *rejected], [True] * len(chosen) + [False] * len(rejected)
        benchmark = "v2" if v2 else "v1" if subset in SECTION_OF else Path(dataset).stem
        section = section or {"v2": subset, "v1": SECTION_OF.get(subset)}.get(benchmark, "all")
        if (v2 and section not in V2) or (
            not v2 and benchmark != "v1" and dataset.endswith("reward-bench")
        ):
            sys.exit(f"{dataset}:{number}: subset: {subset!r} is not one of the benchmark's")
        kept = {"answer": row["answer"]} if "answer" in row else {}
        kept |= {
            "subset": subset,
            "section": section,
            "benchmark": benchmark,
            "group": str(row.get("id", number)),
        }
        for part in range(0, len(responses), 4 if v2 else len(responses)):
            places = [(part + i) % len(responses) for i in range(4 if v2 else len(responses))]
            yield {
                "id": f"{benchmark}/{subset}/{kept['group']}/{part}",
                "prompt": prompt,
                "responses": [responses[i] for i in places],
                "finish_reasons": ["stop"] * len(places),
                "correct": [correct[i] for i in places],
                **kept,
            }


def measured(scored, sizes):
    """{benchmark: {score, sections, subsets, rows, of}} of one annotator's rows."""
    results, parts = {}, {}
    for row in scored:
        right = [r for r, correct in zip(row["rewards"], row["correct"], strict=True) if correct]
        wrong = [
            r for r, correct in zip(row["rewards"], row["correct"], strict=True) if not correct
        ]
        subset = (
            parts.setdefault(row["benchmark"], {})
            .setdefault(row["section"], {})
            .setdefault(row["subset"], [])
        )
        if row["benchmark"] == "v2" and row["subset"] != "Ties":
            equal = row["rewards"].count(max(row["rewards"]))
            subset.append(1 / equal if max(right) == max(row["rewards"]) else 0)
        elif row["subset"] != "Ties":
            subset.append(float(min(right) > max(wrong)))
        else:
            subset.append((row["group"], right, wrong, "a" in (row.get("judgement") or [{}])[0]))
    for benchmark, sections in parts.items():
        accuracy, subsets = {}, {}
        for section, of_subsets in sections.items():
            if section == "Ties":
                groups = {}
                for group, right, wrong, _ in of_subsets["Ties"]:
                    both = groups.setdefault(group, ([], []))
                    both[0].extend(right), both[1].extend(wrong)
                groups = {
                    name: both for name, both in groups.items() if all(both)
                }  # a part may have been dropped
                pairwise = any(entry[3] for entry in of_subsets["Ties"])
                accuracy[section] = None if pairwise or not groups else ties(groups)
                subsets["Ties"] = accuracy[section]
                continue
            means = {subset: fmean(values) for subset, values in of_subsets.items()}
            weights = (
                SIZES[section]
                if benchmark == "v1"
                else {name: len(of_subsets[name]) for name in means}
            )
            whole = sum(weights[name] for name in means)
            accuracy[section] = sum(means[name] * weights[name] for name in means) / whole
            subsets |= means
        score = None if None in accuracy.values() else fmean(accuracy.values())
        counts = Counter(row["subset"] for row in scored if row["benchmark"] == benchmark)
        results[benchmark] = {
            "score": score,
            "sections": accuracy,
            "subsets": subsets,
            "rows": dict(counts),
        }
        results[benchmark]["of"] = dict(sizes[benchmark])
    return results


def markdown(heading, lines):
    lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join([f"{heading}:", "", *(f"| {' | '.join(line)} |" for line in lines)])


def tables(results):
    """Yields Markdown, for each benchmark a table of sections and one of subsets."""
    for benchmark in dict.fromkeys(name for of_model in results.values() for name in of_model):
        with_it = {
            name: of_model[benchmark] for name, of_model in results.items() if benchmark in of_model
        }
        sections = list(next(iter(with_it.values()))["sections"])
        if benchmark in ("v1", "v2"):
            sections = [
                section for section in (SIZES if benchmark == "v1" else V2) if section in sections
            ]
        lines = [["annotator", *sections, "score", "rows"]]
        for name, numbers in with_it.items():
            values = [*(numbers["sections"].get(section) for section in sections), numbers["score"]]
            count = f"{sum(numbers['rows'].values())} of {sum(numbers['of'].values())}"
            lines.append([name, *("-" if v is None else f"{100 * v:.1f}" for v in values), count])
        if benchmark == "v1" and len(sections) == 4:
            lines += [
                [name, *map(str, v), f"{fmean(v):.1f}", "2985"] for name, v in PUBLISHED.items()
            ]
        yield markdown(benchmark, lines)
        subsets = dict.fromkeys(
            subset for numbers in with_it.values() for subset in numbers["subsets"]
        )
        by_subset = [["subset", *with_it]]
        for subset in subsets:
            values = [numbers["subsets"].get(subset) for numbers in with_it.values()]
            by_subset.append([subset, *("-" if v is None else f"{100 * v:.1f}" for v in values)])
        yield markdown(f"{benchmark}, by subset", by_subset)


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--datasets", nargs="+", help="hub names or JSONL files")
    parser.add_output("--output_file", help="bench rows, to be annotated")
    parser.add_argument(
        "--rewards_files", nargs="+", help="annotated bench rows, one file for each annotator"
    )
    parser.add_argument("--names", nargs="+", help="of the annotators, in that order")
    parser.add_argument("--bench_file", help="the bench rows that were annotated")
    parser.add_output("--output_dir", "folder", FILES, help="for the tables")
    args = parser.parse_args()
    if args.datasets and args.output_file and not args.rewards_files:
        bench = [row for dataset in args.datasets for row in bench_rows(dataset)]
        twice = [name for name, count in Counter(row["id"] for row in bench).items() if count > 1]
        if twice:
            sys.exit(f"{args.datasets[-1]}: id: {twice[0]!r} stands twice in the bench")
        rows.write(args.output_file, bench)
        counts = Counter((row["benchmark"], row["subset"]) for row in bench)
        short = [
            f"{name}: {n} of {ROWS_OF[name]}"
            for (of, name), n in counts.items()
            if of == "v1" and n != ROWS_OF[name]
        ]
        by = ", ".join(f"{of}: {n}" for of, n in Counter(row["benchmark"] for row in bench).items())
        print(
            f"{args.output_file} rows out: {len(bench)} ({by})"
            + (f"; not whole: {', '.join(short)}" if short else "")
        )
        return
    if (
        not (args.rewards_files and args.names and args.bench_file and args.output_dir)
        or args.datasets
    ):
        parser.error(
            "--datasets and --output_file, or --rewards_files, --names, --bench_file and --output_dir"
        )
    if len(args.names) != len(args.rewards_files):
        parser.error(f"--names: {len(args.names)} for {len(args.rewards_files)} files")

    if len(set(args.names)) < len(args.names):
        parser.error("--names: two annotators of one name")

    sizes, known = {}, {}
    for row in rows.read(args.bench_file, "responses", n=0, also=OF_BENCH):
        check_bench_row(row)
        sizes.setdefault(row["benchmark"], Counter())[row["subset"]] += 1
        known[row["id"]] = [row[field] for field in OF_BENCH]
    results = {}
    for name, file in zip(args.names, args.rewards_files, strict=True):
        scored = list(rows.read(file, "rewards", n=0, also=OF_BENCH, if_there=("judgement",)))
        for row in scored:
            if row["id"] not in known:
                rows.refuse(row, f"id: {row['id']!r} does not stand in {args.bench_file}")
            if [row[field] for field in OF_BENCH] != known[row["id"]]:
                rows.refuse(
                    row, f"correct: one of {', '.join(OF_BENCH)} is not as in {args.bench_file}"
                )
        results[name] = measured(scored, sizes)
    told = "\n\n".join(tables(results))
    outputs.write_text(Path(args.output_dir, "rewardbench.md"), told + "\n")
    outputs.write_json(Path(args.output_dir, "rewardbench.json"), results)
    print(told)


if __name__ == "__main__":
    main()
