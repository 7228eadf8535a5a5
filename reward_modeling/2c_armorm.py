"""Train ArmoRM: a regression head for each rated objective, then a gate that weighs them by prompt.

Wang et al. 2024, arXiv 2406.12845; the settings are those of their code. A chat is usable if it
fits the context and holds the tokens that end its prompt; others are counted. Three steps:

1. Heads, on the frozen backbone's hidden state at the end of the response: ridge regressions
   without intercept on ratings scaled to [0, 1]. Missing ratings are left out; alpha is chosen on a
   fifth of the rows. Ratings whose prompt is in the held-out file are left out of the fit; each
   head's correlation is measured on them.
2. Correction for length: r'_i = r_i - lambda_i r_verbosity, with the smallest lambda_i that brings
   the Spearman correlation of r'_i with r_verbosity to 0.03 or less.
3. Gate, on the hidden state at the end of the prompt: loss -log sigmoid(R_chosen - R_rejected),
   R = scale * sum_i gate_i r'_i. TrainingArguments' flags are the gate's.

Reads:  --ratings_name, {"id", "messages", "ratings": {objective: number or null}};
        --dataset_name and --held_out_name, {"id", "prompt", "chosen", "rejected"} from
        1_preferences.py;
        --model_name_or_path, the backbone: a reward model or a fine-tuned model
Writes: --output_dir, a model that AutoModelForSequenceClassification loads with
        trust_remote_code=True, with trainer_state.json of the gate's training, and armorm.json:
        rows, alpha, lambda, correlation and weight of each objective, and the correlation of the
        score with the length, with and without the correction

    python reward_modeling/2c_armorm.py --model_name_or_path runs/tiny/reward_model \
        --ratings_name runs/tiny/world/ratings.jsonl --dataset_name runs/tiny/preferences.jsonl \
        --held_out_name runs/tiny/preferences_held_out.jsonl --output_dir runs/tiny/armorm
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from trl import ModelConfig

import objectives
import training_pairs
from common import models, outputs, rows, training, training_arguments


@dataclass
class Data:
    ratings_name: str = field(metadata={"help": "JSONL file of ratings"})
    dataset_name: str = field(metadata={"help": "JSONL file of preferences"})
    held_out_name: str = field(
        metadata={"help": "JSONL file of preferences for the accuracy; shares no prompt"}
    )
    verbosity: str = field(
        default="verbosity",
        metadata={
            "help": "objective that stands for length; its correlation with the others is removed"
        },
    )
    gate_size: int = field(
        default=1024, metadata={"help": "width of the gate's three hidden layers"}
    )
    batch_tokens: int = field(
        default=2048, metadata={"help": "tokens per batch of the backbone, padding included"}
    )


@dataclass
class Config(TrainingArguments):
    learning_rate: float = field(default=1e-3, metadata={"help": "peak learning rate of the gate"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "schedule of the gate"})
    max_steps: int = field(default=2000, metadata={"help": "steps of the gate"})
    per_device_train_batch_size: int = field(default=1024, metadata={"help": "pairs per step"})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "the pairs are tensors, not columns"}
    )


# Inputs


def read_ratings(data):
    ratings = objectives.read_ratings(data.ratings_name)
    if data.verbosity not in ratings.objectives:
        names = ", ".join(ratings.objectives)
        reason = f"no objective {data.verbosity!r} among {names}"
        sys.exit(f"{data.ratings_name}: ratings: {reason}")
    return ratings


def load_tokenizer(path, row):
    """The tokenizer, and the token ids with which its template ends every prompt."""
    # (place for messages, messages to try the template on)
    example = (row.at("prompt"), row["prompt"])
    tokenizer = models.tokenizer(path, example)
    if tokenizer.pad_token is None:
        sys.exit(f"{path}: its tokenizer has no pad token")
    pattern = objectives.gate_pattern(tokenizer, path)
    if not pattern:
        reason = "no tokens that every prompt ends with"
        sys.exit(f"{path}: its chat template marks no end of a prompt ({reason})")
    return tokenizer, pattern


# The model and its hidden states


def new_model(language_model, objective_names, gate_pattern, gate_size):
    """An ArmoRM around a trained language model: heads and gate are still to be trained."""
    import torch

    from modeling_armorm import ArmoRM, ArmoRMConfig

    config = ArmoRMConfig(
        language_model.config.to_dict(),
        objective_names,
        gate_pattern,
        gate_size=gate_size,
        dtype=language_model.dtype,
    )
    # ArmoRM() builds a random backbone, which the trained one replaces.
    model = ArmoRM(config)
    model.model = language_model
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


@dataclass
class Backbone:
    """The frozen language model, for the hidden states of chats."""

    model: Any  # ArmoRM
    tokenizer: Any
    batch_tokens: int
    folder: Path

    def features_of(self, chats, name):
        """As objectives.features_of; the features are kept in the file checkpoint-NAME.pt."""
        # It is deleted when the model is published, like all checkpoints.
        file = self.folder / f"checkpoint-{name}.pt"
        return objectives.features_of(self.model, self.tokenizer, chats, self.batch_tokens, file)

    def pair_features(self, pairs, name):
        """The PairFeatures of those pairs of which both chats are usable; exit if there is none."""
        import numpy as np
        import torch

        from armorm_gate import PairFeatures

        features = self.features_of(list(training_pairs.compared_chats(pairs)), name)
        # Each entry is (2, hidden size): [end of the prompt, end of the response].
        chosen = []
        rejected = []
        lengths = []
        # compared_chats yields the chosen and the rejected side of a pair by turns.
        for row, first, second in zip(pairs, features[::2], features[1::2], strict=True):
            if first is None or second is None:
                continue
            chosen.append(first)
            rejected.append(second)
            lengths.append([len(row[side][-1]["content"]) for side in ("chosen", "rejected")])
        if not chosen:
            file = pairs[0].place.rpartition(":")[0]
            sys.exit(f"{file}: no pair has two usable chats")
        chosen = torch.stack(chosen)
        rejected = torch.stack(rejected)
        return PairFeatures(
            prompt=chosen[:, 0],
            chosen=chosen[:, 1],
            rejected=rejected[:, 1],
            # From (pairs, 2) to all chosen responses, then all rejected ones.
            lengths=np.array(lengths).T.ravel(),
        )


# Training


def fit_heads(backbone, ratings, held_out):
    """Weights of the heads (objectives, hidden size), and {objective: summary}."""
    import numpy as np
    import torch

    chats = [(row.at("messages"), row["messages"]) for row in ratings.rows]
    features = backbone.features_of(chats, "ratings")
    usable = [i for i in range(len(chats)) if features[i] is not None]
    # [0] is the hidden state at the end of the prompt, [1] the one at the end of the response.
    responses = torch.stack([features[i][1] for i in usable]).numpy()
    held_out_prompts = training_pairs.prompts_of(held_out)
    is_held_out = []
    for i in usable:
        prompt = ratings.rows[i]["messages"][:-1]
        is_held_out.append(training_pairs.prompt_key(prompt) in held_out_prompts)
    table = np.array(ratings.table)[usable]
    return objectives.fit_heads(responses, table, np.array(is_held_out), ratings.objectives)


def remove_verbosity(model, heads, pairs, names, verbosity):
    """Fill the model's correction matrix; {objective: lambda}.

    pairs: PairFeatures. The corrected rewards are rewards @ matrix. The matrix starts as the
    identity; its column i then takes lambda_i times the verbosity from objective i.
    """
    rewards = pairs.responses().numpy() @ heads.T  # (responses, objectives)
    verbosity_index = names.index(verbosity)
    lambdas = {}
    for i, name in enumerate(names):
        if name == verbosity:
            # Nothing of verbosity itself is left in the score.
            lambdas[name] = 1.0
        else:
            lambdas[name] = objectives.penalty(rewards[:, i], rewards[:, verbosity_index])
        model.reward_transform_matrix.data[verbosity_index, i] -= lambdas[name]
    return lambdas


def train_gate(gate, pairs, training_args, checkpoint):
    """The Trainer, after the training of a GateTraining."""
    from transformers import Trainer

    from armorm_gate import PairDataset

    # PairDataset's __getitems__ gives the loader a batch in one piece: there is nothing to collate.
    trainer = Trainer(
        gate,
        training_args,
        train_dataset=PairDataset(pairs),
        data_collator=lambda batch: batch,
    )
    training.train(trainer, checkpoint)
    return trainer


def save(model, tokenizer, folder):
    """Save a model directory that loads by itself, with its code."""
    from modeling_armorm import ArmoRM, ArmoRMConfig

    # The gate was trained in float32.
    model.gating.to(model.model.dtype)
    ArmoRMConfig.register_for_auto_class()
    ArmoRM.register_for_auto_class("AutoModelForSequenceClassification")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main():
    data, training_args, model_args = training_arguments.parse(Data, Config, ModelConfig)
    ratings = read_ratings(data)
    names = ratings.objectives
    pairs, held_out = training_pairs.lists(data, training_args)
    # This script is a single process. With several GPUs at hand Trainer would use DataParallel, and
    # make the batch as many times larger.
    training_args._n_gpu = 1

    import torch
    from transformers import AutoModel, set_seed

    from armorm_gate import GateTraining, evaluate

    path = model_args.model_name_or_path
    tokenizer, pattern = load_tokenizer(path, pairs[0])
    set_seed(training_args.seed)
    language_model = models.load(AutoModel, path, tokenizer, dtype=model_args.dtype or "float32")
    final, checkpoint = training.begin(training_args)
    # training.begin has set output_dir to a partial folder, which rows.publish renames to `final`.
    unfinished = Path(training_args.output_dir)
    model = new_model(language_model, names, pattern, data.gate_size)
    backbone = Backbone(model, tokenizer, data.batch_tokens, unfinished)

    # 1. Heads
    heads, summaries = fit_heads(backbone, ratings, held_out)
    model.regression_layer.weight.data.copy_(torch.tensor(heads))

    # 2. Correction
    train_features = backbone.pair_features(pairs, "pairs")
    lambdas = remove_verbosity(model, heads, train_features, names, data.verbosity)

    # 3. Gate
    head_weights = torch.tensor(heads, dtype=torch.float32)
    correction = model.reward_transform_matrix.detach().cpu()
    gate = GateTraining(model.gating.float(), head_weights, correction)
    trainer = train_gate(gate, train_features, training_args, checkpoint)
    result = evaluate(gate, backbone.pair_features(held_out, "held_out"))
    for i, name in enumerate(names):
        summaries[name]["lambda"] = lambdas[name]
        summaries[name]["gate"] = result.weights[:, i].mean().item()
        summaries[name]["gate_std"] = result.weights[:, i].std().item()
    trainer.log({"eval_loss": result.loss, "eval_accuracy": result.accuracy})

    save(model, tokenizer, unfinished)
    trainer.save_state()
    summary = {
        "objectives": summaries,
        "held_out_accuracy": result.accuracy,
        "correlation_with_length": result.correlation_with_length,
    }
    outputs.write_json(unfinished / "armorm.json", summary)
    training.check_weights(trainer)
    print(json.dumps(summary, indent=2))
    rows.publish(training_args.output_dir, final)


if __name__ == "__main__":
    main()
