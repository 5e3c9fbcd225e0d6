"""Linear layers with point weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.models.heads.base import Heads, initial_layers
from bmtl.models.likelihoods import Likelihood


class LinearHeads(Heads):
    """A linear layer for each target, or one for each block of its outputs.

    Args:
        width: Width of the representation.
        likelihoods: By target, what the output is for.
        generator: Draws the initial weights; None uses torch's global generator.
    """

    def __init__(
        self, width: int, likelihoods: Mapping[str, Likelihood], *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(width, likelihoods)
        layers = list(initial_layers(width, likelihoods, generator))
        # Module names must not hold a dot, target names may: by position.
        self.layers = nn.ModuleList([layer for _, layer in layers])
        self._of_target = {name: [i for i, (of, _) in enumerate(layers) if of == name] for name in likelihoods}

    def of(self, target: str) -> list[nn.Linear]:
        """The layers of a target's blocks."""
        return [self.layers[i] for i in self._of_target[target]]  # type: ignore[misc]

    @torch.no_grad()
    def start_near_zero(self, share: float) -> None:
        for parameter in self.layers.parameters():
            parameter.mul_(share)

    def forward(self, target: str, h: Tensor, joint: Any) -> Tensor | tuple[Tensor, ...]:
        parts = tuple(layer(h) for layer in self.of(target))
        return parts[0] if len(parts) == 1 else parts

    def parameters_of(self, target: str) -> list[nn.Parameter]:
        return [p for layer in self.of(target) for p in layer.parameters()]

    def stacked_outputs(self, targets: Sequence[str], h: Tensor, joint: Any, sampled: Any) -> Tensor:
        layers = [layer for target in targets for layer in self.of(target)]
        h = h.squeeze(-3) if h.dim() > 3 else h  # (S, 1, B, D) under S particles
        f = F.linear(h, torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers]))
        return f.unflatten(-1, (len(targets), -1)).transpose(-2, -3)
