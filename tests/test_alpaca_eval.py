"""AlpacaEval 2 through its package, against judges that are scripted here; every rate is worked out by hand."""

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import mean, stdev

import pytest

from commands import ROOT, ran, read_jsonl, run

SCRIPT = "eval/2a_alpaca_eval.py"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
SHOWN = re.compile(
    r'"instruction": """(.*?)""",\n.*"output": """(.*?)"""\n.*"output": """(.*?)"""\n', re.DOTALL
)


class Judge(ThreadingHTTPServer):
    """`reply` takes a question and the answers that are shown first and second.

    It gives the probability of the first, or the judge's words, or a status with what is sent for it.
    """

    request_queue_size, daemon_threads = 128, True

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.lock, self.asked, self.bodies = reply, threading.Lock(), [], []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", -1, True

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        shown = SHOWN.search(body["messages"][-1]["content"]).groups()
        with self.server.lock:
            self.server.asked.append(shown)
            self.server.bodies.append(body)
        reply, status = self.server.reply(*shown), 200
        if isinstance(reply, tuple):
            status, content = reply
        else:
            message = {"role": "assistant", "content": reply if isinstance(reply, str) else "m"}
            choice = {"index": 0, "finish_reason": "length", "message": message}
            if body.get("logprobs"):
                likely = (
                    {reply: 1.0}
                    if isinstance(reply, str)
                    else {"m": reply, "M": 1 - reply, "Model": 1e-9}
                )
                top = [
                    {"token": t, "logprob": math.log(max(p, 1e-99)), "bytes": []}
                    for t, p in likely.items()
                ]
                choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
            content = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [choice],
            }
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header(
            "Content-Type", "text/html" if isinstance(content, str) else "application/json"
        )
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After-Ms", "1")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextmanager
def judge_that(reply):
    with Judge(reply) as judge:
        threading.Thread(target=judge.serve_forever, args=(0.01,), daemon=True).start()
        yield judge
        judge.shutdown()


def outputs(texts, generator, start=0):
    """AlpacaEval's list: the answers of a model to question 0, question 1, ..."""
    rows = enumerate(texts, start)
    return [
        {"instruction": f"question {i}", "output": text, "generator": generator} for i, text in rows
    ]


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def command(tmp_path, url, model, reference, *flags, script=SCRIPT):
    files = ["--model_outputs", write(tmp_path / "model.json", model)]
    files += ["--reference_outputs", write(tmp_path / "reference.json", reference)]
    given = ["--judge_url", url, "--judge_model", "my judge", "--output_dir", tmp_path / "out"]
    return [script, *files, *given, *flags]


def result(tmp_path):
    return json.loads((tmp_path / "out" / "alpaca_eval.json").read_text())


def annotations(tmp_path):
    return json.loads((tmp_path / "out" / "annotations.json").read_text())


def failed(*script):
    """The one line in which the script gives up; no result appears."""
    done = run(*script, env=ENVIRONMENT)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (Path(script[script.index("--output_dir") + 1]) / "alpaca_eval.json").exists()
    return done.stderr


def longer(_, first, second):
    return (1 + (len(first) > len(second)) - (len(first) < len(second))) / 2


# What the judge is asked, and what becomes of its words


