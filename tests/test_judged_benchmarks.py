"""Answers in the benchmarks' own formats, MT-Bench and Arena-Hard at their full size, by judges that are scripted."""

import json
import random
import re
import shutil
import threading
from statistics import fmean

import pytest
from transformers import AutoTokenizer

from commands import ran, read_jsonl, run, write_jsonl
from scripted_judge import ENVIRONMENT, judge_that

CATEGORIES = [
    "writing",
    "roleplay",
    "reasoning",
    "math",
    "coding",
    "extraction",
    "stem",
    "humanities",
]
WITH_REFERENCE = CATEGORIES[2:5]
YAML = 'system_prompt: "be fair"\nprompt_template: ["{question_1}|{answer_1}|{answer_2}"]\n'


# The files of a benchmark of the official size; the answers are random texts, so that lengths differ


def mt_bench(folder, count=80):
    rng = random.Random(0)
    questions = [
        {
            "question_id": 81 + i,
            "category": CATEGORIES[i // 10],
            "turns": [f"first {i}", f"second {i}"],
        }
        for i in range(count)
    ]

    def answers(model, chosen):
        for q in chosen:
            turns = [
                f"{model} says {q['question_id']} {'very ' * rng.randint(1, 9)}much {turn}"
                for turn in (1, 2)
            ]
            choices = [{"index": 0, "turns": turns}]
            yield {
                "question_id": q["question_id"],
                "model_id": model,
                "choices": choices,
                "answer_id": "a",
                "tstamp": 1,
            }

    prompts = []
    for name in (
        "single-v1",
        "single-math-v1",
        "single-v1-multi-turn",
        "single-math-v1-multi-turn",
    ):
        fields = (
            ["question", "answer"]
            if "multi" not in name
            else ["question_1", "answer_1", "question_2", "answer_2"]
        )
        fields += ["ref_answer_1"] if "math" in name else []
        fields += ["ref_answer_2"] if "math" in name and "multi" in name else []
        template = "|".join([name, *(f"{{{field}}}" for field in fields)])
        prompts.append(
            {
                "name": name,
                "type": "single",
                "system_prompt": "be fair",
                "prompt_template": template,
            }
        )
    files = {
        "questions": questions,
        "answers": list(answers("policy", questions)),
        "prompts": prompts,
    }
    files["references"] = list(
        answers("gpt-4", [q for q in questions if q["category"] in WITH_REFERENCE])
    )
    return {
        f"--{name}_file": write_jsonl(folder / f"{name}.jsonl", rows)
        for name, rows in files.items()
    }


def arena_answer(uid, model, text):
    messages = [
        {"content": f"prompt {uid}", "role": "user"},
        {"content": {"answer": text}, "role": "assistant"},
    ]
    return {"uid": uid, "ans_id": "a", "model": model, "messages": messages, "tstamp": 1}


def arena_hard(folder, count=500):
    rng = random.Random(0)
    uids = [f"uid{i}" for i in range(count)]
    questions = [
        {"uid": u, "category": "arena-hard-v0.1", "cluster": "c", "prompt": f"prompt {u}"}
        for u in uids
    ]
    files = {"questions": write_jsonl(folder / "questions.jsonl", questions)}
    for name, model in (("answers", "policy"), ("baseline", "gpt-4-0314")):
        made = [
            arena_answer(uid, model, f"{model} {uid} " + "x" * rng.randint(1, 400)) for uid in uids
        ]
        files[name] = write_jsonl(folder / f"{name}.jsonl", made)
    files["prompts"] = folder / "prompts.yaml"
    files["prompts"].write_text(YAML)
    return {f"--{name}_file": file for name, file in files.items()}


def command(script, files, tmp_path, url, *flags):
    given = [word for pair in files.items() for word in pair]
    return [f"eval/{script}.py", *given, "--judge_url", url, "--judge_model", "judge", "--output_dir", tmp_path / "out",
            *flags]  # fmt: skip


def judged(script, files, tmp_path, reply, *flags):
    """(the result, the judgments, what was printed, what the judge was asked)."""
    with judge_that(reply) as judge:
        done = ran(*command(script, files, tmp_path, judge.url, *flags), env=ENVIRONMENT)
    name = script.partition("_")[2]
    result = json.loads((tmp_path / f"out/{name}.json").read_text())
    return result, read_jsonl(tmp_path / "out/judgments.jsonl"), done.stdout, judge.asked


def refused(script, files, tmp_path, url="http://127.0.0.1:9/v1", *flags, env=ENVIRONMENT):
    """The one line in which the script gives up; there is no result."""
    done = run(*command(script, files, tmp_path, url, "--max_retries", 0, *flags), env=env)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("out/*.json"))
    return done.stderr


