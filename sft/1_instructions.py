"""Turn instruction data into the rows of supervised fine-tuning: convert, clean, deduplicate (3.1).

Reads:  --datasets, any of
            paper                   the paper's nine sets, from the hub
            names of hub datasets   NAME, or NAME:FILE in it
            files                   .jsonl, .json (gzipped or not), .parquet
        with rows in one of these forms; a row of several forms is read as the first of them,
        whatever its other keys
            {"messages": [{"role", "content"}...]}
            {"conversations": [{"from": "human" or "gpt" or "system", "value"}...]}
                    ShareGPT, Evol-Instruct, SlimOrca; what comes before the first question or after
                    the last answer is removed
            {"conversation": [{"input", "output"}...]}
                    Capybara
            {"instruction", "input"?, "output" or "response"}
                    MathInstruct, GPT4-LLM, Magicoder-Evol-Instruct, GPTeacher, UltraInteract
            {"question", "answer" or "response"}
                    OrcaMath, OpenOrca
            {"problem", "solution"}
                    MATH
            {"prompt": text or messages, "completion": text or messages}
                    TRL
        "system" or "system_prompt", unless blank, becomes the system turn of the conversation.
        "input" follows the instruction after an empty line.
Writes: --output_file, {"id", "messages", "source"}; other keys pass through
        a table of counts by dataset beside it, with the suffix .md

Only role and content of a message are kept, and turns of a tool with their names, as trajectories
in "messages" have them (common/trajectories.py). Dropped and counted: conversations with an empty
turn, with roles out of order or no answer at the end, with tool calls or with content that is not
text, and exact duplicates. data/1_clean.py drops more. Of a row only a digest is held in memory.

    python sft/1_instructions.py --datasets runs/tiny/world/instructions.jsonl \
        --output_file runs/tiny/instructions.jsonl
"""

import sys
import time
from collections import Counter

from common import arguments, duplicates, entrances, outputs, rows, tables

SHAREGPT_FILE = "ShareGPT_V3_unfiltered_cleaned_split_no_imsorry.json"
# Paper B.3; the names are those of RLHFlow's own mixture.
PAPER = [
    f"anon8231489123/ShareGPT_Vicuna_unfiltered:{SHAREGPT_FILE}",
    "WizardLMTeam/WizardLM_evol_instruct_V2_196k",
    "Open-Orca/SlimOrca",
    "TIGER-Lab/MathInstruct",
    "ise-uiuc/Magicoder-Evol-Instruct-110K",
    "teknium/GPT4-LLM-Cleaned",
    "microsoft/orca-math-word-problems-200k",
    "teknium/GPTeacher-General-Instruct",
    "openbmb/UltraInteract_sft",
]
# The first line of our table: a file that begins otherwise is not overwritten.
TABLE_HEAD = "| dataset | rows in |"
# Fields of a question and its answer.
QUESTION_AND_ANSWER = [
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("problem", "solution"),
    ("prompt", "completion"),
]
FORMS = ["messages", *entrances.CONVERSATIONS, *map("/".join, QUESTION_AND_ANSWER)]
ROWS_BETWEEN_PROGRESS = 100_000


# Rows of any form as conversations


def conversation(row):
    """(messages, the fields that they are made of) of a row in any of the forms above."""
    if row.get("messages") is not None:
        turns = entrances.messages(row["messages"], "messages", with_tools=True)
        return turns, ["messages"]
    if field := entrances.field_of(row, entrances.CONVERSATIONS):
        turns = entrances.from_first_question(entrances.messages(row[field], field))
        return entrances.up_to_last(turns, "assistant"), [field]
    question_field, answer_field = question_and_answer_fields(row)
    turns = question(row, question_field) + answer(row[answer_field], answer_field)
    # "input" is a part of an instruction only, but passes through with none of these forms.
    return turns, [*entrances.used_with(question_field), answer_field, "input"]


