"""Measure memory, speed and FLOPs utilisation of the trainings on one GPU.

The table shows the measured memory beside what preflight/footprint.py computes.

Models have the shape of published ones and random weights; rows have --sequence tokens. The scripts
and flags are those of run_loop.sh, in bf16 with gradient checkpointing and batches of 2 rows.

Seconds are the median over all steps but the first three. Memory is the highest that nvidia-smi
reports while the script runs, less what was in use before. Utilisation (MFU) counts the FLOPs that
the model needs, without what checkpointing computes again. Without a GPU, or where the computed
memory exceeds it, a row says so. --directory needs room for one model at a time, 40 GiB at 8B.

    python speed/training_speed.py --directory my_models
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from common import tables

# The budget's formulas: modules without a number, but of another folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "preflight"))

import compute
import footprint
import shapes

ROOT = Path(__file__).resolve().parent.parent
BATCH = 2  # rows
WARM_UP = 3  # steps that are not timed
LORA_RANK = 32
SCRIPTS = {
    "sft": "sft/2_finetune.py",
    "reward_model": "reward_modeling/2a_bradley_terry.py",
    "dpo": "dpo/1_dpo.py",
}
HEAD = [
    "model",
    "stage",
    "trained",
    "GiB computed",
    "GiB measured",
    "s a step",
    "tokens/s",
    "TFLOP/s",
    "MFU",
]
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' }}"
    "{% generation %}{{ m['content'] + ' </s> ' }}{% endgeneration %}{% endfor %}"
)


# Models and rows


def make_model(directory, shape):
    """A model of that shape with random weights in bf16, and a tokenizer of whole words."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
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
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(directory)
    word_tokenizer().save_pretrained(directory)


def word_tokenizer():
    """A tokenizer with a token for each word w0, w1, ..., w999."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<user>", "<assistant>"]
    words += [f"w{number}" for number in range(1000)]
    vocabulary = {word: token_id for token_id, word in enumerate(words)}
    word_level = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    word_level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_level, pad_token="<pad>", eos_token="</s>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_rows(path, stage, sequence, count):
    """Rows of `sequence` tokens each, a quarter of them the prompt's."""
    prompt_length = sequence // 4
    response_length = sequence - prompt_length - 4  # the template's role and end of both turns
    with open(path, "w") as file:
        for number in range(count):
            row_id = f"{path.stem}-{number}"
            prompt = turn("user", prompt_length, number)
            chosen = turn("assistant", response_length, number + 1)
            rejected = turn("assistant", response_length, number + 2)
            if stage == "sft":
                row = {"id": row_id, "messages": [prompt, chosen]}
            else:
                row = {
                    "id": row_id,
                    "prompt": [prompt],
                    "chosen": [chosen],
                    "rejected": [rejected],
                }
            file.write(json.dumps(row) + "\n")


def turn(role, length, seed):
    """A message of `length` words; another seed gives other words."""
    words = [f"w{(seed + 7 * position) % 1000}" for position in range(length)]
    return {"role": role, "content": " ".join(words)}


# Measuring


