import time as clock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bmtl.targets.laws import WeibullMixture
from bmtl.targets.metrics import survival
from bmtl.targets.metrics.survival import (
    brier_at,
    censored_concordance,
    censoring_survival,
    integrated_brier,
    interval_pit,
    survival_of_times,
)

lifelines = pytest.importorskip("lifelines")
utils = pytest.importorskip("lifelines.utils")


def intervals(time, event):
    return np.stack([time, np.where(event, time, np.inf)], axis=1)


def concordance_by_pairs(labels, predicted):
    """The definition, over all pairs."""
    wins = pairs = 0.0
    for i, (_, upper) in enumerate(labels):
        for j, (lower, end) in enumerate(labels):
            if upper < lower or (upper == lower and lower < end):
                pairs += 1
                wins += (predicted[i] < predicted[j]) + 0.5 * (predicted[i] == predicted[j])
    return wins / pairs if pairs else np.nan


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1), st.booleans())
def test_concordance_equals_all_pairs_and_lifelines(rows, seed, open_ended):
    random = np.random.default_rng(seed)
    time, event = random.integers(1, 9, size=rows).astype(float), random.uniform(size=rows) < 0.6
    predicted = random.integers(5, size=rows).astype(float)  # with ties in both
    labels = intervals(time, event)
    if not open_ended:  # and with intervals of every kind
        labels = np.sort(np.stack([time, random.integers(0, 12, size=rows)], axis=1), axis=1)
        labels[event, 1] = labels[event, 0]
    found = censored_concordance(labels, predicted)
    assert found == pytest.approx(concordance_by_pairs(labels, predicted), nan_ok=True)
    if open_ended and not np.isnan(found):
        assert found == pytest.approx(utils.concordance_index(time, predicted, event))


def test_concordance_in_blocks(monkeypatch):
    random = np.random.default_rng(0)
    labels = intervals(random.integers(1, 40, size=300).astype(float), random.uniform(size=300) < 0.5)
    predicted = labels[:, 0] + random.integers(30, size=300)
    whole = censored_concordance(labels, predicted)
    monkeypatch.setattr(survival, "BLOCK", 7)
    assert censored_concordance(labels, predicted) == whole
    assert whole == pytest.approx(concordance_by_pairs(labels, predicted))


def test_a_hundred_thousand_rows_are_quick():
    random = np.random.default_rng(0)
    time = random.exponential(size=100_000)
    started = clock.process_time()
    found = censored_concordance(intervals(time, random.uniform(size=time.size) < 0.5), time)
    assert found == 1
    assert clock.process_time() - started < 60  # a guard against loops over pairs, not a measurement


