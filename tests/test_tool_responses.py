"""Trajectories: turns of a policy, and what its programs print in the sandbox between them."""

import importlib
import json
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from commands import ROOT, ran, read_jsonl, run, write_jsonl
from common import chats, models, trajectories
from test_chats import made_tokenizer, tokenizer_of

pytestmark = pytest.mark.usefixtures("usable_sandbox")
SCRIPT = "generation/2c_tool_responses.py"
TEMPLATE = """\
{# <|python_tag|> #}{% if tools %}<|im_start|>tools
{% for tool in tools %}{{ tool.function.name }}: {{ tool.function.description }}
{% endfor %}<|im_end|>
{% endif %}{% for turn in messages %}<|im_start|>{{ turn.role }}
{{ turn.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
TOOL = {
    "type": "function",
    "function": {
        "name": "python",
        "description": "Run a Python program. What it prints is returned, errors included. It sees "
        "what earlier programs have defined.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "the program"}},
            "required": ["code"],
        },
    },
}


def said(content):
    return {"role": "assistant", "content": content}


def block(program):
    return f"```python\n{program}\n```"


def printed(content, **name):
    return {"role": "tool", "content": content, **name}


FENCED = [
    said(f"I add.\n{block('x = 3 + 4')}"),
    printed(""),
    said(block("print(x)\nx * 2")),
    printed("7\n14"),
    said("It is 14."),
]
TAGGED = '<|python_tag|>{"name": "python", "parameters": {"code": "print(3 + 4)"}}'
NATIVE = [said(TAGGED), printed("7", name="python"), said("It is 7.")]
QUESTION = {"role": "user", "content": "What is twice 3 + 4?"}


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A tiny policy that has learned FENCED by heart, and NATIVE where it has tools."""
    path = tmp_path_factory.mktemp("policy") / "model"
    tokenizer = made_tokenizer(TEMPLATE, str(path))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|python_tag|>"]})
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    end = chats.turn_end(tokenizer)
    batches = []
    for response, tools in ((FENCED, None), (NATIVE, [TOOL])):
        messages = [QUESTION, *trajectories.for_template(response)]
        conversation = chats.conversation(tokenizer, end, messages, "FILE:1", tools)
        ids = torch.tensor([conversation.input_ids])
        batches.append({"input_ids": ids, "labels": torch.tensor([conversation.labels])})
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0)
    for _ in range(60):
        for batch in batches:
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def asked(name, **other):
    return {"id": name, "prompt": [{"role": "user", "content": name}], **other}


def command(policy, prompts, *flags):
    words = [SCRIPT, "--model_name_or_path", policy, "--prompts_file", prompts]
    return [*words, "--run_generated_code", *flags]


def scripted(tmp_path, policy, turns, *flags, n=1):
    """(rows by id, standard output) of a policy that says these turns, {question: [turns]}."""
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [asked(name) for name in turns])
    words = command(policy, prompts, "--output_file", tmp_path / "out.jsonl", *flags)
    done = ran("tests/scripted_policy.py", turns_file(tmp_path, turns), *words, "--n", n)
    rows = {row["id"]: row for row in read_jsonl(tmp_path / "out.jsonl")}
    assert list(rows) == list(turns)
    assert "Traceback" not in done.stderr
    return rows, done.stdout


def turns_file(tmp_path, turns, name="turns.json"):
    path = tmp_path / name
    path.write_text(json.dumps(turns))
    return path


# With vLLM


def sampled(tmp_path, policy, *flags):
    """(the row of QUESTION, standard output)"""
    row = {"id": "a", "prompt": [QUESTION], "answer": "14"}
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [row])
    words = ["--n", 2, "--temperatures", 0, 0.01, "--max_new_tokens", 100]
    words += ["--output_file", tmp_path / "out.jsonl", *flags]
    done = ran(*command(policy, prompts, *words))
    (row,) = read_jsonl(tmp_path / "out.jsonl")
    return row, done.stdout


def tokens_of(tokenizer, messages):
    """Of the assistant's turns and of what ends them."""
    turns = [turn["content"] for turn in messages if turn["role"] == "assistant"]
    return sum(len(tokenizer(turn)["input_ids"]) + 1 for turn in turns)


