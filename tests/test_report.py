"""eval/3_report.py on three invented policies, whose every number is worked out by hand."""

import json
import math
import re

import pytest

from commands import ran, run, write_jsonl

LN2 = math.log(2)
# (validation, test) of each policy: one answer a prompt. iter1 is the best policy, iter2 has the
# highest proxy reward.
TRUE = {
    "sft": ([2, 2], [1, 2, 3, 2]),
    "iter1": ([3, 2], [2, 2, 2, 3]),
    "iter2": ([1, 2], [1, 1, 1, 1]),
}
PROXY = {
    "sft": ([0, 0], [0, 1, 2, 1]),
    "iter1": ([1, 1], [1, 1, 2, 2]),
    "iter2": ([4, 4], [3, 3, 3, 3]),
}
CORRECT = {
    "sft": ([1, 1], [0, 1, 1, 1]),
    "iter1": ([1, 1], [1, 1, 0, 1]),
    "iter2": ([0, 1], [0, 0, 0, 0]),
}
KL = {
    "sft": ([0, 0], [0, 0, 0, 0]),
    "iter1": ([1, 1], [2, 1, 3, -1]),
    "iter2": ([9, 9], [10, 12, 8, 10]),
}
TEXT = {"sft": "four", "iter1": "<script>alert('&')</script>", "iter2": "x" * 40}


def answers(name, splits=("validation", "test"), true_rewards=True):
    """The evaluation rows of a policy; true_rewards=False as outside the tiny world."""
    rows = []
    for split, count in (("validation", 2), ("test", 4)):
        part = splits.index(split)
        for i in range(count):
            is_truncated = name == "iter2" and i == 0
            row = {
                "id": f"{split}-{i}",
                "prompt": [{"role": "user", "content": f"{split} 1 < {i}?"}],
                "source": "add" if i % 2 else "sort",
                "split": split,
                "responses": [TEXT[name]],
                "finish_reasons": ["length" if is_truncated else "stop"],
                "rewards": [float(PROXY[name][part][i])],
                "kl": [float(KL[name][part][i])],
            }
            if true_rewards:
                row["true_rewards"] = [float(TRUE[name][part][i])]
                row["correct"] = [float(CORRECT[name][part][i])]
            rows.append(row)
    return rows


SFT_LOG = [{"step": 1, "loss": 3.0}, {"step": 7, "loss": 2.0}]
DPO_LOG = [
    {"step": 1, "loss": LN2},
    {"step": 5, "loss": 0.5, "rewards/margins": 0.1, "rewards/accuracies": 0.75},
]
REWARD_MODEL_LOG = [
    {"step": 1, "loss": 0.7},
    {"step": 9, "eval_loss": 0.6, "eval_accuracy": 0.8},
]


