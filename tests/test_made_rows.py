"""Made rows of every kind are thrown at every script that reads rows: it accepts them, or refuses them in one line.

The scripts run in this process, each on good rows of which one place holds something else; the good rows pass.
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


def several(**row):
    """Three good rows; the ids differ, and the questions."""
    made = []
    for i in range(3):
        prompt = [{"role": "user", "content": f"What is {i} plus {i}, and why is it so?"}]
        made.append(
            {"id": f"r{i}", **copy.deepcopy(row), **({"prompt": prompt} if "prompt" in row else {})}
        )
    return made


PROMPTS = several(prompt=USER, source="add", answer="7")
DIRECTED = several(prompt=USER, system="be brief", direction=[1.0, 0.0])
RESPONSES = several(
    prompt=USER, responses=ANSWERS, finish_reasons=["stop", "stop"], answer="7", policy="p"
)
REWARDS = [{**row, "rewards": [0.5, 1.5], "annotator": "rm"} for row in RESPONSES]
OTHER = [{**row, "rewards": [2.5, -1.5], "annotator": "judge"} for row in RESPONSES]
RATED = [{**row, "objectives": [{"h": 1.0, "v": 2.0}, {"h": 0.5, "v": 3.0}]} for row in REWARDS]
RATED = [{**row, "system": "s", "direction": [0.6, 0.8]} for row in RATED]
PAIRS = several(prompt=USER, chosen=said(ANSWERS[1]), rejected=said(ANSWERS[0]), margin=1.0)
MESSAGES = several(messages=USER + said(ANSWERS[0]))
BENCH = several(
    prompt=USER, responses=ANSWERS, finish_reasons=["stop", "stop"], correct=[True, False]
)
BENCH = [{**row, "benchmark": "b", "section": "s", "subset": "x", "group": "g"} for row in BENCH]
SCORED = [
    {**row, "rewards": [2.0, 1.0], "judgement": [{"a": 0, "b": 1, "probability": 0.7}]}
    for row in BENCH
]
TRUE = [{**row, "true_rewards": [1.0, 2.0]} for row in REWARDS]
SHAREGPT = [
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": f"a{i}"}]}
    for i in range(3)
]
TEXTS = [{"instruction": "q", "input": "i", "output": f"a{i}"} for i in range(3)]
CAPYBARA = [{"conversation": [{"input": f"q{i}", "output": "a"}]} for i in range(3)]
HH = [
    {"chosen": f"\n\nHuman: q{i}\n\nAssistant: a", "rejected": f"\n\nHuman: q{i}\n\nAssistant: b"}
    for i in range(3)
]
ULTRA = [{"response": "a", "fine-grained_score": 4.0}, {"response": "b", "fine-grained_score": 2.0}]
ULTRA = [{"instruction": f"q{i}", "completions": copy.deepcopy(ULTRA)} for i in range(3)]
QUESTIONS = [{"turns": [f"a question of {i} words"]} for i in range(3)]
MT = [{"question_id": i, "category": "writing", "turns": ["q", "r"]} for i in (1, 2)]
MT_ANSWERS = [
    {"question_id": i, "model_id": "m", "choices": [{"index": 0, "turns": ["a", "b"]}]}
    for i in (1, 2)
]
ARENA = [{"uid": f"u{i}", "category": "c", "prompt": "q"} for i in (1, 2)]
ARENA_ANSWERS = [
    {"uid": f"u{i}", "model": "m", "messages": [*USER, {"content": {"answer": "a"}}]}
    for i in (1, 2)
]
ALPACA = [{"instruction": f"q{i}", "output": "o", "generator": "g"} for i in (1, 2)]

NO_JUDGE = "--judge_url http://127.0.0.1:1/v1 --judge_model j --max_retries 0"
NO_MODEL = "--model_name_or_path @/none"
OUT = "--output_file @/out.jsonl"
OF_REFERENCE = "--ref_model_name_or_path @/none --output_dir @/model"
# name: (command, {file: its good rows}); @ is the folder. Where a model or a judge is missing, the line says that.
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
        "reward_modeling/3_rewardbench.py --bench_file @/a.jsonl --rewards_files @/b.jsonl --names n --output_dir @/o",
        {"a": BENCH, "b": SCORED},
    ),
    "calibration": (
        "reward_modeling/5_calibration.py --rewards_files @/a.jsonl --names n --benchmark b --output_dir @/o",
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
        f"annotation/1d_verifier.py --method exact --pattern (\\d) --responses_file @/a.jsonl {OUT}",
        {"a": RESPONSES},
    ),
    "combined": (
        f"annotation/1e_combined.py --rewards_files @/a.jsonl @/b.jsonl {OUT}",
        {"a": REWARDS, "b": OTHER},
    ),
    "pairs": (
        f"annotation/2_pairs.py --rewards_file @/a.jsonl --explored_file @/b.jsonl --win_probabilities {OUT}",
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
        f"annotation/2c_self_play.py --instructions_file @/a.jsonl --responses_file @/b.jsonl {OUT}",
        {
            "a": [{"id": row["id"], "messages": row["prompt"] + said("7")} for row in RESPONSES],
            "b": RESPONSES,
        },
    ),
    "uncertain": (
        f"annotation/2d_uncertain_pairs.py {NO_MODEL} --rewards_file @/a.jsonl {OUT}",
        {"a": REWARDS},
    ),
    "directional": (
        f"annotation/2e_directional.py --helpfulness h --verbosity v --rewards_file @/a.jsonl {OUT}",
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
        f"eval/1_answers.py --benchmarks mt_bench {NO_MODEL} --questions_files @/a.jsonl --output_files @/out.jsonl",
        {"a": MT},
    ),
    "AlpacaEval": (
        f"eval/2a_alpaca_eval.py --model_outputs @/a.jsonl --reference_outputs @/b.jsonl {NO_JUDGE} --output_dir @/o",
        {"a": ALPACA, "b": [{**row, "output": "other"} for row in ALPACA]},
    ),
    "MT-Bench": (
        f"eval/2b_mt_bench.py --answers_file @/a.jsonl --questions_file @/b.jsonl {NO_JUDGE} --output_dir @/o "
        "--prompts_file recipes/tiny/benchmark_files/mt_bench_prompts.jsonl",
        {"a": MT_ANSWERS, "b": MT},
    ),
    "Arena-Hard": (
        f"eval/2c_arena_hard.py --answers_file @/a.jsonl --baseline_file @/b.jsonl --questions_file @/c.jsonl "
        f"--prompts_file recipes/tiny/benchmark_files/arena_hard_prompts.yaml {NO_JUDGE} --output_dir @/o",
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
        f"dpo/1_dpo.py {NO_MODEL} --dataset_name @/a.jsonl {OF_REFERENCE} --bf16 False --loss_type xpo",
        {"a": [{**row, "explored": "x"} for row in PAIRS]},
    ),
    "KTO": (
        f"dpo/1b_kto.py {NO_MODEL} --dataset_name @/a.jsonl {OF_REFERENCE} --bf16 False",
        {"a": several(prompt=USER, completion=said("7"), label=True)},
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
    spec = importlib.util.spec_from_file_location(
        script.replace("/", "_").removesuffix(".py"), ROOT / script
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def ended(folder, command):
    """(exit status, what was said on standard error) of a script's main in this process."""
    script, *words = command.replace("@", str(folder)).split()
    before, errors = sys.argv, io.StringIO()
    sys.argv = [script, *words]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            loaded(script).main()
        return 0, ""
    except SystemExit as end:
        return (end.code, errors.getvalue()) if isinstance(end.code, int) else (1, f"{end.code}\n")
    finally:
        sys.argv = before


