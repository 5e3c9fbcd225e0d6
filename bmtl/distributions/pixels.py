"""One label for each pixel of an image, some of them missing."""

from typing import Any, Self

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor


class Pixels(dist.Independent):
    """Images ``(B, H, W)`` of labels that are independent given the distribution; a pixel without a label does not count.

    Args:
        base: Distribution of a pixel, batch shape ``(..., B, H, W)``.
    """

    def __init__(self, base: TorchDistribution) -> None:
        super().__init__(base, 2)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        return type(self)(self.base_dist.expand(torch.Size(batch_shape) + self.event_shape))

    def marginal(self, mask: Tensor) -> TorchDistribution:
        """The distribution of the pixels that have a label.

        Args:
            mask: Which have one, ``(B, H, W)`` bool.
        """
        return self.base_dist.mask(mask).to_event(2)
