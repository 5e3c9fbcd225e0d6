import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmtl.targets.metrics.proper_scores import brier_decomposition, brier_of_probabilities, nll_of_probabilities
from tests.evaluation.classifications import calibrated, problems, rounded, sharpened, steady

binnings = st.sampled_from(["width", "mass"])


@steady
@given(problems)
def test_scores_equal_scikit_learn_and_the_definition(problem):
    oracle = pytest.importorskip("sklearn.metrics")
    y, p = rounded(problem, decimals=2)
    expected = np.mean([sum((p[n, c] - (y[n] == c)) ** 2 for c in range(p.shape[1])) for n in range(len(y))])
    assert brier_of_probabilities(y, p) == pytest.approx(expected, abs=1e-12)
    if p.shape[1] == 2:
        one_sided = oracle.brier_score_loss(y, p[:, 1].clip(0, 1), labels=[0, 1])
        assert brier_of_probabilities(y, p) == pytest.approx(2 * one_sided, abs=1e-9)
    if p.min() > 0:  # scikit-learn moves zeros
        assert nll_of_probabilities(y, p) == pytest.approx(
            oracle.log_loss(y, p / p.sum(1, keepdims=True), labels=range(p.shape[1])), abs=1e-9
        )


@steady
@given(problems, st.integers(1, 30), binnings)
def test_the_decomposition_is_an_identity_at_any_number_of_bins(problem, bins, binning):
    y, p = rounded(problem, decimals=2)
    parts = brier_decomposition(y, p, bins=bins, binning=binning)
    assert parts.score == brier_of_probabilities(y, p)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.residual
    assert total == pytest.approx(parts.score, abs=1e-12)
    assert min(parts[1:4]) >= 0
    assert parts.resolution <= parts.uncertainty + 1e-12


@steady
@given(problems)
def test_one_probability_a_group_leaves_no_residual(problem):
    y, p = rounded(problem)  # tenths, which bins of width 1/100 keep apart
    assert brier_decomposition(y, p, bins=100).residual == pytest.approx(0, abs=1e-12)


def test_one_bin_is_known_in_closed_form():
    y, p = calibrated(500, 3)
    parts = brier_decomposition(y, p, bins=1)
    frequency = np.bincount(y) / 500
    assert parts.resolution == pytest.approx(0, abs=1e-12)
    assert parts.uncertainty == pytest.approx(1 - np.square(frequency).sum())
    assert parts.reliability == pytest.approx(np.square(p.mean(0) - frequency).sum())


def test_reliability_is_what_over_confidence_costs():
    y, p = calibrated(20_000, 4)
    honest, proud = brier_decomposition(y, p), brier_decomposition(y, sharpened(p, 3))
    assert honest.reliability < 1e-3 < 0.02 < proud.reliability
    assert honest.score < proud.score
    assert nll_of_probabilities(y, p) < nll_of_probabilities(y, sharpened(p, 3))


def test_decomposition_without_a_number():
    y, p = calibrated(10, 3)
    p[0, 0] = np.nan
    assert np.isnan(brier_decomposition(y, p)).all()
    with pytest.raises(ValueError, match="bins is 0"):
        brier_decomposition(*calibrated(10, 3), bins=0)
    with pytest.raises(ValueError, match="expected 'width' or 'mass'"):
        brier_decomposition(*calibrated(10, 3), binning="equal")
