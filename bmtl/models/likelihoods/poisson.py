"""Counts whose variance is their mean."""

from pyro.distributions import TorchDistribution
from torch import Tensor

from bmtl.distributions import Poisson as PoissonDistribution
from bmtl.models.likelihoods.base import Likelihood, Values
from bmtl.models.likelihoods.unknown import Noise


class Poisson(Likelihood):
    """``y ~ Poisson(exp(f))``; training starts at the mean count.

    Args:
        noise: "fixed" trains on half the deviance, which differs from the negative log-likelihood by a constant and is 0 at
            best. It has no unknown quantity.
    """

    name = "poisson"
    has_unknowns = False
    families = ("count",)

    def __init__(self, noise: Noise = "parameter") -> None:
        super().__init__(1, noise)

    def start(self, y: Tensor) -> None:
        self._start_log(y)

    def distribution(self, f: Tensor, values: Values) -> TorchDistribution:
        return PoissonDistribution(self.location + f[..., 0])

    def deviance(self, f: Tensor, y: Tensor) -> Tensor:
        log_rate = self.location + f[..., 0]
        return y.xlogy(y) - y * log_rate - y + log_rate.exp()
