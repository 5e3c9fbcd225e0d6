"""Mixtures of continuous components: quantiles by Newton's method, the CRPS by quadrature where it is not closed."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.laws.mixture import Mixture, checked_levels
from bmtl.targets.laws.quadrature import integral_of_spread

LARGEST = 1e307
"""Quantiles are looked for below it in size, so that no difference of two leaves the range of floats."""


class ContinuousMixture(Mixture):
    """A mixture of continuous components.

    Quantiles and integrals are solved on an axis u that suits the kind: y itself, or its logarithm where it is positive.

    Attributes:
        least: The smallest value that a quantile at a level inside (0, 1) is looked for at.
    """

    least: ClassVar[float] = -LARGEST

    @abstractmethod
    def component_quantile(self, p: np.ndarray) -> np.ndarray:
        """Quantiles of each component at levels ``(..., N)``, ``(S, ..., N)``; exact in both tails."""

    @abstractmethod
    def component_half_difference(self) -> np.ndarray:
        """``E|Y - Y'| / 2`` of two values of one component ``(S, N)``, in closed form."""

    @abstractmethod
    def centres(self) -> np.ndarray:
        """Where each component is on the axis u ``(S, N)``."""

    @abstractmethod
    def widths(self) -> np.ndarray:
        """How wide each component is on the axis u ``(S, N)``."""

    @abstractmethod
    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        """Between what u the integral of ``F (1 - F)`` is to be taken ``(N,)``: what is beyond is below 1e-10 of it."""

    def to_axis(self, y: np.ndarray) -> np.ndarray:
        """U of y."""
        return y

    def from_axis(self, u: np.ndarray) -> np.ndarray:
        """Y of u."""
        return u

    def slope(self, u: np.ndarray) -> np.ndarray:
        """dy/du."""
        return np.ones_like(u)

    def quantile(self, p: ArrayLike) -> np.ndarray:
        """Value below which there is probability `p`: a scalar, ``(L, 1)`` for L levels of every row, or ``(..., N)``.

        Closed for one component. The quantile of a mixture lies between the smallest and the largest of its components'
        quantiles: from there by Newton's method, with bisection where that leaves the bracket or stalls, to 1e-12 of a
        component's width. Upper levels are solved in the upper tail, so that both tails are equally exact.

        Raises:
            ValueError: If a level is outside [0, 1]. (Levels 0 and 1 give the ends of the support.)
        """
        return self.by_rows(_solve, checked_levels(p, self.rows))

    def half_difference(self) -> np.ndarray:
        """``E|Y - Y'| / 2``: closed for one component, else the integral of ``F (1 - F)``, within 1e-8 of itself."""
        if self.components == 1:
            return self.component_half_difference()[0]
        return self.by_rows(lambda part, _: integral_of_spread(part, *part.reach()), np.zeros(self.rows), held=20)

    def component_tail(self, y: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Probability of each component ``(S, N)`` beyond y ``(N,)``: above it where `upper`, else up to it."""
        found = np.empty((self.components, y.size))
        for mask, of in ((upper, type(self).component_survival), (~upper, type(self).component_cdf)):
            if mask.any():
                found[:, mask] = of(self[mask], y[mask])
        return found


class PositiveMixture(ContinuousMixture):
    """A mixture of components on the positive numbers, solved on the axis ``u = log y``."""

    least: ClassVar[float] = float(np.finfo(float).tiny)  # below it floats lose their digits

    def to_axis(self, y: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log(y)

    def from_axis(self, u: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.exp(u)

    def slope(self, u: np.ndarray) -> np.ndarray:
        return self.from_axis(u)


def _solve(whole: ContinuousMixture, levels: np.ndarray) -> np.ndarray:
    """Quantiles at `levels` ``(..., N)``."""
    each = whole.component_quantile(levels)
    if whole.components == 1:
        return each[0]
    # A component's own quantile may leave the range of floats, and the mixture's need not.
    inner = (levels > 0) & (levels < 1)
    each = np.where(inner & ~np.isnan(each), np.clip(each, whole.least, LARGEST), each)
    ends = whole.to_axis(each)
    low, high = ends.min(axis=0).ravel(), ends.max(axis=0).ravel()
    # NaN, infinite and equal ends are the quantile
    active = np.flatnonzero((high > low) & np.isfinite(low) & np.isfinite(high))
    u = high.copy()
    u[active] = ends.mean(axis=0).ravel()[active]
    p, row = levels.ravel(), np.broadcast_to(np.arange(whole.rows), levels.shape).ravel()
    side = np.where(p > 0.5, -1.0, 1.0)
    tail = np.minimum(p, 1 - p)
    exact = 1e-12 * np.broadcast_to(whole.widths().min(axis=0), levels.shape).ravel()
    before = np.zeros(u.shape)
    before[active] = high[active] - low[active]
    while active.size:
        part, at = whole[row[active]], u[active]
        y = part.from_axis(at)
        upper = side[active] < 0
        beyond = part.component_tail(y, upper).mean(axis=0)
        excess = side[active] * (beyond - tail[active])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            density = np.exp(part.component_log_prob(y)).mean(axis=0) * part.slope(at)
            newton = at - excess / density
        low[active] = np.where(excess <= 0, at, low[active])
        high[active] = np.where(excess >= 0, at, high[active])
        # A step must halve, or the bracket is halved instead: at most some 100 of either.
        good = (newton >= low[active]) & (newton <= high[active]) & (np.abs(newton - at) <= before[active] / 2)
        u[active] = np.where(good, newton, (low[active] + high[active]) / 2)
        before[active] = np.abs(u[active] - at)
        active = active[before[active] > exact[active] + 1e-15 * np.abs(at)]
    return whole.from_axis(u).reshape(levels.shape)
