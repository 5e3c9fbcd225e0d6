"""Weights with a Dirichlet prior and posterior."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.models.vmtl.mixing.base import Mixing


class Dirichlet(Mixing):
    """``alpha_t ~ Dirichlet(1, ..., 1)``; the guide's concentrations are free, from 1, and its divergence closed."""

    def __init__(self, tasks: int) -> None:
        super().__init__(tasks)
        self.rho = nn.Parameter(torch.full(self.shape, 0.541324854612918))  # softplus(rho) == 1
        self.flat = nn.Buffer(torch.ones(self.shape), persistent=False)

    @property
    def concentration(self) -> Tensor:
        """Of the guide, ``(T, 1, T - 1)``; kept off zero, where draws underflow."""
        return F.softplus(self.rho) + 1e-3

    def sample_guide(self, site: str, step: Tensor) -> None:
        pyro.sample(site, dist.Dirichlet(self.concentration))

    def weights(self, site: str, step: Tensor) -> Tensor:
        return pyro.sample(site, dist.Dirichlet(self.flat))

    def expected(self) -> Tensor:
        concentration = self.concentration.detach().squeeze(1)
        return concentration / concentration.sum(-1, keepdim=True)
