"""For 2c_armorm.py: hidden states, and of the objectives the ratings, regression heads and penalties for verbosity."""

import math
import sys
import time

import rows
from common import models


def features_of(model, tokenizer, chats, batch_tokens, file):
    """For each chat, (FILE:LINE, messages), the hidden states (2, hidden size) at the ends of prompt and response; None
    if it is too long.

    They are kept in the file, so that a run that was killed does not make them again.
    """
    import torch

    if file.exists():
        return torch.load(file)
    texts = [models.render(tokenizer, messages, place) for place, messages in chats]
    ids = tokenizer(texts, add_special_tokens=False)
    ids, limit, features = ids["input_ids"], model.config.max_position_embeddings, [None] * len(chats)
    order = sorted((i for i in range(len(ids)) if len(ids[i]) <= limit), key=lambda i: len(ids[i]), reverse=True)
    start, told, fit = time.time(), 0, len(order)
    while order:
        size = max(1, batch_tokens // len(ids[order[0]]))
        batch, order = order[:size], order[size:]
        padded = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, padding_side="right", return_tensors="pt")
        with torch.inference_mode():
            both = torch.stack(model.features(**padded.to(model.device)), 1).float().cpu()
        for i, feature in zip(batch, both, strict=True):
            features[i] = feature
        done = fit - len(order)
        if done >= told + fit / 10 or not order:
            told, left = done, (time.time() - start) / done * len(order)
            print(f"{file.stem}: {done} of {fit} chats, {left:.0f} s left; too long: {len(ids) - fit}", flush=True)
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
        [math.nan if row["ratings"].get(name) is None else row["ratings"][name] for name in names] for row in rated
    ]
    for name, column in zip(names, zip(*table, strict=True), strict=True):
        known = [value for value in column if value == value]
        if len(set(known)) < 2:
            sys.exit(f"{path}: ratings: {name} has one value at most")
        if len(known) < 10:
            sys.exit(f"{path}: ratings: {name} is rated in {len(known)} rows, at least 10 are needed")
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
            ridge = Ridge(alpha=alpha, fit_intercept=False, solver="svd").fit(features[fit], scaled[fit])
            errors[alpha] = np.mean((ridge.predict(features[judge]) - scaled[judge]) ** 2), ridge
        alpha = min(errors, key=lambda a: errors[a][0])
        test = np.flatnonzero(test) if test.sum() >= 10 else judge
        correlation = np.corrcoef(errors[alpha][1].predict(features[test]), scaled[test])[0, 1]
        told[name] = {"rows": len(known), "alpha": float(alpha), "correlation": float(correlation), "of": len(test)}
        weights.append(Ridge(alpha=alpha, fit_intercept=False, solver="svd").fit(features[known], scaled[known]).coef_)
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
