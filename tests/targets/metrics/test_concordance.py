import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from bmtl.targets.metrics.concordance import concordance_index
from bmtl.targets.metrics.point import coefficient_of_determination

# Few values, so that ties in labels, in predictions and in both are common.
tied = st.integers(2, 25).flatmap(
    lambda n: st.tuples(*(arrays(float, n, elements=st.integers(-3, 3).map(float)) for _ in range(2)))
)


def by_pairs(y, predicted):
    """The definition, a pair at a time."""
    score = pairs = 0
    for i in range(len(y)):
        for j in range(len(y)):
            if y[i] < y[j]:
                pairs += 1
                score += 1 if predicted[i] < predicted[j] else 0.5 if predicted[i] == predicted[j] else 0
    return score / pairs if pairs else float("nan")


@given(tied)
def test_equal_counting_pairs(given_pair):
    assert concordance_index(*given_pair) == pytest.approx(by_pairs(*given_pair), abs=1e-12, nan_ok=True)


@given(tied)
def test_order_alone_matters(given_pair):
    y, predicted = given_pair
    own = concordance_index(y, predicted)
    assert concordance_index(np.exp(y), predicted**3) == pytest.approx(own, abs=1e-12, nan_ok=True)
    assert concordance_index(y, -predicted) == pytest.approx(1 - own, abs=1e-12, nan_ok=True)
    assert concordance_index(y[::-1], predicted[::-1]) == pytest.approx(own, abs=1e-12, nan_ok=True)


def test_of_two_classes_it_is_the_area_under_the_roc_curve():
    oracle = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    y, predicted = random.integers(2, size=500), random.normal(size=500).round(1)
    assert concordance_index(y, predicted) == pytest.approx(oracle.roc_auc_score(y, predicted), abs=1e-12)


def test_without_ties_it_is_kendalls_tau():
    y, predicted = np.random.default_rng(0).normal(size=(2, 300))
    assert concordance_index(y, predicted) == pytest.approx((1 + stats.kendalltau(y, predicted).statistic) / 2)


def test_adversarial_rows():
    assert concordance_index([1.0, 2.0, 3.0], [7.0, 7.0, 7.0]) == 0.5
    assert concordance_index([1.0, 2.0], [1.0, 2.0]) == 1
    assert concordance_index([1.0, 2.0], [2.0, 1.0]) == 0
    assert np.isnan(concordance_index([1.0], [1.0]))
    assert np.isnan(concordance_index([2.0, 2.0], [1.0, 3.0]))
    assert np.isnan(concordance_index([1.0, 2.0], [np.nan, 3.0]))
    assert np.isnan(concordance_index([np.nan, 2.0], [1.0, 3.0]))
    assert concordance_index([1.0, np.inf], [1.0, 3.0]) == 1


def test_two_hundred_thousand_rows_with_ties():
    random = np.random.default_rng(0)
    y = random.integers(1000, size=200_000)
    started = time.process_time()
    assert concordance_index(y, y + random.normal(size=y.size)) > 0.99
    assert time.process_time() - started < 30  # a guard against counting pairs, not a measurement


@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.sampled_from([1e-150, 1.0, 1e150]))
def test_r2_equals_scikit_learn_in_any_unit(rows, seed, unit):
    oracle = pytest.importorskip("sklearn.metrics")
    y, predicted = np.random.default_rng(seed).normal(size=(2, rows))
    expected = oracle.r2_score(y, predicted)
    assert coefficient_of_determination(unit * y, unit * predicted) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_r2_of_adversarial_rows():
    assert coefficient_of_determination([1.0, 2.0], [1.0, 2.0]) == 1
    assert coefficient_of_determination([1.0, 2.0], [1.5, 1.5]) == 0  # the labels' own mean
    assert coefficient_of_determination([2.0, 2.0], [1.0, 3.0]) == -np.inf  # as scikit-learn, force_finite=False
    assert np.isnan(coefficient_of_determination([2.0, 2.0], [2.0, 2.0]))
    assert np.isnan(coefficient_of_determination([2.0], [2.0]))
    assert np.isnan(coefficient_of_determination([1.0, np.nan], [1.0, 2.0]))
    assert np.isnan(coefficient_of_determination([1.0, 2.0], [np.nan, 2.0]))


@pytest.mark.parametrize("core", [concordance_index, coefficient_of_determination])
@pytest.mark.parametrize(("y", "predicted"), [((3,), (3, 1)), ((3,), (2,)), ((0,), (0,)), ((2, 2), (2, 2))])
def test_other_shapes_are_refused(core, y, predicted):
    with pytest.raises(ValueError, match="expected the same"):
        core(np.zeros(y), np.zeros(predicted))
