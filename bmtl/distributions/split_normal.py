"""A normal whose variance is of two sources."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor


class SplitNormal(dist.Normal):
    """``Normal(loc, sqrt(epistemic + aleatoric))``, in which the noise is apart from what is not known of the function.

    Args:
        loc: Mean.
        epistemic: Variance of the function.
        aleatoric: Variance of the noise.
    """

    def __init__(self, loc: Tensor, epistemic: Tensor, aleatoric: Tensor) -> None:
        self.epistemic, self.aleatoric = epistemic, aleatoric
        super().__init__(loc, (epistemic + aleatoric).sqrt())

    def law(self) -> tuple[str, dict[str, Tensor]]:
        """Name and parameters of the predictive distribution, for reports."""
        return "student-t", {"loc": self.loc, "scale": self.scale, "df": torch.full_like(self.loc, torch.inf)}

    def expand(self, batch_shape: Any, _instance: Any = None) -> "SplitNormal":
        return SplitNormal(*(part.expand(batch_shape) for part in (self.loc, self.epistemic, self.aleatoric)))
