"""Reward 1 for a correct final answer, 0 for any other: for prompts with a known answer.

A response's thoughts, up to </think>, are not part of its answer; a response that was truncated
inside its thoughts has none. Two methods:

    math   compares as mathematics (math-verify: 0.5 equals \\frac{1}{2}). The final answer is the
           last \\boxed{}, or what follows "the answer is", or the last expression. Where "answer"
           is a letter, such as B or (B), the option that the response chooses counts; a response
           that names two is wrong.
    exact  compares texts, without regard to case and surrounding whitespace; it needs a --pattern.

With a --pattern only what its group matches last in a response is compared.

Rows are independent: --shard splits them among processes, and a killed run resumes.

Reads:  --responses_file, {"id", "prompt", "responses", "finish_reasons", "answer"} from
        generation/2_responses.py
Writes: --output_file, the same with "rewards" (1.0 or 0.0 each) and "annotator"

    python annotation/1d_verifier.py --responses_file runs/tiny/iter1/responses.jsonl \\
        --method exact --pattern "answer is ([^.]*)" --output_file runs/tiny/iter1/rewards.jsonl
"""

import itertools
import sys

import regex  # not re: it has a timeout

import final_answer
from common import arguments, entrances, rows, shards, thoughts
from common.progress import Progress

# Seconds that a pattern may take on one response: some would backtrack for years.
PATTERN_TIMEOUT = 5


class Verifier:
    """Decides which responses of a row are right.

    pattern: a compiled regex whose group is the final answer, or None. thoughts_opened: the chat
    template writes <think>, so that responses hold </think> alone. parsed_answers: {answer: as
    math-verify reads it}.
    """

    def __init__(self, method, pattern, thoughts_opened, parsed_answers):
        self.method = method
        self.pattern = pattern
        self.thoughts_opened = thoughts_opened
        self.parsed_answers = parsed_answers
        self.without_answer = 0  # responses that have nothing after their thoughts

    def annotate(self, row):
        """Add "rewards" and "annotator" to a row."""
        row["rewards"] = []
        for response, finish_reason in zip(row["responses"], row["finish_reasons"], strict=True):
            row["rewards"].append(float(self.is_correct(row, response, finish_reason)))
        row["annotator"] = "verifier"

    def is_correct(self, row, response, finish_reason):
        cut_off = finish_reason == "length"
        text = thoughts.without_thoughts(response, unfinished=self.thoughts_opened and cut_off)
        if response.strip() and not text.strip():
            self.without_answer += 1
            return False
        if self.pattern:
            text = self.last_match(row, text)
            if text is None:
                return False
        answer = row["answer"]
        if self.method == "exact":
            return text.strip().casefold() == answer.strip().casefold()
        return self.is_equal(text, answer)

    def last_match(self, row, text):
        """What the group of the pattern matches last, or None."""
        try:
            matches = self.pattern.findall(text, timeout=PATTERN_TIMEOUT)
        except TimeoutError:
            rows.refuse(
                row,
                f"responses: --pattern takes more than {PATTERN_TIMEOUT} s on one of them, "
                "give a simpler one",
            )
        return matches[-1] if matches else None

    def is_equal(self, text, answer):
        """Is the final answer of a text the known answer?

        An option's letter is compared as such. Else the final answer, boxed, stated or the whole
        text, is right if it has the same words, or if math-verify says that it is equal.
        """
        from math_verify import parse, verify

        if letter := final_answer.option(answer):
            return final_answer.chosen_option(text) == letter
        boxed = entrances.last_boxed(text)
        stated = final_answer.stated(text)
        candidate = text
        if boxed is not None:
            candidate = boxed
        elif stated is not None:
            candidate = stated
        if final_answer.same_words(candidate, answer):
            return True
        return verify(self.parsed_answers[answer], parse(self.as_latex(text, boxed, stated)))

    def as_latex(self, text, boxed, stated):
        """What math-verify is given: it takes the last expression of a text.

        LaTeX without dollars it reads in part or not at all. So a formula that is stated without a
        box, or that the pattern has found, is given to it alone, between dollars.
        """
        if boxed is not None:
            return text
        formula = text if self.pattern else stated
        if formula and final_answer.is_formula(formula):
            return f"${formula.strip('$ ')}$"
        return text


def read_rows(args):
    return shards.own_rows(rows.read(args.responses_file, "verifiable", n=args.n), args)


def check_rows(args):
    """({id: known answer} of this shard's rows, whether the chat template opens the thoughts).

    The rows of all shards are read, so that all shards agree about the template.
    """
    answers = {}
    thoughts_opened = False
    for number, row in enumerate(rows.read(args.responses_file, "verifiable", n=args.n)):
        thoughts_opened = thoughts_opened or thoughts.opened_by_template(row["responses"])
        if number % args.num_shards == args.shard:
            answers[row["id"]] = row["answer"]
    return answers, thoughts_opened


def parse_answers(answers, file):
    """{answer: as math-verify reads it} of those that are not the letter of an option."""
    from math_verify import parse

    parsed_answers = {}
    for row_id, answer in answers.items():
        if answer in parsed_answers or final_answer.option(answer):
            continue
        # Bare LaTeX is read in part, or not at all.
        parsed_answers[answer] = parse(f"${answer}$")
        if not parsed_answers[answer]:
            sys.exit(f"{file}: id {row_id!r}: answer: {answer!r} is not mathematics")
    return parsed_answers


def parse_arguments():
    """(the arguments, the compiled --pattern or None)"""
    parser = arguments.Parser(__doc__)
    parser.add_argument("--responses_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--n",
        type=arguments.whole(0),
        help="responses per row (default: as many as the first row has; 0: any number)",
    )
    parser.add_argument(
        "--method", choices=["math", "exact"], default="math", help="how answers are compared"
    )
    parser.add_argument(
        "--pattern",
        help="regular expression; its group, where it matches last, is the final answer",
    )
    parser.add_argument(
        "--chunk_size", type=arguments.whole(1), default=512, help="rows between two writes to disk"
    )
    args = shards.parse(parser)
    pattern = None
    if args.pattern:
        try:
            pattern = regex.compile(args.pattern)
        except regex.error as error:
            parser.error(f"--pattern: {error}")
    missing = args.method == "exact" and not pattern
    if missing or (pattern and pattern.groups != 1):
        parser.error("--pattern: one group is needed, the final answer")
    return args, pattern


def main():
    args, pattern = parse_arguments()
    # The file is read twice: here to check it all, then in chunks, so that memory does not grow.
    answers, thoughts_opened = check_rows(args)
    total = len(answers)
    parsed_answers = {}
    if args.method == "math":
        parsed_answers = parse_answers(answers, args.responses_file)
    verifier = Verifier(args.method, pattern, thoughts_opened, parsed_answers)

    writer = rows.Writer(args.output_file, rows.this_command([args.output_file]))
    progress = Progress(total, "rows", finished_before=len(writer.done))
    todo = (row for row in read_rows(args) if row["id"] not in writer.done)
    done = len(writer.done)
    while chunk := list(itertools.islice(todo, args.chunk_size)):
        for row in chunk:
            verifier.annotate(row)
        writer.add(chunk)
        done += len(chunk)
        progress.show(done)
    writer.finish()
    print(
        f"{args.output_file} rows in: {total}, finished before: {len(writer.done)}, "
        f"rows out: {total}, "
        f"responses without an answer after their thoughts: {verifier.without_answer}, "
        f"{progress.seconds():.1f} s"
    )


if __name__ == "__main__":
    main()
