"""Turn preference data into the rows that reward models read, and hold a part of the prompts out (paper 2.1, B.1).

Reads:  --datasets, any of
            mix1, mix2                          the paper's two mixtures, from the hub
            standard                            mix2 as its authors publish it, Table 5's 848,965 pairs, from the hub
            names of hub datasets               NAME, or NAME:DIRECTORY in it (Anthropic/hh-rlhf:harmless-base)
            files                               .jsonl, .json (gzipped or not), .parquet
        whose rows are of a published schema (preference_datasets.py: HH-RLHF, SHP, HelpSteer, PKU-SafeRLHF-30K,
        UltraFeedback, UltraInteract, CodeUltraFeedback, Argilla-Math, OpenOrca, Capybara, Summarization, Nectar), TRL's
        or LLaMA-Factory's:
            {"prompt", "chosen", "rejected"}    each a text or messages; in place of the prompt "conversations",
                                                {"instruction", "input"?} or {"question"}; "system" or "system_prompt"
                                                becomes its system turn
            {"chosen", "rejected"}              whole conversations that share all but the last message
                                                (hendrydong/preference_700K, RLHFlow's -standard sets)
Writes: --output_file, {"id", "prompt", "chosen", "rejected", "source", "margin"?} in messages, where margin is the
        difference of absolute scores, in the points of the set; other keys of TRL's rows pass through
        --held_out_file, if given, the same for a share of the prompts, none of which stands in --output_file;
        conversations that open with the same words are on one side
        a table like the paper's Table 5 beside --output_file, with the suffix .md

Every comparison of a prompt's answers counts. Dropped, and counted by source: ties, small margins, SHP's score ratios
of 2 or less and pairs beyond 5 a post, labels that the row's own scores or another pair contradict, empty turns, roles
out of order, identical answers, calls of tools. The input is read twice, so that only digests of the pairs are held in
memory.

    python reward_modeling/1_preferences.py --datasets runs/tiny/world/preferences.jsonl \
        --output_file runs/tiny/preferences.jsonl --held_out_file runs/tiny/preferences_held_out.jsonl
"""

import itertools
import random
import sys
import time
from collections import Counter, defaultdict

import preference_datasets
from common import arguments, duplicates, models, outputs, rows

HEAD = "| source | prompts |"  # of the table
PARTS = ("prompt", "chosen", "rejected")


def keys(row):
    """(prompt, pair, side, opening): the same pair whichever of its answers is preferred, which the side tells."""
    prompt, *answers = (
        [[turn["role"], turn["content"].strip()] for turn in row[part]] for part in PARTS
    )
    first = next(content for role, content in prompt if role == "user")
    pair, side = duplicates.digest([prompt, *sorted(answers)]), 1 + (answers[0] < answers[1])
    return duplicates.digest(prompt), pair, side, duplicates.digest(duplicates.key(first))


