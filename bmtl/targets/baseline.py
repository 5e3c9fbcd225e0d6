"""Baselines of targets, from a few numbers of the inputs: subtracted before scaling, added back in units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np


@dataclass(frozen=True, eq=False)
class LinearBaseline:
    """A linear function of named numbers of the inputs, such as numbers of atoms. A model learns the residual.

    Args:
        features: Names of the D numbers.
        coefficients: ``(D,)``, in reported units each.
        intercept: In reported units.
        fitted: Whether the numbers were fitted to labels, and are to be fitted again where fewer labels are known.

    Raises:
        ValueError: If names and coefficients differ in number, or a number is not finite.
    """

    features: tuple[str, ...]
    coefficients: np.ndarray
    intercept: float = 0.0
    fitted: bool = False

    def __post_init__(self) -> None:
        coefficients = np.array(self.coefficients, dtype=np.float64)
        if coefficients.shape != (len(self.features),):
            raise ValueError(
                f"A baseline has a coefficient for each of {list(self.features)}; got {coefficients.shape}."
            )
        if not np.isfinite([*coefficients, self.intercept]).all():
            raise ValueError(f"A baseline's numbers are finite; got {coefficients} and {self.intercept}.")
        coefficients.setflags(write=False)
        object.__setattr__(self, "features", tuple(self.features))
        object.__setattr__(self, "coefficients", coefficients)

    @classmethod
    def fit(cls, features: Sequence[str], numbers: np.ndarray, values: np.ndarray) -> Self:
        """Least squares, with an intercept.

        Args:
            features: Names of the D numbers.
            numbers: ``(N, D)``, of the training rows.
            values: Labels ``(N,)`` in reported units; NaN where missing.

        Raises:
            ValueError: If there is no label.
        """
        there = ~np.isnan(values)
        if not there.any():
            raise ValueError("A baseline is fitted on labels, and all are missing.")
        x, y = np.asarray(numbers[there], dtype=np.float64), np.asarray(values[there], dtype=np.float64)
        centre = x.mean(axis=0)  # the sizes of counts and of energies differ by many decades
        slope = np.linalg.lstsq(x - centre, y - y.mean())[0]
        return cls(tuple(features), slope, float(y.mean() - centre @ slope), fitted=True)

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """The baseline ``(N,)`` of rows with these numbers ``(N, D)``, in reported units."""
        found = np.full(len(numbers), self.intercept)
        for column, coefficient in zip(np.asarray(numbers, dtype=np.float64).T, self.coefficients, strict=True):
            found += column * coefficient
        return found

    def spec(self) -> dict[str, Any]:
        """The baseline as plain values that JSON supports; `from_spec` is the inverse."""
        return {
            "features": list(self.features),
            "coefficients": self.coefficients.tolist(),
            "intercept": float(self.intercept),
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Self:
        """The inverse of `spec`."""
        return cls(tuple(spec["features"]), np.array(spec["coefficients"]), spec["intercept"])
