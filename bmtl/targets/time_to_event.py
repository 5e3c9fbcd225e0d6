"""Times to an event, some of them known up to an interval only."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.family import Family, check_numeric, first_row, read_only, register
from bmtl.targets.intervals import ENDS, check_intervals, finite_ends
from bmtl.targets.scaler import Scaler


@register
@dataclass(frozen=True)
class TimeToEvent(Family):
    """Times as intervals ``(N, 2)``, lower and upper end, float64; NaN in both where missing.

    Equal ends: the event was observed. ``(t, inf)``: right-censored, the event had not happened by t. ``(0, t)``:
    left-censored. Anything else: interval-censored. Times ``(N,)`` are taken as observed. Times are positive, and divided
    by the training rows' mean time (of finite ends), never shifted.
    """

    name: ClassVar[str] = "time-to-event"

    @property
    def scaled(self) -> bool:
        return True

    def label_axes(self) -> dict[str, tuple[str, ...] | None]:
        return ENDS

    def check(self, target: str, values: ArrayLike, rows: int) -> np.ndarray:
        array = np.asarray(values)
        check_numeric(target, array)
        intervals = check_intervals(target, array, rows, lowest=0.0)
        zero = intervals[:, 1] == 0
        if zero.any():
            raise ValueError(f"A time to an event is above 0, and {first_row(target, intervals, zero)}.")
        return read_only(intervals)

    def missing(self, values: np.ndarray) -> np.ndarray:
        return np.isnan(values).any(axis=-1)

    def fit_scaler(self, values: np.ndarray) -> Scaler:
        times = finite_ends(values)
        return Scaler(np.zeros(()), np.nanmean(times))
