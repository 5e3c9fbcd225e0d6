"""A mixture of Weibull components."""

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gamma, gammainc, gammainccinv

from bmtl.targets.laws.continuous import PositiveMixture
from bmtl.targets.laws.mixture import Parameter, positive
from bmtl.targets.scaler import Scaler


class WeibullMixture(PositiveMixture):
    """The mean of S Weibull distributions for each of N rows; survival is ``exp(-(y / scale)^concentration)``.

    Args:
        scale: The 63 % quantile ``(S, N)``; positive.
        concentration: Positive; 1 is the exponential distribution, above it the hazard rises.

    Raises:
        ValueError: If one is not positive and finite, or the shapes do not broadcast.
    """

    name: ClassVar[str] = "weibull"
    scale = Parameter()
    concentration = Parameter()

    def __init__(self, scale: ArrayLike, concentration: ArrayLike) -> None:
        super().__init__(scale=positive("scale", scale), concentration=positive("concentration", concentration))

    @classmethod
    def to_units(cls, parameters: dict[str, np.ndarray], scaler: Scaler) -> dict[str, np.ndarray]:
        if (scaler.mean != 0).any():
            return super().to_units(parameters, scaler)
        return parameters | {"scale": scaler.widened(parameters["scale"])}

    def component_mean(self) -> np.ndarray:
        return self.scale * gamma(1 + 1 / self.concentration)

    def component_variance(self) -> np.ndarray:
        first, second = (gamma(1 + k / self.concentration) for k in (1, 2))
        return self.scale**2 * (second - first**2)

    def component_cdf(self, y: np.ndarray) -> np.ndarray:
        return -np.expm1(-self._hazard(y))

    def component_survival(self, y: np.ndarray) -> np.ndarray:
        return np.exp(-self._hazard(y))

    def component_log_prob(self, y: np.ndarray) -> np.ndarray:
        scale, k = self.spread(y.ndim)
        with np.errstate(divide="ignore", invalid="ignore"):
            hazard = self._hazard(y)
            density = np.where(np.isinf(hazard), -np.inf, np.log(k / scale) + (k - 1) * np.log(y / scale) - hazard)
        # At 0 the density is 0, 1 / scale or infinite, as the concentration is above, at or below 1.
        at_zero = np.where(k == 1, -np.log(scale), np.where(k > 1, -np.inf, np.inf))
        return np.where(y < 0, -np.inf, np.where(y == 0, at_zero, density))

    def component_quantile(self, p: np.ndarray) -> np.ndarray:
        scale, k = self.spread(p.ndim)
        with np.errstate(divide="ignore"):
            hazard = -np.log1p(-p)
        return scale * hazard ** (1 / k)

    def component_distance(self, y: np.ndarray) -> np.ndarray:
        scale, k = self.spread(y.ndim)
        hazard = self._hazard(y)
        mean = scale * gamma(1 + 1 / k)
        return y * (1 - 2 * np.exp(-hazard)) + mean * (1 - 2 * gammainc(1 + 1 / k, hazard))

    def component_half_difference(self) -> np.ndarray:
        return self.component_mean() * -np.expm1(-np.log(2) / self.concentration)

    def centres(self) -> np.ndarray:
        return np.log(self.scale)

    def widths(self) -> np.ndarray:
        return 1 / self.concentration

    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        k = self.concentration
        low = np.log(self.scale) - 30 / (1 + k)
        high = np.log(self.scale) + np.log(np.maximum(gammainccinv(1 / k, 1e-13), 30.0)) / k
        return low.min(axis=0), high.max(axis=0)

    def draw(self, random: np.random.Generator) -> np.ndarray:
        return self.scale * random.weibull(self.concentration)

    def _hazard(self, y: np.ndarray) -> np.ndarray:
        """The cumulative hazard ``(y / scale)^concentration``; 0 for y up to 0."""
        scale, k = self.spread(y.ndim)
        with np.errstate(over="ignore"):
            return (np.maximum(y, 0) / scale) ** k
