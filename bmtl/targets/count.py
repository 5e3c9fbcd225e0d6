"""Counts: 0, 1, 2, ..."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.family import Family, check_numeric, check_shape, first_row, read_only, register
from bmtl.targets.metrics.counts import count_pit
from bmtl.targets.points import Points
from bmtl.targets.score import Score, Scored
from bmtl.targets.scores import counts, real
from bmtl.targets.streaming import NumberSums, Sums


@register
@dataclass(frozen=True)
class Count(Family):
    """Whole numbers from 0 ``(N,)`` as float64, NaN where missing (-1 in integer arrays); never scaled."""

    name: ClassVar[str] = "count"
    loss_name: ClassVar[str] = "MAE"

    def check(self, target: str, values: ArrayLike, rows: int) -> np.ndarray:
        given = np.asarray(values)
        check_numeric(target, given)
        check_shape(target, given, (rows,), "one count per row")
        array = given.astype(np.float64)
        if given.dtype.kind == "i":
            array[given == -1] = np.nan
        wrong = (array < 0) | np.isinf(array) | ((array != np.floor(array)) & ~np.isnan(array))
        if wrong.any():
            raise ValueError(
                f"A count is a whole number from 0, or NaN where it is missing, and {first_row(target, given, wrong)}."
            )
        return read_only(array)

    @property
    def scores(self) -> tuple[Score, ...]:
        return (real.MAE, real.NLL, real.CRPS, counts.ECE, counts.DEVIANCE)

    def losses(self, rows: Scored) -> np.ndarray | None:
        """Distance of the predictive mean from the count."""
        return np.abs(rows.labels - rows.mean()) if rows.prediction.has("mean") else None

    def pit(self, rows: Scored) -> np.ndarray | None:
        """Randomised between the cdf below the count and the one at it."""
        return count_pit(rows.labels, rows.predictive()) if rows.prediction.has("predictive") else None

    def points(self, rows: Scored) -> dict[str, Points]:
        return {"": Points.of(rows.labels, rows.mean())} if rows.prediction.has("mean") else {}

    def realised(self, rows: Scored) -> np.ndarray | None:
        """Squared errors."""
        return np.square(rows.labels - rows.mean()) if rows.prediction.has("mean") else None

    def sums(self) -> Sums | None:
        return NumberSums()

    def missing(self, values: np.ndarray) -> np.ndarray:
        return np.isnan(values)