def test_a_policy_runs_programs_until_its_answer(tmp_path, policy):
    row, stdout = sampled(tmp_path, policy)
    tokenizer = made_tokenizer(TEMPLATE)
    assert row == {
        "id": "a",
        "prompt": [QUESTION],
        "answer": "14",
        "responses": [FENCED, FENCED],
        "temperatures": [0, 0.01],
        "finish_reasons": ["stop", "stop"],
        "end_tokens": ["<|im_end|>"] * 2,
        "response_tokens": [tokens_of(tokenizer, FENCED)] * 2,
        "programs": [2, 2],
        "failed_programs": [0, 0],
        "prompt_tokens": row["prompt_tokens"],
        "policy": str(policy),
    }
    text = chats.prompt_text(tokenizer, [QUESTION], "FILE:1")
    assert row["prompt_tokens"] == len(tokenizer(text)["input_ids"])
    counts = "rows in: 1, finished before: 0, dropped, too long: 0, rows out: 1, "
    counts += "truncated trajectories: 0, at --max_turns: 0, programs: 4, failed: 0, generation "
    assert counts in stdout


def test_a_policy_calls_the_tool_of_its_template(tmp_path, policy):
    """Its mark of a call is a special token, which texts are sampled without otherwise."""
    row, _ = sampled(
        tmp_path, policy, "--tool_format", "native", "--tool_call_parser", "llama3_json"
    )
    assert row["responses"] == [NATIVE, NATIVE]
    assert row["tools"] == [TOOL]
    assert row["programs"] == [1, 1]


# With a policy that is told what to say


def ended(*messages, reason="stop", failed=0, end="<|im_end|>"):
    """What a row of one trajectory holds."""
    programs = sum(message["role"] == "tool" for message in messages)
    return {
        "responses": [list(messages)],
        "finish_reasons": [reason],
        "end_tokens": [end],
        "programs": [programs],
        "failed_programs": [failed],
    }


SEVEN = block("print(3 + 4)")
SHOWN = "I see: {last}"
SEEN = said("I see: ~~~output\n7\n~~~")
TWO_BLOCKS = f"{block('print(1)')}\nor\n{block('print(7)')}"
THOUGHT = f"<think>\n{SEVEN}\n"
CUT = ["x" * 500]
NO_LINE = "print(1) ```output"
# {question: (the policy's turns, what the row holds)}
READ = {
    "an answer": (["It is 7."], ended(said("It is 7."))),
    "a program": ([SEVEN, SHOWN], ended(said(SEVEN), printed("7"), SEEN)),
    "blanks after it": ([f"{SEVEN} \n\n", SHOWN], ended(said(f"{SEVEN} \n\n"), printed("7"), SEEN)),
    "the last of two": ([TWO_BLOCKS, SHOWN], ended(said(TWO_BLOCKS), printed("7"), SEEN)),
    "goes on": (
        [f"{SEVEN}\n```output\n8\n```\nIt is 8.", SHOWN],
        ended(said(f"{SEVEN}\n"), printed("7"), SEEN),
    ),
    "goes on after words": (
        [f"{SEVEN}\nIt prints:\n```output\n8", SHOWN],
        ended(said(f"{SEVEN}\nIt prints:\n"), printed("7"), SEEN),
    ),
    "goes on in the block": ([f"{SEVEN}output\n8", SHOWN], ended(said(SEVEN), printed("7"), SEEN)),
    "an output without a program": (
        ["So:\n```output\n8"],
        ended(said("So:\n"), reason="length", end=""),
    ),
    "no block": ([NO_LINE], ended(said("print(1) "), reason="length", end="")),
    "an output in a thought": (
        [f"{THOUGHT}```output\n7\n```"],
        ended(said(THOUGHT), reason="length", end=""),
    ),
    "an answer after it": ([f"{SEVEN}\nIt is 7."], ended(said(f"{SEVEN}\nIt is 7."))),
    "another language": (["```bash\nls\n```"], ended(said("```bash\nls\n```"))),
    "not closed": (["```python\nprint(7)"], ended(said("```python\nprint(7)"))),
    "a thought": ([THOUGHT], ended(said(THOUGHT))),
    "after a thought": (
        [f"{THOUGHT}</think>\n{SEVEN}", SHOWN],
        ended(said(f"{THOUGHT}</think>\n{SEVEN}"), printed("7"), SEEN),
    ),
    "nothing": ([""], ended(said(""))),
}


