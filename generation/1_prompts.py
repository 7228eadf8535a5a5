"""Draw the prompts of one round: none of an earlier round, none of an evaluation set (paper 3.3).

Reads:  --datasets, any of
            paper                   RLHFlow/prompt-collection-v0.1, the paper's 179,465 prompts,
                                    from the hub
            math                    the training questions of GSM8K (7,473) and MATH (7,500), with
                                    their final answers, from the hub
            math-test               the test questions of GSM8K, and MATH-500
            names of hub datasets   NAME, or NAME:FILE in it
            files                   .jsonl, .json (gzipped or not), .parquet
        with rows in one of these forms. If a row has several of these fields, the first listed is
        used.
            {"prompt": text or messages}                    (HelpSteer, DIBT-10K)
                as it is
            {"context_messages": messages}, {"messages"}    (RLHFlow's ready-made sets)
                a final assistant turn is dropped
            {"conversations": [{"from", "value"}...]}       (ShareGPT)
            {"conversation": [{"input", "output"}...]}      (Capybara)
                from the first user turn to the last one
            {"instruction", "input"?}                       (UltraFeedback, UltraInteract, Alpaca)
            {"question"}, {"problem"}                       (OpenOrca, GSM8K, MATH)
        "system" or "system_prompt", unless blank, becomes the system turn of the prompt. "input"
        follows the instruction after an empty line. "answer" becomes the final answer, a text: a
        number, what follows #### in GSM8K, the last \\boxed{} of MATH's "solution" where there is
        no "answer". "verifier" says how a response is checked (annotation/1d_verifier.py);
        "instruction_id_list" with "kwargs" (IFEval) becomes one.
        --exclude_files, prompts that must not be drawn: earlier rounds', validation, test
Writes: --output_file, a random sample of --size rows {"id", "prompt", "source", "split"?}, or with
        --size 0 all rows in the order of the input; other keys ("answer", "verifier") pass through
        a table of counts by dataset beside it, with the suffix .md

Two prompts are duplicates when all their turns are equal up to case, whitespace and sentence
punctuation (common/duplicates.py). Near duplicates, and what overlaps the benchmarks, are found by
data/1_clean.py. Prompts with an empty turn, with roles out of order, with tool calls or with
content that is not text are dropped and counted. A duplicate id is replaced by one with the row's
number. The input is read twice; of a row only a digest is held in memory. The script exits if fewer
than --at_least prompts are usable (what all rounds together need); without --output_file it only
counts.

    python generation/1_prompts.py --datasets runs/tiny/world/prompts.jsonl --size 1000 \
        --exclude_files runs/tiny/world/evaluation.jsonl runs/tiny/iter1/prompts.jsonl \
        --output_file runs/tiny/iter2/prompts.jsonl
"""

import random
import sys
import time
from collections import Counter
from dataclasses import dataclass

from common import arguments, duplicates, entrances, outputs, rows, tables

