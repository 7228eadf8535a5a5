"""Draw the prompts of one round, none of which stood in an earlier round or in an evaluation set (paper 3.3).

Reads:  --datasets, JSONL files or names of datasets on the Hugging Face hub, each row one of
            {"prompt": text or messages}, {"context_messages": messages}, {"messages"}, {"instruction"}
        --exclude_files, prompts that must not be drawn: earlier rounds', validation, test
Writes: --output_file, --size rows {"id", "prompt", "source"}; other keys ("answer") pass through

Two prompts overlap when their last user turns are equal but for capitals, spaces and punctuation.

    python generation/1_prompts.py --datasets runs/tiny/world/prompts.jsonl --size 1000 \
        --exclude_files runs/tiny/world/evaluation.jsonl runs/tiny/iter1/prompts.jsonl \
        --output_file runs/tiny/iter2/prompts.jsonl
"""

import argparse
import random
import re
import sys
import time
from collections import Counter
from pathlib import Path

import rows


def prompt_of(row):
    """The prompt's messages, up to the last user turn, or None if the row is of no known format."""
    for field in ("prompt", "context_messages", "messages", "instruction"):
        if field in row:
            value = row[field]
            if field == "messages" and not rows.problem({"id": "-", "messages": value}, "instructions"):
                value = value[:-1]  # a whole conversation: without its last answer
            return [{"role": "user", "content": value}] if isinstance(value, str) else value
    return None


def key(prompt):
    return " ".join(re.findall(r"\w+", prompt[-1]["content"].lower()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", required=True, help="JSONL files or hub names")
    parser.add_argument("--split", default="train", help="split of a hub dataset")
    parser.add_argument("--exclude_files", nargs="*", default=[], help="JSONL files of prompts not to draw")
    parser.add_argument("--size", type=int, default=20_000, help="prompts a round (paper 3.3)")
    parser.add_argument("--output_file", required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start, counts, pool = time.time(), Counter(), {}

    excluded = {key(row["prompt"]) for file in args.exclude_files for row in rows.read(file, "prompts")}
    for dataset in args.datasets:
        for i, row in enumerate(rows.load(dataset, args.split), 1):
            counts["rows in"] += 1
            used = ("context_messages", "messages", "instruction")
            kept = {name: value for name, value in row.items() if name not in used}
            row = {
                "id": f"{Path(dataset).stem}-{counts['rows in']}",
                "source": dataset,
                **kept,
                "prompt": prompt_of(row),
            }
            if reason := rows.problem(row, "prompts"):
                sys.exit(f"{dataset}:{i}: {reason}")
            if (text := key(row["prompt"])) in excluded:
                counts["dropped, in an excluded file"] += 1
            elif text in pool:
                counts["dropped, duplicate"] += 1
            else:
                pool[text] = row
    if len(pool) < args.size:
        sys.exit(f"{args.output_file}: {args.size} prompts asked for, {len(pool)} are left of {dict(counts)}")
    drawn = random.Random(args.seed).sample(list(pool.values()), args.size)
    if doubled := [name for name, count in Counter(row["id"] for row in drawn).items() if count > 1]:
        sys.exit(f"{args.datasets[0]}: id: {doubled[0]!r} stands on two rows")
    rows.write(args.output_file, drawn)
    counts["rows out"] = len(drawn)
    told = ", ".join(f"{name}: {count}" for name, count in counts.items())
    print(f"{args.output_file} {told}, {time.time() - start:.1f} s")


if __name__ == "__main__":
    main()
