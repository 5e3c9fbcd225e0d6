"""One label of another family for each pixel of an image."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.classes import Classes
from bmtl.targets.family import Family, check_numeric, read_only, register
from bmtl.targets.real import Real
from bmtl.targets.scaler import Scaler
from bmtl.targets.score import Score, Scored
from bmtl.targets.streaming import PixelReducer, Reducer
from bmtl.targets.streaming.pixels import flat_pixels


def _labelled_pixels(rows: Scored) -> Scored:
    """The labelled pixels of images as rows of their own family."""
    assert isinstance(rows.family, Pixels)
    of = rows.family.of
    labels, prediction = flat_pixels(rows.labels, rows.prediction)
    seen = ~of.missing(labels)
    return Scored(labels[seen], prediction.take(seen), of, rows.scaler)


def _of_pixels(score: Score) -> Score:
    """A score of rows as one of images."""
    return replace(score, compute=lambda rows: score.compute(_labelled_pixels(rows)))


def _compact(given: np.dtype, checked: np.dtype) -> np.dtype:
    """The type that labels are kept in: as they were given where that holds what is missing, else the family's own."""
    same_kind = given.kind == checked.kind and given.kind in "fi"
    return given if same_kind and given.itemsize < checked.itemsize and given != np.float16 else checked


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether all numbers are equal, NaN to NaN."""
    return bool(((one == other) | ((one != one) & (other != other))).all())


@register
@dataclass(frozen=True)
class Pixels(Family):
    """Labels ``(N, H, W)``, or ``(N, H, W, d)`` for a vector per pixel; each pixel is of the family `of`.

    A row is missing where all of its pixels are. Labels stay in the precision that they come in, float32 or int8 included,
    since images are large.

    Args:
        of: Family of a pixel.
    """

    name: ClassVar[str] = "pixels"
    in_one_column: ClassVar[bool] = False
    of: Family = field(default_factory=Real)

    @property
    def scaled(self) -> bool:
        return self.of.scaled

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.of.class_names

    def summary(self, labels: np.ndarray) -> str:
        """What a pixel's family says without labels, which are too many to go through."""
        return self.of.summary(labels.reshape(-1, *labels.shape[3:])[:0])

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
        found = array
        own = array.flags.writeable or array.base is not None  # what nobody can write to need not be copied
        for number, image in enumerate(array):  # one by one: the checks of a pixel's family work on copies in float64
            try:
                flat = self.of.check(target, image.reshape(-1, *array.shape[3:]), image.shape[0] * image.shape[1])
            except ValueError as error:
                raise ValueError(
                    f"Image {number} of target {target!r}, its pixels counted row by row: {error}"
                ) from error
            checked, kept = flat.reshape(image.shape), _compact(array.dtype, flat.dtype)
            if found is array and (own or kept != array.dtype or not _same(checked, image)):
                found = array.astype(kept)
            if found is not array:
                found[number] = checked
        return read_only(found)

    def missing(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(self.missing_pixels(values).reshape(len(values), -1).all(axis=1))

    def missing_pixels(self, values: np.ndarray) -> np.ndarray:
        """Which pixels have no label, bool ``(N, H, W)``."""
        flat = values.reshape(-1, *values.shape[3:])
        return np.asarray(self.of.missing(flat)).reshape(values.shape[:3])

    @property
    def of_rows(self) -> Family:
        """A pixel's family; of classes one that is judged by the mean intersection over union first."""
        return replace(self.of, segments=True) if type(self.of) is Classes else self.of

    @property
    def scores(self) -> tuple[Score, ...]:
        """Those of all labelled pixels together; for classes the mean intersection over union first."""
        return tuple(_of_pixels(score) for score in self.of_rows.scores)

    def primary(self, training_labels: np.ndarray) -> str:
        return self.scores[0].name

    def to_units(self, values: np.ndarray, scaler: Scaler) -> np.ndarray:
        return self.of.to_units(values, scaler)

    def variance_to_units(self, variance: np.ndarray, scaler: Scaler) -> np.ndarray:
        return self.of.variance_to_units(variance, scaler)

    def log_volume(self, labels: np.ndarray | None, scaler: Scaler) -> np.ndarray:
        """Of an image, the sum over its labelled pixels.

        Raises:
            ValueError: Without labels, since their number is not known.
        """
        if not self.scaled:
            return np.zeros(())
        if labels is None:
            raise ValueError(
                "Densities of images are in reported units only with the labels, which say how many pixels count."
            )
        flat = labels.reshape(-1, *labels.shape[3:])
        each = np.broadcast_to(self.of.log_volume(flat, scaler), (len(flat),)).reshape(labels.shape[:3])
        return np.asarray((each * ~self.missing_pixels(labels)).sum(axis=(1, 2)))

    def reducer(self, scaler: Scaler, *, pixels: int = 10_000, seed: int = 0) -> Reducer | None:
        return PixelReducer(self.of_rows, self.of.sums(), scaler, pixels=pixels, seed=seed)

    def fit_scaler(self, values: np.ndarray) -> Scaler:
        return self.of.fit_scaler(values.reshape(-1, *values.shape[3:]))
