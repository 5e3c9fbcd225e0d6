"""Quantities of a likelihood that do not depend on the inputs: a noise, a dispersion, cut points."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from bmtl.models.guides import Latent

Noise = Literal["fixed", "parameter", "latent", "heteroscedastic"]


def check_noise(noise: str) -> None:
    """Raises a ``ValueError`` if there is no such treatment of unknowns."""
    if noise not in get_args(Noise):
        raise ValueError(f"noise is one of {', '.join(map(repr, get_args(Noise)))}, and {noise!r} was given.")


class Unknown(nn.Module):
    """A number or tensor that is fixed, a parameter, or latent under a normal prior.

    Args:
        start: Starting value, a number or ``(...)``; of latents, a number starts at the prior's mean instead.
        noise: "fixed" stays at its start in training and may be set afterwards; "parameter" is learnt; "latent" has the
            prior ``Normal(prior)`` on each entry. What a head gives ("heteroscedastic") is no unknown; others of the
            likelihood are parameters then.
        prior: Mean and standard deviation of the prior.
        lr_multiplier: How many units it moves where another parameter moves one. A log-variance travels over ten units
            where a weight travels over a tenth, and Adam's steps are of one size for both.

    Raises:
        ValueError: If `noise` is unknown or the prior's standard deviation is not positive.
    """

    def __init__(
        self,
        start: float | Tensor,
        noise: Noise,
        prior: tuple[float, float] = (0.0, 2.0),
        lr_multiplier: float = 10.0,
    ) -> None:
        super().__init__()
        check_noise(noise)
        if not 0 < prior[1] < math.inf:
            raise ValueError(f"A prior has a positive standard deviation, and {prior[1]} was given.")
        noise = "parameter" if noise == "heteroscedastic" else noise
        self.noise, self.prior, self.lr_multiplier = noise, prior, lr_multiplier
        if noise == "latent" and not isinstance(start, Tensor):
            start = prior[0]
        value = torch.as_tensor(start, dtype=torch.get_default_dtype())
        self.start = nn.Buffer(value)
        if noise == "parameter":
            self.scaled = nn.Parameter(value / lr_multiplier)
        elif noise == "fixed":
            self.value = nn.Buffer(value.clone())

    @property
    def options(self) -> tuple[Any, ...]:
        """All that it was made with but for its value."""
        return self.noise, self.prior, self.lr_multiplier, tuple(self.start.shape)

    @property
    def learnt(self) -> bool:
        """Whether training moves it."""
        return self.noise != "fixed"

    def latent(self) -> Latent | None:
        """The latent of a guide; None where it is none."""
        return Latent(self.start, self.lr_multiplier) if self.noise == "latent" else None

    def forward(self, site: str) -> Tensor:
        """Its value, a sample of `site` where it is latent."""
        if self.noise == "parameter":
            return self.scaled * self.lr_multiplier
        if self.noise == "fixed":
            return self.value
        mean, sd = (self.start.new_tensor(number) for number in self.prior)
        found: Tensor = pyro.sample(site, dist.Normal(mean, sd).expand(self.start.shape).to_event(self.start.dim()))
        return found

    @staticmethod
    def together(unknowns: Sequence["Unknown"], site: str) -> Tensor:
        """The values of several that are alike, ``(K, 1, ...)``: the statement in the plate of their tasks."""
        first = unknowns[0]
        if first.noise == "parameter":
            return torch.stack([unknown.scaled for unknown in unknowns]).unsqueeze(1) * first.lr_multiplier
        if first.noise == "fixed":
            return torch.stack([unknown.value for unknown in unknowns]).unsqueeze(1)
        mean, sd = (first.start.new_tensor(number) for number in first.prior)
        shape = first.start.shape
        prior = dist.Normal(mean, sd).expand((len(unknowns), 1, *shape)).to_event(len(shape))
        found: Tensor = pyro.sample(site, prior)
        return found

    def log_prior(self, value: Tensor) -> Tensor:
        """Log density of a value under the prior, but for a constant."""
        return -0.5 * ((value - self.prior[0]) / self.prior[1]).square().sum()

    @torch.no_grad()
    def start_at(self, value: Tensor) -> None:
        """Sets the starting value, before training."""
        self.start.copy_(value)
        if self.noise == "parameter":
            self.scaled.copy_(value / self.lr_multiplier)
        elif self.noise == "fixed":
            self.value.copy_(value)

    @torch.no_grad()
    def set(self, value: Tensor | float) -> None:
        """Sets a fixed value, after training.

        Raises:
            ValueError: If it is not fixed.
        """
        if self.noise != "fixed":
            raise ValueError(f"Only what is fixed in training is set afterwards, and this is {self.noise!r}.")
        self.value.copy_(torch.as_tensor(value))
