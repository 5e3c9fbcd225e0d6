"""Maps that recalibration fits on validation rows: a factor on scales, a map of the cdf, a temperature of probabilities."""

from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from bmtl.targets.laws import ContinuousMixture, StudentTMixture
from bmtl.targets.laws.mixture import central_interval
from bmtl.targets.metrics.pit import checked_pit

SPREAD = 1.0  # of the prior of log T: 95 % between 1/7 and 7
WIDEST, FURTHEST = 8.0, 50.0  # how far log T is looked for, in spreads of the prior and at most
STEPS = 1000  # quantiles that a mean is taken of where it is not closed
FACTORS = np.exp(np.linspace(np.log(1e-4), np.log(1e4), 41))  # where the best factor on scales is looked for
KNOTS = 99  # of the map of the cdf: its cost does not grow with the validation rows
EDGE = 1e-12  # a PIT closer to 0 or 1 counts as this: a continuous map holds both ends fixed


@runtime_checkable
class Scalable(Protocol):
    """A predictive distribution whose components have a scale."""

    @property
    def components(self) -> int:
        """S."""
        ...

    @property
    def rows(self) -> int:
        """N."""
        ...

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """Of its law."""
        ...

    def scaled(self, factor: ArrayLike) -> Self:
        """That with every component's scale times `factor`."""
        ...

    def within(self) -> np.ndarray:
        """Mean of the components' variances ``(N,)``."""
        ...

    def between(self) -> np.ndarray:
        """Variance of the components' means ``(N,)``."""
        ...

    def cdf(self, y: ArrayLike) -> np.ndarray:
        """Probability of a value up to `y`."""
        ...

    def survival(self, y: ArrayLike) -> np.ndarray:
        """Probability of a value above `y`."""
        ...

    def log_prob(self, y: ArrayLike) -> np.ndarray:
        """Log density at `y`."""
        ...

    def component_log_prob(self, y: np.ndarray) -> np.ndarray:
        """Log density at `y` under each component."""
        ...

    def sample(self, n: int, seed: int | np.random.Generator) -> np.ndarray:
        """Draws ``(n, N)``."""
        ...


def fit_scale(predictive: Scalable, y: ArrayLike) -> float:
    """The factor on every component's scale that makes labels most likely; the kind of law stays.

    Args:
        predictive: Of n validation rows.
        y: Their labels ``(n,)``, or intervals ``(n, 2)``.

    Raises:
        ValueError: If there is no row, a density is NaN, or the likelihood has no maximum between 1e-4 and 1e4, as where
            every label is predicted exactly.
    """
    labels = np.asarray(y, dtype=float)
    if labels.shape not in ((predictive.rows,), (predictive.rows, 2)) or not len(labels):
        raise ValueError(f"y has shape {labels.shape}; expected ({predictive.rows},), a validation row at least.")

    def loss(log_factor: float) -> float:
        return float(-label_log_prob(predictive.scaled(np.exp(log_factor)), labels).mean())

    grid = np.log(FACTORS)  # a mixture's likelihood may have several maxima; between neighbours there is one
    losses = np.array([loss(at) for at in grid])
    if np.isnan(losses).any():
        raise ValueError("The predictive or a label of a validation row is NaN; no factor can be fitted.")
    best = int(losses.argmin())
    if best in (0, grid.size - 1):
        raise ValueError(
            f"The likelihood of {len(labels)} validation rows is largest for scales times {FACTORS[best]:.0e} or beyond: "
            "labels are predicted exactly, or predictives are of another unit. More validation rows may help."
        )
    found = minimize_scalar(loss, bounds=(grid[best - 1], grid[best + 1]), method="bounded", options={"xatol": 1e-10})
    return float(np.exp(found.x))


