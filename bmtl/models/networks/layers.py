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


@torch.no_grad()
def kaiming(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draws weights of linear layers, convolutions and embeddings from He's normal, and sets their biases to 0.

    Source:
        He, Zhang, Ren & Sun (2015), "Delving Deep into Rectifiers".
    """
    for part in network.modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Embedding):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
            bias = getattr(part, "bias", None)
            if bias is not None:
                nn.init.zeros_(bias)
