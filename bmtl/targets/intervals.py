"""Labels that are intervals: ``(N, 2)``, lower and upper end."""

import numpy as np

from bmtl.targets.family import check_shape, first_row, number_range, read_only

ENDS: dict[str, tuple[str, ...] | None] = {"end": ("lower", "upper")}
"""The axis of an interval."""


def check_intervals(target: str, values: np.ndarray, rows: int, lowest: float = -np.inf) -> np.ndarray:
    """Intervals ``(N, 2)`` as float64: equal ends are an exact label, an infinite end is open, NaN in both is missing.

    Labels ``(N,)`` are taken as exact.

    Args:
        target: Name of the target, for messages.
        values: ``(N, 2)`` or ``(N,)``.
        rows: N.
        lowest: Lower ends are at least this.

    Raises:
        ValueError: If the shape is another, an end is missing alone, the lower end is above the upper one or below
            `lowest`, both are open, or an exact label is infinite.
    """
    array = np.array(values, dtype=np.float64)
    if array.ndim == 1:
        array = np.stack([array, array], axis=1)
    check_shape(target, array, (rows, 2), "the lower and upper end of each label")
    lower, upper = array[:, 0], array[:, 1]
    for wrong, why in (
        (np.isnan(lower) != np.isnan(upper), "Both ends of a missing label are NaN"),
        (lower > upper, "The lower end of a label is at most the upper one"),
        (lower < lowest, f"A label is at least {lowest:g}"),
        (np.isneginf(lower) & np.isposinf(upper), "A label open on both sides says nothing; give NaN"),
        (np.isinf(lower) & (lower == upper), "An exact label is finite"),
    ):
        if wrong.any():
            raise ValueError(f"{why}, and {first_row(target, array, wrong)}.")
    return read_only(array)


def exact_only(volume: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """`volume` where labels ``(N, 2)`` are exact and 0 where they are intervals, whose likelihood is a probability.

    Without labels all count as exact.
    """
    return volume if labels is None else np.where(labels[..., 0] == labels[..., 1], volume, 0.0)


def finite_ends(intervals: np.ndarray) -> np.ndarray:
    """One number per row ``(N,)`` to fit a scaler on: the exact label, the midpoint, or the finite end; NaN if missing."""
    lower, upper = intervals[..., 0], intervals[..., 1]
    ends = np.where(np.isinf(intervals), np.nan, intervals)
    closed = np.isfinite(lower) & np.isfinite(upper)
    with np.errstate(invalid="ignore"):
        middle = (lower + upper) / 2
    return np.where(closed, middle, np.where(np.isnan(ends[..., 0]), ends[..., 1], ends[..., 0]))


def interval_summary(intervals: np.ndarray) -> str:
    """The range of the finite ends, and how many labels are known up to an interval, by the end that is open."""
    if not len(intervals):
        return ""
    finite = intervals[np.isfinite(intervals)]
    lower, upper = intervals.T
    left, right = np.isneginf(lower), np.isposinf(upper)
    rest = (lower != upper) & ~left & ~right
    kinds = {"right-censored": right, "left-censored": left, "interval-censored": rest}
    censored = ", ".join(f"{int(found.sum()):,} {name}" for name, found in kinds.items() if found.any())
    return f"{number_range(finite)}, {censored or 'none censored'}"
