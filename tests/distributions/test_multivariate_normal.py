import math

import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats

import bmtl
from bmtl.distributions import MultivariateNormal

LOC = torch.tensor([[0.3, -1.0, 2.0], [0.0, 0.5, -0.5], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
TRIL = torch.tensor([[1.0, 0.0, 0.0], [0.7, 0.5, 0.0], [-0.4, 0.3, 2.0]], dtype=torch.float64)
THERE = torch.tensor([[True, True, True], [True, False, True], [False, False, True], [False, False, False]])
Y = torch.tensor([[0.1, 0.2, 0.3], [1.0, 9.0, -1.0], [9.0, 9.0, 0.5], [9.0, 9.0, 9.0]], dtype=torch.float64)


def exact(row):
    """scipy's density of the components that are there, by deleting rows and columns."""
    at = THERE[row].nonzero().flatten().tolist()
    if not at:
        return 0.0
    covariance = (TRIL @ TRIL.mT).numpy()[at][:, at]
    return float(stats.multivariate_normal(LOC[row, at].numpy(), covariance).logpdf(Y[row, at].numpy()))


def test_each_row_has_the_marginal_density_of_what_it_has():
    p = MultivariateNormal(LOC, scale_tril=TRIL)
    found = p.marginal(THERE).log_prob(Y)
    torch.testing.assert_close(found, torch.tensor([exact(i) for i in range(4)], dtype=torch.float64))
    torch.testing.assert_close(p.marginal(THERE).log_prob(torch.where(THERE, Y, -3.0)), found)
    complete = torch.ones_like(THERE)
    torch.testing.assert_close(p.marginal(complete).log_prob(Y), p.log_prob(Y))


def test_gradients_are_those_of_finite_differences_and_missing_components_have_none():
    below = TRIL.clone().requires_grad_()
    loc = LOC.clone().requires_grad_()

    def density(loc, below):
        tril = below.tril(-1) + below.diagonal().exp().diag_embed()
        return MultivariateNormal(loc, scale_tril=tril).marginal(THERE).log_prob(Y)

    assert torch.autograd.gradcheck(density, (loc, below))
    (slope,) = torch.autograd.grad(density(loc, below).sum(), loc)
    assert not slope[~THERE].any()
    assert (slope[THERE] != 0).all()


def test_particles_stand_left_of_the_rows():
    trils = torch.stack([TRIL, 2 * TRIL])[:, None]
    p = MultivariateNormal(LOC, scale_tril=trils)
    assert p.batch_shape == (2, 4)
    found = p.marginal(THERE).log_prob(Y)
    torch.testing.assert_close(found[0], MultivariateNormal(LOC, scale_tril=TRIL).marginal(THERE).log_prob(Y))
    assert p.marginal(THERE).expand([5, 2, 4]).log_prob(Y).shape == (5, 2, 4)
    assert p.expand([5, 2, 4]).law()[0] == "multivariate-normal"


def test_observe_takes_the_marginal_where_components_are_missing():
    y = torch.where(THERE, Y, math.nan)

    def program():
        with pyro.plate("rows", 4):
            bmtl.observe("y", MultivariateNormal(LOC, scale_tril=TRIL), y)

    total = poutine.trace(program).get_trace().log_prob_sum()
    assert total.item() == pytest.approx(sum(exact(i) for i in range(4)))
