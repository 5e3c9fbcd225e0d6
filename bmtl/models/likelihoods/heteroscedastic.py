"""Real labels with Gaussian noise that depends on the input: the network of deep ensembles."""

from typing import Any, Self

import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn import functional as F

from bmtl.models.likelihoods.base import Likelihood, Values, finite_ends
from bmtl.models.likelihoods.location_scale import Bounds, check_bounds, takes_intervals, with_censoring
from bmtl.models.likelihoods.unknown import Noise
from bmtl.targets import Family

_FLOOR = 1e-6


class Heteroscedastic(Likelihood):
    """``y ~ Normal(m(x), sqrt(softplus(v(x)) + 1e-6))`` from two outputs, for standardised labels.

    Args:
        noise: Has no effect: the head gives the noise.
        censored: Whether labels are intervals ``(B, 2)``.
        bounds: Bounds at which labels stop, as for `LocationScale`.

    Source:
        Lakshminarayanan, Pritzel & Blundell (2017), "Simple and Scalable Predictive Uncertainty Estimation using Deep
        Ensembles", section 2.2.1.
    """

    name = "heteroscedastic"
    has_unknowns = False
    families = ("real", "count")

    def __init__(self, noise: Noise = "parameter", *, censored: bool = False, bounds: Bounds | None = None) -> None:
        super().__init__(2, noise)
        self.censored = censored
        self.bounds = None if bounds is None else check_bounds(*bounds)

    @classmethod
    def of(cls, family: Family, **options: Any) -> Self:
        return cls(censored=takes_intervals(family), **options)

    def distribution(self, f: Tensor, values: Values) -> TorchDistribution:
        mean, raw = f.unbind(-1)
        scale = self.unit * (F.softplus(raw) + _FLOOR).sqrt()
        return with_censoring(dist.Normal(self.location + self.unit * mean, scale), self.censored, self.bounds)

    @property
    def least_squares(self) -> bool:
        return not self.censored and self.bounds is None

    def start(self, y: Tensor) -> None:
        self._start_linear(finite_ends(y) if self.censored else y)
