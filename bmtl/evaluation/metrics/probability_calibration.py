"""Calibration of class probabilities: predicted probability against observed frequency."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression

from bmtl.evaluation.metrics.binning import Binning, ReliabilityBins, binned_reliability, checked_events
from bmtl.evaluation.metrics.calibration import LEVELS
from bmtl.evaluation.metrics.labelled import task_coords
from bmtl.evaluation.metrics.probabilities import checked, class_arrays, class_scores, predicted_class


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


def class_calibration(tree: xr.DataTree, *, bins: int = 15) -> xr.Dataset:
    """Calibration errors of the class probabilities per target; NaN for a regression.

    Returns:
        ``class_ece`` (bins of equal width), ``class_ece_equal_mass``, ``class_mce`` (equal width) and
        ``classwise_ece`` (equal width), each ``(task)``. (`ece` is that of a regression's cdf.)
    """

    def errors(y: np.ndarray, p: np.ndarray) -> tuple[float, ...]:
        return (
            ece_of_probabilities(y, p, bins=bins),
            ece_of_probabilities(y, p, bins=bins, binning="mass"),
            mce_of_probabilities(y, p, bins=bins),
            classwise_ece_of_probabilities(y, p, bins=bins),
        )

    return class_scores(tree, errors, ["class_ece", "class_ece_equal_mass", "class_mce", "classwise_ece"])


def class_reliability(
    tree: xr.DataTree, *, bins: int = 15, binning: Binning = "width", of_class: int | None = None
) -> xr.Dataset:
    """The reliability curve per target in bins.

    Args:
        tree: A results tree with ``probability``.
        bins: How many.
        binning: As `ece_of_probabilities`.
        of_class: Judge the probability of this class; by default the confidence, that of the predicted class.

    Returns:
        ``predicted (task, bin)`` and ``observed (task, bin)``, NaN in a bin without a row, and ``rows (task, bin)``.
        NaN and 0 for a regression, a target without a row, without that class or with a NaN.
    """
    curves = [
        binned_reliability(*events, bins=bins, binning=binning)
        if events is not None
        else ReliabilityBins(np.full(bins, np.nan), np.full(bins, np.nan), np.zeros(bins, dtype=int))
        for events in _events(tree, of_class)
    ]
    variables = {
        name: (("task", "bin"), np.asarray([curve[position] for curve in curves]).reshape(-1, bins))
        for position, name in enumerate(ReliabilityBins._fields)
    }
    return xr.Dataset(variables, coords={**task_coords(tree), "bin": np.arange(bins)})


def class_reliability_isotonic(
    tree: xr.DataTree, levels: ArrayLike = LEVELS, *, of_class: int | None = None
) -> xr.Dataset:
    """The reliability curve per target by isotonic regression.

    Args:
        tree: A results tree with ``probability``.
        levels: Predicted probabilities at which the curve is read, straight between two that occur.
        of_class: As `class_reliability`.

    Returns:
        ``observed (task, level)``; NaN outside the predictions that occur, and as `class_reliability`.
    """
    at = np.asarray(levels, dtype=float)
    curves = []
    for events in _events(tree, of_class):
        if events is None:
            curves.append(np.full(at.shape, np.nan))
            continue
        curve = isotonic_reliability(*events)
        curves.append(np.interp(at, curve.predicted, curve.observed, left=np.nan, right=np.nan))
    observed = (("task", "level"), np.asarray(curves).reshape(-1, at.size))
    return xr.Dataset({"observed": observed}, coords={**task_coords(tree), "level": at})


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


def _events(tree: xr.DataTree, of_class: int | None) -> list[tuple[np.ndarray, np.ndarray] | None]:
    """Predicted probability and whether it happened, for each target; None where there is nothing to judge."""
    if of_class is not None and of_class < 0:
        raise ValueError(f"of_class is {of_class}; expected a class from 0, or None for the predicted class.")
    found: list[tuple[np.ndarray, np.ndarray] | None] = []
    for arrays in class_arrays(tree).values():
        if arrays is None or np.isnan(arrays[1]).any() or (of_class or 0) >= arrays[1].shape[1]:
            found.append(None)
        elif of_class is None:
            found.append(confidence_and_hit(*arrays))
        else:
            y, p = checked(*arrays)
            found.append((p[:, of_class], y == of_class))
    return found
