"""Out-of-distribution detection: how well a run's uncertainty separates out-of-distribution rows from in-distribution ones.

In distribution are the test rows, out of distribution the rows without labels (group ``predictions_uncertainty``) or, in a
tree without those, the labelled rows of the part ``ood``. A target's score of a row is its epistemic, total or aleatoric
uncertainty: variances, and for classes the mutual information, the predictive entropy and the mean entropy of the draws.
Only the order of scores counts, so that logarithms and units change nothing. Out of distribution is the positive class.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.metrics.by_target import task_coords
from bmtl.evaluation.parts import group, part_targets, parts_of

Score = Literal["epistemic", "total", "aleatoric"]
SCORES: tuple[Score, ...] = get_args(Score)
Groups = tuple[ArrayLike, ArrayLike]
SIDES = ("inside", "outside")
OUTSIDE = "predictions_uncertainty"
CAUGHT = (19, 20)  # FPR95: 95 % of the rows out of distribution, in whole numbers since 0.95 * n is rounded
CELLS = 2_000_000  # counts held at a time by the bootstrap


class Detection(NamedTuple):
    """How well a score separates; arrays of one shape, or numbers."""

    auroc: np.ndarray
    """P(score outside > score inside), a tie counting one half; 0.5 separates nothing, below it is worse than that."""
    aupr_out: np.ndarray
    """Average precision with the rows outside as positives; an uninformative score has their share of all rows."""
    aupr_in: np.ndarray
    """The same with the rows inside as positives, and low scores first."""
    fpr95: np.ndarray
    """Share of the rows inside at or above the highest threshold that catches 95 % of those outside; lower is better."""


def log_uncertainty(values: ArrayLike) -> np.ndarray:
    """Natural logarithm of variances or entropies, for densities of quantities that span decades.

    Args:
        values: Not negative, but for rounding: a mutual information is a difference, and counts as 0 above -1e-6.

    Returns:
        Same shape; -inf for 0, NaN for NaN.

    Raises:
        ValueError: If a value is below that.
    """
    given = np.asarray(values, dtype=float)
    if (given < -1e-6).any():
        raise ValueError(f"An uncertainty is {np.nanmin(given):.4g}; a variance or an entropy is not negative.")
    with np.errstate(divide="ignore"):
        return np.log(given.clip(min=0))


def detection_of_scores(inside: ArrayLike, outside: ArrayLike) -> Detection:
    """How well a score separates rows out of distribution from rows in distribution, exactly, ties included.

    Args:
        inside: Scores in distribution ``(N,)``, in any unit; infinite ones are the highest or the lowest.
        outside: Scores out of distribution ``(M,)``.

    Returns:
        Four numbers; all NaN where a score is NaN. A constant score gives 0.5, the shares of either side, and 1.

    Raises:
        ValueError: If there is no row on a side.

    Source:
        Hendrycks & Gimpel (2017) for the first three; Liang et al. (2018) for the last, where the rows inside are the
        positives.
    """
    codes, values = _codes(inside, outside)
    if np.isnan(values).any():
        return Detection(*np.full(4, np.nan))
    low, high = (np.bincount(code, minlength=len(values))[None] for code in codes)
    return Detection(*(area[0] for area in _areas(low, high)))


def detection_intervals(
    inside: ArrayLike,
    outside: ArrayLike,
    *,
    groups: Groups | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Detection, Detection]:
    """Lower and upper ends of percentile bootstrap intervals of `detection_of_scores`.

    Rows are drawn with replacement on each side separately, so that their numbers are kept. This is the uncertainty from the
    finite number of rows, and not that from retraining. Perfect separation has an interval of no width, and few rows a
    short one: with a single row on a side it means nothing.

    Args:
        inside: ``(N,)``.
        outside: ``(M,)``.
        groups: Labels ``(N,)`` and ``(M,)`` of rows that are not independent, such as the pairs of one drug: whole groups
            are drawn, as many as there are (a cluster bootstrap), and the interval is that of new groups. By default each
            row is one of its own.
        level: Nominal coverage, in (0, 1).
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: As `detection_of_scores`, and if `level` or `resamples` is out of range, or `groups` of another length.
    """
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level is {level} and resamples {resamples}; expected a level in (0, 1) and one resample.")
    codes, values = _codes(inside, outside)
    if np.isnan(values).any():
        return Detection(*np.full(4, np.nan)), Detection(*np.full(4, np.nan))
    sides = [
        (code, _units(None if groups is None else groups[side], len(code), name))
        for side, (name, code) in enumerate(zip(SIDES, codes, strict=True))
    ]
    random, cells = np.random.default_rng(seed), len(values)
    block = max(1, CELLS // cells)
    drawn = []
    for start in range(0, resamples, block):
        times = min(block, resamples - start)
        drawn.append(np.stack(_areas(*(_resampled(*side, cells, times, random) for side in sides))))
    ends = np.quantile(np.concatenate(drawn, axis=1), [(1 - level) / 2, (1 + level) / 2], axis=1)  # (2, 4)
    return Detection(*ends[0]), Detection(*ends[1])


def detection(
    tree: xr.DataTree,
    *,
    scores: Sequence[Score] = SCORES,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """How well each kind of uncertainty of each target separates out-of-distribution rows, with bootstrap intervals.

    Args:
        tree: A run's results tree with uncertainties of test rows and of rows from elsewhere.
        scores: Which uncertainties.
        level: Nominal coverage of the intervals.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap; a target's intervals do not depend on the others.

    Returns:
        ``auroc``, ``aupr_out``, ``aupr_in``, ``fpr95`` (see `Detection`) and their ``<name>_low`` and ``<name>_high``, each
        ``(task, score)``; ``rows_in`` and ``rows_out (task)``. NaN for a target that a group does not hold, for one
        without a row on a side, and where a row's uncertainty is NaN.

    Raises:
        ValueError: If a group is missing or a score is unknown.
    """
    targets = part_targets(tree)
    table = {name: np.full((len(targets), len(scores)), np.nan) for name in _names()}
    counts = {name: np.zeros(len(targets), dtype=int) for name in ("rows_in", "rows_out")}
    for row, target in enumerate(targets):
        for column, score in enumerate(scores):
            inside, outside = uncertainties(tree, target, score)
            counts["rows_in"][row], counts["rows_out"][row] = len(inside), len(outside)
            if not len(inside) or not len(outside):
                continue
            low, high = detection_intervals(inside, outside, level=level, resamples=resamples, seed=seed)
            found = (detection_of_scores(inside, outside), low, high)
            for name, value in zip(_names(), np.concatenate(found), strict=True):
                table[name][row, column] = value
    return xr.Dataset(
        {
            **{name: (("task", "score"), values) for name, values in table.items()},
            **{name: ("task", values) for name, values in counts.items()},
        },
        coords={**task_coords(tree, targets), "score": list(scores)},
        attrs={"level": level},
    )


def uncertainties(tree: xr.DataTree, target: str, score: Score = "epistemic") -> tuple[np.ndarray, np.ndarray]:
    """A target's uncertainty of the rows in distribution ``(N,)`` and out of it ``(M,)``; empty where a group has none.

    Raises:
        ValueError: If a group is missing, or the target or the score is unknown.
    """
    if score not in SCORES:
        raise ValueError(f"The score is {score!r}; expected one of {list(SCORES)}.")
    elsewhere = "ood" in parts_of(tree.root) and OUTSIDE not in tree.root.children
    outer = group(tree, "uncertainty", "ood") if elsewhere else group(tree, OUTSIDE)
    groups = [group(tree, "uncertainty"), outer]
    known = part_targets(tree)
    if target not in known:
        raise ValueError(f"There is no target {target!r}; the tree has {known}.")
    name = f"{score}_{target}"
    inside, outside = (group[name].values if name in group else np.empty(0) for group in groups)
    return inside, outside


def _names() -> list[str]:
    """Variables in the order in which `detection` finds them: values, lower ends, upper ends."""
    return [f"{name}{end}" for end in ("", "_low", "_high") for name in Detection._fields]


def _codes(inside: ArrayLike, outside: ArrayLike) -> tuple[list[np.ndarray], np.ndarray]:
    """For each row the place of its score among the distinct scores, and those, ascending."""
    sides = [np.asarray(side, dtype=float) for side in (inside, outside)]
    for name, side in zip(SIDES, sides, strict=True):
        if side.ndim != 1 or not side.size:
            raise ValueError(f"{name} has shape {side.shape}; expected (N,), a row at least.")
    values, codes = np.unique(np.concatenate(sides), return_inverse=True)
    return np.split(codes, [len(sides[0])]), values


def _units(labels: ArrayLike | None, rows: int, name: str) -> np.ndarray:
    """For each row the number of what is drawn with it, ``(N,)``, from 0 on."""
    if labels is None:
        return np.arange(rows)
    given = np.asarray(labels)
    if given.shape != (rows,):
        raise ValueError(f"The groups of {name} have shape {given.shape}; expected a label for each row, {(rows,)}.")
    return np.unique(given, return_inverse=True)[1]


def _resampled(codes: np.ndarray, units: np.ndarray, cells: int, times: int, random: np.random.Generator) -> np.ndarray:
    """How often each distinct score occurs in each of `times` resamples of units, ``(times, cells)``."""
    number, row = units.max() + 1, np.arange(times)[:, None]
    drawn = random.integers(number, size=(times, number))
    often = np.bincount((drawn + number * row).ravel(), minlength=times * number).reshape(times, number)
    counts = np.bincount((codes + cells * row).ravel(), often[:, units].ravel(), minlength=times * cells)
    return counts.astype(int).reshape(times, cells)


def _areas(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The four numbers ``(B,)`` from how often each distinct score, ascending, occurs inside and outside, ``(B, U)``."""
    inside, outside = low.sum(axis=1), high.sum(axis=1)
    below = np.cumsum(low, axis=1)
    # Twice the wins, in whole numbers: rows inside that are lower, and half of those that tie.
    auroc = (high * (2 * below - low)).sum(axis=1) / (2 * inside * outside)
    caught = np.cumsum(high[:, ::-1], axis=1)
    alarms = np.cumsum(low[:, ::-1], axis=1)
    enough = (CAUGHT[1] * caught >= CAUGHT[0] * outside[:, None]).argmax(axis=1)  # the highest such threshold
    fpr95 = alarms[np.arange(len(alarms)), enough] / inside
    aupr_out = _average_precision(high[:, ::-1], caught, alarms)
    aupr_in = _average_precision(low, below, np.cumsum(high, axis=1))
    return auroc, aupr_out, aupr_in, fpr95


def _average_precision(positives: np.ndarray, hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """Sum over thresholds of what each adds to recall, times its precision; rows of one score enter together."""
    found = np.maximum(hits + misses, 1)  # nothing is found yet only where a resample lacks the first scores
    return (positives * (hits / found)).sum(axis=1) / positives.sum(axis=1)
