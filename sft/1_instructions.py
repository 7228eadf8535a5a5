"""Turn instruction data into the rows that supervised fine-tuning reads: convert, clean, drop duplicates (paper 3.1).

Reads:  --datasets, JSONL files or names of datasets on the Hugging Face hub, each row one of
            {"messages": [{"role", "content"}...]}
            {"conversations": [{"from": "human" or "gpt" or "system", "value"}...]}    (ShareGPT)
            {"instruction", "input"?, "output"}                                        (Alpaca)
            {"prompt": text or messages, "completion": text or messages}               (TRL)
Writes: --output_file, {"id", "messages", "source"}; other keys pass through. Conversations with an empty turn, with
        roles out of order or without an answer at the end are dropped and counted, and so are exact duplicates.

    python sft/1_instructions.py --datasets runs/tiny/world/instructions.jsonl \
        --output_file runs/tiny/instructions.jsonl
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import rows

ROLES = {"human": "user", "gpt": "assistant"}


def chat(value, role):
    return [{"role": role, "content": value}] if isinstance(value, str) else value


def conversation(row):
    """The messages of a row of any of the formats above, or None."""
    if "messages" in row:
        return row["messages"]
    if "conversations" in row:
        turns = row["conversations"]
        return [{"role": ROLES.get(turn["from"], turn["from"]), "content": turn["value"]} for turn in turns]
    if "instruction" in row and "output" in row:
        request = "\n\n".join(filter(None, [row["instruction"], row.get("input")]))
        return chat(request, "user") + chat(row["output"], "assistant")
    if "prompt" in row and "completion" in row:
        return chat(row["prompt"], "user") + chat(row["completion"], "assistant")
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", required=True, help="JSONL files or hub names")
    parser.add_argument("--split", default="train", help="split of a hub dataset")
    parser.add_argument("--output_file", required=True)
    args = parser.parse_args()
    start, counts, seen, kept = time.time(), Counter(), set(), []

    for dataset in args.datasets:
        for i, row in enumerate(rows.load(dataset, args.split), 1):
            counts["rows in"] += 1
            try:
                messages = conversation(row)
            except (TypeError, KeyError, AttributeError):
                messages = None
            if not isinstance(messages, list):
                sys.exit(
                    f"{dataset}:{i}: messages: none of messages, conversations, instruction/output, prompt/completion"
                )
            used = ("messages", "conversations", "instruction", "input", "output", "prompt", "completion")
            row = {
                "id": f"{Path(dataset).stem}-{counts['rows in']}",
                "source": dataset,
                **{key: value for key, value in row.items() if key not in used},
                "messages": messages,
            }
            if reason := rows.problem(row, "instructions"):
                if not reason.startswith("messages"):
                    sys.exit(f"{dataset}:{i}: {reason}")
                counts["dropped, " + reason.split(" (")[0]] += 1
            elif (text := json.dumps(messages)) in seen:
                counts["dropped, duplicate"] += 1
            else:
                seen.add(text)
                kept.append(row)
    if not kept:
        sys.exit(f"{args.output_file}: no row is left ({dict(counts)})")
    rows.write(args.output_file, kept)
    counts["rows out"] = len(kept)
    told = ", ".join(f"{name}: {count}" for name, count in counts.items())
    print(f"{args.output_file} {told}, {time.time() - start:.1f} s")


if __name__ == "__main__":
    main()
