"""Check at once what would stop a run of run_loop.sh later: hub names, local files, disk, GPUs.

Only names that a step reads count; steps that are skipped read none. The script asks the hub
whether a name exists, whether this account may read it and how large it is; with HF_HUB_OFFLINE=1
it has to be in the cache. A model in a directory has to load completely and needs a chat template;
a model on the hub is loaded by the first step that reads it. Rows of EVAL_PROMPTS need a split.
Where a verifier scores, VERIFIERS and VERIFIER_PATTERN have to load, and the rows of local prompts
need answers and arguments that suit their verifiers.
With RUN_GENERATED_CODE=yes, or --run_generated_code of ACADEMIC_OPTIONS, the sandbox has to start.
Disk and memory are footprint.py's estimates. With CHECK=no only rows are checked.

Reads:  run_loop.sh's variables from the environment (a missing one is empty);
        preflight/hub_names.md, for words that stand for several names; nvidia-smi or GPU_MEMORY,
        the GiB of a GPU; df; the hub, and the addresses of benchmarks
Writes: --hours_file, if given: a line for each kind of step in a round, its name and its seconds as
        computed from the GPUs. Standard output says what is in order, in lines that start with #.
        Standard error has one line for each problem; the exit status is then 1.

    SFT_MODEL=RLHFlow/LLaMA3-SFT PROMPTS=RLHFlow/prompt-collection-v0.1 python preflight/check.py
"""

import argparse
import contextlib
import json
import os
import sys
import urllib.request
from collections import Counter

import disk
import gpus
import hours
import hub
import verifiable
from needs import (
    ANNOTATORS,
    BELOW_OUT,
    flag,
    hub_names,
    judged_evaluations,
    problem,
    problems,
    trainings,
    value,
)

SPLITS = ("validation", "test")


@contextlib.contextmanager
def exit_as_problem():
    """What would end a script of the run is a problem within this context."""
    try:
        yield
    except SystemExit as error:
        problem(error.code)


def check_evaluation_prompts():
    """Every row has a split, validation or test, as the report needs; the run's own rows do."""
    path = value("EVAL_PROMPTS")
    if not os.path.exists(path) or path.startswith(BELOW_OUT):
        return
    from common import rows

    with exit_as_problem():
        counts = Counter()
        for row in rows.read(path, "prompts"):
            if row.get("split") not in SPLITS:
                rows.refuse(row, "split: not validation or test")
            counts[row["split"]] += 1
        if min(counts[split] for split in SPLITS) < 2:
            problem(f"{path}: split: fewer than two rows of validation or of test")


def check_judge():
    """The judge answers, and serves JUDGE_MODEL."""
    url = value("JUDGE_URL")
    model = value("JUDGE_MODEL")
    if not url or not (judged_evaluations() or "llm_judge" in ANNOTATORS):
        return
    headers = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '-')}"}
    request = urllib.request.Request(f"{url.rstrip('/')}/models", headers=headers)
    try:
        with hub.patiently(urllib.request.urlopen, request, None, 10) as reply:
            served = [entry["id"] for entry in json.load(reply)["data"]]
    except Exception as error:  # no server, a refused key, a reply of another form
        reason = str(error) or type(error).__name__
        problem(f"JUDGE_URL={url}: {reason}; its /models has to answer")
        return
    if model in served:
        print(f"# judge: {url} serves {model}")
    else:
        problem(f"JUDGE_MODEL={model}: {url} serves {', '.join(served[:5])}")


def check_sandbox():
    """What runs programs needs it hours from here: a verifier, a tool, a benchmark."""
    needed_by = []
    if value("RUN_GENERATED_CODE") == "yes":
        needed_by.append("RUN_GENERATED_CODE=yes")
    run_code = "--run_generated_code"
    if "academic" in value("EVALS").split() and run_code in value("ACADEMIC_OPTIONS").split():
        needed_by.append(f"ACADEMIC_OPTIONS={run_code}")
    if not needed_by:
        return
    from common import sandbox

    if reason := sandbox.unusable():
        problem(f"{', '.join(needed_by)}: {reason}")


def local_models():
    """{variable: class that loads the model, or None} of the models in directories.

    None: only the tokenizer is checked, since the training makes the model's head.
    """
    classes = {
        "SFT_MODEL": "AutoModelForCausalLM",
        "REWARD_MODEL": "AutoModelForSequenceClassification",
    }
    if "preference_model" in ANNOTATORS:
        classes["PREFERENCE_MODEL"] = "AutoModelForCausalLM"
    starts = {"BASE_MODEL": "sft", "RM_START": "reward_model", "PM_START": "preference_model"}
    for variable, stage in starts.items():
        if stage in trainings():
            classes[variable] = None
    local = {}
    for variable, class_name in classes.items():
        path = value(variable)
        if os.path.isdir(path) and not path.startswith(BELOW_OUT):
            local[variable] = class_name
    return local


def check_models():
    """Load local models as their first step does: its checks are of template, keys and shapes."""
    local = local_models()
    if not local:
        return
    import transformers

    from common import models

    for variable, class_name in local.items():
        path = value(variable)
        options = {}
        if variable == "REWARD_MODEL" and value("RM_TRUST_REMOTE_CODE") == "yes":
            options = {"trust_remote_code": True}
        # SFT may give a base model its template.
        template = variable != "BASE_MODEL" or not flag("SFT_OPTIONS", "--chat_template_path")
        with exit_as_problem():
            tokenizer = models.tokenizer(path, template=template, **options)
            if class_name:
                models.check(getattr(transformers, class_name), path, tokenizer, **options)
            print(f"# models: {variable}={path}: well")


def report_hours(hours_by_step, file):
    """Print the hours of a round's steps, and leave them for run_loop.sh."""
    if not hours_by_step:
        return
    listed = ", ".join(f"{step} {count:.1f}" for step, count in hours_by_step.items())
    print(f"# hours of a round, computed: {listed}")
    if file:
        hours.write(hours_by_step, file)


def check_machine_and_models(hours_file):
    labels = hub_names()
    download = 0
    reachable = False  # whether the hub answers
    if labels:
        download, reachable = hub.check_names(labels)
    disk.check_disk(download, reachable)
    gpus.check_context(reachable)
    gpu_gib = gpus.check_gpus(reachable)
    gpus.print_batches()
    if gpu_gib:
        report_hours(hours.hours_by_step(gpu_gib, reachable), hours_file)
    check_judge()
    check_sandbox()
    if not problems:  # it takes seconds
        check_models()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours_file", help="for the hours of a round's steps, if they are known")
    args = parser.parse_args()
    check_evaluation_prompts()
    with exit_as_problem():
        verifiable.check_verifiers()
    if value("CHECK") != "no":
        with exit_as_problem():
            check_machine_and_models(args.hours_file)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
