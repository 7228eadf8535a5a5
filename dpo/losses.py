"""Losses on pairs that TRL's DPOTrainer does not have: SLiC-HF, SPPO, XPO, SELM, RPO.

l = log pi(y)/pi_ref(y), the log-probabilities summed over the tokens of a response; D = l_chosen - l_rejected.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid, relu
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import pad

OF_TRL = (
    "sigmoid hinge ipo exo_pair nca_pair robust bco_pair sppo_hard aot aot_unpaired apo_zero apo_down discopop sft "
    "sigmoid_norm"
).split()
NEEDS = {  # fields of a pair beyond prompt, chosen and rejected
    "slic": [],
    "sppo": ["chosen_win_probability", "rejected_win_probability"],
    "xpo": ["explored"],
    "selm": ["explored"],
    "rpo": [],
}


def slic(chosen, rejected, delta, weight):
    """max(0, delta - log pi(y_w) + log pi(y_l)) - weight log pi(y_w): a margin, and the best response as the target of
    the regulariser (SLiC-HF, arXiv 2305.10425). chosen, rejected: (batch,) log pi. Needs no reference."""
    return relu(delta - chosen + rejected) - weight * chosen


def sppo(chosen, rejected, chosen_probability, rejected_probability, beta):
    """1/2 sum over both of (l - (P - 1/2) / beta)^2, P the probability to win against the policy's other responses
    (SPPO, arXiv 2405.00675). chosen, rejected: (batch,) l, whose reference is the previous round's policy there."""
    target = [(p - 0.5) / beta for p in (chosen_probability, rejected_probability)]
    return ((chosen - target[0]) ** 2 + (rejected - target[1]) ** 2) / 2


def optimistic(chosen, rejected, explored, beta, weight):
    """-log sigmoid(beta D) + weight log pi(y): DPO that is pushed away from a response y that is likely already.

    XPO (arXiv 2405.21046): y from pi_ref, weight alpha. SELM (arXiv 2405.19332): y greedy from the policy,
    weight alpha beta; its l(y) differs from log pi(y) by a constant. chosen, rejected: (batch,) l; explored: log pi."""
    return -logsigmoid(beta * (chosen - rejected)) + weight * explored


def rpo(chosen, rejected, chosen_logp, lengths, beta, alpha):
    """-log sigmoid(beta D) - alpha log pi(y_w) / |y_w| (iterative RPO, arXiv 2404.19733): each chosen response's
    likelihood is divided by its own length, so that a short one counts as much as a long one. TRL's `sft` is the mean
    over all tokens of a batch. chosen, rejected: (batch,) l; chosen_logp: (batch,) log pi; lengths: (batch,) tokens."""
    return -logsigmoid(beta * (chosen - rejected)) - alpha * chosen_logp / lengths


@dataclass
class Collator(DataCollatorForPreference):
    """TRL's batch of chosen, then rejected sequences; explored ones follow, and the probabilities to win."""

    def torch_call(self, examples):
        batch = super().torch_call(examples)
        if "ref_chosen_logps" not in examples[0]:  # the reference's own pass
            return batch
        for name in NEEDS["sppo"]:
            if name in examples[0]:
                batch[name] = torch.tensor([example[name] for example in examples])
        if "explored_ids" in examples[0]:
            whole = [
                torch.tensor((e["prompt_ids"] + e["explored_ids"])[: self.max_length])
                for e in examples
            ]
            starts = [len(example["prompt_ids"]) for example in examples]
            masks = [
                (torch.arange(len(i)) >= start).long()
                for i, start in zip(whole, starts, strict=True)
            ]
            more = {
                "input_ids": whole,
                "attention_mask": [torch.ones_like(m) for m in masks],
                "completion_mask": masks,
            }
            for name, tensors in more.items():
                filler = self.pad_token_id if name == "input_ids" else 0
                batch[name] = pad(
                    [*batch[name], *tensors], padding_value=filler, padding_side="right"
                )
        return batch


class TokenTrainer(DPOTrainer):
    """TRL's DPOTrainer on pairs that are tokens already: {"prompt_ids", "chosen_ids", "rejected_ids"}."""

    def _prepare_dataset(self, dataset, *_):
        return dataset


class PairTrainer(TokenTrainer):
    """TRL's DPOTrainer with one of the losses above; reads the log-probabilities of the reference from the batch."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        tokens = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        logps = model(**tokens, labels=labels, use_cache=False, fused_lm_head=True).log_probs.sum(
            dim=1
        )
        chosen, rejected, *explored = logps.split(len(inputs["ref_chosen_logps"]))
        ratios = chosen - inputs["ref_chosen_logps"], rejected - inputs["ref_rejected_logps"]
        (name,), args = self.args.loss_type, self.args
        if name == "slic":
            losses = slic(chosen, rejected, args.slic_delta, args.slic_weight)
        elif name == "sppo":
            losses = sppo(*ratios, *(inputs[field] for field in NEEDS["sppo"]), args.beta)
        elif name == "rpo":
            lengths = inputs["completion_mask"][: len(chosen)].sum(dim=1)
            losses = rpo(*ratios, chosen, lengths, args.beta, args.rpo_alpha)
        else:
            weight = args.optimism * (args.beta if name == "selm" else 1)
            losses = optimistic(*ratios, *explored, args.beta, weight)
        rewards = [args.beta * ratio.detach() for ratio in ratios]
        for key, value in {
            "logps/chosen": chosen.detach(),
            "logps/rejected": rejected.detach(),
            "rewards/chosen": rewards[0],
            "rewards/rejected": rewards[1],
            "rewards/accuracies": (rewards[0] > rewards[1]).float(),
            "rewards/margins": rewards[0] - rewards[1],
        }.items():
            self._metrics["train"][key].append(self.accelerator.gather(value).mean().item())
        self._total_train_tokens += (
            self.accelerator.gather(tokens["attention_mask"].sum()).sum().item()
        )
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return losses.mean()
