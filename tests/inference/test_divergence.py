"""Closed divergences under a plate that repeats one row."""

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from bmtl.inference.divergence import divergence


def normal(seed, shape, event_dim):
    g = torch.Generator().manual_seed(seed)
    loc = torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_()
    log_scale = torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_()
    return (loc, log_scale), dist.Normal(loc, log_scale.exp()).to_event(event_dim)


@pytest.mark.parametrize("event_dim", [0, 1, 2])
@pytest.mark.parametrize("prior_shape", [(3, 4, 2, 5), (4, 2, 5), (1, 2, 5), ()])
def test_repeated_rows_have_the_divergence_and_the_gradient_of_copies(event_dim, prior_shape):
    parameters, q = normal(0, (4, 2, 5), event_dim)
    shape = (3, 4, 2, 5)[: 4 - event_dim]
    prior = normal(1, prior_shape, 0)[1].expand((3, 4, 2, 5)).to_event(event_dim)
    loc, log_scale = (part.expand(3, 4, 2, 5).clone() for part in parameters)
    weights = torch.rand(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    found = divergence(q.expand(shape), prior)
    copied = kl_divergence(dist.Normal(loc, log_scale.exp()).to_event(event_dim), prior)

    assert found.shape == shape
    torch.testing.assert_close(found, copied)
    for mine, its in zip(
        torch.autograd.grad((weights * found).sum(), parameters),
        torch.autograd.grad((weights * copied).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(mine, its)


def test_what_is_repeated_is_computed_once():
    _, q = normal(0, (4, 5), 1)
    prior = dist.Normal(torch.zeros((), dtype=torch.float64), 1.0).expand((1000, 4, 5)).to_event(1)
    found = divergence(q.expand((1000, 4)), prior)
    assert found.shape == (1000, 4)
    assert found.untyped_storage().nbytes() == 8 * 4


def test_event_dimensions_that_repeat_a_number_are_summed():
    one, prior = dist.Normal(1.0, 1.0).expand((7,)).to_event(1), dist.Normal(0.0, 1.0).expand((3, 7)).to_event(1)
    assert divergence(one.expand((3,)), prior).tolist() == [3.5] * 3


def test_other_laws_are_left_as_they_are():
    q, p = dist.Gamma(torch.tensor(2.0), 1.0).expand((3,)), dist.Gamma(torch.tensor(3.0), 1.0).expand((3,))
    torch.testing.assert_close(divergence(q, p), kl_divergence(q, p))
    with pytest.raises(NotImplementedError):
        divergence(dist.Normal(0.0, 1.0).expand((3,)), dist.StudentT(3.0).expand((3,)))


def test_a_prior_of_more_rows_and_a_normal_of_another_density():
    q = dist.Normal(torch.zeros(()), 1.0).expand((3,))
    p = dist.Normal(torch.arange(6.0).reshape(2, 3), 1.0)
    torch.testing.assert_close(divergence(q, p), kl_divergence(q, p))

    class Tempered(dist.Normal):
        def log_prob(self, value):
            return 2 * super().log_prob(value)

    @torch.distributions.register_kl(Tempered, dist.Normal)
    def doubled(q, p):
        return 2 * torch.ones(q.batch_shape)

    assert divergence(Tempered(torch.zeros(()), 1.0).expand((3,)), dist.Normal(0.0, 1.0)).tolist() == [2.0] * 3
