"""Calibration of predictive cdfs, per target of a results tree."""

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.metrics.by_target import curves_per_target, per_target
from bmtl.evaluation.parts import scored
from bmtl.targets.metrics.groupwise import SIZES, worst_group_ece
from bmtl.targets.metrics.pit import LEVELS, coverage_of_pit
from bmtl.targets.metrics.uncertainty_calibration import uncertainty_bins
from bmtl.targets.metrics.uniformity import POINTS, pit_ecdf
from bmtl.targets.score import Scored


def pits(tree: xr.DataTree, *, part: str | None = None) -> dict[str, np.ndarray]:
    """Predictive cdf at the labels ``(N,)`` by target; none for a target that has no cdf, such as classes.

    Labels that are known up to an interval of the cdf (counts, censored ones) have a uniform value within it.
    """
    found = {}
    for name, rows in scored(tree, part).items():
        pit = rows.pit() if len(rows.labels) else None
        found[name] = np.empty(0) if pit is None else pit
    return found


def reliability(tree: xr.DataTree, levels: ArrayLike = LEVELS, *, part: str | None = None) -> xr.Dataset:
    """The reliability curve per target: observed coverage of central intervals against their nominal level.

    Args:
        tree: A run's results tree, or a part of it.
        levels: Nominal levels in [0, 1].
        part: Which rows; "test" by default.

    Returns:
        ``coverage (task, level)``, NaN for a target without PIT values; on a calibrated target it equals the coordinate
        ``level`` up to noise.
    """
    nominal = np.asarray(levels, dtype=float)

    def curve(rows: Scored) -> tuple[np.ndarray] | None:
        pit = rows.pit()
        return None if pit is None else (coverage_of_pit(pit, nominal),)

    return curves_per_target(tree, curve, ["coverage"], "level", nominal, part)


def coverage(tree: xr.DataTree, *, level: float = 0.9, part: str | None = None) -> xr.Dataset:
    """Share of labels inside the central interval of a level per target, ``coverage (task)``; see `reliability`."""
    if not 0 < level < 1:
        raise ValueError(f"The interval's level is {level}; expected one in (0, 1).")

    def share(rows: Scored) -> float | None:
        pit = rows.pit()
        return None if pit is None else coverage_of_pit(pit, [level]).item()

    return per_target(tree, share, part).to_dataset(name="coverage")


def pit_bands(tree: xr.DataTree, *, level: float = 0.95, part: str | None = None) -> xr.Dataset:
    """`pit_ecdf` per target: ``ecdf``, ``lower`` and ``upper`` (task, point); NaN for a target without PIT values."""

    def curves(rows: Scored) -> tuple[np.ndarray, ...] | None:
        pit = rows.pit()
        return None if pit is None else tuple(pit_ecdf(pit, level=level)[1:])

    return curves_per_target(tree, curves, ["ecdf", "lower", "upper"], "point", POINTS, part)


def worst_groups(tree: xr.DataTree, *, sizes: ArrayLike = SIZES, seed: int = 0, part: str | None = None) -> xr.Dataset:
    """`worst_group_ece` per target.

    Returns:
        ``worst_ece`` and ``worst_ece_floor`` (task, size), the latter of a perfect predictive on as many rows; NaN for a
        target without PIT values.
    """
    shares = np.asarray(sizes, dtype=float)

    def curves(rows: Scored) -> tuple[np.ndarray, np.ndarray] | None:
        pit = rows.pit()
        return None if pit is None else worst_group_ece(pit, shares, seed=seed)

    return curves_per_target(tree, curves, ["worst_ece", "worst_ece_floor"], "size", shares, part)


def uncertainty_calibration(tree: xr.DataTree, *, bins: int = 10, part: str | None = None) -> xr.Dataset:
    """Predicted against observed error of real targets, in bins of as many rows by rising predicted uncertainty.

    Args:
        tree: A run's results tree, or a part of it.
        bins: How many.
        part: Which rows; "test" by default.

    Returns:
        ``predicted``, ``observed`` and ``rows`` (task, bin): root mean predicted variance and root mean squared error in the
        target's unit, NaN in a bin without a row, and for targets without the score ``ence``, which is made of these.
    """

    def curves(rows: Scored) -> tuple[np.ndarray, ...] | None:
        if rows.family.score("ence") is None or not rows.prediction.has("predictive"):
            return None
        predictive = rows.predictive()
        return tuple(uncertainty_bins(rows.labels - predictive.mean(), np.sqrt(predictive.variance()), bins=bins))

    return curves_per_target(tree, curves, ["predicted", "observed", "rows"], "bin", np.arange(bins), part)
