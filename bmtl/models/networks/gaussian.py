"""Networks with a normal for output: a mean and a variance."""

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.models.networks.layers import linear, of_width
from bmtl.models.networks.mlp import MLP
from bmtl.tasks import shared

RHO = -3.0
"""Starting value where a softplus makes a scale or variance: 0.049."""

Moments = tuple[Tensor, Tensor | None]
"""Mean, and variance, which is None for points."""


class GaussianEncoder(nn.Module):
    """``z ~ Normal(mu(h), s2(h))`` with ``h = trunk(x)``, mu linear and s2 a softplus of a linear layer.

    Args:
        trunk: Maps inputs of B rows to ``(B, width)``.
        width: Width of h.
        latent: Number of latents H.
        generator: Draws the initial weights; None uses torch's global generator.
    """

    def __init__(self, trunk: nn.Module, width: int, latent: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.trunk = trunk
        self.mean = linear(width, latent, generator)
        self.spread = linear(width, latent, generator)
        nn.init.constant_(self.spread.bias, RHO)

    def forward(self, x: Tensor) -> Moments:
        h = of_width(self.trunk(x), self.mean.in_features)
        return self.mean(h), F.softplus(self.spread(h))

    def location(self, x: Tensor) -> Tensor:
        """The mean alone."""
        return self.mean(self.trunk(x))

    def at_averages(self, x: Tensor, average: Callable[[Tensor], Tensor]) -> Moments:
        """Moments at averages of rows: an affine map of an average is the average of the map."""
        affine, rest = affine_first(self.trunk)
        h = rest(average(affine(x)))
        return self.mean(h), F.softplus(self.spread(h))


LEAST_VARIANCE = 1e-3
"""Least posterior variance of a latent that a network gives, as a share of its prior variance."""


def above_floor(moments: Moments, least: float) -> Moments:
    """Mean and variance of a latent, the variance nowhere below `least`. Every variance of a posterior goes through here.

    ``v + least exp(-v / least)`` is v itself from about 40 times the least on, and has its slope there. Without a floor a
    likelihood that outweighs the divergence drives a variance on until its inverse overflows; and where one row's posterior
    is another's prior, means are then moved by differences over that variance, away without bound.
    """
    mean, variance = moments
    return mean, None if variance is None else variance + least * torch.exp(-variance / least)


def marked(moments: Moments) -> Moments:
    """The moments, marked as shared."""
    mean, variance = moments
    return shared(mean), None if variance is None else shared(variance)


def affine_first(trunk: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    """The layers before the first that is not affine in evaluation mode, and the others."""
    layers = list(_layers(trunk))
    affine = list(itertools.takewhile(lambda layer: type(layer) in (nn.Linear, nn.Dropout, nn.Identity), layers))
    return nn.Sequential(*affine), nn.Sequential(*layers[len(affine) :])


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) in (nn.Sequential, MLP):  # another subclass may do more than one after the other
        for part in module.children():
            yield from _layers(part)
    else:
        yield module
