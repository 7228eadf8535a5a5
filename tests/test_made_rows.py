"""Invented rows for every script that reads rows: it accepts them, or refuses them in one line.

The scripts run in this process. Each gets good rows in which a single value is replaced by
something else. The good rows themselves pass.
"""

import contextlib
import copy
import functools
import importlib.util
import io
import json
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands import ROOT, read_jsonl, write_jsonl
from test_report import make

USER = [{"role": "user", "content": "What is 3 plus 4?"}]
ANSWERS = ["It is 7.", "Since 3 and 4, the answer is 7."]


def said(text):
    return [{"role": "assistant", "content": text}]


def three_rows(**row):
    """Good rows, with different ids and questions."""
    rows = []
    for i in range(3):
        good = {"id": f"r{i}", **copy.deepcopy(row)}
        if "prompt" in row:
            question = f"What is {i} plus {i}, and why is it so?"
            good["prompt"] = [{"role": "user", "content": question}]
        rows.append(good)
    return rows


ANSWERED = {"prompt": USER, "responses": ANSWERS, "finish_reasons": ["stop", "stop"]}
PROMPTS = three_rows(prompt=USER, source="add", answer="7")
DIRECTED = three_rows(prompt=USER, system="be brief", direction=[1.0, 0.0])
RESPONSES = three_rows(**ANSWERED, answer="7", policy="p")
REWARDS = [{**row, "rewards": [0.5, 1.5], "annotator": "rm"} for row in RESPONSES]
THREE_EACH = []
for row in REWARDS:
    more = {"responses": [*ANSWERS, "7"], "finish_reasons": ["stop"] * 3}
    THREE_EACH.append({**row, **more, "rewards": [0.5, 1.5, 1.0]})
OTHER = [{**row, "rewards": [2.5, -1.5], "annotator": "judge"} for row in RESPONSES]
RATED = [{**row, "objectives": [{"h": 1.0, "v": 2.0}, {"h": 0.5, "v": 3.0}]} for row in REWARDS]
RATED = [{**row, "system": "s", "direction": [0.6, 0.8]} for row in RATED]
PAIRS = three_rows(prompt=USER, chosen=said(ANSWERS[1]), rejected=said(ANSWERS[0]), margin=1.0)
MESSAGES = three_rows(messages=USER + said(ANSWERS[0]))
BENCH = three_rows(**ANSWERED, correct=[True, False])
BENCH = [{**row, "benchmark": "b", "section": "s", "subset": "x", "group": "g"} for row in BENCH]
MATCH = {"a": 0, "b": 1, "probability": 0.7}
SCORED = [{**row, "rewards": [2.0, 1.0], "judgement": [copy.copy(MATCH)]} for row in BENCH]
TRUE = [{**row, "true_rewards": [1.0, 2.0]} for row in REWARDS]
TEXTS = [{"instruction": "q", "input": "i", "output": f"a{i}"} for i in range(3)]
CAPYBARA = [{"conversation": [{"input": f"q{i}", "output": "a"}]} for i in range(3)]
QUESTIONS = [{"turns": [f"a question of {i} words"]} for i in range(3)]
SHAREGPT, HH, ULTRA = [], [], []
for i in range(3):
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": f"a{i}"}]
    SHAREGPT.append({"conversations": turns})
    question = f"\n\nHuman: q{i}\n\nAssistant:"
    HH.append({"chosen": f"{question} a", "rejected": f"{question} b"})
    completions = [
        {"response": "a", "fine-grained_score": 4.0},
        {"response": "b", "fine-grained_score": 2.0},
    ]
    ULTRA.append({"instruction": f"q{i}", "completions": completions})

ALPACA = [{"instruction": f"q{i}", "output": "o", "generator": "g"} for i in (1, 2)]
MT = [{"question_id": i, "category": "writing", "turns": ["q", "r"]} for i in (1, 2)]
ARENA = [{"uid": f"u{i}", "category": "c", "prompt": "q"} for i in (1, 2)]
MT_ANSWERS, ARENA_ANSWERS = [], []
for i in (1, 2):
    choices = [{"index": 0, "turns": ["a", "b"]}]
    MT_ANSWERS.append({"question_id": i, "model_id": "m", "choices": choices})
    messages = [*USER, {"content": {"answer": "a"}}]
    ARENA_ANSWERS.append({"uid": f"u{i}", "model": "m", "messages": messages})

