"""Draw the data of the SmolLM2 recipe from public files: few and short rows, for two CPU cores.

Reads:  --gsm8k_train and --gsm8k_test, GSM8K's {"question", "answer"}, and --hh_rlhf, HH-RLHF's
        {"chosen", "rejected"}: files (.jsonl, .jsonl.gz) or addresses, by default those of the
        publishers at a pinned commit (6 MB, MIT)
Writes, in --output_dir:
    instructions.jsonl  {"question", "answer"}, without GSM8K's calculator annotations (<<6*7=42>>)
    prompts.jsonl       {"id", "prompt", "source", "answer"}: other questions, with the final number
    evaluation.jsonl    the same with "split", "validation" or "test", of GSM8K's test set
    preferences.jsonl   {"chosen", "rejected"}, transcripts
    bench.jsonl         {"id", "prompt", "chosen", "rejected", "section", "subset"}: other pairs

Left out and counted: questions of more than --max_calculations, rows of more than --max_characters,
pairs that differ in more than the last answer or repeat an opening.

    python recipes/smollm2/2_data.py --output_dir runs/smollm2_start/data
"""

import gzip
import http.client
import random
import re
import sys
import time
import urllib.request
import zlib
from pathlib import Path

from common import arguments, rows

FILES = [f"{name}.jsonl" for name in "instructions prompts evaluation preferences bench".split()]
GITHUB = "https://raw.githubusercontent.com"
GSM8K_COMMIT = "3101c7d5072418e28b9008a6636bde82a006892c"
GSM8K = f"{GITHUB}/openai/grade-school-math/{GSM8K_COMMIT}/grade_school_math/data"
HH_COMMIT = "354e5c3cb8960630860dd5774a6ac2a58313bf4d"
HH_RLHF = f"{GITHUB}/anthropics/hh-rlhf/{HH_COMMIT}/harmless-base/test.jsonl.gz"
CALCULATION = re.compile("<<[^>]*>>")  # GSM8K's calculator annotation, one a step of the solution
TURN = re.compile(r"\n\n(Human|Assistant):")


# Reading


def read(source, flag, fields):
    """The rows of a JSONL file or address, {field: text}; anything else ends the program."""
    lines = content(source, flag).splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            row = rows.parse(line)
        except ValueError as error:
            sys.exit(f"{source}:{number}: {error}")
        for field in fields:
            if not isinstance(row, dict) or not isinstance(row.get(field), str):
                sys.exit(f"{source}:{number}: {field}: not a text")
        found.append({field: row[field] for field in fields})
    return found


