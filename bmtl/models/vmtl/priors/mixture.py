"""The mixture of the components, whose divergence has no closed form."""

from typing import Any, ClassVar, Literal

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl

from bmtl.models.vmtl.priors.components import Components

Level = Literal["task", "class", "coordinate"]
_COVERS = {"task": None, "class": 1, "coordinate": 0}


class Mixture(TorchDistribution):
    """``p = sum_k a_k N(m_k, v_k)``.

    Args:
        components: The normals and their weights.
        level: What one choice of a component covers: the whole event ("task"), a row of it ("class") or a number
            ("coordinate"). Over a whole matrix one component takes all.
        tight: Register the divergence ``-log sum_k a_k exp(-KL(q || N_k))`` of each choice, a bound from above that is
            below that of `LogLinearPool`; else there is none, and estimators draw it.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = False

    def __init__(self, components: Components, level: Level = "coordinate", tight: bool = False) -> None:
        covers = _COVERS[level]
        covers = components.event_dim if covers is None else min(covers, components.event_dim)
        log_weights = components.aligned(components.weights).clamp_min(torch.finfo(components.weights.dtype).tiny).log()
        shape = torch.broadcast_shapes(components.loc.shape, log_weights.shape)
        self._take(
            log_weights,
            components.loc.expand(shape),
            components.variance.expand(shape),
            components.event_dim,
            covers,
            tight,
        )

    def _take(
        self, log_weights: Tensor, loc: Tensor, variance: Tensor, event_dim: int, covers: int, tight: bool
    ) -> None:
        self.log_weights, self._loc, self._variance = log_weights, loc, variance
        self.covers, self.tight = covers, tight
        self._k = -event_dim - 1  # dimension of the components
        super().__init__(loc.shape[: self._k], loc.shape[loc.dim() - event_dim :], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Mixture":
        new: Mixture = self._get_checked_instance(Mixture, _instance)
        batch = torch.Size(batch_shape)
        loc, variance = (part.expand(batch + part.shape[self._k :]) for part in (self._loc, self._variance))
        log_weights = self.log_weights.expand(batch + self.log_weights.shape[self._k :])
        new._take(log_weights, loc, variance, len(self.event_shape), self.covers, self.tight)
        return new

    def over_choices(self, each: Tensor) -> Tensor:
        """``log sum_k a_k exp(each_k)`` at each choice, summed; `each` is ``(..., K, *event)``."""
        if self.covers:
            each = each.sum(tuple(range(-self.covers, 0)), keepdim=True)
        chosen = torch.logsumexp(self.log_weights + each, self._k)
        event_dim = len(self.event_shape)
        return chosen.flatten(-event_dim).sum(-1) if event_dim else chosen

    def log_prob(self, value: Tensor) -> Tensor:
        density = dist.Normal(self._loc, self._variance.sqrt()).log_prob(value.unsqueeze(self._k))
        return self.over_choices(density)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            shape = list(self._loc.shape)
            shape[len(shape) - self.covers :] = [1] * self.covers
            gumbel = -torch.empty(*sample_shape, *shape).to(self._loc).exponential_().log()
            scores = self.log_weights + gumbel
            chosen = scores == scores.amax(self._k, keepdim=True)
            loc, variance = ((chosen * part).sum(self._k) for part in (self._loc, self._variance))
            return torch.normal(loc, variance.sqrt())


@register_kl(torch.distributions.Independent, Mixture)
def _kl_independent_mixture(q: Any, p: Mixture) -> Tensor:
    if not p.tight or not isinstance(q.base_dist, torch.distributions.Normal):
        raise NotImplementedError  # the estimator then draws it
    m, v = (part.unsqueeze(p._k) for part in (q.base_dist.loc, q.base_dist.scale.square()))
    each = 0.5 * ((v + (m - p._loc).square()) / p._variance - 1 - (v / p._variance).log())
    return -p.over_choices(-each)
