"""Counts that scatter more than a Poisson's."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn import functional as F

from bmtl.distributions import NegativeBinomial as NegativeBinomialDistribution
from bmtl.models.likelihoods.base import Likelihood, Values
from bmtl.models.likelihoods.unknown import Noise, Unknown


class NegativeBinomial(Likelihood):
    """Counts with mean ``m = exp(f)`` and variance ``m + m^2 / r``; training starts at the mean count.

    Args:
        noise: What ``log r``, the unknown ``log_concentration``, is. A fixed one is 0 in training, where the loss is half
            the unit deviance.
        noise_prior: Mean and standard deviation of its prior.
    """

    name = "negative-binomial"
    families = ("count",)

    def __init__(self, noise: Noise = "parameter", noise_prior: tuple[float, float] = (0.0, 2.0)) -> None:
        super().__init__(1, noise, {"log_concentration": Unknown(0.0, noise, noise_prior)})

    def start(self, y: Tensor) -> None:
        self._start_log(y)

    def distribution(self, f: Tensor, values: Values) -> TorchDistribution:
        return NegativeBinomialDistribution(self.location + f[..., 0], values["log_concentration"])

    def deviance(self, f: Tensor, y: Tensor) -> Tensor:
        log_mean, log_r = self.location + f[..., 0], self._starts()["log_concentration"]
        log_ratio = F.softplus(log_mean - log_r)  # log(1 + m / r)
        at_best = torch.log1p(y * torch.exp(-log_r))
        return y.xlogy(y) - y * log_mean + (y + log_r.exp()) * (log_ratio - at_best)
