"""Whether the memory of scoring and pairing grows with the file: 2,000 and 20,000 rows of 16 responses.

Prints the peak resident memory of annotation/1a_reward_model.py and of 2_pairs.py, and of the former on one row, which
is what the libraries and the model take.

    python speed/annotation_memory.py --model_name_or_path runs/tiny/reward_model \
        --responses_file runs/tiny/iter1/responses.jsonl
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import rows

ROOT = Path(__file__).resolve().parent.parent


def peak(*command):
    """Peak resident memory of a command, MiB."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    return usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--responses_file", required=True, help="rows to repeat")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2000, 20_000])
    parser.add_argument("--n", type=int, default=16, help="responses a row")
    args = parser.parse_args()
    given = list(rows.read(args.responses_file, "responses"))
    print("| rows | 1a_reward_model.py, MiB | 2_pairs.py, MiB |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            paths = [
                Path(folder) / f"{name}{size}.jsonl" for name in ("responses", "rewards", "pairs")
            ]
            writer = rows.Writer(paths[0])
            for i, row in enumerate(itertools.islice(itertools.cycle(given), size)):
                responses = list(itertools.islice(itertools.cycle(row["responses"]), args.n))
                kept = {"id": str(i), "prompt": row["prompt"], "responses": responses}
                writer.add([{**kept, "finish_reasons": ["stop"] * args.n}])
            writer.finish()
            command = [
                "annotation/1a_reward_model.py",
                "--model_name_or_path",
                Path(args.model_name_or_path).resolve(),
            ]
            scoring = peak(*command, "--responses_file", paths[0], "--output_file", paths[1])
            pairing = peak(
                "annotation/2_pairs.py", "--rewards_file", paths[1], "--output_file", paths[2]
            )
            print(f"| {size} | {scoring:.0f} | {pairing:.0f} |", flush=True)


if __name__ == "__main__":
    main()
