"""Paired differences over a few splits: bootstrap intervals, sign-flip and signed-rank tests, Holm's correction.

Array functions without names; `statistics` puts them to the scores of a comparison. Every p-value of n differences is at
least ``2**(1 - n)``: below six splits no test of signs can reach 5 %, whatever the differences are.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit
from scipy.stats import rankdata

MOST_EXACT = 12  # splits up to which all patterns of signs are counted; half of 2**12 by symmetry
FLIPS = 10_000  # patterns that are drawn beyond
COLUMNS = 512  # columns at a time, so that thousands of (learner, task) pairs do not fill the memory
TIED = 2.0**-45  # sums that differ by less, relative to the sum of sizes, count as equal


class Interval(NamedTuple):
    """Ends of an interval, arrays of one shape."""

    lower: np.ndarray
    upper: np.ndarray


def bootstrap_interval(
    differences: ArrayLike, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Interval of a mean over n splits: the bootstrap's percentiles, widened for small n.

    The plain percentile interval of few values is far too short: at 95 % it covers the mean of n = 2, 3, 5, 10 normal
    values in 50, 75, 84, 91 % of cases. Both its distances from the mean are therefore multiplied by
    ``sqrt(n / (n - 1)) t / z``, with the quantiles of Student's t (n - 1 degrees of freedom) and of the normal, which
    tends to 1; coverage is then 93 to 95 % from n = 2 on (88 to 92 % for exponential values up to n = 20).

    Args:
        differences: ``(n, ...)``, a split a row; columns share the resamples.
        level: Nominal coverage, in (0, 1).
        resamples: How often n splits are drawn with replacement.
        seed: Of these draws.

    Returns:
        Ends ``(...)``; NaN for n = 1, which shows no spread, and for a column that holds a value that is not finite.

    Raises:
        ValueError: If there is no split, or `level` or `resamples` is out of range.

    Source:
        Efron & Tibshirani (1993), section 13.3. Hesterberg (2015) widens by the same factor (his expanded percentile
        interval), but moves the percentiles, and so cannot leave the range of the values.
    """
    values = _columns(differences)
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level is {level} and resamples {resamples}; expected a level in (0, 1) and one resample.")
    n = len(values)
    if n == 1:
        nothing = np.full(values.shape[1:], np.nan)
        return Interval(nothing, nothing.copy())
    tail = (1 - level) / 2
    wider = np.sqrt(n / (n - 1)) * stdtrit(n - 1, tail) / ndtri(tail)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples) / n  # (resamples, n)

    def ends(columns: np.ndarray) -> np.ndarray:
        mean = columns.mean(axis=0)
        lower, upper = np.quantile(counts @ columns, [tail, 1 - tail], axis=0)
        return np.stack([mean + wider * (lower - mean), mean + wider * (upper - mean)])

    return Interval(*_where_finite(ends, values, 2))


def sign_flip_p(differences: ArrayLike, *, seed: int = 0) -> np.ndarray:
    """Two-sided p-value of the mean of n paired differences under random signs.

    If two learners are equal, each difference could as well have had the other sign. All ``2**n`` patterns are counted up
    to 12 splits; beyond, 10,000 are drawn, the observed one being counted as one of them.

    Sums of the same numbers in another order differ by rounding, and sums such as 0.1 + 0.2 and 0.3 by that of their
    decimals: two sums count as equal where they differ by less than 3e-14 of the sum of sizes (scipy: 2e-14 of the observed
    sum), so that a difference that small against the others changes nothing.

    Args:
        differences: ``(n, ...)``, a split a row.
        seed: Of the drawn patterns.

    Returns:
        ``(...)`` in (0, 1]; NaN for a column that holds a value that is not finite.

    Raises:
        ValueError: If there is no split.

    Source:
        Fisher's randomisation test for pairs; drawn patterns as in Phipson & Smyth (2010), so that p is never 0.
    """
    values = _columns(differences)
    n = len(values)
    exact = n <= MOST_EXACT
    if exact:  # the first sign stays: a pattern and its negative give one absolute mean
        signs = 1 - 2 * (np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1, 1], size=(FLIPS, n))

    def p(columns: np.ndarray) -> np.ndarray:
        # Ratios to the largest (its power of two, which loses no digit), whose sums cannot overflow.
        _, exponent = np.frexp(np.abs(columns).max(axis=0))
        ratios = np.ldexp(columns, -exponent)
        size = np.abs(ratios).sum(axis=0)
        as_far = np.abs(signs @ ratios) >= np.abs(ratios.sum(axis=0)) - TIED * size
        shares = as_far.mean(axis=0) if exact else (1 + as_far.sum(axis=0)) / (1 + FLIPS)
        return shares[None]

    return _where_finite(p, values, 1)[0]


def signed_rank_p(differences: ArrayLike, *, seed: int = 0) -> np.ndarray:
    """Two-sided p-value of Wilcoxon's signed-rank test on n paired differences.

    It is the sign-flip test of the signed ranks, so it is exact up to 12 splits with ties too, where tables and normal
    approximations are not. Zeros are dropped before ranking, as Wilcoxon did; with nothing but zeros p is 1.

    Args:
        differences: ``(n, ...)``, a split a row.
        seed: Of the patterns beyond 12 splits.

    Returns:
        ``(...)`` in (0, 1]; NaN for a column that holds a value that is not finite.

    Raises:
        ValueError: If there is no split.

    Source:
        Wilcoxon (1945).
    """
    values = _columns(differences)
    sizes = np.where(np.isfinite(values), np.abs(values), np.nan)
    ranks = rankdata(sizes, axis=0) - (sizes == 0).sum(axis=0)  # zeros hold the lowest ranks
    return sign_flip_p(np.sign(values) * np.where(sizes == 0, 0, ranks), seed=seed)


def holm(p: ArrayLike) -> np.ndarray:
    """P-values such that rejecting those up to a is wrong anywhere with probability a at most (Holm 1979).

    Args:
        p: P-values of one family, any shape; NaN is no test and does not count.

    Returns:
        Same shape: the i-th smallest of m times ``m - i + 1``, no smaller than the ones before, at most 1.

    Raises:
        ValueError: If one is outside [0, 1].
    """
    given = np.asarray(p, dtype=float)
    tests = given[~np.isnan(given)]
    if ((tests < 0) | (tests > 1)).any():
        raise ValueError(f"P-values are in [0, 1]; they range from {tests.min():.4g} to {tests.max():.4g}.")
    order = np.argsort(tests, kind="stable")
    adjusted = np.empty_like(tests)
    adjusted[order] = np.maximum.accumulate(tests[order] * np.arange(len(tests), 0, -1)).clip(max=1)
    corrected = np.full(given.shape, np.nan)
    corrected[~np.isnan(given)] = adjusted
    return corrected


def _columns(differences: ArrayLike) -> np.ndarray:
    values = np.asarray(differences, dtype=float)
    if not values.ndim or not len(values):
        raise ValueError(f"differences has shape {values.shape}; expected (n, ...), a split at least.")
    return values


def _where_finite(function: Callable[[np.ndarray], np.ndarray], values: np.ndarray, outputs: int) -> np.ndarray:
    """`function` of the columns that are finite throughout, some at a time; NaN for the others."""
    flat = values.reshape(len(values), -1)
    found = np.full((outputs, flat.shape[1]), np.nan)
    usable = np.flatnonzero(np.isfinite(flat).all(axis=0))
    for start in range(0, len(usable), COLUMNS):
        chosen = usable[start : start + COLUMNS]
        found[:, chosen] = function(flat[:, chosen])
    return found.reshape(outputs, *values.shape[1:])
