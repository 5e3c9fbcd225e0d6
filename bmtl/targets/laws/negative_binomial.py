"""A mixture of negative-binomial components."""

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, betaln, xlog1py, xlogy

from bmtl.targets.laws.discrete import CountMixture
from bmtl.targets.laws.mixture import Parameter, not_negative, positive


class NegativeBinomialMixture(CountMixture):
    """The mean of S negative-binomial distributions for each of N rows: Poisson with a gamma-distributed rate.

    Args:
        mean: Means ``(S, N)``, not negative.
        concentration: Shapes of the gamma; positive. The variance is ``mean + mean^2 / concentration``.

    Raises:
        ValueError: If a parameter is out of its range, or the shapes do not broadcast.
    """

    name: ClassVar[str] = "negative-binomial"
    centre = Parameter("mean")
    concentration = Parameter()

    def __init__(self, mean: ArrayLike, concentration: ArrayLike) -> None:
        super().__init__(mean=not_negative("mean", mean), concentration=positive("concentration", concentration))

    def component_mean(self) -> np.ndarray:
        return self.centre

    def component_variance(self) -> np.ndarray:
        return self.centre * (1 + self.centre / self.concentration)

    def smooth_cdf(self, y: np.ndarray) -> np.ndarray:
        return _cdf(y, *self._shape(y.ndim))

    def smooth_survival(self, y: np.ndarray) -> np.ndarray:
        r, q = self._shape(y.ndim)
        return betainc(y + 1, r, q)

    def component_log_prob(self, y: np.ndarray) -> np.ndarray:
        mean, r = self.spread(y.ndim)
        count = (y >= 0) & (y == np.floor(y)) & np.isfinite(y)
        at = np.where(count, y, 0.0)
        ways = -np.log(at + r) - betaln(r, at + 1)
        found = ways + xlogy(at, mean / (mean + r)) - xlog1py(r, mean / r)
        return np.where(np.isnan(y), np.nan, np.where(count, found, -np.inf))

    def component_partial_mean(self, y: np.ndarray) -> np.ndarray:
        r, q = self._shape(y.ndim)
        mean = self.spread(y.ndim)[0]
        return mean * np.where(y >= 1, _cdf(np.maximum(y, 1) - 1, r + 1, q), 0.0)

    def draw(self, random: np.random.Generator) -> np.ndarray:
        rate = self.centre / self.concentration * random.standard_gamma(self.concentration)
        return random.poisson(rate).astype(float)

    def _shape(self, dims: int) -> tuple[np.ndarray, np.ndarray]:
        """The concentration, and the probability of a further count against an end, ``(S, 1, ..., N)``."""
        mean, r = self.spread(dims)
        return r, mean / (mean + r)


def _cdf(y: np.ndarray, r: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Cdf at real y, within 1e-15; where q is not small, the lower tail to all its digits.

    (1 - q has lost digits where q is small, and scipy's `betaincc` is ten times slower.)
    """
    small = np.broadcast_to(q < 0.1, np.broadcast_shapes(y.shape, q.shape))
    if small.all():
        return 1 - betainc(y + 1, r, q)
    exact = betainc(r, y + 1, 1 - q)
    return np.where(small, 1 - betainc(y + 1, r, q), exact) if small.any() else exact
