"""Academic benchmarks: lm-eval with both backends."""

import json
import os
import random
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from commands import ROOT, read_jsonl, run, write_jsonl

INSTALLED = Path(find_spec("lm_eval").origin).parent / "tasks"
TINY = ["--tasks", "tiny_answers", "tiny_choices"]


def evaluate(model, out, *flags, **options):
    command = ["eval/2d_academic.py", "--model_name_or_path", model, "--output_dir", out]
    return run(*command, *flags, **options)


def summary(out):
    return json.loads((out / "academic.json").read_text())


def samples(task_folder):
    """{id of the question: what lm-eval logs about its answer}"""
    return {sample["doc_id"]: sample for sample in read_jsonl(task_folder / "samples.jsonl")}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny world's tasks, over 100 questions."""
    sys.path.insert(0, str(ROOT / "recipes/tiny"))
    import world

    out = tmp_path_factory.mktemp("lm_eval")
    rng = random.Random(0)
    questions = []
    for i in range(100):
        question = world.question(rng)
        row = {
            "id": f"test-{i}",
            "prompt": [{"role": "user", "content": question["text"]}],
            "source": question["kind"],
            "answer": question["answer"],
            "wrong": question["wrong"],
        }
        questions.append(row)
    write_jsonl(out / "questions.jsonl", questions)
    for file in (ROOT / "recipes/tiny/benchmark_files/lm_eval").glob("*.*"):
        shutil.copy(file, out)
    # A task that fails late: when lm-eval loads a task it looks at the first question alone.
    choices = "doc_to_choice: \"{{['1', '2'] if id == 'test-0' else 'broken('}}\""
    broken = re.sub("doc_to_choice: .*", choices, (out / "tiny_choices.yaml").read_text())
    (out / "broken.yaml").write_text(broken.replace("task: tiny_choices", "task: broken"))
    text = (out / "tiny_answers.yaml").read_text()
    unsafe = text.replace("task: tiny_answers", "task: own_means")
    (out / "own_means.yaml").write_text(f"{unsafe}unsafe_code: true\n")
    (out / "code.yaml").write_text(f"include: {INSTALLED}/humaneval/humaneval.yaml\ntask: code\n")
    # The hub is out of reach in the tests.
    (out / "far.yaml").write_text(f"include: {INSTALLED}/arc/arc_challenge.yaml\ntask: far\n")
    return out


