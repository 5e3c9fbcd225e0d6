"""Impartial multi-task learning, the part that balances losses."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bmtl.inference.balancing.base import Context, Transform
from bmtl.inference.balancing.transforms.own import one_each, present


class IMTLL(Transform):
    """Learns one scale a task so that all scaled losses are equal (IMTL-L, Liu et al. 2021).

    ``S = sum_k exp(s_k) L_k - s_k``. At a fixed loss, ``exp(s_k) L_k`` tends to 1.

    Differs from LibMTL, which fuses it with IMTL-G and trains ``s`` at the model's learning rate and weight decay: here it
    stands alone (``imtl-l >> imtl-g`` is the paper's IMTL), and ``s`` has a group of its own (learning rate 0.025, no
    decay).

    Args:
        s0: Where every logarithm of a scale starts.
        bound: What every loss must exceed; it is subtracted first.

    Raises:
        ValueError: If `s0` is not finite.
    """

    name = "imtl-l"
    paper = "Liu et al. 2021"
    cost = "1 backward"
    positive = True  # at a negative loss the objective has no minimum in s

    def __init__(self, s0: float = 0.0, bound: float = 0.0) -> None:
        super().__init__(bound)
        if not math.isfinite(s0):
            raise ValueError(f"s0 is the logarithm of a scale, a finite number, and {s0} was given.")
        self.s0 = s0
        self.s = nn.ParameterList()

    def options(self) -> dict[str, object]:
        return {k: v for k, v in (("s0", self.s0), ("bound", self.bound)) if v}

    def bind(self, names: Sequence[str]) -> None:
        if not len(self.s):
            self.s = one_each(torch.full((len(names),), float(self.s0), dtype=torch.float64))

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        s = present(self.s, ctx.active)
        return s.exp() * losses - s
