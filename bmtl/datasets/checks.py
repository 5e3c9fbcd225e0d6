"""Do the pieces of a data set fit together? Each check returns the checked piece, or says how to mend it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.scaler import Scaler


def inputs(x: ArrayLike) -> np.ndarray:
    """Inputs ``(N, ...)`` as a read-only copy; every value must be a finite number."""
    array = np.array(x)
    if array.ndim < 2 or array.size == 0:
        raise ValueError(
            f"Inputs must have the shape (N, D) with N, D > 0; got {array.shape}. Reshape a single column."
        )
    if array.dtype.kind not in "fiub":
        raise ValueError(f"Inputs must be numbers; got dtype {array.dtype}. Encode text and categories first.")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        raise ValueError(
            f"Inputs must be finite; {len(bad)} values are not, the first at {tuple(bad[0].tolist())}. "
            "Impute them or drop the rows; only targets may be missing."
        )
    array.setflags(write=False)
    return array


def target(task: str, values: ArrayLike, kind: Literal["regression"] | int, num_rows: int) -> np.ndarray:
    """One target ``(N,)`` as a read-only copy: float64 with NaN, or int64 with -1 where a label is missing."""
    if not isinstance(task, str) or not task or "/" in task:
        # A results tree names variables after targets, and NetCDF keeps the slash for groups.
        raise ValueError(f"A target needs a non-empty name without a slash; got {task!r}.")
    array = np.asarray(values)
    if array.shape != (num_rows,):
        raise ValueError(
            f"Target {task!r} must have the shape ({num_rows},), one label per row of x; got {array.shape}."
        )
    if array.dtype.kind not in "fiub":
        raise ValueError(f"Target {task!r} must hold numbers; got dtype {array.dtype}. Number the classes from 0.")
    if kind == "regression":
        array = array.astype(np.float64)
        if np.isinf(array).any():
            raise ValueError(f"Target {task!r} holds infinite values. Mark a missing label with NaN.")
    else:
        array = _classes(task, array, kind)
    array.setflags(write=False)
    return array


def _classes(task: str, array: np.ndarray, num_classes: object) -> np.ndarray:
    if isinstance(num_classes, bool) or not isinstance(num_classes, int | np.integer) or num_classes < 2:
        raise ValueError(
            f"The kind of target {task!r} is 'regression' or a number of classes >= 2; got {num_classes!r}."
        )
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), -1, array)
    outside = (array < -1) | (array >= num_classes) | (array != np.floor(array))
    if outside.any():
        raise ValueError(
            f"Target {task!r} has {num_classes} classes, so its labels are 0 to {num_classes - 1}, and -1 or NaN where "
            f"missing; got {array[outside][0]}."
        )
    return array.astype(np.int64)


def labelled(values: np.ndarray) -> np.ndarray:
    """Where a checked target has a label."""
    return values >= 0 if values.dtype.kind == "i" else ~np.isnan(values)


def partition(rows: Mapping[str, ArrayLike], num_rows: int) -> dict[str, np.ndarray]:
    """Rows per part as read-only int64 copies: in range, without a repeat, and no row in two parts."""
    if "train" not in rows:
        raise ValueError(f"The split needs a part 'train', on which scalers are fitted; got {list(rows)}.")
    parts: dict[str, np.ndarray] = {}
    for part, values in rows.items():
        array = np.array(values)
        if array.ndim != 1 or len(array) == 0 or array.dtype.kind not in "iu":
            raise ValueError(
                f"Part {part!r} must be a non-empty list of row numbers; got shape {array.shape}, dtype {array.dtype}. "
                "Turn a mask into numbers with np.flatnonzero; leave an empty part out."
            )
        if array.min() < 0 or array.max() >= num_rows:
            raise ValueError(
                f"Part {part!r} must hold rows 0 to {num_rows - 1}; got {array.min()} to {array.max()}. "
                "Drop the padding."
            )
        if len(np.unique(array)) < len(array):
            raise ValueError(
                f"Part {part!r} names a row more than once. Weigh rows in the model, not by repeating them."
            )
        for other, taken in parts.items():
            both = np.intersect1d(array, taken)
            if len(both):
                raise ValueError(
                    f"Parts {other!r} and {part!r} share {len(both)} rows, the first being {both[0]}. "
                    "A row belongs to one part, else test scores are read off training rows."
                )
        array = array.astype(np.int64)
        array.setflags(write=False)
        parts[part] = array
    return parts


def same_keys(what: str, given: Collection[str], expected: Collection[str]) -> None:
    """Refuse names that are missing or that nobody asked for."""
    missing, extra = [k for k in expected if k not in given], [k for k in given if k not in expected]
    if missing or extra:
        faults = ([f"lacks {missing}"] if missing else []) + ([f"has the unknown {extra}"] if extra else [])
        raise ValueError(f"`{what}` must name the same targets as y; it {' and '.join(faults)}.")


def names_among(tasks: Sequence[str], known: Collection[str]) -> None:
    """Refuse an empty list, an unknown name and a name given twice."""
    unknown = [task for task in tasks if task not in known]
    if not tasks or unknown or len(set(tasks)) < len(tasks):
        fault = (
            f"{unknown[0]!r} is not a target" if unknown else "a name stands twice" if tasks else "no name was given"
        )
        raise ValueError(f"Cannot take the targets {list(tasks)}: {fault}. The targets are: {', '.join(known)}.")


def scaler_shape(scaler: Scaler, x: np.ndarray) -> None:
    """Refuse an input scaler that was fitted on other columns."""
    if scaler.mean.shape not in ((), x.shape[1:]):
        raise ValueError(
            f"x_scaler was fitted on columns of shape {scaler.mean.shape}, but x has {x.shape[1:]}. "
            "Fit it on these columns."
        )


def class_names(classes: Mapping[str, Sequence[str]], kinds: Mapping[str, Literal["regression"] | int]) -> None:
    """Refuse names of classes that a target does not have."""
    for task, names in classes.items():
        kind = kinds.get(task)
        if kind is None or kind == "regression":
            what = "not a target" if kind is None else "a regression"
            raise ValueError(f"`classes` names the classes of {task!r}, which is {what}. Leave it out.")
        if isinstance(names, str) or len(names) != kind:
            raise ValueError(
                f"Target {task!r} has {kind} classes, but `classes` gives {names!r}. Give one name a class."
            )


def feature_names(features: Sequence[str], x: np.ndarray) -> None:
    """Refuse names of columns that do not name each column of ``x (N, D)`` once."""
    if not features:
        return
    if x.ndim != 2 or len(features) != x.shape[1]:
        raise ValueError(
            f"`features` names {len(features)} columns, and x has shape {x.shape}. Give one name a column."
        )
    twice = sorted({name for name in features if list(features).count(name) > 1})
    if twice:
        raise ValueError(
            f"`features` names {', '.join(map(repr, twice))} more than once. Give each column its own name."
        )


def meant(name: str, known: Iterable[str]) -> str:
    """The sentence that asks whether a name like this was meant; empty if none is alike."""
    alike = get_close_matches(name, list(known), n=1)
    return f" Did you mean {alike[0]!r}?" if alike else ""
