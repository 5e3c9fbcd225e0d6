"""Calibration of a continuous predictive: coverage of its central intervals, from the cdf at the labels alone."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.metrics.labelled import group_of, per_target, targets_of, task_coords

LEVELS = np.arange(1, 101) / 100  # .01, .02, ..., 1.00
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
    folded = np.sort(np.abs(2 * values - 1))
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


def ece(tree: xr.DataTree) -> xr.Dataset:
    """Expected calibration error per target beside what a perfect predictive would show on as many rows.

    Returns:
        ``ece (task)``, ``ece_floor (task)`` and ``ece_floor_upper95 (task)``.
    """
    return xr.Dataset(
        {
            "ece": per_target(tree, ("pit",), ece_from_pit),
            "ece_floor": per_target(tree, ("pit",), lambda pit: noise_floor(len(pit)).mean),
            "ece_floor_upper95": per_target(tree, ("pit",), lambda pit: noise_floor(len(pit)).upper95),
        }
    )


def reliability(tree: xr.DataTree, levels: ArrayLike = LEVELS) -> xr.Dataset:
    """The reliability curve per target: observed coverage of central intervals against their nominal level.

    Args:
        tree: A results tree with ``pit``.
        levels: Nominal levels in [0, 1].

    Returns:
        ``coverage (task, level)``, NaN for a target without PIT values (without a scored row, or a classification); on a
        calibrated target it equals the coordinate ``level`` up to noise.
    """
    nominal = np.asarray(levels, dtype=float)
    curves = [
        coverage_of_pit(values, nominal) if values.size else np.full(nominal.shape, np.nan)
        for values in pits_of(tree).values()
    ]
    coverage = (("task", "level"), np.asarray(curves).reshape(-1, nominal.size))
    return xr.Dataset({"coverage": coverage}, coords={**task_coords(tree), "level": nominal})


def pits_of(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """PIT values ``(N,)`` by target; none for a classification."""
    pits = group_of(tree, "pit")
    return {name: pits[f"y_{name}"].values if f"y_{name}" in pits else np.empty(0) for name in targets_of(tree)}
