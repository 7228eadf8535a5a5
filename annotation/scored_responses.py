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
    """Indexes of the responses that are not truncated and have no empty turn of the assistant."""
    indexes = []
    for i, response in enumerate(row["responses"]):
        said = []
        for turn in trajectories.turns(response):
            if turn["role"] == "assistant":
                said.append(turn["content"].strip())
        if row["finish_reasons"][i] != "length" and all(said):
            indexes.append(i)
    return indexes
