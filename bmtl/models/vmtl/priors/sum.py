"""The law of a weighted sum of independent normal variables."""

import pyro.distributions as dist

from bmtl.models.vmtl.priors.components import Components


def weighted_sum(components: Components) -> dist.TorchDistribution:
    """``Normal(sum_k a_k m_k, sum_k a_k^2 v_k)``; bounds nothing."""
    loc = components.mean(components.loc)
    variance = (components.aligned(components.weights.square()) * components.variance).sum(-components.event_dim - 1)
    return dist.Normal(loc, variance.sqrt()).to_event(components.event_dim)
