"""One of several classes in an order, such as a grade."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bmtl.targets.classes import Classes
from bmtl.targets.family import register
from bmtl.targets.metrics.ordinal import median_rank
from bmtl.targets.metrics.probabilities import checked
from bmtl.targets.score import Score, Scored
from bmtl.targets.scores import classes as scores


@register
@dataclass(frozen=True)
class Ordinal(Classes):
    """Ranks from 0 ``(N,)`` as int64, -1 where missing.

    Args:
        classes: Names of the levels, lowest first.
    """

    name: ClassVar[str] = "ordinal"
    loss_name: ClassVar[str] = "MAE of ranks"
    ordered: ClassVar[bool] = True
    classes: tuple[str, ...] = ("0", "1", "2")

    @property
    def scores(self) -> tuple[Score, ...]:
        return (scores.RANK_MAE, scores.ACCURACY, scores.KAPPA, scores.RPS, scores.NLL)

    @property
    def further_scores(self) -> tuple[Score, ...]:
        return (
            scores.BALANCED_ACCURACY,
            scores.AUROC,
            scores.BRIER,
            scores.ECE,
            scores.ENTROPY_RATIO,
            scores.ERROR_AUROC,
        )

    def primary(self, training_labels: np.ndarray) -> str:
        """The mean absolute error in ranks."""
        return scores.RANK_MAE.name

    def predicted(self, probability: np.ndarray) -> np.ndarray:
        """The median rank."""
        return median_rank(probability)

    def losses(self, rows: Scored) -> np.ndarray | None:
        """Distance of the median rank from the label, in ranks."""
        if rows.prediction.probability is None:
            return None
        y, p = checked(rows.labels, rows.prediction.probability)
        return np.where(np.isnan(p).any(axis=1), np.nan, np.abs(median_rank(p) - y))
