import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmtl.targets.laws import EmpiricalPredictive, StudentTMixture, sample_crps


def draws_of(count, rows, seed=0):
    return np.random.default_rng(seed).normal(size=(count, rows))


def crps_by_pairs(y, draws, fair):
    """The definition, over all pairs."""
    count = len(draws)
    differences = np.abs(draws[:, None] - draws[None]).sum(axis=(0, 1))
    return np.abs(draws - y).mean(axis=0) - differences / (2 * count * (count - 1 if fair else count))


@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 2**32 - 1), st.booleans())
def test_scores_of_draws_equal_all_pairs(count, rows, seed, fair):
    y, draws = draws_of(1, rows, seed)[0], draws_of(count, rows, seed + 1).round(1)  # rounded: with ties
    np.testing.assert_allclose(sample_crps(y, draws, fair=fair), crps_by_pairs(y, draws, fair), atol=1e-12)


@pytest.mark.parametrize(("fair", "estimator"), [(True, "fair"), (False, "nrg")])
def test_scores_of_draws_equal_scoringrules(fair, estimator):
    oracle = pytest.importorskip("scoringrules")
    y, draws = draws_of(1, 50)[0], draws_of(20, 50, 1)
    expected = oracle.crps_ensemble(y, draws, m_axis=0, estimator=estimator)
    np.testing.assert_allclose(sample_crps(y, draws, fair=fair), expected, atol=1e-12)


def test_the_fair_score_is_without_bias_whatever_the_number_of_draws():
    rows = 40_000
    exact = StudentTMixture(np.zeros((1, rows)), 1.0).crps(np.full(rows, 0.5)).mean()
    for count in (2, 5):
        draws = draws_of(count, rows, count)
        assert EmpiricalPredictive(draws).crps(np.full(rows, 0.5)).mean() == pytest.approx(exact, abs=0.015)
        assert sample_crps(np.full(rows, 0.5), draws, fair=False).mean() > exact + 0.05


def test_digits_survive_a_large_location():
    y, draws = draws_of(1, 5)[0], draws_of(7, 5, 1)
    far = sample_crps(y + 2.0**40, draws + 2.0**40, fair=True)
    np.testing.assert_allclose(far, sample_crps(y, draws, fair=True), atol=1e-3)


def test_an_empirical_predictive_is_its_draws():
    draws = draws_of(25, 6)
    empirical = EmpiricalPredictive(draws)
    np.testing.assert_allclose(empirical.mean(), draws.mean(axis=0))
    np.testing.assert_allclose(empirical.variance(), draws.var(axis=0))
    y = draws_of(3, 6, 9)
    np.testing.assert_allclose(empirical.cdf(y), (draws[:, None] <= y).mean(axis=0))
    assert empirical.cdf(0.0).shape == (6,)
    levels = np.array([[0.0], [0.04], [0.5], [0.57], [1.0]])
    expected = np.quantile(draws, levels[:, 0], axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(empirical.quantile(levels), expected)
    assert set(empirical.sample(50, 0)[:, 2]) <= set(draws[:, 2])
    np.testing.assert_array_equal(empirical.sample(5, 3), empirical.sample(5, 3))
    np.testing.assert_allclose(empirical.scaled(3.0).variance(), 9 * empirical.variance())
    np.testing.assert_allclose(empirical.scaled(3.0).mean(), empirical.mean(), atol=1e-12)
    np.testing.assert_array_equal(empirical[np.array([1, 3])].draws, empirical.draws[:, [1, 3]])


@given(st.integers(1, 60), st.integers(1, 60))
def test_levels_that_are_shares_of_draws_hit_them(count, rank):
    rank = min(rank, count)
    assert EmpiricalPredictive(np.arange(count)[:, None]).quantile(rank / count) == [rank - 1]


def test_many_draws_tend_to_the_mixture():
    mixture = StudentTMixture([[0.0], [2.0]], [[1.0], [0.3]], [[5.0], [np.inf]])
    empirical = EmpiricalPredictive(mixture.sample(200_000, 0))
    assert empirical.cdf(0.7) == pytest.approx(mixture.cdf(0.7), abs=0.006)
    assert empirical.crps([0.7]) == pytest.approx(mixture.crps([0.7]), abs=0.01)
    np.testing.assert_allclose(empirical.interval(0.9), mixture.interval(0.9), atol=0.05)


def test_nan_stays_in_its_row():
    draws = draws_of(4, 3)
    draws[2, 1] = np.nan
    empirical = EmpiricalPredictive(draws)
    for found in (empirical.cdf(0.0), empirical.quantile(0.2), empirical.crps(np.zeros(3)), empirical.mean()):
        np.testing.assert_array_equal(np.isnan(found), [False, True, False])


@pytest.mark.parametrize("draws", [np.zeros(3), np.zeros((0, 3)), np.zeros((1, 2, 3))])
def test_other_shapes_are_refused(draws):
    with pytest.raises(ValueError, match="a draw at least"):
        EmpiricalPredictive(draws)


def test_bad_arguments_are_refused():
    empirical = EmpiricalPredictive(draws_of(4, 3))
    with pytest.raises(ValueError, match="the rows last"):
        empirical.cdf(np.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        empirical.quantile(-0.1)
    with pytest.raises(ValueError, match="Levels have shape"):
        empirical.quantile([0.1, 0.2])
    with pytest.raises(ValueError, match="expected one in"):
        empirical.interval(1.0)
    with pytest.raises(ValueError, match="needs two at least"):
        EmpiricalPredictive(draws_of(1, 3)).crps(np.zeros(3))


@pytest.mark.parametrize("fair", [True, False])
def test_infinite_draws_and_labels_score_infinity_and_not_nan(fair):
    draws = np.array([[0.0, np.inf, np.inf, 0.0, np.inf, np.nan], [1.0, 2.0, -np.inf, 1.0, np.inf, np.inf]])
    y = np.array([0.5, 0.5, 0.5, np.inf, np.inf, 0.5])
    found = sample_crps(y, draws, fair=fair)
    np.testing.assert_array_equal(found[1:], [np.inf, np.inf, np.inf, 0.0, np.nan])
    assert np.isfinite(found[0])


def test_draws_have_no_density():
    with pytest.raises(ValueError, match="no likelihood"):
        EmpiricalPredictive(draws_of(3, 2)).log_prob(np.zeros(2))
