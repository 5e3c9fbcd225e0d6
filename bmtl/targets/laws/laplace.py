"""A mixture of Laplace components."""

from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.laws.continuous import ContinuousMixture
from bmtl.targets.laws.mixture import Parameter, finite, positive
from bmtl.targets.scaler import Scaler


class LaplaceMixture(ContinuousMixture):
    """The mean of S Laplace distributions for each of N rows.

    Args:
        loc: Medians ``(S, N)``.
        scale: Mean absolute deviations; positive, in the unit of `loc`.

    Raises:
        ValueError: If a scale is not positive and finite, a location infinite, or the shapes do not broadcast.
    """

    name: ClassVar[str] = "laplace"
    loc = Parameter()
    scale = Parameter()

    def __init__(self, loc: ArrayLike, scale: ArrayLike) -> None:
        super().__init__(loc=finite("loc", loc), scale=positive("scale", scale))

    @classmethod
    def to_units(cls, parameters: dict[str, np.ndarray], scaler: Scaler) -> dict[str, np.ndarray]:
        return {"loc": scaler.restored(parameters["loc"]), "scale": scaler.widened(parameters["scale"])}

    def scaled(self, factor: ArrayLike) -> Self:
        """The mixture with every component's scale times `factor`, a number or ``(N,)``; locations stay."""
        return type(self)(self.loc, self.scale * np.asarray(factor, dtype=float))

    def component_mean(self) -> np.ndarray:
        return self.loc

    def component_variance(self) -> np.ndarray:
        return 2 * self.scale**2

    def component_cdf(self, y: np.ndarray) -> np.ndarray:
        return _below(self._standardised(y))

    def component_survival(self, y: np.ndarray) -> np.ndarray:
        return _below(-self._standardised(y))

    def component_log_prob(self, y: np.ndarray) -> np.ndarray:
        return -np.abs(self._standardised(y)) - np.log(2 * self.spread(y.ndim)[1])

    def component_quantile(self, p: np.ndarray) -> np.ndarray:
        loc, scale = self.spread(p.ndim)
        with np.errstate(divide="ignore"):
            distance = -np.log(2 * np.minimum(p, 1 - p))
        return loc + scale * np.where(p < 0.5, -distance, distance)

    def component_distance(self, y: np.ndarray) -> np.ndarray:
        z = np.abs(self._standardised(y))
        return self.spread(y.ndim)[1] * (z + np.exp(-z))

    def component_half_difference(self) -> np.ndarray:
        return 0.75 * self.scale

    def centres(self) -> np.ndarray:
        return self.loc

    def widths(self) -> np.ndarray:
        return self.scale

    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        return (self.loc - 30 * self.scale).min(axis=0), (self.loc + 30 * self.scale).max(axis=0)

    def draw(self, random: np.random.Generator) -> np.ndarray:
        return random.laplace(self.loc, self.scale)

    def _standardised(self, y: np.ndarray) -> np.ndarray:
        loc, scale = self.spread(y.ndim)
        return (y - loc) / scale


def _below(z: np.ndarray) -> np.ndarray:
    """The standard Laplace cdf."""
    half = np.exp(-np.abs(z)) / 2
    return np.where(z < 0, half, 1 - half)
