"""Scores of dense predictions, every pixel a row: segmentation, depth and surface normals.

Plain arrays of any shape, such as ``(B, H, W)``. What is counted over pixels is counted over all pixels given, and not
averaged over images: sum confusion matrices, weigh depth errors by their pixels, and concatenate angles. `scene_scores` does
so for batches.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

THRESHOLDS = (11.25, 22.5, 30.0)
"""Angles in degrees, of which shares below are reported."""


class DepthErrors(NamedTuple):
    """Mean absolute error in the depth's unit, mean error relative to the true depth, and the pixels that count."""

    absolute: float
    relative: float
    pixels: int


class AngleSummary(NamedTuple):
    """Mean and median angle in degrees, and the share of angles below each threshold ``(T,)``."""

    mean: float
    median: float
    within: np.ndarray


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, classes: int, *, ignored: int = -1) -> np.ndarray:
    """Numbers of pixels by label (row) and predicted class (column); those of several batches add up.

    Args:
        labels: Integers of any shape, from 0 to `classes` - 1, or `ignored`.
        predicted: Classes, same shape; ignored pixels may have any value.
        classes: How many.
        ignored: A label that does not count.

    Returns:
        ``(classes, classes)``, integers.

    Raises:
        ValueError: If the shapes differ, or a label or a prediction that counts is not a class.

    Source:
        The segmentation columns of Dai et al. (2023), table 1, follow from it.
    """
    y, guess = np.asarray(labels), np.asarray(predicted)
    if y.shape != guess.shape:
        raise ValueError(f"labels has shape {y.shape} and predicted {guess.shape}; expected the same.")
    for name, array in (("labels", y), ("predicted", guess)):
        if array.dtype.kind not in "biu":
            raise ValueError(f"{name} is of type {array.dtype}; expected integers from 0 to {classes - 1}.")
    kept = y != ignored
    y, guess = y[kept].astype(np.int64), guess[kept].astype(np.int64)
    for name, array in (("labels", y), ("predicted", guess)):
        if array.size and (array.min() < 0 or array.max() >= classes):
            raise ValueError(
                f"{name} range from {array.min()} to {array.max()} where they count; with {classes} classes they are "
                f"0 to {classes - 1}, and labels of {ignored} do not count."
            )
    return np.bincount(y * classes + guess, minlength=classes**2).reshape(classes, classes)


def mean_iou(confusion: ArrayLike) -> float:
    """Mean over classes of intersection over union, in [0, 1].

    A class that neither labels nor predictions have is not in the mean. NaN without a pixel.

    Args:
        confusion: ``(C, C)`` by `confusion_matrix`, of all pixels of a test set: the mean over batches is another number.

    Raises:
        ValueError: If it is not a square matrix.
    """
    counts = _square(confusion)
    hits = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    seen = union > 0
    return float((hits[seen] / union[seen]).mean()) if seen.any() else float("nan")


def pixel_accuracy(confusion: ArrayLike) -> float:
    """Share of pixels whose class is predicted right; NaN without a pixel.

    Args:
        confusion: ``(C, C)`` by `confusion_matrix`.

    Raises:
        ValueError: If it is not a square matrix.
    """
    counts = _square(confusion)
    pixels = counts.sum()
    return float(np.trace(counts) / pixels) if pixels else float("nan")