def write_model(path, log):
    path.mkdir(parents=True)
    (path / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    return path


def make(directory, true_rewards=True, recipe="recipes/tiny.sh", **changed):
    """Write a run's files; return the flags of its report.

    The rows of iter1 have another order than those of sft.
    """
    files = []
    for name in ("sft", "iter1", "iter2"):
        rows = changed.get(name) or answers(name, true_rewards=true_rewards)
        if name == "iter1":
            rows = rows[::-1]
        file = directory / "eval" / name / "kl.jsonl"
        file.parent.mkdir(parents=True)
        files.append(write_jsonl(file, rows))
    models = [
        write_model(directory / "sft", SFT_LOG),
        write_model(directory / "iter1/policy", DPO_LOG),
        write_model(directory / "iter2/policy", DPO_LOG),
        write_model(directory / "reward_model", REWARD_MODEL_LOG),
    ]
    (directory / "settings").write_text(f"RECIPE={recipe}\nSEED=3\nTEMPERATURES=1.0\\ 0.7\n")
    (directory / "log").mkdir()
    for step, seconds in (("iter10/pairs", 2.5), ("iter2/pairs", 4), ("base", 1)):
        file = directory / "log" / f"{step}.seconds"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{seconds}\n")
    flags = ["--answers", *files, "--training", *models, "--settings", directory / "settings"]
    return [*flags, "--log_dir", directory / "log", "--output_dir", directory / "out"]


def report(directory, **changed):
    """(results.json, report.md, report.html, what was printed)"""
    done = ran("eval/3_report.py", *make(directory, **changed))
    return *written(directory), done.stdout


def written(directory):
    """(results.json, report.md, report.html)"""
    out = directory / "out"
    results = json.loads((out / "results.json").read_text())
    return results, (out / "report.md").read_text(), (out / "report.html").read_text()


@pytest.fixture(scope="module")
def tiny_report(tmp_path_factory):
    return report(tmp_path_factory.mktemp("run"))


METRICS = "true_reward win_rate proxy_reward accuracy length kl truncated".split()
BY_HAND = {
    "sft": [2, 0.5, 1, 0.75, 4, 0, 0],
    "iter1": [2.25, 0.625, 1.5, 0.75, 27, 1.25, 0],
    "iter2": [1, 0.125, 3, 0, 40, 10, 0.25],
}


def test_the_metrics_are_those_worked_out_by_hand(tiny_report):
    """Rows are joined by id, not by their order; a tie counts one half."""
    results, *_ = tiny_report
    policies = results["policies"]
    for name, numbers in BY_HAND.items():
        assert [policies[name][metric] for metric in METRICS] == pytest.approx(numbers), name
        assert policies[name]["prompts"] == 4
        assert policies[name]["validation"]["prompts"] == 2
    assert policies["sft"]["win_rate_stderr"] == 0
    # iter1 wins 1, 1/2, 0, 1: the squared deviations from 0.625 sum to 0.6875.
    error = math.sqrt(0.6875 / 3 / 4)
    assert policies["iter1"]["win_rate_stderr"] == pytest.approx(error)
    error = math.sqrt((0.375**2 + 3 * 0.125**2) / 3 / 4)
    assert policies["iter2"]["win_rate_stderr"] == pytest.approx(error)
    assert policies["iter1"]["accuracy_by_source"] == {"add": 1.0, "sort": 0.5}
    assert policies["iter1"]["validation"]["win_rate"] == 0.75
    assert policies["iter2"]["validation"]["kl"] == 9


def test_validation_chooses_the_best_policy_not_the_last(tiny_report):
    """By the true reward: the last policy has the best proxy reward. Test prompts do not count."""
    results, page, _, printed = tiny_report
    assert results["best"] == "iter1"
    assert results["best_by"] == "true_reward"
    assert results["baseline"] == "sft"
    line = "Best by true_reward on the validation prompts: iter1 with 2.500; sft has 2.000."
    assert line in page
    assert line in printed.splitlines()


EXPLOITED = "The policies are trained for what chooses here: "
EXPLOITED += "how far they exploit it does not show in this choice."


def validated(directory, settings, *flags, **changed):
    """(the results, the line on the best policy) of the same run with more settings."""
    flags = [*make(directory, **changed), *flags]
    with open(directory / "settings", "a") as file:
        file.write(settings)
    printed = ran("eval/3_report.py", *flags).stdout
    line = next(line for line in printed.splitlines() if line.startswith("Best by "))
    return json.loads((directory / "out" / "results.json").read_text()), line


def test_the_reward_model_chooses_less_its_length_penalty(tmp_path):
    """And the report says that the policies were trained for it."""
    settings = "VALIDATION=reward_model\nLENGTH_PENALTY=0.5\nANNOTATOR=reward_model\n"
    results, line = validated(tmp_path, settings)
    rewards, scores = {}, {}
    for name, policy in results["policies"].items():
        rewards[name] = policy["validation"]["proxy_reward"]
        scores[name] = rewards[name] - 0.5 * len(TEXT[name])
    assert max(rewards, key=rewards.get) == "iter2"
    assert results["validation"]["scores"] == pytest.approx(scores)
    assert results["best"] == "sft"
    start = "Best by proxy_reward less 0.5 a character on the validation prompts: sft with "
    assert line.startswith(start)
    assert line.endswith(EXPLOITED)


LEARNS_FROM_IT = [("kto", True), ("offline", False), ("self_play", False)]


@pytest.mark.parametrize("optimiser, learned", LEARNS_FROM_IT)
def test_a_chooser_that_no_policy_learned_from_is_not_called_exploited(
    tmp_path, optimiser, learned
):
    settings = f"VALIDATION=reward_model\nANNOTATOR=reward_model\nOPTIMISER={optimiser}\n"
    _, line = validated(tmp_path, settings)
    assert line.endswith(EXPLOITED) == learned


@pytest.mark.parametrize("proxy", [False, True])
def test_another_annotator_chooses_by_all_answers_to_a_prompt(tmp_path, proxy):
    """Its rows are the validation prompts with a response of each policy.

    Without a reward model the evaluation rows have no rewards.
    """
    rows = {}
    for name in ("sft", "iter1", "iter2"):
        rows[name] = answers(name, true_rewards=False)
        for row in rows[name]:
            del row["rewards"]
    of_all_policies = {"responses": ["a", "b", "c"], "finish_reasons": ["stop"] * 3}
    first, second = rows["sft"][:2]
    scored = [
        {**first, **of_all_policies, "rewards": [0, 1, 0]},
        {**second, **of_all_policies, "rewards": [0.5, 1, 0]},
    ]
    file = write_jsonl(tmp_path / "validation.jsonl", scored)
    annotators = "verifier llm_judge" if proxy else "verifier "
    settings = f'VALIDATION=llm_judge\nANNOTATOR="{annotators}"\n'
    results, line = validated(tmp_path, settings, "--validation_file", file, **rows)
    assert (results["best"], results["best_by"]) == ("iter1", "llm_judge")
    assert results["validation"]["scores"] == {"sft": 0.25, "iter1": 1, "iter2": 0}
    start = "Best by llm_judge on the validation prompts: iter1 with 1.000; sft has 0.250."
    assert line.startswith(start)
    assert line.endswith(EXPLOITED) == proxy
    assert all(policy["proxy_reward"] is None for policy in results["policies"].values())


@pytest.mark.parametrize("reward_model", ["", "REWARD_MODEL=my_model\n"])
def test_a_verifiers_rewards_are_the_accuracy_unless_a_reward_model_gave_them(
    tmp_path, reward_model
):
    """With its standard error, beside which a win rate would stand else."""
    rows = {}
    for name in ("sft", "iter1", "iter2"):
        rows[name] = answers(name, true_rewards=False)
        for i, row in enumerate(rows[name]):
            row["rewards"] = [float(name == "iter1" and i % 2)]
    scored = []
    for row in rows["sft"][:2]:
        three = {"responses": ["a", "b", "c"], "finish_reasons": ["stop"] * 3}
        scored.append({**row, **three, "rewards": [0, 1, 0]})
    file = write_jsonl(tmp_path / "validation.jsonl", scored)
    settings = f"VALIDATION=verifier\nANNOTATOR=verifier\n{reward_model}"
    results, _ = validated(tmp_path, settings, "--validation_file", file, **rows)
    page = (tmp_path / "out/report.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("| iter1"))
    accuracy = results["policies"]["iter1"]["accuracy"]
    if reward_model:
        assert (accuracy, cells(line)[4]) == (None, "-")
    else:
        # Of four test rows two are right: a standard deviation of sqrt(1/3).
        assert (accuracy, cells(line)[4]) == (0.5, "0.500 ± 0.289")


@pytest.mark.parametrize("chooser", ["true_reward", "llm_judge"])
def test_a_chooser_whose_values_are_missing_is_refused(tmp_path, chooser):
    flags = make(tmp_path, true_rewards=False)
    with open(tmp_path / "settings", "a") as file:
        file.write(f"VALIDATION={chooser}\n")
    done = run("eval/3_report.py", *flags)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{tmp_path}/settings: VALIDATION: {chooser}, ")


def test_no_round_may_be_better_than_the_baseline(tmp_path):
    """Good on the test prompts alone does not count."""
    rows = answers("iter1")
    for row in rows:
        row["true_rewards"] = [9.0 if row["split"] == "test" else 1.0]
    results, _, _, printed = report(tmp_path, iter1=rows)
    assert results["best"] == "sft"
    assert "sft with 2.000; no round is better." in printed
    assert results["policies"]["iter1"]["win_rate"] == 1


def test_proxy_and_true_reward_part_where_they_do(tiny_report):
    """In standard deviations of the baseline's rewards on the test prompts, both sqrt(2/3) here."""
    results, *_ = tiny_report
    measured = results["proxy_and_true"]
    unit = math.sqrt(2 / 3)
    proxy_gain = {"sft": 0, "iter1": 0.5 / unit, "iter2": 2 / unit}
    assert measured["proxy_gain"] == pytest.approx(proxy_gain)
    true_gain = {"sft": 0, "iter1": 0.25 / unit, "iter2": -1 / unit}
    assert measured["true_gain"] == pytest.approx(true_gain)
    assert measured["correlation"] == {
        "sft": pytest.approx(1),
        "iter1": pytest.approx(1 / math.sqrt(3)),
        "iter2": None,
    }
    first, second = measured["rounds"]
    assert measured["part"] is True
    assert first["part"] is True
    assert second["part"] is True
    assert second["true_change"] == pytest.approx(-1.25 / unit)
    assert second["gap"] == pytest.approx(3 / unit)


def test_results_say_what_was_run(tiny_report):
    results, *_ = tiny_report
    assert (results["recipe"], results["seed"]) == ("recipes/tiny.sh", 3)
    assert results["settings"]["TEMPERATURES"] == "1.0 0.7"
    seconds = list(results["seconds"].items())
    assert seconds == [("base", 1), ("iter2/pairs", 4), ("iter10/pairs", 2.5)]
    assert results["seconds_total"] == 7.5
    training = results["training"]
    assert list(training) == ["sft", "iter1", "iter2", "reward_model"]
    for policy in ("iter1", "iter2"):
        assert training[policy] == {
            "first_step": 1,
            "first_loss": LN2,
            "last_loss": 0.5,
            "eval_loss": None,
            "eval_accuracy": None,
        }
    assert training["reward_model"]["eval_accuracy"] == 0.8
    assert results["versions"]["trl"]
    assert results["versions"]["python"]
    assert results["machine"]["cpus"] > 0
    assert {"date", "commit", "policies", "best", "proxy_and_true"} <= set(results)


def cells(line):
    """The cells of a line of a Markdown table."""
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_without_true_rewards_the_proxy_chooses_and_nothing_is_made_up(tmp_path):
    results, page, html, _ = report(tmp_path, true_rewards=False, recipe="recipes/llama3_8b.sh")
    assert (results["best"], results["best_by"]) == ("iter2", "proxy_reward")
    for policy in results["policies"].values():
        for metric in ("true_reward", "win_rate", "win_rate_stderr", "accuracy"):
            assert policy[metric] is None
        assert policy["accuracy_by_source"] == {}
        assert policy["proxy_reward"] is not None
    assert results["proxy_and_true"]["part"] is None
    line = next(line for line in page.splitlines() if "iter1" in line)
    assert cells(line) == ["iter1", "-", "-", "1.500", "-", "27.0", "1.250", "0.000"]
    assert "tiny world:" not in page + html


def test_a_tiny_result_is_called_tiny(tiny_report):
    """The tiny world's numbers must never be compared with published ones."""
    _, page, html, _ = tiny_report
    warning = "(tiny world: never comparable with published numbers)"
    assert warning in page
    assert warning in html


def test_the_printed_table_is_the_reports(tiny_report):
    _, page, _, printed = tiny_report
    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(table) == 5
    assert "\n".join(table) + "\n" in page
    name, *metrics = cells(table[3])
    assert name == "iter1 (best)"
    assert metrics == ["2.250", "0.625 ± 0.239", "1.500", "0.750", "27.0", "1.250", "0.000"]


def test_the_html_page_stands_alone(tiny_report):
    """No script, nothing fetched, plots included, and the policies' texts cannot act."""
    _, _, page, _ = tiny_report
    assert page.count("<svg ") >= 6
    assert page.count("<svg ") == page.count("</svg>")
    assert not re.search(r"<(script|link|img|iframe|object)\b|@import|url\((?!#)", page)
    targets = re.findall(r"""(?:src|href)=["']?([^"' >]*)""", page)
    assert all(target.startswith("#") for target in targets)
    assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;" in page
    assert "test 1 &lt; 0?" in page
    for heading in ("Policies", "Training", "Settings"):
        assert page.count(f"<h2>{heading}</h2>") == 1


def refused(directory, flags):
    """The one line in which a report is refused; an older report stays as it was."""
    out = directory / "out"
    out.mkdir(exist_ok=True)
    (out / "results.json").write_text("older")
    done = run("eval/3_report.py", *flags)
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert {path.name: path.read_text() for path in out.iterdir()} == {"results.json": "older"}
    return done.stderr.strip()


@pytest.mark.parametrize("change", ["fewer", "other id", "other prompt", "other split"])
def test_policies_must_have_answered_the_same_prompts(tmp_path, change):
    rows = answers("iter1")
    key = rows[3]["id"]
    if change == "fewer":
        del rows[3]
    else:
        field = change.removeprefix("other ")
        others = {
            "id": "x",
            "prompt": [{"role": "user", "content": "another"}],
            "split": "validation",
        }
        rows[3][field] = others[field]
    flags = make(tmp_path, iter1=rows)
    path = tmp_path / "eval/iter1/kl.jsonl"
    base = tmp_path / "eval/sft/kl.jsonl"
    reason = f"id: {key!r} is not here and in {base} with the same prompt and split"
    assert refused(tmp_path, flags) == f"{path}: {reason}"


def changed_answers(**fields):
    """The answers of iter2 with other fields in the first row of the test prompts."""
    rows = answers("iter2")
    for row in rows:
        if row["id"] == "test-0":
            row |= fields
    return rows


@pytest.mark.parametrize(
    "field, row",
    [
        ("kl", {"kl": [float("nan")]}),
        ("kl", {"kl": [1.0, 2.0]}),
        ("true_rewards", {"true_rewards": None}),
        ("correct", {"correct": ["yes"]}),
        ("split", {"split": "train"}),
    ],
)
def test_a_number_that_is_none_is_named(tmp_path, field, row):
    error = refused(tmp_path, make(tmp_path, iter2=changed_answers(**row)))
    assert error.startswith(f"{tmp_path}/eval/iter2/kl.jsonl:3: {field}: ")


def test_a_training_without_its_curve_is_named(tmp_path):
    flags = make(tmp_path)
    state = tmp_path / "iter1" / "policy" / "trainer_state.json"
    state.unlink()
    assert refused(tmp_path, flags) == f"{state}: No such file or directory"
    state.write_text('{"log_his')
    assert refused(tmp_path, flags) == f"{state}: not the state of a Hugging Face Trainer"


def test_settings_that_do_not_say_the_seed_are_named(tmp_path):
    flags = make(tmp_path)
    settings = tmp_path / "settings"
    settings.write_text("RECIPE=recipes/tiny.sh\n")
    assert refused(tmp_path, flags).startswith(f"{settings}: not settings with RECIPE and ")
    settings.write_text("RECIPE=recipes/tiny.sh\nSEED\n")
    assert refused(tmp_path, flags).startswith(f"{settings}:2: not NAME=value")


def test_two_files_of_one_policy_are_refused(tmp_path):
    flags = make(tmp_path)
    path = tmp_path / "eval/sft/kl.jsonl"
    error = refused(tmp_path, ["--answers", path, path, *flags[4:]])
    assert error == f"{path}: a second file of the policy sft; the directory names the policy"


def test_the_measures_of_the_reward_models_are_in_the_report(tmp_path):
    flags = make(tmp_path)
    folder = tmp_path / "measures"
    folder.mkdir()
    bench = {
        "score": 0.25,
        "sections": {"Hard": 0.125, "Ties": None},
        "subsets": {},
        "rows": {"a": 3},
        "of": {"a": 4},
    }
    measures = {
        "rewardbench": {"judge": {"bench": bench}},
        "length_bias": {"judge": {"mean": 0.375}},
        "calibration": {"judge": {"accuracy": 0.875, "calibration_error": 0.0625}},
    }
    for name, content in measures.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "length_bias.png").write_bytes(b"picture")
    flags += ["--measures", *sorted(folder.glob("*.json"))]
    ran("eval/3_report.py", *flags)
    results, page, html = written(tmp_path)
    assert re.search(r"\| judge +\| 0.125 \| - +\| 0.250 \| 3 of 4 \|", page)
    assert re.search(r"\| judge +\| 0.375 +\| 0.062 +\|", page)
    assert "<h2>Reward models: bench</h2>" in html
    assert "data:image/png;base64,cGljdHVyZQ==" in html
    assert results["measures"] == measures
    (folder / "length_bias.json").write_text("{")
    done = run("eval/3_report.py", *flags)
    assert done.returncode == 1
    assert done.stderr == f"{folder}/length_bias.json: not a file of numbers\n"


# Benchmarks, and the model cards


def benchmarks(directory, judges=("j", "j", "j")):
    """Write the results of three policies, each judged by its judge; return their files."""
    files = []
    for i, (name, judge) in enumerate(zip(("sft", "iter1", "iter2"), judges, strict=True)):
        alpaca_eval = {
            "win_rate": 10.0 + i,
            "standard_error": 1.5,
            "judge": judge,
            "date": "2026-01-02",
            "judged": 9 + i,
            "rows": 11,
            "avg_length": 30,
            "length_controlled_winrate": None,
            "lc_standard_error": None,
            "no_length_controlled_winrate": "needs more",
        }
        mt_bench = {
            "score": 5.25 + i,
            "turns": [5.0 + i, 5.5 + i],
            "categories": {"math": 4.0 + i, "stem": 6.0, "code": None},
            "judge": judge,
            "date": "2026-01-03",
            "judgments": 20,
            "of": 20,
        }
        arena_hard = {
            "score": 40.0 - i,
            "interval": [35.0, 45.5],
            "length": 77.4,
            "judge": judge,
            "date": "2026-01-02",
            "questions": 6,
            "of": 6,
        }
        gsm8k = {"value": 0.5 + i / 10, "stderr": 0.01, "shots": 8, "truncated": i / 4}
        own = {"value": 0.25, "stderr": None, "shots": 0, "truncated": None}
        academic = {
            "tasks": {"gsm8k_cot": gsm8k, "own": own},
            "date": "2026-01-04",
            "backend": "vllm",
        }
        results = {
            "alpaca_eval": alpaca_eval,
            "mt_bench": mt_bench,
            "arena_hard": arena_hard,
            "academic": academic,
        }
        for benchmark, content in results.items():
            path = directory / "eval" / name / benchmark / f"{benchmark}.json"
            path.parent.mkdir()
            path.write_text(json.dumps(content))
            files.append(path)
    return files


def lines(page, first):
    """The cells of the lines whose first cell begins so."""
    return [cells(line) for line in page.splitlines() if line.startswith(f"| {first} ")]


def with_benchmarks(directory, settings="", **options):
    flags = make(directory)
    with open(directory / "settings", "a") as file:
        file.write(settings)
    ran("eval/3_report.py", *flags, "--benchmarks", *benchmarks(directory, **options))
    return written(directory)


def test_the_benchmarks_stand_beside_what_is_published(tmp_path):
    results, page, html = with_benchmarks(tmp_path)
    (scores,) = [line for line in lines(page, "iter1") if line[1] == "j" and len(line) == 12]
    name, judge, dates, *numbers = scores
    assert (name, judge, dates) == ("iter1", "j", "2026-01-02 to 2026-01-03")
    alpaca_eval, mt_bench, arena_hard = numbers[:3], numbers[3:6], numbers[6:]
    assert alpaca_eval == ["-", "11.0 ± 1.5 (10 of 11)", "30"]
    assert mt_bench == ["6.25", "6.00", "6.50"]
    assert arena_hard == ["39.0", "35.0 to 45.5", "77"]
    assert "No length-controlled rate: needs more." in page
    assert "# Benchmarks, judged by j\n" in page
    (published,) = [line for line in lines(page, "iterative DPO (published)") if len(line) == 12]
    assert published[1] == "gpt-4-1106-preview; MT-Bench: gpt-4-0613"
    assert published[3::3] == ["31.3", "8.46", "29.1"]
    assert lines(page, "iterative DPO (published)")[1] == ["iterative DPO (published)", "80.7", "-"]
    assert html.count('<tr class="published"><td>LLaMA-3-8B-it (published)</td>') == 2
    assert ["iter1", "60.0 ± 1.0", "25.0 ± 0.0"] in lines(page, "iter1")
    assert lines(page, "iter1 - sft") == [["iter1 - sft", "+10.0", "+0.0"]]
    assert lines(page, "sft, answers cut off") == [["sft, answers cut off", "0.0", "-"]]
    assert lines(page, "iter1, answers cut off") == [["iter1, answers cut off", "25.0", "-"]]
    assert "examples shown: gsm8k_cot 8, own 0" in page
    assert "2026-01-04 by vllm" in page
    assert ["iter2", "j", "6.00", "6.00", "-"] in lines(page, "iter2")
    for caption in (
        "Scores by round, judged by j.",
        "MT-Bench by round, judged by j.",
        "MT-Bench by category (1 to 10).",
    ):
        assert f"<figcaption>{caption}</figcaption>" in html
    assert results["benchmarks"]["mt_bench"]["iter2"]["score"] == 7.25


def test_a_table_never_mixes_judges(tmp_path):
    _, page, _ = with_benchmarks(tmp_path, judges=("j", "j", "k"))
    first, second = page.split("## Benchmarks, judged by ")[1:]
    assert first.startswith("j\n")
    assert second.startswith("k\n")
    second = second.split("\n## ")[0]
    assert lines(first, "sft")
    assert not lines(first, "iter2")
    assert lines(second, "iter2")
    assert not lines(second, "sft")


def test_other_questions_are_not_set_beside_what_is_published(tmp_path):
    settings = "EVAL_QUESTIONS=runs/tiny/world/benchmarks\n"
    _, page, html = with_benchmarks(tmp_path, settings=settings)
    assert "gpt-4" not in page + html
    assert not lines(page, "iterative DPO (published)")[1:]


def test_a_result_of_another_kind_is_named(tmp_path):
    flags = make(tmp_path)
    files = benchmarks(tmp_path)
    first = files[0]
    first.write_text("{}")
    assert refused(tmp_path, [*flags, "--benchmarks", *files]) == f"{first}: win_rate: missing"
    other = first.rename(first.with_name("other.json"))
    error = refused(tmp_path, [*flags, "--benchmarks", other])
    assert error == f"{other}: not a result of alpaca_eval, mt_bench, arena_hard, academic"


def test_model_cards_tell_recipe_data_scores_and_judge(tmp_path):
    with_benchmarks(tmp_path, settings="PROMPTS=my_prompts.jsonl\nBASE_MODEL=my_base\n")
    results = tmp_path / "out/results.json"
    models = [tmp_path / "sft", tmp_path / "iter1/policy"]
    command = ["eval/4_model_cards.py", "--results_file", results, "--policies", *models]
    done = run(*command)
    assert done.returncode == 1
    assert done.stderr == f"{models[0]}: not the directory of one of sft, iter1, iter2\n"
    for model in models:
        (model / "config.json").write_text("{}")
    (models[1] / "README.md").write_text("of the trainer")
    times = [model.stat().st_mtime_ns for model in models]
    ran(*command)
    # With other mtimes all steps that read the models would be stale.
    assert [model.stat().st_mtime_ns for model in models] == times
    first, second = ((model / "README.md").read_text() for model in models)
    assert first.startswith("---\nlibrary_name: transformers\n")
    assert "supervised fine-tuning of my_base" in first
    assert "seed 3, made by online iterative DPO" in second
    assert "The best of its run" in second
    assert "Of the tiny world" in second
    assert "| PROMPTS | my_prompts.jsonl |" in second
    assert "| AlpacaEval 2, win rate | 11.0 | judge j, 2026-01-02 |" in second
    assert "| MT-Bench | 6.25 | judge j, 2026-01-03 |" in second
    assert "    TEMPERATURES=1.0 0.7\n" in second
    assert "| gsm8k_cot | 60.0 | lm-eval, 8 examples, 2026-01-04 |" in second
    assert "| win_rate | 0.625 | 4 test prompts, against sft |" in second
    results.write_text("{")
    assert run(*command).stderr == f"{results}: not the results of a report\n"


@pytest.mark.parametrize("content", ["nan", "-1", "", "soon"])
def test_seconds_that_are_no_number_are_named(tmp_path, content):
    flags = make(tmp_path)
    (tmp_path / "log/iter2/pairs.seconds").write_text(content)
    done = run("eval/3_report.py", *flags)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}/log/iter2/pairs.seconds: not a number of seconds\n"
