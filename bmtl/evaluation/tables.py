"""A comparison as a table: one row per method, the columns of the IGB paper's Table 2, and calibration after them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.columns import Column, columns, held
from bmtl.evaluation.compared import alike, by_family, references_of
from bmtl.evaluation.csv_cells import csv_text
from bmtl.evaluation.marking import RULE, marked
from bmtl.evaluation.repeats import Repeats
from bmtl.evaluation.statistics import mean_and_error

MOST_UNDEFINED = 6  # that a caption names


@dataclass(frozen=True)
class ScoreTable:
    """The results of a comparison, a row per method and a column per score; frames of equal shape, index ``learner``.

    Attributes:
        columns: What each column is.
        means: Over splits.
        errors: Standard errors over splits; NaN for one split.
        marks: Which entries are marked best, by `bmtl.evaluation.marking.marked`.
        caption: Notes for the reader, with the words for a mark.
        references: The learners that are references, the last rows.
    """

    columns: list[Column]
    means: pd.DataFrame
    errors: pd.DataFrame
    marks: pd.DataFrame
    caption: str
    references: list[str]


def score_table(comparison: xr.Dataset, *, marked_as: str = "Marked") -> ScoreTable:
    """The content of a comparison's table, computed once.

    Args:
        comparison: From `compare`.
        marked_as: What the caption calls a marked entry, such as "In bold".
    """
    chosen = columns(comparison)
    marks = _frame(comparison, chosen, _marks)
    summaries = {column.name: mean_and_error(column.values, counted=column.counted) for column in chosen}
    return ScoreTable(
        chosen,
        _frame(comparison, chosen, lambda column: summaries[column.name]["mean"].values),
        _frame(comparison, chosen, lambda column: summaries[column.name]["error"].values),
        marks,
        _caption(comparison, marked_as if marks.to_numpy().any() else None),
        references_of(comparison),
    )


def table(comparison: xr.Dataset) -> pd.DataFrame:
    """Means over splits, one row per method.

    A missing cell of the grid is left out of its row's means; a run that diverged makes them NaN. The baseline's own
    ``delta_m`` (zero by definition) is left blank, as in the paper.

    Args:
        comparison: From `compare`.

    Returns:
        Index ``learner``; columns ``delta_m [%]`` and ``T`` (lower is better), ``mean NLL`` (nats, standardised targets) and
        ``mean ECE``, for each family of targets if there are several, and each task's primary score, such as ``MAE <task>
        [<unit>]`` or ``accuracy <task>``; a single task has a column for each of its scores. Beyond twelve tasks the last
        are replaced by ``mean rank`` over tasks, ``tasks worse than <baseline> [%]`` and the mean of each primary score over
        its tasks, where they have one unit.
    """
    return _frame(comparison, columns(comparison), lambda column: _summary(column, "mean"))


def spread(comparison: xr.Dataset) -> pd.DataFrame:
    """Standard deviations over splits (divisor: splits less one) of `table`'s entries, same shape; NaN for one split."""
    return _frame(comparison, columns(comparison), lambda column: _summary(column, "deviation"))


def standard_error(comparison: xr.Dataset) -> pd.DataFrame:
    """Standard errors over splits of `table`'s entries, same shape; NaN for one split."""
    return _frame(comparison, columns(comparison), lambda column: _summary(column, "error"))


def best(comparison: xr.Dataset) -> pd.DataFrame:
    """Which entries of `table` are not significantly worse than the best of their column: booleans of the same shape.

    An entry is marked unless the 95 % interval of its paired differences to the best mean, over splits, excludes zero
    (`bmtl.evaluation.marking.marked`). A column in which no method is worse is not marked at all, and nothing is with fewer
    than three runs of each method. ``T`` is not ranked.

    Args:
        comparison: From `compare`.
    """
    return _frame(comparison, columns(comparison), _marks)


def caption(comparison: xr.Dataset) -> str:
    """Notes on the table: runs, units, what it is relative to, how small an ECE can be, missing cells."""
    return score_table(comparison).caption


def to_csv(comparison: xr.Dataset) -> str:
    """`table` as CSV; text that a spreadsheet would take for a formula is made plain."""
    return csv_text(table(comparison), index_label="learner")


