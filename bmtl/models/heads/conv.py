"""Heads of images: a convolution over the features of neighbouring pixels, then a linear layer for each pixel."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bmtl.models.heads.base import Heads, initial_layers
from bmtl.models.likelihoods import Likelihood
from bmtl.models.networks.layers import conv


class ConvHeads(Heads):
    """For each target a convolution of the features, and a linear layer for each block of its outputs.

    Args:
        width: Features of a pixel.
        likelihoods: By target, what the output is for.
        hidden: Channels between the two; by default as many as a target sees.
        kernel: Side of the convolution's kernel, odd.
        activation: What is between the two: nothing, as in the published heads of SegNet and MTAN, or a ReLU.
        own_features: Into how many equal parts the features fall, of which each target sees its own; 1 where every target
            sees all.
        generator: Draws the initial weights; None uses torch's global generator.

    Raises:
        ValueError: If features fall into parts, and there are not as many targets; if the kernel is even, or the activation
            unknown.

    Source:
        Liu, Johns & Davison (2019): 3x3, then 1x1, without activation. Kendall, Gal & Cipolla (2018): 1x1 with 256 channels,
        then 1x1.
    """

    kinds = ("point",)

    def __init__(
        self,
        width: int,
        likelihoods: Mapping[str, Likelihood],
        *,
        hidden: int | None = None,
        kernel: int = 3,
        activation: Literal["none", "relu"] = "none",
        own_features: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(width, likelihoods)
        if own_features not in (1, len(likelihoods)) or width % own_features:
            raise ValueError(
                f"{width} features in {own_features} parts are each target's own, and there are {len(likelihoods)} targets."
            )
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel is an odd number of pixels, and {kernel} was given.")
        if activation not in ("none", "relu"):
            raise ValueError(f"activation is 'none' or 'relu', and {activation!r} was given.")
        self.own_features, self.active = own_features, activation == "relu"
        seen = width // own_features
        hidden = seen if hidden is None else hidden
        # Module names must not hold a dot, target names may: by position.
        self.spatial = nn.ModuleList(conv(seen, hidden, kernel, generator) for _ in likelihoods)
        layers = list(initial_layers(hidden, likelihoods, generator))
        self.layers = nn.ModuleList([layer for _, layer in layers])
        self._of_target = {name: [i for i, (of, _) in enumerate(layers) if of == name] for name in likelihoods}

    def forward(self, target: str, h: Tensor, joint: Any) -> Tensor | tuple[Tensor, ...]:
        """As `Heads.forward`, of h ``(..., B, H, W, width)``."""
        place = self.targets.index(target)
        own = h if self.own_features == 1 else h.chunk(self.own_features, -1)[place]
        leading = own.shape[:-3]
        maps = self.spatial[place](own.flatten(0, -4).movedim(-1, 1)).movedim(1, -1)
        if self.active:
            maps = maps.relu()
        maps = maps.reshape(*leading, *maps.shape[1:])
        parts = tuple(self.layers[i](maps) for i in self._of_target[target])
        return parts[0] if len(parts) == 1 else parts
