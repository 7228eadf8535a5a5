"""Estimate KL(pi || pi_0) on a policy's own samples: the mean of log pi(y|x) - log pi_0(y|x) over y ~ pi (eq. 2).

The estimate is unbiased for samples at temperature 1; a single response's value may be negative. Log-probabilities are
sums over the response's tokens and, unless it was cut off, the token that ended it. They count its text as the
tokenizer reads it, which can differ from the tokens that were sampled.

Reads:  --responses_file, {"id", "prompt", "responses", "finish_reasons", "end_tokens"?, ...} sampled from
        --model_name_or_path; without "end_tokens" a response ended as the chat template ends a turn. A row's "system"
        prompt is before the policy's prompt, not before pi_0's
Writes: --output_file, the same rows with "kl" in nats, one for each response

    python eval/2_kl.py --model_name_or_path runs/tiny/iter1/policy --ref_model_name_or_path runs/tiny/sft \
        --responses_file runs/tiny/eval/iter1/true_rewards.jsonl --output_file runs/tiny/eval/iter1/kl.jsonl
"""

import math
import time

from common import arguments, chats, models, rows


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--model_name_or_path", required=True, help="the policy pi")
    parser.add_argument("--ref_model_name_or_path", required=True, help="the initial policy pi_0")
    parser.add_argument("--responses_file", required=True)
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--batch_tokens",
        type=arguments.whole(1),
        default=8192,
        help="tokens a batch, padding included",
    )
    parser.add_argument(
        "--dtype",
        choices=arguments.DTYPES,
        default="float32",
        help="of weights and activations: float32, bfloat16",
    )
    parser.add_argument("--chat_template_kwargs", help=arguments.TEMPLATE_HELP)
    args = parser.parse_args()
    answered, start = list(rows.read(args.responses_file, "responses")), time.time()

    import torch
    from transformers import AutoModelForCausalLM

    for name in (args.ref_model_name_or_path, args.model_name_or_path):
        example = answered[0].at("prompt"), answered[0]["prompt"]
        tokenizer = models.tokenizer(name, example, chat_template_kwargs=args.chat_template_kwargs)
        models.check(AutoModelForCausalLM, name, tokenizer)
    end, vocabulary = chats.turn_end(tokenizer), tokenizer.get_vocab()

    def sequences_of(steered):
        """(tokens of the prompt, tokens of prompt and response) of every response."""
        for row in answered:
            chat = row["prompt"]
            if steered and row.get("system"):
                chat = [{"role": "system", "content": row["system"]}, *chat]
            prompt = chats.prompt_text(tokenizer, chat, row.at("prompt"))
            ends = row.get("end_tokens") or [end.token] * len(row["responses"])
            for response, reason, token in zip(
                row["responses"], row["finish_reasons"], ends, strict=True
            ):
                prompt_ids, ids = chats.encode(tokenizer, prompt, response)
                last = vocabulary.get(token) if token else end.token_id
                if token and last is None:
                    rows.refuse(
                        row, f"end_tokens: {token!r} is no token of {args.model_name_or_path}"
                    )
                if reason != "length" and last is not None:
                    ids = [*ids, last]
                yield len(prompt_ids), prompt_ids + ids

    @torch.inference_mode()
    def log_probabilities(name, steered):
        """Of every response under that model; one model is in memory at a time."""
        sequences = list(sequences_of(steered))
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i][1]), reverse=True)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = models.load(AutoModelForCausalLM, name, dtype=args.dtype, device_map=device)
        results, left = [0.0] * len(sequences), order
        while left:
            size = max(1, args.batch_tokens // len(sequences[left[0]][1]))
            batch, left = left[:size], left[size:]
            ids = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(sequences[i][1]) for i in batch], batch_first=True
            )
            lengths = torch.tensor([[sequences[i][0], len(sequences[i][1])] for i in batch])
            position = torch.arange(ids.shape[1])
            of_response = (position >= lengths[:, :1]) & (position < lengths[:, 1:])
            # Padding stands on the right, where causal attention cannot see it from the response.
            labels = ids.masked_fill(~of_response, -100)[:, 1:].to(device)
            logits = model(ids.to(device)).logits[:, :-1].float()
            losses = torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), labels, reduction="none"
            )
            for i, loss in zip(batch, losses.sum(1).tolist(), strict=True):
                results[i] = -loss
        return results

    of_policy = log_probabilities(args.model_name_or_path, steered=True)
    of_reference = log_probabilities(args.ref_model_name_or_path, steered=False)
    ratios = iter(p - r for p, r in zip(of_policy, of_reference, strict=True))
    for row in answered:
        row["kl"] = [next(ratios) for _ in row["responses"]]
        if not all(map(math.isfinite, row["kl"])):
            rows.refuse(row, f"kl: {row['kl']} are not all finite")
    rows.write(args.output_file, answered)
    print(
        f"{args.output_file} rows in: {len(answered)}, rows out: {len(answered)}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
