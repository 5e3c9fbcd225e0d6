"""The expected calibration error as the released code of MT-ENet computes it, to compare with printed numbers only."""

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.laws import StudentTMixture
from bmtl.targets.metrics.pit import ece_from_pit


def released_ece(y: ArrayLike, loc: ArrayLike, scale: ArrayLike, df: ArrayLike) -> float:
    """ECE with one degree of freedom too few and levels 0, 1/99, ..., 1.

    Evidential regression predicts a Student t of ``df = 2 alpha``; the code takes ``2 alpha - 1``. A perfect predictive
    then scores .012 at alpha = 2 and .05 near alpha = 1, where `ece_from_pit` tends to zero.

    Args:
        y: Labels ``(N,)``.
        loc: Locations, ``(N,)`` or components ``(S, N)``.
        scale: Scales.
        df: Degrees of freedom ``2 alpha``, above 1; infinite for a normal, whose score differs by the levels alone.

    Raises:
        ValueError: If a df is not above 1, or the shapes do not fit.

    Source:
        Oh & Shin (2022), released code; their section 4 defines what `ece_from_pit` computes.
    """
    freedom = np.asarray(df, dtype=float)
    if (freedom <= 1).any():
        raise ValueError(f"The released ECE takes one off df, which is {freedom.min():.4g} at least; expected above 1.")
    return ece_from_pit(StudentTMixture(loc, scale, freedom - 1).cdf(y), np.linspace(0, 1, 100))
