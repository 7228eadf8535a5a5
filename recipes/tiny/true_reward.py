"""The true reward r* of the tiny world, known because we made the world.

    r*(x, y) = 2 correct + manner + length          (at most 3)

- correct: 1 if the final answer of y equals the answer of x, else 0. The final answer is what
  follows the last "is", up to the end of its sentence. Capitals do not count.
- manner: 0.5 for a full sentence ("the answer is"), and 0.5 more for a reason before it
  ("Since ...").
- length: 0 up to 60 characters, then -1 for every further 60.

A human rater of this world feels r* + TASTE_FOR_LENGTH * characters / 60, and prefers y1 to y2 with
probability sigmoid((felt(y1) - felt(y2)) / NOISE): the Bradley-Terry model (paper, Definition 2)
with a bias. Up to 60 characters length pleases the rater and means nothing to r*; beyond, it costs
the rater half of what it costs r*. So a reward model that is learned from such labels likes a short
answer better with some rambling than without; r* does not.
"""

import math
import re

TASTE_FOR_LENGTH = 0.5
NOISE = 0.3


def final_answer(response):
    last = re.split(r"\bis\b", response)[-1]
    return last.split(".")[0].strip().lower()


def parts(response, answer):
    """The three terms of r* by name."""
    full_sentence = "the answer is" in response.lower()
    reason = response.startswith("Since ")
    return {
        "correct": float(final_answer(response) == answer.lower()),
        "manner": 0.5 * full_sentence + 0.5 * reason,
        "length": -max(0, len(response) - 60) / 60,
    }


def true_reward(response, answer):
    part = parts(response, answer)
    return 2 * part["correct"] + part["manner"] + part["length"]


def felt(response, answer):
    """What a rater feels, who likes length."""
    return true_reward(response, answer) + TASTE_FOR_LENGTH * len(response) / 60


def probability_preferred(first, second, answer):
    """The probability that a rater prefers the first response."""
    difference = felt(first, answer) - felt(second, answer)
    return 1 / (1 + math.exp(-difference / NOISE))
