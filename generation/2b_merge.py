"""Merge the responses of several policies to the same prompts: main agent and enhancer (paper 3.2).

Reads:  --responses_files, {"id", "prompt", "responses", ...}, all with the same prompts in the same
        order
Writes: --output_file, the first file's rows; every per-response list is the concatenation over the
        files, in their order. Other fields come from the first file. "policies" is the policy of
        each response.

    python generation/2b_merge.py --responses_files my_main.jsonl my_enhancer.jsonl \
        --output_file my_responses.jsonl
"""

import itertools
import sys
from collections import Counter

from common import arguments, rows


def check_lengths(parts, files, number):
    """Exit unless each file has a row of that number. parts: one row per file, None for none."""
    for file, part in zip(files, parts, strict=True):
        if part is None:
            longer = next(name for name, row in zip(files, parts, strict=True) if row)
            sys.exit(f"{file}: {number - 1} rows, {longer} has more")


def check_same_prompt(parts, files):
    """Exit unless the rows, one per file, have the same prompt."""
    first = parts[0]
    for part in parts:
        if part["id"] != first["id"] or part["prompt"] != first["prompt"]:
            rows.refuse(part, f"id: not the prompts of {files[0]} in their order")


def per_response_list(row, field):
    """The list of a row in a per-response field that the first file's row has."""
    value = row.get(field)
    if not isinstance(value, list) or len(value) != len(row["responses"]):
        rows.refuse(
            row, f"{field}: not a list with one entry for each response, as in the first file"
        )
    return value


def merged_row(parts):
    """The rows of one prompt, one per file, as one row."""
    first = parts[0]
    merged = dict(first)
    for field in rows.per_response(first):
        merged[field] = []
        for part in parts:
            merged[field] += per_response_list(part, field)
    policies = []
    for part in parts:
        policies += [part.get("policy")] * len(part["responses"])
    merged["policies"] = policies
    return merged


def merge(files, split, counts):
    """Yield the merged rows. split: only those whose "split" it is; None for all.

    counts: of rows in each file, and of rows out.
    """
    readers = [rows.read(file, "responses") for file in files]
    for number, parts in enumerate(itertools.zip_longest(*readers), 1):
        check_lengths(parts, files, number)
        check_same_prompt(parts, files)
        counts["rows in each"] += 1
        if not split or parts[0].get("split") == split:
            counts["rows out"] += 1
            yield merged_row(parts)


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--responses_files", nargs="+", required=True)
    parser.add_argument(
        "--split", help='only the rows with this "split", validation or test (default: all)'
    )
    parser.add_output("--output_file", required=True)
    args = parser.parse_args()

    # Two passes over the files: a bad row ends the program before one is written.
    counts = Counter()
    for _ in merge(args.responses_files, args.split, counts):
        pass
    if not counts["rows out"]:
        sys.exit(f"{args.responses_files[0]}: split: no row of {args.split!r}")
    rows.write(args.output_file, merge(args.responses_files, args.split, Counter()))
    print(
        f"{args.output_file} rows in each: {counts['rows in each']}, "
        f"files: {len(args.responses_files)}, rows out: {counts['rows out']}"
    )


if __name__ == "__main__":
    main()