# MT-Bench


def stars(text, _):
    """A number from 1 to 10 that follows from what was asked."""
    return f"Fine. Rating: [[{random.Random(text).randint(10, 100) / 10}]]"


def test_mt_bench_by_turn_and_category(tmp_path):
    files = mt_bench(tmp_path)
    result, judgments, printed, asked = judged("2b_mt_bench", files, tmp_path, stars)
    assert "judge at http" in printed and ": 160 requests, 0 known already, about " in printed
    assert len(set(asked)) == 160 == result["judgments"] == result["of"] == len(judgments)
    official = [
        "question_id",
        "model",
        "judge",
        "user_prompt",
        "judgment",
        "score",
        "turn",
        "tstamp",
    ]
    assert all(list(row) == official for row in judgments)
    questions = {row["question_id"]: row for row in read_jsonl(files["--questions_file"])}
    answers = {
        row["question_id"]: row["choices"][0]["turns"]
        for row in read_jsonl(files["--answers_file"])
    }
    references = {
        row["question_id"]: row["choices"][0]["turns"]
        for row in read_jsonl(files["--references_file"])
    }
    by_hand = {}
    for name, question in questions.items():
        (q1, q2), (a1, a2), needs = (
            question["turns"],
            answers[name],
            question["category"] in WITH_REFERENCE,
        )
        kind = "single-math-v1" if needs else "single-v1"
        r1, r2 = references[name] if needs else ("", "")
        texts = {1: f"{kind}|{q1}|{a1}", 2: f"{kind}-multi-turn|{q1}|{a1}|{q2}|{a2}"}
        texts = {1: f"{texts[1]}|{r1}", 2: f"{texts[2]}|{r1}|{r2}"} if needs else texts
        for turn, text in texts.items():
            by_hand[name, turn] = float(re.search(r"\[\[(.+)\]\]", stars(text, 0))[1])
    assert {(row["question_id"], row["turn"]): row["score"] for row in judgments} == by_hand
    assert result["score"] == pytest.approx(fmean(by_hand.values()))
    turns = [fmean(v for (_, turn), v in by_hand.items() if turn == t) for t in (1, 2)]
    assert result["turns"] == pytest.approx(turns) and turns[0] != pytest.approx(turns[1])
    for category, score in result["categories"].items():
        of_it = [v for (name, _), v in by_hand.items() if questions[name]["category"] == category]
        assert len(of_it) == 20 and score == pytest.approx(fmean(of_it))
    assert result["judge"] == "judge" and re.fullmatch(r"\d{4}-\d\d-\d\d", result["date"])
    assert f"| policy | judge | {result['score']:.2f} | {turns[0]:.2f} | " in printed


def test_what_is_no_rating_is_counted_and_not_guessed(tmp_path):
    odd = [
        "[[11]]",
        "[[0]]",
        "[[]]",
        "7 of 10",
        "[11]",
        "",
        "<think>Perhaps [[5]]",
        "[[5]]</think>",
        "[[4/5]] [[4]]",
    ]
    replies = iter(odd)
    lock = threading.Lock()

    def judge(text, _):
        with lock:
            return next(replies, "[[5]]")

    result, judgments, printed, _ = judged("2b_mt_bench", mt_bench(tmp_path), tmp_path, judge)
    assert result["judgments"] == 160 - len(odd) and result["of"] == 160 and result["score"] == 5
    assert sorted(row["judgment"] for row in judgments if row["score"] == -1) == sorted(odd)
    assert f"| {160 - len(odd)} of 160 |" in printed


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        (
            "<think>The form is [[5]]. A weak answer would be [[2]].</think>\n\nRight. Rating: [[9]]",
            9,
        ),
        ("The form is [[5]].</think>Rating: [[9]]", 9),
        ("Rating: [[9]], not [[2]]", 9),  # the first, as FastChat's scorer reads it
        ("As [2] says: Rating: [[ 9 ]]", 9),
        ("Rating: [[9/10]]", 9),
        ("Rating: [9]", 9),
    ],
)
def test_a_rating_is_the_first_number_in_brackets_after_the_thoughts(tmp_path, reply, score):
    result, judgments, _, _ = judged(
        "2b_mt_bench", mt_bench(tmp_path, count=1), tmp_path, lambda *_: reply
    )
    assert result["score"] == score and result["judgments"] == 2
    assert {row["judgment"] for row in judgments} == {reply}, "the reply stays as it was"


