"""Sums over labelled rows from which scores follow, a batch at a time; those of two parts of the rows add up."""

from typing import Protocol, Self

import numpy as np

from bmtl.targets.metrics.binning import bin_numbers
from bmtl.targets.metrics.dense import confusion_matrix, mean_iou
from bmtl.targets.metrics.pit import LEVELS, rounding
from bmtl.targets.metrics.probabilities import checked, predicted_class
from bmtl.targets.score import Scored

BINS = 15  # of the calibration error of classes


class Sums(Protocol):
    """Sums over labelled rows."""

    def update(self, rows: Scored) -> None:
        """Adds a batch of labelled rows, one at least."""
        ...

    def merge(self, other: Self) -> None:
        """Adds the sums over other rows."""
        ...

    def scores(self) -> dict[str, float]:
        """Scores of all rows so far by name, those whose fields every batch had; none without a row.

        A score is NaN where a row's prediction is: it is not for the rows that were kept to answer instead.
        """
        ...


class Additive:
    """Sums all of whose attributes add up."""

    def merge(self, other: Self) -> None:
        """Adds the sums over other rows."""
        for name, values in vars(other).items():
            setattr(self, name, getattr(self, name) + values)


def log_loss(rows: Scored) -> float | None:
    """Sum of the negative log densities of labelled rows; None where the prediction has none."""
    nll = rows.family.score("nll")
    return len(rows.labels) * nll.compute(rows) if nll is not None and nll.computable(rows) else None


class ClassSums(Additive):
    """Confusion matrix, calibration counts and sums of losses of class probabilities.

    Args:
        classes: How many there are.
    """

    def __init__(self, classes: int) -> None:
        self.confusion = np.zeros((classes, classes), dtype=np.int64)
        self.confidence, self.hits, self.counts = np.zeros(BINS), np.zeros(BINS), np.zeros(BINS, dtype=np.int64)
        self.log_loss = self.brier = 0.0
        self.unknown = 0  # rows with a probability that is NaN: they are predicted to be of no class

    def update(self, rows: Scored) -> None:
        """Adds a batch of labelled rows.

        Raises:
            ValueError: If the prediction has no class probabilities, or they do not fit the labels.
        """
        if rows.prediction.probability is None:
            raise ValueError("The prediction has no class probabilities; give `probability`.")
        y, p = checked(rows.labels, rows.prediction.probability)
        self.unknown += int(np.isnan(p).any(axis=1).sum())
        guess, confidence = predicted_class(p), p.max(axis=1)
        self.confusion += confusion_matrix(y, guess, len(self.confusion))
        numbers = bin_numbers(confidence, BINS, "width")
        self.confidence += np.bincount(numbers, confidence, minlength=BINS)
        self.hits += np.bincount(numbers, guess == y, minlength=BINS)
        self.counts += np.bincount(numbers, minlength=BINS)
        of_label = p[np.arange(y.size), y]
        with np.errstate(divide="ignore"):
            self.log_loss += float(-np.log(of_label.clip(0, 1)).sum())
        # sum_c (p_c - [y = c])^2
        self.brier += float((np.square(p).sum(axis=1) - 2 * of_label + 1).sum())

    def scores(self) -> dict[str, float]:
        rows = int(self.confusion.sum())
        if not rows:
            return {}
        of_class, hits = self.confusion.sum(axis=1), np.diag(self.confusion)
        seen, full = of_class > 0, self.counts > 0
        gaps = np.abs(self.confidence[full] - self.hits[full])
        found = {
            "accuracy": float(hits.sum() / rows),
            "balanced_accuracy": float((hits[seen] / of_class[seen]).mean()),
            "mean_iou": mean_iou(self.confusion),
            "nll": self.log_loss / rows,
            "brier": self.brier / rows,
            "ece": float(gaps.sum() / rows),
        }
        return dict.fromkeys(found, float("nan")) if self.unknown else found


class NumberSums:
    """Sums of errors, of log densities and of coverage counts of real numbers and counts.

    The CRPS is none of them: of a mixture over draws it is an integral, which for millions of rows takes hours.

    Args:
        relative: Labels are positive, and errors relative to them are summed too.
    """

    def __init__(self, *, relative: bool = False) -> None:
        self.rows = 0
        self.relative: float | None = 0.0 if relative else None
        self.absolute = self.squared = self.log_loss = 0.0
        self.mean = self.spread = 0.0  # of the labels: their mean, and the sum of squares about it
        self.covered = np.zeros(LEVELS.size)  # NaN where a cdf is
        self.lacking = {"mean": 0, "density": 0, "pit": 0}  # batches without each

    def update(self, rows: Scored) -> None:
        """Adds a batch of labelled rows; a score that needs what the prediction lacks is left out."""
        labels, prediction = rows.labels, rows.prediction
        if prediction.mean is None:
            self.lacking["mean"] += 1
        else:
            error = labels - prediction.mean
            self.absolute += float(np.abs(error).sum())
            self.squared += float(np.square(error).sum())
            if self.relative is not None:
                self.relative += float(np.abs(error / labels).sum())
        self._labels(len(labels), float(labels.mean()), float(np.square(labels - labels.mean()).sum()))
        found, pit = log_loss(rows), rows.pit()
        self.log_loss += found or 0.0
        self.lacking["density"] += found is None
        if pit is None:
            self.lacking["pit"] += 1
        elif np.isnan(pit).any():
            self.covered = np.full(LEVELS.size, np.nan)
        else:
            folded = np.sort(np.abs(2 * np.clip(pit, 0, 1) - 1)) - rounding(pit)
            self.covered = self.covered + np.searchsorted(folded, LEVELS, side="right")

    def merge(self, other: Self) -> None:
        for name in ("absolute", "squared", "log_loss", "covered"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if self.relative is not None and other.relative is not None:
            self.relative += other.relative
        self.lacking = {name: count + other.lacking[name] for name, count in self.lacking.items()}
        self._labels(other.rows, other.mean, other.spread)

    def scores(self) -> dict[str, float]:
        if not self.rows:
            return {}
        found: dict[str, float] = {}
        if not self.lacking["mean"]:
            found["mae"] = self.absolute / self.rows
            if self.relative is not None:
                found["relative_error"] = self.relative / self.rows
            found["rmse"] = float(np.sqrt(self.squared / self.rows))
            if self.spread:  # else labels are all equal
                found["r2"] = 1 - self.squared / self.spread
        if not self.lacking["density"]:
            found["nll"] = self.log_loss / self.rows
        if not self.lacking["pit"]:
            found["ece"] = float(np.abs(self.covered / self.rows - LEVELS).mean())
        return found

    def _labels(self, count: int, mean: float, spread: float) -> None:
        """Adds the mean and the sum of squares about it of further labels (Chan, Golub & LeVeque 1983)."""
        if not count:
            return
        total = self.rows + count
        apart = mean - self.mean
        self.spread += spread + apart**2 * self.rows * count / total
        self.mean += apart * count / total
        self.rows = total