NO_JUDGE = "--judge_url http://127.0.0.1:1/v1 --judge_model j --max_retries 0"
NO_MODEL = "--model_name_or_path @/none"
OUT = "--output_file @/out.jsonl"
OF_REFERENCE = "--ref_model_name_or_path @/none --output_dir @/model"
BENCHMARK_FILES = "recipes/tiny/benchmark_files"
# {name: (command, {file: its good rows})}; @ stands for the folder of the files.
# The models and judges do not exist: the last line of a script that accepts its rows says so.
SCRIPTS = {
    "prompts": (f"generation/1_prompts.py --datasets @/a.jsonl --size 0 {OUT}", {"a": PROMPTS}),
    "prompts of Capybara": (
        f"generation/1_prompts.py --datasets @/a.jsonl --size 0 {OUT}",
        {"a": CAPYBARA},
    ),
    "prompts to exclude": (
        f"generation/1_prompts.py --datasets @/a.jsonl --size 0 --exclude_files @/b.jsonl {OUT}",
        {"a": PROMPTS, "b": [{**PROMPTS[0], "prompt": USER}]},
    ),
    "directions": (f"generation/1b_directions.py --prompts_file @/a.jsonl {OUT}", {"a": PROMPTS}),
    "responses": (
        f"generation/2_responses.py {NO_MODEL} --prompts_file @/a.jsonl {OUT}",
        {"a": DIRECTED},
    ),
    "responses of a mixture": (
        f"generation/2d_mixture_responses.py {NO_MODEL} --ref_model_name_or_path @/none "
        f"--prompts_file @/a.jsonl {OUT}",
        {"a": DIRECTED},
    ),
    "trajectories": (
        f"generation/2c_tool_responses.py {NO_MODEL} --run_generated_code "
        f"--prompts_file @/a.jsonl {OUT}",
        {"a": PROMPTS},
    ),
    "merge": (
        f"generation/2b_merge.py --responses_files @/a.jsonl @/b.jsonl {OUT}",
        {"a": RESPONSES, "b": RESPONSES},
    ),
    "instructions": (f"sft/1_instructions.py --datasets @/a.jsonl {OUT}", {"a": MESSAGES}),
    "instructions of ShareGPT": (
        f"sft/1_instructions.py --datasets @/a.jsonl {OUT}",
        {"a": SHAREGPT},
    ),
    "instructions of Alpaca": (f"sft/1_instructions.py --datasets @/a.jsonl {OUT}", {"a": TEXTS}),
    "judgements": (f"sft/1b_judgements.py --preferences_file @/a.jsonl {OUT}", {"a": PAIRS}),
    "clean": (
        f"data/1_clean.py --input_file @/a.jsonl --evaluation_files @/b.jsonl --similarity 2 {OUT}",
        {"a": PAIRS, "b": QUESTIONS},
    ),
    "preferences": (f"reward_modeling/1_preferences.py --datasets @/a.jsonl {OUT}", {"a": PAIRS}),
    "preferences of HH-RLHF": (
        f"reward_modeling/1_preferences.py --datasets @/a.jsonl {OUT}",
        {"a": HH},
    ),
    "preferences of UltraFeedback": (
        f"reward_modeling/1_preferences.py --datasets @/a.jsonl {OUT}",
        {"a": ULTRA},
    ),
    "bench": (f"reward_modeling/3_rewardbench.py --datasets @/a.jsonl {OUT}", {"a": PAIRS}),
    "rewardbench": (
        "reward_modeling/3_rewardbench.py --bench_file @/a.jsonl "
        "--rewards_files @/b.jsonl --names n --output_dir @/o",
        {"a": BENCH, "b": SCORED},
    ),
    "calibration": (
        "reward_modeling/5_calibration.py --rewards_files @/a.jsonl "
        "--names n --benchmark b --output_dir @/o",
        {"a": SCORED},
    ),
    "length bias": (
        "reward_modeling/4_length_bias.py --rewards_files @/a.jsonl --names n --output_dir @/o",
        {"a": REWARDS},
    ),
    "reward model": (
        f"annotation/1a_reward_model.py {NO_MODEL} --responses_file @/a.jsonl {OUT}",
        {"a": RESPONSES},
    ),
    "preference model": (
        f"annotation/1b_preference_model.py {NO_MODEL} --responses_file @/a.jsonl {OUT}",
        {"a": RESPONSES},
    ),
    "judge": (
        f"annotation/1c_llm_judge.py {NO_JUDGE} --responses_file @/a.jsonl {OUT}",
        {"a": RESPONSES},
    ),
    "verifier": (
        "annotation/1d_verifier.py --method exact --pattern (\\d) "
        f"--responses_file @/a.jsonl {OUT}",
        {"a": RESPONSES},
    ),
    "combined": (
        f"annotation/1e_combined.py --rewards_files @/a.jsonl @/b.jsonl {OUT}",
        {"a": REWARDS, "b": OTHER},
    ),
    "combined, pessimistic": (
        f"annotation/1e_combined.py --rewards_files @/a.jsonl @/b.jsonl --pessimism 1 {OUT}",
        {"a": REWARDS, "b": OTHER},
    ),
    "pairs": (
        "annotation/2_pairs.py --rewards_file @/a.jsonl "
        f"--explored_file @/b.jsonl --win_probabilities {OUT}",
        {
            "a": REWARDS,
            "b": [{**row, "responses": ["x"], "finish_reasons": ["stop"]} for row in RESPONSES],
        },
    ),
    "best": (
        f"annotation/2b_best.py --rewards_file @/a.jsonl --for_training {OUT}",
        {"a": REWARDS},
    ),
    "self play": (
        "annotation/2c_self_play.py --instructions_file @/a.jsonl "
        f"--responses_file @/b.jsonl {OUT}",
        {
            "a": [{"id": row["id"], "messages": row["prompt"] + said("7")} for row in RESPONSES],
            "b": RESPONSES,
        },
    ),
    "uncertain": (
        f"annotation/2d_uncertain_pairs.py {NO_MODEL} --rewards_file @/a.jsonl {OUT}",
        {"a": REWARDS},
    ),
    "rejection sampling": (
        f"annotation/2f_rejection_sampling.py --rewards_file @/a.jsonl --accepted 2 {OUT}",
        {"a": THREE_EACH},
    ),
    "directional": (
        "annotation/2e_directional.py --helpfulness h --verbosity v "
        f"--rewards_file @/a.jsonl {OUT}",
        {"a": RATED},
    ),
    "true reward": (
        f"recipes/tiny/3_true_reward.py --rewards_file @/a.jsonl {OUT}",
        {"a": REWARDS},
    ),
    "best of n": (f"comparison/1_best_of_n.py --n 2 --rewards_file @/a.jsonl {OUT}", {"a": TRUE}),
    "KL": (
        f"eval/2_kl.py {NO_MODEL} --ref_model_name_or_path @/none --responses_file @/a.jsonl {OUT}",
        {"a": [{**row, "system": "s"} for row in RESPONSES]},
    ),
    "answers": (
        f"eval/1_answers.py --benchmarks mt_bench {NO_MODEL} "
        "--questions_files @/a.jsonl --output_files @/out.jsonl",
        {"a": MT},
    ),
    "AlpacaEval": (
        "eval/2a_alpaca_eval.py --model_outputs @/a.jsonl --reference_outputs @/b.jsonl "
        f"{NO_JUDGE} --output_dir @/o",
        {"a": ALPACA, "b": [{**row, "output": "other"} for row in ALPACA]},
    ),
    "MT-Bench": (
        "eval/2b_mt_bench.py --answers_file @/a.jsonl --questions_file @/b.jsonl "
        f"--prompts_file {BENCHMARK_FILES}/mt_bench_prompts.jsonl "
        f"{NO_JUDGE} --output_dir @/o",
        {"a": MT_ANSWERS, "b": MT},
    ),
    "Arena-Hard": (
        "eval/2c_arena_hard.py --answers_file @/a.jsonl --baseline_file @/b.jsonl "
        "--questions_file @/c.jsonl "
        f"--prompts_file {BENCHMARK_FILES}/arena_hard_prompts.yaml "
        f"{NO_JUDGE} --output_dir @/o",
        {"a": ARENA_ANSWERS, "b": ARENA_ANSWERS, "c": ARENA},
    ),
    "SFT": (
        f"sft/2_finetune.py {NO_MODEL} --dataset_name @/a.jsonl --output_dir @/model --bf16 False",
        {"a": MESSAGES},
    ),
    "DPO": (
        f"dpo/1_dpo.py {NO_MODEL} --dataset_name @/a.jsonl {OF_REFERENCE} --bf16 False",
        {"a": PAIRS},
    ),
    "XPO": (
        f"dpo/1_dpo.py {NO_MODEL} --dataset_name @/a.jsonl {OF_REFERENCE} "
        "--bf16 False --loss_type xpo",
        {"a": [{**row, "explored": "x"} for row in PAIRS]},
    ),
    "KTO": (
        f"dpo/1b_kto.py {NO_MODEL} --dataset_name @/a.jsonl {OF_REFERENCE} --bf16 False",
        {"a": three_rows(prompt=USER, completion=said("7"), label=True)},
    ),
}
TEXT = st.sampled_from(["", " ", "x", "7", "user", "\ud800", "a|b", "NaN", "\0", "[[5]]", "\u2028"])
NUMBER = st.sampled_from(
    [0, 1, -1, 7, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), 2**63]
)
VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "a", "id"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@functools.cache
def loaded(script):
    """The module of a script, with its folder on the path as Python has it."""
    sys.path.insert(0, str((ROOT / script).parent))
    name = script.replace("/", "_").removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, ROOT / script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def ended(folder, command):
    """(exit status, standard error) of a script's main, run in this process."""
    script, *words = command.replace("@", str(folder)).split()
    argv_before = sys.argv
    sys.argv = [script, *words]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            loaded(script).main()
        return 0, ""
    except SystemExit as end:
        if isinstance(end.code, int):
            return end.code, errors.getvalue()
        return 1, f"{end.code}\n"
    finally:
        sys.argv = argv_before


