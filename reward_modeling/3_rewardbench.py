"""Measure annotators on RewardBench v1 and v2, or on any preference pairs.

RLHF Workflow, arXiv 2405.07863, Table 1.

In two steps: --datasets writes the pairs as responses, which any script of annotation/ can score;
--rewards_files reads the scored rows, one file for each annotator, and makes one table. So every
reward model, preference model, judge or verifier is measured by the code that annotates with it.

Reads:  --datasets, allenai/reward-bench, allenai/reward-bench-2, or JSONL files of their schemas
        (prompt, chosen, rejected, subset) or of preferences. A row of preferences is in its
        "section" if it has one, and in its "subset" or "source".
        --rewards_files with --names and --bench_file, the file that was annotated
Writes: --output_file, {"id", "prompt", "responses", "finish_reasons", "correct": [bool x n],
        "subset", "section", "benchmark", "group": the id of the question, "answer"?,
        "verifier"?}. A prompt of v2's Ties is split into rows of four; the last row is filled up
        with the first responses. The second step takes the extremes of all its rewards, which a
        repeated response does not change.
        --output_dir, rewardbench.json with every number, rewardbench.md with the printed tables

v1: a pair counts if the chosen response has the higher reward. A section is the mean of its
subsets, weighted by subset size, as officially; math-prm counts as 984. v2: the right one of four
must have the highest reward; equal rewards share. Ties have a formula of their own, which needs
rewards that compare beyond four responses, so pairwise annotators have no score there. The score is
the mean of the sections.

    python reward_modeling/3_rewardbench.py --output_file runs/tiny/measures/bench.jsonl \
        --datasets runs/tiny/world/bench.jsonl runs/tiny/preferences_held_out.jsonl
    python reward_modeling/3_rewardbench.py --bench_file runs/tiny/measures/bench.jsonl \
        --names reward_model --rewards_files runs/tiny/measures/bench_reward_model.jsonl \
        --output_dir runs/tiny/measures
"""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import annotator_names
from common import arguments, outputs, rows, tables
from rewardbench_rules import (
    PUBLISHED,
    SECTION_OF,
    V1_ROWS,
    V1_WEIGHTS,
    V2_SECTIONS,
    measure_all,
)

FILES = ("rewardbench.md", "rewardbench.json")
# Fields of a bench row that an annotator must leave as they are.
BENCH_FIELDS = ("benchmark", "section", "subset", "correct", "group")
V2_RESPONSES = 4  # of a row
V1_SIZE = sum(V1_ROWS.values())  # 2985 rows


# First step: rows to be annotated


@dataclass
class Question:
    """A prompt of a benchmark, with right and wrong responses."""

    prompt: list
    chosen: list[str]
    rejected: list[str]
    subset: str
    section: str | None
    is_v2: bool

    def responses(self):
        return [*self.chosen, *self.rejected]


def read_question(row, where):
    """The Question of a row of RewardBench or of preferences. where: DATASET:NUMBER."""
    if not {"prompt", "chosen", "rejected"} <= row.keys():
        refuse_pair(where)
    prompt = row["prompt"]
    if not isinstance(prompt, list):
        prompt = [{"role": "user", "content": prompt}]
    chosen = row["chosen"]
    rejected = row["rejected"]
    # v2 has lists of texts; v1 a text, and preferences messages.
    is_v2 = are_texts(chosen) and are_texts(rejected)
    if not is_v2:
        chosen = [text_of(chosen, where)]
        rejected = [text_of(rejected, where)]
    subset = row.get("subset", row.get("source", "-"))
    question = Question(prompt, chosen, rejected, subset, row.get("section"), is_v2)
    responses = question.responses()
    as_responses = {
        "id": "-",
        "prompt": prompt,
        "responses": responses,
        "finish_reasons": [""] * len(responses),
        "subset": subset,
        "section": question.section,
    }
    problem = rows.problem(as_responses, "responses", n=0, also=("subset",), if_there=("section",))
    if problem:
        sys.exit(f"{where}: {problem}")
    return question


def refuse_pair(where):
    sys.exit(f"{where}: chosen: a pair has prompt, chosen and rejected")


def are_texts(value):
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def text_of(value, where):
    """A text, or the content of the last message; anything else is refused."""
    text = value
    if not isinstance(value, str):
        try:
            text = value[-1]["content"]
        except (KeyError, TypeError, IndexError):
            refuse_pair(where)
    if not isinstance(text, str):
        refuse_pair(where)
    return text


