"""Calibration by uncertainty: are errors as large as predicted where large ones, and where small ones are predicted?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.metrics.binning import bin_numbers
from bmtl.targets.metrics.point import pair


class UncertaintyBins(NamedTuple):
    """Rows in bins of rising predicted uncertainty, each ``(M,)``; NaN in a bin without a row."""

    predicted: np.ndarray
    """Root mean predicted variance."""
    observed: np.ndarray
    """Root mean squared error."""
    rows: np.ndarray
    """Number of rows."""


def uncertainty_bins(error: ArrayLike, sd: ArrayLike, *, bins: int = 10) -> UncertaintyBins:
    """Predicted against observed error in bins of as equal numbers of rows as ties allow, by rising uncertainty.

    Args:
        error: Label less predictive mean ``(N,)``.
        sd: Predictive standard deviations ``(N,)``, positive, in the same unit.
        bins: How many.

    Raises:
        ValueError: If the shapes differ, there is no row or bin, or a standard deviation is negative.
    """
    errors, spreads = pair(error, sd)
    if (spreads < 0).any():
        raise ValueError(f"A standard deviation is {np.nanmin(spreads):.4g}; expected none below 0.")
    numbers = bin_numbers(spreads, bins, "mass")
    count = np.bincount(numbers, minlength=bins)
    weight = np.where(count, count, np.nan)

    def root_mean(values: np.ndarray) -> np.ndarray:
        unit = np.abs(values).max()
        if not 0 < unit < np.inf:  # squares are taken of ratios to it, so that they neither overflow nor vanish
            unit = 1.0
        return np.asarray(unit * np.sqrt(np.bincount(numbers, np.square(values / unit), minlength=bins) / weight))

    return UncertaintyBins(root_mean(spreads), root_mean(errors), count)


def ence(error: ArrayLike, sd: ArrayLike, *, bins: int = 10) -> float:
    """Expected normalised calibration error: mean over bins of ``|RMV - RMSE| / RMV``.

    RMV is the root mean predicted variance of a bin, RMSE its root mean squared error; 0 where errors are as large as
    predicted in every bin. On finitely many rows a perfect predictive shows about ``0.56 / sqrt(rows in a bin)``.

    Arguments and errors as `uncertainty_bins`.

    Returns:
        NaN where an entry is NaN, or a predicted variance is infinite or 0 throughout a bin.

    Source:
        Levi, Gispan, Giladi & Fetaya (2022), Sensors 22, equation 8.
    """
    found = uncertainty_bins(error, sd, bins=bins)
    kept = found.rows > 0
    predicted, observed = found.predicted[kept], found.observed[kept]
    if not (np.isfinite(predicted) & (predicted > 0)).all():
        return float("nan")
    return float((np.abs(predicted - observed) / predicted).mean())
