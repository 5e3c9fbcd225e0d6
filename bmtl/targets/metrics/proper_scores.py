"""Proper scores of class probabilities: log score and Brier score, and what the latter is made of."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.metrics.binning import Binning, bin_numbers
from bmtl.targets.metrics.probabilities import checked


class BrierParts(NamedTuple):
    """A Brier score and its parts: ``score = reliability - resolution + uncertainty + residual``."""

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    residual: float


def nll_of_probabilities(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean over rows of ``-log p(label)``, in nats: the log score of the predictive mixture.

    Args:
        labels: ``(N,)``, integers from 0 to C - 1.
        probabilities: ``(N, C)`` of the predictive, that is, averaged over draws; C at least 2.

    Returns:
        Infinite where a label has probability zero, NaN where a probability is NaN.

    Raises:
        ValueError: If there is no row, a label is outside the classes, or a row of probabilities does not sum to one.
    """
    y, p = checked(labels, probabilities)
    if np.isnan(p).any():
        return float("nan")
    of_label = p[np.arange(len(p)), y].clip(0, 1)
    return float("inf") if not of_label.all() else float(-np.log(of_label).mean())


def brier_of_probabilities(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean over rows of ``sum_c (p_c - [label = c])**2``, in [0, 2]; for two classes twice the one-sided score.

    Arguments and errors as `nll_of_probabilities`; NaN where a probability is NaN.

    Source:
        Brier (1950).
    """
    y, p = checked(labels, probabilities)
    return float(np.square(p - _one_hot(y, p.shape[1])).sum(axis=1).mean())


def brier_decomposition(
    labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 15, binning: Binning = "width"
) -> BrierParts:
    """The Brier score in parts, each a sum over classes, with rows grouped by the probability of that class.

    With f the mean probability and o the frequency of the class in a group of share w, and o0 its overall frequency:
    reliability is ``sum w (f - o)**2`` (0 if calibrated), resolution ``sum w (o - o0)**2`` (the higher the better), and
    uncertainty ``o0 (1 - o0)``, the score of always predicting o0. Probabilities that differ within a group leave a
    residual: their variance there less twice their covariance with the outcome. It is zero where every group holds one
    distinct probability; the identity is exact at any number of bins.

    Arguments and errors as `nll_of_probabilities` and `bin_numbers`; all NaN where a probability is NaN.

    Source:
        Murphy (1973); the terms within groups: Stephenson, Coelho & Jolliffe (2008).
    """
    y, p = checked(labels, probabilities)
    if np.isnan(p).any():
        return BrierParts(*[float("nan")] * 5)
    reliability = resolution = uncertainty = residual = 0.0
    for c in range(p.shape[1]):
        happened = (y == c).astype(float)
        numbers = bin_numbers(p[:, c], bins, binning)
        count = np.bincount(numbers, minlength=bins)
        share, rows = count / len(y), np.maximum(count, 1)  # an empty bin has share 0
        mean = np.bincount(numbers, weights=p[:, c], minlength=bins) / rows
        frequency = np.bincount(numbers, weights=happened, minlength=bins) / rows
        overall = happened.mean()
        reliability += (share * np.square(mean - frequency)).sum()
        resolution += (share * np.square(frequency - overall)).sum()
        uncertainty += overall * (1 - overall)
        spread = p[:, c] - mean[numbers]
        residual += (np.square(spread) - 2 * spread * (happened - frequency[numbers])).mean()
    return BrierParts(
        score=brier_of_probabilities(y, p),
        reliability=float(reliability),
        resolution=float(resolution),
        uncertainty=float(uncertainty),
        residual=float(residual),
    )


def _one_hot(y: np.ndarray, classes: int) -> np.ndarray:
    return (y[:, None] == np.arange(classes)).astype(float)
