"""What a model adds to the posterior of a results tree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np


@dataclass(frozen=True, eq=False)
class TreeVariable:
    """A variable of the posterior group.

    Attributes:
        values: ``(S, ...)``, a value per draw.
        dims: Names of the dimensions after the first.
        coords: Labels of those that have some.
    """

    values: np.ndarray
    dims: tuple[str, ...]
    coords: Mapping[str, Sequence[str]]

    @classmethod
    def correlations(cls, draws: Mapping[str, Any], targets: Sequence[str]) -> dict[str, Self]:
        """The site ``task_correlation`` ``(S, T, T)``, if it was drawn.

        Args:
            draws: Draws by site.
            targets: The T targets.
        """
        if "task_correlation" not in draws:
            return {}
        dims = ("task", "task_bis")
        values = np.asarray(draws["task_correlation"])
        return {"task_correlation": cls(values, dims, dict.fromkeys(dims, tuple(targets)))}
