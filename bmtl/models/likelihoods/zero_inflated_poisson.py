"""Counts with more zeros than a Poisson has."""

from pyro.distributions import TorchDistribution
from torch import Tensor

from bmtl.distributions import ZeroInflatedPoisson as ZeroInflatedPoissonDistribution
from bmtl.models.likelihoods.base import Likelihood, Values
from bmtl.models.likelihoods.unknown import Noise, Unknown

_START = -2.0  # logit of the gate: 0.12


class ZeroInflatedPoisson(Likelihood):
    """A Poisson count of rate ``exp(f)``, or with probability g a zero; training starts at the mean count.

    Args:
        noise: What the logit of g, the unknown ``gate_logit``, is. A fixed one is -2 in training (the loss, a negative log
            probability, is at least 0 as it is).
        noise_prior: Mean and standard deviation of its prior.
    """

    name = "zero-inflated-poisson"
    families = ("count",)

    def __init__(self, noise: Noise = "parameter", noise_prior: tuple[float, float] = (_START, 2.0)) -> None:
        super().__init__(1, noise, {"gate_logit": Unknown(_START, noise, noise_prior)})

    def start(self, y: Tensor) -> None:
        self._start_log(y)

    def distribution(self, f: Tensor, values: Values) -> TorchDistribution:
        return ZeroInflatedPoissonDistribution(self.location + f[..., 0], values["gate_logit"])

    def deviance(self, f: Tensor, y: Tensor) -> Tensor:
        return -self.distribution(f, self._starts()).log_prob(y)
