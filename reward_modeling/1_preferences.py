"""Turn preference data into rows for reward modeling, and hold out a part of them.

RLHF Workflow, arXiv 2405.07863, sections 2.1 and B.1.

Reads:  --datasets, any of
            mix1, mix2              its two mixtures, from the hub
            standard                mix2 as its authors publish it, Table 5's 848,965 pairs, from
                                    the hub
            names of hub datasets   NAME, or NAME:DIRECTORY in it (Anthropic/hh-rlhf:harmless-base)
            files                   .jsonl, .json (gzipped or not), .parquet
        whose rows have a published schema (preference_schemas.py: HH-RLHF, SHP, HelpSteer,
        PKU-SafeRLHF-30K, UltraFeedback, UltraInteract, CodeUltraFeedback, Argilla-Math, OpenOrca,
        Capybara, Summarization, Nectar), or TRL's or LLaMA-Factory's:
            {"prompt", "chosen", "rejected"}    each a text or messages; in place of the prompt
                                                "conversations", {"instruction", "input"?} or
                                                {"question"}; "system" or "system_prompt" becomes
                                                the system turn
            {"chosen", "rejected"}              two conversations that share all but the last
                                                message (hendrydong/preference_700K, RLHFlow's
                                                -standard sets)
Writes: --output_file, {"id", "prompt", "chosen", "rejected", "source", "margin"?} in messages.
        margin is the difference of absolute scores, in the points of the set. Other keys of TRL's
        rows pass through.
        --held_out_file, if given, the same for a share of the opening questions: conversations
        that open with the same question go to the same file, so no prompt is in both files.
        A table like Table 5 beside --output_file, with the suffix .md

All pairs of a prompt's answers count: k ranked answers give k(k-1)/2 pairs. Dropped, and counted by
source: ties, small margins, SHP's score ratios of 2 or less and pairs beyond 5 per post, labels
that the row's own scores or another pair contradict, empty turns, roles out of order, identical
answers, tool calls. The input is read twice, so that memory holds digests of the pairs, not the
pairs.

    python reward_modeling/1_preferences.py --datasets runs/tiny/world/preferences.jsonl \
        --output_file runs/tiny/preferences.jsonl \
        --held_out_file runs/tiny/preferences_held_out.jsonl
"""

import itertools
import random
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import preference_datasets
import preference_rows
from common import arguments, duplicates, models, outputs, rows, tables

HEAD = "| source | prompts |"  # of the table
PARTS = ("prompt", "chosen", "rejected")
BATCH = 5000  # pairs that are written, and whose tokens are counted, at once
# Which answer of a pair is chosen, the two sorted by their texts. A bit for each answer: if rows
# contradict each other, both bits are set.
FIRST_CHOSEN = 1
SECOND_CHOSEN = 2
BOTH_ORDERS = FIRST_CHOSEN | SECOND_CHOSEN


# Statistics


@dataclass
class Source:
    """The line of one source in the table."""

    kept: Counter = field(default_factory=Counter)  # pairs, held out; words or tokens of each part
    dropped: Counter = field(default_factory=Counter)  # {reason: pairs}
    prompts: set = field(default_factory=set)  # digests


class Statistics:
    def __init__(self):
        self.sources = defaultdict(Source)
        self.counts = Counter()  # of all sources: rows, and pairs by what became of them

    def drop(self, source, reason):
        self.sources[source].dropped[reason] += 1
        self.counts[f"dropped, {reason}"] += 1

    def total(self):
        total = Source()
        for source in self.sources.values():
            total.kept.update(source.kept)
            total.dropped.update(source.dropped)
            total.prompts |= source.prompts
        return total


def table(sources, total, unit):
    """Table 5 in Markdown, with the line of totals where there are several sources."""
    lengths = [f"{part} {unit}" for part in PARTS]
    head = ["source", "prompts", "pairs", "held out", *lengths, "dropped", "why"]
    lines = [table_line(name, source) for name, source in sources.items()]
    if len(lines) > 1:
        lines.append(table_line("all", total))
    return tables.markdown(head, lines) + "\n"


