import numpy as np
import pytest
from hypothesis import given

from bmtl.targets.metrics.ordinal import median_rank, quadratic_kappa, rank_error, ranked_probability_score
from tests.evaluation.classifications import calibrated, problems, rounded, steady

sklearn = pytest.importorskip("sklearn.metrics")
scoringrules = pytest.importorskip("scoringrules")


@steady
@given(problems)
def test_kappa_equals_scikit_learn(problem):
    y, p = rounded(problem)
    guess = p.argmax(axis=1)
    found = quadratic_kappa(y, p)
    if len(np.union1d(y, guess)) == 1:
        assert np.isnan(found)
    else:
        expected = sklearn.cohen_kappa_score(y, guess, weights="quadratic", labels=np.arange(p.shape[1]))
        assert found == pytest.approx(expected, abs=1e-12)


@steady
@given(problems)
def test_the_ranked_probability_score_equals_scoringrules(problem):
    y, p = rounded(problem)
    expected = [scoringrules.rps_score(label + 1, row) for label, row in zip(y, p, strict=True)]
    assert ranked_probability_score(y, p) == pytest.approx(np.mean(expected), abs=1e-12)


@steady
@given(problems)
def test_the_median_rank_has_the_least_expected_error(problem):
    _, p = rounded(problem)
    ranks = np.arange(p.shape[1])
    expected = (p[:, None] * np.abs(ranks[:, None] - ranks)).sum(axis=-1)  # of each rank
    chosen = np.take_along_axis(expected, median_rank(p)[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(chosen, expected.min(axis=1), atol=1e-9)


def test_by_hand():
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    y = np.array([1, 2])
    assert rank_error(y, p) == 0.5
    assert ranked_probability_score(y, p) == pytest.approx(((0.25 + 0.04) + (0.01 + 0.04)) / 2)
    # Predictions 0 and 2: disagreement 1/2; of independent draws (1 + 1 + 4 + 0) / 4.
    assert quadratic_kappa(y, p) == pytest.approx(1 - 0.5 / 1.5)
    assert quadratic_kappa(y, np.eye(3)[y]) == 1


def test_what_cannot_be_scored():
    p = np.array([[np.nan, 0.5]])
    for score in (rank_error, quadratic_kappa, ranked_probability_score):
        assert np.isnan(score([0], p))
        with pytest.raises(ValueError, match="labels range"):
            score([2], [[0.5, 0.5]])


def test_the_score_is_proper():
    y, p = calibrated(20_000, 4, 1)
    own = ranked_probability_score(y, p)
    assert all(ranked_probability_score(y, p**power / (p**power).sum(1, keepdims=True)) > own for power in (0.5, 2.0))
