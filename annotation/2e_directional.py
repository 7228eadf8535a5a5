"""Keep the response that is best in its prompt's direction, to fine-tune on it (arXiv 2402.18571).

Directional preference alignment scores a response by

    R = cos t * helpfulness + sin t * verbosity,

where (cos t, sin t) is the direction of its prompt. Helpfulness and verbosity are means of the
annotator's objectives, standardised over all responses of the file, so that an angle means the same
on any scale.

Reads:  --rewards_file, {"id", "prompt", "system", "direction", "responses", "objectives", ...} of
        an annotator that gives its objectives (ArmoRM)
Writes: --output_file, {"id", "messages", "direction"}: the system prompt, the prompt, and the best
        response, as sft/2_finetune.py reads them. A row whose responses are all truncated or empty
        is dropped and counted.

    python annotation/2e_directional.py --helpfulness correct manner --verbosity verbosity \
        --rewards_file my_rewards.jsonl --output_file my_best.jsonl
"""

import itertools
import sys
from statistics import fmean, pstdev

from common import arguments, rows, trajectories
from scored_responses import trainable


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--rewards_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--helpfulness", nargs="+", required=True, help="objectives averaged into helpfulness"
    )
    parser.add_argument(
        "--verbosity", nargs="+", required=True, help="objectives averaged into verbosity"
    )
    return parser.parse_args()


def reward_vectors(row, helpfulness, verbosity):
    """(helpfulness, verbosity) of each response of a row, each the mean of these objectives."""
    vectors = []
    try:
        for objectives in row["objectives"]:
            mean_helpfulness = fmean(objectives[name] for name in helpfulness)
            mean_verbosity = fmean(objectives[name] for name in verbosity)
            vectors.append((mean_helpfulness, mean_verbosity))
    except KeyError as missing:
        rows.refuse(row, f"objectives: none is called {missing}")
    return vectors


class DirectionalScorer:
    """Scores responses by standardised helpfulness and verbosity.

    Each of the two has mean 0 and deviation 1 over all_vectors, those of all responses.
    """

    def __init__(self, all_vectors):
        parts = list(zip(*all_vectors, strict=True))
        self.means = [fmean(part) for part in parts]
        # A part that is the same in all responses decides nothing, whatever it is divided by.
        self.deviations = [pstdev(part) or 1.0 for part in parts]

    def score(self, vector, direction):
        """R of a response. vector: (helpfulness, verbosity); direction: [cos t, sin t]."""
        terms = []
        for i, weight in enumerate(direction):
            terms.append(weight * (vector[i] - self.means[i]) / self.deviations[i])
        return sum(terms)


def example(row, response):
    """The conversation to fine-tune on."""
    messages = [
        {"role": "system", "content": row["system"]},
        *row["prompt"],
        *trajectories.turns(response),
    ]
    return {"id": row["id"], "messages": messages, "direction": row["direction"]}


def main():
    args = parse_arguments()
    scored = list(
        rows.read(args.rewards_file, "rewards", also=("system", "direction", "objectives"))
    )
    vectors_by_row = [reward_vectors(row, args.helpfulness, args.verbosity) for row in scored]
    scorer = DirectionalScorer(itertools.chain.from_iterable(vectors_by_row))

    examples = []
    for row, vectors in zip(scored, vectors_by_row, strict=True):
        scores = [scorer.score(vector, row["direction"]) for vector in vectors]
        candidates = trainable(row)
        if candidates:
            best = max(candidates, key=lambda i: scores[i])
            examples.append(example(row, row["responses"][best]))
    if not examples:
        sys.exit(f"{args.rewards_file}: no untruncated response in {len(scored)} rows")
    rows.write(args.output_file, examples)
    print(
        f"{args.output_file} rows in: {len(scored)}, "
        f"dropped, truncated or empty: {len(scored) - len(examples)}, rows out: {len(examples)}"
    )


if __name__ == "__main__":
    main()
