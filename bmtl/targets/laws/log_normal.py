"""A mixture of log-normal components."""

from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import erf, ndtr, ndtri

from bmtl.targets.laws.continuous import PositiveMixture
from bmtl.targets.laws.mixture import Parameter, finite, positive
from bmtl.targets.scaler import Scaler


class LogNormalMixture(PositiveMixture):
    """The mean of S log-normal distributions for each of N rows.

    Args:
        loc: Means of ``log y``, ``(S, N)``.
        scale: Standard deviations of ``log y``; positive.

    Raises:
        ValueError: If a scale is not positive and finite, a location infinite, or the shapes do not broadcast.
    """

    name: ClassVar[str] = "log-normal"
    loc = Parameter()
    scale = Parameter()

    def __init__(self, loc: ArrayLike, scale: ArrayLike) -> None:
        super().__init__(loc=finite("loc", loc), scale=positive("scale", scale))

    @classmethod
    def to_units(cls, parameters: dict[str, np.ndarray], scaler: Scaler) -> dict[str, np.ndarray]:
        if (scaler.mean != 0).any():
            return super().to_units(parameters, scaler)
        return parameters | {"loc": parameters["loc"] + np.log(scaler.std)}

    def scaled(self, factor: ArrayLike) -> Self:
        """The mixture with every component's scale times `factor`, a number or ``(N,)``; medians stay."""
        return type(self)(self.loc, self.scale * np.asarray(factor, dtype=float))

    def component_mean(self) -> np.ndarray:
        return np.exp(self.loc + self.scale**2 / 2)

    def component_variance(self) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.expm1(self.scale**2) * np.exp(2 * self.loc + self.scale**2)

    def component_cdf(self, y: np.ndarray) -> np.ndarray:
        return ndtr(self._standardised(y))

    def component_survival(self, y: np.ndarray) -> np.ndarray:
        return ndtr(-self._standardised(y))

    def component_log_prob(self, y: np.ndarray) -> np.ndarray:
        z = self._standardised(y)
        with np.errstate(divide="ignore", invalid="ignore"):
            density = -(z**2) / 2 - np.log(self.spread(y.ndim)[1]) - np.log(y) - 0.5 * np.log(2 * np.pi)
        return np.where(y <= 0, -np.inf, density)

    def component_quantile(self, p: np.ndarray) -> np.ndarray:
        loc, scale = self.spread(p.ndim)
        z = np.where(p < 0.5, ndtri(np.minimum(p, 1 - p)), -ndtri(np.minimum(p, 1 - p)))
        return self.from_axis(loc + scale * z)

    def component_distance(self, y: np.ndarray) -> np.ndarray:
        z, scale = self._standardised(y), self.spread(y.ndim)[1]
        mean = self.component_mean().reshape(scale.shape)
        return y * (1 - 2 * ndtr(-z)) + mean * (1 - 2 * ndtr(z - scale))

    def component_half_difference(self) -> np.ndarray:
        return self.component_mean() * erf(self.scale / 2)

    def centres(self) -> np.ndarray:
        return self.loc

    def widths(self) -> np.ndarray:
        return self.scale

    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.loc - 8 * self.scale, self.loc + self.scale * (self.scale + 8)
        return low.min(axis=0), high.max(axis=0)

    def draw(self, random: np.random.Generator) -> np.ndarray:
        return random.lognormal(self.loc, self.scale)

    def _standardised(self, y: np.ndarray) -> np.ndarray:
        """``(log y - loc) / scale``; -inf for y up to 0."""
        loc, scale = self.spread(y.ndim)
        return (self.to_axis(np.maximum(y, 0)) - loc) / scale
