"""Posteriors that are known in closed form, calibration, and clusters of tasks that are there."""

import functools
import itertools

import arviz_stats
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import AutoMultivariateNormal, init_to_mean
from torch import nn

import bmtl
from bmtl.evaluation.simulation import rank_calibration
from bmtl.inference.simulation import simulated_ranks
from bmtl.inputs import PerTask
from bmtl.models import BayesianHeads, TaskModel
from bmtl.models.likelihoods import Categorical, Gaussian
from bmtl.models.vmtl import VMTL, PointEncoder

FEATURES, NOISE, COMMON, OWN = 3, 0.5, 1.0, 0.5


def inputs(sizes, features=FEATURES, correlation=0.8):
    """Columns that are correlated: so are the weights' posteriors."""
    g = torch.Generator().manual_seed(0)
    return PerTask(
        {
            task: correlation**0.5 * torch.randn(n, 1, generator=g)
            + (1 - correlation) ** 0.5 * torch.randn(n, features, generator=g)
            for task, n in sizes.items()
        }
    )


X = inputs({"a": 12, "b": 8, "c": 6})


def linear(x, classes=0, noise=NOISE, **options):
    """VMTL without an encoder: each task is a linear model of its inputs, with weights of unit prior."""
    features = next(iter(x.values())).shape[1]
    return VMTL(
        features,
        {task: Categorical(classes, "fixed") if classes else Gaussian.known(noise) for task in x},
        {task: len(rows) for task, rows in x.items()},
        encoder=PointEncoder(nn.Identity()),
        latent=features,
        latent_z="point",
        scale_w=1.0,
        generator=torch.Generator().manual_seed(0),
        **options,
    )


def vmtl(x=X):
    return linear(x, prior="normal", sampling="weights").requires_grad_(False)


def heads():
    return TaskModel(
        nn.Identity(),
        FEATURES,
        {task: Gaussian("fixed") for task in X},
        {task: len(x) for task, x in X.items()},
        head=functools.partial(BayesianHeads, prior_scale=1.0),
        generator=torch.Generator().manual_seed(0),
    )


def family(x, y=None):
    """Weights of tasks about a mean that they share and that has a prior: all tasks' posteriors are one."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(FEATURES), COMMON).to_event(1))
    for task, rows in x.items():
        with bmtl.task(task):
            w = pyro.sample(f"w_{task}", dist.Normal(mean, OWN).to_event(1))
            with pyro.plate(f"{task}_rows", len(rows)):
                bmtl.observe(f"y_{task}", dist.Normal((rows * w).sum(-1), NOISE), None if y is None else y[task])


def designs(intercept=False):
    return [np.c_[x.double().numpy(), np.ones((len(x), int(intercept)))] for x in X.values()]


def block_diagonal(blocks):
    return torch.block_diag(*map(torch.from_numpy, blocks)).numpy()


def family_prior():
    """Covariance of (mean, w_a, w_b, w_c)."""
    same = np.full((4, 4), COMMON**2) + np.diag([0.0, *[OWN**2] * 3])
    return np.kron(same, np.eye(FEATURES))


# Program, its design on all latents in a row, their prior covariance, and the noise.
CASES = {
    "VMTL": (vmtl, block_diagonal(designs()), np.eye(9), NOISE),
    "Bayesian heads": (heads, block_diagonal(designs(True)), np.eye(12), 1.0),
    "shared mean": (
        lambda: family,
        np.c_[np.zeros((26, FEATURES)), block_diagonal(designs())],
        family_prior(),
        NOISE,
    ),
}


def simulated(model, x, seed, latents=None):
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        trace = poutine.trace(poutine.condition(model, data=latents or {})).get_trace(x)
    return {task: trace.nodes[f"y_{task}"]["value"] for task in x}


def exact(name, y):
    return conjugate(*CASES[name][1:], y)


def conjugate(design, prior, noise, y):
    """Mean and covariance of the latents, in float64."""
    covariance = np.linalg.inv(np.linalg.inv(prior) + design.T @ design / noise**2)
    return covariance @ design.T @ torch.cat(list(y.values())).double().numpy() / noise**2, covariance


def train(model, guide, x, y, steps, rate=0.1, estimator="mc"):
    """SVI at a rate that goes to nothing, or the gradients' noise would stay in the guide."""
    elbo = bmtl.TaskELBO(estimator, num_particles=128, vectorize_particles=True, max_plate_nesting=2)
    svi = bmtl.BalancedSVI(model, guide, functools.partial(torch.optim.Adam, lr=rate, betas=(0.9, 0.95)), elbo=elbo)
    svi.initialise(x, y)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(svi.optimizer, steps, eta_min=1e-4)
    for _ in range(steps):
        svi.step(x, y)
        schedule.step()
    return guide


