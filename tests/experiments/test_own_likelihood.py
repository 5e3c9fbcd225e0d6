"""A likelihood that bmtl does not have is one class and its line in `LIKELIHOODS`: run, scored, kept and predicted with."""

from dataclasses import replace

import numpy as np
import pyro.distributions as dist
import pytest
import torch

from bmtl.datasets import MultiTaskData
from bmtl.evaluation import metrics
from bmtl.evaluation.comparison import compare
from bmtl.experiments import load_fitted, run
from bmtl.models import LIKELIHOODS, Likelihood
from tests.experiments.toys import BUDGET, EW, NASH


class Geometric(Likelihood):
    """Numbers of failures before a success, ``y ~ Geometric(1 / (1 + exp(f)))``: the mean is exp(f)."""

    name = "geometric"
    has_unknowns = False
    families = ("count",)

    def __init__(self, noise="parameter"):
        super().__init__(1, noise)

    def start(self, y):
        self._start_log(y)

    def distribution(self, f, values):
        return dist.Geometric(logits=-(self.location + f[..., 0]))

    def deviance(self, f, y):
        """Half of it; the density alone is never above 1, so that what is subtracted is its value at the best f."""
        best = torch.xlogy(y, y) - torch.xlogy(1 + y, 1 + y)
        return best - self.distribution(f, {}).log_prob(y)


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 3))
    failures = random.geometric(1 / (1 + np.exp(1 + 0.5 * x[:, 0]))).astype(float) - 1
    failures[[3, 50, 70]] = np.nan
    rows = {"train": np.arange(48), "val": np.arange(48, 64), "test": np.arange(64, 80)}
    labels = {"failures": failures, "length": x[:, 1] + 0.1 * random.normal(size=80)}
    return MultiTaskData.from_arrays("lamps", x, labels, rows, families={"failures": "count"})


def test_it_is_trained_compared_and_kept(data, monkeypatch, tmp_path):
    monkeypatch.setitem(LIKELIHOODS, "geometric", Geometric)
    trees = {}
    for method in (EW, NASH):
        method = replace(method, options={**method.options, "likelihood": {"failures": "geometric"}})
        trees[method.name, 0] = run(data, method, 0, BUDGET, tmp_path / method.name, keep_model=True)
    scores = compare(trees, baseline="ew")
    assert np.isfinite(scores["score"].sel(task="failures", metric=["mae", "nll", "crps", "ece", "deviance"])).all()
    assert (scores["defined"].sel(task="failures", metric="mae")).all()
    assert np.isfinite(scores["delta_m"]).all()

    tree, rows = trees["ew", 0], data.rows["test"]
    seen = tree["test/observed_data/obs_failures"].values
    assert len(seen) == 15
    found = load_fitted(tmp_path / "ew").predict(data.inputs.x[rows], seed=0)
    mean = found["predictions_summary/failures mean"].values[seen]
    np.testing.assert_allclose(mean, tree["test/predictive_mean/y_failures"], rtol=1e-5)
    y = data.targets["failures"].values[rows][seen]
    # A point-mass program has one distribution a row: its density is of its mean.
    expected = -(y * np.log(mean / (1 + mean)) - np.log1p(mean)).mean()
    assert metrics.nll(tree)["nll"].sel(task="failures").item() == pytest.approx(expected, rel=1e-4)
