"""preflight/check.py with a scripted hub, nvidia-smi and df; its names against the scripts."""

import dataclasses
import importlib.util
import json
import re
import runpy
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import compute
import footprint
import shapes
from commands import ROOT, run, write_jsonl
from scripted_hub import H100, LLAMA_8B, NAME, TABLE, machine, split

# smollm2.sh starts from files that its own scripts make first.
RECIPES = sorted(path.name for path in ROOT.glob("recipes/*.sh") if path.name != "smollm2.sh")
LLAMA_70B = LLAMA_8B | {
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
}
QUICK = {"GPUS": "8", "RECIPE": "recipes/llama3_8b_quick.sh", "EVALS": "none"}
# The values of environment, recipe and defaults, read by the driver's own functions.
AS_THE_DRIVER = """
set -euf
for file in steps variables settings; do source "driver/$file.sh"; done
check_value() { :; } # impossible values are left to the check
read_settings
export "${SETTINGS[@]}"
exec "$PYTHON" "$@"
"""
SFT_MODEL_IS_OPEN = "# hub: SFT_MODEL=RLHFlow/LLaMA3-SFT: open"


@pytest.fixture
def check(tmp_path, hub):
    """Run the check as run_loop.sh does: (exit status, lines of what is well, problems)."""

    def checked(*, gpus=(), gpu_name=H100, free=100_000, recipe=None, flags=(), **variables):
        environment = machine(tmp_path, hub, gpus, free, gpu_name)
        environment |= {"PYTHON": sys.executable, **variables}
        command = ["bash", "-c", AS_THE_DRIVER, "-", *(flags or ["preflight/check.py"])]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    return checked


# The table of names


def dataset_of(task):
    """The data set of lm-eval's task or group, by its YAML files and those that they include."""
    tasks = Path(importlib.util.find_spec("lm_eval").submodule_search_locations[0], "tasks")
    of_task = re.compile(rf"^\"?(task|group)\"?: \"?{task}\"?$", re.MULTILINE)
    file = next(path for path in tasks.rglob("*.yaml") if of_task.search(path.read_text()))
    if file.name.startswith("_"):
        # The tasks of a group are beside it.
        files = sorted(file.parent.glob("*.yaml"))
        file = next(path for path in files if not path.name.startswith("_"))
    while True:
        text = file.read_text()
        dataset = re.search(r"^\"?dataset_path\"?: (\S+)", text, re.MULTILINE)
        if dataset:
            return dataset[1]
        included = re.search(r"^\"?include\"?: \"?([\w.-]+)", text, re.MULTILINE)
        file = file.parent / included[1]


def named(path, pattern):
    """The names of that pattern in a file's code, without comments and without files of a run."""
    code = re.sub(r"(?m)(^| +)#.*", "", path.read_text())
    names = set(re.findall(pattern, code))
    return {name for name in names if name.split("/")[0] not in ("runs", "recipes")}


def test_the_table_and_the_scripts_name_the_same():
    published = runpy.run_path(str(ROOT / "eval/published.py"))
    preferences = runpy.run_path(str(ROOT / "reward_modeling/preference_datasets.py"))
    expected = defaultdict(set)
    expected["SFT_DATA=paper"] = set(runpy.run_path(str(ROOT / "sft/1_instructions.py"))["PAPER"])
    prompts = runpy.run_path(str(ROOT / "generation/1_prompts.py"))
    expected["PROMPTS=paper"] = set(prompts["PAPER"])
    expected["PROMPTS=math"] = set(prompts["MATH"])
    expected["PROMPTS=math-test"] = set(prompts["MATH_TEST"])
    for mix, names in preferences["MIXES"].items():
        for name in names:
            repo, _, part = split(name)
            if repo in preferences["REVISIONS"]:
                repo = f"{repo}@{preferences['REVISIONS'][repo]}"
            expected[f"PREFERENCES={mix}"].add(f"{repo}:{part}" if part else repo)
    academic = (ROOT / "eval/2d_academic.py").read_text()
    code = re.search(r"^CODE = (\[.*\])", academic, re.MULTILINE)[1]
    for task in published["ACADEMIC"]:
        variable = "ACADEMIC_OPTIONS=--run_generated_code" if task in code else "EVALS=academic"
        expected[variable].add(dataset_of(task))
        expected[f"--tasks={task}"].add(dataset_of(task))
    expected["--tasks=minerva_math500"] = {dataset_of("minerva_math500")}
    for name, address in published["PUBLISHED"].items():
        benchmark = re.match("alpaca_eval|mt_bench|arena_hard", name)[0]
        expected[f"EVALS={benchmark}"].add(address)
    alpaca_eval = (ROOT / "eval/2a_alpaca_eval.py").read_text()
    gamed = re.search(r'hf_hub_download\("(\S+)", "(\S+)", repo', alpaca_eval)
    expected["--gamed_file=default"] = {f"hf://datasets/{gamed[1]}/{gamed[2]}"}
    rewardbench = ROOT / "reward_modeling/3_rewardbench.py"
    expected["3_rewardbench.py"] = named(rewardbench, r"allenai/[\w-]+")
    for path in [*ROOT.glob("recipes/*.sh"), ROOT / "driver/variables.sh"]:
        names = named(path, rf"(?<=[= \"])[A-Za-z]{NAME}(?::[\w./-]+)?(?=[ \"\n])")
        if names:
            expected[path.name] = names
    names_by_user = defaultdict(set)
    for name, kind, gated, used_by in TABLE:
        assert kind == "file" if name.startswith("https://") else kind in ("model", "dataset"), name
        is_gated = name.startswith(("meta-llama/", "google/gemma"))
        assert gated == ("yes" if is_gated else "no"), name
        for user in used_by.split(", "):
            names_by_user[user].add(name)
    assert names_by_user == expected
    assert len(expected["SFT_DATA=paper"]) == 9
    assert len(expected["PROMPTS=paper"]) == 1
    assert len(expected["PROMPTS=math"]) == 8
    assert len({name for name, *_ in TABLE}) == len(TABLE)


