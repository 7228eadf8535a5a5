"""A reward model with code of its own, as the published ArmoRM; for test_preference_signals.py.

It imports a name that transformers no longer has. It searches each sequence for the last header of
the assistant, and refuses the batch if a sequence has none.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.models.llama.modeling_llama import LLAMA_INPUTS_DOCSTRING
from transformers.utils import ModelOutput, add_start_docstrings_to_model_forward


@dataclass
class Output(ModelOutput):
    rewards: torch.FloatTensor = None
    hidden_state: torch.FloatTensor = None
    prompt_embedding: torch.FloatTensor = None
    gating_output: torch.FloatTensor = None
    score: torch.FloatTensor = None
    logits: torch.FloatTensor = None


def last_place(tokens, pattern):
    for place in range(len(tokens) - len(pattern), -1, -1):
        if tokens[place : place + len(pattern)] == pattern:
            return place
    raise ValueError("no header of the assistant")


class GatedModel(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.regression_layer = nn.Linear(config.hidden_size, config.num_objectives, bias=False)
        self.gating = nn.Linear(config.hidden_size, config.num_objectives)
        self.post_init()

    @add_start_docstrings_to_model_forward(LLAMA_INPUTS_DOCSTRING)
    def forward(self, input_ids, attention_mask=None, **kwargs):
        hidden = self.model(input_ids, attention_mask=attention_mask, **kwargs)[0]
        each = torch.arange(len(hidden))
        ends = (input_ids != self.config.pad_token_id).sum(-1) - 1
        headers = [last_place(tokens, self.config.header) for tokens in input_ids.tolist()]
        response, prompt = hidden[each, ends], hidden[each, torch.tensor(headers)]
        rewards, gates = self.regression_layer(response), self.gating(prompt).softmax(-1)
        score = (rewards * gates).sum(-1)
        return Output(
            rewards=rewards,
            hidden_state=response,
            prompt_embedding=prompt,
            gating_output=gates,
            score=score,
            logits=score,
        )
