"""What a run of run_loop.sh reads from the hub, told by its variables, and whether it is there. For check.py."""

import itertools
import os
import re
import sys
import time
import urllib.request
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

HUB = "hf://datasets/"
FILE = r"[./~].*|[^:]*\.(jsonl?|parquet|jinja)(\.gz)?|[^:]*/[^:]*/.*"  # never a name on the hub
UNPACKED = 3  # bytes on disk for one of a data set: the download, and the files that `datasets` makes of it
ANNOTATORS = " ".join(
    os.environ.get(name, "") for name in ("ANNOTATOR", "VALIDATION", "MEASURE")
).split()
BELOW_OUT = f"{os.environ.get('OUT') or '-'}/"  # what the run makes
problems = []


def problem(text):
    problems.append(text)
    print(f"check: {text}", file=sys.stderr)


def value(name):
    return os.environ.get(name, "")


def number(name):
    return int(value(name) or 0)


def flag(variable, option):
    """The words after an option in a variable of flags; of two equal options the last counts."""
    _, found, after = f" {value(variable).replace('=', ' ')} ".rpartition(f" {option} ")
    return (
        list(itertools.takewhile(lambda word: not word.startswith("--"), after.split()))
        if found
        else []
    )


def trainings():
    """{stage: the model that it starts from} of the trainings of the run."""
    policy = value("SFT_MODEL") or value("BASE_MODEL")
    found = {} if value("SFT_MODEL") else {"sft": policy}
    needed = value("PREFERENCES") or not value("ANNOTATOR") or "reward_model" in ANNOTATORS
    if needed and not value("REWARD_MODEL"):
        found["reward_model"] = value("RM_START") or policy
    if not value("PREFERENCE_MODEL") and "preference_model" in ANNOTATORS:
        found["preference_model"] = value("PM_START") or policy
    if not value("ARMORM") and "armorm" in ANNOTATORS:
        found["armorm"] = value("REWARD_MODEL") or found["reward_model"]
    return found | ({"dpo": policy} if number("ITERATIONS") else {})


def named():
    """Yields (variable, kind, words) of what the steps of the run read; `rows`: only a local file will do."""
    trained, evals = trainings(), value("EVALS").split()
    optimisers, by_round = value("OPTIMISER").split(), value("PROMPTS_BY_ROUND")
    drawn = number("ITERATIONS") and "offline" not in optimisers  # new prompts in every round
    self_play = (
        number("ITERATIONS") and "self_play" in optimisers
    )  # they are those of the instructions
    pool = not self_play and ((drawn and not by_round) or value("CLEAN"))
    judged = [name for name in evals if name not in ("none", "academic")]
    for variable, kind, used in [
        ("SFT_MODEL", "model", True), ("BASE_MODEL", "model", "sft" in trained),
        ("REWARD_MODEL", "model", True), ("RM_START", "model", "reward_model" in trained),
        ("PREFERENCE_MODEL", "model", "preference_model" in ANNOTATORS),
        ("PM_START", "model", "preference_model" in trained), ("ARMORM", "model", "armorm" in ANNOTATORS),
        ("RATINGS", "rows", "armorm" in trained), ("SFT_DATA", "dataset", "sft" in trained or self_play),
        ("PREFERENCES", "dataset", trained.keys() - {"sft", "dpo"}), ("OFFLINE_PAIRS", "dataset", True),
        ("PROMPTS", "dataset", pool or not value("EVAL_PROMPTS")),
        ("PROMPTS_BY_ROUND", "dataset", drawn), ("EVAL_PROMPTS", "rows", True),
        ("REWARD_BENCH", "dataset", value("MEASURE") not in ("", "none")),
        ("EVAL_QUESTIONS", "dataset" if value("EVAL_QUESTIONS").startswith(HUB) else "rows", judged),
    ]:  # fmt: skip
        yield variable, kind, value(variable).split() if used else []
    yield (
        "SFT_OPTIONS",
        "tokenizer",
        flag("SFT_OPTIONS", "--chat_template_path") if "sft" in trained else [],
    )
    yield "CLEAN", "tokenizer", flag("CLEAN", "--tokenizer_name")
    yield "CLEAN", "dataset", flag("CLEAN", "--evaluation_files")
    yield "EVALS", "group", [] if value("EVAL_QUESTIONS") else judged
    gamed = (
        "alpaca_eval" in judged
        and not value("EVAL_QUESTIONS")
        and not flag("ALPACA_EVAL_OPTIONS", "--gamed_file")
    )
    yield "--gamed_file", "group", ["default"] if gamed else []
    if "academic" in evals:
        tasks, code = flag("ACADEMIC_OPTIONS", "--tasks"), "--run_generated_code"
        yield "--tasks", "group", tasks
        yield "EVALS", "group", [] if tasks else ["academic"]
        yield (
            "ACADEMIC_OPTIONS",
            "group",
            [] if tasks or code not in value("ACADEMIC_OPTIONS").split() else [code],
        )


def wanted():
    """{(kind, name): [VARIABLE=value that needs it]} of all that is neither on this machine nor made by the run."""
    table = Path(__file__).with_name("hub_names.md").read_text(encoding="utf-8")
    found, stands_for, revised = {}, {}, {}
    for name, kind, used_by in re.findall(
        r"^\| (\S+[/:]\S+) \| (\w+) \| \w+ \| (.+) \|$", table, re.MULTILINE
    ):
        revised[re.sub("@[^:]*", "", name)] = name
        for token in used_by.split(", "):
            stands_for.setdefault(token, []).append((kind, name))
    for label, kind, word in [
        (f"{variable}={word}", kind, word) for variable, kind, of in named() for word in of
    ]:
        if several := stands_for.get(label.replace("OFFLINE_PAIRS=", "PREFERENCES=")):
            for one in several:
                found.setdefault(one, []).append(label)
        elif kind == "group":
            if not flag("ACADEMIC_OPTIONS", "--include_path"):
                print(f"# hub: {label}: not in preflight/hub_names.md, its data is not checked")
        elif os.path.exists(word) or word.startswith(BELOW_OUT):
            continue
        elif kind == "rows" or re.fullmatch(FILE, word):
            problem(f"{label}: no such file")
        else:
            found.setdefault((kind, revised.get(word, word)), []).append(label)
    return found


