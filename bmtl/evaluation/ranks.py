"""Methods ranked over many tasks (or splits): mean ranks, Friedman's test, groups that do not differ significantly.

Blocks are what methods are ranked within. They should be independent: take the tasks of one comparison after averaging
over splits, or the splits of one task. Source: Demšar (2006), "Statistical Comparisons of Classifiers over Multiple Data
Sets"; the groups by corrected Wilcoxon tests follow Benavoli, Corani & Mangili (2016), who show that a Nemenyi group
depends on which other methods were entered.
"""

from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

from bmtl.evaluation.resampling import holm, signed_rank_p
from bmtl.evaluation.statistics import counted_as


class Friedman(NamedTuple):
    """Friedman's test of equal ranks of all methods."""

    statistic: float
    p: float


def ranks(
    scores: xr.DataArray, *, higher_is_better: bool | xr.DataArray = False, counted: xr.DataArray | None = None
) -> xr.DataArray:
    """Rank of each method within each block, 1 for the best; ties share the average of their ranks.

    Args:
        scores: Dimension ``learner`` and any others; each combination of the others is a block. NaN, a run that
            diverged, ties for the last rank: leaving it out would reward it.
        higher_is_better: Which end is best; a boolean, or one for each block (DataArray).
        counted: Booleans that broadcast against `scores`. A block that does not count for every method has no ranks
            (NaN), since ranks among fewer methods are smaller.

    Returns:
        Same shape as `scores`.
    """
    ordered = xr.where(higher_is_better, -scores, scores).transpose(*scores.dims)
    axis = scores.get_axis_num("learner")
    found = stats.rankdata(np.nan_to_num(ordered.values, nan=np.inf, posinf=np.inf), axis=axis)
    ranked = scores.copy(data=found)
    return ranked if counted is None else ranked.where(counted_as(scores, counted).all("learner"))


def mean_rank(
    scores: xr.DataArray, *, higher_is_better: bool | xr.DataArray = False, counted: xr.DataArray | None = None
) -> xr.DataArray:
    """Mean over all blocks of `ranks`, ``(learner)``; NaN if there is no block that counts for all methods."""
    return ranks(scores, higher_is_better=higher_is_better, counted=counted).mean(
        [dim for dim in scores.dims if dim != "learner"]
    )


def friedman(ranked: xr.DataArray) -> Friedman:
    """Friedman's test, corrected for ties.

    Args:
        ranked: `ranks` ``(learner, block)``; blocks without ranks are left out.

    Returns:
        The statistic and its p-value by the chi-squared distribution with methods less one degrees of freedom, which is
        an approximation: below about ten blocks or five methods it errs, mostly on the side of finding nothing. NaN with
        fewer than two blocks; 0 and 1 where all methods tie in all blocks.

    Raises:
        ValueError: If there are not two dimensions or not two methods.
    """
    values = _blocks(ranked)  # (k, N)
    k, n = values.shape
    if n < 2:
        return Friedman(float("nan"), float("nan"))
    middle = (k + 1) / 2
    spread = ((values - middle) ** 2).sum()
    if spread == 0:
        return Friedman(0.0, 1.0)
    statistic = (k - 1) * ((values.sum(axis=1) - n * middle) ** 2).sum() / spread
    return Friedman(float(statistic), float(stats.chi2.sf(statistic, k - 1)))


