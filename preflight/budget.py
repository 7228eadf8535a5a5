"""Estimate the GPU memory and hours of a run from the model's shape; no weights are loaded.

footprint.py and compute.py hold the formulas. Without --stage the script prints a table of
docs/scale.md, for recipes/llama3_8b.sh, and what that table assumes; with --sizes the table of the
trainings of three sizes, full, with LoRA, and with QLoRA:

- GiB: estimates for the highest moment, for scoring the most, for generation the least; 2 for CUDA,
  NCCL and fragments, 4 for vLLM; a batch of 2. What comes within a tenth of the GPU's may not fit.
- Hours: 40% of the peak FLOP/s in training and scoring, 50% of the bandwidth or FLOP/s in
  generation. No evaluation. That 4-bit weights are dequantised in each pass is not counted.
- Data: 1e9 tokens to fine-tune on, Table 5's 848,965 preferences, 3 rounds of 20,000 prompts with 8
  responses and of 2 epochs of pairs; 200 tokens a prompt and 300 a response; a pair has its prompt
  once and no padding.

    python preflight/budget.py --stage dpo --gpus 8 --gib 80 --distributed zero3 \
        --sequence 2048 --batch 2
"""

import argparse
import sys
from dataclasses import dataclass

from compute import flops, generation_hours, hours_at_peak, scoring_hours, training_flops
from footprint import generation, scoring, training
from shapes import MACHINES, SHAPES, shape

# The work of the paper's run


@dataclass(frozen=True)
class Work:
    """The tokens that a stage processes; each of them attends to `context` tokens."""

    tokens: float
    context: int
    reference_tokens: int = 0  # that the reference model scores
    sequence: int = 0  # tokens of the longest row in training


ROUNDS = 3
PROMPTS = 20_000  # of a round
PREFERENCES = 848_965  # Table 5
EPOCHS = 2  # of a round's pairs
RESPONSE_TOKENS = 500  # with the prompt, which has 200
PAIR_TOKENS = 800  # of a prompt and two responses
TRAININGS = {
    "sft": Work(1e9, context=8192, sequence=8192),
    "reward_model": Work(PREFERENCES * PAIR_TOKENS, context=PAIR_TOKENS, sequence=4096),
    "dpo": Work(
        ROUNDS * EPOCHS * PROMPTS * PAIR_TOKENS,
        context=PAIR_TOKENS,
        reference_tokens=ROUNDS * PROMPTS * PAIR_TOKENS,
        sequence=2048,
    ),
}
WAYS = {  # of training a model
    "full": {},
    "LoRA 32": {"lora_rank": 32},
    "LoRA 32, 4-bit": {"lora_rank": 32, "four_bit": True},
}
RESPONSES = Work(ROUNDS * PROMPTS * 8 * RESPONSE_TOKENS, context=RESPONSE_TOKENS)


# The command

# Of --stage.
DEFAULTS = {
    "gpus": 8,
    "gib": 80.0,
    "sequence": 2048,
    "batch": 2,
    "lora_rank": 0,
    "distributed": "zero3",
    "load_in_4bit": False,
}
# {stage: the flags that have an effect}; for a training all of them.
FLAGS = {None: [], "generation": ["gib", "sequence"], "scoring": ["gib"]}


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.error = lambda message: sys.exit(f"budget.py: {message}")
    parser.add_argument(
        "--model", default="llama3_8b", help=f"{', '.join(SHAPES)}; a directory; a name on the hub"
    )
    parser.add_argument(
        "--stage", help="sft, reward_model, preference_model, dpo, generation or scoring: by part"
    )
    parser.add_argument("--sizes", action="store_true", help="the table of three sizes")
    for name, default in DEFAULTS.items():
        values = "ddp, zero2, zero3, zero3_offload or fsdp " if name == "distributed" else ""
        help_text = f"of --stage: {values}(default: {default})"
        kind = {"action": "store_true", "default": None}
        if default is not False:
            kind = {"type": type(default)}
        parser.add_argument(f"--{name}", help=help_text, **kind)
    args = parser.parse_args()
    if args.sizes and (args.stage or args.model != parser.get_default("model")):
        parser.error("--sizes: not with --stage or --model")
    for name, default in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
        elif name not in FLAGS.get(args.stage, DEFAULTS):
            stage = f"with --stage {args.stage}" if args.stage else "without --stage"
            parser.error(f"--{name}: without effect {stage}")
        elif name in ("gpus", "gib", "sequence", "batch") and getattr(args, name) <= 0:
            parser.error(f"--{name}: {getattr(args, name)} is not above 0")
    return args


def load_shape(name):
    """The Shape of a model that is listed here, in a directory or on the hub."""
    if name in SHAPES:
        return SHAPES[name]
    from transformers import AutoConfig  # takes seconds

    return shape(AutoConfig.from_pretrained(name).to_dict())


