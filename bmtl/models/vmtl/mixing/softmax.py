"""Weights without noise: equal, or learnt."""

import torch
from torch import Tensor, nn

from bmtl.models.vmtl.mixing.base import Mixing


class Mean(Mixing):
    """Equal weights, ``1 / (T - 1)``."""

    drawn = False

    def __init__(self, tasks: int) -> None:
        super().__init__(tasks)
        self.equal = nn.Buffer(torch.full(self.shape, 1 / (tasks - 1)), persistent=False)

    def weights(self, site: str, step: Tensor) -> Tensor:
        return self.equal

    def expected(self) -> Tensor:
        return self.equal.squeeze(1)


class Learned(Mixing):
    """The softmax of free logits, from zero."""

    drawn = False

    def __init__(self, tasks: int) -> None:
        super().__init__(tasks)
        self.logits = nn.Parameter(torch.zeros(self.shape))

    def weights(self, site: str, step: Tensor) -> Tensor:
        return self.logits.softmax(-1)

    def expected(self) -> Tensor:
        return self.logits.detach().softmax(-1).squeeze(1)
