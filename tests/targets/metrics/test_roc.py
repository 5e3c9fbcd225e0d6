import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bmtl.targets.metrics.roc import area_under_roc, average_precision_of_scores, roc_points
from tests.evaluation.classifications import steady

oracle = pytest.importorskip("sklearn.metrics")

CORES = [area_under_roc, average_precision_of_scores]
few_scores = arrays(float, st.integers(2, 40), elements=st.sampled_from([-1e300, -1.0, 0.0, 1e-300, 0.5, 1.0]))


def by_pairs(positive, score):
    above = score[positive][:, None] - score[~positive]
    return np.mean((above > 0) + 0.5 * (above == 0))


@steady
@given(few_scores, st.integers(0, 2**32 - 1))
def test_equal_counting_pairs_and_scikit_learn(score, seed):
    positive = np.random.default_rng(seed).uniform(size=score.size) < 0.4
    if 0 < positive.sum() < positive.size:
        assert area_under_roc(positive, score) == pytest.approx(by_pairs(positive, score), abs=1e-12)
        assert area_under_roc(positive, score) == pytest.approx(oracle.roc_auc_score(positive, score), abs=1e-12)
        assert area_under_roc(~positive, score) == pytest.approx(1 - area_under_roc(positive, score), abs=1e-12)
    if positive.any():
        expected = oracle.average_precision_score(positive, score)
        assert average_precision_of_scores(positive, score) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("core", CORES)
def test_only_the_order_of_scores_counts(core):
    random = np.random.default_rng(0)
    positive, score = random.uniform(size=300) < 0.2, random.normal(size=300).round(1)
    assert core(positive, np.exp(score)) == core(positive, score)
    assert core(positive, np.where(score == score.max(), np.inf, score)) == core(positive, score)


@pytest.mark.parametrize("core", CORES)
def test_what_is_undefined_is_nan(core):
    assert np.isnan(core([0, 0, 0], [1.0, 2.0, 3.0]))
    assert np.isnan(core([0, 1], [np.nan, 1.0]))
    assert np.isnan(area_under_roc([1, 1], [1.0, 2.0]))


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(
    ("positive", "score"), [([], []), ([1, 0], [[0.1, 0.2]]), ([1], [0.1, 0.2]), ([0, 2], [0.1, 0.2])]
)
def test_what_cannot_be_ranked_is_refused(core, positive, score):
    with pytest.raises(ValueError, match="expected"):
        core(positive, score)


@steady
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_points_of_the_curves_are_scikit_learns(rows):
    positive, score = np.array([p for p, _ in rows]), np.array([float(s) for _, s in rows])
    if positive.all() or not positive.any():
        with pytest.raises(ValueError, match="positives and negatives"):
            roc_points(positive, score)
        return
    found = roc_points(positive, score)
    false, true, _ = oracle.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose([found.false, found.true], [false, true])
    precision, _, _ = oracle.precision_recall_curve(positive, score)
    assert np.trapezoid(found.true, found.false) == pytest.approx(area_under_roc(positive, score))
    steps = np.diff(found.true) * found.precision[1:]
    assert steps.sum() == pytest.approx(average_precision_of_scores(positive, score))
    assert found.precision[-1] == pytest.approx(positive.mean())
    assert set(found.precision[1:].round(12)) <= set(precision.round(12))
