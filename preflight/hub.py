"""Ask the hub whether a run can read what it needs, and how large that is. For check.py.

With HF_HUB_OFFLINE=1 a name has to be in the cache.
"""

import itertools
import os
import re
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from needs import HUB, problem

# A data set takes three times its size: the download, and the files that `datasets` makes of it.
UNPACKED = 3
WEIGHTS = ["*.safetensors", "*.bin"]


def split_name(name):
    """(OWNER/NAME, revision or None, file or directory in the repository or "")"""
    name = re.sub(rf"^{HUB}([^/]+/[^/]+)/?", r"\1:", name)
    repo, revision, part = re.fullmatch(r"([^@:]*)(?:@([^:]*))?(?::(.*))?", name).groups()
    return repo, revision, (part or "").strip("/")


def cached(kind, name):
    """Whether a run without network finds it."""
    if kind == "file":
        return is_cached_file(name)
    if kind == "dataset" and not name.startswith(HUB):
        return is_cached_dataset(name)
    return is_cached_repo(kind, name)


def is_cached_file(address):
    """Whether eval/published.py has kept it."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "rlhf_workflow")
    return (home / address.removeprefix("https://").replace("/", "_")).exists()


def is_cached_dataset(name):
    """Whether load_dataset has made its own files of it; without network it reads those alone."""
    from huggingface_hub import constants

    home = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME, "datasets"))
    # OWNER___name/configuration/version/hash/dataset_info.json, with the name in snake case
    folders = [path.parts[-5] for path in home.glob("*/*/*/*/dataset_info.json")]
    names = {folder.replace("_", "").lower() for folder in folders}
    repo, _, _ = split_name(name)
    return re.sub("[/_]", "", repo).lower() in names


def repo_type_of(kind):
    return "dataset" if kind == "dataset" else "model"


def is_cached_repo(kind, name):
    """Whether the hub's cache has a model's weights, a tokenizer, or the part of a data set."""
    from huggingface_hub import constants

    repo, _, part = split_name(name)
    folder = f"{repo_type_of(kind)}s--{repo.replace('/', '--')}"
    snapshots = Path(constants.HF_HUB_CACHE, folder, "snapshots")
    if kind == "model":
        patterns = WEIGHTS
    elif kind == "tokenizer":
        patterns = ["tokenizer*"]
    else:
        patterns = [part or "*"]
    return any(any(snapshots.glob(f"*/{pattern}")) for pattern in patterns)


@dataclass(frozen=True)
class Answer:
    """What keeps a name from being read, or None; and the bytes that it will take on the disk."""

    trouble: str | None = None
    download: int = 0


def look_up(api, kind, name):
    """The Answer on a name; raises what keeps the hub from answering."""
    from huggingface_hub import constants

    is_cached = cached(kind, name)
    if constants.HF_HUB_OFFLINE and not is_cached:
        return Answer("not in the cache, and HF_HUB_OFFLINE is set")
    if is_cached and (constants.HF_HUB_OFFLINE or kind == "file"):
        return Answer()
    if kind == "file":
        request = urllib.request.Request(name, method="HEAD")
        urllib.request.urlopen(request, timeout=5).close()
        return Answer()
    # A cached repository is looked up as well, but takes no more room.
    return look_up_repo(api, kind, name, is_cached)


def look_up_repo(api, kind, name, is_cached):
    from huggingface_hub import errors

    repo, revision, part = split_name(name)
    repo_type = repo_type_of(kind)
    try:
        info = api.repo_info(
            repo, revision=revision, repo_type=repo_type, files_metadata=True, timeout=5
        )
        if info.gated:
            api.auth_check(repo, repo_type=repo_type)
    except errors.GatedRepoError:
        page = f"{api.endpoint}/{repo}"
        if kind == "dataset":
            page = f"{api.endpoint}/datasets/{repo}"
        return Answer(
            f"gated, and not open to this account: visit {page}, accept its terms, set HF_TOKEN"
        )
    except (errors.HFValidationError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        return Answer(f"no such {repo_type} on the hub, or a private one")
    sizes = read_sizes(info.siblings or [], kind, part)
    if part and not sizes:
        return Answer(f"it holds no {part}")
    if is_cached:
        return Answer()
    if kind == "dataset":
        return Answer(download=UNPACKED * sum(sizes))
    return Answer(download=sum(sizes))


def read_sizes(files, kind, part):
    """Bytes of the files that are read: a model's weights in one format, or a data set's part."""
    if kind == "model":
        patterns = WEIGHTS
    elif kind == "tokenizer":
        patterns = []  # a few MB: not counted
    elif part:
        patterns = [part, f"{part}/*"]
    else:
        patterns = ["*"]
    for pattern in patterns:
        sizes = [file.size or 0 for file in files if fnmatch(file.rfilename, pattern)]
        if sizes:
            return sizes
    return []


def patiently(ask, *arguments):
    """An answer of the network, or the error of the third try."""
    for pause in (0.5, 1.5, None):
        try:
            return ask(*arguments)
        except Exception:  # it fails in many ways
            if pause is None:
                raise
            time.sleep(pause)


def check_names(labels):
    """(bytes to download, whether the hub answers), after a line for each label and each problem.

    labels: {(kind, name): [VARIABLE=word that needs it]}.
    """
    from huggingface_hub import HfApi, constants

    api = HfApi()
    readable = Counter()  # {label: names of it that can be read}
    troubles = {}  # {(repository, trouble): its labels, as the keys of a dict}
    download = 0
    silent = set()
    for (kind, name), needed_by in labels.items():
        network = "addresses" if kind == "file" else "hub"
        if network in silent:
            continue
        try:
            answer = patiently(look_up, api, kind, name)
        except Exception as error:  # said once, not for each name
            silent.add(network)
            report_silence(api, kind, name, labels, error)
            continue
        if answer.trouble:
            repo = name if kind == "file" else split_name(name)[0]
            troubles.setdefault((repo, answer.trouble), {}).update(dict.fromkeys(needed_by))
        else:
            readable.update(needed_by)
            download += answer.download
    for (repo, trouble), needed_by in troubles.items():
        variables = ", ".join(label.removesuffix(f"={repo}") for label in needed_by)
        problem(f"{repo} ({variables}): {trouble}")
    report_readable(labels, readable)
    return download, not constants.HF_HUB_OFFLINE and "hub" not in silent


def report_silence(api, kind, name, labels, error):
    """A problem for a hub, or an address, that does not answer."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    if kind == "file":
        remedy = "EVAL_QUESTIONS can name a directory of such files"
        problem(f"{name} is out of reach ({reason}); {remedy}")
        return
    repos = {split_name(name)[0] for repo_kind, name in labels if repo_kind != "file"}
    remedy = f"with HF_HUB_OFFLINE=1 and all {len(repos)} names in the cache the run needs no hub"
    problem(f"the hub at {api.endpoint} is out of reach ({reason}); {remedy}")


def report_readable(labels, readable):
    """A line for each label of which a name can be read, such as: SFT_DATA=paper: 8 of 9 open."""
    from huggingface_hub import constants

    state = "in the cache" if constants.HF_HUB_OFFLINE else "open"
    totals = Counter(itertools.chain.from_iterable(labels.values()))
    for label, total in totals.items():
        if not readable[label]:
            continue
        count = ""
        if readable[label] < total:
            count = f"{readable[label]} of {total} "
        elif total > 1:
            count = f"{total} "
        print(f"# hub: {label}: {count}{state}")
