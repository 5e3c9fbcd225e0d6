"""How well a classification names and ranks its classes."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.metrics.probabilities import checked, predicted_class
from bmtl.targets.metrics.roc import area_under_roc, average_precision_of_scores

GROUPS = ("observed_data", "probability")


def accuracy_of_probabilities(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Share of rows whose most probable class (of equals the first) is the label; NaN where a probability is NaN.

    Args:
        labels: ``(N,)``, integers from 0 to C - 1.
        probabilities: ``(N, C)``, C at least 2.

    Raises:
        ValueError: If there is no row, a label is outside the classes, or a row of probabilities does not sum to one.
    """
    y, p = checked(labels, probabilities)
    return float("nan") if np.isnan(p).any() else float((predicted_class(p) == y).mean())


def balanced_accuracy_of_probabilities(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean over the classes that occur among the labels of the share of their rows predicted right.

    Arguments, NaN and errors as `accuracy_of_probabilities`.
    """
    y, p = checked(labels, probabilities)
    if np.isnan(p).any():
        return float("nan")
    rows = np.bincount(y)
    hits = np.bincount(y, weights=predicted_class(p) == y)
    return float((hits[rows > 0] / rows[rows > 0]).mean())


def roc_auc_of_probabilities(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Area under the ROC curve: of class 1 for two classes, else the mean over classes of each against the rest.

    A class that no label or every label has is not in the mean: nothing can be ranked. Exact with ties.

    Returns:
        NaN where all labels are of one class, or a probability is NaN.

    Arguments and errors as `accuracy_of_probabilities`.
    """
    return _over_classes(area_under_roc, labels, probabilities)


def average_precision_of_probabilities(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Area under the precision-recall curve (average precision), over classes as `roc_auc_of_probabilities`.

    A class that no label has is not in the mean. For two classes it is NaN without a label of class 1, and 1 where
    every label is of class 1.

    Arguments and errors as `accuracy_of_probabilities`.
    """
    return _over_classes(average_precision_of_scores, labels, probabilities)


def _over_classes(
    area: Callable[[np.ndarray, np.ndarray], float], labels: ArrayLike, probabilities: ArrayLike
) -> float:
    y, p = checked(labels, probabilities)
    if np.isnan(p).any():
        return float("nan")
    if p.shape[1] == 2:
        return area(y == 1, p[:, 1])
    areas = np.asarray([area(y == c, p[:, c]) for c in range(p.shape[1])])
    defined = areas[~np.isnan(areas)]
    return float(defined.mean()) if defined.size else float("nan")
