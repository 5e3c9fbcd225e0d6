"""Relative changes of each target's primary score against the baseline, the terms of ``delta_m``."""

import numpy as np
import xarray as xr

from bmtl.evaluation.compared import counted_scores, families_of, of_family
from bmtl.evaluation.scores import primary_scores
from bmtl.evaluation.statistics import less, paired_differences


def relative_changes(comparison: xr.Dataset, baseline: str) -> xr.Dataset:
    """The change of every learner's primary scores, split by split.

    Args:
        comparison: From `comparison.compare`.
        baseline: Learner that the change is taken against.

    Returns:
        ``change (learner, split, task)`` in percent, negative is better; ``counted (learner, split, task)``: whether the
        runs of learner and baseline are there and the split's labels give the score a value. Where not, the change is NaN.
    """
    scores, higher = primary_scores(comparison)
    scores = scores.transpose("learner", "split", "task")
    counted = counted_scores(comparison).transpose("learner", "split", "task")
    counted = counted & counted.sel(learner=baseline, drop=True)
    against = scores.sel(learner=baseline, drop=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = 100 * xr.where(higher, -1.0, 1.0) * less(scores, against) / np.abs(against)
    change = change.where(counted & (against != 0)).transpose("learner", "split", "task")
    coords = {name: comparison[name] for name in ("learner", "role", "split", "task")}
    dims = ("learner", "split", "task")
    return xr.Dataset({"change": (dims, change.values), "counted": (dims, counted.values)}, coords)


def gains(comparison: xr.Dataset, baseline: str) -> xr.Dataset:
    """Mean change of each target against the baseline with its interval, as `statistics.paired_differences` returns it.

    Targets whose primary score has no natural zero (`Score.relative`) are left out: a percentage of it has no meaning.
    """
    changes = relative_changes(comparison, baseline)
    families, primary = families_of(comparison), comparison["primary"].values.tolist()
    relative = [of_family(family, name).relative for family, name in zip(families.values(), primary, strict=True)]
    chosen = changes.isel(task=np.flatnonzero(relative))
    found = paired_differences(chosen["change"].drop_vars("role"), baseline, counted=chosen["counted"])
    return found.assign_coords(unit=("task", ["%"] * found.sizes["task"]))
