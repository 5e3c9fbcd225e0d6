"""The rules that make a prior of weighted normals: densities, draws and divergences."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import kl_divergence

from bmtl.models.vmtl.priors import Components, LogLinearPool, Mixture, combine

RULES = ["sum", "moment", "log-linear-pool", "mixture"]


def components(seed=0, batch=(3, 2), k=4, event=(2, 5), spread=1.0):
    g = torch.Generator().manual_seed(seed)
    weights = (3 * torch.randn(*batch, k, generator=g, dtype=torch.float64)).softmax(-1)
    loc = spread * torch.randn(*batch, k, *event, generator=g, dtype=torch.float64)
    variance = (0.3 * torch.randn(*batch, k, *event, generator=g, dtype=torch.float64)).exp()
    return Components(weights, loc, variance, len(event))


def posterior(seed=1, batch=(3, 2), event=(2, 5)):
    g = torch.Generator().manual_seed(seed)
    loc = torch.randn(*batch, *event, generator=g, dtype=torch.float64)
    scale = (0.3 * torch.randn(*batch, *event, generator=g, dtype=torch.float64)).exp()
    return dist.Normal(loc, scale).to_event(len(event))


def drawn_kl(q, p, draws=4_000):
    """Mean and standard error of log q - log p at draws of q."""
    pyro.set_rng_seed(0)
    x = q.sample((draws,))
    each = q.log_prob(x) - p.log_prob(x)
    return each.mean(0), each.std(0) / math.sqrt(draws)


@pytest.mark.parametrize("event", [(4,), (2, 3)])
@pytest.mark.parametrize("rule", ["sum", "moment", "log-linear-pool"])
def test_the_closed_divergence_is_the_drawn_one(rule, event):
    p, q = combine(rule, components(event=event)), posterior(event=event)
    mean, error = drawn_kl(q, p)
    assert ((kl_divergence(q, p) - mean).abs() < 4 * error).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), spread=st.floats(0, 5), k=st.integers(1, 5))
def test_the_bound_is_the_weighted_mean_of_divergences_and_the_tight_one_lies_below(seed, spread, k):
    c, q = components(seed, k=k, spread=spread), posterior(seed + 1)
    each = torch.stack(
        [kl_divergence(q, dist.Normal(c.loc[:, :, i], c.variance[:, :, i].sqrt()).to_event(2)) for i in range(k)], -1
    )
    bound = kl_divergence(q, LogLinearPool(c))
    torch.testing.assert_close(bound, (c.weights * each).sum(-1))
    for level in ("coordinate", "class", "task"):
        tight = kl_divergence(q, Mixture(c, level, tight=True))
        assert (tight <= bound + 1e-9).all()
    torch.testing.assert_close(tight, -torch.logsumexp(c.weights.log() - each, -1))  # level "task"


@pytest.mark.parametrize("level", ["coordinate", "class", "task"])
@pytest.mark.parametrize("event", [(4,), (2, 3)])
def test_the_drawn_divergence_from_the_mixture_lies_below_the_tight_bound(level, event):
    c, q = components(event=event), posterior(event=event)
    mean, error = drawn_kl(q, Mixture(c, level))
    assert (mean <= kl_divergence(q, Mixture(c, level, tight=True)) + 3 * error).all()


@pytest.mark.parametrize("rule", ["moment", "log-linear-pool", "mixture"])
def test_equal_components_make_their_own_law(rule):
    c = components(batch=(2,), event=(3,))
    c = Components(c.weights, c.loc[:, :1].expand_as(c.loc), c.variance[:, :1].expand_as(c.loc), 1)
    q, one = posterior(batch=(2,), event=(3,)), dist.Normal(c.loc[:, 0], c.variance[:, 0].sqrt()).to_event(1)
    p = combine(rule, c, tight=True)
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(q, one))
    torch.testing.assert_close(p.log_prob(q.mean), one.log_prob(q.mean))


def test_the_sum_is_the_law_of_the_weighted_sum_and_the_moments_are_the_mixtures():
    c = components(batch=(), event=(2,))
    pyro.set_rng_seed(0)
    x = dist.Normal(c.loc, c.variance.sqrt()).sample((40_000,))
    total = (c.weights[:, None] * x).sum(1)
    p = combine("sum", c)
    torch.testing.assert_close(p.mean, total.mean(0), atol=0.04, rtol=0)
    torch.testing.assert_close(p.variance, total.var(0), rtol=0.04, atol=0)
    chosen = Mixture(c).sample((40_000,))
    p = combine("moment", c)
    torch.testing.assert_close(p.mean, chosen.mean(0), atol=0.04, rtol=0)
    torch.testing.assert_close(p.variance, chosen.var(0), rtol=0.04, atol=0)


@pytest.mark.parametrize("level", ["coordinate", "class", "task"])
def test_a_mixtures_density_is_that_of_its_draws(level):
    """Cross entropy of one Mixture against another: ``E_p[q / p] = 1`` for normalised densities."""
    c = components(batch=(), event=(2, 2), k=3)
    pyro.set_rng_seed(1)
    p = Mixture(c, level)
    x = p.sample((20_000,))
    q = dist.Normal(c.mean(c.loc), 0.7 * torch.ones(2, 2, dtype=torch.float64)).to_event(2)
    ratio = (q.log_prob(x) - p.log_prob(x)).exp()
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(len(ratio))


@pytest.mark.parametrize("rule", RULES)
def test_expanding_repeats_the_batch(rule):
    p = combine(rule, components())
    wide = p.expand((7, 3, 2))
    x = posterior().mean
    assert wide.batch_shape == (7, 3, 2)
    assert wide.event_shape == p.event_shape == (2, 5)
    assert wide.sample().shape == (7, 3, 2, 2, 5)
    torch.testing.assert_close(wide.log_prob(x), p.log_prob(x).expand(7, 3, 2))


def test_the_mixtures_divergence_is_left_to_draws_unless_it_is_tight():
    with pytest.raises(NotImplementedError):
        kl_divergence(posterior(), Mixture(components()))


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_anchor_takes_its_share(share):
    c = components()
    found = c.with_anchor(share, 2.0)
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(3, 2, dtype=torch.float64))
    if not share:
        assert found is c
        return
    assert (found.weights[..., -1] == share).all()
    torch.testing.assert_close(found.weights[..., :-1], 0.7 * c.weights)
    assert (found.loc[:, :, -1] == 0).all()
    assert (found.variance[:, :, -1] == 4).all()


def test_a_narrow_pool_far_from_zero_keeps_its_divergence_in_single_precision():
    """Sums of squares alone would lose it: locations of 100 with standard deviations of 0.001."""
    c = components(batch=(2,), event=(3,), spread=1e-3)
    c = Components(c.weights, c.loc + 100, 1e-6 * c.variance, 1)
    single = Components(*(part.float() for part in (c.weights, c.loc, c.variance)), 1)
    q = dist.Normal(single.loc[:, 0].double(), 1e-3).to_event(1)
    few = Components(single.weights.double(), single.loc.double(), single.variance.double(), 1)
    exact = kl_divergence(q, LogLinearPool(few))
    found = kl_divergence(dist.Normal(single.loc[:, 0], 1e-3).to_event(1), LogLinearPool(single))
    torch.testing.assert_close(found.double(), exact, rtol=2e-2, atol=1e-2)