def test_a_missing_sandbox_is_told_before_anything_is_sampled(check, tmp_path):
    # The machine's commands but one. The check's own are written to another folder, `tools`.
    commands = tmp_path / "commands"
    commands.mkdir()
    for file in Path("/usr/bin").iterdir():
        if file.name != "bwrap":
            (commands / file.name).symlink_to(file)
    path = f"{tmp_path}/tools:{commands}"
    status, _, problems = check(**QUICK, RUN_GENERATED_CODE="yes", PATH=path)
    assert status == 1
    said = "the sandbox needs the command bwrap, which is not there"
    start = f"check: RUN_GENERATED_CODE=yes: {said}"
    assert any(problem.startswith(start) for problem in problems), problems
    benchmarks = {"EVALS": "academic", "ACADEMIC_OPTIONS": "--run_generated_code"}
    _, _, problems = check(**QUICK | benchmarks, PATH=path)
    start = f"check: ACADEMIC_OPTIONS=--run_generated_code: {said}"
    assert any(problem.startswith(start) for problem in problems), problems


# Names


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_passes(check, hub, recipe):
    status, well, problems = check(RECIPE=f"recipes/{recipe}", GPUS="8", EVALS="academic")
    assert (status, problems) == (0, [])
    assert all(line.startswith("# ") for line in well)
    names = {split(name)[0] for name, _, _, used_by in TABLE if recipe in used_by.split(", ")}
    assert names <= set(hub.asked)
    if recipe == "tiny.sh":
        assert not hub.asked


def test_what_it_tells_of_the_papers_run(check):
    status, well, problems = check(RECIPE="recipes/llama3_8b.sh", GPUS="8", gpus=[81559] * 8)
    shape = shapes.SHAPES["llama3_8b"]
    settings = {"gpus": 8, "batch": 2, "distributed": "zero3"}
    sft = footprint.training(shape, "sft", sequence=8192, **settings)["total"]
    rm = footprint.training(shape, "reward_model", sequence=4096, **settings)["total"]
    dpo = footprint.training(shape, "dpo", sequence=2048, **settings)["total"]
    generation = footprint.generation(shape, sequence=4096)["total"]
    scoring = footprint.scoring(shape)["total"]
    trained = ["sft", "reward_model", "dpo", "dpo", "dpo"]
    disk = footprint.disk(shape, trained=trained, tokens=3 * 20000 * 8 * 2048)
    users = {"EVALS=academic", "SFT_DATA=paper", "PREFERENCES=mix2", "variables.sh", "llama3_8b.sh"}
    datasets = 0
    for name, kind, _, used_by in TABLE:
        if kind == "dataset" and ":" not in name:
            datasets += bool(users & set(used_by.split(", ")))
    # Two models of 16 GiB in safetensors; of a dataset its GiB and the 2 of its cache.
    downloads = 32 + 3 * datasets
    models, checkpoints, rows = disk["models"], disk["checkpoints"], disk["rows"]
    total = models + checkpoints + rows + downloads
    assert (status, problems) == (0, [])
    assert well == [
        "# hub: BASE_MODEL=meta-llama/Meta-Llama-3-8B: open",
        "# hub: RM_START=meta-llama/Meta-Llama-3-8B-Instruct: open",
        "# hub: SFT_DATA=paper: 9 open",
        "# hub: PREFERENCES=mix2: 12 open",
        "# hub: PROMPTS=RLHFlow/prompt-collection-v0.1: open",
        "# hub: REWARD_BENCH=allenai/reward-bench: open",
        "# hub: SFT_OPTIONS=meta-llama/Meta-Llama-3-8B-Instruct: open",
        "# hub: CLEAN=openai/gsm8k:main/test-00000-of-00001.parquet: open",
        "# hub: CLEAN=openai/openai_humaneval: open",
        "# hub: EVALS=academic: 4 open",
        f"# disk: /the disk: {total:.1f} GiB needed (models {models:.1f}, "
        f"checkpoints {checkpoints:.1f}, rows {rows:.1f}, downloads {downloads:.1f}), "
        "100000.0 free",
        "# context: 4096 of the policy's 8192 positions in generation, for prompts of "
        "DPO_MAX_LENGTH=2048 tokens at most "
        "(assumed: the engine takes what its longest prompt needs)",
        "# GPUs: 8 here, 8 asked for",
        f"# GPU memory: 79.6 GiB; needed: sft {sft:.1f}, reward_model {rm:.1f}, dpo {dpo:.1f}, "
        f"generation {generation:.1f}, scoring by REWARD_MODEL {scoring:.1f}",
        "# batches: SFT 32 = 2 a GPU x 8 GPUs x 2 steps",
        "# batches: RM 512 = 2 a GPU x 8 GPUs x 32 steps",
        "# batches: DPO 128 = 2 a GPU x 8 GPUs x 8 steps",
        "# hours of a round, computed: iter/responses 0.1, iter/rewards 0.1, "
        "iter/pairs_reference 0.0, iter/policy 0.2",
    ]


