"""A run of NUTS as a results tree: by the documented call, through a file, to ArviZ."""

import warnings

import arviz_base
import arviz_stats
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS

import bmtl
from bmtl.datasets import MultiTaskData
from bmtl.evaluation import metrics, results
from bmtl.inference.posterior_draws import PosteriorDraws

CHAINS, DRAWS, TRAIN = 2, 30, 12


def model(x, y=None):
    """Two tasks around one centre; the funnel's scale makes steps of a fixed size diverge now and then."""
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.5))
    for name in ("a", "b"):
        with bmtl.task(name):
            slope = pyro.sample(f"slope_{name}", dist.Normal(0.0, scale))
            with pyro.plate(f"{name}_rows", TRAIN, subsample=x):
                bmtl.observe(f"y_{name}", dist.Normal(x[:, 0] * slope, 0.5), None if y is None else y[name])


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(20, 1))
    labels = {"a": x[:, 0] + 0.1 * random.normal(size=20), "b": 0.1 * random.normal(size=20)}
    labels["b"][[2, 15]] = np.nan  # one training row, one test row
    rows = {"train": np.arange(TRAIN), "test": np.arange(TRAIN, 20)}
    return MultiTaskData.from_arrays("lines", x, labels, rows, scaling="none")


@pytest.fixture(scope="module")
def mcmc(data):
    """Chains one after another, their steps so large that some diverge, and not so large that none moves."""
    with torch.random.fork_rng(), warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", UserWarning)  # that chains are not run side by side
        patch.setattr("pyro.infer.mcmc.api.mp.cpu_count", lambda: 1)
        torch.manual_seed(0)
        kernel = NUTS(model, step_size=0.4, adapt_step_size=False, adapt_mass_matrix=False, max_tree_depth=2)
        run = MCMC(kernel, num_samples=DRAWS, warmup_steps=0, num_chains=CHAINS, disable_progbar=True)
        run.run(*data.tensors("train"))
    return run


@pytest.fixture(scope="module")
def tree(data, mcmc, tmp_path_factory):
    """What a file holds of it."""
    guide = PosteriorDraws.from_mcmc(mcmc)
    drawn = {part: bmtl.draw(model, guide, *data.tensors(part)) for part in ("train", "test")}
    made = bmtl.results_tree(data, drawn["test"], train=drawn["train"])
    return results.read(results.write(made, tmp_path_factory.mktemp("nuts") / "results.nc"))


def test_chains_and_divergences_reach_the_tree(tree, mcmc):
    samples = mcmc.get_samples(group_by_chain=True)
    assert set(tree["posterior"].data_vars) == {"scale", "slope_a", "slope_b"}
    for name, values in samples.items():
        assert tree["posterior"][name].dims == ("chain", "draw")
        np.testing.assert_array_equal(tree["posterior"][name], values)
    diverging = np.zeros((CHAINS, DRAWS), dtype=bool)
    for chain, draws in enumerate(mcmc.diagnostics()["divergences"].values()):
        diverging[chain, draws] = True
    assert 0 < diverging.sum() < diverging.size
    np.testing.assert_array_equal(tree["sample_stats/diverging"], diverging)


def test_predictions_are_those_of_each_draw(tree, data, mcmc):
    slopes = mcmc.get_samples()["slope_a"].numpy()
    x = data.tensors("test")[0].numpy()[:, 0]
    np.testing.assert_allclose(tree["test/predictive_mean/y_a"], slopes.mean() * x, rtol=1e-5)
    assert tree["test/log_likelihood/y_b"].shape == (CHAINS, DRAWS, 7)  # of eight rows one has no label
    assert tree["log_likelihood/y_b"].shape == (CHAINS, DRAWS, TRAIN - 1)
    assert np.isfinite(metrics.nll(tree)["nll"]).all()


def test_arviz_has_the_runs_r_hat_and_leaves_the_training_rows_one_out(tree, mcmc):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 0.23 announces what 1.x will change; so few draws have a high Pareto k
        az = pytest.importorskip("arviz")
        taken = az.from_datatree(tree) if hasattr(az, "from_datatree") else tree
        found = arviz_stats.rhat(tree["posterior"].to_dataset(), method="split")
        for name, of in mcmc.diagnostics().items():
            if name in tree["posterior"]:
                assert float(found[name]) == pytest.approx(float(of["r_hat"]), rel=1e-4), name
        assert list(az.summary(taken).index) == ["scale", "slope_a", "slope_b"]
        assert az.loo(taken, var_name="y_b").n_data_points == TRAIN - 1
    assert arviz_base.extract(tree, group="posterior").sizes["sample"] == CHAINS * DRAWS
