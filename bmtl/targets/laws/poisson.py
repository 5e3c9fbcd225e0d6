"""A mixture of Poisson components."""

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammainc, gammaincc, gammaln, ive, xlogy

from bmtl.targets.laws.discrete import CountMixture
from bmtl.targets.laws.mixture import Parameter, not_negative


class PoissonMixture(CountMixture):
    """The mean of S Poisson distributions for each of N rows.

    Args:
        rate: Means ``(S, N)``, not negative.

    Raises:
        ValueError: If one is negative or infinite, or the shape is no ``(S, N)``.
    """

    name: ClassVar[str] = "poisson"
    rate = Parameter()

    def __init__(self, rate: ArrayLike) -> None:
        super().__init__(rate=not_negative("rate", rate))

    def component_mean(self) -> np.ndarray:
        return self.rate

    def component_variance(self) -> np.ndarray:
        return self.rate

    def smooth_cdf(self, y: np.ndarray) -> np.ndarray:
        return gammaincc(y + 1, self.spread(y.ndim)[0])

    def smooth_survival(self, y: np.ndarray) -> np.ndarray:
        return gammainc(y + 1, self.spread(y.ndim)[0])

    def component_log_prob(self, y: np.ndarray) -> np.ndarray:
        return log_poisson(y, self.spread(y.ndim)[0])

    def component_partial_mean(self, y: np.ndarray) -> np.ndarray:
        return partial_mean(y, self.spread(y.ndim)[0])

    def half_difference(self) -> np.ndarray:
        """``E|Y - Y'| / 2`` ``(N,)``, closed for one component."""
        if self.components > 1:
            return super().half_difference()
        rate = self.rate[0]
        return rate * (ive(0, 2 * rate) + ive(1, 2 * rate))

    def draw(self, random: np.random.Generator) -> np.ndarray:
        return random.poisson(self.rate).astype(float)


def log_poisson(y: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Log probability of `y`; -inf where it is not a count."""
    count = (y >= 0) & (y == np.floor(y)) & np.isfinite(y)
    at = np.where(count, y, 0.0)
    return np.where(np.isnan(y), np.nan, np.where(count, xlogy(at, rate) - rate - gammaln(at + 1), -np.inf))


def partial_mean(y: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """``E[Y; Y <= y]`` at counts y: the rate times the cdf at ``y - 1``."""
    return rate * np.where(y >= 1, gammaincc(np.maximum(y, 1), rate), 0.0)