def test_a_gated_name_is_told_once_with_what_to_do(check, hub):
    """One is needed twice, as a model and as a tokenizer."""
    status, well, problems = check(RECIPE="recipes/llama3_8b.sh", HF_TOKEN="bad", GPUS="8")

    def gated(name, variables):
        return (
            f"check: {name} ({variables}): gated, and not open to this account: "
            f"visit {hub.url}/{name}, accept its terms, set HF_TOKEN"
        )

    base = "meta-llama/Meta-Llama-3-8B"
    assert status == 1
    assert problems == [
        gated(base, "BASE_MODEL"),
        gated(f"{base}-Instruct", "RM_START, SFT_OPTIONS"),
    ]
    assert "# hub: SFT_DATA=paper: 9 open" in well
    assert not any("BASE_MODEL" in line for line in well)


def test_a_missing_name_is_told_with_the_variable_that_names_it(check, hub):
    hub.missing = {"RLHFlow/LLaMA3-SFT", "RLHFlow/prompt-collection-v0.1"}
    files = "nobody/questions:test.jsonl openai/gsm8k:main/no.parquet"
    clean = f"--evaluation_files {files} --similarity 2"
    variables = {"PROMPTS": "paper", "SFT_MODEL": "RLHFlow/LLaMA3-SFT", "CLEAN": clean}
    status, well, problems = check(**QUICK | variables)
    assert status == 1
    assert problems == [
        "check: RLHFlow/LLaMA3-SFT (SFT_MODEL): no such model on the hub, or a private one",
        "check: RLHFlow/prompt-collection-v0.1 (PROMPTS=paper): "
        "no such dataset on the hub, or a private one",
        "check: nobody/questions (CLEAN=nobody/questions:test.jsonl): it holds no test.jsonl",
        "check: openai/gsm8k (CLEAN=openai/gsm8k:main/no.parquet): it holds no main/no.parquet",
    ]
    assert not any("PROMPTS=paper" in line for line in well)


def test_a_set_that_lies_on_another_branch_is_looked_for_there(check):
    """The main branch of Summarization holds no data."""
    sets = "mix1 openai/summarize_from_feedback:comparisons"
    status, well, problems = check(RECIPE="recipes/llama3_8b.sh", GPUS="8", PREFERENCES=sets)
    assert (status, problems) == (0, [])
    assert "# hub: PREFERENCES=mix1: 6 open" in well
    assert "# hub: PREFERENCES=openai/summarize_from_feedback:comparisons: open" in well


def test_a_hub_out_of_reach_is_told_once_after_three_tries(check, hub):
    hub.broken = 1000
    status, well, problems = check(RECIPE="recipes/llama3_8b.sh", GPUS="8")
    assert status == 1
    assert len(hub.asked) == 3
    assert len(set(hub.asked)) == 1
    (problem,) = problems
    way = r"with HF_HUB_OFFLINE=1 and all 28 names in the cache the run needs no hub"
    pattern = rf"check: the hub at {re.escape(hub.url)} is out of reach \(.+\); {way}"
    assert re.fullmatch(pattern, problem)
    assert not any(line.startswith("# hub") for line in well)


def test_a_hub_that_stumbles_is_asked_again(check, hub):
    hub.broken = 2
    status, well, problems = check(**QUICK)
    assert (status, problems) == (0, [])
    assert SFT_MODEL_IS_OPEN in well
    assert hub.asked[:3] == ["RLHFlow/LLaMA3-SFT"] * 3
    assert hub.asked.count("sfairXC/FsfairX-LLaMA3-RM-v0.1") == 1


def test_only_what_a_step_reads_is_asked_for(check, hub):
    """Skipped stages, unused annotators, and a benchmark without measures ask for nothing."""
    names = "BASE_MODEL RM_START PM_START PREFERENCE_MODEL ARMORM SFT_DATA PREFERENCES REWARD_BENCH"
    unused = {name: f"no/{name}" for name in names.split()}
    unused["SFT_OPTIONS"] = "--chat_template_path no/tokenizer"
    status, _, problems = check(**QUICK | unused)
    assert (status, problems) == (0, [])
    prompts = "RLHFlow/prompt-collection-v0.1"
    assert set(hub.asked) == {"RLHFlow/LLaMA3-SFT", "sfairXC/FsfairX-LLaMA3-RM-v0.1", prompts}
    hub.asked.clear()
    used = {"ANNOTATOR": "preference_model armorm", "MEASURE": "reward_model"}
    status, _, problems = check(**QUICK | unused | used)
    assert status == 0
    names = {name for name in hub.asked if name.startswith("no/")}
    assert names == {"no/PREFERENCE_MODEL", "no/ARMORM", "no/REWARD_BENCH"}
    hub.asked.clear()
    # EVAL_PROMPTS may be any file that exists.
    without_prompts = {**QUICK, "EVAL_PROMPTS": "README.md"}
    for variables in {"ITERATIONS": "0"}, {"OPTIMISER": "offline", "OFFLINE_PAIRS": "mix1"}:
        _, well, _ = check(**without_prompts | variables)
        assert prompts not in hub.asked
    assert "# hub: OFFLINE_PAIRS=mix1: 6 open" in well
    hub.asked.clear()
    # Self-play uses the prompts of the instructions.
    check(**without_prompts | {"OPTIMISER": "self_play", "SFT_DATA": "no/SFT_DATA"})
    assert "no/SFT_DATA" in hub.asked
    assert prompts not in hub.asked