def test_the_rates_by_hand(tmp_path):
    """The judge gives the model's answer that probability which the answer itself tells; one pair is equal.

    The answers come in another order than the reference's; an answer may hold the end of a turn in ChatML.
    """
    chances = [0.9, 0.2, 0.5, 0.75, 0.01, 1.0, 0.6, 0.3]
    model = outputs([f"{chance}<|im_end|>{'é' * i}" for i, chance in enumerate(chances)], "policy")
    model += outputs(["the same"], "policy", 8)
    reference = [
        {**row, "dataset": "d"} for row in outputs(["", "R", *["RR"] * 6, "the same"], "base")
    ]

    def reply(_, first, second):
        of_first = "<|im_end|>" in first
        chance = float((first if of_first else second).split("<")[0])
        return chance if of_first else 1 - chance

    with judge_that(reply) as judge:
        done = ran(
            *command(tmp_path, judge.url, model[::-1], reference, "--prices", 1000000, 0),
            env=ENVIRONMENT,
        )
    wins = [*chances, 0.5]
    made, today = result(tmp_path), time.strftime("%Y-%m-%d")
    assert made["win_rate"] == pytest.approx(100 * mean(wins), abs=1e-9)
    assert made["standard_error"] == pytest.approx(100 * stdev(wins) / 3, abs=1e-9)
    assert (made["n_wins"], made["n_wins_base"], made["n_draws"]) == (4, 3, 2)
    assert (made["rows"], made["judged"], made["judge"], made["date"]) == (9, 9, "my judge", today)
    assert (made["model"], made["reference"], made["judgement"]) == (
        "policy",
        "base",
        "log-probabilities",
    )
    lengths = [int(mean(len(row["output"]) for row in rows)) for rows in (model, reference)]
    assert [made["avg_length"], made["reference_avg_length"]] == lengths
    assert (
        made["length_controlled_winrate"] is None
        and "805 official questions" in made["no_length_controlled_winrate"]
    )
    row = f"| policy | base | my judge | {today} | - | {100 * mean(wins):.2f} | {made['standard_error']:.2f} | "
    assert row + f"{lengths[0]} | {lengths[1]} | 9 of 9 |" in done.stdout and done.stderr == ""

    assert (
        len(judge.asked) == 8 and len({"<|im_end|>" in first for _, first, _ in judge.asked}) == 2
    ), "both orders"
    tokens = sum(len(turn["content"]) for body in judge.bodies for turn in body["messages"]) // 4
    told = f"8 requests, 0 known already, about {tokens} tokens in, at most 8 out, ${tokens}.00 and at most $0.00\n"
    assert done.stdout.splitlines()[1] + "\n" == f"my judge at {judge.url}: {told}"
    rows = annotations(tmp_path)
    assert [row["instruction"] for row in rows] == [row["instruction"] for row in reference]
    assert [row["output_2"] for row in rows] == [row["output"] for row in model]
    assert [row["preference"] for row in rows] == pytest.approx([1 + win for win in wins], abs=1e-9)
    kept = {
        json.dumps(row["choice"]["logprobs"])
        for row in read_jsonl(tmp_path / "out" / "replies.jsonl")
    }
    assert {json.dumps(row["preference_raw_completion"]["logprobs"]) for row in rows[:-1]} == kept
    assert {row["annotator"] for row in rows} == {"my judge"} and rows[-1][
        "preference_raw_completion"
    ] is None


def test_the_judge_reads_the_prompt_of_the_package(tmp_path):
    """As the package itself sends it; so does the other mode, which leaves room to think."""
    from alpaca_eval import constants, utils

    with judge_that(lambda *_: "Let me see.\nM") as judge:
        for flags in ([], ["--no_logprobs"]):
            script = command(
                tmp_path, judge.url, outputs(["A {x}"], "a"), outputs(["B"], "b"), *flags
            )
            run(*script, env=ENVIRONMENT)
    assert result(tmp_path)["win_rate"] == (100 if judge.asked[0][2] == "A {x}" else 0)
    assert result(tmp_path)["judgement"] == "last line"
    template = (
        constants.EVALUATORS_CONFIG_DIR / "alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt"
    ).read_text()
    row = dict(zip(("instruction", "output_1", "output_2"), judge.asked[0], strict=True))
    prompt = utils.make_prompts(__import__("pandas").DataFrame([row]), template)[0][0]
    first, second = judge.bodies
    assert first["messages"] == second["messages"] == utils.prompt_to_chatml(prompt)
    del first["messages"], second["messages"]
    assert first.pop("model") == second.pop("model") == "my judge"
    assert first == {
        "temperature": 1,
        "max_completion_tokens": 1,
        "logprobs": True,
        "top_logprobs": 5,
    }
    assert second == {"temperature": 0, "max_completion_tokens": 1024}


