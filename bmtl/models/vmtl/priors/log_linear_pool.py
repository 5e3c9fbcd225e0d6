"""The prior under which a KL divergence is the weighted mean of those against the components."""

import math
from functools import cached_property
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl

from bmtl.models.vmtl.priors.components import Components

_LOG_TWO_PI = math.log(2 * math.pi)


class LogLinearPool(TorchDistribution):
    """The log-linear pool of normals, ``log p = sum_k a_k log N(m_k, v_k)``, which is not normalised.

    For every q, ``KL(q || p) = sum_k a_k KL(q || N_k)``, which bounds the divergence from the mixture of the components
    from above. The pool's own shape is normal, with precision ``sum a / v``; draws come from that.

    Args:
        components: The normals and their weights. Their batch shapes need only broadcast: the divergence is computed for
            each component once, however many weights it has.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(self, components: Components) -> None:
        event = components.loc.shape[components.loc.dim() - components.event_dim :]
        batch = components.loc.shape[: -components.event_dim - 1]
        self._take(components, torch.broadcast_shapes(batch, components.weights.shape[:-1]), event)

    def _take(self, components: Components, batch: torch.Size, event: torch.Size) -> None:
        self.components = components
        super().__init__(batch, event, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "LogLinearPool":
        new: LogLinearPool = self._get_checked_instance(LogLinearPool, _instance)
        new._take(self.components, torch.Size(batch_shape), self.event_shape)
        return new

    @cached_property
    def _pool(self) -> tuple[Tensor, Tensor, Tensor]:
        """Precision, mean, and what the exponent is at the mean; of the components' own batch shape."""
        c = self.components
        precision = c.mean(c.variance.reciprocal())
        loc = c.mean(c.loc / c.variance) / precision
        # Centred on the pool's own mean: differences of large numbers would drown narrow components.
        from_loc = c.loc - loc.unsqueeze(-c.event_dim - 1)
        return precision, loc, c.mean(c.variance.log() + from_loc.square() / c.variance)

    def log_prob(self, value: Tensor) -> Tensor:
        precision, loc, spread = self._pool
        each = spread + precision * (value - loc).square() + _LOG_TWO_PI
        found = -0.5 * _sum(each, len(self.event_shape))
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        precision, loc, _ = self._pool
        return dist.Normal(loc, precision.rsqrt()).expand(self.batch_shape + self.event_shape).rsample(sample_shape)


def _sum(values: Tensor, dims: int) -> Tensor:
    return values.flatten(-dims).sum(-1) if dims else values


def _once(values: Tensor, batch_dim: int) -> Tensor:
    """Without the leading dimensions that repeat one row as a view, as a plate of particles does."""
    where = tuple(slice(0, 1) if not step else slice(None) for step in values.stride()[:batch_dim])
    return values[where]


@register_kl(torch.distributions.Independent, LogLinearPool)
def _kl_independent_bound(q: Any, p: LogLinearPool) -> Tensor:
    if not isinstance(q.base_dist, torch.distributions.Normal):
        raise NotImplementedError
    c, batch = p.components, torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    m, scale = (_once(part, len(q.batch_shape)) for part in (q.base_dist.loc, q.base_dist.scale))
    v, k = scale.square(), -c.event_dim - 1
    from_loc = m.unsqueeze(k) - c.loc
    each = _sum(c.variance.log() + (v.unsqueeze(k) + from_loc * from_loc) / c.variance, c.event_dim)
    found = 0.5 * ((c.weights * each).sum(-1) - _sum(v.log() + 1, c.event_dim))
    return found.expand(batch)
