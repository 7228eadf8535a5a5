"""Choose one pair per prompt by the information it gains on a linear reward (paper 3.2, enhancer).

The main agent's response is the best by its score. The enhancer's is the one whose features differ
most from it in the directions that the pairs so far say least about. The choice maximises the
uncertainty ||phi(x, a) - phi(x, a')|| in the norm of the inverse of

    Sigma = ridge I + the sum over the pairs so far of (phi - phi')(phi - phi')^T,

which includes the pairs of earlier rounds. phi is the reward model's hidden state at the last
token, scaled so that the first chunk's distances from their mean are 1 on average. The best
response is the chosen one; its score is the reward minus --length_penalty times characters.

Reads:  --rewards_file, {"id", "prompt", "responses", "finish_reasons", "rewards", ...}
        --model_name_or_path, the reward model
        --earlier_files, the pairs of earlier rounds, {"id", "prompt", "chosen", "rejected"}
Writes: --output_file, {"id", "prompt", "chosen", "rejected", "chosen_reward", "rejected_reward",
        "uncertainty"}. Dropped and counted: ties, rows with fewer than two untruncated responses
        that differ, and rows and earlier pairs in which the prompt with a response is longer than
        the model's context.

    python annotation/2d_uncertain_pairs.py --model_name_or_path runs/tiny/reward_model \
        --earlier_files runs/tiny/iter1/pairs.jsonl \
        --rewards_file runs/tiny/iter2/rewards.jsonl --output_file my_pairs.jsonl
"""

import itertools
import sys
import time
from collections import Counter

from common import arguments, batches, models, rows, trajectories
from scored_responses import penalised_scores


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--rewards_file", required=True)
    parser.add_argument(
        "--earlier_files",
        nargs="*",
        default=[],
        help="pairs of earlier rounds, which Sigma includes",
    )
    parser.add_output("--output_file", required=True)
    parser.add_argument(
        "--n",
        type=arguments.whole(0),
        help="responses per row (default: as many as the first row has; 0: any number)",
    )
    parser.add_argument(
        "--length_penalty",
        type=arguments.real(),
        default=0.0,
        help="lambda per character (paper, eq. 9)",
    )
    parser.add_argument(
        "--ridge", type=arguments.real(above=0), default=1.0, help="weight of the identity in Sigma"
    )
    parser.add_argument(
        "--batch_tokens",
        type=arguments.whole(1),
        default=8192,
        help="tokens per batch, padding included",
    )
    parser.add_argument(
        "--dtype",
        choices=arguments.DTYPES,
        default="float32",
        help="of weights and activations",
    )
    parser.add_argument(
        "--chunk_size",
        type=arguments.whole(1),
        default=512,
        help="rows whose features are in memory together; the first chunk sets their scale",
    )
    return parser.parse_args()


# Features


