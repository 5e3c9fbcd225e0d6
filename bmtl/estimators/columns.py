"""The targets of an estimator: labels as they come, as models see them, and back."""

import warnings
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
        ValueError: If there are no labels, they have another shape, or two targets have one name.
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


def labels_of(y: Any, targets: Sequence[str]) -> list[np.ndarray]:
    """Labels of each of an estimator's targets, in their order.

    A data frame with the targets' names may have its columns in any order. Other labels are in the order of the targets.

    Args:
        y: As for `columns_of`.
        targets: Names of the targets that the estimator was fitted on.

    Raises:
        ValueError: If there are others or another number of them.
    """
    names, values, _ = columns_of(y)
    if isinstance(y, pd.DataFrame) and sorted(names) == sorted(targets):
        return [values[names.index(target)] for target in targets]
    generic = list(targets) == ["y"] or list(targets) == [f"y{i}" for i in range(len(targets))]
    if len(names) != len(targets) or (isinstance(y, pd.DataFrame) and not generic):
        raise ValueError(f"The estimator was fitted on the targets {', '.join(targets)}, and y has {', '.join(names)}.")
    return values


def index_of(X: Any) -> pd.Index | None:
    """A data frame's index; None of anything else."""
    return X.index if isinstance(X, pd.DataFrame) else None


def warn_of_another_order(X: Any, y: Any) -> None:
    """Warns where the rows of two data frames have the same index in another order: they are taken by their place."""
    if not isinstance(X, pd.DataFrame) or not isinstance(y, pd.DataFrame | pd.Series) or X.index.equals(y.index):
        return
    if len(X.index) == len(y.index) and X.index.is_unique and X.index.isin(y.index).all():
        warnings.warn(
            "X and y have the same index in another order, and row i of X is taken with row i of y. Give y.loc[X.index] if "
            "the index says which labels are whose.",
            stacklevel=3,
        )


def not_numbers(X: Any) -> list[str]:
    """Names of a data frame's columns that are no numbers: text, categories and dates."""
    if not isinstance(X, pd.DataFrame):
        return []
    return [str(X.columns[i]) for i in range(X.shape[1]) if _not_numbers(X.iloc[:, i])]


def _not_numbers(column: pd.Series) -> bool:
    types = pd.api.types
    if types.is_numeric_dtype(column.dtype) or types.is_bool_dtype(column.dtype):  # pyarrow's types too
        return False
    if types.is_datetime64_any_dtype(column.dtype) or types.is_timedelta64_dtype(column.dtype):
        return True
    return bool(pd.to_numeric(column.astype(object), errors="coerce").isna().sum() > column.isna().sum())


def plain(series: pd.Series) -> np.ndarray:
    """A Series as an array: numbers with NaN where missing, else objects with None."""
    if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
        if series.isna().any():
            return series.to_numpy(dtype=float, na_value=np.nan)
        return series.to_numpy()
    return series.to_numpy(dtype=object) if series.isna().any() else series.to_numpy()


def _check_type(name: str, values: np.ndarray) -> None:
    """Refuses complex numbers, and dates and durations, whose numbers would be nanoseconds."""
    if values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: the labels of {name!r} are {values.dtype}.")
    known = values[~pd.isna(values)] if values.dtype.kind == "O" else values
    if values.dtype.kind in "mM" or (len(known) and isinstance(known[0], pd.Timestamp | pd.Timedelta)):
        raise ValueError(
            f"The labels of {name!r} are dates or durations. Give numbers, such as days: durations / pd.Timedelta(days=1)."
        )


def real_column(name: str, values: np.ndarray) -> Column:
    """A target of real numbers, NaN where missing.

    Raises:
        ValueError: If labels are not numbers, infinite, or all missing.
    """
    _check_type(name, values)
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
    _check_type(name, values)
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
        kind = str if _all(seen, str) else bool if _all(seen, bool) else seen.dtype
        classes, numbers = np.unique(seen.astype(kind), return_inverse=True)
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


def _all(values: np.ndarray, kind: type) -> bool:
    """Whether objects are all of one type."""
    return values.dtype.kind == "O" and all(isinstance(value, kind) for value in values)


def _with_labels(column: Column) -> Column:
    if column.missing.all():
        raise ValueError(f"The target {column.name!r} has no label: all are missing.")
    return column
