import numpy as np
import pytest
from scipy import stats

from bmtl.evaluation import metrics
from bmtl.targets import Count
from bmtl.targets.metrics.intervals import WIS_LEVELS
from tests.evaluation import trees


@pytest.fixture
def mixed_tree():
    """A Student-t target, one known by draws, a classification, and one without a scored row."""
    random = np.random.default_rng(0)
    y, loc, scale = random.normal(size=(3, 200))
    scale = np.exp(scale)
    y = loc + scale * stats.t.rvs(4, size=200, random_state=random)
    draws = loc + scale * stats.t.rvs(4, size=(50, 200), random_state=random)
    empty = np.full(200, np.nan)
    parameters = {"loc": loc[None], "scale": scale[None], "df": np.full((1, 200), 4.0)}
    return trees.tree(
        observed={"t": y, "drawn": y, "class": random.integers(3, size=200), "empty": empty},
        predictive={"t": draws, "drawn": draws, "class": random.integers(3, size=(50, 200)), "empty": draws},
        distribution={"t": parameters, "empty": parameters},
        probability={"class": np.full((200, 3), 1 / 3)},
        predictive_mean={"t": loc, "drawn": loc, "empty": loc},
        pit={name: stats.t.cdf(y, 4, loc, scale) for name in ("t", "drawn", "empty")},
        units={"t": "meV"},
    )


def test_labels_of_the_tree(mixed_tree):
    crps = metrics.crps(mixed_tree)["crps"]
    assert crps["task"].values.tolist() == ["t", "drawn", "class", "empty"]
    assert crps["unit"].values.tolist() == ["meV", "1", "1", "1"]
    assert float(crps.sel(task="drawn")) == pytest.approx(float(crps.sel(task="t")), rel=0.05)
    scores = metrics.interval_scores(mixed_tree, level=0.8)
    sharp = metrics.sharpness(mixed_tree)
    held = metrics.coverage(mixed_tree, level=0.8)["coverage"]
    for array in (crps, *scores.values(), *sharp.values(), held, metrics.r2(mixed_tree)["r2"]):
        np.testing.assert_array_equal(np.isnan(array), [False, False, True, True])
    scale = mixed_tree["test/predictive_distribution/scale_t"].values[0]
    assert float(sharp["width"].sel(task="t")) == pytest.approx(2 * stats.t.ppf(0.95, 4) * scale.mean())
    assert float(sharp["sd"].sel(task="t")) == pytest.approx(np.sqrt(2) * scale.mean())
    assert float(held.sel(task="t")) == pytest.approx(0.8, abs=0.12)  # four standard errors of 200 rows
    # Weighted scores approach the CRPS; with the 11 levels they are not far from it.
    assert float(scores["weighted_interval_score"].sel(task="t")) == pytest.approx(float(crps.sel(task="t")), rel=0.15)
    assert len(WIS_LEVELS) == 11


def test_intervals_of_counts_are_those_of_their_law():
    y, rate = np.array([0.0, 3.0, 7.0]), np.array([[1.0, 2.0, 9.0]])
    tree = trees.tree(observed={"n": y}, distribution={"n": {"law": "poisson", "rate": rate}}, families={"n": Count()})
    lower, upper = stats.poisson.ppf(0.05, rate[0]), stats.poisson.ppf(0.95, rate[0])
    assert metrics.sharpness(tree)["width"].item() == pytest.approx((upper - lower).mean())
    expected = upper - lower + 20 * (np.maximum(lower - y, 0) + np.maximum(y - upper, 0))
    assert metrics.interval_scores(tree)["interval_score"].item() == pytest.approx(expected.mean())