def table_line(name, source):
    kept = source.kept
    pairs = kept["pairs"]
    mean_lengths = [f"{kept[part] / pairs:.1f}" if pairs else "-" for part in PARTS]
    reasons = [f"{reason}: {count}" for reason, count in source.dropped.most_common()]
    return [
        name,
        len(source.prompts),
        pairs,
        kept["held out"],
        *mean_lengths,
        source.dropped.total(),
        ", ".join(reasons),
    ]


def length_counter(tokenizer_name):
    """A function from texts to their lengths, in a model's tokens or, without a name, in words."""
    if not tokenizer_name:
        return lambda texts: [len(text.split()) for text in texts]
    tokenizer = models.tokenizer(tokenizer_name, template=False)

    def tokens(texts):
        token_ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return [len(ids) for ids in token_ids]

    return tokens


# First reading


@dataclass
class Digests:
    """Hashes that identify a pair: 12 bytes each, since there may be millions of pairs."""

    prompt: bytes
    pair: bytes  # the same whichever answer is chosen
    order: int  # FIRST_CHOSEN or SECOND_CHOSEN
    opening: bytes  # of the conversation's first question


def digests(row):
    prompt, chosen, rejected = [stripped(row[part]) for part in PARTS]
    first_question = next(content for role, content in prompt if role == "user")
    return Digests(
        prompt=duplicates.digest(prompt),
        pair=duplicates.digest([prompt, *sorted([chosen, rejected])]),
        order=FIRST_CHOSEN if chosen < rejected else SECOND_CHOSEN,
        opening=duplicates.digest(duplicates.key(first_question)),
    )


def stripped(messages):
    return [[message["role"], message["content"].strip()] for message in messages]


@dataclass
class Pairs:
    """The usable pairs by their digests."""

    orders: Counter  # {pair: FIRST_CHOSEN, SECOND_CHOSEN or BOTH_ORDERS}
    openings: dict  # {pair: opening question}


def read_pairs(args, statistics):
    """Read all rows: which pairs there are, and which are stated in both orders."""
    pairs = Pairs(orders=Counter(), openings={})
    ids = set()  # digests
    for source, row, reason in preference_rows.comparisons(
        args.datasets, args.split, args.min_margin, statistics.counts
    ):
        # Creates the source's entry: the table lists the sources in the order of their first pair,
        # kept or dropped.
        statistics.sources[source]
        if reason:
            statistics.drop(source, reason)
            continue
        keys = digests(row)
        pairs.openings[keys.pair] = keys.opening
        pairs.orders[keys.pair] |= keys.order
        id_digest = duplicates.digest(row["id"])
        if id_digest in ids:
            names = ", ".join(args.datasets)
            sys.exit(f"{args.output_file}: id: {row['id']!r} stands on two rows of {names}")
        ids.add(id_digest)
    return pairs


def draw_openings(pairs, args, counts):
    """{opening question: True if held out} of --size opening questions.

    A split by opening question keeps every comparison of a held-out prompt, and the later turns of
    its conversation, out of training.
    """
    usable = {pairs.openings[pair] for pair, order in pairs.orders.items() if order != BOTH_ORDERS}
    openings = sorted(usable)
    random.Random(args.seed).shuffle(openings)
    if len(openings) < args.size:
        sys.exit(
            f"{args.output_file}: {args.size} opening questions asked for, "
            f"{len(openings)} are left "
            f"({dict(counts)})"
        )
    openings = openings[: args.size or None]
    held_out = round(args.held_out * len(openings)) if args.held_out_file else 0
    training = len(openings) - held_out
    if training == 0 or (args.held_out_file and held_out == 0):
        sys.exit(
            f"{args.output_file}: {training} prompts for training, {held_out} held out "
            f"({dict(counts)})"
        )
    return {opening: index < held_out for index, opening in enumerate(openings)}