def test_a_turn_that_ends_with_a_program_calls_it(tmp_path, policy):
    turns = {question: turns for question, (turns, _) in READ.items()}
    rows, _ = scripted(tmp_path, policy, turns, "--temperatures", 1, "--max_new_tokens", 100)
    for question, (_, expected) in READ.items():
        assert {key: rows[question][key] for key in expected} == expected, question


def test_a_program_sees_what_earlier_ones_defined(tmp_path, policy):
    """But not a program that failed. Outputs are shown once, a long one by its head and tail."""
    turns = {
        "defined": [block("x = 7\nprint(x)"), block("import os\nos.system('echo x')\nx * 2"), "."],
        "failed": [block("y = 7\nprint(1)\ny / 0"), block("y"), "."],
        "fails later": [block("def f(z): return 1 / z"), block("f(0)"), block("f(1)"), "."],
        "ended": [block("a = 7\nquit()"), block("a"), "."],
        "no Python": [block("x = ("), "."],
        "long": [block("print('a' * 300 + '!')"), "."],
        "flood": [block("print('a' * 10**6)"), "."],
    }
    flags = ["--temperatures", 1, "--max_new_tokens", 100, "--max_output_characters", 200]
    rows, stdout = scripted(tmp_path, policy, turns, *flags)
    outputs = {}
    for question, row in rows.items():
        (response,) = row["responses"]
        outputs[question] = [turn["content"] for turn in response if turn["role"] == "tool"]
    assert outputs["defined"] == ["7", "x\n14"]
    first, second = outputs["failed"]
    head = 'Traceback (most recent call last):\n  File "main.py", line 3, in <module>\n    y / 0\n'
    assert first.startswith(f"1\n{head}")
    assert first.endswith("\nZeroDivisionError: division by zero")
    assert second.endswith("\nNameError: name 'y' is not defined")
    assert outputs["fails later"][1].endswith("ZeroDivisionError: division by zero")
    assert outputs["fails later"][2] == "1.0"
    assert outputs["ended"] == ["", "7"]
    assert outputs["no Python"][0].endswith("SyntaxError: '(' was never closed")
    assert outputs["long"] == [f"{'a' * 100}\n[101 characters left out]\n{'a' * 99}!"]
    assert outputs["flood"][0].endswith("\n[stopped by the limit: output]")
    failed = {question: row["failed_programs"] for question, row in rows.items()}
    assert failed == {
        "defined": [0],
        "failed": [2],
        "fails later": [1],
        "ended": [0],
        "no Python": [1],
        "long": [0],
        "flood": [1],
    }
    assert "programs: 12, failed: 5, " in stdout


def test_a_trajectory_ends_with_a_turn_of_the_assistant(tmp_path, policy):
    """Whether its turns, its context or the tokens of a turn are used up; each is counted."""
    turns = {
        "no end": [SEVEN],
        "cut off": [SEVEN, "x" * 200],
        "full context": [block("'\\u4e16' * 150"), "Done."],
    }
    limits = ["--max_turns", 3, "--max_new_tokens", 50, "--max_model_len", 400]
    rows, stdout = scripted(tmp_path, policy, turns, *limits, "--temperatures", 1)
    (no_end,) = rows["no end"]["responses"]
    assert no_end == [said(SEVEN), printed("7"), said(SEVEN), printed("7"), said(SEVEN)]
    (cut_off,) = rows["cut off"]["responses"]
    assert cut_off[:2] == [said(SEVEN), printed("7")]
    assert set(cut_off[2]["content"]) == {"x"}
    (full_context,) = rows["full context"]["responses"]
    assert full_context == [said(turns["full context"][0])]
    found = {}
    for question, row in rows.items():
        found[question] = (row["finish_reasons"], row["end_tokens"], row["programs"])
    assert found == {
        "no end": (["turns"], ["<|im_end|>"], [2]),
        "cut off": (["length"], [""], [1]),
        "full context": (["length"], [""], [1]),
    }
    assert "truncated trajectories: 2, at --max_turns: 1, programs: 4, failed: 0" in stdout
    message = "2 of 3 responses are cut off at --max_new_tokens 50 a turn, or by a full context: "
    assert message in stdout


