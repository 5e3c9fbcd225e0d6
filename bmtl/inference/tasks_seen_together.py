"""Which tasks have labels in the same batches, so that their gradients can be compared."""

import logging

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


class TasksSeenTogether:
    """Warns once of tasks whose gradients are never compared, since no batch has labels of both.

    Args:
        enough: Steps in which each of two tasks must have been present, before their never having met is said.
    """

    def __init__(self, enough: int = 20) -> None:
        self.enough = enough
        self._met: Tensor | None = None  # how often each pair was present, (K, K)
        self._given = False

    def step(self, names: tuple[str, ...], present: Tensor, weighting: str) -> None:
        """Counts a step.

        Args:
            names: The K tasks.
            present: Which of them have a label, bool ``(K,)``.
            weighting: Name of what compares their gradients.
        """
        if self._given or len(names) < 2:
            return
        if self._met is None:
            self._met = torch.zeros(len(names), len(names), dtype=torch.int64)
        here = present.to(torch.int64)
        self._met += here[:, None] * here
        steps = self._met.diagonal()
        apart = (self._met == 0) & (steps >= self.enough)[:, None] & (steps >= self.enough)
        if not apart.any():
            return
        self._given = True
        i, j = apart.nonzero()[0].tolist()
        logger.warning(
            "The tasks %r and %r were labelled in %d and %d steps and never in the same one, so that %r has not compared "
            "their gradients (%d pairs of tasks are like this). Let each batch have labels of all tasks: mix their rows in "
            "the loader, or give each task its own rows in one batch (bmtl.inputs.PerTask).",
            names[i],
            names[j],
            int(steps[i]),
            int(steps[j]),
            weighting,
            int(((self._met == 0) & (steps > 0)[:, None] & (steps > 0)).sum()) // 2,
        )
