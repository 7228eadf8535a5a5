"""For 2c_armorm.py: hidden states of chats, ratings, regression heads, penalties for verbosity."""

import math
import sys
import time
from dataclasses import dataclass

from common import batches, models, rows

QUESTIONS = ("question", "And another?")
# The first characters of a response may merge with the last ones of the template's header into one
# token, so responses of several beginnings are compared.
RESPONSES = ("word", "\n\nword", " word", "1", ")", ":")
MIN_RATED_ROWS = 10  # of an objective, and for a correlation
MAX_CORRELATION = 0.03  # Spearman's, of a corrected reward with verbosity
ALPHAS = 17  # of the ridge regressions, between 1e-4 and 1e4


# Hidden states


def gate_pattern(tokenizer, where):
    """The token ids with which every prompt ends, whatever the question and the response are.

    In Llama 3: <|eot_id|> and the header of the assistant. Empty if the template marks no end.
    where: FILE:LINE or a model, named where the template refuses a chat.
    """
    prompts = []
    for question in QUESTIONS:
        texts = []
        for response in RESPONSES:
            chat = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": response},
            ]
            texts.append(models.render(tokenizer, chat, where))
        token_ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        # The tokens before the response, whatever its beginning.
        prompts.append(common_start(token_ids))
    # The end of the prompts is the start of the reversed ones.
    reversed_prompts = [prompt[::-1] for prompt in prompts]
    return common_start(reversed_prompts)[::-1]


def common_start(sequences):
    """The elements that all sequences begin with."""
    start = []
    for elements in zip(*sequences, strict=False):
        if len(set(elements)) > 1:
            break
        start.append(elements[0])
    return start


def contains(token_ids, pattern):
    for start in range(len(token_ids) - len(pattern) + 1):
        if token_ids[start : start + len(pattern)] == pattern:
            return True
    return False


def features_of(model, tokenizer, chats, batch_tokens, file):
    """The hidden states of each chat at the ends of its prompt and its response, (2, hidden size).

    None for a chat that is too long, or that lacks the tokens that end a prompt.
    chats: (FILE:LINE, messages) of each. file: keeps the result, so that a run that was killed and
    goes on does not compute it again.
    """
    import torch

    if file.exists():
        return torch.load(file)
    texts = [models.render(tokenizer, messages, where) for where, messages in chats]
    token_ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    usable, dropped = usable_chats(token_ids, model.config)
    if not usable:
        sys.exit(f"{tokenizer.name_or_path}: {file.stem}: no chat is left ({dropped})")

    def length(index):
        return len(token_ids[index])

    features = [None] * len(chats)
    start = time.time()
    done = shown = 0
    for batch in batches.by_length(usable, length, batch_tokens):
        hidden_states = last_hidden_states(model, tokenizer, [token_ids[i] for i in batch])
        for i, states in zip(batch, hidden_states, strict=True):
            features[i] = states
        done += len(batch)
        # Ten lines in all, and one at the end.
        if done >= shown + len(usable) / 10 or done == len(usable):
            shown = done
            seconds_left = (time.time() - start) / done * (len(usable) - done)
            progress = f"{done} of {len(usable)} chats, {seconds_left:.0f} s left"
            print(f"{file.stem}: {progress}; {dropped}", flush=True)
    # Renamed when it is complete: a kill leaves no half of it under the final name.
    partial = file.with_suffix(".partial")
    torch.save(features, partial)
    partial.replace(file)
    return features


def usable_chats(token_ids, config):
    """Indexes of the chats that fit the context and have an end of their prompt; a text of counts
    of the others."""
    max_length = config.get_text_config().max_position_embeddings
    short = [i for i, ids in enumerate(token_ids) if len(ids) <= max_length]
    usable = [i for i in short if contains(token_ids[i], config.gate_pattern)]
    too_long = len(token_ids) - len(short)
    without_end = len(short) - len(usable)
    return usable, f"too long: {too_long}, without the end of a prompt: {without_end}"


def last_hidden_states(model, tokenizer, token_ids):
    """(batch, 2, hidden size) in float32 on the CPU: at the ends of prompt and response."""
    import torch

    padded = tokenizer.pad({"input_ids": token_ids}, padding_side="right", return_tensors="pt")
    with torch.inference_mode():
        prompt_and_response = model.features(**padded.to(model.device))
        return torch.stack(prompt_and_response, 1).float().cpu()


