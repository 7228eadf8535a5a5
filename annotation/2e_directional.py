"""Keep the response that is best in its prompt's direction, for fine-tuning on it (DPA, arXiv 2402.18571).

R = cos t * helpfulness + sin t * verbosity, of a reward vector whose parts are standardised over the file, so that an
angle means the same whatever their scales; the parts are means of the annotator's objectives.

Reads:  --rewards_file, {"id", "prompt", "system", "direction", "responses", "objectives", ...} from an annotator that
        tells its objectives (ArmoRM)
Writes: --output_file, {"id", "messages", "direction"}: the system prompt, the prompt, and the best response, as
        sft/2_finetune.py reads them. A row whose responses are all cut off or empty is dropped and counted.

    python annotation/2e_directional.py --helpfulness correct manner --verbosity verbosity \
        --rewards_file my_rewards.jsonl --output_file my_best.jsonl
"""

import sys
from statistics import fmean, pstdev

from common import arguments, rows


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--rewards_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--helpfulness", nargs="+", required=True, help="objectives of which it is the mean"
    )
    parser.add_argument(
        "--verbosity", nargs="+", required=True, help="objectives of which it is the mean"
    )
    args = parser.parse_args()
    scored = list(
        rows.read(args.rewards_file, "rewards", also=("system", "direction", "objectives"))
    )
    parts = []  # for each row one (helpfulness, verbosity) a response
    for row in scored:
        try:
            names = (args.helpfulness, args.verbosity)
            parts.append(
                [[fmean(of[name] for name in part) for part in names] for of in row["objectives"]]
            )
        except KeyError as missing:
            rows.refuse(row, f"objectives: none is called {missing}")
    columns = list(zip(*(of for row in parts for of in row), strict=True))
    means, deviations = (
        [fmean(column) for column in columns],
        [pstdev(column) or 1.0 for column in columns],
    )
    made = []
    for row, of_row in zip(scored, parts, strict=True):
        ended = zip(row["responses"], row["finish_reasons"], strict=True)
        whole = [i for i, (text, reason) in enumerate(ended) if reason != "length" and text.strip()]
        if not whole:
            continue
        scores = [
            sum(
                w * (x - m) / s
                for w, x, m, s in zip(row["direction"], of, means, deviations, strict=True)
            )
            for of in of_row
        ]
        best = row["responses"][max(whole, key=lambda i: scores[i])]
        messages = [{"role": "system", "content": row["system"]}, *row["prompt"]]
        messages.append({"role": "assistant", "content": best})
        made.append({"id": row["id"], "messages": messages, "direction": row["direction"]})
    if not made:
        sys.exit(f"{args.rewards_file}: no whole response in {len(scored)} rows")
    rows.write(args.output_file, made)
    told = f"rows in: {len(scored)}, dropped, truncated or empty: {len(scored) - len(made)}, rows out: {len(made)}"
    print(f"{args.output_file} {told}")


if __name__ == "__main__":
    main()
