"""Rows that a launcher's processes share, and shards that are joined or refused."""

import os
import subprocess
import sys

import pytest

from commands import ROOT, ran, read_jsonl, run, write_jsonl
from common import rows


def shares(folder, names, *ids_by_shard):
    """(file of rows with these ids, name of the joined file); each shard kept some of the ids."""
    order = write_jsonl(folder / "in.jsonl", [{"id": name} for name in names])
    for i, ids in enumerate(ids_by_shard):
        shard = folder / f"out.jsonl.{i}-of-{len(ids_by_shard)}"
        rows.write(shard, [{"id": name, "shard": i} for name in ids])
    return order, folder / "out.jsonl"


@pytest.mark.parametrize("count", [2, 3])
def test_shards_that_do_not_divide_lose_no_row_and_keep_the_order(tmp_path, count):
    """Defect 4: shards of equal size lost the last rows, and the merge shuffled."""
    names = list("3062514")
    order, out = shares(tmp_path, names, *(names[i::count] for i in range(count)))
    ran("common/shards.py", order, out, count)
    expected = [{"id": name, "shard": i % count} for i, name in enumerate(names)]
    assert read_jsonl(out) == expected


def test_a_row_that_a_shard_dropped_stays_dropped_and_a_shard_may_be_empty(tmp_path):
    order, out = shares(tmp_path, "abcde", "d", "be", "")
    ran("common/shards.py", order, out, 3)
    assert read_jsonl(out) == [
        {"id": "b", "shard": 1},
        {"id": "d", "shard": 0},
        {"id": "e", "shard": 1},
    ]


def lost(part):
    part.unlink()
    return "No such file or directory"


def cut_between_rows(part):
    """As after a copy that stopped, or on a file system that shows a file late."""
    part.write_bytes(part.read_bytes().splitlines(keepends=True)[0])
    return "cut off, a whole shard ends with an empty line; make it again"


def cut_in_a_row(part):
    part.write_bytes(part.read_bytes()[:-6])
    return "cut off, a whole shard ends with an empty line; make it again"


def the_other_one_again(part):
    part.write_bytes(part.with_name("out.jsonl.0-of-2").read_bytes())
    return f"id: 'a' not of this shard of {part.with_name('in.jsonl')}"


def doubled(part):
    part.write_bytes(part.read_bytes() * 2)
    return "id: 'b' stands twice"


DAMAGES = [lost, cut_between_rows, cut_in_a_row, the_other_one_again, doubled]


@pytest.mark.parametrize("spoil", DAMAGES)
def test_a_spoilt_shard_stops_the_merge(tmp_path, spoil):
    order, out = shares(tmp_path, "abcd", "ac", "bd")
    write_jsonl(out, [{"id": "old"}])
    part = tmp_path / "out.jsonl.1-of-2"
    reason = spoil(part)
    done = run("common/shards.py", order, out, 2)
    assert (done.returncode, done.stderr) == (1, f"{part}: {reason}\n")
    assert read_jsonl(out) == [{"id": "old"}]


def test_shards_of_which_none_has_a_row_are_not_joined(tmp_path):
    order, out = shares(tmp_path, "ab", "", "")
    done = run("common/shards.py", order, out, 2)
    assert (done.returncode, done.stderr) == (1, f"{out}: no shard of it holds a row\n")
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--shard", "2", "--num_shards", "2"], "--shard 2: not one of 0 to 1"),
        (["--shard", "1"], "--shard and --num_shards: give both or none"),
    ],
)
def test_a_shard_that_is_none_is_refused(tmp_path, flags, reason):
    files = ["--responses_file", tmp_path / "none", "--output_file", tmp_path / "out"]
    done = run("annotation/1d_verifier.py", *files, *flags)
    assert done.returncode == 2
    assert done.stderr.endswith(f"error: {reason}\n")


# Two processes of a launcher on 101 rows


@pytest.fixture(scope="module")
def answered(tmp_path_factory, sft, world):
    """(prompts, the command that answers them at temperature 0, the output of a single process)"""
    folder = tmp_path_factory.mktemp("ranks")
    prompts = write_jsonl(folder / "prompts.jsonl", read_jsonl(world / "prompts.jsonl")[:101])
    command = ["generation/2_responses.py", "--model_name_or_path", sft, "--prompts_file", prompts]
    command += ["--n", 1, "--temperatures", 0, "--max_new_tokens", 12]
    ran(*command, "--output_file", folder / "responses.jsonl")
    return prompts, command, folder / "responses.jsonl"


def torchrun(*command):
    ran("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2, "--", *command)


def accelerate(*command):
    launch = "-m accelerate.commands.launch --config_file recipes/accelerate/ddp.yaml"
    launch += " --num_processes 2 --main_process_port 0"
    ran(*launch.split(), *command)


def srun(*command):
    """Two processes with the variables of srun's tasks."""
    command = [sys.executable, *map(str, command)]
    environment = {
        **os.environ,
        "SLURM_JOB_ID": "1",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_LOCALID": "0",
    }
    tasks = []
    for i in range(2):
        of_task = {**environment, "SLURM_PROCID": str(i)}
        tasks.append(subprocess.Popen(command, cwd=ROOT, env=of_task))
    assert [task.wait() for task in tasks] == [0, 0]


def rows_of(shard):
    """Without the empty line at its end."""
    return list(rows.read(shard))


def test_the_ranks_of_torchrun_answer_as_one_process(answered, tmp_path):
    prompts, command, alone = answered
    out = tmp_path / "responses.jsonl"
    torchrun(*command, "--output_file", out)
    assert [len(rows_of(f"{out}.{i}-of-2")) for i in (0, 1)] == [51, 50]
    assert not out.exists()
    ran("common/shards.py", prompts, out, 2)
    assert read_jsonl(out) == read_jsonl(alone)
    assert len(read_jsonl(out)) == 101


@pytest.fixture(scope="module")
def scored(answered, reward_model):
    """(the command that scores the responses, the rows of a single process)"""
    _, _, responses = answered
    command = ["annotation/1a_reward_model.py", "--model_name_or_path", reward_model]
    command += ["--responses_file", responses]
    alone = responses.with_name("rewards.jsonl")
    # A batch script of Slurm has these variables, but is no task of srun.
    batch_script = {**os.environ, "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}
    ran(*command, "--output_file", alone, env=batch_script)
    return command, read_jsonl(alone)


@pytest.mark.parametrize("launcher", [accelerate, srun])
def test_the_ranks_of_a_launcher_score_as_one_process(scored, tmp_path, launcher):
    """To 1e-4, because the shards have other batches."""
    command, alone = scored
    assert len(alone) == 101
    responses = command[-1]
    out = tmp_path / "rewards.jsonl"
    launcher(*command, "--output_file", out)
    assert not out.exists()
    ran("common/shards.py", responses, out, 2)
    expected = [{**row, "rewards": pytest.approx(row["rewards"], abs=1e-4)} for row in alone]
    assert read_jsonl(out) == expected


def test_each_process_of_a_node_takes_its_own_gpus(monkeypatch):
    """In pairs where two hold a model; a process to which its launcher left one GPU takes that."""
    from common import shards

    for visible, local_rank, count, expected in [
        ("4,5,6,7", 1, 1, "5"),
        ("4,5,6,7", 1, 2, "6,7"),
        (None, 3, 1, "3"),
        ("2", 1, 1, "2"),
    ]:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setenv("WORLD_SIZE", "4")
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        shards.take_gpus(local_rank, count)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
        assert "WORLD_SIZE" not in os.environ
