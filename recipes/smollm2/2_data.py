"""Draw the data of the SmolLM2 recipe from public files: few and short rows, for two CPU cores.

Reads:  --gsm8k_train and --gsm8k_test, GSM8K's {"question", "answer"}, and --hh_rlhf, HH-RLHF's
        {"chosen", "rejected"}: files (.jsonl, .jsonl.gz) or addresses, by default those of the
        publishers at a pinned commit (6 MB, MIT)
Writes, in --output_dir:
    instructions.jsonl  {"question", "answer"}, without GSM8K's calculator annotations (<<6*7=42>>)
    prompts.jsonl       {"id", "prompt", "source", "answer"}: questions disjoint from the
                        instructions', with the final number
    evaluation.jsonl    the same with "split", "validation" or "test", of GSM8K's test set
    preferences.jsonl   {"chosen", "rejected"}, transcripts
    bench.jsonl         {"id", "prompt", "chosen", "rejected", "section", "subset"}: pairs disjoint
                        from the preferences

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
CALCULATION = re.compile("<<[^>]*>>")  # GSM8K's calculator annotation, one per step
TURN = re.compile(r"\n\n(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}


def parse_arguments():
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
    return parser.parse_args()


# Reading


def read(source, flag, fields):
    """The rows of a JSONL file or address, {field: text}; exit at anything else."""
    texts = []
    for number, line in enumerate(content(source, flag).splitlines(), 1):
        try:
            row = rows.parse(line)
        except ValueError as error:
            sys.exit(f"{source}:{number}: {error}")
        for field in fields:
            if not isinstance(row, dict) or not isinstance(row.get(field), str):
                sys.exit(f"{source}:{number}: {field}: not a text")
        texts.append({field: row[field] for field in fields})
    return texts


def content(source, flag):
    """The bytes of a file or address, unzipped where its name ends with .gz."""
    try:
        if source.startswith(("https://", "http://")):
            with urllib.request.urlopen(source, timeout=60) as response:
                data = response.read()
        else:
            data = Path(source).read_bytes()
        return gzip.decompress(data) if source.endswith(".gz") else data
    except (OSError, EOFError, zlib.error, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        sys.exit(f"{source}: cannot be read ({reason}); give a copy of it as {flag}")


# Choosing


def short_questions(gsm8k, max_calculations, max_characters):
    """GSM8K's rows that are short enough: {"question", "solution", "number"}.

    The solution has no calculator annotations; the number is what follows "####", without commas.
    """
    questions = []
    for row in gsm8k:
        steps = len(CALCULATION.findall(row["answer"]))
        if "####" not in row["answer"] or not 1 <= steps <= max_calculations:
            continue
        solution = CALCULATION.sub("", row["answer"])
        if len(row["question"]) + len(solution) > max_characters:
            continue
        number = row["answer"].rpartition("####")[2].strip().replace(",", "")
        questions.append({"question": row["question"], "solution": solution, "number": number})
    return questions


def transcript(text):
    """The messages of a transcript "\\n\\nHuman: ...\\n\\nAssistant: ..."."""
    # What stands before the first speaker, then speaker, text, speaker, text, ...
    _, *parts = TURN.split(text)
    messages = []
    for speaker, turn in zip(parts[::2], parts[1::2], strict=True):
        messages.append({"role": ROLES[speaker], "content": turn.strip()})
    return messages


def short_pairs(hh_rlhf, max_characters):
    """HH-RLHF's rows that are short enough and comparable, one for each opening."""
    pairs = []
    openings = set()
    for row in hh_rlhf:
        chosen = transcript(row["chosen"])
        rejected = transcript(row["rejected"])
        if not comparable(chosen, rejected):
            continue
        if max(len(row["chosen"]), len(row["rejected"])) > max_characters:
            continue
        opening = chosen[0]["content"].lower()
        if opening not in openings:
            openings.add(opening)
            pairs.append(row)
    return pairs