def test_rows_depend_neither_on_shards_nor_on_an_interrupted_run(tmp_path, policy):
    """Every turn of every trajectory has a seed of its own."""
    turns = {f"{i}": [block("print({seed})"), "{seed} at {temperature}"] for i in range(5)}
    flags = ["--temperatures", 1, 0.5, "--max_new_tokens", 100]
    rows, _ = scripted(tmp_path, policy, turns, *flags, n=4)
    whole = list(rows.values())
    seeds = []
    for row in whole:
        assert row["temperatures"] == [1, 1, 0.5, 0.5]
        for (_, output, answer), temperature in zip(
            row["responses"], row["temperatures"], strict=True
        ):
            seed, _, shown = answer["content"].partition(" at ")
            assert float(shown) == temperature
            seeds += [output["content"], seed]
    assert len(set(seeds)) == len(seeds) == 40

    prompts = tmp_path / "prompts.jsonl"
    out = tmp_path / "shards.jsonl"
    file = turns_file(tmp_path, turns)
    shares = [*command(policy, prompts, *flags), "--n", 4, "--chunk_size", 1, "--num_shards", 2]
    first = [*shares, "--shard", 0, "--output_file", f"{out}.0-of-2"]
    lost = turns_file(tmp_path, turns | {"4": [block("'LOST'")]}, "lost.json")
    done = run("tests/scripted_policy.py", lost, *first)
    assert done.returncode == 1
    message = "--run_generated_code: the sandbox has ended"
    assert done.stderr.startswith(message) and len(done.stderr.splitlines()) == 1, done.stderr
    done = ran("tests/scripted_policy.py", file, *first)
    assert "rows in: 3, finished before: 2, " in done.stdout
    assert "programs: 12, failed: 0, " in done.stdout
    second = [*shares, "--shard", 1, "--output_file", f"{out}.1-of-2"]
    ran("tests/scripted_policy.py", file, *second)
    ran("common/shards.py", prompts, out, 2)
    assert read_jsonl(out) == whole


def called(code, name="python"):
    call = json.dumps({"name": name, "arguments": code})
    return f"<tool_call>\n{call}\n</tool_call>"


def test_calls_in_the_format_of_the_template(tmp_path, policy):
    """A call that is not one of our tool is answered by what is wrong with it."""
    good = called({"code": "x = 7\nprint(x)"})
    broken = '<tool_call>\n{"name": "python", "argum'
    turns = {
        "one": [f"I add. {good}", "I see: {last}"],
        "two": [f"{good}\n{called({'code': 'x * 2'})}", "Done."],
        "thought": [f"<think>{good}</think>It is 7."],
        "broken": [broken],
        "fenced": [SEVEN],
        "another tool": [called({"q": "7"}, "search"), "Done."],
        "no code": [called({"program": "7"}), "Done."],
        "no text": [called({"code": 7}), called(["7"]), "Done."],
    }
    flags = ["--tool_format", "native", "--tool_call_parser", "hermes"]
    flags += ["--temperatures", 1, "--max_new_tokens", 200]
    rows, stdout = scripted(tmp_path, policy, turns, *flags)
    seven = printed("7", name="python")
    wrong = printed('Error: python takes one argument, the text "code"', name="python")
    unknown = "Error: there is no tool 'search'; the only tool is python"
    done = said("Done.")
    expected = {
        "one": [said(turns["one"][0]), seven, said("I see: 7")],
        "two": [said(turns["two"][0]), seven, printed("14", name="python"), done],
        "thought": [said(turns["thought"][0])],
        "broken": [said(broken)],
        "fenced": [said(SEVEN)],
        "another tool": [said(turns["another tool"][0]), printed(unknown, name="python"), done],
        "no code": [said(turns["no code"][0]), wrong, done],
        "no text": [said(turns["no text"][0]), wrong, said(turns["no text"][1]), wrong, done],
    }
    assert {question: row["responses"] for question, row in rows.items()} == {
        question: [response] for question, response in expected.items()
    }
    assert "programs: 7, failed: 4, " in stdout


