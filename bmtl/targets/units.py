"""How a family's numbers change between what a model sees and reported units."""

from typing import Protocol

import numpy as np

from bmtl.targets.scaler import Scaler


class Units(Protocol):
    """The interface of a family for predictions and scores; `bmtl.targets.family.Family` implements it."""

    @property
    def scaled(self) -> bool:
        """Whether its labels may be scaled at all."""
        ...

    def to_units(self, values: np.ndarray, scaler: Scaler) -> np.ndarray:
        """Scaled values of y, draws or means ``(..., N, ...)``, in reported units."""
        ...

    def variance_to_units(self, variance: np.ndarray, scaler: Scaler) -> np.ndarray:
        """Variances ``(N,)`` of scaled values in squared reported units."""
        ...

    def log_volume(self, labels: np.ndarray | None, scaler: Scaler) -> np.ndarray:
        """What the log density of each label loses when it is given per reported unit ``(N,)`` or ``()``.

        It is the log of the scale for an exact label, and 0 for one that is known up to an interval, whose likelihood
        is a probability.

        Args:
            labels: Checked labels, scaled or not ``(N, ...)``; None where all are exact and complete.
            scaler: The target's.
        """
        ...
