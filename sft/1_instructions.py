"""Turn instruction data into the rows that supervised fine-tuning reads: convert, clean, drop duplicates (paper 3.1).

Reads:  --datasets, any of
            paper                   the paper's nine sets, from the hub
            names of hub datasets   NAME, or NAME:FILE in it
            files                   .jsonl, .json, .parquet
        whose rows are one of
            {"messages": [{"role", "content"}...]}
            {"conversations": [{"from": "human" or "gpt" or "system", "value"}...]}     (ShareGPT, Evol-Instruct,
                                    SlimOrca); what comes before the first question or after the last answer goes
            {"instruction", "input"?, "output" or "response"}                           (MathInstruct, GPT4-LLM,
                                    Magicoder-Evol-Instruct, GPTeacher, UltraInteract)
            {"question", "answer"}                                                      (OrcaMath)
            {"prompt": text or messages, "completion": text or messages}                (TRL)
Writes: --output_file, {"id", "messages", "source"}; other keys pass through
        a table of counts by dataset beside it, with the suffix .md

Conversations with an empty turn, with roles out of order or without an answer at the end are dropped and counted, and
so are exact duplicates. data/1_clean.py drops more. Of a row only a digest is held in memory.

    python sft/1_instructions.py --datasets runs/tiny/world/instructions.jsonl \
        --output_file runs/tiny/instructions.jsonl
"""

import hashlib
import json
import sys
import time
from collections import Counter
from pathlib import Path

import rows
from common import arguments, outputs

PAPER = [  # paper B.3; the names are those of RLHFlow's own mixture
    "anon8231489123/ShareGPT_Vicuna_unfiltered:ShareGPT_V3_unfiltered_cleaned_split_no_imsorry.json",
    "WizardLMTeam/WizardLM_evol_instruct_V2_196k", "Open-Orca/SlimOrca", "TIGER-Lab/MathInstruct",
    "ise-uiuc/Magicoder-Evol-Instruct-110K", "teknium/GPT4-LLM-Cleaned", "microsoft/orca-math-word-problems-200k",
    "teknium/GPTeacher-General-Instruct", "openbmb/UltraInteract_sft",
]  # fmt: skip
HEAD = "| dataset | rows in |"  # of the table
ROLES = {"human": "user", "gpt": "assistant"}
TEXTS = [("instruction", "output"), ("instruction", "response"), ("question", "answer"), ("prompt", "completion")]
FORMATS = ", ".join(["messages", "conversations", *map("/".join, TEXTS)])


def chat(value, role):
    return value if isinstance(value, list) else [{"role": role, "content": (value or "") + ""}]  # a text, or null


def trimmed(turns):
    """The messages of ShareGPT's turns, from the first question to the last answer."""
    turns = [{"role": ROLES.get(turn["from"], turn["from"]), "content": turn["value"]} for turn in turns]
    system = turns[:1] if turns and turns[0]["role"] == "system" else []
    roles = [turn["role"] for turn in turns[len(system) :]]
    first = roles.index("user") if "user" in roles else 0
    last = len(roles) - (roles[::-1].index("assistant") if "assistant" in roles else 0)
    return system + turns[len(system) :][first:last]


def conversation(row):
    """(messages, the fields that they are made of) of a row of any of the formats above, or None."""
    if "messages" in row:
        return row["messages"], ["messages"]
    if "conversations" in row:
        return trimmed(row["conversations"]), ["conversations"]
    for asked, answered in TEXTS:
        if asked in row and answered in row:
            request, more = row[asked], row.get("input") if asked == "instruction" else ""
            request = request + "\n\n" + more if more else request
            return chat(request, "user") + chat(row[answered], "assistant"), [asked, answered, "input"]
    return None


def table(counts):
    """In Markdown, {dataset: Counter of rows by what became of them}."""
    lines = [["dataset", "rows in", "rows out", "dropped", "why"], ["---"] * 5]
    for name, of in (counts | {"all": sum(counts.values(), Counter())} if len(counts) > 1 else counts).items():
        why = ", ".join(f"{reason}: {count}" for reason, count in of.most_common() if reason != "out")
        lines.append([name, of.total(), of["out"], of.total() - of["out"], why])
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--datasets", nargs="+", required=True, help="files, hub names, paper")
    parser.add_argument("--split", default="train", help="split of a hub dataset")
    parser.add_output("--output_file", suffixes=[".md"], required=True)
    args = parser.parse_args()
    args.datasets = [name for given in args.datasets for name in (PAPER if given == "paper" else [given])]
    start, counts, seen, ids = time.time(), {name: Counter() for name in args.datasets}, set(), set()

    def converted():
        number = 0
        for dataset, of in counts.items():
            for i, row in enumerate(rows.load(dataset, args.split), 1):
                number += 1
                if number % 100_000 == 0:
                    print(f"{number} rows, {number / (time.time() - start):.0f}/s", flush=True)
                try:
                    messages, used = conversation(row)
                except (TypeError, KeyError, AttributeError):
                    messages = None
                if not isinstance(messages, list):
                    sys.exit(f"{dataset}:{i}: messages: none of {FORMATS}")
                own = row.get("id") if isinstance(row.get("id"), str) else ""
                name = own if own and own not in ids else f"{own or Path(dataset).stem}-{number}"
                rest = {key: value for key, value in row.items() if key not in [*used, "id"]}
                row = {"id": name, "source": dataset, **rest, "messages": messages}
                if reason := rows.problem(row, "instructions"):
                    of[reason.split(" (")[0].removeprefix("messages: ")] += 1
                    continue
                digest = hashlib.sha256(json.dumps(messages).encode()).digest()[:12]
                of["duplicate" if digest in seen else "out"] += 1
                if digest not in seen:
                    seen.add(digest)
                    ids.add(name)
                    yield row

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
