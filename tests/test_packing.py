"""Packed forward passes give what padded ones give: scores, losses, gradients."""

import runpy

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from trl.trainer.utils import add_fused_lm_head

from commands import ROOT, write_jsonl
from common import packing, training
from conftest import TRAINING, run_here
from test_optimisers import assistant, user

# A large initializer_range: else the attention of random weights hardly sees who is masked.
TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = {"sliding_window": 5}  # shorter than the sequences
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}


def tiny(family, attention="sdpa", auto_class=AutoModelForCausalLM, **options):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**TINY, **options})
    return auto_class.from_config(config, attn_implementation=attention).eval()


def sequences(sides, seed=1):
    """(input_ids, attention_mask, labels) of five prompts with so many responses each, padded.

    The first prompt's responses are equal, and of the second one begins the other.
    """
    generator = torch.Generator().manual_seed(seed)

    def tokens(at_most):
        count = int(torch.randint(1, at_most, (1,), generator=generator))
        return torch.randint(3, 64, (count,), generator=generator)

    prompts = [tokens(9) for _ in range(5)]
    responses = [[tokens(12) for _ in prompts] for _ in range(sides)]
    for side in range(1, sides):
        responses[side][0] = responses[0][0]
        responses[side][1] = torch.cat([responses[0][1], tokens(5)])
    texts = []
    for side in range(sides):
        for prompt, response in zip(prompts, responses[side], strict=True):
            texts.append((prompt, response))
    length = max(len(prompt) + len(response) for prompt, response in texts)
    input_ids = torch.zeros(len(texts), length, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, -100)
    for i, (prompt, response) in enumerate(texts):
        end = len(prompt) + len(response)
        input_ids[i, :end] = torch.cat([prompt, response])
        attention_mask[i, :end] = 1
        labels[i, len(prompt) : end] = response
    return input_ids, attention_mask, labels


def gradient(model, value):
    model.zero_grad()
    value.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def assert_same_gradient(packed, padded):
    assert padded.norm() > 0
    assert (packed - padded).norm() / padded.norm() < 1e-5


def compare_log_probabilities(model, sides):
    """Assert that all fields of a token, and the gradient, are those of the padded batch."""
    fields = ("log_probs", "entropy", "mean_logits", "is_top1")
    add_fused_lm_head(model, outputs=fields)
    input_ids, attention_mask, labels = sequences(sides)
    batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
    padded = model(**batch, use_cache=False, fused_lm_head=True)
    packed = packing.PackedModel(model, model.config, sides)(**batch)
    for name in fields:
        expected, found = getattr(padded, name), getattr(packed, name)
        assert found.shape == expected.shape
        torch.testing.assert_close(found.double(), expected.double(), atol=1e-5, rtol=1e-5)
    weights = torch.rand(padded.log_probs.shape, generator=torch.Generator().manual_seed(0))
    expected = gradient(model, (padded.log_probs * weights).sum())
    assert_same_gradient(gradient(model, (packed.log_probs * weights).sum()), expected)


@pytest.mark.parametrize("sides", [1, 2, 3])
def test_log_probabilities_of_packed_rows(sides):
    compare_log_probabilities(tiny("llama"), sides)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "family, options",
    [
        ("qwen2", {}),
        ("qwen3", {}),
        ("mistral", WINDOW),
        ("gemma2", WINDOW),
        ("gemma3_text", WINDOW),
        ("cohere2", WINDOW),
        ("phi3", {}),
        ("gpt2", GPT2),
    ],
)
def test_families_of_models_can_be_packed(family, options, attention):
    """Windows of attention, too, that are shorter than the sequences."""
    model = tiny(family, attention, **options)
    assert packing.obstacle(model) is None
    compare_log_probabilities(model, 2)


def test_without_a_mask_sequences_are_told_apart_by_their_positions(monkeypatch):
    """As FlashAttention does; SDPA without a mask goes by the positions as well."""
    monkeypatch.setattr(packing, "by_positions", lambda config: True)
    compare_log_probabilities(tiny("llama"), 2)


@pytest.mark.parametrize("window", [None, 5])
def test_the_block_mask_of_flex_attention_is_the_mask(window):
    from torch.nn.attention.flex_attention import create_mask

    input_ids, attention_mask, _ = sequences(2)
    layout = packing.layout(input_ids, attention_mask, 2)
    block_mask = packing.mask(layout, window, "flex_attention", torch.float32)
    rows, width = layout.tree.shape
    dense = create_mask(block_mask.mask_mod, rows, None, width, width, "cpu")
    expected = packing.mask(layout, window, "sdpa", torch.float32)
    assert dense.equal(expected)
    assert expected.any(-1).all()  # the unused ends of rows see something: no NaN


