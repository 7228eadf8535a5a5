"""Losses on pairs that TRL's DPOTrainer does not have: SLiC-HF, SPPO, XPO, SELM, RPO.

Notation: log pi(y) is summed over the tokens of a response y; l(y) = log pi(y) / pi_ref(y), the
log-ratio; D = l(chosen) - l(rejected). The functions return one loss for each pair, (batch,).
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid, relu
from trl import DPOTrainer
from trl.trainer import dpo_trainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import pad

from common import packing

# TRL names its cache of the reference's log-probabilities by a hash of all weights, about
# ten seconds a billion. The cache lies in the folder of this run, where a constant will do.
dpo_trainer.hash_module = lambda _: "reference"

TRL_LOSSES = (
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
)

# The losses of this file, each with the fields that it reads beside prompt, chosen and rejected.
EXTRA_FIELDS = {
    "slic": [],
    "sppo": ["chosen_win_probability", "rejected_win_probability"],
    "xpo": ["explored"],
    "selm": ["explored"],
    "rpo": [],
}


def slic(chosen_logp, rejected_logp, delta, weight):
    """SLiC-HF (arXiv 2305.10425): max(0, delta - log pi(y_w) + log pi(y_l)) - weight log pi(y_w).

    A margin loss; the regulariser's target is the chosen response. It needs no reference.
    """
    return relu(delta - chosen_logp + rejected_logp) - weight * chosen_logp


def sppo(chosen_ratio, rejected_ratio, chosen_probability, rejected_probability, beta):
    """SPPO (arXiv 2405.00675): 1/2 sum over both responses of (l(y) - (P(y) - 1/2) / beta)^2.

    P(y): the probability that y wins against the policy's other responses. The reference of the
    log-ratios is the previous round's policy there.
    """
    chosen_target = (chosen_probability - 0.5) / beta
    rejected_target = (rejected_probability - 0.5) / beta
    return ((chosen_ratio - chosen_target) ** 2 + (rejected_ratio - rejected_target) ** 2) / 2


def optimistic(chosen_ratio, rejected_ratio, explored_logp, beta, weight):
    """XPO and SELM: -log sigmoid(beta D) + weight log pi(y).

    DPO that is pushed away from an explored response y that is likely already. XPO
    (arXiv 2405.21046): y is sampled from pi_ref, the weight is alpha. SELM (arXiv 2405.19332): y is
    greedy from the policy, the weight is alpha beta; SELM's l(y) differs from log pi(y) by a
    constant.
    """
    return -logsigmoid(beta * (chosen_ratio - rejected_ratio)) + weight * explored_logp


def rpo(chosen_ratio, rejected_ratio, chosen_logp, chosen_lengths, beta, alpha):
    """Iterative RPO (arXiv 2404.19733): -log sigmoid(beta D) - alpha log pi(y_w) / |y_w|.

    The likelihood of each chosen response is divided by its own length in tokens, so that a short
    response counts as much as a long one. TRL's `sft` is the mean over all tokens of a batch.
    """
    likelihood = alpha * chosen_logp / chosen_lengths
    return -logsigmoid(beta * (chosen_ratio - rejected_ratio)) - likelihood


@dataclass
class Collator(DataCollatorForPreference):
    """TRL's batch of all chosen, then all rejected sequences; then all explored ones, if any.

    Examples may have masks: "chosen_mask" tells which tokens of "chosen_ids" the loss counts, and
    so on. The win probabilities of SPPO are added, (pairs,) each.
    """

    def torch_call(self, examples):
        batch = super().torch_call(examples)
        if "chosen_mask" in examples[0]:
            self.mask_turns(batch, examples)
        # The pass that precomputes the reference's log-probabilities needs TRL's batch alone.
        if "ref_chosen_logps" not in examples[0]:
            return batch
        for name in EXTRA_FIELDS["sppo"]:
            if name in examples[0]:
                batch[name] = torch.tensor([example[name] for example in examples])
        if "explored_ids" in examples[0]:
            self.append_explored(batch, examples)
        return batch

    def mask_turns(self, batch, examples):
        """Take the tokens of other turns than the assistant's out of the completion mask."""
        masks = []
        for side in ("chosen_mask", "rejected_mask"):
            for example in examples:
                of_prompt = [0] * len(example["prompt_ids"])
                masks.append(of_prompt + example[side])
        kept = slice(self.max_length)
        if self.max_length and self.truncation_mode == "keep_end":
            kept = slice(-self.max_length, None)
        for sequence, mask in zip(batch["completion_mask"], masks, strict=True):
            # The padding is on the right.
            mask = torch.tensor(mask[kept])
            sequence[: len(mask)] = mask

    def append_explored(self, batch, examples):
        """Append the explored sequences: (2 x pairs, length) becomes (3 x pairs, length)."""
        input_ids = [*batch["input_ids"]]
        attention_mask = [*batch["attention_mask"]]
        completion_mask = [*batch["completion_mask"]]
        for example in examples:
            token_ids = example["prompt_ids"] + example["explored_ids"]
            sequence = torch.tensor(token_ids[: self.max_length])
            in_response = torch.arange(len(sequence)) >= len(example["prompt_ids"])
            input_ids.append(sequence)
            attention_mask.append(torch.ones_like(sequence))
            completion_mask.append(in_response.long())
        batch["input_ids"] = pad(input_ids, self.pad_token_id, padding_side="right")
        batch["attention_mask"] = pad(attention_mask, 0, padding_side="right")
        batch["completion_mask"] = pad(completion_mask, 0, padding_side="right")