def parts_of(name):
    """(OWNER/NAME, revision or None, file or directory in it or nothing)"""
    name = re.sub(rf"^{HUB}([^/]+/[^/]+)/?", r"\1:", name)
    repo, revision, part = re.fullmatch(r"([^@:]*)(?:@([^:]*))?(?::(.*))?", name).groups()
    return repo, revision, (part or "").strip("/")


def cached(kind, name):
    """Whether a run without network finds it."""
    from huggingface_hub import constants

    if kind == "file":  # where eval/published.py keeps it
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "rlhf_workflow")
        return (home / name.removeprefix("https://").replace("/", "_")).exists()
    repo, _, part = parts_of(name)
    if kind == "dataset" and not name.startswith(
        HUB
    ):  # load_dataset reads its own files then, not the hub's cache
        home = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME, "datasets"))
        made = {
            path.parts[-5].replace("_", "").lower()
            for path in home.glob("*/*/*/*/dataset_info.json")
        }
        return re.sub("[/_]", "", repo).lower() in made
    folder = f"{'dataset' if kind == 'dataset' else 'model'}s--{repo.replace('/', '--')}/snapshots"
    patterns = {"model": ["*.safetensors", "*.bin"], "tokenizer": ["tokenizer*"]}.get(
        kind, [part or "*"]
    )
    return any(
        found for one in patterns for found in Path(constants.HF_HUB_CACHE, folder).glob(f"*/{one}")
    )


def look_up(api, kind, name):
    """(what is wrong with a name or None, bytes that it will take); raises what keeps the hub from answering."""
    from huggingface_hub import constants, errors

    here = cached(kind, name)
    if constants.HF_HUB_OFFLINE or (here and kind == "file"):
        return None if here else "not in the cache, and HF_HUB_OFFLINE is set", 0
    if kind == "file":
        urllib.request.urlopen(urllib.request.Request(name, method="HEAD"), timeout=5).close()
        return None, 0
    repo, revision, part = parts_of(name)
    of, folder = ("dataset", "datasets/") if kind == "dataset" else ("model", "")
    try:
        info = api.repo_info(repo, revision=revision, repo_type=of, files_metadata=True, timeout=5)
        if info.gated:
            api.auth_check(repo, repo_type=of)
    except errors.GatedRepoError:
        page = f"{api.endpoint}/{folder}{repo}"
        return (
            f"gated, and not open to this account: visit {page}, accept its terms, set HF_TOKEN",
            0,
        )
    except (errors.HFValidationError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        return f"no such {of} on the hub, or a private one", 0
    # Of a model the weights in one format, of a data set the part that is read.
    patterns = {"model": ["*.safetensors", "*.bin"], "tokenizer": []}.get(
        kind, [part, f"{part}/*"] if part else ["*"]
    )
    sizes = [
        [f.size or 0 for f in info.siblings or [] if fnmatch(f.rfilename, pattern)]
        for pattern in patterns
    ]
    read = next(filter(None, sizes), [])
    return None if read or not part else f"it holds no {part}", 0 if here else sum(read) * (
        UNPACKED if folder else 1
    )


def patiently(ask, *arguments):
    """An answer of the network, or the error of the third try."""
    for pause in (0.5, 1.5, None):
        try:
            return ask(*arguments)
        except Exception:  # it fails in many ways
            if pause is None:
                raise
            time.sleep(pause)


def check_names(found):
    """(bytes to download, whether the hub answers), after a line for each label and each problem."""
    from huggingface_hub import HfApi, constants

    api, well, wrong, download, silent = HfApi(), Counter(), {}, 0, set()
    for (kind, name), labels in found.items():
        if (of := "addresses" if kind == "file" else "hub") in silent:
            continue
        try:
            trouble, size = patiently(look_up, api, kind, name)
        except Exception as error:  # said once, not for each name
            silent.add(of)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            names = len({parts_of(name)[0] for kind, name in found if kind != "file"})
            way = f"with HF_HUB_OFFLINE=1 and all {names} names in the cache the run needs no hub"
            way = way if of == "hub" else "EVAL_QUESTIONS can name a directory of such files"
            problem(
                f"{f'the hub at {api.endpoint}' if of == 'hub' else name} is out of reach ({reason}); {way}"
            )
            continue
        repo = name if kind == "file" else parts_of(name)[0]
        if trouble:
            wrong.setdefault((repo, trouble), {}).update(dict.fromkeys(labels))
        else:
            well.update(labels)
            download += size
    for (repo, trouble), labels in wrong.items():
        problem(
            f"{repo} ({', '.join(label.removesuffix(f'={repo}') for label in labels)}): {trouble}"
        )
    total = Counter(label for labels in found.values() for label in labels)
    for label in filter(well.get, total):
        count = f"{well[label]} of " * (well[label] < total[label]) + f"{total[label]} " * (
            total[label] > 1
        )
        print(f"# hub: {label}: {count}{'in the cache' if constants.HF_HUB_OFFLINE else 'open'}")
    return download, not constants.HF_HUB_OFFLINE and "hub" not in silent
