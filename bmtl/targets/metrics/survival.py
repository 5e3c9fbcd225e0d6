"""Scores of predicted times to an event, some of them known up to an interval only.

Labels are intervals ``(N, 2)``, lower and upper end: equal ends are an observed event, an infinite upper end is right
censoring.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.laws.predictive import Predictive
from bmtl.targets.metrics.pit import randomised_pit

BLOCK = 512  # rows that are compared with each other directly
TIMES = 100  # points of time that a Brier score is integrated over


def has_comparable_pairs(labels: ArrayLike) -> bool:
    """Whether `censored_concordance` has a value: one of the labels ``(N, 2)`` is known to come before another."""
    lower, _ = checked_times(labels)
    return bool(np.isfinite(censored_concordance(labels, np.zeros(len(lower)))))


def censored_concordance(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Share of comparable pairs that are predicted in their order; a tie of the predictions counts one half.

    A pair is comparable where the one event is known to come before the other: its upper end is below the other's lower
    end, or equal to it where the other is censored there. N sqrt(N) log(N), and exact with ties.

    Args:
        labels: Intervals ``(N, 2)``.
        predicted: Predicted times ``(N,)``, or anything that rises with them.

    Returns:
        In [0, 1]; NaN where an entry is NaN, and without a comparable pair.

    Raises:
        ValueError: If the shapes are others.

    Source:
        Harrell et al. (1982), Journal of the American Medical Association 247, for right censoring.
    """
    lower, upper = checked_times(labels)
    values = np.asarray(predicted, dtype=float)
    if values.shape != lower.shape:
        raise ValueError(
            f"labels have shape {np.shape(labels)} and predicted {values.shape}; expected (N, 2) and (N,)."
        )
    if np.isnan(values).any() or np.isnan(lower).any():
        return float("nan")
    early = np.argsort(upper)
    late = np.lexsort((lower < upper, lower))  # at one time, events before censored rows
    ends, starts = upper[early], lower[late]
    open_ = (lower < upper)[late]
    # How many of `early` come before each of `late`.
    before = np.where(open_, np.searchsorted(ends, starts, side="right"), np.searchsorted(ends, starts, side="left"))
    # An interval does not come before itself: its upper end is above its lower end.
    wins = ties = pairs = 0
    of_early, of_late = values[early], values[late]
    for start in range(0, late.size, BLOCK):
        stop = min(start + BLOCK, late.size)
        common, most = int(before[start]), int(before[start:stop].max())
        known = np.sort(of_early[:common])
        mine = of_late[start:stop]
        below = np.searchsorted(known, mine, side="left")
        wins += int(below.sum())
        ties += int((np.searchsorted(known, mine, side="right") - below).sum())
        for first in range(common, most, BLOCK):
            some = np.arange(first, min(first + BLOCK, most))
            comparable = some < before[start:stop, None]
            wins += int((comparable & (of_early[some] < mine[:, None])).sum())
            ties += int((comparable & (of_early[some] == mine[:, None])).sum())
        pairs += int(before[start:stop].sum())
    return (wins + ties / 2) / pairs if pairs else float("nan")


def censoring_survival(labels: ArrayLike, times: ArrayLike, *, before: bool = False) -> np.ndarray:
    """Kaplan-Meier estimate of the probability of not being censored by each time, events counting as the later ones.

    Args:
        labels: Right-censored or observed times as intervals ``(N, 2)``.
        times: ``(...)``.
        before: The probability of not being censored *before* each time, the limit from the left.

    Source:
        Kaplan & Meier (1958), with events and censoring exchanged.
    """
    time, upper = checked_times(labels)
    censored = np.isinf(upper)
    distinct, place = np.unique(time, return_inverse=True)
    at_risk = time.size - np.cumsum(np.bincount(place)) + np.bincount(place)
    events = np.bincount(place, weights=~censored)
    leaving = np.bincount(place, weights=censored)
    staying = at_risk - events  # at one time, events come first
    curve = np.cumprod(np.where(staying > 0, 1 - leaving / np.where(staying > 0, staying, 1), 1.0))
    index = np.searchsorted(distinct, np.asarray(times, dtype=float), side="left" if before else "right")
    return np.append(1.0, curve)[index]


class SurvivalCurve(NamedTuple):
    """The Kaplan-Meier estimate at the distinct times of events, ascending."""

    times: np.ndarray
    survival: np.ndarray
    """Probability that the event has not happened up to and at each time."""
    error: np.ndarray
    """Its standard error by Greenwood's formula; NaN where the estimate is 0."""