def test_a_thought_that_was_cut_off_is_known_by_the_other_replies(tmp_path):
    """Where the judge's template opens the thought, a reply that ends in it has no mark: [[5]] is the prompt's form."""
    opened = True

    def judge(text, _):
        cut_off = "first 0" in text
        end = "" if cut_off else "</think>Rating: [[9]]" if opened else " Rating: [[5]]"
        message = {"role": "assistant", "content": f"The form is [[5]].{end}"}
        return 200, {
            "choices": [{"message": message, "finish_reason": "length" if cut_off else "stop"}]
        }

    result, *_ = judged(
        "2b_mt_bench", mt_bench(tmp_path, count=3), tmp_path, judge, "--max_tokens", 99
    )
    assert (result["score"], result["judgments"], result["of"]) == (9, 4, 6)
    opened = False
    shutil.rmtree(tmp_path / "out")
    result, *_ = judged("2b_mt_bench", mt_bench(tmp_path, count=3), tmp_path, judge)
    assert (result["score"], result["judgments"]) == (5, 6), (
        "a judge that does not think said it before it was cut off"
    )


def test_only_nonsense(tmp_path):
    with judge_that(lambda text, _: "I like it.") as judge:
        told = refused("2b_mt_bench", mt_bench(tmp_path), tmp_path, judge.url)
    assert told == "judge: no reply holds a rating, such as 'I like it.'\n"
    assert len(read_jsonl(tmp_path / "out/judgments.jsonl")) == 160


def test_a_run_that_was_stopped_asks_only_for_what_is_missing(tmp_path):
    files, left = mt_bench(tmp_path), iter(range(50))
    lock = threading.Lock()

    def dies(text, before):
        with lock:
            return (
                stars(text, 0)
                if next(left, None) is not None
                else (401, {"error": {"message": "no such key"}})
            )

    with judge_that(dies) as judge:
        told = refused("2b_mt_bench", files, tmp_path, judge.url)
    assert "no such key" in told and told.endswith("kept, the same command goes on\n")
    with open(tmp_path / "out/replies.jsonl", "ab") as file:  # as a kill leaves it
        file.write(b'{"key": "cut in ha')
    result, judgments, printed, asked = judged("2b_mt_bench", files, tmp_path, stars)
    assert len(asked) == 110 and "110 requests, 50 known already" in printed
    again, _, _, asked = judged("2b_mt_bench", files, tmp_path, stars)
    assert not asked and again == result
    assert (
        result["score"] == pytest.approx(fmean(row["score"] for row in judgments))
        and result["judgments"] == 160
    )


def test_what_it_costs_is_told_before(tmp_path):
    flags = ["--prices", 10, 30]
    _, _, printed, asked = judged("2b_mt_bench", mt_bench(tmp_path), tmp_path, stars, *flags)
    tokens = sum(len(text) + len("be fair") for text in asked) // 4
    wanted = f"about {tokens} tokens in, at most {160 * 2048} out, ${tokens / 1e5:.2f} and at most $9.83\n"
    assert wanted in printed


# Arena-Hard


def longer(text, _):
    """A judge that likes length: much longer is much better."""
    _, a, b = map(len, text.split("|"))
    word = (
        "A=B"
        if a == b
        else "A>>B"
        if a > b + 100
        else "A>B"
        if a > b
        else "B>>A"
        if b > a + 100
        else "B>A"
    )
    return f"Mine is [[C]]. My final verdict is: [[{word}]]"


