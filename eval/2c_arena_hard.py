"""Arena-Hard v0.1: a judge compares each answer with a baseline's, in both orders (paper 4.1).

The judge reads the official prompt at temperature 0; the last verdict of a reply counts, in [[A>B]]
or else in [A>B], as the official scorer reads it. The judge's thoughts, before </think>, hold no
verdict. A game is one reply of the judge, two per question; [[A>>B]] and [[B>>A]] count three
times, [[A=B]] as half a win. The score is the mean over all games, which against one baseline is
the Bradley-Terry win rate; its 95% interval comes from 100 bootstraps of the games, as the official
scorer makes it. A question whose two games do not both have a verdict is left out and counted,
never guessed. Replies are kept as they arrive: after an interruption the same command resumes, and
no request is paid for twice. A key is read from OPENAI_API_KEY.

Reads:  --answers_file from 1_answers.py; --questions_file, --baseline_file (gpt-4-0314's answers)
        and --prompts_file {"system_prompt", "prompt_template"}, by default the published ones
Writes: --output_dir, judgments.jsonl in the official format {"uid", "category", "judge", "model",
        "baseline", "games"}; arena_hard.json, score, interval and mean lengths, with judge and
        date; replies.jsonl, what was paid for; refused.jsonl, refused requests with the judge's
        words

    python eval/2c_arena_hard.py --answers_file my_arena_hard/answers.jsonl \
        --judge_url http://localhost:8000/v1 --judge_model my_judge --output_dir my_arena_hard
"""

import datetime
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import judging
import published
from common import arguments, judge, outputs, rows, tables

# Results of the answer shown as A: 1 for a win, 0 for a loss, as often as the verdict counts.
WINS = {
    "A>>B": [1, 1, 1],
    "A>B": [1],
    "A=B": [0.5],
    "B=A": [0.5],
    "B>A": [0],
    "B>>A": [0, 0, 0],
    "A<B": [0],
    "A<<B": [0, 0, 0],
    "B<A": [1],
    "B<<A": [1, 1, 1],
}
FILES = ("judgments.jsonl", "arena_hard.json", "replies.jsonl", "refused.jsonl")
BOOTSTRAPS = 100
REPLY_TOKENS = 4096
# Which answer is shown as A.
BASELINE_FIRST = 0
MODEL_FIRST = 1
GAMES = (BASELINE_FIRST, MODEL_FIRST)


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--answers_file", required=True)
    for name in ("questions", "baseline", "prompts"):
        parser.add_argument(f"--{name}_file", help="(default: the official, at a pinned commit)")
    parser.add_output("--output_dir", "folder", FILES, type=Path, required=True)
    judging.add_flags(parser)
    return parser.parse_args()


# Inputs


@dataclass
class Player:
    """One side of the games."""

    name_by_question: dict  # {uid: the model's name}
    text_by_question: dict  # {uid: the answer}

    def names(self):
        return ", ".join(sorted(set(self.name_by_question.values())))

    def mean_length(self):
        """Characters of an answer."""
        return fmean(map(len, self.text_by_question.values()))


def read_player(file, questions):
    answers = published.read(file, "arena_hard_answers")
    published.answered(questions, answers, file)
    name_by_question = {}
    text_by_question = {}
    for uid, answer in answers.items():
        name_by_question[uid] = answer["model"]
        text_by_question[uid] = answer["messages"][-1]["content"]["answer"]
    return Player(name_by_question, text_by_question)


def read_prompt(path):
    """(system prompt, template) of the official file of settings."""
    import yaml

    try:
        settings = yaml.safe_load(published.local(path).read_text(encoding="utf-8"))
        system = settings["system_prompt"] + ""  # a TypeError if it is no text
        template = settings["prompt_template"][0] + ""
        template.format(question_1="", answer_1="", answer_2="")  # fails on other fields
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        yaml.YAMLError,
    ) as error:
        sys.exit(f"{path}: system_prompt, prompt_template: not as in Arena-Hard v0.1 ({error})")
    return system, template


# Games


def make_messages(questions, model, baseline, system, template):
    """{(uid, game): messages for the judge} of two games a question."""
    messages_by_game = {}
    for uid, question in questions.items():
        model_text = model.text_by_question[uid]
        baseline_text = baseline.text_by_question[uid]
        sides = {
            BASELINE_FIRST: {"answer_1": baseline_text, "answer_2": model_text},
            MODEL_FIRST: {"answer_1": model_text, "answer_2": baseline_text},
        }
        for game, shown in sides.items():
            user = template.format(question_1=question["prompt"], **shown)
            messages_by_game[uid, game] = [
                {"role": "system", "content": system},
                {"role": "user", "content": user},
            ]
    return messages_by_game