# Second reading


class DrawnPair(NamedTuple):
    source: str
    row: dict
    is_held_out: bool


def drawn_pairs(args, pairs, held_out_by_opening, statistics):
    """Read all rows again: yield a DrawnPair of each that is written, count the others.

    held_out_by_opening: {drawn opening question: True if held out}.
    """
    # The first reading has counted the rows: its count is the total of the progress lines, and
    # these counts are thrown away.
    for source, row, _ in preference_rows.comparisons(
        args.datasets,
        args.split,
        args.min_margin,
        counts=Counter(),
        total=statistics.counts["rows in"],
    ):
        if not row:
            continue
        keys = digests(row)
        if pairs.orders[keys.pair] == BOTH_ORDERS:
            statistics.drop(source, "contradicted by another pair")
        elif keys.opening not in held_out_by_opening:
            statistics.drop(source, "not drawn")
        else:
            statistics.sources[source].prompts.add(keys.prompt)
            yield DrawnPair(source, row, held_out_by_opening[keys.opening])


def write_pairs(stream, writers, lengths, statistics):
    """Write the drawn pairs and count them. writers: {whether held out: a Writer}."""
    while batch := list(itertools.islice(stream, BATCH)):
        for pair in batch:
            writers[pair.is_held_out].add([pair.row])
            kept = statistics.sources[pair.source].kept
            kept["pairs"] += 1
            kept["held out"] += pair.is_held_out
        # Tokenizers are fast on many texts at once.
        for part in PARTS:
            texts = [text_of(pair.row[part]) for pair in batch]
            for pair, length in zip(batch, lengths(texts), strict=True):
                statistics.sources[pair.source].kept[part] += length


def text_of(messages):
    return "\n".join(message["content"] for message in messages)


def parse_arguments():
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
        help="share of the opening questions to hold out",
    )
    parser.add_argument(
        "--min_margin",
        type=arguments.real(0),
        help="smallest difference of absolute scores to keep, in the points of the set; 0 drops "
        "only ties (default: 0.5 for the named schemas (the paper's B.1 gives no number), 0 for "
        "others, whose scale is unknown)",
    )
    parser.add_argument(
        "--size",
        type=arguments.whole(0),
        default=0,
        help="opening questions to draw, with all their pairs (0: all)",
    )
    parser.add_argument("--tokenizer_name", help="whose tokens the table counts (default: words)")
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    args = parser.parse_args()
    # The name of a mixture stands for its datasets.
    names = []
    for name in args.datasets:
        names += preference_datasets.MIXES.get(name, [name])
    args.datasets = names
    return args


def main():
    args = parse_arguments()
    start = time.time()
    lengths = length_counter(args.tokenizer_name)
    statistics = Statistics()
    counts = statistics.counts

    # The rows do not fit into memory, their digests do: so they are read twice.
    pairs = read_pairs(args, statistics)
    held_out_by_opening = draw_openings(pairs, args, counts)

    table_file = outputs.table_beside(args.output_file, HEAD)
    writers = {}
    if args.held_out_file:
        writers[True] = rows.Writer(args.held_out_file)
    writers[False] = rows.Writer(args.output_file)
    stream = drawn_pairs(args, pairs, held_out_by_opening, statistics)
    write_pairs(stream, writers, lengths, statistics)

    total = statistics.total()
    unit = "tokens" if args.tokenizer_name else "words"
    text = table(statistics.sources, total, unit)
    outputs.write_text(table_file, text)
    for writer in writers.values():
        writer.finish()
    counts["held out"] = total.kept["held out"]
    counts["rows out"] = total.kept["pairs"] - total.kept["held out"]
    summary = ", ".join(f"{name}: {count}" for name, count in counts.items())
    print(f"{text}{args.output_file} {summary}, {time.time() - start:.1f} s")


if __name__ == "__main__":
    main()
