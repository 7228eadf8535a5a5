"""Reward responses by verifiers: programs that check an answer, each from 0 to 1.

A row's "verifier" says which: a name, or a list of {"name", "weight"?, "arguments"?}. The reward is
the weighted mean of their scores (weights are 1 by default). The names, each with a file in
annotation/verifiers/ that says its arguments:

    exact         the answer, without regard to case and surrounding whitespace
    math          the final answer, as mathematics: 0.5 equals \\frac{1}{2}; or an option's letter
    regex         a regular expression matches
    json_schema   JSON that fits a schema
    ifeval        IFEval's instructions, by lm-eval
    unit_tests    a program that passes tests, in a sandbox; only with --run_generated_code
    language      the language of all of it
    length        words or characters
    NAME          one's own, by --verifier NAME=FILE.py (docs/your_own_idea.md)

Rows without "verifier" are compared by --method: math, or exact, which needs a --pattern. With a
--pattern only what its group matches last in a response is compared.

Of a response of several turns the last one counts. Its thoughts, up to </think>, are not part of
its answer; a response that was truncated inside its thoughts has none, and gets 0. A pattern or a
schema that takes more than 5 s on a response gives 0, too; such scores are counted. All rows are
checked before the first response is scored. Rows are independent: --shard splits them among
processes, and a killed run resumes.

Reads:  --responses_file, {"id", "prompt", "responses", "finish_reasons", "answer"?, "verifier"?}
        from generation/2_responses.py
Writes: --output_file, the same with "rewards" (0 to 1 each) and "annotator"; where a row has
        several verifiers, "objectives": [{name: score} for each response]

    python annotation/1d_verifier.py --responses_file runs/tiny/iter1/responses.jsonl \\
        --method exact --pattern "answer is ([^.]*)" --output_file runs/tiny/iter1/rewards.jsonl
"""

import itertools
import sys

import named_verifiers
import verifier_arguments
from common import arguments, rows, shards, thoughts, trajectories
from common.progress import Progress


class Annotator:
    """Rewards rows by the verifiers that they name.

    thoughts_opened: the chat template writes <think>, so that responses hold </think> alone.
    """

    def __init__(self, verifiers, thoughts_opened):
        self.verifiers = verifiers
        self.thoughts_opened = thoughts_opened
        self.without_answer = 0  # responses that have nothing after their thoughts

    def annotate(self, row):
        """Add "rewards" and "annotator" to a row, and "objectives" of several verifiers."""
        answers = self.answers(row)
        scored = [index for index, answer in enumerate(answers) if answer.strip()]
        row["rewards"] = [0.0] * len(answers)
        row["annotator"] = "verifier"
        names = [verifier.label for verifier in self.verifiers.of_row(row)]
        objectives = [dict.fromkeys(names, 0.0) for _ in answers]
        if scored:
            scores = self.verifiers.scores(row, [answers[index] for index in scored])
            for position, index in enumerate(scored):
                for name in names:
                    objectives[index][name] = scores[name][position]
                row["rewards"][index] = self.verifiers.mean(row, objectives[index].values())
        if len(names) > 1:
            row["objectives"] = objectives

    def answers(self, row):
        """The responses of a row without their thoughts; of several turns the last one."""
        answers = []
        for response, finish_reason in zip(row["responses"], row["finish_reasons"], strict=True):
            cut_off = finish_reason == "length"
            unfinished = self.thoughts_opened and cut_off
            text = trajectories.last_turn(response)
            answer = thoughts.without_thoughts(text, unfinished=unfinished)
            if text.strip() and not answer.strip():
                self.without_answer += 1
            answers.append(answer)
        return answers


def read_rows(args):
    return shards.own_rows(rows.read(args.responses_file, "verifiable", n=args.n), args)


def check_rows(args, verifiers):
    """(number of this shard's rows, whether the chat template opens the thoughts).

    The rows of all shards are read, so that all shards agree about the template.
    """
    total = 0
    thoughts_opened = False
    for number, row in enumerate(rows.read(args.responses_file, "verifiable", n=args.n)):
        texts = map(trajectories.last_turn, row["responses"])
        thoughts_opened = thoughts_opened or thoughts.opened_by_template(texts)
        if number % args.num_shards == args.shard:
            verifiers.check(row)
            total += 1
    return total, thoughts_opened


def load_verifiers(args):
    """The Verifiers of the flags; a file of the user's that cannot be used ends the program."""
    try:
        own = named_verifiers.load(args.verifier)
    except ValueError as error:
        sys.exit(f"--verifier: {error}")
    if args.run_generated_code:
        from common import sandbox

        if reason := sandbox.unusable():
            sys.exit(f"--run_generated_code: {reason}")
    default = {"name": args.method}
    if args.pattern:
        default["arguments"] = {"pattern": args.pattern}
    return named_verifiers.Verifiers(own, [default], args.run_generated_code)


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--responses_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--n",
        type=arguments.whole(0),
        help="responses per row (default: as many as the first row has; 0: any number)",
    )
    parser.add_argument(
        "--method",
        choices=["math", "exact"],
        default="math",
        help="how answers are compared in rows without a verifier",
    )
    parser.add_argument(
        "--pattern",
        help="regular expression; its group, where it matches last, is the final answer",
    )
    parser.add_argument(
        "--verifier",
        action="append",
        default=[],
        metavar="NAME=FILE.py",
        help="a verifier of one's own, which rows may name; may be repeated",
    )
    parser.add_argument(
        "--run_generated_code", action="store_true", help="run the model's programs, in a sandbox"
    )
    parser.add_argument(
        "--chunk_size", type=arguments.whole(1), default=512, help="rows between two writes to disk"
    )
    args = shards.parse(parser)
    if args.method == "exact" and not args.pattern:
        parser.error("--pattern: one group is needed, the final answer")
    if args.pattern:
        try:
            verifier_arguments.check_answer_pattern({"pattern": args.pattern})
        except ValueError as error:
            parser.error(f"--{str(error).removeprefix('arguments: ')}")
    return args


def main():
    args = parse_arguments()
    verifiers = load_verifiers(args)
    # The file is read twice: here to check it all, then in chunks, so that memory does not grow.
    total, thoughts_opened = check_rows(args, verifiers)
    annotator = Annotator(verifiers, thoughts_opened)

    writer = rows.Writer(args.output_file, rows.this_command([args.output_file]))
    progress = Progress(total, "rows", finished_before=len(writer.done))
    todo = (row for row in read_rows(args) if row["id"] not in writer.done)
    done = len(writer.done)
    while chunk := list(itertools.islice(todo, args.chunk_size)):
        for row in chunk:
            annotator.annotate(row)
        writer.add(chunk)
        done += len(chunk)
        progress.show(done)
    writer.finish()
    print(
        f"{args.output_file} rows in: {total}, finished before: {len(writer.done)}, "
        f"rows out: {total}, "
        f"responses without an answer after their thoughts: {annotator.without_answer}, "
        f"scores of 0 after {verifier_arguments.PATTERN_TIMEOUT} s: {verifiers.too_slow}, "
        f"{progress.seconds():.1f} s"
    )


if __name__ == "__main__":
    main()