# Six sets make up the prompts (paper 3.3). This published collection of them has as many rows as
# the sets of its Table 5 and DIBT-10K together.
PAPER = ["RLHFlow/prompt-collection-v0.1"]
# Grade-school problems, and the seven subjects of competition problems.
MATH = [
    "openai/gsm8k:main/train-00000-of-00001.parquet",
    "EleutherAI/hendrycks_math:algebra/train-00000-of-00001.parquet",
    "EleutherAI/hendrycks_math:counting_and_probability/train-00000-of-00001.parquet",
    "EleutherAI/hendrycks_math:geometry/train-00000-of-00001.parquet",
    "EleutherAI/hendrycks_math:intermediate_algebra/train-00000-of-00001.parquet",
    "EleutherAI/hendrycks_math:number_theory/train-00000-of-00001.parquet",
    "EleutherAI/hendrycks_math:prealgebra/train-00000-of-00001.parquet",
    "EleutherAI/hendrycks_math:precalculus/train-00000-of-00001.parquet",
]
# The questions on which mathematics is evaluated (arXiv 2409.02392; of MATH's test set 500).
MATH_TEST = [
    "openai/gsm8k:main/test-00000-of-00001.parquet",
    "HuggingFaceH4/MATH-500:test.jsonl",
]
SETS = {"paper": PAPER, "math": MATH, "math-test": MATH_TEST}
# The first line of our table: a file that begins otherwise is not overwritten.
TABLE_HEAD = "| dataset | rows in |"
FIELDS = ("prompt", "context_messages", "messages", *entrances.CONVERSATIONS, *entrances.QUESTIONS)


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument(
        "--datasets", nargs="+", required=True, help=f"files, hub names, {', '.join(SETS)}"
    )
    parser.add_argument("--split", default="train", help="split of a hub dataset")
    parser.add_argument(
        "--exclude_files", nargs="*", default=[], help="JSONL files of prompts not to draw"
    )
    parser.add_argument(
        "--size",
        type=arguments.whole(0),
        default=20_000,
        help="prompts per round (paper 3.3; 0: all)",
    )
    parser.add_argument(
        "--splits", nargs="+", help="label equal parts of the sample with these splits"
    )
    parser.add_argument(
        "--at_least",
        type=arguments.whole(0),
        default=0,
        help="exit if fewer prompts are usable",
    )
    parser.add_output("--output_file", suffixes=[".md"])
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    args = parser.parse_args()
    if args.splits and not args.size:
        parser.error("--splits: they label a sample, --size 0 takes all prompts")
    datasets = []
    for name in args.datasets:
        datasets += SETS.get(name, [name])
    args.datasets = datasets
    return args


# Rows of any form as prompts


@dataclass
class Converted:
    """A row of a dataset in this project's format."""

    dataset: str
    row: dict
    reason: str | None  # why it is dropped


def convert(datasets, split):
    """Yield each row of the datasets as Converted, always in the same order."""
    ids = set()
    number = 0
    for dataset in datasets:
        for row in rows.load(dataset, split):
            number += 1
            try:
                row_id = entrances.name_of(row)
            except ValueError as error:
                rows.refuse(row, error)
            if row_id is None or row_id in ids:
                row_id = entrances.numbered_name(row_id, dataset, number)
            ids.add(row_id)
            yield convert_row(row, dataset, row_id)


def convert_row(row, dataset, row_id):
    """One row as Converted; a row of no known form ends the program."""
    field = entrances.field_of(row, FIELDS)
    prompt_row = {"id": row_id, "source": dataset}
    try:
        prompt_row |= other_fields(row, field)
    except ValueError as error:
        rows.refuse(row, error)
    try:
        prompt_row["prompt"] = prompt_of(row, field)
    except entrances.Dropped as dropped:
        return Converted(dataset, prompt_row, str(dropped))
    except ValueError as error:
        rows.refuse(row, f"prompt: {str(error).removeprefix('prompt: ')}")
    return Converted(dataset, prompt_row, reason_to_drop(prompt_row, row, field))


def prompt_of(row, field):
    """The messages of a prompt in that field of a row; see the docstring above for each form."""
    if field is None:
        raise ValueError(f"none of {', '.join(FIELDS)}")
    is_text = field == "prompt" and not isinstance(row[field], list)
    if field in entrances.QUESTIONS or is_text:
        turns = entrances.asked(row, field)
    else:
        turns = entrances.messages(row[field], field)
    if field in entrances.CONVERSATIONS:
        turns = entrances.up_to_last(entrances.from_first_question(turns), "user")
    elif field != "prompt" and turns and turns[-1]["role"] == "assistant":
        turns = turns[:-1]
    return entrances.with_system(turns, row)


