"""Guides of a conjugate linear model, whose posterior is known."""

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from scipy import stats
from torch import nn

import bmtl
from bmtl.evaluation.simulation import in_words, rank_calibration
from bmtl.inference.simulation import simulated_ranks
from tests.inference.programs import task_model

X = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
NOISE = 0.7
ENTRIES = ["w[0]", "w[1]", "b"]


def model(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    with bmtl.task("a"), pyro.plate("rows", len(X), subsample=x):
        bmtl.observe("y_a", dist.Normal(x @ w + b, NOISE), None if y is None else y["a"])


def posterior(y):
    """Mean and covariance of (w, b)."""
    design = torch.cat([X, torch.ones(len(X), 1)], 1)
    covariance = torch.linalg.inv(torch.eye(3) + design.mT @ design / NOISE**2)
    return covariance @ design.mT @ y / NOISE**2, covariance


def closed_form(seed, x, y, shift=0.0, width=1.0):
    """The posterior as a full-rank guide, moved by `shift` of its standard deviations and stretched by `width`."""
    mean, covariance = posterior(y["a"])
    tril = width * torch.linalg.cholesky(covariance)
    guide = AutoMultivariateNormal(model)
    guide(x, y)
    scale = tril.diagonal()
    with torch.no_grad():
        guide.loc.copy_(mean + shift * covariance.diagonal().sqrt())
    guide.scale, guide.scale_tril = scale, tril / scale[:, None]
    return guide


def marginal(seed, x, y, shift=0.0, width=1.0):
    """The same for b alone."""
    mean, covariance = posterior(y["a"])
    sd = covariance[2, 2].sqrt()
    return lambda x: pyro.sample("b", dist.Normal(mean[2] + shift * sd, width * sd))


def test_the_exact_posterior_has_uniform_ranks():
    """Three tests of three latents, each at 0.3 %: a right guide fails this in one seed of thirty at most."""
    found = simulated_ranks(model, closed_form, X, datasets=40, num_draws=19, seed=1)
    assert list(found.ranks) == ENTRIES
    for name in ENTRIES:
        assert found.ranks[name].shape == found.truth[name].shape == (40,)
        counts = np.bincount(found.ranks[name], minlength=20).reshape(5, 4).sum(axis=1)  # 8 expected in each
        assert stats.chisquare(counts).pvalue > 0.01 / 3
        # The prior made the truths; 19 draws give the errors a Student t with 18 degrees of freedom.
        assert stats.kstest(found.truth[name], stats.norm.cdf).pvalue > 0.01 / 3
        assert stats.kstest(found.errors[name] / np.sqrt(1 + 1 / 19), stats.t(18).cdf).pvalue > 0.01 / 3
        np.testing.assert_allclose(found.probability[name], stats.norm.cdf(-found.errors[name]))
    assert "no departure" in in_words(rank_calibration(found.ranks, found.num_draws, found.errors))


@pytest.mark.parametrize(
    ("shift", "width", "said"), [(1.0, 1.0, "sits too high"), (-1.0, 1.0, "sits too low"), (0.0, 0.3, "too narrow")]
)
def test_a_wrong_guide_is_found_out(shift, width, said):
    wrong = functools.partial(marginal, shift=shift, width=width)
    found = simulated_ranks(model, wrong, X, datasets=50, num_draws=19, sites=["b"])
    assert f"b: the guide {'is ' if shift == 0 else ''}{said}" in in_words(
        rank_calibration(found.ranks, found.num_draws, found.errors)
    )


def test_the_seed_alone_decides_and_the_global_generator_stays():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = simulated_ranks(model, closed_form, X, datasets=3, num_draws=5, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    again = simulated_ranks(model, closed_form, X, datasets=3, num_draws=5, seed=2)
    other = simulated_ranks(model, closed_form, X, datasets=3, num_draws=5, seed=5)
    for name in ENTRIES:
        np.testing.assert_array_equal(first.ranks[name], again.ranks[name])
        np.testing.assert_array_equal(first.mean[name], again.mean[name])
        assert (first.truth[name] != other.truth[name]).all()


def test_chosen_entries_only():
    found = simulated_ranks(model, closed_form, X, datasets=2, num_draws=2, sites={"w": [1], "b": [0]})
    assert list(found.ranks) == ["w[1]", "b"]


def test_a_draw_that_equals_the_truth_counts_by_a_coin():
    """A guide that knows the truth as a point: ranks 0 to S with probability like coins, and not all S."""

    def discrete(x, y=None):
        pyro.sample("k", dist.Bernoulli(0.5))
        with bmtl.task("a"), pyro.plate("rows", len(X), subsample=x):
            bmtl.observe("y_a", dist.Normal(x[:, 0], 1.0), None if y is None else y["a"])

    prior = pyro.poutine.block(discrete, hide=["y_a", "rows"])
    found = simulated_ranks(discrete, lambda seed, x, y: prior, X, datasets=40, num_draws=9)
    assert stats.chisquare(np.bincount(found.ranks["k"], minlength=10).reshape(5, 2).sum(1)).pvalue > 1e-3
    point = simulated_ranks(model, lambda *_: lambda x: _point(0.0), X, datasets=2, num_draws=3, sites=["b"])
    assert np.isinf(point.errors["b"]).all()


def _point(value):
    pyro.sample("b", dist.Delta(torch.tensor(value)))


def test_a_trained_guide_of_a_built_in_model():
    """A few data sets: training runs with gradients, modules predict without dropout and are left as they were."""
    trunk = nn.Dropout(0.5)
    simulator = task_model(trunk, 2, {"a": 0, "c": 3}, len(X), noise="latent", head="bayesian")
    seen = []

    def fit(seed, x, y):
        seen.append((seed, {name: value.dtype for name, value in y.items()}))
        guide = simulator.guide(scale=0.3)
        svi = bmtl.BalancedSVI(simulator, guide, functools.partial(torch.optim.Adam, lr=0.05))
        for _ in range(20):
            svi.step(x, y)
        return guide

    found = simulated_ranks(
        simulator, fit, X, datasets=3, num_draws=10, sites={"head_a": [0, 2], "log_variance_c": [0]}
    )
    assert list(found.ranks) == ["head_a[0,0]", "head_a[0,2]", "log_variance_c"]
    assert all(((ranks >= 0) & (ranks <= 10)).all() for ranks in found.ranks.values())
    assert len({seed for seed, _ in seen}) == 3
    assert seen[0][1] == {"a": torch.float32, "c": torch.int64}
    assert trunk.training


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match="1 data set and 2 draws or more"):
        simulated_ranks(model, closed_form, X, datasets=0)
    with pytest.raises(ValueError, match="datasets is 5 and num_draws 1"):
        simulated_ranks(model, closed_form, X, datasets=5, num_draws=1)
    with pytest.raises(ValueError, match=r"no latent 'v'; there are \['w', 'b'\]"):
        simulated_ranks(model, closed_form, X, sites=["v"])
    with pytest.raises(ValueError, match=r"'w' has entries 0 to 1, and \[2\] were asked for"):
        simulated_ranks(model, closed_form, X, sites={"w": [2]})
    with pytest.raises(ValueError, match="names no entry to rank"):
        simulated_ranks(model, closed_form, X, sites=[])
    with pytest.raises(ValueError, match=r"latent 'w' of shape \(2,\), and the guide draws {'b': \(\)}"):
        simulated_ranks(model, lambda *_: lambda x: _point(0.0), X)
    with pytest.raises(ValueError, match=r"samples latents \['b'\] and the targets \[\]. Called with inputs"):
        simulated_ranks(lambda x: _point(0.0), closed_form, X)
