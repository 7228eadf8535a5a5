"""Arena-Hard v0.1: a judge compares each answer with a baseline's, in two games with sides swapped (paper 4.1).

The official prompt at temperature 0; the last verdict of a reply counts, in [[A>B]], or else in [A>B], as the official
scorer reads it; the judge's thoughts, before </think>, hold no verdict. [[A>>B]] and [[B>>A]] count as three games,
[[A=B]] as half a win. The score is the mean over all games, which against one baseline is the Bradley-Terry win rate;
its interval of 95% comes from 100 bootstraps of the games, as the official scorer makes it. A question whose games do
not both have a verdict is left out and counted, never guessed. Replies are kept as they arrive: whatever stopped the
run, the same command goes on, and nothing is paid for twice. A key is read from OPENAI_API_KEY.

Reads:  --answers_file from 1_answers.py; --questions_file, --baseline_file (gpt-4-0314's answers) and --prompts_file
        {"system_prompt", "prompt_template"}, by default the published
Writes: --output_dir, judgments.jsonl in the official format {"uid", "category", "judge", "model", "baseline", "games"};
        arena_hard.json, score, interval and mean lengths, with judge and date; replies.jsonl, what was paid for;
        refused.jsonl, what the judge refused, and its words

    python eval/2c_arena_hard.py --answers_file my_arena_hard/answers.jsonl \
        --judge_url http://localhost:8000/v1 --judge_model my_judge --output_dir my_arena_hard
"""

import datetime
import sys
from pathlib import Path
from statistics import fmean

import judging
import published
from common import arguments, judge, outputs, rows

WINS = {  # of the answer that is shown as A, with the games that the verdict counts for
    "A>>B": [1, 1, 1], "A>B": [1], "A=B": [0.5], "B=A": [0.5], "B>A": [0], "B>>A": [0, 0, 0],
    "A<B": [0], "A<<B": [0, 0, 0], "B<A": [1], "B<<A": [1, 1, 1],
}  # fmt: skip
FILES = ("judgments.jsonl", "arena_hard.json", "replies.jsonl", "refused.jsonl")
BOOTSTRAPS = 100


def text_of(answer):
    return answer["messages"][-1]["content"]["answer"]


def verdict(said):
    """The last verdict in what the judge says, or None."""
    found = judge.verdicts((said or "").upper(), r"([AB]\s*[<>=]+\s*[AB])")
    known = [word for word in map(without_blanks, found) if word in WINS]
    return known[-1] if known else None


def without_blanks(text):
    return "".join(text.split())


def prompt_of(path):
    """(system prompt, template) of the official file of settings."""
    import yaml

    try:
        settings = yaml.safe_load(published.local(path).read_text(encoding="utf-8"))
        system, template = settings["system_prompt"] + "", settings["prompt_template"][0] + ""
        template.format(question_1="", answer_1="", answer_2="")
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


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--answers_file", required=True)
    for name in ("questions", "baseline", "prompts"):
        parser.add_argument(f"--{name}_file", help="(default: the official, at a pinned commit)")
    parser.add_output("--output_dir", "folder", FILES, type=Path, required=True)
    judging.add_flags(parser)
    args = parser.parse_args()
    default = published.PUBLISHED
    questions = published.read(args.questions_file or default["arena_hard"], "arena_hard")
    baseline_file = args.baseline_file or default["arena_hard_baseline"]
    both, texts = [], []
    for file in (args.answers_file, baseline_file):
        both.append(published.read(file, "arena_hard_answers"))
        published.answered(questions, both[-1], file)
        texts.append({name: text_of(answer) for name, answer in both[-1].items()})
    system, template = prompt_of(args.prompts_file or default["arena_hard_prompts"])
    asked = {}
    for name, question in questions.items():
        for game, (first, second) in enumerate([(texts[1], texts[0]), (texts[0], texts[1])]):
            user = template.format(
                question_1=question["prompt"], answer_1=first[name], answer_2=second[name]
            )
            asked[name, game] = [
                {"role": "system", "content": system},
                {"role": "user", "content": user},
            ]
    options = {"temperature": 0, "max_completion_tokens": args.max_tokens or 4096}
    requests = {at: {"messages": m, **options} for at, m in asked.items()}
    choices, refused = judging.ask(args, requests, args.output_dir / "replies.jsonl")
    replies = {at: choice and choice["text"] for at, choice in choices.items()}
    said = judging.without_thoughts(choices)

    judgments, wins = [], []
    for name, question in questions.items():
        games = [
            {
                "score": verdict(said[name, game]),
                "judgment": {"answer": replies[name, game]},
                "prompt": asked[name, game],
            }
            for game in (0, 1)
        ]
        names = {"model": both[0][name]["model"], "baseline": both[1][name]["model"]}
        about = {"uid": name, "category": question["category"], "judge": args.judge_model}
        judgments.append({**about, **names, "games": games})
        shown_b, shown_a = (WINS.get(game["score"]) for game in games)
        if shown_b and shown_a:
            wins.append([*shown_a, *(1 - win for win in shown_b)])
    rows.write(args.output_dir / "judgments.jsonl", judgments)
    if not wins:
        told = (refused or [replies[name, 0][:200]])[0]
        sys.exit(f"{args.judge_model}: no question has two verdicts, such as {told!r}")

    import numpy as np

    games, random = np.array([win for of in wins for win in of], float), np.random.default_rng(0)
    means = [random.choice(games, len(games)).mean() for _ in range(BOOTSTRAPS)]
    result = {
        "model": ", ".join(sorted({answer["model"] for answer in both[0].values()})),
        "baseline": ", ".join(sorted({answer["model"] for answer in both[1].values()})),
        "judge": args.judge_model,
        "date": datetime.date.today().isoformat(),
        "score": 100 * games.mean(),
        "interval": [100 * bound for bound in np.quantile(means, [0.025, 0.975])],
        "length": fmean(map(len, texts[0].values())),
        "baseline_length": fmean(map(len, texts[1].values())),
        "questions": len(wins),
        "of": len(questions),
    }
    outputs.write_json(args.output_dir / "arena_hard.json", result)
    low, high = result["interval"]
    print(
        "| model | baseline | judge | score | 95% | characters | baseline's | questions |\n|"
        + " --- |" * 8
    )
    told = f"{result['score']:.1f} | {low:.1f} to {high:.1f} | {result['length']:.0f} | {result['baseline_length']:.0f}"
    print(
        f"| {result['model']} | {result['baseline']} | {args.judge_model} | {told} | {len(wins)} of {len(questions)} |"
    )


if __name__ == "__main__":
    main()
