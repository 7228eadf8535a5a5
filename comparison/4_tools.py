"""Tables of the ways to learn from trajectories with a tool that tools.sh ran in the tiny world.

An ordering of the slides' table ("Multi-turn tool-integrated reasoning", arXiv 2409.02392) holds
where the 95% interval of the difference (bootstrap over seeds and questions) lies above 0, fails
where it lies below, and is undecided otherwise.

Reads:  --directory, seedS/NAME/ of tools.sh, as many seeds and names as there are
Writes: in it TOOLS.md

    python comparison/4_tools.py --directory runs/compare_tools
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import comparing
from claim_parts import verdict
from common import arguments, outputs, rows, tables

TITLES = {
    "base": "SFT",
    "raft": "RAFT",
    "dpo": "single-turn DPO",
    "kto": "single-turn KTO",
    "mdpo_fixed": "M-DPO, fixed reference",
    "mdpo": "M-DPO, moving reference",
}
# (the better, the worse) of the slides.
ORDERINGS = [
    ("raft", "base"),
    ("dpo", "raft"),
    ("kto", "raft"),
    ("mdpo", "dpo"),
    ("mdpo", "kto"),
    ("mdpo", "mdpo_fixed"),
    ("mdpo", "base"),
]
# How generation/2c_tool_responses.py ends its log.
SECONDS = re.compile(r"generation ([\d.]+) s, tool ([\d.]+) s")


@dataclass
class Policy:
    """The answers of a run's policy to the test questions of a seed, in the order of their ids."""

    right: object  # array, 1 for a right answer, else 0
    kl: float  # to the fine-tuned policy, the mean over answers
    programs: float  # for each answer
    failed: float  # the share of programs that failed


def read_policy(path):
    import numpy as np

    test = [row for row in rows.read(path, "rewards") if row["split"] == "test"]
    test.sort(key=lambda row: row["id"])
    programs = sum(row["programs"][0] for row in test)
    failed = sum(row["failed_programs"][0] for row in test)
    return Policy(
        right=np.array([row["rewards"][0] for row in test], float),
        kl=float(np.mean([row["kl"][0] for row in test])),
        programs=programs / len(test),
        failed=failed / max(programs, 1),
    )


def read_runs(directory):
    """{(name, policy): {seed: Policy}}; the fine-tuned policy's name is "base"."""
    runs = {}
    for path in sorted(directory.glob("seed*/*/eval/*/kl.jsonl")):
        seed, name, _, policy = path.relative_to(directory).parts[:4]
        # Each run has a link to the base's evaluation, which counts once.
        if policy != "sft" or name == "base":
            seeds = runs.setdefault((name, policy), {})
            seeds[int(seed.removeprefix("seed"))] = read_policy(path)
    return runs


def last_round(runs, name):
    """The number of a run's last round; 0 is the fine-tuned policy, None no policy."""
    rounds = [round_of(policy) for run, policy in runs if run == name]
    return max(rounds, default=None)


def round_of(policy):
    return 0 if policy == "sft" else int(policy.removeprefix("iter"))


def accuracy(seeds):
    """{seed: array}, as the functions of comparing take it."""
    return {seed: policy.right for seed, policy in seeds.items()}


def with_interval(mean, low, high, sign=""):
    return f"{mean:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


# The tables


def accuracy_table(runs):
    lines = [
        "| | round | seeds | accuracy (95%) | of each seed | KL | programs | failed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, title in TITLES.items():
        policies = [policy for run, policy in runs if run == name]
        for policy in sorted(policies, key=round_of):
            cells = accuracy_cells(title, round_of(policy), runs[name, policy])
            lines.append(tables.markdown_line(cells))
    return "\n".join(lines)


def accuracy_cells(title, number, seeds):
    """number: of the round."""
    of_each = [f"{seeds[seed].right.mean():.3f}" for seed in sorted(seeds)]
    means = []
    for field in ("kl", "programs", "failed"):
        values = [getattr(one, field) for one in seeds.values()]
        means.append(f"{sum(values) / len(values):.2f}")
    shown = with_interval(*comparing.interval(accuracy(seeds)))
    return [title, number, len(seeds), shown, " ".join(of_each), *means]


def ordering_table(runs):
    lines = [
        "| ordering | after round | seeds | difference (95%) | verdict |",
        "|---|---|---|---|---|",
    ]
    for better, worse in ORDERINGS:
        lines.append(tables.markdown_line(ordering_cells(runs, better, worse)))
    return "\n".join(lines)


def ordering_cells(runs, better, worse):
    what = f"{TITLES[better]} > {TITLES[worse]}"
    last = last_round(runs, better)
    first = runs.get((better, f"iter{last}"), {})
    # After as many rounds, unless it is the fine-tuned policy, which has none.
    second = runs.get((worse, "sft" if worse == "base" else f"iter{last}"), {})
    seeds = first.keys() & second.keys()
    if not seeds:
        return [what, "-", 0, "-", "not run"]
    mean, low, high = comparing.paired_interval(accuracy(first), accuracy(second))
    return [what, last, len(seeds), with_interval(mean, low, high, "+"), verdict(low, high)]


def tool_time(directory):
    """A sentence: how the seconds of sampling are shared, by the logs of all rounds.

    Of a step that was stopped and resumed its last part counts.
    """
    generation = 0.0
    tool = 0.0
    for path in directory.glob("seed*/*/log/iter*/responses.log"):
        for match in SECONDS.finditer(path.read_text()):
            generation += float(match[1])
            tool += float(match[2])
    if not generation:
        return "The tool's share of the time: not run."
    return (
        f"Sampling for the rounds took {generation:.0f} s of the policies' generation, and "
        f"{tool:.0f} s of waiting for the tool: {tool / generation:.0%} of the former."
    )


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--directory", required=True)
    directory = Path(parser.parse_args().directory)
    runs = read_runs(directory)
    if not runs:
        sys.exit(f"{directory}: no run of tools.sh is there")
    # The page explains the verdicts in the words of the docstring's second paragraph.
    about = " ".join(__doc__.split("\n\n")[1].split())
    paragraphs = [
        "# Learning from trajectories with a tool, in the tiny world",
        "    bash comparison/tools.sh",
        "The tiny world's numbers; they cannot be compared with those of other models. Accuracy: "
        "of one answer to each\ntest question, at temperature 1; its interval is a bootstrap over "
        "seeds and questions. KL: to the fine-tuned policy.",
        accuracy_table(runs),
        tool_time(directory),
        "## The orderings of the slides' table",
        about,
        ordering_table(runs),
    ]
    text = "\n\n".join(paragraphs) + "\n"
    outputs.write_text(directory / "TOOLS.md", text)
    print(text)


if __name__ == "__main__":
    main()
