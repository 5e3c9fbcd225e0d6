"""One label of another family for each pixel of an image."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.family import Family, check_numeric, read_only, register
from bmtl.targets.real import Real
from bmtl.targets.scaler import Scaler


@register
@dataclass(frozen=True)
class Pixels(Family):
    """Labels ``(N, H, W)``, or ``(N, H, W, d)`` for a vector a pixel; each pixel is of the family `of`.

    A row is missing where all of its pixels are.

    Args:
        of: Family of a pixel.
    """

    name: ClassVar[str] = "pixels"
    of: Family = field(default_factory=Real)

    @property
    def scaled(self) -> bool:
        return self.of.scaled

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.of.class_names

    def axes(self) -> dict[str, tuple[str, ...] | None]:
        return {"height": None, "width": None, **self.of.axes()}

    def label_axes(self) -> dict[str, tuple[str, ...] | None]:
        return {"height": None, "width": None, **self.of.label_axes()}

    def check(self, target: str, values: ArrayLike, rows: int) -> np.ndarray:
        array = np.asarray(values)
        check_numeric(target, array)
        if array.ndim < 3 or len(array) != rows or 0 in array.shape:
            raise ValueError(
                f"Target {target!r} must have the shape ({rows}, H, W, ...), an image per row; got {array.shape}."
            )
        flat = self.of.check(
            target, array.reshape(-1, *array.shape[3:]), array[..., 0].size if array.ndim > 3 else array.size
        )
        return read_only(flat.reshape(array.shape))

    def missing(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(self.missing_pixels(values).reshape(len(values), -1).all(axis=1))

    def missing_pixels(self, values: np.ndarray) -> np.ndarray:
        """Which pixels have no label, bool ``(N, H, W)``."""
        flat = values.reshape(-1, *values.shape[3:])
        return np.asarray(self.of.missing(flat)).reshape(values.shape[:3])

    def fit_scaler(self, values: np.ndarray) -> Scaler:
        return self.of.fit_scaler(values.reshape(-1, *values.shape[3:]))
