"""Methods side by side: every score by method, split and task, the mean change against a baseline, the cost of a step.

A cell of the grid (method, split) that has no tree is left out of means over splits; a cell whose run diverged stays in,
and makes the mean NaN, so that a method cannot look well by failing.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation import metrics
from bmtl.evaluation.attributes import encode_attributes
from bmtl.evaluation.metrics.labelled import task_coords
from bmtl.evaluation.results import provenance
from bmtl.evaluation.scores import SCORES, Score, computable, kinds_of, primary_scores
from bmtl.evaluation.tables import best, caption, spread, standard_error, table

__all__ = ["best", "caption", "compare", "delta_m", "spread", "standard_error", "table"]


def delta_m(metric: ArrayLike, baseline: ArrayLike, *, higher_is_better: ArrayLike = False) -> np.ndarray:
    """Mean signed relative change of a method's metrics against a baseline's, in percent; negative is better.

    Args:
        metric: The method's metrics ``(..., K)``, each in any unit.
        baseline: The baseline's ``(..., K)``, same units, positive.
        higher_is_better: One answer for all metrics, or one for each, ``(K,)``.

    Returns:
        ``(...)`` in percent, as the paper's tables print it (its equation gives the hundredth of that).

    Raises:
        ValueError: If there is no metric, or a baseline is not positive and finite: a relative change has no meaning
            there.

    Source:
        Dai et al. (2023), equation (5).
    """
    values, reference = np.asarray(metric, dtype=float), np.asarray(baseline, dtype=float)
    if not values.ndim or not reference.ndim or values.shape[-1] != reference.shape[-1] or not values.shape[-1]:
        raise ValueError(
            f"metric has shape {values.shape} and baseline {reference.shape}; expected K >= 1 metrics at the end."
        )
    if not (np.isfinite(reference) & (reference > 0)).all():
        raise ValueError(f"The baseline must be positive and finite for a relative change; it is {reference.tolist()}.")
    sign = np.where(higher_is_better, -1.0, 1.0)
    return np.asarray(100 * (sign * (values - reference) / reference).mean(axis=-1))


def compare(
    trees: Mapping[tuple[str, int], xr.DataTree],
    *,
    baseline: str | None = "stl",
    reference: str | None = "ew",
    step_seconds: Mapping[str, float] | None = None,
) -> xr.Dataset:
    """All scores of a grid of runs.

    Args:
        trees: (method, split) -> results tree; the split is the number of the data's split, or the seed where the data
            have one split. The grid may have holes, the baseline's row included.
        baseline: Method that `delta_m` is taken against, split by split; None leaves ``delta_m`` NaN.
        reference: Method whose step time is 1, split by split; None leaves ``T`` NaN.
        step_seconds: Time of a step by method, measured side by side; methods that are not named have NaN. By default the
            medians of what each run recorded, which tell little where runs took turns on a busy machine.

    Returns:
        ``score (method, split, task, metric)``: the scores of `scores.SCORES` that the trees have the groups for, errors
        in the target's unit (coordinate ``unit``), ``nll`` in nats, of a regression's standardised target; NaN where a
        score is not of the target's kind (coordinate ``kind``). Coordinate ``higher_is_better (metric)``.
        ``delta_m (method, split)`` in percent, of the primary score of each target (``mae``; ``accuracy``, of which more
        is better); ``T (method, split)``, step time over the reference's, medians, NaN for the baseline, which takes a
        step per task; ``step_seconds (method, split)``; ``present (method, split)``, whether there was a tree;
        ``rows (split, task)``. Targets without a scored row in any tree are left out. `write` stores it.

    Raises:
        ValueError: If there is no tree or no scored row, the baseline or the reference is not among the methods, two
            trees of a split were scored on different targets or rows (their scores would not be comparable), or a score
            cannot be computed; names the run.
    """
    methods = list(dict.fromkeys(method for method, _ in trees))
    splits = sorted({split for _, split in trees})
    if not trees:
        raise ValueError("There is nothing to compare: no results tree was given.")
    for role, method in (("baseline", baseline), ("reference", reference)):
        if method is not None and method not in methods:
            raise ValueError(
                f"The {role} {method!r} is not among the methods {methods}. "
                f"Run it too, choose another, or give {role}=None to leave out what depends on it."
            )
    first = next(iter(trees.values()))
    kinds = kinds_of(first)
    tasks = list(kinds)
    rows = _scored_rows(trees, splits, kinds)
    if not rows.any():
        raise ValueError("There is nothing to compare: none of the runs has a scored row.")
    found: set[Score] = set().union(*(computable(tree) for tree in trees.values()))
    held = [score for score in SCORES if score.kind in kinds.values() and (score in found or score.primary)]
    names = list(dict.fromkeys(score.name for score in held))
    higher = {score.name: score.higher_is_better for score in held}
    shape = (len(methods), len(splits), len(tasks), len(names))
    values = np.full(shape, np.nan)
    seconds, present = np.full(shape[:2], np.nan), np.zeros(shape[:2], dtype=bool)
    for (method, split), tree in trees.items():
        cell = methods.index(method), splits.index(split)
        present[cell] = True
        seconds[cell] = _step_seconds(tree) if step_seconds is None else step_seconds.get(method, float("nan"))
        for score in computable(tree):
            of_kind = [i for i, task in enumerate(tasks) if kinds[task] == score.kind]
            try:
                column = score.compute(tree).sel(task=[tasks[i] for i in of_kind]).values
            except ValueError as error:
                raise ValueError(f"{score.name} of {method!r} in split {split} cannot be computed: {error}") from error
            values[cell][of_kind, names.index(score.name)] = column

    plane = ("method", "split")
    cells = xr.Dataset(
        {
            "score": (("method", "split", "task", "metric"), values),
            "step_seconds": (plane, seconds),
            "present": (plane, present),
            "rows": (("split", "task"), rows),
        },
        coords={
            **task_coords(first),
            "kind": ("task", list(kinds.values())),
            "method": methods,
            "split": splits,
            "metric": names,
            "higher_is_better": ("metric", list(higher.values())),
        },
    ).isel(task=np.flatnonzero(rows.any(axis=0)))  # a target that no split scores has no scores to compare
    cells["delta_m"] = (plane, _change(cells, baseline))
    cells["T"] = (plane, _cost(seconds, methods, baseline, reference))
    cells["delta_m"].attrs["units"] = "%"
    return cells.assign_attrs(encode_attributes({**provenance(), "baseline": baseline, "reference": reference}))


def _step_seconds(tree: xr.DataTree) -> float:
    """Median over steps: the first steps compile and fill caches, and would weigh in a mean. NaN if not recorded."""
    if "training" not in tree.children or "seconds" not in tree["training"].data_vars:
        return float("nan")
    seconds = metrics.group_of(tree, "training")["seconds"].values
    seconds = seconds[np.isfinite(seconds)]
    return float(np.median(seconds)) if seconds.size else float("nan")


def _change(cells: xr.Dataset, baseline: str | None) -> np.ndarray:
    """``delta_m (method, split)`` of the primary scores, over the targets that the split scores."""
    change = np.full(cells["present"].shape, np.nan)
    if baseline is None:
        return change
    score, higher = primary_scores(cells)
    for split, scored in enumerate(cells["rows"].values > 0):
        values = score.values[:, split, scored]  # (method, task)
        against = values[cells.indexes["method"].get_loc(baseline)]
        if scored.any() and (np.isfinite(against) & (against > 0)).all():  # else it is missing or has diverged
            change[:, split] = delta_m(values, against, higher_is_better=higher.values[scored])
    return change


def _cost(seconds: np.ndarray, methods: list[str], baseline: str | None, reference: str | None) -> np.ndarray:
    if reference is None:
        return np.full(seconds.shape, np.nan)
    cost = seconds / seconds[methods.index(reference)]
    if baseline not in (None, reference):
        cost[methods.index(baseline)] = np.nan
    return cost


def _scored_rows(
    trees: Mapping[tuple[str, int], xr.DataTree], splits: list[int], kinds: Mapping[str, str]
) -> np.ndarray:
    """Rows ``(split, task)``, after checking that all methods of a split were scored on the same labels."""
    counts = np.zeros((len(splits), len(kinds)), dtype=int)
    for position, split in enumerate(splits):
        cells = {method: tree for (method, of), tree in trees.items() if of == split}
        # Variables, since a dataset builds an array's coordinates anew each time that it is asked for it.
        labels = {method: metrics.group_of(tree, "observed_data").variables for method, tree in cells.items()}
        first, expected = next(iter(labels.items()))
        for method, tree in cells.items():
            found = kinds_of(tree)
            if found != kinds:
                raise ValueError(
                    f"{method!r} in split {split} was scored on the targets {found}, others on {dict(kinds)}."
                )
            for task in kinds:
                (one, numbers), (other, expected_numbers) = (
                    (of[f"y_{task}"].values, of[f"obs_{task}"].values) for of in (labels[method], expected)
                )
                same = np.array_equal(numbers, expected_numbers)
                if not (same and np.allclose(one, other, rtol=1e-5, atol=0)):  # float32 and float64 labels are the same
                    raise ValueError(
                        f"{method!r} and {first!r} were scored on different rows of {task!r} in split {split}: "
                        "their scores cannot be compared. Run both on one split."
                    )
        counts[position] = metrics.rows(cells[first])["rows"].sel(task=list(kinds)).values
    return counts
