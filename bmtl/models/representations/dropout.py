"""A trunk with dropout that never stops: Gal & Ghahramani (2016)."""

from typing import ClassVar

import torch
from torch import nn

from bmtl.models.networks.dropout import dropout_layers
from bmtl.models.representations.deterministic import Deterministic


class MCDropout(Deterministic):
    """``h = trunk(x)`` of a trunk with `bmtl.models.networks.Dropout` layers, whose masks are latents in evaluation mode.

    One draw of the guide is one thinned network; `bmtl.draw` takes a pass for each.

    Args:
        trunk: With `Dropout` layers, as ``mlp(..., mc_dropout=0.05)`` makes it.
        width: Width of the trunk's output.
        generator: Not used: it has no weights.

    Raises:
        ValueError: If the trunk has no such layer, or two have one site.

    Source:
        Gal & Ghahramani (2016), "Dropout as a Bayesian Approximation".
    """

    has_latents: ClassVar[bool] = True

    def __init__(self, trunk: nn.Module, width: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__(trunk, width)
        dropout_layers(trunk)  # raises

    def guide_first(self) -> None:
        for layer in dropout_layers(self.trunk):
            layer.noise()
