"""One of two classes, the second of which is the event."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bmtl.targets.classes import Classes
from bmtl.targets.family import register
from bmtl.targets.score import Score
from bmtl.targets.scores import classes as scores


@register
@dataclass(frozen=True)
class Binary(Classes):
    """Labels 0 and 1 ``(N,)`` as int64, -1 where missing; 1 is the event ("positive").

    Args:
        classes: Names of 0 and of 1.

    Raises:
        ValueError: If there are not two.
    """

    name: ClassVar[str] = "binary"
    classes: tuple[str, ...] = ("0", "1")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.classes) != 2:
            raise ValueError(f"A binary target has two classes; got {self.classes!r}.")

    def summary(self, labels: np.ndarray) -> str:
        """The share of the event."""
        if not len(labels):
            return super().summary(labels)
        return f"{np.mean(labels == 1):.1%} {self.classes[1]!r} (the event) and the rest {self.classes[0]!r}"

    @property
    def scores(self) -> tuple[Score, ...]:
        return (
            scores.ACCURACY,
            scores.BALANCED_ACCURACY,
            scores.AUROC,
            scores.AVERAGE_PRECISION,
            scores.NLL,
            scores.BRIER,
            scores.ECE,
            scores.ENTROPY_RATIO,
        )

    @property
    def further_scores(self) -> tuple[Score, ...]:
        return (scores.ERROR_AUROC,)
