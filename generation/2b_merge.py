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


def merge(files, split):
    """Yield None for each row of another split than `split`, and the merged rows of all others."""
    readers = [rows.read(file, "responses") for file in files]
    for number, parts in enumerate(itertools.zip_longest(*readers), 1):
        check_lengths(parts, files, number)
        check_same_prompt(parts, files)
        if not split or parts[0].get("split") == split:
            yield merged_row(parts)
        else:
            yield None


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--responses_files", nargs="+", required=True)
    parser.add_argument(
        "--split", help='only the rows with this "split", validation or test (default: all)'
    )
    parser.add_output("--output_file", required=True)
    args = parser.parse_args()

    # Two passes over the files: a bad row ends the program before one is written.
    rows_in = 0
    rows_out = 0
    for row in merge(args.responses_files, args.split):
        rows_in += 1
        rows_out += row is not None
    if not rows_out:
        sys.exit(f"{args.responses_files[0]}: split: no row of {args.split!r}")
    merged = merge(args.responses_files, args.split)
    rows.write(args.output_file, (row for row in merged if row is not None))
    print(
        f"{args.output_file} rows in each: {rows_in}, files: {len(args.responses_files)}, "
        f"rows out: {rows_out}"
    )


if __name__ == "__main__":
    main()
