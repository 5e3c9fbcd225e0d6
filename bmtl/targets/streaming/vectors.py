"""Sums over vectors whose components have a common unit, such as displacements."""

import numpy as np

from bmtl.targets.score import Scored
from bmtl.targets.streaming.sums import Additive, log_loss


class VectorSums(Additive):
    """Sums of errors, of their lengths, and of log densities.

    Args:
        components: How many a vector has.
    """

    def __init__(self, components: int) -> None:
        self.rows = self.complete = 0
        self.distance = self.log_loss = 0.0
        self.absolute, self.seen = np.zeros(components), np.zeros(components, dtype=np.int64)
        self.without_mean = self.without_density = 0  # batches

    def update(self, rows: Scored) -> None:
        """Adds a batch of labelled rows."""
        self.rows += len(rows.labels)
        known = ~np.isnan(rows.labels)
        complete = known.all(axis=1)
        self.seen += known.sum(axis=0)
        self.complete += int(complete.sum())
        if rows.prediction.has("mean"):
            error = rows.labels - rows.mean()
            self.absolute += np.where(known, np.abs(error), 0.0).sum(axis=0)
            self.distance += float(np.linalg.norm(error[complete], axis=1).sum())
        else:
            self.without_mean += 1
        density = log_loss(rows)
        self.log_loss += density or 0.0
        self.without_density += density is None

    def scores(self) -> dict[str, float]:
        if not self.rows:
            return {}
        found: dict[str, float] = {}
        if not self.without_mean:
            some = self.seen > 0
            found["mae"] = float((self.absolute[some] / self.seen[some]).mean())
            if self.complete:
                found["distance"] = self.distance / self.complete
        if not self.without_density:
            found["nll"] = self.log_loss / self.rows
        return found
