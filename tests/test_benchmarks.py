"""speed/training_speed.py: its table without a GPU; trainings with a scripted nvidia-smi."""

import itertools
import json
import os

import pytest

from commands import ran, run

TINY = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "vocab_size": 1100,
    "max_position_embeddings": 256,
}


def cells(printed):
    """The rows of the printed table, without its head."""
    rows = []
    for line in printed.splitlines():
        if "| " in line:
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows[2:]


def test_without_a_gpu_every_row_says_not_run(tmp_path):
    out = tmp_path / "out"
    done = ran("speed/training_speed.py", "--directory", out, env={"PATH": ""})
    rows = cells(done.stdout)
    models = ("llama3_8b", "llama3.2_1b")
    stages = ("sft", "reward_model", "dpo")
    weights = ("full", "LoRA 32")
    assert [tuple(row[:3]) for row in rows] == [*itertools.product(models, stages, weights)]
    assert {row[4] for row in rows} == {"not run"}
    assert not out.exists()
    flags = "--stage dpo --gpus 1 --distributed ddp --gib 999 --lora_rank 32".split()
    budget = ran("preflight/budget.py", *flags).stdout
    assert rows[5][3] == budget.splitlines()[-1].split()[1]


def test_a_model_that_is_not_known_is_refused(tmp_path):
    done = run("speed/training_speed.py", "--directory", tmp_path, "--models", "llama3_9b")
    assert done.returncode == 2
    assert "--models llama3_9b: none of llama3_8b, " in done.stderr


@pytest.mark.parametrize("total", [4, 81920])
def test_the_trainings_are_run_where_the_budget_fits(tmp_path, total):
    """On the CPU, with a scripted GPU whose used memory grows by a GiB while a training runs."""
    tiny = tmp_path / "tiny"
    out = tmp_path / "out"
    tools = tmp_path / "tools"
    tiny.mkdir()
    tools.mkdir()
    (tiny / "config.json").write_text(json.dumps(TINY))
    used = f"[[ -e {out}/trained.jsonl ]] && ls {out} | grep -q partial && echo 1536 || echo 512"
    nvidia_smi = tools / "nvidia-smi"
    nvidia_smi.write_text(f"#!/bin/bash\n[[ $* == *total* ]] && echo {total} && exit\n{used}\n")
    nvidia_smi.chmod(0o755)
    flags = ["--directory", out, "--models", tiny, "--stages", "dpo", "--sequence", 64]
    flags += ["--steps", 5, "--flags", "--use_cpu True --dataloader_pin_memory False"]
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    done = ran("speed/training_speed.py", *flags, env=environment)
    rows = cells(done.stdout)
    assert [row[2] for row in rows] == ["full", "LoRA 32"]
    if total == 4:
        assert {row[4] for row in rows} == {"does not fit"}
        return
    for name, stage, _, _, used_gib, seconds, tokens, flops, mfu in rows:
        assert (name, stage, used_gib) == (str(tiny), "dpo", "1.0")
        assert float(tokens) == pytest.approx(2 * 2 * 64 / float(seconds), rel=0.5)
        assert float(flops) >= 0
        assert mfu.endswith("%")
    assert not list(out.glob("*tiny"))
    assert not (out / "trained").exists()
