import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bmtl.targets.metrics import entropy as entropies
from bmtl.targets.metrics.entropy import entropy_ratio_of_rows, error_auroc_of_probabilities, rows_at_accuracy
from bmtl.targets.metrics.probabilities import entropy_of_probabilities
from tests.evaluation.classifications import calibrated, problems, rounded, sharpened, steady

rows = st.tuples(st.integers(1, 50), st.floats(0, 1), st.integers(0, 2**32 - 1))


def judged(problem):
    random = np.random.default_rng(problem[2])
    return random.uniform(size=problem[0]) < problem[1], random.exponential(size=problem[0])


@steady
@given(problems)
def test_entropy_equals_scipy(problem):
    _, p = rounded(problem)
    np.testing.assert_allclose(entropy_of_probabilities(p), stats.entropy(p, axis=1), atol=1e-12)
    assert (entropy_of_probabilities(p) <= np.log(p.shape[1]) + 1e-12).all()


def test_entropy_at_its_limits():
    np.testing.assert_allclose(entropy_of_probabilities([[0, 1.0], [0.5, 0.5]]), [0, np.log(2)])
    assert np.isnan(entropy_of_probabilities([[np.nan, 0.5]])).all()
    assert entropy_of_probabilities([[-1e-9, 1 + 1e-9]])[0] == 0


@steady
@given(rows, st.floats(0.01, 100))
def test_the_ratio_is_that_of_the_means_and_has_no_unit(problem, unit):
    correct, entropy = judged(problem)
    found = entropy_ratio_of_rows(correct, entropy, resamples=50)
    scaled = entropy_ratio_of_rows(correct, unit * entropy, resamples=50)
    assert scaled.accuracy == found.accuracy == correct.mean()
    if 0 < correct.sum() < correct.size:
        assert found.ratio == pytest.approx(entropy[~correct].mean() / entropy[correct].mean())
        assert scaled[:3] == pytest.approx(found[:3], nan_ok=True)
        assert found.reason == ""
        assert found.low <= found.high or np.isnan(found.low)
    else:
        assert np.isnan(found[:3]).all()
        assert found.dropped == 50
        assert found.reason == f"no {'wrong' if correct.all() else 'right'} prediction among {correct.size} rows"


@pytest.mark.parametrize(
    ("entropy", "ratio", "reason"),
    [
        ([0.0, 0.0, 0.3], np.inf, "every right prediction has entropy zero"),
        ([0.0, 0.0, 0.0], np.nan, "every entropy is zero"),
        ([0.0, np.nan, 0.3], np.nan, "an entropy is NaN"),
        ([0.2, 0.4, 0.0], 0.0, ""),
    ],
)
def test_undefined_ratios_have_a_reason(entropy, ratio, reason):
    found = entropy_ratio_of_rows([True, True, False], entropy, resamples=200)
    assert found.ratio == pytest.approx(ratio, nan_ok=True)
    assert (found.low, found.high) == pytest.approx((ratio, ratio), nan_ok=True)
    assert found.reason == reason


def test_undefined_resamples_are_dropped_and_counted():
    """Of 10 rows one is wrong: a resample misses it with probability 0.9**10."""
    found = entropy_ratio_of_rows(np.arange(10) > 0, np.ones(10), resamples=20_000)
    assert found[:3] == (1, 1, 1)
    expected = 20_000 * 0.9**10
    assert abs(found.dropped - expected) < 5 * np.sqrt(expected)


def test_the_bootstrap_equals_redrawing_rows():
    correct, entropy = judged((300, 0.7, 0))
    random = np.random.default_rng(1)
    drawn = random.integers(300, size=(20_000, 300))
    right, values = correct[drawn], entropy[drawn]
    ratios = (values * ~right).sum(1) / (~right).sum(1) / ((values * right).sum(1) / right.sum(1))
    found = entropy_ratio_of_rows(correct, entropy, resamples=20_000)
    low, high = np.quantile(ratios, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03 * (high - low))  # 4 standard errors of a tail


def test_groups_of_rows_stand_for_the_rows(monkeypatch):
    """Beyond `CELLS` rows groups are redrawn: as wide an interval as by rows, from as many draws."""
    correct, entropy = judged((3000, 0.6, 0))
    grouped = entropy_ratio_of_rows(correct, entropy, resamples=4000)
    monkeypatch.setattr(entropies, "CELLS", 3000)
    by_rows = entropy_ratio_of_rows(correct, entropy, resamples=4000, seed=1)
    width = by_rows.high - by_rows.low
    assert grouped.ratio == by_rows.ratio
    assert (grouped.low, grouped.high) == pytest.approx((by_rows.low, by_rows.high), abs=0.1 * width)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    hits = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        correct = random.uniform(size=200) < 0.7
        entropy = random.exponential(np.where(correct, 1.0, 2.5))
        found = entropy_ratio_of_rows(correct, entropy, resamples=300, seed=seed)
        hits += found.low <= 2.5 <= found.high
    assert 0.88 <= hits / 200 <= 0.99  # 0.95 within 4 standard errors of 0.015, percentile intervals a little short