def test_what_has_no_concordance():
    assert np.isnan(censored_concordance([[1.0, np.inf], [2.0, np.inf]], [1.0, 2.0]))
    assert np.isnan(censored_concordance([[1.0, 1.0], [2.0, 2.0]], [1.0, np.nan]))
    with pytest.raises(ValueError, match=r"expected \(N, 2\)"):
        censored_concordance([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="above their upper"):
        censored_concordance([[2.0, 1.0]], [1.0])


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_the_censoring_curve_is_lifelines(rows, seed):
    """Kaplan-Meier of the censoring times; lifelines lets events come first where it is told of them a moment earlier."""
    random = np.random.default_rng(seed)
    time, event = random.integers(1, 9, size=rows).astype(float), random.uniform(size=rows) < 0.6
    moment = 1e-6
    fitted = lifelines.KaplanMeierFitter().fit(np.where(event, time - moment, time), ~event)
    at = np.arange(0.5, 10)
    expected = fitted.survival_function_at_times(at).to_numpy()
    np.testing.assert_allclose(censoring_survival(intervals(time, event), at), expected, atol=1e-12)
    before = fitted.survival_function_at_times(at[1:] - 0.5 - moment / 2).to_numpy()
    found = censoring_survival(intervals(time, event), at[1:] - 0.5, before=True)
    np.testing.assert_allclose(found, before, atol=1e-12)


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_the_survival_curve_is_lifelines(rows, seed):
    random = np.random.default_rng(seed)
    time, event = random.integers(1, 9, size=rows).astype(float), random.uniform(size=rows) < 0.6
    found = survival_of_times(intervals(time, event))
    np.testing.assert_array_equal(found.times, np.unique(time[event]))
    if not event.any():
        return
    fitted = lifelines.KaplanMeierFitter().fit(time, event)
    np.testing.assert_allclose(found.survival, fitted.survival_function_at_times(found.times), atol=1e-12)
    at_risk = (time[:, None] >= found.times).sum(axis=0)
    deaths = ((time[:, None] == found.times) & event[:, None]).sum(axis=0)
    inner = found.survival > 0
    variance = np.cumsum(deaths[inner] / (at_risk[inner] * (at_risk[inner] - deaths[inner])))
    np.testing.assert_allclose(found.error[inner], found.survival[inner] * np.sqrt(variance))
    assert np.isnan(found.error[~inner]).all()


def test_a_survival_curve_takes_no_finite_interval():
    with pytest.raises(ValueError, match="a label is an interval"):
        survival_of_times([[1.0, 2.0]])


def reference():
    """Sixty rows without ties; predictions are Weibull of concentration 1.5."""
    random = np.random.default_rng(7)
    n = 60
    scale = np.exp(0.5 * random.normal(size=n))
    t, c = scale * random.weibull(1.5, size=n), 1.5 * random.exponential(size=n)
    time, event = np.minimum(t, c).round(6), t <= c
    predicted = (scale * np.exp(0.2 * random.normal(size=n))).round(6)
    return intervals(time, event), WeibullMixture(predicted, 1.5)


def test_equal_scikit_survival():
    """Numbers of scikit-survival 0.28 on the same rows: brier_score, integrated_brier_score, concordance_index_censored."""
    labels, predictive = reference()
    times = [0.0855625, 0.2597754, 0.572539, 0.8120916, 1.2537243]
    expected = [
        0.061051874333309455,
        0.13987188520297147,
        0.19856035547806622,
        0.21019445597879283,
        0.14745811218143545,
    ]
    np.testing.assert_allclose(brier_at(labels, predictive, times), expected, rtol=1e-12)
    assert integrated_brier(labels, predictive) == pytest.approx(0.1615217778634682, rel=1e-12)
    assert censored_concordance(labels, predictive.quantile(0.5)) == pytest.approx(0.7053490480507706, rel=1e-12)


def test_without_censoring_it_is_the_plain_brier_score():
    random = np.random.default_rng(1)
    time = random.exponential(size=40)
    predictive = WeibullMixture(np.exp(random.normal(size=40)), 1.0)
    at = np.array([0.1, 1.0, 3.0])
    plain = [np.mean((predictive.survival(t) - (time > t)) ** 2) for t in at]
    np.testing.assert_allclose(brier_at(intervals(time, np.ones(40, bool)), predictive, at), plain, rtol=1e-12)


def test_censoring_leaves_the_score_where_it_was_on_average():
    """Inverse weights are consistent: with a third of the rows censored, the score of many rows is that of all of them."""
    random = np.random.default_rng(3)
    rows = 40_000
    time, limit = random.weibull(1.5, size=rows), 2.0 * random.exponential(size=rows)
    predictive = WeibullMixture(np.full(rows, 1.3), 1.5)
    whole = brier_at(intervals(time, np.ones(rows, bool)), predictive, [0.5, 1.0])
    cut = brier_at(intervals(np.minimum(time, limit), time <= limit), predictive, [0.5, 1.0])
    np.testing.assert_allclose(cut, whole, atol=0.006)  # four standard errors of the weighted means


def test_where_the_brier_score_does_not_exist():
    labels, predictive = reference()
    last = labels[:, 0].max()
    assert np.isnan(brier_at(np.append(labels[:-1], [[last + 1, np.inf]], axis=0), predictive, [last + 2])).all()
    labels[0] = [0.1, 0.2]
    assert np.isnan(brier_at(labels, predictive, [0.5])).all()
    assert np.isnan(integrated_brier(labels, predictive))
    same = np.ones((60, 2))
    assert np.isnan(integrated_brier(same, predictive))
    assert np.isnan(integrated_brier(intervals(np.ones(60), np.zeros(60, bool)), predictive))


def test_pits_of_intervals():
    predictive = WeibullMixture(np.ones(4), 1.0)
    labels = np.array([[1.0, 1.0], [2.0, np.inf], [0.0, 1.0], [-np.inf, np.inf]])
    found = interval_pit(labels, predictive)
    assert found[0] == stats.expon.cdf(1)
    for pit, (low, high) in zip(found[1:], ((2, np.inf), (0, 1), (0, np.inf)), strict=True):
        assert stats.expon.cdf(low) <= pit <= stats.expon.cdf(high)
