"""Reward 1 for a right final answer and 0 for any other: the verifiable signal, for prompts with a known answer.

What a response thinks before </think> is no answer, and a thought that was cut off has none. --method math compares as
mathematics (math-verify: 0.5 is \\frac{1}{2}), and takes the last \\boxed{}, or what follows "the answer is", or the
last expression for the final answer; where "answer" is a letter, such as B or (B), the option that the response
chooses. It never guesses between two. --method exact compares texts, without regard to capitals and outer spaces, and
needs a --pattern. Rows are independent: --shard shares them among processes; a run that was killed goes on where it
was.

Reads:  --responses_file, {"id", "prompt", "responses", "finish_reasons", "answer"} from generation/2_responses.py
Writes: --output_file, the same with "rewards" (1.0 or 0.0 each) and "annotator"

    python annotation/1d_verifier.py --responses_file runs/tiny/iter1/responses.jsonl \\
        --method exact --pattern "answer is ([^.]*)" --output_file runs/tiny/iter1/rewards.jsonl
"""

import itertools
import sys
import time

import regex

import final_answer
from common import arguments, entrances, rows, shards, thoughts

SECONDS = 5  # that a pattern may take on one response: some take longer than a life


def answers_of(args):
    """({id: the known answer} of this share's rows, whether the prompts' template opens the thoughts of all rows)."""
    answers, opened = {}, False
    for number, row in enumerate(rows.read(args.responses_file, "verifiable", n=args.n)):
        opened = opened or thoughts.opened_by_template(row["responses"])
        if number % args.num_shards == args.shard:
            answers[row["id"]] = row["answer"]
    return answers, opened


def parsed_answers(answers, file):
    """{answer: what math-verify reads} of those that are no letter of an option."""
    from math_verify import parse

    found = {}
    for name, answer in answers.items():
        if answer in found or final_answer.option(answer):
            continue
        found[answer] = parse(f"${answer}$")  # bare LaTeX is read in part, or not at all
        if not found[answer]:
            sys.exit(f"{file}: id {name!r}: answer: {answer!r} is not mathematics")
    return found


def is_right(response, answer, parsed):
    """Is the final answer of a response, without its thoughts, the known one? parsed: of parsed_answers."""
    from math_verify import parse, verify

    if letter := final_answer.option(answer):
        return final_answer.chosen_option(response) == letter
    box, stated = entrances.last_boxed(response), final_answer.stated(response)
    said = next(text for text in (box, stated, response) if text is not None)
    if final_answer.same_words(said, answer):
        return True
    if box is None and stated and final_answer.is_formula(stated):
        response = f"${stated.strip('$')}$"
    return verify(parsed[answer], parse(response))


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--responses_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--n",
        type=arguments.whole(0),
        help="responses of every row (default: as the first; 0: any)",
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
    try:
        pattern = regex.compile(args.pattern or "()")
    except regex.error as error:
        parser.error(f"--pattern: {error}")
    if pattern.groups != 1 or (args.method == "exact" and not args.pattern):
        parser.error("--pattern: one group is needed, the final answer")

    answers, opened = answers_of(args)  # a first reading checks all rows
    total = len(answers)

    def answered():  # the second is by chunks, so that memory does not grow with the file
        checked = rows.read(args.responses_file, "verifiable", n=args.n)
        return itertools.islice(checked, args.shard, None, args.num_shards)

    parsed = parsed_answers(answers, args.responses_file) if args.method == "math" else {}
    unfinished = 0  # thoughts

    def right(row, response, finish_reason):
        nonlocal unfinished
        answer = row["answer"]
        said = thoughts.without_thoughts(response, unfinished=opened and finish_reason == "length")
        if response.strip() and not said.strip():
            unfinished += 1
            return False
        response = said
        if args.pattern:
            try:
                found = pattern.findall(response, timeout=SECONDS)
            except TimeoutError:
                rows.refuse(
                    row,
                    f"responses: --pattern takes more than {SECONDS} s on one of them, give a simpler one",
                )
            if not found:
                return False
            response = found[-1]
        if args.method == "exact":
            return response.strip().casefold() == answer.strip().casefold()
        return is_right(response, answer, parsed)

    writer = rows.Writer(args.output_file, rows.this_command([args.output_file]))
    todo = (row for row in answered() if row["id"] not in writer.done)
    start, done = time.time(), len(writer.done)
    while chunk := list(itertools.islice(todo, args.chunk_size)):
        for row in chunk:
            texts = zip(row["responses"], row["finish_reasons"], strict=True)
            row["rewards"] = [float(right(row, text, reason)) for text, reason in texts]
            row["annotator"] = "verifier"
        writer.add(chunk)
        done += len(chunk)
        rate = (done - len(writer.done)) / (time.time() - start)
        told = f"{done} of {total} rows, {rate:.0f}/s, {(total - done) / rate:.0f} s left"
        print(told, end="\r" if sys.stdout.isatty() else "\n", flush=True)
    writer.finish()
    print(
        f"{args.output_file} rows in: {total}, finished before: {len(writer.done)}, "
        f"rows out: {total}, responses without an answer after their thoughts: {unfinished}, "
        f"{time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
