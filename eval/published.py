"""What is published of the benchmarks: where, in which format, and its checks. For the scripts of this folder."""

import json
import os
import shutil
import sys
import urllib.request
from pathlib import Path

from common import json_files, rows

HUB = "hf://datasets/"
RAW = "https://raw.githubusercontent.com"
FASTCHAT = f"{RAW}/lm-sys/FastChat/0e6d3e4beaab66f4d3f93db72541a4abab8af28d/fastchat/llm_judge/data"
ARENA = (
    f"{RAW}/lmarena/arena-hard-auto/196f6b826783b3da7310e361a805fa36f0be83f3/data/arena-hard-v0.1"
)
ALPACA = f"{RAW}/tatsu-lab/alpaca_eval/cd543a149df89434d8a54582c0151c0b945c3d20/results"
PUBLISHED = {
    "alpaca_eval": f"{ALPACA}/gpt4_1106_preview/model_outputs.json",
    "mt_bench": f"{FASTCHAT}/mt_bench/question.jsonl",
    "mt_bench_references": f"{FASTCHAT}/mt_bench/reference_answer/gpt-4.jsonl",
    "mt_bench_prompts": f"{FASTCHAT}/judge_prompts.jsonl",
    "arena_hard": f"{ARENA}/question.jsonl",
    "arena_hard_baseline": f"{ARENA}/model_answer/gpt-4-0314.jsonl",
    # The last version that holds all of v0.1's prompt in one file.
    "arena_hard_prompts": f"{RAW}/lmarena/arena-hard-auto/3071ef95d913bb5cd632641db336a3b6c7fe4bdd/config/"
    "judge_config.yaml",
}
ACADEMIC = {  # tasks of lm-eval: the paper's column, the examples shown, metric and filter (paper, Tables 3 and 6)
    "gsm8k_cot": ("GSM8K", 8, "exact_match,flexible-extract"),
    "mmlu": ("MMLU", 5, "acc,none"),
    "humaneval_instruct": ("HumanEval", 0, "pass@1,create_test"),
    "truthfulqa_mc2": ("TruthfulQA", 0, "acc,none"),
    "arc_challenge": ("ARC", 25, "acc_norm,none"),
    "mbpp_instruct": ("MBPP", 0, "pass_at_1,extract_code"),
}
JUDGES = "gpt-4-1106-preview; MT-Bench: gpt-4-0613"  # of the scores below
# The paper's Tables 2 to 4: LC AlpacaEval-2, MT-Bench, Arena-Hard, then as in ACADEMIC. TruthfulQA of the iterative
# model is 60.4 in Table 3 and 62.2 in Table 4.
SCORES = {
    "LLaMA-3-8B-it": (22.9, 8.16, 20.6, 79.6, 66.0, 61.6, 43.9, 59.5, 61.1),
    "SFT": (10.2, 7.69, 5.6, 74.2, 64.7, 65.2, 53.4, 61.4, 62.3),
    "offline DPO": (22.5, 8.17, 22.4, 79.8, 64.5, 63.4, 61.8, 65.2, 60.3),
    "iterative DPO": (31.3, 8.46, 29.1, 80.7, 65.3, 64.6, 60.4, 64.3, 60.8),
    "iterative DPO, concise": (38.1, None, 22.1, 78.8, 65.5, 66.5, 60.4, 65.1, 62.4),
    "iterative DPO, UltraRM-13B": (20.7, None, 24.3, 78.9, 64.9, 63.7, 59.9, 63.6, 60.8),
}


def is_text(value):
    """A text that can be written: half a character (a lone surrogate) cannot."""
    return (
        isinstance(value, str) and bool(value) and value.encode(errors="replace").decode() == value
    )


def is_texts(value):
    return isinstance(value, list) and bool(value) and all(map(is_text, value))


def is_name(value):
    return is_text(value) or type(value) is int


