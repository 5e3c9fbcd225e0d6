import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bmtl.targets.metrics.intervals import (
    coverage_of_intervals,
    crps_of_draws,
    interval_score,
    weighted_interval_score,
)

seeds = st.integers(0, 2**32 - 1)


def intervals(seed, rows=30, levels=4):
    random = np.random.default_rng(seed)
    ends = np.sort(random.normal(size=(2, levels, rows)), axis=0)
    return random.normal(scale=2, size=rows), *ends, np.sort(random.uniform(0.01, 0.99, levels))


@given(seeds)
def test_interval_scores_equal_scoringrules(seed):
    oracle = pytest.importorskip("scoringrules")
    y, lower, upper, levels = intervals(seed)
    expected = oracle.interval_score(y, lower[0], upper[0], 1 - levels[0]).mean()
    assert interval_score(y, lower[0], upper[0], levels[0]) == pytest.approx(expected, rel=1e-10)
    middle = np.random.default_rng(seed).normal(size=y.size)
    # Version 0.10 weighs the median where its absolute error belongs, so it is given that.
    expected = oracle.weighted_interval_score(y, np.abs(y - middle), lower.T, upper.T, 1 - levels).mean()
    assert weighted_interval_score(y, middle, lower, upper, levels) == pytest.approx(expected, rel=1e-10)


@given(seeds)
def test_interval_scores_equal_pinball_losses(seed):
    """A score is 2 / (1 - level) times the pinball losses of the two quantiles, by scikit-learn."""
    oracle = pytest.importorskip("sklearn.metrics")
    y, lower, upper, levels = intervals(seed)
    tail = (1 - levels[0]) / 2
    losses = oracle.mean_pinball_loss(y, lower[0], alpha=tail) + oracle.mean_pinball_loss(y, upper[0], alpha=1 - tail)
    assert interval_score(y, lower[0], upper[0], levels[0]) == pytest.approx(losses / tail, rel=1e-9)


def test_the_weighted_score_of_many_levels_is_the_crps():
    law, y = stats.norm(0.2, 1.5), np.array([-1.0, 0.0, 4.0])
    levels = np.arange(1, 1000) / 1000
    ends = [np.repeat(law.ppf((1 + side * levels) / 2)[:, None], 3, axis=1) for side in (-1, 1)]
    z = (y - 0.2) / 1.5
    crps = 1.5 * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert weighted_interval_score(y, np.full(3, 0.2), *ends, levels) == pytest.approx(crps.mean(), rel=2e-3)


def test_the_true_quantiles_score_best():
    y = np.random.default_rng(0).normal(size=50_000)
    scores = {
        half: interval_score(y, np.full(y.size, -half), np.full(y.size, half), 0.8) for half in (1.0, 1.2816, 1.6)
    }
    assert min(scores, key=scores.get) == 1.2816


def test_coverage_counts_the_ends_in():
    assert coverage_of_intervals([0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]) == pytest.approx(2 / 3)
    assert coverage_of_intervals([5.0], [-np.inf], [np.inf]) == 1
    assert np.isnan(coverage_of_intervals([0.0, np.nan], [0.0, 0.0], [1.0, 1.0]))
    assert interval_score([5.0], [5.0], [5.0], 0.5) == 0
    assert np.isnan(interval_score([0.0, np.nan], [0.0, 0.0], [1.0, 1.0], 0.9))


def test_bad_intervals_are_refused():
    with pytest.raises(ValueError, match="1 upper ends are below"):
        interval_score([0.0, 0.0], [1.0, 0.0], [0.0, 1.0], 0.9)
    with pytest.raises(ValueError, match="expected the same"):
        interval_score([0.0], [[0.0]], [1.0], 0.9)
    with pytest.raises(ValueError, match="expected the same"):
        coverage_of_intervals([0.0], [0.0], [1.0, 1.0])
    for level in (0.0, 1.0, np.nan):
        with pytest.raises(ValueError, match="expected one in"):
            interval_score([0.0], [0.0], [1.0], level)
    with pytest.raises(ValueError, match=r"expected \(L,\), \(L, N\)"):
        weighted_interval_score([0.0], [0.0], [0.0], [1.0], [0.9])


def test_crps_of_draws_equals_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics.regression")
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    y, draws = random.normal(size=40), random.normal(size=(15, 40))
    oracle = torchmetrics.ContinuousRankedProbabilityScore()(torch.tensor(draws.T), torch.tensor(y))
    assert crps_of_draws(y, draws, fair=False) == pytest.approx(float(oracle), rel=1e-6)
    assert crps_of_draws(y, draws) < crps_of_draws(y, draws, fair=False)


def test_crps_of_adversarial_draws():
    assert crps_of_draws([1.0], [[1.0], [1.0]]) == 0
    assert crps_of_draws([1.0], [[4.0]], fair=False) == 3
    assert np.isnan(crps_of_draws([1.0, 1.0], [[np.nan, 1.0], [1.0, 1.0]]))
    with pytest.raises(ValueError, match="two at least"):
        crps_of_draws([1.0], [[4.0]])
    for y, draws in (((3,), (3,)), ((3,), (2, 4)), ((0,), (2, 0)), ((3,), (0, 3)), ((1, 3), (2, 3))):
        with pytest.raises(ValueError, match="a row and a draw at least"):
            crps_of_draws(np.zeros(y), np.zeros(draws))


def test_ends_at_infinity():
    """Both ends at one infinity hold no finite label and have no width; the whole line holds every label."""
    assert coverage_of_intervals([1.0, 2.0], [np.inf, -np.inf], [np.inf, np.inf]) == 0.5
    assert coverage_of_intervals([1.0], [-np.inf], [-np.inf]) == 0
    assert np.isnan(coverage_of_intervals([1.0], [np.nan], [np.inf]))
    assert interval_score([1.0], [-np.inf], [np.inf], 0.9) == np.inf
    assert interval_score([1.0], [np.inf], [np.inf], 0.9) == np.inf
