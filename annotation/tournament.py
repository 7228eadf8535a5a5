"""The linear tournament: the best and the worst of n responses, for 1b and 1c.

Whoever runs it decides how a match is judged, by a model in batches or by requests to a server.
"""


def linear(n):
    """A generator that yields the next match (i, j) of n >= 2 responses and is sent P(i beats j).

    Each response meets the best so far; then each of the others meets the worst so far. At most
    2n - 3 matches are yielded, none of them twice. Returns the rewards: the best 1, the worst 0,
    the rest 0.5; all 0.5 where every match was a tie.
    """
    probabilities = {}  # of the matches so far, {(i, j): P(i beats j)}

    best = 0
    for challenger in range(1, n):
        probability = yield best, challenger
        probabilities[best, challenger] = probability
        if probability < 0.5:
            best = challenger

    others = [i for i in range(n) if i != best]
    worst = others[0]
    for challenger in others[1:]:
        match = (worst, challenger)
        # Where the worst so far once was the best so far, the two have met already.
        if match not in probabilities:
            probabilities[match] = yield match
        if probabilities[match] >= 0.5:
            worst = challenger

    # A judge that goes by position alone gives 0.5, up to rounding, in the mean of both orders.
    if all(abs(probability - 0.5) < 1e-6 for probability in probabilities.values()):
        return [0.5] * n
    rewards = [0.5] * n
    rewards[best] = 1.0
    rewards[worst] = 0.0
    return rewards
