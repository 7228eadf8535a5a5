"""Reward 1 for a right final answer and 0 for any other: the verifiable signal, for prompts with a known answer.

--method math compares as mathematics (math-verify: 0.5 is \\frac{1}{2}), and takes the last \\boxed{} or else the last
expression for the final answer. --method exact compares texts, without regard to capitals and outer spaces, and needs a
--pattern. Rows are independent: --shard shares them among processes; a run that was killed goes on where it was.

Reads:  --responses_file, {"id", "prompt", "responses", "finish_reasons", "answer"} from generation/2_responses.py
Writes: --output_file, the same with "rewards" (1.0 or 0.0 each) and "annotator"

    python annotation/1d_verifier.py --responses_file runs/tiny/iter1/responses.jsonl \\
        --method exact --pattern "answer is ([^.]*)" --output_file runs/tiny/iter1/rewards.jsonl
"""

import itertools
import sys
import time

import regex

import rows
import shards
from common import arguments

SECONDS = 5  # that a pattern may take on one response: some take longer than a life


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--responses_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument("--n", type=arguments.whole(0), help="responses of every row (default: as the first; 0: any)")
    parser.add_argument("--method", choices=["math", "exact"], default="math", help="how answers are compared")
    parser.add_argument("--pattern", help="regular expression; its group, where it matches last, is the final answer")
    parser.add_argument("--chunk_size", type=arguments.whole(1), default=512, help="rows between two writes to disk")
    args = shards.parse(parser)
    try:
        pattern = regex.compile(args.pattern or "()")
    except regex.error as error:
        parser.error(f"--pattern: {error}")
    if pattern.groups != 1 or (args.method == "exact" and not args.pattern):
        parser.error("--pattern: one group is needed, the final answer")

    def answered():  # read twice: first to check all of it, then by chunks, so that memory does not grow with the file
        checked = rows.read(args.responses_file, "verifiable", n=args.n)
        return itertools.islice(checked, args.shard, None, args.num_shards)

    answers = {row["id"]: row["answer"] for row in answered()}
    total = len(answers)

    from math_verify import parse, verify

    known = {}
    if args.method == "math":
        for name, answer in answers.items():
            known[answer] = known.get(answer) or parse(f"${answer}$")  # bare LaTeX is read in part, or not at all
            if not known[answer]:
                sys.exit(f"{args.responses_file}: id {name!r}: answer: {answer!r} is not mathematics")

    def right(row, response):
        answer = row["answer"]
        if args.pattern:
            try:
                found = pattern.findall(response, timeout=SECONDS)
            except TimeoutError:
                rows.refuse(row, f"responses: --pattern takes more than {SECONDS} s on one of them, give a simpler one")
            if not found:
                return False
            response = found[-1]
        if args.method == "exact":
            return response.strip().casefold() == answer.strip().casefold()
        return verify(known[answer], parse(response))

    writer = rows.Writer(args.output_file, rows.this_command([args.output_file]))
    todo = (row for row in answered() if row["id"] not in writer.done)
    start, done = time.time(), len(writer.done)
    while chunk := list(itertools.islice(todo, args.chunk_size)):
        writer.add(
            {**row, "rewards": [float(right(row, text)) for text in row["responses"]], "annotator": "verifier"}
            for row in chunk
        )
        done += len(chunk)
        rate = (done - len(writer.done)) / (time.time() - start)
        told = f"{done} of {total} rows, {rate:.0f}/s, {(total - done) / rate:.0f} s left"
        print(told, end="\r" if sys.stdout.isatty() else "\n", flush=True)
    writer.finish()
    print(
        f"{args.output_file} rows in: {total}, finished before: {len(writer.done)}, "
        f"rows out: {total}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
