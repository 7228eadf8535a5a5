"""Train ArmoRM: regression heads for rated objectives, then a gate that weighs them prompt by prompt.

Heads, on the frozen backbone's hidden state at the end of the response: ridge regression without intercept on ratings
scaled to [0, 1], missing ones left out, alpha chosen on a fifth of the rows. Ratings of held-out prompts teach nothing:
they tell the heads' correlations. Then r'_i = r_i - lambda_i r_verbosity, with the smallest lambda_i that brings the
Spearman correlation of r'_i with r_verbosity to 0.03 or less. Then the gate, on the hidden state at the end of the
prompt: loss -log sigmoid(R_chosen - R_rejected), R = scale * sum_i gate_i r'_i (Wang et al. 2024, arXiv 2406.12845; the
settings are those of their code). TrainingArguments' flags are the gate's.

Reads:  --ratings_name, {"id", "messages", "ratings": {objective: number or null}};
        --dataset_name and --held_out_name, {"id", "prompt", "chosen", "rejected"} from 1_preferences.py;
        --model_name_or_path, the backbone: a reward model or a fine-tuned model
Writes: --output_dir, a model that AutoModelForSequenceClassification loads with trust_remote_code=True, with
        trainer_state.json of the gate's training, and armorm.json: rows, alpha, lambda, correlation and weight of each
        objective, and how the score with and without the correction follows the length

    python reward_modeling/2c_armorm.py --model_name_or_path runs/tiny/reward_model \
        --ratings_name runs/tiny/world/ratings.jsonl --dataset_name runs/tiny/preferences.jsonl \
        --held_out_name runs/tiny/preferences_held_out.jsonl --output_dir runs/tiny/armorm
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from transformers import TrainingArguments
from trl import ModelConfig

import objectives
from common import models, outputs, rows, training, training_arguments


@dataclass
class Data:
    ratings_name: str = field(metadata={"help": "JSONL file of ratings"})
    dataset_name: str = field(metadata={"help": "JSONL file of preferences"})
    held_out_name: str = field(
        metadata={"help": "JSONL file of preferences for the accuracy; shares no prompt"}
    )
    verbosity: str = field(
        default="verbosity", metadata={"help": "the objective that the others are freed from"}
    )
    gate_size: int = field(
        default=1024, metadata={"help": "width of the gate's three hidden layers"}
    )
    batch_tokens: int = field(
        default=2048, metadata={"help": "tokens a batch of the backbone, padding included"}
    )


@dataclass
class Config(TrainingArguments):
    learning_rate: float = field(default=1e-3, metadata={"help": "peak learning rate of the gate"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule of the gate"})
    max_steps: int = field(default=2000, metadata={"help": "steps of the gate"})
    per_device_train_batch_size: int = field(default=1024, metadata={"help": "pairs a step"})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "the pairs are tensors, not columns"}
    )


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    rated, names, table = objectives.ratings_of(data.ratings_name)
    if data.verbosity not in names:
        sys.exit(
            f"{data.ratings_name}: ratings: no objective {data.verbosity!r} among {', '.join(names)}"
        )
    pairs = list(rows.read(data.dataset_name, "preferences"))
    held_out = list(rows.read(data.held_out_name, "preferences"))
    if {str(row["prompt"]) for row in pairs} & {str(row["prompt"]) for row in held_out}:
        sys.exit(f"{data.held_out_name}: prompt: some prompts stand in {data.dataset_name} too")
    training_args._n_gpu = (
        1  # with several at hand, Trainer would make the batch as many times larger
    )

    import numpy as np
    import torch
    from torch.nn.functional import logsigmoid
    from transformers import AutoModel, Trainer, set_seed

    from modeling_armorm import ArmoRM, ArmoRMConfig

    path = model_args.model_name_or_path
    tokenizer = models.tokenizer(path, (pairs[0].at("prompt"), pairs[0]["prompt"]))
    if tokenizer.pad_token is None:
        sys.exit(f"{path}: its tokenizer has no pad token")
    pattern = objectives.gate_pattern(tokenizer, path)
    if not pattern:
        sys.exit(
            f"{path}: its chat template marks no end of a prompt (no tokens that every prompt ends with)"
        )

    set_seed(training_args.seed)
    backbone = models.load(AutoModel, path, tokenizer, dtype=model_args.dtype or "float32")
    final, checkpoint = training.begin(training_args)
    config = ArmoRMConfig(
        backbone.config.to_dict(), names, pattern, gate_size=data.gate_size, dtype=backbone.dtype
    )
    model = ArmoRM(config)
    model.model = backbone
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    unfinished = Path(training_args.output_dir)

    def features_of(chats, name):
        """chats: [(FILE:LINE, messages)]"""
        file = (
            unfinished / f"checkpoint-{name}.pt"
        )  # goes, as all checkpoints, when the model is published
        return objectives.features_of(model, tokenizer, chats, data.batch_tokens, file)

    def compared(part, name):
        """Tensors (pairs, hidden size) by name, and the characters of the responses; pairs that fit the context."""
        both = features_of(list(training.compared_chats(part)), name)
        fit = [
            i for i in range(len(part)) if both[2 * i] is not None and both[2 * i + 1] is not None
        ]
        chosen, rejected = (torch.stack([both[2 * i + side] for i in fit]) for side in (0, 1))
        length = [
            [len(part[i][name][-1]["content"]) for name in ("chosen", "rejected")] for i in fit
        ]
        return {
            "prompt": chosen[:, 0],
            "chosen": chosen[:, 1],
            "rejected": rejected[:, 1],
        }, np.array(length).T.ravel()

    features = features_of([(row.at("messages"), row["messages"]) for row in rated], "ratings")
    fit = [i for i in range(len(rated)) if features[i] is not None]
    unseen = {str(row["prompt"]) for row in held_out}
    unseen = np.array([str(rated[i]["messages"][:-1]) in unseen for i in fit])
    responses = torch.stack([features[i][1] for i in fit]).numpy()
    weights, told = objectives.fit_heads(responses, np.array(table)[fit], unseen, names)
    model.regression_layer.weight.data.copy_(torch.tensor(weights))

    train, _ = compared(pairs, "pairs")
    rewards = np.concatenate([train["chosen"], train["rejected"]]) @ weights.T
    verbosity = rewards[:, names.index(data.verbosity)]
    for i, name in enumerate(names):
        told[name]["lambda"] = (
            1.0 if name == data.verbosity else objectives.penalty(rewards[:, i], verbosity)
        )
        model.reward_transform_matrix.data[names.index(data.verbosity), i] -= told[name]["lambda"]
    correct = model.reward_transform_matrix.detach().cpu()
    heads_of = torch.tensor(weights, dtype=torch.float32).T

    class GateTraining(torch.nn.Module):
        """Pairs of hidden states to the loss of the gate."""

        def __init__(self):
            super().__init__()
            self.gate = model.gating.float()
            self.register_buffer("rewards_of", heads_of @ correct)

        def forward(self, prompt, chosen, rejected):
            gates = self.gate(prompt)
            chosen, rejected = (
                self.gate.score(gates, part @ self.rewards_of) for part in (chosen, rejected)
            )
            return {
                "loss": -logsigmoid(chosen - rejected).mean(),
                "chosen": chosen,
                "rejected": rejected,
            }

    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return len(train["prompt"])

        def __getitems__(self, indices):
            return {name: part[indices] for name, part in train.items()}

    gate = GateTraining()
    trainer = Trainer(gate, training_args, train_dataset=Pairs(), data_collator=lambda batch: batch)
    training.train(trainer, checkpoint)

    judged, lengths = compared(held_out, "held_out")
    with torch.inference_mode():
        result = gate.to("cpu").eval()(**judged)
        accuracy = (result["chosen"] > result["rejected"]).float().mean().item()
        gates = gate.gate(judged["prompt"])
        raw = torch.cat([judged["chosen"], judged["rejected"]]) @ heads_of
        scores = {"corrected": raw @ correct, "uncorrected": raw}
        scores = {name: gate.gate.score(gates.repeat(2, 1), part) for name, part in scores.items()}
    for i, name in enumerate(names):
        told[name] |= {"gate": gates[:, i].mean().item(), "gate_std": gates[:, i].std().item()}
    length = {name: float(np.corrcoef(score, lengths)[0, 1]) for name, score in scores.items()}
    trainer.log({"eval_loss": result["loss"].item(), "eval_accuracy": accuracy})
    model.gating.to(backbone.dtype)
    ArmoRMConfig.register_for_auto_class()
    ArmoRM.register_for_auto_class("AutoModelForSequenceClassification")
    model.save_pretrained(training_args.output_dir)
    tokenizer.save_pretrained(training_args.output_dir)
    trainer.save_state()
    summary = {"objectives": told, "held_out_accuracy": accuracy, "correlation_with_length": length}
    outputs.write_json(unfinished / "armorm.json", summary)
    training.check_weights(trainer)
    print(json.dumps(summary, indent=2))
    rows.publish(training_args.output_dir, final)


if __name__ == "__main__":
    main()