def test_local_files_have_to_be_there(check, hub, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "here.jsonl").write_text("{}\n")
    local = {
        "SFT_MODEL": f"{tmp_path}/model",
        "REWARD_MODEL": "runs/nowhere/reward_model",
        "PROMPTS": f"my_prompts.parquet {tmp_path}/here.jsonl {tmp_path}/run/made.jsonl",
        # 2c_armorm.py reads files alone.
        "RATINGS": "some/ratings",
        "ANNOTATOR": "armorm",
        "PREFERENCES": f"{tmp_path}/here.jsonl",
    }
    status, _, problems = check(**QUICK | local)
    assert status == 1
    assert not hub.asked
    assert problems == [
        "check: REWARD_MODEL=runs/nowhere/reward_model: no such file",
        "check: RATINGS=some/ratings: no such file",
        "check: PROMPTS=my_prompts.parquet: no such file",
    ]


def test_local_models_are_looked_at(check, hub, sft, reward_model, tmp_path):
    """Before the first step, as by the step that loads them."""
    bare = tmp_path / "bare"
    shutil.copytree(sft, bare, ignore=shutil.ignore_patterns("chat_template.jinja"))
    local = {
        "SFT_MODEL": str(sft),
        "REWARD_MODEL": str(reward_model),
        "PREFERENCE_MODEL": str(bare),
        # The models have 512 positions.
        "MAX_NEW_TOKENS": "64",
        "DPO_MAX_LENGTH": "128",
    }
    status, well, problems = check(**QUICK | local)
    assert (status, problems) == (0, [])
    assert well[-2:] == [
        f"# models: SFT_MODEL={sft}: well",
        f"# models: REWARD_MODEL={reward_model}: well",
    ]
    wrong = {"SFT_MODEL": str(bare), "REWARD_MODEL": str(sft), "ANNOTATOR": "preference_model"}
    status, _, problems = check(**QUICK | local | wrong)
    assert status == 1
    assert problems == [
        f"check: {bare}: its tokenizer has no chat template",
        f"check: {sft}: cannot load a model from it (weights are missing: score.weight)",
        f"check: {bare}: its tokenizer has no chat template",
    ]
    assert check(**QUICK | local | wrong, CHECK="no") == (0, [], [])


def test_the_evaluation_prompts_have_a_split(check, tmp_path):
    prompts = []
    for i, split_name in enumerate(["validation", "test", "validation", "test"]):
        prompt = [{"role": "user", "content": f"Say {i}."}]
        prompts.append({"id": str(i), "prompt": prompt, "split": split_name})
    file = write_jsonl(tmp_path / "evaluation.jsonl", prompts)
    status, _, problems = check(**QUICK, EVAL_PROMPTS=str(file))
    assert (status, problems) == (0, [])
    write_jsonl(file, [*prompts[:3], {**prompts[3], "split": "dev"}])
    expected = [f"check: {file}:4: split: not validation or test"]
    status, _, problems = check(**QUICK, EVAL_PROMPTS=str(file))
    assert (status, problems) == (1, expected)
    assert check(**QUICK, EVAL_PROMPTS=str(file), CHECK="no") == (1, [], expected)


def test_verifiers_and_their_rows_are_checked_before_the_first_step(check, tmp_path):
    prompt = {"prompt": [{"role": "user", "content": "?"}]}
    good = {"id": "a", **prompt, "answer": "4"}
    named = {"id": "b", **prompt, "verifier": "polite"}
    bad = {"id": "c", **prompt, "verifier": [{"name": "length", "arguments": {"at_most": "x"}}]}
    # As GSM8K has it: the final answer is 5.
    published = {"question": "?", "answer": "It is five.\n#### 5"}
    file = write_jsonl(tmp_path / "prompts.jsonl", [good, named, published])
    symbols = write_jsonl(tmp_path / "symbols.jsonl", [{**good, "answer": "$"}])
    polite = tmp_path / "polite.py"
    polite.write_text(
        "def scores(responses, answer, arguments):\n    return [1] * len(responses)\n"
    )
    verified = {
        **QUICK,
        "CHECK": "no",
        "ANNOTATOR": "verifier",
        "PROMPTS": str(file),
        "VERIFIERS": f"polite={polite}",
        "VERIFIER_METHOD": "exact",
        "VERIFIER_PATTERN": "is ([0-9])",
    }
    assert check(**verified) == (0, [], [])
    bad_file = write_jsonl(tmp_path / "bad.jsonl", [good, bad])
    unnamed = f"{file}:2: verifier: polite: not one of exact, ifeval, json_schema, language, length"
    unsuited = f"{bad_file}:2: verifier: length: arguments: 'x' is not a whole number from 0"
    exact = "VERIFIER_PATTERN: VERIFIER_METHOD=exact needs one, with one group"
    for variables, reason in [
        ({"VERIFIERS": "polite=no.py"}, "VERIFIERS=no.py: no such file"),
        ({"VERIFIER_METHOD": "math", "PROMPTS": str(symbols)}, f"{symbols}:1: answer: '$' is not"),
        ({"VERIFIERS": ""}, unnamed),
        ({"VERIFIER_PATTERN": ""}, exact),
        ({"VERIFIER_PATTERN": "("}, "VERIFIER_PATTERN: missing ) at position 1"),
        ({"VERIFIER_PATTERN": "a"}, "VERIFIER_PATTERN: one group is needed, the final answer"),
        ({"PROMPTS_BY_ROUND": f"{file} {bad_file}"}, unsuited),
        ({"ANNOTATOR": "armorm", "VALIDATION": "verifier", "EVAL_POOL": str(bad_file)}, unsuited),
    ]:
        status, _, problems = check(**verified | variables)
        assert status == 1
        assert len(problems) == 1 and problems[0].startswith(f"check: {reason}"), problems


