"""Sums over vectors whose components have a common unit, such as displacements."""

import numpy as np

from bmtl.targets.score import Scored
from bmtl.targets.streaming.sums import Additive


class VectorSums(Additive):
    """Sums of errors, of their lengths, and of log densities.

    Args:
        components: How many a vector has.
    """

    def __init__(self, components: int) -> None:
        self.rows = self.complete = 0
        self.distance = self.log_loss = 0.0
        self.absolute, self.seen = np.zeros(components), np.zeros(components, dtype=np.int64)

    def update(self, rows: Scored) -> None:
        """Adds a batch of labelled rows; without a mean, the scores of errors are NaN."""
        count = len(rows.labels)
        self.rows += count
        known = ~np.isnan(rows.labels)
        error = rows.labels - rows.mean() if rows.prediction.has("mean") else np.full(rows.labels.shape, np.nan)
        self.seen += known.sum(axis=0)
        self.absolute += np.where(known, np.abs(error), 0.0).sum(axis=0)
        complete = known.all(axis=1)
        self.complete += int(complete.sum())
        self.distance += float(np.linalg.norm(error[complete], axis=1).sum())
        nll = rows.family.score("nll")
        self.log_loss += count * nll.compute(rows) if nll is not None and nll.computable(rows) else float("nan")

    def scores(self) -> dict[str, float]:
        if not self.rows:
            return {}
        some = self.seen > 0
        found = {
            "distance": self.distance / self.complete if self.complete else float("nan"),
            "mae": float((self.absolute[some] / self.seen[some]).mean()),
            "nll": self.log_loss / self.rows,
        }
        return {name: value for name, value in found.items() if not np.isnan(value)}
