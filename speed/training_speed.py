"""Measure the trainings beside TRL's own: seconds a step, real tokens a second, MFU, memory.

Three ways in turn, in one run: TRL's command (`trl sft`, `trl reward`, `trl dpo`) with its
defaults, our script on padded batches, and our script as it is, packed. All have the same rows,
batch and checkpointing; each has its own defaults for the attention and, with LoRA, the precision
of the frozen weights. A row of a batch is a conversation or a pair; packed fine-tuning fills it up
to --max_length with conversations. Our DPO reads the reference's log-probabilities, and is charged
with its share of dpo/0_reference.py, over two epochs; TRL's default computes the reference in each
step.

Models have random weights (random_weights.py). The lengths of the rows vary: they are those of
--pairs_file, by the tokenizer of --tokenizer, or else lognormal, as conversations are: prompts of
median 120 tokens (sigma 1), responses of median 250 (sigma 0.6), cut at --max_length.

The first three steps are not timed. A step's seconds are the median. Real tokens, by TRL's count,
are those of all sequences without padding, prompts of pairs twice, whatever a way computes; MFU
counts the FLOPs that these need, without what checkpointing computes again. Memory is the process's
on a CPU; on a GPU it is what nvidia-smi reports, less what was in use before, beside what
preflight/footprint.py computes. Without a GPU the large shapes say "not run".

    python speed/training_speed.py --models smollm2_135m --stages dpo
"""

import argparse
import ast
import itertools
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import rows, tables

# The budget's formulas: modules without a number, but of another folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "preflight"))

import compute
import footprint
import shapes

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 3  # steps that are not timed
LORA_RANK = 32
EPOCHS = 2  # over which a reference's pass is spread
# What a CPU can train: the models of recipes/tiny.sh and recipes/smollm2.sh. Numbers: layers,
# hidden and intermediate size, heads and those of keys, size of a head, words.
SMALL_SHAPES = {
    "tiny": shapes.Shape(4, 128, 256, 4, 4, 32, 644, tied=True, max_length=512),
    "smollm2_135m": shapes.Shape(30, 576, 1536, 9, 3, 64, 49152, tied=True, max_length=8192),
}
SHAPES = {**SMALL_SHAPES, **shapes.SHAPES}
SCRIPTS = {
    "sft": ("trl.scripts.sft", "sft/2_finetune.py"),
    "reward_model": ("trl.scripts.reward", "reward_modeling/2a_bradley_terry.py"),
    "dpo": ("trl.scripts.dpo", "dpo/1_dpo.py"),
}
WAYS = ("TRL", "padded", "packed")
# {stage: the flag that gives our script padded batches}; --packing is TRL's, of whole conversations
PADDED = {"sft": "--packing", "reward_model": "--packed", "dpo": "--packed"}
HEAD = ["model", "stage", "trained", "way", "s a step", "real tokens/s", "times TRL's", "MFU"]
HEAD += ["GiB", "GiB computed"]
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' }}"
    "{% generation %}{{ m['content'] + ' </s> ' }}{% endgeneration %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)
TEMPLATE_TOKENS = 4  # the roles and ends of two turns


# Models and rows


def make_model(directory, shape):
    """A directory with the shape's config.json, and a tokenizer of whole words; no weights."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=shape.max_length,
        pad_token_id=0,
        eos_token_id=1,
    )
    config.save_pretrained(directory)
    word_tokenizer().save_pretrained(directory)


def word_tokenizer():
    """A tokenizer with a token for each word w0, w1, ..., w599."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<user>", "<assistant>"]
    words += [f"w{number}" for number in range(600)]
    vocabulary = {word: token_id for token_id, word in enumerate(words)}
    word_level = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    word_level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_level, pad_token="<pad>", eos_token="</s>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def drawn_lengths(count, generator):
    """[(tokens of a prompt, of its chosen, of its rejected response)] of lognormal lengths."""
    lengths = []
    for _ in range(count):
        prompt = generator.lognormvariate(4.79, 1.0)  # median e^4.79 = 120
        chosen = generator.lognormvariate(5.52, 0.6)  # median e^5.52 = 250
        rejected = generator.lognormvariate(5.52, 0.6)
        lengths.append(tuple(max(1, round(tokens)) for tokens in (prompt, chosen, rejected)))
    return lengths