def test_a_judge_that_likes_length_gives_what_a_count_gives(tmp_path):
    files = arena_hard(tmp_path)
    result, judgments, printed, asked = judged("2c_arena_hard", files, tmp_path, longer)
    assert (
        "1000 requests" in printed
        and len(set(asked)) == 1000 == 2 * result["questions"] == 2 * result["of"]
    )
    texts = [
        {
            row["uid"]: row["messages"][1]["content"]["answer"]
            for row in read_jsonl(files[f"--{name}_file"])
        }
        for name in ("answers", "baseline")
    ]
    wins, games = 0, 0
    for uid, text in texts[0].items():
        gap = len(text) - len(texts[1][uid])
        weight = 3 if abs(gap) > 100 else 1
        wins += 2 * weight * (1 if gap > 0 else 0.5 if gap == 0 else 0)
        games += 2 * weight
    assert result["score"] == pytest.approx(100 * wins / games)
    low, high = result["interval"]
    error = 100 * (0.25 / games) ** 0.5  # of a mean of that many coins
    assert low < result["score"] < high and 2 * error < high - low < 6 * error
    assert result["length"] == pytest.approx(fmean(map(len, texts[0].values())))
    official = ["uid", "category", "judge", "model", "baseline", "games"]
    assert all(list(row) == official and len(row["games"]) == 2 for row in judgments)
    first, second = judgments[0]["games"]
    assert list(first) == ["score", "judgment", "prompt"] and list(first["judgment"]) == ["answer"]
    # The baseline is A in the first game, B in the second, as the official scorer expects.
    assert "|gpt-4-0314 " in first["prompt"][1]["content"].split("policy")[0]
    assert "|policy " in second["prompt"][1]["content"].split("gpt-4")[0]
    assert "| policy | gpt-4-0314 | judge | " in printed and "| 500 of 500 |" in printed


@pytest.mark.parametrize(
    ("verdicts", "score"),
    [
        (["A>B", "A>B"], 50),  # for the baseline, then for the policy
        (["B>>A", "A>B"], 100),
        (["A=B", "A>>B"], 100 * 3.5 / 4),
        (["A>>B", "B>A"], 0),
        (["A>>B", "A>B"], 25),
        (["a<<b", "B<A"], 100),
        (
            ["A>>B]]</think>[[B>A", "B>>A]] or rather [[A>B"],
            100,
        ),  # the last one, after the thoughts
        ([" B > A ", " A>B"], 100),
    ],
)
def test_games_by_hand(tmp_path, verdicts, score):
    files = arena_hard(tmp_path, count=1)

    def judge(text, _):
        return f"[[{verdicts[text.split('|')[1].startswith('policy')]}]]"

    assert judged("2c_arena_hard", files, tmp_path, judge)[0]["score"] == pytest.approx(score)


def test_a_verdict_in_single_brackets_counts_where_no_other_is(tmp_path):
    def judge(text, _):
        return "[A=B]" if text.split("|")[1].startswith("policy") else "Not [A>>B] but [B>A]"

    assert judged("2c_arena_hard", arena_hard(tmp_path, count=1), tmp_path, judge)[0]["score"] == 75


def test_a_question_without_two_verdicts_is_left_out_and_counted(tmp_path):
    nonsense = {f"prompt uid{i}" for i in range(5)}

    def judge(text, _):
        asked, a, _ = text.split("|")
        if asked not in nonsense or not a.startswith("policy"):
            return longer(text, 0)
        return ["who knows [[A>>>B]]", "<think>Perhaps [[A>B]]", "[[A>B]]</think>", "A>B", ""][
            int(asked[-1])
        ]

    files = arena_hard(tmp_path, count=100)
    result, judgments, printed, _ = judged("2c_arena_hard", files, tmp_path, judge)
    assert result["questions"] == 95 and result["of"] == 100 and "| 95 of 100 |" in printed
    assert [
        row["uid"] for row in judgments if None in [game["score"] for game in row["games"]]
    ] == [f"uid{i}" for i in range(5)]


def test_a_request_that_is_refused_costs_its_question(tmp_path):
    def judge(text, _):
        return (
            (400, {"error": {"message": "too long"}}) if "uid7|policy" in text else longer(text, 0)
        )

    result, judgments, _, _ = judged(
        "2c_arena_hard", arena_hard(tmp_path, count=10), tmp_path, judge
    )
    assert result["questions"] == 9 and judgments[7]["games"][1] == {
        **judgments[7]["games"][1],
        "score": None,
        "judgment": {"answer": None},
    }


# Bad input, the same for both


@pytest.mark.parametrize(
    ("script", "make"), [("2b_mt_bench", mt_bench), ("2c_arena_hard", arena_hard)]
)
def test_a_judge_that_is_down_or_refuses_the_key(tmp_path, script, make):
    files = make(tmp_path)
    assert "APIConnectionError" in refused(script, files, tmp_path)
    with judge_that(lambda text, _: (401, {"error": {"message": "wrong key"}})) as judge:
        assert "wrong key" in refused(script, files, tmp_path, judge.url)


