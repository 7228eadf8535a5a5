"""Store a reference policy's log-probabilities in preference pairs (DPO, paper eq. 5).

They are the same in every epoch, and for every loss, beta and learning rate: dpo/1_dpo.py then
trains on them without a second model in memory. A log-probability is summed over the tokens of the
response that count in training. So --max_length, --truncation_mode, --assistant_only_loss and
--chat_template_kwargs have to be those of the training, which compares a digest of the tokens. The
same holds for --load_in_4bit and its options: a 4-bit policy starts as a 4-bit reference.

A pair's prompt is computed once, and little padding (common/packing.py). Pairs that a training
would drop are dropped and counted. Finished rows survive a kill: the same command resumes.

Reads:  --pairs_file, {"id", "prompt", "chosen", "rejected", ...}
Writes: --output_file, the same rows with "ref_chosen_logp" and "ref_rejected_logp", in nats, and
        "reference", {"model", "dtype", "fingerprint", "tokens"}, with --load_in_4bit also
        "quantization"; a share of them by --shard and --num_shards, which common/shards.py joins

    python dpo/0_reference.py --model_name_or_path runs/tiny/sft --max_length 256 \
        --pairs_file runs/tiny/iter1/pairs.jsonl --output_file my_pairs.jsonl
"""

import itertools
import math
import sys
from collections import Counter

import pair_tokens
from common import arguments, batches, models, rows, shards, weights
from common.progress import Progress
from pair_tokens import SIDES, STORED


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--model_name_or_path", required=True, help="the reference policy")
    parser.add_argument("--pairs_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--max_length",
        type=arguments.whole(2),
        default=2048,
        help="tokens of prompt and response, as in the training",
    )
    parser.add_argument(
        "--truncation_mode",
        choices=["keep_start", "keep_end"],
        default="keep_start",
        help="what is cut of longer ones, as in the training",
    )
    parser.add_argument(
        "--assistant_only_loss",
        action="store_true",
        help="of several turns, count the assistant's tokens alone, as in the training",
    )
    parser.add_argument("--chat_template_kwargs", help=arguments.TEMPLATE_HELP)
    parser.add_argument(
        "--dtype",
        choices=arguments.DTYPES,
        default="float32",
        help="of weights and activations",
    )
    add_quantization(parser)
    parser.add_argument(
        "--batch_tokens",
        type=arguments.whole(1),
        help="tokens per batch (default: by device and memory)",
    )
    parser.add_argument(
        "--chunk_size",
        type=arguments.whole(1),
        default=512,
        help="pairs between two writes to disk",
    )
    args = shards.parse(parser)
    check_quantization(parser, args)
    return args


def add_quantization(parser):
    """The flags of 4-bit weights, named as those of the trainings."""
    parser.add_argument(
        "--load_in_4bit",
        action="store_true",
        help="4-bit matrices, for a training with them (QLoRA)",
    )
    parser.add_argument(
        "--bnb_4bit_quant_type",
        choices=["nf4", "fp4"],
        default="nf4",
        help="as in the training",
    )
    parser.add_argument(
        "--use_bnb_nested_quant",
        action="store_true",
        help="as in the training",
    )


def check_quantization(parser, args):
    if args.load_in_4bit:
        weights.check_bitsandbytes()
    elif args.use_bnb_nested_quant or args.bnb_4bit_quant_type != "nf4":
        parser.error("--use_bnb_nested_quant, --bnb_4bit_quant_type: only with --load_in_4bit")


def read_rows(args):
    return shards.own_rows(rows.read(args.pairs_file, "preferences"), args)


def check_rows(args):
    """Check all rows. Returns their number in this shard, and (place, prompt) of the first row."""
    total = 0
    example = None
    for row in read_rows(args):
        total += 1
        if example is None:
            example = (row.at("prompt"), row["prompt"])
    return total, example


