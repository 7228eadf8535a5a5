"""Drop from instructions, prompts or preferences what should not be trained on, and tell what went and why (paper 3.1).

In this order: rows of more than --max_tokens; rows in other --languages (py3langid, by the prose of all turns; rows of
less than 40 letters are kept, common/languages.py); rows that overlap a benchmark; near duplicates. A row overlaps a
benchmark if 13 consecutive words of it, with the signs between them, stand in one of its questions (Brown et al. 2020,
appendix C), or if a user turn is a question of fewer words. Capitals and the punctuation of sentences do not count,
other signs do: 12 + 3 is not 12 - 3 (common/duplicates.py). It is a near duplicate if the MinHash estimate (rensa, 128
permutations) of the Jaccard similarity of its sets of 3 consecutive words to those of a row that was kept is at least
--similarity. Of a row its signature is held in memory.

Reads:  --input_file, rows {"id", "messages"}, {"id", "prompt", "chosen", "rejected"} or {"id", "prompt"}: the first of
        these kinds that the first row is whole in, whatever other keys it has
        --evaluation_files, .jsonl, .json (gzipped or not), .parquet, or names of hub datasets (their split test), with
        a question in one of "turns", "prompt", "instruction" (with its "input"), "question", "problem", "text":
        AlpacaEval, MT-Bench, Arena-Hard, MATH, lm-eval's
Writes: --output_file, the rows that are left, as they were and in their order
        two tables beside it, with the suffix .md: counts by source and reason, and by benchmark

    python data/1_clean.py --input_file my_instructions.jsonl --evaluation_files my_questions.jsonl \
        --output_file my_clean.jsonl
"""

import itertools
import sys
import time
from collections import Counter, defaultdict

from common import arguments, duplicates, entrances, languages, models, outputs, rows

HEAD = "| source | rows in |"  # of the table
OVERLAP = 13  # words
QUESTIONS = ("turns", "prompt", "instruction", "question", "problem", "text")
KINDS = ("instructions", "preferences", "prompts")
BATCH = 5000  # rows


def kind_of(row):
    """The first kind that a row is whole in; one that is in none is named by the conversation that it has."""
    whole = [kind for kind in KINDS if not rows.problem(row, kind)]
    return whole[0] if whole else "instructions" if "messages" in row else "prompts"


def turns_of(row, kind):
    if kind == "instructions":
        return row["messages"]
    return row["prompt"] + (row["chosen"] if kind == "preferences" else [])


def questions_of(source):
    """Yields the texts of a benchmark's questions."""
    for row in rows.load(source, "test"):
        field = next((field for field in QUESTIONS if row.get(field)), None)
        asked = row.get(field)
        if field == "instruction":  # with its input
            asked = question_of(row)
        for turn in asked if isinstance(asked, list) else [asked]:
            turn = turn.get("content") if isinstance(turn, dict) else turn
            if not isinstance(turn, str):
                rows.refuse(row, f"question: none of {', '.join(QUESTIONS)} is a text")
            yield turn


def question_of(row):
    try:
        return entrances.asked(row, "instruction")[-1]["content"]
    except ValueError as error:
        rows.refuse(row, error)


def benchmarks_of(sources):
    """({13 words of a question: its benchmark}, {shorter question: its benchmark}, Counter of the questions)."""
    long, short, counts = {}, {}, Counter()
    for source in sources:
        for text in questions_of(source):
            counts[source] += 1
            words = duplicates.words(text)
            long.update(dict.fromkeys(duplicates.runs(words, OVERLAP), source))
            if len(words) < OVERLAP and text.strip():
                short[duplicates.key(text)] = source
    return long, short, counts


