"""What recalibration fits on validation rows: a factor on scales, a map of the cdf, a temperature of probabilities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, minimize_scalar
from scipy.special import logsumexp, softmax

from bmtl.evaluation.metrics.calibration import checked_pit
from bmtl.evaluation.mixture import StudentTMixture

FACTORS = np.exp(np.linspace(np.log(1e-4), np.log(1e4), 41))  # where the best factor on scales is looked for
KNOTS = 99  # of the map of the cdf: its cost does not grow with the validation rows
EDGE = 1e-12  # a PIT closer to 0 or 1 counts as this: a continuous map holds both ends fixed


def fit_scale(predictive: StudentTMixture, y: ArrayLike) -> float:
    """The factor on every component's scale that makes labels most likely; a Student t stays one.

    Args:
        predictive: Of n validation rows.
        y: Their labels ``(n,)``.

    Raises:
        ValueError: If there is no row, a density is NaN, or the likelihood has no maximum between 1e-4 and 1e4, as where
            every label is predicted exactly.
    """
    labels = np.asarray(y, dtype=float)
    if labels.shape != (predictive.rows,) or not labels.size:
        raise ValueError(f"y has shape {labels.shape}; expected ({predictive.rows},), a validation row at least.")

    def loss(log_factor: float) -> float:
        return float(-predictive.scaled(np.exp(log_factor)).log_prob(labels).mean())

    grid = np.log(FACTORS)  # a mixture's likelihood may have several maxima; between neighbours there is one
    losses = np.array([loss(at) for at in grid])
    if np.isnan(losses).any():
        raise ValueError("The predictive or a label of a validation row is NaN; no factor can be fitted.")
    best = int(losses.argmin())
    if best in (0, grid.size - 1):
        raise ValueError(
            f"The likelihood of {labels.size} validation rows is largest for scales times {FACTORS[best]:.0e} or beyond: "
            "labels are predicted exactly, or predictives are of another unit. More validation rows may mend it."
        )
    found = minimize_scalar(loss, bounds=(grid[best - 1], grid[best + 1]), method="bounded", options={"xatol": 1e-10})
    return float(np.exp(found.x))


@dataclass(frozen=True)
class PitMap:
    """A rising, piecewise linear map of [0, 1] onto itself: what a predictive cdf should have said.

    Attributes:
        knots: Values of the predictive cdf ``(K,)``, rising from 0 to 1.
        levels: What they map to ``(K,)``, rising from 0 to 1.
    """

    knots: np.ndarray
    levels: np.ndarray

    @classmethod
    def fitted(cls, pit: ArrayLike) -> "PitMap":
        """The isotonic regression of observed on predicted probability, which is the ECDF of the PIT values.

        It is held at 99 levels (or as many as there are values), the i-th smallest of n values at ``i / (n + 1)``, and
        linear between them, so that it has an inverse and a density.

        Args:
            pit: Predictive cdf at validation labels, ``(n,)``.

        Raises:
            ValueError: If there is no row, or a pit is NaN or outside [0, 1].

        Source:
            Kuleshov, Fenner & Ermon (2018), Accurate Uncertainties for Deep Learning Using Calibrated Regression, section 3.
        """
        values = checked_pit(pit)
        if np.isnan(values).any():
            raise ValueError(
                f"{int(np.isnan(values).sum())} of {values.size} PIT values are NaN; leave those rows out."
            )
        count = min(values.size, KNOTS)
        levels = np.arange(1, count + 1) / (count + 1)
        raw = np.quantile(values.clip(EDGE, 1 - EDGE), levels, method="weibull")
        knots, which = np.unique(raw.round(12), return_inverse=True)  # as far apart as from the ends
        means = np.bincount(which, levels) / np.bincount(which)  # equal values share the mean of their levels
        return cls(np.concatenate([[0], knots, [1]]), np.concatenate([[0], means, [1]]))

    def __call__(self, u: ArrayLike) -> np.ndarray:
        """What a predictive cdf of `u` should have been."""
        return np.interp(np.asarray(u, dtype=float), self.knots, self.levels)

    def inverse(self, p: ArrayLike) -> np.ndarray:
        """The predictive cdf where the recalibrated one is `p`."""
        return np.interp(np.asarray(p, dtype=float), self.levels, self.knots)

    @property
    def slopes(self) -> np.ndarray:
        """Slope between knots ``(K - 1,)``."""
        return np.diff(self.levels) / np.diff(self.knots)

    def log_slope(self, u: ArrayLike) -> np.ndarray:
        """Log of the slope at `u`: the factor on the density."""
        return np.log(self.slopes)[np.searchsorted(self.knots[1:-1], u, side="right")]


class IsotonicPredictive:
    """A predictive whose cdf went through a `PitMap`; arguments and shapes as in `StudentTMixture`."""

    def __init__(self, base: StudentTMixture, pit_map: PitMap) -> None:
        self.base, self.map = base, pit_map

    @property
    def rows(self) -> int:
        """N, the number of rows."""
        return self.base.rows

    def cdf(self, y: ArrayLike) -> np.ndarray:
        """Probability of a value up to `y`."""
        return self.map(self.base.cdf(y))

    def log_prob(self, y: ArrayLike) -> np.ndarray:
        """Log density at `y`, per unit of `y`: it steps where the map bends."""
        return self.base.log_prob(y) + self.map.log_slope(self.base.cdf(y))

    def quantile(self, p: ArrayLike) -> np.ndarray:
        """Value below which there is probability `p`, as exact as that of the mixture."""
        return self.base.quantile(self.map.inverse(p))

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Ends ``(N,)`` of the central interval of a level in (0, 1)."""
        if not 0 < level < 1:
            raise ValueError(f"The interval's level is {level}; expected one in (0, 1).")
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    def sample(self, n: int, seed: int | np.random.Generator) -> np.ndarray:
        """Independent draws ``(n, N)``."""
        return self.quantile(np.random.default_rng(seed).uniform(size=(n, self.rows)))

    def mean(self) -> np.ndarray:
        """Mean ``(N,)``, exact: a sum over pieces of the mixture, each times its slope."""
        return self._moments()[0]

    def variance(self) -> np.ndarray:
        """Variance ``(N,)``, exact; infinite where that of the mixture is."""
        return self._moments()[1]

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        centre, spread = self.base.mean(), self.base.variance()
        ends = self.base.quantile(self.map.knots[1:-1, None])  # (K - 2, N)
        first, second = self.base.moments_below(ends, centre)
        shift, square = (
            self.map.slopes @ np.diff(np.vstack([np.zeros(self.rows), below, whole]), axis=0)
            for below, whole in ((first, np.zeros(self.rows)), (np.where(np.isfinite(spread), second, 0), spread))
        )
        return centre + shift, square - shift**2


