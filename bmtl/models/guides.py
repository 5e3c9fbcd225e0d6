"""Guides for programs that declare their latents: a name, a starting value, a task."""

import math
from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MeanField(nn.Module):
    """Independent normals, one for each entry of each latent, in the model's order.

    Guide sites and model sites are both normal (or of a family with a registered divergence), so `TaskELBO` with
    ``estimator="analytic"`` takes their KL in closed form. A program without latents has an empty guide: its parameters
    are point masses already.

    Args:
        latents: Starting value of each latent's location, by site name; its shape is the event shape.
        scale: Starting standard deviation. Small, so that training starts near the point-mass model: an optimizer that
            takes steps of one size, as Adam does, needs thousands of them to quieten a noisy start.
        lr_multiplier: By site name, how many units a location moves where another parameter moves one; 1 for
            sites not named.

    Raises:
        ValueError: If `scale` is not positive.
    """

    def __init__(
        self, latents: Mapping[str, Tensor], scale: float = 0.005, lr_multiplier: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise ValueError(f"scale is a standard deviation, above 0, and {scale} was given.")
        self.latents = tuple(latents)
        self.lr_multiplier = tuple((lr_multiplier or {}).get(name, 1.0) for name in latents)
        rho = scale + math.log(-math.expm1(-scale))  # softplus(rho) == scale, without overflow
        starts = zip(latents.values(), self.lr_multiplier, strict=True)
        self.loc = nn.ParameterList([nn.Parameter(value.detach() / lr_multiplier) for value, lr_multiplier in starts])
        self.rho = nn.ParameterList([nn.Parameter(torch.full_like(value, rho)) for value in latents.values()])

    def forward(self, *args: Any, **kwargs: Any) -> None:
        for name, lr_multiplier, loc, rho in zip(self.latents, self.lr_multiplier, self.loc, self.rho, strict=True):
            pyro.sample(name, dist.Normal(loc * lr_multiplier, F.softplus(rho)).to_event(loc.dim()))


class PointMass(nn.Module):
    """One value for each latent: maximum a posteriori, or maximum likelihood where the prior is masked.

    Args:
        latents: Starting value of each latent, by site name; its shape is the event shape.
        lr_multiplier: As for `MeanField`.
    """

    def __init__(self, latents: Mapping[str, Tensor], lr_multiplier: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.latents = tuple(latents)
        self.lr_multiplier = tuple((lr_multiplier or {}).get(name, 1.0) for name in latents)
        starts = zip(latents.values(), self.lr_multiplier, strict=True)
        self.value = nn.ParameterList([nn.Parameter(value.detach() / lr_multiplier) for value, lr_multiplier in starts])

    def forward(self, *args: Any, **kwargs: Any) -> None:
        for name, lr_multiplier, value in zip(self.latents, self.lr_multiplier, self.value, strict=True):
            pyro.sample(name, dist.Delta(value * lr_multiplier, event_dim=value.dim()))
