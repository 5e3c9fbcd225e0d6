"""Equal or fixed weights."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context
from bmtl.inference.balancing.options import NonNegative
from bmtl.inference.balancing.transforms.base import Transform


class EW(Transform):
    """The sum of the losses, with weight 1 or user-defined weights (equal weighting).

    Differs from TorchJD's `Mean`, whose weights are 1/K.

    Args:
        weights: A weight by task name, 0 or above; tasks that are not named have 1. None weights all tasks equally.

    Raises:
        ValueError: At set-up, if a named task does not exist.
    """

    name = "ew"
    cost = "1 backward"

    def __init__(self, weights: Mapping[str, NonNegative] | None = None) -> None:
        super().__init__()
        self.by_task = dict(weights or {})
        self.weights: Tensor | None = None

    def bind(self, names: Sequence[str]) -> None:
        unknown = [task for task in self.by_task if task not in names]
        if unknown:
            raise ValueError(f"Weights were given for {unknown}, and the tasks are {list(names)}.")
        if self.by_task:
            self.weights = torch.tensor([self.by_task.get(name, 1.0) for name in names], dtype=torch.float64)

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        return losses * 1.0 if self.weights is None else losses * self.weights[ctx.active]

    def loss_derivatives(self, losses: Tensor, ctx: Context) -> Tensor:
        # Constants: no graph is needed to differentiate them.
        return torch.ones_like(losses) if self.weights is None else self.weights[ctx.active]
