"""Scores of the central intervals of predictives, per target of a results tree."""

from collections.abc import Callable

import numpy as np
import xarray as xr

from bmtl.evaluation.metrics.by_target import per_target
from bmtl.targets.laws import Predictive
from bmtl.targets.metrics.intervals import WIS_LEVELS, interval_score, weighted_interval_score
from bmtl.targets.score import Scored


def interval_scores(tree: xr.DataTree, *, level: float = 0.9, part: str | None = None) -> xr.Dataset:
    """Scores of central intervals per target, in each target's unit.

    Args:
        tree: A run's results tree, or a part of it.
        level: That of ``interval_score``; ``weighted_interval_score`` takes `WIS_LEVELS`.
        part: Which rows; "test" by default.

    Returns:
        ``interval_score (task)`` and ``weighted_interval_score (task)``.
    """

    def weighted(y: np.ndarray, predictive: Predictive) -> float:
        tails = (1 - np.asarray(WIS_LEVELS)[:, None]) / 2
        middle, low, high = predictive.quantile(0.5), predictive.quantile(tails), predictive.quantile(1 - tails)
        return weighted_interval_score(y, middle, low, high, WIS_LEVELS)

    one = of_predictives(tree, lambda y, predictive: interval_score(y, *predictive.interval(level), level), part)
    return xr.Dataset({"interval_score": one, "weighted_interval_score": of_predictives(tree, weighted, part)})


def sharpness(tree: xr.DataTree, *, level: float = 0.9, part: str | None = None) -> xr.Dataset:
    """How narrow the predictives are per target, in each target's unit, whatever the labels are.

    Returns:
        ``width (task)``, the mean width of the central interval of that level, and ``sd (task)``, the mean predictive
        standard deviation (infinite where a variance is).
    """

    def width(_: np.ndarray, predictive: Predictive) -> float:
        lower, upper = predictive.interval(level)
        return float((upper - lower).mean())

    sd = of_predictives(tree, lambda _, predictive: float(np.sqrt(predictive.variance()).mean()), part)
    return xr.Dataset({"width": of_predictives(tree, width, part), "sd": sd})


def of_predictives(
    tree: xr.DataTree, core: Callable[[np.ndarray, Predictive], float | None], part: str | None = None
) -> xr.DataArray:
    """`core` of the labels ``(N,)`` and predictive of each target of single numbers that has the score ``crps``."""

    def of(rows: Scored) -> float | None:
        if rows.family.score("crps") is None or not rows.prediction.has("predictive"):
            return None
        return core(rows.labels, rows.predictive())

    return per_target(tree, of, part)
