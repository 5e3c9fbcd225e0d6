"""Real labels with Gaussian noise."""

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from bmtl.distributions import SplitNormal
from bmtl.models.likelihoods.base import Values
from bmtl.models.likelihoods.location_scale import LocationScale


class Gaussian(LocationScale):
    """``y ~ Normal(f, sigma)``; with a fixed noise, squared errors over 2. See `LocationScale` for the options.

    At a fixed mean squared error 2 L the maximum-likelihood weight of a task is ``1 / (2 L)``: learning the noise balances
    tasks.

    Source:
        Kendall, Gal & Cipolla (2018), "Multi-Task Learning Using Uncertainty to Weigh Losses", section 3.
    """

    name = "gaussian"

    def base(self, loc: Tensor, scale: Tensor, values: Values) -> TorchDistribution:
        return dist.Normal(loc, scale)

    def loss(self, e: Tensor) -> Tensor:
        return e.square() / 2

    @property
    def integrates(self) -> bool:
        return not self.censored and self.bounds is None and self.noise != "heteroscedastic"

    def expected_log_density(self, mean: Tensor, variance: Tensor, values: Values, y: Tensor) -> Tensor:
        error = (y - self.location) / self.unit - mean
        if self.trains_on_deviance:
            return -0.5 * (error.square() + variance)
        s = values["log_variance"]
        density: Tensor = dist.Normal(0.0, (0.5 * s).exp()).log_prob(error) - self.unit.log()
        return density - 0.5 * variance * torch.exp(-s)

    def integrated(self, mean: Tensor, variance: Tensor, values: Values) -> TorchDistribution:
        noise = values["log_variance"].exp()
        square = self.unit.square()
        return SplitNormal(self.location + self.unit * mean, square * variance, square * noise)

    @torch.no_grad()
    def calibrate(self, f: Tensor, y: Tensor) -> None:
        if not self.needs_calibration:
            return
        if self.censored or self.bounds is not None:
            super().calibrate(f, y)
            return
        seen = ~y.isnan()
        if seen.any():
            error = y[seen].double() - (self.location + self.unit * f[seen, 0].double())
            self.set_noise(max(error.square().mean().sqrt().item(), 1e-6 * self.unit.item()))
