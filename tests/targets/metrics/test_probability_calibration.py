import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmtl.targets.metrics.binning import bin_numbers, binned_reliability
from bmtl.targets.metrics.classes import roc_auc_of_probabilities
from bmtl.targets.metrics.entropy import error_auroc_of_probabilities
from bmtl.targets.metrics.probability_calibration import (
    classwise_ece_of_probabilities,
    ece_of_probabilities,
    isotonic_reliability,
    mce_of_probabilities,
)
from bmtl.targets.metrics.proper_scores import brier_decomposition
from tests.evaluation.classifications import calibrated, problems, rounded, sharpened, steady


def gaps_by_counting(predicted, happened, bins):
    """The definition: (lower, upper] bins one at a time, zero in the first."""
    found = []
    for m in range(bins):
        inside = (predicted > m / bins) & (predicted <= (m + 1) / bins)
        inside |= (predicted <= 0) & (m == 0)
        inside |= (predicted > 1) & (m == bins - 1)  # by rounding
        if inside.any():
            found.append((inside.mean(), abs(predicted[inside].mean() - happened[inside].mean())))
    return found


@steady
@given(problems, st.integers(1, 25))
def test_errors_equal_counting_bins(problem, bins):
    y, p = rounded(problem)
    confidence, hit = p.max(1), p.argmax(1) == y
    expected = gaps_by_counting(confidence, hit, bins)
    assert ece_of_probabilities(y, p, bins=bins) == pytest.approx(sum(w * gap for w, gap in expected), abs=1e-12)
    assert mce_of_probabilities(y, p, bins=bins) == pytest.approx(max(gap for _, gap in expected), abs=1e-12)
    classwise = [sum(w * gap for w, gap in gaps_by_counting(p[:, c], y == c, bins)) for c in range(p.shape[1])]
    assert classwise_ece_of_probabilities(y, p, bins=bins) == pytest.approx(np.mean(classwise), abs=1e-12)


@pytest.mark.parametrize("classes", [2, 5])
def test_errors_equal_torchmetrics(classes):
    torch = pytest.importorskip("torch", reason="torchmetrics needs it")
    from torchmetrics.functional.classification import multiclass_calibration_error

    y, p = calibrated(3000, classes)
    p = sharpened(p, 2)
    for norm, core in (("l1", ece_of_probabilities), ("max", mce_of_probabilities)):
        expected = multiclass_calibration_error(torch.as_tensor(p), torch.as_tensor(y), classes, n_bins=15, norm=norm)
        assert core(y, p) == pytest.approx(expected.item(), abs=1e-6)


def test_bins_of_equal_mass_equal_scikit_learn():
    calibration = pytest.importorskip("sklearn.calibration")
    y, p = calibrated(1000, 2)
    bins = binned_reliability(p[:, 1], y, bins=10, binning="mass")
    observed, predicted = calibration.calibration_curve(y, p[:, 1], n_bins=10, strategy="quantile")
    np.testing.assert_allclose(bins.predicted, predicted, atol=1e-12)
    np.testing.assert_allclose(bins.observed, observed, atol=1e-12)
    assert bins.rows.tolist() == [100] * 10


@steady
@given(st.integers(1, 200), st.integers(1, 30))
def test_bins_of_equal_mass_differ_by_a_row_at_most_and_ties_stay_together(rows, bins):
    values = np.random.default_rng(rows).permutation(rows) / rows
    counts = np.bincount(bin_numbers(values, bins, "mass"), minlength=bins)
    assert counts.sum() == rows
    assert counts.max() - counts.min() <= 1
    tied = np.repeat([0.2, 0.7], rows)
    numbers = bin_numbers(tied, bins, "mass")
    assert len(set(numbers[:rows])) == len(set(numbers[rows:])) == 1


@steady
@given(problems, st.integers(1, 25), st.sampled_from(["width", "mass"]))
def test_order_of_errors_and_their_limits(problem, bins, binning):
    y, p = rounded(problem)
    options = {"bins": bins, "binning": binning}
    assert 0 <= ece_of_probabilities(y, p, **options) <= mce_of_probabilities(y, p, **options) + 1e-12 <= 1 + 1e-9
    # merging all bins can only hide errors
    assert ece_of_probabilities(y, p, bins=1) <= ece_of_probabilities(y, p, **options) + 1e-12


def test_a_calibrated_predictive_is_nearly_so_and_over_confidence_shows():
    y, p = calibrated(50_000, 3)
    for options in ({}, {"binning": "mass"}):
        assert ece_of_probabilities(y, p, **options) < 0.01  # 15 bins of 3,000 rows err by 0.4 / sqrt(3000)
        assert ece_of_probabilities(y, sharpened(p, 3), **options) > 0.05
    assert classwise_ece_of_probabilities(y, p) < 0.01


def test_constant_predictions():
    y, p = np.array([0, 0, 0, 1]), np.tile([0.6, 0.4], (4, 1))
    for binning in ("width", "mass"):
        assert ece_of_probabilities(y, p, binning=binning) == pytest.approx(0.15)
        assert mce_of_probabilities(y, p, binning=binning) == pytest.approx(0.15)
        assert classwise_ece_of_probabilities(y, p, binning=binning) == pytest.approx(0.15)


@steady
@given(problems)
def test_isotonic_regression_equals_scikit_learn(problem):
    isotonic = pytest.importorskip("sklearn.isotonic")
    y, p = rounded(problem)
    curve = isotonic_reliability(p[:, 0].clip(0, 1), y == 0)
    fit = isotonic.IsotonicRegression().fit(p[:, 0].clip(0, 1), y == 0)
    np.testing.assert_allclose(curve.observed, fit.predict(curve.predicted), atol=1e-6)
    assert (np.diff(curve.observed) >= -1e-12).all()
    assert (np.diff(curve.predicted) > 0).all()


@pytest.mark.parametrize(
    ("predicted", "happened", "message"),
    [
        ([], [], "N at least 1"),
        ([0.1], [[True]], "expected the same"),
        ([1.2], [1], r"expected \[0, 1\]"),
        ([np.nan], [1], r"expected \[0, 1\]"),
        ([0.5], [2], "something else than 0 and 1"),
    ],
)
def test_events_that_cannot_be_judged_are_refused(predicted, happened, message):
    for core in (binned_reliability, isotonic_reliability):
        with pytest.raises(ValueError, match=message):
            core(predicted, happened)


def test_a_million_rows():
    y, p = calibrated(1_000_000, 3)
    started = time.process_time()
    assert ece_of_probabilities(y, p) < 0.005
    assert classwise_ece_of_probabilities(y, p, binning="mass") < 0.005
    assert roc_auc_of_probabilities(y, p) > 0.7
    assert brier_decomposition(y, p).reliability < 1e-3
    assert error_auroc_of_probabilities(y, p) > 0.6
    assert time.process_time() - started < 30  # a guard against loops over rows, not a measurement
