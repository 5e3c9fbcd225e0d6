"""Which method is best: the one number that a comparison is summed up by, and what does not differ from its best mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.compared import counted_scores, families_of, of_family, references_of
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
        targets: How many targets the mean is over.
        references: Those of the methods that are references, which are read against and never lead.
        baseline: That the change is taken against; None for mean ranks.
        intervals: 95 % interval of each method's change, where there are enough runs for one; none for mean ranks.
    """

    name: str
    unit: str
    mean: dict[str, float]
    error: dict[str, float]
    best: list[str]
    repeats: Repeats
    targets: int
    references: tuple[str, ...] = ()
    baseline: str | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """What is compared, without references and the baseline, the best mean first and those that diverged last."""
        names = [name for name in self.mean if name not in self.references]
        return sorted(names, key=lambda name: self.mean[name] if np.isfinite(self.mean[name]) else np.inf)

    @property
    def leader(self) -> str | None:
        """The method with the best mean; None where no mean is a number."""
        return next((name for name in self.methods if np.isfinite(self.mean[name])), None)


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
    found = _headline(change, shared, f"mean relative change against {baseline}", " %", comparison)
    with_baseline = [*change["learner"].values.tolist(), baseline]
    counted = present & present.sel(learner=baseline, drop=True)
    ends = paired_differences(
        comparison["delta_m"].sel(learner=with_baseline), baseline, counted=counted.sel(learner=with_baseline)
    )
    intervals = {
        name: (float(ends["lower"].sel(learner=name)), float(ends["upper"].sel(learner=name))) for name in found.mean
    }
    known = {name: of for name, of in intervals.items() if np.isfinite(of).all() and found.repeats.decisive}
    return replace(found, baseline=baseline, intervals=known, targets=_relative_targets(comparison))


def _relative_targets(comparison: xr.Dataset) -> int:
    """Number of targets whose relative change has a meaning."""
    primary = comparison["primary"].values.tolist()
    families = families_of(comparison).values()
    return sum(of_family(family, name).relative for family, name in zip(families, primary, strict=True))


def mean_ranks(comparison: xr.Dataset) -> Headline:
    """The mean rank over the targets, of the runs that all methods have."""
    scores, higher = primary_scores(comparison)
    counted = counted_scores(comparison)
    values = ranks(scores, higher_is_better=higher, counted=counted).mean("task").transpose("learner", "split")
    complete = comparison["present"].all("learner") & xr.ones_like(comparison["present"])
    complete = complete.transpose("learner", "split")
    return _headline(values, complete, "mean rank over the targets", "", comparison)


def _headline(values: xr.DataArray, present: xr.DataArray, name: str, unit: str, comparison: xr.Dataset) -> Headline:
    summary = mean_and_error(values, counted=present)
    methods = [str(method) for method in values["learner"].values]
    marks = marked(values, counted=present).values
    return Headline(
        name,
        unit,
        dict(zip(methods, summary["mean"].values.tolist(), strict=True)),
        dict(zip(methods, summary["error"].values.tolist(), strict=True)),
        [method for method, mark in zip(methods, marks, strict=True) if mark],
        Repeats.of(comparison),
        comparison.sizes["task"],
        tuple(references_of(comparison)),
    )


def by_target(comparison: xr.Dataset) -> tuple[xr.Dataset, xr.DataArray]:
    """Mean and error of the primary scores ``(learner, task)``, and which are marked best of their target."""
    scores, higher = primary_scores(comparison)
    counted = counted_scores(comparison)
    signed = xr.where(higher, -scores, scores).transpose(*scores.dims)
    summary = mean_and_error(scores, counted=counted)
    return summary, marked(signed, counted=counted).transpose("learner", "task")
