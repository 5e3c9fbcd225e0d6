"""Scores of the whole predictive and of its central intervals: CRPS, interval scores, coverage, sharpness."""

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.laws import sample_crps
from bmtl.targets.metrics.point import pair

WIS_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)


def crps_of_draws(y: ArrayLike, draws: ArrayLike, *, fair: bool = True) -> float:
    """Mean over rows of the continuous ranked probability score of draws, in the unit of `y`.

    Args:
        y: Labels ``(N,)``.
        draws: Predictive draws ``(S, N)``.
        fair: Estimate the score of what the draws were drawn from, without bias, as between methods that draw
            differently often; it can be negative. Otherwise the score of the draws as a distribution, which is larger.

    Returns:
        The score; NaN where an entry is NaN.

    Raises:
        ValueError: If the shapes are others, or the fair score is asked of one draw.

    Source:
        Gneiting & Raftery (2007), section 4.2; Ferro (2014), Quarterly Journal of the Royal Meteorological Society 140,
        for the fair score.
    """
    labels, drawn = np.asarray(y, dtype=float), np.asarray(draws, dtype=float)
    if labels.ndim != 1 or not labels.size or drawn.ndim != 2 or not len(drawn) or drawn.shape[1] != labels.size:
        raise ValueError(
            f"y has shape {labels.shape} and draws {drawn.shape}; expected (N,) and (S, N), a row and a draw at least."
        )
    return float(sample_crps(labels, drawn, fair=fair).mean())


def interval_score(y: ArrayLike, lower: ArrayLike, upper: ArrayLike, level: float) -> float:
    """Mean over rows of the width of an interval plus ``2 / (1 - level)`` times the distance of a label outside it.

    The quantiles at ``(1 - level) / 2`` and ``(1 + level) / 2`` minimise it in expectation.

    Args:
        y: Labels ``(N,)``.
        lower: Lower ends ``(N,)``.
        upper: Upper ends ``(N,)``.
        level: Nominal level of the interval, in (0, 1).

    Returns:
        The score in the unit of `y`; NaN where an entry is NaN.

    Raises:
        ValueError: If the shapes differ or there is no row, an upper end is below its lower end, or the level is outside
            (0, 1).

    Source:
        Gneiting & Raftery (2007), equation 43.
    """
    labels, low, high = _interval(y, lower, upper)
    if not 0 < level < 1:
        raise ValueError(f"The interval's level is {level}; expected one in (0, 1).")
    missed = np.maximum(low - labels, 0) + np.maximum(labels - high, 0)
    with np.errstate(invalid="ignore"):  # an interval from infinity to infinity has no width
        width = np.where((low == high) & np.isinf(low), 0.0, high - low)
    return float((width + 2 / (1 - level) * missed).mean())


def weighted_interval_score(
    y: ArrayLike, median: ArrayLike, lower: ArrayLike, upper: ArrayLike, levels: ArrayLike
) -> float:
    """The absolute error of the median and L interval scores, weighted so that with many levels it tends to the CRPS.

    ``(|y - median| / 2 + sum_l (1 - level_l) / 2 * score_l) / (L + 1/2)``, a mean over rows.

    Args:
        y: Labels ``(N,)``.
        median: Predictive medians ``(N,)``.
        lower: Lower ends ``(L, N)``.
        upper: Upper ends ``(L, N)``.
        levels: Nominal levels ``(L,)``, in (0, 1).

    Returns:
        The score in the unit of `y`; NaN where an entry is NaN.

    Raises:
        ValueError: If the shapes do not fit, or as `interval_score`.

    Source:
        Bracher, Ray, Gneiting & Reich (2021), PLOS Computational Biology 17, equation 1.
    """
    nominal, low, high = (np.asarray(values, dtype=float) for values in (levels, lower, upper))
    if nominal.ndim != 1 or low.ndim != 2 or low.shape != high.shape or len(low) != nominal.size:
        raise ValueError(
            f"levels have shape {nominal.shape}, lower {low.shape} and upper {high.shape}; expected (L,), (L, N), (L, N)."
        )
    labels, middle = pair(y, median)
    total = np.abs(labels - middle).mean() / 2
    for level, bottom, top in zip(nominal, low, high, strict=True):
        total += (1 - level) / 2 * interval_score(labels, bottom, top, level)
    return float(total / (nominal.size + 0.5))


def coverage_of_intervals(y: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> float:
    """Share of labels ``(N,)`` inside ``[lower, upper]``, ends included; NaN where an entry is NaN.

    Raises:
        ValueError: If the shapes differ, there is no row, or an upper end is below its lower end.
    """
    labels, low, high = _interval(y, lower, upper)
    if np.isnan([labels, low, high]).any():
        return float("nan")
    return float(((labels >= low) & (labels <= high)).mean())


def _interval(y: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, low = pair(y, lower)
    _, high = pair(y, upper)
    if (high < low).any():
        raise ValueError(f"{int((high < low).sum())} upper ends are below their lower ends; give lower before upper.")
    return labels, low, high
