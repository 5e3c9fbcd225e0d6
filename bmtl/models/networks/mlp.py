"""Multi-layer perceptron."""

from collections.abc import Sequence

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


def mlp(
    inputs: int,
    widths: Sequence[int],
    *,
    activation: type[nn.Module] = nn.ReLU,
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """A trunk of linear layers, each followed by an activation (and dropout).

    Args:
        inputs: Number of features.
        widths: Width of each layer; the last is the width of the representation.
        activation: Class of the activation.
        dropout: Probability of dropping a unit, 0 for none.
        generator: Draws the initial weights, by PyTorch's own rule for linear layers (uniform within ``1/sqrt(inputs)``
            of the layer); None uses torch's global generator.

    Raises:
        ValueError: If there is no layer or a width is below 1.
    """
    if not widths or min(*widths, inputs) < 1:
        raise ValueError(f"A trunk has one or more layers of width 1 or more; inputs={inputs}, widths={tuple(widths)}.")
    layers: list[nn.Module] = []
    for wide, narrow in zip((inputs, *widths), widths, strict=False):
        layers += [linear(wide, narrow, generator), activation()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)