def lengths_of_file(path, tokenizer_path, count, generator):
    """The same of pairs of a file, drawn with replacement."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)

    def tokens(messages):
        text = " ".join(message["content"] for message in messages)
        return max(1, len(tokenizer(text, add_special_tokens=False)["input_ids"]))

    known = [
        tuple(tokens(row[field]) for field in ("prompt", "chosen", "rejected"))
        for row in rows.read(path, "preferences")
    ]
    return generator.choices(known, k=count)


def write_rows(path, stage, lengths, generator):
    """Rows of words drawn at random, of these lengths."""

    def turn(role, length):
        words = [f"w{generator.randrange(600)}" for _ in range(length)]
        return {"role": role, "content": " ".join(words)}

    with open(path, "w") as file:
        for number, (prompt, chosen, rejected) in enumerate(lengths):
            row = {"id": f"{path.stem}-{number}", "prompt": [turn("user", prompt)]}
            row["chosen"] = [turn("assistant", chosen)]
            row["rejected"] = [turn("assistant", rejected)]
            if stage == "sft":
                row = {"id": row["id"], "messages": row["prompt"] + row["chosen"]}
            file.write(json.dumps(row) + "\n")


def mean_length(stage, lengths, max_length):
    """Tokens of a sequence of these rows, as it is cut; and of a row."""
    totals = []
    for prompt, *responses in lengths:
        for response in responses[: 1 if stage == "sft" else 2]:
            totals.append(min(max_length, prompt + response + TEMPLATE_TOKENS))
    return statistics.fmean(totals), sum(totals) / len(lengths)


# Measuring


def gpu(query):
    """MiB of the first GPU; None without one. query: "memory.total" or "memory.used"."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def memory_of(process):
    """GiB that a process holds at most so far, or that the GPU holds now."""
    used = gpu("memory.used")
    if used is not None:
        return used / 1024
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    return 0.0


