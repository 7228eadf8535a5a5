"""Estimate KL(pi || pi_0) on a policy's own samples (arXiv 2405.07863, eq. 2).

The estimate is the mean of log pi(y|x) - log pi_0(y|x) over y ~ pi. It is unbiased for samples at
temperature 1; a single response's value may be negative. Log-probabilities are sums over the
response's tokens and, unless it was truncated, the token that ended it. Of several turns the
assistant's tokens count, and after each but the last the token with which the template ends it,
even where generation was stopped at a text; turns that the template rewrites do not count.
Responses are tokenised again from their text, so that the tokens can differ from those that were
sampled.

Reads:  --responses_file, {"id", "prompt", "responses", "finish_reasons", "end_tokens"?, ...}
        sampled from --model_name_or_path; "end_tokens" default to the chat template's end of a
        turn. A row's "system" prompt is prepended for the policy only: pi_0 knows no directions
Writes: --output_file, the same rows with "kl" in nats, one for each response

    python eval/2_kl.py --model_name_or_path runs/tiny/iter1/policy \
        --ref_model_name_or_path runs/tiny/sft \
        --responses_file runs/tiny/eval/iter1/true_rewards.jsonl \
        --output_file runs/tiny/eval/iter1/kl.jsonl
"""

import math
import time
from dataclasses import dataclass

from common import arguments, batches, chats, models, response_tokens, rows

IGNORED = -100  # a label that torch's cross-entropy leaves out


def parse_arguments():
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
    return parser.parse_args()


# Tokens


@dataclass
class Sequence:
    """The tokens of one response behind its prompt."""

    index: int  # of the response, among those of all rows
    token_ids: list[int]  # prompt, response, and the token that ended it
    mask: list[int]  # 1 for each token that counts
    left_out: int = 0  # turns that the template rewrites, none of whose tokens counts


def load_tokenizer(args, example):
    """The policy's tokenizer, after a check that both models load. example: a row."""
    from transformers import AutoModelForCausalLM

    prompt = (example.at("prompt"), example["prompt"])
    tokenizers = {}
    for path in (args.ref_model_name_or_path, args.model_name_or_path):
        tokenizer = models.tokenizer(path, prompt, chat_template_kwargs=args.chat_template_kwargs)
        models.check(AutoModelForCausalLM, path, tokenizer)
        tokenizers[path] = tokenizer
    tokenizer = tokenizers[args.model_name_or_path]
    models.check_same_tokens(tokenizer, tokenizers[args.ref_model_name_or_path])
    return tokenizer


def sequences_of(answered, tokenizer, path, with_system):
    """A Sequence for every response of all rows.

    with_system: a row's "system" prompt stands before its prompt. path: named by messages.
    """
    end = chats.turn_end(tokenizer)
    vocabulary = tokenizer.get_vocab()
    sequences = []
    for row in answered:
        chat = row["prompt"]
        if with_system and row.get("system"):
            chat = [{"role": "system", "content": row["system"]}, *chat]
        prompt = chats.prompt_text(tokenizer, chat, row.at("prompt"), row.get("tools"))
        end_tokens = row.get("end_tokens") or [end.token] * len(row["responses"])
        for response, finish_reason, end_token in zip(
            row["responses"], row["finish_reasons"], end_tokens, strict=True
        ):
            if isinstance(response, str):
                prompt_ids, response_ids = chats.encode(tokenizer, prompt, response)
                token_ids = prompt_ids + response_ids
                mask = [0] * len(prompt_ids) + [1] * len(response_ids)
                sequence = Sequence(len(sequences), token_ids, mask)
            else:
                turns = tokens_of_turns(tokenizer, end, row, chat, response)
                token_ids = turns.prompt_ids + turns.response_ids
                mask = [0] * len(turns.prompt_ids) + turns.mask
                sequence = Sequence(len(sequences), token_ids, mask, turns.left_out)
            end_id = vocabulary.get(end_token) if end_token else end.token_id
            if end_token and end_id is None:
                rows.refuse(row, f"end_tokens: {end_token!r} is no token of {path}")
            # No token ended a truncated response, nor a turn that was stopped at a text.
            ended = finish_reason != "length" and end_token != ""
            if ended and end_id is not None:
                sequence.token_ids.append(end_id)
                sequence.mask.append(1)
            sequences.append(sequence)
    return sequences


def tokens_of_turns(tokenizer, end, row, chat, messages):
    """The response_tokens.Encoded of a response of several turns."""
    encoded = response_tokens.encode_sampled(
        tokenizer, end, chat, messages, row.at("responses"), row.get("tools")
    )
    if encoded is None:
        rows.refuse(row, "responses: the chat template writes the prompt otherwise before one")
    return encoded


# Log-probabilities


def log_probabilities(path, sequences, dtype, batch_tokens):
    """log pi(y|x) of every sequence's response, in order. One model is in memory at a time."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = models.load(AutoModelForCausalLM, path, dtype=dtype, device_map=device)
    results = [0.0] * len(sequences)
    with torch.inference_mode():
        for batch in batches.by_length(sequences, lambda s: len(s.token_ids), batch_tokens):
            sums = batch_log_probabilities(model, batch)
            for sequence, log_probability in zip(batch, sums, strict=True):
                results[sequence.index] = log_probability
    return results


def batch_log_probabilities(model, batch):
    """The summed log-probability of each response of a batch, a list of floats."""
    import torch

    token_ids = [torch.tensor(sequence.token_ids) for sequence in batch]
    # Padding stands on the right, where causal attention cannot see it from the response.
    ids = torch.nn.utils.rnn.pad_sequence(token_ids, batch_first=True)  # [batch, tokens]
    masks = [torch.tensor(sequence.mask, dtype=torch.bool) for sequence in batch]
    counted = torch.nn.utils.rnn.pad_sequence(masks, batch_first=True)  # [batch, tokens]

    # The logits at one position predict the token at the next.
    labels = ids.masked_fill(~counted, IGNORED)[:, 1:].to(model.device)
    logits = model(ids.to(model.device)).logits[:, :-1].float()  # [batch, tokens - 1, vocabulary]
    losses = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED
    )
    return [-loss for loss in losses.sum(1).tolist()]


def main():
    args = parse_arguments()
    start = time.time()
    answered = list(rows.read(args.responses_file, "responses"))
    tokenizer = load_tokenizer(args, answered[0])

    path = args.model_name_or_path
    sequences = sequences_of(answered, tokenizer, path, with_system=True)
    left_out = sum(sequence.left_out for sequence in sequences)
    of_policy = log_probabilities(path, sequences, args.dtype, args.batch_tokens)
    # The same tokenizer reads the text for both models: only the system prompt differs.
    sequences = sequences_of(answered, tokenizer, path, with_system=False)
    of_reference = log_probabilities(
        args.ref_model_name_or_path, sequences, args.dtype, args.batch_tokens
    )

    log_ratios = [policy - ref for policy, ref in zip(of_policy, of_reference, strict=True)]
    offset = 0  # of the row's first response
    for row in answered:
        count = len(row["responses"])
        row["kl"] = log_ratios[offset : offset + count]
        offset += count
        if not all(map(math.isfinite, row["kl"])):
            rows.refuse(row, f"kl: {row['kl']} are not all finite")
    rows.write(args.output_file, answered)
    counts = f"rows in: {len(answered)}, rows out: {len(answered)}"
    if left_out:
        counts += f", turns left out, rewritten by the chat template: {left_out}"
    print(f"{args.output_file} {counts}, {time.time() - start:.1f} s")


if __name__ == "__main__":
    main()