def paths(value, path=()):
    """The path of every value in a row: the row itself, and all that is nested in it."""
    yield path
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        items = ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


def changed(row, path, value):
    """A copy of a row with another value at that path; `...` deletes it."""
    if not path:
        return value
    row = copy.deepcopy(row)
    *outer, last = path
    inner = row
    for key in outer:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return row


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    return tmp_path


def fresh(folder, files):
    """Replace the files of a folder by {name: rows}."""
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    for name, rows in files.items():
        write_jsonl(folder / f"{name}.jsonl", rows)


def drawn_row(data, row):
    """A copy of a good row in which a drawn value stands at a drawn path, or nothing any more."""
    path = data.draw(st.sampled_from(sorted(paths(row), key=str)))
    return changed(row, path, data.draw(VALUE | st.just(...) if path else VALUE))


def encoded(rows):
    """Lines of JSON, which may hold halves of surrogate pairs."""
    return [json.dumps(row).encode("utf-8", "surrogatepass") for row in rows]


@pytest.mark.parametrize("name", SCRIPTS)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_made_row_is_accepted_or_refused_in_one_line(name, folder, data):
    command, files = SCRIPTS[name]
    file = data.draw(st.sampled_from(sorted(files)))
    rows = list(files[file])
    number = data.draw(st.integers(0, len(rows) - 1))
    rows[number] = drawn_row(data, rows[number])
    fresh(folder, {**files, file: encoded(rows)})
    status, error = ended(folder, command)
    assert status in (0, 1, 2)
    if status:
        assert len(error.splitlines()) == 1, error
        assert len(error) < 2000, error
    elif (folder / "out.jsonl").exists():
        for line in (folder / "out.jsonl").read_bytes().splitlines():
            json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} was written"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_good_rows_are_accepted(name, folder):
    """Or the rows have passed and the script names the model or the judge that does not exist."""
    command, files = SCRIPTS[name]
    fresh(folder, files)
    status, error = ended(folder, command)
    if (status, error) != (0, ""):
        assert "none: cannot load a model" in error or "APIConnectionError" in error, error


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_a_report_reads_is_accepted_or_refused_in_one_line(folder, data):
    """Its answers, the curve of a training, the result of a benchmark, the settings."""
    run = folder / "run"
    if not run.exists():
        run.mkdir()
        make(run)
        result = {
            "score": 5.0,
            "turns": [5.0, 4.0],
            "categories": {"c": 5.0},
            "judge": "j",
            "date": "2026-01-01",
            "judgments": 2,
            "of": 2,
        }
        (run / "eval/sft/mt_bench").mkdir()
        (run / "eval/sft/mt_bench/mt_bench.json").write_text(json.dumps(result))
    names = ["eval/iter1/kl.jsonl", "sft/trainer_state.json", "eval/sft/mt_bench/mt_bench.json"]
    file = run / data.draw(st.sampled_from(names))
    before = file.read_bytes()
    rows = read_jsonl(file)
    rows[0] = drawn_row(data, rows[0])
    write_jsonl(file, encoded(rows))
    command = "eval/3_report.py --answers @/run/eval/sft/kl.jsonl @/run/eval/iter1/kl.jsonl "
    command += "--training @/run/sft --settings @/run/settings --log_dir @/run/log "
    command += "--benchmarks @/run/eval/sft/mt_bench/mt_bench.json --output_dir @/run/out"
    try:
        status, error = ended(folder, command)
    finally:
        file.write_bytes(before)
    assert status in (0, 1), error
    if status:
        assert len(error.splitlines()) == 1, error
        assert len(error) < 2000, error
