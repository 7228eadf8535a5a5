"""The scores of a row's responses, and which of them can be trained on. For the scripts 2*."""

from common import trajectories


def penalised_scores(row, length_penalty):
    """The score of each response: its reward minus the penalty times its characters (eq. 9).

    Of several turns the assistant's characters count.
    """
    scores = []
    for reward, response in zip(row["rewards"], row["responses"], strict=True):
        scores.append(reward - length_penalty * len(trajectories.said(response)))
    return scores


def trainable(row):
    """Indexes of the responses that are neither truncated nor have an empty turn."""
    indexes = []
    for i, response in enumerate(row["responses"]):
        is_empty = not all(turn["content"].strip() for turn in trajectories.turns(response))
        if row["finish_reasons"][i] != "length" and not is_empty:
            indexes.append(i)
    return indexes
