"""What stands in the columns of a comparison's tables: values by method and split, and which of them count."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.ranks import ranks
from bmtl.evaluation.scores import SCORES, Kind, primary, primary_scores, symbol
from bmtl.evaluation.statistics import share_worse

MOST_TASKS = 12  # beyond that a column a task fits no page, and the table holds summaries over tasks


@dataclass(frozen=True)
class Column:
    """A column of a table, before anything is averaged.

    Attributes:
        name: With the unit, such as "MAE mu [D]".
        values: ``(method, split)``. NaN is a run that diverged.
        counted: Same shape: which of them exist.
        higher_is_better: None where methods are not to be ranked by it.
    """

    name: str
    values: xr.DataArray
    counted: xr.DataArray
    higher_is_better: bool | None = False


def columns(comparison: xr.Dataset) -> list[Column]:
    """The columns of a comparison: change and cost, means over the targets of a kind, then the primary score by target.

    A single target has a column for each of its scores instead.

    Beyond twelve targets, the last are replaced by the mean rank over targets, the share of targets that are worse than
    with the baseline, and the mean of the primary score (per kind, where all targets of the kind have one unit).
    """
    about = decode_attributes(comparison)
    present = comparison["present"]
    baseline, reference = about.get("baseline"), about.get("reference")
    own = comparison["method"] == (baseline or "")  # a baseline's change against itself says nothing
    found = [
        Column("delta_m [%]", comparison["delta_m"], _shared(present, baseline) & ~own),
        # Differences of step time below a tenth are noise, so no method is best by them.
        Column("T", comparison["T"], _shared(present, reference), None),
    ]
    names = comparison["metric"].values.tolist()
    kinds: list[Kind] = list(dict.fromkeys(comparison["kind"].values.tolist()))
    if comparison.sizes["task"] == 1:
        return [column for column in [*found, *_all_scores(comparison)] if column.counted.any()]
    many = comparison.sizes["task"] > MOST_TASKS
    for name in ("nll", "ece"):
        for kind in kinds if name in names else ():
            column = _mean_over_tasks(comparison, name, kind, f" ({kind})" if len(kinds) > 1 else "")
            if column.values.notnull().any():  # else no tree had the group that this kind needs for it
                found.append(column)
    if many:
        return [column for column in [*found, *_summaries(comparison, kinds, baseline)] if column.counted.any()]
    for task, kind in zip(comparison["task"].values, comparison["kind"].values, strict=True):
        score = primary(kind)
        values = comparison["score"].sel(task=task, metric=score.name, drop=True)
        counted = present & (comparison["rows"].sel(task=task, drop=True) > 0)
        title = _with_unit(f"{score.symbol} {task}", _unit(comparison.sel(task=[task])))
        found.append(Column(title, values, counted, score.higher_is_better))
    return found


def _all_scores(comparison: xr.Dataset) -> list[Column]:
    """Every score of the one target, in the order of `SCORES`."""
    kind, unit = comparison["kind"].values[0], _unit(comparison)
    one = comparison.isel(task=0, drop=True)
    counted = one["present"] & (one["rows"] > 0)
    return [
        Column(
            _with_unit(score.symbol, unit if score.in_units else None),
            one["score"].sel(metric=score.name, drop=True),
            counted,
            score.higher_is_better,
        )
        for score in SCORES
        if score.kind == kind and score.name in one["metric"].values
    ]


def _summaries(comparison: xr.Dataset, kinds: list[Kind], baseline: str | None) -> list[Column]:
    scores, higher = primary_scores(comparison)
    there = comparison["present"] & (comparison["rows"] > 0)  # (method, split, task)
    complete = comparison["present"].all("method")
    ranked = ranks(scores, higher_is_better=higher, counted=there).mean("task").transpose("method", "split")
    found = [Column("mean rank", ranked, complete & xr.ones_like(ranked, dtype=bool))]
    if baseline is not None:
        splits = [
            share_worse(scores.isel(split=[i]), baseline, higher_is_better=higher, counted=there.isel(split=[i]))
            for i in range(scores.sizes["split"])
        ]
        share = 100 * xr.concat(splits, dim=comparison["split"]).transpose("method", "split")
        counted = _shared(comparison["present"], baseline) & (comparison["method"] != baseline)
        found.append(Column(f"tasks worse than {baseline} [%]", share, counted))
    for kind in kinds:
        unit = _unit(comparison.isel(task=np.flatnonzero(comparison["kind"] == kind)))
        if unit is not None:
            column = _mean_over_tasks(comparison, primary(kind).name, kind, "")
            found.append(Column(_with_unit(column.name, unit), column.values, column.counted, column.higher_is_better))
    return found


def _mean_over_tasks(comparison: xr.Dataset, score: str, kind: str, suffix: str) -> Column:
    """Mean over the targets of a kind that a split scores; a NaN among those stays one."""
    chosen = comparison.isel(task=np.flatnonzero(comparison["kind"] == kind))
    scored = chosen["rows"] > 0  # (split, task)
    values = chosen["score"].sel(metric=score)
    total = xr.where(scored, values, 0.0).sum("task", skipna=False)
    mean = (total / scored.sum("task").where(lambda count: count > 0)).transpose("method", "split")
    higher = bool(values["higher_is_better"])
    counted = comparison["present"] & scored.any("task")
    return Column(f"mean {symbol(score)}{suffix}", mean.drop_vars(["metric", "higher_is_better"]), counted, higher)


def _shared(present: xr.DataArray, method: str | None) -> xr.DataArray:
    """Cells whose split has what a ratio is taken to as well."""
    if method is None:
        return xr.zeros_like(present)
    return present & present.sel({"method": method}, drop=True)


def _unit(comparison: xr.Dataset) -> str | None:
    """The unit that all these targets share, "" for none; None where they differ."""
    units = set(comparison["unit"].values.tolist())
    return str(units.pop()) if len(units) == 1 else None


def _with_unit(name: str, unit: str | None) -> str:
    return f"{name} [{unit}]" if unit and unit != "1" else name
