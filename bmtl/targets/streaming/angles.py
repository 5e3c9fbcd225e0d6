"""Sums over directions: a histogram of angles, from which mean, median and shares follow."""

import numpy as np

from bmtl.targets.metrics.dense import THRESHOLDS, angles, threshold_name
from bmtl.targets.score import Scored
from bmtl.targets.streaming.sums import Additive

STEP = 0.01
"""Width of a bin in degrees; the median is exact to half of it."""


class AngleSums(Additive):
    """Counts of angles between labels and mean directions, and sums of them and of log densities."""

    def __init__(self) -> None:
        self.rows = 0
        self.total = self.log_loss = 0.0
        self.counts = np.zeros(round(180 / STEP), dtype=np.int64)
        self.within = np.zeros(len(THRESHOLDS), dtype=np.int64)

    def update(self, rows: Scored) -> None:
        """Adds a batch of labelled rows; without a mean, or where one has no direction, the scores are NaN."""
        count = len(rows.labels)
        self.rows += count
        found = angles(rows.labels, rows.mean()) if rows.prediction.has("mean") else np.full(count, np.nan)
        self.total += float(found.sum())
        self.within += [int((found < threshold).sum()) for threshold in THRESHOLDS]
        known = found[~np.isnan(found)]
        bins = np.minimum((known / STEP).astype(np.int64), self.counts.size - 1)
        self.counts += np.bincount(bins, minlength=self.counts.size)
        nll = rows.family.score("nll")
        self.log_loss += count * nll.compute(rows) if nll is not None and nll.computable(rows) else float("nan")

    def scores(self) -> dict[str, float]:
        if not self.rows:
            return {}
        found = {"nll": self.log_loss / self.rows}
        if not np.isnan(self.total):
            found["mean_angle"] = self.total / self.rows
            found["median_angle"] = self._median()
            for threshold, hits in zip(THRESHOLDS, self.within, strict=True):
                found[threshold_name(threshold)] = float(hits / self.rows)
        return {name: value for name, value in found.items() if not np.isnan(value)}

    def _median(self) -> float:
        """Middle of the bin of the middle angle; of an even number of angles, the mean of two such."""
        upto = np.cumsum(self.counts)
        middle = np.searchsorted(upto, [(self.rows - 1) // 2, self.rows // 2], side="right")
        return float((middle + 0.5).mean() * STEP)
