"""The public preference datasets of the paper's Table 5: how each is loaded, recognised and turned into comparisons.

A dataset is known by the fields of its first row, so that a local file of the published schema does as well as the
hub's name. A converter takes one row, a dictionary that all rows of its format share, and the smallest margin. It
yields each comparison of the row's answers as {"prompt", "chosen", "rejected", "margin"?} in messages, or else the
reason why that comparison is dropped. The margin is the difference of two absolute scores, in the dataset's own points.
A row that is not of the schema raises a ValueError that names the field.
"""

import itertools
import re
import sys
import time
from collections import defaultdict
from pathlib import Path

from common import entrances, rows

# Table 5 as its authors publish it, in one format: 848,965 pairs, from which they have taken what they clean.
STANDARD = [
    "RLHFlow/HH-RLHF-Helpful-standard", "RLHFlow/SHP-standard", "RLHFlow/Helpsteer-preference-standard",
    "RLHFlow/PKU-SafeRLHF-30K-standard", "RLHFlow/UltraFeedback-preference-standard",
    "RLHFlow/UltraInteract-filtered-standard", "RLHFlow/CodeUltraFeedback-standard",
    "RLHFlow/Argilla-Math-DPO-standard", "RLHFlow/Orca-distibalel-standard",
    "RLHFlow/Capybara-distibalel-Filter-standard",
]  # fmt: skip
# The same data from their first sources: the helpful part of HH-RLHF, and for Capybara the set of 14,811 pairs.
HH_RLHF = [f"Anthropic/hh-rlhf:helpful-{part}" for part in ("base", "rejection-sampled", "online")]
MIXES = {
    "mix1": [
        *HH_RLHF,
        "stanfordnlp/SHP",
        "openbmb/UltraFeedback",
        "openai/summarize_from_feedback:comparisons",
    ],
    "mix2": [
        *[
            *HH_RLHF,
            "stanfordnlp/SHP",
            "nvidia/HelpSteer",
            "PKU-Alignment/PKU-SafeRLHF-30K",
            "openbmb/UltraFeedback",
        ],
        *[
            "openbmb/UltraInteract_pair",
            "coseal/CodeUltraFeedback",
            "argilla/distilabel-math-preference-dpo",
        ],
        *["argilla/distilabel-intel-orca-dpo-pairs", "argilla/Capybara-Preferences-Filtered"],
    ],
    "standard": STANDARD,
}
REVISIONS = {
    "openai/summarize_from_feedback": "refs/convert/parquet"
}  # main holds a script, which datasets refuses
PAIRS_A_POST = 5  # of SHP (paper B.1)
SIDES = ("chosen", "rejected")
MIN_MARGIN = 0.5  # of the named sets, in their points (paper B.1, without a number); of others only ties are dropped
SCORES = (
    "{}_score",
    "score_{}",
    "{}_rating",
    "rating_{}",
    "{}-rating",
    "{}-score",
)  # how rows call those of a side
QUESTIONS = (
    "prompt",
    "context_messages",
    *entrances.CONVERSATIONS,
    "messages",
    *entrances.QUESTIONS,
)


def load(source, split):
    """Rows of a file (JSON lines or JSON, gzipped or not, Parquet), or of a hub dataset: NAME, or NAME:DIRECTORY."""
    if rows.is_file(source):
        return rows.of_file(source)
    name, _, directory = source.partition(":")
    return rows.of_library(
        source, name, split, data_dir=directory or None, revision=REVISIONS.get(name)
    )


def text(row, field):
    """A text. What the dataset leaves null is an empty one, and empty turns are dropped."""
    if not isinstance(row, dict) or field not in row:
        raise ValueError(f"{field}: missing")
    if not isinstance(row[field], str | None):
        raise ValueError(f"{field}: not a text")
    return row[field] or ""


def number(row, field):
    """A number, or None where the dataset gives none."""
    if not isinstance(row, dict):
        raise ValueError(f"{field}: missing")
    value = row.get(field)
    if value is None or value != value:
        return None
    if type(value) not in (int, float):
        raise ValueError(f"{field}: not a number")
    if not rows.is_number(value):
        raise ValueError(f"{field}: {rows.short(value)} is not a finite number")
    return value


def one_of(row, field, values):
    if row.get(field) not in values:
        raise ValueError(f"{field}: {row.get(field)!r} is none of {', '.join(map(str, values))}")
    return row[field]


