"""Draw the prompts of one round, none of which stood in an earlier round or in an evaluation set (paper 3.3).

Reads:  --datasets, any of
            paper                   RLHFlow/prompt-collection-v0.1, the paper's 179,465 prompts, from the hub
            names of hub datasets   NAME, or NAME:FILE in it
            files                   .jsonl, .json (gzipped or not), .parquet
        whose rows are one of; of several fields the first in this order counts, other keys never decide
            {"prompt": text or messages}                        (HelpSteer, DIBT-10K)
            {"context_messages": messages}, {"messages"}        (RLHFlow's ready-made sets)
            {"conversations": [{"from", "value"}...]}           (ShareGPT)
            {"conversation": [{"input", "output"}...]}          (Capybara)
            {"instruction", "input"?}                           (UltraFeedback, UltraInteract, Alpaca)
            {"question"}, {"problem"}                           (OpenOrca, GSM8K, MATH)
        "system" or "system_prompt", where it is not blank, becomes the system turn of the prompt; "input" follows the
        instruction after an empty line; "answer" becomes the final answer, a text (a number, what follows #### in
        GSM8K, the last \\boxed{} of MATH's "solution" where there is no "answer")
        --exclude_files, prompts that must not be drawn: earlier rounds', validation, test
Writes: --output_file, --size rows {"id", "prompt", "source", "split"?}, or all of them in their order with --size 0;
        other keys ("answer") pass through
        a table of counts by dataset beside it, with the suffix .md

A conversation goes up to its last user turn. Two prompts are the same when all their turns are, but for capitals,
blanks and the punctuation of sentences (common/duplicates.py); data/1_clean.py finds near duplicates, and what overlaps
the benchmarks. Prompts with an empty turn, with calls of tools or with content that is no text are dropped and counted.
An id that stands twice gets the row's number. The input is read twice: of a row only a digest is held in memory.
Without --output_file the prompts are counted only: --at_least so many have to be there, those of all rounds.

    python generation/1_prompts.py --datasets runs/tiny/world/prompts.jsonl --size 1000 \
        --exclude_files runs/tiny/world/evaluation.jsonl runs/tiny/iter1/prompts.jsonl \
        --output_file runs/tiny/iter2/prompts.jsonl
"""

import random
import sys
import time
from collections import Counter

from common import arguments, duplicates, entrances, outputs, rows

PAPER = [
    "RLHFlow/prompt-collection-v0.1"
]  # paper 3.3: of six sets; as large as Table 5's and DIBT-10K together
HEAD = "| dataset | rows in |"  # of the table
FIELDS = ("prompt", "context_messages", "messages", *entrances.CONVERSATIONS, *entrances.QUESTIONS)


def prompt_of(row, field):
    """The messages that a field of a row gives, up to the last user turn."""
    if field is None:
        raise ValueError(f"none of {', '.join(FIELDS)}")
    if field in entrances.QUESTIONS or (field == "prompt" and not isinstance(row[field], list)):
        turns = entrances.asked(row, field)
    else:
        turns = entrances.messages(row[field], field)
    if field in entrances.CONVERSATIONS:
        turns = entrances.up_to_last(entrances.from_first_question(turns), "user")
    elif field != "prompt" and turns and turns[-1]["role"] == "assistant":
        turns = turns[:-1]
    return entrances.with_system(turns, row)


def rest_of(row, field):
    """What passes through, with the final answer."""
    used = [
        key for key in (*FIELDS, *entrances.used_with(field)) if key != "prompt"
    ]  # which keeps its place
    if field == "context_messages":
        used.append("context")  # the same conversation as one text
    rest = entrances.rest_of(row, used)
    answer = entrances.final_answer(row)
    return rest | ({} if answer is None else {"answer": answer})


def table(counts):
    """In Markdown, {dataset: Counter of rows by what became of them}."""
    lines = [["dataset", "rows in", "left", "dropped", "why"], ["---"] * 5]
    for name, of in (
        counts | {"all": sum(counts.values(), Counter())} if len(counts) > 1 else counts
    ).items():
        why = ", ".join(
            f"{reason}: {count}" for reason, count in of.most_common() if reason != "left"
        )
        lines.append([name, of.total(), of["left"], of.total() - of["left"], why])
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def checked(row, dataset, name, field):
    """(the row in this project's format, why it is dropped or None); a row of no known format ends the program."""
    made = {"id": name, "source": dataset}
    try:
        made |= rest_of(row, field)
    except ValueError as error:
        rows.refuse(row, error)
    try:
        made["prompt"] = prompt_of(row, field)
    except entrances.Dropped as reason:
        return made, str(reason)
    except ValueError as error:
        rows.refuse(row, f"prompt: {str(error).removeprefix('prompt: ')}")
    if any(not (turn["content"] or "").strip() for turn in made["prompt"]):
        return made, "an empty turn"
    reason = rows.problem(made, "prompts")
    # In data of others such rows are to be expected, in this project's own they are an error.
    if reason and (field == "prompt" or not reason.startswith("prompt: ")):
        rows.refuse(row, reason)
    return made, reason and reason.split(" (")[0].removeprefix("prompt: ")


def converted(datasets, split):
    """Yields (dataset, its row in this project's format, why it is dropped or None), always in the same order."""
    number, ids = 0, set()
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
            yield dataset, *checked(row, dataset, name, entrances.field_of(row, FIELDS))


def main():
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
    args.datasets = [
        name for given in args.datasets for name in (PAPER if given == "paper" else [given])
    ]
    start, counts, seen, left = time.time(), {name: Counter() for name in args.datasets}, set(), []

    excluded = set()
    for file in args.exclude_files:
        excluded.update(duplicates.of_prompt(row["prompt"]) for row in rows.read(file, "prompts"))
    for number, (dataset, row, reason) in enumerate(converted(args.datasets, args.split)):
        name = None if reason else duplicates.of_prompt(row["prompt"])
        reason = reason or (
            "in an excluded file" if name in excluded else "duplicate" if name in seen else "left"
        )
        counts[dataset][reason] += 1
        if reason == "left":
            seen.add(name)
            left.append(number)
    total = sum(counts.values(), Counter())
    if len(left) < args.at_least:
        sys.exit(
            f"{' '.join(args.datasets)}: {len(left)} prompts of {dict(total)}, {args.at_least} are needed"
        )
    if args.output_file is None:
        print(f"{table(counts)}prompts: {len(left)}")
        return
    if len(left) < max(args.size, 1):
        sys.exit(
            f"{args.output_file}: {args.size} prompts asked for, {len(left)} are left of {dict(total)}"
        )
    table_file = outputs.table_beside(args.output_file, HEAD)
    drawn = random.Random(args.seed).sample(left, args.size) if args.size else left
    wanted = set(drawn)
    kept = (
        (n, row)
        for n, (_, row, _) in enumerate(converted(args.datasets, args.split))
        if n in wanted
    )
    if args.size:  # in the order of the draw
        found = dict(kept)
        for i, number in enumerate(drawn if args.splits else ()):
            found[number]["split"] = args.splits[i * len(args.splits) // args.size]
        kept = ((number, found[number]) for number in drawn)
    rows.write(args.output_file, (row for _, row in kept))
    outputs.write_text(table_file, table(counts))
    told = f"rows in: {total.total()}, dropped: {total.total() - len(left)}, left: {len(left)}, rows out: {len(drawn)}"
    print(f"{table(counts)}{args.output_file} {told}, {time.time() - start:.1f} s")


if __name__ == "__main__":
    main()