# Without network


FILE_OF_ALPACA_EVAL = ("file", "EVALS=alpaca_eval")


def test_without_network_every_name_has_to_be_in_the_cache(check, hub, tmp_path):
    hf = tmp_path / "hf"
    offline = {
        "HF_HUB_OFFLINE": "1",
        "EVALS": "alpaca_eval",
        "CLEAN": "--tokenizer_name a/b",
        "JUDGE_MODEL": "judge",
        "JUDGE_URL": f"{hub.url}/v1",
    }
    status, well, problems = check(**QUICK | offline)
    reason = "not in the cache, and HF_HUB_OFFLINE is set"
    (file,) = [name for name, kind, _, used_by in TABLE if (kind, used_by) == FILE_OF_ALPACA_EVAL]
    assert status == 1
    assert not any(line.startswith("# hub") for line in well)
    assert problems == [
        f"check: RLHFlow/LLaMA3-SFT (SFT_MODEL): {reason}",
        f"check: sfairXC/FsfairX-LLaMA3-RM-v0.1 (REWARD_MODEL): {reason}",
        f"check: RLHFlow/prompt-collection-v0.1 (PROMPTS): {reason}",
        f"check: a/b (CLEAN): {reason}",
        f"check: {file} (EVALS=alpaca_eval): {reason}",
        f"check: tatsu-lab/alpaca_eval (--gamed_file=default): {reason}",
    ]
    for folder, files in {
        "hub/models--RLHFlow--LLaMA3-SFT": ["config.json", "model.safetensors"],
        "hub/models--sfairXC--FsfairX-LLaMA3-RM-v0.1": ["config.json", "pytorch_model.bin"],
        "hub/models--a--b": ["tokenizer.json"],
        "hub/datasets--tatsu-lab--alpaca_eval": ["df_gamed.csv"],
    }.items():
        for name in files:
            path = hf / folder / "snapshots/0" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(LLAMA_8B))
    dataset = hf / "datasets/RLHFlow___prompt-collection-v0.1/default/0.0.0/0123/dataset_info.json"
    dataset.parent.mkdir(parents=True)
    dataset.write_text("{}")
    cached = tmp_path / ".cache/rlhf_workflow" / file.removeprefix("https://").replace("/", "_")
    cached.parent.mkdir(parents=True)
    cached.write_text("")
    status, well, problems = check(**QUICK | offline)
    assert (status, problems) == (0, [])
    assert not hub.asked
    assert "# hub: EVALS=alpaca_eval: in the cache" in well
    assert SFT_MODEL_IS_OPEN.replace("open", "in the cache") in well


def test_a_file_that_is_given_is_not_asked_for(check, hub):
    judged = {"EVALS": "alpaca_eval", "HF_HUB_OFFLINE": "1"}
    for options, needed in {"--no_logprobs": 1, "--gamed_file my_df_gamed.csv": 0}.items():
        _, _, problems = check(**QUICK | judged, ALPACA_EVAL_OPTIONS=options)
        assert sum("--gamed_file=default" in line for line in problems) == needed


def test_a_config_alone_is_no_model_in_the_cache(check, hub, tmp_path):
    """This very check leaves config.json files in the cache."""
    check(**QUICK, GPU_MEMORY="80")
    assert [*tmp_path.glob("hf/hub/models--RLHFlow--LLaMA3-SFT/snapshots/*/config.json")]
    status, _, problems = check(**QUICK, HF_HUB_OFFLINE="1")
    assert status == 1
    assert len(problems) == 3


def test_the_data_sets_cache_is_where_datasets_keeps_it(tmp_path, monkeypatch):
    """A version of datasets that moves the folder of a name would make the check blind."""
    hub = runpy.run_path(str(ROOT / "preflight/hub.py"))
    from datasets.naming import camelcase_to_snakecase

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    for name in (
        "openbmb/UltraFeedback",
        "argilla/distilabel-intel-orca-dpo-pairs",
        "TIGER-Lab/MathInstruct",
    ):
        owner, dataset = name.split("/")
        folder = tmp_path / f"{owner}___{camelcase_to_snakecase(dataset)}/default/0.0.0/0123"
        assert not hub["cached"]("dataset", name)
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
        assert hub["cached"]("dataset", name)


# Benchmarks


def test_the_benchmarks_addresses_are_asked_or_a_directory_stands_for_them(check, hub, tmp_path):
    judged = {"EVALS": "mt_bench arena_hard", "JUDGE_MODEL": "judge", "JUDGE_URL": f"{hub.url}/v1"}
    status, _, problems = check(**QUICK | judged, https_proxy="http://127.0.0.1:9")
    (problem,) = problems
    first = next(name for name, _, _, used_by in TABLE if used_by == "EVALS=mt_bench")
    assert status == 1
    way = "EVAL_QUESTIONS can name a directory of such files"
    pattern = rf"check: {re.escape(first)} is out of reach \(.*refused.*\); {way}"
    assert re.fullmatch(pattern, problem)
    status, _, problems = check(**QUICK | judged, EVAL_QUESTIONS=str(tmp_path))
    assert (status, problems) == (0, [])
    status, _, problems = check(**QUICK | judged, EVAL_QUESTIONS="runs/nowhere/benchmarks")
    assert status == 1
    assert problems == ["check: EVAL_QUESTIONS=runs/nowhere/benchmarks: no such file"]
    hub.parts["me/bench", None] = ["v1/mt_bench_questions.jsonl"]
    status, well, problems = check(**QUICK | judged, EVAL_QUESTIONS="hf://datasets/me/bench/v1")
    assert (status, problems) == (0, [])
    assert "# hub: EVAL_QUESTIONS=hf://datasets/me/bench/v1: open" in well


