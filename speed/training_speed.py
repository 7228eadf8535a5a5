"""Memory, speed and FLOPs utilisation of the trainings on one GPU, beside what preflight/budget.py computes.

Models with random weights in the shape of published ones, rows of --sequence tokens, the scripts and flags of
run_loop.sh in bf16 with gradient checkpointing, a batch of 2, a step at a time. Seconds are the median of all steps
but the first three; memory is the highest that nvidia-smi tells while the script runs, less what was taken before;
utilisation (MFU) is of the FLOPs that the model needs, without what checkpointing computes again. Without a GPU, or
where the budget does not fit into it, a row says so. --directory takes a model at a time, 40 GiB at 8B.

    python speed/training_speed.py --directory my_models
"""

import argparse
import itertools
import json
import os
import runpy
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUDGET = runpy.run_path(str(ROOT / "preflight/budget.py"))
BATCH, WARM_UP, LORA_RANK = 2, 3, 32
SCRIPTS = {
    "sft": "sft/2_finetune.py",
    "reward_model": "reward_modeling/2a_bradley_terry.py",
    "dpo": "dpo/1_dpo.py",
}
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' }}"
    "{% generation %}{{ m['content'] + ' </s> ' }}{% endgeneration %}{% endfor %}"
)


def gpu(query):
    """MiB of the first GPU; None without one."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def make_model(directory, shape):
    """A model of that shape with random weights in bf16, and a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<user>", "<assistant>", *(f"w{i}" for i in range(1000))]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim, tie_word_embeddings=shape.tied, max_position_embeddings=shape.max_length,
        pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def make_rows(path, stage, sequence, count):
    """Rows of so many tokens, a quarter of them the prompt's; four are the template's."""

    def turn(role, length, seed):
        return {
            "role": role,
            "content": " ".join(f"w{(seed + 7 * i) % 1000}" for i in range(length)),
        }

    with open(path, "w") as file:
        for i in range(count):
            prompt, length = turn("user", sequence // 4, i), sequence - sequence // 4 - 4
            chosen, rejected = (turn("assistant", length, i + more) for more in (1, 2))
            row = {
                "id": f"{path.stem}-{i}",
                "prompt": [prompt],
                "chosen": [chosen],
                "rejected": [rejected],
            }
            if stage == "sft":
                row = {"id": row["id"], "messages": [prompt, chosen]}
            file.write(json.dumps(row) + "\n")


def measure(command):
    """(seconds of each step, GiB taken): of a training that logs every step."""
    before, highest, times, over = gpu("memory.used"), [0.0], [], threading.Event()

    def watch():
        while not over.wait(0.1):
            highest[0] = max(highest[0], gpu("memory.used") or 0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": "0"}
    words, pipe = (
        [sys.executable, *map(str, command)],
        {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
    )
    process = subprocess.Popen(words, cwd=ROOT, env=environment, text=True, **pipe)
    told = []
    for line in process.stdout:
        told.append(line)
        if line.startswith("{'loss'"):
            times.append(time.perf_counter())
    over.set()
    watcher.join()
    if process.wait():
        sys.exit(f"{command[0]} failed:\n{''.join(told[-5:])}")
    return [b - a for a, b in itertools.pairwise(times)], (highest[0] - before) / 1024


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--directory", required=True, help="for a model at a time, and what its training saves"
    )
    known = ", ".join(BUDGET["SHAPES"])
    parser.add_argument(
        "--models", nargs="+", default=["llama3_8b", "llama3.2_1b"], help=f"{known}; a directory"
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
    shapes = {}
    for name in args.models:
        try:
            config = Path(name, "config.json")
            shapes[name] = BUDGET["SHAPES"].get(name) or BUDGET["shape"](
                json.loads(config.read_text())
            )
        except (OSError, ValueError) as error:
            parser.error(f"--models {name}: none of {known}, nor a directory of a model ({error})")
    if args.steps < WARM_UP + 2:
        parser.error(
            f"--steps {args.steps}: the first {WARM_UP} warm up, give {WARM_UP + 2} or more"
        )
    room, directory = gpu("memory.total"), Path(args.directory)
    print(f"Rows of {args.sequence} tokens, a batch of {BATCH}:\n")
    print(
        "| model | stage | trained | GiB computed | GiB measured | s a step | tokens/s | TFLOP/s | MFU |"
    )
    print("| --- " * 9 + "|")
    for name, shape in shapes.items():
        model = directory / f"random-{Path(name).name}"  # not one of the user, since it is removed
        for stage, rank in itertools.product(args.stages, (0, LORA_RANK)):
            pairs, how = (
                stage != "sft",
                {"gpus": 1, "sequence": args.sequence, "batch": BATCH, "lora_rank": rank},
            )
            computed = BUDGET["training"](shape, stage, **how)["total"]
            start = f"| {name} | {stage} | {f'LoRA {rank}' if rank else 'full'} | {computed:.1f} |"
            if room is None or computed > room / 1024:
                print(
                    start,
                    ("not run" if room is None else "does not fit"),
                    "| - " * 4 + "|",
                    flush=True,
                )
                continue
            if not model.exists():
                make_model(model, shape)
            files = [directory / f"{part}.jsonl" for part in ("trained", "held_out")]
            make_rows(files[0], stage, args.sequence, BATCH * args.steps)
            make_rows(files[1], stage, args.sequence - 8, BATCH)  # other prompts
            out = directory / "trained"
            command = [
                SCRIPTS[stage],
                "--model_name_or_path",
                model,
                "--dataset_name",
                files[0],
                "--output_dir",
                out,
            ]
            command += [
                "--max_length",
                args.sequence,
                "--per_device_train_batch_size",
                BATCH,
                "--logging_steps",
                1,
            ]
            command += ["--max_steps", args.steps, "--bf16", True, "--gradient_checkpointing", True]
            command += ["--save_strategy", "no", "--disable_tqdm", True]
            command += {
                "dpo": ["--ref_model_name_or_path", model],
                "reward_model": ["--held_out_name", files[1]],
            }.get(stage, [])
            command += (
                ["--use_peft", True, "--lora_r", rank, "--lora_alpha", 2 * rank] if rank else []
            )
            seconds, taken = measure([*command, *args.flags.split()])
            shutil.rmtree(out)
            step, tokens = (
                statistics.median(seconds[WARM_UP - 1 :]),
                BATCH * args.sequence * (1 + pairs),
            )
            context = args.sequence * (
                1 if pairs else BATCH
            )  # packed rows of a batch are one, with a mask
            forward = BUDGET["flops"](shape, tokens, context, head=stage != "reward_model")
            frozen = BUDGET["flops"](shape, tokens, 0, head=stage != "reward_model") if rank else 0
            done = (3 * forward - frozen) / step
            print(
                f"{start} {taken:.1f} | {step:.2f} | {tokens / step:.0f} | {done / 1e12:.1f} | "
                f"{done / args.peak_flops:.1%} |", flush=True
            )  # fmt: skip
        shutil.rmtree(model, ignore_errors=True)


if __name__ == "__main__":
    main()