def table(sources, unit):
    """Table 5 in Markdown; `sources` holds for each its counters and the digests of its prompts."""
    head = [
        "source",
        "prompts",
        "pairs",
        "held out",
        *(f"{part} {unit}" for part in PARTS),
        "dropped",
        "why",
    ]
    lines = [head, ["---"] * len(head)]
    everything = [sum((s[key] for s in sources.values()), Counter()) for key in ("kept", "dropped")]
    prompts = set().union(*(s["prompts"] for s in sources.values()))
    total = {"all": {"kept": everything[0], "dropped": everything[1], "prompts": prompts}}
    for name, s in (sources | total if len(sources) > 1 else sources).items():
        kept, pairs = s["kept"], s["kept"]["pairs"]
        means = [f"{kept[part] / pairs:.1f}" if pairs else "-" for part in PARTS]
        why = ", ".join(f"{reason}: {count}" for reason, count in s["dropped"].most_common())
        lines.append(
            [name, len(s["prompts"]), pairs, kept["held out"], *means, s["dropped"].total(), why]
        )
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument(
        "--datasets", nargs="+", required=True, help="files, hub names, mix1, mix2, standard"
    )
    parser.add_argument("--split", default="train", help="split of a hub dataset")
    parser.add_output("--output_file", suffixes=[".md"], required=True)
    parser.add_output("--held_out_file", help="(default: nothing is held out)")
    parser.add_argument(
        "--held_out",
        type=arguments.real(0, 1),
        default=0.05,
        help="share of the prompts to hold out",
    )
    parser.add_argument(
        "--min_margin", type=arguments.real(0),
        help="smallest difference of absolute scores to keep, in the points of the set; 0 drops only ties "
        "(default: 0.5 for the named schemas, paper B.1, without a number; 0 for the others, in points not known here)",
    )  # fmt: skip
    parser.add_argument(
        "--size",
        type=arguments.whole(0),
        default=0,
        help="prompts to draw, with all their pairs (0: all)",
    )
    parser.add_argument("--tokenizer_name", help="whose tokens the table counts (default: words)")
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    args = parser.parse_args()
    args.datasets = [
        name for given in args.datasets for name in preference_datasets.MIXES.get(given, [given])
    ]
    start, counts = time.time(), Counter()
    sources = defaultdict(lambda: {"kept": Counter(), "dropped": Counter(), "prompts": set()})

    def lengths(texts):
        return [len(text.split()) for text in texts]

    if args.tokenizer_name:
        tokenizer = models.tokenizer(args.tokenizer_name, template=False)

        def lengths(texts):
            return [
                len(ids)
                for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            ]

    def comparisons(*counted):
        return preference_datasets.comparisons(args.datasets, args.split, args.min_margin, *counted)

    # The first time: which pairs are stated in both orders, and which prompts there are.
    sides, openings, ids = Counter(), {}, set()
    for source, row, reason in comparisons(counts):
        sources[source]["dropped"].update([reason] if reason else [])
        if reason:
            counts[f"dropped, {reason}"] += 1
            continue
        _, pair, side, openings[pair] = keys(row)
        sides[pair] |= side
        if row["id"] in ids:
            sys.exit(
                f"{args.output_file}: id: {row['id']!r} stands on two rows of {', '.join(args.datasets)}"
            )
        ids.add(row["id"])
    ids.clear()
    # Splitting by prompt keeps every comparison of a held-out prompt out of training.
    prompts = sorted({openings[pair] for pair in sides if sides[pair] < 3})
    random.Random(args.seed).shuffle(prompts)
    if len(prompts) < args.size:
        sys.exit(
            f"{args.output_file}: {args.size} prompts asked for, {len(prompts)} are left ({dict(counts)})"
        )
    prompts = prompts[: args.size or None]
    drawn = set(prompts)
    size = round(args.held_out * len(prompts)) if args.held_out_file else 0
    held_out = set(prompts[:size])
    if size == len(prompts) or (args.held_out_file and not size):
        sys.exit(
            f"{args.output_file}: {len(prompts) - size} prompts for training, {size} held out ({dict(counts)})"
        )

    def kept():
        for source, row, _ in comparisons(Counter(), counts["rows in"]):
            if not row:
                continue
            prompt, pair, _, opening = keys(row)
            if sides[pair] == 3:
                sources[source]["dropped"]["contradicted by another pair"] += 1
                counts["dropped, contradicted by another pair"] += 1
            elif opening not in drawn:
                sources[source]["dropped"]["not drawn"] += 1
                counts["dropped, not drawn"] += 1
            else:
                sources[source]["prompts"].add(prompt)
                yield source, row, opening in held_out

    # The second time: write.
    table_file = outputs.table_beside(args.output_file, HEAD)
    files = ({True: args.held_out_file} if args.held_out_file else {}) | {False: args.output_file}
    written = {held: rows.Writer(file) for held, file in files.items()}
    stream = kept()
    while batch := list(itertools.islice(stream, 5000)):
        for held, writer in written.items():
            writer.add(row for _, row, side in batch if side == held)
        columns = [
            lengths(["\n".join(turn["content"] for turn in row[part]) for _, row, _ in batch])
            for part in PARTS
        ]
        for (source, _, held), *of_parts in zip(batch, *columns, strict=True):
            sources[source]["kept"].update(
                {"pairs": 1, "held out": int(held), **dict(zip(PARTS, of_parts, strict=True))}
            )
    text = table(sources, "tokens" if args.tokenizer_name else "words")
    outputs.write_text(table_file, text)
    for writer in written.values():
        writer.finish()
    pairs = sum((source["kept"] for source in sources.values()), Counter())
    counts["held out"], counts["rows out"] = pairs["held out"], pairs["pairs"] - pairs["held out"]
    told = ", ".join(f"{name}: {count}" for name, count in counts.items())
    print(f"{text}{args.output_file} {told}, {time.time() - start:.1f} s")


if __name__ == "__main__":
    main()
