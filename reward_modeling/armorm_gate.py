"""For 2c_armorm.py: the training of ArmoRM's gate on hidden states of preference pairs."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import logsigmoid


@dataclass
class PairFeatures:
    """Hidden states of pairs, each (pairs, hidden size), float32 on the CPU."""

    prompt: torch.Tensor
    chosen: torch.Tensor
    rejected: torch.Tensor
    lengths: np.ndarray  # (2 * pairs,), characters of the chosen responses, then of the rejected

    def inputs(self):
        """The arguments of GateTraining.forward."""
        return {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected}

    def responses(self):
        """(2 * pairs, hidden size), first of the chosen responses, then of the rejected ones."""
        return torch.cat([self.chosen, self.rejected])


class PairDataset(torch.utils.data.Dataset):
    """Gives the Trainer a batch as slices of tensors, without a pass through single pairs."""

    def __init__(self, features):
        self.tensors = features.inputs()

    def __len__(self):
        return len(self.tensors["prompt"])

    def __getitems__(self, indices):
        return {name: tensor[indices] for name, tensor in self.tensors.items()}


class GateTraining(torch.nn.Module):
    """Hidden states of pairs to the loss of the gate; the heads are constant.

    heads: (objectives, hidden size). correction: (objectives, objectives), by which rewards are
    multiplied to take lambda_i times the verbosity from each objective.
    """

    def __init__(self, gate, heads, correction):
        super().__init__()
        self.gate = gate
        self.heads = heads.T
        self.correction = correction
        # (hidden size, objectives). A buffer moves to the device with the gate.
        corrected_heads = self.heads @ correction
        self.register_buffer("corrected_heads", corrected_heads)

    def forward(self, prompt, chosen, rejected):
        """prompt, chosen, rejected: (batch, hidden size). Returns the loss and scores (batch,)."""
        weights = self.gate(prompt)  # (batch, objectives)
        chosen_score = self.gate.score(weights, chosen @ self.corrected_heads)
        rejected_score = self.gate.score(weights, rejected @ self.corrected_heads)
        loss = -logsigmoid(chosen_score - rejected_score).mean()
        return {"loss": loss, "chosen": chosen_score, "rejected": rejected_score}


@dataclass
class Evaluation:
    loss: float
    accuracy: float
    weights: torch.Tensor  # (pairs, objectives), of the gate
    correlation_with_length: dict  # {"corrected", "uncorrected": Pearson's correlation}


@torch.inference_mode()
def evaluate(gate_training, pairs):
    """The gate on held-out PairFeatures, on the CPU."""
    gate_training.to("cpu").eval()
    output = gate_training(**pairs.inputs())
    is_right = output["chosen"] > output["rejected"]
    # The gate sees the prompt only: both responses have the same weights.
    gate = gate_training.gate
    weights = gate(pairs.prompt)
    uncorrected = pairs.responses() @ gate_training.heads  # (2 * pairs, objectives)
    corrected = uncorrected @ gate_training.correction
    correlations = {}
    for name, rewards in {"corrected": corrected, "uncorrected": uncorrected}.items():
        scores = gate.score(weights.repeat(2, 1), rewards)
        correlations[name] = float(np.corrcoef(scores, pairs.lengths)[0, 1])
    return Evaluation(
        loss=output["loss"].item(),
        accuracy=is_right.float().mean().item(),
        weights=weights,
        correlation_with_length=correlations,
    )
