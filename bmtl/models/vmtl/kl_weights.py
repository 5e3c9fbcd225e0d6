"""The factors of the divergences of w and z in the objective."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class KLWeights:
    """Constant weights; the evidence lower bound has 1 for both.

    Attributes:
        w: Of w.
        z: Of z.

    Raises:
        ValueError: If one is not positive.
    """

    w: float = 1.0
    z: float = 1.0

    def __post_init__(self) -> None:
        if not (self.w > 0 and self.z > 0):
            raise ValueError(f"Weights of divergences are positive, and {self} was given. A small one is 1e-7.")

    def w_at(self, step: Tensor, n_data: Sequence[int]) -> float | Tensor:
        """The weight of w's divergence at a step ``()``, counted from 0: a number, or one for each task ``(T, 1)``."""
        return self.w


@dataclass(frozen=True)
class ReleasedKLWeights:
    """Those of VMTL's released code.

    Its loss of a task is the *mean* cross entropy plus ``b KL_w`` plus 1e-7 of z's mean divergence, and b grows by 1e-6
    for each task in the first of every ten steps. Against a task's sum over its N_t data, w's weight is ``N_t b``.

    Attributes:
        z: Of z.
        growth: Of b, for each task.
        every: Steps between two.
    """

    z: float = 1e-7
    growth: float = 1e-6
    every: int = 10

    def w_at(self, step: Tensor, n_data: Sequence[int]) -> float | Tensor:
        """As `KLWeights.w_at`."""
        b = self.growth * len(n_data) * (1 + step // self.every).double()
        return torch.tensor([[n] for n in n_data], device=step.device) * b
