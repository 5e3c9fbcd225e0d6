"""Scores of class probabilities that have several numbers or arguments, per target of a results tree."""

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.metrics.by_target import columns_per_target, curves_per_target, task_coords
from bmtl.evaluation.parts import scored
from bmtl.targets.metrics.binning import Binning, binned_reliability
from bmtl.targets.metrics.entropy import EntropyRatio, entropy_ratio_of_rows, rows_at_accuracy
from bmtl.targets.metrics.pit import LEVELS
from bmtl.targets.metrics.probabilities import checked, entropy_of_probabilities, predicted_class
from bmtl.targets.metrics.probability_calibration import (
    classwise_ece_of_probabilities,
    confidence_and_hit,
    ece_of_probabilities,
    isotonic_reliability,
    mce_of_probabilities,
)
from bmtl.targets.metrics.proper_scores import BrierParts, brier_decomposition
from bmtl.targets.score import Scored


def class_arrays(tree: xr.DataTree, *, part: str | None = None) -> dict[str, tuple[np.ndarray, np.ndarray] | None]:
    """Target -> labels ``(N,)`` and probabilities ``(N, C)``; None for targets without classes or without a row."""
    return {name: _arrays(rows) for name, rows in scored(tree, part).items()}


def brier(tree: xr.DataTree, *, bins: int = 15, binning: Binning = "width", part: str | None = None) -> xr.Dataset:
    """The Brier score per target and its parts by `brier_decomposition`; NaN for targets without classes.

    Returns:
        ``brier``, ``brier_reliability``, ``brier_resolution``, ``brier_uncertainty`` and ``brier_residual``, each
        ``(task)``; the first is the second less the third plus the last two.
    """

    def parts(rows: Scored) -> BrierParts | None:
        arrays = _arrays(rows)
        return None if arrays is None else brier_decomposition(*arrays, bins=bins, binning=binning)

    names = ["brier", *(f"brier_{name}" for name in BrierParts._fields[1:])]
    return columns_per_target(tree, parts, names, part)


def class_calibration(tree: xr.DataTree, *, bins: int = 15, part: str | None = None) -> xr.Dataset:
    """Calibration errors of the class probabilities per target; NaN for targets without classes.

    Returns:
        ``class_ece`` (bins of equal width), ``class_ece_equal_mass``, ``class_mce`` (equal width) and
        ``classwise_ece`` (equal width), each ``(task)``.
    """

    def errors(rows: Scored) -> tuple[float, ...] | None:
        arrays = _arrays(rows)
        if arrays is None:
            return None
        return (
            ece_of_probabilities(*arrays, bins=bins),
            ece_of_probabilities(*arrays, bins=bins, binning="mass"),
            mce_of_probabilities(*arrays, bins=bins),
            classwise_ece_of_probabilities(*arrays, bins=bins),
        )

    return columns_per_target(tree, errors, ["class_ece", "class_ece_equal_mass", "class_mce", "classwise_ece"], part)


def class_reliability(
    tree: xr.DataTree,
    *,
    bins: int = 15,
    binning: Binning = "width",
    of_class: int | None = None,
    part: str | None = None,
) -> xr.Dataset:
    """The reliability curve per target in bins.

    Args:
        tree: A run's results tree, or a part of it.
        bins: How many.
        binning: As `ece_of_probabilities`.
        of_class: Judge the probability of this class; by default the confidence, that of the predicted class.
        part: Which rows; "test" by default.

    Returns:
        ``predicted (task, bin)`` and ``observed (task, bin)``, NaN in a bin without a row, and ``rows (task, bin)``.
        NaN and 0 for a target without classes, without a row, without that class or with a NaN.
    """
    _check_class(of_class)

    def curves(rows: Scored) -> tuple[np.ndarray, ...] | None:
        events = _events(rows, of_class)
        return None if events is None else tuple(binned_reliability(*events, bins=bins, binning=binning))

    found = curves_per_target(tree, curves, ["predicted", "observed", "rows"], "bin", np.arange(bins), part)
    return found.assign(rows=found["rows"].fillna(0).astype(int))


