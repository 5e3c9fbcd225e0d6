"""Numbers that a transform learns, one parameter a task."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bmtl.inference.balancing.transforms.base import Transform


def one_each(values: Tensor) -> nn.ParameterList:
    """A parameter ``()`` for each value ``(K_all,)``.

    One vector of all tasks would give an absent task a gradient of 0, and an optimizer's momentum then moves its number
    nevertheless.
    """
    return nn.ParameterList([nn.Parameter(value.clone()) for value in values])


def present(numbers: nn.ParameterList, active: Tensor) -> Tensor:
    """The numbers ``(K,)`` of the tasks present, bool ``(K_all,)``; those of absent tasks stay out of the graph."""
    chosen = [number for number, here in zip(numbers, active.tolist(), strict=True) if here]
    return torch.stack(chosen) if chosen else torch.zeros(0, dtype=torch.float64)


class LearntLogs(Transform):
    """A transform with one learnt logarithm ``s_k`` a task; at a negative loss such an objective has no minimum in ``s``.

    Args:
        s0: Where every logarithm starts.
        bound: A lower bound on every loss; it is subtracted first.
    """

    domain = "nonnegative"

    def __init__(self, s0: float = 0.0, bound: float = 0.0) -> None:
        super().__init__(bound)
        self.s0 = s0
        self.s = nn.ParameterList()

    def bind(self, names: Sequence[str]) -> None:
        if not len(self.s):
            self.s = one_each(torch.full((len(names),), self.s0, dtype=torch.float64))
