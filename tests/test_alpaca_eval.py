"""AlpacaEval 2 through its package, with scripted judges; every rate is worked out by hand."""

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

    It returns the probability that the first is better; or the judge's words; or (status, content)
    of another response.
    """

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply = reply
        self.lock = threading.Lock()
        # of all requests: (question, first answer, second answer), and the body
        self.asked = []
        self.bodies = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


def first_token(probabilities):
    """The log-probabilities of a reply's first token, as OpenAI's protocol has them."""
    top = []
    for token, p in probabilities.items():
        top.append({"token": token, "logprob": math.log(max(p, 1e-99)), "bytes": []})
    return {"content": [{**top[0], "top_logprobs": top}]}


def completion(body, reply):
    """The response to a request: words, or the probability of "m", which says "the first"."""
    if isinstance(reply, str):
        words, probabilities = reply, {reply: 1.0}
    else:
        words, probabilities = "m", {"m": reply, "M": 1 - reply, "Model": 1e-9}
    message = {"role": "assistant", "content": words}
    choice = {"index": 0, "finish_reason": "length", "message": message}
    if body.get("logprobs"):
        choice["logprobs"] = first_token(probabilities)
    kind = {"id": "1", "object": "chat.completion", "created": 0}
    return {**kind, "model": body["model"], "choices": [choice]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self):
        judge = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        shown = SHOWN.search(body["messages"][-1]["content"]).groups()
        with judge.lock:
            judge.asked.append(shown)
            judge.bodies.append(body)
        reply = judge.reply(*shown)
        if isinstance(reply, tuple):
            status, content = reply
        else:
            status, content = 200, completion(body, reply)
        if isinstance(content, str):
            kind, data = "text/html", content.encode()
        else:
            kind, data = "application/json", json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
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
    rows = []
    for i, text in enumerate(texts, start):
        rows.append({"instruction": f"question {i}", "output": text, "generator": generator})
    return rows


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def command(tmp_path, url, model, reference, *flags, script=SCRIPT):
    files = ["--model_outputs", write(tmp_path / "model.json", model)]
    files += ["--reference_outputs", write(tmp_path / "reference.json", reference)]
    files += ["--output_dir", tmp_path / "out"]
    return [script, *files, "--judge_url", url, "--judge_model", "my judge", *flags]


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
    """The reply of a judge that prefers the longer answer."""
    return (1 + (len(first) > len(second)) - (len(first) < len(second))) / 2


# What the judge is asked, and what becomes of its words


def mean_length(rows):
    return int(mean(len(row["output"]) for row in rows))


def test_the_rates_by_hand(tmp_path):
    """The judge gives each answer of the model the probability that the answer itself names.

    In the last pair both answers are equal. The model's answers come in another order than the
    reference's. An answer may hold ChatML's end of a turn.
    """
    probabilities = [0.9, 0.2, 0.5, 0.75, 0.01, 1.0, 0.6, 0.3]
    wins = [*probabilities, 0.5]
    model = outputs([f"{p}<|im_end|>{'é' * i}" for i, p in enumerate(probabilities)], "policy")
    model += outputs(["the same"], "policy", 8)
    reference = outputs(["", "R", *["RR"] * 6, "the same"], "base")
    for row in reference:
        row["dataset"] = "d"

    def reply(_, first, second):
        if "<|im_end|>" in first:
            return float(first.split("<")[0])
        return 1 - float(second.split("<")[0])

    with judge_that(reply) as judge:
        flags = ["--prices", 1000000, 0]
        script = command(tmp_path, judge.url, model[::-1], reference, *flags)
        done = ran(*script, env=ENVIRONMENT)
    today = time.strftime("%Y-%m-%d")
    model_length, reference_length = mean_length(model), mean_length(reference)
    summary = result(tmp_path)
    assert summary["win_rate"] == pytest.approx(100 * mean(wins), abs=1e-9)
    assert summary["standard_error"] == pytest.approx(100 * stdev(wins) / 3, abs=1e-9)
    assert (summary["n_wins"], summary["n_wins_base"], summary["n_draws"]) == (4, 3, 2)
    assert (summary["rows"], summary["judged"]) == (9, 9)
    assert (summary["judge"], summary["date"]) == ("my judge", today)
    assert (summary["model"], summary["reference"]) == ("policy", "base")
    assert summary["judgement"] == "log-probabilities"
    assert summary["avg_length"] == model_length
    assert summary["reference_avg_length"] == reference_length
    assert summary["length_controlled_winrate"] is None
    assert "805 official questions" in summary["no_length_controlled_winrate"]
    rates = f"- | {100 * mean(wins):.2f} | {summary['standard_error']:.2f}"
    lengths = f"{model_length} | {reference_length} | 9 of 9"
    assert f"| policy | base | my judge | {today} | {rates} | {lengths} |" in done.stdout
    assert done.stderr == ""

    assert len(judge.asked) == 8, "both orders"
    assert len({"<|im_end|>" in first for _, first, _ in judge.asked}) == 2, "both orders"
    letters = sum(len(turn["content"]) for body in judge.bodies for turn in body["messages"])
    tokens = letters // 4
    message = f"8 requests, 0 known already, about {tokens} tokens in, at most 8 out, "
    message += f"${tokens}.00 and at most $0.00"
    assert done.stdout.splitlines()[1] == f"my judge at {judge.url}: {message}"
    rows = annotations(tmp_path)
    assert [row["instruction"] for row in rows] == [row["instruction"] for row in reference]
    assert [row["output_2"] for row in rows] == [row["output"] for row in model]
    assert [row["preference"] for row in rows] == pytest.approx([1 + win for win in wins], abs=1e-9)
    replies = read_jsonl(tmp_path / "out" / "replies.jsonl")
    logprobs = {json.dumps(row["choice"]["logprobs"]) for row in replies}
    completions = [row["preference_raw_completion"] for row in rows]
    assert {json.dumps(completion["logprobs"]) for completion in completions[:-1]} == logprobs
    assert completions[-1] is None
    assert {row["annotator"] for row in rows} == {"my judge"}


def test_the_judge_reads_the_prompt_of_the_package(tmp_path):
    """As the package itself sends it; with --no_logprobs too, which leaves room to think."""
    import pandas
    from alpaca_eval import constants, utils

    model, reference = outputs(["A {x}"], "a"), outputs(["B"], "b")
    with judge_that(lambda *_: "Let me see.\nM") as judge:
        for flags in ([], ["--no_logprobs"]):
            run(*command(tmp_path, judge.url, model, reference, *flags), env=ENVIRONMENT)
    question, first_answer, second_answer = judge.asked[0]
    # M stands for the second answer.
    assert result(tmp_path)["win_rate"] == (100 if second_answer == "A {x}" else 0)
    assert result(tmp_path)["judgement"] == "last line"
    folder = constants.EVALUATORS_CONFIG_DIR / "alpaca_eval_clf_gpt4_turbo"
    template = (folder / "alpaca_eval_clf.txt").read_text()
    row = {"instruction": question, "output_1": first_answer, "output_2": second_answer}
    prompt = utils.make_prompts(pandas.DataFrame([row]), template)[0][0]
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
    model = outputs(["x" * length for length, _ in pairs], "x")
    reference = outputs(["y" * length for _, length in pairs], "y")
    with judge_that(longer) as judge:
        ran(*command(tmp_path, judge.url, model, reference), env=ENVIRONMENT)
    wins = sum(a > b for a, b in pairs)
    draws = sum(a == b for a, b in pairs)
    summary = result(tmp_path)
    assert 20 < wins < 60
    assert draws
    assert (summary["n_wins"], summary["n_draws"]) == (wins, draws)
    assert summary["win_rate"] == pytest.approx(100 * (wins + draws / 2) / 80, abs=1e-9)


NONSENSE = ["both", "m or M", "m\nand M", "I'm not sure", "", "mM"]
UNFINISHED = ["<think>\nm", "m</think>\nboth", "m\n<think>"]


@pytest.mark.parametrize("words", [True, False])
def test_nonsense_is_counted_and_not_guessed(tmp_path, words):
    """5% of 120 rows, and a request that the server refuses.

    The rate is that of the other rows, and the table says so.
    """
    model = outputs([f"x{i}" for i in range(120)], "a")
    reference = outputs(["y"] * 120, "b")
    nonsense = {f"question {i}": text for i, text in enumerate(NONSENSE)}

    def reply(question, first, second):
        if question == "question 119":
            return 400, {"error": {"message": "too long"}}
        if question in nonsense:
            return nonsense[question]
        model_wins = int(question.split()[1]) % 4 == 0
        model_is_first = longer(question, first, second)
        if model_is_first == model_wins:
            return "m"
        return "\n**M**." if words else "M"

    with judge_that(reply) as judge:
        flags = ["--no_logprobs"] if words else []
        done = ran(*command(tmp_path, judge.url, model, reference, *flags), env=ENVIRONMENT)
    wins = [i % 4 == 0 for i in range(6, 119)]
    summary = result(tmp_path)
    assert summary["win_rate"] == pytest.approx(100 * mean(wins), abs=1e-9)
    assert summary["standard_error"] == pytest.approx(100 * stdev(wins) / math.sqrt(113), abs=1e-9)
    assert (summary["rows"], summary["judged"], summary["n_total"]) == (120, 113, 113)
    assert "| 113 of 120 |" in done.stdout
    counts = "rows in: 120, judged: 113, without verdict: 6, requests refused: 1, such as "
    assert counts in done.stdout
    rows = annotations(tmp_path)
    assert [i for i, row in enumerate(rows) if row["preference"] is None] == [*range(6), 119]
    replies = read_jsonl(tmp_path / "out" / "replies.jsonl")
    assert len(replies) == 119
    assert set(NONSENSE) < {row["choice"]["message"]["content"] for row in replies}


def test_what_stands_before_the_end_of_a_thought_is_no_verdict(tmp_path):
    """The last line of the thought names the other answer; truncated thoughts are counted."""
    model = outputs([f"x{i}" for i in range(9)], "a")
    reference = outputs(["y"] * 9, "b")
    unfinished = {f"question {i}": text for i, text in enumerate(UNFINISHED)}

    def reply(question, first, _):
        better, worse = ("m", "M") if first.startswith("x") else ("M", "m")
        return unfinished.get(question, f"<think>\n{worse}\n</think>\n\n{better}")

    with judge_that(reply) as judge:
        flags = ["--no_logprobs", "--max_tokens", 99]
        done = ran(*command(tmp_path, judge.url, model, reference, *flags), env=ENVIRONMENT)
    assert "judged: 6, without verdict: 3, " in done.stdout
    assert result(tmp_path)["win_rate"] == 100
    assert {body["max_completion_tokens"] for body in judge.bodies} == {99}


THOUGHTS = [
    "<think>",
    {"content": None, "reasoning_content": "I"},
    {"content": "", "reasoning": "I"},
]


@pytest.mark.parametrize("said", THOUGHTS)
def test_a_judge_that_thinks_is_refused_where_its_first_token_is_the_verdict(tmp_path, said):
    message = said if isinstance(said, dict) else {"content": said}
    choice = {"index": 0, "finish_reason": "length", "message": {"role": "assistant", **message}}
    choice["logprobs"] = first_token({"I": 0.4, "M": 0.4})
    with judge_that(lambda *_: (200, {"choices": [choice]})) as judge:
        error = failed(*command(tmp_path, judge.url, outputs("ab", "a"), outputs("cd", "b")))
    message = "a judge that thinks before its verdict; for such a judge there is --no_logprobs"
    assert message in error


def test_only_nonsense(tmp_path):
    with judge_that(lambda *_: "I cannot judge this.") as judge:
        error = failed(*command(tmp_path, judge.url, outputs("ab", "a"), outputs("cd", "b")))
    counts = "without verdict: 2, requests refused: 0, such as 'I cannot judge this.'"
    assert error == f"{tmp_path}/model.json: no row is judged; {counts}\n"
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["replies.jsonl"]


# A judge that fails


# {status: (how the message starts, the server's words)}
ERRORS = {
    429: ("RateLimitError: Error code: 429", "slow down"),
    401: ("AuthenticationError: Error code: 401", "a wrong key"),
}
# {kind: (what the server sends, a part of the message)}
NO_REPLY = {
    "a page": ("<html>welcome</html>", "'choices'"),
    "no log-probabilities": (None, "--no_logprobs"),
}


@pytest.mark.parametrize("status", ERRORS)
def test_a_judge_that_refuses(tmp_path, status):
    """Its earlier replies are kept: the same command asks for the others."""
    start, words = ERRORS[status]
    model = outputs(["x" * i for i in range(9)], "a")
    reference = outputs(["yyyy"] * 9, "b")

    def reply(*shown):
        if len(judge.asked) <= 5:
            return longer(*shown)
        return status, {"error": {"message": words}}

    with judge_that(reply) as judge:
        flags = ["--max_retries", 1, "--concurrency", 1]
        error = failed(*command(tmp_path, judge.url, model, reference, *flags))
        assert error.startswith(f"{judge.url}: {start}")
        assert words in error
        assert error.endswith("command goes on\n")
        assert len(judge.asked) == 6 + (status == 429), "nothing new is asked once it is clear"
    answered = judge.asked[:5]
    assert len(read_jsonl(tmp_path / "out" / "replies.jsonl")) == 5
    if status == 401:
        with judge_that(longer) as judge:
            done = ran(*command(tmp_path, judge.url, model, reference), env=ENVIRONMENT)
        assert "4 requests, 5 known already, " in done.stdout
        assert result(tmp_path)["win_rate"] == 100 * 4.5 / 9
        questions = [question for question, *_ in answered + judge.asked]
        assert sorted(questions) == [f"question {i}" for i in range(9)]


@pytest.mark.parametrize("what", NO_REPLY)
def test_what_is_no_reply_costs_its_question(tmp_path, what):
    """It is counted and its words are kept; after nothing else the judge is not asked further."""
    content, words = NO_REPLY[what]
    model = outputs(["x" * i for i in range(9)], "a")
    reference = outputs(["yyyy"] * 9, "b")
    message = {"role": "assistant", "content": "m"}
    bare = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    flags = ["--max_retries", 0, "--concurrency", 2]

    def well_from(request):
        """A judge whose replies are well from the request of that number on."""

        def reply(*shown):
            if len(judge.asked) >= request:
                return longer(*shown)
            return 200, content or bare

        return reply

    with judge_that(well_from(2)) as judge:
        done = ran(*command(tmp_path, judge.url, model, reference, *flags), env=ENVIRONMENT)
    assert "without verdict: 0, requests refused: 1, " in done.stdout
    assert len(judge.asked) == 9
    (refused,) = read_jsonl(tmp_path / "out" / "refused.jsonl")
    assert words in refused["why"]
    assert result(tmp_path)["judged"] == 8
    shutil.rmtree(tmp_path / "out")
    with judge_that(well_from(99)) as judge:
        error = failed(*command(tmp_path, judge.url, model, reference, *flags))
    assert words in error
    assert error.startswith(f"{judge.url}: ")
    assert len(judge.asked) == 2


def test_a_judge_that_is_down_and_one_that_is_busy(tmp_path):
    """The package takes a judge that stays busy for a judge that said nothing."""
    model, reference = outputs(["xx"], "a"), outputs(["y"], "b")
    with judge_that(longer) as judge:
        pass
    error = failed(*command(tmp_path, judge.url, model, reference, "--max_retries", 2))
    assert error.startswith(f"{judge.url}: APIConnectionError: Connection error. ")

    def busy(*shown):
        if len(judge.asked) == 1:
            return 429, {"error": {"message": "rate limit"}}
        if len(judge.asked) == 2:
            return 503, ""
        return longer(*shown)

    with judge_that(busy) as judge:
        script = command(tmp_path, judge.url, model, reference, "--max_retries", 2)
        ran(*script, env=ENVIRONMENT)
    assert len(judge.asked) == 3
    assert result(tmp_path)["win_rate"] == 100


def test_a_kill_loses_nothing_but_what_is_under_way(tmp_path):
    """A third run asks nothing and writes the same bytes; then only a changed answer is judged."""
    model = outputs(["x" * i for i in range(60)], "a")
    reference = outputs(["yyyy"] * 60, "b")
    out = tmp_path / "out"
    files = [out / name for name in ("alpaca_eval.json", "annotations.json", "replies.jsonl")]

    def slow(*shown):
        time.sleep(0.01)
        return longer(*shown)

    with judge_that(slow) as judge:
        script = command(tmp_path, judge.url, model, reference, "--concurrency", 4)
        process = subprocess.Popen(
            [sys.executable, *map(str, script)],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
        )
        while len(judge.asked) < 30:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        ran(*script, env=ENVIRONMENT)
        assert result(tmp_path)["win_rate"] == 100 * 55.5 / 60
        assert len(set(judge.asked)) == 60
        requests = len(judge.asked)
        assert requests <= 64
        before = [file.read_bytes() for file in files]
        done = ran(*script, env=ENVIRONMENT)
        assert "0 requests, 60 known already" in done.stdout
        assert len(judge.asked) == requests
        assert [file.read_bytes() for file in files] == before
        assert len(list(out.iterdir())) == 3
        model[7]["output"] = "z"
        ran(*command(tmp_path, judge.url, model, reference), env=ENVIRONMENT)
        assert len(judge.asked) == requests + 1
        assert result(tmp_path)["win_rate"] == 100 * 54.5 / 60


# What is wrong before anything is asked


def test_answers_that_are_not_those_to_the_questions(tmp_path):
    model = outputs("abc", "a")
    reference = outputs("def", "b")
    duplicate = [*model, model[1]]
    mixed = [*model[:2], {**model[2], "generator": "c"}]
    numbers = outputs([1], "a")
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
        error = failed(*command(tmp_path, "http://127.0.0.1:1/v1", *lists))
        assert error == f"{tmp_path}/{reason}\n"
    assert not (tmp_path / "out").exists()


def test_flags_that_contradict_each_other(tmp_path):
    file = write(tmp_path / "model.json", outputs("a", "a"))
    for flags in ([], ["--annotations", file, "--model_outputs", file], ["--model_outputs", file]):
        done = run(SCRIPT, "--output_dir", tmp_path / "out", *flags, env=ENVIRONMENT)
        assert done.returncode == 2
        assert "--model_outputs" in done.stderr.splitlines()[-1]


# Judgements that are there already, and the length-controlled rate


def published(chances, lengths):
    """Annotations in the package's format, from the probabilities that the policy is better.

    None is a judgement without verdict.
    """
    rows = []
    for i, (chance, length) in enumerate(zip(chances, lengths, strict=True)):
        row = {
            "instruction": f"question {i}",
            "output_1": "r" * 100,
            "generator_1": "base",
            "output_2": "m" * length,
            "generator_2": "policy",
            "annotator": "gpt",
            "preference": None if chance is None else 1 + chance,
        }
        rows.append(row)
    return rows


def test_published_judgements(tmp_path):
    rows = published([0.25, 1.0, None, None, 0.5], [1, 2, 3, 4, 5])
    # The package writes -1 for no verdict; it once wrote 0 for a draw.
    rows[3]["preference"] = -1
    rows[4]["preference"] = 0
    rows[0]["preference_date"] = "2024-02-03T04:05:06"
    flags = ["--annotations", write(tmp_path / "a.json", rows), "--output_dir", tmp_path / "out"]
    done = ran(SCRIPT, *flags, env=ENVIRONMENT)
    summary = result(tmp_path)
    assert summary["win_rate"] == pytest.approx(100 * 1.75 / 3, abs=1e-9)
    assert summary["avg_length"] == 3
    assert (summary["judge"], summary["date"]) == ("gpt", "2024-02-03")
    assert (summary["judged"], summary["rows"]) == (3, 5)
    assert "rows in: 5, judged: 3, without verdict: 2, " in done.stdout
    reference = write(tmp_path / "reference.json", outputs(["r"] * 6, "base"))
    (tmp_path / "out" / "alpaca_eval.json").unlink()
    error = failed(SCRIPT, *flags, "--reference_outputs", reference)
    assert error == f"{tmp_path}/a.json: 1 of 6 questions have no answer, such as 'question 5'\n"
    rows[1]["preference"] = 2.5
    write(tmp_path / "a.json", rows)
    error = failed(SCRIPT, *flags)
    assert error == f"{tmp_path}/a.json:2: preference: 2.5 is not between 1 and 2\n"


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A folder with 805 judgements of a policy that wins where it is long, and a df_gamed.csv.

    The script in it is a copy that takes these questions for the official ones, which this
    repository does not hold.
    """
    import hashlib

    import pandas

    folder = tmp_path_factory.mktemp("official")
    rng = random.Random(1)
    lengths = [rng.randint(50, 400) for _ in range(805)]
    chances = [min(1.0, max(0.0, length / 400 + rng.gauss(0, 0.1))) for length in lengths]
    rows = published(chances, lengths)
    write(folder / "a.json", rows)
    gamed = []
    for name, side in (("concise", 1), ("verbose", -1)):
        for i in range(805):
            row = {
                "index": i,
                "model": name,
                "std_delta_len": side * rng.uniform(0.5, 1.5),
                "preference": rng.uniform(0, 1),
                "instruction_difficulty": i / 805,
                "not_gamed_baseline": False,
            }
            gamed.append(row)
    pandas.DataFrame(gamed).to_csv(folder / "df_gamed.csv", index=False)
    shutil.copytree(ROOT / "eval", folder / "eval")
    script = folder / "eval" / "2a_alpaca_eval.py"
    questions = json.dumps([row["instruction"] for row in rows]).encode()
    digest = hashlib.sha256(questions).hexdigest()
    text, n = re.subn(r'(?<=^OFFICIAL = ")\w+', digest, script.read_text(), flags=re.M)
    assert n == 1
    script.write_text(text)
    return folder


