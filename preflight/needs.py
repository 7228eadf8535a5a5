"""Which models, data sets and files a run of run_loop.sh reads, by its variables. For check.py."""

import itertools
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

HUB = "hf://datasets/"
# A word that can only be a local file, never a name on the hub.
FILE = r"[./~].*|[^:]*\.(jsonl?|parquet|jinja)(\.gz)?|[^:]*/[^:]*/.*"
ANNOTATORS = " ".join(
    os.environ.get(name, "") for name in ("ANNOTATOR", "VALIDATION", "MEASURE")
).split()
BELOW_OUT = f"{os.environ.get('OUT') or '-'}/"  # start of the paths that the run makes
# {variable: another one, whose words for several names it takes as well}
NAMED_LIKE = {"OFFLINE_PAIRS": "PREFERENCES", "PROMPTS_BY_ROUND": "PROMPTS", "EVAL_POOL": "PROMPTS"}
problems = []


def problem(text):
    problems.append(text)
    print(f"check: {text}", file=sys.stderr)


# The variables of run_loop.sh


def value(name):
    return os.environ.get(name, "")


def number(name):
    return int(value(name) or 0)


def flag(variable, option):
    """The words after an option in a variable of flags; of two equal options the last counts."""
    _, separator, after = f" {flags_of(variable)} ".rpartition(f" {option} ")
    if not separator:
        return []
    return list(itertools.takewhile(lambda word: not word.startswith("--"), after.split()))


def flags_of(variable):
    """The words of a variable of flags, --name value for --name=value; TRL takes --na-me, too."""
    words = []
    for word in value(variable).replace("=", " ").split():
        words.append("--" + word[2:].replace("-", "_") if word.startswith("--") else word)
    return " ".join(words)


def trainings():
    """{stage: the model that it starts from} of the run's trainings."""
    policy = value("SFT_MODEL") or value("BASE_MODEL")
    starts = {}
    if not value("SFT_MODEL"):
        starts["sft"] = policy
    scores = value("PREFERENCES") or not value("ANNOTATOR") or "reward_model" in ANNOTATORS
    if scores and not value("REWARD_MODEL"):
        starts["reward_model"] = value("RM_START") or policy
    if not value("PREFERENCE_MODEL") and "preference_model" in ANNOTATORS:
        starts["preference_model"] = value("PM_START") or policy
    if not value("ARMORM") and "armorm" in ANNOTATORS:
        starts["armorm"] = value("REWARD_MODEL") or starts["reward_model"]
    if number("ITERATIONS"):
        starts["dpo"] = policy
    return starts


# What the run reads


@dataclass(frozen=True)
class Source:
    """The words of a variable, or of a flag in it, that name what a step reads.

    kind: model, tokenizer, dataset; rows, which only a local file can be; group, a word that stands
    for several names in preflight/hub_names.md.
    """

    variable: str
    kind: str
    words: list


def named_models(trained):
    used = {
        "SFT_MODEL": True,
        "BASE_MODEL": "sft" in trained,
        "REWARD_MODEL": True,
        "RM_START": "reward_model" in trained,
        "PREFERENCE_MODEL": "preference_model" in ANNOTATORS,
        "PM_START": "preference_model" in trained,
        "ARMORM": "armorm" in ANNOTATORS,
    }
    for variable, is_used in used.items():
        if is_used:
            yield Source(variable, "model", value(variable).split())


