"""Turn preference data into the rows that reward models read, and hold a part of the prompts out (paper 2.1).

Reads:  --datasets, JSONL files or names of datasets on the Hugging Face hub, each row one of TRL's preference formats:
            {"prompt", "chosen", "rejected"}    each a text or messages
            {"chosen", "rejected"}              whole conversations that share all but the last message
Writes: --output_file, {"id", "prompt", "chosen", "rejected", "source"} in messages; other keys pass through.
        --held_out_file, the same for a share of the prompts, none of which stands in --output_file.
        Pairs with an empty turn, roles out of order or two identical answers are dropped and counted.

    python reward_modeling/1_preferences.py --datasets runs/tiny/world/preferences.jsonl \
        --output_file runs/tiny/preferences.jsonl --held_out_file runs/tiny/preferences_held_out.jsonl
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import rows


def chat(value, role):
    return [{"role": role, "content": value}] if isinstance(value, str) else value


def pair(row):
    """(prompt, chosen, rejected) as messages, or None if the row is of no known format."""
    if not ("chosen" in row and "rejected" in row):
        return None
    if "prompt" in row and isinstance(row["prompt"], str) and isinstance(row["chosen"], list):
        # Some sets repeat the prompt as a text beside whole conversations.
        row = {key: value for key, value in row.items() if key != "prompt" or len(row["chosen"]) == 1}
    if "prompt" in row:
        return chat(row["prompt"], "user"), chat(row["chosen"], "assistant"), chat(row["rejected"], "assistant")
    if isinstance(row["chosen"], list) and row["chosen"][:-1] == row["rejected"][:-1]:
        return row["chosen"][:-1], row["chosen"][-1:], row["rejected"][-1:]
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", required=True, help="JSONL files or hub names")
    parser.add_argument("--split", default="train", help="split of a hub dataset")
    parser.add_argument("--output_file", required=True)
    parser.add_argument("--held_out_file", required=True)
    parser.add_argument("--held_out", type=float, default=0.05, help="share of the prompts to hold out")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start, counts, by_prompt = time.time(), Counter(), {}

    for dataset in args.datasets:
        for i, row in enumerate(rows.load(dataset, args.split), 1):
            counts["rows in"] += 1
            try:
                prompt, chosen, rejected = pair(row)
                if not all(isinstance(part, list) for part in (prompt, chosen, rejected)):
                    raise TypeError
            except (TypeError, AttributeError):
                sys.exit(f"{dataset}:{i}: chosen: neither prompt/chosen/rejected nor two conversations with one prompt")
            row = {
                "id": f"{Path(dataset).stem}-{counts['rows in']}", "source": dataset, **row,
                "prompt": prompt, "chosen": chosen, "rejected": rejected,
            }  # fmt: skip
            empty = any(not str(m.get("content") or "").strip() for m in chosen + rejected if isinstance(m, dict))
            reason = rows.problem(row, "preferences")
            if reason and reason.startswith("id"):
                sys.exit(f"{dataset}:{i}: {reason}")
            if reason or empty or chosen == rejected:
                reason = reason.split(" (")[0] if reason else "empty answer" if empty else "identical answers"
                counts[f"dropped, {reason}"] += 1
            else:
                by_prompt.setdefault(json.dumps(prompt), []).append(row)
    # Splitting by prompt keeps every comparison of a held-out prompt out of training.
    prompts = sorted(by_prompt)
    random.Random(args.seed).shuffle(prompts)
    size = round(args.held_out * len(prompts))
    held_out, training = ([row for p in part for row in by_prompt[p]] for part in (prompts[:size], prompts[size:]))
    if not (held_out and training):
        sys.exit(f"{args.output_file}: {len(training)} rows for training, {len(held_out)} held out ({dict(counts)})")
    rows.write(args.held_out_file, held_out)
    rows.write(args.output_file, training)
    counts["held out"], counts["rows out"] = len(held_out), len(training)
    told = ", ".join(f"{name}: {count}" for name, count in counts.items())
    print(f"{args.output_file} {told}, {time.time() - start:.1f} s")


if __name__ == "__main__":
    main()
