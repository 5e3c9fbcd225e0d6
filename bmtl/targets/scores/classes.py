"""Scores of class probabilities."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.metrics.classes import (
    accuracy_of_probabilities,
    average_precision_of_probabilities,
    balanced_accuracy_of_probabilities,
    roc_auc_of_probabilities,
)
from bmtl.targets.metrics.dense import confusion_matrix, mean_iou
from bmtl.targets.metrics.entropy import entropy_ratio_of_rows, error_auroc_of_probabilities
from bmtl.targets.metrics.ordinal import quadratic_kappa, rank_error, ranked_probability_score
from bmtl.targets.metrics.probabilities import checked, entropy_of_probabilities, predicted_class
from bmtl.targets.metrics.probability_calibration import ece_of_probabilities
from bmtl.targets.metrics.proper_scores import brier_of_probabilities, nll_of_probabilities
from bmtl.targets.score import Score, Scored, given

PROBABILITY = ("probability",)


def of_probabilities(core: Callable[[ArrayLike, ArrayLike], float]) -> Callable[[Scored], float]:
    """A score of labels ``(N,)`` and probabilities ``(N, C)`` as one of labelled rows."""
    return lambda rows: core(rows.labels, given(rows.prediction.probability))


def ranks_labels(core: Callable[[ArrayLike, ArrayLike], float]) -> Callable[[Scored], bool]:
    """Whether an area under a curve has a value on the labels: a constant prediction has one wherever any has."""

    def defined(rows: Scored) -> bool:
        p = rows.prediction.probability
        return p is None or bool(np.isfinite(core(rows.labels, np.full(p.shape, 1 / p.shape[-1]))))

    return defined


def _entropy_ratio(labels: ArrayLike, probabilities: ArrayLike) -> float:
    y, p = checked(labels, probabilities)
    if np.isnan(p).any():
        return float("nan")
    # Its interval is not kept.
    return entropy_ratio_of_rows(predicted_class(p) == y, entropy_of_probabilities(p), resamples=1).ratio


def _mean_iou(labels: ArrayLike, probabilities: ArrayLike) -> float:
    y, p = checked(labels, probabilities)
    if np.isnan(p).any():  # such a row is predicted to be of no class
        return float("nan")
    return mean_iou(confusion_matrix(y, predicted_class(p), p.shape[1]))


MEAN_IOU = Score("mean_iou", "mIoU", of_probabilities(_mean_iou), PROBABILITY, higher_is_better=True)
ACCURACY = Score(
    "accuracy", "accuracy", of_probabilities(accuracy_of_probabilities), PROBABILITY, higher_is_better=True
)
BALANCED_ACCURACY = Score(
    "balanced_accuracy",
    "balanced accuracy",
    of_probabilities(balanced_accuracy_of_probabilities),
    PROBABILITY,
    higher_is_better=True,
)
AUROC = Score(
    "auroc",
    "AUROC",
    of_probabilities(roc_auc_of_probabilities),
    PROBABILITY,
    higher_is_better=True,
    defined=ranks_labels(roc_auc_of_probabilities),
)
AVERAGE_PRECISION = Score(
    "average_precision",
    "average precision",
    of_probabilities(average_precision_of_probabilities),
    PROBABILITY,
    higher_is_better=True,
    defined=ranks_labels(average_precision_of_probabilities),
)
NLL = Score("nll", "NLL", of_probabilities(nll_of_probabilities), PROBABILITY, averaged=True)
BRIER = Score("brier", "Brier", of_probabilities(brier_of_probabilities), PROBABILITY)
ECE = Score(
    "ece", "ECE", of_probabilities(ece_of_probabilities), PROBABILITY, averaged=True, note="of the predicted class"
)
ENTROPY_RATIO = Score(
    "entropy_ratio", "entropy ratio", of_probabilities(_entropy_ratio), PROBABILITY, higher_is_better=True
)
ERROR_AUROC = Score(
    "error_auroc",
    "AUROC of errors",
    of_probabilities(error_auroc_of_probabilities),
    PROBABILITY,
    higher_is_better=True,
)

RANK_MAE = Score("mae", "MAE", of_probabilities(rank_error), PROBABILITY)
KAPPA = Score("kappa", "quadratic kappa", of_probabilities(quadratic_kappa), PROBABILITY, True, relative=False)
RPS = Score("rps", "RPS", of_probabilities(ranked_probability_score), PROBABILITY)
