"""From inputs to the latent representation z: its mean, and its variance where it is Gaussian.

`forward` gives both. An encoder that can give the mean alone for less has a method `location`; one that can give both at
averages of few rows for less has a method `at_averages`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.models.networks.gaussian import GaussianEncoder, Moments
from bmtl.models.networks.layers import linear
from bmtl.models.vmtl.support import AttentionWeights


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


def encoder_of(
    kind: str | nn.Module,
    inputs: int,
    trunk: Callable[[], nn.Module],
    latent: int | None,
    dropout: float,
    gaussian: bool,
    generator: torch.Generator | None,
) -> tuple[nn.Module, int]:
    """The encoder of that name, "mlp" or "linear", and its number of latents; a module is taken as it is.

    Args:
        kind: Name, or the encoder itself.
        inputs: Number of features, for "linear".
        trunk: Makes the hidden layers of "mlp", with an attribute ``width``.
        latent: Number of latents H; of "mlp" by default the trunk's width.
        dropout: On the inputs.
        gaussian: Whether z is Gaussian.
        generator: Draws initial weights; None uses torch's global generator.

    Raises:
        ValueError: If the name is another, or there is no number of latents.
    """
    if kind == "mlp":
        hidden = trunk()
        width: int = hidden.width  # type: ignore[assignment]
        latent = width if latent is None else latent
        net = nn.Sequential(nn.Dropout(dropout), hidden)
        if gaussian:
            return GaussianEncoder(net, width, latent, generator), latent
        return PointEncoder(nn.Sequential(net, linear(width, latent, generator))), latent
    if latent is None:
        raise ValueError("latent, the number of latents, is needed where the encoder is not 'mlp'.")
    if isinstance(kind, nn.Module):
        return kind, latent
    if kind != "linear":
        raise ValueError(f"encoder is 'mlp', 'linear' or a module, and {kind!r} was given.")
    if gaussian:
        return GaussianLayer(inputs, latent, dropout, generator), latent
    return PointEncoder(nn.Sequential(nn.Dropout(dropout), linear(inputs, latent, generator))), latent