@pytest.mark.parametrize(
    "family, options, reason",
    [
        ("mamba", {}, "mamba takes no positions"),
        ("bloom", {"n_head": 4}, "bloom takes no positions"),
        ("falcon_h1", {}, "falcon_h1 has layers that take no mask"),
        (
            "lfm2",
            {"layer_types": ["conv", "full_attention"]},
            "lfm2 has layers of the kind conv",
        ),
        (
            "qwen3_moe",
            {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
            "qwen3_moe has a loss that balances its experts by the padding",
        ),
    ],
)
def test_what_cannot_be_packed(family, options, reason):
    assert packing.obstacle(tiny(family, "eager", **options)) == reason


def test_an_attention_that_takes_no_mask_cannot_be_packed():
    model = tiny("llama")
    model.config._attn_implementation_internal = "paged|sdpa"
    assert packing.obstacle(model) == "--attn_implementation paged|sdpa takes no mask"


# Layout


def test_a_common_beginning_is_computed_once():
    """Two pairs: 4 and 2 tokens in common, of which the last opens both branches."""
    rows = [[5, 6, 7, 8, 10], [5, 6, 0, 0, 0], [5, 6, 7, 8, 11], [5, 6, 9, 0, 0]]
    input_ids = torch.tensor(rows)
    layout = packing.layout(input_ids, (input_ids > 0).long(), 2)
    packed = packing.pack(input_ids, layout.slot, layout.is_token, layout.tree.shape, 0)
    assert packed.tolist() == [[5, 6, 7, 8, 10, 8, 11], [5, 6, 6, 9, 0, 0, 0]]
    assert layout.positions.tolist() == [[0, 1, 2, 3, 4, 3, 4], [0, 1, 1, 2, 0, 0, 0]]
    assert layout.branch.tolist() == [[0, 0, 0, 1, 1, 2, 2], [0, 1, 2, 2, 0, 0, 0]]
    assert layout.tree.tolist() == [[0] * 7, [1] * 4 + [-1] * 3]
    assert layout.unpack(packed)[layout.is_token].equal(input_ids[layout.is_token])


def test_rows_are_filled_first_fit_with_the_largest_trees_first():
    assert packing.fill_rows([3, 9, 6, 2], one_row=False) == ([15, 0, 9, 18], (3, 9))
    assert packing.fill_rows([3, 9, 6, 2], one_row=True) == ([15, 0, 9, 18], (1, 20))


# Reward models


@pytest.mark.parametrize("family, options", [("llama", {}), ("gemma3_text", WINDOW)])
def test_scores_of_packed_rows(family, options):
    model = tiny(family, auto_class=AutoModelForSequenceClassification, num_labels=1, **options)
    input_ids, attention_mask, _ = sequences(2)
    batch = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    padded = model(**batch).logits
    expected = gradient(model, (padded * torch.arange(len(padded)).unsqueeze(1)).sum())
    packing.pack_backbone(model, 2)
    packed = model(**batch).logits
    torch.testing.assert_close(packed, padded, atol=1e-5, rtol=1e-5)
    found = gradient(model, (packed * torch.arange(len(packed)).unsqueeze(1)).sum())
    assert_same_gradient(found, expected)


# Fine-tuning on packed rows


@pytest.mark.parametrize(
    "family, options", [("llama", {}), ("mistral", WINDOW), ("gemma3_text", WINDOW)]
)
def test_a_long_row_is_computed_as_several(family, options):
    """As TRL hands it over: the positions tell its sequences apart."""
    model = tiny(family, **options)
    generator = torch.Generator().manual_seed(0)
    lengths = (7, 12, 1, 9, 3)
    position_ids = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0)
    input_ids = torch.randint(3, 64, position_ids.shape, generator=generator)
    in_one_row = model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
    expected = gradient(model, in_one_row.square().sum())
    widths = []
    forward = model.base_model.forward

    def spy(input_ids, **options):
        widths.append(input_ids.shape)
        return forward(input_ids, **options)

    model.base_model.forward = spy
    packing.fold_backbone(model)
    folded = model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
    assert widths == [(3, 12)]
    torch.testing.assert_close(folded, in_one_row, atol=1e-5, rtol=1e-5)
    assert_same_gradient(gradient(model, folded.square().sum()), expected)
    # Padded batches, which have a mask, are left as they are.
    model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids))
    assert widths[-1] == input_ids.shape