def listed(row, field):
    if not isinstance(row.get(field), list):
        raise ValueError(f"{field}: not a list")
    return row[field]


def user(content):
    return [{"role": "user", "content": content}]


def assistant(content):
    return [{"role": "assistant", "content": content}]


def compare(prompt, first, second, min_margin):
    """Compare two answers (text, score): a tie prefers none, a small margin is noise (paper B.1)."""
    (worse, low), (better, high) = sorted([first, second], key=lambda answer: answer[1] or 0)
    margin = margin_between(high, low, min_margin)
    if isinstance(margin, str):
        return margin
    return {
        "prompt": prompt,
        "chosen": assistant(better),
        "rejected": assistant(worse),
        "margin": margin,
    }


def margin_between(chosen, rejected, min_margin):
    """The difference of two scores, in their points, or why the pair is dropped."""
    if chosen is None or rejected is None:
        return "unrated"
    if chosen == rejected:
        return "tie"
    if chosen < rejected:
        return "contradicted by its scores"
    margin = round(chosen - rejected, 4)
    return "small margin" if chosen - rejected < min_margin else margin


def compare_all(prompt, answers, min_margin):
    if len(answers) < 2:
        yield "fewer than two answers"
    for first, second in itertools.combinations(answers, 2):
        yield compare(prompt, first, second, min_margin)


def compare_labelled(prompt, chosen, rejected, min_margin):
    """Compare two answers of which the dataset calls the first the better."""
    margin = margin_between(chosen[1], rejected[1], min_margin)
    if isinstance(margin, str):
        return margin
    return {
        "prompt": prompt,
        "chosen": assistant(chosen[0]),
        "rejected": assistant(rejected[0]),
        "margin": margin,
    }


def split_conversations(chosen, rejected):
    """(prompt, chosen, rejected) of two whole conversations, or None if not only the last message differs."""
    shared = chosen and rejected and chosen[:-1] == rejected[:-1]
    return (chosen[:-1], chosen[-1:], rejected[-1:]) if shared else None


def transcript(row, field):
    """The messages of a text "\\n\\nHuman: ...\\n\\nAssistant: ..."."""
    start, *turns = re.split(r"\n\n(Human|Assistant):", text(row, field))
    if start.strip() or not turns:
        raise ValueError(f"{field}: not a transcript that starts with Human: or Assistant:")
    pairs = zip(turns[::2], turns[1::2], strict=True)
    return [(user if who == "Human" else assistant)(said.strip())[0] for who, said in pairs]


def hh_rlhf(row, seen, min_margin):
    """Anthropic/hh-rlhf: chosen, rejected, each a transcript."""
    parts = split_conversations(*(transcript(row, field) for field in SIDES))
    yield dict(zip(("prompt", *SIDES), parts, strict=True)) if parts else "different prompts"


def nectar(row, seen, min_margin):
    """berkeley-nest/Nectar: prompt (a transcript that ends where the answer begins), answers [{answer, rank}], seven as
    GPT-4 ranks them. For the paper's offline DPO (B.3): a pair of the best and the worst, as the rounds make it; all
    comparisons would be 3.8 million."""
    *prompt, last = transcript(row, "prompt")
    answers = sorted(
        (number(answer, "rank") or 0, text(answer, "answer")) for answer in listed(row, "answers")
    )
    if last["role"] != "assistant" or last["content"]:
        raise ValueError("prompt: does not end with Assistant:")
    if len(answers) < 2 or answers[0][0] == answers[-1][0]:
        yield "fewer than two answers" if len(answers) < 2 else "tie"
    else:
        yield {
            "prompt": prompt,
            "chosen": assistant(answers[0][1]),
            "rejected": assistant(answers[-1][1]),
        }


def shp(row, seen, min_margin):
    """stanfordnlp/SHP, a row a pair of comments: post_id, history (the post), human_ref_A and _B, score_A and _B, and
    labels (1: A is preferred). Scores are votes: their ratio counts, above 2, and the first 5 such pairs of a post."""
    a, b = number(row, "score_A"), number(row, "score_B")
    post = text(row, "post_id")
    if a is None or b is None:
        yield "unrated"
    elif max(a, b) <= 2 * min(a, b):
        yield "score ratio of 2 or less"
    elif (one_of(row, "labels", (0, 1)) == 1) != (a > b):
        yield "contradicted by its scores"
    elif seen.get(post, 0) == PAIRS_A_POST:
        yield f"over {PAIRS_A_POST} pairs a prompt"
    else:
        seen[post] = seen.get(post, 0) + 1
        answers = [assistant(text(row, f"human_ref_{side}")) for side in ("AB" if a > b else "BA")]
        yield {"prompt": user(text(row, "history")), "chosen": answers[0], "rejected": answers[1]}


