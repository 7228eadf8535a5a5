"""For 2c_armorm.py: hidden states, and of the objectives the ratings, regression heads and penalties for verbosity."""

import itertools
import math
import sys
import time

from common import models, rows

QUESTIONS = ("question", "And another?")
# The first characters of a response may go into one token with the last ones of the template's header.
RESPONSES = ("word", "\n\nword", " word", "1", ")", ":")


def gate_pattern(tokenizer, place):
    """The tokens with which every prompt ends, whatever is asked in it and whatever the response begins with.

    Llama 3: <|eot_id|>, the header of the assistant. None may be left; place: of the message, where a template refuses.
    """
    prompts = []
    for question in QUESTIONS:
        chats = [
            [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
            for text in RESPONSES
        ]
        texts = [models.render(tokenizer, chat, place) for chat in chats]
        prompts.append(common_start(tokenizer(texts, add_special_tokens=False)["input_ids"]))
    return common_start([tokens[::-1] for tokens in prompts])[::-1]


def common_start(sequences):
    """The elements that all sequences begin with."""
    alike = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*sequences, strict=False))
    return [tokens[0] for tokens in alike]


def contains(tokens, pattern):
    places = range(len(tokens) - len(pattern) + 1)
    return any(tokens[place : place + len(pattern)] == pattern for place in places)


def features_of(model, tokenizer, chats, batch_tokens, file):
    """For each chat, (FILE:LINE, messages), the hidden states (2, hidden size) at the ends of prompt and response; None
    if it is too long, or if the tokens that end a prompt are not in it.

    They are kept in the file, so that a run that was killed does not make them again.
    """
    import torch

    if file.exists():
        return torch.load(file)
    texts = [models.render(tokenizer, messages, place) for place, messages in chats]
    ids = tokenizer(texts, add_special_tokens=False)
    ids, limit, features = (
        ids["input_ids"],
        model.config.get_text_config().max_position_embeddings,
        [None] * len(chats),
    )
    short = [i for i in range(len(ids)) if len(ids[i]) <= limit]
    order = [i for i in short if contains(ids[i], model.config.gate_pattern)]
    order.sort(key=lambda i: len(ids[i]), reverse=True)
    dropped = (
        f"too long: {len(ids) - len(short)}, without the end of a prompt: {len(short) - len(order)}"
    )
    if not order:
        sys.exit(f"{model.name_or_path}: {file.stem}: no chat is left ({dropped})")
    start, told, fit = time.time(), 0, len(order)
    while order:
        size = max(1, batch_tokens // len(ids[order[0]]))
        batch, order = order[:size], order[size:]
        padded = tokenizer.pad(
            {"input_ids": [ids[i] for i in batch]}, padding_side="right", return_tensors="pt"
        )
        with torch.inference_mode():
            both = torch.stack(model.features(**padded.to(model.device)), 1).float().cpu()
        for i, feature in zip(batch, both, strict=True):
            features[i] = feature
        done = fit - len(order)
        if done >= told + fit / 10 or not order:
            told, left = done, (time.time() - start) / done * len(order)
            print(f"{file.stem}: {done} of {fit} chats, {left:.0f} s left; {dropped}", flush=True)
    partial = file.with_suffix(".partial")
    torch.save(features, partial)
    partial.replace(file)
    return features


def ratings_of(path):
    """(rows, names of the objectives, ratings as a (rows, objectives) list with nan where one is missing)."""
    rated, names = [], {}
    for row in rows.read(path, "ratings"):
        names |= dict.fromkeys(row["ratings"])
        rated.append(row)
    table = [
        [math.nan if row["ratings"].get(name) is None else row["ratings"][name] for name in names]
        for row in rated
    ]
    for name, column in zip(names, zip(*table, strict=True), strict=True):
        known = [value for value in column if value == value]
        if len(set(known)) < 2:
            sys.exit(f"{path}: ratings: {name} has one value at most")
        if len(known) < 10:
            sys.exit(
                f"{path}: ratings: {name} is rated in {len(known)} rows, at least 10 are needed"
            )
    return rated, list(names), table


def fit_heads(features, table, held_out, names):
    """Weights (objectives, hidden size) of ridge regressions, and what is to be told of each.

    features (rows, hidden size), table (rows, objectives); held_out (rows,), bool: rows that only the correlation sees.
    A fifth of the other rows chooses alpha; without held-out rows the correlation is that fifth's.
    """
    import numpy as np
    from sklearn.linear_model import Ridge

    weights, told = [], {}
    for name, ratings in zip(names, table.T, strict=True):
        known = ~np.isnan(ratings)
        test, known = known & held_out, np.flatnonzero(known & ~held_out)
        shuffled = np.random.default_rng(0).permutation(known)
        judge, fit = np.split(shuffled, [len(shuffled) // 5])
        scaled = (ratings - np.nanmin(ratings)) / (np.nanmax(ratings) - np.nanmin(ratings))
        errors = {}
        for alpha in np.logspace(-4, 4, 17):
            ridge = Ridge(alpha=alpha, fit_intercept=False, solver="svd").fit(
                features[fit], scaled[fit]
            )
            errors[alpha] = np.mean((ridge.predict(features[judge]) - scaled[judge]) ** 2), ridge
        alpha = min(errors, key=lambda a: errors[a][0])
        test = np.flatnonzero(test) if test.sum() >= 10 else judge
        correlation = np.corrcoef(errors[alpha][1].predict(features[test]), scaled[test])[0, 1]
        told[name] = {
            "rows": len(known),
            "alpha": float(alpha),
            "correlation": float(correlation),
            "of": len(test),
        }
        weights.append(
            Ridge(alpha=alpha, fit_intercept=False, solver="svd")
            .fit(features[known], scaled[known])
            .coef_
        )
    return np.stack(weights), told


def penalty(reward, verbosity):
    """The smallest lambda >= 0 that brings the Spearman correlation of reward - lambda * verbosity to 0.03 or less."""
    from scipy.stats import spearmanr

    def too_much(penalty):
        return spearmanr(reward - penalty * verbosity, verbosity).statistic > 0.03

    low, high = 0.0, 1.0
    if not too_much(low):
        return low
    while too_much(high):
        low, high = high, 2 * high
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if too_much(middle) else (low, middle)
    return high
