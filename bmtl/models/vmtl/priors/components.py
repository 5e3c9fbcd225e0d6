"""The components of a prior: weighted diagonal normals."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Components:
    """K diagonal normals with weights that sum to 1, for each cell of a batch.

    Attributes:
        weights: ``(..., K)``.
        loc: Means, ``(..., K, *event)``.
        variance: As `loc`.
        event_dim: Number of dimensions of the event.
    """

    weights: Tensor
    loc: Tensor
    variance: Tensor
    event_dim: int

    def mean(self, values: Tensor) -> Tensor:
        """The weighted sum over the components of values ``(..., K, *event)``."""
        return (self.aligned(self.weights) * values).sum(-self.event_dim - 1)

    def aligned(self, weights: Tensor) -> Tensor:
        """Weights ``(..., K)`` with a dimension of size 1 for each of the event's."""
        return weights.reshape(weights.shape + (1,) * self.event_dim)

    def with_anchor(self, share: float, scale: float) -> "Components":
        """The same with one more component, ``Normal(0, scale)`` of fixed weight `share`; the others keep the rest.

        Without it, posteriors that are each other's priors count each other's data again at every step, and grow ever
        narrower; with it a set of tasks that all point at each other has a fixed point.
        """
        if not share:
            return self
        where = -self.event_dim - 1
        one = self.loc.narrow(where, 0, 1)
        anchor = self.weights.new_full((*self.weights.shape[:-1], 1), share)
        return Components(
            torch.cat([(1 - share) * self.weights, anchor], -1),
            torch.cat([self.loc, torch.zeros_like(one)], where),
            torch.cat([self.variance, torch.full_like(one, scale**2)], where),
            self.event_dim,
        )
