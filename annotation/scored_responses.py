"""The scores of a row's responses, and which of them can be trained on. For the scripts 2*."""


def penalised_scores(row, length_penalty):
    """The score of each response: its reward minus the penalty times its characters (eq. 9)."""
    scores = []
    for reward, response in zip(row["rewards"], row["responses"], strict=True):
        scores.append(reward - length_penalty * len(response))
    return scores


def trainable(row):
    """Indexes of the responses that are neither truncated nor empty."""
    indexes = []
    for i, response in enumerate(row["responses"]):
        if row["finish_reasons"][i] != "length" and response.strip():
            indexes.append(i)
    return indexes
