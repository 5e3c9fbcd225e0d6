"""Numbers that a transform learns, one parameter a task."""

import torch
from torch import Tensor, nn


def one_each(values: Tensor) -> nn.ParameterList:
    """A parameter ``()`` for each value ``(K_all,)``.

    One vector of all tasks would give an absent task a gradient of 0, and an optimizer's momentum then moves its number
    all the same.
    """
    return nn.ParameterList([nn.Parameter(value.clone()) for value in values])


def present(numbers: nn.ParameterList, active: Tensor) -> Tensor:
    """The numbers ``(K,)`` of the tasks present, bool ``(K_all,)``; those of absent tasks stay out of the graph."""
    chosen = [number for number, here in zip(numbers, active.tolist(), strict=True) if here]
    return torch.stack(chosen) if chosen else torch.zeros(0, dtype=torch.float64)
