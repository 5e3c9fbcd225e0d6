"""Do the pieces of a data set fit together? Each check returns the checked piece, or says how to mend it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches

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


def is_number(value: object) -> bool:
    """Whether a value is a finite number, truth values excepted."""
    return (
        isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool) and np.isfinite(value)
    )


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


def names_of_targets(what: str, given: Iterable[str], targets: Collection[str]) -> None:
    """Refuse names that are not targets."""
    for name in given:
        if name not in targets:
            raise ValueError(f"`{what}` names the unknown {name!r}; the targets are: {', '.join(targets)}.")


def names_among(tasks: Sequence[str], known: Collection[str]) -> None:
    """Refuse an empty list, an unknown name and a name given twice."""
    unknown = [task for task in tasks if task not in known]
    if not tasks or unknown or len(set(tasks)) < len(tasks):
        fault = f"{unknown[0]!r} is not a target" if unknown else "a name is repeated" if tasks else "no name was given"
        raise ValueError(f"Cannot take the targets {list(tasks)}: {fault}. The targets are: {', '.join(known)}.")


def scaler_shape(scaler: Scaler, x: np.ndarray) -> None:
    """Refuse an input scaler that was fitted on other columns."""
    if scaler.mean.shape not in ((), x.shape[1:]):
        raise ValueError(
            f"x_scaler was fitted on columns of shape {scaler.mean.shape}, but x has {x.shape[1:]}. "
            "Fit it on these columns."
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
    spelled = {other.casefold(): other for other in known}
    alike = get_close_matches(name.casefold(), spelled, n=1)
    return f" Did you mean {spelled[alike[0]]!r}?" if alike else ""
