"""Check what the verifiers of a run are given: their files, VERIFIER_PATTERN and local prompts.

For check.py. The first verifier runs after a round's sampling, hours from the start of a run.
"""

import json
import os
import sys
from pathlib import Path

from needs import ANNOTATORS, BELOW_OUT, number, problem, value


def check_verifiers():
    """Load VERIFIERS, and check the rows of local prompts; the first bad row ends the program."""
    if "verifier" not in ANNOTATORS:
        return
    sys.path.append(str(Path(__file__).parents[1] / "annotation"))
    import named_verifiers

    default = default_verifier()
    try:
        own = named_verifiers.load(value("VERIFIERS").split())
    except ValueError as error:
        problem(f"VERIFIERS={error}")
        return
    if default is None:
        return
    runs_programs = value("RUN_GENERATED_CODE") == "yes"
    verifiers = named_verifiers.Verifiers(own, [default], runs_programs)
    for file in files_to_verify():
        check_rows(file, verifiers)


def default_verifier():
    """The verifier of rows that name none; None, and a problem, if it cannot be one."""
    import verifier_arguments

    method = value("VERIFIER_METHOD") or "math"
    pattern = value("VERIFIER_PATTERN")
    if not pattern:
        if method == "exact":
            problem("VERIFIER_PATTERN: VERIFIER_METHOD=exact needs one, with one group")
            return None
        return {"name": method}
    arguments = {"pattern": pattern}
    try:
        verifier_arguments.check_answer_pattern(arguments)
    except ValueError as error:
        problem(f"VERIFIER_PATTERN: {str(error).removeprefix('arguments: pattern: ')}")
        return None
    return {"name": method, "arguments": arguments}


def files_to_verify():
    """The local files whose rows a verifier will score, without those that the run makes."""
    sources = []
    draws_prompts = not {"offline", "self_play"} & set(value("OPTIMISER").split())
    if "verifier" in value("ANNOTATOR").split() and number("ITERATIONS") and draws_prompts:
        sources += (value("PROMPTS_BY_ROUND") or value("PROMPTS")).split()
    if "verifier" in value("VALIDATION").split():
        sources += (value("EVAL_PROMPTS") or value("EVAL_POOL") or value("PROMPTS")).split()
    files = []
    for source in dict.fromkeys(sources):
        if os.path.isfile(source) and not source.startswith(BELOW_OUT):
            files.append(source)
    return files


def check_rows(file, verifiers):
    """Check the rows as 1d_verifier.py does, each answer with its verifier once."""
    from common import rows

    checked = set()
    for row in rows.load(file, "train"):
        set_answer_and_verifier(row)
        key = json.dumps([row["answer"], row["verifier"]], sort_keys=True)
        if key not in checked:
            checked.add(key)
            verifiers.check(row)


def set_answer_and_verifier(row):
    """Give a row of public data the two fields that generation/1_prompts.py would give it."""
    from common import entrances, fields, rows

    try:
        answer = entrances.final_answer(row)
        if row.get("verifier") is None:
            row["verifier"] = entrances.instructions_to_check(row)
    except ValueError as error:
        rows.refuse(row, error)
    row["answer"] = answer
    if row["verifier"] is not None:
        reason = fields.check_verifier(row["verifier"], row)
        if reason:
            rows.refuse(row, f"verifier: {reason}")