def test_the_seed_decides():
    correct, entropy = judged((60, 0.6, 0))
    assert entropy_ratio_of_rows(correct, entropy, seed=3) == entropy_ratio_of_rows(correct, entropy, seed=3)
    assert entropy_ratio_of_rows(correct, entropy, seed=3) != entropy_ratio_of_rows(correct, entropy, seed=4)
    wide, narrow = (entropy_ratio_of_rows(correct, entropy, level=level) for level in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("correct", "entropy", "options", "message"),
    [
        ([], [], {}, "N at least 1"),
        ([True], [[0.1]], {}, "expected the same"),
        ([2, 0], [0.1, 0.2], {}, "something else than 0 and 1"),
        ([1, 0], [-0.1, 0.2], {}, "ranges from -0.1 to 0.2"),
        ([1, 0], [np.inf, 0.2], {}, "to inf; that of classes is finite"),
        ([1, 0], [0.1, 0.2], {"resamples": 0}, "resamples is 0"),
        ([1, 0], [0.1, 0.2], {"level": 1.0}, "level 1.0"),
    ],
)
def test_what_has_no_ratio_is_refused(correct, entropy, options, message):
    with pytest.raises(ValueError, match=message):
        entropy_ratio_of_rows(correct, entropy, **options)


@steady
@given(rows, st.floats(0.05, 0.95))
def test_a_subsample_has_the_accuracy_and_is_as_large_as_can_be(problem, accuracy):
    correct, _ = judged(problem)
    if not 0 < correct.sum() < correct.size:
        with pytest.raises(ValueError, match="no subsample has the accuracy"):
            rows_at_accuracy(correct, accuracy)
        return
    kept = rows_at_accuracy(correct, accuracy)
    assert (np.diff(kept) > 0).all()
    hits, misses = correct[kept].sum(), (~correct[kept]).sum()
    assert min(hits, misses) >= 1
    # one side is whole, and the other within half a row of what the accuracy asks for
    if misses == (~correct).sum():
        assert abs(hits - misses * accuracy / (1 - accuracy)) <= 0.5 + 1e-9 or hits in (1, correct.sum())
    else:
        assert hits == correct.sum()
        assert abs(misses - hits * (1 - accuracy) / accuracy) <= 0.5 + 1e-9 or misses == 1


def test_means_keep_their_expectation_in_subsamples():
    correct, entropy = judged((400, 0.9, 0))
    full = entropy_ratio_of_rows(correct, entropy, resamples=1).ratio
    kept = [rows_at_accuracy(correct, 0.5, seed=seed) for seed in range(300)]
    ratios = [entropy[rows][~correct[rows]].mean() / entropy[rows][correct[rows]].mean() for rows in kept]
    assert np.mean(ratios) == pytest.approx(full, rel=0.05)  # a ratio has a bias of the second order


def test_entropy_tells_errors_of_a_calibrated_predictive():
    y, p = calibrated(5000, 4)
    wrong = p.argmax(1) != y
    h = stats.entropy(p, axis=1)
    above = h[wrong][:, None] - h[~wrong]
    assert error_auroc_of_probabilities(y, p) == pytest.approx(np.mean((above > 0) + 0.5 * (above == 0)), abs=1e-9)
    assert error_auroc_of_probabilities(y, p) > 0.65
    assert np.isnan(error_auroc_of_probabilities(p.argmax(1), p))


def test_sharpening_moves_the_ratio_and_not_the_order_of_two_classes():
    y, p = calibrated(2000, 2)
    ratios = [
        entropy_ratio_of_rows(q.argmax(1) == y, entropy_of_probabilities(q), resamples=1).ratio
        for q in (sharpened(p, 0.5), p, sharpened(p, 2))
    ]
    assert ratios == sorted(ratios)
    expected = error_auroc_of_probabilities(y, p)
    assert error_auroc_of_probabilities(y, sharpened(p, 2)) == pytest.approx(expected, abs=1e-6)


def test_a_million_rows():
    correct, entropy = judged((1_000_000, 0.8, 0))
    started = time.process_time()
    found = entropy_ratio_of_rows(correct, entropy)
    assert time.process_time() - started < 30  # a guard against redrawing two thousand times a million rows
    assert found.low < 1 < found.high