def label_log_prob(predictive: "Scalable | IsotonicPredictive", labels: np.ndarray) -> np.ndarray:
    """Log density of labels ``(N,)``; of intervals ``(N, 2)``, log probability where the ends differ."""
    if labels.ndim == 1:
        return predictive.log_prob(labels)
    lower, upper = labels.T
    low, high = (np.where(np.isfinite(end), end, 0.0) for end in (lower, upper))
    below = [np.where(lower == -np.inf, 0.0, predictive.cdf(low)), np.where(upper == np.inf, 1.0, predictive.cdf(high))]
    above = [
        np.where(lower == -np.inf, 1.0, predictive.survival(low)),
        np.where(upper == np.inf, 0.0, predictive.survival(high)),
    ]
    # The difference in the smaller tail, which keeps its digits.
    mass = np.where(below[0] > 0.5, above[0] - above[1], below[1] - below[0])
    with np.errstate(divide="ignore"):
        return np.where(lower == upper, predictive.log_prob(low), np.log(np.maximum(mass, 0)))


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
    """A predictive whose cdf went through a `PitMap`; arguments and shapes as in `Mixture`."""

    def __init__(self, base: ContinuousMixture, pit_map: PitMap) -> None:
        self.base, self.map = base, pit_map

    @property
    def rows(self) -> int:
        """N, the number of rows."""
        return self.base.rows

    def cdf(self, y: ArrayLike) -> np.ndarray:
        """Probability of a value up to `y`."""
        return self.map(self.base.cdf(y))

    def survival(self, y: ArrayLike) -> np.ndarray:
        """Probability of a value above `y`, exact in the upper tail."""
        below = self.base.cdf(y)
        in_tail = below >= self.map.knots[-2]
        return np.where(in_tail, self.map.slopes[-1] * self.base.survival(y), 1 - self.map(below))

    def log_prob(self, y: ArrayLike) -> np.ndarray:
        """Log density at `y`, per unit of `y`: it steps where the map bends."""
        return self.base.log_prob(y) + self.map.log_slope(self.base.cdf(y))

    def quantile(self, p: ArrayLike) -> np.ndarray:
        """Value below which there is probability `p`, as exact as that of the mixture."""
        return self.base.quantile(self.map.inverse(p))

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Ends ``(N,)`` of the central interval of a level in (0, 1)."""
        return central_interval(self.quantile, level)

    def sample(self, n: int, seed: int | np.random.Generator) -> np.ndarray:
        """Independent draws ``(n, N)``."""
        return self.quantile(np.random.default_rng(seed).uniform(size=(n, self.rows)))

    def mean(self) -> np.ndarray:
        """Mean ``(N,)``: for Student-t components a sum over pieces of the mixture, else the mean of 1,000 quantiles."""
        if not isinstance(self.base, StudentTMixture):
            steps = (np.arange(STEPS) + 0.5) / STEPS
            return np.asarray(self.quantile(steps[:, None]).mean(axis=0))
        centre = self.base.mean()
        ends = self.base.quantile(self.map.knots[1:-1, None])  # (K - 2, N)
        below = self.base.partial_mean(ends, centre)
        pieces = np.diff(np.vstack([np.zeros(self.rows), below, np.zeros(self.rows)]), axis=0)
        return np.asarray(centre + self.map.slopes @ pieces)


def fit_temperature(probabilities: ArrayLike, y: ArrayLike, *, spread: float = SPREAD) -> float:
    """The temperature T at which ``p^(1/T)``, normalised, is the most probable given the labels.

    Under a log-normal prior around 1: the likelihood of few rows rises without end as T tends to 0 (every label has the
    largest probability of its row) or to infinity (probabilities mislead), and neither is what those rows show. With n rows
    the prior counts 1/n of the likelihood.

    Args:
        probabilities: Of n validation rows, ``(n, C)``. Those below float32's smallest number count as that.
        y: Their classes ``(n,)``, integers from 0.
        spread: The prior's standard deviation of log T.

    Returns:
        T, positive and finite.

    Raises:
        ValueError: If the shapes or classes do not fit, or an entry is NaN.

    Source:
        Guo, Pleiss, Sun & Weinberger (2017), On Calibration of Modern Neural Networks, section 4.2, with a prior.
    """
    logs, labels = _log_probabilities(probabilities), np.asarray(y)
    if labels.shape != logs.shape[:1] or not labels.size or labels.dtype.kind not in "iu":
        raise ValueError(
            f"y has shape {labels.shape} and dtype {labels.dtype}; expected ({len(logs)},) integers, a row."
        )
    if labels.min() < 0 or labels.max() >= logs.shape[1]:
        raise ValueError(f"Classes range from {labels.min()} to {labels.max()}; there are {logs.shape[1]} from 0.")
    chosen = logs[np.arange(labels.size), labels]

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        likelihood = inverse * chosen - logsumexp(inverse * logs, axis=1)
        return float(-likelihood.mean() + (log_temperature / spread) ** 2 / (2 * labels.size))

    # One maximum of the likelihood in 1/T and one of the prior may leave two; between neighbours there is one.
    end = min(WIDEST * spread, FURTHEST)
    grid = np.linspace(-end, end, 81)
    best = int(np.argmin([loss(at) for at in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)]
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x))


def tempered(probabilities: ArrayLike, temperature: float) -> np.ndarray:
    """``p^(1/T)``, normalised: probabilities ``(N, C)`` at a temperature, 1 for no change, large for nearly equal ones.

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