def test_of_the_academic_ones_those_that_run(check, hub):
    academic = {**QUICK, "EVALS": "academic"}
    _, well, _ = check(**academic, ACADEMIC_OPTIONS="--run_generated_code")
    assert "# hub: ACADEMIC_OPTIONS=--run_generated_code: 2 open" in well
    assert "# hub: EVALS=academic: 4 open" in well
    _, well, _ = check(**academic, ACADEMIC_OPTIONS="--tasks mmlu my_task --seed 3")
    assert "# hub: --tasks=mmlu: open" in well
    assert not any("EVALS" in line for line in well)
    assert "# hub: --tasks=my_task: not in preflight/hub_names.md, its data is not checked" in well


def test_the_judge_answers_and_serves_the_model(check, hub):
    judged = {"ANNOTATOR": "llm_judge", "JUDGE_MODEL": "judge", "JUDGE_URL": f"{hub.url}/v1"}
    status, well, problems = check(**QUICK | judged)
    assert (status, problems) == (0, [])
    assert f"# judge: {hub.url}/v1 serves judge" in well
    status, _, problems = check(**QUICK | judged | {"JUDGE_MODEL": "other"})
    assert (status, problems) == (1, [f"check: JUDGE_MODEL=other: {hub.url}/v1 serves judge"])
    status, _, problems = check(**QUICK | judged | {"JUDGE_URL": "http://127.0.0.1:1"})
    (problem,) = problems
    assert status == 1
    assert problem.startswith("check: JUDGE_URL=http://127.0.0.1:1: ")
    assert "refused" in problem


# Disk, GPUs, batches


def test_too_little_disk(check, hub):
    """The shape comes from the model's config.json on the hub."""
    hub.configs["RLHFlow/LLaMA3-SFT"] = LLAMA_70B
    status, _, problems = check(**QUICK, free=900)
    shape = shapes.SHAPES["llama3_70b"]
    disk = footprint.disk(shape, trained=["dpo"] * 3, tokens=3 * 20000 * 8 * 2048)
    models, checkpoints, rows = disk["models"], disk["checkpoints"], disk["rows"]
    total = models + checkpoints + rows + 35
    assert models + checkpoints > 1024
    assert status == 1
    assert problems == [
        f"check: disk: /the disk: {total:.1f} GiB needed (models {models:.1f}, "
        f"checkpoints {checkpoints:.1f}, rows {rows:.1f}, downloads 35.0), 900.0 free"
    ]


def test_what_a_mixture_a_gate_and_a_tool_write(check):
    """ArmoRM's gate has no checkpoints, a mixture of policies is a second model a round."""
    shape = shapes.SHAPES["llama3_8b"]
    dpo = footprint.disk(shape, trained=["dpo"] * 3, tokens=3 * 20000 * 8 * 2048)
    models, checkpoints, rows = dpo["models"], dpo["checkpoints"], dpo["rows"]
    gate = footprint.disk(shape, trained=["armorm"])["models"]
    armorm = {"ANNOTATOR": "armorm", "RATINGS": "README.md", "PREFERENCES": "README.md"}
    listed = "(models {:.1f}, checkpoints {:.1f}, rows {:.1f}, downloads"
    for variables, numbers in [
        ({"OPTIMISER": "ipo_mixture", "PREFERENCE_MODEL": "a/b"}, (2 * models, checkpoints, rows)),
        (armorm, (models + gate, checkpoints, rows)),
        ({"TOOL": "python"}, (models, checkpoints, rows * 6 * (2048 + 1064) / 2048)),
    ]:
        _, well, problems = check(**QUICK | variables)
        lines = [line for line in well + problems if "# disk" in line]
        assert len(lines) == 1 and listed.format(*numbers) in lines[0], lines


def test_what_is_made_already_needs_no_disk(check, tmp_path):
    for i in (1, 2, 3):
        (tmp_path / f"run/iter{i}/policy").mkdir(parents=True)
    snapshot = tmp_path / "hf/hub/models--RLHFlow--LLaMA3-SFT/snapshots/0"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_text("")
    status, well, problems = check(**QUICK, free=20)
    assert (status, problems) == (0, [])
    assert "# disk: /the disk: 19.0 GiB needed (downloads 19.0), 20.0 free" in well


def test_more_gpus_than_there_are(check):
    status, well, problems = check(**QUICK, gpus=[81559])
    assert (status, problems) == (1, ["check: GPUS=8: this machine has 1"])
    status, well, problems = check(**QUICK)
    assert (status, problems) == (0, [])
    assert "# GPUs: none here, 8 asked for: not checked" in well