def helpsteer(row, seen, min_margin):
    """nvidia/HelpSteer, a row an answer: prompt, response, ratings from 0 to 4. The score is the mean of helpfulness,
    correctness and coherence: a set published by that mean (esfrankel17/HelpSteer_binarized) has the 8,592 prompts of
    Table 5. An answer is compared with the earlier ones to its prompt."""
    ratings = [number(row, field) for field in ("helpfulness", "correctness", "coherence")]
    answer = text(row, "response"), None if None in ratings else sum(ratings) / 3
    earlier = seen.setdefault(text(row, "prompt"), [])
    for other in earlier:
        yield compare(user(row["prompt"]), other, answer, min_margin)
    earlier.append(answer)


def pku_safe_rlhf(row, seen, min_margin):
    """PKU-Alignment/PKU-SafeRLHF-30K: prompt, response_0 and _1, is_response_0_safe and _1_safe (none of 14 kinds of
    harm), better_response_id, safer_response_id. The two labels become one: the better one of two safe answers, or else
    the safer one."""
    safe = [one_of(row, f"is_response_{i}_safe", (True, False)) for i in (0, 1)]
    better, safer = (
        one_of(row, field, (0, 1)) for field in ("better_response_id", "safer_response_id")
    )
    chosen = better if all(safe) else safer
    if any(safe) and not safe[chosen]:
        yield "contradicted by its safety labels"
    else:
        answers = [assistant(text(row, f"response_{i}")) for i in (chosen, 1 - chosen)]
        yield {"prompt": user(text(row, "prompt")), "chosen": answers[0], "rejected": answers[1]}


def ultrafeedback(row, seen, min_margin):
    """openbmb/UltraFeedback: instruction, completions [{response, fine-grained_score}]. The score is the mean of four
    ratings from 1 to 5 (overall_score was 10 for many bad answers in the first release)."""
    completions = listed(row, "completions")
    answers = [
        (text(answer, "response"), number(answer, "fine-grained_score")) for answer in completions
    ]
    yield from compare_all(user(text(row, "instruction")), answers, min_margin)


def ultrainteract(row, seen, min_margin):
    """openbmb/UltraInteract_pair: trajectory [{from, value}], and for its next action the texts chosen and rejected."""
    turns = [(text(turn, "from"), text(turn, "value")) for turn in listed(row, "trajectory")]
    prompt = [(user if who in ("user", "human") else assistant)(said)[0] for who, said in turns]
    yield {"prompt": prompt, **{field: assistant(text(row, field)) for field in SIDES}}


def code_ultrafeedback(row, seen, min_margin):
    """coseal/CodeUltraFeedback: instruction, responses [{model, response}], annotations [{model, rating}], the rating a
    text, "1" to "5" or "N/A"."""
    ratings = {text(note, "model"): text(note, "rating") for note in listed(row, "annotations")}
    ratings = {
        model: float(rating)
        for model, rating in ratings.items()
        if re.fullmatch(r"\d+(\.\d+)?", rating)
    }
    responses = [
        (text(answer, "response"), ratings.get(text(answer, "model")))
        for answer in listed(row, "responses")
    ]
    yield from compare_all(user(text(row, "instruction")), responses, min_margin)


def argilla_math(row, seen, min_margin):
    """argilla/distilabel-math-preference-dpo: instruction, {chosen,rejected}_response, {chosen,rejected}_rating."""
    answers = [(text(row, f"{side}_response"), number(row, f"{side}_rating")) for side in SIDES]
    yield compare_labelled(user(text(row, "instruction")), *answers, min_margin)


