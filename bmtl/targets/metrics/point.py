"""Errors of the predictive mean, in reported units."""

import numpy as np
from numpy.typing import ArrayLike


def mean_absolute_error(y: ArrayLike, predicted: ArrayLike) -> float:
    """Mean of ``|y - predicted|`` over rows ``(N,)``, in units of `y`; NaN where an entry is NaN.

    Raises:
        ValueError: If there is no row, or the shapes differ: ``(N,)`` against ``(N, 1)`` would broadcast unseen.
    """
    return float(np.abs(_errors(y, predicted)).mean())


def mean_relative_error(y: ArrayLike, predicted: ArrayLike) -> float:
    """Mean of ``|y - predicted| / y`` over rows ``(N,)`` of positive labels; NaN where an entry is NaN.

    Raises:
        ValueError: As `mean_absolute_error`, and if a label is zero or negative: nothing is relative to it.
    """
    labels, values = pair(y, predicted)
    if (labels <= 0).any():
        raise ValueError(f"A relative error is of positive labels, and the smallest here is {labels.min():g}.")
    return float((np.abs(labels - values) / labels).mean())


def root_mean_squared_error(y: ArrayLike, predicted: ArrayLike) -> float:
    """Square root of the mean of ``(y - predicted)**2`` over rows ``(N,)``, in units of `y`; NaN where an entry is NaN.

    Raises:
        ValueError: As `mean_absolute_error`.
    """
    errors = np.abs(_errors(y, predicted))
    largest = errors.max()
    if not 0 < largest < np.inf:  # squares are taken of ratios to it, so that they neither overflow nor vanish
        return float(largest)
    return float(largest * np.sqrt(np.square(errors / largest).mean()))


def coefficient_of_determination(y: ArrayLike, predicted: ArrayLike) -> float:
    """R2: one less the squared errors over those of the labels' own mean.

    Returns:
        At most 1, and negative for what is worse than the mean; NaN where an entry is NaN, and of a single row. Where all
        labels are equal, -inf, or NaN if they are predicted exactly: there is nothing to explain.

    Raises:
        ValueError: As `mean_absolute_error`.
    """
    labels, values = pair(y, predicted)
    if labels.size == 1 or np.ptp(labels) == 0:
        return float("-inf") if labels.size > 1 and (labels != values).any() else float("nan")
    centred = labels - labels.mean()
    unit = np.abs(centred).max()  # squares are taken of ratios to it, so that they neither overflow nor vanish
    return float(1 - np.square((labels - values) / unit).sum() / np.square(centred / unit).sum())


def pair(y: ArrayLike, predicted: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions as floats, both ``(N,)``.

    Raises:
        ValueError: If there is no row, or the shapes differ: ``(N,)`` against ``(N, 1)`` would broadcast unseen.
    """
    labels, values = np.asarray(y, dtype=float), np.asarray(predicted, dtype=float)
    if labels.shape != values.shape or labels.ndim != 1 or not labels.size:
        raise ValueError(
            f"y has shape {labels.shape} and predicted {values.shape}; expected the same (N,) for both, N at least 1."
        )
    return labels, values


def _errors(y: ArrayLike, predicted: ArrayLike) -> np.ndarray:
    labels, values = pair(y, predicted)
    return labels - values