def test_a_judge_that_likes_length(tmp_path):
    lengths = random.Random(0).choices(range(1, 30), k=160)
    pairs = [*zip(lengths[:80], lengths[80:], strict=True)]
    model, reference = (
        outputs([letter * pair[i] for pair in pairs], letter) for i, letter in enumerate("xy")
    )
    with judge_that(longer) as judge:
        ran(*command(tmp_path, judge.url, model, reference), env=ENVIRONMENT)
    wins, draws = sum(a > b for a, b in pairs), sum(a == b for a, b in pairs)
    made = result(tmp_path)
    assert 20 < wins < 60 and draws and (made["n_wins"], made["n_draws"]) == (wins, draws)
    assert made["win_rate"] == pytest.approx(100 * (wins + draws / 2) / 80, abs=1e-9)


NONSENSE = ["both", "m or M", "m\nand M", "I'm not sure", "", "mM"]
UNFINISHED = ["<think>\nm", "m</think>\nboth", "m\n<think>"]


@pytest.mark.parametrize("words", [True, False])
def test_nonsense_is_counted_and_not_guessed(tmp_path, words):
    """5% of 120 rows, and a request that the server refuses: the rate is that of the others, and the table says so."""
    model, reference = outputs([f"x{i}" for i in range(120)], "a"), outputs(["y"] * 120, "b")
    strange = {f"question {i}": text for i, text in enumerate(NONSENSE)}

    def reply(question, first, second):
        if question == "question 119":
            return 400, {"error": {"message": "too long"}}
        won = int(question.split()[1]) % 4 == 0
        return strange.get(
            question,
            "m" if longer(question, first, second) == won else "\n**M**." if words else "M",
        )

    with judge_that(reply) as judge:
        done = ran(
            *command(tmp_path, judge.url, model, reference, *["--no_logprobs"] * words),
            env=ENVIRONMENT,
        )
    wins = [i % 4 == 0 for i in range(6, 119)]
    made = result(tmp_path)
    assert made["win_rate"] == pytest.approx(100 * mean(wins), abs=1e-9)
    assert made["standard_error"] == pytest.approx(100 * stdev(wins) / math.sqrt(113), abs=1e-9)
    assert (made["rows"], made["judged"], made["n_total"]) == (
        120,
        113,
        113,
    ) and "| 113 of 120 |" in done.stdout
    assert (
        "rows in: 120, judged: 113, without verdict: 6, requests refused: 1, such as "
        in done.stdout
    )
    rows = annotations(tmp_path)
    assert [i for i, row in enumerate(rows) if row["preference"] is None] == [*range(6), 119]
    told = [
        row["choice"]["message"]["content"]
        for row in read_jsonl(tmp_path / "out" / "replies.jsonl")
    ]
    assert len(told) == 119 and set(NONSENSE) < set(told)


def test_what_stands_before_the_end_of_a_thought_is_no_verdict(tmp_path):
    """The last line of the thought says the other one; thoughts that were cut off are counted."""
    model, reference = outputs([f"x{i}" for i in range(9)], "a"), outputs(["y"] * 9, "b")
    unfinished = {f"question {i}": text for i, text in enumerate(UNFINISHED)}

    def reply(question, first, _):
        better, worse = ("m", "M") if first.startswith("x") else ("M", "m")
        return unfinished.get(question, f"<think>\n{worse}\n</think>\n\n{better}")

    with judge_that(reply) as judge:
        flags = ["--no_logprobs", "--max_tokens", 99]
        done = ran(*command(tmp_path, judge.url, model, reference, *flags), env=ENVIRONMENT)
    assert "judged: 6, without verdict: 3, " in done.stdout and result(tmp_path)["win_rate"] == 100
    assert {body["max_completion_tokens"] for body in judge.bodies} == {99}


