"""A comparison as a table: one row a method, the columns of the IGB paper's Table 2, and calibration beside them."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.columns import Column, columns
from bmtl.evaluation.metrics import noise_floor
from bmtl.evaluation.scores import primary
from bmtl.evaluation.statistics import mean_and_error, not_worse_than_best


def table(comparison: xr.Dataset) -> pd.DataFrame:
    """Means over splits, one row a method.

    A hole in the grid is left out of its row's means; a run that diverged makes them NaN. The baseline's own
    ``delta_m`` (zero by definition) is left blank, as in the paper.

    Args:
        comparison: From `compare`.

    Returns:
        Index ``method``; columns ``delta_m [%]`` and ``T`` (lower is better), ``mean NLL`` (nats, standardised targets) and
        ``mean ECE``, for each kind of target if there are two, and ``MAE <task> [<unit>]`` or ``accuracy <task>`` (higher
        is better) for each task; a single task has a column for each of its scores. Beyond twelve tasks the last are
        replaced by ``mean rank`` over tasks, ``tasks worse than <baseline> [%]`` and the mean over tasks of MAE, if they
        have one unit, and of accuracy.
    """
    return _frame(comparison, lambda column: _summary(column, "mean"))


def spread(comparison: xr.Dataset) -> pd.DataFrame:
    """Standard deviations over splits (divisor: splits less one) of `table`'s entries, same shape; NaN for one split."""
    return _frame(comparison, lambda column: _summary(column, "deviation"))


def standard_error(comparison: xr.Dataset) -> pd.DataFrame:
    """Standard errors over splits of `table`'s entries, same shape; NaN for one split."""
    return _frame(comparison, lambda column: _summary(column, "error"))


def best(comparison: xr.Dataset) -> pd.DataFrame:
    """Which entries of `table` are not told apart from the best of their column: booleans of the same shape.

    An entry is marked unless the 95 % interval of its paired differences to the best mean, over splits, excludes zero
    (`not_worse_than_best`). A column in which no method is told apart is not marked at all: with one split there is
    no interval, with two or three it is wide. ``T`` is not ranked.

    Args:
        comparison: From `compare`.
    """

    def marks(column: Column) -> np.ndarray:
        if column.higher_is_better is None or not column.counted.any():
            return np.zeros(comparison.sizes["method"], dtype=bool)
        mask = not_worse_than_best(
            column.values, higher_is_better=column.higher_is_better, counted=column.counted
        ).values
        told_apart = np.isfinite(_summary(column, "mean")) & ~mask
        return mask & told_apart.any()

    return _frame(comparison, marks)


def caption(comparison: xr.Dataset) -> str:
    """What a reader of the table must know: splits, units, what it is relative to, how small an ECE can be, holes."""
    about = decode_attributes(comparison)
    splits = comparison.sizes["split"]
    symbols = [primary(kind).symbol for kind in dict.fromkeys(comparison["kind"].values.tolist())]
    parts = ["One split: nothing is marked best."]
    if splits > 1:
        marked = "marked: not told apart from the best by the 95 % interval of paired differences"
        parts = [f"Mean over {splits} splits; {marked}."]
    if about.get("baseline") is not None:
        against = about["baseline"]
        parts.append(f"delta_m: mean relative change of {' and '.join(symbols)} against {against}, negative is better.")
    if about.get("reference") is not None:
        parts.append(f"T: median time of a step over {about['reference']}'s.")
    regressions = comparison["rows"].values[:, (comparison["kind"] == "regression").values]
    if regressions.size and "nll" in comparison["metric"].values:
        parts.append("NLL: nats, standardised targets.")
    if regressions.any() and "ece" in comparison["metric"].values:
        floors = [noise_floor(int(count)).mean for count in regressions[regressions > 0]]
        parts.append(f"ECE: a perfect predictive would show {np.mean(floors):.3f} on so few rows.")
    missing = np.argwhere(~comparison["present"].transpose("method", "split").values)
    holes = [
        f"{comparison['method'].values[row]} split {comparison['split'].values[column]}" for row, column in missing
    ]
    if holes:
        parts.append(f"Missing: {', '.join(holes)}.")
    return " ".join(parts)


def _frame(comparison: xr.Dataset, entries: Callable[[Column], np.ndarray]) -> pd.DataFrame:
    methods = [str(name) for name in comparison["method"].values]
    return pd.DataFrame(
        {column.name: entries(column) for column in columns(comparison)}, index=pd.Index(methods, name="method")
    )


def _summary(column: Column, what: str) -> np.ndarray:
    return mean_and_error(column.values, counted=column.counted)[what].values
