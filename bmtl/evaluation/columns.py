"""The columns of a comparison's tables: values by method and split, and which of them count."""

from collections.abc import Iterator
from dataclasses import dataclass

import xarray as xr

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.compared import Alike, alike, by_family, counted_scores
from bmtl.evaluation.ranks import ranks
from bmtl.evaluation.scores import primary_scores
from bmtl.evaluation.statistics import share_worse
from bmtl.targets.score import Score

MOST_TASKS = 12  # beyond that a column per task fits no page, and the table holds summaries over tasks


@dataclass(frozen=True)
class Column:
    """A column of a table, before anything is averaged.

    Attributes:
        name: With the unit, such as "MAE mu [D]".
        values: ``(learner, split)``. NaN is a run that diverged.
        counted: Same shape: which of them exist.
        higher_is_better: None where methods are not to be ranked by it.
        task: The target whose primary score it is, of several; None for the rest.
        short: The name without the score's, where all columns by target are of one score.
    """

    name: str
    values: xr.DataArray
    counted: xr.DataArray
    higher_is_better: bool | None = False
    task: str | None = None
    score: str = ""
    short: str = ""


def columns(comparison: xr.Dataset) -> list[Column]:
    """The columns of a comparison: change and cost, means over the targets of a family, then the primary score by target.

    A single target has a column for each of its scores instead.

    Beyond twelve targets, the last are replaced by the mean rank over targets, the share of targets that are worse than
    with the baseline, and the mean of each primary score over its targets, where all of them have one unit.
    """
    about = decode_attributes(comparison)
    present = comparison["present"]
    baseline, reference = about.get("baseline"), about.get("reference")
    own = comparison["learner"] == (baseline or "")  # a baseline's change against itself is 0 by definition
    found = [
        Column("delta_m [%]", comparison["delta_m"], _shared(present, baseline) & ~own),
        # Differences of step time below a tenth are noise, so no method is best by them.
        Column("T", comparison["T"], _shared(present, reference), None),
    ]
    groups = alike(comparison)
    if comparison.sizes["task"] == 1:
        found += _all_scores(comparison, groups[0])
    else:
        found += _means(comparison)
        many = comparison.sizes["task"] > MOST_TASKS
        found += _summaries(comparison, groups, baseline) if many else _by_target(comparison, groups)
    return [column for column in found if column.counted.any()]


def _all_scores(comparison: xr.Dataset, group: Alike) -> Iterator[Column]:
    """Every score of the one target, in its family's order."""
    one = comparison.isel(task=0, drop=True)
    for score in held(comparison, group.family.scores):
        unit = unit_of(comparison) if score.in_units else None
        values = _plain(one["score"].sel(metric=score.name))
        counted = counted_scores(comparison, score.name).isel(task=0, drop=True)
        yield Column(_with_unit(score.symbol, unit), values, counted, score.higher_is_better)


def _means(comparison: xr.Dataset) -> Iterator[Column]:
    """Means over the targets of a family of those scores that are shown so."""
    families = by_family(comparison)
    for name in dict.fromkeys(
        score.name for family, _ in families.values() for score in family.scores if score.averaged
    ):
        for title, (family, places) in families.items():
            for score in held(comparison, family.scores):
                if score.name == name and score.averaged:
                    suffix = f" ({title})" if len(families) > 1 else ""
                    column = _mean_over_tasks(comparison.isel(task=places), score, suffix)
                    if column.values.notnull().any():  # else no tree has what this family needs for it
                        yield column


def _by_target(comparison: xr.Dataset, groups: list[Alike]) -> list[Column]:
    scores = {place: group.primary for group in groups for place in group.places.tolist()}
    counted = counted_scores(comparison)
    found = []
    for place, task in enumerate(comparison["task"].values.tolist()):
        score = scores[place]
        one = comparison.isel(task=place, drop=True)
        unit = unit_of(comparison.isel(task=[place])) if score.in_units else None
        found.append(
            Column(
                _with_unit(f"{score.symbol} {task}", unit),
                _plain(one["score"].sel(metric=score.name)),
                counted.isel(task=place, drop=True),
                score.higher_is_better,
                task,
                score.symbol,
                _with_unit(task, unit),
            )
        )
    return found


def _summaries(comparison: xr.Dataset, groups: list[Alike], baseline: str | None) -> Iterator[Column]:
    scores, higher = primary_scores(comparison)
    there = counted_scores(comparison)
    complete = comparison["present"].all("learner")
    ranked = ranks(scores, higher_is_better=higher, counted=there).mean("task").transpose("learner", "split")
    yield Column("mean rank", ranked, complete & xr.ones_like(ranked, dtype=bool))
    if baseline is not None:
        splits = [
            share_worse(scores.isel(split=[i]), baseline, higher_is_better=higher, counted=there.isel(split=[i]))
            for i in range(scores.sizes["split"])
        ]
        share = 100 * xr.concat(splits, dim=comparison["split"]).transpose("learner", "split")
        counted = _shared(comparison["present"], baseline) & (comparison["learner"] != baseline)
        yield Column(f"tasks worse than {baseline} [%]", share, counted)
    for group in groups:
        unit = unit_of(group.of(comparison)) if group.primary.in_units else ""
        if unit is not None and not group.primary.averaged:
            suffix = f" ({group.family.name})" if len({of.family.name for of in groups}) > 1 else ""
            column = _mean_over_tasks(group.of(comparison), group.primary, suffix)
            yield Column(_with_unit(column.name, unit), column.values, column.counted, column.higher_is_better)


def _mean_over_tasks(chosen: xr.Dataset, score: Score, suffix: str) -> Column:
    """Mean over the targets of which a split has the score; a NaN among those stays one."""
    scored = _plain(chosen["defined"].sel(metric=score.name))  # (split, task)
    values = _plain(chosen["score"].sel(metric=score.name))
    total = xr.where(scored, values, 0.0).sum("task", skipna=False)
    mean = (total / scored.sum("task").where(lambda count: count > 0)).transpose("learner", "split")
    counted = chosen["present"] & scored.any("task")
    return Column(f"mean {score.symbol}{suffix}", mean, counted, score.higher_is_better)


def held(comparison: xr.Dataset, scores: tuple[Score, ...]) -> list[Score]:
    """Those of a family's scores that the comparison holds."""
    names = set(comparison["metric"].values.tolist())
    return [score for score in scores if score.name in names]


def unit_of(comparison: xr.Dataset) -> str | None:
    """The unit that all these targets share, "1" for none; None where they differ."""
    units = set(comparison["unit"].values.tolist())
    return str(units.pop()) if len(units) == 1 else None


def _plain(values: xr.DataArray) -> xr.DataArray:
    """Without coordinates that say what was selected."""
    return values.drop_vars([name for name in ("metric", "higher_is_better") if name in values.coords])


def _shared(present: xr.DataArray, learner: str | None) -> xr.DataArray:
    """Cells whose split has what a ratio is taken to as well."""
    if learner is None:
        return xr.zeros_like(present)
    return present & present.sel(learner=learner, drop=True)


def _with_unit(name: str, unit: str | None) -> str:
    return f"{name} [{unit}]" if unit and unit != "1" else name