def full_rank(model):
    return AutoMultivariateNormal(model, init_loc_fn=init_to_mean, init_scale=0.3)


def correlations(covariance):
    sd = np.sqrt(np.diag(covariance))
    return covariance / np.outer(sd, sd)


@pytest.mark.parametrize("name", CASES)
def test_a_full_rank_guide_has_the_exact_means_variances_and_correlations(name):
    """What is left is the noise of the last gradients, about 2 % of a standard deviation: three times that is allowed."""
    model = CASES[name][0]()
    y = simulated(model, X, seed=1)
    mean, covariance = exact(name, y)
    torch.manual_seed(0)
    found = train(model, full_rank(model), X, y, steps=400).get_posterior()
    sd = np.sqrt(np.diag(covariance))
    loc, learnt = (part.detach().double().numpy() for part in (found.loc, found.covariance_matrix))
    np.testing.assert_allclose(loc / sd, mean / sd, rtol=0, atol=0.06)
    np.testing.assert_allclose(np.sqrt(np.diag(learnt)), sd, rtol=0.06)
    np.testing.assert_allclose(correlations(learnt), correlations(covariance), rtol=0, atol=0.06)
    assert np.abs(correlations(covariance) - np.eye(len(sd))).max() > 0.6, "there are correlations to be found"


def test_vmtls_own_guide_has_the_exact_means_and_the_conditional_variances():
    """The best diagonal normal of a normal: its variances are one over the diagonal of the precision (Bishop, 10.1.2)."""
    y = simulated(vmtl(), X, seed=1)
    mean, covariance = exact("VMTL", y)
    model = linear(X, prior="normal")
    torch.manual_seed(0)
    train(model, model.guide(), X, y, steps=600, estimator="analytic")
    loc, variance = (part.detach().double().flatten().numpy() for part in model.classifier())
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(loc / sd, mean / sd, rtol=0, atol=0.06)
    given_others = 1 / np.sqrt(np.diag(np.linalg.inv(covariance)))
    np.testing.assert_allclose(np.sqrt(variance), given_others, rtol=0.06)
    assert (given_others / sd).max() < 0.8, "the diagonal is far narrower than the posterior"


SMALL = inputs({"a": 8, "b": 5}, features=2)


def test_nuts_on_the_same_program_agrees_within_its_monte_carlo_error():
    """Eight numbers within 4 standard errors each: one right sampler in 2,000 fails. Draws are worth 150 and more."""
    model = vmtl(SMALL)
    y = simulated(model, SMALL, seed=1)
    design = block_diagonal([x.double().numpy() for x in SMALL.values()])
    mean, covariance = conjugate(design, np.eye(4), NOISE, y)
    pyro.set_rng_seed(0)
    mcmc = MCMC(NUTS(model, full_mass=True), num_samples=300, warmup_steps=100, disable_progbar=True)
    mcmc.run(SMALL, y)
    draws = mcmc.get_samples()["w"].reshape(1, 300, -1).double().numpy()
    assert arviz_stats.ess(draws).min() > 150
    off = (draws.mean((0, 1)) - mean) / arviz_stats.mcse(draws)
    assert np.abs(off).max() < 4, off
    wide = (draws.std((0, 1)) - np.sqrt(np.diag(covariance))) / arviz_stats.mcse(draws, method="sd")
    assert np.abs(wide).max() < 4, wide