# The scripts


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Four pairs of different lengths, with all that a loss may need."""
    texts = [
        ("Sort these: dog, cat.", "cat, dog. That is all!", "dog", "cat."),
        ("Count these: dog.", "one", "It is two, I think.", "It is one."),
        ("What is 2 + 3?", "5", "6", "It is 5."),
        ("Say hello.", "Hello! How are you?", "Hello! No.", "hello"),
    ]
    rows = []
    for i, (prompt, chosen, rejected, explored) in enumerate(texts):
        row = {"id": str(i), "prompt": [user(prompt)]}
        row |= {"chosen": [assistant(chosen)], "rejected": [assistant(rejected)]}
        row |= {"explored": explored}
        row |= {"chosen_win_probability": 0.6 + i / 10, "rejected_win_probability": 0.3}
        rows.append(row)
    return write_jsonl(tmp_path_factory.mktemp("packing") / "pairs.jsonl", rows)


def built_trainer(monkeypatch, script, out, models, file, *flags):
    """The trainer of a script, as it stands before its training."""
    trainers = []

    def stop(trainer, _):
        trainers.append(trainer)
        raise SystemExit

    monkeypatch.setattr(training, "train", stop)
    policy, reference = models
    command = ["--model_name_or_path", policy, "--dataset_name", file, "--output_dir", out]
    command += [*TRAINING, "--max_length", 256, "--per_device_train_batch_size", 4, "--beta", 0.3]
    if "slic" not in flags:
        command += ["--ref_model_name_or_path", reference]
    with pytest.raises(SystemExit):
        run_here(script, monkeypatch, *command, *flags)
    return trainers[0]


def compare_losses(trainer):
    """Assert that the loss and its gradient are those of the padded batch."""
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    results = []
    for packed in (False, True):
        trainer.args.packed = packed
        loss = trainer.compute_loss(trainer.model, dict(batch))
        results.append((loss.detach(), gradient(trainer.model, loss)))
    (expected_loss, expected), (loss, found) = results
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=0)
    assert_same_gradient(found, expected)


@pytest.fixture(scope="module")
def loss_names():
    names = runpy.run_path(str(ROOT / "dpo/losses.py"))
    return names["TRL_LOSSES"], list(names["EXTRA_FIELDS"])


@pytest.mark.parametrize("lora", [[], ["--use_peft", "--lora_r", 4]])
def test_losses_of_trl_are_those_of_padded_batches(
    monkeypatch, tmp_path, noisy, sft, pairs, loss_names, lora
):
    flags = ["--label_smoothing", 0.1, *lora]
    trainer = built_trainer(
        monkeypatch, "dpo/1_dpo.py", tmp_path / "out", (noisy, sft), pairs, *flags
    )
    if lora:
        # B starts at 0, where A has no gradient.
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    of_trl, _ = loss_names
    for name in of_trl:
        trainer.loss_types = [name]
        compare_losses(trainer)


@pytest.mark.parametrize("name", ["slic", "sppo", "xpo", "selm", "rpo"])
def test_losses_of_ours_are_those_of_padded_batches(
    monkeypatch, tmp_path, noisy, sft, pairs, loss_names, name
):
    _, ours = loss_names
    assert name in ours
    flags = ["--loss_type", name, "--optimism", 0.1]
    trainer = built_trainer(
        monkeypatch, "dpo/1_dpo.py", tmp_path / "out", (noisy, sft), pairs, *flags
    )
    compare_losses(trainer)


def test_the_loss_of_kto_is_that_of_padded_batches(monkeypatch, tmp_path, noisy, sft, pairs):
    trainer = built_trainer(monkeypatch, "dpo/1b_kto.py", tmp_path / "out", (noisy, sft), pairs)
    compare_losses(trainer)


def weights_after(monkeypatch, tmp_path, models, file, name, *flags):
    """All weights after two steps of gradient descent."""
    out = tmp_path / name
    policy, reference = models
    command = ["--model_name_or_path", policy, "--ref_model_name_or_path", reference]
    command += ["--dataset_name", file, "--output_dir", out, *TRAINING, "--max_length", 256]
    command += ["--beta", 0.3, "--loss_type", "rpo", "--max_steps", 2, "--warmup_steps", 0]
    command += ["--optim", "sgd", "--learning_rate", 0.1, "--max_grad_norm", 1e9]
    run_here("dpo/1_dpo.py", monkeypatch, *command, *flags)
    model = AutoModelForCausalLM.from_pretrained(out, dtype="float32")
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_micro_batches_change_nothing(monkeypatch, tmp_path, noisy, sft, pairs):
    """Means over the pairs of a step, however these are cut; RPO's likelihood as well."""
    models = noisy, sft
    whole = ["--per_device_train_batch_size", 4]
    halves = ["--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 2]
    start = AutoModelForCausalLM.from_pretrained(noisy, dtype="float32")
    start = torch.cat([weight.detach().flatten() for weight in start.parameters()])
    padded = weights_after(
        monkeypatch, tmp_path, models, pairs, "padded", *whole, "--packed", "False"
    )
    change = (padded - start).norm()
    for name, cut in (("whole", whole), ("halves", halves)):
        packed = weights_after(monkeypatch, tmp_path, models, pairs, name, *cut)
        assert (packed - padded).norm() / change < 1e-4


def test_a_model_that_cannot_be_packed_is_trained_on_padded_batches(
    monkeypatch, tmp_path, capsys, sft, pairs
):
    tokenizer = AutoTokenizer.from_pretrained(sft)
    model = tiny("bloom", "eager", n_head=4, vocab_size=len(tokenizer))
    model.save_pretrained(tmp_path / "bloom")
    tokenizer.save_pretrained(tmp_path / "bloom")
    command = ["--model_name_or_path", tmp_path / "bloom", "--dataset_name", pairs]
    command += ["--ref_model_name_or_path", tmp_path / "bloom", "--output_dir", tmp_path / "out"]
    command += [*TRAINING, "--max_steps", 1]
    run_here("dpo/1_dpo.py", monkeypatch, *command)
    assert "--packed: bloom takes no positions; batches are padded\n" in capsys.readouterr().out
    assert (tmp_path / "out/trainer_state.json").exists()
