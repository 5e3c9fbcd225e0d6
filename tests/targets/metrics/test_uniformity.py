import numpy as np
import pytest
from scipy import stats

from bmtl.targets.metrics.groupwise import worst_group_ece
from bmtl.targets.metrics.pit import LEVELS, ece_from_pit, noise_floor
from bmtl.targets.metrics.uniformity import pit_ecdf


@pytest.mark.parametrize("rows", [10, 100, 2000])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_bands_hold_a_whole_uniform_ecdf_as_often_as_they_say(rows, level):
    """3,000 uniform samples; counts are whole numbers, so that few rows are held somewhat more often."""
    u = np.random.default_rng(rows).uniform(size=(3000, rows))
    inside = np.mean([pit_ecdf(values, level=level).inside for values in u])
    error = 4 * np.sqrt(level * (1 - level) / 3000) + 0.01  # of these samples, and of the simulated level
    assert level - error <= inside <= (level + error if rows > 10 else 1)


def test_bands_equal_arviz_at_its_points():
    """ArviZ simulates the same bands at N - 1 points; here at 99 fixed ones, which are fewer and so a little narrower."""
    ecdf_utils = pytest.importorskip("arviz_stats.ecdf_utils")
    rows = 100
    theirs = ecdf_utils.simulate_confidence_bands(rows, 1, LEVELS[:-1], 0.95, 3000, np.random.default_rng(1))
    lower, upper = ecdf_utils.get_pointwise_confidence_band(theirs, rows, LEVELS[:-1])
    ours = pit_ecdf(np.full(rows, 0.5))
    assert np.abs(ours.lower - lower).max() <= 0.02 + 1e-9  # two rows
    assert np.abs(ours.upper - upper).max() <= 0.02 + 1e-9


def test_values_at_a_point_are_up_to_it_in_either_precision():
    for dtype in (np.float64, np.float32):
        for point in LEVELS[:-1]:
            found = pit_ecdf(np.array([point], dtype=dtype))
            np.testing.assert_array_equal(found.ecdf, found.points >= point - 1e-9)


def test_a_group_counts_values_at_an_edge_as_the_ece_does():
    edges = np.concatenate([(1 + LEVELS) / 2, (1 - LEVELS) / 2])
    worst, _ = worst_group_ece(edges, [1.0])
    assert worst[0] == pytest.approx(ece_from_pit(edges), abs=1e-12)


def test_the_ecdf_is_scipys_and_miscalibration_leaves_the_bands():
    y = np.random.default_rng(0).normal(size=400)
    found = pit_ecdf(stats.norm.cdf(y))
    np.testing.assert_allclose(found.ecdf, stats.ecdf(stats.norm.cdf(y)).cdf.evaluate(found.points))
    assert found.inside
    assert (found.lower <= found.upper).all()
    for wrong in (stats.norm.cdf(y, scale=0.6), stats.norm.cdf(y, scale=1.6), stats.norm.cdf(y, loc=0.4)):
        assert not pit_ecdf(wrong).inside


def test_bands_of_adversarial_rows():
    one = pit_ecdf([0.3])
    assert one.lower.min() == 0
    assert one.upper.max() == 1
    assert not pit_ecdf(np.full(50, 0.5)).inside
    missing = pit_ecdf([0.3, np.nan])
    assert np.isnan(missing.ecdf).all()
    assert not missing.inside
    for pit, message in (([], "a row at least"), ([1.5], "a cdf is in"), ([[0.5]], "a row at least")):
        with pytest.raises(ValueError, match=message):
            pit_ecdf(pit)
    with pytest.raises(ValueError, match="expected one in"):
        pit_ecdf([0.5], level=1.0)


def by_subsets(pit, size, groups, repeats, random):
    """The definition: draw the rows of every group."""
    worst = [max(ece_from_pit(random.choice(pit, size, replace=False)) for _ in range(groups)) for _ in range(repeats)]
    return np.mean(worst), np.std(worst) / np.sqrt(repeats)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.7])
def test_worst_groups_equal_drawing_their_rows(share):
    random = np.random.default_rng(0)
    pit = stats.norm.cdf(random.normal(size=300), scale=0.7)
    expected, error = by_subsets(pit, max(round(share * 300), 2), 10, 300, random)
    worst, _ = worst_group_ece(pit, [share], groups=10, repeats=300, seed=1)
    assert worst[0] == pytest.approx(expected, abs=6 * error)  # of both


def test_the_worst_groups_of_uncertainty_toolbox():
    oracle = pytest.importorskip("uncertainty_toolbox.metrics_calibration")
    random = np.random.default_rng(0)
    y = random.normal(size=300)
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002 - the oracle knows no other
    found = oracle.adversarial_group_calibration(
        np.zeros(300), np.full(300, 0.6), y, "mean_abs", num_group_bins=5, num_trials=40, num_group_draws=10
    )
    np.random.set_state(state)  # noqa: NPY002
    pit = stats.norm.cdf(y, scale=0.6)
    worst, _ = worst_group_ece(pit, found.group_size[1:], groups=10, repeats=200, seed=1)
    # Its levels are 0, 1/99, ..., 1 and ours .01, ..., 1.
    np.testing.assert_allclose(worst, found.score_mean[1:], atol=0.01)


def test_the_group_of_all_rows_is_the_ece():
    pit = np.random.default_rng(0).beta(2, 2, size=77)
    worst, floor = worst_group_ece(pit, [1.0])
    assert worst[0] == pytest.approx(ece_from_pit(pit), abs=1e-12)
    assert floor[0] == pytest.approx(noise_floor(77).mean, rel=0.5)


def test_smaller_groups_are_worse_and_a_perfect_predictive_is_at_the_floor():
    u = np.random.default_rng(0).uniform(size=5000)
    worst, floor = worst_group_ece(u, seed=3)
    assert (np.diff(worst) < 0).all()
    np.testing.assert_allclose(worst, floor, rtol=0.5, atol=0.004)
    narrow, _ = worst_group_ece(stats.norm.cdf(stats.norm.ppf(u), scale=0.5), seed=3)
    assert (narrow > worst).all()
    np.testing.assert_array_equal(worst_group_ece(u, seed=3)[0], worst)


def test_worst_groups_of_adversarial_rows():
    worst, floor = worst_group_ece([0.5], [0.1, 1.0])  # a group of one row
    np.testing.assert_allclose(worst, 0.495)
    assert np.isfinite(floor).all()
    worst, floor = worst_group_ece([0.5, np.nan], [1.0])
    assert np.isnan(worst).all()
    assert np.isfinite(floor).all()
    for arguments, message in (
        (([],), "a row at least"),
        (([0.5], [0.0]), r"in \(0, 1\]"),
        (([0.5], [1.1]), r"in \(0, 1\]"),
        (([0.5], 0.5), r"in \(0, 1\]"),
        (([2.0],), "a cdf is in"),
    ):
        with pytest.raises(ValueError, match=message):
            worst_group_ece(*arguments)
    with pytest.raises(ValueError, match="expected one of each"):
        worst_group_ece([0.5], groups=0)
