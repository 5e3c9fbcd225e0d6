"""Classes, trained on Kendall's approximation."""

import torch
from torch import Tensor

from bmtl.distributions import Categorical as CategoricalDistribution
from bmtl.models.likelihoods.base import Values
from bmtl.models.likelihoods.categorical import Categorical, class_losses


class Kendall(Categorical):
    """Trains on ``CE(f) / sigma^2 + log sigma``, which is not a density; predictions use `Categorical`'s exact form.

    Args:
        count: Number of classes, from 2.
        noise: As for `Categorical`.
        noise_prior: As for `Categorical`.

    Source:
        Kendall, Gal & Cipolla (2018), equation 10. The approximation is exact at sigma = 1 only.
    """

    name = "kendall"
    families = ("classes", "binary")

    @property
    def trains_on_loss(self) -> bool:
        return True

    def training_loss(self, site: str, f: Tensor, values: Values, y: Tensor) -> Tensor:
        """``CE(f) / sigma^2 + log sigma``.

        Raises:
            ValueError: If a label is not a class.
        """
        loss = class_losses(site, CategoricalDistribution(logits=f[..., : self.count]), y)
        s = self.noise_of(f, values)
        return loss * torch.exp(-s) + 0.5 * s
