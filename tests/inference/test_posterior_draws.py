"""Draws that MCMC made, read as a guide's are."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import HMC, MCMC, NUTS
from pyro.ops.stats import split_gelman_rubin

import bmtl
from bmtl.inference.draws import draw
from bmtl.inference.posterior_draws import PosteriorDraws
from bmtl.inference.simulation import simulated_ranks

Y = torch.tensor([1.0, 1.5, 0.5, 1.2, 0.9])
TRAIN = torch.zeros(len(Y), 1)


def model(x, y=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(Y), subsample=x), bmtl.task("a"):
        bmtl.observe("y_a", dist.Normal(mu.expand(len(x)), 1.0), None if y is None else y["a"])


def sampled(kernel, program=model, chains=1, draws=150, warmup=40, y=Y, seed=0):
    """A run of MCMC, its chains one after another."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        mcmc = MCMC(kernel, num_samples=draws, warmup_steps=warmup, num_chains=chains, disable_progbar=True)
        mcmc.run(torch.zeros(len(y), 1), {"a": y})
    return mcmc


@pytest.fixture
def one_process(monkeypatch):
    """Chains one after another, as on a machine of one core."""
    monkeypatch.setattr("pyro.infer.mcmc.api.mp.cpu_count", lambda: 1)


# ---- Which draw is used ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_every_draw_is_used_once_and_in_order(batch_size):
    """In chunks too: how often the guide is asked decides nothing."""
    values = torch.linspace(-1, 1, 40)
    guide = PosteriorDraws({"mu": values})
    for _ in range(2):
        found = draw(model, guide, torch.zeros(3, 1), batch_size=batch_size)
        np.testing.assert_array_equal(found.posterior["mu"], values)
        prediction = found.targets["a"]
        np.testing.assert_array_equal(prediction.law.full().parameters["loc"], values[:, None].expand(40, 3))
        np.testing.assert_allclose(prediction.mean, values.mean(), atol=1e-6)
        np.testing.assert_allclose(prediction.epistemic, values.var(correction=0), rtol=1e-5)
        np.testing.assert_allclose(prediction.aleatoric, 1.0)


def test_fewer_draws_lie_at_equal_distances_in_each_chain():
    values = torch.arange(24.0)
    guide = PosteriorDraws({"mu": values}, chains=3, sample_stats={"energy": -values.numpy()})
    found = draw(model, guide, torch.zeros(2, 1), num_draws=6)
    assert found.posterior["mu"].tolist() == [0, 4, 8, 12, 16, 20]
    assert found.chains == 3
    assert found.sample_stats["energy"].tolist() == [0, -4, -8, -12, -16, -20]
    assert draw(model, guide, torch.zeros(2, 1), num_draws=9).posterior["mu"].tolist() == [
        0, 2, 5, 8, 10, 13, 16, 18, 21,
    ]  # fmt: skip
    for number in (4, 27, 2):
        with pytest.raises(
            ValueError, match=f"24 draws in 3 chains, and num_draws is a multiple .* {number} was given"
        ):
            draw(model, guide, torch.zeros(2, 1), num_draws=number)


def test_a_call_of_its_own_hands_out_any_draw():
    guide = PosteriorDraws({"mu": torch.arange(3.0)})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert {guide()["mu"].item() for _ in range(40)} == {0.0, 1.0, 2.0}


def test_only_chosen_sites_are_kept():
    guide = PosteriorDraws({"mu": torch.zeros(4), "unused": torch.zeros(4, 1000)})
    assert set(draw(model, guide, torch.zeros(3, 1), num_draws=4, sites=["mu"]).posterior) == {"mu"}
    assert draw(model, guide, torch.zeros(3, 1), num_draws=4, sites=[]).posterior == {}
    with pytest.raises(ValueError, match="no global latent 'nu'; there are"):
        draw(model, guide, torch.zeros(3, 1), num_draws=4, sites=["nu"])


def test_they_have_a_joint_density_and_no_guides():
    """log_p is of latents and labels; the density of point masses is none of a guide."""
    values = torch.linspace(0, 1, 5)
    found = draw(model, PosteriorDraws({"mu": values}), TRAIN, {"a": Y})
    expected = [dist.Normal(0.0, 1.0).log_prob(mu) + dist.Normal(mu, 1.0).log_prob(Y).sum() for mu in values]
    np.testing.assert_allclose(found.log_p, expected, rtol=1e-6)
    assert found.log_q is None


# ---- Pyro's MCMC -----------------------------------------------------------------------------------------------------


def test_a_run_gives_the_conjugate_predictive():
    """Posterior of a normal mean: N(sum y / (n + 1), 1 / (n + 1)). Four standard errors of 30 draws."""
    mcmc = sampled(NUTS(model, max_tree_depth=3))
    found = draw(model, PosteriorDraws.from_mcmc(mcmc), torch.zeros(2, 1), {"a": Y[:2]})
    sd = math.sqrt(1 / (len(Y) + 1))
    assert abs(found.targets["a"].mean[0] - float(Y.sum()) / (len(Y) + 1)) < 4 * sd / math.sqrt(30)
    assert abs(found.targets["a"].epistemic[0] / sd**2 - 1) < 4 * math.sqrt(2 / 30)
    assert found.targets["a"].log_likelihood.shape == (150, 2)