def openorca(row, seen, min_margin):
    """argilla/distilabel-intel-orca-dpo-pairs: system (often empty), input, chosen, rejected, status ("tie", "swapped",
    "unchanged"), rating (two numbers), chosen_score (the one of chosen)."""
    prompt = entrances.with_system(user(text(row, "input")), row)
    listed_ratings = [] if row.get("rating") is None else listed(row, "rating")
    ratings = [number({"rating": value}, "rating") for value in listed_ratings]
    score = number(row, "chosen_score")
    if text(row, "status") == "tie":
        yield "tie"
    elif score is None or len(ratings) != 2 or None in ratings:
        yield "unrated"
    else:
        answers = (text(row, "chosen"), score), (text(row, "rejected"), sum(ratings) - score)
        yield compare_labelled(prompt, *answers, min_margin)


def capybara(row, seen, min_margin):
    """argilla/Capybara-Preferences and -Filtered: chosen, rejected (whole conversations), ratings of both.
    The older argilla/distilabel-capybara-dpo-7k-binarized has rating_chosen, rating_rejected."""
    parts = split_conversations(*(entrances.messages(listed(row, side), side) for side in SIDES))
    if not parts:
        yield "different prompts"
        return
    prompt, *answers = parts
    scores = [
        number(row, f"{side}_rating" if f"{side}_rating" in row else f"rating_{side}")
        for side in SIDES
    ]
    answers = [
        (text(*answer, "content"), score) for answer, score in zip(answers, scores, strict=True)
    ]
    yield compare_labelled(prompt, *answers, min_margin)


def summarization(row, seen, min_margin):
    """openai/summarize_from_feedback, comparisons: info {subreddit, title, post, or else article}, summaries [{text}],
    choice (0 or 1)."""
    info, summaries = row["info"], listed(row, "summaries")
    if not isinstance(info, dict) or len(summaries) != 2:
        raise ValueError("summaries: not two, or no info about what they sum up")
    text_of = {"post": None, "article": None, **info}
    asked = text(text_of, "article") and f"{info['article']}\n\nTL;DR:"
    if text(text_of, "post"):
        asked = f"SUBREDDIT: r/{info.get('subreddit')}\n\nTITLE: {info.get('title')}\n\nPOST: {info['post']}\n\nTL;DR:"
    choice = one_of(row, "choice", (0, 1))
    answers = [assistant(text(summaries[i], "text").strip()) for i in (choice, 1 - choice)]
    yield {"prompt": user(asked), "chosen": answers[0], "rejected": answers[1]}


def trl(row, seen, min_margin):
    """TRL's own formats, and sets made ready in them or in LLaMA-Factory's.

    The answers are texts, messages, or one turn each ({"from", "value"}). The question stands in one of QUESTIONS, or
    before the answers in two whole conversations (hendrydong/preference_700K, RLHFlow's -standard sets). Every key that
    does not describe a row of another kind stays. A margin that the row has already stays too."""
    answers = [answer_of(row, side) for side in SIDES]
    field = entrances.field_of(row, QUESTIONS)
    lists = all(isinstance(row[side], list) for side in SIDES)
    whole = lists and all(len(side) > 1 and side[0]["role"] != "assistant" for side in answers)
    if whole or (field is None and lists):  # some sets repeat the prompt beside whole conversations
        parts = split_conversations(*answers)
    elif field is None:
        raise ValueError(
            "chosen: neither prompt/chosen/rejected nor two conversations with one prompt"
        )
    else:
        parts = [question_of(row, field), *answers]
    if not parts:
        yield "different prompts"
        return
    prompt, *answers = parts
    made = entrances.rest_of(row, () if field == "prompt" else entrances.used_with(field))
    made |= {"prompt": entrances.with_system(prompt, row)} | dict(zip(SIDES, answers, strict=True))
    if name := entrances.name_of(row):  # many a set on the hub has numbers
        made["id"] = name
    if scores := scores_of(row):
        margin = margin_between(*scores, min_margin)
        if isinstance(margin, str):
            yield margin
            return
        made["margin"] = margin if row.get("margin") is None else row["margin"]
    yield made


def answer_of(row, side):
    """The messages of one answer of a pair."""
    value = row.get(side)
    if isinstance(value, list | dict):
        return entrances.messages(value if isinstance(value, list) else [value], side)
    if not isinstance(value, str) and not rows.is_number(value):
        raise ValueError(f"{side}: neither a text nor messages")
    return assistant(str(value))