def _caption(comparison: xr.Dataset, marked_as: str | None) -> str:
    about = decode_attributes(comparison)
    repeats = Repeats.of(comparison)
    parts = [_runs(repeats, marked_as)] if comparison.sizes["learner"] > 1 or repeats.runs > 1 else []
    symbols = list(dict.fromkeys(group.primary.symbol for group in alike(comparison) if group.primary.relative))
    baseline = about.get("baseline")
    if baseline is not None and symbols:
        parts.append(f"delta_m: mean relative change of {listed(symbols)} against {baseline}, negative is better.")
        without = [
            f"{comparison['task'].values[place]} ({group.primary.symbol})"
            for group in alike(comparison)
            for place in group.places
            if not group.primary.relative
        ]
        if without:
            parts.append(f"Not in delta_m, because they have no natural zero: {', '.join(without)}.")
    parts += _undefined(comparison, repeats)
    if about.get("reference") is not None:
        parts.append(f"T: median time of a step over {about['reference']}'s.")
    parts += _notes(comparison)
    if references := references_of(comparison):
        parts.append(f"References, fitted by scikit-learn: {listed(references)}.")
    missing = np.argwhere(~comparison["present"].transpose("learner", "split").values)
    holes = [
        f"{comparison['learner'].values[row]} {repeats.noun} {comparison['split'].values[column]}"
        for row, column in missing
    ]
    if holes:
        parts.append(f"Missing: {', '.join(holes)}.")
    failures = about.get("not_computed") or {}
    if failures:
        first, reason = next(iter(failures.items()))
        more = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
        parts.append(f"Not computed: {first}{more} ({reason.rstrip('.')}).")
    return " ".join(parts)


def listed(names: Sequence[str]) -> str:
    """Names as English lists them: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _runs(repeats: Repeats, marked_as: str | None) -> str:
    """The runs that were averaged, whether they are enough for a conclusion, and the meaning of a mark if there is one."""
    if repeats.runs == 1:
        return "One run of each method is too few to compare them: none is marked best."
    said = f"Mean ± standard error over {repeats.counted}."
    if not repeats.decisive:
        return f"{said} Two runs are too few to compare methods: none is marked best."
    return " ".join([said, *([f"{marked_as}: {RULE}."] if marked_as else []), repeats.interval()])


def _undefined(comparison: xr.Dataset, repeats: Repeats) -> list[str]:
    """Primary scores to which the labels of a split give no value, which no mean and no delta_m holds there."""
    said = []
    for group in alike(comparison):
        of = group.of(comparison)
        defined = of["defined"].sel(metric=group.primary.name).transpose("task", "split").values
        lacking = (of["rows"].transpose("task", "split").values > 0) & ~defined
        for task, splits in zip(of["task"].values.tolist(), lacking, strict=True):
            if splits.any():
                numbers = listed([str(number) for number in of["split"].values[splits]])
                said.append(f"{group.primary.symbol} of {task} in {repeats.noun} {numbers}")
    if not said:
        return []
    more = f" and {len(said) - MOST_UNDEFINED} more" if len(said) > MOST_UNDEFINED else ""
    which = "; ".join(said[:MOST_UNDEFINED])
    return [f"Without a value on the labels (such as labels of one class only), and left out there: {which}{more}."]


def _notes(comparison: xr.Dataset) -> list[str]:
    """How the scores in the table are to be read, and what a perfect predictive would show of them."""
    families = by_family(comparison)
    notes: dict[str, dict[str, list[str]]] = {}  # symbol -> note -> families
    floors: dict[str, dict[str, list[str]]] = {}
    for name, (family, places) in families.items():
        chosen = comparison.isel(task=places)
        counts = chosen["rows"].values
        for score in held(comparison, family.scores):
            only = comparison.sizes["task"] == 1  # then there is a column for every score
            if not (score.averaged or only or score.name in chosen["primary"].values):
                continue
            if score.note:
                notes.setdefault(score.symbol, {}).setdefault(score.note, []).append(name)
            if score.floor is not None and counts.any():
                floor = np.mean([score.floor(int(count)) for count in counts[counts > 0]])
                floors.setdefault(score.symbol, {}).setdefault(f"{floor:.3f}", []).append(name)
    found = [f"{symbol}: {_by_note(of, len(families))}." for symbol, of in notes.items()]
    for symbol, of in floors.items():
        found.append(f"A perfect predictive would show an {symbol} of {_by_note(of, len(families))} on so few rows.")
    return found


def _by_note(of: Mapping[str, list[str]], families: int) -> str:
    """Each note, with the families that it is of where there are several."""
    return ", ".join(f"{note} ({', '.join(names)})" if families > 1 else note for note, names in of.items())


def _marks(column: Column) -> np.ndarray:
    if column.higher_is_better is None or not column.counted.any():
        return np.zeros(column.values.sizes["learner"], dtype=bool)
    return marked(column.values, higher_is_better=column.higher_is_better, counted=column.counted).values


def _frame(comparison: xr.Dataset, chosen: list[Column], entries: Callable[[Column], np.ndarray]) -> pd.DataFrame:
    index = pd.Index([str(name) for name in comparison["learner"].values], name="learner")
    return pd.DataFrame({column.name: entries(column) for column in chosen}, index=index)


def _summary(column: Column, what: str) -> np.ndarray:
    return mean_and_error(column.values, counted=column.counted)[what].values
