"""Draw the prompts of one round, none of which stood in an earlier round or in an evaluation set (paper 3.3).

Reads:  --datasets, any of
            paper                   the paper's six sets, from the hub
            names of hub datasets   NAME, or NAME:FILE in it
            files                   .jsonl, .json, .parquet
        whose rows are one of
            {"prompt": text or messages}                        (HelpSteer, DIBT-10K)
            {"context_messages": messages}, {"messages"}        (RLHFlow's ready-made sets)
            {"conversation": [{"input", "output"}...]}          (Capybara)
            {"instruction"}                                     (UltraFeedback, UltraInteract)
            {"system_prompt", "question"}                       (OpenOrca)
        --exclude_files, prompts that must not be drawn: earlier rounds', validation, test
Writes: --output_file, --size rows {"id", "prompt", "source", "split"?}, or all of them in their order with --size 0;
        other keys ("answer") pass through
        a table of counts by dataset beside it, with the suffix .md

A conversation goes up to its last user turn. Two prompts overlap when their last user turns are equal but for capitals,
spaces and punctuation; data/1_clean.py finds near duplicates, and what overlaps the benchmarks. An id that stands twice
gets the row's number. The input is read twice, so that of a row only a digest is held in memory. Without --output_file
the prompts are counted only: --at_least so many have to be there, those of all rounds.

    python generation/1_prompts.py --datasets runs/tiny/world/prompts.jsonl --size 1000 \
        --exclude_files runs/tiny/world/evaluation.jsonl runs/tiny/iter1/prompts.jsonl \
        --output_file runs/tiny/iter2/prompts.jsonl
"""

import hashlib
import random
import re
import sys
import time
from collections import Counter
from pathlib import Path

import rows
from common import arguments, outputs

PAPER = [  # paper 3.3
    "openbmb/UltraFeedback", "nvidia/HelpSteer", "Open-Orca/OpenOrca", "openbmb/UltraInteract_sft", "LDJnr/Capybara",
    "DIBT/10k_prompts_ranked",
]  # fmt: skip
HEAD = "| dataset | rows in |"  # of the table
FIELDS = ("prompt", "context_messages", "messages", "conversation", "instruction", "question")


def prompt_of(row):
    """(field, the messages it gives up to the last user turn), None and None if the row is of no known format."""
    field = next((field for field in FIELDS if field in row), None)
    value = row.get(field)
    if field == "conversation":
        value = [{"role": role, "content": turn[key]} for turn in value
                 for role, key in (("user", "input"), ("assistant", "output"))][:-1]  # fmt: skip
    elif field == "messages" and not rows.problem({"id": "-", "messages": value}, "instructions"):
        value = value[:-1]
    elif isinstance(value, str):
        system = row.get("system_prompt") if field == "question" else ""
        value = [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": value}]
    return field, value


def key(prompt):
    return " ".join(re.findall(r"\w+", prompt[-1]["content"].lower()))


def digest(prompt):
    return hashlib.sha256(key(prompt).encode()).digest()[:12]


def table(counts):
    """In Markdown, {dataset: Counter of rows by what became of them}."""
    lines = [["dataset", "rows in", "left", "dropped", "why"], ["---"] * 5]
    for name, of in (counts | {"all": sum(counts.values(), Counter())} if len(counts) > 1 else counts).items():
        why = ", ".join(f"{reason}: {count}" for reason, count in of.most_common() if reason != "left")
        lines.append([name, of.total(), of["left"], of.total() - of["left"], why])
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def converted(datasets, split):
    """Yields (dataset, its row in this project's format, why it is dropped or None), always in the same order."""
    number, ids = 0, set()
    for dataset in datasets:
        for i, row in enumerate(rows.load(dataset, split), 1):
            number += 1
            try:
                field, prompt = prompt_of(row)
            except (TypeError, KeyError, AttributeError):
                field, prompt = None, None
            rest = {name: value for name, value in row.items() if name not in FIELDS[1:] and name != "system_prompt"}
            name = rest.pop("id", None)
            if name is None or (isinstance(name, str) and name in ids):
                name = f"{name or Path(dataset).stem}-{number}"
            made = {"id": name, "source": dataset, **rest, "prompt": prompt}
            reason = rows.problem(made, "prompts")
            # In data of others such rows are to be expected, in this project's own they are an error.
            if reason and (field in (None, "prompt") or not reason.startswith(("prompt: an empty", "prompt: roles"))):
                sys.exit(f"{dataset}:{i}: {reason}")
            ids.add(name)
            yield dataset, made, reason and reason.split(" (")[0].removeprefix("prompt: ")


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--datasets", nargs="+", required=True, help="files, hub names, paper")
    parser.add_argument("--split", default="train", help="split of a hub dataset")
    parser.add_argument("--exclude_files", nargs="*", default=[], help="JSONL files of prompts not to draw")
    parser.add_argument("--size", type=arguments.whole(0), default=20_000, help="prompts a round (paper 3.3)")
    parser.add_argument("--splits", nargs="+", help='values of "split" to mark equal parts of the draw with')
    parser.add_argument("--at_least", type=arguments.whole(0), default=0, help="prompts that have to be there to draw")
    parser.add_output("--output_file", suffixes=[".md"])
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    args = parser.parse_args()
    args.datasets = [name for given in args.datasets for name in (PAPER if given == "paper" else [given])]
    start, counts, seen, left = time.time(), {name: Counter() for name in args.datasets}, set(), []

    excluded = {digest(row["prompt"]) for file in args.exclude_files for row in rows.read(file, "prompts")}
    for number, (dataset, row, reason) in enumerate(converted(args.datasets, args.split)):
        name = None if reason else digest(row["prompt"])
        reason = reason or ("in an excluded file" if name in excluded else "duplicate" if name in seen else "left")
        counts[dataset][reason] += 1
        if reason == "left":
            seen.add(name)
            left.append(number)
    total = sum(counts.values(), Counter())
    if len(left) < args.at_least:
        sys.exit(f"{' '.join(args.datasets)}: {len(left)} prompts of {dict(total)}, {args.at_least} are needed")
    if args.output_file is None:
        print(f"{table(counts)}prompts: {len(left)}")
        return
    if len(left) < max(args.size, 1):
        sys.exit(f"{args.output_file}: {args.size} prompts asked for, {len(left)} are left of {dict(total)}")
    table_file = outputs.table_beside(args.output_file, HEAD)
    drawn = random.Random(args.seed).sample(left, args.size) if args.size else left
    wanted = set(drawn)
    kept = ((n, row) for n, (_, row, _) in enumerate(converted(args.datasets, args.split)) if n in wanted)
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
