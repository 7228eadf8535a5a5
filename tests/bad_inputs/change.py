"""The changes of the cases of cases.jsonl: to a copy m of a model, or to the case's folder d."""

import json
import os
import re

import torch
from safetensors.torch import load_file, save_file

from common import rows
from test_report import make


class Evil:
    """What a pickle can do when it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def configured(m, file="config.json", **fields):
    content = json.loads((m / file).read_text())
    content.update(fields)
    (m / file).write_text(json.dumps(content))


def weights_missing(m):
    (m / "model.safetensors").unlink()


def weights_cut(m):
    content = (m / "model.safetensors").read_bytes()
    (m / "model.safetensors").write_bytes(content[: len(content) // 2])


def weights_nan(m):
    weights = load_file(m / "model.safetensors")
    name = next(name for name in weights if "norm" in name)
    weights[name] = torch.full_like(weights[name], float("nan"))
    save_file(weights, m / "model.safetensors", {"format": "pt"})


def fewer_embeddings(m):
    weights = load_file(m / "model.safetensors")
    for name in weights:
        if "embed_tokens" in name or "lm_head" in name:
            weights[name] = weights[name][:100].contiguous()
    save_file(weights, m / "model.safetensors", {"format": "pt"})
    configured(m, vocab_size=100)


def another_vocabulary_in_the_config(m):
    configured(m, vocab_size=100)


def two_labels(m):
    configured(m, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})


def unknown_type(m):
    configured(m, model_type="nonsense")


def empty_config(m):
    (m / "config.json").write_text("{}")


def no_positions(m):
    configured(m, max_position_embeddings=None)


def broken_link(m):
    (m / "extra.json").symlink_to("/nowhere/blob")


def template(m, text):
    for file in m.glob("chat_template*"):
        file.unlink()
    configured(m, "tokenizer_config.json", chat_template=text)


def template_that_raises(m):
    template(m, "{{ raise_exception('Conversation roles must alternate') }}")


def template_without_marks(m):
    template(m, "{% for m in messages %}{{ m['content'] }}{% endfor %}")


def code_of_its_own(m):
    auto_map = {"AutoConfig": "evil.C", "AutoModelForSequenceClassification": "evil.M"}
    configured(m, auto_map=auto_map, model_type="evil")
    (m / "evil.py").write_text(f"open({str(m.parent / 'ran_remote_code')!r}, 'w')\n")


def a_pickle(m):
    torch.save({"x": Evil(m.parent / "ran_by_a_pickle")}, m / "pytorch_model.bin")
    weights_missing(m)


def no_pad_and_no_eos(m):
    content = json.loads((m / "tokenizer_config.json").read_text())
    for name in ("pad_token", "eos_token"):
        content.pop(name, None)
    (m / "tokenizer_config.json").write_text(json.dumps(content))
    (m / "special_tokens_map.json").unlink(missing_ok=True)


# Of the folder of a case


def a_pipe(d):
    os.mkfifo(d / "in.jsonl")


def a_full_directory(d):
    (d / "run").mkdir()
    (d / "run/precious.txt").write_text("weeks of work")


def replies_without_a_choice(d):
    (d / "o").mkdir()
    (d / "o/replies.jsonl").write_bytes(b'{"id": "x"}\n')


def results_without_settings(d):
    (d / "sft").mkdir()
    (d / "sft/config.json").write_text("{}")
    (d / "sft/README.md").write_text("my own card\n")
    about = {
        "recipe": "recipes/tiny.sh",
        "seed": 0,
        "versions": {},
        "commit": None,
        "date": "2026-01-01",
    }
    about |= {"baseline": "sft", "best": "sft", "policies": {"sft": {"prompts": 1}}}
    (d / "results.json").write_text(json.dumps(about))


def report_measures(d, name, text):
    make(d)
    (d / f"{name}.json").write_text(text)


def report_of_one_turn(d):
    make(d)
    about = {
        "score": 5.0,
        "turns": [5.0],
        "categories": {},
        "judge": "j",
        "date": "2026-01-01",
        "judgments": 1,
        "of": 1,
    }
    (d / "eval/sft/mt_bench").mkdir(parents=True)
    (d / "eval/sft/mt_bench/mt_bench.json").write_text(json.dumps(about))


def report_of_a_huge_reward(d):
    make(d)
    file = d / "eval/iter1/kl.jsonl"
    huge = b'"rewards": [1' + b"0" * 400 + b"]"
    file.write_bytes(re.sub(rb'"rewards": \[[^]]*\]', huge, file.read_bytes(), count=1))


def report_of_a_loss_that_is_a_text(d):
    make(d)
    (d / "sft/trainer_state.json").write_text('{"log_history": [{"step": 1, "loss": "x"}]}')


def unfinished(d, data):
    """The partial output of a killed run of the verifier."""
    words = f"--responses_file {d}/in.jsonl --output_file {d}/new.jsonl".split()
    words += "--method exact --pattern (.*)".split()
    # The command of the case looks for this name.
    name = rows.fingerprint(["1d_verifier.py", *words])
    (d / f"new.jsonl.partial-{name}").write_bytes(data)


def finished_row(d):
    row = json.loads((d / "in.jsonl").read_text().splitlines()[0])
    return json.dumps({**row, "rewards": [0.0] * 4, "annotator": "verifier"}).encode() + b"\n"


def unfinished_with_zeros(d):
    unfinished(d, finished_row(d) + bytes(512) + b"\n" + finished_row(d).replace(b'"a"', b'"b"'))


def unfinished_without_an_id(d):
    unfinished(d, b'{"x": 1}\n')


def unfinished_nothing(d):
    unfinished(d, b"")


# {case: (the model whose copy the case names, its change or None)}; other cases need no model.
OF_MODELS = {
    "bt held-out pairs longer than max_length": ("base", None),
    "dpo reference is a reward model": ("sft", None),
    "gen weights cut": ("sft", weights_cut),
    "gen weights missing": ("sft", weights_missing),
    "gen weights nan": ("sft", weights_nan),
    "kl fewer embeddings": ("sft", fewer_embeddings),
    "kl weights missing": ("sft", weights_missing),
    "kl weights nan": ("sft", weights_nan),
    "pm no pad and no eos token": ("sft", no_pad_and_no_eos),
    "pm weights missing": ("sft", weights_missing),
    "rm broken link in the directory": ("reward_model", broken_link),
    "rm chat template that raises": ("reward_model", template_that_raises),
    "rm code of its own without --trust_remote_code": ("reward_model", code_of_its_own),
    "rm config empty object": ("reward_model", empty_config),
    "rm fewer embeddings than tokens": ("reward_model", fewer_embeddings),
    "rm malicious pickle": ("reward_model", a_pickle),
    "rm max_position_embeddings missing": ("reward_model", no_positions),
    "rm two labels": ("reward_model", two_labels),
    "rm unknown model type": ("reward_model", unknown_type),
    "rm vocabulary of the config unlike the weights": (
        "reward_model",
        another_vocabulary_in_the_config,
    ),
    "rm weights missing": ("reward_model", weights_missing),
    "rm weights nan": ("reward_model", weights_nan),
    "sft chat template without generation marks (loss mask)": ("base", template_without_marks),
    "sft weights missing": ("base", weights_missing),
    "sft weights nan": ("base", weights_nan),
}
OF_FOLDERS = {
    "prompts from a named pipe nobody writes to": a_pipe,
    "preferences held-out file is a directory": a_full_directory,
    "prompts output is a directory with files": a_full_directory,
    "mt_bench replies.jsonl row without choice": replies_without_a_choice,
    "cards results without settings": results_without_settings,
    "report measures length_bias a number": lambda d: report_measures(d, "length_bias", "7"),
    "report measures rewardbench a list": lambda d: report_measures(d, "rewardbench", "[1]"),
    "report measures rewardbench a number": lambda d: report_measures(d, "rewardbench", "7"),
    "report measures rewardbench null": lambda d: report_measures(d, "rewardbench", "null"),
    "report mt_bench.json turns of one": report_of_one_turn,
    "report reward a huge integer": report_of_a_huge_reward,
    "report trainer_state loss a text": report_of_a_loss_that_is_a_text,
    "resume: a NUL block in the middle": unfinished_with_zeros,
    "resume: unfinished row without id": unfinished_without_an_id,
    "resume: ids with a lone surrogate": unfinished_nothing,
}
