"""Real labels with Laplace noise: outliers count with their distance, not its square."""

import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor

from bmtl.models.likelihoods.base import Values
from bmtl.models.likelihoods.location_scale import LocationScale


class Laplace(LocationScale):
    """``y ~ Laplace(f, sigma)``, sigma the mean absolute error; with a fixed noise, absolute errors.

    See `LocationScale` for the options.
    """

    name = "laplace"

    def base(self, loc: Tensor, scale: Tensor, values: Values) -> TorchDistribution:
        return dist.Laplace(loc, scale)

    def loss(self, e: Tensor) -> Tensor:
        return e.abs()
