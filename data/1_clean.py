"""Drop from instructions, prompts or preferences what should not be trained on (paper 3.1).

In this order:
    rows of more than --max_tokens
    rows in other languages than --languages, by the prose of all turns (py3langid); rows of less
        than 40 letters are kept (common/languages.py)
    rows that overlap a benchmark: 13 consecutive words of the row, with the symbols between them,
        are in one of its questions (Brown et al. 2020, appendix C), or a user turn is a question
        of fewer words; capitals and the punctuation of sentences do not count, other symbols do:
        12 + 3 is not 12 - 3 (common/duplicates.py)
    near duplicates: the Jaccard similarity of a row's word 3-grams (shingles) to those of an
        earlier row that was kept is at least --similarity. MinHash with 128 permutations (rensa)
        estimates it for the pairs that locality-sensitive hashing finds: at least 9 in 10 of the
        pairs at --similarity, and more of the pairs above it
Of a row only its signature is held in memory.

Reads:  --input_file, rows {"id", "messages"}, {"id", "prompt", "chosen", "rejected"} or {"id",
        "prompt"}: the first of these for which the file's first row is valid, whatever its other
        keys; but a row with "chosen" and "rejected" is no prompt. Of a preference the prompt and
        the chosen side are examined, the rejected side is not.
        --evaluation_files, .jsonl, .json (gzipped or not), .parquet, or names of hub datasets
        (their split test), with a question in one of "turns", "prompt", "instruction" (with its
        "input"), "question", "problem", "text": AlpacaEval, MT-Bench, Arena-Hard, MATH, lm-eval's.
        Of messages the user's turns are questions, those of the system and the assistant are not.
Writes: --output_file, the remaining rows, unchanged and in their order
        two tables beside it, with the suffix .md: counts by source and reason, and by benchmark

    python data/1_clean.py --input_file my_instructions.jsonl \
        --evaluation_files my_questions.jsonl --output_file my_clean.jsonl
"""

import itertools
import sys
import time
from collections import Counter, defaultdict

from common import arguments, duplicates, entrances, languages, models, outputs, rows, tables

# The first line of our table: a file that begins otherwise is not overwritten.
TABLE_HEAD = "| source | rows in |"
OVERLAP = 13  # words
SHINGLE = 3  # words
PERMUTATIONS = 128
# Of the pairs at --similarity, the share that locality-sensitive hashing has to find.
RECALL = 0.9
QUESTIONS = ("turns", "prompt", "instruction", "question", "problem", "text")
KINDS = ("instructions", "preferences", "prompts")
BATCH = 5000  # rows
ROWS_BETWEEN_PROGRESS = 100_000


def parse_arguments():
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
    for code in args.languages or ():
        if code not in languages.known():
            parser.error(f"--languages: {code}: not one of {', '.join(languages.known())}")
    return args


# Rows


def kind_of(row):
    """The kind of a file's rows by its first row: the first of KINDS for which it is valid.

    A row that is valid for none gets the kind of its fields: reading the file then refuses it.
    """
    has_sides = row.get("chosen") is not None and row.get("rejected") is not None
    for kind in KINDS:
        # A preference with a bad side would be valid as a prompt.
        if kind == "prompts" and has_sides:
            continue
        if not rows.problem(row, kind):
            return kind
    if "messages" in row:
        return "instructions"
    return "preferences" if has_sides else "prompts"


def turns_of(row, kind):
    """All messages of a row; of a preference those of the chosen side."""
    if kind == "instructions":
        return row["messages"]
    if kind == "preferences":
        return row["prompt"] + row["chosen"]
    return row["prompt"]


def source_of(row):
    return str(row.get("source", "-"))


# What is dropped, and why


def questions_of(source):
    """Yield the texts of a benchmark's questions."""
    for row in rows.load(source, "test"):
        turns = question_turns(row)
        texts = [turn.get("content") if isinstance(turn, dict) else turn for turn in turns]
        if not texts or not all(isinstance(text, str) for text in texts):
            rows.refuse(row, f"question: none of {', '.join(QUESTIONS)} is a text")
        yield from texts


