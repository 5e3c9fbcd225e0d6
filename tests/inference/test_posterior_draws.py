"""Draws that MCMC made, read as a guide's are."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS

import bmtl
from bmtl.inference.draws import draw
from bmtl.inference.posterior_draws import PosteriorDraws

Y = torch.tensor([1.0, 1.5, 0.5, 1.2, 0.9])


def model(x, y=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(Y), subsample=x), bmtl.task("a"):
        bmtl.observe("y_a", dist.Normal(mu.expand(len(x)), 1.0), None if y is None else y["a"])


def test_every_draw_is_used_once():
    values = torch.linspace(-1, 1, 40)
    found = draw(model, PosteriorDraws({"mu": values}), torch.zeros(3, 1), num_draws=40)
    np.testing.assert_allclose(np.sort(found.posterior["mu"]), values)
    np.testing.assert_allclose(found.targets["a"].mean, values.mean(), atol=1e-6)
    np.testing.assert_allclose(found.targets["a"].epistemic, values.var(correction=0), rtol=1e-5)
    np.testing.assert_allclose(found.targets["a"].aleatoric, 1.0)


def test_mcmc_gives_the_conjugate_predictive():
    """Posterior of a normal mean: N(sum y / (n + 1), 1 / (n + 1)). Four standard errors of 30 draws."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mcmc = MCMC(NUTS(model, max_tree_depth=3), num_samples=150, warmup_steps=40, disable_progbar=True)
        mcmc.run(torch.zeros(len(Y), 1), {"a": Y})
    found = draw(model, PosteriorDraws(mcmc.get_samples()), torch.zeros(2, 1), {"a": Y[:2]}, num_draws=150)
    sd = math.sqrt(1 / (len(Y) + 1))
    assert abs(found.targets["a"].mean[0] - float(Y.sum()) / (len(Y) + 1)) < 4 * sd / math.sqrt(30)
    assert abs(found.targets["a"].epistemic[0] / sd**2 - 1) < 4 * math.sqrt(2 / 30)
    assert found.targets["a"].log_likelihood.shape == (150, 2)


def test_only_chosen_sites_are_kept():
    guide = PosteriorDraws({"mu": torch.zeros(4), "unused": torch.zeros(4, 1000)})
    assert set(draw(model, guide, torch.zeros(3, 1), num_draws=4, sites=["mu"]).posterior) == {"mu"}
    assert draw(model, guide, torch.zeros(3, 1), num_draws=4, sites=[]).posterior == {}
    with pytest.raises(ValueError, match="no global latent 'nu'; there are"):
        draw(model, guide, torch.zeros(3, 1), num_draws=4, sites=["nu"])


@pytest.mark.parametrize(
    "samples", [{}, {"a": torch.zeros(0)}, {"a": torch.zeros(2), "b": torch.zeros(3)}, {"a": torch.tensor(1.0)}]
)
def test_draws_that_do_not_fit_are_told(samples):
    with pytest.raises(ValueError, match="one S from 1"):
        PosteriorDraws(samples)
