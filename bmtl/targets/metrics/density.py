"""Negative log predictive density."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp


def nll_of_draws(log_likelihood: ArrayLike) -> float:
    """Mean over rows of ``-log mean_s p(y_n | draw s)``, in nats.

    The mean over draws is inside the logarithm: it is the density of the predictive mixture, which a proper score
    judges, and not the mean of the draws' own scores, which is never smaller.

    Args:
        log_likelihood: Log densities ``(S, N)``, S draws of N rows. -inf is a density of zero.

    Returns:
        The score: infinite if a row has density zero under every draw, NaN where an entry is NaN.

    Raises:
        ValueError: If it is not ``(S, N)`` with a draw and a row at least, or holds +inf, which no density gives.
    """
    return float(nll_rows(log_likelihood).mean())


def nll_rows(log_likelihood: ArrayLike) -> np.ndarray:
    """The score of each row ``(N,)``, of which `nll_of_draws` is the mean.

    Raises:
        ValueError: As `nll_of_draws`.
    """
    values = np.asarray(log_likelihood, dtype=float)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"log_likelihood has shape {values.shape}; expected (S, N), a draw and a row at least.")
    if np.isposinf(values).any():
        raise ValueError("log_likelihood holds +inf: a predictive scale is zero. Bound it from below.")
    rows: np.ndarray = np.log(len(values)) - logsumexp(values, axis=0)
    return rows
