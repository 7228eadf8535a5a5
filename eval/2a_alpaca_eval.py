"""AlpacaEval 2: a judge compares each answer with the reference's (paper 4.1), through the alpaca-eval package.

The package's are the prompt, the order in which the two answers are shown (it follows from the question), the reading
of the verdict and the metrics. The judge is any server that speaks OpenAI's protocol; a key is read from
OPENAI_API_KEY. A verdict is weighed by the log-probabilities of its one token; with --no_logprobs it is the last line
of the reply, after the judge's thoughts. A judge that thinks needs --no_logprobs: the first token of the others is
their verdict. A reply without verdict, and a request that the server refuses, are counted and never guessed: the rates
are then those of the rows that were judged, and the table says how many. Equal answers are a draw, the judge is not
asked. Replies are kept as they arrive: whatever stopped the run, the same command goes on and asks nothing twice.

The length-controlled win rate is the package's own fit. It needs the 805 official questions in their order, and
df_gamed.csv of the hub dataset tatsu-lab/alpaca_eval; without them it is left out. That file comes from the published
judge and reference, whatever yours are. --annotations asks no judge: it reads judgements that were published, or those
of an earlier run.

Reads:  --model_outputs and --reference_outputs, lists of {"instruction", "output", "generator", "dataset"?}: an answer
        to each of the reference's instructions, in any order; or --annotations in the package's format
Writes: --output_dir, alpaca_eval.json, the rates with judge and date; annotations.json in the package's format;
        replies.jsonl, every reply as the judge gave it; refused.jsonl, what it refused, and its words

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
from common import arguments, outputs

OFFICIAL = "c5770d532bf3f697768ed9a57a05d8b58b2617321ca65070620f059676e7c99a"  # digest of the 805 instructions
FILES = ("alpaca_eval.json", "replies.jsonl", "refused.jsonl")
GAMED = [
    "model",
    "index",
    "instruction_difficulty",
    "preference",
    "std_delta_len",
    "not_gamed_baseline",
]
NO_GAMED = (
    "df_gamed.csv is missing; where the hub can be reached: hf download tatsu-lab/alpaca_eval df_gamed.csv "
    "--repo-type dataset --local-dir . and then --gamed_file df_gamed.csv"
)


def read(source, *fields):
    """{instruction: row} of a list in AlpacaEval's format, with texts in those fields and one model in each."""
    found = published.read(source, "alpaca_eval")
    first = next(iter(found.values()))
    for number, row in enumerate(found.values(), 1):
        for field in fields:
            if not isinstance(row.get(field), str):
                sys.exit(f"{source}:{number}: {field}: not a text")
            if not field.startswith("output") and row[field] != first[field]:
                sys.exit(
                    f"{source}:{number}: {field}: {row[field]!r} after {first[field]!r}, one is expected"
                )
    return found


def judgements(source):
    """{instruction: annotation} of a file in the package's format."""
    found = read(source, "output_1", "output_2", "generator_1", "generator_2", "annotator")
    for number, row in enumerate(found.values(), 1):
        value = (
            None if row.get("preference") == -1 else row.get("preference")
        )  # the package's other sign for none
        if value is not None and (
            type(value) not in (int, float) or not (value == 0 or 1 <= value <= 2)
        ):
            sys.exit(f"{source}:{number}: preference: {value!r} is not between 1 and 2")
        if not isinstance(row.get("preference_date"), str | None):
            sys.exit(f"{source}:{number}: preference_date: not a text")
        row["preference"] = value
    return found


def gamed_of(file, instructions):
    """(path of df_gamed.csv or None, why there is no length-controlled win rate or None)."""
    if hashlib.sha256(json.dumps(instructions).encode()).hexdigest() != OFFICIAL:
        return (
            None,
            f"needs the 805 official questions in their order, which these {len(instructions)} are not",
        )
    import huggingface_hub
    import pandas

    try:
        path = file or huggingface_hub.hf_hub_download(
            "tatsu-lab/alpaca_eval", "df_gamed.csv", repo_type="dataset"
        )
    except Exception:  # the hub refuses in many ways
        return None, NO_GAMED
    try:  # the package looks for a question's difficulty at its line
        lines = pandas.read_csv(path, usecols=GAMED).drop_duplicates("index").index
    except (OSError, ValueError) as error:
        sys.exit(
            f"{path}: not AlpacaEval's df_gamed.csv ({getattr(error, 'strerror', None) or error})"
        )
    if [*lines] != [*range(len(instructions))]:
        sys.exit(
            f"{path}: index: the first {len(instructions)} lines are not one for each question"
        )
    return path, None