@pytest.mark.parametrize(
    ("script", "make"), [("2b_mt_bench", mt_bench), ("2c_arena_hard", arena_hard)]
)
def test_answers_to_other_questions(tmp_path, script, make):
    files = make(tmp_path)
    file = files["--answers_file"]
    good = read_jsonl(file)
    name = "question_id" if "mt" in script else "uid"
    write_jsonl(file, good[3:])
    told = refused(script, files, tmp_path)
    assert told == f"{file}: 3 of {len(good)} questions have no answer, such as '{good[0][name]}'\n"
    write_jsonl(file, [*good, {**good[0], name: "new"}])
    assert (
        refused(script, files, tmp_path) == f"{file}: 1 answers have no question, such as 'new'\n"
    )
    write_jsonl(file, [*good, good[0]])
    told = refused(script, files, tmp_path)
    assert told.startswith(f"{file}:{len(good) + 1}: {name}: ") and told.endswith("stands twice\n")
    write_jsonl(file, [*good[:5], '{"cut in ha'])
    assert refused(script, files, tmp_path).startswith(f"{file}:6: row: not a line of JSON")
    write_jsonl(file, [*good[:5], {name: 1}])
    assert "missing; another file, or another version?" in refused(script, files, tmp_path)
    write_jsonl(file, good[::-1])  # the order does not matter
    judged(script, files, tmp_path, stars if "mt" in script else longer)


def test_another_version_of_the_prompts(tmp_path):
    files = mt_bench(tmp_path)
    write_jsonl(files["--prompts_file"], read_jsonl(files["--prompts_file"])[1:])
    assert refused("2b_mt_bench", files, tmp_path).endswith(
        "no answer, or no prompt for it ('single-v1')\n"
    )
    files = arena_hard(tmp_path)
    files["--prompts_file"].write_text("prompt_template: 7\n")
    assert "not as in Arena-Hard v0.1" in refused("2c_arena_hard", files, tmp_path)


def test_the_published_files_without_a_network(tmp_path):
    files = mt_bench(tmp_path)
    del files["--prompts_file"]
    told = refused("2b_mt_bench", files, tmp_path, env={**ENVIRONMENT, "XDG_CACHE_HOME": str(tmp_path),
                                                        "https_proxy": "http://127.0.0.1:9"})  # fmt: skip
    assert (
        told.startswith("https://raw.githubusercontent.com/")
        and "fetch it elsewhere and give its path" in told
    )


