"""The prior under which a KL divergence is the weighted mean of those against the components."""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl

from bmtl.models.vmtl.priors.components import Components


class Bound(TorchDistribution):
    """The log-linear pool of normals, ``log p = sum_k a_k log N(m_k, v_k)``, which is not normalised.

    For every q, ``KL(q || p) = sum_k a_k KL(q || N_k)``, which bounds the divergence from the mixture of the components
    from above. The pool's own shape is normal, with precision ``sum a / v``; draws come from that.

    Args:
        components: The normals and their weights.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(self, components: Components) -> None:
        precision = components.mean(components.variance.reciprocal())
        loc = components.mean(components.loc / components.variance) / precision
        # Centred on the pool's own mean: differences of large numbers would drown narrow components.
        from_loc = components.loc - loc.unsqueeze(-components.event_dim - 1)
        spread = components.mean(components.variance.log() + from_loc.square() / components.variance)
        self._take(precision, loc, spread, loc.dim() - components.event_dim)

    def _take(self, precision: Tensor, loc: Tensor, spread: Tensor, batch_dim: int) -> None:
        self.precision, self.loc, self.spread = precision, loc, spread
        super().__init__(loc.shape[:batch_dim], loc.shape[batch_dim:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Bound":
        new: Bound = self._get_checked_instance(Bound, _instance)
        shape = torch.Size(batch_shape) + self.event_shape
        precision, loc, spread = (part.expand(shape) for part in (self.precision, self.loc, self.spread))
        new._take(precision, loc, spread, len(batch_shape))
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        each = self.spread + self.precision * (value - self.loc).square() + _LOG_TWO_PI
        return -0.5 * _sum(each, len(self.event_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return dist.Normal(self.loc, self.precision.rsqrt()).rsample(sample_shape)


_LOG_TWO_PI = 1.8378770664093453


def _sum(values: Tensor, dims: int) -> Tensor:
    return values.flatten(-dims).sum(-1) if dims else values


@register_kl(torch.distributions.Independent, Bound)
def _kl_independent_bound(q: Any, p: Bound) -> Tensor:
    if not isinstance(q.base_dist, torch.distributions.Normal):
        raise NotImplementedError
    m, v = q.base_dist.loc, q.base_dist.scale.square()
    each = p.spread + p.precision * (v + (m - p.loc).square()) - v.log() - 1
    return 0.5 * _sum(each, len(p.event_shape))
