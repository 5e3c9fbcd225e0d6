"""Labels that are intervals: what is known of y is that it lies between two ends."""

from abc import abstractmethod
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor


class IntervalLabels(TorchDistribution):
    """A distribution of numbers y ``(B,)`` whose labels may be intervals ``(B, 2)``, lower and upper end.

    Equal ends are an exact label, which counts with its density; an infinite end is open (``(10, inf)`` is "above 10"), and
    such labels count with the probability of their interval; NaN in either end is a missing label. Draws, means and
    quantiles are of y itself.

    `log_prob` also takes exact values, such as draws, of the distribution's batch shape.
    """

    label_shape: torch.Size = torch.Size((2,))

    fill: float
    """A value inside the support, in place of missing labels."""

    @abstractmethod
    def log_density(self, value: Tensor) -> Tensor:
        """Log density of exact labels ``(B,)``."""

    @abstractmethod
    def log_between(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Log probability of ``lower < y < upper``, whose ends ``(B,)`` may be open."""

    def log_prob(self, value: Tensor) -> Tensor:
        if not self.holds_intervals(value):
            return self.log_density(value)
        lower, upper = value.unbind(-1)
        exact = lower == upper
        density = self.log_density(torch.where(exact, lower, self.fill))
        inside = self.log_between(torch.where(exact, -torch.inf, lower), torch.where(exact, self.fill, upper))
        return torch.where(exact, density, inside)

    def holds_intervals(self, value: Tensor) -> bool:
        """Whether labels are intervals and not exact values."""
        if not self.batch_shape:
            return value.shape[-1:] == (2,)
        return value.dim() > 1 and value.shape[-2:] == (self.batch_shape[-1], 2)

    def feasible(self, value: Tensor) -> Tensor:
        """A label in place of missing ones."""
        return value.new_full((), self.fill)

    def log_cdf(self, value: Tensor) -> Tensor:
        """Log of the cdf."""
        return self.log_between(torch.full_like(value, -torch.inf), value)

    def log_survival(self, value: Tensor) -> Tensor:
        """Log of ``1 - cdf``."""
        return self.log_between(value, torch.full_like(value, torch.inf))

    def cdf(self, value: Tensor) -> Tensor:
        return self.log_cdf(value).exp()

    def law(self) -> tuple[str, dict[str, Tensor]] | None:
        """Name and parameters of the predictive distribution of y, for reports; None if it has no name."""
        raise NotImplementedError

    def _expanded(self, names: tuple[str, ...], batch_shape: Any, instance: Any) -> Any:
        """A copy with these attributes, tensors or distributions, expanded."""
        new = type(self).__new__(type(self)) if instance is None else instance
        for name in names:
            setattr(new, name, getattr(self, name).expand(batch_shape))
        TorchDistribution.__init__(new, torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new