def test_files_from_the_hub(tmp_path):
    """What is in its cache is taken; what is not, without a network, is told in one line."""
    files = mt_bench(tmp_path)
    snapshot = tmp_path / "hub/datasets--owner--name/snapshots/1234/data"
    snapshot.mkdir(parents=True)
    (tmp_path / "hub/datasets--owner--name/refs").mkdir()
    (tmp_path / "hub/datasets--owner--name/refs/main").write_text("1234")
    files["--questions_file"].rename(snapshot / "question.jsonl")
    files["--questions_file"] = "hf://datasets/owner/name/data/question.jsonl"
    offline = {**ENVIRONMENT, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    with judge_that(stars) as judge:
        ran(*command("2b_mt_bench", files, tmp_path, judge.url), env=offline)
    assert json.loads((tmp_path / "out/mt_bench.json").read_text())["judgments"] == 160
    shutil.rmtree(tmp_path / "out")
    files["--questions_file"] = "hf://datasets/owner/name/other.jsonl"
    told = refused("2b_mt_bench", files, tmp_path, env=offline)
    assert told.startswith("hf://datasets/owner/name/other.jsonl: ") and told.endswith(
        "and give its path\n"
    )


# eval/1_answers.py


def answered(base, tmp_path, benchmark, questions, *flags):
    out = tmp_path / "answers"
    command = [
        "eval/1_answers.py",
        "--benchmarks",
        benchmark,
        "--model_name_or_path",
        base,
        "--model_name",
        "tiny",
    ]
    done = ran(
        *command,
        "--questions_files",
        questions,
        "--output_files",
        out,
        "--max_new_tokens",
        12,
        *flags,
    )
    return out, done.stdout


def test_two_turns_in_the_official_format(tmp_path, sft):
    files = mt_bench(tmp_path)
    questions = write_jsonl(tmp_path / "few.jsonl", read_jsonl(files["--questions_file"])[::7])
    out, printed = answered(sft, tmp_path, "mt_bench", questions, "--chunk_size", 5)
    made = read_jsonl(out)
    assert [row["question_id"] for row in made] == [
        row["question_id"] for row in read_jsonl(questions)
    ]
    assert all(
        list(row) == ["question_id", "answer_id", "model_id", "choices", "tstamp"] for row in made
    )
    assert all(row["model_id"] == "tiny" and len(row["choices"][0]["turns"]) == 2 for row in made)
    assert f"questions: {len(made)}, finished before: 0, turns: {2 * len(made)}," in printed
    texts = [row["choices"] for row in made]
    again, _ = answered(sft, tmp_path, "mt_bench", questions)  # in one chunk
    assert [row["choices"] for row in read_jsonl(again)] == texts
    other, _ = answered(sft, tmp_path, "mt_bench", questions, "--seed", 1)
    sampled = [
        row["category"] in ("writing", "roleplay", "stem", "humanities")
        for row in read_jsonl(questions)
    ]
    changed = [row["choices"] != old for row, old in zip(read_jsonl(other), texts, strict=True)]
    assert any(changed) and not any(c for c, s in zip(changed, sampled, strict=True) if not s)
    files |= {"--answers_file": again, "--questions_file": questions}
    assert judged("2b_mt_bench", files, tmp_path, stars)[0]["judgments"] == 2 * len(made)


def test_answers_of_two_benchmarks_at_once(tmp_path, sft):
    files = arena_hard(tmp_path, count=3)
    questions = tmp_path / "alpaca.json"
    questions.write_text(json.dumps([{"instruction": "What is 1 plus 2?", "output": "3", "dataset": "d"},
                                     {"instruction": "word " * 600, "dataset": "d"}]))  # fmt: skip
    command = [
        "eval/1_answers.py",
        "--benchmarks",
        "arena_hard",
        "alpaca_eval",
        "--model_name_or_path",
        sft,
    ]
    command += [
        "--model_name",
        "tiny",
        "--max_new_tokens",
        12,
        "--questions_files",
        files["--questions_file"],
        questions,
    ]
    done = run(*command, "--output_files", tmp_path / "one.jsonl")
    assert done.returncode == 2 and "--output_files: one for each of --benchmarks" in done.stderr
    out = [tmp_path / "arena.jsonl", tmp_path / "answers.json"]
    tokenizer = AutoTokenizer.from_pretrained(sft)
    texts = ["What is 1 plus 2?", *(row["prompt"] for row in read_jsonl(files["--questions_file"]))]
    chats = [[{"role": "user", "content": text}] for text in texts]
    limit = (
        max(
            len(tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"])
            for chat in chats
        )
        + 2
    )
    printed = ran(*command, "--max_model_len", limit, "--output_files", *out).stdout
    assert re.search(
        r"^arena_hard: \d+ of \d+ answers are cut off at 12 tokens, or at the end of",
        printed,
        re.MULTILINE,
    )
    first, baseline = read_jsonl(out[0])[0], read_jsonl(files["--baseline_file"])[0]
    assert list(first) == list(baseline) and list(first["messages"][1]) == list(
        baseline["messages"][1]
    )
    assert first["messages"][0] == baseline["messages"][0] and first["uid"] == "uid0"
    first, long = json.loads(out[1].read_text())
    assert (
        first["instruction"] == "What is 1 plus 2?"
        and first["generator"] == "tiny"
        and first["dataset"] == "d"
    )
    assert first["output"] and long["output"] == "" and "without room: 1" in printed
    asked = tokenizer.apply_chat_template(chats[0], add_generation_prompt=True)["input_ids"]
    said = tokenizer(first["output"], add_special_tokens=False)["input_ids"]
    assert len(asked) + len(said) <= limit


def test_answers_need_a_model_with_a_chat_template(tmp_path, base):
    files = arena_hard(tmp_path, count=3)
    model = tmp_path / "model"
    command = [
        "eval/1_answers.py",
        "--benchmarks",
        "arena_hard",
        "--questions_files",
        files["--questions_file"],
    ]
    command += ["--model_name_or_path", model, "--output_files", tmp_path / "out.jsonl"]
    done = run(*command)
    assert done.returncode == 1 and done.stderr.startswith(
        f"{model}: cannot load a model from it ("
    )
    shutil.copytree(base, model)
    (model / "chat_template.jinja").unlink()
    done = run(*command)
    assert done.returncode == 1 and done.stderr == f"{model}: its tokenizer has no chat template\n"
    assert not (tmp_path / "out.jsonl").exists()