class TokenTrainer(DPOTrainer):
    """TRL's DPOTrainer on tokenised pairs: {"prompt_ids", "chosen_ids", "rejected_ids"}.

    With --packed the model and its reference compute packed rows (common/packing.py).
    """

    def _prepare_dataset(self, dataset, *_):
        return dataset

    def _precompute_ref_logps(self, dataset, *args):
        """The dataset with the reference's log-probabilities; the reference is then given up."""
        if "ref_chosen_logps" not in dataset.column_names:
            dataset = super()._precompute_ref_logps(dataset, *args)
        self.ref_model = None
        return dataset

    def packed(self, model, sides=2):
        """The model as it is called here. sides: the sequences of a pair in the batch."""
        if not self.args.packed:
            return model
        return packing.PackedModel(model, self.model.config, sides)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return super().compute_loss(self.packed(model), inputs, return_outputs, num_items_in_batch)

    def compute_ref_log_probs(self, model, inputs):
        return super().compute_ref_log_probs(self.packed(model), inputs)


class PairTrainer(TokenTrainer):
    """TRL's DPOTrainer with one of the losses above that compare with a reference.

    The batch holds the reference's log-probabilities, which were computed before training.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        args = self.args
        loss_name = args.loss_type[0]
        sides = 3 if "explored" in EXTRA_FIELDS[loss_name] else 2
        logps = self.response_logps(self.packed(model, sides), inputs)
        # (pairs,) each, in the order of the collator; explored is empty where the loss has none.
        chosen_logp, rejected_logp, *explored_logp = logps.chunk(sides)
        chosen_ratio = chosen_logp - inputs["ref_chosen_logps"]
        rejected_ratio = rejected_logp - inputs["ref_rejected_logps"]

        if loss_name == "sppo":
            probabilities = [inputs[name] for name in EXTRA_FIELDS["sppo"]]
            losses = sppo(chosen_ratio, rejected_ratio, *probabilities, args.beta)
        elif loss_name == "rpo":
            lengths = inputs["completion_mask"][: len(chosen_logp)].sum(dim=1)
            losses = rpo(
                chosen_ratio, rejected_ratio, chosen_logp, lengths, args.beta, args.rpo_alpha
            )
        else:
            weight = args.optimism
            if loss_name == "selm":
                weight *= args.beta
            losses = optimistic(chosen_ratio, rejected_ratio, *explored_logp, args.beta, weight)

        self.log_logps(chosen_logp, rejected_logp, inputs["attention_mask"])
        self.log_rewards(chosen_ratio, rejected_ratio)
        return losses.mean()

    def response_logps(self, model, inputs):
        """(sequences,): log pi(y) of each sequence of a batch, without the prompt's tokens."""
        # A token with the label -100 adds 0 to the sum.
        outside_response = inputs["completion_mask"] == 0
        labels = inputs["input_ids"].masked_fill(outside_response, -100)
        output = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            labels=labels,
            use_cache=False,
            fused_lm_head=True,
        )
        return output.log_probs.sum(dim=1)

    def log_logps(self, chosen_logp, rejected_logp, attention_mask):
        """Log-probabilities, and the tokens that were trained on so far, of all processes."""
        self.log_mean("logps/chosen", chosen_logp)
        self.log_mean("logps/rejected", rejected_logp)
        tokens = self.accelerator.gather(attention_mask.sum())
        self._total_train_tokens += tokens.sum().item()
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]

    def log_rewards(self, chosen_ratio, rejected_ratio):
        """What TRL logs of the implicit rewards beta l(y)."""
        chosen_reward = self.args.beta * chosen_ratio
        rejected_reward = self.args.beta * rejected_ratio
        self.log_mean("rewards/chosen", chosen_reward)
        self.log_mean("rewards/rejected", rejected_reward)
        self.log_mean("rewards/accuracies", (chosen_reward > rejected_reward).float())
        self.log_mean("rewards/margins", chosen_reward - rejected_reward)

    def log_mean(self, name, values):
        mean = self.accelerator.gather(values.detach()).mean().item()
        self._metrics["train"][name].append(mean)


class SlicTrainer(PairTrainer):
    """TRL's DPOTrainer with SLiC-HF, which has no reference and no implicit rewards."""

    def _precompute_ref_logps(self, dataset, *_):
        return dataset

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        logps = self.response_logps(self.packed(model), inputs)
        chosen_logp, rejected_logp = logps.chunk(2)
        self.log_logps(chosen_logp, rejected_logp, inputs["attention_mask"])
        losses = slic(chosen_logp, rejected_logp, self.args.slic_delta, self.args.slic_weight)
        return losses.mean()
