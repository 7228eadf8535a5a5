"""Score every response with a reward model (paper 3.3, Algorithm 2).

The tokens that a row's responses share, mostly its prompt, go through the model once. What follows
them goes through in batches of similar length, of at most --batch_tokens tokens with padding
(reward_scorer.py). Batch size changes a score by rounding only (below 1e-4 in float32). Memory does
not grow with the file. Finished rows survive a kill: the same command resumes. A model with code of
its own (--trust_remote_code), ArmoRM say, computes each prompt again for each of its responses.

Reads:  --responses_file, {"id", "prompt", "responses", "finish_reasons", ...}
Writes: --output_file, the same rows with "rewards", one for each response, and "annotator"; for
        ArmoRM also "objectives", [{name: value} for each response], and "gate", {name: weight}.
        Rows in which prompt and response exceed the model's context are dropped and counted, and
        so are those with a response that the model's own code refuses.

    python annotation/1a_reward_model.py --model_name_or_path runs/tiny/reward_model --n 8 \
        --responses_file runs/tiny/iter1/responses.jsonl \
        --output_file runs/tiny/iter1/rewards.jsonl

One shard of two, on the second GPU; common/shards.py joins them:
    CUDA_VISIBLE_DEVICES=1 python annotation/1a_reward_model.py --shard 1 --num_shards 2 ...
"""

import itertools
import math
import sys
from collections import Counter

import reward_scorer
from common import arguments, batches, rows, shards
from common.progress import Progress


def annotate(row, outputs, objective_names):
    """Add what the model gives for the responses of a row: rewards, and ArmoRM's objectives.

    outputs: {name: value} of each response; ArmoRM's code has "score", and in "rewards" its
    objectives; a sequence classifier has "logits".
    """
    row["rewards"] = []
    for output in outputs:
        reward = output["score"] if "score" in output else output["logits"][0]
        row["rewards"].append(reward)
    if not all(map(math.isfinite, row["rewards"])):
        rows.refuse(row, f"rewards: {row['rewards']} are not all finite")
    if "gating_output" in outputs[0]:
        names = objective_names or [str(i) for i in range(len(outputs[0]["rewards"]))]
        row["objectives"] = []
        for output in outputs:
            row["objectives"].append(dict(zip(names, output["rewards"], strict=True)))
        # The gate looks at the prompt alone: its weights are the same for each response.
        row["gate"] = dict(zip(names, outputs[0]["gating_output"], strict=True))


def score_rows(args, scorer, writer, progress):
    """Write the rows that are not yet in the output file; returns counts of those dropped."""
    objective_names = getattr(scorer.model.config, "objectives", None)
    todo = (row for row in read_rows(args) if row["id"] not in writer.done)
    done = len(writer.done)
    dropped = Counter()
    while chunk := list(itertools.islice(todo, args.chunk_size)):
        finished = []
        for row, outputs in zip(chunk, scorer.outputs(chunk), strict=True):
            if outputs is None:  # a sequence is too long
                dropped["too long"] += 1
            elif None in outputs:  # the model's own code refused a response
                dropped["refused"] += 1
            else:
                annotate(row, outputs, objective_names)
                row["annotator"] = args.model_name_or_path
                finished.append(row)
        writer.add(finished)
        done += len(chunk)
        progress.show(done)
    return dropped


def read_rows(args):
    return shards.own_rows(rows.read(args.responses_file, "responses", n=args.n), args)


def check_rows(args):
    """Check all rows. Returns the number of this shard's rows, and a chat as example, or None."""
    total = 0
    example = None
    for row in read_rows(args):
        total += 1
        if example is None:
            first_chat = reward_scorer.chats_of(row)[0]
            example = (row.at("prompt"), first_chat)
    return total, example


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run the code that comes with the model"
    )
    parser.add_argument(
        "--revision", help="commit of a model on the hub; its code is run at a pinned commit only"
    )
    parser.add_argument("--responses_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--n",
        type=arguments.whole(0),
        help="responses per row (default: as many as the first row has; 0: any number)",
    )
    parser.add_argument(
        "--batch_tokens",
        type=arguments.whole(1),
        help="tokens per batch, padding included (default: by device and memory)",
    )
    parser.add_argument(
        "--dtype",
        choices=arguments.DTYPES,
        default="float32",
        help="of weights and activations",
    )
    parser.add_argument(
        "--chunk_size", type=arguments.whole(1), default=512, help="rows between two writes to disk"
    )
    parser.add_argument("--chat_template_kwargs", help=arguments.TEMPLATE_HELP)
    return shards.parse(parser)


def main():
    args = parse_arguments()
    # The file is read twice: here to check it all, then in chunks, so that memory does not grow.
    total, example = check_rows(args)
    model, tokenizer = reward_scorer.load(
        args.model_name_or_path,
        args.dtype,
        example,
        trust_remote_code=args.trust_remote_code,
        revision=args.revision,
        chat_template_kwargs=args.chat_template_kwargs,
    )
    batch_tokens = args.batch_tokens or batches.default_tokens(model.device, on_cpu=1024)
    share_prefix = reward_scorer.can_share_prefix(model)
    scorer = reward_scorer.Scorer(model, tokenizer, batch_tokens, share_prefix)

    writer = rows.Writer(args.output_file, rows.this_command([args.output_file]))
    progress = Progress(total, "rows", finished_before=len(writer.done))
    dropped = score_rows(args, scorer, writer, progress)

    # One shard of several may lose all its rows.
    if args.num_shards == 1 and total == dropped["too long"]:
        sys.exit(
            f"{args.responses_file}: "
            f"every row is longer than the context of {args.model_name_or_path}"
        )
    if args.num_shards == 1 and total == dropped.total():
        sys.exit(
            f"{args.responses_file}: {args.model_name_or_path} scores no row ({scorer.refusal})"
        )
    writer.finish()
    refused = ""
    if reward_scorer.has_own_code(model):
        refused = f"refused by the model's code: {dropped['refused']}, "
    print(
        f"{args.output_file} rows in: {total}, finished before: {len(writer.done)}, "
        f"dropped, too long: {dropped['too long']}, {refused}"
        f"rows out: {total - dropped.total()}, {progress.seconds():.1f} s"
    )


if __name__ == "__main__":
    main()