def stage_memory(model, args):
    """{part: GiB} of the stage that the arguments name."""
    if args.stage == "generation":
        return generation(model, sequence=args.sequence)
    if args.stage == "scoring":
        return scoring(model)
    return training(
        model,
        args.stage,
        gpus=args.gpus,
        sequence=args.sequence,
        batch=args.batch,
        distributed=args.distributed,
        lora_rank=args.lora_rank,
        four_bit=args.load_in_4bit,
    )


@dataclass(frozen=True)
class Estimate:
    """A line of the table: the stage, its GiB by part, its FLOPs and its hours."""

    title: str
    parts: dict
    flops: float
    hours: float


def training_estimates(model, machine, distributed, lora_rank=0, four_bit=False):
    """Yields the Estimate of each training, with a batch of 2."""
    for stage, work in TRAININGS.items():
        parts = training(
            model,
            stage,
            gpus=machine.gpus,
            sequence=work.sequence,
            batch=2,
            distributed=distributed,
            lora_rank=lora_rank,
            four_bit=four_bit,
        )
        computed = training_flops(
            model,
            stage,
            tokens=work.tokens,
            context=work.context,
            lora_rank=lora_rank,
            reference_tokens=work.reference_tokens,
        )
        title = f"{stage}, LoRA {lora_rank}" if lora_rank else f"{stage}, {distributed}"
        yield Estimate(title, parts, computed, hours_at_peak(machine, computed))


def response_estimates(model, machine):
    """Yields the Estimates of generating the responses of all rounds, and of scoring them."""
    tokens = RESPONSES.tokens
    context = RESPONSES.context
    memory = generation(model, sequence=model.max_length)
    hours = generation_hours(model, machine, tokens=tokens, context=context)
    yield Estimate("generation", memory, flops(model, tokens, context), hours)
    hours = scoring_hours(model, machine, tokens=tokens, context=context)
    yield Estimate("scoring", scoring(model), flops(model, tokens, context, head=False), hours)


def print_lines(machine, estimates):
    for estimate in estimates:
        parts = dict(estimate.parts)
        total = parts.pop("total")
        largest = sorted(parts, key=parts.get, reverse=True)[:3]
        largest = ", ".join(f"{name} {parts[name]:.0f}" for name in largest)
        time = "- | does not fit"
        if total <= machine.gib:
            time = f"{estimate.flops / 1e18:.3g} | {estimate.hours:.1f}"
        print(f"| {machine.name} | {estimate.title} | {total:.0f} | {largest} | {time} | not run |")


def print_table(model):
    """The table of docs/scale.md: the recipe on 8 GPUs, and what a single large one can do."""
    print("| GPUs | stage | GiB on each | of which | EFLOP | hours | measured |")
    print("| --- " * 7 + "|")
    machine = MACHINES["8x80"]
    print_lines(machine, training_estimates(model, machine, "zero3"))
    print_lines(machine, response_estimates(model, machine))
    machine = MACHINES["1x141"]
    print_lines(machine, training_estimates(model, machine, "ddp"))
    print_lines(machine, training_estimates(model, machine, "ddp", lora_rank=32))
    print_lines(machine, response_estimates(model, machine))


def print_sizes():
    """The trainings of three sizes: GiB on each GPU and hours, of sft / reward_model / dpo."""
    print("| model | trained | GPUs | GiB: " + " / ".join(TRAININGS) + " | hours | measured |")
    print("| --- " * 6 + "|")
    for name in ("llama3.2_1b", "llama3_8b", "llama3_70b"):
        for way, options in WAYS.items():
            for machine in (MACHINES["1x141"], MACHINES["8x80"]):
                by = "zero3" if way == "full" and machine.gpus > 1 else "ddp"
                estimates = [*training_estimates(SHAPES[name], machine, by, **options)]
                gib = " / ".join(f"{estimate.parts['total']:.0f}" for estimate in estimates)
                hours = " / ".join(hours_if_it_fits(machine, estimate) for estimate in estimates)
                print(f"| {name} | {way}, {by} | {machine.name} | {gib} | {hours} | not run |")


def hours_if_it_fits(machine, estimate):
    return f"{estimate.hours:.1f}" if estimate.parts["total"] <= machine.gib else "-"


def main():
    args = parse_arguments()
    try:
        model = load_shape(args.model)
        parts = stage_memory(model, args) if args.stage else {}
    except (OSError, ValueError) as error:
        sys.exit(f"{args.model}: {str(error).splitlines()[0]}")
    if not args.stage:
        if args.sizes:
            print_sizes()
        else:
            print_table(model)
        assumptions = __doc__.split("\n\n")[2]
        print(f"\n{assumptions}")
        return
    for part, size_in_gib in parts.items():
        print(f"{part:12}{size_in_gib:8.1f} GiB")
    if parts["total"] > args.gib:
        sys.exit(f"{args.stage}: does not fit into {args.gib:g} GiB")


if __name__ == "__main__":
    main()
