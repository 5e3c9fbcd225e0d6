"""Does the predictive mean put rows in the right order?"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kendalltau

from bmtl.targets.metrics.point import pair


def concordance_index(y: ArrayLike, predicted: ArrayLike) -> float:
    """Share of pairs of rows with different labels that are predicted in their order; a tie counts one half.

    By Kendall's tau_b: ``1/2 + tau_b sqrt((n0 - n1) (n0 - n2)) / (2 (n0 - n1))``, with n0 = N (N - 1) / 2 pairs, n1
    tied in y and n2 tied in the prediction. N log N, and exact with ties.

    Returns:
        A number in [0, 1]; 1/2 for a constant prediction. NaN where an entry is NaN, and where no two labels differ.

    Raises:
        ValueError: As `mean_absolute_error`.

    Source:
        Gönen & Heller (2005), Biometrika 92; Kendall (1945) for tau_b.
    """
    labels, values = pair(y, predicted)
    if np.isnan(labels).any() or np.isnan(values).any():
        return float("nan")
    pairs = labels.size * (labels.size - 1) // 2
    unequal, apart = pairs - _tied(labels), pairs - _tied(values)
    if not unequal:
        return float("nan")
    if not apart:
        return 0.5
    tau = kendalltau(labels, values).statistic
    return float(0.5 + 0.5 * tau * np.sqrt(apart / unequal))


def _tied(values: np.ndarray) -> int:
    """Pairs of equal values."""
    counts = np.unique(values, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())