def question_and_answer_fields(row):
    """The first pair of fields that a row has; one with a null counts only if there is no other."""
    first_with_null = None
    for fields in QUESTION_AND_ANSWER:
        question_field, answer_field = fields
        if question_field in row and answer_field in row:
            if row[question_field] is not None and row[answer_field] is not None:
                return fields
            first_with_null = first_with_null or fields
    if first_with_null is None:
        raise ValueError(f"messages: none of {', '.join(FORMS)} (its fields: {', '.join(row)})")
    return first_with_null


def question(row, field):
    """The messages of a question. Null is an empty turn, whose row is dropped and counted."""
    if row[field] is None:
        return [entrances.message("user", "", field)]
    if isinstance(row[field], list):
        return entrances.messages(row[field], field)
    return entrances.asked(row, field)


def answer(value, field):
    """The messages of an answer: null (as in a question), a text, a number, a turn or turns."""
    if value is None:
        return [entrances.message("assistant", "", field)]
    if isinstance(value, list):
        return entrances.messages(value, field)
    if isinstance(value, dict):
        return entrances.messages([value], field)
    return [entrances.message("assistant", entrances.text_or_number(value, field), field)]


def convert_row(row, dataset):
    """(the row in this project's format, why it is dropped or None).

    A row of no known form ends the program, and so does one with a turn of no known form.
    """
    try:
        row_id = entrances.name_of(row)
        messages, used_fields = conversation(row)
        messages = entrances.with_system(messages, row)
        other_fields = entrances.rest_of(row, used_fields)
    except entrances.Dropped as reason:
        return None, str(reason)
    except ValueError as error:
        rows.refuse(row, error)
    instruction = {"id": row_id, "source": dataset, **other_fields, "messages": messages}
    # Any id will do here: a row without one gets it when it is kept.
    problem = rows.problem(instruction | {"id": "-"}, "instructions")
    if problem is None:
        return instruction, None
    # Without the details in brackets, so that the counts of a table are few.
    return instruction, problem.split(" (")[0].removeprefix("messages: ")


def instructions(args, counts, start):
    """Yield the remaining rows of all datasets.

    counts: {dataset: Counter of rows by what became of them}, counted here.
    """
    number = 0
    digests = set()
    ids = set()
    for dataset, outcomes in counts.items():
        for row in rows.load(dataset, args.split):
            number += 1
            if number % ROWS_BETWEEN_PROGRESS == 0:
                print(f"{number} rows, {number / (time.time() - start):.0f}/s", flush=True)
            instruction, reason = convert_row(row, dataset)
            if reason:
                outcomes[reason] += 1
                continue
            digest = duplicates.digest(instruction["messages"])
            if digest in digests:
                outcomes["duplicate"] += 1
                continue
            row_id = instruction["id"]
            if row_id is None or row_id in ids:
                instruction["id"] = entrances.numbered_name(row_id, dataset, number)
            outcomes["out"] += 1
            digests.add(digest)
            ids.add(instruction["id"])
            yield instruction


def table(counts):
    """The counts of `instructions` in Markdown."""
    return tables.outcomes(counts, "dataset", "out", "rows out")


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--datasets", nargs="+", required=True, help="files, hub names, paper")
    parser.add_argument("--split", default="train", help="split of a hub dataset")
    parser.add_output("--output_file", suffixes=[".md"], required=True)
    args = parser.parse_args()
    start = time.time()
    counts = {}
    for name in args.datasets:
        for dataset in PAPER if name == "paper" else [name]:
            counts[dataset] = Counter()

    table_file = outputs.table_beside(args.output_file, TABLE_HEAD)
    writer = rows.Writer(args.output_file)
    try:
        writer.add(instructions(args, counts, start))
        total = sum(counts.values(), Counter())
        if not total["out"]:
            sys.exit(f"{args.output_file}: no row is left\n{table(counts)}".replace("\n", " "))
    except SystemExit:
        # The rows are written while they are read: an error leaves some of them behind.
        writer.partial.unlink()
        raise
    writer.finish()
    outputs.write_text(table_file, table(counts))
    print(
        f"{table(counts)}{args.output_file} rows in: {total.total()}, "
        f"dropped: {total.total() - total['out']}, rows out: {total['out']}, "
        f"{time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
