"""Times to an event, some of them known up to an interval only."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.family import Family, check_numeric, first_row, read_only, register
from bmtl.targets.intervals import ENDS, check_intervals, exact_only, finite_ends, interval_summary
from bmtl.targets.metrics.survival import interval_pit
from bmtl.targets.points import Points
from bmtl.targets.scaler import Scaler
from bmtl.targets.score import Score, Scored
from bmtl.targets.scores import survival as scores
from bmtl.targets.scores.real import NLL


@register
@dataclass(frozen=True)
class TimeToEvent(Family):
    """Times as intervals ``(N, 2)``, lower and upper end, float64; NaN in both where missing.

    Equal ends: the event was observed. ``(t, inf)``: right-censored, the event had not happened by t. ``(0, t)``:
    left-censored. Anything else: interval-censored. Times ``(N,)`` are taken as observed. Times are positive, and divided
    by the training rows' mean time (of finite ends), never shifted.
    """

    name: ClassVar[str] = "time-to-event"
    of_events: ClassVar[bool] = True

    @property
    def scaled(self) -> bool:
        return True

    @property
    def intervals_from(self) -> float | None:
        return 0.0

    def summary(self, labels: np.ndarray) -> str:
        return interval_summary(labels)

    def label_axes(self) -> dict[str, tuple[str, ...] | None]:
        return ENDS

    def check(self, target: str, values: ArrayLike, rows: int) -> np.ndarray:
        array = np.asarray(values)
        check_numeric(target, array)
        intervals = check_intervals(target, array, rows, lowest=0.0)
        zero = intervals[:, 1] == 0
        if zero.any():
            raise ValueError(
                f"A time to an event is above 0, and {first_row(target, intervals, zero)}. Give a time within the first "
                "unit as a part of it, such as 0.5."
            )
        return read_only(intervals)

    def missing(self, values: np.ndarray) -> np.ndarray:
        return np.isnan(values).any(axis=-1)

    @property
    def scores(self) -> tuple[Score, ...]:
        return (scores.CONCORDANCE, NLL, scores.IBS, scores.ECE)

    def pit(self, rows: Scored) -> np.ndarray | None:
        """Uniform between the ends of an interval."""
        return interval_pit(rows.labels, rows.predictive()) if rows.prediction.has("predictive") else None

    def points(self, rows: Scored) -> dict[str, Points]:
        return {"": Points.of_intervals(rows.labels, rows.mean())} if rows.prediction.has("mean") else {}

    def log_volume(self, labels: np.ndarray | None, scaler: Scaler) -> np.ndarray:
        return exact_only(super().log_volume(labels, scaler), labels)

    def fit_scaler(self, values: np.ndarray) -> Scaler:
        times = finite_ends(values)
        return Scaler(np.zeros(()), np.nanmean(times))