def is_choices(value):
    """MT-Bench's answers: the turns of the first choice are texts; an answer may be empty."""
    turns = (
        value[0].get("turns")
        if isinstance(value, list) and value and isinstance(value[0], dict)
        else None
    )
    return (
        isinstance(turns, list)
        and bool(turns)
        and all(is_text(turn) or turn == "" for turn in turns)
    )


def is_messages(value):
    """Arena-Hard's: the last holds {"answer": text}."""
    content = (
        value[-1].get("content")
        if isinstance(value, list) and value and isinstance(value[-1], dict)
        else None
    )
    return isinstance(content, dict) and (
        is_text(content.get("answer")) or content.get("answer") == ""
    )


FIELDS = {  # of a row in the published formats, with what they hold; the first one names the row
    "alpaca_eval": {"instruction": is_text},
    "mt_bench": {"question_id": is_name, "category": is_text, "turns": is_texts},
    "mt_bench_answers": {"question_id": is_name, "model_id": is_text, "choices": is_choices},
    "mt_bench_prompts": {"name": is_text, "system_prompt": is_text, "prompt_template": is_text},
    "arena_hard": {"uid": is_name, "category": is_text, "prompt": is_text},
    "arena_hard_answers": {"uid": is_name, "model": is_text, "messages": is_messages},
}


def local(source):
    """The path of a file; one at https:// or hf://datasets/OWNER/NAME/ is fetched once, into the user's cache."""
    if source.startswith(HUB):
        import huggingface_hub

        owner, name, file = (source.removeprefix(HUB) + "//").split("/", 2)
        try:
            return Path(
                huggingface_hub.hf_hub_download(
                    f"{owner}/{name}", file.rstrip("/"), repo_type="dataset"
                )
            )
        except Exception as error:  # the hub refuses in many ways
            sys.exit(
                f"{source}: {str(error).splitlines()[0]}; fetch it elsewhere and give its path"
            )
    if not source.startswith("https://"):
        return Path(source)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlhf_workflow"
    path = cache / source.removeprefix("https://").replace("/", "_")
    if not path.exists():
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
            sys.exit(
                f"{source}: {getattr(error, 'reason', None) or error}; fetch it elsewhere and give its path"
            )
        os.replace(partial, path)
    return path


def read(source, kind):
    """{name: row} of a file in a published format (JSON lines, or AlpacaEval's JSON list), in its order."""
    path = local(source)
    found = {}
    for number, row in entries(path):
        for field, good in FIELDS[kind].items():
            value = row.get(field) if isinstance(row, dict) else None
            if value in (None, "", []):
                sys.exit(f"{path}:{number}: {field}: missing; another file, or another version?")
            if not good(value):
                sys.exit(
                    f"{path}:{number}: {field}: not as published; another file, or another version?"
                )
        name_field = next(iter(FIELDS[kind]))
        name = row[name_field]
        if name in found:
            sys.exit(f"{path}:{number}: {name_field}: {str(name)[:80]!r} stands twice")
        found[name] = row
    if not found:
        sys.exit(f"{path}: no rows")
    return found


def entries(path):
    """Yields (number, value) of a file: its lines, or, if it is one JSON list, its entries."""
    content = json_files.text_of(path)
    if not content.lstrip().startswith("["):
        for number, line in rows.lines_of(path):
            try:
                yield number, rows.parse(line)
            except ValueError as error:
                sys.exit(f"{path}:{number}: {error}")
        return
    try:
        listed = json.loads(content)
    except (ValueError, RecursionError) as error:
        sys.exit(f"{path}:{getattr(error, 'lineno', 1)}: row: not JSON ({error})")
    yield from enumerate(listed, 1)


def answered(questions, answers, path):
    """Stops unless there is an answer to every question and no other."""
    missing, other = (
        [name for name in questions if name not in answers],
        [n for n in answers if n not in questions],
    )
    if missing or other:
        told = f"{len(missing)} of {len(questions)} questions have no answer" if missing else ""
        told += (
            f"{', ' if told and other else ''}{len(other)} answers have no question"
            if other
            else ""
        )
        sys.exit(f"{path}: {told}, such as {str((missing or other)[0])[:80]!r}")