def table(head, lines):
    return (
        "\n".join(
            f"| {' | '.join(map(str, line))} |" for line in [head, ["---"] * len(head), *lines]
        )
        + "\n"
    )


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--input_file", required=True)
    parser.add_output("--output_file", suffixes=[".md"], required=True)
    parser.add_argument(
        "--max_tokens",
        type=arguments.whole(1),
        help="of all turns together; needs --tokenizer_name",
    )
    parser.add_argument("--tokenizer_name", help="whose tokens are counted")
    parser.add_argument(
        "--languages", nargs="+", help="ISO 639-1 codes to keep, such as en (default: all)"
    )
    parser.add_argument(
        "--evaluation_files", nargs="+", default=[], help="benchmarks that no row may overlap"
    )
    parser.add_argument(
        "--similarity",
        type=arguments.real(0),
        default=0.8,
        help="of near duplicates; above 1: keep them",
    )
    args = parser.parse_args()
    if bool(args.max_tokens) != bool(args.tokenizer_name):
        parser.error("--max_tokens and --tokenizer_name go together")
    if unknown := [code for code in args.languages or () if code not in languages.known()]:
        parser.error(f"--languages: {unknown[0]}: not one of {', '.join(languages.known())}")
    start, counts, taken = time.time(), defaultdict(Counter), Counter()
    kind = kind_of(next(rows.read(args.input_file)))
    stream = rows.read(args.input_file, kind)
    long, short, questions = benchmarks_of(args.evaluation_files)

    from rensa import RMinHashDeduplicator

    # 16 bands of 8 find 95 of 100 pairs at a similarity of 0.8, and all above 0.9.
    kept = RMinHashDeduplicator(
        threshold=min(args.similarity, 1), num_perm=128, use_lsh=True, num_bands=16
    )
    if args.tokenizer_name:
        tokenizer = models.tokenizer(args.tokenizer_name, template=False)

    def overlapped(row, words):
        """The benchmark that a row overlaps, or None."""
        for run in duplicates.runs(words, OVERLAP) if long else ():
            if run in long:
                return long[run]
        for turn in turns_of(row, kind) if short else ():
            if turn["role"] == "user" and (asked := duplicates.key(turn["content"])) in short:
                return short[asked]
        return None

    def reason_of(row, text, words):
        # A token is at least one byte.
        if args.max_tokens and len(text.encode(errors="replace")) > args.max_tokens:
            if (
                len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
                > args.max_tokens
            ):
                return "too long"
        if args.languages:
            language = languages.language(turn["content"] for turn in turns_of(row, kind))
            if language and language not in args.languages:
                return "another language"
        if benchmark := overlapped(row, words):
            taken[benchmark] += 1
            return "overlaps a benchmark"
        return None

    def left():
        number = 0
        while batch := list(itertools.islice(stream, BATCH)):
            good = []
            for row in batch:
                text = "\n".join(turn["content"] for turn in turns_of(row, kind))
                words = duplicates.words(text)
                if reason := reason_of(row, text, words):
                    counts[str(row.get("source", "-"))][reason] += 1
                else:
                    good.append((row, duplicates.runs(words, 3) or [duplicates.key(text)]))
            new = [True] * len(good)
            if args.similarity <= 1:
                new = kept.add_pairs(
                    (str(number + i), shingles) for i, (_, shingles) in enumerate(good)
                )
            for (row, _), is_new in zip(good, new, strict=True):
                counts[str(row.get("source", "-"))]["left" if is_new else "near duplicate"] += 1
                if is_new:
                    yield row
            number += len(batch)
            if number % 100_000 == 0:
                print(f"{number} rows, {number / (time.time() - start):.0f}/s", flush=True)

    table_file = outputs.table_beside(args.output_file, HEAD)
    writer = rows.Writer(args.output_file)
    try:
        writer.add(left())
        total = sum(counts.values(), Counter())
        total["left"] or sys.exit(
            f"{args.output_file}: no row is left of {total.total()} ({dict(total)})"
        )
    except SystemExit:
        writer.partial.unlink()
        raise
    writer.finish()
    lines = []
    for name, of in [*counts.items(), *([("all", total)] if len(counts) > 1 else [])]:
        why = ", ".join(
            f"{reason}: {count}" for reason, count in of.most_common() if reason != "left"
        )
        lines.append([name, of.total(), of["left"], of.total() - of["left"], why])
    text = table(["source", "rows in", "left", "dropped", "why"], lines)
    if questions:
        lines = [[name, count, taken[name]] for name, count in questions.items()]
        text += "\n" + table(["benchmark", "questions", "rows that overlap it"], lines)
    outputs.write_text(table_file, text)
    told = f"rows in: {total.total()}, dropped: {total.total() - total['left']}, rows out: {total['left']}"
    print(f"{text}{args.output_file} {told}, {time.time() - start:.1f} s")


if __name__ == "__main__":
    main()
