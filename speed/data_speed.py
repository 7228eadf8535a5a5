"""Time and memory of the data stages on a million generated rows.

The words are drawn by Zipf's law from 30,000, 20 to 300 a row. One row in ten is an exact duplicate
of an earlier one, one in ten a near duplicate (one word in fifty changed), and one in a thousand
holds a question of the benchmark.

    python speed/data_speed.py --rows 1000000 --directory my_rows
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from common import tables

ROOT = Path(__file__).resolve().parent.parent
VOCABULARY = 30_000
QUESTIONS = 1000
# Rows that others are duplicates of.
ORIGINALS = 20_000


# The rows


class Words:
    """Words by Zipf's law: the probability of the i-th is proportional to 1 / i."""

    def __init__(self, rng):
        import numpy as np

        self.rng = rng
        self.words = np.array([f"w{i}" for i in range(VOCABULARY)])
        weights = 1 / np.arange(1, VOCABULARY + 1)
        self.cumulative = np.cumsum(weights / weights.sum())

    def draw(self, length):
        """An array of words."""
        import numpy as np

        indexes = self.cumulative.searchsorted(self.rng.random(length))
        # Rounding can leave the last cumulative probability below 1.
        return self.words[np.minimum(indexes, VOCABULARY - 1)]


def write_rows(path, benchmark, count):
    """Write `count` instructions, and the questions of a benchmark, of which some hold one."""
    import numpy as np

    rng = np.random.default_rng(0)
    words = Words(rng)
    questions = [" ".join(words.draw(40)) for _ in range(QUESTIONS)]
    with open(benchmark, "w") as file:
        for question in questions:
            file.write(json.dumps({"question": question}) + "\n")
    originals = []
    with open(path, "w") as file:
        for number in range(count):
            text = words.draw(rng.integers(20, 300))
            kind = number % 10
            if kind == 1 and originals:
                # An exact duplicate.
                text = originals[rng.integers(len(originals))]
            elif kind == 2 and originals:
                # A near duplicate.
                text = originals[rng.integers(len(originals))].copy()
                text[::50] = "other"
            elif kind == 3 and len(originals) < ORIGINALS:
                originals.append(text)
            instruction_words = len(text) // 4
            instruction = " ".join(text[:instruction_words])
            if number % 1000 == 500:
                instruction += f" {questions[rng.integers(QUESTIONS)]}"
            output = " ".join(text[instruction_words:])
            file.write(json.dumps({"instruction": instruction, "output": output}) + "\n")


# The measurement


@dataclass
class Measurement:
    seconds: float
    memory: float  # peak resident, MiB
    summary: str  # the counts of the last line that the script prints


def measure(command):
    """Run a script. command: its path and its arguments."""
    start = time.time()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    printed = process.stdout.read().strip().splitlines()
    # wait4 gives the memory of this process alone.
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    summary = printed[-1].partition(".jsonl ")[2]
    return Measurement(time.time() - start, usage.ru_maxrss / 1024, summary)


def commands(directory, raw, benchmark):
    """The scripts that are measured, with their arguments."""
    instructions = directory / "instructions.jsonl"
    convert_instructions = ["sft/1_instructions.py", "--datasets", raw]
    convert_instructions += ["--output_file", instructions]
    draw_prompts = ["generation/1_prompts.py", "--datasets", raw, "--size", 20_000]
    draw_prompts += ["--output_file", directory / "prompts.jsonl"]
    clean = ["data/1_clean.py", "--input_file", instructions, "--evaluation_files", benchmark]
    clean += ["--output_file", directory / "clean.jsonl"]
    return [convert_instructions, draw_prompts, clean]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--directory", type=Path, required=True, help="gets the rows, about 1.5 GB for a million"
    )
    args = parser.parse_args()
    directory = args.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    raw = directory / "given.jsonl"
    benchmark = directory / "benchmark.jsonl"
    write_rows(raw, benchmark, args.rows)
    print(tables.markdown(["script", "seconds", "MiB", "rows"], []), flush=True)
    for command in commands(directory, raw, benchmark):
        result = measure(command)
        cells = [command[0], f"{result.seconds:.0f}", f"{result.memory:.0f}", result.summary]
        print(tables.markdown_line(cells), flush=True)


if __name__ == "__main__":
    main()
