"""A predictive known by its draws alone."""

from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.laws.mixture import central_interval, checked_levels, row_values


class EmpiricalPredictive:
    """A predictive known by its draws: each row's law is theirs, an S-th of the probability on each.

    It has no density; the rest is as in `Mixture`.

    Args:
        draws: ``(S, N)``, a draw a row. A NaN makes what is computed of its column NaN.

    Raises:
        ValueError: If it is not ``(S, N)`` with a draw at least.
    """

    def __init__(self, draws: ArrayLike) -> None:
        values = np.asarray(draws, dtype=float)
        if values.ndim != 2 or not len(values):
            raise ValueError(f"draws have shape {values.shape}; expected (S, N), a draw at least.")
        self.draws = np.sort(values, axis=0)  # NaN last
        self.missing = np.isnan(self.draws[-1])

    @property
    def rows(self) -> int:
        """N, the number of rows."""
        return self.draws.shape[1]

    def __getitem__(self, rows: slice | np.ndarray) -> Self:
        """The predictive of some rows."""
        return type(self)(self.draws[:, rows])

    def scaled(self, factor: ArrayLike) -> Self:
        """Draws at `factor` times their distance from their mean, a number or ``(N,)``."""
        mean = self.mean()
        return type(self)(mean + np.asarray(factor, dtype=float) * (self.draws - mean))

    def mean(self) -> np.ndarray:
        """Mean of the draws ``(N,)``."""
        return np.asarray(self.draws.mean(axis=0))

    def variance(self) -> np.ndarray:
        """Variance of the draws ``(N,)``, over S."""
        return np.asarray(self.draws.var(axis=0))

    def cdf(self, y: ArrayLike) -> np.ndarray:
        """Share of draws up to `y`."""
        values = row_values(y, self.rows)
        found = np.empty(values.shape)
        for row in range(self.rows):
            found[..., row] = np.searchsorted(self.draws[:, row], values[..., row], side="right")
        return np.where(self.missing | np.isnan(values), np.nan, found / len(self.draws))

    def survival(self, y: ArrayLike) -> np.ndarray:
        """Share of draws above `y`."""
        return 1 - self.cdf(y)

    def quantile(self, p: ArrayLike) -> np.ndarray:
        """The smallest draw up to which there is a share `p` of them.

        Raises:
            ValueError: If a level is outside [0, 1].
        """
        levels = checked_levels(p, self.rows)
        at = np.broadcast_to(levels, np.broadcast_shapes(levels.shape, (self.rows,)))
        # A level that is a share of draws must not be rounded up to the next draw.
        index = np.ceil(np.nan_to_num(at) * len(self.draws) * (1 - 1e-15)).astype(int) - 1
        found = self.draws[index.clip(0), np.arange(self.rows)]
        return np.where(self.missing | np.isnan(at), np.nan, found)

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Ends ``(N,)`` of the central interval of a level in (0, 1), both of them draws."""
        return central_interval(self.quantile, level)

    def sample(self, n: int, seed: int | np.random.Generator) -> np.ndarray:
        """``(n, N)`` of the draws, with replacement."""
        chosen = np.random.default_rng(seed).integers(len(self.draws), size=(n, self.rows))
        return np.take_along_axis(self.draws, chosen, axis=0)

    def crps(self, y: ArrayLike) -> np.ndarray:
        """The fair score ``(N,)``: without bias for the score of what the draws were drawn from; it can be negative.

        Raises:
            ValueError: If there is one draw only.
        """
        values = np.asarray(y, dtype=float)
        return sample_crps(np.broadcast_to(values, (self.rows,)), self.draws, fair=True)

    def log_prob(self, y: ArrayLike) -> np.ndarray:
        """Draws have no density.

        Raises:
            ValueError: Always.
        """
        raise ValueError("The predictive is known by its draws only, and they have no likelihood.")


def sample_crps(y: np.ndarray, draws: np.ndarray, *, fair: bool) -> np.ndarray:
    """Continuous ranked probability score of draws ``(S, N)`` at y ``(N,)``, for each row, in the unit of y.

    Mean of ``|x_s - y|`` less half the mean of ``|x_s - x_t|``: over all S^2 pairs for the score of the empirical
    distribution, over the S (S - 1) of different draws for the fair score. S log S by sorting.

    Returns:
        ``(N,)``; NaN where an entry is NaN, else infinite where one is infinite (and 0 where all of them are the same).

    Raises:
        ValueError: If the fair score is asked of one draw.
    """
    count = len(draws)
    if fair and count < 2:
        raise ValueError("The fair CRPS compares draws with each other; it needs two at least. Ask for fair=False.")
    # Distances from y, and not the draws themselves: their differences are the same, and no digits cancel.
    with np.errstate(invalid="ignore"):
        distances = np.sort(draws - y, axis=0)
        ranks = (2 * np.arange(count) - count + 1)[:, None]
        pairs = (ranks * distances).sum(axis=0) / (count * (count - 1 if fair else count))
        scores = np.abs(distances).mean(axis=0) - pairs
    missing = np.isnan(y) | np.isnan(draws).any(axis=0)
    endless = ~missing & (np.isinf(y) | np.isinf(draws).any(axis=0))
    scores[endless] = np.where((draws == y).all(axis=0)[endless], 0.0, np.inf)
    return np.asarray(scores)