def benchmark_of(question, dataset):
    """(benchmark, section) of a question: v2 is known by its form, v1 by its subsets."""
    if question.is_v2:
        benchmark = "v2"
    elif question.subset in SECTION_OF:
        benchmark = "v1"
    else:
        benchmark = Path(dataset).stem
        if benchmark in ("v1", "v2"):
            sys.exit(f"{dataset}: {question.subset!r} is no subset of RewardBench {benchmark}")
    sections = {"v1": SECTION_OF.get(question.subset), "v2": question.subset}
    return benchmark, question.section or sections.get(benchmark, "all")


def bench_rows(dataset):
    """Yield the bench rows of a dataset."""
    is_v1_on_the_hub = dataset.endswith("reward-bench")
    # Published scores of v1 are those of its filtered split.
    split = "filtered" if is_v1_on_the_hub else "test"
    for number, row in enumerate(rows.load(dataset, split), 1):
        question = read_question(row, f"{dataset}:{number}")
        benchmark, section = benchmark_of(question, dataset)
        if not is_known_subset(question, benchmark, section, is_v1_on_the_hub):
            reason = f"{question.subset!r} is not one of the benchmark's"
            sys.exit(f"{dataset}:{number}: subset: {reason}")
        labels = {}
        # For annotation by a verifier.
        for field in ("answer", "verifier"):
            if field in row:
                labels[field] = row[field]
        labels["subset"] = question.subset
        labels["section"] = section
        labels["benchmark"] = benchmark
        labels["group"] = str(row.get("id", number))
        yield from rows_of_question(question, labels)


def is_known_subset(question, benchmark, section, is_v1_on_the_hub):
    """Whether the benchmark has the question's subset; files of preferences may have any."""
    if question.is_v2:
        return section in V2_SECTIONS
    return benchmark == "v1" or not is_v1_on_the_hub


def rows_of_question(question, labels):
    """Yield a row of all responses; for v2 rows of four, of which Ties may have several."""
    responses = question.responses()
    correct = [True] * len(question.chosen) + [False] * len(question.rejected)
    size = V2_RESPONSES if question.is_v2 else len(responses)
    for first in range(0, len(responses), size):
        # Beyond the last response it goes on with the first: annotators take rows of one size.
        indexes = [(first + i) % len(responses) for i in range(size)]
        yield {
            "id": f"{labels['benchmark']}/{labels['subset']}/{labels['group']}/{first}",
            "prompt": question.prompt,
            "responses": [responses[i] for i in indexes],
            "finish_reasons": ["stop"] * size,
            "correct": [correct[i] for i in indexes],
            **labels,
        }


def write_bench(datasets, output_file):
    bench = []
    for dataset in datasets:
        bench += bench_rows(dataset)
    for row_id, count in Counter(row["id"] for row in bench).items():
        if count > 1:
            sys.exit(f"{', '.join(datasets)}: id: {row_id!r} is twice in the bench")
    rows.write(output_file, bench)

    sizes = Counter(row["benchmark"] for row in bench)
    by_benchmark = ", ".join(f"{benchmark}: {size}" for benchmark, size in sizes.items())
    v1_sizes = Counter(row["subset"] for row in bench if row["benchmark"] == "v1")
    incomplete = []
    for subset, size in v1_sizes.items():
        if size != V1_ROWS[subset]:
            incomplete.append(f"{subset}: {size} of {V1_ROWS[subset]}")
    summary = f"{output_file} rows out: {len(bench)} ({by_benchmark})"
    if incomplete:
        summary += f"; not whole: {', '.join(incomplete)}"
    print(summary)


# Second step: numbers and tables


def read_bench(path):
    """({benchmark: {subset: rows}}, {id: values of BENCH_FIELDS}) of the bench rows."""
    sizes = {}
    values = {}
    for row in rows.read(path, "responses", n=0, also=BENCH_FIELDS):
        check_bench_row(row)
        sizes.setdefault(row["benchmark"], Counter())[row["subset"]] += 1
        values[row["id"]] = bench_values(row)
    return sizes, values


def bench_values(row):
    return [row[field] for field in BENCH_FIELDS]


def check_bench_row(row):
    """The section is one of the benchmark, and there are right and wrong responses, but in Ties."""
    benchmark = row["benchmark"]
    section = row["section"]
    subset = row["subset"]
    expected = [section]
    if benchmark == "v1":
        expected = [SECTION_OF.get(subset)]
    elif benchmark == "v2":
        expected = V2_SECTIONS
    if section not in expected or (section == "Ties") != (subset == "Ties"):
        rows.refuse(row, f"section: {section!r} is not that of {subset!r} in {benchmark}")
    if subset != "Ties" and len(set(map(bool, row["correct"]))) != 2:
        rows.refuse(row, "correct: not both right and wrong responses")