def survival_of_times(labels: ArrayLike) -> SurvivalCurve:
    """Kaplan-Meier estimate of the distribution of times, some of them right-censored.

    Args:
        labels: Right-censored or observed times as intervals ``(N, 2)``; at one time, events come before censoring.

    Raises:
        ValueError: If a label is known up to a finite interval, or the shape is another.

    Source:
        Kaplan & Meier (1958); Greenwood (1926) for the error.
    """
    time, upper = checked_times(labels)
    event = np.isfinite(upper)
    if (event & (upper > time)).any():
        raise ValueError("The Kaplan-Meier estimate takes observed and right-censored times; a label is an interval.")
    times, deaths = np.unique(time[event], return_counts=True)
    at_risk = time.size - np.searchsorted(np.sort(time), times, side="left")
    survival = np.cumprod(1 - deaths / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = survival * np.sqrt(np.cumsum(deaths / (at_risk * (at_risk - deaths))))
    return SurvivalCurve(times, survival, np.where(survival > 0, error, np.nan))


def brier_at(labels: ArrayLike, predictive: Predictive, times: ArrayLike) -> np.ndarray:
    """Brier score of predicted survival at each time, ``(T,)``, weighted against right censoring.

    ``S(t)^2`` for events up to t and ``(1 - S(t))^2`` for rows known to live on, each over the probability of not being
    censored until then (from these rows); rows censored before t count by those weights of others.

    Args:
        labels: Right-censored or observed times as intervals ``(N, 2)``.
        predictive: Of the same rows.
        times: ``(T,)``; beyond the last row that is still observed the weights do not exist, and the score is NaN.

    Returns:
        In [0, 1] but for the weights; NaN throughout where a label is known up to a finite interval.

    Source:
        Graf, Schmoor, Sauerbrei & Schumacher (1999), Statistics in Medicine 18.
    """
    time, upper = checked_times(labels)
    at = np.asarray(times, dtype=float)
    if (np.isfinite(upper) & (upper > time)).any():
        return np.full(at.shape, np.nan)
    event = np.isfinite(upper)
    survival = predictive.survival(at[:, None] * np.ones(time.size))  # (T, N)
    of_event = censoring_survival(labels, time, before=True)
    of_rest = censoring_survival(labels, at)
    happened, alive = event & (time <= at[:, None]), time > at[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = np.where(happened, np.square(survival) / of_event, 0)
        kept = np.where(alive, np.square(1 - survival) / of_rest[:, None], 0)
    scores = (lost + kept).mean(axis=1)
    return np.where(of_rest > 0, scores, np.nan)


def integrated_brier(labels: ArrayLike, predictive: Predictive) -> float:
    """Mean of `brier_at` over the time between the 5 % and 95 % quantiles of the observed events.

    At 100 times, between which the score is taken as linear. 0.25 is what a survival of 1/2 throughout would score.

    Returns:
        NaN where there are fewer than two different times of events in that range, or a label is known up to a finite
        interval.
    """
    time, upper = checked_times(labels)
    events = time[np.isfinite(upper)]
    if (np.isfinite(upper) & (upper > time)).any() or not events.size:
        return float("nan")
    first, last = np.quantile(events, [0.05, 0.95])
    if not first < last:
        return float("nan")
    times = np.linspace(first, last, TIMES)
    return float(np.trapezoid(brier_at(labels, predictive, times), times) / (last - first))


def interval_pit(labels: ArrayLike, predictive: Predictive, *, seed: int = 0) -> np.ndarray:
    """Predictive cdf at labels that are intervals ``(N,)``, uniform between the ends where they differ.

    See `randomised_pit`. Infinite ends have the cdf 0 and 1.
    """
    lower, upper = np.asarray(labels, dtype=float).T
    return randomised_pit(_cdf(predictive, lower), _cdf(predictive, upper), seed=seed)


def checked_times(labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends ``(N,)`` of intervals ``(N, 2)``.

    Raises:
        ValueError: If the shape is another, there is no row, or a lower end is above the upper one.
    """
    ends = np.asarray(labels, dtype=float)
    if ends.ndim != 2 or ends.shape[1] != 2 or not len(ends):
        raise ValueError(f"labels have shape {ends.shape}; expected (N, 2), lower and upper ends, a row at least.")
    if (ends[:, 0] > ends[:, 1]).any():
        raise ValueError(f"{int((ends[:, 0] > ends[:, 1]).sum())} lower ends are above their upper ends.")
    return ends[:, 0], ends[:, 1]


def _cdf(predictive: Predictive, ends: np.ndarray) -> np.ndarray:
    finite = np.where(np.isinf(ends), 0.0, ends)
    return np.where(np.isposinf(ends), 1.0, np.where(np.isneginf(ends), 0.0, predictive.cdf(finite)))
