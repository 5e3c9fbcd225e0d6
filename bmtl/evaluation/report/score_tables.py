"""Tables of a comparison's scores: by method, by target, and for a single run target by score."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from bmtl.evaluation.columns import MOST_TASKS, columns
from bmtl.evaluation.report.markup import Cell, Markup, details, number, table
from bmtl.evaluation.report.ranking import by_target
from bmtl.evaluation.scores import SCORES, primary, symbol
from bmtl.evaluation.statistics import mean_and_error
from bmtl.evaluation.tables import best, caption, standard_error
from bmtl.evaluation.tables import table as means_of
from bmtl.evaluation.text_tables import ARROWS

MOST_COLUMNS = 4  # of targets, in the table by method


def by_method(comparison: xr.Dataset) -> Markup:
    """The comparison's own table: a row a method, mean ± standard error over splits.

    Columns by target are left out where they are many: the table by target holds the same.
    """
    means, errors, marks = means_of(comparison), standard_error(comparison), best(comparison)
    targets = comparison.sizes["task"]
    if MOST_COLUMNS < targets <= MOST_TASKS:
        means = means.iloc[:, :-targets]
    arrows = {column.name: ARROWS[column.higher_is_better] for column in columns(comparison)}
    rows = [
        [
            str(method),
            *(number(means.at[method, n], errors.at[method, n], marked=marks.at[method, n]) for n in means.columns),
        ]
        for method in means.index
    ]
    return table(["method", *(f"{name} {arrows[name]}".strip() for name in means.columns)], rows, _note(comparison))


def by_task(comparison: xr.Dataset) -> Iterator[Markup]:
    """A row a target and a column a method: the primary score of each kind, and folded away every other score."""
    _, marks = by_target(comparison)
    kinds = list(dict.fromkeys(comparison["kind"].values.tolist()))
    leading = [(primary(kind).name, kind) for kind in kinds]
    others = [
        (score.name, score.kind)
        for score in SCORES
        if score.kind in kinds and score.name in comparison["metric"].values and not score.primary
    ]
    for name, kind in leading:
        yield _one_score(comparison, name, kind, marks)
    folded = [_one_score(comparison, name, kind, None) for name, kind in others]
    if any(folded):
        yield details("Every other score by target", *folded)


def of_one_run(comparison: xr.Dataset) -> Iterator[Markup]:
    """A single run: a row a target and a column a score, a table for each kind of target."""
    for kind in dict.fromkeys(comparison["kind"].values.tolist()):
        chosen = comparison.isel(task=(comparison["kind"] == kind).values, method=0, split=0)
        names = [score.name for score in SCORES if score.kind == kind and score.name in comparison["metric"].values]
        names = [name for name in names if chosen["score"].sel(metric=name).notnull().any()]
        arrows = [ARROWS[bool(chosen["higher_is_better"].sel(metric=name))] for name in names]
        values = chosen["score"].sel(metric=names).transpose("task", "metric").values
        units, counts = _units(chosen), chosen["rows"].values
        labels = [f"{symbol(name)} {arrow}" for name, arrow in zip(names, arrows, strict=True)]
        header = ["target", *(["unit"] if any(units) else []), "test rows", *labels]
        rows = [
            [task, *([units[k]] if any(units) else []), count(int(counts[k])), *map(number, values[k])]
            for k, task in enumerate(chosen["task"].values.tolist())
        ]
        yield table(header, rows, f"Scores on the test rows, {kind}s. {_meanings(kind)}")


def count(value: int) -> Cell:
    """A cell for a number of things."""
    return Cell(f"{value:,}", value)


def _one_score(comparison: xr.Dataset, name: str, kind: str, marks: xr.DataArray | None) -> Markup:
    chosen = comparison.isel(task=(comparison["kind"] == kind).values)
    scores = chosen["score"].sel(metric=name)
    if not scores.notnull().any():
        return Markup()
    found = mean_and_error(scores, counted=chosen["present"] & (chosen["rows"] > 0)).transpose("method", "task")
    methods = [str(method) for method in chosen["method"].values]
    # Plain arrays: a hundred targets and ten methods would take xarray seconds.
    means, errors, counts = found["mean"].values, found["error"].values, _rows(chosen)
    marked = np.zeros(means.shape, dtype=bool) if marks is None else marks.sel(task=chosen["task"]).values
    # Other scores are in nats, or of standardised targets: no unit of the target's.
    units = _units(chosen) if name in ("mae", "rmse", "crps") else []
    rows = []
    for k, task in enumerate(chosen["task"].values.tolist()):
        cells = [number(means[i, k], errors[i, k], marked=bool(marked[i, k])) for i in range(len(methods))]
        rows.append([task, *([units[k]] if any(units) else []), count(int(counts[k])), *cells])
    higher = bool(scores["higher_is_better"])
    words = f"{symbol(name)} on the test rows by target, {'higher' if higher else 'lower'} is better"
    if comparison.sizes["split"] > 1:
        words += "; mean ± standard error over splits"
    words += "." if marks is None or not marks.any() else "; shaded: not told apart from the target's best."
    return table(["target", *(["unit"] if any(units) else []), "test rows", *methods], rows, words)


def _rows(comparison: xr.Dataset) -> np.ndarray:
    """Scored rows of each target ``(K,)``, the median over splits that score it."""
    counts = comparison["rows"].transpose("split", "task").values
    return np.nanmedian(np.where(counts > 0, counts, np.nan), axis=0)


def _units(comparison: xr.Dataset) -> list[str]:
    """The targets' units; empty for numbers without one."""
    units = comparison["unit"].values.tolist() if "unit" in comparison.coords else []
    return ["" if unit == "1" else str(unit) for unit in units]


def _note(comparison: xr.Dataset) -> str:
    shaded = caption(comparison).replace("; marked: ", "; shaded: ")
    return f"Scores on the test rows. {shaded}" + (
        " ±: standard error over splits." if comparison.sizes["split"] > 1 else ""
    )


def _meanings(kind: str) -> str:
    if kind == "regression":
        return "MAE, RMSE and CRPS are in the target's unit, NLL is in nats of the standardised target; ECE is of intervals."
    return "NLL is in nats; ECE is of the predicted class's probability."
