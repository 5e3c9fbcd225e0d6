"""Methods side by side: every score by method, seed and task, the mean change against a baseline, the cost of a step.

A cell of the grid (method, seed) that has no tree is left out of means over seeds; a cell whose run diverged stays in,
and makes the mean NaN, so that a method cannot look well by failing.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation import metrics
from bmtl.evaluation.attributes import encode_attributes
from bmtl.evaluation.results import provenance
from bmtl.evaluation.tables import best, caption, spread, table

__all__ = ["best", "caption", "compare", "delta_m", "spread", "table"]

SCORES: dict[str, Callable[[xr.DataTree], xr.Dataset]] = {
    "mae": metrics.mae,
    "rmse": metrics.rmse,
    "nll": partial(metrics.nll, standardised=True),  # raw densities of different units have no common mean
    "ece": metrics.ece,
}


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
        trees: (method, seed) -> results tree. The grid may have holes, the baseline's row included.
        baseline: Method that `delta_m` is taken against, seed by seed; None leaves ``delta_m`` NaN.
        reference: Method whose step time is 1, seed by seed; None leaves ``T`` NaN.
        step_seconds: Time of a step by method, measured side by side; methods that are not named have NaN. By default the
            medians of what each run recorded, which tell little where runs took turns on a busy machine.

    Returns:
        Dims ``method``, ``seed``, ``task``: ``mae``, ``rmse`` (reported units, coordinate ``unit``), ``nll`` (of the
        standardised target, nats), ``ece``; dims ``method``, ``seed``: ``delta_m`` (percent, of ``mae``), ``T`` (step
        time over the reference's, medians; NaN for the baseline, which takes a step per task), ``step_seconds``,
        ``present`` (whether there was a tree); and ``rows (seed, task)``. Targets without a scored row in any tree
        are left out. `write` stores it.

    Raises:
        ValueError: If there is no tree or no scored row, the baseline or the reference is not among the methods, or two
            trees of a seed were scored on different targets or rows: their scores would not be comparable.
    """
    methods = list(dict.fromkeys(method for method, _ in trees))
    seeds = sorted({seed for _, seed in trees})
    if not trees:
        raise ValueError("There is nothing to compare: no results tree was given.")
    for role, method in (("baseline", baseline), ("reference", reference)):
        if method is not None and method not in methods:
            raise ValueError(
                f"The {role} {method!r} is not among the methods {methods}. "
                f"Run it too, choose another, or give {role}=None to leave out what depends on it."
            )
    tasks = [str(name) for name in metrics.rows(next(iter(trees.values())))["task"].values]
    rows = _scored_rows(trees, seeds, tasks)
    if not rows.any():
        raise ValueError("There is nothing to compare: none of the runs has a scored row.")
    shape = (len(methods), len(seeds), len(tasks))
    scores = {name: np.full(shape, np.nan) for name in SCORES}
    seconds, present = np.full(shape[:2], np.nan), np.zeros(shape[:2], dtype=bool)
    for (method, seed), tree in trees.items():
        cell = methods.index(method), seeds.index(seed)
        present[cell] = True
        seconds[cell] = _step_seconds(tree) if step_seconds is None else step_seconds.get(method, float("nan"))
        for name, score in SCORES.items():
            scores[name][cell] = score(tree)[name].sel(task=tasks).values

    grid, plane = ("method", "seed", "task"), ("method", "seed")
    cells = xr.Dataset(
        {
            **{name: (grid, values) for name, values in scores.items()},
            "step_seconds": (plane, seconds),
            "present": (plane, present),
            "rows": (("seed", "task"), rows),
        },
        coords={**metrics.rows(next(iter(trees.values()))).coords, "method": methods, "seed": seeds},
    ).isel(task=np.flatnonzero(rows.any(axis=0)))  # a target that no seed scores has no scores to compare
    cells["delta_m"] = (plane, _change(cells, baseline))
    cells["T"] = (plane, _cost(seconds, methods, baseline, reference))
    cells["delta_m"].attrs["units"] = "%"
    cells["nll"].attrs["units"] = "nats, standardised target"
    return cells.assign_attrs(
        encode_attributes({**provenance(), "baseline": baseline, "reference": reference, "metric": "mae"})
    )


def _step_seconds(tree: xr.DataTree) -> float:
    """Median over steps: the first steps compile and fill caches, and would weigh in a mean. NaN if not recorded."""
    if "training" not in tree.children or "seconds" not in tree["training"].data_vars:
        return float("nan")
    seconds = metrics.group_of(tree, "training")["seconds"].values
    seconds = seconds[np.isfinite(seconds)]
    return float(np.median(seconds)) if seconds.size else float("nan")


def _change(cells: xr.Dataset, baseline: str | None) -> np.ndarray:
    """``delta_m (method, seed)`` of MAE, over the targets that the seed scores."""
    change = np.full(cells["present"].shape, np.nan)
    if baseline is None:
        return change
    for seed, scored in enumerate(cells["rows"].values > 0):
        mae = cells["mae"].values[:, seed, scored]  # (method, task)
        against = mae[cells.indexes["method"].get_loc(baseline)]
        if scored.any() and (np.isfinite(against) & (against > 0)).all():  # else it is missing or has diverged
            change[:, seed] = delta_m(mae, against)
    return change


def _cost(seconds: np.ndarray, methods: list[str], baseline: str | None, reference: str | None) -> np.ndarray:
    if reference is None:
        return np.full(seconds.shape, np.nan)
    cost = seconds / seconds[methods.index(reference)]
    if baseline not in (None, reference):
        cost[methods.index(baseline)] = np.nan
    return cost


def _scored_rows(trees: Mapping[tuple[str, int], xr.DataTree], seeds: list[int], tasks: list[str]) -> np.ndarray:
    """Rows ``(seed, task)``, after checking that all methods of a seed were scored on the same labels."""
    counts = np.zeros((len(seeds), len(tasks)), dtype=int)
    for position, seed in enumerate(seeds):
        cells = {method: tree for (method, of), tree in trees.items() if of == seed}
        first, expected = next((method, tree["observed_data"]) for method, tree in cells.items())
        for method, tree in cells.items():
            found = metrics.rows(tree)["task"].values.tolist()
            if set(found) != set(tasks):
                raise ValueError(f"{method!r} with seed {seed} was scored on the targets {found}, others on {tasks}.")
            for task in tasks:
                one, other = tree["observed_data"][f"y_{task}"], expected[f"y_{task}"]
                same = np.array_equal(one[f"obs_{task}"], other[f"obs_{task}"])
                if not (same and np.allclose(one, other, rtol=1e-5, atol=0)):  # float32 and float64 labels are the same
                    raise ValueError(
                        f"{method!r} and {first!r} were scored on different rows of {task!r} with seed {seed}: "
                        "their scores cannot be compared. Run both on one split."
                    )
        counts[position] = metrics.rows(cells[first])["rows"].sel(task=tasks).values
    return counts
