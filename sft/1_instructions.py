"""Turn instruction data into the rows that supervised fine-tuning reads: convert, clean, drop duplicates (paper 3.1).

Reads:  --datasets, any of
            paper                   the paper's nine sets, from the hub
            names of hub datasets   NAME, or NAME:FILE in it
            files                   .jsonl, .json (gzipped or not), .parquet
        whose rows are one of; of several forms the first in this order counts, other keys never decide
            {"messages": [{"role", "content"}...]}
            {"conversations": [{"from": "human" or "gpt" or "system", "value"}...]}     (ShareGPT, Evol-Instruct,
                                    SlimOrca); what comes before the first question or after the last answer goes
            {"conversation": [{"input", "output"}...]}                                  (Capybara)
            {"instruction", "input"?, "output" or "response"}                           (MathInstruct, GPT4-LLM,
                                    Magicoder-Evol-Instruct, GPTeacher, UltraInteract)
            {"question", "answer" or "response"}                                        (OrcaMath, OpenOrca)
            {"problem", "solution"}                                                     (MATH)
            {"prompt": text or messages, "completion": text or messages}                (TRL)
        "system" or "system_prompt", where it is not blank, becomes the system turn of the conversation; "input" follows
        the instruction after an empty line
Writes: --output_file, {"id", "messages", "source"}; other keys pass through
        a table of counts by dataset beside it, with the suffix .md

Messages keep role and content. Conversations with an empty turn, with roles out of order or without an answer at the
end, with calls of tools or with content that is not text are dropped and counted, and so are exact duplicates.
data/1_clean.py drops more. Of a row only a digest is held in memory.

    python sft/1_instructions.py --datasets runs/tiny/world/instructions.jsonl \
        --output_file runs/tiny/instructions.jsonl
"""

import sys
import time
from collections import Counter

from common import arguments, duplicates, entrances, outputs, rows

PAPER = [  # paper B.3; the names are those of RLHFlow's own mixture
    "anon8231489123/ShareGPT_Vicuna_unfiltered:ShareGPT_V3_unfiltered_cleaned_split_no_imsorry.json",
    "WizardLMTeam/WizardLM_evol_instruct_V2_196k", "Open-Orca/SlimOrca", "TIGER-Lab/MathInstruct",
    "ise-uiuc/Magicoder-Evol-Instruct-110K", "teknium/GPT4-LLM-Cleaned", "microsoft/orca-math-word-problems-200k",
    "teknium/GPTeacher-General-Instruct", "openbmb/UltraInteract_sft",
]  # fmt: skip
HEAD = "| dataset | rows in |"  # of the table
TEXTS = [  # question and answer
    ("instruction", "output"), ("instruction", "response"), ("question", "answer"), ("question", "response"),
    ("problem", "solution"), ("prompt", "completion"),
]  # fmt: skip
FORMATS = ", ".join(["messages", *entrances.CONVERSATIONS, *map("/".join, TEXTS)])


def answer(value, field):
    """The messages of an answer: a text, a number or turns; null is an empty turn, which is counted."""
    if isinstance(value, list | dict):
        return entrances.messages(value if isinstance(value, list) else [value], field)
    content = "" if value is None else entrances.text_or_number(value, field)
    return [entrances.message("assistant", content, field)]


def question(row, field):
    if row[field] is None:
        return [entrances.message("user", "", field)]
    return (
        entrances.messages(row[field], field)
        if isinstance(row[field], list)
        else entrances.asked(row, field)
    )


def conversation(row):
    """(messages, the fields that they are made of) of a row of any of the formats above."""
    if row.get("messages") is not None:
        return entrances.messages(row["messages"], "messages"), ["messages"]
    if field := entrances.field_of(row, entrances.CONVERSATIONS):
        turns = entrances.from_first_question(entrances.messages(row[field], field))
        return entrances.up_to_last(turns, "assistant"), [field]
    pairs = [pair for pair in TEXTS if row.keys() >= set(pair)]
    pairs.sort(
        key=lambda pair: row[pair[0]] is None or row[pair[1]] is None
    )  # a null counts where nothing else does
    if not pairs:
        raise ValueError("its fields: " + ", ".join(row))
    asked, answered = pairs[0]
    turns = question(row, asked) + answer(row[answered], answered)
    return turns, [*entrances.used_with(asked), answered, "input"]


def table(counts):
    """In Markdown, {dataset: Counter of rows by what became of them}."""
    lines = [["dataset", "rows in", "rows out", "dropped", "why"], ["---"] * 5]
    for name, of in (
        counts | {"all": sum(counts.values(), Counter())} if len(counts) > 1 else counts
    ).items():
        why = ", ".join(
            f"{reason}: {count}" for reason, count in of.most_common() if reason != "out"
        )
        lines.append([name, of.total(), of["out"], of.total() - of["out"], why])
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def checked(row, dataset):
    """(the row in this project's format, why it is dropped or None); a row of no known format ends the program."""
    try:
        name = entrances.name_of(row)
    except ValueError as error:
        rows.refuse(row, error)
    try:
        messages, used = conversation(row)
        messages = entrances.with_system(messages, row)
    except entrances.Dropped as reason:
        return None, str(reason)
    except ValueError as error:
        rows.refuse(row, f"messages: none of {FORMATS} ({error})")
    made = {"id": name, "source": dataset, **entrances.rest_of(row, used), "messages": messages}
    reason = rows.problem(made | {"id": "-"}, "instructions")
    return made, reason and reason.split(" (")[0].removeprefix("messages: ")


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--datasets", nargs="+", required=True, help="files, hub names, paper")
    parser.add_argument("--split", default="train", help="split of a hub dataset")
    parser.add_output("--output_file", suffixes=[".md"], required=True)
    args = parser.parse_args()
    args.datasets = [
        name for given in args.datasets for name in (PAPER if given == "paper" else [given])
    ]
    start, counts, seen, ids = (
        time.time(),
        {name: Counter() for name in args.datasets},
        set(),
        set(),
    )

    def converted():
        number = 0
        for dataset, of in counts.items():
            for row in rows.load(dataset, args.split):
                number += 1
                if number % 100_000 == 0:
                    print(f"{number} rows, {number / (time.time() - start):.0f}/s", flush=True)
                made, reason = checked(row, dataset)
                if reason:
                    of[reason] += 1
                    continue
                if made["id"] is None or made["id"] in ids:
                    made["id"] = entrances.numbered_name(made["id"], dataset, number)
                digest = duplicates.digest(made["messages"])
                of["duplicate" if digest in seen else "out"] += 1
                if digest not in seen:
                    seen.add(digest)
                    ids.add(made["id"])
                    yield made

    table_file = outputs.table_beside(args.output_file, HEAD)
    writer = rows.Writer(args.output_file)
    try:
        writer.add(converted())
        if not seen:
            sys.exit(f"{args.output_file}: no row is left\n{table(counts)}".replace("\n", " "))
    except SystemExit:
        writer.partial.unlink()
        raise
    writer.finish()
    outputs.write_text(table_file, table(counts))
    total = sum(counts.values(), Counter())
    told = f"rows in: {total.total()}, dropped: {total.total() - total['out']}, rows out: {total['out']}"
    print(f"{table(counts)}{args.output_file} {told}, {time.time() - start:.1f} s")


if __name__ == "__main__":
    main()
