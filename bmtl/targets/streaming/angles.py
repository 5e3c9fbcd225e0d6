"""Sums over directions: a histogram of angles, from which mean, median and shares follow."""

import numpy as np

from bmtl.targets.metrics.dense import THRESHOLDS, angles, threshold_name
from bmtl.targets.score import Scored
from bmtl.targets.streaming.sums import Additive, log_loss

STEP = 0.01
"""Width of a bin in degrees; the median is exact to half of it."""


class AngleSums(Additive):
    """Counts of angles between labels and mean directions, and sums of them and of log densities."""

    def __init__(self) -> None:
        self.rows = 0
        self.total = self.log_loss = 0.0
        self.counts = np.zeros(round(180 / STEP), dtype=np.int64)
        self.within = np.zeros(len(THRESHOLDS), dtype=np.int64)
        self.without_mean = self.without_density = 0  # batches

    def update(self, rows: Scored) -> None:
        """Adds a batch of labelled rows; where a mean has no direction, the scores of angles are NaN."""
        self.rows += len(rows.labels)
        if rows.prediction.has("mean"):
            found = angles(rows.labels, rows.mean())
            self.total += float(found.sum())
            self.within += [int((found < threshold).sum()) for threshold in THRESHOLDS]
            known = found[~np.isnan(found)]
            bins = np.minimum((known / STEP).astype(np.int64), self.counts.size - 1)
            self.counts += np.bincount(bins, minlength=self.counts.size)
        else:
            self.without_mean += 1
        density = log_loss(rows)
        self.log_loss += density or 0.0
        self.without_density += density is None

    def scores(self) -> dict[str, float]:
        if not self.rows:
            return {}
        found: dict[str, float] = {}
        if not self.without_density:
            found["nll"] = self.log_loss / self.rows
        if not self.without_mean:
            known = not np.isnan(self.total)
            found["mean_angle"] = self.total / self.rows
            found["median_angle"] = self._median() if known else float("nan")
            for threshold, hits in zip(THRESHOLDS, self.within, strict=True):
                found[threshold_name(threshold)] = float(hits / self.rows) if known else float("nan")
        return found

    def _median(self) -> float:
        """Middle of the bin of the middle angle; of an even number of angles, the mean of two such."""
        upto = np.cumsum(self.counts)
        middle = np.searchsorted(upto, [(self.rows - 1) // 2, self.rows // 2], side="right")
        return float((middle + 0.5).mean() * STEP)