@pytest.mark.filterwarnings("ignore:num_chains=:UserWarning")
def test_chains_stay_apart(one_process):
    """R-hat of what was drawn, chain by chain, is that of the run."""
    mcmc = sampled(NUTS(model, max_tree_depth=3), chains=3, draws=20, warmup=5)
    found = draw(model, PosteriorDraws.from_mcmc(mcmc), torch.zeros(2, 1))
    assert (found.chains, found.posterior["mu"].shape, found.targets["a"].draws.shape) == (3, (60,), (60, 2))
    grouped = mcmc.get_samples(group_by_chain=True)["mu"]
    chains = found.posterior["mu"].reshape(3, 20)
    np.testing.assert_array_equal(chains, grouped)
    assert split_gelman_rubin(torch.tensor(chains)).item() == pytest.approx(mcmc.diagnostics()["mu"]["r_hat"].item())
    assert found.sample_stats["diverging"].shape == (60,)


@pytest.mark.filterwarnings("ignore:num_chains=:UserWarning")
@pytest.mark.parametrize("kernel", [HMC, NUTS])
def test_divergences_are_those_of_the_run(one_process, kernel):
    """Steps far too large diverge now and then, each at a draw of its chain."""

    def funnel(x, y=None):
        v = pyro.sample("v", dist.Normal(0.0, 3.0))
        pyro.sample("w", dist.Normal(0.0, (v / 2).exp()))
        with pyro.plate("rows", len(x)), bmtl.task("a"):
            bmtl.observe("y_a", dist.Normal(v.expand(len(x)), 1.0), None if y is None else y["a"])

    options = {"step_size": 1.0, "adapt_step_size": False, "adapt_mass_matrix": False}
    options |= {"num_steps": 4} if kernel is HMC else {"max_tree_depth": 3}
    mcmc = sampled(kernel(funnel, **options), chains=2, draws=40, warmup=0)
    expected = np.zeros((2, 40), dtype=bool)
    for chain, draws in enumerate(mcmc.diagnostics()["divergences"].values()):
        expected[chain, draws] = True
    found = draw(funnel, PosteriorDraws.from_mcmc(mcmc), torch.zeros(2, 1))
    np.testing.assert_array_equal(found.sample_stats["diverging"].reshape(2, 40), expected)
    assert 0 < expected.sum() < expected.size
    if kernel is HMC:  # which stays where it was: the numbers count the draws from 0
        stays = np.diff(found.posterior["v"].reshape(2, 40), axis=1) == 0
        assert stays[expected[:, 1:]].all()
        assert not stays.all()


def test_latents_of_training_rows_are_left_out():
    """New rows have latents of their own, drawn from the model given the others."""

    def local(x, y=None):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)), bmtl.task("a"):
            z = pyro.sample("z", dist.Normal(mu, 0.1).expand([len(x)]))
            bmtl.observe("y_a", dist.Normal(z, 0.5), None if y is None else y["a"])

    mcmc = sampled(NUTS(local, max_tree_depth=3), draws=30, warmup=10)
    found = draw(local, PosteriorDraws.from_mcmc(mcmc, sites=["mu"]), torch.zeros(8, 1))
    assert found.targets["a"].draws.shape == (30, 8)
    between = found.targets["a"].law.full().parameters["loc"] - found.posterior["mu"][:, None]
    assert abs(between.std() / 0.1 - 1) < 5 / math.sqrt(2 * between.size)
    with pytest.raises(ValueError, match=r"has draws of \['mu', 'z'\], and not of \['nu'\]"):
        PosteriorDraws.from_mcmc(mcmc, sites=["nu"])


def test_a_run_that_has_not_run_is_refused():
    with pytest.raises(ValueError, match="has no draws. Call mcmc.run"):
        PosteriorDraws.from_mcmc(MCMC(NUTS(model), num_samples=5, disable_progbar=True))


def test_mcmc_itself_is_calibrated_on_simulated_data():
    """Simulation-based calibration of exact draws: the truth's rank among 9 is uniform. Its mean over 60 data sets lies
    within four standard errors of 4.5."""

    def fit(seed, x, y):
        n = len(y["a"])
        values = torch.randn(27) / math.sqrt(n + 1) + y["a"].sum() / (n + 1)
        return PosteriorDraws({"mu": values}, chains=3)

    found = simulated_ranks(model, fit, TRAIN, datasets=60, num_draws=9)
    assert set(found.ranks["mu"]) <= set(range(10))
    assert abs(found.ranks["mu"].mean() - 4.5) < 4 * math.sqrt((100 - 1) / 12 / 60)


# ---- What does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "samples", [{}, {"a": torch.zeros(0)}, {"a": torch.zeros(2), "b": torch.zeros(3)}, {"a": torch.tensor(1.0)}]
)
def test_draws_that_do_not_fit_are_told(samples):
    with pytest.raises(ValueError, match="one S from 1"):
        PosteriorDraws(samples)


def test_chains_and_statistics_that_do_not_fit_are_told():
    for chains in (0, 4, 7):
        with pytest.raises(ValueError, match=f"6 draws are not those of {chains} chains"):
            PosteriorDraws({"a": torch.zeros(6)}, chains=chains)
    with pytest.raises(ValueError, match=r"one number a draw, \(6,\); got \{'energy': \(2, 3\)\}"):
        PosteriorDraws({"a": torch.zeros(6)}, chains=2, sample_stats={"energy": np.zeros((2, 3))})
