"""Merge the responses of several policies to the same prompts: main agent and enhancer (paper 3.2).

Reads:  --responses_files, {"id", "prompt", "responses", ...}, all with the same prompts in the same
        order
Writes: --output_file, the rows of the first file with the responses of all files, one file after
        another, in each field of the responses, and "policies", the policy of each response. Other
        fields are those of the first file.

    python generation/2b_merge.py --responses_files my_main.jsonl my_enhancer.jsonl \
        --output_file my_responses.jsonl
"""

import itertools
import sys

from common import arguments, rows


def check_same_prompt(parts, files, number):
    """End the program unless the rows of that number, one of each file, have the same prompt."""
    first = parts[0]
    for file, part in zip(files, parts, strict=True):
        # A file that is shorter than the others has no such row.
        if part is None or part["id"] != first["id"] or part["prompt"] != first["prompt"]:
            sys.exit(f"{file}:{number}: id: not the prompts of {files[0]} in their order")


def entries(row, field):
    """What a row holds for each of its responses in a field that the first file's row has."""
    value = row.get(field)
    if not isinstance(value, list) or len(value) != len(row["responses"]):
        rows.refuse(
            row, f"{field}: not a list with one entry for each response, as in the first file"
        )
    return value


def merged_row(parts):
    """The rows of one prompt, one of each file, as one row."""
    first = parts[0]
    merged = dict(first)
    for field in rows.per_response(first):
        merged[field] = []
        for part in parts:
            merged[field] += entries(part, field)
    policies = []
    for part in parts:
        policies += [part.get("policy")] * len(part["responses"])
    merged["policies"] = policies
    return merged


def merge(files, split):
    """Yield the merged rows. split: only those whose "split" it is; None for all."""
    readers = [rows.read(file, "responses") for file in files]
    for number, parts in enumerate(itertools.zip_longest(*readers), 1):
        check_same_prompt(parts, files, number)
        if not split or parts[0].get("split") == split:
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
    total = sum(1 for _ in merge(args.responses_files, args.split))
    if not total:
        sys.exit(f"{args.responses_files[0]}: split: no row of {args.split!r}")
    rows.write(args.output_file, merge(args.responses_files, args.split))
    print(
        f"{args.output_file} rows in each: {total}, files: {len(args.responses_files)}, "
        f"rows out: {total}"
    )


if __name__ == "__main__":
    main()