# What is refused


def refused(policy, prompts, *flags, allowed=True):
    """The one line in which the script ends."""
    words = command(policy, prompts, *flags)
    if not allowed:
        words.remove("--run_generated_code")
    out = prompts.with_name("out.jsonl")
    done = run(*words, "--output_file", out)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not out.exists()
    return done.stderr


def test_what_cannot_be_sampled_is_refused_in_one_line(tmp_path, policy):
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [asked("a")])
    line = refused(policy, prompts, allowed=False)
    assert "--run_generated_code: programs that the policy wrote run only with it" in line
    native = ["--tool_format", "native"]
    needed = "--tool_call_parser: needed with --tool_format native, and only there"
    assert needed in refused(policy, prompts, *native)
    assert needed in refused(policy, prompts, "--tool_call_parser", "hermes")
    line = refused(policy, prompts, *native, "--tool_call_parser", "none")
    assert line.startswith("--tool_call_parser: none: not one of vLLM's: ")
    line = refused(policy, prompts, *native, "--tool_call_parser", "mistral")
    assert line.startswith("--tool_call_parser: mistral: ")

    with_tools = write_jsonl(tmp_path / "tools.jsonl", [asked("a", tools=[{"type": "function"}])])
    reason = f"{with_tools}:1: tools: the only tool here is python, of --tool_format native\n"
    assert refused(policy, with_tools) == reason


def test_which_templates_write_which_format(monkeypatch):
    """Every template that takes turns in turn writes outputs of fenced programs."""
    monkeypatch.syspath_prepend(ROOT / "generation")
    tool_calls = importlib.import_module("tool_calls")
    fenced = tool_calls.Fenced()
    # Without its parser, which is vLLM's.
    native = SimpleNamespace(tools=[TOOL], answer=lambda output: printed(output, name="python"))
    with_tools = ["qwen2_5", "qwen3", "llama3_1", "lfm2"]
    for name in [*with_tools, "llama3", "gemma", "gemma3", "phi3", "mistral_like"]:
        tokenizer = tokenizer_of(name)
        tool_calls.check_template(tokenizer, fenced, [QUESTION], "FILE:1")
        if name in with_tools:
            tool_calls.check_template(tokenizer, native, [QUESTION], "FILE:1")
            continue
        with pytest.raises(SystemExit) as end:
            tool_calls.check_template(tokenizer, native, [QUESTION], "FILE:1")
        assert re.search(rf"{name} refuses it|{name}: its chat template leaves out", str(end.value))


def test_a_template_that_changes_a_prompt_is_refused(monkeypatch):
    """The thought that R1's prompt opens is gone once a turn follows; so is Qwen3's empty one."""
    monkeypatch.syspath_prepend(ROOT / "generation")
    tool_calls = importlib.import_module("tool_calls")
    without_thoughts = tokenizer_of("qwen3")
    models.set_template_arguments(without_thoughts, '{"enable_thinking": false}')
    for tokenizer in (tokenizer_of("r1_like"), without_thoughts):
        with pytest.raises(SystemExit) as end:
            tool_calls.check_template(tokenizer, tool_calls.Fenced(), [QUESTION], "FILE:1")
        reason = "its chat template writes a prompt otherwise once turns follow it"
        assert str(end.value) == f"{tokenizer.name_or_path}: {reason}"


def test_a_template_that_leaves_out_tools_is_refused(tmp_path, policy):
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [asked("a")])
    native = ["--tool_format", "native", "--tool_call_parser", "hermes"]
    model = shutil.copytree(policy, tmp_path / "model")
    template = model / "chat_template.jinja"
    template.write_text(TEMPLATE.replace("{% if tools %}", "{% if false %}"))
    reason = "its chat template leaves out the tools: use --tool_format fenced"
    assert refused(model, prompts, *native) == f"{model}: {reason}\n"
    template.write_text(TEMPLATE.replace("{{ turn.content }}", "{{ messages[0].content }}"))
    line = refused(model, prompts)
    assert line == f"{model}: its chat template leaves out the output of a tool\n"
