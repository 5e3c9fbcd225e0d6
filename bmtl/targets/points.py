"""Labels as points: observed against predicted numbers."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Points:
    """Observed and predicted numbers of one target's labelled rows, in its unit.

    Attributes:
        observed: ``(N,)``; of a label that is an interval its finite end, the lower one first. NaN where there is none.
        predicted: The predictive mean ``(N,)``.
        exact: Which labels are known exactly ``(N,)``, bool: not intervals, and not at the bound of what can be measured.
    """

    observed: np.ndarray
    predicted: np.ndarray
    exact: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, predicted: np.ndarray) -> "Points":
        """Of exact labels ``(N,)``, NaN where one is missing."""
        return cls(labels, predicted, ~np.isnan(labels))

    @classmethod
    def of_intervals(cls, intervals: np.ndarray, predicted: np.ndarray) -> "Points":
        """Of labels that are intervals ``(N, 2)``."""
        lower, upper = intervals[:, 0], intervals[:, 1]
        end = np.where(np.isfinite(lower), lower, upper)
        return cls(np.where(np.isfinite(end), end, np.nan), predicted, lower == upper)

    @property
    def drawable(self) -> np.ndarray:
        """Which points have two finite coordinates ``(N,)``, bool."""
        return np.isfinite(self.observed) & np.isfinite(self.predicted)
