import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from bmtl.targets.metrics.pit import LEVELS, coverage_of_pit, ece_from_pit, noise_floor, randomised_pit

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


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40), st.sampled_from([np.float64, np.float32]))
def test_coverage_equals_counting_in_whole_numbers(thousandths, dtype):
    """Values on the edge of an interval are inside, on either side and in either precision."""
    expected = [sum(abs(2 * k - 1000) <= 10 * level for k in thousandths) / len(thousandths) for level in range(1, 101)]
    np.testing.assert_array_equal(coverage_of_pit(np.array(thousandths, dtype=dtype) / dtype(1000)), expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_both_ends_of_an_interval_are_inside(dtype):
    for level in LEVELS:
        for edge in ((1 + level) / 2, (1 - level) / 2):
            assert coverage_of_pit(np.array([edge], dtype=dtype), [level]) == [1]
    assert coverage_of_pit([0.8], [0.6]) == coverage_of_pit([0.2], [0.6]) == [1]
    assert coverage_of_pit([0.8 + 1e-9], [0.6]) == [0]


@given(pits, st.integers(0, 2**32 - 1))
def test_order_and_side_do_not_matter(pit, seed):
    shuffled = np.random.default_rng(seed).permutation(pit)
    np.testing.assert_array_equal(coverage_of_pit(shuffled), coverage_of_pit(pit))
    # 1 - u is rounded, so a label next to an interval's edge may change sides
    assert ece_from_pit(1 - pit) == pytest.approx(ece_from_pit(pit), abs=0.01 + 1e-12)


def test_randomised_pits_of_intervals_of_the_cdf():
    random = np.random.default_rng(0)
    ends = np.sort(random.uniform(size=(2, 5000)), axis=0)
    found = randomised_pit(*ends)
    assert (found >= ends[0]).all()
    assert (found <= ends[1]).all()
    np.testing.assert_array_equal(found, randomised_pit(*ends, seed=0))
    assert (found != randomised_pit(*ends, seed=1)).any()
    np.testing.assert_array_equal(randomised_pit([0.3, 0.4], [0.3, 0.4]), [0.3, 0.4])
    assert np.isnan(randomised_pit([np.nan], [0.5])).all()
    # Where the interval is one of a grid that the label's cdf falls into, the result is uniform: 1e-4 is by chance.
    u = random.uniform(size=5000)
    assert stats.kstest(randomised_pit(np.floor(4 * u) / 4, np.ceil(4 * u) / 4), "uniform").pvalue > 1e-4
    with pytest.raises(ValueError, match="none above the other"):
        randomised_pit([0.5], [0.4])
    with pytest.raises(ValueError, match=r"expected \(N,\)"):
        randomised_pit([0.5, 0.6], [0.7])


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
    started = time.process_time()
    assert ece_from_pit(pit) < noise_floor(1_000_000).upper95
    assert time.process_time() - started < 30  # a guard against a quadratic count, not a measurement
