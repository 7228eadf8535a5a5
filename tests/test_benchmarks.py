"""speed/training_speed.py: what it says without a GPU, and real trainings beside a scripted nvidia-smi."""

import json
import os

import pytest

from commands import ran, run

TINY = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128,
    "num_attention_heads": 4, "vocab_size": 1100, "max_position_embeddings": 256,
}  # fmt: skip


def cells(printed):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in printed.splitlines()
        if "| " in line
    ][2:]


def test_without_a_gpu_every_row_says_not_run(tmp_path):
    rows = cells(
        ran("speed/training_speed.py", "--directory", tmp_path / "out", env={"PATH": ""}).stdout
    )
    named = [(model, stage, trained) for model, stage, trained, *_ in rows]
    assert named == [
        (model, stage, trained)
        for model in ("llama3_8b", "llama3.2_1b")
        for stage in ("sft", "reward_model", "dpo")
        for trained in ("full", "LoRA 32")
    ]
    assert {row[4] for row in rows} == {"not run"} and not (tmp_path / "out").exists()
    by_hand = ran(
        *"preflight/budget.py --stage dpo --gpus 1 --distributed ddp --gib 999 --lora_rank 32".split()
    ).stdout
    assert rows[5][3] == by_hand.splitlines()[-1].split()[1]


def test_a_model_that_is_not_known_is_refused(tmp_path):
    done = run("speed/training_speed.py", "--directory", tmp_path, "--models", "llama3_9b")
    assert done.returncode == 2 and "--models llama3_9b: none of llama3_8b, " in done.stderr


@pytest.mark.parametrize("total", [4, 81920])
def test_the_trainings_are_run_where_the_budget_fits(tmp_path, total):
    """On the CPU, with a GPU's memory that grows by a GiB while a training runs."""
    tiny, out, tools = tmp_path / "tiny", tmp_path / "out", tmp_path / "tools"
    tiny.mkdir()
    tools.mkdir()
    (tiny / "config.json").write_text(json.dumps(TINY))
    used = f"[[ -e {out}/trained.jsonl ]] && ls {out} | grep -q partial && echo 1536 || echo 512"
    (tools / "nvidia-smi").write_text(
        f"#!/bin/bash\n[[ $* == *total* ]] && echo {total} && exit\n{used}\n"
    )
    (tools / "nvidia-smi").chmod(0o755)
    command = [
        "speed/training_speed.py",
        "--directory",
        out,
        "--models",
        tiny,
        "--sequence",
        64,
        "--steps",
        5,
    ]
    command += ["--stages", "dpo"]
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    done = ran(*command, "--flags", "--use_cpu True --dataloader_pin_memory False", env=environment)
    rows = cells(done.stdout)
    assert [row[2] for row in rows] == ["full", "LoRA 32"]
    if total == 4:
        assert {row[4] for row in rows} == {"does not fit"}
        return
    for name, stage, _, _, taken, seconds, tokens, flops, mfu in rows:
        assert (name, stage, taken) == (str(tiny), "dpo", "1.0")
        assert float(tokens) == pytest.approx(2 * 2 * 64 / float(seconds), rel=0.5)
        assert float(flops) >= 0 and mfu.endswith("%")
    assert not list(out.glob("*tiny")) and not (out / "trained").exists()