class RewardModel:
    """The reward model, read for its hidden states. example: a row whose prompt it renders."""

    def __init__(self, args, example):
        import torch
        from transformers import AutoModelForSequenceClassification

        path = args.model_name_or_path
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.batch_tokens = args.batch_tokens
        self.tokenizer = models.tokenizer(path, (example.at("prompt"), example["prompt"]))
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        if self.tokenizer.pad_token is None:
            sys.exit(f"{path}: its tokenizer has neither a pad token nor an EOS token")
        self.model = models.load(
            AutoModelForSequenceClassification,
            path,
            self.tokenizer,
            num_labels=1,
            dtype=args.dtype,
            device_map=self.device,
        )
        text_config = self.model.config.get_text_config()
        self.hidden_size = text_config.hidden_size
        self.max_length = text_config.max_position_embeddings

    def token_ids(self, conversations):
        """The tokens of each conversation. conversations: of each (FILE:LINE: FIELD, messages)."""
        texts = [
            models.render(self.tokenizer, messages, where) for where, messages in conversations
        ]
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    def fit(self, token_ids):
        """Is each of these sequences at most as long as the model's context?"""
        return max(map(len, token_ids)) <= self.max_length

    def features(self, token_ids):
        """The hidden state at the last token of each, (sequences, hidden size), float64."""
        import torch

        features = [None] * len(token_ids)
        indexes = range(len(token_ids))
        for batch in batches.by_length(indexes, lambda i: len(token_ids[i]), self.batch_tokens):
            last_states = self.last_states([token_ids[i] for i in batch])
            for index, state in zip(batch, last_states, strict=True):
                features[index] = state
        return torch.stack(features)

    def last_states(self, token_ids):
        """The hidden state at the last token of each, (sequences, hidden size), float64."""
        import torch

        padded = self.tokenizer.pad(
            {"input_ids": token_ids}, padding_side="right", return_tensors="pt"
        )
        padded = padded.to(self.device)
        with torch.inference_mode():
            # (sequences, tokens, hidden size)
            hidden = self.model.base_model(**padded).last_hidden_state.double()
            # The padding is on the right, so that the last token's position differs by sequence.
            last_positions = padded["attention_mask"].sum(dim=1) - 1
            sequences = torch.arange(len(token_ids), device=hidden.device)
            return hidden[sequences, last_positions]

    def response_features(self, chunk):
        """For each row a tensor (responses, hidden size); None if a sequence does not fit."""
        conversations = []
        for row in chunk:
            for response in row["responses"]:
                chat = [*row["prompt"], *trajectories.turns(response)]
                conversations.append((row.at("prompt"), chat))
        # One call for the chunk: the tokenizer works in parallel.
        token_ids = iter(self.token_ids(conversations))
        ids_by_row = [list(itertools.islice(token_ids, len(row["responses"]))) for row in chunk]
        fitting = [ids for ids in ids_by_row if self.fit(ids)]
        if not fitting:
            return [None] * len(chunk)
        features = self.features([*itertools.chain(*fitting)])
        of_fitting = iter(features.split([len(ids) for ids in fitting]))
        return [next(of_fitting) if self.fit(ids) else None for ids in ids_by_row]

    def pair_token_ids(self, pairs, side):
        """The tokens of one side of each pair, "chosen" or "rejected", with its prompt."""
        return self.token_ids([(pair.at("prompt"), pair["prompt"] + pair[side]) for pair in pairs])

    def fitting_pairs(self, pairs):
        """The pairs with two sides that fit."""
        fitting = []
        for pair in pairs:
            sides = [self.pair_token_ids([pair], side)[0] for side in ("chosen", "rejected")]
            if self.fit(sides):
                fitting.append(pair)
        return fitting

    def pair_features(self, pairs, side):
        """(pairs, hidden size). side: "chosen" or "rejected"."""
        return self.features(self.pair_token_ids(pairs, side))


# Information


class Information:
    """What the pairs so far say about the reward: Sigma's inverse and log det(Sigma / ridge).

    The scale of the features is that of the first chunk: those of the complete file may not fit
    into memory.
    """

    def __init__(self, args, reward_model, first_features, earlier_pairs):
        """first_features: for each row of the first chunk a tensor (responses, hidden size)."""
        import torch

        features = torch.cat(first_features)
        # The centre is used for the scale alone: it cancels in differences.
        centre = features.mean(dim=0)
        self.scale = (features - centre).norm(dim=1).mean()
        # Features that are the same up to float32 rounding give no scale.
        if self.scale <= 1e-6 * centre.norm():
            self.scale = torch.ones_like(self.scale)
        size = reward_model.hidden_size
        identity = torch.eye(size, dtype=torch.float64, device=reward_model.device)
        sigma = args.ridge * identity
        sigma += self.sum_over(earlier_pairs, reward_model, args.chunk_size)
        self.inverse = torch.linalg.inv(sigma)
        self.log_det = torch.logdet(sigma / args.ridge).item()

    def sum_over(self, pairs, reward_model, chunk_size):
        """The sum of (phi - phi')(phi - phi')^T over pairs, (hidden size, hidden size)."""
        import torch

        size = reward_model.hidden_size
        total = torch.zeros((size, size), dtype=torch.float64, device=reward_model.device)
        for first in range(0, len(pairs), chunk_size):
            chunk = pairs[first : first + chunk_size]
            chosen = reward_model.pair_features(chunk, "chosen")
            rejected = reward_model.pair_features(chunk, "rejected")
            differences = (chosen - rejected) / self.scale
            total += differences.T @ differences
        return total

    def squared_norms(self, differences):
        """d^T Sigma^-1 d of each difference d, (differences). differences: (.., hidden size)."""
        return ((differences @ self.inverse) * differences).sum(dim=1)

    def add(self, difference, squared_norm):
        """Add the pair whose features differ by d. squared_norm: d^T Sigma^-1 d."""
        import torch

        # Sherman-Morrison: the inverse of Sigma + d d^T, without inverting again.
        direction = self.inverse @ difference
        self.inverse -= torch.outer(direction, direction) / (1 + squared_norm)
        self.log_det += torch.log1p(squared_norm).item()


