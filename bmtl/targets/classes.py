"""One of several classes without an order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.family import Family, check_numeric, check_shape, first_row, read_only, register
from bmtl.targets.metrics.probabilities import checked, predicted_class
from bmtl.targets.score import Score, Scored
from bmtl.targets.scores import classes as scores
from bmtl.targets.streaming import ClassSums, Sums

_MOST_NAMES = 6
RARE = 0.2  # share of the training labels outside the most frequent class, below which accuracy says little


def check_class_names(names: Sequence[str], least: int = 2) -> tuple[str, ...]:
    """Names of classes as strings.

    Raises:
        ValueError: If there are fewer than `least`, or one is repeated.
    """
    if isinstance(names, str) or len(names) < least or len(set(map(str, names))) < len(names):
        raise ValueError(f"There are {least} or more classes, of different names; got {names!r}.")
    return tuple(map(str, names))


def check_indices(target: str, values: ArrayLike, rows: int, names: tuple[str, ...]) -> np.ndarray:
    """Class indices ``(N,)`` as int64, -1 where missing.

    Raises:
        ValueError: If the shape is another, or a label is not an index of a class.
    """
    array = np.asarray(values)
    check_numeric(target, array)
    check_shape(target, array, (rows,), "one label per row")
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), -1, array)
    outside = (array < -1) | (array >= len(names)) | (array != np.floor(array))
    if outside.any():
        raise ValueError(
            f"A label is a class from 0 to {len(names) - 1}, or -1 or NaN where it is missing, and "
            f"{first_row(target, array, outside)}."
        )
    return read_only(array.astype(np.int64))


@register
@dataclass(frozen=True)
class Classes(Family):
    """Class indices ``(N,)`` as int64, -1 where missing.

    Args:
        classes: Names of the classes, two or more.
        segments: Rows are pixels, which are judged by the mean intersection over union first.

    Raises:
        ValueError: If there are fewer, or a name is repeated.
    """

    name: ClassVar[str] = "classes"
    loss_name: ClassVar[str] = "error rate"
    classes: tuple[str, ...] = ("0", "1")
    segments: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", check_class_names(self.classes))

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.classes

    def summary(self, labels: np.ndarray) -> str:
        joint = " < " if self.ordered else ", "
        more = [*self.classes[:_MOST_NAMES], *(["..."] if len(self.classes) > _MOST_NAMES else [])]
        return f"{len(self.classes)} classes {joint.join(more)}"

    def check(self, target: str, values: ArrayLike, rows: int) -> np.ndarray:
        return check_indices(target, values, rows, self.classes)

    @property
    def scores(self) -> tuple[Score, ...]:
        return (
            *((scores.MEAN_IOU,) if self.segments else ()),
            scores.ACCURACY,
            scores.BALANCED_ACCURACY,
            scores.AUROC,
            scores.NLL,
            scores.BRIER,
            scores.ECE,
            scores.ENTROPY_RATIO,
        )

    @property
    def further_scores(self) -> tuple[Score, ...]:
        return (scores.AVERAGE_PRECISION, scores.ERROR_AUROC)

    def primary(self, training_labels: np.ndarray) -> str:
        """Accuracy; the area under the ROC curve where one class has more than 80 % of the training labels.

        There the accuracy of a constant is high, and independent of the other classes. Of pixels the mean intersection
        over union.
        """
        if self.segments:
            return scores.MEAN_IOU.name
        counts = np.bincount(training_labels[training_labels >= 0], minlength=1)
        rare = counts.sum() - counts.max() < RARE * counts.sum()
        return scores.AUROC.name if rare else scores.ACCURACY.name

    def losses(self, rows: Scored) -> np.ndarray | None:
        """0 where the most probable class is the label, else 1."""
        if rows.prediction.probability is None:
            return None
        y, p = checked(rows.labels, rows.prediction.probability)
        return np.where(np.isnan(p).any(axis=1), np.nan, predicted_class(p) != y)

    def predicted(self, probability: np.ndarray) -> np.ndarray:
        """The class that is predicted for each row ``(N,)``, from the probabilities ``(N, C)``: the most probable one."""
        return predicted_class(probability)

    def confusion(self, rows: Scored) -> np.ndarray | None:
        if rows.prediction.probability is None:
            return None
        y, p = checked(rows.labels, rows.prediction.probability)
        known = ~np.isnan(p).any(axis=1)
        counts = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        np.add.at(counts, (y[known], self.predicted(p[known]).astype(int)), 1)
        return counts

    def realised(self, rows: Scored) -> np.ndarray | None:
        """Negative log probability of the label in nats."""
        if rows.prediction.probability is None:
            return None
        y, p = checked(rows.labels, rows.prediction.probability)
        with np.errstate(divide="ignore"):
            return np.asarray(-np.log(p[np.arange(len(y)), y]))

    def sums(self) -> Sums | None:
        return ClassSums(len(self.classes))

    def missing(self, values: np.ndarray) -> np.ndarray:
        return values == -1


def numbered(count: int) -> tuple[str, ...]:
    """Names of classes that have none: their numbers."""
    return tuple(map(str, range(count)))
