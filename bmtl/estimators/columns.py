"""The targets of an estimator: labels as they come, as models see them, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bmtl.targets import Binary, Classes, Family, Real
from bmtl.targets.names import file_name


@dataclass(frozen=True)
class Column:
    """One target.

    Attributes:
        name: Its name.
        labels: Labels ``(N,)`` as its family has them.
        family: What they are.
        classes: The labels that classes stand for, in order; None where the target has none.
    """

    name: str
    labels: np.ndarray
    family: Family
    classes: np.ndarray | None = None

    @property
    def missing(self) -> np.ndarray:
        return self.family.missing(self.labels)


def columns_of(y: Any) -> tuple[list[str], list[np.ndarray], bool]:
    """Names and labels of each target, and whether labels had one dimension. A slash in a name becomes ``_``.

    Args:
        y: Labels ``(N,)`` or ``(N, T)``: an array, a list, a pandas Series or DataFrame.

    Raises:
        ValueError: If there are no labels, or they have another shape.
    """
    if y is None:
        raise ValueError("This estimator requires y to be passed, but the target y is None.")
    if isinstance(y, pd.DataFrame):
        names = [file_name(str(name)) for name in y.columns]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(
                f"Two columns of y have the name {twice!r}, of {list(y.columns)} (a slash counts as _). Rename one."
            )
        return names, [plain(y.iloc[:, i]) for i in range(y.shape[1])], False
    if isinstance(y, pd.Series):
        return [file_name(str(y.name)) if y.name is not None else "y"], [plain(y)], True
    array = np.asarray(y)
    if array.ndim == 1:
        return ["y"], [array], True
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"y has the shape (rows,) or (rows, targets), and {array.shape} was given.")
    return [f"y{i}" for i in range(array.shape[1])], list(array.T), False


def not_numbers(X: Any) -> list[str]:
    """Names of a data frame's columns that are no numbers: text, categories and dates."""
    if not isinstance(X, pd.DataFrame):
        return []
    dates = X.select_dtypes(["datetime", "datetimetz", "timedelta"]).columns
    other = X.select_dtypes(exclude=["number", "bool"]).columns
    text = [name for name in other if pd.to_numeric(X[name], errors="coerce").isna().sum() > X[name].isna().sum()]
    return [str(name) for name in X.columns if name in dates or name in text]


def plain(series: pd.Series) -> np.ndarray:
    """A Series as an array: numbers with NaN where missing, else objects with None."""
    if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
        if series.isna().any():
            return series.to_numpy(dtype=float, na_value=np.nan)
        return series.to_numpy()
    return series.to_numpy(dtype=object) if series.isna().any() else series.to_numpy()


def real_column(name: str, values: np.ndarray) -> Column:
    """A target of real numbers, NaN where missing.

    Raises:
        ValueError: If labels are not numbers, infinite, or all missing.
    """
    if values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: the labels of {name!r} are {values.dtype}.")
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The labels of {name!r} are to be numbers: {error}. MultiTaskEstimator takes classes next to numbers."
        ) from error
    if np.isinf(numbers).any():
        raise ValueError(
            f"Input y contains infinity or a value too large for dtype('float64'): target {name!r}, row "
            f"{int(np.argmax(np.isinf(numbers)))}."
        )
    return _with_labels(Column(name, numbers, Real()))


def class_column(name: str, values: np.ndarray) -> Column:
    """A target of classes: numbers, words or truth values; NaN and None where missing.

    Raises:
        ValueError: If there is one class only, or labels are fractions or infinite.
    """
    if values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: the labels of {name!r} are {values.dtype}.")
    missing = pd.isna(values)
    seen = values[~missing]
    if seen.dtype.kind == "f":
        if np.isinf(seen).any():
            raise ValueError(f"Input y contains infinity or a value too large for {seen.dtype!r}: target {name!r}.")
        if (seen != np.floor(seen)).any():
            raise ValueError(
                f"Unknown label type: continuous. The target {name!r} of a classifier has classes, and "
                f"{seen[seen != np.floor(seen)][0]} was given. Regressors take fractions."
            )
    try:
        classes, numbers = np.unique(seen.astype(str) if _words(seen) else seen, return_inverse=True)
    except TypeError as error:
        raise ValueError(f"The classes of {name!r} cannot be put in order: {error}.") from error
    if len(classes) < 2:
        raise ValueError(
            f"A classifier needs two classes or more, and the target {name!r} has one class: {classes.tolist()}."
        )
    labels = np.full(len(values), -1)
    labels[~missing] = numbers
    names = tuple(map(str, classes.tolist()))
    return _with_labels(Column(name, labels, Binary(names) if len(names) == 2 else Classes(names), classes))


def guessed_column(name: str, values: np.ndarray) -> Column:
    """Classes where labels are words or truth values, else real numbers."""
    return class_column(name, values) if values.dtype.kind in "OUSb" else real_column(name, values)


def split(columns: Sequence[Column], share: float, random: np.random.RandomState) -> dict[str, np.ndarray]:
    """Training and validation rows, each of which has a label of every target.

    Args:
        columns: The targets.
        share: Of the rows that are for validation.
        random: Draws them.

    Raises:
        ValueError: If a target has fewer than two labels, or no such split is found.
    """
    labelled = np.column_stack([~column.missing for column in columns])
    few = [column.name for column, count in zip(columns, labelled.sum(0), strict=True) if count < 2]
    if few:
        raise ValueError(
            f"A target needs two labels or more, one to learn from and one to validate on; n_samples = {len(labelled)}, and "
            f"there are fewer labels of {', '.join(map(repr, few))}."
        )
    for _ in range(100):
        held = _held(labelled, max(1, round(share * len(labelled))), random)
        if labelled[held].any(0).all() and labelled[~held].any(0).all():
            return {"train": np.flatnonzero(~held), "val": np.flatnonzero(held)}
    raise ValueError(
        "No split of the rows has a label of every target in both parts. Leave out the targets with the fewest labels."
    )


def _held(labelled: np.ndarray, count: int, random: np.random.RandomState) -> np.ndarray:
    """Which rows are for validation: drawn, and then one more or fewer for each target that all or none of them label."""
    order = random.permutation(len(labelled))
    held = np.zeros(len(labelled), dtype=bool)
    held[order[:count]] = True
    for own in labelled.T:
        places = order[own[order]]  # the target's rows
        if not held[places].any():
            held[places[0]] = True
        elif held[places].all():
            held[places[0]] = False
    return held


def _words(values: np.ndarray) -> bool:
    return values.dtype.kind == "O" and all(isinstance(value, str) for value in values)


def _with_labels(column: Column) -> Column:
    if column.missing.all():
        raise ValueError(f"The target {column.name!r} has no label: all are missing.")
    return column
