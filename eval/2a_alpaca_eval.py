"""AlpacaEval 2: a judge compares each answer with the reference's (paper 4.1).

Prompt, answer order (random, seeded by the question), parsing and metrics come from the alpaca-eval
package. The judge is any server that speaks OpenAI's protocol; a key is read from OPENAI_API_KEY.

The preference is the probability of the reply's single token, from its log-probabilities. With
--no_logprobs, which a judge that thinks first needs, it is read from the last line of the reply,
after the thoughts. A reply without a verdict and a request that the server refuses are counted,
never guessed: the win rates are those of the judged rows, and the table says how many. Equal
answers are a draw, without a request. Replies are kept as they arrive: after an interruption the
same command resumes, and no request is paid for twice.

The length-controlled win rate is the package's own regression. It needs the 805 official questions
in their order, and df_gamed.csv of the hub dataset tatsu-lab/alpaca_eval; without them it is left
out. That file was fitted on the published judge and reference, whatever yours are. --annotations
needs no judge: it reads published judgements, or those of an earlier run.

Reads:  --model_outputs and --reference_outputs, lists of {"instruction", "output", "generator",
        "dataset"?}: an answer to each of the reference's instructions, in any order; or
        --annotations in the package's format
Writes: --output_dir, alpaca_eval.json, the win rates with judge and date; annotations.json in the
        package's format; replies.jsonl, every reply as the judge gave it; refused.jsonl, refused
        requests with the server's words

    python eval/2a_alpaca_eval.py --model_outputs my_alpaca_eval/answers.json \
        --judge_url http://localhost:8000/v1 --judge_model my_judge --output_dir my_alpaca_eval
"""

import hashlib
import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from statistics import fmean

import alpaca_eval_judge
import judging
import published
from common import arguments, outputs, tables

# SHA-256 of json.dumps of the 805 official instructions.
OFFICIAL = "c5770d532bf3f697768ed9a57a05d8b58b2617321ca65070620f059676e7c99a"
# Outputs, which are no inputs; annotations.json is not here, since --annotations may name it.
FILES = ("alpaca_eval.json", "replies.jsonl", "refused.jsonl")
# Of df_gamed.csv: difficulty and statistics of each question, for the length-controlled rate.
GAMED_COLUMNS = [
    "model",
    "index",
    "instruction_difficulty",
    "preference",
    "std_delta_len",
    "not_gamed_baseline",
]
NO_GAMED = (
    "df_gamed.csv is missing; where the hub can be reached: hf download tatsu-lab/alpaca_eval "
    "df_gamed.csv --repo-type dataset --local-dir . and then --gamed_file df_gamed.csv"
)


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--model_outputs")
    parser.add_argument(
        "--reference_outputs", help="(default: gpt4_1106_preview's, at a pinned commit)"
    )
    parser.add_argument("--annotations", help="existing judgements, in place of a judge")
    parser.add_output("--output_dir", "folder", FILES, type=Path, required=True)
    parser.add_argument("--gamed_file", help="df_gamed.csv (default: from the hub, or its cache)")
    parser.add_argument(
        "--no_logprobs", action="store_true", help="for a judge that gives no log-probabilities"
    )
    judging.add_flags(parser, required=False)
    args = parser.parse_args()
    if bool(args.annotations) == bool(args.model_outputs):
        parser.error("--model_outputs with a judge, or --annotations")
    if args.model_outputs:
        annotations_file = args.output_dir / "annotations.json"
        if Path(args.model_outputs).resolve() == annotations_file.resolve():
            parser.error("--model_outputs: the annotations of this command would overwrite it")
        if not (args.judge_url and args.judge_model):
            parser.error("--model_outputs: --judge_url and --judge_model are needed")
    if args.max_tokens and not args.no_logprobs:
        parser.error("--max_tokens: only with --no_logprobs, else the reply is one token")
    return args


# Reading


