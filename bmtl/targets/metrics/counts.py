"""Scores of predicted counts."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import xlogy

from bmtl.targets.laws.predictive import Predictive
from bmtl.targets.metrics.pit import randomised_pit
from bmtl.targets.metrics.point import pair


def poisson_deviance(y: ArrayLike, predicted: ArrayLike) -> float:
    """Mean Poisson deviance of predicted means, ``2 (y log(y / m) - y + m)``.

    Args:
        y: Counts ``(N,)``.
        predicted: Means ``(N,)``, not negative.

    Returns:
        At least 0; infinite where a mean of 0 is predicted for a count above it, NaN where an entry is NaN.

    Raises:
        ValueError: If the shapes differ or there is no row, or a count or a mean is negative.

    Source:
        McCullagh & Nelder (1989), section 2.3.
    """
    counts, means = pair(y, predicted)
    if (counts < 0).any() or (means < 0).any():
        raise ValueError(
            f"Counts go down to {np.nanmin(counts):.4g} and means to {np.nanmin(means):.4g}; expected none below 0."
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(counts > 0, counts / means, 1.0)
        rows = 2 * (xlogy(counts, ratio) - counts + means)
    return float(np.maximum(rows, 0).mean())  # rounding can leave a little less than 0


def count_pit(y: ArrayLike, predictive: Predictive, *, seed: int = 0) -> np.ndarray:
    """Randomised PIT of counts ``(N,)``: uniform between the cdf below y and the one at y. See `randomised_pit`."""
    counts = np.asarray(y, dtype=float)
    return randomised_pit(predictive.cdf(counts - 1), predictive.cdf(counts), seed=seed)