def test_hours_of_a_round(check, tmp_path):
    """By the formulas of compute.py, with the lengths of budget.py's table; a file has seconds."""
    shape = shapes.SHAPES["llama3_8b"]
    gpus = [81559] * 8
    file = tmp_path / "budget"
    flags = ["preflight/check.py", "--hours_file", file]
    eight = shapes.Machine("", 8, 81559 / 1024, *shapes.GPU_RATES[H100])
    tokens = {"tokens": 20000 * 8 * 500, "context": 500}
    pairs = {"tokens": 2 * 20000 * 800, "context": 800}
    scored = compute.flops(shape, 20000 * 800, 800)
    hours = {
        "iter/responses": compute.generation_hours(shape, eight, **tokens),
        "iter/rewards": compute.scoring_hours(shape, eight, **tokens),
        "iter/pairs_reference": compute.hours_at_peak(eight, scored),
        "iter/policy": compute.training_hours(shape, "dpo", eight, **pairs),
    }
    status, well, _ = check(**QUICK, gpus=gpus, flags=flags)
    assert status == 0
    listed = ", ".join(f"{step} {count:.1f}" for step, count in hours.items())
    assert f"# hours of a round, computed: {listed}" in well
    seconds = [f"{step} {round(3600 * count)}" for step, count in hours.items()]
    assert file.read_text().splitlines() == seconds

    # vLLM gives an A100 fewer sequences at once.
    name = "NVIDIA A100-SXM4-80GB"
    a100 = shapes.Machine(name, 8, 81559 / 1024, *shapes.GPU_RATES[name])
    _, well, _ = check(**QUICK, gpus=gpus, gpu_name=name, flags=flags)
    count = compute.generation_hours(shape, a100, **tokens)
    assert count > compute.generation_hours(shape, dataclasses.replace(a100, name=""), **tokens)
    assert any(f"computed: iter/responses {count:.1f}, " in line for line in well)
    # No sequence fits beside the weights: the step is left out.
    _, well, _ = check(**QUICK, gpus=[12288] * 8, flags=flags)
    assert any("computed: iter/rewards " in line for line in well)

    file.unlink()
    _, well, _ = check(**QUICK, gpus=gpus, gpu_name="an unknown one", flags=flags)
    assert not file.exists()
    assert not [line for line in well if "hours" in line]


def test_too_little_memory(check, hub):
    """By parts, with what to change; GPU_MEMORY wins over nvidia-smi."""
    shape = shapes.SHAPES["llama3_8b"]
    ddp = {**QUICK, "DISTRIBUTED": "ddp", "gpus": [81559] * 8}
    gib = footprint.training(shape, "dpo", gpus=8, sequence=2048, batch=2, distributed="ddp")
    total = gib.pop("total")
    assert total > 79.6
    parts = ", ".join(f"{name} {size:.1f}" for name, size in gib.items() if size >= 0.05)
    dpo = (
        f"check: GPU memory: dpo needs {total:.1f} GiB of 79.6 ({parts}); "
        "change DISTRIBUTED, PER_DEVICE_BATCH_SIZE, "
        "or DPO_OPTIONS (--max_length, LoRA by --use_peft True, with --load_in_4bit True)"
    )
    status, _, problems = check(**ddp)
    assert (status, problems) == (1, [dpo])
    status, _, problems = check(**ddp, GPU_MEMORY="1000")
    assert (status, problems) == (0, [])
    status, _, problems = check(**ddp, DPO_OPTIONS="--use_peft True --lora_r 8")
    assert (status, problems) == (0, [])
    status, _, problems = check(**QUICK, GPU_MEMORY="12", TENSOR_PARALLEL="1")
    assert status == 1
    pattern = re.compile(r"check: GPU memory: (.*) needs .*; change (\w+)")
    assert [pattern.match(line).groups() for line in problems] == [
        ("dpo", "DISTRIBUTED"),
        ("generation", "TENSOR_PARALLEL"),
        ("scoring by REWARD_MODEL", "REWARD_MODEL"),
    ]
    # vLLM's share of 0.92 is a part of the need: it counts once.
    assert all(" of 12.0 (" in line for line in problems)
    least = footprint.generation(shape, sequence=4096)["total"]
    _, _, problems = check(**QUICK, GPU_MEMORY=str(least + 0.1))
    assert not any("generation" in line for line in problems)
    _, _, problems = check(**QUICK, GPU_MEMORY="12", TENSOR_PARALLEL="4")
    assert not any("generation" in line for line in problems)
    status, _, problems = check(**QUICK, GPU_MEMORY="80GB")
    assert (status, problems) == (1, ["check: GPU_MEMORY=80GB: not a number (GiB)"])


def test_flags_of_a_training_are_read_as_it_reads_them(check):
    ddp = {**QUICK, "DISTRIBUTED": "ddp", "GPU_MEMORY": "79.6"}
    status, _, problems = check(**ddp, DPO_OPTIONS="--use_peft false --lora_r 8")
    assert status == 1 and "dpo needs" in problems[0]
    status, _, problems = check(**ddp, DPO_OPTIONS="--use-peft --load-in-4bit=True")
    assert (status, problems) == (0, [])
    status, _, problems = check(**ddp, DPO_OPTIONS="--max_length abc")
    reason = "check: DPO_OPTIONS: --max_length: 'abc' is not a whole number"
    assert (status, problems) == (1, [reason])


def llama_3_1(hub):
    """The published policy with the positions of Llama 3.1."""
    hub.configs["RLHFlow/LLaMA3-SFT"] = {**LLAMA_8B, "max_position_embeddings": 131072}