def other_fields(row, field):
    """What passes through, with the final answer."""
    used = {*FIELDS, *entrances.used_with(field)}
    # "prompt" keeps its place among the keys; its value is replaced.
    used.discard("prompt")
    if field == "context_messages":
        # The same conversation as one text.
        used.add("context")
    verifier = None
    if row.get("verifier") is None:
        verifier = entrances.instructions_to_check(row)
    if verifier is not None:
        used |= {"instruction_id_list", "kwargs"}
    fields = entrances.rest_of(row, used)
    if verifier is not None:
        fields["verifier"] = verifier
    answer = entrances.final_answer(row)
    if answer is not None:
        fields["answer"] = answer
    return fields


def reason_to_drop(prompt_row, row, field):
    """Why a converted row is dropped, or None."""
    for turn in prompt_row["prompt"]:
        if not (turn["content"] or "").strip():
            return "an empty turn"
    problem = rows.problem(prompt_row, "prompts")
    if problem is None:
        return None
    # Malformed conversations are to be expected in the data of others. In this project's own
    # format, and in any other field, they are an error.
    if field == "prompt" or not problem.startswith("prompt: "):
        rows.refuse(row, problem)
    # Without the details in brackets, so that the counts of a table are few.
    return problem.split(" (")[0].removeprefix("prompt: ")


# The sample


def excluded_digests(files):
    """The digests of the prompts of these files."""
    digests = set()
    for file in files:
        for row in rows.read(file, "prompts"):
            digests.add(duplicates.of_prompt(row["prompt"]))
    return digests


def usable_rows(args, counts):
    """The numbers of the rows that can be sampled.

    counts: {dataset: Counter of rows by what became of them}, counted here.
    """
    excluded = excluded_digests(args.exclude_files)
    seen = set()
    usable = []
    for number, converted in enumerate(convert(args.datasets, args.split)):
        outcome = converted.reason
        if outcome is None:
            digest = duplicates.of_prompt(converted.row["prompt"])
            if digest in excluded:
                outcome = "in an excluded file"
            elif digest in seen:
                outcome = "duplicate"
            else:
                outcome = "left"
                seen.add(digest)
                usable.append(number)
        counts[converted.dataset][outcome] += 1
    return usable


def read_again(args, numbers):
    """Yield (number, row) of the rows with these numbers, in a second pass over the datasets."""
    wanted = set(numbers)
    for number, converted in enumerate(convert(args.datasets, args.split)):
        if number in wanted:
            yield number, converted.row


def sample(args, usable):
    """Yield a random sample of --size usable rows, or with 0 all of them in the input's order."""
    if not args.size:
        for _, row in read_again(args, usable):
            yield row
        return
    sampled_numbers = random.Random(args.seed).sample(usable, args.size)
    row_by_number = dict(read_again(args, sampled_numbers))
    for i, number in enumerate(sampled_numbers):
        row = row_by_number[number]
        if args.splits:
            row["split"] = args.splits[i * len(args.splits) // args.size]
        yield row


def table(counts):
    """The counts of usable_rows in Markdown."""
    return tables.outcomes(counts, "dataset", "left", "left")


def main():
    args = parse_arguments()
    start = time.time()
    counts = {dataset: Counter() for dataset in args.datasets}
    usable = usable_rows(args, counts)
    total = sum(counts.values(), Counter())
    if len(usable) < args.at_least:
        sys.exit(
            f"{' '.join(args.datasets)}: {len(usable)} prompts of {dict(total)}, "
            f"{args.at_least} are needed"
        )
    if args.output_file is None:
        print(f"{table(counts)}prompts: {len(usable)}")
        return
    if len(usable) < max(args.size, 1):
        sys.exit(
            f"{args.output_file}: {args.size} prompts asked for, {len(usable)} are left of "
            f"{dict(total)}"
        )
    table_file = outputs.table_beside(args.output_file, TABLE_HEAD)
    rows.write(args.output_file, sample(args, usable))
    outputs.write_text(table_file, table(counts))
    print(
        f"{table(counts)}{args.output_file} rows in: {total.total()}, "
        f"dropped: {total.total() - len(usable)}, left: {len(usable)}, "
        f"rows out: {args.size or len(usable)}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