def metrics_of(annotations, gamed):
    """The package's metrics; no number where it has none, as for the standard error of one row."""
    import pandas
    from alpaca_eval.metrics import get_winrate, glm_winrate

    frame = pandas.DataFrame(annotations).astype({"preference": float})
    metrics = get_winrate(frame)
    if gamed:
        glm_winrate.hf_hub_download = lambda **_: (
            gamed
        )  # the package has no other way to be given the file
        metrics = glm_winrate.get_length_controlled_winrate(frame, save_weights_dir=None)
    metrics = {
        name: (int if name.startswith("n_") else float)(value) for name, value in metrics.items()
    }
    return {name: None if value != value else value for name, value in metrics.items()}


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--model_outputs")
    parser.add_argument(
        "--reference_outputs", help="(default: gpt4_1106_preview's, at a pinned commit)"
    )
    parser.add_argument(
        "--annotations", help="judgements that are there already, in place of a judge"
    )
    parser.add_output("--output_dir", "folder", FILES, type=Path, required=True)
    parser.add_argument("--gamed_file", help="df_gamed.csv (default: from the hub, or its cache)")
    parser.add_argument(
        "--no_logprobs", action="store_true", help="for a judge that gives no log-probabilities"
    )
    judging.add_flags(parser, required=False)
    args = parser.parse_args()
    if bool(args.annotations) == bool(args.model_outputs):
        parser.error("--model_outputs with a judge, or --annotations")
    if (
        args.model_outputs
        and Path(args.model_outputs).resolve() == (args.output_dir / "annotations.json").resolve()
    ):
        parser.error("--model_outputs: the annotations of this command would overwrite it")
    if args.model_outputs and not (args.judge_url and args.judge_model):
        parser.error("--model_outputs: --judge_url and --judge_model are needed")
    if args.max_tokens and not args.no_logprobs:
        parser.error("--max_tokens: only with --no_logprobs, else the reply is one token")

    start, unparsable, refused = time.time(), [], []
    source = args.annotations or args.model_outputs
    default = None if args.annotations else published.PUBLISHED["alpaca_eval"]
    answers = judgements(source) if args.annotations else read(source, "output", "generator")
    reference = args.reference_outputs or default
    reference = read(reference, "output", "generator") if reference else answers
    published.answered(reference, answers, source)
    try:
        args.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"{args.output_dir}: {error.strerror}")
    logging.disable()  # the package logs every request and every verdict that it cannot read
    warnings.simplefilter("ignore")
    os.environ["TQDM_DISABLE"] = "1"
    gamed, no_gamed = gamed_of(args.gamed_file, list(reference))
    if no_gamed:
        print(f"no length-controlled win rate: {no_gamed}", flush=True)
    if args.annotations:
        annotations = [answers[instruction] for instruction in reference]
    else:
        annotations, unparsable, refused = alpaca_eval_judge.annotated(args, reference, answers)
    judged = sum(row["preference"] is not None for row in annotations)
    silent = len(annotations) - judged - len(refused)
    lost = f"without verdict: {silent}, requests refused: {len(refused)}"
    lost += f", such as {(refused + unparsable)[0]!r}" if refused + unparsable else ""
    if not judged:
        sys.exit(f"{source}: no row is judged; {lost}")
    metrics = metrics_of(annotations, gamed)
    lengths = {
        i: int(fmean(len(row[f"output_{i}"]) for row in annotations)) for i in (1, 2)
    }  # as the package
    result = {
        "model": annotations[0]["generator_2"],
        "reference": annotations[0]["generator_1"],
        "judge": annotations[0]["annotator"],
        "judgement": None
        if args.annotations
        else "last line"
        if args.no_logprobs
        else "log-probabilities",
        "date": max(row.get("preference_date") or "" for row in annotations)[:10] or None,
        "rows": len(annotations),
        "judged": judged,
        "length_controlled_winrate": None,
        "lc_standard_error": None,
        **metrics,
        "no_length_controlled_winrate": no_gamed,
        "avg_length": lengths[2],
        "reference_avg_length": lengths[1],
    }
    if not args.annotations:
        outputs.write_json(args.output_dir / "annotations.json", annotations)
    outputs.write_json(args.output_dir / "alpaca_eval.json", result)
    columns = {
        "model": result["model"], "reference": result["reference"], "judge": result["judge"], "date": result["date"],
        "LC win rate": result["length_controlled_winrate"], "win rate": result["win_rate"],
        "standard error": result["standard_error"], "characters": lengths[2], "reference's": lengths[1],
        "judged": f"{judged} of {len(annotations)}",
    }  # fmt: skip
    cells = [
        "-" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v)
        for v in columns.values()
    ]
    print(
        *(f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), cells)), sep="\n"
    )
    print(
        f"{args.output_dir} rows in: {len(annotations)}, judged: {judged}, {lost}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