def gpu(query):
    """MiB of the first GPU; None without one. query: "memory.total" or "memory.used"."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


class PeakMemory(threading.Thread):
    """Watches the memory of the GPU until it is stopped; `peak` in MiB."""

    def __init__(self):
        super().__init__()
        self.peak = 0.0
        self.stopped = threading.Event()

    def run(self):
        while not self.stopped.wait(0.1):
            self.peak = max(self.peak, gpu("memory.used") or 0)

    def stop(self):
        self.stopped.set()
        self.join()


def measure(command):
    """(seconds of each step but the first, GiB of the GPU) of a training that logs every step."""
    used_before = gpu("memory.used")
    memory = PeakMemory()
    memory.start()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": "0"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = []
    step_ends = []
    for line in process.stdout:
        output.append(line)
        if line.startswith("{'loss'"):
            step_ends.append(time.perf_counter())
    memory.stop()
    if process.wait():
        sys.exit(f"{command[0]} failed:\n{''.join(output[-5:])}")
    seconds = [end - start for start, end in itertools.pairwise(step_ends)]
    return seconds, (memory.peak - used_before) / 1024


def training_command(args, stage, lora_rank, model, output_dir):
    """The command of a training, whose rows it writes first."""
    directory = output_dir.parent
    rows_file = directory / "trained.jsonl"
    held_out_file = directory / "held_out.jsonl"
    make_rows(rows_file, stage, args.sequence, BATCH * args.steps)
    # Of another length: a held-out prompt must not be one that is trained on.
    make_rows(held_out_file, stage, args.sequence - 8, BATCH)
    flags = {
        "--model_name_or_path": model,
        "--dataset_name": rows_file,
        "--output_dir": output_dir,
        "--max_length": args.sequence,
        "--per_device_train_batch_size": BATCH,
        "--logging_steps": 1,
        "--max_steps": args.steps,
        "--bf16": True,
        "--gradient_checkpointing": True,
        "--save_strategy": "no",
        "--disable_tqdm": True,
    }
    if stage == "dpo":
        flags["--ref_model_name_or_path"] = model
    if stage == "reward_model":
        flags["--held_out_name"] = held_out_file
    if lora_rank:
        flags["--use_peft"] = True
        flags["--lora_r"] = lora_rank
        flags["--lora_alpha"] = 2 * lora_rank
    command = [SCRIPTS[stage]]
    for flag, value in flags.items():
        command += [flag, str(value)]
    return command + args.flags.split()


def tokens_of_step(stage, sequence):
    sequences = 1 if stage == "sft" else 2  # of a row: chosen and rejected
    return BATCH * sequence * sequences


def flops_of_step(shape, stage, lora_rank, sequence):
    """FLOPs that the model needs: the backward pass takes twice those of the forward pass."""
    # Fine-tuning packs the rows of a batch into one sequence, with a mask between them.
    context = BATCH * sequence if stage == "sft" else sequence
    tokens = tokens_of_step(stage, sequence)
    has_head = stage != "reward_model"
    flops = 3 * compute.flops(shape, tokens, context, head=has_head)
    if lora_rank:
        # Frozen matrices get no gradient. Attention itself has none: context 0 leaves it out.
        flops -= compute.flops(shape, tokens, 0, head=has_head)
    return flops


def measured_cells(args, shape, stage, lora_rank, model):
    """The last five cells of a row: a training that has been run."""
    if not model.exists():
        make_model(model, shape)
    output_dir = model.parent / "trained"
    seconds, gib = measure(training_command(args, stage, lora_rank, model, output_dir))
    shutil.rmtree(output_dir)
    # seconds[0] is the second step's: the first has no start.
    step_seconds = statistics.median(seconds[WARM_UP - 1 :])
    tokens_per_second = tokens_of_step(stage, args.sequence) / step_seconds
    flops_per_second = flops_of_step(shape, stage, lora_rank, args.sequence) / step_seconds
    return [
        f"{gib:.1f}",
        f"{step_seconds:.2f}",
        f"{tokens_per_second:.0f}",
        f"{flops_per_second / 1e12:.1f}",
        f"{flops_per_second / args.peak_flops:.1%}",
    ]


def cells_of_training(args, name, shape, stage, lora_rank, model, total_mib):
    """A row of the table; total_mib: memory of the GPU, None without one."""
    computed = footprint.training(
        shape, stage, gpus=1, sequence=args.sequence, batch=BATCH, lora_rank=lora_rank
    )["total"]
    trained = f"LoRA {lora_rank}" if lora_rank else "full"
    cells = [name, stage, trained, f"{computed:.1f}"]
    if total_mib is None:
        return [*cells, "not run", "-", "-", "-", "-"]
    if computed > total_mib / 1024:
        return [*cells, "does not fit", "-", "-", "-", "-"]
    return cells + measured_cells(args, shape, stage, lora_rank, model)


# Arguments


def parse_arguments():
    """The arguments; args.shapes: {name of a model: Shape}."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--directory", required=True, help="for a model at a time, and what its training saves"
    )
    known_shapes = ", ".join(shapes.SHAPES)
    parser.add_argument(
        "--models",
        nargs="+",
        default=["llama3_8b", "llama3.2_1b"],
        help=f"{known_shapes}; a directory",
    )
    parser.add_argument("--stages", nargs="+", default=list(SCRIPTS), choices=SCRIPTS)
    parser.add_argument("--sequence", type=int, default=2048, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=13)
    parser.add_argument(
        "--peak_flops",
        type=float,
        default=989e12,
        help="of the GPU in bf16 (default: H100, H200 SXM)",
    )
    parser.add_argument("--flags", default="", help="more of them, for all trainings")
    args = parser.parse_args()
    args.shapes = {}
    for name in args.models:
        try:
            args.shapes[name] = load_shape(name)
        except (OSError, ValueError) as error:
            parser.error(
                f"--models {name}: none of {known_shapes}, nor a directory of a model ({error})"
            )
    if args.steps < WARM_UP + 2:
        parser.error(
            f"--steps {args.steps}: the first {WARM_UP} warm up, give {WARM_UP + 2} or more"
        )
    return args


def load_shape(name):
    """The Shape of a model that preflight/shapes.py lists, or of a model directory."""
    if name in shapes.SHAPES:
        return shapes.SHAPES[name]
    config = json.loads(Path(name, "config.json").read_text())
    return shapes.shape(config)


def main():
    args = parse_arguments()
    total_mib = gpu("memory.total")
    print(f"Rows of {args.sequence} tokens, a batch of {BATCH}:\n")
    print(tables.markdown(HEAD, []))
    for name, shape in args.shapes.items():
        # The model is removed afterwards: "random-" tells it from a directory of the user's.
        # The trainings run in the checkout, wherever this was called.
        model = Path(args.directory).resolve() / f"random-{Path(name).name}"
        for stage, lora_rank in itertools.product(args.stages, [0, LORA_RANK]):
            cells = cells_of_training(args, name, shape, stage, lora_rank, model, total_mib)
            print(tables.markdown_line(cells), flush=True)
        shutil.rmtree(model, ignore_errors=True)


if __name__ == "__main__":
    main()
