"""The multivariate normal, with the marginal of the components that a row has."""

import math
from typing import Any, Self

import pyro.distributions as dist
import torch
from torch import Tensor


class MultivariateNormal(dist.MultivariateNormal):
    """A vector y ``(B, d)`` with mean `loc` and covariance ``scale_tril scale_tril'``; labels may lack components.

    A row with some components missing counts with the marginal density of those present: see `marginal`.

    Args:
        loc: ``(..., d)``.
        covariance_matrix: ``(..., d, d)``, or give `precision_matrix` or `scale_tril` instead, as for torch's own.
    """

    def law(self) -> tuple[str, dict[str, Tensor]]:
        """Name and parameters of the predictive distribution, for reports."""
        return "multivariate-normal", {"loc": self.loc, "scale_tril": self.scale_tril}

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = self._get_checked_instance(MultivariateNormal, _instance)
        return super().expand(batch_shape, new)

    def marginal(self, mask: Tensor) -> "MarginalNormal":
        """The distribution of the components that are there.

        Args:
            mask: Which components each row has, ``(B, d)`` bool.
        """
        return MarginalNormal(self, mask)


class MarginalNormal(MultivariateNormal):
    """The components of a multivariate normal that each row has; the others are as if they were not there.

    The event keeps its size: a component that is not there is independent of the others and adds 0 to the log density,
    whatever its value.

    Args:
        whole: The distribution of all components.
        there: Which components each row has, ``(B, d)`` bool.
    """

    def __init__(self, whole: MultivariateNormal, there: Tensor) -> None:
        self.whole, self.there = whole, there
        both = there[..., :, None] & there[..., None, :]
        covariance = whole.scale_tril @ whole.scale_tril.mT
        unit = torch.eye(there.shape[-1], dtype=covariance.dtype, device=covariance.device)
        tril = torch.linalg.cholesky(torch.where(both, covariance, unit))
        super().__init__(torch.where(there, whole.loc, 0.0), scale_tril=tril, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "MarginalNormal":
        batch = torch.Size(batch_shape)
        return MarginalNormal(self.whole.expand(batch), self.there.expand(batch + self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob = super().log_prob(torch.where(self.there, value, 0.0))
        absent = (~self.there).sum(-1).to(log_prob)
        return log_prob + 0.5 * math.log(2 * math.pi) * absent
