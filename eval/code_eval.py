"""In place of code_eval of the hub, the metric of lm-eval's tasks that run programs.

The programs run in common/sandbox.py, their tests in a process of their own. For the scripts of
this folder.
"""

import atexit
import functools
import math
import sys

from common import sandbox

REFUSED = "programs that the model wrote run only with --run_generated_code"


@functools.cache
def pool(processes, seconds):
    """The sandboxes of this process: lm-eval asks for one problem at a time."""
    limits = sandbox.Limits()
    if seconds is not None:
        limits = sandbox.Limits(seconds=seconds, processor_seconds=math.ceil(seconds))
    pool = sandbox.Pool(processes, limits)
    atexit.register(pool.close)
    return pool


def compute(references, predictions, k=(1, 10, 100), num_workers=None, timeout=None):
    """({"pass@1": ...} for each of k, {}) as code_eval computes it.

    references: the test of each problem, which calls the program's functions; predictions: the
    programs of each problem; num_workers: programs at a time, by default one for each core;
    timeout: seconds of the clock and of the processor, by default those of sandbox.Limits. Of no
    problem every score is NaN.
    """
    programs_and_tests = []
    for test, programs in zip(references, predictions, strict=True):
        programs_and_tests += [(program, test) for program in programs]
    verdicts = iter(pool(num_workers, timeout).grade(programs_and_tests))
    passed = []  # of each problem, a truth for each program
    for programs in predictions:
        passed.append([next(verdicts) for _ in programs])
    scores = {}
    for sample_size in k:
        if all(len(of_problem) >= sample_size for of_problem in passed):
            estimates = [pass_at(sample_size, of_problem) for of_problem in passed]
            scores[f"pass@{sample_size}"] = sum(estimates) / len(passed) if passed else math.nan
    return scores, {}


def pass_at(sample_size, passed):
    """The chance that one of sample_size programs, drawn from these, passes (Chen et al. 2021)."""
    without_success = math.comb(passed.count(False), sample_size)
    return 1 - without_success / math.comb(len(passed), sample_size)


def replace_code_eval(allowed):
    """From now on `evaluate.load("code_eval")` gives this module, or an error if not allowed."""
    import evaluate

    load = evaluate.load

    def load_ours(path, *args, **options):
        if path != "code_eval":
            return load(path, *args, **options)
        if not allowed:
            raise PermissionError(REFUSED)
        return sys.modules[__name__]

    evaluate.load = load_ours


def guards(task):
    """Does this task of lm-eval run programs, if any, by this module?"""
    if not getattr(task, "UNSAFE_CODE", False):
        return True
    for metric in task.config.metric_list or []:
        # A metric of lm-eval's tasks is a function that keeps code_eval in a global variable.
        used = getattr(metric["metric"], "__globals__", {}).values()
        if any(value is sys.modules[__name__] for value in used):
            return True
    return False
