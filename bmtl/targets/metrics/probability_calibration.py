"""Calibration of class probabilities: predicted probability against observed frequency."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression

from bmtl.targets.metrics.binning import Binning, ReliabilityBins, binned_reliability, checked_events
from bmtl.targets.metrics.probabilities import checked, predicted_class


class IsotonicCurve(NamedTuple):
    """Distinct predicted probabilities ``(M,)``, ascending, and the calibrated frequency of each, never falling."""

    predicted: np.ndarray
    observed: np.ndarray


def ece_of_probabilities(
    labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 15, binning: Binning = "width"
) -> float:
    """Expected calibration error: ``sum_bins share |mean confidence - accuracy|``, in [0, 1].

    Confidence is the probability of the predicted class. The error of a calibrated predictive is above zero on finitely
    many rows, and the more so the more bins there are.

    Args:
        labels: ``(N,)``, integers from 0 to C - 1.
        probabilities: ``(N, C)``, C at least 2.
        bins: How many.
        binning: ``"width"``: equal intervals of [0, 1], each with its upper edge. ``"mass"``: equal numbers of rows.

    Returns:
        NaN where a probability is NaN.

    Raises:
        ValueError: If there is no row or bin, a label is outside the classes, or a row of probabilities does not sum
            to one.

    Source:
        Guo et al. (2017); equal mass: Nguyen & O'Connor (2015).
    """
    groups = _of_confidence(labels, probabilities, bins, binning)
    return float("nan") if groups is None else _mean_gap(groups)


def mce_of_probabilities(
    labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 15, binning: Binning = "width"
) -> float:
    """Maximum calibration error: the largest ``|mean confidence - accuracy|`` of a bin with a row, however few.

    Arguments, NaN, errors and source as `ece_of_probabilities`.
    """
    groups = _of_confidence(labels, probabilities, bins, binning)
    return float("nan") if groups is None else float(np.nanmax(np.abs(groups.predicted - groups.observed)))


def classwise_ece_of_probabilities(
    labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 15, binning: Binning = "width"
) -> float:
    """Mean over all C classes of the calibration error of that class's probability, rows binned by it.

    Arguments, NaN and errors as `ece_of_probabilities`.

    Source:
        Kull et al. (2019); Nixon et al. (2019) call it the static calibration error.
    """
    y, p = checked(labels, probabilities)
    if np.isnan(p).any():
        return float("nan")
    gaps = [_mean_gap(binned_reliability(p[:, c], y == c, bins=bins, binning=binning)) for c in range(p.shape[1])]
    return float(np.mean(gaps))


def isotonic_reliability(predicted: ArrayLike, happened: ArrayLike) -> IsotonicCurve:
    """Reliability without bins: the non-decreasing frequencies nearest to the events in squares.

    Pool-adjacent-violators over the distinct predictions, each weighted by its rows, so that the order of rows with one
    prediction does not count.

    Args:
        predicted: Probabilities ``(N,)`` of an event.
        happened: Whether it happened ``(N,)``, booleans or 0 and 1.

    Raises:
        ValueError: If there is no row, the shapes differ, or a prediction is outside [0, 1] or NaN.

    Source:
        Dimitriadis, Gneiting & Jordan (2021).
    """
    values, events = checked_events(predicted, happened)
    distinct, numbers, count = np.unique(values, return_inverse=True, return_counts=True)
    frequency = np.bincount(numbers, weights=events) / count
    return IsotonicCurve(distinct, isotonic_regression(frequency, weights=count).x)


def confidence_and_hit(labels: ArrayLike, probabilities: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the predicted class ``(N,)``, and whether it is the label ``(N,)``.

    Raises:
        ValueError: As `ece_of_probabilities`.
    """
    y, p = checked(labels, probabilities)
    return p.max(axis=1), predicted_class(p) == y


def _of_confidence(labels: ArrayLike, probabilities: ArrayLike, bins: int, binning: Binning) -> ReliabilityBins | None:
    confidence, hit = confidence_and_hit(labels, probabilities)
    if np.isnan(confidence).any():
        return None
    return binned_reliability(confidence, hit, bins=bins, binning=binning)


def _mean_gap(groups: ReliabilityBins) -> float:
    share = groups.rows / groups.rows.sum()
    return float(np.nansum(share * np.abs(groups.predicted - groups.observed)))
