"""Scores of a results tree by target: the rows come from the tree, the scores from the target's family."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import xarray as xr

from bmtl.evaluation.parts import reported_targets, scored
from bmtl.targets.score import Score, Scored


def task_coords(tree: xr.DataTree, names: Iterable[str]) -> dict[str, object]:
    """Coordinates of dimension ``task``: the names of targets and their units."""
    known = reported_targets(tree)
    listed = list(names)
    return {"task": listed, "unit": ("task", [known[name].unit for name in listed])}


def per_target(tree: xr.DataTree, core: Callable[[Scored], float | None], part: str | None = None) -> xr.DataArray:
    """`core` of each target's labelled rows, dimension ``task``.

    Args:
        tree: A run's results tree, or a part of it.
        core: Rows of one target, one at least -> a number, or None where the target has no such.
        part: Which rows; "test" by default.

    Returns:
        ``(task,)``, with the targets' units as coordinate ``unit``; NaN for a target without a labelled row and for None.
    """
    rows = scored(tree, part)
    found = [core(of) if len(of.labels) else None for of in rows.values()]
    values = np.asarray([np.nan if value is None else value for value in found], dtype=float)
    return xr.DataArray(values, dims="task", coords=task_coords(tree, rows))


def columns_per_target(
    tree: xr.DataTree,
    core: Callable[[Scored], Sequence[float] | np.ndarray | None],
    names: Sequence[str],
    part: str | None = None,
) -> xr.Dataset:
    """Several scores of each target from one call: ``<name> (task)`` for each of `names`; NaN as in `per_target`."""
    rows = scored(tree, part)
    found = [core(of) if len(of.labels) else None for of in rows.values()]
    columns = np.asarray([(np.nan,) * len(names) if of is None else tuple(of) for of in found], dtype=float)
    columns = columns.reshape(-1, len(names))
    return xr.Dataset({name: ("task", columns[:, i]) for i, name in enumerate(names)}, coords=task_coords(tree, rows))


def curves_per_target(
    tree: xr.DataTree,
    core: Callable[[Scored], Sequence[np.ndarray] | None],
    names: Sequence[str],
    dim: str,
    at: np.ndarray,
    part: str | None = None,
) -> xr.Dataset:
    """Curves of each target: ``<name> (task, <dim>)`` for each of `names`; NaN as in `per_target`."""
    rows = scored(tree, part)
    found = [core(of) if len(of.labels) else None for of in rows.values()]
    stacked = np.asarray(
        [np.full((len(names), at.size), np.nan) if of is None else np.stack(list(of)) for of in found], dtype=float
    ).reshape(-1, len(names), at.size)
    return xr.Dataset(
        {name: (("task", dim), stacked[:, i]) for i, name in enumerate(names)},
        coords={**task_coords(tree, rows), dim: at},
    )


def score(tree: xr.DataTree, name: str, part: str | None = None) -> xr.DataArray:
    """A score by its name, of every target whose family has it.

    Args:
        tree: A run's results tree, or a part of it.
        name: Such as "mae"; families that share the idea share the name.
        part: Which rows; "test" by default.

    Returns:
        ``(task,)``; NaN for targets whose family has no such score, for those without a labelled row, and for those of
        which the tree does not hold what the score needs.

    Raises:
        ValueError: If none of the targets has such a score, or the tree holds what it needs of none of them that have it.
    """
    families = {known.family.name: known.family for known in reported_targets(tree).values()}
    if all(family.score(name) is None for family in families.values()):
        there = dict.fromkeys(of.name for family in families.values() for of in family.scores)
        raise ValueError(f"None of the targets has a score {name!r}; their scores are {', '.join(there)}.")
    lacking: dict[str, Score] = {}
    any_found = False
    rows = scored(tree, part)
    values = np.full(len(rows), np.nan)
    for i, (target, of) in enumerate(rows.items()):
        known = of.family.score(name)
        if known is None or not len(of.labels):
            continue
        if known.computable(of):
            values[i], any_found = known.of(of), True
        else:
            lacking[target] = known
    if lacking and not any_found:
        target, known = next(iter(lacking.items()))
        raise ValueError(
            f"{name} of {target!r} needs its {' and '.join(known.needs)}, which the tree does not hold. Give that to "
            "to_datatree, or leave the score out."
        )
    return xr.DataArray(values, dims="task", coords=task_coords(tree, rows))


def rows(tree: xr.DataTree, *, part: str | None = None) -> xr.Dataset:
    """Number of labelled rows per target, as ``rows (task)``."""
    of = scored(tree, part)
    counts = np.asarray([len(each.labels) for each in of.values()], dtype=int)
    return xr.Dataset({"rows": ("task", counts)}, coords=task_coords(tree, of))
