"""Which methods a table marks: those that are not significantly worse than the best, where the runs decide anything."""

import numpy as np
import xarray as xr

from bmtl.evaluation.repeats import FEWEST
from bmtl.evaluation.statistics import mean_and_error, not_worse_than_best

RULE = "not significantly worse than the best (95 % paired interval)"


def marked(
    values: xr.DataArray, *, higher_is_better: bool = False, counted: xr.DataArray | None = None
) -> xr.DataArray:
    """Booleans of the shape of `values` without ``split``: `not_worse_than_best` where that says something.

    Nothing is marked with fewer than three runs, and nothing of a column or a target in which no method is significantly
    worse than the best: a mark on every method carries no information.

    Args:
        values: ``(learner, split)`` or ``(learner, split, task)``.
        higher_is_better: Which end is best.
        counted: Booleans that broadcast against `values`; what is False is left out.
    """
    if values.sizes["split"] < FEWEST:
        return xr.zeros_like(values.isel(split=0, drop=True), dtype=bool)
    marks = not_worse_than_best(values, higher_is_better=higher_is_better, counted=counted)
    summary = mean_and_error(values, counted=counted)
    mean = summary["mean"]
    worse = (mean.copy(data=np.isfinite(mean.values)) & ~marks).any("learner")
    enough = summary["splits"].max("learner") >= FEWEST
    return marks & worse & enough