def depth_errors(depth: ArrayLike, predicted: ArrayLike, *, mask: ArrayLike | None = None) -> DepthErrors:
    """Mean of ``|depth - predicted|`` and of ``|depth - predicted| / depth`` over the pixels that count.

    Args:
        depth: True depth, any shape and unit.
        predicted: Same shape and unit.
        mask: Which pixels count, booleans of the same shape; by default those whose depth was measured, that is,
            positive.

    Returns:
        Errors are NaN where no pixel counts, and where one that counts is predicted as NaN.

    Raises:
        ValueError: If the shapes differ, or a pixel that counts has no positive depth: nothing is relative to it.
    """
    truth, guess = np.asarray(depth, dtype=float), np.asarray(predicted, dtype=float)
    kept = truth > 0 if mask is None else np.asarray(mask)
    _check_mask("depth", truth.shape, guess.shape, kept, truth.shape)
    truth, guess = truth[kept], guess[kept]
    if not (truth > 0).all():
        raise ValueError("The mask keeps pixels whose depth is zero, negative or NaN; leave them out.")
    if not truth.size:
        return DepthErrors(float("nan"), float("nan"), 0)
    errors = np.abs(truth - guess)
    return DepthErrors(float(errors.mean()), float((errors / truth).mean()), truth.size)


def angles(normals: ArrayLike, predicted: ArrayLike, *, axis: int = -1, mask: ArrayLike | None = None) -> np.ndarray:
    """Angle between true and predicted surface normals in degrees, of the pixels that count.

    Neither needs unit length. The angle is taken from sine and cosine together: the arc cosine alone loses half of the
    digits of small angles.

    Args:
        normals: True normals, three components along `axis`.
        predicted: Same shape.
        axis: Of the components; 1 for ``(B, 3, H, W)``.
        mask: Which pixels count, booleans of the shape without `axis`; by default those whose normal was measured, that
            is, not zero.

    Returns:
        ``(pixels,)`` in [0, 180], NaN where a normal or a prediction has no direction (zero) or is NaN.

    Raises:
        ValueError: If the shapes differ, or there are not three components.
    """
    truth, guess = np.asarray(normals, dtype=float), np.asarray(predicted, dtype=float)
    if truth.shape != guess.shape or not truth.ndim or truth.shape[axis] != 3:
        raise ValueError(
            f"normals has shape {truth.shape} and predicted {guess.shape}; expected the same, 3 along axis {axis}."
        )
    truth, guess = np.moveaxis(truth, axis, -1), np.moveaxis(guess, axis, -1)
    kept = (truth != 0).any(axis=-1) if mask is None else np.asarray(mask)
    _check_mask("normals", truth.shape, guess.shape, kept, truth.shape[:-1])
    a, b = _directions(truth[kept]), _directions(guess[kept])
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1)))


def angle_summary(degrees: ArrayLike, *, within: ArrayLike = THRESHOLDS) -> AngleSummary:
    """Mean and median of angles, and the share of them below each threshold.

    Args:
        degrees: ``(N,)`` by `angles`, of all pixels of a test set: a median of batches is no median.
        within: Thresholds ``(T,)`` in degrees.

    Returns:
        All NaN without an angle, or where one is NaN.
    """
    values, thresholds = np.asarray(degrees, dtype=float).ravel(), np.asarray(within, dtype=float)
    if not values.size or np.isnan(values).any():
        return AngleSummary(float("nan"), float("nan"), np.full(thresholds.shape, np.nan))
    below = np.asarray([(values < threshold).mean() for threshold in thresholds])
    return AngleSummary(float(values.mean()), float(np.median(values)), below)


