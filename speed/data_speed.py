"""Time and memory of the data stages on a million made rows.

The words are drawn by Zipf's law from 30,000, 20 to 300 a row; one row in ten is an exact duplicate of an earlier one,
one in ten a near duplicate (a word in fifty changed), one in a thousand holds a question of the benchmark.

    python speed/data_speed.py --rows 1000000 --directory my_rows
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def make(path, benchmark, count):
    import numpy as np

    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(30_000)])
    weights = 1 / np.arange(1, len(words) + 1)
    places = np.cumsum(weights / weights.sum())

    def text(length):
        return words[np.minimum(places.searchsorted(rng.random(length)), len(words) - 1)]

    questions = [" ".join(text(40)) for _ in range(1000)]
    benchmark.write_text(
        "".join(json.dumps({"question": question}) + "\n" for question in questions)
    )
    earlier = []
    with open(path, "w") as file:
        for number in range(count):
            kind, own = number % 10, text(rng.integers(20, 300))
            if kind == 1 and earlier:
                own = earlier[rng.integers(len(earlier))]
            elif kind == 2 and earlier:
                own = earlier[rng.integers(len(earlier))].copy()
                own[::50] = "other"
            elif kind == 3 and len(earlier) < 20_000:
                earlier.append(own)
            asked = " ".join(own[: len(own) // 4])
            asked += f" {questions[rng.integers(1000)]}" if number % 1000 == 500 else ""
            row = {"instruction": asked, "output": " ".join(own[len(own) // 4 :])}
            file.write(json.dumps(row) + "\n")


def measure(*command):
    """(seconds, peak resident MiB, the last line it printed) of a script."""
    start = time.time()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    printed = process.stdout.read().strip().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    return time.time() - start, usage.ru_maxrss / 1024, printed[-1].partition(".jsonl ")[2]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--directory", type=Path, required=True, help="gets the rows, about 1.5 GB for a million"
    )
    args = parser.parse_args()
    out = args.directory.resolve()
    out.mkdir(parents=True, exist_ok=True)
    given, benchmark = out / "given.jsonl", out / "benchmark.jsonl"
    make(given, benchmark, args.rows)
    print("| script | seconds | MiB | rows |\n| --- | --- | --- | --- |", flush=True)
    commands = [
        ["sft/1_instructions.py", "--datasets", given, "--output_file", out / "instructions.jsonl"],
        ["generation/1_prompts.py", "--datasets", given, "--size", 20_000, "--output_file", out / "prompts.jsonl"],
        ["data/1_clean.py", "--input_file", out / "instructions.jsonl", "--evaluation_files", benchmark,
         "--output_file", out / "clean.jsonl"],
    ]  # fmt: skip
    for command in commands:
        seconds, memory, told = measure(*command)
        print(f"| {command[0]} | {seconds:.0f} | {memory:.0f} | {told} |", flush=True)


if __name__ == "__main__":
    main()
