"""Layers whose initial weights come from a given generator."""

import torch
from torch import nn


def linear(inputs: int, outputs: int, generator: torch.Generator | None = None) -> nn.Linear:
    """A linear layer whose initial weights come from `generator`; None uses torch's global one, left alone otherwise."""
    if generator is None:
        return nn.Linear(inputs, outputs)
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = inputs**-0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer
