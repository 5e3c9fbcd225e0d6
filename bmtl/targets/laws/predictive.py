"""The interface of all predictive distributions."""

from typing import Protocol, Self

import numpy as np
from numpy.typing import ArrayLike


class Predictive(Protocol):
    """A distribution over y for each of N rows.

    `y` is ``(..., N)`` or a scalar for all rows; levels are a scalar, ``(L, 1)`` or ``(..., N)``. For a vector of d numbers
    a row, arrays have a last axis d more, and everything but ``sample`` and ``log_prob`` speaks of its components.
    """

    @property
    def rows(self) -> int:
        """N."""
        ...

    def __getitem__(self, rows: slice | np.ndarray) -> Self:
        """The predictive of some rows."""
        ...

    def mean(self) -> np.ndarray:
        """Mean ``(N,)``."""
        ...

    def variance(self) -> np.ndarray:
        """Variance ``(N,)``."""
        ...

    def cdf(self, y: ArrayLike) -> np.ndarray:
        """Probability of a value up to `y`."""
        ...

    def survival(self, y: ArrayLike) -> np.ndarray:
        """Probability of a value above `y`."""
        ...

    def quantile(self, p: ArrayLike) -> np.ndarray:
        """Smallest value up to which there is probability `p`."""
        ...

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Ends ``(N,)`` of the central interval that holds probability `level` (for counts, at least)."""
        ...

    def sample(self, n: int, seed: int | np.random.Generator) -> np.ndarray:
        """Independent draws ``(n, N)``; a seed gives the same ones again."""
        ...

    def crps(self, y: ArrayLike) -> np.ndarray:
        """Continuous ranked probability score at `y`, in its unit."""
        ...

    def log_prob(self, y: ArrayLike) -> np.ndarray:
        """Log density, or for counts log probability, at `y`; a ``ValueError`` where there is none, as for draws."""
        ...
