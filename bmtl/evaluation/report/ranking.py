"""Which method is best: the one number that a comparison is summed up by, and who cannot be told from its best mean."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.ranks import ranks
from bmtl.evaluation.scores import primary_scores
from bmtl.evaluation.statistics import mean_and_error, not_worse_than_best


@dataclass(frozen=True)
class Headline:
    """What methods are judged by first; lower is better.

    Attributes:
        name: What it is, in words.
        unit: " %" or nothing.
        mean: By method.
        error: Standard error by method; NaN for one split.
        best: The methods that are not told apart from the best mean, if some other method is; else nothing.
        splits: How many splits count.
    """

    name: str
    unit: str
    mean: dict[str, float]
    error: dict[str, float]
    best: list[str]
    splits: int

    @property
    def leader(self) -> str | None:
        """The method with the best mean; None where no mean is a number."""
        finite = {name: mean for name, mean in self.mean.items() if np.isfinite(mean)}
        return min(finite, key=finite.__getitem__) if finite else None


def headline(comparison: xr.Dataset) -> Headline:
    """The mean change against the baseline, or without one the mean rank over the targets."""
    baseline = decode_attributes(comparison).get("baseline")
    if baseline is None:
        return mean_ranks(comparison)
    present = comparison["present"]
    shared = present & present.sel({"method": baseline}, drop=True)
    if not comparison["delta_m"].where(shared).notnull().any():
        return mean_ranks(comparison)
    return _headline(comparison["delta_m"], shared, f"mean relative change against {baseline}", " %")


def mean_ranks(comparison: xr.Dataset) -> Headline:
    """The mean rank over the targets, of the splits that all methods have."""
    scores, higher = primary_scores(comparison)
    counted = comparison["present"] & (comparison["rows"] > 0)
    values = ranks(scores, higher_is_better=higher, counted=counted).mean("task").transpose("method", "split")
    complete = comparison["present"].all("method") & xr.ones_like(comparison["present"])
    return _headline(values, complete.transpose("method", "split"), "mean rank over the targets", "")


def _headline(values: xr.DataArray, present: xr.DataArray, name: str, unit: str) -> Headline:
    summary = mean_and_error(values, counted=present)
    marks = not_worse_than_best(values, counted=present)
    told_apart = np.isfinite(summary["mean"]) & ~marks
    methods = [str(method) for method in values["method"].values]
    best = [method for method, marked in zip(methods, marks.values, strict=True) if marked and told_apart.any()]
    return Headline(
        name,
        unit,
        dict(zip(methods, summary["mean"].values.tolist(), strict=True)),
        dict(zip(methods, summary["error"].values.tolist(), strict=True)),
        best,
        int(summary["splits"].max()),
    )


def by_target(comparison: xr.Dataset) -> tuple[xr.Dataset, xr.DataArray]:
    """Mean and error of the primary scores ``(method, task)``, and which are not told apart from the target's best.

    A target for which no method is told apart has no mark.
    """
    scores, higher = primary_scores(comparison)
    counted = comparison["present"] & (comparison["rows"] > 0)
    signed = xr.where(higher, -scores, scores).transpose(*scores.dims)
    summary = mean_and_error(scores, counted=counted)
    marks = not_worse_than_best(signed, counted=counted)
    told_apart = (summary["mean"].notnull() & ~marks).any("method")
    return summary, (marks & told_apart).transpose("method", "task")