def question_of(row, field):
    """The messages of a question in that field; of a conversation, up to its last question."""
    if not isinstance(row[field], list):
        return entrances.asked(row, field)
    turns = entrances.messages(row[field], field)
    if field in ("prompt", "context_messages"):
        return turns
    return entrances.up_to_last(entrances.from_first_question(turns), "user")


def scores_of(row):
    """The scores of the chosen and the rejected answer, numbers or texts of numbers; None if the row lacks one."""
    for form in SCORES:
        scores = [as_number(row.get(form.format(side))) for side in SIDES]
        if None not in scores:
            return scores
    return None


def as_number(value):
    if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value.strip()):
        return float(value)
    return value if rows.is_number(value) else None


FORMATS = [  # the short name, the fields that tell the dataset, its converter
    ("SHP", "post_id history human_ref_A human_ref_B score_A score_B labels", shp),
    ("HelpSteer", "prompt response helpfulness correctness coherence", helpsteer),
    (
        "PKU-SafeRLHF-30K",
        "response_0 response_1 better_response_id safer_response_id",
        pku_safe_rlhf,
    ),
    ("UltraFeedback", "instruction completions", ultrafeedback),
    ("UltraInteract", "trajectory chosen rejected", ultrainteract),
    ("CodeUltraFeedback", "instruction responses annotations", code_ultrafeedback),
    (
        "Argilla-Math",
        "instruction chosen_response chosen_rating rejected_response rejected_rating",
        argilla_math,
    ),
    ("OpenOrca", "input chosen rejected rating status chosen_score", openorca),
    (
        "Capybara",
        "source chosen rejected chosen_rating rejected_rating chosen_model rejected_model",
        capybara,
    ),
    ("Capybara", "source conversation chosen rejected rating_chosen rating_rejected", capybara),
    ("Summarization", "info summaries choice", summarization),
    ("Nectar", "prompt answers good_natured", nectar),
]


def recognise(row):
    """(short name, converter) of the dataset that a row is of; TRL's formats have no name."""
    for name, fields, convert in FORMATS:
        if row.keys() >= set(fields.split()):
            return name, convert
    if not row.keys() >= set(SIDES):
        raise ValueError(f"row: of no known format (its fields: {', '.join(row)})")
    transcript = (
        row.get("prompt") is None
        and isinstance(row["chosen"], str)
        and "\n\nHuman:" in row["chosen"]
    )
    return ("HH-RLHF", hh_rlhf) if transcript else (None, trl)


def unusable(row):
    """What is wrong with a comparison as 'field: reason', or why it teaches nothing, or None."""
    if reason := rows.problem(row, "preferences"):
        return reason
    if not all(message["content"].strip() for side in SIDES for message in row[side]):
        return "empty answer"
    chosen, rejected = ([message["content"].strip() for message in row[side]] for side in SIDES)
    return "identical answers" if chosen == rejected else None


def comparisons(datasets, split, min_margin, counts, total=None):
    """Yield every comparison as (source, row, None), and every one that is dropped as (source, None, reason)."""
    start, seen = time.time(), defaultdict(dict)
    for dataset in datasets:
        known = None
        for row in load(dataset, split):
            counts["rows in"] += 1
            try:
                name, convert = known = known or recognise(row)
                smallest = (MIN_MARGIN if name else 0) if min_margin is None else min_margin
                found = list(convert(row, seen[name], smallest))
            except entrances.Dropped as reason:
                found = [str(reason)]
            except ValueError as error:
                rows.refuse(row, error)
            if (done := counts["rows in"]) % 10_000 == 0:
                rate = done / (time.time() - start)
                left = (
                    f" of {total} rows written, {rate:.0f}/s, {(total - done) / rate:.0f} s left"
                    if total
                    else ""
                )
                told = f"{done}" + (left or f" rows read, {rate:.0f}/s")
                print(told, end="\r" if sys.stdout.isatty() else "\n", flush=True)
            source = name or str(row.get("source") or dataset)
            for k, made in enumerate(found):
                reason = made
                if isinstance(made, dict):
                    name_of_row = f"{name or Path(dataset.removesuffix('.gz')).stem}-{done}"
                    made = {
                        "id": f"{name_of_row}-{k}" if k else name_of_row,
                        **made,
                        "source": source,
                    }
                    reason = unusable(made)
                if reason and reason.startswith("id: "):
                    rows.refuse(row, reason)
                yield (source, None, reason.split(" (")[0]) if reason else (source, made, None)
