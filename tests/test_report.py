"""eval/3_report.py on three made policies, whose every number is worked out by hand."""

import itertools
import json
import math
import re

import pytest

from commands import ran, run, write_jsonl

LN2 = math.log(2)
# (validation, test) of each policy: one answer a prompt. iter1 is the best, iter2 has the highest proxy.
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


def answers(name, splits=("validation", "test"), known=True):
    rows = []
    for split, count in (("validation", 2), ("test", 4)):
        for i in range(count):
            part = splits.index(split)
            row = {
                "id": f"{split}-{i}",
                "prompt": [{"role": "user", "content": f"{split} 1 < {i}?"}],
            }
            row |= {"source": "add" if i % 2 else "sort", "split": split, "responses": [TEXT[name]]}
            cut = name == "iter2" and i == 0
            row |= {
                "finish_reasons": ["length" if cut else "stop"],
                "rewards": [float(PROXY[name][part][i])],
            }
            row |= {"kl": [float(KL[name][part][i])]}
            if known:
                row |= {
                    "true_rewards": [float(TRUE[name][part][i])],
                    "correct": [float(CORRECT[name][part][i])],
                }
            rows.append(row)
    return rows


def make(directory, known=True, recipe="recipes/tiny.sh", **changed):
    """A run's files; the flags that the report reads them by. iter1's rows stand in another order than sft's."""
    files, models = [], []
    for name in ("sft", "iter1", "iter2"):
        (directory / "eval" / name).mkdir(parents=True)
        rows = changed.get(name) or answers(name, known=known)
        files.append(
            write_jsonl(
                directory / "eval" / name / "kl.jsonl", rows[::-1] if name == "iter1" else rows
            )
        )
        model = directory / name / ("policy" if name != "sft" else "")
        model.mkdir(parents=True)
        log = [
            {"step": 1, "loss": LN2},
            {"step": 5, "loss": 0.5, "rewards/margins": 0.1, "rewards/accuracies": 0.75},
        ]
        log = [{"step": 1, "loss": 3.0}, {"step": 7, "loss": 2.0}] if name == "sft" else log
        (model / "trainer_state.json").write_text(json.dumps({"log_history": log}))
        models.append(model)
    reward_model = directory / "reward_model"
    reward_model.mkdir()
    log = [{"step": 1, "loss": 0.7}, {"step": 9, "eval_loss": 0.6, "eval_accuracy": 0.8}]
    (reward_model / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    (directory / "settings").write_text(f"RECIPE={recipe}\nSEED=3\nTEMPERATURES=1.0\\ 0.7\n")
    (directory / "log").mkdir()
    for step, seconds in (("iter10/pairs", 2.5), ("iter2/pairs", 4), ("base", 1)):
        file = directory / "log" / f"{step}.seconds"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{seconds}\n")
    flags = [
        "--answers",
        *files,
        "--training",
        *models,
        reward_model,
        "--settings",
        directory / "settings",
    ]
    return [*flags, "--log_dir", directory / "log", "--output_dir", directory / "out"]


def report(directory, **changed):
    done = ran("eval/3_report.py", *make(directory, **changed))
    pages = [(directory / "out" / name).read_text() for name in ("report.md", "report.html")]
    return json.loads((directory / "out" / "results.json").read_text()), *pages, done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return report(tmp_path_factory.mktemp("run"))


def test_the_metrics_are_those_worked_out_by_hand(made):
    """Rows are joined by id, not by their order; a tie counts one half."""
    policies = made[0]["policies"]
    by_hand = {
        "sft": {
            "true_reward": 2,
            "win_rate": 0.5,
            "proxy_reward": 1,
            "accuracy": 0.75,
            "length": 4,
            "kl": 0,
        },
        "iter1": {
            "true_reward": 2.25,
            "win_rate": 0.625,
            "proxy_reward": 1.5,
            "accuracy": 0.75,
            "length": 27,
            "kl": 1.25,
        },
        "iter2": {
            "true_reward": 1,
            "win_rate": 0.125,
            "proxy_reward": 3,
            "accuracy": 0,
            "length": 40,
            "kl": 10,
        },
    }
    for name, numbers in by_hand.items():
        numbers["truncated"] = 0.25 if name == "iter2" else 0
        assert {key: policies[name][key] for key in numbers} == pytest.approx(numbers), name
        assert policies[name]["prompts"] == 4 and policies[name]["validation"]["prompts"] == 2
    # iter1 wins 1, 1/2, 0, 1: the deviations from 0.625 squared are 0.6875 together
    errors = {
        "sft": 0,
        "iter1": math.sqrt(0.6875 / 3 / 4),
        "iter2": math.sqrt((0.375**2 + 3 * 0.125**2) / 3 / 4),
    }
    assert {name: policies[name]["win_rate_stderr"] for name in errors} == pytest.approx(errors)
    assert policies["iter1"]["accuracy_by_source"] == {"add": 1.0, "sort": 0.5}
    assert (
        policies["iter1"]["validation"]["win_rate"] == 0.75
        and policies["iter2"]["validation"]["kl"] == 9
    )


def test_validation_chooses_the_best_policy_not_the_last(made):
    """By the true reward: the last policy has the best proxy. The test prompts have no say."""
    results, page, _, told = made
    assert (results["best"], results["best_by"], results["baseline"]) == (
        "iter1",
        "true_reward",
        "sft",
    )
    line = "Best by true_reward on the validation prompts: iter1 with 2.500; sft has 2.000."
    assert line in page and line in told.splitlines()


EXPLOITED = "The policies are trained for what chooses here: how far they exploit it does not show in this choice."


def validated(directory, settings, *flags, **changed):
    """The same run with more settings: (the results, the line on the best policy)."""
    flags = [*make(directory, **changed), *flags]
    with open(directory / "settings", "a") as file:
        file.write(settings)
    told = ran("eval/3_report.py", *flags).stdout
    line = next(line for line in told.splitlines() if line.startswith("Best by "))
    return json.loads((directory / "out" / "results.json").read_text()), line


def test_the_reward_model_chooses_less_its_length_penalty(tmp_path):
    """And the report says that it is what the policies were trained for."""
    results, line = validated(
        tmp_path, "VALIDATION=reward_model\nLENGTH_PENALTY=0.5\nANNOTATOR=reward_model\n"
    )
    means = {
        name: policy["validation"]["proxy_reward"] for name, policy in results["policies"].items()
    }
    scores = {name: means[name] - 0.5 * len(TEXT[name]) for name in means}
    assert results["validation"]["scores"] == pytest.approx(scores) and results["best"] == "sft"
    assert line.startswith(
        "Best by proxy_reward less 0.5 a character on the validation prompts: sft with "
    )
    assert line.endswith(EXPLOITED) and max(means, key=means.get) == "iter2"


@pytest.mark.parametrize(
    "optimiser, learned", [("kto", True), ("offline", False), ("self_play", False)]
)
def test_a_chooser_that_no_policy_learned_from_is_not_called_exploited(
    tmp_path, optimiser, learned
):
    settings = f"VALIDATION=reward_model\nANNOTATOR=reward_model\nOPTIMISER={optimiser}\n"
    _, line = validated(tmp_path, settings)
    assert line.endswith(EXPLOITED) == learned


@pytest.mark.parametrize("proxy", [False, True])
def test_another_annotator_chooses_by_all_answers_to_a_prompt(tmp_path, proxy):
    """It has seen the validation rows alone, one response of each policy; without a reward model no row has rewards."""
    rows = {
        name: [{**row} for row in answers(name, known=False)] for name in ("sft", "iter1", "iter2")
    }
    for row in itertools.chain(*rows.values()):
        del row["rewards"]
    scored = [
        row | {"responses": [*"abc"], "finish_reasons": ["stop"] * 3} for row in rows["sft"][:2]
    ]
    scored = [
        row | {"rewards": rewards}
        for row, rewards in zip(scored, ([0, 1, 0], [0.5, 1, 0]), strict=True)
    ]
    file = write_jsonl(tmp_path / "validation.jsonl", scored)
    settings = f'VALIDATION=llm_judge\nANNOTATOR="verifier {"llm_judge" * proxy}"\n'
    results, line = validated(tmp_path, settings, "--validation_file", file, **rows)
    assert (results["best"], results["best_by"]) == ("iter1", "llm_judge")
    assert results["validation"]["scores"] == {"sft": 0.25, "iter1": 1, "iter2": 0}
    assert line.startswith(
        "Best by llm_judge on the validation prompts: iter1 with 1.000; sft has 0.250."
    )
    assert line.endswith(EXPLOITED) == proxy
    assert all(policy["proxy_reward"] is None for policy in results["policies"].values())


@pytest.mark.parametrize("chooser", ["true_reward", "llm_judge"])
def test_a_chooser_whose_values_are_missing_is_refused(tmp_path, chooser):
    flags = make(tmp_path, known=False)
    with open(tmp_path / "settings", "a") as file:
        file.write(f"VALIDATION={chooser}\n")
    done = run("eval/3_report.py", *flags)
    assert done.returncode == 1 and done.stderr.startswith(
        f"{tmp_path}/settings: VALIDATION: {chooser}, "
    )


def test_no_round_may_be_better_than_the_baseline(tmp_path):
    """Good on the test prompts alone does not count."""
    rows = [
        row | {"true_rewards": [9.0 if row["split"] == "test" else 1.0]} for row in answers("iter1")
    ]
    results, _, _, told = report(tmp_path, iter1=rows)
    assert results["best"] == "sft" and "sft with 2.000; no round is better." in told
    assert results["policies"]["iter1"]["win_rate"] == 1


def test_proxy_and_true_reward_part_where_they_do(made):
    """In standard deviations of the baseline's rewards on the test prompts, both sqrt(2/3) here."""
    measured, unit = made[0]["proxy_and_true"], math.sqrt(2 / 3)
    assert measured["proxy_gain"] == pytest.approx(
        {"sft": 0, "iter1": 0.5 / unit, "iter2": 2 / unit}
    )
    assert measured["true_gain"] == pytest.approx(
        {"sft": 0, "iter1": 0.25 / unit, "iter2": -1 / unit}
    )
    assert measured["correlation"] == {
        "sft": pytest.approx(1),
        "iter1": pytest.approx(1 / math.sqrt(3)),
        "iter2": None,
    }
    first, second = measured["rounds"]
    assert (first["part"], second["part"], measured["part"]) == (True, True, True)
    assert second["true_change"] == pytest.approx(-1.25 / unit) and second["gap"] == pytest.approx(
        3 / unit
    )


def test_results_say_what_was_run(made):
    results = made[0]
    assert (results["recipe"], results["seed"]) == ("recipes/tiny.sh", 3)
    assert results["settings"]["TEMPERATURES"] == "1.0 0.7"
    assert list(results["seconds"].items()) == [
        ("base", 1),
        ("iter2/pairs", 4),
        ("iter10/pairs", 2.5),
    ]
    assert results["seconds_total"] == 7.5
    facts = {
        "first_step": 1,
        "first_loss": LN2,
        "last_loss": 0.5,
        "eval_loss": None,
        "eval_accuracy": None,
    }
    assert results["training"]["iter1"] == results["training"]["iter2"] == facts
    assert list(results["training"]) == ["sft", "iter1", "iter2", "reward_model"]
    assert results["training"]["reward_model"]["eval_accuracy"] == 0.8
    assert (
        results["versions"]["trl"]
        and results["versions"]["python"]
        and results["machine"]["cpus"] > 0
    )
    assert {"date", "commit", "policies", "best", "proxy_and_true"} <= set(results)


def test_without_true_rewards_the_proxy_chooses_and_nothing_is_made_up(tmp_path):
    results, page, html, _ = report(tmp_path, known=False, recipe="recipes/llama3_8b.sh")
    assert (results["best"], results["best_by"]) == ("iter2", "proxy_reward")
    for policy in results["policies"].values():
        unknown = [
            policy[key] for key in ("true_reward", "win_rate", "win_rate_stderr", "accuracy")
        ]
        assert (
            unknown == [None] * 4
            and policy["accuracy_by_source"] == {}
            and policy["proxy_reward"] is not None
        )
    assert results["proxy_and_true"]["part"] is None
    cells = [
        text.strip()
        for text in next(line for line in page.splitlines() if "iter1" in line).split("|")[1:-1]
    ]
    assert cells == ["iter1", "-", "-", "1.500", "-", "27.0", "1.250", "0.000"]
    assert "tiny world:" not in page + html


def test_a_tiny_result_is_called_tiny(made):
    """The tiny world's numbers are never to be set beside published ones."""
    assert all(
        "(tiny world: never comparable with published numbers)" in page for page in made[1:3]
    )


def test_the_printed_table_is_the_reports(made):
    _, page, _, told = made
    table = [line for line in told.splitlines() if line.startswith("|")]
    assert len(table) == 5 and "\n".join(table) + "\n" in page
    cells = [text.strip() for text in table[3].split("|")[1:-1]]
    assert cells == [
        "iter1 (best)",
        "2.250",
        "0.625 ± 0.239",
        "1.500",
        "0.750",
        "27.0",
        "1.250",
        "0.000",
    ]


def test_the_html_page_stands_alone(made):
    """No script, nothing fetched, plots within, and what the policies say cannot act."""
    page = made[2]
    assert page.count("<svg ") >= 6 and page.count("<svg ") == page.count("</svg>")
    assert not re.search(r"<(script|link|img|iframe|object)\b|@import|url\((?!#)", page)
    assert all(
        target.startswith("#") for target in re.findall(r"""(?:src|href)=["']?([^"' >]*)""", page)
    )
    assert (
        "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;" in page and "test 1 &lt; 0?" in page
    )
    assert all(
        page.count(f"<h2>{heading}</h2>") == 1 for heading in ("Policies", "Training", "Settings")
    )


def refused(directory, flags):
    """The one line in which a report is refused; an older one stays as it was."""
    (directory / "out").mkdir(exist_ok=True)
    (directory / "out" / "results.json").write_text("older")
    done = run("eval/3_report.py", *flags)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert [(path.name, path.read_text()) for path in (directory / "out").iterdir()] == [
        ("results.json", "older")
    ]
    return done.stderr.strip()


@pytest.mark.parametrize("change", ["fewer", "other id", "other prompt", "other split"])
def test_policies_must_have_answered_the_same_prompts(tmp_path, change):
    rows = answers("iter1")
    key = rows[3]["id"]
    if change == "fewer":
        del rows[3]
    else:
        field = change.removeprefix("other ")
        rows[3][field] = {
            "id": "x",
            "prompt": [{"role": "user", "content": "another"}],
            "split": "validation",
        }[field]
    flags = make(tmp_path, iter1=rows)
    path, base = tmp_path / "eval/iter1/kl.jsonl", tmp_path / "eval/sft/kl.jsonl"
    assert (
        refused(tmp_path, flags)
        == f"{path}: id: {key!r} is not here and in {base} with the same prompt and split"
    )


def changed_answers(**field):
    return [row | (field if row["id"] == "test-0" else {}) for row in answers("iter2")]


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
    told = refused(tmp_path, make(tmp_path, iter2=changed_answers(**row)))
    assert told.startswith(f"{tmp_path}/eval/iter2/kl.jsonl:3: {field}: ")


def test_a_training_without_its_curve_is_named(tmp_path):
    flags = make(tmp_path)
    state = tmp_path / "iter1" / "policy" / "trainer_state.json"
    state.unlink()
    assert refused(tmp_path, flags) == f"{state}: No such file or directory"
    state.write_text('{"log_his')
    assert refused(tmp_path, flags) == f"{state}: not the state of a Hugging Face Trainer"


def test_settings_that_do_not_say_the_seed_are_named(tmp_path):
    flags = make(tmp_path)
    (tmp_path / "settings").write_text("RECIPE=recipes/tiny.sh\n")
    assert refused(tmp_path, flags).startswith(
        f"{tmp_path}/settings: not settings with RECIPE and "
    )
    (tmp_path / "settings").write_text("RECIPE=recipes/tiny.sh\nSEED\n")
    assert refused(tmp_path, flags).startswith(f"{tmp_path}/settings:2: not NAME=value")


def test_two_files_of_one_policy_are_refused(tmp_path):
    flags = make(tmp_path)
    path = tmp_path / "eval/sft/kl.jsonl"
    told = refused(tmp_path, ["--answers", path, path, *flags[4:]])
    assert told == f"{path}: a second file of the policy sft; the directory names the policy"


def test_the_measures_of_the_reward_models_are_in_the_report(tmp_path):
    flags = make(tmp_path)
    (tmp_path / "measures").mkdir()
    numbers = {
        "score": 0.25,
        "sections": {"Hard": 0.125, "Ties": None},
        "subsets": {},
        "rows": {"a": 3},
        "of": {"a": 4},
    }
    files = {
        "rewardbench": {"judge": {"bench": numbers}},
        "length_bias": {"judge": {"mean": 0.375}},
    }
    files["calibration"] = {"judge": {"accuracy": 0.875, "calibration_error": 0.0625}}
    for name, content in files.items():
        (tmp_path / "measures" / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "measures" / "length_bias.png").write_bytes(b"picture")
    measures = sorted((tmp_path / "measures").glob("*.json"))
    done = ran("eval/3_report.py", *flags, "--measures", *measures)
    text, page = ((tmp_path / "out" / name).read_text() for name in ("report.md", "report.html"))
    assert re.search(r"\| judge +\| 0.125 \| - +\| 0.250 \| 3 of 4 \|", text)
    assert re.search(r"\| judge +\| 0.375 +\| 0.062 +\|", text)
    assert "<h2>Reward models: bench</h2>" in page and "data:image/png;base64,cGljdHVyZQ==" in page
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["measures"] == files and done.returncode == 0
    (tmp_path / "measures" / "length_bias.json").write_text("{")
    done = run("eval/3_report.py", *flags, "--measures", *measures)
    assert (
        done.returncode == 1
        and done.stderr == f"{tmp_path}/measures/length_bias.json: not a file of numbers\n"
    )


# Benchmarks, and the model cards


def benchmarks(directory, judges=("j", "j", "j")):
    """Results of three policies, of which iter2 was judged by judges of its own."""
    for i, (name, judge) in enumerate(zip(("sft", "iter1", "iter2"), judges, strict=True)):
        alpaca = {
            "win_rate": 10.0 + i,
            "standard_error": 1.5,
            "judge": judge,
            "date": "2026-01-02",
            "judged": 9 + i,
        }
        alpaca |= {
            "rows": 11,
            "avg_length": 30,
            "length_controlled_winrate": None,
            "lc_standard_error": None,
        }
        alpaca |= {"no_length_controlled_winrate": "needs more"}
        mt = {
            "score": 5.25 + i,
            "turns": [5.0 + i, 5.5 + i],
            "categories": {"math": 4.0 + i, "stem": 6.0, "code": None},
        }
        mt |= {"judge": judge, "date": "2026-01-03", "judgments": 20, "of": 20}
        arena = {
            "score": 40.0 - i,
            "interval": [35.0, 45.5],
            "length": 77.4,
            "judge": judge,
            "date": "2026-01-02",
        }
        arena |= {"questions": 6, "of": 6}
        tasks = {"gsm8k_cot": {"value": 0.5 + i / 10, "stderr": 0.01, "shots": 8}}
        tasks["gsm8k_cot"] |= {"truncated": i / 4}
        tasks["own"] = {"value": 0.25, "stderr": None, "shots": 0, "truncated": None}
        academic = {"tasks": tasks, "date": "2026-01-04", "backend": "vllm"}
        found = {"alpaca_eval": alpaca, "mt_bench": mt, "arena_hard": arena, "academic": academic}
        for benchmark, content in found.items():
            path = directory / "eval" / name / benchmark / f"{benchmark}.json"
            path.parent.mkdir()
            path.write_text(json.dumps(content))
            yield path


def lines(page, first):
    """The cells of the lines that begin so."""
    return [
        [c.strip() for c in line.split("|")[1:-1]]
        for line in page.splitlines()
        if line.startswith(f"| {first} ")
    ]


def with_benchmarks(directory, settings="", **options):
    flags = make(directory)
    with open(directory / "settings", "a") as file:
        file.write(settings)
    ran("eval/3_report.py", *flags, "--benchmarks", *benchmarks(directory, **options))
    out = directory / "out"
    return json.loads((out / "results.json").read_text()), *(
        (out / f"report.{end}").read_text() for end in ("md", "html")
    )


def test_the_benchmarks_stand_beside_what_is_published(tmp_path):
    results, page, html = with_benchmarks(tmp_path)
    scores = [line for line in lines(page, "iter1") if line[1] == "j" and len(line) == 12]
    assert scores == [["iter1", "j", "2026-01-02 to 2026-01-03", "-", "11.0 ± 1.5 (10 of 11)", "30", "6.25", "6.00",
                       "6.50", "39.0", "35.0 to 45.5", "77"]]  # fmt: skip
    assert (
        "No length-controlled rate: needs more." in page and "# Benchmarks, judged by j\n" in page
    )
    (published,) = [line for line in lines(page, "iterative DPO (published)") if len(line) == 12]
    assert published[1] == "gpt-4-1106-preview; MT-Bench: gpt-4-0613" and published[3::3] == [
        "31.3",
        "8.46",
        "29.1",
    ]
    assert lines(page, "iterative DPO (published)")[1] == ["iterative DPO (published)", "80.7", "-"]
    assert html.count('<tr class="published"><td>LLaMA-3-8B-it (published)</td>') == 2
    assert ["iter1", "60.0 ± 1.0", "25.0 ± 0.0"] in lines(page, "iter1")
    assert lines(page, "iter1 - sft") == [["iter1 - sft", "+10.0", "+0.0"]]
    assert lines(page, "sft, answers cut off") == [["sft, answers cut off", "0.0", "-"]]
    assert lines(page, "iter1, answers cut off") == [["iter1, answers cut off", "25.0", "-"]]
    assert "examples shown: gsm8k_cot 8, own 0" in page and "2026-01-04 by vllm" in page
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
    assert first.startswith("j\n") and second.startswith("k\n")
    second = second.split("\n## ")[0]
    assert (
        lines(first, "sft")
        and not lines(first, "iter2")
        and lines(second, "iter2")
        and not lines(second, "sft")
    )


def test_other_questions_are_not_set_beside_what_is_published(tmp_path):
    _, page, html = with_benchmarks(
        tmp_path, settings="EVAL_QUESTIONS=runs/tiny/world/benchmarks\n"
    )
    assert "gpt-4" not in page + html and not lines(page, "iterative DPO (published)")[1:]


def test_a_result_of_another_kind_is_named(tmp_path):
    flags, files = make(tmp_path), list(benchmarks(tmp_path))
    files[0].write_text("{}")
    assert refused(tmp_path, [*flags, "--benchmarks", *files]) == f"{files[0]}: win_rate: missing"
    other = files[0].rename(files[0].with_name("other.json"))
    told = refused(tmp_path, [*flags, "--benchmarks", other])
    assert told == f"{other}: not a result of alpaca_eval, mt_bench, arena_hard, academic"


def test_model_cards_tell_recipe_data_scores_and_judge(tmp_path):
    with_benchmarks(tmp_path, settings="PROMPTS=my_prompts.jsonl\nBASE_MODEL=my_base\n")
    results, models = tmp_path / "out/results.json", [tmp_path / "sft", tmp_path / "iter1/policy"]
    command = ["eval/4_model_cards.py", "--results_file", results, "--policies", *models]
    done = run(*command)
    assert (
        done.returncode == 1
        and done.stderr == f"{models[0]}: not the directory of one of sft, iter1, iter2\n"
    )
    for model in models:
        (model / "config.json").write_text("{}")
    (models[1] / "README.md").write_text("of the trainer")
    times = [model.stat().st_mtime_ns for model in models]
    ran(*command)
    assert [
        model.stat().st_mtime_ns for model in models
    ] == times  # else all that follows would be done again
    first, second = ((model / "README.md").read_text() for model in models)
    assert (
        first.startswith("---\nlibrary_name: transformers\n")
        and "supervised fine-tuning of my_base" in first
    )
    assert "seed 3, made by online iterative DPO" in second and "The best of its run" in second
    assert "Of the tiny world" in second and "| PROMPTS | my_prompts.jsonl |" in second
    assert "| AlpacaEval 2, win rate | 11.0 | judge j, 2026-01-02 |" in second
    assert (
        "| MT-Bench | 6.25 | judge j, 2026-01-03 |" in second
        and "    TEMPERATURES=1.0 0.7\n" in second
    )
    assert "| gsm8k_cot | 60.0 | lm-eval, 8 examples, 2026-01-04 |" in second
    assert "| win_rate | 0.625 | 4 test prompts, against sft |" in second
    results.write_text("{")
    assert run(*command).stderr == f"{results}: not the results of a report\n"


@pytest.mark.parametrize("content", ["nan", "-1", "", "soon"])
def test_seconds_that_are_no_number_are_named(tmp_path, content):
    flags = make(tmp_path)
    (tmp_path / "log/iter2/pairs.seconds").write_text(content)
    done = run("eval/3_report.py", *flags)
    assert (
        done.returncode == 1
        and done.stderr == f"{tmp_path}/log/iter2/pairs.seconds: not a number of seconds\n"
    )
