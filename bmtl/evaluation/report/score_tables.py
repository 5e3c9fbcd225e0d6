"""Tables of a comparison's scores: by method, by target, and for a single run target by score."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from bmtl.evaluation.columns import MOST_TASKS, held
from bmtl.evaluation.compared import alike, by_family, counted_scores
from bmtl.evaluation.marking import RULE
from bmtl.evaluation.repeats import Repeats
from bmtl.evaluation.report.markup import Cell, Markup, details, number, table
from bmtl.evaluation.report.ranking import by_target
from bmtl.evaluation.statistics import mean_and_error
from bmtl.evaluation.tables import score_table
from bmtl.evaluation.text_tables import ARROWS
from bmtl.targets.score import Score

MOST_COLUMNS = 4  # of targets, in the table by method


def by_method(comparison: xr.Dataset) -> Markup:
    """The comparison's own table: a row per method, mean ± standard error over the runs.

    Columns by target are left out where they are many: the table by target holds the same.
    """
    of = score_table(comparison, marked_as="Shaded")
    targets = comparison.sizes["task"]
    left_out = MOST_COLUMNS < targets <= MOST_TASKS
    columns = [column for column in of.columns if not (left_out and column.task is not None)]
    rows = [
        [
            str(method),
            *(
                number(
                    of.means.at[method, c.name], of.errors.at[method, c.name], marked=bool(of.marks.at[method, c.name])
                )
                for c in columns
            ),
        ]
        for method in of.means.index
    ]
    header = ["method", *(f"{column.name} {ARROWS[column.higher_is_better]}".strip() for column in columns)]
    return table(header, rows, f"Scores on the test rows. {of.caption}")


def by_task(comparison: xr.Dataset) -> Iterator[Markup]:
    """A row per target and a column per method: each primary score, and folded away every other score."""
    _, marks = by_target(comparison)
    groups = alike(comparison)
    for group in groups:
        yield _one_score(comparison, group.primary, group.places, marks, group.title if len(groups) > 1 else "")
    folded = [
        _one_score(comparison, score, places[comparison["primary"].values[places] != score.name], None, name)
        for name, (family, places) in by_family(comparison).items()
        for score in held(comparison, family.scores)
    ]
    if any(folded):
        yield details("Every other score by target", *folded)


def of_one_run(comparison: xr.Dataset) -> Iterator[Markup]:
    """A single run: a row per target and a column per score, a table for each family of targets."""
    families = by_family(comparison)
    for name, (family, places) in families.items():
        chosen = comparison.isel(task=places, learner=0, split=0)
        scores = [
            score for score in held(comparison, family.scores) if chosen["score"].sel(metric=score.name).notnull().any()
        ]
        values = chosen["score"].sel(metric=[score.name for score in scores]).transpose("task", "metric").values
        units, counts = _units(chosen), chosen["rows"].values
        labels = [f"{score.symbol} {ARROWS[score.higher_is_better]}" for score in scores]
        header = ["target", *(["unit"] if any(units) else []), "test rows", *labels]
        rows = [
            [task, *([units[k]] if any(units) else []), count(int(counts[k])), *map(number, values[k])]
            for k, task in enumerate(chosen["task"].values.tolist())
        ]
        of = f", targets of the family {name}" if len(families) > 1 else ""
        yield table(header, rows, f"Scores on the test rows{of}. {_meanings(scores, any(units))}".strip())


def count(value: int) -> Cell:
    """A cell for a number of things."""
    return Cell(f"{value:,}", value)


def _one_score(comparison: xr.Dataset, score: Score, places: np.ndarray, marks: xr.DataArray | None, of: str) -> Markup:
    chosen = comparison.isel(task=places)
    scores = chosen["score"].sel(metric=score.name)
    if not scores.notnull().any():
        return Markup()
    found = mean_and_error(scores, counted=counted_scores(chosen, score.name)).transpose("learner", "task")
    methods = [str(method) for method in chosen["learner"].values]
    # Plain arrays: a hundred targets and ten methods would take xarray seconds.
    means, errors, counts = found["mean"].values, found["error"].values, _rows(chosen)
    marked = np.zeros(means.shape, dtype=bool) if marks is None else marks.isel(task=places).values
    units = _units(chosen) if score.in_units else []
    rows = []
    for k, task in enumerate(chosen["task"].values.tolist()):
        cells = [number(means[i, k], errors[i, k], marked=bool(marked[i, k])) for i in range(len(methods))]
        rows.append([task, *([units[k]] if any(units) else []), count(int(counts[k])), *cells])
    repeats = Repeats.of(comparison)
    words = f"{score.symbol} on the test rows by target{f' ({of})' if of else ''}, "
    words += f"{'higher' if score.higher_is_better else 'lower'} is better"
    words += f"; mean ± standard error over {repeats.counted}" if repeats.runs > 1 else ""
    words += f"; shaded: {RULE}." if marked.any() else "."
    words += f" {score.symbol}: {score.note}." if score.note else ""
    return table(["target", *(["unit"] if any(units) else []), "test rows", *methods], rows, words)


def _rows(comparison: xr.Dataset) -> np.ndarray:
    """Scored rows of each target ``(K,)``, the median over runs that score it."""
    counts = comparison["rows"].transpose("split", "task").values
    return np.nanmedian(np.where(counts > 0, counts, np.nan), axis=0)


def _units(comparison: xr.Dataset) -> list[str]:
    """The targets' units; empty for numbers without one."""
    units = comparison["unit"].values.tolist() if "unit" in comparison.coords else []
    return ["" if unit == "1" else str(unit) for unit in units]


def _meanings(scores: list[Score], units: bool) -> str:
    """In what unit the scores are, and how they are to be read."""
    own = [score.symbol for score in scores if score.in_units]
    said = [f"In the target's unit: {', '.join(own)}."] if own and units else []
    return " ".join([*said, *(f"{score.symbol}: {score.note}." for score in scores if score.note)])
