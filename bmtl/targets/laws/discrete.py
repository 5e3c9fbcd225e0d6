"""Mixtures of components on the counts 0, 1, 2, ...: quantiles by bisection, the CRPS by sums that stay short."""

from abc import abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.laws import mixture
from bmtl.targets.laws.mixture import Mixture, checked_levels
from bmtl.targets.laws.quadrature import integral_of_spread

SUMMED = 256  # counts up to which sums are taken term by term; beyond, integrals are as good
NEGLIGIBLE = 1e-12  # probability of what is left out of a sum


class CountMixture(Mixture):
    """A mixture of components on the counts.

    The cdf of every component is also given between the counts, as a smooth function, so that sums over many counts can be
    taken as integrals: of ``u = sqrt(y)``, in which a Poisson variable's spread is 1/2 whatever its rate.
    """

    @abstractmethod
    def smooth_cdf(self, y: np.ndarray) -> np.ndarray:
        """Cdf of each component at real `y` from -1, ``(S, ..., N)``; at counts it is the cdf."""

    @abstractmethod
    def smooth_survival(self, y: np.ndarray) -> np.ndarray:
        """One less `smooth_cdf`, exact in the upper tail."""

    @abstractmethod
    def component_partial_mean(self, y: np.ndarray) -> np.ndarray:
        """``E[Y; Y <= y]`` of each component at counts `y`."""

    def component_cdf(self, y: np.ndarray) -> np.ndarray:
        return np.where(y < 0, 0.0, self.smooth_cdf(np.floor(np.maximum(y, 0))))

    def component_survival(self, y: np.ndarray) -> np.ndarray:
        return np.where(y < 0, 1.0, self.smooth_survival(np.floor(np.maximum(y, 0))))

    def component_distance(self, y: np.ndarray) -> np.ndarray:
        mean = self.component_mean().reshape(self.spread(y.ndim)[0].shape)
        below = np.where(y < 0, 0.0, self.component_partial_mean(np.floor(np.maximum(y, 0))))
        return y * (self.component_cdf(y) - self.component_survival(y)) + mean - 2 * below

    def quantile(self, p: ArrayLike) -> np.ndarray:
        """The smallest count up to which there is probability `p`: a scalar, ``(L, 1)`` or ``(..., N)``; 1 gives infinity.

        Raises:
            ValueError: If a level is outside [0, 1].
        """
        return self.by_rows(_solve, checked_levels(p, self.rows))

    def half_difference(self) -> np.ndarray:
        """``E|Y - Y'| / 2`` ``(N,)``, the sum of ``F (1 - F)`` over the counts, within 1e-8 of itself."""
        return self.by_rows(lambda part, _: _sum_of_spread(part), np.zeros(self.rows), held=20)

    # On the axis u = sqrt(y), for integrals.

    def centres(self) -> np.ndarray:
        """Square root of each component's mean ``(S, N)``."""
        return np.sqrt(self.component_mean())

    def widths(self) -> np.ndarray:
        """Spread of each component on the axis ``(S, N)``."""
        mean = self.component_mean()
        return np.sqrt(self.component_variance() / np.where(mean > 0, mean, 1)).clip(min=1) / 2

    def from_axis(self, u: np.ndarray) -> np.ndarray:
        """Y of u."""
        return u**2

    def slope(self, u: np.ndarray) -> np.ndarray:
        """dy/du."""
        return 2 * u

    def component_tail(self, y: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Smooth probability of each component ``(S, N)`` beyond y ``(N,)``: above it where `upper`, else up to it."""
        found = np.empty((self.components, y.size))
        for mask, of in ((upper, type(self).smooth_survival), (~upper, type(self).smooth_cdf)):
            if mask.any():
                found[:, mask] = of(self[mask], y[mask])
        return found


def _solve(whole: CountMixture, levels: np.ndarray) -> np.ndarray:
    """Quantiles at `levels` ``(..., N)``."""
    p = np.broadcast_to(levels, np.broadcast_shapes(levels.shape, (whole.rows,)))
    # A level that is a cdf must not be rounded up to the next count.
    tail, slack = np.where(p > 0.5, 1 - p, p), np.where(p > 0.5, 1e-14, -1e-14 * p)

    def reached(k: np.ndarray) -> np.ndarray:
        beyond = whole.component_survival(k).mean(axis=0) <= tail + slack
        return np.where(p > 0.5, beyond, whole.component_cdf(k).mean(axis=0) >= tail + slack)

    found = _first_count(reached, p.shape)
    missing = np.isnan(p) | np.isnan(np.sum(list(whole.parameters.values()), axis=(0, 1)))
    return np.where(missing, np.nan, np.where(p == 1, np.inf, found))


def _first_count(reached: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The smallest count at which a monotone condition holds, by doubling and bisection; 2**62 where there is none."""
    high = np.zeros(shape)
    for _ in range(63):
        short = ~reached(high)
        if not short.any():
            break
        high = np.where(short, np.minimum(2 * high + 1, 2.0**62), high)
    low = np.where(high > 0, np.floor((high - 1) / 2), -1.0)  # not reached there
    while ((high - low) > 1).any():
        middle = np.floor((low + high) / 2)
        there = reached(middle)
        open_ = high - low > 1
        high, low = np.where(open_ & there, middle, high), np.where(open_ & ~there, middle, low)
    return high


def _sum_of_spread(whole: CountMixture) -> np.ndarray:
    """The sum of ``F (1 - F)`` over the counts for each row."""
    few = NEGLIGIBLE * np.minimum(1, whole.component_survival(np.zeros(whole.rows)).mean(axis=0))
    last = _first_count(lambda k: ~(whole.component_survival(k).mean(axis=0) > few), (whole.rows,))
    first = _first_count(lambda k: ~(whole.component_cdf(k).mean(axis=0) < NEGLIGIBLE), (whole.rows,))
    stop = np.minimum(last, SUMMED - 1)
    count = np.maximum(stop - first + 1, 0).astype(int)
    row = np.repeat(np.arange(whole.rows), count)
    k = np.arange(row.size) - np.repeat(np.cumsum(count) - count, count) + first[row]
    total = np.zeros(whole.rows)
    chunk = max(1, mixture.MEMORY // whole.components)
    for start in range(0, row.size, chunk):
        rows, at = row[start : start + chunk], k[start : start + chunk]
        part = whole[rows]
        total += np.bincount(rows, _spread_at(part, at), minlength=whole.rows)
    many = np.flatnonzero(last >= SUMMED)
    if many.size:
        # The sum from K on is the integral from K - 1/2 less a 24th of the slope there, and so on (Euler-Maclaurin).
        part, edge = whole[many], np.maximum(first[many], SUMMED)
        total[many] += integral_of_spread(part, np.sqrt(edge - 0.5), np.sqrt(last[many] + 0.5))
        total[many] += (_spread_at(part, edge) - _spread_at(part, edge - 1)) / 24
    return total


def _spread_at(part: CountMixture, y: np.ndarray) -> np.ndarray:
    """Smooth ``F (1 - F)`` at y ``(N,)``."""
    above = part.smooth_survival(y).mean(axis=0)
    return np.asarray(above * (1 - above))