def test_fits_to_simulated_data_are_calibrated_and_those_of_half_the_width_are_not():
    """Twelve tests of four weights, corrected by Holm, at 1 %: a right guide fails one seed in a hundred.

    The same fits made half as wide have normal scores of nearly twice the spread, which 20 data sets tell at 1 % but in
    one of a thousand cases.
    """
    fitted = {}

    def fit(seed, x, y):
        fitted[seed] = train(model, full_rank(model), x, y, steps=60, rate=0.2)
        return fitted[seed]

    def halved(seed, x, y):
        fitted[seed].scale = fitted[seed].scale.detach() / 2
        return fitted[seed]

    model = vmtl(SMALL)
    found = simulated_ranks(model, fit, SMALL, datasets=20, num_draws=59, seed=0)
    assert list(found.ranks) == [f"w[{t},0,0,{h}]" for t in range(2) for h in range(2)]
    tested = rank_calibration(found.ranks, found.num_draws, found.errors)
    tests = ("p_uniform", "p_symmetric", "p_spread")
    assert min(float(tested[name].min()) for name in tests) > 0.01, tested
    narrow = simulated_ranks(model, halved, SMALL, datasets=20, num_draws=59, seed=0)
    for name in found.truth:
        np.testing.assert_array_equal(narrow.truth[name], found.truth[name])
    tested = rank_calibration(narrow.ranks, narrow.num_draws, narrow.errors)
    assert (tested["p_spread"].min() < 1e-3) & (tested["spread"] > 1.2).all(), tested


CLUSTER = np.repeat([0, 1], 3)
SPLITS = [np.isin(np.arange(6), (0, *pair), invert=True) for pair in itertools.combinations(range(1, 6), 2)]


def shares(classes, seed, rows=40, features=10):
    """What each of six tasks takes from each other, ``(T, T)``: Dirichlet weights over posteriors fitted before.

    Labels are drawn from the program, given weights that are alike in the first three tasks and in the last three.
    """
    g = torch.Generator().manual_seed(seed)
    x = PerTask({f"t{t}": torch.randn(rows, features, generator=g) for t in range(6)})
    alone = linear(x, classes, prior="normal")
    centres = torch.randn(2, 1, alone.likelihood.outputs, features, generator=g)[CLUSTER]
    w = centres + 0.1 * torch.randn(centres.shape, generator=g)
    y = simulated(alone, x, seed, {"w": w})
    related = linear(x, classes, weights="dirichlet", components=alone)
    for model, rate in ((alone, 0.05), (related, 0.1)):
        torch.manual_seed(seed)
        svi = bmtl.BalancedSVI(
            model, model.guide(), functools.partial(torch.optim.Adam, lr=rate), elbo=bmtl.TaskELBO("analytic")
        )
        for _ in range(200):
            svi.step(x, y)
        model.eval()
    found = related.relatedness()["w"].numpy()
    np.testing.assert_allclose(found[:, -1], 0.5)
    return found[:, :6] / 0.5


@pytest.mark.parametrize("seed", [101, 102])
@pytest.mark.parametrize("classes", [0, 3])
def test_each_task_takes_its_prior_from_its_own_cluster(classes, seed):
    """Chance gives 2/5, and each task takes half as much again. The true clusters are one of ten ways to split the six."""
    found = shares(classes, seed)
    own = (found * (CLUSTER[:, None] == CLUSTER)).sum(1)
    assert (own > 0.6).all(), own
    totals = [(found * (split[:, None] == split)).sum() for split in SPLITS]
    assert np.array_equal(SPLITS[int(np.argmax(totals))], CLUSTER.astype(bool))
