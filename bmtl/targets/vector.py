"""Several real numbers under one joint distribution."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.classes import check_class_names, numbered
from bmtl.targets.family import Family, check_numeric, check_shape, first_row, read_only, register
from bmtl.targets.points import Points
from bmtl.targets.scaler import Scaler
from bmtl.targets.score import Score, Scored
from bmtl.targets.scores import vector as scores
from bmtl.targets.scores.real import NLL
from bmtl.targets.streaming import Sums, VectorSums


@register
@dataclass(frozen=True)
class Vector(Family):
    """Vectors ``(N, d)`` as float64, NaN where a component is missing; each component is standardised.

    A row is missing where all of its components are.

    Args:
        components: Names of the d components, two or more.
        common_unit: All components have the target's unit, as displacements have: one scale serves all of them, and the
            length of an error is a score.

    Raises:
        ValueError: If there are fewer, or a name is repeated.
    """

    name: ClassVar[str] = "vector"
    in_one_column: ClassVar[bool] = False
    components: tuple[str, ...] = ("0", "1")
    common_unit: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "components", check_class_names(self.components))

    @classmethod
    def of_array(cls, values: np.ndarray) -> Family:
        """With as many components as there are columns, named by their numbers."""
        return cls(numbered(values.shape[1])) if values.ndim == 2 else cls()

    def summary(self, labels: np.ndarray) -> str:
        return f"components {', '.join(self.components)}"

    @property
    def scaled(self) -> bool:
        return True

    def axes(self) -> dict[str, tuple[str, ...] | None]:
        return {"entry": self.components}

    def check(self, target: str, values: ArrayLike, rows: int) -> np.ndarray:
        array = np.asarray(values)
        check_numeric(target, array)
        check_shape(target, array, (rows, len(self.components)), "one number per row and component")
        array = array.astype(np.float64)
        if np.isinf(array).any():
            raise ValueError(
                f"Labels are finite, and {first_row(target, array, np.isinf(array))}. Mark what is missing with NaN."
            )
        return read_only(array)

    def missing(self, values: np.ndarray) -> np.ndarray:
        return np.isnan(values).all(axis=-1)

    @property
    def scores(self) -> tuple[Score, ...]:
        if self.common_unit:
            return (scores.DISTANCE, scores.MAE_IN_UNITS, NLL, scores.ECE)
        return (scores.ENERGY, scores.MAE, NLL, scores.ECE)

    @property
    def further_scores(self) -> tuple[Score, ...]:
        return (scores.ENERGY,) if self.common_unit else (scores.DISTANCE,)

    def losses(self, rows: Scored) -> np.ndarray | None:
        """Length of the error of complete vectors, where components have a common unit."""
        return scores.distances(rows) if self.common_unit and rows.prediction.has("mean") else None

    def points(self, rows: Scored) -> dict[str, Points]:
        if not rows.prediction.has("mean"):
            return {}
        columns = zip(self.components, rows.labels.T, rows.mean().T, strict=True)
        return {name: Points.of(labels, predicted) for name, labels, predicted in columns}

    def realised(self, rows: Scored) -> np.ndarray | None:
        """Mean over the labelled components of squared errors, each in standard deviations of its labels."""
        if not rows.prediction.has("mean"):
            return None
        seen = ~np.isnan(rows.labels)  # and a mean that is NaN is no missing label
        squares = np.where(seen, np.square((rows.labels - rows.mean()) / rows.scaler.std), 0.0)
        return np.asarray(squares.sum(axis=-1) / seen.sum(axis=-1))

    def sums(self) -> Sums | None:
        """Of displacements; scores of other vectors have no sums."""
        return VectorSums(len(self.components)) if self.common_unit else None

    def variance_to_units(self, variance: np.ndarray, scaler: Scaler) -> np.ndarray:
        """Of one number per row, the mean over standardised components, which have no common unit: it stays."""
        return scaler.widened(variance, 2) if variance.ndim > 1 else variance

    def row_variance(self, variance: np.ndarray, scaler: Scaler) -> np.ndarray:
        """The mean over components, each in standard deviations of its labels."""
        return np.asarray((variance / np.square(scaler.std)).mean(axis=-1)) if variance.ndim > 1 else variance

    def log_volume(self, labels: np.ndarray | None, scaler: Scaler) -> np.ndarray:
        each = np.broadcast_to(np.log(scaler.std), (len(self.components),))
        return np.asarray(each.sum() if labels is None else (each * ~np.isnan(labels)).sum(axis=-1))

    def fit_scaler(self, values: np.ndarray) -> Scaler:
        fitted = Scaler.fit(values)
        if not self.common_unit:
            return fitted
        return Scaler(fitted.mean, np.full_like(fitted.std, np.sqrt(np.square(fitted.std).mean())))
