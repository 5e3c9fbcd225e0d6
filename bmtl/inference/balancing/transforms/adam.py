"""Adam on one number per task."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class TaskAdam(nn.Module):
    """Adam for transforms whose rule gives a gradient that no backward would (Kingma & Ba 2015).

    Unlike `torch.optim.Adam`, its moments and step counts are buffers, saved with the transform, and are kept per task: a
    task that is absent neither moves by its momentum nor ages.

    Args:
        lr: Learning rate.
    """

    mean: Tensor
    square: Tensor
    steps: Tensor

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr

    def bind(self, names: Sequence[str]) -> None:
        """Receives the names of all tasks, once."""
        if "mean" not in self._buffers:
            for name in ("mean", "square", "steps"):
                self.register_buffer(name, torch.zeros(len(names), dtype=torch.float64))

    def forward(self, gradient: Tensor, active: Tensor) -> Tensor:
        """The update of the present tasks' numbers ``(K,)``, given their gradient ``(K,)``."""
        steps = self.steps[active] + 1
        mean = 0.9 * self.mean[active] + 0.1 * gradient
        square = 0.999 * self.square[active] + 0.001 * gradient.square()
        self.steps[active], self.mean[active], self.square[active] = steps, mean, square
        return -self.lr * (mean / (1 - 0.9**steps)) / ((square / (1 - 0.999**steps)).sqrt() + 1e-8)
