"""Times to an event, some of them known up to an interval only."""

import math
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import Normal, constraints
from torch.distributions.utils import broadcast_all

from bmtl.distributions import tails
from bmtl.distributions.interval_labels import IntervalLabels


class Weibull(IntervalLabels):
    """Times with the survival function ``P(T > t) = exp(-(t / scale)^concentration)``.

    Labels may be intervals, see `IntervalLabels`: ``(t, inf)`` is a right-censored time, ``(0, t)`` a left-censored one.
    Parameters are taken in logarithms, so that neither an hour nor a century over- or underflows.

    Args:
        log_scale: Log of the time by which a share ``1 - 1/e`` has had the event; batch shapes broadcast.
        log_concentration: Log of the shape: the hazard falls with time below 0, is constant at 0, and rises above.
    """

    arg_constraints = {"log_scale": constraints.real, "log_concentration": constraints.real}  # noqa: RUF012
    support = constraints.positive
    has_rsample = True
    fill = 1.0

    def __init__(
        self,
        log_scale: Tensor | float,
        log_concentration: Tensor | float = 0.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.log_scale, self.log_concentration = broadcast_all(log_scale, log_concentration)
        super().__init__(self.log_scale.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        expanded: Self = self._expanded(("log_scale", "log_concentration"), batch_shape, _instance)
        return expanded

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp()

    @property
    def concentration(self) -> Tensor:
        return self.log_concentration.exp()

    def law(self) -> tuple[str, dict[str, Tensor]]:
        return "weibull", {"scale": self.scale, "concentration": self.concentration}

    @property
    def mean(self) -> Tensor:
        return torch.exp(self.log_scale + torch.lgamma(1 + 1 / self.concentration))

    @property
    def variance(self) -> Tensor:
        one, two = (torch.lgamma(1 + k / self.concentration) for k in (1, 2))
        return torch.exp(2 * (self.log_scale + one)) * torch.expm1(two - 2 * one)

    def log_hazard_sum(self, value: Tensor) -> Tensor:
        """Log of the cumulative hazard ``(t / scale)^concentration``."""
        return self.concentration * (value.log() - self.log_scale)

    def log_density(self, value: Tensor) -> Tensor:
        log_sum = self.log_hazard_sum(value)
        return self.log_concentration - value.log() + log_sum - log_sum.exp()

    def log_between(self, lower: Tensor, upper: Tensor) -> Tensor:
        at_start, never = lower <= 0, upper.isposinf()
        # What is infinite or 0 must not reach the gradient of a branch that is not taken.
        low, high = torch.where(at_start, self.fill, lower), torch.where(never, self.fill, upper)
        closed = ~(at_start | never)
        survived = torch.where(at_start, 0.0, -self.log_hazard_sum(low).exp())
        hazard = self.log_hazard_sum(high).exp()
        ratio = torch.where(closed, low.log() - high.log(), -1.0)
        within = torch.where(closed, hazard * -torch.expm1(self.concentration * ratio), hazard)
        return survived + torch.where(never, 0.0, tails.log1mexp(within))

    def icdf(self, value: Tensor) -> Tensor:
        return torch.exp(self.log_scale + torch.log(-torch.log1p(-value)) / self.concentration)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(sample_shape)
        exponential = torch.empty(shape, dtype=self.log_scale.dtype, device=self.log_scale.device).exponential_()
        tiny = torch.finfo(exponential.dtype).tiny
        return torch.exp(self.log_scale + exponential.clamp_min(tiny).log() / self.concentration)


class LogNormal(IntervalLabels):
    """Times whose logarithm is normal: ``log T ~ Normal(loc, scale)``. Labels may be intervals, see `IntervalLabels`.

    Args:
        loc: Mean of the log time, the log of the median time; batch shapes broadcast.
        scale: Standard deviation of the log time.

    Raises:
        ValueError: If the scale is not positive, while validation is on.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    support = constraints.positive
    has_rsample = True
    fill = 1.0

    def __init__(self, loc: Tensor | float, scale: Tensor | float = 1.0, *, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        expanded: Self = self._expanded(("loc", "scale"), batch_shape, _instance)
        return expanded

    def law(self) -> tuple[str, dict[str, Tensor]]:
        return "log-normal", {"loc": self.loc, "scale": self.scale}

    @property
    def mean(self) -> Tensor:
        return torch.exp(self.loc + 0.5 * self.scale.square())

    @property
    def variance(self) -> Tensor:
        return torch.exp(2 * self.loc + self.scale.square()) * torch.expm1(self.scale.square())

    @property
    def _log(self) -> Normal:
        return Normal(self.loc, self.scale, validate_args=False)

    def log_density(self, value: Tensor) -> Tensor:
        z = (value.log() - self.loc) / self.scale
        return -0.5 * z.square() - value.log() - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def log_between(self, lower: Tensor, upper: Tensor) -> Tensor:
        return tails.log_between(self._log, lower.clamp_min(0.0).log(), upper.log())

    def icdf(self, value: Tensor) -> Tensor:
        return self._log.icdf(value).exp()

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self._log.expand(self.batch_shape).rsample(torch.Size(sample_shape)).exp()
