"""Weights whose logits are normal."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.models.vmtl.mixing.base import Mixing

_START = 0.541324854612918  # softplus of it is 1, the prior's standard deviation


class LogisticNormal(Mixing):
    """``alpha_t = softmax(r_t)``, ``r_t ~ Normal(0, 1)``, with a mean-field normal guide; the site holds r."""

    def __init__(self, tasks: int) -> None:
        super().__init__(tasks)
        self.loc = nn.Parameter(torch.zeros(self.shape))
        self.rho = nn.Parameter(torch.full(self.shape, _START))

    def sample_guide(self, site: str, step: Tensor) -> None:
        pyro.sample(site, dist.Normal(self.loc, F.softplus(self.rho)).to_event(1))

    def weights(self, site: str, step: Tensor) -> Tensor:
        return self.from_site(pyro.sample(site, dist.Normal(torch.zeros_like(self.loc), 1.0).to_event(1)))

    def from_site(self, value: Tensor) -> Tensor:
        return value.softmax(-1)

    def expected(self) -> Tensor:
        """The weights at the mean of r, the median of each ratio of two weights."""
        return self.loc.detach().softmax(-1).squeeze(1)
