"""Which method is best: the one number that a comparison is summed up by, and what does not differ from its best mean."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.compared import counted_scores
from bmtl.evaluation.marking import marked
from bmtl.evaluation.ranks import ranks
from bmtl.evaluation.repeats import Repeats
from bmtl.evaluation.scores import primary_scores
from bmtl.evaluation.statistics import mean_and_error, paired_differences


@dataclass(frozen=True)
class Headline:
    """The primary criterion of methods; lower is better.

    Attributes:
        name: What it is, in words.
        unit: " %" or nothing.
        mean: By method; the baseline, whose change against itself is 0 by definition, is left out.
        error: Standard error by method; NaN for one run.
        best: The methods that are marked best, `bmtl.evaluation.marking.marked`.
        repeats: What the runs are.
        baseline: That the change is taken against; None for mean ranks.
        interval: 95 % interval of the leader's change; None for mean ranks, or where there is none.
    """

    name: str
    unit: str
    mean: dict[str, float]
    error: dict[str, float]
    best: list[str]
    repeats: Repeats
    baseline: str | None = None
    interval: tuple[float, float] | None = None

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
    others = present["learner"] != baseline
    shared = (present & present.sel(learner=baseline, drop=True)).isel(learner=others.values)
    change = comparison["delta_m"].isel(learner=others.values)
    if not change.where(shared).notnull().any():
        return mean_ranks(comparison)
    found = _headline(change, shared, f"mean relative change against {baseline}", " %", Repeats.of(comparison))
    interval = None
    if found.leader is not None:
        pair = comparison["delta_m"].sel(learner=[found.leader, baseline])
        counted = (present & present.sel(learner=baseline, drop=True)).sel(learner=[found.leader, baseline])
        ends = paired_differences(pair, baseline, counted=counted).isel(learner=0)
        interval = (float(ends["lower"]), float(ends["upper"]))
    known = interval is not None and np.isfinite(interval).all() and found.repeats.decisive
    return Headline(**{**vars(found), "baseline": baseline, "interval": interval if known else None})


def mean_ranks(comparison: xr.Dataset) -> Headline:
    """The mean rank over the targets, of the runs that all methods have."""
    scores, higher = primary_scores(comparison)
    counted = counted_scores(comparison)
    values = ranks(scores, higher_is_better=higher, counted=counted).mean("task").transpose("learner", "split")
    complete = comparison["present"].all("learner") & xr.ones_like(comparison["present"])
    complete = complete.transpose("learner", "split")
    return _headline(values, complete, "mean rank over the targets", "", Repeats.of(comparison))


def _headline(values: xr.DataArray, present: xr.DataArray, name: str, unit: str, repeats: Repeats) -> Headline:
    summary = mean_and_error(values, counted=present)
    methods = [str(method) for method in values["learner"].values]
    marks = marked(values, counted=present).values
    return Headline(
        name,
        unit,
        dict(zip(methods, summary["mean"].values.tolist(), strict=True)),
        dict(zip(methods, summary["error"].values.tolist(), strict=True)),
        [method for method, mark in zip(methods, marks, strict=True) if mark],
        repeats,
    )


def by_target(comparison: xr.Dataset) -> tuple[xr.Dataset, xr.DataArray]:
    """Mean and error of the primary scores ``(learner, task)``, and which are marked best of their target."""
    scores, higher = primary_scores(comparison)
    counted = counted_scores(comparison)
    signed = xr.where(higher, -scores, scores).transpose(*scores.dims)
    summary = mean_and_error(scores, counted=counted)
    return summary, marked(signed, counted=counted).transpose("learner", "task")
