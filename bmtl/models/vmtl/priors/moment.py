"""The normal that has the mixture's mean and variance."""

import pyro.distributions as dist

from bmtl.models.vmtl.priors.components import Components


def moment(components: Components) -> dist.TorchDistribution:
    """``Normal(b, sum_k a_k (v_k + (m_k - b)^2))`` with ``b = sum_k a_k m_k``; bounds nothing."""
    loc = components.mean(components.loc)
    from_loc = components.loc - loc.unsqueeze(-components.event_dim - 1)
    variance = components.mean(components.variance + from_loc.square())
    return dist.Normal(loc, variance.sqrt()).to_event(components.event_dim)
