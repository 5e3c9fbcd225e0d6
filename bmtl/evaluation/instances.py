"""Objects in images from a vector per pixel, and how well they are found.

Each pixel votes for the place it points to. Votes are clustered, and each pixel belongs to the object whose centre is
nearest to its vote. Truth and prediction are then images of numbers, 0 for no object, in which `panoptic_quality` and
`average_precision` match objects by intersection over union.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.instances import pixel_positions

Method = Literal["optics", "dbscan"]

MATCH = 0.5
"""Intersection over union above which two segments are one; no segment then matches two."""


class Clustered(NamedTuple):
    """The objects of one image.

    Attributes:
        numbers: Of each pixel's object ``(H, W)`` from 1, 0 for none, int32.
        centres: ``(K, 2)``, x and y in pixels, of object k + 1.
        spread: Mean distance of an object's votes from its centre ``(K,)`` in pixels: the smaller, the surer.
    """

    numbers: np.ndarray
    centres: np.ndarray
    spread: np.ndarray


def cluster_votes(
    vectors: ArrayLike,
    mask: ArrayLike,
    *,
    radius: float = 3.0,
    smallest: int = 10,
    groups: ArrayLike | None = None,
    votes: int = 400,
    method: Method = "optics",
    seed: int = 0,
) -> Clustered:
    """Objects of one image from the vectors that its pixels vote with.

    Args:
        vectors: From pixels to centroids ``(H, W, 2)`` in pixels, x and y; finite where `mask` is.
        mask: Which pixels vote ``(H, W)``, such as those whose class has objects.
        radius: Votes within so many pixels of each other are of one object.
        smallest: Fewer voting pixels make no object; in dense parts, so many votes within `radius` make a core.
        groups: Classes ``(H, W)``: votes of different classes are clustered by themselves.
        votes: Of more votes in the image, so many are drawn with `seed` and clustered, in proportion to the groups; all
            pixels are then given to the centres. OPTICS takes about a millisecond a vote.
        method: ``"dbscan"`` finds the same clusters without the order of OPTICS, a hundred times faster: give it all votes.
        seed: Of the draw.

    Returns:
        Objects in the order of groups and clusters. Pixels of a group without a cluster are no object.

    Raises:
        ValueError: If shapes differ, a voting pixel has no finite vector, or an option is out of range.

    Source:
        Kendall, Gal & Cipolla (2018), section 4.2: OPTICS (Ankerst et al. 1999), here scikit-learn's, with clusters cut at
        `radius`. The paper does not say how it cuts them.
    """
    given, voting = np.asarray(vectors, dtype=float), np.asarray(mask)
    of = np.zeros(voting.shape, dtype=np.int64) if groups is None else np.asarray(groups)
    if given.ndim != 3 or given.shape != (*voting.shape, 2) or voting.dtype != bool or of.shape != voting.shape:
        raise ValueError(
            f"vectors has shape {given.shape}, mask {voting.shape} ({voting.dtype}) and groups {of.shape}; expected "
            "(H, W, 2), booleans (H, W) and (H, W)."
        )
    if not radius > 0 or smallest < 1 or votes < 1 or method not in get_args(Method):
        raise ValueError(
            f"radius is above 0, smallest and votes from 1, and method one of {', '.join(get_args(Method))}; got {radius}, "
            f"{smallest}, {votes} and {method!r}."
        )
    if not np.isfinite(given[voting]).all():
        raise ValueError("A pixel in the mask has no finite vector; leave it out of the mask.")
    ends = given + pixel_positions(*voting.shape)
    numbers = np.zeros(voting.shape, dtype=np.int32)
    centres: list[np.ndarray] = []
    drawn = voting
    if voting.sum() > votes:
        chosen = np.random.default_rng(seed).choice(np.flatnonzero(voting), votes, replace=False)
        drawn = np.zeros_like(voting)
        drawn.ravel()[chosen] = True
    least = max(2, round(smallest * drawn.sum() / max(voting.sum(), 1)))
    for group in np.unique(of[voting]):
        own = voting & (of == group)
        found = _centres(ends[drawn & own], radius, least, method)
        if len(found):
            distance = np.linalg.norm(ends[own][:, None] - found, axis=-1)  # (pixels, K)
            numbers[own] = distance.argmin(axis=1) + 1 + len(centres)
            centres.extend(found)
    kept = np.flatnonzero(np.bincount(numbers.ravel(), minlength=len(centres) + 1)[1:] >= smallest)
    renumbered = np.zeros(len(centres) + 1, dtype=np.int32)
    renumbered[kept + 1] = np.arange(1, len(kept) + 1)
    numbers = renumbered[numbers]
    places = np.array(centres).reshape(-1, 2)[kept]
    away = [np.linalg.norm(ends[numbers == k + 1] - place, axis=-1).mean() for k, place in enumerate(places)]
    return Clustered(numbers, places, np.array(away))


def _centres(ends: np.ndarray, radius: float, least: int, method: Method) -> np.ndarray:
    """Centres ``(K, 2)`` of the clusters of votes ``(M, 2)``, `least` votes within `radius` making a core."""
    from sklearn.cluster import DBSCAN, OPTICS  # slow to import

    if len(ends) < least:
        return np.zeros((0, 2))
    if method == "optics":
        made = OPTICS(min_samples=least, max_eps=radius, eps=radius, cluster_method="dbscan", algorithm="brute")
    else:
        made = DBSCAN(min_samples=least, eps=radius)
    with warnings.catch_warnings():
        # No vote has enough others within the radius: no cluster, which is an answer.
        warnings.filterwarnings("ignore", "All reachability values are inf", UserWarning)
        clusters = made.fit(ends).labels_
    return np.array([ends[clusters == k].mean(axis=0) for k in range(clusters.max() + 1)]).reshape(-1, 2)


def instance_error(vectors: ArrayLike, predicted: ArrayLike) -> float:
    """Mean distance between true and predicted centroids, over pixels of objects, in pixels.

    Args:
        vectors: Labels ``(..., 2)``, NaN where there is no object.
        predicted: Same shape.

    Returns:
        NaN without a pixel of an object.

    Raises:
        ValueError: If the shapes differ.

    Source:
        The column "Instance mean error" of Kendall, Gal & Cipolla (2018), table 1, which does not say which distance: this
        is the Euclidean one.
    """
    truth, guess = np.asarray(vectors, dtype=float), np.asarray(predicted, dtype=float)
    if truth.shape != guess.shape or not truth.ndim or truth.shape[-1] != 2:
        raise ValueError(f"vectors has shape {truth.shape} and predicted {guess.shape}; expected the same (..., 2).")
    seen = ~np.isnan(truth).any(axis=-1)
    return float(np.linalg.norm(truth[seen] - guess[seen], axis=-1).mean()) if seen.any() else float("nan")


@dataclass(frozen=True)
class Segments:
    """One image as segments: a class and, where there are objects, a number of each pixel.

    Args:
        classes: ``(H, W)``, -1 where void.
        numbers: Of objects ``(H, W)``, 0 for none. Pixels of one class without an object are one segment.

    Raises:
        ValueError: If the shapes differ, or a number is negative.
    """

    classes: np.ndarray
    numbers: np.ndarray

    def __post_init__(self) -> None:
        if self.classes.ndim != 2 or self.classes.shape != self.numbers.shape or (self.numbers < 0).any():
            raise ValueError(
                f"Segments are classes {self.classes.shape} and numbers {self.numbers.shape} of objects; expected the same "
                "(H, W), and numbers from 0."
            )

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """The segment of each pixel ``(H, W)``, -1 where void, and the class of each segment ``(K,)``."""
        kinds = np.stack([self.classes, self.numbers], axis=-1).reshape(-1, 2)
        kept = kinds[:, 0] >= 0
        segments, which = np.unique(kinds[kept], axis=0, return_inverse=True)
        image = np.full(len(kinds), -1, dtype=np.int64)
        image[kept] = which.reshape(-1)
        return image.reshape(self.classes.shape), segments[:, 0]


class PanopticQuality(NamedTuple):
    """Quality ``(C,)`` of each class, and its two factors: how well matched segments fit, and how many are found.

    NaN for classes that neither truth nor prediction has. `mean` is over the others.
    """

    quality: np.ndarray
    segmentation: np.ndarray
    recognition: np.ndarray

    @property
    def mean(self) -> float:
        """Of the quality of the classes that there are; NaN without one."""
        seen = ~np.isnan(self.quality)
        return float(self.quality[seen].mean()) if seen.any() else float("nan")


def panoptic_quality(pairs: Iterable[tuple[Segments, Segments]], classes: int) -> PanopticQuality:
    """Panoptic quality of images: the mean overlap of matched segments times the F1 score of matching.

    Args:
        pairs: Truth and prediction of one image after the other. Void pixels of the truth do not count, and a predicted
            segment that is void for the most part is no false one.
        classes: How many there are.

    Raises:
        ValueError: If truth and prediction differ in size, or a class is out of range.

    Source:
        Kirillov et al. (2019), Panoptic Segmentation, eq. 1 and section 4.
    """
    overlap, hits, false, missed = (np.zeros(classes) for _ in range(4))
    for truth, predicted in pairs:
        of_truth, truth_classes, of_guess, guess_classes = _of_both(truth, predicted, classes)
        table = _overlaps(of_truth, of_guess, len(truth_classes), len(guess_classes))
        void, sizes = table[-1, :-1], table[:, :-1].sum(axis=0)
        iou = _intersection_over_union(table, sizes - void)
        iou[truth_classes[:, None] != guess_classes] = 0
        matched = iou > MATCH
        for k, label in enumerate(truth_classes):
            overlap[label] += iou[k][matched[k]].sum()
            hits[label] += matched[k].any()
            missed[label] += not matched[k].any()
        wrong = ~matched.any(axis=0) & (void <= MATCH * sizes)
        false += np.bincount(guess_classes[wrong], minlength=classes)
    with np.errstate(invalid="ignore"):
        segmentation = np.where(hits > 0, overlap / hits, np.where(false + missed > 0, 0.0, np.nan))
        recognition = hits / (hits + (false + missed) / 2)
    return PanopticQuality(segmentation * recognition, segmentation, recognition)


def average_precision(images: Iterable[tuple[ArrayLike, ArrayLike, ArrayLike]], *, overlap: float = MATCH) -> float:
    """Area under the curve of precision against recall of objects.

    A predicted object is right if it overlaps a true one of its image, which no surer one has taken, by `overlap` or more of
    their union. Precision at a recall is the best at that recall or a higher one.

    Args:
        images: Numbers of the true objects ``(H, W)``, 0 for none and -1 for pixels that do not count; numbers of the
            predicted ones, 0 for none; and the confidence of predicted object k + 1 ``(K,)``, one image after the other.
        overlap: Intersection over union that makes a match.

    Returns:
        In [0, 1]; NaN without a true object.

    Raises:
        ValueError: If shapes differ, or confidences do not fit the numbers.

    Source:
        Hariharan et al. (2014), Simultaneous Detection and Segmentation; the area as PASCAL VOC has it since 2010.
    """
    confidence: list[np.ndarray] = []
    right: list[np.ndarray] = []
    total = 0
    for truth, predicted, scores in images:
        found = _matched(np.asarray(truth), np.asarray(predicted), np.asarray(scores, dtype=float), overlap)
        total += found.objects
        confidence.append(found.confidence)
        right.append(found.right)
    if not total:
        return float("nan")
    order = np.argsort(-np.concatenate(confidence), kind="stable")
    hits = np.concatenate(right)[order].cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best * np.diff(hits, prepend=0)).sum() / total)


class _Matched(NamedTuple):
    confidence: np.ndarray
    right: np.ndarray
    objects: int


def _matched(truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray, overlap: float) -> _Matched:
    """The predicted objects of one image: how sure they are, and whether they are right."""
    if truth.shape != predicted.shape or truth.ndim != 2 or scores.ndim != 1 or predicted.max(initial=0) > len(scores):
        raise ValueError(
            f"Truth has shape {truth.shape} and the prediction {predicted.shape}, with objects up to "
            f"{predicted.max(initial=0)} and confidences {scores.shape}; expected the same (H, W), and one confidence an "
            "object."
        )
    counted = truth >= 0
    objects = np.unique(truth[truth > 0])
    rows = np.where(truth > 0, np.searchsorted(objects, truth), len(objects))
    table = _overlaps(rows[counted], predicted[counted] - 1, len(objects), len(scores))
    sizes = table[:, :-1].sum(axis=0)
    iou = _intersection_over_union(table, sizes)
    there = np.flatnonzero(sizes > 0)
    right = np.zeros(len(scores), dtype=bool)
    taken = np.zeros(len(objects), dtype=bool)
    for k in there[np.argsort(-scores[there], kind="stable")]:
        free = np.where(taken, -1.0, iou[:, k])
        if len(free) and free.max() >= overlap:
            right[k] = taken[free.argmax()] = True
    return _Matched(scores[there], right[there], len(objects))


def _of_both(
    truth: Segments, predicted: Segments, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    if truth.classes.shape != predicted.classes.shape:
        raise ValueError(
            f"Truth and prediction have one size; got {truth.classes.shape} and {predicted.classes.shape}."
        )
    for name, segments in (("truth", truth), ("prediction", predicted)):
        if segments.classes.min() < -1 or segments.classes.max() >= classes:
            raise ValueError(
                f"Classes of the {name} range from {segments.classes.min()} to {segments.classes.max()}; expected 0 to "
                f"{classes - 1}, and -1 for void."
            )
    return *truth.found(), *predicted.found()


def _overlaps(truth: np.ndarray, guess: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Numbers of pixels ``(rows + 1, columns + 1)`` that segments share; the last row and column are of no segment."""
    row, column = np.where(truth < 0, rows, truth), np.where(guess < 0, columns, guess)
    cells = (row * (columns + 1) + column).ravel()
    return np.bincount(cells, minlength=(rows + 1) * (columns + 1)).reshape(rows + 1, columns + 1)


def _intersection_over_union(table: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Of each true and each predicted segment ``(rows, columns)``, of `_overlaps` and the sizes of the predicted ones."""
    shared = table[:-1, :-1]
    union = table[:-1].sum(axis=1)[:, None] + sizes - shared
    return np.asarray(shared / np.maximum(union, 1))
