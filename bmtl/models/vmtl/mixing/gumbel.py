"""Weights with Gumbel noise: Shen et al. (2021)."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from bmtl.models.vmtl.mixing.base import Mixing
from bmtl.models.vmtl.mixing.temperature import Temperature


class Gumbel(Mixing):
    """``softmax((log softmax(l) + g) / tau)`` with g from the Gumbel law, one draw for each task and step.

    The same site is in guide and program, masked: it is drawn, and adds nothing to any term.

    Args:
        tasks: Number of tasks.
        temperature: tau, a number or by step.
    """

    def __init__(self, tasks: int, temperature: float | Temperature = 1.0) -> None:
        super().__init__(tasks)
        self.logits = nn.Parameter(torch.zeros(self.shape))
        self.temperature = temperature if isinstance(temperature, Temperature) else Temperature(temperature)

    def sample_guide(self, site: str, step: Tensor) -> None:
        self.weights(site, step)

    def weights(self, site: str, step: Tensor) -> Tensor:
        tau = self.temperature.at(step).to(self.logits)
        fn = dist.RelaxedOneHotCategorical(tau, logits=self.logits.log_softmax(-1))
        return pyro.sample(site, fn.mask(False))

    def expected(self) -> Tensor:
        """The noiseless weights: those at which the draws' logarithms centre."""
        return self.logits.detach().softmax(-1).squeeze(1)
