"""Choose one pair a prompt by the information it gains on a linear reward (paper 3.2, the enhancer's rule).

The main agent's response is the best by its score. The enhancer's is the one whose features differ most from it in the
directions that the pairs so far say least about, ||phi(x, a) - phi(x, a')|| in the norm of the inverse of

    Sigma = ridge I + the sum over the pairs so far, earlier rounds' included, of (phi - phi')(phi - phi')^T,

with phi the reward model's hidden state at the last token, centred on the mean of the first chunk and scaled to a
mean norm of 1 there. Which of the two is called chosen goes by the score, reward minus --length_penalty times its
characters.

Reads:  --rewards_file, {"id", "prompt", "responses", "finish_reasons", "rewards", ...}; --model_name_or_path, the
        reward model; --earlier_files, the pairs of earlier rounds, {"id", "prompt", "chosen", "rejected"}
Writes: --output_file, {"id", "prompt", "chosen", "rejected", "chosen_reward", "rejected_reward", "uncertainty"}.
        Dropped and counted: rows with fewer than two whole responses that differ, ties.

    python annotation/2d_uncertain_pairs.py --model_name_or_path runs/tiny/reward_model \
        --earlier_files runs/tiny/iter1/pairs.jsonl \
        --rewards_file runs/tiny/iter2/rewards.jsonl --output_file my_pairs.jsonl
"""

import itertools
import sys
import time
from collections import Counter

from common import arguments, models, rows


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--rewards_file", required=True)
    parser.add_argument(
        "--earlier_files",
        nargs="*",
        default=[],
        help="pairs of earlier rounds, whose sum Sigma holds",
    )
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--n",
        type=arguments.whole(0),
        help="responses of every row (default: as the first; 0: any)",
    )
    parser.add_argument(
        "--length_penalty",
        type=arguments.real(),
        default=0.0,
        help="lambda a character (paper, eq. 9)",
    )
    parser.add_argument(
        "--ridge", type=arguments.real(above=0), default=1.0, help="weight of the identity in Sigma"
    )
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
    parser.add_argument(
        "--chunk_size",
        type=arguments.whole(1),
        default=512,
        help="rows whose features are in memory together",
    )
    args = parser.parse_args()
    total = sum(
        1 for _ in rows.read(args.rewards_file, "rewards", n=args.n)
    )  # a bad row stops all before the model
    first = next(rows.read(args.rewards_file, "rewards", n=args.n))
    earlier = [pair for file in args.earlier_files for pair in rows.read(file, "preferences")]
    start, counts = time.time(), Counter()

    import torch
    from transformers import AutoModelForSequenceClassification

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = models.tokenizer(args.model_name_or_path, (first.at("prompt"), first["prompt"]))
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        sys.exit(
            f"{args.model_name_or_path}: its tokenizer has neither a pad token nor an EOS token"
        )
    model = models.load(
        AutoModelForSequenceClassification,
        args.model_name_or_path,
        tokenizer,
        num_labels=1,
        dtype=args.dtype,
        device_map=device,
    )
    shape = model.config.get_text_config()

    @torch.inference_mode()
    def features(chats):
        """chats: (FILE:LINE, messages) each. A tensor (chats, hidden size), float64."""
        texts = [models.render(tokenizer, messages, place) for place, messages in chats]
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        ids = [one[: shape.max_position_embeddings] for one in ids]
        order, found = (
            sorted(range(len(ids)), key=lambda i: len(ids[i]), reverse=True),
            [None] * len(ids),
        )
        while order:
            size = max(1, args.batch_tokens // len(ids[order[0]]))
            batch, order = order[:size], order[size:]
            padded = tokenizer.pad(
                {"input_ids": [ids[i] for i in batch]}, padding_side="right", return_tensors="pt"
            )
            hidden = model.base_model(**padded.to(device)).last_hidden_state.double()
            last = padded["attention_mask"].sum(dim=1) - 1
            for place, i in enumerate(batch):
                found[i] = hidden[place, last[place]]
        return torch.stack(found)

    def features_of_responses(chunk):
        """For each row a tensor (responses, hidden size)."""
        chats = [
            (row.at("prompt"), [*row["prompt"], {"role": "assistant", "content": response}])
            for row in chunk
            for response in row["responses"]
        ]
        return features(chats).split([len(row["responses"]) for row in chunk])

    def sum_of_earlier(scale):
        """The earlier pairs' part of Sigma, (hidden size, hidden size)."""
        sides = [
            [(pair.at("prompt"), pair["prompt"] + pair[side]) for pair in earlier]
            for side in ("chosen", "rejected")
        ]
        total = torch.zeros_like(identity)
        for i in range(0, len(earlier), args.chunk_size):
            chosen, rejected = (features(chats[i : i + args.chunk_size]) for chats in sides)
            differences = (chosen - rejected) / scale
            total += differences.T @ differences
        return total

    identity = torch.eye(shape.hidden_size, dtype=torch.float64, device=device)
    centre = scale = inverse = gained = None
    pairs = []
    stream = rows.read(args.rewards_file, "rewards", n=args.n)
    while chunk := list(itertools.islice(stream, args.chunk_size)):
        phi = features_of_responses(chunk)
        if centre is None:
            centre = torch.cat(phi).mean(dim=0)
            scale = (torch.cat(phi) - centre).norm(dim=1).mean()
            sigma = args.ridge * identity + sum_of_earlier(scale)
            inverse = torch.linalg.inv(sigma)
            gained = torch.logdet(sigma / args.ridge).item()
        for row, of_row in zip(chunk, phi, strict=True):
            texts = row["responses"]
            score = [
                r - args.length_penalty * len(t) for r, t in zip(row["rewards"], texts, strict=True)
            ]
            whole = [i for i, reason in enumerate(row["finish_reasons"]) if reason != "length"]
            best = max(whole, key=lambda i: score[i], default=None)
            others = [i for i in whole if texts[i] != texts[best]]
            if not others:
                counts["dropped, identical or truncated"] += 1
                continue
            differences = (of_row[best] - of_row[others]) / scale
            norms = ((differences @ inverse) * differences).sum(dim=1)
            place = norms.argmax().item()
            other = others[place]
            if score[best] == score[other]:
                counts["dropped, tie"] += 1
                continue
            direction = (
                inverse @ differences[place]
            )  # Sherman-Morrison: the inverse of Sigma + d d^T
            inverse -= torch.outer(direction, direction) / (1 + norms[place])
            gained += torch.log1p(norms[place]).item()
            pairs.append({
                "id": row["id"],
                "prompt": row["prompt"],
                "chosen": [{"role": "assistant", "content": texts[best]}],
                "rejected": [{"role": "assistant", "content": texts[other]}],
                "chosen_reward": row["rewards"][best],
                "rejected_reward": row["rewards"][other],
                "uncertainty": norms[place].sqrt().item(),
            })  # fmt: skip
    if not pairs:
        sys.exit(f"{args.rewards_file}: no pair is left of {total} rows ({dict(counts)})")
    rows.write(args.output_file, pairs)
    dropped = "".join(f"{name}: {count}, " for name, count in counts.items())
    told = f"rows in: {total}, {dropped}rows out: {len(pairs)}, earlier pairs: {len(earlier)}"
    print(
        f"{args.output_file} {told}, log det Sigma / ridge: {gained:.2f}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