def comparable(chosen, rejected):
    """Whether two lists of messages differ in the last answer and in nothing else."""
    if len(chosen) < 2 or chosen[:-1] != rejected[:-1] or chosen[-1] == rejected[-1]:
        return False
    if not all(turn["content"] for turn in [*chosen, rejected[-1]]):
        return False
    return chosen[-1]["role"] == "assistant" and rejected[-1]["role"] == "assistant"


def draw(rng, candidates, size, what):
    if len(candidates) < size:
        sys.exit(f"{what}: {size} asked for, {len(candidates)} are short enough")
    return rng.sample(candidates, size)


# Writing


def instruction_rows(questions):
    return [{"question": row["question"], "answer": row["solution"]} for row in questions]


def prompt_rows(questions, name):
    """name: the first part of each id."""
    prompts = []
    for number, row in enumerate(questions, 1):
        prompt = {
            "id": f"{name}-{number}",
            "prompt": [{"role": "user", "content": row["question"]}],
            "source": "GSM8K",
            "answer": row["number"],
        }
        prompts.append(prompt)
    return prompts


def evaluation_rows(questions, validation):
    """Rows of prompts; the first `validation` of them are the validation split."""
    evaluation = prompt_rows(questions, "test")
    for i, row in enumerate(evaluation):
        row["split"] = "validation" if i < validation else "test"
    return evaluation


def bench_rows(pairs):
    bench = []
    for number, row in enumerate(pairs, 1):
        *prompt, chosen = transcript(row["chosen"])
        rejected = transcript(row["rejected"])[-1]
        pair = {
            "id": f"hh-{number}",
            "prompt": prompt,
            "chosen": [chosen],
            "rejected": [rejected],
            "section": "Harmless",
            "subset": "harmless-base",
        }
        bench.append(pair)
    return bench


def main():
    args = parse_arguments()
    start = time.time()
    rng = random.Random(args.seed)
    gsm8k_train = read(args.gsm8k_train, "--gsm8k_train", ["question", "answer"])
    gsm8k_test = read(args.gsm8k_test, "--gsm8k_test", ["question", "answer"])
    hh_rlhf = read(args.hh_rlhf, "--hh_rlhf", ["chosen", "rejected"])
    train = short_questions(gsm8k_train, args.max_calculations, args.max_characters)
    test = short_questions(gsm8k_test, args.max_calculations, args.max_characters)
    pairs = short_pairs(hh_rlhf, args.max_characters)

    # Drawn once per source and then sliced, so that no two files share a row. The order of the
    # draws decides what a seed gives.
    train_size = args.instructions + args.prompts
    train_questions = draw(rng, train, train_size, "--instructions and --prompts")
    test_size = args.validation + args.test
    test_questions = draw(rng, test, test_size, "--validation and --test")
    pairs_size = args.preferences + args.bench
    drawn_pairs = draw(rng, pairs, pairs_size, "--preferences and --bench")

    files = {
        "instructions": instruction_rows(train_questions[: args.instructions]),
        "prompts": prompt_rows(train_questions[args.instructions :], "train"),
        "evaluation": evaluation_rows(test_questions, args.validation),
        "preferences": drawn_pairs[: args.preferences],
        "bench": bench_rows(drawn_pairs[args.preferences :]),
    }
    for name, file_rows in files.items():
        rows.write(Path(args.output_dir, f"{name}.jsonl"), file_rows)

    rows_in = len(gsm8k_train) + len(gsm8k_test) + len(hh_rlhf)
    fitting = len(train) + len(test) + len(pairs)
    rows_out = sum(map(len, files.values()))
    sizes = ", ".join(f"{name} {len(file_rows)}" for name, file_rows in files.items())
    print(
        f"{args.output_dir} rows in: {rows_in}, "
        f"dropped, too long or not to be compared: {rows_in - fitting}, "
        f"not drawn: {fitting - rows_out}, "
        f"rows out: {rows_out} ({sizes}), {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