class Reference:
    """The reference policy, which gives the log-probabilities of responses."""

    def __init__(self, args):
        import torch
        from transformers import AutoModelForCausalLM
        from trl.trainer.utils import add_fused_lm_head

        from common import packing  # which imports torch

        path = args.model_name_or_path
        if args.load_in_4bit:
            options = weights.in_4_bits(args, args.dtype)
        else:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            options = {"dtype": args.dtype, "device_map": device}
        self.model = models.load(AutoModelForCausalLM, path, **options)
        add_fused_lm_head(self.model)
        self.forward = self.model
        reason = packing.obstacle(self.model)
        if reason:
            print(f"{path}: {reason}; batches are padded")
        else:
            self.forward = packing.PackedModel(self.model, self.model.config, len(SIDES))

    def log_probabilities(self, examples, options):
        """[(of chosen, of rejected)] of pairs, summed over the tokens that count."""
        import torch

        with torch.inference_mode():
            output = self.forward(**self.batch(examples, options), fused_lm_head=True)
            # (sides, pairs)
            sums = output.log_probs.float().sum(dim=1).view(len(SIDES), len(examples))
        return list(zip(*sums.tolist(), strict=True))

    def batch(self, examples, options):
        """All chosen, then all rejected sequences, padded on the right: (sequences, length)."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        input_ids = []
        labels = []
        for side in SIDES:
            for example in examples:
                token_ids, mask = pair_tokens.sequence(example, side, options)
                token_ids = torch.tensor(token_ids)
                input_ids.append(token_ids)
                labels.append(token_ids.masked_fill(torch.tensor(mask) == 0, -100))
        attention_mask = [torch.ones_like(token_ids) for token_ids in input_ids]
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        batch = {name: pad_sequence(values, batch_first=True) for name, values in batch.items()}
        batch["labels"] = pad_sequence(labels, batch_first=True, padding_value=-100)
        return {name: values.to(self.model.device) for name, values in batch.items()}


def tokens_of(pair_and_example):
    """Tokens of both sequences of a pair, at most."""
    _, example = pair_and_example
    responses = sum(len(example[f"{side}_ids"]) for side in SIDES)
    return len(SIDES) * len(example["prompt_ids"]) + responses


def score_rows(args, reference, tokenizer, description, writer, progress):
    """Write the rows that are not yet in the output file; returns the counts of their outcomes."""
    options = pair_tokens.TokenOptions(
        args.max_length, args.truncation_mode, args.assistant_only_loss
    )
    batch_tokens = args.batch_tokens or batches.default_tokens(reference.model.device, on_cpu=4096)
    todo = (row for row in read_rows(args) if row["id"] not in writer.done)
    counts = Counter()
    done = len(writer.done)
    while chunk := list(itertools.islice(todo, args.chunk_size)):
        to_score = list(pair_tokens.tokenise(chunk, tokenizer, options, counts))
        for batch in batches.by_length(to_score, tokens_of, batch_tokens):
            score_batch(batch, reference, description, options)
        writer.add(row for row, _ in to_score)
        done += len(chunk)
        progress.show(done)
    return counts


def score_batch(batch, reference, description, options):
    """Give the rows of [(row, example)] the log-probabilities of the reference."""
    logps = reference.log_probabilities([example for _, example in batch], options)
    for (row, example), logps_of_pair in zip(batch, logps, strict=True):
        for name, logp in zip(STORED, logps_of_pair, strict=True):
            if not math.isfinite(logp):
                rows.refuse(row, f"{name}: {logp} is not finite")
            row[name] = logp
        digest = pair_tokens.tokens_digest(example, options)
        row["reference"] = {**description, "tokens": digest}


def main():
    args = parse_arguments()
    # The file is read twice: here to check it all, then in chunks, so that memory does not grow.
    total, example = check_rows(args)
    path = args.model_name_or_path
    tokenizer = models.tokenizer(path, example, chat_template_kwargs=args.chat_template_kwargs)
    reference = Reference(args)
    description = {
        "model": path,
        "dtype": args.dtype,
        "fingerprint": pair_tokens.weights_digest(path),
    }
    if args.load_in_4bit:
        description["quantization"] = weights.quantization(args)
    writer = rows.Writer(args.output_file, rows.this_command([args.output_file]))
    finished_before = len(writer.done)
    progress = Progress(total, "pairs", finished_before)
    counts = score_rows(args, reference, tokenizer, description, writer, progress)
    rows_out = finished_before + counts["complete"] + counts["cut"]
    if args.num_shards == 1 and not rows_out:
        sys.exit(f"{args.pairs_file}: no pair is left: {pair_tokens.dropped(counts)}")
    writer.finish()
    print(
        f"{args.output_file} pairs in: {total}, finished before: {finished_before}, "
        f"{pair_tokens.dropped(counts)}, cut: {counts['cut']}, rows out: {rows_out}, "
        f"{progress.seconds():.1f} s"
    )


if __name__ == "__main__":
    main()
