"""Equal or fixed weights."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context, Transform


class EW(Transform):
    """The sum of the losses, each at weight 1 or at a weight of the user's (equal weighting).

    Differs from TorchJD's `Mean`, whose weights are 1/K.

    Args:
        weights: A weight by task name; tasks that are not named have 1. None weighs all tasks alike.

    Raises:
        ValueError: At set-up, if a named task does not exist; on construction, if a weight is negative or not finite.
        TypeError: If `weights` is no mapping.
    """

    name = "ew"
    cost = "1 backward"

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        if not isinstance(weights, Mapping | None):
            raise TypeError(f"weights maps tasks to numbers, and {weights!r} was given")
        for task, weight in (weights or {}).items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"A task's weight is 0 or more and finite, and task {task!r} was given {weight}.")
        self.given = dict(weights or {})
        self.weights: Tensor | None = None

    def options(self) -> dict[str, object]:
        return {"weights": self.given} if self.given else {}

    def bind(self, names: Sequence[str]) -> None:
        unknown = [task for task in self.given if task not in names]
        if unknown:
            raise ValueError(f"Weights were given for {unknown}, and the tasks are {list(names)}.")
        if self.given:
            self.weights = torch.tensor([float(self.given.get(name, 1.0)) for name in names], dtype=torch.float64)

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        return losses * 1.0 if self.weights is None else losses * self.weights[ctx.active]

    def loss_derivatives(self, losses: Tensor, ctx: Context) -> Tensor:
        # Constants: no graph is needed to differentiate them.
        return torch.ones_like(losses) if self.weights is None else self.weights[ctx.active]
