"""How well a score ranks positives above negatives, exactly, ties included."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata


def area_under_roc(positive: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative), a tie counting one half.

    Args:
        positive: Whether a row is positive ``(N,)``, booleans or 0 and 1.
        score: ``(N,)``, in any unit; only its order counts. Infinite scores are the highest or the lowest.

    Returns:
        In [0, 1]; NaN without a positive or without a negative, and where a score is NaN.

    Raises:
        ValueError: If there is no row, the shapes differ, or `positive` holds anything else.
    """
    is_positive, values = _checked(positive, score)
    count = int(is_positive.sum())
    if count in (0, values.size) or np.isnan(values).any():
        return float("nan")
    ranks = rankdata(values)  # tied scores share their mean rank, a half-integer: the sum below is exact
    above = ranks[is_positive].sum() - count * (count + 1) / 2
    return float(above / (count * (values.size - count)))


def average_precision_of_scores(positive: ArrayLike, score: ArrayLike) -> float:
    """Area under the precision-recall curve as a step function: ``sum_i (R_i - R_(i-1)) P_i`` over distinct scores.

    Args:
        positive: Whether a row is positive ``(N,)``, booleans or 0 and 1.
        score: ``(N,)``, in any unit; only its order counts. Rows of one score enter together.

    Returns:
        In (0, 1]; the share of positives for a score that is the same for all rows. NaN without a positive, and where
        a score is NaN.

    Raises:
        ValueError: As `area_under_roc`.
    """
    is_positive, values = _checked(positive, score)
    count = int(is_positive.sum())
    if not count or np.isnan(values).any():
        return float("nan")
    order = np.argsort(-values)
    descending = values[order]
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))  # of the rows that share a score
    hits = np.cumsum(is_positive[order])[last]
    return float((np.diff(hits, prepend=0) / count * (hits / (last + 1))).sum())


class RocPoints(NamedTuple):
    """Points of the curves, one for each distinct score and one before the highest, thresholds descending."""

    false: np.ndarray
    """Share of the negatives at or above the threshold, from 0 to 1."""
    true: np.ndarray
    """Share of the positives at or above it, from 0 to 1: the recall."""
    precision: np.ndarray
    """Share of positives among those; at the first point, where there are none, that of the second."""


def roc_points(positive: ArrayLike, score: ArrayLike) -> RocPoints:
    """Points of the ROC curve and of the precision-recall curve.

    The area under the first by trapezoids is `area_under_roc`; under the second by steps, `average_precision_of_scores`.

    Args:
        positive: Whether a row is positive ``(N,)``, booleans or 0 and 1; some of both.
        score: ``(N,)``, in any unit; rows of one score enter together.

    Raises:
        ValueError: As `area_under_roc`, and without a positive or a negative.
    """
    is_positive, values = _checked(positive, score)
    count = int(is_positive.sum())
    if count in (0, values.size):
        raise ValueError(f"A curve needs positives and negatives; {count} of {values.size} rows are positive.")
    order = np.argsort(-values)
    descending = values[order]
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))
    hits = np.cumsum(is_positive[order])[last]
    precision = hits / (last + 1)
    return RocPoints(
        np.r_[0.0, (last + 1 - hits) / (values.size - count)], np.r_[0.0, hits / count], np.r_[precision[0], precision]
    )


def _checked(positive: ArrayLike, score: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    given, values = np.asarray(positive), np.asarray(score, dtype=float)
    if given.shape != values.shape or values.ndim != 1 or not values.size:
        raise ValueError(
            f"positive has shape {given.shape} and score {values.shape}; expected the same (N,) for both, N at least 1."
        )
    if not np.isin(given, (0, 1)).all():
        raise ValueError("positive holds something else than 0 and 1; expected whether each row is positive.")
    return given.astype(bool), values