def question_turns(row):
    """The turns in which a row asks: texts (MT-Bench), or messages with the user's role."""
    field = next((field for field in QUESTIONS if row.get(field)), None)
    if field is None:
        return []
    if field == "instruction":
        return [with_input(row)]
    if not isinstance(row[field], list):
        return [row[field]]
    turns = []
    for turn in row[field]:
        if isinstance(turn, dict) and turn.get("role") in ("system", "assistant"):
            continue
        turns.append(turn)
    return turns


def with_input(row):
    """The text of an instruction with its input."""
    try:
        return entrances.asked(row, "instruction")[-1]["content"]
    except ValueError as error:
        rows.refuse(row, error)


class Benchmarks:
    """The questions of benchmarks, and how many rows overlap them."""

    def __init__(self, sources):
        self.question_counts = Counter()
        self.overlap_counts = Counter()
        # {13 words of a question: its benchmarks}
        self.runs = {}
        # {key of a question of fewer words: its benchmarks}
        self.short_questions = {}
        self.sets = {}  # {benchmark: the set of it alone}
        for source in sources:
            for question in questions_of(source):
                self.add(question, source)

    def add(self, question, source):
        self.question_counts[source] += 1
        words = duplicates.words(question)
        # One object for all entries: benchmarks have millions of words.
        only_this = self.sets.setdefault(source, frozenset([source]))
        for run in duplicates.runs(words, OVERLAP):
            others = self.runs.get(run)
            self.runs[run] = others | only_this if others else only_this
        if len(words) < OVERLAP and question.strip():
            key = duplicates.key(question)
            self.short_questions[key] = self.short_questions.get(key, only_this) | only_this

    def overlapped(self, words, turns):
        """The benchmarks that a row overlaps. words: those of all its turns."""
        found = set()
        if self.runs:
            for run in duplicates.runs(words, OVERLAP):
                found.update(self.runs.get(run, ()))
        if self.short_questions:
            for turn in turns:
                if turn["role"] == "user":
                    found.update(self.short_questions.get(duplicates.key(turn["content"]), ()))
        return found


class RowFilter:
    """Drops rows by their length, their language, and their overlap with benchmarks."""

    def __init__(self, args, benchmarks):
        self.max_tokens = args.max_tokens
        self.languages = args.languages
        self.benchmarks = benchmarks
        if args.tokenizer_name:
            self.tokenizer = models.tokenizer(args.tokenizer_name, template=False)

    def reason_to_drop(self, turns, text, words):
        """Why a row is dropped, or None. text: all turns; words: those of the text."""
        if self.max_tokens and self.is_too_long(text):
            return "too long"
        if self.languages:
            language = languages.language(turn["content"] for turn in turns)
            if language and language not in self.languages:
                return "another language"
        if overlapped := self.benchmarks.overlapped(words, turns):
            self.benchmarks.overlap_counts.update(overlapped)
            return "overlaps a benchmark"
        return None

    def is_too_long(self, text):
        # A token is at least one byte: most rows need no tokenizer.
        if len(text.encode(errors="replace")) <= self.max_tokens:
            return False
        # verbose=False: no warning that the text is longer than the model's context.
        token_ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return len(token_ids) > self.max_tokens


def number_of_bands(similarity):
    """The fewest bands of a signature with which RECALL of the pairs at that similarity are found.

    Two signatures are compared if they are equal in a whole band. With b bands of r permutations
    that has the probability 1 - (1 - similarity^r)^b. Fewer, longer bands save comparisons. For 0.8
    the result is 16 bands of 8, which find 95 of 100 pairs at 0.8, and all above 0.9.
    """
    for exponent in range(PERMUTATIONS.bit_length()):
        bands = 2**exponent
        length = PERMUTATIONS // bands
        if 1 - (1 - similarity**length) ** bands >= RECALL:
            return bands
    # Below a similarity of 0.02 the shortest bands find fewer, too.
    return PERMUTATIONS


