"""dpo/0_reference.py, and trainings on the log-probabilities that it stores."""

import shutil

import pytest

from commands import ran, read_jsonl, run, write_jsonl
from common import models
from conftest import TRAINING, run_here
from test_models import history, in_two_shards, log_probabilities
from test_optimisers import assistant, refused, user


def pair(number, question, chosen, rejected):
    return {
        "id": str(number),
        "prompt": [user(question)],
        "chosen": [assistant(chosen)],
        "rejected": [assistant(rejected)],
        "chosen_reward": 1.5,
    }


PAIRS = [
    pair(0, "Sort these: dog, cat.", "cat, dog. That is all!", "dog"),
    pair(1, "Count these: dog.", "one", "It is two, I think."),
    pair(2, "What is 2 + 3?", "5", "5"),
    pair(3, "Say hello.", "Hello!", "No."),
    pair(4, "Say hello to us all, please.", "Hello, all of you!", "Hello."),
]


def reference_command(model, file, *flags):
    command = ["dpo/0_reference.py", "--model_name_or_path", model, "--pairs_file", file]
    return [*command, "--max_length", 256, *flags]


@pytest.fixture(scope="module")
def stored(tmp_path_factory, sft):
    """(file of pairs, file with SFT's log-probabilities, the finished process)."""
    folder = tmp_path_factory.mktemp("reference")
    file = write_jsonl(folder / "pairs.jsonl", PAIRS)
    out = folder / "stored.jsonl"
    done = ran(*reference_command(sft, file, "--output_file", out))
    return file, out, done


def test_the_log_probabilities_are_those_of_the_response(stored, sft):
    _, file, done = stored
    rows = read_jsonl(file)
    assert "pairs in: 5, finished before: 0, dropped, too long: 0, " in done.stdout
    for row, start in zip(rows, PAIRS, strict=True):
        for side in ("chosen", "rejected"):
            text = start[side][0]["content"]
            by_hand = sum(log_probabilities(sft, start["prompt"], text, after="\n"))
            assert row.pop(f"ref_{side}_logp") == pytest.approx(by_hand, abs=1e-4)
        reference = row.pop("reference")
        assert reference["model"] == str(sft)
        assert row == start


def test_shards_a_kill_and_small_batches_change_nothing(stored, sft, tmp_path):
    file, whole, _ = stored
    command = reference_command(sft, file, "--batch_tokens", 16)
    rows = in_two_shards(file, tmp_path / "out.jsonl", *command)
    for row, expected in zip(rows, read_jsonl(whole), strict=True):
        for name in ("ref_chosen_logp", "ref_rejected_logp"):
            assert row.pop(name) == pytest.approx(expected.pop(name), abs=1e-4)
        assert row == expected


def test_pairs_that_a_training_would_drop_are_dropped(tmp_path, sft):
    rows = [*PAIRS[:1], pair(5, "word " * 300, "yes", "no")]
    rows.append(pair(6, "Say it.", "word " * 300 + "yes", "word " * 300 + "no"))
    file = write_jsonl(tmp_path / "pairs.jsonl", rows)
    done = ran(*reference_command(sft, file, "--output_file", tmp_path / "out.jsonl"))
    assert [row["id"] for row in read_jsonl(tmp_path / "out.jsonl")] == ["0"]
    assert "dropped, too long: 1, dropped, equal within --max_length: 1, " in done.stdout
    done = run(
        *reference_command(
            sft, write_jsonl(file, rows[1:]), "--output_file", tmp_path / "none.jsonl"
        )
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"{file}: no pair is left: dropped, too long: 1")


# Training


def training_flags(policy, file, out, *flags):
    command = ["--model_name_or_path", policy, "--dataset_name", file, "--output_dir", out]
    command += [*TRAINING, "--max_length", 256, "--max_steps", 2, "--learning_rate", 1e-3]
    return [*command, "--per_device_train_batch_size", 4, *flags]


@pytest.fixture
def loaded(monkeypatch):
    """The paths of the models whose weights are loaded."""
    paths = []
    load = models.load

    def recorded(auto_class, path, *args, **options):
        if options.get("device_map") != "meta":
            paths.append(str(path))
        return load(auto_class, path, *args, **options)

    monkeypatch.setattr(models, "load", recorded)
    return paths


@pytest.mark.parametrize("loss", [["sigmoid"], ["rpo"]])
def test_a_training_on_stored_log_probabilities_is_that_beside_the_reference(
    monkeypatch, tmp_path, loaded, stored, noisy, sft, loss
):
    """And has one model in memory."""
    pairs, with_logps, _ = stored
    logs = []
    for name, file, flags in (
        ("beside", pairs, ["--ref_model_name_or_path", sft]),
        ("stored", with_logps, []),
        ("both", with_logps, ["--ref_model_name_or_path", sft]),
    ):
        out = tmp_path / name
        loaded.clear()
        run_here(
            "dpo/1_dpo.py",
            monkeypatch,
            *training_flags(noisy, file, out, "--loss_type", *loss, *flags),
        )
        assert loaded == ([str(noisy), str(sft)] if name == "beside" else [str(noisy)])
        logs.append([entry["loss"] for entry in history(out) if "loss" in entry])
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)
    assert logs[1] == logs[2]


def test_a_policy_that_starts_as_its_reference_is_loaded_once(
    monkeypatch, tmp_path, loaded, stored, sft
):
    out = tmp_path / "out"
    flags = training_flags(sft, stored[0], out, "--ref_model_name_or_path", sft)
    run_here("dpo/1_dpo.py", monkeypatch, *flags)
    assert loaded == [str(sft)]
    assert history(out)[0]["loss"] == pytest.approx(0.6931, abs=1e-4)