@pytest.fixture(scope="module")
def by_transformers(sft, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("hf")
    done = evaluate(sft, out, "--backend", "hf", "--include_path", tiny, *TINY)
    assert done.returncode == 0, done.stderr
    return out


def test_vllm_and_transformers_agree(sft, tiny, by_transformers, tmp_path):
    # as the driver sets it
    quiet = {**os.environ, "TQDM_DISABLE": "1"}
    done = evaluate(sft, tmp_path, "--include_path", tiny, *TINY, env=quiet)
    assert done.returncode == 0, done.stderr
    of_vllm = summary(tmp_path)
    of_transformers = summary(by_transformers)
    assert of_vllm["backend"] == "vllm"
    assert of_vllm["model"] == str(sft)
    assert of_vllm["versions"]["lm_eval"]
    for task, metric in [("tiny_answers", "exact_match,last-is"), ("tiny_choices", "acc,none")]:
        result = of_vllm["tasks"][task]
        assert result["metric"] == metric
        assert result["n"] == 100
        assert result["shots"] == 0
        expected = of_transformers["tasks"][task]["value"]
        assert result["value"] == pytest.approx(expected, abs=0.02)
    # A model of so few steps is never right, or half of the time: the answers and the likelihoods
    # must agree too.
    answers = samples(tmp_path / "tiny_answers")
    expected = samples(by_transformers / "tiny_answers")
    assert sum(answers[i]["resps"] == expected[i]["resps"] for i in answers) >= 98
    choices = samples(tmp_path / "tiny_choices")
    expected = samples(by_transformers / "tiny_choices")
    assert len(choices) == 100
    for i, sample in choices.items():
        assert sample["arguments"][0][0].endswith("\nAnswer:\n")
        for (choice,), (other,) in zip(sample["resps"], expected[i]["resps"], strict=True):
            assert choice[0] == pytest.approx(other[0], abs=1e-2)


def test_the_scores_are_those_of_the_samples(by_transformers):
    tasks = summary(by_transformers)["tasks"]
    right = 0
    for sample in samples(by_transformers / "tiny_choices").values():
        # The first choice is the right one.
        (first,), (second,) = sample["resps"]
        right += first[0] > second[0]
    assert tasks["tiny_choices"]["value"] == pytest.approx(right / 100)
    right = 0
    for sample in samples(by_transformers / "tiny_answers").values():
        last_is = re.sub(r"(?s).*(?=\bis )", "", sample["resps"][0][0])
        answers = re.findall(r"\bis ([^.]*)", last_is)
        right += answers[:1] == [sample["doc"]["answer"]]
    assert tasks["tiny_answers"]["value"] == pytest.approx(right / 100)


def test_answers_have_1024_tokens_and_those_that_are_cut_off_are_counted(sft, tiny, tmp_path):
    """A limit from lm-eval's files is raised, one that the user's file sets stays; a flag wins."""
    text = (tiny / "tiny_answers.yaml").read_text()
    text = text.replace("max_gen_toks: 64", "max_gen_toks: 1")
    text = text.replace("task: tiny_answers", "task: own_limit")
    write_jsonl(tmp_path / "questions.jsonl", read_jsonl(tiny / "questions.jsonl")[:8])
    shutil.copy(tiny / "beside.py", tmp_path)
    (tmp_path / "own_limit.yaml").write_text(text)
    (tmp_path / "raised.yaml").write_text(f"include: {tmp_path}/own_limit.yaml\ntask: raised\n")
    flags = ["--include_path", tmp_path, "--tasks", "own_limit", "raised"]

    def truncated(out):
        """{task: the share of truncated answers}"""
        return {name: task["truncated"] for name, task in summary(out)["tasks"].items()}

    def texts(task_folder):
        return [sample["resps"][0][0] for sample in read_jsonl(task_folder / "samples.jsonl")]

    for backend in ("hf", "vllm"):
        out = tmp_path / backend
        done = evaluate(sft, out, *flags, "--backend", backend)
        assert done.returncode == 0, done.stderr
        assert truncated(out)["own_limit"] == 1
        assert truncated(out)["raised"] < 1
        assert "8 questions, 100.0% of the answers cut off" in done.stdout
        assert "| answers cut off | 100.0 | " in done.stdout
        short_texts = texts(out / "own_limit")
        long_texts = texts(out / "raised")
        for short, long in zip(short_texts, long_texts, strict=True):
            assert long.startswith(short)
        assert sum(map(len, long_texts)) > 3 * sum(map(len, short_texts))
    out = tmp_path / "flag"
    done = evaluate(sft, out, *flags, "--backend", "hf", "--max_gen_toks", 2)
    assert done.returncode == 0, done.stderr
    assert truncated(out) == {"own_limit": 1, "raised": 1}


def test_only_what_is_missing_is_done_and_a_task_that_fails_is_named(sft, tiny, by_transformers):
    command = [sft, by_transformers, "--backend", "hf", "--include_path", tiny]
    answers = by_transformers / "tiny_answers/result.json"
    choices = by_transformers / "tiny_choices/result.json"
    mtime_before = answers.stat().st_mtime_ns
    table_before = (by_transformers / "academic.json").read_bytes()
    choices.unlink()
    done = evaluate(*command, "--tasks", "broken", "tiny_answers", "tiny_choices")
    assert done.returncode == 1
    pattern = r"broken \(SyntaxError.*: failed; kept: tiny_answers, tiny_choices;"
    assert re.match(pattern, done.stderr.splitlines()[-1])
    assert answers.stat().st_mtime_ns == mtime_before
    assert choices.exists()
    assert not (by_transformers / "broken").exists()
    assert (by_transformers / "academic.json").read_bytes() == table_before

    done = evaluate(*command, *TINY, env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0
    assert "finished before: 2" in done.stdout
    # No model is loaded.
    assert "torch" not in done.stderr
    assert (by_transformers / "academic.json").read_bytes() == table_before


CANNOT_LOAD = "the task or its data set cannot be loaded"
OWN_MEANS = "it runs programs that the model wrote by its own means, outside the sandbox"


@pytest.mark.parametrize(
    "tasks, message",
    [
        (
            ["no_such_task"],
            "no_such_task: neither lm-eval nor --include_path has a task or group of that name",
        ),
        (["far"], f"far: {CANNOT_LOAD} (ConnectionError("),
        (["code"], f"code: {CANNOT_LOAD} (PermissionError('programs that the model wrote"),
        (["own_means"], f"own_means: {OWN_MEANS}"),
        (
            ["gsm8k_cot", "mbpp_instruct"],
            "mbpp_instruct: programs that the model wrote run only with",
        ),
    ],
)
def test_bad_tasks_stop_before_the_model_is_loaded(tasks, message, sft, tiny, tmp_path):
    done = evaluate(sft, tmp_path / "out", "--include_path", tiny, "--tasks", *tasks)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(message)
    assert not (tmp_path / "out").exists()


def test_a_directory_without_a_model_is_refused_where_another_model_has_results(
    tiny, by_transformers, tmp_path
):
    done = evaluate(tmp_path, by_transformers, "--backend", "hf", "--include_path", tiny, *TINY)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"{tmp_path}: cannot load a model from it (")


def test_a_model_without_chat_template_is_refused(sft, tmp_path):
    bare = shutil.copytree(sft, tmp_path / "bare", ignore=shutil.ignore_patterns("chat_template*"))
    done = evaluate(bare, tmp_path / "out", *TINY)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"{bare}: its tokenizer has no chat template"


def test_code_without_a_sandbox_is_refused(sft, tmp_path):
    empty_path = {**os.environ, "PATH": str(tmp_path)}
    done = evaluate(sft, tmp_path / "out", "--run_generated_code", env=empty_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "bwrap, which is not there" in done.stderr


# All of the paper's benchmarks, over questions of the published form


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    out = tmp_path_factory.mktemp("offline")

    def task(name, include, more="", **splits):
        """lm-eval's task of that name, with these rows instead of the published ones."""
        files = {}
        for split, rows in splits.items():
            files[split] = str(write_jsonl(out / f"{name}.{split}.jsonl", rows))
        text = f"include: {INSTALLED / include}\ntask: {name}\n"
        text += "dataset_path: json\ndataset_name: null\n"
        text += f"dataset_kwargs: {json.dumps({'data_files': files})}\n{more}"
        (out / f"{name}.yaml").write_text(text)

    sum_question = {"question": "2 + 2?", "answer": "It is 4. #### 4"}
    task("gsm8k_cot", "gsm8k/gsm8k-cot.yaml", test=[sum_question] * 2)
    choice = {
        "question": "Which is a colour?",
        "choices": ["cat", "red", "saw", "fig"],
        "answer": 1,
    }
    for name, n in [("mmlu_one", 3), ("mmlu_two", 1)]:
        task(name, "mmlu/default/_default_template_yaml", test=[choice] * n, dev=[choice] * 6)
    (out / "mmlu.yaml").write_text(
        "group: mmlu\n"
        "task: [mmlu_one, mmlu_two]\n"
        "aggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    )
    targets = {"choices": ["It is red.", "It is a cat."], "labels": [1, 0]}
    question = {"question": "Which is a colour?", "mc1_targets": targets, "mc2_targets": targets}
    task("truthfulqa_mc2", "truthfulqa/truthfulqa_mc2.yaml", validation=[question] * 2)
    choices = {"text": choice["choices"], "label": list("ABCD")}
    question = {"question": "Which is a colour?", "choices": choices, "answerKey": "B"}
    arc = [{"id": f"{i}", **question} for i in range(30)]
    task("arc_challenge", "arc/arc_challenge.yaml", train=arc, validation=arc[:2], test=arc[:2])
    # Four programs: right, wrong, endless, and one that exits before the test. The model adds a
    # comment of a single token.
    bodies = ["return x + 1", "return x", "while True: pass", "__import__('os')._exit(0)"]
    problem = {"test": "def check(f):\n    assert f(1) == 2", "entry_point": "f"}
    problems = []
    for i, body in enumerate(bodies):
        problems.append({"task_id": f"{i}", "prompt": f"def f(x):\n    {body}  #", **problem})
    comment = 'generation_kwargs: {max_gen_toks: 1, do_sample: false, until: ["\\n"]}\n'
    task("humaneval_instruct", "humaneval/humaneval_instruct.yaml", comment, test=problems)
    tests = [f"assert f({i}) == {i + 1}" for i in range(3)]
    problem = {"task_id": 11, "text": "Add one.", "test_list": tests}
    task("mbpp_instruct", "mbpp/mbpp_instruct.yaml", test=[problem])
    return out


def test_the_papers_benchmarks_with_their_examples(sft, offline, tmp_path, usable_sandbox):
    flags = ["--backend", "hf", "--include_path", offline]
    done = evaluate(sft, tmp_path, *flags, "--run_generated_code")
    assert done.returncode == 0, done.stderr
    tasks = summary(tmp_path)["tasks"]
    assert {name: (task["shots"], task["n"]) for name, task in tasks.items()} == {
        "gsm8k_cot": (8, 2),
        "mmlu": (5, 4),
        "humaneval_instruct": (0, 4),
        "truthfulqa_mc2": (0, 2),
        "arc_challenge": (25, 2),
        "mbpp_instruct": (0, 1),
    }
    assert tasks["humaneval_instruct"]["value"] == 0.25
    assert tasks["mbpp_instruct"]["value"] == 0
    for name, examples in [("gsm8k_cot", 8), ("mmlu", 5), ("arc_challenge", 25)]:
        prompt = read_jsonl(tmp_path / name / "samples.jsonl")[0]["arguments"][0][0]
        # Each example is a turn of the chat template.
        assert prompt.count("\nAnswer:\n") == examples + 1
    assert "| model | GSM8K | MMLU | HumanEval | TruthfulQA | ARC | MBPP |" in done.stdout

    # Without --run_generated_code the earlier scores of programs stay, and nothing is run.
    done = evaluate(sft, tmp_path, *flags)
    assert done.returncode == 0
    assert "left out: humaneval_instruct, mbpp_instruct:" in done.stdout
    assert "finished before: 6" in done.stdout
    assert summary(tmp_path)["tasks"] == tasks