@pytest.mark.parametrize(
    "said",
    ["<think>", {"content": None, "reasoning_content": "I"}, {"content": "", "reasoning": "I"}],
)
def test_a_judge_that_thinks_is_refused_where_its_first_token_is_the_verdict(tmp_path, said):
    message = said if isinstance(said, dict) else {"content": said}
    top = [{"token": token, "logprob": -1.0, "bytes": []} for token in ("I", "M")]
    choice = {"index": 0, "finish_reason": "length", "message": {"role": "assistant", **message}}
    choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    with judge_that(lambda *_: (200, {"choices": [choice]})) as judge:
        told = failed(*command(tmp_path, judge.url, outputs("ab", "a"), outputs("cd", "b")))
    assert "a judge that thinks before its verdict; for such a judge there is --no_logprobs" in told


def test_only_nonsense(tmp_path):
    with judge_that(lambda *_: "I cannot judge this.") as judge:
        told = failed(*command(tmp_path, judge.url, outputs("ab", "a"), outputs("cd", "b")))
    wanted = (
        "no row is judged; without verdict: 2, requests refused: 0, such as 'I cannot judge this.'"
    )
    assert told == f"{tmp_path}/model.json: {wanted}\n"
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["replies.jsonl"]


# A judge that fails


ERRORS = {
    429: ("RateLimitError: Error code: 429", {"error": {"message": "slow down"}}, "slow down"),
    401: (
        "AuthenticationError: Error code: 401",
        {"error": {"message": "a wrong key"}},
        "a wrong key",
    ),
}
NO_REPLY = {
    "a page": ("<html>welcome</html>", "'choices'"),
    "no log-probabilities": (None, "--no_logprobs"),
}


@pytest.mark.parametrize("status", ERRORS)
def test_a_judge_that_refuses(tmp_path, status):
    """What it said before is kept: the same command asks the rest."""
    start, content, words = ERRORS[status]
    model, reference = outputs(["x" * i for i in range(9)], "a"), outputs(["yyyy"] * 9, "b")

    def reply(*shown):
        return longer(*shown) if len(judge.asked) <= 5 else (status, content)

    with judge_that(reply) as judge:
        flags = ["--max_retries", 1, "--concurrency", 1]
        told = failed(*command(tmp_path, judge.url, model, reference, *flags))
        assert (
            told.startswith(f"{judge.url}: {start}")
            and words in told
            and told.endswith("command goes on\n")
        )
        assert len(judge.asked) == 6 + (status == 429), "nothing new is asked once it is clear"
    answered = judge.asked[:5]
    assert len(read_jsonl(tmp_path / "out" / "replies.jsonl")) == 5
    if status == 401:
        with judge_that(longer) as judge:
            done = ran(*command(tmp_path, judge.url, model, reference), env=ENVIRONMENT)
        assert (
            "4 requests, 5 known already, " in done.stdout
            and result(tmp_path)["win_rate"] == 100 * 4.5 / 9
        )
        assert sorted(question for question, *_ in answered + judge.asked) == [
            f"question {i}" for i in range(9)
        ]


@pytest.mark.parametrize("what", NO_REPLY)
def test_what_is_no_reply_costs_its_question(tmp_path, what):
    """It is counted and its words are kept; if nothing else ever came, the judge is not asked further."""
    content, words = NO_REPLY[what]
    model, reference = outputs(["x" * i for i in range(9)], "a"), outputs(["yyyy"] * 9, "b")
    bare = {
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "m"}, "finish_reason": "stop"}
        ]
    }

    def reply(*shown):
        return longer(*shown) if good <= len(judge.asked) else (200, content or bare)

    good = 2
    with judge_that(reply) as judge:
        script = command(
            tmp_path, judge.url, model, reference, "--max_retries", 0, "--concurrency", 2
        )
        done = ran(*script, env=ENVIRONMENT)
    assert "without verdict: 0, requests refused: 1, " in done.stdout and len(judge.asked) == 9
    (kept,) = read_jsonl(tmp_path / "out" / "refused.jsonl")
    assert words in kept["why"] and result(tmp_path)["judged"] == 8
    shutil.rmtree(tmp_path / "out")
    good = 99
    with judge_that(reply) as judge:
        script[script.index("--judge_url") + 1] = judge.url
        told = failed(*script)
    assert words in told and told.startswith(f"{judge.url}: ") and len(judge.asked) == 2


