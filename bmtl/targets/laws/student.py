"""The standard Student-t distribution, with the normal at infinite degrees of freedom, in closed forms.

Functions take standardised values `z` and degrees of freedom `df`, arrays that broadcast. Source of the score:
integration by parts, with ``-f(z) (df + z^2) / (df - 1)`` as antiderivative of ``z f(z)``.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaln, ndtr, ndtri, stdtr, stdtrit

HALF_LOG_PI = 0.5 * np.log(np.pi)


def cdf(z: np.ndarray, df: ArrayLike) -> np.ndarray:
    """Probability of a value up to `z`."""
    normal, finite = _kinds(df)
    return _either(normal, lambda: ndtr(z), lambda: stdtr(finite, z))


def ppf(p: np.ndarray, df: ArrayLike) -> np.ndarray:
    """The value below which there is probability `p`, infinite for 0 and 1."""
    normal, finite = _kinds(df)
    tail = np.minimum(p, 1 - p)
    # scipy's own sign is lost where the tail's quantile overflows
    found = np.abs(_either(normal, lambda: ndtri(tail), lambda: stdtrit(finite, tail)))
    return np.where(p < 0.5, -found, found)


def log_pdf(z: np.ndarray, df: ArrayLike) -> np.ndarray:
    """Log density at `z`."""
    normal, finite = _kinds(df)
    return _either(
        normal,
        lambda: -_half_square(z) - HALF_LOG_PI - 0.5 * np.log(2),
        lambda: -betaln(finite / 2, 0.5) - np.log(finite) / 2 - (finite + 1) / 2 * _log_growth(z, finite),
    )


def variance(df: ArrayLike) -> np.ndarray:
    """Variance: infinite for df in (1, 2], undefined (NaN) below."""
    given = np.asarray(df, dtype=float)
    _, finite = _kinds(given)
    known = np.where(np.isinf(given), 1.0, finite / np.where(finite > 2, finite - 2, 1))
    return np.where(given > 2, known, np.where(given > 1, np.inf, np.nan))


def first_below(z: np.ndarray, df: ArrayLike) -> np.ndarray:
    """``E[Z; Z <= z]`` at finite `z`, for df above 1."""
    return -_weighted(z, df)


def mean_distance(z: np.ndarray, df: ArrayLike) -> np.ndarray:
    """``E|Z - z|``, for df above 1."""
    return z * (2 * cdf(z, df) - 1) + 2 * _weighted(z, df)


def half_mean_difference(df: ArrayLike) -> np.ndarray:
    """``E|Z - Z'| / 2`` of two independent values, for df above 1."""
    normal, finite = _kinds(df)

    def heavy() -> np.ndarray:
        ratio = 2 * _log_gamma_ratio(finite / 2) - _log_gamma_ratio(finite - 0.5)
        return 2 * np.sqrt(finite) * np.exp(ratio) / ((finite - 1) * np.sqrt(np.pi))

    return _either(normal, lambda: np.full(normal.shape, 1 / np.sqrt(np.pi)), heavy)


def _weighted(z: np.ndarray, df: ArrayLike) -> np.ndarray:
    """``f(z) (df + z^2) / (df - 1)``; for the normal ``f(z)``."""
    normal, finite = _kinds(df)

    def heavy() -> np.ndarray:  # the powers of 1 + z^2 / df are combined before exp
        size = -betaln(finite / 2, 0.5) + np.log(finite) / 2 - (finite - 1) / 2 * _log_growth(z, finite)
        return np.exp(size) / (finite - 1)

    return _either(normal, lambda: np.exp(log_pdf(z, df)), heavy)


def _half_square(z: np.ndarray) -> np.ndarray:
    """``z^2 / 2``, infinite where that is too large."""
    with np.errstate(over="ignore"):
        return z**2 / 2


def _log_growth(z: np.ndarray, df: np.ndarray) -> np.ndarray:
    """``log(1 + z^2 / df)``, also where the square is too large."""
    size = np.abs(z)
    with np.errstate(over="ignore", divide="ignore"):
        return np.where(size > 1e150, 2 * np.log(size) - np.log(df), np.log1p(z**2 / df))


def _either(normal: np.ndarray, gaussian: Callable[[], np.ndarray], heavy: Callable[[], np.ndarray]) -> np.ndarray:
    """The one where it is normal and the other elsewhere; what is needed nowhere is not computed."""
    if normal.all():
        return gaussian()
    return np.where(normal, gaussian(), heavy()) if normal.any() else heavy()


def _kinds(df: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Which are normal, and the degrees of freedom with a harmless number in their place."""
    given = np.asarray(df, dtype=float)
    normal = np.isinf(given)
    return normal, np.where(normal, 9.0, given)


def _log_gamma_ratio(a: np.ndarray) -> np.ndarray:
    """``log Gamma(a + 1/2) - log Gamma(a)``, without cancellation."""
    return HALF_LOG_PI - betaln(a, 0.5)
