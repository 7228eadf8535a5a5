"""Draw the prompts of one round: none of an earlier round, none of an evaluation set (paper 3.3).

Reads:  --datasets, any of
            paper                   RLHFlow/prompt-collection-v0.1, the paper's 179,465 prompts,
                                    from the hub
            names of hub datasets   NAME, or NAME:FILE in it
            files                   .jsonl, .json (gzipped or not), .parquet
        with rows in one of these forms; of several fields the first in this order counts, and other
        keys never decide
            {"prompt": text or messages}                    (HelpSteer, DIBT-10K)
            {"context_messages": messages}, {"messages"}    (RLHFlow's ready-made sets)
            {"conversations": [{"from", "value"}...]}       (ShareGPT)
            {"conversation": [{"input", "output"}...]}      (Capybara)
            {"instruction", "input"?}                       (UltraFeedback, UltraInteract, Alpaca)
            {"question"}, {"problem"}                       (OpenOrca, GSM8K, MATH)
        "system" or "system_prompt", unless blank, becomes the system turn of the prompt. "input"
        follows the instruction after an empty line. "answer" becomes the final answer, a text: a
        number, what follows #### in GSM8K, the last \\boxed{} of MATH's "solution" where there is
        no "answer".
        --exclude_files, prompts that must not be drawn: earlier rounds', validation, test
Writes: --output_file, --size rows {"id", "prompt", "source", "split"?}, or all of them in their
        order with --size 0; other keys ("answer") pass through
        a table of counts by dataset beside it, with the suffix .md

A conversation goes up to its last user turn. Two prompts are duplicates when all their turns are
equal up to capitals, blanks and the punctuation of sentences (common/duplicates.py). Near
duplicates, and what overlaps the benchmarks, are found by data/1_clean.py. Prompts with an empty
turn, with tool calls or with content that is not text are dropped and counted. A duplicate id is
replaced by one with the row's number. The input is read twice; of a row only a digest is held in
memory. Without --output_file the prompts are only counted, and at least --at_least of them, those
of all rounds, have to be there.

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

# Of six sets (paper 3.3); as large as Table 5's and DIBT-10K together.
PAPER = ["RLHFlow/prompt-collection-v0.1"]
TABLE_HEAD = "| dataset | rows in |"
FIELDS = ("prompt", "context_messages", "messages", *entrances.CONVERSATIONS, *entrances.QUESTIONS)


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--datasets", nargs="+", required=True, help="files, hub names, paper")
    parser.add_argument("--split", default="train", help="split of a hub dataset")
    parser.add_argument(
        "--exclude_files", nargs="*", default=[], help="JSONL files of prompts not to draw"
    )
    parser.add_argument(
        "--size", type=arguments.whole(0), default=20_000, help="prompts a round (paper 3.3)"
    )
    parser.add_argument(
        "--splits", nargs="+", help='values of "split" to mark equal parts of the draw with'
    )
    parser.add_argument(
        "--at_least",
        type=arguments.whole(0),
        default=0,
        help="prompts that have to be there to draw",
    )
    parser.add_output("--output_file", suffixes=[".md"])
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    args = parser.parse_args()
    datasets = []
    for name in args.datasets:
        datasets += PAPER if name == "paper" else [name]
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
                name = entrances.name_of(row)
            except ValueError as error:
                rows.refuse(row, error)
            if name is None or name in ids:
                name = entrances.numbered_name(name, dataset, number)
            ids.add(name)
            yield convert_row(row, dataset, name)


def convert_row(row, dataset, name):
    """One row as Converted; a row of no known form ends the program."""
    field = entrances.field_of(row, FIELDS)
    prompt_row = {"id": name, "source": dataset}
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
    """The messages that a field of a row gives, up to the last user turn."""
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
    fields = entrances.rest_of(row, used)
    answer = entrances.final_answer(row)
    if answer is not None:
        fields["answer"] = answer
    return fields


def reason_to_drop(prompt_row, row, field):
    """Why a converted row cannot be drawn, or None."""
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


# The draw


def excluded_digests(files):
    """The digests of the prompts of these files."""
    digests = set()
    for file in files:
        for row in rows.read(file, "prompts"):
            digests.add(duplicates.of_prompt(row["prompt"]))
    return digests


def usable_rows(args, counts):
    """The numbers of the rows that can be drawn.

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


def draw(args, usable):
    """Yield --size of the usable rows in the order of the draw, or with 0 all of them in theirs."""
    if not args.size:
        for _, row in read_again(args, usable):
            yield row
        return
    drawn = random.Random(args.seed).sample(usable, args.size)
    row_by_number = dict(read_again(args, drawn))
    for i, number in enumerate(drawn):
        row = row_by_number[number]
        if args.splits:
            row["split"] = args.splits[i * len(args.splits) // args.size]
        yield row


def table(counts):
    """The counts of usable_rows in Markdown."""
    outcomes_by_name = dict(counts)
    if len(counts) > 1:
        outcomes_by_name["all"] = sum(counts.values(), Counter())
    lines = []
    for name, outcomes in outcomes_by_name.items():
        dropped = Counter(outcomes)
        remaining = dropped.pop("left", 0)
        why = ", ".join(f"{reason}: {count}" for reason, count in dropped.most_common())
        lines.append([name, outcomes.total(), remaining, dropped.total(), why])
    return tables.markdown(["dataset", "rows in", "left", "dropped", "why"], lines) + "\n"


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
    rows.write(args.output_file, draw(args, usable))
    outputs.write_text(table_file, table(counts))
    print(
        f"{table(counts)}{args.output_file} rows in: {total.total()}, "
        f"dropped: {total.total() - len(usable)}, left: {len(usable)}, "
        f"rows out: {args.size or len(usable)}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
