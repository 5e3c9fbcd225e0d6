"""Directions in space, such as surface normals."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.family import Family, check_numeric, check_shape, first_row, read_only, register
from bmtl.targets.points import Points
from bmtl.targets.scaler import Scaler
from bmtl.targets.score import Score, Scored
from bmtl.targets.scores import directions as scores
from bmtl.targets.scores.real import NLL
from bmtl.targets.streaming import AngleSums, Sums

TOLERANCE = 0.02  # of a length: labels of 8 bits a component are unit vectors to 0.007


@register
@dataclass(frozen=True)
class UnitVector(Family):
    """Vectors ``(N, 3)`` of length 1 as float64, NaN in all components where missing; never scaled.

    What is within 2 % of length 1, as labels of few bits are, is normalised.
    """

    name: ClassVar[str] = "unit-vector"
    loss_name: ClassVar[str] = "angle in degrees"
    in_one_column: ClassVar[bool] = False

    def axes(self) -> dict[str, tuple[str, ...] | None]:
        return {"entry": ("x", "y", "z")}

    def check(self, target: str, values: ArrayLike, rows: int) -> np.ndarray:
        given = np.asarray(values)
        check_numeric(target, given)
        check_shape(target, given, (rows, 3), "three components per row")
        array = given.astype(np.float64)
        length = np.sqrt(np.square(array).sum(axis=-1))  # inf where a component is
        unknown = np.isnan(array)
        wrong = (unknown.any(axis=-1) & ~unknown.all(axis=-1)) | (np.abs(length - 1) > TOLERANCE)
        if wrong.any():
            raise ValueError(
                f"A unit vector has length 1, or is NaN in all components where it is missing, and "
                f"{first_row(target, array, wrong)}. Divide vectors by their length, and mark zero vectors with NaN."
            )
        off = np.abs(length - 1) > 1e-6  # what is exact to float32 stays unchanged, bit by bit
        array[off] /= length[off, None]
        return read_only(array)

    def missing(self, values: np.ndarray) -> np.ndarray:
        return np.isnan(values[..., 0])

    @property
    def scores(self) -> tuple[Score, ...]:
        return (scores.MEAN_ANGLE, scores.MEDIAN_ANGLE, *scores.WITHIN, NLL)

    def losses(self, rows: Scored) -> np.ndarray | None:
        """The angle between label and mean direction in degrees."""
        return scores.angles_of_rows(rows) if rows.prediction.has("mean") else None

    def points(self, rows: Scored) -> dict[str, Points]:
        """The components of labels and mean directions."""
        if not rows.prediction.has("mean"):
            return {}
        columns = zip("xyz", rows.labels.T, rows.mean().T, strict=True)
        return {name: Points.of(labels, predicted) for name, labels, predicted in columns}

    def row_variance(self, variance: np.ndarray, scaler: Scaler) -> np.ndarray:
        """The sum over components: 0 of a known direction, 1 of one that may be any."""
        return np.asarray(variance.sum(axis=-1)) if variance.ndim > 1 else variance

    def sums(self) -> Sums | None:
        return AngleSums()