class NearDuplicates:
    """The signatures of the rows that were kept."""

    def __init__(self, similarity):
        """similarity: of near duplicates, at least; above 1 there are none."""
        self.rows_seen = 0
        self.deduplicator = None
        if similarity <= 1:
            from rensa import RMinHashDeduplicator

            self.deduplicator = RMinHashDeduplicator(
                threshold=similarity,
                num_perm=PERMUTATIONS,
                use_lsh=True,
                num_bands=number_of_bands(similarity),
            )

    def are_new(self, shingles_by_row):
        """For each row whether it is no near duplicate of an earlier one; if so, it is kept."""
        if self.deduplicator is None:
            return [True] * len(shingles_by_row)
        # The deduplicator stores signatures by key: each row of the stream needs another one.
        keyed = [(str(i), shingles) for i, shingles in enumerate(shingles_by_row, self.rows_seen)]
        self.rows_seen += len(keyed)
        return self.deduplicator.add_pairs(keyed)


def remaining_rows(stream, kind, row_filter, near_duplicates, counts, start):
    """Yield the rows of a stream that are left.

    counts: {source: Counter of rows by what became of them}, counted here.
    """
    rows_in = 0
    while batch := list(itertools.islice(stream, BATCH)):
        candidates = []
        shingles_by_row = []
        for row in batch:
            turns = turns_of(row, kind)
            text = "\n".join(turn["content"] for turn in turns)
            words = duplicates.words(text)
            reason = row_filter.reason_to_drop(turns, text, words)
            if reason:
                counts[source_of(row)][reason] += 1
                continue
            candidates.append(row)
            # A text of one or two words has no 3-gram: the text itself is its shingle.
            shingles = duplicates.runs(words, SHINGLE) or [duplicates.key(text)]
            shingles_by_row.append(shingles)
        are_new = near_duplicates.are_new(shingles_by_row)
        for row, is_new in zip(candidates, are_new, strict=True):
            if is_new:
                counts[source_of(row)]["left"] += 1
                yield row
            else:
                counts[source_of(row)]["near duplicate"] += 1
        rows_in += len(batch)
        if rows_in % ROWS_BETWEEN_PROGRESS == 0:
            print(f"{rows_in} rows, {rows_in / (time.time() - start):.0f}/s", flush=True)


# The tables


def tables_of_counts(counts, benchmarks):
    """Counts by source and reason, and by benchmark, in Markdown."""
    text = tables.outcomes(counts, "source", "left", "left")
    if benchmarks.question_counts:
        head = ["benchmark", "questions", "rows that overlap it"]
        lines = []
        for name, questions in benchmarks.question_counts.items():
            lines.append([name, questions, benchmarks.overlap_counts[name]])
        text += "\n" + tables.markdown(head, lines) + "\n"
    return text


def main():
    args = parse_arguments()
    start = time.time()
    kind = kind_of(next(rows.read(args.input_file)))
    stream = rows.read(args.input_file, kind)
    benchmarks = Benchmarks(args.evaluation_files)
    near_duplicates = NearDuplicates(args.similarity)
    row_filter = RowFilter(args, benchmarks)

    counts = defaultdict(Counter)
    table_file = outputs.table_beside(args.output_file, TABLE_HEAD)
    writer = rows.Writer(args.output_file)
    try:
        writer.add(remaining_rows(stream, kind, row_filter, near_duplicates, counts, start))
        total = sum(counts.values(), Counter())
        if not total["left"]:
            sys.exit(f"{args.output_file}: no row is left of {total.total()} ({dict(total)})")
    except SystemExit:
        # The rows are written while they are read: an error leaves some of them behind.
        writer.partial.unlink()
        raise
    writer.finish()
    text = tables_of_counts(counts, benchmarks)
    outputs.write_text(table_file, text)
    print(
        f"{text}{args.output_file} rows in: {total.total()}, "
        f"dropped: {total.total() - total['left']}, rows out: {total['left']}, "
        f"{time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
