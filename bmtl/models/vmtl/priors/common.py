"""One normal prior for all tasks, with a mean and a covariance that are learnt: Bakker & Heskes (2003)."""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints, register_kl
from torch.nn import functional as F


class CorrelatedRows(TorchDistribution):
    """Independent rows ``w_c ~ Normal(m_c, L L')``, event ``(C, H)``.

    Args:
        loc: Means m, ``(..., C, H)``.
        scale_tril: Cholesky factor L of the rows' covariance, ``(H, H)``.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(self, loc: Tensor, scale_tril: Tensor) -> None:
        self.loc, self.scale_tril = loc, scale_tril
        super().__init__(loc.shape[:-2], loc.shape[-2:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "CorrelatedRows":
        return CorrelatedRows(self.loc.expand(torch.Size(batch_shape) + self.event_shape), self.scale_tril)

    def _rows(self) -> dist.MultivariateNormal:
        return dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril)

    def log_prob(self, value: Tensor) -> Tensor:
        return self._rows().log_prob(value).sum(-1)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self._rows().rsample(sample_shape)


@register_kl(torch.distributions.Independent, CorrelatedRows)
def _kl_independent_correlated(q: Any, p: CorrelatedRows) -> Tensor:
    if not isinstance(q.base_dist, torch.distributions.Normal):
        raise NotImplementedError
    m, v = q.base_dist.loc, q.base_dist.scale.square()
    eye = torch.eye(p.scale_tril.shape[-1], dtype=m.dtype, device=m.device)
    whiten = torch.linalg.solve_triangular(p.scale_tril, eye, upper=False)
    distance = ((m - p.loc) @ whiten.mT).square().sum((-1, -2))
    log_det = 2 * p.scale_tril.diagonal().log().sum() * m.shape[-2]
    trace = (v * whiten.square().sum(0)).sum((-1, -2))
    return 0.5 * (trace + distance + log_det - (v.log() + 1).sum((-1, -2)))


class CommonPrior(nn.Module):
    """The mean ``(C, H)`` and covariance ``(H, H)`` of all tasks' classifiers, fitted with them (empirical Bayes).

    Args:
        classes: C.
        latent: H.
        scale: Standard deviation at the start; the mean starts at 0.
    """

    def __init__(self, classes: int, latent: int, scale: float) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(classes, latent))
        self.rho = nn.Parameter(torch.full((latent,), scale).expm1().log())
        self.below = nn.Parameter(torch.zeros(latent, latent))

    def forward(self, tasks: int) -> CorrelatedRows:
        """The prior of the classifiers, batch ``(T, 1)``."""
        return CorrelatedRows(self.loc.expand(tasks, 1, *self.loc.shape), self.scale_tril)

    @property
    def scale_tril(self) -> Tensor:
        """Cholesky factor of the rows' covariance, ``(H, H)``."""
        # Relative to the diagonal and over sqrt(H): steps of one size on H entries a row must not swamp its variance.
        h = len(self.rho)
        unit = torch.eye(h, dtype=self.rho.dtype, device=self.rho.device)
        return F.softplus(self.rho)[:, None] * (unit + self.below.tril(-1) / h**0.5)
