"""Calibration where it is worst: the ECE of the worst among random groups of rows."""

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.metrics.pit import LEVELS, checked_pit, rounding

SIZES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def worst_group_ece(
    pit: ArrayLike,
    sizes: ArrayLike = SIZES,
    *,
    groups: int = 20,
    repeats: int = 20,
    seed: int | np.random.Generator = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Adversarial group calibration: the largest ECE among random groups of each size, averaged over repeats.

    A small group of a perfect predictive shows a large ECE too, so the same is done on uniform values: only what is above
    that is miscalibration. An ECE takes the number of values at each level alone, and those of a random group follow a
    multivariate hypergeometric law, which is drawn directly: the cost does not grow with N.

    Args:
        pit: Predictive cdf at the labels, ``(N,)`` in [0, 1].
        sizes: Sizes of the groups as shares of the N rows ``(R,)``, in (0, 1]; two rows at least, or N if that is fewer.
        groups: Random groups, without replacement, among which the worst counts.
        repeats: How many such worst values are averaged.
        seed: Seed or generator of the groups.

    Returns:
        The worst ECE ``(R,)``, NaN where a pit is NaN, and that of uniform values ``(R,)``.

    Raises:
        ValueError: If there is no row, a pit is outside [0, 1], a size outside (0, 1], or nothing is to be drawn.

    Source:
        Zhao, Ma & Ermon (2020), Individual Calibration with Randomized Forecasting, section 5.
    """
    values, shares = checked_pit(pit), np.asarray(sizes, dtype=float)
    if shares.ndim != 1 or not ((shares > 0) & (shares <= 1)).all():
        raise ValueError(f"Sizes of groups are {shares.tolist()}; expected shares of the rows (R,), in (0, 1].")
    if groups < 1 or repeats < 1:
        raise ValueError(f"{groups} groups and {repeats} repeats were asked for; expected one of each at least.")
    random, rows = np.random.default_rng(seed), values.size
    missing = np.isnan(values).any()
    held = np.zeros(LEVELS.size, dtype=np.int64)
    if not missing:  # how many values come in with each level
        first = np.searchsorted(LEVELS, np.abs(2 * values - 1) - rounding(pit), side="left")
        held = np.bincount(first, minlength=LEVELS.size)
    worst, floor = np.full(shares.shape, np.nan), np.empty(shares.shape)
    for k, share in enumerate(shares):
        size = min(max(round(share * rows), 2), rows)
        # The groups of one repeat are of one sample, as those of the labels are.
        uniform = random.multinomial(rows, np.full(LEVELS.size, 1 / LEVELS.size), size=repeats)
        floor[k] = np.mean([_worst(counts, size, groups, random) for counts in uniform])
        if not missing:
            worst[k] = np.mean([_worst(held, size, groups, random) for _ in range(repeats)])
    return worst, floor


def _worst(held: np.ndarray, size: int, groups: int, random: np.random.Generator) -> float:
    """Largest ECE among random groups of values of which so many come in with each level."""
    drawn = random.multivariate_hypergeometric(held, size, size=groups, method="marginals")  # (groups, levels)
    return float(np.abs(drawn.cumsum(axis=1) / size - LEVELS).mean(axis=1).max())