def fit_temperature(probabilities: ArrayLike, y: ArrayLike) -> float:
    """The temperature T for which ``p^(1/T)``, normalised, makes the labels most likely.

    Args:
        probabilities: Of n validation rows, ``(n, C)``. Those below float32's smallest number count as that.
        y: Their classes ``(n,)``, integers from 0.

    Returns:
        T above 0; infinite (equal probabilities) where the probabilities say nothing about the labels, or mislead.

    Raises:
        ValueError: If the shapes or classes do not fit, an entry is NaN, or every label has the largest probability of its
            row: the likelihood then rises without end as T tends to zero.

    Source:
        Guo, Pleiss, Sun & Weinberger (2017), On Calibration of Modern Neural Networks, section 4.2. The likelihood is
        concave in 1/T, so that the maximum is a root of its slope.
    """
    logs, labels = _log_probabilities(probabilities), np.asarray(y)
    if labels.shape != logs.shape[:1] or not labels.size or labels.dtype.kind not in "iu":
        raise ValueError(
            f"y has shape {labels.shape} and dtype {labels.dtype}; expected ({len(logs)},) integers, a row."
        )
    if labels.min() < 0 or labels.max() >= logs.shape[1]:
        raise ValueError(f"Classes range from {labels.min()} to {labels.max()}; there are {logs.shape[1]} from 0.")
    chosen = logs[np.arange(labels.size), labels]

    def slope(inverse: float) -> float:
        return float((chosen - (softmax(inverse * logs, axis=1) * logs).sum(axis=1)).mean())

    if slope(0.0) <= 0:
        return float("inf")
    if (chosen >= logs.max(axis=1)).all():
        raise ValueError(
            f"Each of {labels.size} validation labels has the largest probability of its row: no temperature is the most "
            "likely. Recalibrate on more validation rows, or leave the probabilities as they are."
        )
    top = 1.0
    while slope(top) > 0:
        top *= 2
    return float(1 / brentq(slope, 0.0, top, xtol=1e-14, rtol=1e-12))


def tempered(probabilities: ArrayLike, temperature: float) -> np.ndarray:
    """``p^(1/T)``, normalised: probabilities ``(N, C)`` at a temperature, 1 for no change, infinite for equal ones.

    Raises:
        ValueError: If the temperature is not positive, or the probabilities are not ``(N, C)`` in [0, 1].
    """
    if not temperature > 0:
        raise ValueError(f"The temperature is {temperature}; expected a positive one.")
    logs = _log_probabilities(probabilities) / temperature
    return np.exp(logs - logsumexp(logs, axis=1, keepdims=True)) if logs.size else np.exp(logs)


def _log_probabilities(probabilities: ArrayLike) -> np.ndarray:
    values = np.asarray(probabilities, dtype=float)
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"probabilities have shape {values.shape}; expected (N, C), a class at least.")
    if np.isnan(values).any() or (values < 0).any() or (values > 1 + 1e-6).any():
        raise ValueError("A probability is NaN or outside [0, 1].")
    return np.log(np.maximum(values, np.finfo(np.float32).tiny))
