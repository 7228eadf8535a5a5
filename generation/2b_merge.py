"""Put the responses of several policies to the same prompts into one file: the main agent's and the enhancer's (3.2).

Reads:  --responses_files, {"id", "prompt", "responses", ...}, all with the same prompts in the same order
Writes: --output_file, the rows of the first with the lists of all, one after another, and "policies", one name for each
        response

    python generation/2b_merge.py --responses_files my_main.jsonl my_enhancer.jsonl --output_file my_responses.jsonl
"""

import sys
from itertools import zip_longest

from common import arguments, rows


def entries(row, field):
    """What a row holds for each of its responses, which the row of the first file does."""
    value = row.get(field)
    if not (isinstance(value, list) and len(value) == len(row["responses"])):
        rows.refuse(
            row, f"{field}: not a list with one entry for each response, as in the first file"
        )
    return value


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--responses_files", nargs="+", required=True)
    parser.add_argument(
        "--split", help='only the rows with this "split", validation or test (default: all)'
    )
    parser.add_output("--output_file", required=True)
    args = parser.parse_args()

    def merged():
        files = [rows.read(name, "responses") for name in args.responses_files]
        for number, parts in enumerate(zip_longest(*files), 1):
            for name, part in zip(args.responses_files, parts, strict=True):
                if part is None or any(
                    part[key] != (parts[0] or part)[key] for key in ("id", "prompt")
                ):
                    sys.exit(
                        f"{name}:{number}: id: not the prompts of {args.responses_files[0]} in their order"
                    )
            if args.split and parts[0].get("split") != args.split:
                continue
            row, n = dict(parts[0]), len(parts[0]["responses"])
            for key, value in row.items():
                if isinstance(value, list) and len(value) == n and key != "prompt":
                    row[key] = [entry for part in parts for entry in entries(part, key)]
            row["policies"] = [part.get("policy") for part in parts for _ in part["responses"]]
            yield row

    total = sum(1 for _ in merged())  # a bad row stops all before one is written
    if not total:
        sys.exit(f"{args.responses_files[0]}: split: no row of {args.split!r}")
    rows.write(args.output_file, merged())
    print(
        f"{args.output_file} rows in each: {total}, files: {len(args.responses_files)}, rows out: {total}"
    )


if __name__ == "__main__":
    main()
