import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from bmtl.evaluation import metrics
from bmtl.evaluation.metrics import LEVELS, coverage_of_pit, ece_from_pit, noise_floor

pits = arrays(float, st.integers(1, 40), elements=st.floats(0, 1))


def ece_by_counting(y, distribution):
    """The definition: build every central interval and count the labels inside."""
    errors = []
    for level in range(1, 101):
        low, high = distribution.interval(level / 100)
        errors.append(abs(np.mean((y >= low) & (y <= high)) - level / 100))
    return np.mean(errors)


@pytest.mark.parametrize(
    "distribution",
    [stats.norm(0.3, 2.0), stats.t(2.2, 1.0, 0.5), stats.expon(-1, 3), stats.uniform(-2, 4)],
    ids=["normal", "t", "skewed", "bounded"],
)
def test_equal_counting_intervals(distribution):
    y = np.random.default_rng(0).triangular(-1, 0.2, 2, size=300)  # inside every support
    assert ece_from_pit(distribution.cdf(y)) == pytest.approx(ece_by_counting(y, distribution), abs=1e-12)


@given(pits)
def test_coverage_equals_counting_one_level_at_a_time(pit):
    folded = np.abs(2 * pit - 1)
    expected = [np.mean(folded <= level) for level in LEVELS]
    np.testing.assert_array_equal(coverage_of_pit(pit), expected)


@given(pits, st.integers(0, 2**32 - 1))
def test_order_and_side_do_not_matter(pit, seed):
    shuffled = np.random.default_rng(seed).permutation(pit)
    np.testing.assert_array_equal(coverage_of_pit(shuffled), coverage_of_pit(pit))
    # 1 - u is rounded, so a label exactly on an interval's edge may change sides
    assert ece_from_pit(1 - pit) == pytest.approx(ece_from_pit(pit), abs=0.01 + 1e-12)


@given(pits)
def test_bounds(pit):
    coverage = coverage_of_pit(pit)
    assert (np.diff(coverage) >= 0).all()
    assert coverage[-1] == 1
    assert 0 <= ece_from_pit(pit) <= 0.5


def test_extremes():
    assert ece_from_pit(np.full(10, 0.5)) == pytest.approx(0.495)  # every label on the median: intervals too wide
    assert ece_from_pit(np.zeros(10)) == pytest.approx(0.495)  # every label beyond them
    assert ece_from_pit((np.arange(1000) + 0.5) / 1000) < 1e-3
    assert coverage_of_pit([0.0, 1.0], [0.5, 1.0]).tolist() == [0, 1]


@pytest.mark.parametrize("rows", [25, 100, 1000])
def test_the_noise_floor_is_that_of_calibrated_draws(rows):
    """2,000 perfect predictives: their mean ECE, and how many are below the 95 % point."""
    u = np.random.default_rng(rows).uniform(size=(2000, rows))
    scores = np.array([ece_from_pit(pit) for pit in u])
    floor = noise_floor(rows)
    assert scores.mean() == pytest.approx(floor.mean, rel=0.05)
    assert np.mean(scores < floor.upper95) == pytest.approx(0.95, abs=0.02)


def test_miscalibration_is_above_the_noise_floor():
    y = np.random.default_rng(0).normal(size=200)
    assert ece_from_pit(stats.norm.cdf(y)) < noise_floor(200).upper95
    assert ece_from_pit(stats.norm.cdf(y, scale=0.5)) > noise_floor(200).upper95
    assert ece_from_pit(stats.norm.cdf(y, scale=2.0)) > noise_floor(200).upper95


def test_nan_is_not_counted_as_outside():
    assert np.isnan(ece_from_pit([0.5, np.nan]))
    assert np.isnan(coverage_of_pit([0.5, np.nan])).all()


def test_rounding_of_float32_is_forgiven():
    assert ece_from_pit(np.float32([1.0000001, 0.0])) == ece_from_pit([1.0, 0.0])


@pytest.mark.parametrize("pit", [[1.1], [-0.1, 0.5]])
def test_what_is_no_cdf_is_refused(pit):
    with pytest.raises(ValueError, match=r"a cdf is in \[0, 1\]"):
        ece_from_pit(pit)


@pytest.mark.parametrize("pit", [[], [[0.5]]])
def test_no_rows_are_refused(pit):
    with pytest.raises(ValueError, match="a row at least"):
        ece_from_pit(pit)
    with pytest.raises(ValueError, match="expected one at least"):
        noise_floor(0)


def test_a_million_rows():
    pit = np.random.default_rng(0).uniform(size=1_000_000)
    started = time.perf_counter()
    assert ece_from_pit(pit) < noise_floor(1_000_000).upper95
    assert time.perf_counter() - started < 30  # a guard against a quadratic count, not a measurement


def test_a_calibrated_tree_and_a_narrow_one(make_tree):
    even = dict.fromkeys(("mu", "homo", "cv"), (np.arange(400) + 0.5) / 400)
    calibrated, narrow = metrics.ece(make_tree(rows=400, pit=even)), metrics.ece(make_tree(rows=400, width=0.3))
    assert (calibrated["ece"] < calibrated["ece_floor_upper95"]).all()
    assert (narrow["ece"] > narrow["ece_floor_upper95"]).all()
    np.testing.assert_allclose(calibrated["ece_floor"], noise_floor(400).mean)


def test_the_curve_is_where_the_ece_comes_from(make_tree):
    tree = make_tree(width=0.5)
    curve = metrics.reliability(tree)["coverage"]
    assert curve.dims == ("task", "level")
    np.testing.assert_allclose(np.abs(curve - curve["level"]).mean("level"), metrics.ece(tree)["ece"])
    assert (curve.sel(level=0.5) < 0.5).all()
    assert metrics.reliability(tree, levels=[0.5, 0.9])["coverage"].shape == (3, 2)


def test_a_target_without_rows_has_no_score(make_tree, run_arrays):
    y = run_arrays()["observed"]
    y["cv"] = np.full(60, np.nan)
    tree = make_tree(observed=y)
    for score in (metrics.ece(tree)["ece"], metrics.mae(tree)["mae"], metrics.nll(tree)["nll"]):
        assert np.isnan(score.sel(task="cv"))
        assert np.isfinite(score.sel(task="mu"))
    assert np.isnan(metrics.reliability(tree)["coverage"].sel(task="cv")).all()
