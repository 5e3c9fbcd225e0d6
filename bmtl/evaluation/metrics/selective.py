"""Selective prediction, per target of a results tree."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.metrics.by_target import columns_per_target, curves_per_target, per_target
from bmtl.targets.metrics.pit import LEVELS
from bmtl.targets.metrics.selective import aurc_excess_of_rows, aurc_of_rows, ause_of_rows, risk_at
from bmtl.targets.score import Scored

Uncertainty = Literal["total", "aleatoric", "epistemic"]
Pair = tuple[np.ndarray, np.ndarray]


def risk_coverage(
    tree: xr.DataTree,
    *,
    uncertainty: Uncertainty = "total",
    coverages: ArrayLike = LEVELS,
    part: str | None = None,
) -> xr.Dataset:
    """Risk of the rows kept against their share, per target.

    Risk is the mean loss that a target's family defines: the error rate of classes, the mean absolute error of real numbers
    and counts in reported units, that of the ranks of ordinal targets.

    Args:
        tree: A run's results tree, or a part of it, with ``uncertainty``.
        uncertainty: By which kind of it rows are kept.
        coverages: Shares in (0, 1]; between ``k/N`` and ``(k + 1)/N`` a fraction of a row is kept.
        part: Which rows; "test" by default.

    Returns:
        ``risk (task, coverage)`` and ``risk_ideal (task, coverage)``, the least that any order of the rows would have; NaN
        for a target without a labelled row, a loss or an uncertainty.

    Raises:
        ValueError: If a coverage is not in (0, 1].
    """
    shares = np.asarray(coverages, dtype=float)
    if shares.ndim != 1 or not ((shares > 0) & (shares <= 1)).all():
        raise ValueError(f"coverages are {shares.tolist()}; expected a list of shares in (0, 1].")
    of = _pairs(uncertainty)

    def curves(rows: Scored) -> Pair | None:
        pair = of(rows)
        return None if pair is None else (risk_at(shares, *pair), risk_at(shares, pair[0], pair[0]))

    return curves_per_target(tree, curves, ["risk", "risk_ideal"], "coverage", shares, part)


def aurc(tree: xr.DataTree, *, uncertainty: Uncertainty = "total", part: str | None = None) -> xr.Dataset:
    """Area under the risk-coverage curve per target: ``aurc (task)``, and what it exceeds the ideal by, ``aurc_excess``.

    Arguments, risks and errors as `risk_coverage`.
    """
    of = _pairs(uncertainty)

    def areas(rows: Scored) -> tuple[float, float] | None:
        pair = of(rows)
        return None if pair is None else (aurc_of_rows(*pair), aurc_excess_of_rows(*pair))

    return columns_per_target(tree, areas, ["aurc", "aurc_excess"], part)


def ause(tree: xr.DataTree, *, uncertainty: Uncertainty = "total", part: str | None = None) -> xr.Dataset:
    """Area under the sparsification error per target, ``ause (task)``; NaN for targets without a predictive mean.

    Arguments and errors as `risk_coverage`.
    """
    of = _pairs(uncertainty)

    def area(rows: Scored) -> float | None:
        pair = of(rows)
        return None if pair is None or not rows.prediction.has("mean") else ause_of_rows(*pair)

    return per_target(tree, area, part).to_dataset(name="ause")


def _pairs(uncertainty: str) -> Callable[[Scored], Pair | None]:
    """Loss and uncertainty of a target's rows, None where it has not both."""
    if uncertainty not in ("total", "aleatoric", "epistemic"):
        raise ValueError(f"uncertainty is {uncertainty!r}; expected 'total', 'aleatoric' or 'epistemic'.")

    def of(rows: Scored) -> Pair | None:
        known = {"aleatoric": rows.prediction.aleatoric, "epistemic": rows.prediction.epistemic}
        losses = rows.losses()
        if losses is None or known["aleatoric"] is None or known["epistemic"] is None:
            return None
        spread = known["aleatoric"] + known["epistemic"] if uncertainty == "total" else known[uncertainty]
        return losses, np.asarray(spread)

    return of