@pytest.mark.parametrize("memory", ["24", "40"])
def test_a_long_context_that_no_response_uses_takes_no_memory(check, hub, memory):
    """131,072 positions would be 16 GiB of cache; a prompt of 2048 and 1024 new tokens are 0.4."""
    llama_3_1(hub)
    _, well, problems = check(**QUICK, GPU_MEMORY=memory, MAX_NEW_TOKENS="1024")
    assert not any("generation" in line for line in problems)
    assert any(line.startswith("# context: 3072 of the policy's 131072 positions") for line in well)


def test_what_the_context_has_to_hold(check, hub):
    llama_3_1(hub)
    arena_hard = {"EVALS": "arena_hard", "JUDGE_URL": "http://x/v1", "JUDGE_MODEL": "x"}
    for variables, tokens in [
        ({"MAX_NEW_TOKENS": "1024", "DPO_MAX_LENGTH": "4096"}, 5120),
        ({"MAX_NEW_TOKENS": "1024", **arena_hard}, 6144),
        ({"MAX_NEW_TOKENS": "100000", "DPO_MAX_LENGTH": "100000"}, 131072),
        ({"MAX_NEW_TOKENS": "1024", "MAX_MODEL_LEN": "2000"}, 2000),
        # Six turns of the policy, each with a tool's output.
        ({"MAX_NEW_TOKENS": "1024", "TOOL": "python"}, 2048 + 6 * (1024 + 1064)),
    ]:
        _, well, _ = check(**QUICK | variables)
        assert any(line.startswith(f"# context: {tokens} of ") for line in well)
    room = "no prompt fits beside so many, the context has 131072 tokens"
    for variables, reason in [
        ({"MAX_MODEL_LEN": "200000"}, "MAX_MODEL_LEN=200000: the policy has 131072 positions"),
        ({"MAX_NEW_TOKENS": "131072"}, f"MAX_NEW_TOKENS=131072: {room}"),
    ]:
        status, _, problems = check(**QUICK | variables)
        assert status == 1
        assert problems == [f"check: {reason}"]


def test_without_a_known_memory_it_tells_what_is_needed(check, hub):
    hub.configs["sfairXC/FsfairX-LLaMA3-RM-v0.1"] = {"model_type": "other"}
    status, well, _ = check(**QUICK)
    shape = shapes.SHAPES["llama3_8b"]
    dpo = footprint.training(shape, "dpo", gpus=8, sequence=2048, batch=2, distributed="zero3")
    generation = footprint.generation(shape, sequence=4096)
    assert status == 0
    needed = f"dpo {dpo['total']:.1f}, generation {generation['total']:.1f}"
    assert f"# GPU memory: unknown, set GPU_MEMORY (GiB) to check; needed: {needed}" in well
    assert "# GPU memory: not checked, of an unknown shape: scoring by REWARD_MODEL" in well


def test_several_machines_share_a_batch(check):
    _, well, _ = check(RECIPE="recipes/llama3_8b.sh", GPUS="8", NODES="4")
    assert [line for line in well if "batches" in line] == [
        "# batches: SFT 32 = 1 a GPU x 32 GPUs x 1 step",
        "# batches: RM 512 = 2 a GPU x 32 GPUs x 8 steps",
        "# batches: DPO 128 = 2 a GPU x 32 GPUs x 2 steps",
    ]


# Costs nothing


def imports(lines):
    """The top-level modules in what -X importtime prints."""
    modules = set()
    for line in lines:
        if line.startswith("import time:"):
            modules.add(line.split("|")[-1].strip().split(".")[0])
    return modules


def test_the_tiny_recipe_needs_the_standard_library_alone(check):
    """Nor does --help import more."""
    flags = ["-X", "importtime"]
    always = imports(run(*flags, "-c", "").stderr.splitlines())
    # The check's own modules, and Jython's `org`, for which `copy` looks.
    always |= {"budget", "compute", "disk", "footprint", "gpus", "hours", "hub", "needs"}
    always |= {"settings", "shapes", "verifiable", "org"}
    command = [*flags, "preflight/check.py"]
    status, _, lines = check(RECIPE="recipes/tiny.sh", GPUS="0", flags=command)
    assert status == 0
    assert "argparse" in imports(lines)
    assert imports(lines) - always <= sys.stdlib_module_names
    done = run(*flags, "preflight/check.py", "--help")
    assert done.returncode == 0
    assert "Check at once" in done.stdout
    assert imports(done.stderr.splitlines()) - always <= sys.stdlib_module_names


def test_the_tiny_recipe_asks_no_hub(check, hub):
    status, well, problems = check(RECIPE="recipes/tiny.sh", GPUS="0")
    assert (status, problems) == (0, [])
    assert not hub.asked
    assert well == [
        "# disk: /the disk: 0.0 GiB needed (next to nothing), 100000.0 free",
        "# GPUs: none asked for, the run is the CPU's",
        "# batches: SFT 4 = 4 a process x 1 process x 1 step",
        "# batches: RM 16 = 16 a process x 1 process x 1 step",
        "# batches: PM 8 = 8 a process x 1 process x 1 step",
        "# batches: DPO 32 = 32 a process x 1 process x 1 step",
    ]


def test_the_batches_are_those_of_the_commands(check):
    """A device's rows divide its share of the global batch."""
    sizes = {"DPO_BATCH_SIZE": "12", "PER_DEVICE_BATCH_SIZE": "8"}
    _, well, _ = check(RECIPE="recipes/tiny.sh", GPUS="0", **sizes)
    assert "# batches: DPO 12 = 6 a process x 1 process x 2 steps" in well
