"""Standardisation that can be undone."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

ROOM = 1e6
"""How much larger or smaller than a standard deviation numbers may be that are to fit into their type."""
MOST_OFFSET = 10.0
"""Distance of a mean from zero, in standard deviations, up to which values in units stay in the dtype of the scaled ones."""


def rounded_once(operation: np.ufunc, values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """`operation` in float64, its result in the dtype of `values`, without a float64 copy of them.

    In float32 throughout, the rounding of `other` would be the same error in every entry, which no mean removes.
    """
    if values.dtype.kind != "f":
        return np.asarray(operation(values, other))
    shape = np.broadcast_shapes(values.shape, np.shape(other))
    return np.asarray(
        operation(values, other, out=np.empty(shape, values.dtype), dtype=np.float64, casting="same_kind")
    )


def _has_room(dtype: np.dtype, factor: np.ndarray) -> bool:
    """Whether a type of floats holds numbers of the usual size times a factor: without, they would be 0 or infinite."""
    if dtype.kind != "f":
        return False
    limits = np.finfo(dtype)
    return bool(((factor > ROOM * float(limits.tiny)) & (factor < float(limits.max) / ROOM)).all())


@dataclass(frozen=True, eq=False)
class Scaler:
    """Subtracts a mean, divides by a standard deviation, and optionally clips.

    Args:
        mean: One per column, or a single number, in the values' units.
        std: Same shape, positive.
        clip: Largest absolute value that `transform` returns, in standard deviations. A column that hardly varies can
            standardise to large numbers on a few rows, and a network's error on those would swamp the mean.

    Raises:
        ValueError: If the shapes differ, `std` is not positive and finite, or `clip` is not positive.
    """

    mean: np.ndarray
    std: np.ndarray
    clip: float | None = None

    def __post_init__(self) -> None:
        mean, std = np.array(self.mean, dtype=np.float64), np.array(self.std, dtype=np.float64)
        if mean.shape != std.shape:
            raise ValueError(f"A scaler takes one std per mean; got mean {mean.shape} and std {std.shape}.")
        if not np.isfinite(mean).all():
            raise ValueError(f"A scaler's mean must be finite; got {mean}. Leave infinite values out before fitting.")
        if not (np.isfinite(std) & (std > 0)).all():
            raise ValueError(f"A scaler's std must be positive and finite; got {std}. Use 1 for a constant column.")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip is a positive number of standard deviations, or None; got {self.clip}.")
        for array in (mean, std):
            array.setflags(write=False)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)

    @classmethod
    def identity(cls) -> Self:
        """The scaler that changes nothing."""
        return cls(np.zeros(()), np.ones(()))

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return bool((self.mean == 0).all() and (self.std == 1).all() and self.clip is None)

    @classmethod
    def fit(cls, values: ArrayLike, clip: float | None = None) -> Self:
        """Mean and standard deviation over the first axis; NaN counts as missing, a constant column gets std 1.

        Args:
            values: ``(N,)`` or ``(N, ...)``, the training rows.
            clip: See the class.

        Raises:
            ValueError: If a column has no value at all, or an infinite one.
        """
        array = np.asarray(values, dtype=np.float64)
        if array.ndim == 0:
            raise ValueError("A scaler is fitted on rows; got a single number. Give an array of shape (N,) or (N, D).")
        if np.isinf(array).any():
            raise ValueError(f"A scaler cannot be fitted on infinite values; got {np.isinf(array).sum()} of them.")
        missing = np.isnan(array)
        if array.shape[0] == 0 or missing.all(axis=0).any():
            raise ValueError(
                f"A scaler needs at least one value per column; {array.shape[0]} rows were given and "
                f"{int(np.sum(missing.all(axis=0)))} columns hold only NaN. Leave those columns or tasks out."
            )
        # Of ratios to a power of two, which changes no digit: squares of 1e200 overflow, and those of 1e-200 vanish.
        exponent = np.frexp(np.nanmax(np.abs(array), axis=0))[1]
        ratios = np.ldexp(array, -exponent)
        mean, std = (np.ldexp(of(ratios, axis=0), exponent) for of in (np.nanmean, np.nanstd))
        # Compare the extremes, not std with 0: the mean's rounding gives a constant column a tiny std.
        constant = (np.nanmax(array, axis=0) == np.nanmin(array, axis=0)) | (std == 0)
        return cls(mean, np.where(constant, 1.0, std), clip)

    def shifted(self, offset: np.ndarray) -> Self:
        """The scaler of rows whose labels have an offset ``(N,)`` each, in units, that is subtracted first."""
        mean = self.mean + offset
        return type(self)(mean, np.broadcast_to(self.std, mean.shape), self.clip)

    def transform(self, values: ArrayLike) -> np.ndarray:
        """Values ``(..., *columns)`` in standard deviations from the mean, as float64; NaN stays NaN."""
        scaled = (np.asarray(values, dtype=np.float64) - self.mean) / self.std
        return scaled if self.clip is None else np.clip(scaled, -self.clip, self.clip)

    def restored(self, scaled: np.ndarray) -> np.ndarray:
        """As `inverse`, in the dtype of `scaled` where that loses nothing of what was learnt.

        float32 is exact to 6e-8 of a value: where a mean is up to ten standard deviations from zero, that is less than a
        millionth of a standard deviation. A total energy would lose what is learnt of it, and comes back as float64; so does
        what is outside of the range of float32.
        """
        values = np.asarray(scaled)
        if (np.abs(self.mean) > MOST_OFFSET * self.std).any() or not _has_room(values.dtype, self.std):
            return self.inverse(values)
        found = rounded_once(np.multiply, values, self.std)
        return np.add(found, self.mean, out=found, dtype=np.float64, casting="same_kind")

    def widened(self, scales: np.ndarray, power: int = 1) -> np.ndarray:
        """Scales (or variances, with power 2) of scaled values in units, in their dtype where it has room for them."""
        values, factor = np.asarray(scales), self.std**power
        if not _has_room(values.dtype, factor):
            values = values.astype(np.float64)
        return rounded_once(np.multiply, values, factor)

    def inverse(self, scaled: ArrayLike) -> np.ndarray:
        """Scaled values back in their units, as float64.

        float64 whatever comes in: a total energy of -1e7 meV in float32 is known to 1 meV only. What `transform`
        clipped comes back as the clipped value.
        """
        return np.asarray(scaled, dtype=np.float64) * self.std + self.mean