def read(source, *fields):
    """{instruction: row} of a list in AlpacaEval's format, with a text in each of the fields.

    A field that names a model or a judge has to name the same one in every row.
    """
    rows = published.read(source, "alpaca_eval")
    first_row = next(iter(rows.values()))
    for number, row in enumerate(rows.values(), 1):
        for field in fields:
            where = f"{source}:{number}: {field}"
            if not isinstance(row.get(field), str):
                sys.exit(f"{where}: not a text")
            is_answer = field.startswith("output")
            if not is_answer and row[field] != first_row[field]:
                sys.exit(f"{where}: {row[field]!r} after {first_row[field]!r}, one is expected")
    return rows


def read_annotations(source):
    """{instruction: annotation} of a file in the package's format."""
    rows = read(source, "output_1", "output_2", "generator_1", "generator_2", "annotator")
    for number, row in enumerate(rows.values(), 1):
        preference = row.get("preference")
        if preference == -1:  # the package's other sign for no verdict
            preference = None
        if not is_preference(preference):
            sys.exit(f"{source}:{number}: preference: {preference!r} is not between 1 and 2")
        if not isinstance(row.get("preference_date"), str | None):
            sys.exit(f"{source}:{number}: preference_date: not a text")
        row["preference"] = preference
    return rows


def is_preference(value):
    """None for no verdict, or 1 (reference) to 2 (model); older files have 0 for a draw."""
    if value is None:
        return True
    return type(value) in (int, float) and (value == 0 or 1 <= value <= 2)


def read_inputs(args):
    """(reference, answers), {instruction: row} each, of the same instructions.

    --annotations takes the place of answers; the reference is then for their order alone.
    """
    if args.annotations:
        source = args.annotations
        answers = read_annotations(source)
        reference_source = args.reference_outputs
    else:
        source = args.model_outputs
        answers = read(source, "output", "generator")
        reference_source = args.reference_outputs or published.PUBLISHED["alpaca_eval"]
    reference = read(reference_source, "output", "generator") if reference_source else answers
    published.answered(reference, answers, source)
    return reference, answers


# Metrics


def length_control(file, instructions):
    """(path of df_gamed.csv, None), or (None, why there is no length-controlled win rate)."""
    digest = hashlib.sha256(json.dumps(instructions).encode()).hexdigest()
    if digest != OFFICIAL:
        count = len(instructions)
        reason = f"needs the 805 official questions in their order, which these {count} are not"
        return None, reason

    from huggingface_hub import hf_hub_download

    if not file:
        try:
            file = hf_hub_download("tatsu-lab/alpaca_eval", "df_gamed.csv", repo_type="dataset")
        except Exception:  # the hub refuses in many ways
            return None, NO_GAMED
    check_gamed(file, len(instructions))
    return file, None


def check_gamed(path, count):
    """The first `count` lines have to be one for each question.

    The package looks for a question's difficulty at the line with the question's number.
    """
    import pandas

    try:
        frame = pandas.read_csv(path, usecols=GAMED_COLUMNS)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        sys.exit(f"{path}: not AlpacaEval's df_gamed.csv ({reason})")
    # Several models have a line for each question; those of the first are read.
    first_lines = frame.drop_duplicates(subset="index")
    if list(first_lines.index) != list(range(count)):
        sys.exit(f"{path}: index: the first {count} lines are not one for each question")


def metrics_of(annotations, gamed_file):
    """The package's metrics; None where it has no number, as for the standard error of one row."""
    import pandas
    from alpaca_eval.metrics import get_winrate, glm_winrate

    # A row without a verdict becomes NaN, which the package leaves out.
    frame = pandas.DataFrame(annotations).astype({"preference": float})
    metrics = get_winrate(frame)
    if gamed_file:
        # The package downloads the file itself; this is the only way to give it one.
        glm_winrate.hf_hub_download = lambda **_: gamed_file
        metrics = glm_winrate.get_length_controlled_winrate(frame, save_weights_dir=None)
    numbers = {}
    for name, value in metrics.items():
        number = int(value) if name.startswith("n_") else float(value)
        numbers[name] = alpaca_eval_judge.null_for_nan(number)
    return numbers


