"""Calibration of a continuous predictive: coverage of its central intervals, from the cdf at the labels alone."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

LEVELS = np.arange(1, 101) / 100  # .01, .02, ..., 1.00
STREAM = 2009  # of the randomised values
TOLERANCE = 1e-6  # a mean of float32 cdfs can leave [0, 1] by rounding


class NoiseFloor(NamedTuple):
    """The ECE that a perfect predictive shows on a finite number of rows."""

    mean: float
    upper95: float


def checked_pit(pit: ArrayLike) -> np.ndarray:
    """PIT values ``(N,)`` as floats in [0, 1]: what rounding put outside is put back, NaN stays.

    Raises:
        ValueError: If there is no row, or a pit is outside [0, 1].
    """
    values = np.asarray(pit, dtype=float)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"pit has shape {values.shape}; expected (N,), a row at least.")
    if (values < -TOLERANCE).any() or (values > 1 + TOLERANCE).any():
        low, high = np.nanmin(values), np.nanmax(values)
        raise ValueError(f"pit ranges from {low:.4g} to {high:.4g}; a cdf is in [0, 1].")
    return values.clip(0, 1)


def rounding(pit: ArrayLike) -> float:
    """By how much rounding may put a PIT value, or the level of the interval that ends there, on the wrong side of a level.

    0.8 is the upper end of the 60 % interval, and ``2 * 0.8 - 1`` is above 0.6 in double and in single precision.
    """
    dtype = np.asarray(pit).dtype
    return 4 * float(np.finfo(dtype if dtype.kind == "f" else float).eps)


def randomised_pit(below: ArrayLike, up_to: ArrayLike, *, seed: int = 0) -> np.ndarray:
    """PIT values of labels that are known up to an interval of the cdf: uniform within it, so uniform where calibrated.

    A count y has the interval from F(y - 1) to F(y), and a label between two ends that from the cdf at the one to that
    at the other. Where both are equal, that is the value.

    Args:
        below: Lower ends of the intervals ``(N,)``.
        up_to: Upper ends ``(N,)``.
        seed: Of the draws, the same for every method, so that differences between methods are not of the draws.

    Raises:
        ValueError: If the shapes differ, or an upper end is below its lower end by more than rounding.

    Source:
        Smith (1985); Czado, Gneiting & Held (2009), Biometrics 65, for counts. Haider et al. (2020), Journal of Machine
        Learning Research 21, for censored times (in expectation).
    """
    low, high = np.asarray(below, dtype=float), np.asarray(up_to, dtype=float)
    if low.shape != high.shape or low.ndim != 1 or (high - low < -TOLERANCE).any():
        raise ValueError(
            f"below has shape {low.shape} and up_to {high.shape}; expected (N,) for both, none above the other."
        )
    # A stream of its own: data that were simulated with the same seed must not share its numbers.
    uniform = np.random.default_rng([seed, STREAM]).uniform(size=low.shape)
    return low + np.maximum(high - low, 0) * uniform


def coverage_of_pit(pit: ArrayLike, levels: ArrayLike = LEVELS) -> np.ndarray:
    """Share of labels inside the central interval of each level.

    The central interval of level P holds y exactly when ``|2 F(y) - 1| <= P``, so one cdf a row serves every level:
    sorting makes it N log N whatever the number of levels. (Level 1 holds every label, even one outside the support.)

    Args:
        pit: Predictive cdf at the labels, ``(N,)`` in [0, 1].
        levels: Nominal levels ``(L,)`` in [0, 1].

    Returns:
        Observed coverage ``(L,)``; all NaN where a pit is NaN.

    Raises:
        ValueError: If there is no row, or a pit is outside [0, 1].
    """
    values, nominal = checked_pit(pit), np.asarray(levels, dtype=float)
    if np.isnan(values).any():  # a comparison with NaN is false: it would count as outside every interval
        return np.full(nominal.shape, np.nan)
    folded = np.sort(np.abs(2 * values - 1)) - rounding(pit)
    return np.searchsorted(folded, nominal, side="right") / values.size


def ece_from_pit(pit: ArrayLike, levels: ArrayLike = LEVELS) -> float:
    """Expected calibration error: mean over levels of ``|observed coverage - level|``; NaN where a pit is NaN.

    Args:
        pit: Predictive cdf at the labels, ``(N,)`` in [0, 1].
        levels: .01 to 1.00 in steps of .01 by default.

    Raises:
        ValueError: As `coverage_of_pit`.

    Source:
        Oh & Shin (2022), section 4, by counting intervals; equal to it.
    """
    return float(np.abs(coverage_of_pit(pit, levels) - np.asarray(levels, dtype=float)).mean())


def noise_floor(rows: int) -> NoiseFloor:
    """ECE of a perfect predictive on so many rows: its mean and its 95 % point. An ECE below the latter shows nothing.

    Coverage at level P errs by ``sqrt(P (1 - P) / N)``, so the mean is ``sqrt(2 / pi) * (pi / 8) / sqrt(N)``. The 95 %
    point is that of the integral of a Brownian bridge's absolute value, 0.58.
    """
    if rows < 1:
        raise ValueError(f"The noise floor is asked for {rows} rows; expected one at least.")
    return NoiseFloor(mean=float(np.sqrt(np.pi / 32 / rows)), upper95=float(0.58 / np.sqrt(rows)))


def noise_floor_mean(rows: int) -> float:
    """The mean of `noise_floor`."""
    return noise_floor(rows).mean