def critical_difference(
    scores: xr.DataArray,
    *,
    test: Literal["signed-rank", "nemenyi"] = "signed-rank",
    higher_is_better: bool | xr.DataArray = False,
    counted: xr.DataArray | None = None,
    level: float = 0.05,
) -> xr.Dataset:
    """Mean ranks, pairwise tests, and groups of methods that do not differ significantly.

    Args:
        scores: ``(learner, block)``, the block being a task or a split.
        test: "nemenyi" compares mean ranks with one critical difference; "signed-rank" runs Wilcoxon's test on each pair
            of methods and corrects by Holm, which needs scores of one unit (or relative ones) but no other methods.
        higher_is_better: As for `ranks`.
        counted: As for `ranks`; blocks that do not count for all methods are left out. So are, from the signed-rank test,
            blocks in which a method diverged: the test of its pairs is NaN, and it joins no group.
        level: Of the test.

    Returns:
        Sorted by mean rank: ``mean_rank (learner)``; ``p (learner, learner_bis)``, corrected, with NaN on the diagonal;
        ``group (group, learner)``: the longest runs of neighbours in rank none of whose pairs differs, only those of two
        methods or more; scalars ``friedman`` and ``friedman_p``, ``blocks``, and ``difference``, the critical
        difference of mean ranks (NaN for "signed-rank"). With few blocks everything is one group: from N blocks no
        signed-rank p is below ``2**(1 - N)`` before correction. With fewer than two blocks, p is NaN and there is no group.

    Raises:
        ValueError: If there are not two dimensions or not two methods.
    """
    ranked = ranks(scores, higher_is_better=higher_is_better, counted=counted)
    blocks = _blocks(ranked)
    k, n = blocks.shape
    omnibus = friedman(ranked)
    means = blocks.mean(axis=1) if n else np.full(k, np.nan)
    order = np.argsort(means, kind="stable")
    names, means = ranked["learner"].values[order], means[order]

    block = next(dim for dim in ranked.dims if dim != "learner")
    complete = ranked.notnull().all("learner").values
    values = scores.transpose("learner", block).values[order][:, complete]
    critical = float("nan")
    p = np.full((k, k), np.nan)
    if n >= 2:
        if test == "nemenyi":
            unit = np.sqrt(k * (k + 1) / (6 * n))  # of a difference of two mean ranks, over root 2
            critical = float(stats.studentized_range.ppf(1 - level, k, np.inf) / np.sqrt(2) * unit)
            p = stats.studentized_range.sf(np.abs(means[:, None] - means) / unit * np.sqrt(2), k, np.inf)
        else:
            p = _pairwise(values)
        np.fill_diagonal(p, np.nan)

    joined = [] if n < 2 else _runs(p >= level)
    return xr.Dataset(
        {
            "mean_rank": ("learner", means),
            "p": (("learner", "learner_bis"), p),
            "group": (("group", "learner"), np.asarray(joined, dtype=bool).reshape(-1, k)),
            "friedman": omnibus.statistic,
            "friedman_p": omnibus.p,
            "difference": critical,
            "blocks": n,
        },
        coords={"learner": names, "learner_bis": names},
        attrs={"test": test, "level": level, "block": str(block)},
    )


def _pairwise(values: np.ndarray) -> np.ndarray:
    """Holm-corrected signed-rank p of all pairs, ``(k, k)``."""
    k = len(values)
    first, second = np.triu_indices(k, 1)
    with np.errstate(invalid="ignore"):  # infinite less infinite is NaN, and has no test
        corrected = holm(signed_rank_p((values[first] - values[second]).T))
    p = np.full((k, k), np.nan)
    p[first, second] = p[second, first] = corrected
    return p


def _runs(alike: np.ndarray) -> list[np.ndarray]:
    """Longest runs of two or more neighbours all of whose pairs are alike."""
    k = len(alike)
    ends = []
    for start in range(k):
        end = start + 1
        while end < k and alike[start:end, end].all():
            end += 1
        ends.append(end)
    return [
        (np.arange(k) >= start) & (np.arange(k) < end)
        for start, end in enumerate(ends)
        if end - start > 1 and (start == 0 or ends[start - 1] < end)
    ]


def _blocks(ranked: xr.DataArray) -> np.ndarray:
    """The ranks of complete blocks, ``(learner, block)``."""
    if ranked.ndim != 2 or "learner" not in ranked.dims or ranked.sizes["learner"] < 2:
        raise ValueError(
            f"Ranks have the dimensions {dict(ranked.sizes)}; expected two methods or more and one dimension of blocks. "
            "Average over splits first to take the tasks as blocks, or select a task."
        )
    values = ranked.transpose("learner", ...).values
    return values[:, ~np.isnan(values).any(axis=0)]