def test_the_length_controlled_rate_is_the_package_s(official, tmp_path, monkeypatch):
    import pandas
    from alpaca_eval.metrics import glm_winrate

    flags = ["--annotations", official / "a.json", "--gamed_file", official / "df_gamed.csv"]
    flags += ["--output_dir", tmp_path / "out"]
    done = ran(official / "eval" / "2a_alpaca_eval.py", *flags, env=ENVIRONMENT)
    summary = result(tmp_path)
    monkeypatch.setattr(glm_winrate, "hf_hub_download", lambda **_: official / "df_gamed.csv")
    rows = pandas.read_json(official / "a.json")
    of_package = glm_winrate.get_length_controlled_winrate(rows, save_weights_dir=None)
    for name in ("length_controlled_winrate", "lc_standard_error"):
        assert summary[name] == pytest.approx(of_package[name], abs=1e-6)
    assert summary["win_rate"] == pytest.approx(100 * (rows["preference"].mean() - 1), abs=1e-6)
    # Otherwise this test would show nothing.
    assert abs(summary["length_controlled_winrate"] - summary["win_rate"]) > 1
    assert f"| {summary['length_controlled_winrate']:.2f} | " in done.stdout
    assert summary["no_length_controlled_winrate"] is None
    assert done.stderr == ""


