"""The objectives of ArmoRM, for 2c_armorm.py: their ratings, regression heads, and penalties for verbosity."""

import math
import sys

import rows


def ratings_of(path):
    """(rows, names of the objectives, ratings as a (rows, objectives) list with nan where one is missing)."""
    rated, names = [], {}
    for number, row in enumerate(rows.read(path, "ratings"), 1):
        ratings = row["ratings"]
        known = ratings.values() if isinstance(ratings, dict) else [""]
        if not all(v is None or (type(v) in (int, float) and math.isfinite(v)) for v in known):
            sys.exit(f"{path}: row {number}: ratings: not numbers or null by objective")
        names |= dict.fromkeys(ratings)
        rated.append(row)
    table = [
        [math.nan if row["ratings"].get(name) is None else row["ratings"][name] for name in names] for row in rated
    ]
    for name, column in zip(names, zip(*table, strict=True), strict=True):
        if len({value for value in column if value == value}) < 2:
            sys.exit(f"{path}: ratings: {name} has one value at most")
    return rated, list(names), table


def fit_heads(features, table, names):
    """Weights (objectives, hidden size) of ridge regressions, and what is to be told of each."""
    import numpy as np
    from sklearn.linear_model import Ridge

    weights, told = [], {}
    train = np.random.default_rng(0).permutation(len(table)) >= len(table) // 5
    for name, ratings in zip(names, table.T, strict=True):
        known = ~np.isnan(ratings)
        scaled = (ratings - np.nanmin(ratings)) / (np.nanmax(ratings) - np.nanmin(ratings))
        fit, judge = known & train, known & ~train
        errors = {}
        for alpha in np.logspace(-4, 4, 17):
            ridge = Ridge(alpha=alpha, fit_intercept=False, solver="svd").fit(features[fit], scaled[fit])
            errors[alpha] = np.mean((ridge.predict(features[judge]) - scaled[judge]) ** 2), ridge
        alpha = min(errors, key=lambda a: errors[a][0])
        correlation = np.corrcoef(errors[alpha][1].predict(features[judge]), scaled[judge])[0, 1]
        told[name] = {"rows": int(known.sum()), "alpha": float(alpha), "correlation": float(correlation)}
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
