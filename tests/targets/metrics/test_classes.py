import numpy as np
import pytest
from hypothesis import given

from bmtl.targets.metrics.classes import (
    accuracy_of_probabilities,
    average_precision_of_probabilities,
    balanced_accuracy_of_probabilities,
    roc_auc_of_probabilities,
)
from bmtl.targets.metrics.entropy import error_auroc_of_probabilities
from bmtl.targets.metrics.probability_calibration import (
    classwise_ece_of_probabilities,
    ece_of_probabilities,
    mce_of_probabilities,
)
from bmtl.targets.metrics.proper_scores import brier_decomposition, brier_of_probabilities, nll_of_probabilities
from tests.evaluation.classifications import calibrated, problems, rounded, steady

oracle = pytest.importorskip("sklearn.metrics")

CORES = [
    accuracy_of_probabilities,
    average_precision_of_probabilities,
    balanced_accuracy_of_probabilities,
    brier_of_probabilities,
    classwise_ece_of_probabilities,
    ece_of_probabilities,
    error_auroc_of_probabilities,
    mce_of_probabilities,
    nll_of_probabilities,
    roc_auc_of_probabilities,
    lambda y, p: brier_decomposition(y, p).reliability,
]


@steady
@given(problems)
def test_accuracies_equal_scikit_learn(problem):
    y, p = rounded(problem)
    assert accuracy_of_probabilities(y, p) == pytest.approx(oracle.accuracy_score(y, p.argmax(1)))
    recalls = oracle.recall_score(y, p.argmax(1), labels=np.unique(y), average="macro", zero_division=0)
    assert balanced_accuracy_of_probabilities(y, p) == pytest.approx(recalls)


@steady
@given(problems)
def test_areas_equal_scikit_learn_class_by_class(problem):
    y, p = rounded(problem)
    classes = [1] if p.shape[1] == 2 else range(p.shape[1])
    of_both = [oracle.roc_auc_score(y == c, p[:, c]) for c in classes if 0 < (y == c).sum() < len(y)]
    with_positives = [oracle.average_precision_score(y == c, p[:, c]) for c in classes if (y == c).any()]
    for found, expected in (
        (roc_auc_of_probabilities(y, p), of_both),
        (average_precision_of_probabilities(y, p), with_positives),
    ):
        assert found == pytest.approx(np.mean(expected) if expected else np.nan, nan_ok=True)


@pytest.mark.parametrize("classes", [2, 7])
def test_areas_equal_scikit_learn_and_torchmetrics_as_a_whole(classes):
    torch = pytest.importorskip("torch", reason="torchmetrics needs it")
    from torchmetrics.functional import classification

    y, p = calibrated(2000, classes)
    expected = oracle.roc_auc_score(y, p[:, 1]) if classes == 2 else oracle.roc_auc_score(y, p, multi_class="ovr")
    assert roc_auc_of_probabilities(y, p) == pytest.approx(expected, abs=1e-12)
    if classes > 2:
        given_ = torch.as_tensor(p), torch.as_tensor(y)
        expected = classification.multiclass_average_precision(*given_, num_classes=classes).item()
        assert average_precision_of_probabilities(y, p) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("core", CORES)
@steady
@given(problem=problems)
def test_the_order_of_rows_does_not_count(core, problem):
    y, p = rounded(problem)
    order = np.random.default_rng(problem[2]).permutation(len(y))
    assert core(y[order], p[order]) == pytest.approx(core(y, p), abs=1e-12, nan_ok=True)


def test_one_class_only():
    y, p = np.ones(5, dtype=int), np.tile([0.4, 0.6], (5, 1))
    assert np.isnan(roc_auc_of_probabilities(y, p))
    assert average_precision_of_probabilities(y, p) == 1
    assert np.isnan(average_precision_of_probabilities(1 - y, p))
    assert balanced_accuracy_of_probabilities(y, p) == accuracy_of_probabilities(y, p) == 1
    p = np.tile([0.2, 0.5, 0.3], (5, 1))
    assert np.isnan(roc_auc_of_probabilities(y, p))
    assert average_precision_of_probabilities(y, p) == 1


def test_a_constant_prediction_ranks_nothing_and_names_the_first_class():
    y, p = np.array([0, 0, 0, 1]), np.full((4, 2), 0.5)
    assert roc_auc_of_probabilities(y, p) == 0.5
    assert average_precision_of_probabilities(y, p) == 0.25  # the share of positives
    assert accuracy_of_probabilities(y, p) == 0.75
    assert balanced_accuracy_of_probabilities(y, p) == 0.5


def test_perfect_and_worst():
    y = np.array([0, 1, 2, 1])
    p = np.eye(3)[y]
    assert [core(y, p) for core in CORES[:3]] == [1, 1, 1]
    assert roc_auc_of_probabilities(y, p) == 1
    assert nll_of_probabilities(y, p) == 0
    worst = np.eye(3)[(y + 1) % 3]
    assert accuracy_of_probabilities(y, worst) == 0
    assert nll_of_probabilities(y, worst) == np.inf
    assert brier_of_probabilities(y, worst) == 2
    assert ece_of_probabilities(y, worst) == mce_of_probabilities(y, worst) == 1


@pytest.mark.parametrize("core", CORES)
def test_nan_makes_the_score_nan(core):
    y, p = calibrated(20, 3)
    p[4, 1] = np.nan
    assert np.isnan(core(y, p))
    assert np.isnan(core(y, np.full((20, 3), np.nan)))


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        ([], np.zeros((0, 2)), "a row and two classes"),
        ([0, 1], [0.3, 0.6], "give the probabilities of both"),
        ([0, 0], [[1.0], [1.0]], "two classes"),
        ([[0]], [[0.5, 0.5]], "expected"),
        ([0], [[0.5, 0.5], [0.5, 0.5]], "expected"),
        ([-1, 0], [[0.5, 0.5], [0.5, 0.5]], "labels range from -1 to 0"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "labels range from 0 to 2"),
        ([0.0, 1.0], [[0.5, 0.5], [0.5, 0.5]], "of type float64; expected integers"),
        ([0, 1], [[0.5, 0.4], [0.5, 0.5]], "1 of 2 rows of probabilities do not sum to one, the first to 0.9"),
        ([0, 1], [[1.5, -0.5], [0.5, 0.5]], "range from -0.5 to 1.5"),
        ([0, 1], [[np.inf, 0.0], [0.5, 0.5]], "range from"),
    ],
)
def test_what_cannot_be_scored_is_refused(core, y, p, message):
    with pytest.raises(ValueError, match=message):
        core(np.array(y, dtype=int) if not len(y) else y, p)


@pytest.mark.parametrize("core", CORES)
def test_single_precision_is_enough(core):
    y, p = calibrated(500, 6)
    assert core(y.astype(np.uint8), p.astype(np.float32)) == pytest.approx(core(y, p), abs=1e-6)