def read_scored(path, bench_file, expected_values):
    """An annotator's rows, each one of the bench rows."""
    scored = list(rows.read(path, "rewards", n=0, also=BENCH_FIELDS, if_there=("judgement",)))
    for row in scored:
        if row["id"] not in expected_values:
            rows.refuse(row, f"id: {row['id']!r} does not stand in {bench_file}")
        if bench_values(row) != expected_values[row["id"]]:
            fields = ", ".join(BENCH_FIELDS)
            rows.refuse(row, f"correct: one of {fields} is not as in {bench_file}")
    return scored


def all_tables(results):
    """Markdown of two tables for each benchmark. results: {annotator: {benchmark: numbers}}."""
    benchmarks = {}  # {benchmark: {annotator: numbers}}
    for annotator, numbers_by_benchmark in results.items():
        for benchmark, numbers in numbers_by_benchmark.items():
            benchmarks.setdefault(benchmark, {})[annotator] = numbers
    texts = []
    for benchmark, annotators in benchmarks.items():
        texts.append(f"{benchmark}:\n\n{section_table(benchmark, annotators)}")
        texts.append(f"{benchmark}, by subset:\n\n{subset_table(annotators)}")
    return "\n\n".join(texts)


def section_table(benchmark, annotators):
    """A line for each annotator; below them, if the bench has all rows of v1, published scores."""
    sections = {}  # of any annotator; a dictionary keeps the order in which they are first met
    for numbers in annotators.values():
        sections |= dict.fromkeys(numbers["sections"])
    official_order = {"v1": V1_WEIGHTS, "v2": V2_SECTIONS}.get(benchmark, sections)
    sections = [section for section in official_order if section in sections]
    lines = []
    for name, numbers in annotators.items():
        scores = [percent(numbers["sections"].get(section)) for section in sections]
        measured_rows = sum(numbers["rows"].values())
        rows_cell = f"{measured_rows} of {sum(numbers['of'].values())}"
        lines.append([name, *scores, percent(numbers["score"]), rows_cell])
    # The bench is the same for all annotators; published models have a score in every section.
    bench_sizes = next(iter(annotators.values()))["of"]
    if bench_sizes == V1_ROWS and sections == list(V1_WEIGHTS):
        for name, scores in PUBLISHED.items():
            lines.append([name, *scores, f"{fmean(scores):.1f}", V1_SIZE])
    return tables.markdown(["annotator", *sections, "score", "rows"], lines)


def subset_table(annotators):
    """A line for each subset."""
    subsets = {}  # a dictionary keeps the order in which they are first met
    for numbers in annotators.values():
        subsets |= dict.fromkeys(numbers["subsets"])
    lines = []
    for subset in subsets:
        scores = [percent(numbers["subsets"].get(subset)) for numbers in annotators.values()]
        lines.append([subset, *scores])
    return tables.markdown(["subset", *annotators], lines)


def percent(value):
    return "-" if value is None else f"{100 * value:.1f}"


def write_tables(args):
    sizes, expected_values = read_bench(args.bench_file)
    results = {}
    for name, file in zip(args.names, args.rewards_files, strict=True):
        scored = read_scored(file, args.bench_file, expected_values)
        results[name] = measure_all(scored, sizes)
    text = all_tables(results)
    outputs.write_text(Path(args.output_dir, "rewardbench.md"), text + "\n")
    outputs.write_json(Path(args.output_dir, "rewardbench.json"), results)
    print(text)


def parse_arguments():
    """The arguments, of one step or of the other."""
    parser = arguments.Parser(__doc__)
    parser.add_argument("--datasets", nargs="+", help="hub names or JSONL files")
    parser.add_output("--output_file", help="bench rows, to be annotated")
    parser.add_argument(
        "--rewards_files", nargs="+", help="annotated bench rows, one file for each annotator"
    )
    parser.add_argument(
        "--names", nargs="+", help="names of the annotators, in the order of the files"
    )
    parser.add_argument("--bench_file", help="the bench rows that were annotated")
    parser.add_output("--output_dir", "folder", FILES, help="for the tables")
    args = parser.parse_args()
    if args.datasets and args.output_file and not args.rewards_files:
        return args
    second_step = [args.rewards_files, args.names, args.bench_file, args.output_dir]
    if args.datasets or not all(second_step):
        flags = "--rewards_files, --names, --bench_file and --output_dir"
        parser.error(f"either --datasets and --output_file, or {flags}")
    annotator_names.check(parser, args)
    return args


def main():
    args = parse_arguments()
    if args.datasets:
        write_bench(args.datasets, args.output_file)
    else:
        write_tables(args)


if __name__ == "__main__":
    main()