def test_a_judge_that_is_down_and_one_that_is_busy(tmp_path):
    """The package takes a judge that stays busy for one that said nothing."""
    with judge_that(longer) as judge:
        script = command(
            tmp_path, judge.url, outputs(["xx"], "a"), outputs(["y"], "b"), "--max_retries", 2
        )
    told = failed(*script)
    assert told.startswith(f"{judge.url}: APIConnectionError: Connection error. ")

    def busy(*shown):
        return [(429, {"error": {"message": "rate limit"}}), (503, ""), longer(*shown)][
            len(judge.asked) - 1
        ]

    with judge_that(busy) as judge:
        script[script.index("--judge_url") + 1] = judge.url
        ran(*script, env=ENVIRONMENT)
    assert len(judge.asked) == 3 and result(tmp_path)["win_rate"] == 100


def test_a_kill_loses_nothing_but_what_is_under_way(tmp_path):
    """A third run asks nothing and writes the same bytes; an answer that is another is asked about, alone."""
    model, reference = outputs(["x" * i for i in range(60)], "a"), outputs(["yyyy"] * 60, "b")
    with judge_that(lambda *shown: time.sleep(0.01) or longer(*shown)) as judge:
        script = command(tmp_path, judge.url, model, reference, "--concurrency", 4)
        process = subprocess.Popen(
            [sys.executable, *map(str, script)], cwd=ROOT, env=ENVIRONMENT, stdout=-3
        )
        while len(judge.asked) < 30:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        ran(*script, env=ENVIRONMENT)
        assert result(tmp_path)["win_rate"] == 100 * 55.5 / 60
        assert len(set(judge.asked)) == 60 and len(judge.asked) <= 64
        asked = len(judge.asked)
        files = [
            tmp_path / "out" / name
            for name in ("alpaca_eval.json", "annotations.json", "replies.jsonl")
        ]
        before = [file.read_bytes() for file in files]
        done = ran(*script, env=ENVIRONMENT)
        assert "0 requests, 60 known already" in done.stdout and len(judge.asked) == asked
        assert [file.read_bytes() for file in files] == before and len(
            list((tmp_path / "out").iterdir())
        ) == 3
        model[7]["output"] = "z"
        ran(*command(tmp_path, judge.url, model, reference), env=ENVIRONMENT)
        assert len(judge.asked) == asked + 1 and result(tmp_path)["win_rate"] == 100 * 54.5 / 60


# What is wrong before anything is asked


def test_answers_that_are_not_those_to_the_questions(tmp_path):
    model, reference = outputs("abc", "a"), outputs("def", "b")
    duplicate, mixed, numbers = (
        [*model, model[1]],
        [*model[:2], {**model[2], "generator": "c"}],
        outputs([1], "a"),
    )
    bad = {
        "model.json: 1 of 3 questions have no answer, such as 'question 2'": (model[:2], reference),
        "model.json: 1 answers have no question, such as 'question 2'": (model, reference[:2]),
        "model.json:4: instruction: 'question 1' stands twice": (duplicate, reference),
        "reference.json:4: instruction: 'question 1' stands twice": (model, duplicate),
        "model.json:3: generator: 'c' after 'a', one is expected": (mixed, reference),
        "model.json:1: output: not a text": (numbers, reference[:1]),
        "model.json: no rows": ([], reference),
    }
    for reason, lists in bad.items():
        assert (
            failed(*command(tmp_path, "http://127.0.0.1:1/v1", *lists)) == f"{tmp_path}/{reason}\n"
        )
    assert not (tmp_path / "out").exists()


