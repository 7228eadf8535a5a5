"""The hours of a round's steps, computed before there are any to go by. For check.py.

Assumed are compute.py's shares of a GPU's peak, and the lengths of budget.py's table.
"""

import subprocess

import budget
import compute
import shapes
from needs import number, value
from settings import lora_rank, policy_shape, processes, scoring_models, shape_of


def hours_by_step(gpu_gib, reachable):
    """{kind of step, as iter/responses: hours} of those that can be computed."""
    name, rates = gpu_and_rates()
    policy = policy_shape(reachable)
    # With a tool it is not known how many turns a response will have.
    if not (rates and policy) or value("TOOL") != "none":
        return {}
    machine = shapes.Machine(name, processes(), gpu_gib, *rates)
    prompts = number("PROMPTS_PER_ITERATION")
    tokens = prompts * number("N") * budget.RESPONSE_TOKENS
    hours = {}
    generation = compute.generation_hours(
        policy,
        machine,
        tokens=tokens,
        context=budget.RESPONSE_TOKENS,
        tensor_parallel=number("TENSOR_PARALLEL") or 1,
    )
    if generation < float("inf"):  # it fits; the check of the memory says so otherwise
        hours["iter/responses"] = generation
    reward_model = shape_of(dict(scoring_models()).get("REWARD_MODEL", ""), reachable)
    if value("ANNOTATOR") == "reward_model" and reward_model:
        hours["iter/rewards"] = compute.scoring_hours(
            reward_model, machine, tokens=tokens, context=budget.RESPONSE_TOKENS
        )
    if value("OPTIMISER") == "dpo":
        pair_tokens = prompts * budget.PAIR_TOKENS
        hours["iter/pairs_reference"] = compute.hours_at_peak(
            machine, compute.flops(policy, pair_tokens, budget.PAIR_TOKENS)
        )
        hours["iter/policy"] = compute.training_hours(
            policy,
            "dpo",
            machine,
            tokens=float(value("DPO_EPOCHS")) * pair_tokens,
            context=budget.PAIR_TOKENS,
            lora_rank=lora_rank("dpo"),
        )
    return hours


def gpu_and_rates():
    """(name, (bf16 FLOP/s, bytes/s)) of this machine's first GPU, ("", None) if it is unknown."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        names = subprocess.run(command, capture_output=True, text=True).stdout
    except FileNotFoundError:
        return "", None
    for name, rates in shapes.GPU_RATES.items():
        if name in names.partition("\n")[0]:
            return name, rates
    return "", None


def write(hours, file):
    """A line for each kind of step: its name and its seconds, for run_loop.sh."""
    with open(file, "w", encoding="utf-8") as lines:
        for step, count in hours.items():
            lines.write(f"{step} {round(3600 * count)}\n")