def test_without_its_file_there_is_no_length_controlled_rate(official, tmp_path):
    script = [official / "eval" / "2a_alpaca_eval.py", "--annotations", official / "a.json"]
    script += ["--output_dir", tmp_path / "out"]
    bad = tmp_path / "bad.csv"
    bad.write_text("index,model\n0,a\n")
    absent = tmp_path / "absent.csv"
    for file, reason in ((bad, "not AlpacaEval's df_gamed.csv"), (absent, "No such file")):
        error = failed(*script, "--gamed_file", file)
        assert error.startswith(f"{file}: ")
        assert reason in error
    done = ran(*script, env=ENVIRONMENT | {"HF_HOME": str(tmp_path / "empty")})
    summary = result(tmp_path)
    assert summary["length_controlled_winrate"] is None
    assert summary["lc_standard_error"] is None
    reason = summary["no_length_controlled_winrate"]
    assert reason.startswith("df_gamed.csv is missing; ")
    assert "hf download tatsu-lab/alpaca_eval df_gamed.csv" in reason
    assert f"no length-controlled win rate: {reason}\n" in done.stdout
    assert "| - |" in done.stdout


def test_other_questions_have_no_length_controlled_rate(official, tmp_path):
    """Nor do the official questions in another order, whatever --gamed_file is."""
    rows = json.loads((official / "a.json").read_text())
    flags = ["--annotations", write(tmp_path / "a.json", [rows[1], rows[0], *rows[2:]])]
    flags += ["--gamed_file", official / "df_gamed.csv", "--output_dir", tmp_path / "out"]
    done = ran(official / "eval" / "2a_alpaca_eval.py", *flags, env=ENVIRONMENT)
    reason = "needs the 805 official questions in their order, which these 805 are not"
    assert f"no length-controlled win rate: {reason}\n" in done.stdout
    assert result(tmp_path)["length_controlled_winrate"] is None


def test_the_leaderboard_s_win_rate(tmp_path):
    """ALPACA_EVAL_DATA: a folder with the official results and answers named below."""
    data = os.environ.get("ALPACA_EVAL_DATA")
    if not data:
        pytest.skip("ALPACA_EVAL_DATA names no folder of official results")
    flags = ["--annotations", f"{data}/gemma-7b-it.annotations.json"]
    flags += ["--reference_outputs", f"{data}/gpt4_1106_preview.json"]
    ran(SCRIPT, *flags, "--output_dir", tmp_path / "out", env=ENVIRONMENT)
    summary = result(tmp_path)
    assert summary["win_rate"] == pytest.approx(6.937294379677018, abs=1e-9)
    assert summary["avg_length"] == 1115
    # The questions are in the official order.
    assert summary["no_length_controlled_winrate"].startswith("df_gamed.csv is missing")
