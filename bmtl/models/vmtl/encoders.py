"""From inputs to the latent representation z: its mean, and its variance where it is Gaussian.

`forward` gives both. An encoder that can give the mean alone for less has a method `location`; one that can give both at
averages of few rows for less has a method `at_averages`.
"""

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.models.networks.mlp import linear, mlp
from bmtl.models.vmtl.support import AttentionWeights

_RHO = -3.0  # starting value where a softplus makes a scale or variance: 0.049

Moments = tuple[Tensor, Tensor | None]


class PointEncoder(nn.Module):
    """``z = net(x)``.

    Args:
        net: Maps ``(B, ...)`` to ``(B, H)``.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Moments:
        return self.net(x), None


class GaussianEncoder(nn.Module):
    """``z ~ Normal(mu(h), s2(h))`` with ``h = trunk(x)``, mu linear and s2 a softplus of a linear layer.

    Args:
        trunk: Maps ``(B, ...)`` to ``(B, width)``.
        width: Width of h.
        latent: Number of latents H.
        generator: Draws the initial weights; None uses torch's global generator.
    """

    def __init__(self, trunk: nn.Module, width: int, latent: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.trunk = trunk
        self.mean = linear(width, latent, generator)
        self.spread = linear(width, latent, generator)
        nn.init.constant_(self.spread.bias, _RHO)

    def forward(self, x: Tensor) -> Moments:
        h = self.trunk(x)
        return self.mean(h), F.softplus(self.spread(h))

    def location(self, x: Tensor) -> Tensor:
        return self.mean(self.trunk(x))

    def at_averages(self, x: Tensor, average: Callable[[Tensor], Tensor]) -> Moments:
        affine, rest = _affine_first(self.trunk)
        h = rest(average(affine(x)))
        return self.mean(h), F.softplus(self.spread(h))


class GaussianLayer(nn.Module):
    """A linear layer with Gaussian weights, ``mu = x M + b`` and ``s2 = x^2 V + v``.

    The encoder of the released VMTL.

    Args:
        inputs: Number of features.
        latent: Number of latents H.
        dropout: Probability of dropping a feature.
        generator: Draws the initial weights; None uses torch's global generator.
    """

    def __init__(
        self, inputs: int, latent: int, dropout: float = 0.0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.mean = linear(inputs, latent, generator)
        # Scales that add up over the features: each starts at its share of the variance 0.05.
        start = (0.05 / (inputs + 1)) ** 0.5
        rho = torch.tensor(start).expm1().log()
        self.rho = nn.Parameter(rho.repeat(latent, inputs))
        self.rho_bias = nn.Parameter(rho.repeat(latent))

    def forward(self, x: Tensor) -> Moments:
        x = self.dropout(x)
        return self.mean(x), self._variance(x)

    def _variance(self, x: Tensor) -> Tensor:
        return F.linear(x.square(), F.softplus(self.rho).square(), F.softplus(self.rho_bias).square())

    def location(self, x: Tensor) -> Tensor:
        return self.mean(self.dropout(x))

    def at_averages(self, x: Tensor, average: Callable[[Tensor], Tensor]) -> Moments:
        return average(self.mean(x)), self._variance(average(x))


def location(encoder: nn.Module, x: Tensor) -> Tensor:
    """The mean of z alone."""
    return encoder.location(x) if hasattr(encoder, "location") else encoder(x)[0]  # type: ignore[operator]


def at_averages(encoder: nn.Module, x: Tensor, answers: AttentionWeights) -> Moments:
    """Mean and variance of z at averages of rows, in evaluation mode.

    An affine map of an average is the average of the map. So encoders may map the rows first, where they are fewer.

    Args:
        encoder: Maps ``(B, D)`` to moments ``(B, H)``.
        x: The rows, ``(N, D)``.
        answers: The averages.
    """
    if len(x) < answers.count and hasattr(encoder, "at_averages"):
        return encoder.at_averages(x, answers.average)  # type: ignore[operator]
    return encoder(answers.average(x))


def _affine_first(trunk: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    """The layers before the first that is not affine in evaluation mode, and the others."""
    layers = list(_layers(trunk))
    affine = list(itertools.takewhile(lambda layer: type(layer) in (nn.Linear, nn.Dropout, nn.Identity), layers))
    return nn.Sequential(*affine), nn.Sequential(*layers[len(affine) :])


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) is nn.Sequential:  # a subclass may do more than one after the other
        for part in module:
            yield from _layers(part)
    else:
        yield module


def encoder_of(
    kind: str | nn.Module,
    inputs: int,
    widths: tuple[int, ...],
    latent: int,
    dropout: float,
    gaussian: bool,
    generator: torch.Generator | None,
) -> nn.Module:
    """The encoder of that name, "mlp" or "linear"; a module is taken as it is.

    Raises:
        ValueError: If the name is another.
    """
    if isinstance(kind, nn.Module):
        return kind
    if kind == "linear":
        if gaussian:
            return GaussianLayer(inputs, latent, dropout, generator)
        return PointEncoder(nn.Sequential(nn.Dropout(dropout), linear(inputs, latent, generator)))
    if kind != "mlp":
        raise ValueError(f"encoder is 'mlp', 'linear' or a module, and {kind!r} was given.")
    trunk = nn.Sequential(nn.Dropout(dropout), mlp(inputs, widths, activation=nn.ELU, generator=generator))
    if gaussian:
        return GaussianEncoder(trunk, widths[-1], latent, generator)
    return PointEncoder(nn.Sequential(trunk, linear(widths[-1], latent, generator)))