def places(value, path=()):
    """Every place in a row: the row itself, and what is below it."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def changed(row, path, value):
    """A copy of a row with another value at that place; `...` takes it out."""
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
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    for name, rows in files.items():
        write_jsonl(folder / f"{name}.jsonl", rows)


@pytest.mark.parametrize("name", SCRIPTS)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_made_row_is_accepted_or_refused_in_one_line(name, folder, data):
    command, files = SCRIPTS[name]
    file = data.draw(st.sampled_from(sorted(files)))
    number = data.draw(st.integers(0, len(files[file]) - 1))
    path = data.draw(st.sampled_from(sorted(places(files[file][number]), key=str)))
    value = data.draw(VALUE | st.just(...) if path else VALUE)
    rows = list(files[file])
    rows[number] = changed(rows[number], path, value)
    lines = [json.dumps(row).encode("utf-8", "surrogatepass") for row in rows]
    fresh(folder, {**files, file: lines})
    status, told = ended(folder, command)
    assert status in (0, 1, 2)
    assert status == 0 or (len(told.splitlines()) == 1 and len(told) < 2000), told
    if status == 0 and (folder / "out.jsonl").exists():
        for line in (folder / "out.jsonl").read_bytes().splitlines():
            json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} was written"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_good_rows_are_accepted(name, folder):
    """Or the model, or the judge, that is not there is named: the rows have passed."""
    command, files = SCRIPTS[name]
    fresh(folder, files)
    status, told = ended(folder, command)
    assert (
        (status, told) == (0, "")
        or "none: cannot load a model" in told
        or "APIConnectionError" in told
    ), told


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
        }
        (run / "eval/sft/mt_bench").mkdir()
        (run / "eval/sft/mt_bench/mt_bench.json").write_text(
            json.dumps({**result, "judgments": 2, "of": 2})
        )
    names = ["eval/iter1/kl.jsonl", "sft/trainer_state.json", "eval/sft/mt_bench/mt_bench.json"]
    file = run / data.draw(st.sampled_from(names))
    before = file.read_bytes()
    rows = read_jsonl(file)
    path = data.draw(st.sampled_from(sorted(places(rows[0]), key=str)))
    rows[0] = changed(rows[0], path, data.draw(VALUE | st.just(...) if path else VALUE))
    write_jsonl(file, [json.dumps(row).encode("utf-8", "surrogatepass") for row in rows])
    answers = [f"@/run/eval/{name}/kl.jsonl" for name in ("sft", "iter1")]
    command = [
        "eval/3_report.py --answers",
        *answers,
        "--training @/run/sft --settings @/run/settings",
    ]
    command += [
        "--log_dir @/run/log --benchmarks @/run/eval/sft/mt_bench/mt_bench.json --output_dir @/run/out"
    ]
    try:
        status, told = ended(folder, " ".join(command))
    finally:
        file.write_bytes(before)
    assert status == 0 or (status == 1 and len(told.splitlines()) == 1 and len(told) < 2000), told
