"""The scores of a row's responses, which of them can be trained on, and pairs of them.

For the scripts 2*.
"""

from common import rows, trajectories


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


def make_pair(row, chosen, rejected):
    """The row of a pair: the fields of the prompt, the two responses and their rewards."""
    pair = dict(row)
    for field in rows.per_response(row):
        del pair[field]
    # A judgement refers to the responses by their indexes.
    pair.pop("judgement", None)
    pair["chosen"] = trajectories.turns(row["responses"][chosen])
    pair["rejected"] = trajectories.turns(row["responses"][rejected])
    pair["chosen_reward"] = row["rewards"][chosen]
    pair["rejected_reward"] = row["rewards"][rejected]
    return pair
