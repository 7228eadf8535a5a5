"""What is published of the benchmarks: where, in which format, and checks of that format.

For the scripts of this folder.
"""

import json
import os
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import NamedTuple

from common import json_files, rows

HUB = "hf://datasets/"
RAW = "https://raw.githubusercontent.com"
FASTCHAT = f"{RAW}/lm-sys/FastChat/0e6d3e4beaab66f4d3f93db72541a4abab8af28d/fastchat/llm_judge/data"
ARENA = f"{RAW}/lmarena/arena-hard-auto/196f6b826783b3da7310e361a805fa36f0be83f3/data"
# The last version of Arena-Hard that holds all of v0.1's prompt in one file.
ARENA_CONFIG = f"{RAW}/lmarena/arena-hard-auto/3071ef95d913bb5cd632641db336a3b6c7fe4bdd/config"
ALPACA = f"{RAW}/tatsu-lab/alpaca_eval/cd543a149df89434d8a54582c0151c0b945c3d20/results"
PUBLISHED = {
    "alpaca_eval": f"{ALPACA}/gpt4_1106_preview/model_outputs.json",
    "mt_bench": f"{FASTCHAT}/mt_bench/question.jsonl",
    "mt_bench_references": f"{FASTCHAT}/mt_bench/reference_answer/gpt-4.jsonl",
    "mt_bench_prompts": f"{FASTCHAT}/judge_prompts.jsonl",
    "arena_hard": f"{ARENA}/arena-hard-v0.1/question.jsonl",
    "arena_hard_baseline": f"{ARENA}/arena-hard-v0.1/model_answer/gpt-4-0314.jsonl",
    "arena_hard_prompts": f"{ARENA_CONFIG}/judge_config.yaml",
}


class AcademicTask(NamedTuple):
    """A task of lm-eval; None stands for lm-eval's own choice."""

    column: str | None  # of the paper's Tables 3 and 6
    shots: int | None  # examples before the question
    metric: str | None  # "METRIC,FILTER" as lm-eval names it


ACADEMIC = {
    "gsm8k_cot": AcademicTask("GSM8K", 8, "exact_match,flexible-extract"),
    "mmlu": AcademicTask("MMLU", 5, "acc,none"),
    "humaneval_instruct": AcademicTask("HumanEval", 0, "pass@1,create_test"),
    "truthfulqa_mc2": AcademicTask("TruthfulQA", 0, "acc,none"),
    "arc_challenge": AcademicTask("ARC", 25, "acc_norm,none"),
    "mbpp_instruct": AcademicTask("MBPP", 0, "pass_at_1,extract_code"),
}
JUDGES = "gpt-4-1106-preview; MT-Bench: gpt-4-0613"  # of the scores below
# The paper's Tables 2 to 4: LC AlpacaEval-2, MT-Bench, Arena-Hard, then the tasks of ACADEMIC.
# TruthfulQA of the iterative model is 60.4 in Table 3 and 62.2 in Table 4.
SCORES = {
    "LLaMA-3-8B-it": (22.9, 8.16, 20.6, 79.6, 66.0, 61.6, 43.9, 59.5, 61.1),
    "SFT": (10.2, 7.69, 5.6, 74.2, 64.7, 65.2, 53.4, 61.4, 62.3),
    "offline DPO": (22.5, 8.17, 22.4, 79.8, 64.5, 63.4, 61.8, 65.2, 60.3),
    "iterative DPO": (31.3, 8.46, 29.1, 80.7, 65.3, 64.6, 60.4, 64.3, 60.8),
    "iterative DPO, concise": (38.1, None, 22.1, 78.8, 65.5, 66.5, 60.4, 65.1, 62.4),
    "iterative DPO, UltraRM-13B": (20.7, None, 24.3, 78.9, 64.9, 63.7, 59.9, 63.6, 60.8),
}


# Checks of a field


def is_text(value):
    """A text that can be written: half a character (a lone surrogate) cannot."""
    if not isinstance(value, str) or not value:
        return False
    return value.encode(errors="replace").decode() == value


def is_text_or_empty(value):
    return is_text(value) or value == ""


def is_texts(value):
    return isinstance(value, list) and bool(value) and all(map(is_text, value))


def is_name(value):
    return is_text(value) or type(value) is int