def scene_scores(
    batches: Iterable[tuple[Mapping[str, ArrayLike], Mapping[str, ArrayLike]]],
    *,
    classes: int = 0,
    per_batch: bool = False,
) -> dict[str, dict[str, float]]:
    """The nine numbers that papers on NYUv2 print, of any of the targets semantic, depth and normal.

    Args:
        batches: Labels and predictions of one batch after the other, each by target: ``semantic`` classes ``(B, H, W)``, -1
            where void; ``depth`` ``(B, H, W)``, NaN or 0 where there is none; ``normal`` ``(B, H, W, 3)``, NaN or 0 where
            there is none. Predicted normals need no unit length.
        classes: How many there are, for ``semantic``.
        per_batch: Depth errors and all numbers of angles are those of each batch, averaged over batches, as in published
            tables: their "median" is a mean of medians. Segmentation is of all pixels either way.

    Returns:
        Target -> score -> value: ``mean_iou`` and ``accuracy``; ``mae`` and ``relative_error``; ``mean_angle`` and
        ``median_angle`` in degrees, ``within_11_25``, ``within_22_5`` and ``within_30``. Classes that are nowhere are not in
        the mean, and a batch without a labelled pixel does not count. NaN without any.

    Raises:
        ValueError: If shapes differ, labels are out of range, or there is another target.

    Source:
        Liu, Johns & Davison (2019), tables 1 and 2. Their code, IGB's and nash-mtl's have ``per_batch``, LibMTL pools. They
        leave normals out whose components sum to 0, and take the arc cosine of predictions of unit length.
    """
    confusion = np.zeros((classes, classes), dtype=np.int64)
    depths: list[DepthErrors] = []
    normals: list[np.ndarray] = []
    names: dict[str, None] = {}
    for labels, predicted in batches:
        for name in labels:
            names[name] = None
            if name == "semantic":
                confusion += confusion_matrix(labels[name], predicted[name], classes)
            elif name == "depth":
                depths.append(depth_errors(labels[name], predicted[name]))
            elif name == "normal":
                truth = np.asarray(labels[name], dtype=float)
                known = ~np.isnan(truth).any(axis=-1) & (truth != 0).any(axis=-1)
                normals.append(angles(truth, predicted[name], mask=known))
            else:
                raise ValueError(f"Scores are of semantic, depth and normal; got {name!r}.")
    depths = [errors for errors in depths if errors.pixels]
    normals = [found for found in normals if found.size]
    made = {
        "semantic": lambda: {"mean_iou": mean_iou(confusion), "accuracy": pixel_accuracy(confusion)},
        "depth": lambda: _of_depths(depths, per_batch),
        "normal": lambda: _of_normals(normals if per_batch or not normals else [np.concatenate(normals)]),
    }
    return {name: made[name]() for name in names}


def threshold_name(threshold: float) -> str:
    """Name of the share of angles below a threshold, such as ``within_11_25``."""
    return f"within_{threshold:g}".replace(".", "_")


def _of_depths(depths: list[DepthErrors], per_batch: bool) -> dict[str, float]:
    if not depths:
        return {"mae": float("nan"), "relative_error": float("nan")}
    weights = np.ones(len(depths)) if per_batch else np.array([errors.pixels for errors in depths])
    absolute, relative = np.average([errors[:2] for errors in depths], axis=0, weights=weights)
    return {"mae": float(absolute), "relative_error": float(relative)}


def _of_normals(parts: list[np.ndarray]) -> dict[str, float]:
    """The mean over parts of what each has."""
    found = [angle_summary(part) for part in parts or [np.zeros(0)]]
    within = np.mean([summary.within for summary in found], axis=0)
    return {
        "mean_angle": float(np.mean([summary.mean for summary in found])),
        "median_angle": float(np.mean([summary.median for summary in found])),
        **{threshold_name(each): float(share) for each, share in zip(THRESHOLDS, within, strict=True)},
    }


def _square(confusion: ArrayLike) -> np.ndarray:
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"confusion has shape {counts.shape}; expected (C, C) by confusion_matrix.")
    return counts


def _check_mask(
    name: str, truth: tuple[int, ...], guess: tuple[int, ...], mask: np.ndarray, expected: tuple[int, ...]
) -> None:
    if truth != guess or mask.shape != expected or mask.dtype != bool:
        raise ValueError(
            f"{name} has shape {truth}, predicted {guess}, and mask shape {mask.shape} and type {mask.dtype}; "
            f"expected the same for the first two, and booleans of shape {expected}."
        )


def _directions(vectors: np.ndarray) -> np.ndarray:
    """Vectors ``(N, 3)`` over their largest component, which neither overflows nor vanishes; NaN for a zero vector."""
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    return vectors / np.where(largest > 0, largest, np.nan)
