"""Scores of predicted ranks, from the probabilities of ordered classes."""

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.metrics.probabilities import checked, predicted_class


def median_rank(probabilities: ArrayLike) -> np.ndarray:
    """The lowest rank ``(N,)`` up to which there is half of the probability: what a mean absolute error asks for."""
    below = np.cumsum(np.asarray(probabilities, dtype=float), axis=1)
    return np.asarray((below >= 0.5 - 1e-9).argmax(axis=1))


def rank_error(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean of ``|label - median rank|``, in ranks.

    Args:
        labels: Ranks ``(N,)``, integers from 0 to C - 1.
        probabilities: ``(N, C)``, lowest rank first.

    Returns:
        NaN where a probability is NaN.

    Raises:
        ValueError: If there is no row, a label is outside the ranks, or a row of probabilities does not sum to one.
    """
    y, p = checked(labels, probabilities)
    return float("nan") if np.isnan(p).any() else float(np.abs(y - median_rank(p)).mean())


def quadratic_kappa(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Cohen's kappa of the most probable rank with quadratic weights: agreement beyond chance, 1 for all right.

    Arguments and errors as `rank_error`. NaN where a probability is NaN, and where labels and predictions are all of one
    rank.

    Source:
        Cohen (1968), Psychological Bulletin 70.
    """
    y, p = checked(labels, probabilities)
    if np.isnan(p).any():
        return float("nan")
    guess = predicted_class(p)
    observed = np.square(y - guess).mean()
    # Of independent draws of a label and a prediction.
    expected = np.square(y).mean() + np.square(guess).mean() - 2 * y.mean() * guess.mean()
    return float(1 - observed / expected) if expected > 0 else float("nan")


def ranked_probability_score(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean over rows of ``sum_c (F_c - [label <= c])^2``: the CRPS of the rank, in ranks.

    Arguments, NaN and errors as `rank_error`.

    Source:
        Epstein (1969), Journal of Applied Meteorology 8, without its norming by C - 1.
    """
    y, p = checked(labels, probabilities)
    steps = y[:, None] <= np.arange(p.shape[1])
    return float(np.square(np.cumsum(p, axis=1) - steps).sum(axis=1).mean())
