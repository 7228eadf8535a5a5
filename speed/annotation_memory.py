"""Whether the memory of scoring and pairing grows with the file: 2,000 and 20,000 rows of 16
responses.

Prints the peak resident memory of annotation/1a_reward_model.py and of 2_pairs.py, first for one
row: what the libraries and the model take.

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

from common import rows, tables

ROOT = Path(__file__).resolve().parent.parent
HEAD = ["rows", "1a_reward_model.py, MiB", "2_pairs.py, MiB"]


def peak(*command):
    """Peak resident memory of a command, MiB."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    return usage.ru_maxrss / 1024


def write_rows(path, examples, size, n):
    """Write `size` rows of n responses, which repeat those of the examples."""
    writer = rows.Writer(path)
    for i, example in enumerate(itertools.islice(itertools.cycle(examples), size)):
        responses = list(itertools.islice(itertools.cycle(example["responses"]), n))
        row = {
            "id": str(i),
            "prompt": example["prompt"],
            "responses": responses,
            "finish_reasons": ["stop"] * n,
        }
        writer.add([row])
    writer.finish()


def measure(model, responses_file, folder):
    """(peak of scoring, peak of pairing) for a file of responses, MiB."""
    rewards_file = folder / "rewards.jsonl"
    scoring = peak(
        "annotation/1a_reward_model.py",
        *("--model_name_or_path", model),
        *("--responses_file", responses_file),
        *("--output_file", rewards_file),
    )
    pairing = peak(
        "annotation/2_pairs.py",
        *("--rewards_file", rewards_file),
        *("--output_file", folder / "pairs.jsonl"),
    )
    return scoring, pairing


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--responses_file", required=True, help="rows to repeat")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2000, 20_000])
    parser.add_argument("--n", type=int, default=16, help="responses a row")
    return parser.parse_args()


def main():
    args = parse_arguments()
    # The commands run in the repository's root, which need not be the current directory.
    model = Path(args.model_name_or_path).resolve()
    examples = list(rows.read(args.responses_file, "responses"))
    print(tables.markdown(HEAD, []))
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            responses_file = Path(folder) / "responses.jsonl"
            write_rows(responses_file, examples, size, args.n)
            scoring, pairing = measure(model, responses_file, Path(folder))
        print(tables.markdown_line([size, f"{scoring:.0f}", f"{pairing:.0f}"]), flush=True)


if __name__ == "__main__":
    main()
