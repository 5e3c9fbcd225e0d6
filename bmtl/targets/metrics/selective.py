"""Selective prediction: how the risk falls when the most uncertain rows are left to someone else."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class RiskCoverage(NamedTuple):
    """Share of rows kept, ``1/N ... 1``, and the mean loss of those kept, each ``(N,)``."""

    coverage: np.ndarray
    risk: np.ndarray


def risk_coverage_of_rows(loss: ArrayLike, uncertainty: ArrayLike) -> RiskCoverage:
    """Mean loss of the k least uncertain rows, for every k.

    Rows of equal uncertainty count by their mean loss, which is the expectation over their order: the order in which
    rows are given never counts, and a constant uncertainty has a level curve.

    Args:
        loss: ``(N,)``, not negative: 0 or 1 for a classification, an absolute error, or any other.
        uncertainty: ``(N,)``, in any unit; only its order counts.

    Returns:
        Risks are NaN where an entry is NaN.

    Raises:
        ValueError: If there is no row, the shapes differ, or a loss is negative.

    Source:
        El-Yaniv & Wiener (2010); Geifman & El-Yaniv (2017).
    """
    losses, order_by = _checked(loss, uncertainty)
    coverage = np.arange(1, losses.size + 1) / losses.size
    if np.isnan(losses).any() or np.isnan(order_by).any():
        return RiskCoverage(coverage, np.full(losses.size, np.nan))
    order = np.argsort(order_by)
    ordered, ranked = losses[order], order_by[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    sizes = np.diff(starts, append=losses.size)
    expected = np.repeat(np.add.reduceat(ordered, starts) / sizes, sizes)
    return RiskCoverage(coverage, np.cumsum(expected) / np.arange(1, losses.size + 1))


def risk_at(coverages: ArrayLike, loss: ArrayLike, uncertainty: ArrayLike) -> np.ndarray:
    """Risk at given coverages in (0, 1]; between ``k/N`` and ``(k + 1)/N`` a fraction of a row is kept.

    Arguments, NaN and errors as `risk_coverage_of_rows`.
    """
    shares, curve = np.asarray(coverages, dtype=float), risk_coverage_of_rows(loss, uncertainty)
    kept = np.append(0, curve.risk * curve.coverage)  # the loss that is kept, as a mean over all rows
    return np.asarray(np.interp(shares, np.append(0, curve.coverage), kept) / shares)


class RiskOfTheSurer(NamedTuple):
    """Mean losses when the half of the rows with the larger uncertainty is left out.

    Attributes:
        every: Of all rows.
        surer: Of the half that is kept.
        ideal: Of the half with the smaller losses: the least that any order could give.
        z: How far `surer` is below `every`, in standard deviations of what a random half would show; 0 for a constant loss.
        constant: All rows have one uncertainty: it orders nothing.
    """

    every: float
    surer: float
    ideal: float
    z: float
    constant: bool


def risk_of_the_surer_half(loss: ArrayLike, uncertainty: ArrayLike) -> RiskOfTheSurer:
    """Whether leaving out the half with the larger uncertainty lowers the mean loss, against leaving out any half.

    The mean of a random half of N rows has the variance s^2 / N around that of all, with s the losses' deviation (sampling
    without replacement): z is above 1.96 in one case of forty where the uncertainty says nothing.

    Arguments and errors as `risk_coverage_of_rows`; NaN where an entry is NaN.
    """
    losses, order_by = _checked(loss, uncertainty)
    every, ideal = float(losses.mean()), float(risk_at(0.5, losses, losses))
    if np.ptp(order_by) <= 1e-6 * np.abs(order_by).max():  # false for NaN
        return RiskOfTheSurer(every, every, ideal, 0.0, constant=True)
    surer = float(risk_at(0.5, losses, order_by))
    spread = float(losses.std(ddof=1)) / np.sqrt(losses.size)
    z = 0.0 if spread == 0 else (every - surer) / spread
    return RiskOfTheSurer(every, surer, ideal, z, constant=False)


def aurc_of_rows(loss: ArrayLike, uncertainty: ArrayLike) -> float:
    """Area under the risk-coverage curve, its mean over the coverages ``1/N ... 1``, in units of the loss.

    Arguments, NaN and errors as `risk_coverage_of_rows`.

    Source:
        Geifman, Uziel & El-Yaniv (2019).
    """
    return float(risk_coverage_of_rows(loss, uncertainty).risk.mean())


def aurc_excess_of_rows(loss: ArrayLike, uncertainty: ArrayLike) -> float:
    """What the area under the risk-coverage curve exceeds that of the ideal order by, the order of the losses.

    Not negative, and zero for an uncertainty that ranks as the loss does. NaN where an entry is NaN or a loss infinite.

    Arguments and errors as `risk_coverage_of_rows`.

    Source:
        Geifman, Uziel & El-Yaniv (2019), with the ideal area by summation and not by its limit.
    """
    return aurc_of_rows(loss, uncertainty) - aurc_of_rows(loss, loss)


def ause_of_rows(error: ArrayLike, uncertainty: ArrayLike) -> float:
    """Area under the sparsification error: how far dropping by uncertainty is from dropping by the error itself.

    The rows left after dropping a share f by falling uncertainty have an RMSE, here over that of all rows; the same by
    falling ``|error|`` is the ideal. Their difference is integrated over f, as the mean over ``f = 0, 1/N ... 1 - 1/N``.
    Rows of equal uncertainty count by their mean squared error.

    Args:
        error: ``(N,)``, signed or not, in any unit.
        uncertainty: ``(N,)``, in any unit; only its order counts.

    Returns:
        In [0, 1), without a unit; 0 is ideal. NaN where every error is zero, one is infinite, or an entry is NaN.

    Raises:
        ValueError: If there is no row or the shapes differ.

    Source:
        Ilg et al. (2018).
    """
    sizes = np.abs(np.asarray(error, dtype=float))
    largest = sizes.max(initial=0)
    if sizes.size and not 0 < largest < np.inf:  # false for NaN
        _checked(sizes, uncertainty)
        return float("nan")
    squares = np.square(sizes / largest)  # ratios neither overflow nor vanish
    by_uncertainty = np.sqrt(risk_coverage_of_rows(squares, uncertainty).risk)
    by_error = np.sqrt(risk_coverage_of_rows(squares, sizes).risk)
    return float((by_uncertainty - by_error).mean() / by_error[-1])


def _checked(loss: ArrayLike, uncertainty: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    losses, order_by = np.asarray(loss, dtype=float), np.asarray(uncertainty, dtype=float)
    if losses.shape != order_by.shape or losses.ndim != 1 or not losses.size:
        raise ValueError(
            f"loss has shape {losses.shape} and uncertainty {order_by.shape}; expected the same (N,), N at least 1."
        )
    if (losses < 0).any():
        raise ValueError(f"loss is {np.nanmin(losses):.4g} at the lowest; expected none below zero.")
    return losses, order_by