def measure(command, steps):
    """(median seconds of a step, real tokens a second, GiB) of a training that logs every step.

    It is ended after so many.
    """
    used_before = (gpu("memory.used") or 0) / 1024
    process = subprocess.Popen(
        [sys.executable, "speed/random_weights.py", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": "0"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = []
    step_ends = []
    tokens = []  # of all steps so far
    gib = 0.0
    for line in process.stdout:
        output.append(line)
        if line.startswith("{'loss'"):
            step_ends.append(time.perf_counter())
            tokens.append(float(ast.literal_eval(line)["num_tokens"]))
            gib = max(gib, memory_of(process))
        if len(step_ends) == steps:
            process.kill()  # before it saves the model
    process.wait()
    if len(step_ends) < steps:
        sys.exit(f"{command[0]} failed:\n{''.join(output[-5:])}")
    timed = step_ends[WARM_UP - 1 :]
    seconds = [end - start for start, end in itertools.pairwise(timed)]
    rate = (tokens[-1] - tokens[WARM_UP - 1]) / (timed[-1] - timed[0])
    return statistics.median(seconds), rate, gib - used_before


def reference_seconds(directory, args):
    """Seconds of dpo/0_reference.py for a row."""
    command = ["dpo/0_reference.py", "--model_name_or_path", directory / "model"]
    command += ["--pairs_file", directory / "train.jsonl", "--max_length", args.max_length]
    command += ["--output_file", directory / "stored.jsonl"]
    command += ["--dtype", "bfloat16" if gpu("memory.total") else "float32"]
    done = subprocess.run(
        [sys.executable, "speed/random_weights.py", *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"dpo/0_reference.py failed:\n{done.stderr}")
    # It ends with "... rows out: 56, 1.9 s", without the time that loading took.
    seconds = float(done.stdout.split()[-2])
    return seconds / (args.batch * (args.steps + 1))


def training_command(way, stage, lora_rank, directory, args):
    module, script = SCRIPTS[stage]
    on_gpu = gpu("memory.total") is not None
    flags = {
        "--model_name_or_path": directory / "model",
        "--output_dir": directory / "trained",
        "--max_length": args.max_length,
        "--per_device_train_batch_size": args.batch,
        "--logging_steps": 1,
        "--max_steps": args.steps + 1,  # the last one is not waited for
        "--bf16": on_gpu,
        "--gradient_checkpointing": on_gpu,
        "--dataloader_pin_memory": on_gpu,
        "--save_strategy": "no",
        "--disable_tqdm": True,
        "--report_to": "none",
    }
    if lora_rank:
        flags |= {"--use_peft": True, "--lora_r": lora_rank, "--lora_alpha": 2 * lora_rank}
    if way == "TRL":
        flags["--dataset_name"] = directory / "rows"
        script = module
    else:
        flags["--dataset_name"] = directory / ("stored.jsonl" if stage == "dpo" else "train.jsonl")
        if stage == "reward_model":
            flags["--held_out_name"] = directory / "held_out.jsonl"
        if way == "padded":
            flags[PADDED[stage]] = False
    command = [script]
    for flag, value in flags.items():
        command += [flag, str(value)]
    return command


def prepare(directory, shape, stage, lengths, generator):
    """Write the model's configuration and the rows, for ours and for `load_dataset`."""
    make_model(directory / "model", shape)
    write_rows(directory / "train.jsonl", stage, lengths, generator)
    write_rows(directory / "held_out.jsonl", stage, lengths[:2], generator)
    (directory / "rows").mkdir()
    shutil.copy(directory / "train.jsonl", directory / "rows/train.jsonl")


def flops_of_token(shape, stage, lora_rank, context):
    """FLOPs that the model needs: the backward pass takes twice those of the forward pass."""
    has_head = stage != "reward_model"
    flops = 3 * compute.flops(shape, 1, context, head=has_head)
    if lora_rank:
        # Frozen matrices get no gradient. Attention itself has none: context 0 leaves it out.
        flops -= compute.flops(shape, 1, 0, head=has_head)
    return flops


def measured_rows(args, name, shape, stage, lora_rank):
    """The rows of the table for one training: a line for each way."""
    generator = random.Random(args.seed)
    count = args.batch * (args.steps + 1)
    if stage == "sft":  # packed rows hold several conversations
        count *= 8
    if args.pairs_file:
        lengths = lengths_of_file(args.pairs_file, args.tokenizer, count, generator)
    else:
        lengths = drawn_lengths(count, generator)
    length, row_length = mean_length(stage, lengths, args.max_length)
    seconds = {way: [] for way in WAYS}
    rates = {way: [] for way in WAYS}
    gib = dict.fromkeys(WAYS, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        prepare(directory, shape, stage, lengths, generator)
        for _ in range(args.rounds):
            reference = 0.0
            if stage == "dpo":
                reference = reference_seconds(directory, args) / EPOCHS
            for way in WAYS:
                print(f"# {name}, {stage}: {way}", file=sys.stderr, flush=True)
                command = training_command(way, stage, lora_rank, directory, args)
                step, rate, used = measure(command, args.steps)
                if way != "TRL":
                    step += args.batch * reference
                    rate = 1 / (1 / rate + reference / row_length)
                seconds[way].append(step)
                rates[way].append(rate)
                gib[way] = max(gib[way], used)
    rates = {way: statistics.median(values) for way, values in rates.items()}
    flops = flops_of_token(shape, stage, lora_rank, length)
    for way in WAYS:
        has_gpu = gpu("memory.total") is not None
        mfu = f"{rates[way] * flops / args.peak_flops:.1%}" if has_gpu else "-"
        yield [
            way,
            f"{statistics.median(seconds[way]):.3f}",
            f"{rates[way]:.0f}",
            f"{rates[way] / rates['TRL']:.2f}",
            mfu,
            f"{gib[way]:.1f}",
        ]


def lines_of_training(args, name, shape, stage, lora_rank):
    """The lines of the table for one training."""
    total_mib = gpu("memory.total")
    first = [name, stage, f"LoRA {lora_rank}" if lora_rank else "full"]
    if total_mib is None and name not in SMALL_SHAPES:
        yield [*first, "-", "not run", *["-"] * 4, computed_gib(args, shape, stage, lora_rank)]
        return
    computed = "-"
    if total_mib is not None:
        computed = computed_gib(args, shape, stage, lora_rank)
        if float(computed) > total_mib / 1024:
            yield [*first, "-", "does not fit", *["-"] * 4, computed]
            return
    for cells in measured_rows(args, name, shape, stage, lora_rank):
        yield [*first, *cells, computed if cells[0] == "packed" else "-"]


def computed_gib(args, shape, stage, lora_rank):
    parts = footprint.training(
        shape, stage, gpus=1, sequence=args.max_length, batch=args.batch, lora_rank=lora_rank
    )
    return f"{parts['total']:.1f}"


# Arguments


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known_shapes = ", ".join(SHAPES)
    parser.add_argument(
        "--models", nargs="+", default=["llama3_8b", "llama3.2_1b"], help=known_shapes
    )
    parser.add_argument("--stages", nargs="+", default=list(SCRIPTS), choices=SCRIPTS)
    parser.add_argument(
        "--trained", nargs="+", default=["full", "lora"], choices=["full", "lora"], help="weights"
    )
    parser.add_argument("--batch", type=int, default=4, help="rows of a step")
    parser.add_argument("--steps", type=int, default=13, help="of each training")
    parser.add_argument("--rounds", type=int, default=1, help="measurements, of which the median")
    parser.add_argument("--max_length", type=int, default=2048, help="tokens of a sequence")
    parser.add_argument("--pairs_file", help="pairs, whose lengths the rows get")
    parser.add_argument("--tokenizer", help="of --pairs_file: a model directory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--peak_flops",
        type=float,
        default=989e12,
        help="of the GPU in bf16 (default: H100, H200 SXM)",
    )
    args = parser.parse_args()
    for name in args.models:
        if name not in SHAPES:
            parser.error(f"--models {name}: none of {known_shapes}")
    if args.steps < WARM_UP + 2:
        parser.error(
            f"--steps {args.steps}: the first {WARM_UP} warm up, give {WARM_UP + 2} or more"
        )
    if bool(args.pairs_file) != bool(args.tokenizer):
        parser.error("--pairs_file and --tokenizer: give both or none")
    return args


def main():
    args = parse_arguments()
    print(tables.markdown(HEAD, []), flush=True)
    ranks = {"full": 0, "lora": LORA_RANK}
    for name, stage, trained in itertools.product(args.models, args.stages, args.trained):
        for cells in lines_of_training(args, name, SHAPES[name], stage, ranks[trained]):
            print(tables.markdown_line(cells), flush=True)


if __name__ == "__main__":
    main()