def test_flags_that_contradict_each_other(tmp_path):
    file = write(tmp_path / "model.json", outputs("a", "a"))
    for flags in ([], ["--annotations", file, "--model_outputs", file], ["--model_outputs", file]):
        done = run(SCRIPT, "--output_dir", tmp_path / "out", *flags, env=ENVIRONMENT)
        assert done.returncode == 2 and "--model_outputs" in done.stderr.splitlines()[-1]


# Judgements that are there already, and the length-controlled rate


def published(chances, lengths):
    """Annotations in the package's format; a chance of None is a judgement without verdict."""
    return [
        {
            "instruction": f"question {i}", "output_1": "r" * 100, "generator_1": "base", "output_2": "m" * length,
            "generator_2": "policy", "annotator": "gpt", "preference": None if chance is None else 1 + chance,
        } for i, (chance, length) in enumerate(zip(chances, lengths, strict=True))
    ]  # fmt: skip


def test_published_judgements(tmp_path):
    rows = published([0.25, 1.0, None, None, 0.5], [1, 2, 3, 4, 5])
    rows[3]["preference"], rows[4]["preference"] = (
        -1,
        0,
    )  # as the package writes no verdict, and as it wrote a draw
    rows[0]["preference_date"] = "2024-02-03T04:05:06"
    flags = ["--annotations", write(tmp_path / "a.json", rows), "--output_dir", tmp_path / "out"]
    done = ran(SCRIPT, *flags, env=ENVIRONMENT)
    made = result(tmp_path)
    assert made["win_rate"] == pytest.approx(100 * 1.75 / 3, abs=1e-9) and made["avg_length"] == 3
    assert (made["judge"], made["date"], made["judged"], made["rows"]) == (
        "gpt",
        "2024-02-03",
        3,
        5,
    )
    assert "rows in: 5, judged: 3, without verdict: 2, " in done.stdout
    reference = write(tmp_path / "reference.json", outputs(["r"] * 6, "base"))
    (tmp_path / "out" / "alpaca_eval.json").unlink()
    told = failed(SCRIPT, *flags, "--reference_outputs", reference)
    assert told == f"{tmp_path}/a.json: 1 of 6 questions have no answer, such as 'question 5'\n"
    rows[1]["preference"] = 2.5
    write(tmp_path / "a.json", rows)
    assert (
        failed(SCRIPT, *flags) == f"{tmp_path}/a.json:2: preference: 2.5 is not between 1 and 2\n"
    )


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """805 judgements of a policy that wins where it is long, and a file of df_gamed.csv's columns.

    The script is a copy that takes these questions for the official ones, which are not for this repository.
    """
    import hashlib

    import pandas

    at, chance = tmp_path_factory.mktemp("official"), random.Random(1)
    lengths = [chance.randint(50, 400) for _ in range(805)]
    rows = published(
        [min(1.0, max(0.0, length / 400 + chance.gauss(0, 0.1))) for length in lengths], lengths
    )
    write(at / "a.json", rows)
    gamed = [
        [i, name, side * chance.uniform(0.5, 1.5), chance.uniform(0, 1), i / 805, False]
        for name, side in (("concise", 1), ("verbose", -1)) for i in range(805)
    ]  # fmt: skip
    columns = [
        "index",
        "model",
        "std_delta_len",
        "preference",
        "instruction_difficulty",
        "not_gamed_baseline",
    ]
    pandas.DataFrame(gamed, columns=columns).to_csv(at / "df_gamed.csv", index=False)
    shutil.copytree(ROOT / "eval", at / "eval")
    script, digest = (
        at / "eval" / "2a_alpaca_eval.py",
        json.dumps([row["instruction"] for row in rows]).encode(),
    )
    text, n = re.subn(
        r'(?<=^OFFICIAL = ")\w+', hashlib.sha256(digest).hexdigest(), script.read_text(), flags=re.M
    )
    assert n == 1
    script.write_text(text)
    return at


