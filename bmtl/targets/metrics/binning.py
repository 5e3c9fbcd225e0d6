"""Bins of predicted probabilities, and what happened in each."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Binning = Literal["width", "mass"]


class ReliabilityBins(NamedTuple):
    """Mean predicted probability, observed frequency and number of rows of each bin ``(M,)``; NaN in an empty bin."""

    predicted: np.ndarray
    observed: np.ndarray
    rows: np.ndarray


def bin_numbers(predicted: ArrayLike, bins: int, binning: Binning) -> np.ndarray:
    """Which of the bins ``0 ... bins - 1`` each predicted probability ``(N,)`` falls into.

    A bin holds its upper edge and not its lower one. Rows of one prediction are always in one bin, so the order of rows
    never counts; bins of equal mass therefore differ in size where predictions are tied, and some may be empty.

    Args:
        predicted: Probabilities ``(N,)``.
        bins: How many, 1 at least.
        binning: ``"width"``: equal intervals of [0, 1]. ``"mass"``: as equal numbers of rows as ties allow.

    Raises:
        ValueError: If there is no bin, or no such binning.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}; expected one at least.")
    values = np.asarray(predicted, dtype=float)
    inner = np.arange(1, bins)
    if binning == "width":
        upper = inner / bins
    elif binning == "mass":
        upper = np.sort(values)[-(-inner * values.size // bins) - 1]  # the last row of each bin
    else:
        raise ValueError(f"binning is {binning!r}; expected 'width' or 'mass'.")
    return np.searchsorted(upper, values, side="left")


def binned_reliability(
    predicted: ArrayLike, happened: ArrayLike, *, bins: int = 15, binning: Binning = "width"
) -> ReliabilityBins:
    """Predicted probability against observed frequency, bin by bin.

    Args:
        predicted: Probabilities ``(N,)`` of an event.
        happened: Whether it happened ``(N,)``, booleans or 0 and 1.
        bins: How many.
        binning: As `bin_numbers`.

    Raises:
        ValueError: If there is no row, the shapes differ, or as `bin_numbers`.
    """
    values, events = checked_events(predicted, happened)
    numbers = bin_numbers(values, bins, binning)
    count = np.bincount(numbers, minlength=bins)
    weight = np.where(count, count, np.nan)
    return ReliabilityBins(
        predicted=np.bincount(numbers, weights=values, minlength=bins) / weight,
        observed=np.bincount(numbers, weights=events, minlength=bins) / weight,
        rows=count,
    )


def checked_events(predicted: ArrayLike, happened: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as doubles ``(N,)``, or a ``ValueError`` that says what is wrong with them."""
    values, events = np.asarray(predicted, dtype=float), np.asarray(happened)
    if values.shape != events.shape or values.ndim != 1 or not values.size:
        raise ValueError(
            f"predicted has shape {values.shape} and happened {events.shape}; expected the same (N,), N at least 1."
        )
    if np.isnan(values).any() or values.min() < -1e-4 or values.max() > 1 + 1e-4:
        raise ValueError(f"predicted ranges from {values.min():.4g} to {values.max():.4g}; expected [0, 1].")
    if not np.isin(events, (0, 1)).all():
        raise ValueError("happened holds something else than 0 and 1; expected whether the event happened.")
    return values, events.astype(float)