def verdict(reply):
    """The last verdict in a reply without thoughts, or None; reply: None if refused."""
    candidates = judge.verdicts((reply or "").upper(), r"([AB]\s*[<>=]+\s*[AB])")
    verdicts = []
    for candidate in candidates:
        without_blanks = "".join(candidate.split())
        if without_blanks in WINS:
            verdicts.append(without_blanks)
    return verdicts[-1] if verdicts else None


def make_judgments(questions, model, baseline, choices, messages_by_game, judge_model):
    """Rows in the official format; choices: what the judge replied to each game."""
    replies = judging.without_thoughts(choices)
    judgments = []
    for uid, question in questions.items():
        games = []
        for game in GAMES:
            choice = choices[uid, game]
            games.append(
                {
                    "score": verdict(replies[uid, game]),
                    "judgment": {"answer": choice and choice["text"]},
                    "prompt": messages_by_game[uid, game],
                }
            )
        judgments.append(
            {
                "uid": uid,
                "category": question["category"],
                "judge": judge_model,
                "model": model.name_by_question[uid],
                "baseline": baseline.name_by_question[uid],
                "games": games,
            }
        )
    return judgments


def wins_of(games):
    """The model's results in the two games of a question, or None unless both have a verdict."""
    as_b = WINS.get(games[BASELINE_FIRST]["score"])
    as_a = WINS.get(games[MODEL_FIRST]["score"])
    if as_a is None or as_b is None:
        return None
    # A win of A is a loss of the model that is shown as B.
    return [*as_a, *(1 - win for win in as_b)]


# Results


def summarise(wins, model, baseline, judge_model, question_count):
    """The content of arena_hard.json; wins: the results of each question with two verdicts."""
    import numpy as np

    games = np.concatenate(wins).astype(float)  # of all questions
    # Games are resampled individually, as the official scorer does, though two share a question.
    generator = np.random.default_rng(0)
    means = [generator.choice(games, len(games)).mean() for _ in range(BOOTSTRAPS)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {
        "model": model.names(),
        "baseline": baseline.names(),
        "judge": judge_model,
        "date": datetime.date.today().isoformat(),
        "score": 100 * games.mean(),
        "interval": [100 * low, 100 * high],
        "length": model.mean_length(),
        "baseline_length": baseline.mean_length(),
        "questions": len(wins),
        "of": question_count,
    }


def table(summary):
    low, high = summary["interval"]
    columns = {
        "model": summary["model"],
        "baseline": summary["baseline"],
        "judge": summary["judge"],
        "score": f"{summary['score']:.1f}",
        "95%": f"{low:.1f} to {high:.1f}",
        "characters": f"{summary['length']:.0f}",
        "baseline's": f"{summary['baseline_length']:.0f}",
        "questions": f"{summary['questions']} of {summary['of']}",
    }
    return tables.markdown(columns.keys(), [columns.values()])


def main():
    args = parse_arguments()
    default = published.PUBLISHED
    questions = published.read(args.questions_file or default["arena_hard"], "arena_hard")
    model = read_player(args.answers_file, questions)
    baseline = read_player(args.baseline_file or default["arena_hard_baseline"], questions)
    system, template = read_prompt(args.prompts_file or default["arena_hard_prompts"])
    messages_by_game = make_messages(questions, model, baseline, system, template)

    options = {"temperature": 0, "max_completion_tokens": args.max_tokens or REPLY_TOKENS}
    requests = {}
    for key, messages in messages_by_game.items():  # (uid, game)
        requests[key] = {"messages": messages, **options}
    choices, refused = judging.ask(args, requests, args.output_dir / "replies.jsonl")

    judgments = make_judgments(
        questions, model, baseline, choices, messages_by_game, args.judge_model
    )
    rows.write(args.output_dir / "judgments.jsonl", judgments)
    wins = []  # of the questions with two verdicts
    for judgment in judgments:
        wins_of_question = wins_of(judgment["games"])
        if wins_of_question is not None:
            wins.append(wins_of_question)
    if not wins:
        last_game = judgments[-1]["games"][BASELINE_FIRST]
        example = refused[0] if refused else last_game["judgment"]["answer"][:200]
        sys.exit(f"{args.judge_model}: no question has two verdicts, such as {example!r}")

    summary = summarise(wins, model, baseline, args.judge_model, len(questions))
    outputs.write_json(args.output_dir / "arena_hard.json", summary)
    print(table(summary))


if __name__ == "__main__":
    main()