def named_data(trained):
    optimisers = value("OPTIMISER").split()
    iterates = number("ITERATIONS") > 0
    draws_prompts = iterates and "offline" not in optimisers
    self_play = iterates and "self_play" in optimisers  # its prompts are the instructions'
    needs_pool = (draws_prompts and not value("PROMPTS_BY_ROUND")) or value("CLEAN")
    reads_pool = needs_pool and not self_play
    questions = "dataset" if value("EVAL_QUESTIONS").startswith(HUB) else "rows"
    # {variable: (kind, whether a step reads it)}
    used = {
        "RATINGS": ("rows", "armorm" in trained),
        "SFT_DATA": ("dataset", "sft" in trained or self_play),
        "PREFERENCES": ("dataset", trained.keys() - {"sft", "dpo"}),
        "OFFLINE_PAIRS": ("dataset", True),
        # Without EVAL_PROMPTS and EVAL_POOL the evaluation prompts are drawn from PROMPTS.
        "PROMPTS": ("dataset", reads_pool or not value("EVAL_PROMPTS") + value("EVAL_POOL")),
        "EVAL_POOL": ("dataset", True),
        "PROMPTS_BY_ROUND": ("dataset", draws_prompts),
        "EVAL_PROMPTS": ("rows", True),
        "REWARD_BENCH": ("dataset", value("MEASURE") not in ("", "none")),
        "EVAL_QUESTIONS": (questions, judged_evaluations()),
    }
    for variable, (kind, is_used) in used.items():
        if is_used:
            yield Source(variable, kind, value(variable).split())


def judged_evaluations():
    """The benchmarks of EVALS whose answers a judge reads."""
    return [name for name in value("EVALS").split() if name not in ("none", "academic")]


def named_by_flags(trained):
    if "sft" in trained:
        yield Source("SFT_OPTIONS", "tokenizer", flag("SFT_OPTIONS", "--chat_template_path"))
    yield Source("CLEAN", "tokenizer", flag("CLEAN", "--tokenizer_name"))
    yield Source("CLEAN", "dataset", flag("CLEAN", "--evaluation_files"))


def named_benchmarks():
    judged = judged_evaluations()
    if not value("EVAL_QUESTIONS"):
        yield Source("EVALS", "group", judged)
        if "alpaca_eval" in judged and not flag("ALPACA_EVAL_OPTIONS", "--gamed_file"):
            yield Source("--gamed_file", "group", ["default"])
    if "academic" not in value("EVALS").split():
        return
    tasks = flag("ACADEMIC_OPTIONS", "--tasks")
    if tasks:
        yield Source("--tasks", "group", tasks)
        return
    yield Source("EVALS", "group", ["academic"])
    if "--run_generated_code" in value("ACADEMIC_OPTIONS").split():
        yield Source("ACADEMIC_OPTIONS", "group", ["--run_generated_code"])


class HubTable:
    """preflight/hub_names.md: the names that a word stands for, and the revision of a name."""

    def __init__(self):
        text = Path(__file__).with_name("hub_names.md").read_text(encoding="utf-8")
        self.stands_for = {}  # {"SFT_DATA=paper" or a file: [(kind, name)]}
        self.with_revision = {}  # {name: name, with its revision where the table has one}
        line = re.compile(r"^\| (\S+[/:]\S+) \| (\w+) \| \w+ \| (.+) \|$", re.MULTILINE)
        for name, kind, used_by in line.findall(text):
            self.with_revision[re.sub("@[^:]*", "", name)] = name
            for user in used_by.split(", "):
                self.stands_for.setdefault(user, []).append((kind, name))

    def names(self, source, word):
        """[(kind, name)] on the hub or at an address that a word stands for.

        A local file that is not there is a problem.
        """
        label = f"{source.variable}={word}"
        named_like = NAMED_LIKE.get(source.variable, source.variable)
        published = self.stands_for.get(f"{named_like}={word}")
        if published:
            return published
        if source.kind == "group":
            # Tasks of the user's own are in the directory of --include_path.
            if not flag("ACADEMIC_OPTIONS", "--include_path"):
                print(f"# hub: {label}: not in preflight/hub_names.md, its data is not checked")
            return []
        if os.path.exists(word) or word.startswith(BELOW_OUT):
            return []
        if source.kind == "rows" or re.fullmatch(FILE, word):
            problem(f"{label}: no such file")
            return []
        return [(source.kind, self.with_revision.get(word, word))]


def hub_names():
    """{(kind, name): [VARIABLE=word that needs it]} of what the run has to fetch."""
    trained = trainings()
    sources = itertools.chain(
        named_models(trained), named_data(trained), named_by_flags(trained), named_benchmarks()
    )
    table = HubTable()
    labels = {}
    for source in sources:
        for word in source.words:
            for key in table.names(source, word):
                labels.setdefault(key, []).append(f"{source.variable}={word}")
    return labels
