"""Weights with a concrete (relaxed categorical) prior and posterior."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from bmtl.models.vmtl.mixing.base import Mixing
from bmtl.models.vmtl.mixing.temperature import Temperature

_LOWEST = 0.5  # below it the density on the simplex underflows


class Concrete(Mixing):
    """A relaxed categorical with free logits under the one with equal logits at the same temperature.

    The divergence is drawn, since there is no closed form. At equal temperatures it does not depend on the temperature.

    Args:
        tasks: Number of tasks.
        temperature: A constant, from 0.5.

    Raises:
        ValueError: If the temperature is a schedule or below 0.5.
    """

    def __init__(self, tasks: int, temperature: float | Temperature = 1.0) -> None:
        super().__init__(tasks)
        if isinstance(temperature, Temperature) or temperature < _LOWEST:
            raise ValueError(
                f"The weights 'concrete' have a constant temperature from {_LOWEST}, and {temperature} was given. "
                "'dirichlet' and 'logistic_normal' have no temperature."
            )
        self.logits = nn.Parameter(torch.zeros(self.shape))
        self.temperature = nn.Buffer(torch.tensor(float(temperature)), persistent=False)

    def sample_guide(self, site: str, step: Tensor) -> None:
        pyro.sample(site, dist.RelaxedOneHotCategorical(self.temperature, logits=self.logits))

    def weights(self, site: str, step: Tensor) -> Tensor:
        prior = dist.RelaxedOneHotCategorical(self.temperature, logits=torch.zeros_like(self.logits))
        return pyro.sample(site, prior)

    def expected(self) -> Tensor:
        """The noiseless weights."""
        return self.logits.detach().softmax(-1).squeeze(1)
