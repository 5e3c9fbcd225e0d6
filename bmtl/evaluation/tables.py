"""A comparison as a table: one row a method, the columns of the IGB paper's Table 2, and calibration beside them."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.metrics.calibration import noise_floor

UNRANKED = "T"  # differences of step time below a tenth are noise, so no method is best by them


def table(comparison: xr.Dataset) -> pd.DataFrame:
    """Means over seeds, one row a method.

    A hole in the grid is left out of its row's means; a run that diverged makes them NaN. The baseline's own
    ``delta_m`` (zero by definition) is left blank, as in the paper.

    Args:
        comparison: From `compare`.

    Returns:
        Index ``method``; columns ``delta_m [%]``, ``T``, ``mean NLL`` (nats, standardised targets), ``mean ECE``, and
        ``MAE <task> [<unit>]`` for each task. Lower is better in all.
    """
    return _frame(comparison, _mean)


def spread(comparison: xr.Dataset) -> pd.DataFrame:
    """Standard deviations over seeds (divisor: seeds less one) of `table`'s entries, same shape; NaN for one seed."""
    return _frame(comparison, _deviation)


def best(frame: pd.DataFrame) -> pd.DataFrame:
    """Which entries of a `table` are the lowest of their column, ties included: booleans of the same shape.

    ``T`` is not ranked, since differences of step time below a tenth are noise.
    """
    marks = frame.eq(frame.min(axis=0), axis="columns") & frame.notna()
    marks[[name for name in frame.columns if name == UNRANKED]] = False
    return marks


def caption(comparison: xr.Dataset) -> str:
    """What a reader of the table must know: seeds, units, what it is relative to, how small an ECE can be, holes."""
    about = decode_attributes(comparison)
    seeds = comparison.sizes["seed"]
    parts = [f"Mean over {seeds} seeds." if seeds > 1 else "One seed."]
    if about.get("baseline") is not None:
        parts.append(f"delta_m: mean relative change of MAE against {about['baseline']}, negative is better.")
    if about.get("reference") is not None:
        parts.append(f"T: median time of a step over {about['reference']}'s.")
    parts.append("NLL: nats, standardised targets.")
    counts = comparison["rows"].values[comparison["rows"].values > 0]
    floors = [noise_floor(int(count)).mean for count in counts]
    parts.append(f"ECE: a perfect predictive would show {np.mean(floors):.3f} on so few rows.")
    missing = np.argwhere(~comparison["present"].transpose("method", "seed").values)
    holes = [f"{comparison['method'].values[row]} seed {comparison['seed'].values[column]}" for row, column in missing]
    if holes:
        parts.append(f"Missing: {', '.join(holes)}.")
    return " ".join(parts)


def _frame(comparison: xr.Dataset, over_seeds: Callable[[np.ndarray], float]) -> pd.DataFrame:
    about = decode_attributes(comparison)
    present = comparison["present"].values
    columns = {
        "delta_m [%]": (comparison["delta_m"].values, present & _has(comparison, about.get("baseline"))),
        "T": (comparison["T"].values, present & _has(comparison, about.get("reference"))),
        "mean NLL": (_over_tasks(comparison, "nll"), present),
        "mean ECE": (_over_tasks(comparison, "ece"), present),
    }
    for task in comparison["task"].values:
        mae, scored = comparison["mae"].sel(task=task), comparison["rows"].sel(task=task).values > 0
        unit = str(mae.coords["unit"].item()) if "unit" in mae.coords else ""
        columns[f"MAE {task} [{unit}]" if unit else f"MAE {task}"] = (mae.values, present & scored)

    methods = [str(name) for name in comparison["method"].values]
    frame = pd.DataFrame(
        {
            name: [over_seeds(row[counted]) for row, counted in zip(values, counts, strict=True)]
            for name, (values, counts) in columns.items()
        },
        index=pd.Index(methods, name="method"),
    )
    if about.get("baseline") is not None:
        frame.loc[about["baseline"], "delta_m [%]"] = np.nan
    return frame


def _over_tasks(comparison: xr.Dataset, score: str) -> np.ndarray:
    """Mean ``(method, seed)`` over the targets that a seed scores; a NaN among those stays one."""
    scored = comparison["rows"] > 0
    total = xr.where(scored, comparison[score], 0.0).sum("task", skipna=False)
    return (total / scored.sum("task").where(lambda count: count > 0)).transpose("method", "seed").values


def _has(comparison: xr.Dataset, method: str | None) -> np.ndarray:
    """Seeds ``(seed,)`` for which there is what a ratio is taken to."""
    if method is None:
        return np.zeros(comparison.sizes["seed"], dtype=bool)
    return comparison["present"].sel({"method": method}).values  # sel(method=...) is how to fill, not what to take


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if values.size > 1 and np.isfinite(values).all() else float("nan")