def content(source, flag):
    """The bytes of a file or address, unzipped where its name ends with .gz."""
    try:
        if source.startswith(("https://", "http://")):
            with urllib.request.urlopen(source, timeout=60) as answer:
                data = answer.read()
        else:
            data = Path(source).read_bytes()
        return gzip.decompress(data) if source.endswith(".gz") else data
    except (OSError, EOFError, zlib.error, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        sys.exit(f"{source}: cannot be read ({reason}); give a copy of it as {flag}")


# Choosing


def questions(rows_read, max_calculations, max_characters):
    """GSM8K's rows that are short enough: {"question", "solution", "number"}.

    The solution has no calculator annotations; the number is what follows "####", without commas.
    """
    chosen = []
    for row in rows_read:
        solution = CALCULATION.sub("", row["answer"])
        steps = len(CALCULATION.findall(row["answer"]))
        number = row["answer"].rpartition("####")[2].strip().replace(",", "")
        short = "####" in row["answer"] and len(row["question"] + solution) <= max_characters
        if short and 1 <= steps <= max_calculations:
            chosen.append({"question": row["question"], "solution": solution, "number": number})
    return chosen


def transcript(text):
    """The messages of a transcript "\\n\\nHuman: ...\\n\\nAssistant: ..."."""
    _, *parts = TURN.split(text)  # who, what, who, what, ...
    roles = {"Human": "user", "Assistant": "assistant"}
    messages = []
    for who, said in zip(parts[::2], parts[1::2], strict=True):
        messages.append({"role": roles[who], "content": said.strip()})
    return messages


def pairs(rows_read, max_characters):
    """HH-RLHF's rows that are short enough and differ in the last answer only, one an opening."""
    chosen, openings = [], set()
    for row in rows_read:
        better, worse = transcript(row["chosen"]), transcript(row["rejected"])
        if len(better) < 2 or better[:-1] != worse[:-1] or better[-1] == worse[-1]:
            continue
        if not all(turn["content"] for turn in [*better, worse[-1]]):
            continue
        if not better[-1]["role"] == worse[-1]["role"] == "assistant":
            continue
        opening = better[0]["content"].lower()
        too_long = max(len(row["chosen"]), len(row["rejected"])) > max_characters
        if not too_long and opening not in openings:
            openings.add(opening)
            chosen.append(row)
    return chosen


def draw(rng, candidates, size, what):
    if len(candidates) < size:
        sys.exit(f"{what}: {size} asked for, {len(candidates)} are short enough")
    return rng.sample(candidates, size)


# Writing


def prompt_rows(chosen, name, splits=None):
    made = []
    for number, row in enumerate(chosen, 1):
        prompt = [{"role": "user", "content": row["question"]}]
        made.append({"id": f"{name}-{number}", "prompt": prompt, "source": "GSM8K"})
        made[-1]["answer"] = row["number"]
        if splits:
            made[-1]["split"] = splits[number - 1]
    return made


def bench_rows(chosen):
    made = []
    for number, row in enumerate(chosen, 1):
        *prompt, better = transcript(row["chosen"])
        sides = {"chosen": [better], "rejected": transcript(row["rejected"])[-1:]}
        named = {"section": "Harmless", "subset": "harmless-base"}
        made.append({"id": f"hh-{number}", "prompt": prompt, **sides, **named})
    return made


def main():
    parser = arguments.Parser(__doc__)
    parser.add_output("--output_dir", "folder", FILES, required=True)
    parser.add_argument("--gsm8k_train", default=f"{GSM8K}/train.jsonl", help="(default: OpenAI's)")
    parser.add_argument("--gsm8k_test", default=f"{GSM8K}/test.jsonl", help="(default: OpenAI's)")
    parser.add_argument("--hh_rlhf", default=HH_RLHF, help="(default: harmless-base's test set)")
    parser.add_argument("--instructions", type=arguments.whole(1), default=500)
    parser.add_argument("--preferences", type=arguments.whole(1), default=120)
    parser.add_argument("--prompts", type=arguments.whole(1), default=40)
    parser.add_argument("--validation", type=arguments.whole(1), default=16)
    parser.add_argument("--test", type=arguments.whole(1), default=24)
    parser.add_argument("--bench", type=arguments.whole(1), default=40)
    parser.add_argument("--max_calculations", type=arguments.whole(1), default=2)
    parser.add_argument("--max_characters", type=arguments.whole(1), default=300)
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    args = parser.parse_args()
    start, rng = time.time(), random.Random(args.seed)

    read_train = read(args.gsm8k_train, "--gsm8k_train", ["question", "answer"])
    read_test = read(args.gsm8k_test, "--gsm8k_test", ["question", "answer"])
    read_pairs = read(args.hh_rlhf, "--hh_rlhf", ["chosen", "rejected"])
    train = questions(read_train, args.max_calculations, args.max_characters)
    test = questions(read_test, args.max_calculations, args.max_characters)
    compared = pairs(read_pairs, args.max_characters)

    solved_and_asked = args.instructions + args.prompts
    drawn = draw(rng, train, solved_and_asked, "--instructions and --prompts")
    solved, asked = drawn[: args.instructions], drawn[args.instructions :]
    evaluated = draw(rng, test, args.validation + args.test, "--validation and --test")
    judged = draw(rng, compared, args.preferences + args.bench, "--preferences and --bench")
    instructions = [{"question": row["question"], "answer": row["solution"]} for row in solved]
    splits = ["validation"] * args.validation + ["test"] * args.test
    written = {
        "instructions": instructions,
        "prompts": prompt_rows(asked, "train"),
        "evaluation": prompt_rows(evaluated, "test", splits),
        "preferences": judged[: args.preferences],
        "bench": bench_rows(judged[args.preferences :]),
    }
    for name, of_file in written.items():
        rows.write(Path(args.output_dir, f"{name}.jsonl"), of_file)
    total = len(read_train) + len(read_test) + len(read_pairs)
    fitting = len(train) + len(test) + len(compared)
    rows_out = sum(map(len, written.values()))
    sizes = ", ".join(f"{name} {len(of_file)}" for name, of_file in written.items())
    print(
        f"{args.output_dir} rows in: {total}, "
        f"dropped, too long or not to be compared: {total - fitting}, "
        f"not drawn: {fitting - rows_out}, "
        f"rows out: {rows_out} ({sizes}), {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