def class_reliability_isotonic(
    tree: xr.DataTree, levels: ArrayLike = LEVELS, *, of_class: int | None = None, part: str | None = None
) -> xr.Dataset:
    """The reliability curve per target by isotonic regression.

    Args:
        tree: A run's results tree, or a part of it.
        levels: Predicted probabilities at which the curve is read, straight between two that occur.
        of_class: As `class_reliability`.
        part: Which rows; "test" by default.

    Returns:
        ``observed (task, level)``; NaN outside the predictions that occur, and as `class_reliability`.
    """
    _check_class(of_class)
    at = np.asarray(levels, dtype=float)

    def curves(rows: Scored) -> tuple[np.ndarray] | None:
        events = _events(rows, of_class)
        if events is None:
            return None
        curve = isotonic_reliability(*events)
        return (np.interp(at, curve.predicted, curve.observed, left=np.nan, right=np.nan),)

    return curves_per_target(tree, curves, ["observed"], "level", at, part)


def entropy_ratio(
    tree: xr.DataTree,
    *,
    accuracy: float | None = None,
    resamples: int = 2000,
    seed: int = 0,
    part: str | None = None,
) -> xr.Dataset:
    """Mean predictive entropy of wrong over that of right predictions, per target.

    Args:
        tree: A run's results tree, or a part of it.
        accuracy: Take it from a random subsample of this accuracy (`rows_at_accuracy`), the same for every learner.
        resamples: Number of bootstrap resamples.
        seed: Of bootstrap and subsample; a target's result does not depend on the others.
        part: Which rows; "test" by default.

    Returns:
        ``entropy_ratio``, ``entropy_ratio_low``, ``entropy_ratio_high`` (95 %), ``entropy_ratio_dropped``
        (resamples without a ratio), ``accuracy`` of the rows used, and the text ``reason``, which says why a ratio is NaN
        or infinite; each ``(task)``.

    Raises:
        ValueError: As `entropy_ratio_of_rows` and `rows_at_accuracy`.
    """
    if accuracy is not None and not 0 < accuracy < 1:
        raise ValueError(f"accuracy is {accuracy}; expected a share inside (0, 1).")
    ratios = []
    of_target = class_arrays(tree, part=part)
    for arrays in of_target.values():
        if arrays is None or np.isnan(arrays[1]).any():
            nothing, reason = float("nan"), "no class probabilities of a scored row"
            reason = reason if arrays is None else "a probability is NaN"
            ratios.append(EntropyRatio(nothing, nothing, nothing, nothing, resamples, reason))
            continue
        random = np.random.default_rng(seed)
        y, p = checked(*arrays)
        right, values = predicted_class(p) == y, entropy_of_probabilities(p)
        if accuracy is not None and 0 < right.mean() < 1:
            kept = rows_at_accuracy(right, accuracy, seed=random)
            right, values = right[kept], values[kept]
        ratios.append(entropy_ratio_of_rows(right, values, resamples=resamples, seed=random))
    variables = {
        "entropy_ratio": [ratio.ratio for ratio in ratios],
        "entropy_ratio_low": [ratio.low for ratio in ratios],
        "entropy_ratio_high": [ratio.high for ratio in ratios],
        "entropy_ratio_dropped": [ratio.dropped for ratio in ratios],
        "accuracy": [ratio.accuracy for ratio in ratios],
        "reason": np.asarray([ratio.reason for ratio in ratios], dtype=str),
    }
    return xr.Dataset(
        {name: ("task", np.asarray(of)) for name, of in variables.items()}, coords=task_coords(tree, of_target)
    )


def _arrays(rows: Scored) -> tuple[np.ndarray, np.ndarray] | None:
    probability = rows.prediction.probability
    return None if probability is None or not len(rows.labels) else (rows.labels, probability)


def _check_class(of_class: int | None) -> None:
    if of_class is not None and of_class < 0:
        raise ValueError(f"of_class is {of_class}; expected a class from 0, or None for the predicted class.")


def _events(rows: Scored, of_class: int | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Predicted probability and whether it happened; None where there is nothing to judge."""
    arrays = _arrays(rows)
    if arrays is None or np.isnan(arrays[1]).any() or (of_class or 0) >= arrays[1].shape[1]:
        return None
    if of_class is None:
        return confidence_and_hit(*arrays)
    y, p = checked(*arrays)
    return p[:, of_class], y == of_class
