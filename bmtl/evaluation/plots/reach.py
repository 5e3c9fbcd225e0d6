"""Axes that hold what differs a little, next to rows that are far away: those are marked at the edge with their value."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

FEWEST = 5  # rows of which any is outside
APART = 3.0  # times the reach of the nearer rows, beyond which a row is outside


def reach_of(middle: ArrayLike, low: ArrayLike, high: ArrayLike, minor: ArrayLike | None = None) -> tuple[float, float]:
    """Ends of an axis that shows rows near the median row, each with its interval; a row far away does not stretch it.

    Rows are taken in, the nearest to the median first, as long as the next is not further away than three times the reach
    of those before it; two thirds of the rows at least, and of fewer than five all. Minor rows count for neither: they are
    taken in, without their intervals, where they are not further away than the reach of the others.

    Args:
        middle: Of each row; NaN is left out.
        low: Lower end of its interval; NaN where it has none.
        high: Upper end.
        minor: Which rows are minor, bool; none by default, nor where all are.

    Returns:
        The ends with a margin; (0, 1) where no row is finite.
    """
    values, lower, upper = (np.asarray(given, dtype=float) for given in (middle, low, high))
    lower, upper = np.where(np.isfinite(lower), lower, values), np.where(np.isfinite(upper), upper, values)
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return 0.0, 1.0
    major = known if minor is None else known[~np.asarray(minor, dtype=bool)[known]]
    major = major if len(major) else known
    order = known[np.argsort(np.abs(values[known] - np.median(values[major])), kind="stable")]
    nearest = order[np.isin(order, major)]
    first = nearest if len(nearest) < FEWEST else nearest[: -(-2 * len(nearest) // 3)]
    start, end = float(lower[first].min()), float(upper[first].max())
    for row in order[~np.isin(order, first)]:
        gap = max(start - values[row], values[row] - end, 0.0)
        is_minor = row not in major
        if gap > (1.0 if is_minor else APART) * (end - start) > 0:
            break
        low_end, high_end = (values[row], values[row]) if is_minor else (lower[row], upper[row])
        start, end = min(start, float(low_end)), max(end, float(high_end))
    margin = 0.08 * (end - start) or 0.05 * abs(end) or 1.0
    return start - margin, end + margin


def mark_outside(panel: Axes, values: Sequence[float] | np.ndarray, colours: Sequence[str]) -> None:
    """An arrow at the edge of the axis, and the value, for each row outside its limits; row i is at height i."""
    low, high = panel.get_xlim()
    for row, (value, colour) in enumerate(zip(values, colours, strict=True)):
        if not np.isfinite(value) or low <= value <= high:
            continue
        right = value > high
        edge = high if right else low
        panel.plot(edge, row, ">" if right else "<", color=colour, markersize=4.5, clip_on=False, zorder=4)
        text = (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "\N{MINUS SIGN}")
        panel.annotate(
            text,
            (edge, row),
            xytext=(-5 if right else 5, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            va="center",
            fontsize=6.5,
        )
