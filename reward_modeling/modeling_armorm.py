"""ArmoRM: heads for several objectives on a frozen backbone, and a gate that sees the prompt only.

2c_armorm.py saves this file beside the weights, so that the directory loads by itself:
    AutoModelForSequenceClassification.from_pretrained(directory, trust_remote_code=True)
"""

import itertools
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput


class ArmoRMConfig(PreTrainedConfig):
    model_type = "armorm"

    def __init__(
        self,
        backbone=None,
        objectives=(),
        gate_pattern=(),
        gate_layers=3,
        gate_size=1024,
        gate_dropout=0.2,
        **kwargs,
    ):
        """
        backbone: configuration of the language model, as a dictionary
        objectives: their names
        gate_pattern: the token ids with which every prompt ends, such as the end of a turn and the
            assistant's header
        gate_dropout: of the gate's hidden layers, while it is trained
        """
        backbone = backbone or {}
        self.backbone = backbone
        self.objectives = list(objectives)
        self.gate_pattern = list(gate_pattern)
        self.gate_layers = gate_layers
        self.gate_size = gate_size
        self.gate_dropout = gate_dropout
        text = backbone.get("text_config") or backbone
        self.max_position_embeddings = text.get("max_position_embeddings")
        super().__init__(**kwargs)


@dataclass
class ArmoRMOutput(ModelOutput):
    """
    logits: (batch, 1), score: (batch,)
    rewards: (batch, objectives), as the heads give them
    gating_output: (batch, objectives), sums to one
    """

    logits: torch.Tensor | None = None
    score: torch.Tensor | None = None
    rewards: torch.Tensor | None = None
    gating_output: torch.Tensor | None = None


class Gate(nn.Module):
    """Weights of the objectives, from the hidden state at the end of the prompt.

    An MLP and a softmax at temperature 10. Layers, dropout, temperature and the start of the scale
    are those of the published training code.
    """

    def __init__(self, config, hidden_size):
        super().__init__()
        sizes = [hidden_size, *[config.gate_size] * config.gate_layers]
        layers = []
        for size in itertools.pairwise(sizes):
            layers += [nn.Linear(*size), nn.ReLU(), nn.Dropout(config.gate_dropout)]
        self.mlp = nn.Sequential(*layers, nn.Linear(sizes[-1], len(config.objectives)))
        self.scale = nn.Parameter(torch.ones(1))  # of the score, learned

    def forward(self, prompt):
        """(batch, objectives) from (batch, hidden size)."""
        return (self.mlp(prompt) / 10).softmax(-1)

    def score(self, gates, rewards):
        """(batch,) from gates and corrected rewards, both (batch, objectives)."""
        return self.scale * (gates * rewards).sum(-1)


class ArmoRM(PreTrainedModel):
    config_class = ArmoRMConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        backbone = AutoConfig.for_model(**config.backbone)
        hidden_size = backbone.get_text_config().hidden_size
        count = len(config.objectives)
        self.model = AutoModel.from_config(backbone)
        self.regression_layer = nn.Linear(hidden_size, count, bias=False)
        # Column i takes lambda_i times the verbosity from objective i.
        self.reward_transform_matrix = nn.Parameter(torch.eye(count), requires_grad=False)
        self.gating = Gate(config, hidden_size)
        self.post_init()

    def features(self, input_ids, attention_mask):
        """Hidden states at the ends of the prompt and of the response, each (batch, hidden size).

        The prompt ends where its last gate_pattern begins: at the token that ends the question's
        turn, where the template has one. A chat without that pattern raises a ValueError.
        """
        pattern = torch.tensor(self.config.gate_pattern, device=input_ids.device)
        # (batch, tokens - len(pattern) + 1): does the pattern begin at this token?
        matches = (input_ids.unfold(1, len(pattern), 1) == pattern).all(-1)
        if not matches.any(-1).all():
            raise ValueError("a chat without the tokens that end its prompt")
        hidden = self.model(input_ids, attention_mask=attention_mask).last_hidden_state
        # The last position of a match, and of a token that is not padding: the largest index wins.
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        prompt_end = (matches * positions[: matches.shape[1]]).argmax(-1)
        response_end = (attention_mask * positions).argmax(-1)
        examples = torch.arange(len(hidden), device=hidden.device)
        return hidden[examples, prompt_end], hidden[examples, response_end]

    def forward(self, input_ids, attention_mask=None, **kwargs):
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        prompt, response = self.features(input_ids, attention_mask)
        gates = self.gating(prompt)
        rewards = self.regression_layer(response)
        score = self.gating.score(gates, rewards @ self.reward_transform_matrix)
        return ArmoRMOutput(
            logits=score[:, None], score=score, rewards=rewards, gating_output=gates
        )