def test_lora_has_a_reference_of_its_own(monkeypatch, tmp_path, loaded, stored, noisy, sft):
    """Where it is not the policy's start: beside it, or stored."""
    lora = ["--use_peft", "--lora_r", 4]
    logs = []
    for name, file, flags in (
        ("beside", stored[0], ["--ref_model_name_or_path", sft]),
        ("stored", stored[1], []),
    ):
        out = tmp_path / name
        run_here("dpo/1_dpo.py", monkeypatch, *training_flags(noisy, file, out, *lora, *flags))
        logs.append([entry["loss"] for entry in history(out) if "loss" in entry])
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)
    assert abs(logs[0][0] - 0.6931) > 1e-3
    assert loaded == [str(noisy), str(sft), str(noisy)]


def test_slic_has_no_reference(monkeypatch, tmp_path, stored, sft):
    out = tmp_path / "out"
    run_here(
        "dpo/1_dpo.py", monkeypatch, *training_flags(sft, stored[0], out, "--loss_type", "slic")
    )
    assert "logps/chosen" in history(out)[0]
    assert not any(name.startswith("rewards/") for name in history(out)[0])
    message = refused(
        "dpo/1_dpo.py", monkeypatch, sft, stored[0], tmp_path / "no", "--loss_type", "slic"
    )
    assert message == "--ref_model_name_or_path: --loss_type slic has no reference"


def edited(rows, changes):
    """The rows with changes {number of a row: {field: value, or None to leave it out}}."""
    result = []
    for number, row in enumerate(rows):
        row = {**row, **changes.get(number, {})}
        result.append({name: value for name, value in row.items() if value is not None})
    return result


OTHER = {"model": "other", "fingerprint": "0", "tokens": "0"}


@pytest.mark.parametrize(
    "changes, flags, reason",
    [
        ({3: {"ref_chosen_logp": None}}, [], "in.jsonl:4: ref_chosen_logp: missing"),
        (
            {3: {"ref_chosen_logp": "x"}},
            [],
            "in.jsonl:4: ref_chosen_logp: 'x' is not a finite number",
        ),
        ({3: {"reference": "x"}}, [], "in.jsonl:4: reference: not a model with its fingerprint"),
        ({3: {"reference": OTHER}}, [], "in.jsonl:4: reference: other, of other weights than "),
        (
            {},
            ["--max_length", 30],
            "in.jsonl:5: reference: its log-probabilities are of other tokens",
        ),
        (
            {},
            ["--precompute_ref_log_probs", "False"],
            "--precompute_ref_log_probs False: the pairs have log-probabilities already",
        ),
        ({}, ["--ld_alpha", 0.5], "--ld_alpha: not with pairs that have log-probabilities"),
    ],
)
def test_stored_log_probabilities_that_do_not_fit_are_refused(
    monkeypatch, tmp_path, stored, sft, changes, flags, reason
):
    rows = edited(read_jsonl(stored[1]), changes)
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    with pytest.raises(SystemExit) as stopped:
        run_here("dpo/1_dpo.py", monkeypatch, *training_flags(sft, file, tmp_path / "out", *flags))
    message = str(stopped.value).removeprefix(f"{tmp_path}/")
    assert message.startswith(reason)
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_another_reference_than_the_stored_one_is_refused(
    monkeypatch, tmp_path, stored, sft, noisy
):
    message = refused("dpo/1_dpo.py", monkeypatch, noisy, stored[1], tmp_path / "out")
    assert message == (
        f"--ref_model_name_or_path {noisy}: the pairs have log-probabilities of {sft}, "
        "of other weights"
    )


def test_the_fingerprint_is_of_the_weights(monkeypatch, tmp_path, stored, sft):
    """A copy of the reference whose training had other arguments is the same reference."""
    copy = shutil.copytree(sft, tmp_path / "copy")
    (copy / "training_args.bin").write_bytes(b"of another training")
    flags = training_flags(sft, stored[1], tmp_path / "out", "--ref_model_name_or_path", copy)
    run_here("dpo/1_dpo.py", monkeypatch, *flags)
    assert (tmp_path / "out/config.json").exists()


def test_files_with_and_without_log_probabilities_do_not_mix(monkeypatch, tmp_path, stored, sft):
    more = write_jsonl(tmp_path / "more.jsonl", [pair(7, "Say no.", "No.", "Yes.")])
    flags = training_flags(sft, stored[1], tmp_path / "out", "--dataset_name", stored[1], more)
    with pytest.raises(SystemExit) as stopped:
        run_here("dpo/1_dpo.py", monkeypatch, *flags)
    assert str(stopped.value) == f"{more}:1: ref_chosen_logp: missing"
    flags = training_flags(sft, more, tmp_path / "out", "--dataset_name", more, stored[1])
    with pytest.raises(SystemExit) as stopped:
        run_here("dpo/1_dpo.py", monkeypatch, *flags)
    assert str(stopped.value) == f"{stored[1]}:1: ref_chosen_logp: {more}:1 has none"


def test_without_log_probabilities_a_reference_is_needed(monkeypatch, tmp_path, stored, sft):
    with pytest.raises(SystemExit) as stopped:
        run_here("dpo/1_dpo.py", monkeypatch, *training_flags(sft, stored[0], tmp_path / "out"))
    assert str(stopped.value) == (
        f"--ref_model_name_or_path: it is needed, {stored[0]} has no log-probabilities of a "
        "reference (dpo/0_reference.py)"
    )
