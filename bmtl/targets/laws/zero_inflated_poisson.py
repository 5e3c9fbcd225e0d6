"""A mixture of zero-inflated Poisson components."""

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammainc, gammaincc

from bmtl.targets.laws.discrete import CountMixture
from bmtl.targets.laws.mixture import Parameter, not_negative, share
from bmtl.targets.laws.poisson import log_poisson, partial_mean


class ZeroInflatedPoissonMixture(CountMixture):
    """The mean of S zero-inflated Poisson distributions for each of N rows.

    Args:
        rate: Means of the Poisson parts ``(S, N)``, not negative.
        gate: Probabilities of a zero that is not of the Poisson part, in [0, 1].

    Raises:
        ValueError: If a parameter is out of its range, or the shapes do not broadcast.
    """

    name: ClassVar[str] = "zero-inflated-poisson"
    rate = Parameter()
    gate = Parameter()

    def __init__(self, rate: ArrayLike, gate: ArrayLike) -> None:
        super().__init__(rate=not_negative("rate", rate), gate=share("gate", gate))

    def component_mean(self) -> np.ndarray:
        return (1 - self.gate) * self.rate

    def component_variance(self) -> np.ndarray:
        return (1 - self.gate) * self.rate * (1 + self.gate * self.rate)

    def smooth_cdf(self, y: np.ndarray) -> np.ndarray:
        rate, gate = self.spread(y.ndim)
        return gate + (1 - gate) * gammaincc(y + 1, rate)

    def smooth_survival(self, y: np.ndarray) -> np.ndarray:
        rate, gate = self.spread(y.ndim)
        return (1 - gate) * gammainc(y + 1, rate)

    def component_log_prob(self, y: np.ndarray) -> np.ndarray:
        rate, gate = self.spread(y.ndim)
        with np.errstate(divide="ignore", invalid="ignore"):  # logaddexp warns of NaN
            counted = np.log1p(-gate) + log_poisson(y, rate)
            return np.where(y == 0, np.logaddexp(np.log(gate), counted), counted)

    def component_partial_mean(self, y: np.ndarray) -> np.ndarray:
        rate, gate = self.spread(y.ndim)
        return (1 - gate) * partial_mean(y, rate)

    def centres(self) -> np.ndarray:
        """Square root of the Poisson part's mean: the zeros are no part of what is integrated."""
        return np.sqrt(self.rate)

    def widths(self) -> np.ndarray:
        return np.full(self.rate.shape, 0.5)

    def draw(self, random: np.random.Generator) -> np.ndarray:
        return np.where(random.uniform(size=self.rate.shape) < self.gate, 0.0, random.poisson(self.rate))
