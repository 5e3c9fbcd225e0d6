"""The base class of likelihoods of real numbers with one noise scale."""

import math
from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from bmtl.distributions import Censored
from bmtl.distributions.tails import log_between
from bmtl.models.likelihoods.base import Likelihood, Values, finite_ends
from bmtl.models.likelihoods.unknown import Noise, Unknown
from bmtl.targets import Family, Real

Bounds = tuple[float | None, float | None]


class LocationScale(Likelihood):
    """``y = f + sigma e`` with ``log sigma^2`` an unknown and e of a standard law.

    Labels may be intervals ``(B, 2)``, see `bmtl.distributions.Censored`. A fixed noise is 1 in training, where the loss is
    half the unit deviance: a function of the error alone for exact labels, ``-log P`` for those known up to an interval.

    Args:
        noise: "fixed", "parameter", "latent" or "heteroscedastic": what ``log sigma^2`` is.
        noise_prior: Mean and standard deviation of its prior, for standardised labels.
        censored: Whether labels are intervals.
        bounds: Lower and upper bound where labels stop, None on an open side, in the labels' unit: labels at or beyond one
            count with the probability beyond it, and predictions stop there too.
        **unknowns: Further unknowns of a subclass.

    Raises:
        ValueError: If an option is unknown or out of range.
    """

    families = ("real", "count")
    from_head = "log_variance"

    def __init__(
        self,
        noise: Noise = "parameter",
        noise_prior: tuple[float, float] = (0.0, 2.0),
        *,
        censored: bool = False,
        bounds: Bounds | None = None,
        **unknowns: Unknown,
    ) -> None:
        super().__init__(1, noise, {"log_variance": Unknown(0.0, noise, noise_prior), **unknowns})
        self.censored = censored
        self.bounds = None if bounds is None else check_bounds(*bounds)

    @classmethod
    def of(cls, family: Family, **options: Any) -> Self:
        return cls(censored=takes_intervals(family), **options)

    @classmethod
    def known(cls, sigma: float, **options: Any) -> Self:
        """The likelihood with a noise that is known: its density is trained, and the noise is not.

        Args:
            sigma: Scale of the noise, in the unit of standardised labels.
            **options: Of the class.
        """
        made = cls("parameter", **options)
        made.unknowns["log_variance"].start_at(torch.tensor(2 * math.log(sigma)))  # type: ignore[operator]
        made.unknowns.requires_grad_(False)
        return made

    def base(self, loc: Tensor, scale: Tensor, values: Values) -> TorchDistribution:
        """The law of a label without censoring."""
        raise NotImplementedError

    def loss(self, e: Tensor) -> Tensor:
        """Half the unit deviance of an exact label as a function of its error in units of the scale."""
        raise NotImplementedError

    def distribution(self, f: Tensor, values: Values) -> TorchDistribution:
        loc = self.location + self.unit * f[..., 0]
        scale = self.unit * torch.exp(0.5 * self.noise_of(f, values))
        return with_censoring(self.base(loc, scale, values), self.censored, self.bounds)

    def deviance(self, f: Tensor, y: Tensor) -> Tensor:
        if self.censored:
            lower, upper = y.unbind(-1)
        elif self.bounds is not None:
            lower = torch.where(y <= self.bounds[0], -torch.inf, y)
            upper = torch.where(y >= self.bounds[1], torch.inf, y)
        else:
            return self.loss((y - self.location) / self.unit - f[..., 0])
        known = lower == upper
        loss = self.loss((torch.where(known, lower, self.location) - self.location) / self.unit - f[..., 0])
        p = self.base(self.location + self.unit * f[..., 0], self.unit.expand(f.shape[:-1]), self._starts())
        inside = log_between(p, torch.where(known, -torch.inf, lower), torch.where(known, p.loc.detach(), upper))
        return torch.where(known, loss, -inside)

    @property
    def least_squares(self) -> bool:
        return not self.censored and self.bounds is None

    def start(self, y: Tensor) -> None:
        self._start_linear(finite_ends(y) if self.censored else y)

    @torch.no_grad()
    def set_noise(self, sigma: float) -> None:
        if not 0 < sigma < math.inf:
            raise ValueError(f"A noise is a standard deviation, above 0, and {sigma} was given.")
        self.unknowns["log_variance"].set(2 * math.log(sigma / self.unit.item()))  # type: ignore[operator]


def takes_intervals(family: Family) -> bool:
    """Whether labels of a family are intervals."""
    return isinstance(family, Real) and family.censored


def with_censoring(p: TorchDistribution, censored: bool, bounds: tuple[float, float] | None) -> TorchDistribution:
    """The law of labels that may be intervals, or stop at bounds."""
    if bounds is not None:
        return Censored(p, *bounds, intervals=censored)
    return Censored(p) if censored else p


def check_bounds(lower: float | None, upper: float | None) -> tuple[float, float]:
    """Bounds with infinity on an open side.

    Raises:
        ValueError: If both are open, or they are not in order.
    """
    pair = (-math.inf if lower is None else lower, math.inf if upper is None else upper)
    if not pair[0] < pair[1] or pair == (-math.inf, math.inf):
        raise ValueError(f"bounds are a lower and an upper bound, one of them at least; {(lower, upper)} was given.")
    return pair