def is_choices(value):
    """MT-Bench's answers: the turns of the first choice are texts; an answer may be empty."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    turns = value[0].get("turns")
    return isinstance(turns, list) and bool(turns) and all(map(is_text_or_empty, turns))


def is_messages(value):
    """Arena-Hard's: the last message holds {"answer": text}; an answer may be empty."""
    if not isinstance(value, list) or not value or not isinstance(value[-1], dict):
        return False
    content = value[-1].get("content")
    return isinstance(content, dict) and is_text_or_empty(content.get("answer"))


# {format: {field of a row: check}}; the first field names the row.
FIELDS = {
    "alpaca_eval": {"instruction": is_text},
    "mt_bench": {"question_id": is_name, "category": is_text, "turns": is_texts},
    "mt_bench_answers": {"question_id": is_name, "model_id": is_text, "choices": is_choices},
    "mt_bench_prompts": {"name": is_text, "system_prompt": is_text, "prompt_template": is_text},
    "arena_hard": {"uid": is_name, "category": is_text, "prompt": is_text},
    "arena_hard_answers": {"uid": is_name, "model": is_text, "messages": is_messages},
}


# Files


def local(source):
    """The path of a file. One at https:// or hf://datasets/OWNER/NAME/ is downloaded once."""
    if source.startswith(HUB):
        return from_hub(source)
    if source.startswith("https://"):
        return from_web(source)
    return Path(source)


def from_hub(source):
    """The path of a file of a dataset in the hub's own cache."""
    import huggingface_hub

    owner, name, file = (source.removeprefix(HUB) + "//").split("/", 2)
    try:
        path = huggingface_hub.hf_hub_download(
            f"{owner}/{name}", file.rstrip("/"), repo_type="dataset"
        )
    except Exception as error:  # the hub refuses in many ways
        reason = str(error).splitlines()[0]
        sys.exit(f"{source}: {reason}; fetch it elsewhere and give its path")
    return Path(path)


def from_web(source):
    """The path of a file in the user's cache, where it is downloaded to first if it is missing."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(cache_home) / "rlhf_workflow"
    path = cache / source.removeprefix("https://").replace("/", "_")
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        with (
            urllib.request.urlopen(source, timeout=60) as response,
            open(partial, "wb") as file,
        ):
            shutil.copyfileobj(response, file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        reason = getattr(error, "reason", None) or error
        sys.exit(f"{source}: {reason}; fetch it elsewhere and give its path")
    os.replace(partial, path)
    return path


def read(source, kind):
    """{name: row} of a file in a published format (JSON lines, or one JSON list), in its order."""
    path = local(source)
    name_field = next(iter(FIELDS[kind]))
    row_by_name = {}
    for number, row in entries(path):
        check_row(row, kind, f"{path}:{number}")
        name = row[name_field]
        if name in row_by_name:
            sys.exit(f"{path}:{number}: {name_field}: {str(name)[:80]!r} stands twice")
        row_by_name[name] = row
    if not row_by_name:
        sys.exit(f"{path}: no rows")
    return row_by_name


def check_row(row, kind, where):
    """A row that is not in that format ends the program. where: FILE:LINE."""
    for field, good in FIELDS[kind].items():
        value = row.get(field) if isinstance(row, dict) else None
        if value in (None, "", []):
            sys.exit(f"{where}: {field}: missing; another file, or another version?")
        if not good(value):
            sys.exit(f"{where}: {field}: not as published; another file, or another version?")


def entries(path):
    """Yield (number, value) of a file: its lines, or, if it is one JSON list, its entries."""
    content = json_files.text_of(path)
    if content.lstrip().startswith("["):
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", 1)
            sys.exit(f"{path}:{line}: row: not JSON ({error})")
        yield from enumerate(values, 1)
        return
    for number, line in rows.lines_of(path):
        try:
            value = rows.parse(line)
        except ValueError as error:
            sys.exit(f"{path}:{number}: {error}")
        yield number, value


def answered(questions, answers, path):
    """End the program unless there is an answer to every question and no other."""
    unanswered = [name for name in questions if name not in answers]
    surplus = [name for name in answers if name not in questions]
    if not unanswered and not surplus:
        return
    complaints = []
    if unanswered:
        complaints.append(f"{len(unanswered)} of {len(questions)} questions have no answer")
    if surplus:
        complaints.append(f"{len(surplus)} answers have no question")
    example = (unanswered + surplus)[0]
    sys.exit(f"{path}: {', '.join(complaints)}, such as {str(example)[:80]!r}")
