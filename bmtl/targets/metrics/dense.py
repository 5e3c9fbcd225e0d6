"""Scores of dense predictions, every pixel a row: segmentation, depth and surface normals.

Plain arrays of any shape, such as ``(B, H, W)``. What is counted over pixels is counted over all pixels given, and not
averaged over images: sum confusion matrices, weigh depth errors by their pixels, and concatenate angles.
"""

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
        ValueError: If the shapes differ, or a label or a prediction that counts is no class.

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
        ValueError: If it is no square matrix.
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
        ValueError: If it is no square matrix.
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
