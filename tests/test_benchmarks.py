"""speed/training_speed.py: its table with and without a GPU, and a small model on the CPU."""

import itertools
import json
import os
import random
import runpy
from statistics import fmean

import pytest

from commands import ROOT, ran, run, write_jsonl


def cells(printed):
    """The rows of the printed table, without its head."""
    rows = []
    for line in printed.splitlines():
        if "| " in line:
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows[2:]


def test_without_a_gpu_large_models_are_not_run():
    done = ran("speed/training_speed.py", env={"PATH": ""})
    rows = cells(done.stdout)
    models = ("llama3_8b", "llama3.2_1b")
    stages = ("sft", "reward_model", "dpo")
    weights = ("full", "LoRA 32")
    assert [tuple(row[:3]) for row in rows] == [*itertools.product(models, stages, weights)]
    assert {row[4] for row in rows} == {"not run"}
    flags = "--stage dpo --gpus 1 --distributed ddp --gib 999 --lora_rank 32 --batch 4".split()
    budget = ran("preflight/budget.py", *flags).stdout
    assert rows[5][-1] == budget.splitlines()[-1].split()[1]


def test_what_does_not_fit_on_the_gpu_is_not_run(tmp_path):
    nvidia_smi = tmp_path / "nvidia-smi"
    nvidia_smi.write_text("#!/bin/bash\necho 1024\n")
    nvidia_smi.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = ran("speed/training_speed.py", "--models", "llama3.2_1b", env=environment)
    assert {row[4] for row in cells(done.stdout)} == {"does not fit"}


@pytest.mark.parametrize(
    "flags, reason",
    [
        (["--models", "llama3_9b"], "--models llama3_9b: none of tiny, "),
        (["--steps", 4], "--steps 4: the first 3 warm up"),
        (["--pairs_file", "pairs.jsonl"], "--pairs_file and --tokenizer: give both or none"),
    ],
)
def test_wrong_arguments_are_refused(flags, reason):
    done = run("speed/training_speed.py", *flags)
    assert done.returncode == 2
    assert reason in done.stderr


def test_a_small_model_is_trained_in_three_ways(sft, tmp_path):
    """With the lengths of a file of pairs."""
    pair = {"id": "0", "prompt": [{"role": "user", "content": "Sort these: dog, cat."}]}
    pair["chosen"] = [{"role": "assistant", "content": "cat, dog"}]
    pair["rejected"] = [{"role": "assistant", "content": "dog, cat, that is all"}]
    file = write_jsonl(tmp_path / "pairs.jsonl", [pair])
    flags = "--models tiny --stages dpo --trained full --batch 2 --steps 5".split()
    done = ran("speed/training_speed.py", *flags, "--pairs_file", file, "--tokenizer", sft)
    rows = cells(done.stdout)
    assert [row[3] for row in rows] == ["TRL", "padded", "packed"]
    # Two pairs, of 11 tokens or so each side.
    of_trl = float(rows[0][5])
    for _, _, _, _, seconds, rate, ratio, mfu, gib, _ in rows:
        assert 20 < float(rate) * float(seconds) < 500
        assert float(ratio) == pytest.approx(float(rate) / of_trl, rel=0.1)
        assert mfu == "-"
        assert float(gib) > 0.3


def test_the_rows_have_the_tokens_that_are_counted(tmp_path):
    """By the chat template and tokenizer of the benchmark's models."""
    script = runpy.run_path(str(ROOT / "speed/training_speed.py"))
    lengths = [(5, 3, 2), (40, 10, 30)]
    file = tmp_path / "rows.jsonl"
    script["write_rows"](file, "dpo", lengths, random.Random(0))
    tokenizer = script["word_tokenizer"]()
    tokens = []
    for line in file.read_text().splitlines():
        row = json.loads(line)
        for side in ("chosen", "rejected"):
            chat = row["prompt"] + row[side]
            ids = tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]
            tokens.append(min(len(ids), 50))
    assert script["mean_length"]("dpo", lengths, 50) == (fmean(tokens), sum(tokens) / 2)