# Results


def summarise(args, annotations, metrics, no_length_control):
    """The content of alpaca_eval.json."""
    first = annotations[0]
    if args.annotations:
        judgement = None
    elif args.no_logprobs:
        judgement = "last line"
    else:
        judgement = "log-probabilities"
    last_date = max(row.get("preference_date") or "" for row in annotations)
    return {
        "model": first["generator_2"],
        "reference": first["generator_1"],
        "judge": first["annotator"],
        "judgement": judgement,
        "date": last_date[:10] or None,  # the day alone
        "rows": len(annotations),
        "judged": count_judged(annotations),
        "length_controlled_winrate": None,
        "lc_standard_error": None,
        **metrics,  # which may hold a length-controlled rate
        "no_length_controlled_winrate": no_length_control,
        "avg_length": mean_length(annotations, "output_2"),
        "reference_avg_length": mean_length(annotations, "output_1"),
    }


def count_judged(annotations):
    return sum(row["preference"] is not None for row in annotations)


def mean_length(annotations, field):
    """Characters of an answer, rounded down as the package does."""
    return int(fmean(len(row[field]) for row in annotations))


def describe_unjudged(judgements):
    """What the last line says of the rows that are not judged."""
    annotations = judgements.annotations
    refused = len(judgements.refused)
    without_verdict = len(annotations) - count_judged(annotations) - refused
    text = f"without verdict: {without_verdict}, requests refused: {refused}"
    examples = judgements.refused + judgements.unparsable
    if examples:
        text += f", such as {examples[0]!r}"
    return text


def table(summary):
    columns = {
        "model": summary["model"],
        "reference": summary["reference"],
        "judge": summary["judge"],
        "date": summary["date"],
        "LC win rate": summary["length_controlled_winrate"],
        "win rate": summary["win_rate"],
        "standard error": summary["standard_error"],
        "characters": summary["avg_length"],
        "reference's": summary["reference_avg_length"],
        "judged": f"{summary['judged']} of {summary['rows']}",
    }
    return tables.markdown(columns.keys(), [map(cell, columns.values())])


def cell(value):
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def silence_package():
    """To be called before its import: it logs each request and each unreadable verdict."""
    logging.disable()
    warnings.simplefilter("ignore")
    os.environ["TQDM_DISABLE"] = "1"


def main():
    args = parse_arguments()
    start = time.time()
    reference, answers = read_inputs(args)
    try:
        args.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"{args.output_dir}: {error.strerror}")
    silence_package()

    gamed_file, no_length_control = length_control(args.gamed_file, list(reference))
    if no_length_control:
        print(f"no length-controlled win rate: {no_length_control}", flush=True)

    if args.annotations:
        in_order = [answers[instruction] for instruction in reference]
        judgements = alpaca_eval_judge.Judgements(in_order)
    else:
        judgements = alpaca_eval_judge.annotated(args, reference, answers)
    annotations = judgements.annotations
    judged = count_judged(annotations)
    unjudged = describe_unjudged(judgements)
    if not judged:
        source = args.annotations or args.model_outputs
        sys.exit(f"{source}: no row is judged; {unjudged}")

    metrics = metrics_of(annotations, gamed_file)
    summary = summarise(args, annotations, metrics, no_length_control)
    if not args.annotations:
        outputs.write_json(args.output_dir / "annotations.json", annotations)
    outputs.write_json(args.output_dir / "alpaca_eval.json", summary)
    print(table(summary))
    seconds = time.time() - start
    counts = f"rows in: {len(annotations)}, judged: {judged}, {unjudged}"
    print(f"{args.output_dir} {counts}, {seconds:.1f} s")


if __name__ == "__main__":
    main()
