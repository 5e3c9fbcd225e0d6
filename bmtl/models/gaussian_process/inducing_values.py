"""The guide's normal distribution of inducing values, independent between processes or joint."""

from abc import ABC, abstractmethod
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import register_kl


class InducingValues(nn.Module, ABC):
    """Whitened inducing values v ``(Q, M)`` of Q processes, ``Normal(0, 1)`` in the prior; the guide starts there.

    Process q at an input is ``a_q' v_q`` and a rest of its own, where ``a_q`` is ``L_q^-1 k_q(places, x)`` and ``L_q L_q'``
    the covariance of its inducing values.

    Args:
        count: Number of processes Q.
        places: Number of inducing points M.
    """

    def __init__(self, count: int, places: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(count, places))

    @abstractmethod
    def posterior(self) -> Any:
        """The guide's distribution."""

    @abstractmethod
    def prior(self) -> Any:
        """The program's."""

    @abstractmethod
    def covariance(self, a: Tensor, rest: Tensor) -> Tensor:
        """Of the processes at inputs, as `along` takes it.

        Args:
            a: ``(Q, M, B)``.
            rest: Variances of the rests ``(Q, B)``.
        """

    @abstractmethod
    def along(self, c: Tensor, covariance: Tensor) -> Tensor:
        """Variance ``(B,)`` of the processes' combination with coefficients c ``(Q,)``."""


class Independent(InducingValues):
    """One normal for each process. Where a target combines several, its variance is off."""

    def __init__(self, count: int, places: int) -> None:
        super().__init__(count, places)
        self.factor = nn.Parameter(torch.eye(places).repeat(count, 1, 1))

    def posterior(self) -> Any:
        return dist.MultivariateNormal(self.mean, scale_tril=_triangle(self.factor)).to_event(1)

    def prior(self) -> Any:
        eye = torch.eye(self.mean.shape[-1], dtype=self.mean.dtype, device=self.mean.device)
        return dist.MultivariateNormal(
            torch.zeros_like(self.mean), scale_tril=eye.expand(*self.mean.shape, -1)
        ).to_event(1)

    def covariance(self, a: Tensor, rest: Tensor) -> Tensor:
        return rest + (_triangle(self.factor).mT @ a).square().sum(-2)

    def along(self, c: Tensor, covariance: Tensor) -> Tensor:
        return c.square() @ covariance


class Joint(InducingValues):
    """One normal for all processes: with inducing points at all rows it can be the exact posterior."""

    def __init__(self, count: int, places: int) -> None:
        super().__init__(count, places)
        self.factor = nn.Parameter(torch.eye(count * places))

    def posterior(self) -> Any:
        return _Whitened(self.mean.flatten(), scale_tril=_triangle(self.factor))

    def prior(self) -> Any:
        return dist.Normal(torch.zeros_like(self.mean.flatten()), 1.0).to_event(1)

    def covariance(self, a: Tensor, rest: Tensor) -> Tensor:
        rows = _triangle(self.factor).reshape(*self.mean.shape, -1)  # (Q, M, Q M)
        parts = (a.mT @ rows).movedim(1, 0)  # (B, Q, Q M)
        return parts @ parts.mT + rest.mT.diag_embed()

    def along(self, c: Tensor, covariance: Tensor) -> Tensor:
        return covariance @ c @ c


class _Whitened(dist.MultivariateNormal):
    """A normal whose divergence from the standard one needs no solution of triangular systems."""


def _triangle(factor: Tensor) -> Tensor:
    """Lower triangle with a positive diagonal.

    Steps may carry an entry of the diagonal across 0; with its column's sign the factor is that of the same covariance.
    """
    lower = factor.tril()
    return lower * torch.where(lower.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).unsqueeze(-2)


@register_kl(_Whitened, torch.distributions.Independent)
def _(q: Any, p: Any) -> Tensor:
    """From independent standard normals, which is what `Joint.prior` is."""
    scale = q.scale_tril
    squares = scale.square().sum((-2, -1)) + q.loc.square().sum(-1) - q.event_shape[0]
    return 0.5 * squares - scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)