def test_the_length_controlled_rate_is_the_package_s(official, tmp_path, monkeypatch):
    import pandas
    from alpaca_eval.metrics import glm_winrate

    flags = ["--annotations", official / "a.json", "--gamed_file", official / "df_gamed.csv"]
    flags += ["--output_dir", tmp_path / "out"]
    done = ran(official / "eval" / "2a_alpaca_eval.py", *flags, env=ENVIRONMENT)
    made = result(tmp_path)
    monkeypatch.setattr(glm_winrate, "hf_hub_download", lambda **_: official / "df_gamed.csv")
    rows = pandas.read_json(official / "a.json")
    own = glm_winrate.get_length_controlled_winrate(rows, save_weights_dir=None)
    assert made["length_controlled_winrate"] == pytest.approx(
        own["length_controlled_winrate"], abs=1e-6
    )
    assert made["lc_standard_error"] == pytest.approx(own["lc_standard_error"], abs=1e-6)
    assert made["win_rate"] == pytest.approx(100 * (rows["preference"].mean() - 1), abs=1e-6)
    assert abs(made["length_controlled_winrate"] - made["win_rate"]) > 1, (
        "the file would show nothing"
    )
    assert f"| {made['length_controlled_winrate']:.2f} | " in done.stdout
    assert made["no_length_controlled_winrate"] is None and done.stderr == ""


def test_without_its_file_there_is_no_length_controlled_rate(official, tmp_path):
    script = [official / "eval" / "2a_alpaca_eval.py", "--annotations", official / "a.json"]
    script += ["--output_dir", tmp_path / "out"]
    for bad, reason in {
        "index,model\n0,a\n": "not AlpacaEval's df_gamed.csv",
        None: "No such file",
    }.items():
        file = tmp_path / "bad.csv"
        file.unlink() if bad is None else file.write_text(bad)
        told = failed(*script, "--gamed_file", file)
        assert told.startswith(f"{file}: ") and reason in told
    done = ran(*script, env=ENVIRONMENT | {"HF_HOME": str(tmp_path / "empty")})
    made = result(tmp_path)
    assert made["length_controlled_winrate"] is None and made["lc_standard_error"] is None
    told = made["no_length_controlled_winrate"]
    assert (
        told.startswith("df_gamed.csv is missing; ")
        and "hf download tatsu-lab/alpaca_eval df_gamed.csv" in told
    )
    assert f"no length-controlled win rate: {told}\n" in done.stdout and "| - |" in done.stdout


def test_other_questions_have_no_length_controlled_rate(official, tmp_path):
    """Nor do the official ones in another order, whatever file is given."""
    rows = json.loads((official / "a.json").read_text())
    flags = ["--annotations", write(tmp_path / "a.json", [rows[1], rows[0], *rows[2:]])]
    flags += ["--gamed_file", official / "df_gamed.csv", "--output_dir", tmp_path / "out"]
    done = ran(official / "eval" / "2a_alpaca_eval.py", *flags, env=ENVIRONMENT)
    told = "no length-controlled win rate: needs the 805 official questions in their order, which these 805 are not\n"
    assert told in done.stdout and result(tmp_path)["length_controlled_winrate"] is None


def test_the_leaderboard_s_win_rate(tmp_path):
    """ALPACA_EVAL_DATA: a folder with the official gemma-7b-it.annotations.json and gpt4_1106_preview.json."""
    if not (data := os.environ.get("ALPACA_EVAL_DATA")):
        pytest.skip("ALPACA_EVAL_DATA names no folder of official results")
    flags = [
        "--annotations",
        f"{data}/gemma-7b-it.annotations.json",
        "--output_dir",
        tmp_path / "out",
    ]
    ran(SCRIPT, *flags, "--reference_outputs", f"{data}/gpt4_1106_preview.json", env=ENVIRONMENT)
    made = result(tmp_path)
    assert (made["win_rate"], made["avg_length"]) == (
        pytest.approx(6.937294379677018, abs=1e-9),
        1115,
    )
    assert made["no_length_controlled_winrate"].startswith("df_gamed.csv is missing"), (
        "the official order"
    )