# Pairs


def choose_and_add_pair(row, features, information, length_penalty):
    """(pair, None), or (None, why the row is dropped). A pair is added to the information.

    features: (responses, hidden size); None if the row does not fit into the model's context.
    """
    if features is None:
        return None, "too long"
    responses = row["responses"]
    scores = penalised_scores(row, length_penalty)
    finish_reasons = row["finish_reasons"]
    untruncated = [i for i in range(len(responses)) if finish_reasons[i] != "length"]
    best = max(untruncated, key=lambda i: scores[i], default=None)
    others = [i for i in untruncated if responses[i] != responses[best]]
    if not others:
        return None, "identical or truncated"
    # (others, hidden size)
    differences = (features[best] - features[others]) / information.scale
    squared_norms = information.squared_norms(differences)
    most_uncertain = squared_norms.argmax().item()
    other = others[most_uncertain]
    if scores[best] == scores[other]:
        return None, "tie"
    information.add(differences[most_uncertain], squared_norms[most_uncertain])
    pair = {
        "id": row["id"],
        "prompt": row["prompt"],
        "chosen": trajectories.turns(responses[best]),
        "rejected": trajectories.turns(responses[other]),
        "chosen_reward": row["rewards"][best],
        "rejected_reward": row["rewards"][other],
        "uncertainty": squared_norms[most_uncertain].sqrt().item(),
    }
    return pair, None


def main():
    args = parse_arguments()
    start = time.time()
    # The file is read once before the model is loaded: a bad row ends the program here.
    rows_in = sum(1 for _ in rows.read(args.rewards_file, "rewards", n=args.n))
    example = next(rows.read(args.rewards_file, "rewards", n=args.n))
    earlier_pairs = []
    for file in args.earlier_files:
        earlier_pairs += rows.read(file, "preferences")
    reward_model = RewardModel(args, example)

    dropped = Counter()
    fitting_pairs = reward_model.fitting_pairs(earlier_pairs)
    if len(fitting_pairs) < len(earlier_pairs):
        dropped["dropped, earlier pairs too long"] = len(earlier_pairs) - len(fitting_pairs)
    information = None
    pairs = []
    stream = rows.read(args.rewards_file, "rewards", n=args.n)
    while chunk := list(itertools.islice(stream, args.chunk_size)):
        features = reward_model.response_features(chunk)
        first_features = [tensor for tensor in features if tensor is not None]
        if information is None and first_features:
            information = Information(args, reward_model, first_features, fitting_pairs)
        # One row after another: each choice depends on the pairs chosen before it.
        for row, row_features in zip(chunk, features, strict=True):
            pair, reason = choose_and_add_pair(row, row_features, information, args.length_penalty)
            if reason:
                dropped[f"dropped, {reason}"] += 1
            else:
                pairs.append(pair)
    if not pairs:
        sys.exit(f"{args.rewards_file}: no pair is left of {rows_in} rows ({dict(dropped)})")
    rows.write(args.output_file, pairs)
    dropped_counts = "".join(f"{name}: {count}, " for name, count in dropped.items())
    print(
        f"{args.output_file} rows in: {rows_in}, {dropped_counts}rows out: {len(pairs)}, "
        f"earlier pairs: {len(fitting_pairs)}, log det Sigma / ridge: {information.log_det:.2f}, "
        f"{time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