# Ratings


@dataclass
class Ratings:
    rows: list
    objectives: list[str]
    table: list[list[float]]  # (rows, objectives), nan where a rating is missing


def read_ratings(path):
    """The Ratings of a file; exit at an objective that cannot be learned."""
    rated_rows = list(rows.read(path, "ratings"))
    objectives = {}  # a dictionary keeps the order in which they are first met
    for row in rated_rows:
        objectives |= dict.fromkeys(row["ratings"])
    table = [table_line(row["ratings"], objectives) for row in rated_rows]
    for index, objective in enumerate(objectives):
        column = [line[index] for line in table if not math.isnan(line[index])]
        if len(set(column)) < 2:
            sys.exit(f"{path}: ratings: {objective} has one value at most")
        if len(column) < MIN_RATED_ROWS:
            counts = f"{len(column)} rows, at least {MIN_RATED_ROWS} are needed"
            sys.exit(f"{path}: ratings: {objective} is rated in {counts}")
    return Ratings(rated_rows, list(objectives), table)


def table_line(ratings, objectives):
    line = []
    for objective in objectives:
        rating = ratings.get(objective)
        line.append(math.nan if rating is None else rating)
    return line


# Heads


def fit_heads(features, table, held_out, objectives):
    """Weights (objectives, hidden size) of ridge regressions, and {objective: its summary}.

    features: (rows, hidden size). table: (rows, objectives). held_out: (rows,), bool, rows that
    only the correlations see.
    """
    import numpy as np

    weights = []
    summaries = {}
    for objective, ratings in zip(objectives, table.T, strict=True):
        head, summaries[objective] = fit_head(features, ratings, held_out)
        weights.append(head)
    return np.stack(weights), summaries


def fit_head(features, ratings, held_out):
    """Weights (hidden size,) of the ridge regression of one objective, and its summary.

    A fifth of the rows that are not held out chooses alpha. The correlation is that of the held-out
    rows, or of that fifth where too few of them are rated.
    """
    import numpy as np
    from sklearn.linear_model import Ridge

    def ridge(alpha, training_rows):
        regression = Ridge(alpha=alpha, fit_intercept=False, solver="svd")
        return regression.fit(features[training_rows], scaled[training_rows])

    lowest = np.nanmin(ratings)
    scaled = (ratings - lowest) / (np.nanmax(ratings) - lowest)
    is_rated = ~np.isnan(ratings)
    learned = np.flatnonzero(is_rated & ~held_out)
    shuffled = np.random.default_rng(0).permutation(learned)
    validation, training = np.split(shuffled, [len(shuffled) // 5])

    # The mean squared error on the validation rows chooses alpha.
    regressions = {}
    errors = {}
    for alpha in np.logspace(-4, 4, ALPHAS):
        regressions[alpha] = ridge(alpha, training)
        predicted = regressions[alpha].predict(features[validation])
        errors[alpha] = np.mean((predicted - scaled[validation]) ** 2)
    best_alpha = min(errors, key=errors.get)

    test = np.flatnonzero(is_rated & held_out)
    if len(test) < MIN_RATED_ROWS:
        test = validation
    predicted = regressions[best_alpha].predict(features[test])
    summary = {
        "rows": len(learned),
        "alpha": float(best_alpha),
        "correlation": float(np.corrcoef(predicted, scaled[test])[0, 1]),
        "of": len(test),
    }
    # The head itself is fitted on all rows, those that chose alpha too.
    return ridge(best_alpha, learned).coef_, summary


def penalty(reward, verbosity):
    """The smallest lambda >= 0 that frees a reward from verbosity, to 1e-4.

    reward, verbosity: (responses,). Free means: the Spearman correlation of
    reward - lambda * verbosity with verbosity is at most MAX_CORRELATION.
    """
    from scipy.stats import spearmanr

    def is_correlated(penalty):
        return spearmanr(reward - penalty * verbosity, verbosity).statistic > MAX_CORRELATION

    if not is_correlated(0.0):
        return 0.0
    low = 0.0
    high = 1.0
    while is_correlated(high):
        low = high
        high = 2 * high
    # The correlation falls with lambda: bisection keeps low correlated and high free.
    while high - low > 1e-4:
        middle = (low + high) / 2
        if is_correlated(middle):
            low = middle
        else:
            high = middle
    return high
