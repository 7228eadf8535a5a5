"""The published schemas of the paper's preference datasets (Table 5), and how each becomes pairs.

The table SCHEMAS is at the end. A dataset is recognised by the fields of its first row, so a local
file of a published schema works as well as the hub's name. Each schema has a converter:

    converter(row, seen, min_margin)    row: one row of the dataset
                                        seen: a dictionary, empty at first, that all rows of the
                                        schema share
                                        min_margin: smallest difference of two scores to keep

It yields each pair of the row's answers as {"prompt", "chosen", "rejected", "margin"?} in messages,
or a text, the reason why that pair is dropped. margin: the difference of two absolute scores, in
the dataset's own points. A row that is not of the schema raises a ValueError, 'field: reason'.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from common import entrances
from preference_values import (
    SIDES,
    Answer,
    all_pairs,
    assistant,
    labelled_pair,
    listed,
    number,
    one_of,
    pair,
    scored_pair,
    split_conversations,
    text,
    transcript,
    user,
)

MAX_PAIRS_PER_POST = 5  # of SHP (paper B.1)


def hh_rlhf(row, seen, min_margin):
    """Anthropic/hh-rlhf: chosen and rejected, each a transcript."""
    chosen = transcript(row, "chosen")
    rejected = transcript(row, "rejected")
    yield split_conversations(chosen, rejected) or "different prompts"


def shp(row, seen, min_margin):
    """stanfordnlp/SHP: a row is a pair of comments on a post.

    post_id; history (the post); human_ref_A, human_ref_B; score_A, score_B (votes); labels
    (1: A is preferred). Votes count by their ratio, above 2. A post has its first 5 such pairs.
    """
    votes_a = number(row, "score_A")
    votes_b = number(row, "score_B")
    post = text(row, "post_id")
    if votes_a is None or votes_b is None:
        yield "unrated"
    elif max(votes_a, votes_b) <= 2 * min(votes_a, votes_b):
        yield "score ratio of 2 or less"
    elif (one_of(row, "labels", (0, 1)) == 1) != (votes_a > votes_b):
        yield "contradicted by its scores"
    elif seen.get(post, 0) == MAX_PAIRS_PER_POST:
        yield f"over {MAX_PAIRS_PER_POST} pairs a prompt"
    else:
        seen[post] = seen.get(post, 0) + 1
        better, worse = ("A", "B") if votes_a > votes_b else ("B", "A")
        chosen = text(row, f"human_ref_{better}")
        rejected = text(row, f"human_ref_{worse}")
        yield pair(user(text(row, "history")), chosen, rejected)


def helpsteer(row, seen, min_margin):
    """nvidia/HelpSteer: a row is an answer, compared with the earlier answers to its prompt.

    prompt; response; ratings from 0 to 4. The score is the mean of helpfulness, correctness and
    coherence: a set published by that mean (esfrankel17/HelpSteer_binarized) has the 8,592 prompts
    of Table 5.
    """
    ratings = [number(row, field) for field in ("helpfulness", "correctness", "coherence")]
    score = None if None in ratings else sum(ratings) / 3
    answer = Answer(text(row, "response"), score)
    # A row holds one answer: it is compared with those of the rows before it.
    earlier_answers = seen.setdefault(text(row, "prompt"), [])
    for earlier in earlier_answers:
        yield scored_pair(user(row["prompt"]), earlier, answer, min_margin)
    earlier_answers.append(answer)


def pku_safe_rlhf(row, seen, min_margin):
    """PKU-Alignment/PKU-SafeRLHF-30K: a row is a pair with two labels, which become one.

    prompt; response_0, response_1; is_response_0_safe, is_response_1_safe (none of 14 kinds of
    harm); better_response_id; safer_response_id. Chosen is the better of two safe answers,
    otherwise the safer one.
    """
    safe = [one_of(row, f"is_response_{i}_safe", (True, False)) for i in (0, 1)]
    better = one_of(row, "better_response_id", (0, 1))
    safer = one_of(row, "safer_response_id", (0, 1))
    chosen = better if all(safe) else safer
    # One answer is safe, and the labels prefer the other.
    if any(safe) and not safe[chosen]:
        yield "contradicted by its safety labels"
        return
    answers = [text(row, f"response_{i}") for i in (chosen, 1 - chosen)]
    yield pair(user(text(row, "prompt")), *answers)


def ultrafeedback(row, seen, min_margin):
    """openbmb/UltraFeedback: instruction, completions [{response, fine-grained_score}].

    The score is the mean of four ratings from 1 to 5. (overall_score was 10 for many bad answers
    in the first release.)
    """
    answers = []
    for completion in listed(row, "completions"):
        response = text(completion, "response")
        answers.append(Answer(response, number(completion, "fine-grained_score")))
    yield from all_pairs(user(text(row, "instruction")), answers, min_margin)


def ultrainteract(row, seen, min_margin):
    """openbmb/UltraInteract_pair: trajectory [{from, value}], and chosen and rejected, the texts
    of its next action."""
    prompt = []
    for turn in listed(row, "trajectory"):
        message = user if text(turn, "from") in ("user", "human") else assistant
        prompt += message(text(turn, "value"))
    yield pair(prompt, text(row, "chosen"), text(row, "rejected"))


def code_ultrafeedback(row, seen, min_margin):
    """coseal/CodeUltraFeedback: instruction, responses [{model, response}], annotations
    [{model, rating}], where a rating is a text, "1" to "5" or "N/A"."""
    scores = {}  # {model: score or None}
    for annotation in listed(row, "annotations"):
        model = text(annotation, "model")
        rating = text(annotation, "rating")
        # What is no number, "N/A", is no score.
        scores[model] = float(rating) if re.fullmatch(r"\d+(\.\d+)?", rating) else None
    # The two lists may be in different orders: a model's name joins them.
    answers = []
    for answer in listed(row, "responses"):
        response = text(answer, "response")
        answers.append(Answer(response, scores.get(text(answer, "model"))))
    yield from all_pairs(user(text(row, "instruction")), answers, min_margin)


def argilla_math(row, seen, min_margin):
    """argilla/distilabel-math-preference-dpo: instruction; chosen_response, rejected_response;
    chosen_rating, rejected_rating."""
    answers = []
    for side in SIDES:
        answers.append(Answer(text(row, f"{side}_response"), number(row, f"{side}_rating")))
    yield labelled_pair(user(text(row, "instruction")), *answers, min_margin)


def openorca(row, seen, min_margin):
    """argilla/distilabel-intel-orca-dpo-pairs: system (often empty); input; chosen, rejected;
    status ("tie", "swapped", "unchanged"); rating (two numbers); chosen_score (chosen's of them).
    """
    prompt = entrances.with_system(user(text(row, "input")), row)
    ratings = []
    if row.get("rating") is not None:
        ratings = [number({"rating": value}, "rating") for value in listed(row, "rating")]
    chosen_score = number(row, "chosen_score")
    if text(row, "status") == "tie":
        yield "tie"
    elif chosen_score is None or len(ratings) != 2 or None in ratings:
        yield "unrated"
    else:
        chosen = Answer(text(row, "chosen"), chosen_score)
        # chosen_score is one of the two ratings: the other is the rejected answer's.
        rejected = Answer(text(row, "rejected"), sum(ratings) - chosen_score)
        yield labelled_pair(prompt, chosen, rejected, min_margin)


def capybara(row, seen, min_margin):
    """argilla/Capybara-Preferences and -Filtered: chosen and rejected, each a conversation;
    chosen_rating, rejected_rating.

    The older argilla/distilabel-capybara-dpo-7k-binarized has rating_chosen, rating_rejected.
    """
    conversations = [entrances.messages(listed(row, side), side) for side in SIDES]
    parts = split_conversations(*conversations)
    if not parts:
        yield "different prompts"
        return
    scores = []
    for side in SIDES:
        # The newer name, or the older set's.
        field = f"{side}_rating" if f"{side}_rating" in row else f"rating_{side}"
        scores.append(number(row, field))
    answers = []
    for side, score in zip(SIDES, scores, strict=True):
        (message,) = parts[side]
        answers.append(Answer(text(message, "content"), score))
    yield labelled_pair(parts["prompt"], *answers, min_margin)


def summarization(row, seen, min_margin):
    """openai/summarize_from_feedback, comparisons: info {subreddit, title, post, or else article},
    summaries [{text}], choice (0 or 1)."""
    info = row.get("info")
    summaries = listed(row, "summaries")
    if not isinstance(info, dict) or len(summaries) != 2:
        raise ValueError("summaries: not two, or no info about what they sum up")
    question = summarization_question(info)
    choice = one_of(row, "choice", (0, 1))
    answers = [text(summaries[i], "text").strip() for i in (choice, 1 - choice)]
    yield pair(user(question), *answers)


def summarization_question(info):
    """A post with its title, or an article, and TL;DR:; empty where there is neither."""
    # A post has no article, and an article no post.
    info = {"post": None, "article": None, **info}
    article = text(info, "article")
    post = text(info, "post")
    if post:
        title = f"SUBREDDIT: r/{info.get('subreddit')}\n\nTITLE: {info.get('title')}"
        return f"{title}\n\nPOST: {post}\n\nTL;DR:"
    return f"{article}\n\nTL;DR:" if article else ""


def nectar(row, seen, min_margin):
    """berkeley-nest/Nectar: prompt (a transcript that ends where the answer begins), answers
    [{answer, rank}], seven, ranked by GPT-4.

    For the paper's offline DPO (B.3): a pair of the best and the worst answer, as in the iterations
    of the loop. All comparisons would be 3.8 million.
    """
    *prompt, last = transcript(row, "prompt")
    # (rank, text): equal ranks are in the order of their texts.
    ranked = []
    for answer in listed(row, "answers"):
        rank = number(answer, "rank") or 0
        ranked.append((rank, text(answer, "answer")))
    ranked.sort()
    if last["role"] != "assistant" or last["content"]:
        raise ValueError("prompt: does not end with Assistant:")
    if len(ranked) < 2:
        yield "fewer than two answers"
        return
    best_rank, best = ranked[0]
    worst_rank, worst = ranked[-1]
    yield "tie" if best_rank == worst_rank else pair(prompt, best, worst)


@dataclass
class Schema:
    name: str | None  # of the source in the output; None: each row names its own
    fields: str  # a row that has all of them is of this schema
    convert: Callable


# The first schema that fits a row is taken.
SCHEMAS = [
    Schema(
        name="SHP",
        fields="post_id history human_ref_A human_ref_B score_A score_B labels",
        convert=shp,
    ),
    Schema(
        name="HelpSteer",
        fields="prompt response helpfulness correctness coherence",
        convert=helpsteer,
    ),
    Schema(
        name="PKU-SafeRLHF-30K",
        fields="response_0 response_1 better_response_id safer_response_id",
        convert=pku_safe_rlhf,
    ),
    Schema(
        name="UltraFeedback",
        fields="instruction completions",
        convert=ultrafeedback,
    ),
    Schema(
        name="UltraInteract",
        fields="trajectory chosen rejected",
        convert=ultrainteract,
    ),
    Schema(
        name="CodeUltraFeedback",
        fields="instruction responses annotations",
        convert=code_ultrafeedback,
    ),
    Schema(
        name="Argilla-Math",
        fields="instruction chosen_response chosen_rating rejected_response rejected_rating",
        convert=argilla_math,
    ),
    Schema(
        name="OpenOrca",
        fields="input chosen rejected rating status chosen_score",
        convert=openorca,
    ),
    Schema(
        name="Capybara",
        fields="source chosen rejected chosen_rating rejected_rating chosen_model rejected_model",
        convert=capybara,
    ),
    Schema(
        name="Capybara",
        fields="source conversation chosen rejected rating_chosen rating_rejected",
        convert=capybara,
    ),
    Schema(
        name="Summarization",
        fields="info summaries choice",
        convert=summarization,
    ),
    Schema(
        name="Nectar",
        fields="prompt answers good_natured",
        convert=nectar,
    ),
]
# Its fields are those of many sets: a row is of this schema if its answers are transcripts, too.
HH_RLHF = Schema(name="HH-RLHF", fields="chosen rejected", convert=hh_rlhf)
