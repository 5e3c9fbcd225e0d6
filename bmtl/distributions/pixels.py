"""One label for each pixel of an image, some of them missing."""

from typing import Any, Self

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor


class Pixels(dist.Independent):
    """Images ``(B, H, W, ...)`` of labels that are independent given the distribution.

    A pixel without a label does not count, and a pixel of several numbers has one where all of them are there.

    Args:
        base: Distribution of a pixel, batch shape ``(..., B, H, W)``.
        temperature: What an image's log density is divided by: a number above 0. Pixels of one image are alike, so that
            their joint density overstates the information in the image.
    """

    def __init__(self, base: TorchDistribution, temperature: Tensor | float = 1.0) -> None:
        super().__init__(base, 2)
        self.temperature = temperature

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        entries = torch.Size(batch_shape) + self.event_shape[:2]
        return type(self)(self.base_dist.expand(entries), self.temperature)

    def log_prob(self, value: Tensor) -> Tensor:
        found: Tensor = super().log_prob(value) / self.temperature
        return found

    def entries(self) -> TorchDistribution:
        """The distribution of each pixel, batch shape ``(..., B, H, W)``, at temperature 1."""
        found: TorchDistribution = self.base_dist
        return found

    def marginal(self, mask: Tensor) -> TorchDistribution:
        """The distribution of the pixels that have a label.

        Args:
            mask: Which have one, ``(B, H, W, ...)`` bool.
        """
        there = mask.flatten(3).all(-1) if mask.dim() > 3 else mask
        return type(self)(self.base_dist.mask(there), self.temperature)
